//! What the switch tells of by itself. The last events are kept, each with its number, and
//! everybody who wants to know reads them at his own pace; who is too slow is told how many
//! he has missed.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use flowtable::{
    switch::{PacketIn, Sampled},
    table::Removed,
    types::{BridgeId, PortNo, Timestamp},
};
use tokio::sync::watch;

/// Events that are kept.
const KEPT: usize = 8192;
/// Bytes of frames that are kept with them.
const KEPT_LEN: usize = 16 << 20;

/// Something happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// A rule has sent a packet to a controller.
    PacketIn {
        /// Bridge that it is in.
        bridge: BridgeId,
        /// Worker that has switched it.
        worker: usize,
        /// The packet, and why.
        packet_in: PacketIn,
    },
    /// A rule that wanted it to be told is gone.
    Removed {
        /// The rule, and why.
        removed: Removed,
        /// Its packets and bytes, all of them.
        stats: (u64, u64),
    },
    /// A port has changed.
    Port(PortEvent),
    /// A rule has shown a packet to collectors.
    Sampled(Sampled),
}

/// A port has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortEvent {
    /// How.
    pub what: PortChange,
    /// Its number.
    pub port: PortNo,
    /// Its name.
    pub name: String,
    /// It can send and receive.
    pub up: bool,
    /// Its MTU.
    pub mtu: u32,
}

/// How a port has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortChange {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// Its state or MTU.
    Modified,
}

impl PortChange {
    /// Name, as in commands.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Added => "add",
            Self::Removed => "delete",
            Self::Modified => "modify",
        }
    }
}

impl Event {
    fn frame_len(&self) -> usize {
        match self {
            Self::PacketIn { packet_in, .. } => packet_in.bytes.len(),
            Self::Sampled(sampled) => sampled.bytes.len(),
            Self::Removed { .. } | Self::Port(_) => 0,
        }
    }
}

/// An event, with when and as which it happened.
#[derive(Debug)]
pub struct Told {
    /// How many came before it.
    pub index: u64,
    /// When, by the switch's clock.
    pub time: Timestamp,
    /// In which bridge; empty: in none in particular.
    pub bridge: String,
    /// What.
    pub event: Event,
}

/// The last events.
#[derive(Debug)]
pub struct Events {
    kept: Mutex<Kept>,
    /// How many there have been.
    next: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Kept {
    events: VecDeque<Arc<Told>>,
    frames_len: usize,
    next: u64,
}

/// What somebody reads.
#[derive(Debug, Default)]
pub struct Read {
    /// The events.
    pub events: Vec<Arc<Told>>,
    /// Where to read on.
    pub next: u64,
    /// Events before these that are no longer kept.
    pub n_lost: u64,
}

impl Default for Events {
    fn default() -> Self {
        Self { kept: Mutex::default(), next: watch::Sender::new(0) }
    }
}

impl Events {
    /// Adds an event that is of no bridge in particular.
    pub fn tell(&self, time: Timestamp, event: Event) {
        self.tell_of("", time, event);
    }

    /// Adds an event of a bridge.
    pub fn tell_of(&self, bridge: &str, time: Timestamp, event: Event) {
        let next = self.kept().add(bridge, time, event);
        self.next.send_replace(next);
    }

    /// At most `max` events from an index on.
    pub fn read(&self, from: u64, max: usize) -> Read {
        let kept = self.kept();
        let first = kept.next - kept.events.len() as u64;
        let start = from.max(first);
        let skip = usize::try_from(start - first).unwrap_or(usize::MAX);
        let events: Vec<_> = kept.events.iter().skip(skip).take(max).cloned().collect();
        let next = events.last().map_or(start, |last| last.index + 1);
        Read { events, next, n_lost: first.saturating_sub(from) }
    }

    /// How many there have been, as that grows.
    pub fn count(&self) -> watch::Receiver<u64> {
        self.next.subscribe()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn add(&mut self, bridge: &str, time: Timestamp, event: Event) -> u64 {
        self.frames_len += event.frame_len();
        self.events.push_back(Arc::new(Told { index: self.next, time, bridge: bridge.to_owned(), event }));
        while self.events.len() > KEPT || self.frames_len > KEPT_LEN {
            let Some(gone) = self.events.pop_front() else { break };
            self.frames_len -= gone.event.frame_len();
        }
        self.next += 1;
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(raw: u32) -> Event {
        let port = PortNo::new(raw).unwrap();
        Event::Port(PortEvent { what: PortChange::Added, port, name: "p".to_owned(), up: true, mtu: 1500 })
    }

    #[test]
    fn who_is_too_slow_is_told_what_he_missed() {
        let events = Events::default();
        assert_eq!(events.read(0, 9).next, 0);
        for _ in 0..KEPT + 10 {
            events.tell(Timestamp::default(), port(1));
        }
        let read = events.read(4, 3);
        assert_eq!((read.n_lost, read.next), (6, 13));
        assert_eq!(read.events.iter().map(|told| told.index).collect::<Vec<_>>(), [10, 11, 12]);
        assert_eq!(*events.count().borrow(), KEPT as u64 + 10);
        let read = events.read(KEPT as u64 + 10, 3);
        assert!(read.events.is_empty() && read.n_lost == 0);
        // Further than there are.
        assert_eq!(events.read(u64::MAX, 3).next, u64::MAX);
    }

    #[test]
    fn long_frames_are_bounded_in_their_sum() {
        let events = Events::default();
        for _ in 0..40 {
            let sampled =
                Sampled { in_port: PortNo::ZERO, sample: Default::default(), bytes: vec![0; 1 << 20] };
            events.tell(Timestamp::default(), Event::Sampled(sampled));
        }
        assert_eq!(events.read(0, 100).events.len(), 16);
    }
}
