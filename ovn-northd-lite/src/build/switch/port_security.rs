//! Port security: a workload may only send from the addresses it was given, and gets
//! only what is for them. Without entries a port is not checked.

use std::net::{IpAddr, Ipv4Addr};

use crate::{
    build::{
        address::{link_local, one_of},
        sink::FlowSink,
        stage::{SwitchIn, SwitchOut},
        topology::{SwitchPortInput, SwitchTraits},
    },
    expr::lexer::quote,
    model::{IpNetwork, PortSecurity, SwitchPortKind},
};

pub(super) fn switch(switch: &SwitchTraits, sink: &mut FlowSink) {
    let object = &switch.object;
    let unchecked = "What no entry of port security speaks about passes.";
    sink.add(SwitchIn::PortSecIp, 0, "1", "next;", object, unchecked);
    sink.add(SwitchIn::PortSecNd, 0, "1", "next;", object, unchecked);
    sink.add(SwitchOut::PortSecIp, 0, "1", "next;", object, unchecked);
    sink.add(SwitchOut::PortSecL2, 0, "1", "drop;", object, "The frame is for no port of the switch.");
    sink.add(
        SwitchOut::PortSecL2,
        100,
        "eth.mcast",
        "output;",
        object,
        "Group addresses are for every port; the IP addresses were checked before.",
    );
}

pub(super) fn port(input: &SwitchPortInput<'_>, sink: &mut FlowSink) {
    if !input.port.enabled {
        return;
    }
    let entries = match &input.port.kind {
        SwitchPortKind::Workload { port_security, .. } => port_security.as_slice(),
        SwitchPortKind::Router { .. } | SwitchPortKind::Switch { .. } | SwitchPortKind::Network { .. } => &[],
    };
    let checked = Checked { object: &input.object, port: quote(input.id), entries };
    checked.l2(sink);
    checked.ip_source(sink);
    checked.nd_source(sink);
    checked.ip_destination(sink);
}

/// A port that is on, with its entries.
struct Checked<'a> {
    object: &'a str,
    port: String,
    entries: &'a [PortSecurity],
}

impl Checked<'_> {
    /// MAC addresses, both ways.
    fn l2(&self, sink: &mut FlowSink) {
        let Self { object, port, entries } = self;
        let (inport, outport) = (format!("inport == {port}"), format!("outport == {port}"));
        if entries.is_empty() {
            let why = "The port has no port security.";
            sink.add(SwitchIn::PortSecL2, 50, inport, "next;", object, why);
            sink.add(SwitchOut::PortSecL2, 50, outport, "output;", object, why);
            return;
        }
        let macs = one_of(&entries.iter().map(|entry| entry.mac.to_string()).collect::<Vec<_>>());
        let allowed = "Port security allows this MAC address.";
        let other = "Port security names other MAC addresses.";
        let matching = format!("{inport} && eth.src == {macs}");
        sink.add(SwitchIn::PortSecL2, 50, matching, "next;", object, allowed);
        sink.add(SwitchIn::PortSecL2, 40, inport, "drop;", object, other);
        let matching = format!("{outport} && eth.dst == {macs}");
        sink.add(SwitchOut::PortSecL2, 50, matching, "output;", object, allowed);
        sink.add(SwitchOut::PortSecL2, 40, outport, "drop;", object, other);
    }

    /// Source addresses of IP packets.
    fn ip_source(&self, sink: &mut FlowSink) {
        let object = self.object;
        let mut add = |priority, matching: String, actions: &str, why: &str| {
            sink.add(SwitchIn::PortSecIp, priority, matching, actions, object, why);
        };
        for entry in self.entries.iter().filter(|entry| !entry.ips.is_empty()) {
            let from = format!("inport == {} && eth.src == {}", self.port, entry.mac);
            let allowed = "Port security allows these addresses with this MAC address.";
            let (v4, v6) = families(entry);
            if !v4.is_empty() {
                let matching = format!("{from} && ip4.src == {}", one_of(&v4));
                add(90, matching, "next;", allowed);
                let matching = format!(
                    "{from} && ip4.src == 0.0.0.0 && ip4.dst == 255.255.255.255 && udp.src == 68 && udp.dst == 67"
                );
                add(90, matching, "next;", "DHCP starts without an address (RFC 2131 §4.1).");
            }
            if !v6.is_empty() {
                add(90, format!("{from} && ip6.src == {}", one_of(&v6)), "next;", allowed);
                let matching = format!(
                    "{from} && ip6.src == :: && ip6.dst == ff02::/16 && icmp6.type == {{131, 135, 143}}"
                );
                let why = "Address checks and group reports start without an address (RFC 4862 §5.4.2).";
                add(90, matching, "next;", why);
            }
            add(80, format!("{from} && ip"), "drop;", "Port security names other source addresses.");
        }
    }

    /// Addresses that ARP and ND speak about.
    fn nd_source(&self, sink: &mut FlowSink) {
        let object = self.object;
        let mut add = |priority, matching: String, actions: &str, why: &str| {
            sink.add(SwitchIn::PortSecNd, priority, matching, actions, object, why);
        };
        for entry in self.entries {
            let mac = entry.mac;
            let from = format!("inport == {} && eth.src == {mac}", self.port);
            let (v4, v6) = families(entry);
            let allowed = "The port speaks for addresses that port security allows.";
            if !v4.is_empty() || entry.ips.is_empty() {
                let mut matching = format!("{from} && arp.sha == {mac}");
                if !v4.is_empty() {
                    // A probe for its own address has no sender address (RFC 5227 §2.1.1).
                    let senders: Vec<_> = v4.iter().cloned().chain(["0.0.0.0".to_owned()]).collect();
                    matching.push_str(&format!(" && arp.spa == {}", one_of(&senders)));
                }
                add(90, matching, "next;", allowed);
            }
            if !v6.is_empty() || entry.ips.is_empty() {
                let lladdr = format!("{{00:00:00:00:00:00, {mac}}}");
                add(90, format!("{from} && nd.sll == {lladdr}"), "next;", allowed);
                let mut matching = format!("{from} && nd.tll == {lladdr}");
                if !v6.is_empty() {
                    matching.push_str(&format!(" && nd.target == {}", one_of(&v6)));
                }
                add(90, matching, "next;", allowed);
            }
        }
        if !self.entries.is_empty() {
            let matching = format!("inport == {} && (arp || nd || nd_ra)", self.port);
            add(80, matching, "drop;", "The port would speak for addresses that are not its own.");
        }
    }

    /// Destination addresses of IP packets.
    fn ip_destination(&self, sink: &mut FlowSink) {
        let object = self.object;
        let mut add = |priority, matching: String, actions: &str, why: &str| {
            sink.add(SwitchOut::PortSecIp, priority, matching, actions, object, why);
        };
        for entry in self.entries.iter().filter(|entry| !entry.ips.is_empty()) {
            let to = format!("outport == {} && eth.dst == {}", self.port, entry.mac);
            let allowed = "Port security allows these addresses with this MAC address.";
            let (v4, v6) = families(entry);
            if !v4.is_empty() {
                let groups = [Ipv4Addr::BROADCAST.to_string(), "224.0.0.0/4".to_owned()];
                let subnets = entry.ips.iter().filter_map(IpNetwork::broadcast).map(|ip| ip.to_string());
                let all: Vec<_> = groups.into_iter().chain(subnets).chain(v4).collect();
                add(90, format!("{to} && ip4.dst == {}", one_of(&all)), "next;", allowed);
            }
            if !v6.is_empty() {
                let all: Vec<_> = v6.into_iter().chain(["ff00::/8".to_owned()]).collect();
                add(90, format!("{to} && ip6.dst == {}", one_of(&all)), "next;", allowed);
            }
            add(80, format!("{to} && ip"), "drop;", "Port security names other destination addresses.");
        }
    }
}

/// An entry's addresses by family, as text; with IPv6 the link-local address too.
fn families(entry: &PortSecurity) -> (Vec<String>, Vec<String>) {
    let (v4, v6): (Vec<_>, Vec<_>) = entry.ips.iter().partition(|ip| ip.addr.is_ipv4());
    let mut v6: Vec<_> = v6.into_iter().map(allowed_text).collect();
    if !v6.is_empty() {
        v6.insert(0, link_local(entry.mac).to_string());
    }
    (v4.into_iter().map(allowed_text).collect(), v6)
}

/// A whole network when the host's bits are zero, else the one address (as in OVN, where
/// the length then only tells the broadcast address).
fn allowed_text(network: &IpNetwork) -> String {
    let is_network = network.base() == network.addr;
    if is_network { network.text() } else { IpAddr::to_string(&network.addr) }
}
