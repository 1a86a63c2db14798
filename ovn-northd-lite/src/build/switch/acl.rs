//! ACLs: from-lport at the source, to-lport at the destination.
//!
//! Denial is structural. `Reject` drops without telling the sender. `AllowRelated` needs
//! connection tracking, which the switch does not have, so it denies: the API refuses it,
//! and if one gets here all the same, more must not pass than was asked for. An ACL that
//! would deny and whose match cannot be read denies everything at its priority.

use crate::{
    build::{
        sink::FlowSink,
        stage::{Stage, SwitchIn, SwitchOut},
        topology::SwitchInput,
    },
    expr::check_match,
    model::{Acl, AclAction, AclDirection},
};

/// Added to the priority of each ACL, so that defaults fit below.
const OFFSET: u16 = 1000;

pub(super) fn build(input: &SwitchInput<'_>, sink: &mut FlowSink) {
    let stages = [
        (AclDirection::FromLport, Stage::from(SwitchIn::AclEval)),
        (AclDirection::ToLport, Stage::from(SwitchOut::AclEval)),
    ];
    for (direction, stage) in stages {
        sink.add(stage, 0, "1", "next;", &input.object, "What no ACL matches is allowed.");
        let acls = || input.switch.acls.iter().filter(|(_, acl)| acl.direction == direction);
        if acls().next().is_some() {
            sink.add(
                stage,
                65532,
                "arp || nd || nd_rs || nd_ra || mldv1 || mldv2",
                "next;",
                &input.object,
                "Addresses are found whatever the ACLs say; port security checks who speaks for them.",
            );
        }
        // Of two ACLs that contradict each other the one that denies comes first and stays.
        let (allows, denies): (Vec<_>, Vec<_>) = acls().partition(|(_, acl)| allows(acl.action));
        for (id, acl) in denies.into_iter().chain(allows) {
            add(sink, stage, &format!("{}/acls/{id}", input.object), acl);
        }
    }
}

fn allows(action: AclAction) -> bool {
    match action {
        AclAction::Allow | AclAction::AllowStateless => true,
        AclAction::AllowRelated | AclAction::Drop | AclAction::Reject => false,
    }
}

fn add(sink: &mut FlowSink, stage: Stage, object: &str, acl: &Acl) {
    let (actions, why) = match acl.action {
        AclAction::Allow | AclAction::AllowStateless => ("next;", "The ACL allows it."),
        AclAction::Drop => ("drop;", "The ACL drops it."),
        AclAction::Reject => ("drop;", "The ACL rejects it; the sender is not told yet."),
        AclAction::AllowRelated => {
            ("drop;", "The ACL would allow it with its replies, which needs connection tracking: denied.")
        }
    };
    let priority = acl.priority.get().saturating_add(OFFSET).min(65531);
    match check_match(&acl.matching) {
        Ok(()) => sink.add(stage, priority, format!("({})", acl.matching), actions, object, why),
        Err(_) if allows(acl.action) => {}
        Err(_) => {
            let why = "The match of an ACL that denies cannot be read: everything is denied.";
            sink.add(stage, priority, "1", "drop;", object, why);
        }
    }
}
