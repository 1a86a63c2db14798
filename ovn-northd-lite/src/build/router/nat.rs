//! Address translation. On a router of one chassis all kinds, by connections: destinations
//! in the router's one zone, sources in its other, so that both can happen to one
//! connection. So does a router that is everywhere at a gateway port, on the host that is
//! the gateway; a distributed floating address has the host of its workload instead.
//! Elsewhere such a router does only what needs no memory: a floating address rewritten
//! as it passes, at any host and in both directions alike.
//!
//! A packet that leaves by a port towards an address which is translated there is turned
//! around at the port's end (`egr_loop`), as if the network there had sent it back: one from
//! inside to a workload's address outside, and the answer to the address that hid who asked.

use crate::{
    build::{
        balancer::family,
        gateway,
        sink::FlowSink,
        stage::{RouterIn, RouterOut, Stage},
        topology::{NatInput, RouterPorts},
    },
    expr::{check_match, lexer::quote},
    model::{Distributed, IpNetwork, NatKind, NatRule},
};

/// Lowest priority of rules with a condition of their own: above 3 * 129 + 3.
const CONDITIONAL: u16 = 400;

pub(super) fn nat(input: &NatInput<'_>, sink: &mut FlowSink) {
    if let Some(nat) = Nat::of(input) {
        nat.build(sink);
    }
}

pub(super) fn router(input: &RouterPorts<'_>, sink: &mut FlowSink) {
    let object = &input.router.object;
    for (stage, why) in [
        (Stage::from(RouterIn::UnSnat), "Not an answer to a translated source."),
        (RouterOut::UnDnat.into(), "Not an answer of a translated destination."),
        (RouterOut::Snat.into(), "The source is not translated."),
        (RouterOut::EgrLoop.into(), "The packet leaves the router."),
    ] {
        sink.add(stage, 0, "1", "next;", object, why);
    }
    if !input.router.connects {
        return;
    }
    let places = match &input.router.chassis {
        Some(_) => vec!["ip".to_owned()],
        None => input.gateway_ports().map(|(id, _)| format!("outport == {} && ip", quote(id))).collect(),
    };
    for place in places {
        let why = "Answers of translated destinations come from the address that was asked.";
        sink.add(RouterOut::UnDnat, 50, place, "ct_dnat;", object, why);
        let why = "Neighbours are found without translation.";
        sink.add(RouterOut::UnDnat, 60, "nd || nd_rs || nd_ra", "next;", object, why);
    }
}

/// A translation that this router can do.
struct Nat<'a> {
    object: String,
    rule: &'a NatRule,
    /// `ip4` or `ip6`.
    family: &'static str,
    /// Packets from outside, ending in ` && ` when there is a condition.
    from_outside: String,
    /// Packets to the outside, likewise.
    to_outside: String,
    /// Port that has the address outside.
    outside: Option<(&'a str, String)>,
    /// Done on the workload's own host.
    distributed: Option<&'a Distributed>,
    /// The router knows answers of translated destinations.
    connects: bool,
    /// Has the source translated too, where the router does that; else empty.
    forced: &'static str,
    /// What it does not translate is remembered, too.
    commits_all: bool,
}

impl<'a> Nat<'a> {
    fn of(input: &NatInput<'a>) -> Option<Self> {
        let rule = input.rule;
        if rule.condition.as_ref().is_some_and(|condition| check_match(&condition.matching).is_err()) {
            return None;
        }
        let is_pinned = input.ports.router.chassis.is_some();
        let needs_no_memory = rule.kind == NatKind::Both && rule.stateless;
        let outside = gateway_port(&input.ports, rule);
        let at = |port: &str| input.ports.gateway_ports().any(|(id, _)| id == port);
        let is_gateway = outside.as_ref().is_some_and(|(port, _)| at(port));
        if !is_pinned && !is_gateway && !needs_no_memory {
            return None;
        }
        let distributed = rule.distributed.as_ref().filter(|_| is_gateway);
        // A router of one chassis has no inside and outside, but for rules that name a port.
        let bound = outside.as_ref().filter(|_| !is_pinned || rule.gateway_port.is_some());
        if bound.is_none() && (!is_pinned || rule.gateway_port.is_some()) {
            return None;
        }
        let resident = distributed
            .map(|own| format!("is_chassis_resident({}) && ", quote(&own.port)))
            .unwrap_or_default();
        let condition = |direction: &str| {
            bound
                .map_or_else(String::new, |(port, _)| format!("{direction} == {} && {resident}", quote(port)))
        };
        let is_v4 = rule.external_ip.is_ipv4();
        let forces = input.ports.router.options.dnat_sources.iter().any(|ip| ip.is_ipv4() == is_v4);
        Some(Self {
            object: input.object.clone(),
            rule,
            family: family(rule.external_ip),
            from_outside: condition("inport"),
            to_outside: condition("outport"),
            outside,
            distributed,
            connects: input.ports.router.connects,
            commits_all: input.ports.router.options.commits_all,
            forced: if forces { "flags.force_snat_for_dnat = 1; " } else { "" },
        })
    }

    fn build(&self, sink: &mut FlowSink) {
        if self.rule.kind != NatKind::Source {
            self.destination(sink);
        }
        if self.rule.kind != NatKind::Destination {
            self.source(sink);
        }
        match self.distributed {
            Some(own) => self.at_home(own, sink),
            None => self.at_gateway(sink),
        }
        self.turn_around(sink);
    }

    fn destination(&self, sink: &mut FlowSink) {
        let Self { rule, family, from_outside, .. } = self;
        let matching = format!("{from_outside}{family}.dst == {}", rule.external_ip);
        let inside = rule.logical_ip.addr;
        let actions = if rule.stateless {
            format!("{family}.dst = {inside}; next;")
        } else {
            format!("{}ct_dnat({inside});", self.forced)
        };
        let why = "The address outside stands for one inside.";
        let (priority, matching) = self.conditional(100, matching);
        self.for_peers(sink, RouterIn::Dnat.into(), ("src", priority, &matching), &actions, why);
    }

    fn source(&self, sink: &mut FlowSink) {
        let Self { rule, family, from_outside, to_outside, object, .. } = self;
        let (ip, inside) = (rule.external_ip, rule.logical_ip.text());
        if !rule.stateless {
            let matching = format!("{from_outside}{family}.dst == {ip}");
            let why = "It may be an answer to a translated source.";
            sink.add(RouterIn::UnSnat, 90, matching, "ct_snat;", object, why);
        }
        let actions = match rule.external_ports {
            _ if rule.stateless => format!("{family}.src = {ip}; next;"),
            None => format!("ct_snat({ip});"),
            Some((first, last)) => format!("ct_snat({ip}, {first}..{last});"),
        };
        let priority = 3 * (u16::from(rule.logical_ip.prefix_len) + 1) + u16::from(!to_outside.is_empty());
        // An answer of a translated destination has its source already.
        let asks = if self.connects && !rule.stateless { " && (!ct.trk || !ct.rpl)" } else { "" };
        let matching = format!("{to_outside}{family}.src == {inside}{asks}");
        let why = "The source inside becomes the address outside.";
        let (priority, matching) = self.conditional(priority, matching);
        self.for_peers(sink, RouterOut::Snat.into(), ("dst", priority, &matching), &actions, why);
    }

    /// With the rule's own condition, above all rules that have none.
    fn conditional(&self, priority: u16, matching: String) -> (u16, String) {
        match &self.rule.condition {
            Some(condition) => {
                let priority = CONDITIONAL.saturating_add(condition.priority.get().saturating_mul(3));
                (priority, format!("{matching} && ({})", condition.matching))
            }
            None => (priority, matching),
        }
    }

    /// Adds the flow for those peers outside that it is for.
    fn for_peers(
        &self,
        sink: &mut FlowSink,
        stage: Stage,
        (peer, priority, matching): (&str, u16, &str),
        actions: &str,
        why: &str,
    ) {
        let Self { rule, family, object, .. } = self;
        let texts = |list: &[IpNetwork]| {
            let texts: Vec<_> = list.iter().map(IpNetwork::text).collect();
            format!("{matching} && {family}.{peer} == {{{}}}", texts.join(", "))
        };
        if !rule.exempted_external_ips.is_empty() {
            let exempted = texts(&rule.exempted_external_ips);
            let why = "The translation is not for this peer.";
            let is_source = stage == Stage::from(RouterOut::Snat);
            let pass = if self.commits_all && is_source { super::commit::REMEMBER } else { "next;" };
            sink.add(stage, priority + 2, exempted, pass, object, why);
        }
        let matching = if rule.allowed_external_ips.is_empty() {
            matching.to_owned()
        } else {
            texts(&rule.allowed_external_ips)
        };
        sink.add(stage, priority, matching, actions, object, why);
    }

    /// The workload's host takes the packets from outside, and lets out what it sends there,
    /// without the gateway.
    fn at_home(&self, own: &Distributed, sink: &mut FlowSink) {
        let Some((port, _)) = &self.outside else { return };
        let Self { rule, family, object, from_outside, to_outside, .. } = self;
        let (mac, ip, inside) = (own.mac, rule.external_ip, rule.logical_ip.text());
        let why = "The floating address is on this host.";
        let matching = format!("{from_outside}eth.dst == {mac}");
        sink.add(RouterIn::Admission, 50, matching, "next;", object, why);
        let source = if ip.is_ipv4() { "reg5" } else { "xxreg1" };
        let matching = format!("{to_outside}{family}.src == {inside}");
        let actions = format!("eth.src = {mac}; {source} = {ip}; flags.local = 1; next;");
        let why = "The workload's floating address is on this host: it needs no gateway.";
        sink.add(RouterIn::GwRedirect, 300, matching, actions, object, why);
        let next_hop = if ip.is_ipv4() { "ip4 && reg0" } else { "ip6 && xxreg0" };
        let matching = format!("outport == {} && {next_hop} == {ip}", quote(port));
        let why = "The floating address is on its workload's host.";
        sink.add(RouterIn::ArpResolve, 150, matching, format!("eth.dst = {mac}; output;"), object, why);
    }

    /// Packets to the address are for the router itself.
    fn at_gateway(&self, sink: &mut FlowSink) {
        let Some((port, mac)) = &self.outside else { return };
        let ip = self.rule.external_ip;
        let next_hop = if ip.is_ipv4() { "ip4 && reg0" } else { "ip6 && xxreg0" };
        let why = "The router itself has the address.";
        let matching = format!("outport == {} && {next_hop} == {ip}", quote(port));
        sink.add(RouterIn::ArpResolve, 150, matching, format!("eth.dst = {mac}; output;"), &self.object, why);
    }

    /// Packets from inside to the address: to whom it stands for, or, as answers, to whom it hid. Each comes
    /// back in once.
    fn turn_around(&self, sink: &mut FlowSink) {
        let Some((port, mac)) = &self.outside else { return };
        let (Self { family, object, .. }, ip, port) = (self, self.rule.external_ip, quote(port));
        // Where all ports translate, what comes back would not be another packet.
        let is_bound = !self.from_outside.is_empty();
        let comes = if is_bound { format!("inport == {port} && ") } else { String::new() };
        let why = "No connection, and no destination, is translated for the packet.";
        let matching = format!("{comes}outport == {port} && {family}.dst == {ip}");
        sink.add(RouterIn::ArpResolve, 160, matching, "drop;", object, why);
        if !is_bound {
            return;
        }
        // A distributed one is let in by its own MAC address, and only on its workload's host.
        let (mac, here) = match self.distributed {
            Some(own) => (own.mac.to_string(), format!("is_chassis_resident({}) && ", quote(&own.port))),
            None => (mac.clone(), String::new()),
        };
        let matching = format!("outport == {port} && {here}{family}.dst == {ip}");
        let actions = format!(
            "clone {{ ct_clear; inport = outport; outport = \"\"; eth.dst = {mac}; xxreg0 = 0; xxreg1 = 0; \
             xreg4 = 0; reg9[0] = 1; flags.loopback = 0; next(pipeline=ingress, table=0); }};"
        );
        let why = "The packet leaves towards an address that this router translates: it comes back in.";
        sink.add(RouterOut::EgrLoop, 100, matching, actions, object, why);
    }
}

/// The port towards the outside, with its MAC address.
fn gateway_port<'a>(input: &RouterPorts<'a>, rule: &'a NatRule) -> Option<(&'a str, String)> {
    let wanted = gateway::port_of(input.ports, rule)?;
    let (id, port) = input.enabled_ports().find(|(id, _)| *id == wanted)?;
    Some((id, port.mac.to_string()))
}
