//! What a change that is only validated would do: to the logical flows, and to who can talk to whom.

use std::io::{self, Write};

use ferroflow_proto::northbound::{Effect, ExplainRequest, FlowChange, ReachabilityChange};
use serde::Serialize;

use crate::output::{printable, short};

/// What is shown of an effect.
#[derive(Debug, Clone, Default, Serialize)]
pub struct EffectView {
    /// Logical flows that would be there or be gone; the first thousand.
    flows: Vec<FlowView>,
    n_added_flows: u64,
    n_removed_flows: u64,
    /// Hosts that have a part of what would change.
    chassis: Vec<String>,
    reachability: Vec<ReachabilityView>,
    /// Conversations that were looked at.
    n_conversations: u64,
}

#[derive(Debug, Clone, Serialize)]
struct FlowView {
    added: bool,
    datapath: String,
    stage: String,
    priority: u32,
    #[serde(rename = "match")]
    matching: String,
    actions: String,
    object: String,
}

#[derive(Debug, Clone, Serialize)]
struct ReachabilityView {
    from: String,
    to: String,
    protocol: String,
    port: u32,
    could_talk: bool,
    can_talk: bool,
    before: String,
    after: String,
}

impl From<Effect> for EffectView {
    fn from(effect: Effect) -> Self {
        Self {
            flows: effect.flows.into_iter().map(FlowView::from).collect(),
            n_added_flows: effect.n_added_flows,
            n_removed_flows: effect.n_removed_flows,
            chassis: effect.chassis.iter().map(|name| short(name).to_owned()).collect(),
            reachability: effect.reachability.into_iter().map(ReachabilityView::from).collect(),
            n_conversations: effect.n_conversations,
        }
    }
}

impl From<FlowChange> for FlowView {
    fn from(FlowChange { added, priority, flow }: FlowChange) -> Self {
        let flow = flow.unwrap_or_default();
        let (datapath, stage, object) = (flow.datapath, flow.stage, flow.object);
        Self { added, datapath, stage, priority, matching: flow.r#match, actions: flow.actions, object }
    }
}

impl From<ReachabilityChange> for ReachabilityView {
    fn from(change: ReachabilityChange) -> Self {
        let ReachabilityChange { conversation, could_talk, can_talk, before, after } = change;
        let ExplainRequest { from, to, protocol, port, .. } = conversation.unwrap_or_default();
        Self { from, to, protocol, port, could_talk, can_talk, before, after }
    }
}

impl EffectView {
    /// Prints who could not talk any more, who could for the first time, and how much of the network
    /// changes.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        for change in &self.reachability {
            let port = if change.port == 0 { String::new() } else { format!(" {}", change.port) };
            let (sign, word) = if change.can_talk { ('+', "can talk") } else { ('-', "cannot talk") };
            let why = if change.can_talk { &change.before } else { &change.after };
            let ReachabilityView { from, to, protocol, .. } = change;
            let line = format!("{sign} {} to {}, {protocol}{port}: {word} then", short(from), short(to));
            let why = if change.can_talk { format!("before: {why}") } else { why.clone() };
            writeln!(out, "{} ({})", printable(&line), printable(&why))?;
        }
        if self.reachability.is_empty() && self.n_conversations > 0 {
            writeln!(out, "of {} conversations looked at none ends otherwise", self.n_conversations)?;
        }
        let (more, less) = (self.n_added_flows, self.n_removed_flows);
        let hosts = match self.chassis.len() {
            0 => "no host has a part of it".to_owned(),
            1..=8 => format!("on {}", self.chassis.join(", ")),
            n => format!("on {n} hosts"),
        };
        writeln!(out, "logical flows: {more} more, {less} less; {}", printable(&hosts))
    }
}
