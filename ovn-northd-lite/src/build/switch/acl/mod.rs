//! ACLs: from-lport at the source, to-lport at the destination; those of the switch, and
//! those of the port groups that have a port of it.
//!
//! A switch with an `allow-related` ACL, or with ACLs and a load balancer, tracks the
//! connections of its workloads, each port's in a zone of its own; other switches do
//! without. `track.rs` sends packets through the tracker and has allowed connections
//! remembered, `eval.rs` has the ACLs, `action.rs` what follows from their verdict. Bits
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
//! | `reg0[16]` | an `allow-stateless` ACL matches: not tracked |
//! | `reg8[16]` | allowed |
//! | `reg8[30..31]` | tier |
//!
//! Denial is structural: an ACL that would deny and whose match cannot be read denies
//! everything at its priority.

mod action;
mod eval;
mod track;

use std::collections::BTreeSet;

use crate::{
    build::{
        sink::FlowSink,
        stage::{Stage, SwitchIn, SwitchOut},
        topology::SwitchInput,
    },
    expr::lexer::quote,
    model::{Acl, AclAction, AclDirection, DefaultPolicy, SwitchPortKind},
};

/// Packets that find addresses: they pass whatever the ACLs say.
const DISCOVERY: &str = "arp || nd || nd_rs || nd_ra || mldv1 || mldv2";

pub(super) fn build(input: &SwitchInput<'_>, sink: &mut FlowSink) {
    for stages in [Stages::FROM_LPORT, Stages::TO_LPORT] {
        let policy = Policy::of(input, stages);
        track::build(&policy, sink);
        eval::build(&policy, sink);
        action::build(&policy, sink);
    }
}

/// The stages of one direction.
#[derive(Debug, Clone, Copy)]
struct Stages {
    direction: AclDirection,
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
        port: "inport",
        pre_acl: Step::In(SwitchIn::PreAcl),
        pre_stateful: Step::In(SwitchIn::PreStateful),
        hint: Step::In(SwitchIn::AclHint),
        eval: Step::In(SwitchIn::AclEval),
        action: Step::In(SwitchIn::AclAction),
        stateful: Step::In(SwitchIn::Stateful),
    };
    const TO_LPORT: Self = Self {
        direction: AclDirection::ToLport,
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
    input: &'a SwitchInput<'a>,
    stages: Stages,
    /// ACLs of the direction with their resource names, those that deny first.
    acls: Vec<(String, &'a Acl)>,
    /// Connections are tracked.
    is_stateful: bool,
    /// Highest tier of the direction.
    last_tier: u8,
}

impl<'a> Policy<'a> {
    fn of(input: &'a SwitchInput<'a>, stages: Stages) -> Self {
        let all = || input.acls();
        let is_related = |(_, acl): &(String, &Acl)| acl.action == AclAction::AllowRelated;
        let is_stateful =
            all().any(|acl| is_related(&acl)) || all().next().is_some() && input.balancers().next().is_some();
        let mut acls: Vec<_> = all().filter(|(_, acl)| acl.direction == stages.direction).collect();
        // Of two ACLs that contradict each other the one that denies comes first and stays.
        acls.sort_by_key(|(_, acl)| !denies(acl.action));
        let mut seen = BTreeSet::new();
        acls.retain(|(_, acl)| seen.insert((acl.tier, acl.priority, acl.matching.as_str())));
        let last_tier = acls.iter().map(|(_, acl)| acl.tier).max().unwrap_or(0);
        Self { input, stages, acls, is_stateful, last_tier }
    }

    /// Something may be denied.
    fn is_in_force(&self) -> bool {
        !self.acls.is_empty() || self.drops_by_default()
    }

    /// Somebody's packets are dropped unless an ACL allows them.
    fn drops_by_default(&self) -> bool {
        let groups = self.input.groups.iter().map(|(_, group)| group.default_policy);
        groups.chain([self.input.switch.default_policy]).any(|policy| policy == DefaultPolicy::Drop)
    }

    /// The switch's ports to routers: connections cannot be tracked there, since requests
    /// and replies pass such a port on different hosts.
    fn router_ports(&self) -> impl Iterator<Item = (String, String)> {
        let is_router = |kind: &SwitchPortKind| matches!(kind, SwitchPortKind::Router { .. });
        let ports = self.input.switch.ports.iter().filter(move |(_, port)| is_router(&port.kind));
        ports.map(|(id, _)| (self.input.port_object(id), format!("{} == {}", self.stages.port, quote(id))))
    }
}

fn denies(action: AclAction) -> bool {
    match action {
        AclAction::Drop | AclAction::Reject => true,
        AclAction::Allow | AclAction::AllowRelated | AclAction::AllowStateless | AclAction::Pass => false,
    }
}
