//! ACLs: from-lport at the source, to-lport at the destination; those of the switch, and
//! those of the port groups that have a port of it.
//!
//! A switch with an `allow-related` ACL, or with ACLs and a load balancer, tracks the
//! connections of its workloads, each port's in a zone of its own; other switches do
//! without. `track.rs` sends packets through the tracker and has allowed connections
//! remembered, `eval.rs` has the ACLs, `sample.rs` what collectors are told of what they decide
//! about, `action.rs` what follows from their verdict. Bits
//! of `reg0` and `reg8` are OVN's:
//!
//! | bit | meaning |
//! |---|---|
//! | `reg0[0]` | to the tracker |
//! | `reg0[1]` | remember the connection |
//! | `reg0[7]` | an allowing ACL has the connection remembered |
//! | `reg0[8]` | an allowing ACL just allows |
//! | `reg0[9]` | a denying ACL just denies |
//! | `reg0[10]` | a denying ACL has the connection blocked, so that its replies end too |
//! | `reg0[13]` | `reg3` is a label for the connection |
//! | `reg0[20]` | the connection stays allowed |
//! | `reg0[16]` | an `allow-stateless` ACL matches: not tracked |
//! | `reg8[16]` | allowed |
//! | `reg8[30..31]` | tier |
//!
//! ACLs that are asked behind load balancers see the backend's address. They can deny what
//! the others allow, not the other way round: defaults are applied before.
//!
//! Denial is structural: an ACL that would deny and whose match cannot be read denies
//! everything at its priority.

mod action;
mod eval;
mod sample;
mod track;

use crate::{
    build::{
        sink::FlowSink,
        stage::{Stage, SwitchIn, SwitchOut},
        topology::{AclInput, SwitchPortInput, SwitchTraits},
    },
    expr::lexer::quote,
    model::{AclAction, AclDirection, SwitchPortKind},
};

/// Packets that find addresses: they pass whatever the ACLs say.
const DISCOVERY: &str = "arp || nd || nd_rs || nd_ra || mldv1 || mldv2";

pub(super) fn switch(switch: &SwitchTraits, sink: &mut FlowSink) {
    for stages in [Stages::FROM_LPORT, Stages::TO_LPORT] {
        let policy = Policy { switch, stages };
        track::switch(&policy, sink);
        eval::switch(&policy, sink);
        action::switch(&policy, sink);
    }
    let policy = Policy { switch, stages: Stages::AFTER_LB };
    eval::switch(&policy, sink);
    action::switch(&policy, sink);
}

/// The switch's ports to routers: connections cannot be tracked there, since requests and
/// replies pass such a port on different hosts; unless the router is on one host, and that is
/// asked for.
pub(super) fn port(input: &SwitchPortInput<'_>, sink: &mut FlowSink) {
    if matches!(input.port.kind, SwitchPortKind::Workload { .. }) {
        return;
    }
    for stages in [Stages::FROM_LPORT, Stages::TO_LPORT] {
        let policy = Policy { switch: input.switch, stages };
        let port = format!("{} == {}", stages.port, quote(input.id));
        if !input.tracks_router() {
            track::router_port(&policy, &input.object, &port, sink);
        }
        action::router_port(&policy, &input.object, port, sink);
    }
}

/// Of ACLs that contradict each other, one that denies counts, else the first one.
pub(super) fn acl(input: &AclInput<'_>, sink: &mut FlowSink) {
    let stages = match (input.direction, input.after_lb) {
        (AclDirection::FromLport, false) => Stages::FROM_LPORT,
        (AclDirection::FromLport, true) => Stages::AFTER_LB,
        (AclDirection::ToLport, _) => Stages::TO_LPORT,
    };
    let policy = Policy { switch: input.switch, stages };
    let mut acls = input.acls.iter();
    let Some((object, acl)) = acls.clone().find(|(_, acl)| denies(acl.action)).or_else(|| acls.next()) else {
        return;
    };
    track::acl(&policy, object, acl, sink);
    let told = sample::Told::of(&policy, acl, input.collectors, sink);
    eval::acl(&policy, (object, acl), &told, sink);
}

/// The stages of one direction.
#[derive(Debug, Clone, Copy)]
struct Stages {
    direction: AclDirection,
    /// Behind load balancers.
    after_lb: bool,
    /// The port that ACLs of the direction are about.
    port: &'static str,
    pre_acl: Step,
    pre_stateful: Step,
    hint: Step,
    eval: Step,
    action: Step,
    stateful: Step,
}

/// A stage of either pipeline.
#[derive(Debug, Clone, Copy)]
enum Step {
    In(SwitchIn),
    Out(SwitchOut),
}

impl From<Step> for Stage {
    fn from(step: Step) -> Self {
        match step {
            Step::In(stage) => stage.into(),
            Step::Out(stage) => stage.into(),
        }
    }
}

impl Stages {
    const FROM_LPORT: Self = Self {
        direction: AclDirection::FromLport,
        after_lb: false,
        port: "inport",
        pre_acl: Step::In(SwitchIn::PreAcl),
        pre_stateful: Step::In(SwitchIn::PreStateful),
        hint: Step::In(SwitchIn::AclHint),
        eval: Step::In(SwitchIn::AclEval),
        action: Step::In(SwitchIn::AclAction),
        stateful: Step::In(SwitchIn::Stateful),
    };
    const AFTER_LB: Self = Self {
        after_lb: true,
        eval: Step::In(SwitchIn::AclAfterLbEval),
        action: Step::In(SwitchIn::AclAfterLbAction),
        ..Self::FROM_LPORT
    };
    const TO_LPORT: Self = Self {
        direction: AclDirection::ToLport,
        after_lb: false,
        port: "outport",
        pre_acl: Step::Out(SwitchOut::PreAcl),
        pre_stateful: Step::Out(SwitchOut::PreStateful),
        hint: Step::Out(SwitchOut::AclHint),
        eval: Step::Out(SwitchOut::AclEval),
        action: Step::Out(SwitchOut::AclAction),
        stateful: Step::Out(SwitchOut::Stateful),
    };
}

/// What applies to the packets of one direction.
struct Policy<'a> {
    switch: &'a SwitchTraits,
    stages: Stages,
}

impl Policy<'_> {
    /// Connections are tracked.
    fn is_stateful(&self) -> bool {
        self.switch.is_stateful
    }

    /// Highest tier of the direction.
    fn last_tier(&self) -> u8 {
        self.own_last_tier().unwrap_or(0)
    }

    /// The same; `None`: there are no ACLs.
    fn own_last_tier(&self) -> Option<u8> {
        self.switch.last_tier(self.stages.direction, self.stages.after_lb)
    }

    /// Something may be denied, or connections are tracked. They are so in both directions: without
    /// the request that a client has sent by its port, nobody knows what the answer belongs to.
    fn is_in_force(&self) -> bool {
        let is_always = self.switch.drops_by_default() || self.is_stateful();
        self.own_last_tier().is_some() || !self.stages.after_lb && is_always
    }

    /// What a packet that goes on from here forgets, since ACLs are asked once more.
    fn forgets(&self) -> &'static str {
        let is_asked_again = self.stages.direction == AclDirection::FromLport
            && !self.stages.after_lb
            && self.switch.last_tier(AclDirection::FromLport, true).is_some();
        if is_asked_again { "reg8[16] = 0; reg8[30..31] = 0; " } else { "" }
    }
}

fn denies(action: AclAction) -> bool {
    match action {
        AclAction::Drop | AclAction::Reject => true,
        AclAction::Allow | AclAction::AllowRelated | AclAction::AllowStateless | AclAction::Pass => false,
    }
}
