//! What a change that is only validated would do: to the logical flows, and to who can talk to whom.

use std::{collections::BTreeSet, sync::Arc};

use ferroflow_proto::northbound as pb;
use ovn_northd_lite::{
    explain::{ExplainError, Explanation, Outcome, Question, Speech, Way},
    model::{Northbound, SwitchPortKind},
    southbound::LogicalFlow,
};
use tonic::Status;

use super::explain;
use crate::{
    controller::{Controller, Written},
    network::{self, Rehearsal},
    resource::{Kind, Name, Spec},
    state::{Change, Record},
};

/// Flows that are told one by one.
const MAX_FLOWS: usize = 1000;
/// Conversations that may be asked for.
const MAX_CONVERSATIONS: usize = 100;
/// Workloads whose conversations are looked at, and ports of TCP and UDP that these are about.
const MAX_WORKLOADS: usize = 6;
const MAX_SPEECHES: usize = 4;
/// Workloads that stand for a switch, a router or a group.
const PER_OBJECT: usize = 2;

/// Conversations that a request names.
pub(super) fn questions(asked: &[pb::ExplainRequest]) -> Result<Vec<Question>, Status> {
    if asked.len() > MAX_CONVERSATIONS {
        let message = format!("conversations: {} are asked for, at most {MAX_CONVERSATIONS}", asked.len());
        return Err(Status::invalid_argument(message));
    }
    asked.iter().map(explain::question).collect()
}

/// What a validated change would do; nothing when it would change nothing, or when another change
/// has come in between.
pub(super) fn effect(controller: &Controller, written: &Written, asked: Vec<Question>) -> Option<pb::Effect> {
    if written.would_change.is_empty() {
        return None;
    }
    network::follow(controller);
    let rehearsal = {
        let mut network = controller.network();
        let mut questions = asked;
        for question in suggested(network.northbound(), &written.would_change) {
            if !questions.contains(&question) {
                questions.push(question);
            }
        }
        let rehearsal = network.rehearse(written.revision, &written.would_change, &questions)?;
        (rehearsal, questions)
    };
    Some(tell(rehearsal))
}

fn tell((rehearsal, questions): (Rehearsal, Vec<Question>)) -> pb::Effect {
    let Rehearsal { added, removed, names, chassis, before, after } = rehearsal;
    let flow = |added: bool, flow: &Arc<LogicalFlow>| pb::FlowChange {
        added,
        priority: flow.priority.get().into(),
        flow: Some(pb::ExplainedStep {
            datapath: names.get(&flow.datapath).cloned().unwrap_or_default(),
            stage: flow.stage_name.to_string(),
            object: flow.object.to_string(),
            r#match: flow.matching.clone(),
            actions: flow.actions.clone(),
            why: flow.why.to_string(),
        }),
    };
    let is_new = |id: &u64| removed.get(id) != added.get(id);
    let gone = removed.iter().filter(|(id, _)| is_new(id)).map(|(_, old)| flow(false, old));
    let fresh = added.iter().filter(|(id, _)| is_new(id)).map(|(_, new)| flow(true, new));
    let (gone, fresh): (Vec<_>, Vec<_>) = (gone.collect(), fresh.collect());
    let (n_removed, n_added) = (gone.len() as u64, fresh.len() as u64);
    let answers = before.explain().into_iter().zip(after.explain());
    let changed =
        questions.iter().zip(answers).filter_map(|(question, (old, new))| change(question, &old, &new));
    pb::Effect {
        flows: gone.into_iter().chain(fresh).take(MAX_FLOWS).collect(),
        n_added_flows: n_added,
        n_removed_flows: n_removed,
        chassis: chassis.into_iter().map(|id| format!("chassis/{id}")).collect(),
        reachability: changed.collect(),
        n_conversations: questions.len() as u64,
    }
}

type Answer = Result<Explanation, ExplainError>;

fn change(question: &Question, old: &Answer, new: &Answer) -> Option<pb::ReachabilityChange> {
    let can = |answer: &Answer| answer.as_ref().is_ok_and(Explanation::is_yes);
    let (could_talk, can_talk) = (can(old), can(new));
    (could_talk != can_talk).then(|| pb::ReachabilityChange {
        conversation: Some(conversation(question)),
        could_talk,
        can_talk,
        before: words(old),
        after: words(new),
    })
}

fn conversation(Question { from, to, address, speech }: &Question) -> pb::ExplainRequest {
    let (protocol, port) = match speech {
        Speech::Tcp(port) => ("tcp", (*port).into()),
        Speech::Udp(port) => ("udp", (*port).into()),
        Speech::Ping => ("icmp", 0),
    };
    pb::ExplainRequest {
        from: from.clone(),
        to: to.clone(),
        protocol: protocol.to_owned(),
        port,
        address: address.map(|ip| ip.to_string()).unwrap_or_default(),
    }
}

/// What becomes of a conversation.
fn words(answer: &Answer) -> String {
    let explanation = match answer {
        Ok(explanation) => explanation,
        Err(error) => return error.to_string(),
    };
    let of = |way: &Way| {
        let cause = way.steps.last().map(|step| step.object.as_str()).unwrap_or_default();
        match &way.outcome {
            Outcome::Arrives => "arrives".to_owned(),
            Outcome::Elsewhere(ports) => format!("leaves by {}", ports.join(", ")),
            Outcome::Host(service) => format!("left to the host's {service}"),
            Outcome::Dropped { reason } if cause.is_empty() => format!("dropped: {reason}"),
            Outcome::Dropped { .. } => format!("dropped by {cause}"),
        }
    };
    match &explanation.back {
        Some(back) if back.outcome != Outcome::Arrives => format!("arrives, and the answer is {}", of(back)),
        _ => of(&explanation.there),
    }
}

/// Conversations that changes may be about.
fn suggested(nb: &Northbound, changes: &[Change]) -> Vec<Question> {
    let mut workloads = Workloads { nb, ids: Vec::new() };
    let mut speeches = vec![Speech::Ping];
    for Change { name, before, after } in changes {
        workloads.of_object(name);
        let records = before.iter().chain(after);
        for speech in records.flat_map(|record| spoken(record)) {
            if speeches.len() < MAX_SPEECHES && !speeches.contains(&speech) {
                speeches.push(speech);
            }
        }
    }
    workloads.fill();
    let pairs = workloads.ids.iter().flat_map(|from| workloads.ids.iter().map(move |to| (from, to)));
    let pairs = pairs.filter(|(from, to)| from != to);
    pairs
        .flat_map(|(from, to)| {
            speeches.iter().map(|speech| Question {
                from: from.clone(),
                to: to.clone(),
                address: None,
                speech: *speech,
            })
        })
        .collect()
}

/// Ports that the match of a rule names: `tcp.dst == 80`.
fn spoken(record: &Record) -> Vec<Speech> {
    let text = match &record.spec {
        Spec::Acl(acl) => &acl.matching,
        Spec::RouterPolicy(policy) => &policy.matching,
        _ => return Vec::new(),
    };
    let after = |word: &'static str| {
        text.match_indices(word).filter_map(move |(at, _)| {
            let rest = text.get(at + word.len()..)?.trim_start().strip_prefix("==")?.trim_start();
            let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            rest.get(..digits)?.parse::<u16>().ok().filter(|port| *port > 0)
        })
    };
    after("tcp.dst").map(Speech::Tcp).chain(after("udp.dst").map(Speech::Udp)).collect()
}

/// Workloads whose conversations are looked at.
struct Workloads<'a> {
    nb: &'a Northbound,
    ids: Vec<String>,
}

impl Workloads<'_> {
    fn add(&mut self, id: &str, is_workload: bool) {
        if is_workload && self.ids.len() < MAX_WORKLOADS && !self.ids.iter().any(|known| known == id) {
            self.ids.push(id.to_owned());
        }
    }

    /// Those that a change of an object is about.
    fn of_object(&mut self, name: &Name) {
        let owner = name.parent().unwrap_or_else(|| name.clone());
        match owner.kind() {
            Kind::Switch if name.kind() == Kind::SwitchPort => {
                let port = self.nb.switches.get(owner.id()).and_then(|switch| switch.ports.get(name.id()));
                let is_workload =
                    port.is_none_or(|port| matches!(port.kind, SwitchPortKind::Workload { .. }));
                self.add(name.id(), is_workload);
                self.of_switch(owner.id());
            }
            Kind::Switch => self.of_switch(owner.id()),
            Kind::Router => {
                let linked = self.nb.switches.iter().filter(|(_, switch)| {
                    switch.ports.values().any(|port| {
                        matches!(&port.kind, SwitchPortKind::Router { router, .. } if router == owner.id())
                    })
                });
                let ids: Vec<_> = linked.map(|(id, _)| id.clone()).take(MAX_WORKLOADS).collect();
                ids.iter().for_each(|id| self.of_switch(id));
            }
            Kind::PortGroup => {
                let members = self.nb.port_groups.get(owner.id()).map(|group| &group.ports);
                let ids: Vec<_> =
                    members.into_iter().flat_map(|ports| ports.keys()).take(PER_OBJECT).collect();
                ids.into_iter().for_each(|id| self.add(id, true));
            }
            _ => {}
        }
    }

    fn of_switch(&mut self, id: &str) {
        let ports = self.nb.switches.get(id).map(|switch| &switch.ports);
        let workloads = ports.into_iter().flatten();
        let workloads = workloads.filter(|(_, port)| matches!(port.kind, SwitchPortKind::Workload { .. }));
        let ids: Vec<_> = workloads.map(|(id, _)| id.clone()).take(PER_OBJECT).collect();
        ids.iter().for_each(|id| self.add(id, true));
    }

    /// Somebody to talk to: of other switches, first.
    fn fill(&mut self) {
        if self.ids.is_empty() {
            return;
        }
        let ids: BTreeSet<_> = self.nb.switches.keys().take(MAX_WORKLOADS).cloned().collect();
        ids.iter().for_each(|id| self.of_switch(id));
    }
}
