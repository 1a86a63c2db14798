//! Collects the logical flows of one datapath and gives them their ids.

use std::{cmp::Reverse, collections::BTreeMap};

use flowtable::types::Priority;

use super::stage::Stage;
use crate::{key::DatapathKey, southbound::LogicalFlow};

/// Bits of an id below the datapath's key.
const HASH_BITS: u32 = 40;

/// Priority 0, for a stage's default.
const LOWEST: Priority = match Priority::new(0) {
    Ok(priority) => priority,
    Err(_) => panic!("0 is a priority"),
};

/// Takes flows in. Of two with the same stage, priority and match the first one stays:
/// which would win in a table is not defined.
pub(crate) struct FlowSink {
    datapath: DatapathKey,
    flows: BTreeMap<(Stage, Reverse<u16>, String), LogicalFlow>,
}

impl FlowSink {
    pub(crate) fn new(datapath: DatapathKey) -> Self {
        Self { datapath, flows: BTreeMap::new() }
    }

    /// Adds a flow: where, which packets, what to do, for which object, and why.
    pub(crate) fn add(
        &mut self,
        stage: impl Into<Stage>,
        priority: u16,
        matching: impl Into<String>,
        actions: impl Into<String>,
        object: &str,
        why: &str,
    ) {
        let (stage, matching) = (stage.into(), matching.into());
        let flow = LogicalFlow {
            datapath: self.datapath,
            pipeline: stage.pipeline,
            stage: stage.number,
            stage_name: stage.name.to_owned(),
            priority: Priority::new(priority).unwrap_or(LOWEST),
            matching: matching.clone(),
            actions: actions.into(),
            object: object.to_owned(),
            why: why.to_owned(),
        };
        self.flows.entry((stage, Reverse(priority), matching)).or_insert(flow);
    }

    /// The flows by their ids: the datapath's key, so that ids of different datapaths
    /// differ, and a hash of the rest. Of flows with the same hash the later ones, by
    /// stage, falling priority and match, take the next free number.
    pub(crate) fn finish(self) -> BTreeMap<u64, LogicalFlow> {
        let mut flows = BTreeMap::new();
        let base = u64::from(self.datapath.get()) << HASH_BITS;
        for flow in self.flows.into_values() {
            let mut hash = hash(&flow);
            while flows.contains_key(&(base | hash)) {
                hash = (hash + 1) & ((1 << HASH_BITS) - 1);
            }
            flows.insert(base | hash, flow);
        }
        flows
    }
}

/// FNV-1a of what a flow is, folded to [`HASH_BITS`]. Part of what controllers and hosts
/// of different versions agree on: it must not change.
fn hash(flow: &LogicalFlow) -> u64 {
    let place = [flow.pipeline as u8, flow.stage];
    let priority = flow.priority.get().to_be_bytes();
    let texts = [flow.matching.as_bytes(), flow.actions.as_bytes(), flow.object.as_bytes()];
    let bytes = place.iter().chain(&priority).chain(texts.iter().flat_map(|text| text.iter().chain(&[0xff])));
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash ^ hash >> HASH_BITS) & ((1 << HASH_BITS) - 1)
}

#[cfg(test)]
mod tests {
    use super::{super::stage::SwitchIn, *};

    fn sink() -> FlowSink {
        FlowSink::new(DatapathKey::new(3).unwrap())
    }

    #[test]
    fn an_id_depends_on_the_flow_alone() {
        let mut one = sink();
        one.add(SwitchIn::AclEval, 7, "ip4", "next;", "a", "");
        let mut two = sink();
        two.add(SwitchIn::L2Lkup, 7, "ip4", "next;", "a", "");
        two.add(SwitchIn::AclEval, 7, "ip4", "next;", "a", "another reason");
        let (one, two) = (one.finish(), two.finish());
        let (id, _) = one.first_key_value().unwrap();
        assert_eq!(two.len(), 2);
        assert!(two.contains_key(id));
        assert_eq!(*id, 0x03dd_4ac3_bd90, "ids must stay as they are: {id:#x}");
    }

    #[test]
    fn the_first_of_two_that_contradict_each_other_stays() {
        let mut sink = sink();
        sink.add(SwitchIn::AclEval, 7, "ip4", "drop;", "a", "");
        sink.add(SwitchIn::AclEval, 7, "ip4", "next;", "b", "");
        let flows = sink.finish();
        assert_eq!(flows.len(), 1);
        assert_eq!(flows.values().next().unwrap().actions, "drop;");
    }
}
