//! Shows packets of a worker to those who capture, or watch who has most of the traffic.
//!
//! Each capture is a [`Tap`]: what is wanted, and a bounded queue to its reader. A worker without
//! taps looks at the length of an empty list, and does no more.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
};

use crossbeam::queue::ArrayQueue;
use flowtable::{
    drop::DropReason,
    flow::{Match, Rule},
    key::FlowKey,
    packet::{FrameBuf, Packet},
    parse::parse,
    types::Timestamp,
};

use crate::{
    capture::{CaptureFilter, CapturePoint, Captured},
    config::PortId,
    top::{Watch, Watcher},
};

/// Packets that wait for their reader.
const MAX_WAITING: usize = 1 << 14;
/// Their bytes.
const MAX_WAITING_LEN: usize = 32 << 20;

/// One capture, as workers see it.
#[derive(Debug)]
pub(crate) struct Tap {
    filter: CaptureFilter,
    queue: ArrayQueue<Captured>,
    waiting_len: AtomicUsize,
    n_lost: AtomicU64,
}

/// A packet at a place where it can be captured.
pub(crate) struct Sight<'a> {
    pub(crate) point: CapturePoint,
    pub(crate) port: PortId,
    /// Of a dropped one.
    pub(crate) why: Option<(DropReason, Option<&'a Arc<Rule>>)>,
}

impl Tap {
    pub(crate) fn new(filter: CaptureFilter) -> Self {
        Self {
            filter,
            queue: ArrayQueue::new(MAX_WAITING),
            waiting_len: AtomicUsize::new(0),
            n_lost: AtomicU64::new(0),
        }
    }

    /// The next packet that was captured.
    pub(crate) fn take(&self) -> Option<Captured> {
        let captured = self.queue.pop()?;
        self.waiting_len.fetch_sub(captured.bytes.len(), Relaxed);
        Some(captured)
    }

    /// How many were wanted and not captured, since this was asked last.
    pub(crate) fn take_lost(&self) -> u64 {
        self.n_lost.swap(0, Relaxed)
    }

    fn wants<B: FrameBuf>(&self, sight: &Sight<'_>, packet: &mut Packet<B>) -> bool {
        self.filter.points.contains(&sight.point)
            && self.filter.bridge.is_none_or(|bridge| bridge == sight.port.bridge)
            && (self.filter.ports.is_empty() || self.filter.ports.contains(&sight.port))
            && matches(&self.filter.matching, packet)
    }

    fn keep(&self, now: Timestamp, sight: &Sight<'_>, bytes: &[u8]) {
        let kept = &bytes[..bytes.len().min(self.filter.max_len)];
        let waiting_len = self.waiting_len.fetch_add(kept.len(), Relaxed);
        let captured = (waiting_len + kept.len() <= MAX_WAITING_LEN).then(|| Captured {
            time: now,
            point: sight.point,
            port: sight.port,
            len: bytes.len(),
            bytes: kept.into(),
            reason: sight.why.map(|(reason, _)| reason),
            rule: sight.why.and_then(|(_, rule)| rule.cloned()),
        });
        if captured.is_none_or(|captured| self.queue.push(captured).is_err()) {
            self.waiting_len.fetch_sub(kept.len(), Relaxed);
            self.n_lost.fetch_add(1, Relaxed);
        }
    }
}

/// A packet has the headers that are wanted, as it is now.
fn matches<B: FrameBuf>(matching: &Match, packet: &mut Packet<B>) -> bool {
    if matching.is_any() {
        return true;
    }
    let mut key = FlowKey::zero();
    let (len, in_port) = (packet.len(), packet.in_port);
    let mut seen = Packet::new(packet.bytes_mut(), 0, len, in_port);
    parse(&mut seen, &mut key).is_ok() && matching.matches(&key)
}

/// All captures and watches, as one worker sees them.
#[derive(Debug, Default)]
pub(crate) struct Taps {
    taps: Vec<Arc<Tap>>,
    watchers: Vec<Watcher>,
}

impl Taps {
    /// Nobody captures or watches.
    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.taps.is_empty() && self.watchers.is_empty()
    }

    pub(crate) fn add(&mut self, tap: Arc<Tap>) {
        self.taps.push(tap);
    }

    pub(crate) fn remove(&mut self, tap: &Arc<Tap>) {
        self.taps.retain(|own| !Arc::ptr_eq(own, tap));
    }

    pub(crate) fn add_watcher(&mut self, watcher: Watcher) {
        self.watchers.push(watcher);
    }

    pub(crate) fn remove_watch(&mut self, watch: &Arc<Watch>) {
        self.watchers.retain(|own| !Arc::ptr_eq(&own.watch, watch));
    }

    /// Shows a packet to those who want it.
    #[cold]
    pub(crate) fn show<B: FrameBuf>(&mut self, now: Timestamp, sight: &Sight<'_>, packet: &mut Packet<B>) {
        for tap in &self.taps {
            if tap.wants(sight, packet) {
                tap.keep(now, sight, packet.bytes());
            }
        }
        self.watchers.iter_mut().for_each(|watcher| watcher.see(sight.point, sight.port, packet));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use flowtable::{
        build::{Host, packet, udp},
        field::Field,
        types::PortNo,
    };

    use super::*;

    fn filter() -> CaptureFilter {
        CaptureFilter { max_len: 64, ..CaptureFilter::default() }
    }

    fn port(raw: u32) -> PortId {
        PortNo::new(raw).unwrap().into()
    }

    fn show(tap: &Arc<Tap>, point: CapturePoint, at: PortId, frame: &[u8]) -> Option<Captured> {
        let mut taps = Taps::default();
        taps.add(Arc::clone(tap));
        let sight = Sight { point, port: at, why: None };
        taps.show(Timestamp::from_nanos(7), &sight, &mut packet(frame, at.port));
        tap.take()
    }

    #[test]
    fn what_is_wanted_is_kept_and_nothing_else() {
        let frame = udp(&Host::v4(1), &Host::v4(2), &[0; 200]);
        let all = Arc::new(Tap::new(filter()));
        let kept = show(&all, CapturePoint::Sent, port(3), &frame).unwrap();
        assert_eq!((kept.len, &kept.bytes[..], kept.time.nanos()), (frame.len(), &frame[..64], 7));

        let dropped = CaptureFilter { points: BTreeSet::from([CapturePoint::Dropped]), ..filter() };
        let dropped = Arc::new(Tap::new(dropped));
        assert!(show(&dropped, CapturePoint::Sent, port(3), &frame).is_none());
        assert!(show(&dropped, CapturePoint::Dropped, port(3), &frame).is_some());

        let of_port = Arc::new(Tap::new(CaptureFilter { ports: BTreeSet::from([port(4)]), ..filter() }));
        assert!(show(&of_port, CapturePoint::Received, port(3), &frame).is_none());
        assert!(show(&of_port, CapturePoint::Received, port(4), &frame).is_some());

        let ipv6 = Match::any().with(Field::EthType, 0x86dd);
        let ipv6 = Arc::new(Tap::new(CaptureFilter { matching: ipv6, ..filter() }));
        assert!(show(&ipv6, CapturePoint::Received, port(4), &frame).is_none());
        let other = udp(&Host::v6(1), &Host::v6(2), &[0; 20]);
        assert!(show(&ipv6, CapturePoint::Received, port(4), &other).is_some());
        assert!(show(&ipv6, CapturePoint::Received, port(4), &other[..10]).is_none());
    }

    #[test]
    fn a_slow_reader_is_told_what_he_has_missed_and_memory_stays_bounded() {
        let tap = Arc::new(Tap::new(CaptureFilter { max_len: 4096, ..CaptureFilter::default() }));
        let mut taps = Taps::default();
        taps.add(Arc::clone(&tap));
        let sight = Sight { point: CapturePoint::Received, port: port(1), why: None };
        let mut big = packet(&[0; 4096], port(1).port);
        let n_fit = MAX_WAITING_LEN / 4096;
        for _ in 0..n_fit + 9 {
            taps.show(Timestamp::default(), &sight, &mut big);
        }
        assert_eq!((tap.take_lost(), tap.take_lost()), (9, 0));
        let mut small = packet(&[0; 60], port(1).port);
        taps.show(Timestamp::default(), &sight, &mut small);
        assert_eq!(tap.take_lost(), 1, "bytes are bounded");
        while tap.take().is_some() {}
        for _ in 0..MAX_WAITING + 3 {
            taps.show(Timestamp::default(), &sight, &mut small);
        }
        assert_eq!(tap.take_lost(), 3, "packets are bounded");
        taps.remove(&tap);
        assert!(taps.is_empty());
    }
}
