//! Puts the units of a whole network together, the plain way.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

use super::unit::{Item, Output};
use crate::{
    key::DatapathKey,
    southbound::{LogicalFlow, Pipeline, Southbound},
};

/// Bits of an id below the datapath's key.
pub(crate) const HASH_BITS: u32 = 40;

/// Precedence among flows with the same place: feature, unit, number within the unit.
pub(crate) type Rank = (u16, Arc<Item>, usize);

/// The packets that a flow is for, in the order of the pipeline.
type Place<'a> = (Pipeline, u8, Reverse<u16>, &'a str);

/// The whole, but for chassis and sets.
pub(super) fn assemble(units: Vec<(Output, Arc<Item>)>) -> Southbound {
    let mut sb = Southbound::default();
    let mut flows: BTreeMap<DatapathKey, Vec<(Rank, Arc<LogicalFlow>)>> = BTreeMap::new();
    let mut named = BTreeMap::new();
    for (output, item) in units {
        let Some(key) = output.key else { continue };
        if let Some(head) = output.datapath {
            sb.datapaths.insert(key, head.with_sets(Default::default()));
        }
        sb.bindings.extend(output.bindings);
        for (group, name) in output.groups {
            sb.groups.entry((key, group)).or_default().name = name.into_owned();
        }
        for (group, name, port) in output.members {
            let group = sb.groups.entry((key, group)).or_default();
            group.name = name.into_owned();
            group.ports.insert(port);
        }
        named.entry(key).or_insert_with(Vec::new).extend(output.named_sets);
        let ranked = output.flows.into_iter().enumerate();
        let ranked = ranked.map(|(n, (rank, flow))| ((rank, Arc::clone(&item), n), flow));
        flows.entry(key).or_default().extend(ranked);
    }
    for (key, datapath) in &mut sb.datapaths {
        datapath.sets.extend(named.remove(key).unwrap_or_default());
    }
    for (key, mut flows) in flows {
        flows.sort_by(|(a, _), (b, _)| a.cmp(b));
        sb.flows.extend(number(key, flows.into_iter().map(|(_, flow)| flow)));
    }
    sb
}

/// The flows of a datapath by their ids: the datapath's key, so that ids of different
/// datapaths differ, and a hash of the rest. Of flows with the same place the first one
/// stays; of flows with the same hash the later ones, by place, take the next free number.
pub(crate) fn number(
    datapath: DatapathKey,
    flows: impl Iterator<Item = Arc<LogicalFlow>>,
) -> BTreeMap<u64, Arc<LogicalFlow>> {
    let flows: Vec<_> = flows.collect();
    let mut by_place: BTreeMap<Place<'_>, &Arc<LogicalFlow>> = BTreeMap::new();
    for flow in &flows {
        by_place.entry(place(flow)).or_insert(flow);
    }
    let mut numbered = BTreeMap::new();
    for flow in by_place.into_values() {
        let mut id = id(datapath, flow);
        while numbered.contains_key(&id) {
            id = with_hash(datapath, id + 1);
        }
        numbered.insert(id, Arc::clone(flow));
    }
    numbered
}

/// Where a flow is and what it matches.
pub(crate) fn place(flow: &LogicalFlow) -> Place<'_> {
    (flow.pipeline, flow.stage, Reverse(flow.priority.get()), &flow.matching)
}

/// The id of a flow that shares its hash with no other.
pub(crate) fn id(datapath: DatapathKey, flow: &LogicalFlow) -> u64 {
    with_hash(datapath, hash(flow))
}

/// All ids of a datapath.
pub(crate) fn ids(datapath: DatapathKey) -> std::ops::RangeInclusive<u64> {
    with_hash(datapath, 0)..=with_hash(datapath, u64::MAX)
}

/// The datapath that an id begins with.
pub(crate) fn datapath_of(id: u64) -> Option<DatapathKey> {
    DatapathKey::new(u32::try_from(id >> HASH_BITS).ok()?).ok()
}

fn with_hash(datapath: DatapathKey, hash: u64) -> u64 {
    u64::from(datapath.get()) << HASH_BITS | hash & ((1 << HASH_BITS) - 1)
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
    (hash ^ hash >> HASH_BITS) & hash_mask()
}

#[cfg(not(test))]
const fn hash_mask() -> u64 {
    u64::MAX
}

#[cfg(test)]
thread_local! {
    static HASH_MASK: std::cell::Cell<u64> = const { std::cell::Cell::new(u64::MAX) };
}

#[cfg(test)]
fn hash_mask() -> u64 {
    HASH_MASK.get()
}

/// Makes hashes shorter, in this thread.
#[cfg(test)]
pub(crate) fn test_hash_bits(n_bits: u32) {
    HASH_MASK.set((1 << n_bits) - 1);
}

#[cfg(test)]
mod tests {
    use super::{
        super::{sink::FlowSink, stage::SwitchIn},
        *,
    };

    fn flows(flows: &[(SwitchIn, u16, &str, &str, &str)]) -> BTreeMap<u64, Arc<LogicalFlow>> {
        let key = DatapathKey::new(3).unwrap();
        let mut sink = FlowSink::new(key);
        for (stage, priority, matching, actions, object) in flows {
            sink.add(*stage, *priority, *matching, *actions, object, "");
        }
        number(key, sink.finish().flows.into_iter().map(|(_, flow)| flow))
    }

    #[test]
    fn an_id_depends_on_the_flow_alone() {
        let one = flows(&[(SwitchIn::AclEval, 7, "ip4", "next;", "a")]);
        let two =
            flows(&[(SwitchIn::L2Lkup, 7, "ip4", "next;", "a"), (SwitchIn::AclEval, 7, "ip4", "next;", "a")]);
        let (id, _) = one.first_key_value().unwrap();
        assert_eq!(two.len(), 2);
        assert!(two.contains_key(id));
        assert_eq!(*id, 0x03d6_2ad5_779f, "ids must stay as they are: {id:#x}");
    }

    #[test]
    fn the_first_of_two_that_contradict_each_other_stays() {
        let flows = flows(&[
            (SwitchIn::AclEval, 7, "ip4", "drop;", "a"),
            (SwitchIn::AclEval, 7, "ip4", "next;", "b"),
        ]);
        assert_eq!(flows.len(), 1);
        assert_eq!(flows.values().next().unwrap().actions, "drop;");
    }
}
