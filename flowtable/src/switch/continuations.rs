//! Packets that wait for a controller's answer: what each had in the pipeline, and how it goes
//! on. Their number and the time they wait are bounded, and each port has a share; the oldest
//! go first, since a controller that has not answered them by now most likely never will.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fmt,
    sync::Arc,
    time::Duration,
};

use crate::{
    key::FlowKey,
    pipeline::Frozen,
    types::{PortNo, Timestamp},
};

/// Packets that wait at most.
pub const MAX_CONTINUATIONS: usize = 4096;
/// Packets of one port that wait at most.
pub const MAX_PORT_CONTINUATIONS: usize = 256;
/// How long one waits at most.
pub const CONTINUATION_LIFE: Duration = Duration::from_secs(30);

/// What a controller names a waiting packet by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContinuationId(u64);

impl ContinuationId {
    /// From what [`ContinuationId::get`] has answered.
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }

    /// As a number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ContinuationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#018x}", self.0)
    }
}

/// What became of waiting packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ContinuationCounters {
    /// Packets that were put aside.
    pub n_paused: u64,
    /// Packets that went on.
    pub n_resumed: u64,
    /// Packets that waited too long.
    pub n_expired: u64,
    /// Packets that made room for others.
    pub n_evicted: u64,
}

/// A waiting packet but for its frame.
#[derive(Debug)]
pub(super) struct Continuation {
    pub(super) frozen: Arc<Frozen>,
    /// Its key when the walk was put aside, as it was received.
    pub(super) key: FlowKey,
    pub(super) in_port: PortNo,
    born: Timestamp,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Continuations {
    /// By number, so that the oldest is the first.
    waiting: BTreeMap<u32, Continuation>,
    /// Numbers by port, oldest first; some are gone already.
    of_port: HashMap<PortNo, VecDeque<u32>>,
    last: u32,
    seed: u64,
    pub(super) counters: ContinuationCounters,
}

impl Continuations {
    pub(super) fn new(seed: u64) -> Self {
        let (waiting, of_port) = (BTreeMap::new(), HashMap::new());
        Self { waiting, of_port, last: 0, seed, counters: ContinuationCounters::default() }
    }

    /// Puts a packet aside.
    pub(super) fn add(
        &mut self,
        now: Timestamp,
        frozen: &Arc<Frozen>,
        key: &FlowKey,
        in_port: PortNo,
    ) -> ContinuationId {
        self.expire(now);
        self.make_room(in_port);
        self.last = self.last.wrapping_add(1);
        let continuation = Continuation { frozen: Arc::clone(frozen), key: *key, in_port, born: now };
        self.waiting.insert(self.last, continuation);
        self.of_port.entry(in_port).or_default().push_back(self.last);
        self.counters.n_paused += 1;
        self.id(self.last)
    }

    /// The packet with this id, which waits no longer.
    pub(super) fn take(&mut self, now: Timestamp, id: ContinuationId) -> Option<Continuation> {
        self.expire(now);
        let number = (id.0 >> 32) as u32;
        if self.id(number) != id {
            return None;
        }
        let taken = self.waiting.remove(&number)?;
        self.counters.n_resumed += 1;
        Some(taken)
    }

    fn expire(&mut self, now: Timestamp) {
        while let Some(first) = self.waiting.first_entry() {
            if now.since(first.get().born) < CONTINUATION_LIFE {
                break;
            }
            first.remove();
            self.counters.n_expired += 1;
        }
    }

    fn make_room(&mut self, in_port: PortNo) {
        let waiting = &mut self.waiting;
        let own = self.of_port.entry(in_port).or_default();
        if own.len() >= MAX_PORT_CONTINUATIONS {
            own.retain(|number| waiting.contains_key(number));
        }
        let victim = if own.len() >= MAX_PORT_CONTINUATIONS {
            own.pop_front()
        } else if waiting.len() >= MAX_CONTINUATIONS {
            waiting.first_key_value().map(|(number, _)| *number)
        } else {
            None
        };
        if victim.is_some_and(|number| waiting.remove(&number).is_some()) {
            self.counters.n_evicted += 1;
        }
    }

    /// The number, with something that nobody outside can foresee.
    fn id(&self, number: u32) -> ContinuationId {
        let mixed = (self.seed ^ u64::from(number)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 29).wrapping_mul(0x94d0_49bb_1331_11eb);
        ContinuationId(u64::from(number) << 32 | mixed >> 32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::random::port;

    fn frozen() -> Arc<Frozen> {
        let mut key = FlowKey::zero();
        key.eth_type.set(0x88b5);
        Arc::new(crate::pipeline::begin_packet_out(&key, vec![]).unwrap())
    }

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_nanos(secs * 1_000_000_000)
    }

    #[test]
    fn a_packet_waits_for_a_while_and_goes_on_once() {
        let (mut all, frozen, key) = (Continuations::new(1), frozen(), FlowKey::zero());
        let first = all.add(at(1), &frozen, &key, port(1));
        let second = all.add(at(20), &frozen, &key, port(1));
        assert_ne!(first, second);
        assert!(all.take(at(21), ContinuationId::new(first.get() ^ 1)).is_none(), "a guess");
        assert!(all.take(at(31), first).is_none(), "too late");
        assert!(all.take(at(31), second).is_some());
        assert!(all.take(at(31), second).is_none(), "once");
        let ContinuationCounters { n_paused, n_resumed, n_expired, n_evicted } = all.counters;
        assert_eq!((n_paused, n_resumed, n_expired, n_evicted), (2, 1, 1, 0));
    }

    #[test]
    fn a_port_that_is_never_answered_loses_its_own() {
        let (mut all, frozen, key) = (Continuations::new(1), frozen(), FlowKey::zero());
        let other = all.add(at(1), &frozen, &key, port(2));
        let own: Vec<_> = (0..1000).map(|_| all.add(at(1), &frozen, &key, port(1))).collect();
        assert_eq!(all.waiting.len(), MAX_PORT_CONTINUATIONS + 1);
        assert_eq!(all.counters.n_evicted, 1000 - MAX_PORT_CONTINUATIONS as u64);
        assert!(all.take(at(2), other).is_some());
        assert!(all.take(at(2), own[0]).is_none());
        assert!(all.take(at(2), own[999]).is_some());
        for raw in 3..40 {
            let ids = (0..300).map(|_| all.add(at(2), &frozen, &key, port(raw)));
            assert_eq!(ids.last().map(|id| id.get() >> 32), Some(u64::from(all.last)));
        }
        assert_eq!(all.waiting.len(), MAX_CONTINUATIONS);
    }
}
