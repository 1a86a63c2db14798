//! Takes in what the features make of one unit.

use std::{borrow::Cow, sync::Arc};

use flowtable::types::Priority;

use super::{
    stage::Stage,
    unit::{DatapathHead, Output},
};
use crate::{
    backends,
    expr::sets_of,
    heard,
    key::{DatapathKey, PortKey},
    names, sampling,
    southbound::{LogicalFlow, PortBinding},
    template,
    text::shared,
};

/// Priority 0, for a stage's default.
const LOWEST: Priority = match Priority::new(0) {
    Ok(priority) => priority,
    Err(_) => panic!("0 is a priority"),
};

/// Takes in what a unit contributes to its datapath.
pub(crate) struct FlowSink {
    datapath: DatapathKey,
    rank: u16,
    output: Output,
}

impl FlowSink {
    pub(crate) fn new(datapath: DatapathKey) -> Self {
        Self { datapath, rank: 0, output: Output { key: Some(datapath), ..Output::default() } }
    }

    /// The feature that comes next in the order of features.
    pub(super) fn set_rank(&mut self, rank: u16) {
        self.rank = rank;
    }

    /// Adds a flow: where, which packets, what to do, for which object, and why. Of two
    /// with the same stage, priority and match the one of the earlier feature stays, then
    /// that of the first unit, then the first one: which would win in a table is not
    /// defined.
    pub(crate) fn add(
        &mut self,
        stage: impl Into<Stage>,
        priority: u16,
        matching: impl Into<String>,
        actions: impl Into<String>,
        object: &str,
        why: &str,
    ) {
        let (stage, matching, actions) = (stage.into(), matching.into(), actions.into());
        self.output.named_sets.extend(sets_of(&matching));
        self.output.named_sets.extend(template::named_in(&actions).map(template::set_of));
        let flow = LogicalFlow {
            datapath: self.datapath,
            pipeline: stage.pipeline,
            stage: stage.number,
            stage_name: shared(stage.name),
            priority: Priority::new(priority).unwrap_or(LOWEST),
            matching,
            actions,
            object: shared(object),
            why: shared(why),
        };
        self.output.flows.push((self.rank, Arc::new(flow)));
    }

    /// There is a group, with or without ports.
    pub(crate) fn group(&mut self, key: PortKey, name: impl Into<Cow<'static, str>>) {
        self.output.groups.push((key, name.into()));
    }

    /// A port is in a group, which there is then.
    pub(crate) fn join(&mut self, key: PortKey, name: impl Into<Cow<'static, str>>, port: &str) {
        self.output.members.push((key, name.into(), port.to_owned()));
    }

    /// The datapath's workloads see these names.
    pub(crate) fn names(&mut self, id: &str) {
        self.output.named_sets.insert(names::set_of(id));
    }

    /// Hosts are told where a collector of sampled packets is.
    pub(crate) fn collector(&mut self, id: &str) {
        self.output.named_sets.insert(sampling::set_of(id));
    }

    /// Hosts are told who others have heard of behind a port.
    pub(super) fn heard(&mut self, port: &str) {
        self.output.named_sets.insert(heard::set_of(port));
    }

    /// There are flows.
    pub(super) fn has_flows(&self) -> bool {
        !self.output.flows.is_empty()
    }

    /// Hosts are told what the backends of a load balancer are.
    pub(super) fn backends(&mut self, id: &str) {
        self.output.named_sets.insert(backends::set_of(id));
    }

    pub(super) fn datapath(&mut self, head: DatapathHead) {
        self.output.datapath = Some(head);
    }

    pub(super) fn binding(&mut self, id: &str, binding: PortBinding) {
        self.output.bindings.push((id.to_owned(), binding));
    }

    pub(super) fn finish(self) -> Output {
        self.output
    }
}
