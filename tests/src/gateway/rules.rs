//! The gateway's rules: a stateful firewall that translates addresses, as one writes it by hand.

use std::net::IpAddr;

use super::{Family, Gateway, Translation};

/// Conversations that the client may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opening {
    /// `tcp`, `udp` or `icmp`.
    pub proto: &'static str,
    /// The server's port; `None`: any.
    pub port: Option<u16>,
    /// What helps the tracker with them, `ftp`.
    pub alg: Option<&'static str>,
}

impl Opening {
    /// A protocol, whatever the port.
    pub fn any(proto: &'static str) -> Self {
        Self { proto, port: None, alg: None }
    }

    /// One port of a protocol.
    pub fn port(proto: &'static str, port: u16, alg: Option<&'static str>) -> Self {
        Self { proto, port: Some(port), alg }
    }

    /// As a match of a rule. Datagrams come in fragments, of which only the first has ports; the tracker
    /// knows them of all.
    fn fields(self, family: Family) -> String {
        let [ip, _] = family.fields();
        let six = if family == Family::V6 { "6" } else { "" };
        match (self.proto, self.port) {
            ("udp", Some(port)) => format!("{ip},ct_nw_proto=17,ct_tp_dst={port}"),
            (proto, Some(port)) => format!("{proto}{six},tp_dst={port}"),
            (proto, None) => format!("{proto}{six}"),
        }
    }
}

/// The gateway's rules: the client may begin these conversations, the world may only answer, and begin what
/// belongs to them. Zone 1 translates the server's address, zone 2 the client's; each way goes through both.
pub fn rules(translation: Translation, openings: &[Opening]) -> Vec<String> {
    Family::ALL.into_iter().flat_map(|family| rules_of(family, translation, openings)).collect()
}

fn rules_of(family: Family, translation: Translation, openings: &[Opening]) -> Vec<String> {
    let [ip, dst] = family.fields();
    let nat = |what: &str, ip: IpAddr| {
        if ip.is_ipv6() { format!(",nat({what}=[{ip}])") } else { format!(",nat({what}={ip})") }
    };
    let to_server = if translation.destination { nat("dst", family.server()) } else { String::new() };
    let from_public = if translation.source { nat("src", family.public()) } else { String::new() };
    let target = format!(",{dst}={}", translation.server(family));
    let mut rules = vec![
        format!("table=0,priority=5,in_port=1,{ip},actions=ct(table=1,zone=1,nat)"),
        format!("table=0,priority=5,in_port=2,{ip},actions=ct(table=5,zone=2,nat)"),
        format!("table=2,{ip},actions=ct(table=3,zone=2,nat)"),
        format!("table=6,{ip},actions=ct(table=7,zone=1,nat)"),
    ];
    // Way, table, zone, and which table is next.
    for (is_out, table, zone, next) in [(true, 1, 1, 2), (true, 3, 2, 9), (false, 5, 2, 6), (false, 7, 1, 9)]
    {
        let rule = |priority: u8, fields: &str, state: &str, actions: &str| {
            format!("table={table},priority={priority},{fields},ct_state=+trk{state},actions={actions}")
        };
        let commit = |more: &str| format!("ct(commit,table={next},zone={zone}{more})");
        rules.extend([
            rule(9, ip, "+inv", "drop"),
            rule(8, ip, "+new+rel", &commit(",nat")),
            rule(7, ip, "-new-inv", &format!("goto_table:{next}")),
            // Not answered yet: the look at the connection has given it the server's address.
            rule(7, ip, "+new-rel+dnat", &format!("goto_table:{next}")),
            rule(1, ip, "+new-rel", "drop"),
        ]);
        // Each zone has to know what the conversation is about.
        for opening in openings.iter().filter(|_| is_out) {
            let alg = opening.alg.map_or_else(String::new, |alg| format!(",alg={alg}"));
            let (fields, nat) = match zone {
                1 => (opening.fields(family) + &target, &to_server),
                _ => (opening.fields(family), &from_public),
            };
            rules.push(rule(5, &fields, "+new-rel", &commit(&format!("{nat}{alg}"))));
        }
    }
    rules.extend([
        format!("table=9,priority=2,{ip},{dst}={},actions={}", family.client(), Gateway::forward(Some(1))),
        format!("table=9,priority=1,{ip},actions={}", Gateway::forward(None)),
    ]);
    rules
}
