//! To the tracker and back: which packets it is asked about, what the answer means for
//! ACLs, which connections it is to remember.

use super::{DISCOVERY, Policy, eval};
use crate::{
    build::sink::FlowSink,
    model::{Acl, AclAction, AclDirection},
};

pub(super) fn switch(policy: &Policy<'_>, sink: &mut FlowSink) {
    let (stages, object) = (policy.stages, &policy.switch.object);
    sink.add(stages.pre_acl, 0, "1", "next;", object, "No ACL needs to know the connection.");
    sink.add(stages.hint, 0, "1", "next;", object, "Nothing is known of the connection.");
    sink.add(stages.stateful, 0, "1", "next;", object, "There is no connection to remember.");
    if policy.is_stateful() {
        ask(policy, sink);
        hints(policy, sink);
        remember(policy, sink);
    }
}

fn ask(policy: &Policy<'_>, sink: &mut FlowSink) {
    let (stage, object) = (policy.stages.pre_acl, &policy.switch.object);
    let why = "Replies to what an ACL allows are told by their connection.";
    sink.add(stage, 100, "ip", "reg0[0] = 1; next;", object, why);
    let why = "Group addresses and discovery belong to no connection.";
    sink.add(stage, 110, format!("eth.mcast || {DISCOVERY}"), "next;", object, why);
    if policy.stages.direction == AclDirection::ToLport {
        let why = "Answers of the host belong to no connection.";
        sink.add(stage, 120, "flags.from_ctrl == 1", "next;", object, why);
    }
    let why = "The ACLs need to know the packet's connection.";
    sink.add(policy.stages.pre_stateful, 100, "reg0[0] == 1 && ip", "ct_next;", &policy.switch.object, why);
}

pub(super) fn router_port(policy: &Policy<'_>, object: &str, port: &str, sink: &mut FlowSink) {
    if policy.is_stateful() {
        let why = "Requests and replies of a router's port may pass on different hosts.";
        sink.add(policy.stages.pre_acl, 110, format!("{port} && ip"), "next;", object, why);
    }
}

pub(super) fn acl(policy: &Policy<'_>, object: &str, acl: &Acl, sink: &mut FlowSink) {
    if policy.is_stateful() && acl.persists {
        remember_for_good(policy, sink);
    }
    if policy.is_stateful()
        && acl.action == AclAction::AllowStateless
        && let Some(matching) = eval::readable(acl)
    {
        let why = "The ACL allows it without tracking.";
        sink.add(policy.stages.pre_acl, eval::priority(acl), matching, "reg0[16] = 1; next;", object, why);
    }
}

/// Connections that stay allowed, for ACLs that say so.
fn remember_for_good(policy: &Policy<'_>, sink: &mut FlowSink) {
    let (stage, object) = (policy.stages.stateful, &policy.switch.object);
    let why = "The connection is remembered as one that stays allowed.";
    for (has_label, label) in [(0, ""), (1, " ct_label.label = reg3;")] {
        let matching = format!("reg0[1] == 1 && reg0[13] == {has_label} && reg0[20] == 1 && ip");
        let marks = format!("ct_mark.blocked = 0; ct_mark.allow_established = 1;{label}");
        sink.add(stage, 110, matching, format!("ct_commit {{ {marks} }}; next;"), object, why);
    }
}

fn hints(policy: &Policy<'_>, sink: &mut FlowSink) {
    let mut add = |priority, matching: &str, actions: &str, why: &str| {
        sink.add(policy.stages.hint, priority, matching, actions, &policy.switch.object, why);
    };
    add(7, "ct.new && !ct.est", "reg0[7] = 1; reg0[9] = 1; next;", "A new connection.");
    add(
        6,
        "!ct.new && ct.est && !ct.rpl && ct_mark.blocked == 1",
        "reg0[7] = 1; reg0[9] = 1; next;",
        "A connection that was blocked: whoever allows it again unblocks it.",
    );
    add(5, "!ct.trk", "reg0[8] = 1; reg0[9] = 1; next;", "Not tracked.");
    add(
        4,
        "!ct.new && ct.est && !ct.rpl && ct_mark.blocked == 0",
        "reg0[8] = 1; reg0[10] = 1; next;",
        "A connection that was allowed: whoever denies it now blocks it.",
    );
    add(3, "!ct.est", "reg0[9] = 1; next;", "Not of an established connection.");
    add(2, "ct.est && ct_mark.blocked == 1", "reg0[9] = 1; next;", "A blocked connection.");
    add(1, "ct.est && ct_mark.blocked == 0", "reg0[10] = 1; next;", "An established connection.");
}

fn remember(policy: &Policy<'_>, sink: &mut FlowSink) {
    let (stage, object) = (policy.stages.stateful, &policy.switch.object);
    let why = "An allowed connection is remembered, and no longer blocked.";
    let mark = "ct_commit { ct_mark.blocked = 0; }; next;";
    sink.add(stage, 100, "reg0[1] == 1 && reg0[13] == 0 && ip", mark, object, why);
    let label = "ct_commit { ct_mark.blocked = 0; ct_label.label = reg3; }; next;";
    sink.add(stage, 100, "reg0[1] == 1 && reg0[13] == 1 && ip", label, object, why);
}
