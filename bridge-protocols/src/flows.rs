//! Flows on their way to collectors: what was counted of each is gathered until it is time to
//! tell of it. [`crate::netflow`] and [`crate::ipfix`] say how it is told.
//!
//! Time is told in milliseconds since whoever counts began ([`Timestamp`]); how far that is from
//! 1970 is known where messages are written.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    time::Duration,
};

use flowtable::{account::Way, types::Timestamp};

/// When flows are told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Of one that goes on, after so long.
    pub active: Duration,
    /// Of one that has had no packet for so long.
    pub inactive: Duration,
    /// So many are gathered at most; the one that began first is told of before its time then.
    pub max_flows: usize,
}

/// Why a flow is told of now (RFC 5102 §5.11.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum End {
    /// It has had no packet for long.
    Inactive = 1,
    /// It goes on.
    Active = 2,
    /// Nothing is gathered any more.
    Forced = 4,
    /// There was no room.
    NoRoom = 5,
}

/// What was counted of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// Packets.
    pub n_packets: u64,
    /// Bytes of their frames.
    pub n_bytes: u64,
    /// All flags of TCP that were seen.
    pub tcp_flags: u16,
    /// Where the last packet went.
    pub way: Way,
    /// When the first one came.
    pub first: Timestamp,
    /// When the last one came.
    pub last: Timestamp,
}

/// A flow that is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told<K> {
    /// Which one.
    pub flow: K,
    /// What was counted since it was told of last.
    pub count: Count,
    /// Why now.
    pub end: End,
}

/// Flows that are gathered, each under a key that says which it is.
#[derive(Debug, Clone)]
pub struct FlowCache<K> {
    limits: Limits,
    /// With its place among those that began.
    flows: HashMap<K, (u64, Count)>,
    /// By when they began.
    order: BTreeMap<u64, K>,
    n_begun: u64,
    done: Vec<Told<K>>,
}

impl<K: Copy + Eq + Hash> FlowCache<K> {
    /// Nothing is gathered yet.
    pub fn new(limits: Limits) -> Self {
        Self { limits, flows: HashMap::new(), order: BTreeMap::new(), n_begun: 0, done: Vec::new() }
    }

    /// Flows that are gathered now.
    pub fn len(&self) -> usize {
        self.flows.len()
    }

    /// None is.
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    /// Adds what was counted of a flow.
    pub fn add(&mut self, flow: K, more: &Count) {
        if let Some((_, count)) = self.flows.get_mut(&flow) {
            count.n_packets = count.n_packets.saturating_add(more.n_packets);
            count.n_bytes = count.n_bytes.saturating_add(more.n_bytes);
            count.tcp_flags |= more.tcp_flags;
            count.way = more.way;
            count.first = count.first.min(more.first);
            count.last = count.last.max(more.last);
            return;
        }
        if self.flows.len() >= self.limits.max_flows.max(1)
            && let Some((_, oldest)) = self.order.pop_first()
            && let Some((_, count)) = self.flows.remove(&oldest)
        {
            self.done.push(Told { flow: oldest, count, end: End::NoRoom });
        }
        self.n_begun += 1;
        self.order.insert(self.n_begun, flow);
        self.flows.insert(flow, (self.n_begun, *more));
    }

    /// Takes the flows that are to be told of by now.
    pub fn take(&mut self, now: Timestamp) -> Vec<Told<K>> {
        let Self { limits, flows, order, done, .. } = self;
        flows.retain(|flow, (place, count)| {
            let end = if now.since(count.last) >= limits.inactive {
                End::Inactive
            } else if now.since(count.first) >= limits.active {
                End::Active
            } else {
                return true;
            };
            done.push(Told { flow: *flow, count: *count, end });
            order.remove(place);
            false
        });
        std::mem::take(done)
    }

    /// Takes all of them: nothing is gathered any more.
    pub fn end(&mut self) -> Vec<Told<K>> {
        self.order.clear();
        let rest = self.flows.drain().map(|(flow, (_, count))| Told { flow, count, end: End::Forced });
        let mut done = std::mem::take(&mut self.done);
        done.extend(rest);
        done
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits =
        Limits { active: Duration::from_secs(60), inactive: Duration::from_secs(15), max_flows: 8 };

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_nanos(secs * 1_000_000_000)
    }

    fn packet(secs: u64) -> Count {
        Count { n_packets: 1, n_bytes: 100, first: at(secs), last: at(secs), ..Count::default() }
    }

    #[test]
    fn a_flow_is_told_of_when_it_is_over_or_goes_on_for_long() {
        let mut cache = FlowCache::new(LIMITS);
        for secs in 0..70 {
            cache.add("long", &Count { tcp_flags: 1 << (secs % 3), ..packet(secs) });
            if secs < 3 {
                cache.add("short", &packet(secs));
            }
            for told in cache.take(at(secs)) {
                let Count { n_packets, tcp_flags, first, last, .. } = told.count;
                match told.flow {
                    "short" => {
                        assert_eq!((secs, told.end, n_packets, tcp_flags), (17, End::Inactive, 3, 0));
                        assert_eq!((first, last), (at(0), at(2)));
                    }
                    _ => assert_eq!((secs, told.end, n_packets, tcp_flags), (60, End::Active, 61, 7)),
                }
            }
        }
        let rest = cache.end();
        assert_eq!((rest.len(), rest[0].count.n_packets, rest[0].end), (1, 9, End::Forced));
        assert!(cache.is_empty() && cache.take(at(999)).is_empty());
    }

    proptest! {
        /// Whatever comes when: memory is bounded, and each packet is told of once.
        #[test]
        fn each_packet_is_told_of_once(packets in proptest::collection::vec((0..20_u8, 0..9_u64), 0..300)) {
            let mut cache = FlowCache::new(LIMITS);
            let (mut sent, mut told) = (BTreeMap::<u8, u64>::new(), BTreeMap::<u8, u64>::new());
            let mut secs = 0;
            for (flow, pause) in packets {
                secs += pause;
                cache.add(flow, &packet(secs));
                *sent.entry(flow).or_default() += 1;
                prop_assert!(cache.len() <= LIMITS.max_flows && cache.order.len() == cache.len());
                if pause % 3 == 0 {
                    cache.take(at(secs)).iter().for_each(|one| *told.entry(one.flow).or_default() += one.count.n_packets);
                }
            }
            cache.end().iter().for_each(|one| *told.entry(one.flow).or_default() += one.count.n_packets);
            prop_assert_eq!(told, sent);
        }
    }
}
