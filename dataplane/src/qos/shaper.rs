//! The queues of a port, and which packet leaves next.
//!
//! Like `linux-htb`: each queue has a rate that it gets first (`min`), one that it does not
//! exceed (`max`), and a place among the others (`priority`) for what is left. Queues of the
//! same priority share alike, by bytes: each packet gets the moment at which it would leave if
//! all queues were served at once, and the earliest goes first (start-time fair queueing).

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use flowtable::types::Timestamp;

use super::{PortRates, QueueCounts, QueueSpec, bucket::Bucket};

/// How long a packet waits at most, at the rate of its queue, before later ones are dropped.
const MAX_WAIT: Duration = Duration::from_millis(50);
/// Bytes that may wait whatever the rate is: a few packets of 64 KiB.
const LEAST_ROOM: usize = 256 << 10;
/// And where there is no rate.
const MOST_ROOM: usize = 4 << 20;

/// The rates of a port, which all its ways out share.
#[derive(Debug)]
pub(crate) struct Buckets {
    port: Option<Bucket>,
    queues: BTreeMap<u16, (QueueSpec, Option<Bucket>, Option<Bucket>)>,
}

impl Buckets {
    pub(crate) fn new(rates: &PortRates) -> Self {
        let of = |spec: &QueueSpec| (*spec, spec.min.map(Bucket::new), spec.max.map(Bucket::new));
        let mut queues: BTreeMap<_, _> = rates.queues.iter().map(|(id, spec)| (*id, of(spec))).collect();
        queues.entry(0).or_insert_with(|| of(&QueueSpec::default()));
        Self { port: rates.send.map(Bucket::new), queues }
    }
}

/// The queues of one way out.
#[derive(Debug)]
pub(crate) struct Shaper<T> {
    buckets: Arc<Buckets>,
    /// In the order of their numbers, as in the buckets.
    queues: Vec<Queue<T>>,
    n_waiting: usize,
    /// Where fair service has come to.
    served: u64,
}

#[derive(Debug)]
struct Queue<T> {
    id: u16,
    room: usize,
    items: VecDeque<(T, usize)>,
    waiting_len: usize,
    /// Where its next packet is in fair service.
    tag: u64,
    counts: QueueCounts,
}

impl<T> Shaper<T> {
    pub(crate) fn new(buckets: Arc<Buckets>, rates: &PortRates) -> Self {
        let queue = |id: &u16| {
            let max = rates.queues.get(id).and_then(|spec| spec.max).or(rates.send);
            let room = max.map_or(MOST_ROOM, |rate| {
                let bits = u128::from(rate.bits_per_second) * MAX_WAIT.as_millis() / 1000;
                usize::try_from(bits / 8).unwrap_or(MOST_ROOM).clamp(LEAST_ROOM, MOST_ROOM)
            });
            let counts = QueueCounts::default();
            Queue { id: *id, room, items: VecDeque::new(), waiting_len: 0, tag: 0, counts }
        };
        let queues = buckets.queues.keys().map(queue).collect();
        Self { buckets, queues, n_waiting: 0, served: 0 }
    }

    /// Counters by number.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (u16, QueueCounts)> {
        self.queues
            .iter()
            .map(|queue| (queue.id, QueueCounts { n_waiting: queue.items.len() as u64, ..queue.counts }))
    }

    /// Takes a packet that is `len` bytes on the wire into a queue.
    ///
    /// # Errors
    /// The packet, when the queue has no room.
    pub(crate) fn push(&mut self, queue: u16, item: T, len: usize) -> Result<(), T> {
        // Queue 0 is there, and the first.
        let idx = self.queues.binary_search_by_key(&queue, |known| known.id).unwrap_or(0);
        let queue = &mut self.queues[idx];
        if !queue.items.is_empty() && queue.waiting_len + len > queue.room {
            queue.counts.n_dropped += 1;
            return Err(item);
        }
        if queue.items.is_empty() {
            // Who was away has not saved up for it.
            queue.tag = queue.tag.max(self.served);
        }
        queue.items.push_back((item, len));
        queue.waiting_len += len;
        self.n_waiting += 1;
        Ok(())
    }

    /// Notes that a packet was not taken for want of buffers.
    pub(crate) fn refuse(&mut self, queue: u16) {
        let idx = self.queues.binary_search_by_key(&queue, |known| known.id).unwrap_or(0);
        self.queues[idx].counts.n_dropped += 1;
    }

    /// The packet that leaves now, if one may.
    pub(crate) fn pop(&mut self, now: Timestamp) -> Option<T> {
        if self.n_waiting == 0 || self.buckets.port.as_ref().is_some_and(|port| !port.wait(now).is_zero()) {
            return None;
        }
        let (idx, is_due) = self.next(now)?;
        let queue = &mut self.queues[idx];
        let (item, len) = queue.items.pop_front()?;
        queue.waiting_len -= len;
        self.n_waiting -= 1;
        self.served = self.served.max(queue.tag);
        queue.tag += len as u64;
        queue.counts.n_packets += 1;
        queue.counts.n_bytes += len as u64;
        if let Some(port) = &self.buckets.port {
            port.charge(now, len);
        }
        if let Some((_, min, max)) = self.buckets.queues.get(&queue.id) {
            // What it had beyond is not taken from what it is to have first.
            min.iter().filter(|_| is_due).for_each(|min| min.charge(now, len));
            max.iter().for_each(|max| max.charge(now, len));
        }
        Some(item)
    }

    /// A packet, whatever the rates are: the shaper ends.
    pub(crate) fn pop_any(&mut self) -> Option<(u16, T, usize)> {
        let queue = self.queues.iter_mut().find(|queue| !queue.items.is_empty())?;
        let (item, len) = queue.items.pop_front()?;
        queue.waiting_len -= len;
        self.n_waiting -= 1;
        Some((queue.id, item, len))
    }

    /// The queue whose turn it is, and whether it has not had its `min` yet.
    fn next(&self, now: Timestamp) -> Option<(usize, bool)> {
        let mut best: Option<((bool, u8, u64), usize)> = None;
        for (idx, (queue, (spec, min, max))) in
            self.queues.iter().zip(self.buckets.queues.values()).enumerate()
        {
            if queue.items.is_empty() || max.as_ref().is_some_and(|max| !max.wait(now).is_zero()) {
                continue;
            }
            let is_due = min.as_ref().is_some_and(|min| min.wait(now).is_zero());
            let rank = (!is_due, spec.priority, queue.tag);
            if best.is_none_or(|(known, _)| rank < known) {
                best = Some((rank, idx));
            }
        }
        best.map(|((is_not_due, ..), idx)| (idx, !is_not_due))
    }

    /// How long until a packet may leave; `None`: none waits.
    pub(crate) fn wait(&self, now: Timestamp) -> Option<Duration> {
        let port = self.buckets.port.as_ref().map_or(Duration::ZERO, |port| port.wait(now));
        let waiting = self.queues.iter().zip(self.buckets.queues.values());
        let waiting = waiting.filter(|(queue, _)| !queue.items.is_empty());
        let queue = waiting.map(|(_, (_, _, max))| max.as_ref().map_or(Duration::ZERO, |max| max.wait(now)));
        Some(queue.min()?.max(port))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::Rate, *};

    const MEGABIT: u64 = 1_000_000;

    fn rate(megabits: u64) -> Option<Rate> {
        Some(Rate { bits_per_second: megabits * MEGABIT, burst_bits: 8 * 3000 })
    }

    fn shaper(send: Option<Rate>, queues: &[(u16, QueueSpec)]) -> Shaper<u64> {
        let rates = PortRates { receive: None, send, queues: queues.iter().copied().collect() };
        Shaper::new(Arc::new(Buckets::new(&rates)), &rates)
    }

    /// Keeps the queues that `offers` at a moment full for so long; megabits that left each.
    fn run(
        shaper: &mut Shaper<u64>,
        (millis, len): (u64, usize),
        offers: impl Fn(u64) -> Vec<u16>,
    ) -> BTreeMap<u16, f64> {
        let start = Timestamp::from_nanos(1_000_000_000);
        let (mut now, end) = (start, start.after(Duration::from_millis(millis)));
        let mut left = BTreeMap::new();
        while now < end {
            for queue in offers(now.since(start).as_millis() as u64) {
                while shaper.push(queue, queue.into(), len).is_ok() {}
            }
            while let Some(queue) = shaper.pop(now) {
                *left.entry(queue as u16).or_insert(0.0) += len as f64 * 8.0;
            }
            let wait = shaper.wait(now).unwrap_or(Duration::from_millis(1));
            assert!(!wait.is_zero(), "a packet that may leave has left");
            now = now.after(wait.min(Duration::from_millis(1)));
        }
        let seconds = millis as f64 / 1000.0;
        left.into_iter().map(|(queue, bits)| (queue, bits / seconds / MEGABIT as f64)).collect()
    }

    fn close(found: &BTreeMap<u16, f64>, wanted: &[(u16, f64)]) {
        for (queue, megabits) in wanted {
            let own = found.get(queue).copied().unwrap_or(0.0);
            assert!(
                (own - megabits).abs() <= megabits * 0.02 + 0.3,
                "queue {queue}: {own}, not {megabits}: {found:?}"
            );
        }
    }

    #[test]
    fn a_port_sends_at_its_rate_whatever_its_packets_are() {
        for len in [60, 1500, 65_000] {
            let left = run(&mut shaper(rate(100), &[]), (1000, len), |_| vec![0]);
            close(&left, &[(0, 100.0)]);
        }
    }

    #[test]
    fn queues_of_one_priority_share_alike_by_bytes() {
        let spec = QueueSpec::default();
        let mut shaper = shaper(rate(90), &[(1, spec), (2, spec)]);
        let left = run(&mut shaper, (1000, 1500), |_| vec![0, 1, 2]);
        close(&left, &[(0, 30.0), (1, 30.0), (2, 30.0)]);
    }

    #[test]
    fn a_queue_that_was_away_has_nothing_coming() {
        let spec = QueueSpec::default();
        let mut shaper = shaper(rate(100), &[(1, spec)]);
        let left = run(&mut shaper, (1000, 1500), |at| if at < 500 { vec![0] } else { vec![0, 1] });
        close(&left, &[(0, 75.0), (1, 25.0)]);
    }

    #[test]
    fn min_comes_first_then_priority_and_max_holds() {
        let first = QueueSpec { priority: 0, ..QueueSpec::default() };
        let later = QueueSpec { priority: 5, min: rate(20), ..QueueSpec::default() };
        let bounded = QueueSpec { priority: 0, max: rate(10), ..QueueSpec::default() };
        let mut one = shaper(rate(100), &[(1, first), (2, later), (3, bounded)]);
        let left = run(&mut one, (1000, 1500), |_| vec![1, 2, 3]);
        close(&left, &[(1, 70.0), (2, 20.0), (3, 10.0)]);
        // What nobody else wants is its own, and that was not borrowed.
        let mut two = shaper(rate(100), &[(1, first), (2, later)]);
        let left = run(&mut two, (1000, 1500), |at| if at < 500 { vec![2] } else { vec![1, 2] });
        close(&left, &[(1, 40.0), (2, 60.0)]);
    }

    #[test]
    fn a_queue_without_a_number_of_its_own_is_the_first_and_full_ones_refuse() {
        let mut shaper = shaper(rate(1), &[(7, QueueSpec::default())]);
        let mut n = 0;
        while shaper.push(9, n, 1000).is_ok() {
            n += 1;
        }
        assert_eq!(n as usize, LEAST_ROOM / 1000);
        assert!(shaper.push(7, 0, LEAST_ROOM * 2).is_ok(), "an empty one takes any");
        let counts: BTreeMap<_, _> = shaper.counts().collect();
        assert_eq!((counts[&0].n_dropped, counts[&0].n_waiting, counts[&7].n_waiting), (1, n, 1));
        let mut n_left = 0;
        while shaper.pop_any().is_some() {
            n_left += 1;
        }
        assert_eq!((n_left, shaper.n_waiting), (n + 1, 0));
    }

    proptest! {
        /// Nothing is lost or changes its place within a queue, and nothing waits that may leave.
        #[test]
        fn what_goes_in_comes_out_in_its_order(
            specs in prop::collection::vec((0_u16..4, prop::option::of(1_u64..50), prop::option::of(1_u64..50), 0_u8..3), 0..4),
            send in prop::option::of(1_u64..100),
            packets in prop::collection::vec((0_u16..5, 60_usize..9000, 0_u64..300_000), 1..200),
        ) {
            let specs: Vec<_> = specs.into_iter().map(|(id, min, max, priority)| {
                (id, QueueSpec { min: min.and_then(rate), max: max.and_then(rate), priority })
            }).collect();
            let mut shaper = shaper(send.and_then(rate), &specs);
            let known = |queue: u16| if specs.iter().any(|(id, _)| *id == queue) { queue } else { 0 };
            let mut now = Timestamp::from_nanos(1);
            let (mut taken, mut left): (Vec<u64>, Vec<u64>) = (Vec::new(), Vec::new());
            for (n, (queue, len, pause)) in packets.iter().enumerate() {
                let item = u64::from(known(*queue)) << 32 | n as u64;
                if shaper.push(*queue, item, *len).is_ok() {
                    taken.push(item);
                }
                now = now.after(Duration::from_nanos(*pause));
                left.extend(std::iter::from_fn(|| shaper.pop(now)));
                prop_assert!(shaper.wait(now).is_none_or(|wait| !wait.is_zero()));
            }
            while let Some(wait) = shaper.wait(now) {
                now = now.after(wait);
                let before = left.len();
                left.extend(std::iter::from_fn(|| shaper.pop(now)));
                prop_assert!(left.len() > before);
            }
            taken.sort_unstable();
            for queue in 0..5 {
                let of = |items: &[u64]| items.iter().copied().filter(|item| item >> 32 == queue).collect::<Vec<_>>();
                prop_assert_eq!(of(&left), of(&taken));
            }
        }
    }
}
