//! Captures, as the owner of the dataplane sees them: packets where they come in, where they
//! leave, and where they are dropped.
//!
//! A capture is bounded: who reads too slowly is told how many packets he has missed; workers
//! wait for nobody.

use std::{collections::BTreeSet, sync::Arc};

use flowtable::{
    drop::DropReason,
    flow::{Match, Rule},
    types::{BridgeId, Timestamp},
};

use crate::{
    config::PortId,
    handle::Dataplane,
    pmd::{Fabric, Tap},
};

/// Where packets are captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CapturePoint {
    /// Where they come in, before anything has changed. Packets of an uplink have their tunnel
    /// headers.
    Received,
    /// Where a copy leaves, as the port gets it: what its sender left to a device is not done
    /// yet.
    Sent,
    /// Where one is dropped, with its name, as it is there. What waits as a fragment, and waits
    /// in vain, is counted and not captured.
    Dropped,
}

impl CapturePoint {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Received, Self::Sent, Self::Dropped];
}

/// Which packets are captured.
#[derive(Debug, Clone)]
pub struct CaptureFilter {
    /// Where.
    pub points: BTreeSet<CapturePoint>,
    /// In which bridge; `None`: all.
    pub bridge: Option<BridgeId>,
    /// At which ports; none: all. A dropped packet is at the port it came in by.
    pub ports: BTreeSet<PortId>,
    /// With which headers, as they are there. Its named sets match nothing.
    pub matching: Match,
    /// Bytes of each that are kept.
    pub max_len: usize,
}

/// All packets, whole.
impl Default for CaptureFilter {
    fn default() -> Self {
        Self {
            points: CapturePoint::ALL.into(),
            bridge: None,
            ports: BTreeSet::new(),
            matching: Match::any(),
            max_len: usize::MAX,
        }
    }
}

/// A packet that was captured.
#[derive(Debug, Clone)]
pub struct Captured {
    /// When, by the switch's clock.
    pub time: Timestamp,
    /// Where.
    pub point: CapturePoint,
    /// At which port.
    pub port: PortId,
    /// Its bytes, or the first of them.
    pub bytes: Box<[u8]>,
    /// How many it has.
    pub len: usize,
    /// Why it was dropped.
    pub reason: Option<DropReason>,
    /// The rule that dropped it, when one did.
    pub rule: Option<Arc<Rule>>,
}

/// A capture, until it is dropped.
pub struct Capture {
    tap: Arc<Tap>,
    fabric: Arc<Fabric>,
}

impl std::fmt::Debug for Capture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.tap.fmt(f)
    }
}

impl Capture {
    /// The packets that were captured since the last call, `max` at most, and how many were
    /// missed. Those of one worker come in their order.
    pub fn take(&self, max: usize) -> (Vec<Captured>, u64) {
        let taken = std::iter::from_fn(|| self.tap.take()).take(max).collect();
        (taken, self.tap.take_lost())
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        for seat in self.fabric.seats() {
            let tap = Arc::clone(&self.tap);
            seat.post(move |worker| worker.remove_tap(&tap));
        }
    }
}

impl Dataplane {
    /// Captures packets from now on.
    pub fn capture(&self, filter: CaptureFilter) -> Capture {
        let tap = Arc::new(Tap::new(filter));
        for seat in self.fabric().seats() {
            let tap = Arc::clone(&tap);
            let _ = seat.ask(move |worker| worker.add_tap(tap));
        }
        Capture { tap, fabric: Arc::clone(&self.fabric) }
    }
}
