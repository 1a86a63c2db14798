//! Policies: they overrule the routes. A packet that a policy sends elsewhere keeps what
//! its route did to it, but for next hop and output port.

use super::{gateway, hop::Hop};
use crate::{
    build::{
        balancer::family,
        sink::FlowSink,
        stage::RouterIn,
        topology::{PolicyInput, RouterPorts},
    },
    expr::check_match,
    model::PolicyAction,
};

/// Priority above that of policies.
const KEPT: u16 = 32_767;

pub(super) fn router(input: &RouterPorts<'_>, sink: &mut FlowSink) {
    let object = &input.router.object;
    sink.add(RouterIn::Policy, 0, "1", "reg8[0..15] = 0; next;", object, "No policy overrules the route.");
    let why = "No policy has several next hops for the packet.";
    sink.add(RouterIn::PolicyEcmp, 65_535, "reg8[0..15] == 0", "next;", object, why);
    sink.add(RouterIn::PolicyEcmp, 0, "1", "drop;", object, "The policy that chose is no more.");
}

pub(super) fn policy(input: &PolicyInput<'_>, sink: &mut FlowSink) {
    let PolicyInput { ports, object, policy, .. } = input;
    let priority = policy.priority.get();
    let is_readable = check_match(&policy.matching).is_ok();
    let matching = format!("({})", policy.matching);
    match &policy.action {
        PolicyAction::Allow if is_readable => {
            let why = "The policy leaves the packet to its route.";
            sink.add(RouterIn::Policy, priority, matching, "reg8[0..15] = 0; next;", object, why);
        }
        PolicyAction::Drop if is_readable => {
            sink.add(RouterIn::Policy, priority, matching, "drop;", object, "The policy drops it.");
        }
        PolicyAction::Reroute(hops) if is_readable => {
            let hops: Vec<_> = hops.iter().filter_map(|ip| Hop::to(ports, *ip, None)).collect();
            let Some(first) = hops.first() else {
                let why = "No next hop of the policy can be reached by a port that is on.";
                return sink.add(RouterIn::Policy, priority, matching, "drop;", object, why);
            };
            let matching = format!("{matching} && {}", family(first.source));
            let why = "The policy sends the packet another way.";
            if let [hop] = hops.as_slice() {
                let actions = format!("reg8[0..15] = 0; {}", hop.actions());
                return sink.add(RouterIn::Policy, priority, matching, actions, object, why);
            }
            let choices: Vec<_> = (1..=hops.len()).map(|choice| choice.to_string()).collect();
            let actions = format!("reg8[0..15] = 1; reg8[16..31] = select({});", choices.join(", "));
            sink.add(RouterIn::Policy, priority, matching.clone(), actions, object, why);
            // With the same match at the same priority the same policy has chosen.
            for (choice, hop) in (1..).zip(&hops) {
                let matching = format!("{matching} && reg8[0..15] == 1 && reg8[16..31] == {choice}");
                let why = "One of several next hops of the policy was chosen.";
                sink.add(RouterIn::PolicyEcmp, priority, matching.clone(), hop.actions(), object, why);
                for (arrived, hop) in gateway::kept(ports, &hops, choice) {
                    let why = "The host that sent the packet to this gateway has chosen among the next hops.";
                    let matching = format!("{arrived} && {matching}");
                    sink.add(RouterIn::PolicyEcmp, priority + KEPT, matching, hop.actions(), object, why);
                }
            }
        }
        PolicyAction::Drop | PolicyAction::Reroute(_) => {
            let why = "The match of a policy that does not allow cannot be read: everything is dropped.";
            sink.add(RouterIn::Policy, priority, "1", "drop;", object, why);
        }
        PolicyAction::Allow => {}
    }
}
