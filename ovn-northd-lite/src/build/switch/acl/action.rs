//! What follows from the verdict: an allowed packet goes on, one without a verdict meets
//! the next tier, and behind the last one the default.

use super::Policy;
use crate::{
    build::{sink::FlowSink, stage::Stage},
    model::DefaultPolicy,
};

pub(super) fn switch(policy: &Policy<'_>, sink: &mut FlowSink) {
    let (stage, object) = (policy.stages.action, &policy.switch.object);
    let on = format!("{}next;", policy.forgets());
    sink.add(stage, 0, "1", on.clone(), object, "What no ACL decides about is allowed.");
    if !policy.is_in_force() {
        return;
    }
    sink.add(stage, 1000, "reg8[16] == 1", on.clone(), object, "An ACL has allowed it.");
    for tier in 0..policy.last_tier() {
        let again = Stage::from(policy.stages.eval).number;
        let actions = format!("reg8[30..31] = {}; next({again});", tier + 1);
        let why = "No ACL of the tier has decided: the next tier is asked.";
        sink.add(stage, 500, format!("reg8[30..31] == {tier}"), actions, object, why);
    }
    if policy.is_stateful() {
        let why = "A connection that is allowed by default is remembered, and no longer blocked.";
        sink.add(stage, 20, "reg0[7] == 1 && ip", format!("reg0[1] = 1; {on}"), object, why);
    }
    if policy.stages.after_lb {
        return;
    }
    for (id, default_policy) in &policy.switch.groups {
        if *default_policy == DefaultPolicy::Drop {
            let matching = format!("{} == @{id}", policy.stages.port);
            drop_by_default(policy, sink, (100, &matching), &format!("port-groups/{id}"));
        }
    }
    if policy.switch.default_policy == DefaultPolicy::Drop {
        drop_by_default(policy, sink, (40, "1"), object);
    }
}

pub(super) fn router_port(policy: &Policy<'_>, object: &str, port: String, sink: &mut FlowSink) {
    if policy.switch.default_policy == DefaultPolicy::Drop {
        let why = "The default of a switch is for its workloads, not for what routers send and get.";
        let on = format!("{}next;", policy.forgets());
        sink.add(policy.stages.action, 60, port, on, object, why);
    }
}

/// What no ACL allows is dropped, and a connection of it blocked.
fn drop_by_default(
    policy: &Policy<'_>,
    sink: &mut FlowSink,
    (priority, matching): (u16, &str),
    object: &str,
) {
    let stage = policy.stages.action;
    let why = "No ACL has allowed it, and the default is to drop.";
    sink.add(stage, priority, matching, "drop;", object, why);
    if policy.is_stateful() {
        let matching = if matching == "1" {
            "reg0[10] == 1 && ip".to_owned()
        } else {
            format!("reg0[10] == 1 && ip && {matching}")
        };
        let block = "ct_commit { ct_mark.blocked = 1; };";
        sink.add(stage, priority + 1, matching, block, object, why);
    }
}
