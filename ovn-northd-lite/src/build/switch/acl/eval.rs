//! The ACLs themselves. One that allows leaves a verdict; one that denies ends here, so
//! that a dropped packet names it.

use super::{
    DISCOVERY, Policy, denies,
    sample::{Told, label},
};
use crate::{
    actions::Log,
    build::{
        sink::FlowSink,
        stage::{Stage, SwitchIn, SwitchOut},
    },
    expr::check_match,
    model::{Acl, AclAction, AclDirection},
    punt::{LogEntry, Verdict},
};

/// Added to the priority of each ACL, so that defaults fit below.
const OFFSET: u16 = 1000;
/// Of what no ACL can overrule.
const HIGHEST: u16 = 65532;

/// The verdict.
const ALLOWED: &str = "reg8[16] = 1; next;";

pub(super) fn switch(policy: &Policy<'_>, sink: &mut FlowSink) {
    let (stage, object) = (policy.stages.eval, &policy.switch.object);
    sink.add(stage, 0, "1", "next;", object, "No ACL matches.");
    if !policy.is_in_force() {
        return;
    }
    let why = "Addresses are found whatever the ACLs say; port security checks who speaks for them.";
    sink.add(stage, HIGHEST, DISCOVERY, ALLOWED, object, why);
    if policy.stages.direction == AclDirection::ToLport {
        let why = "The host's answer to a question that the ACLs have let pass.";
        sink.add(stage, HIGHEST + 1, "flags.from_ctrl == 1", ALLOWED, object, why);
    }
    if policy.is_stateful() {
        connections(policy, sink);
    }
}

/// What follows from the connection alone.
fn connections(policy: &Policy<'_>, sink: &mut FlowSink) {
    let mut add = |matching: &str, actions: &str, why: &str| {
        sink.add(policy.stages.eval, HIGHEST, matching, actions, &policy.switch.object, why);
    };
    add(
        "ct.inv || (ct.est && ct.rpl && ct_mark.blocked == 1)",
        "drop;",
        "The packet fits no connection, or is the reply of one that is no longer allowed.",
    );
    add(
        "ct.est && !ct.rel && !ct.new && !ct.inv && ct.rpl && ct_mark.blocked == 0",
        ALLOWED,
        "A reply of an allowed connection.",
    );
    add(
        "ct.est && !ct.rel && !ct.new && !ct.inv && !ct.rpl && ct_mark.allow_established == 1",
        ALLOWED,
        "An ACL has allowed the connection for as long as it lasts.",
    );
    add(
        "!ct.est && ct.rel && !ct.new && !ct.inv && ct_mark.blocked == 0",
        ALLOWED,
        "An error about an allowed connection.",
    );
}

/// Priority of an ACL's flows.
pub(super) fn priority(acl: &Acl) -> u16 {
    acl.priority.get().saturating_add(OFFSET).min(HIGHEST - 1)
}

/// The match of an ACL, if it can be read.
pub(super) fn readable(acl: &Acl) -> Option<String> {
    check_match(&acl.matching).ok().map(|()| format!("({})", acl.matching))
}

pub(super) fn acl(policy: &Policy<'_>, (object, acl): (&str, &Acl), told: &Told, sink: &mut FlowSink) {
    let Some(matching) = readable(acl) else {
        if denies(acl.action) {
            let why = "The match of an ACL that denies cannot be read: everything is denied.";
            sink.add(policy.stages.eval, priority(acl), "1", "drop;", object, why);
        }
        return;
    };
    let of_tier =
        if policy.last_tier() > 0 { format!("reg8[30..31] == {} && {matching}", acl.tier) } else { matching };
    let mut tell = |state: &str, told: &str, actions: &str, why: &str| {
        let matching = if state.is_empty() { of_tier.clone() } else { format!("{state} && {of_tier}") };
        // `drop;` goes alone: a line in the log, or a word to collectors, and nothing else is a drop too.
        let actions = match (joined(&log(object, acl), told), actions) {
            (words, "drop;") if !words.is_empty() => words,
            (words, actions) => joined(&words, actions),
        };
        sink.add(policy.stages.eval, priority(acl), matching, actions, object, why);
    };
    let new = &told.new;
    match (acl.action, policy.is_stateful()) {
        (AclAction::Pass, _) => tell("", new, "next;", "The ACL leaves it to the next tier."),
        (AclAction::AllowStateless, _) => tell("", new, ALLOWED, "The ACL allows it without tracking."),
        (AclAction::Allow | AclAction::AllowRelated, false) => tell("", new, ALLOWED, "The ACL allows it."),
        (AclAction::Allow | AclAction::AllowRelated, true) => {
            tell("reg0[7] == 1", new, &remembered(acl), "The ACL allows the connection.");
            if told.is_any() {
                let why = "The ACL allows it, and has allowed the connection.";
                tell("reg0[8] == 1 && ct.trk", &told.established, ALLOWED, why);
                tell("reg0[8] == 1 && !ct.trk", &told.new, ALLOWED, "The ACL allows it.");
            } else {
                tell("reg0[8] == 1", new, ALLOWED, "The ACL allows it.");
            }
            related(policy, (object, acl), told, sink);
        }
        (AclAction::Drop | AclAction::Reject, false) => {
            tell("", new, &denied(policy, acl), "The ACL denies it.");
        }
        (AclAction::Drop | AclAction::Reject, true) => {
            let end = denied(policy, acl);
            tell("reg0[9] == 1", new, &end, "The ACL denies it.");
            let end = if end == "drop;" { "" } else { &end };
            let blocked = format!("ct_commit {{ ct_mark.blocked = 1; }}; {end}");
            tell("reg0[10] == 1 && ip", new, &blocked, "The ACL denies it, and with it the connection.");
        }
    }
}

/// Two lists of actions, each of which may be empty.
fn joined(first: &str, then: &str) -> String {
    format!("{first} {then}").trim().to_owned()
}

/// Answers and errors of connections that an ACL has allowed, where it logs these too or tells
/// collectors: its label tells them. They pass in the other direction.
fn related(policy: &Policy<'_>, (object, acl): (&str, &Acl), told: &Told, sink: &mut FlowSink) {
    let label = label(acl);
    let is_logged = acl.log.as_ref().is_some_and(|log| log.related);
    if label == 0 || !is_logged && told.established.is_empty() {
        return;
    }
    let stage = match policy.stages.direction {
        AclDirection::FromLport => Stage::from(SwitchOut::AclEval),
        AclDirection::ToLport => SwitchIn::AclEval.into(),
    };
    let log = if is_logged { log(object, acl) } else { String::new() };
    let actions = joined(&joined(&log, &told.established), ALLOWED);
    for (state, why) in [
        (
            "ct.est && !ct.rel && !ct.new && !ct.inv && ct.rpl",
            "The answer to a connection that somebody is told of.",
        ),
        ("!ct.est && ct.rel && !ct.new && !ct.inv", "An error about a connection that somebody is told of."),
    ] {
        let matching = format!("{state} && ct_mark.blocked == 0 && ct_label.label == {label}");
        sink.add(stage, HIGHEST + 1, matching, actions.clone(), object, why);
    }
}

fn remembered(acl: &Acl) -> String {
    let lasting = if acl.persists { "reg0[20] = 1; " } else { "" };
    match label(acl) {
        0 => format!("{lasting}reg0[1] = 1; {ALLOWED}"),
        label => format!("{lasting}reg0[1] = 1; reg0[13] = 1; reg3 = {label}; {ALLOWED}"),
    }
}

/// The end of a packet, and perhaps an answer to its sender.
fn denied(policy: &Policy<'_>, acl: &Acl) -> String {
    if acl.action != AclAction::Reject {
        return "drop;".to_owned();
    }
    match policy.stages.direction {
        // The sender is here: behind the ACLs, since whoever is refused may be told.
        AclDirection::FromLport => {
            let stage = Stage::from(SwitchOut::PortSecIp).number;
            format!(
                "reject {{ outport = inport; flags.loopback = 1; next(pipeline=egress, table={stage}); }};"
            )
        }
        // The sender may be anywhere.
        AclDirection::ToLport => {
            let stage = Stage::from(SwitchIn::L2Lkup).number;
            format!(
                "reject {{ outport <-> inport; flags.from_tunnel = 0; next(pipeline=ingress, table={stage}); }};"
            )
        }
    }
}

/// The line in the log, if there is to be one.
fn log(object: &str, acl: &Acl) -> String {
    let Some(log) = &acl.log else { return String::new() };
    let verdict = match acl.action {
        AclAction::Allow | AclAction::AllowRelated | AclAction::AllowStateless => Verdict::Allow,
        AclAction::Drop => Verdict::Drop,
        AclAction::Reject => Verdict::Reject,
        AclAction::Pass => Verdict::Pass,
    };
    let name = if log.name.is_empty() { object.to_owned() } else { log.name.clone() };
    let entry = LogEntry { verdict, severity: log.severity, name };
    Log { entry, rate: log.rate }.to_string()
}
