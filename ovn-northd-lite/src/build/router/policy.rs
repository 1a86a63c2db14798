//! Policies: they overrule the routes. A packet that a policy sends elsewhere keeps what
//! its route did to it, but for next hop and output port.
//!
//! Policies may be in chains: packets come first to those in none, and meet a chain's when
//! one of them jumps there, from where nothing leads back. The number of the chain is in
//! `reg8[16..31]`, until one of several next hops is chosen, whose number is there then. Chains
//! that lead around in a circle end at the switch's bound on steps, with its own reason to
//! drop.

use std::net::IpAddr;

use super::{gateway, hop::Hop};
use crate::{
    build::{
        balancer::family,
        liveness,
        sink::FlowSink,
        stage::{RouterIn, Stage},
        topology::{PolicyInput, RouterPorts},
    },
    expr::check_match,
    model::PolicyAction,
};

/// Priority above that of policies.
const KEPT: u16 = 32_767;

pub(super) fn router(input: &RouterPorts<'_>, sink: &mut FlowSink) {
    let object = &input.router.object;
    let first = if input.router.chains.is_empty() { "next;" } else { "reg8[16..31] = 0; next;" };
    sink.add(RouterIn::PolicyPre, 0, "1", first, object, "Policies in no chain come first.");
    sink.add(RouterIn::Policy, 0, "1", "reg8[0..15] = 0; next;", object, "No policy overrules the route.");
    let why = "No policy has several next hops for the packet.";
    sink.add(RouterIn::PolicyEcmp, 65_535, "reg8[0..15] == 0", "next;", object, why);
    sink.add(RouterIn::PolicyEcmp, 0, "1", "drop;", object, "The policy that chose is no more.");
}

pub(super) fn policy(input: &PolicyInput<'_>, sink: &mut FlowSink) {
    let PolicyInput { ports, object, policy, .. } = input;
    let priority = policy.priority.get();
    let chains = &ports.router.chains;
    let chain = chains.get(&policy.chain).copied().unwrap_or(0);
    let in_chain = if chains.is_empty() { String::new() } else { format!("reg8[16..31] == {chain} && ") };
    let mut add = |matching: &str, actions: String, why: &str| {
        let matching = format!("{in_chain}{matching}");
        sink.add(RouterIn::Policy, priority, matching, actions, object, why);
    };
    let mark = if policy.mark == 0 { String::new() } else { format!("pkt.mark = {}; ", policy.mark) };
    if check_match(&policy.matching).is_err() {
        let why = "The match of a policy that does not allow cannot be read: everything is dropped.";
        if policy.action != PolicyAction::Allow {
            add("1", "drop;".to_owned(), why);
        }
        return;
    }
    let matching = format!("({})", policy.matching);
    match &policy.action {
        PolicyAction::Allow => {
            let why = "The policy leaves the packet to its route.";
            add(&matching, format!("{mark}reg8[0..15] = 0; next;"), why);
        }
        PolicyAction::Drop => add(&matching, "drop;".to_owned(), "The policy drops it."),
        PolicyAction::Jump(to) => {
            let (to, stage) = (chains.get(to).copied().unwrap_or(0), Stage::from(RouterIn::Policy).number);
            let actions = format!("{mark}reg8[16..31] = {to}; next(pipeline=ingress, table={stage});");
            add(&matching, actions, "The policy leaves the packet to those of a chain.");
        }
        PolicyAction::Reroute(hops) => {
            let port = policy.output_port.as_deref();
            let is_there = |ip: &&IpAddr| !policy.monitored || liveness::lives(ports, **ip, port);
            let living = hops.iter().filter(is_there);
            let hops: Vec<_> = living.filter_map(|ip| Hop::to(ports, *ip, port)).collect();
            let Some(first) = hops.first() else {
                if policy.monitored {
                    return;
                }
                let why = "No next hop of the policy can be reached by a port that is on.";
                return add(&matching, "drop;".to_owned(), why);
            };
            let matching = format!("{matching} && {}", family(first.source));
            let why = "The policy sends the packet another way.";
            if let [hop] = hops.as_slice() {
                return add(&matching, format!("{mark}reg8[0..15] = 0; {}", hop.actions()), why);
            }
            let choices: Vec<_> = (1..=hops.len()).map(|choice| choice.to_string()).collect();
            let group = u32::from(chain) + 1;
            let choose = format!("reg8[0..15] = {group}; reg8[16..31] = select({});", choices.join(", "));
            add(&matching, format!("{mark}{choose}"), why);
            choices_of(input, (&matching, group), &hops, sink);
        }
    }
}

/// What becomes of a packet whose next hop was chosen: with the same match at the same
/// priority, and of the same chain, the same policy has chosen.
fn choices_of(
    input: &PolicyInput<'_>,
    (matching, group): (&str, u32),
    hops: &[Hop<'_>],
    sink: &mut FlowSink,
) {
    let (priority, object) = (input.policy.priority.get(), &input.object);
    for (choice, hop) in (1..).zip(hops) {
        let matching = format!("{matching} && reg8[0..15] == {group} && reg8[16..31] == {choice}");
        let why = "One of several next hops of the policy was chosen.";
        sink.add(RouterIn::PolicyEcmp, priority, matching.clone(), hop.actions(), object, why);
        for (arrived, hop) in gateway::kept(&input.ports, hops, choice) {
            let why = "The host that sent the packet to this gateway has chosen among the next hops.";
            let matching = format!("{arrived} && {matching}");
            sink.add(RouterIn::PolicyEcmp, priority + KEPT, matching, hop.actions(), object, why);
        }
    }
}
