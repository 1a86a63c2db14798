//! Changing how a tracker works while it does: checks, timeouts, limits, events.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use super::{Conntrack, Event, Watched, timeout::State};
#[cfg(doc)]
use super::{MAX_TIMEOUT, N_POLICIES, Stats};

impl Conntrack {
    /// Segments outside of TCP's windows are invalid, or not.
    pub fn set_check_sequence(&self, on: bool) {
        self.check_sequence.store(on, SeqCst);
    }

    /// TCP connections may be picked up in their middle, or not.
    pub fn set_pick_up(&self, on: bool) {
        self.pick_up.store(on, SeqCst);
    }

    /// Packets with a wrong checksum are invalid, or not.
    pub fn set_check_checksums(&self, on: bool) {
        self.check_checksums.store(on, SeqCst);
    }

    /// How long connections in a state are kept, by policy (below [`N_POLICIES`]). More
    /// than [`MAX_TIMEOUT`] is that.
    pub fn set_timeout(&self, policy: u8, state: State, timeout: Duration) {
        self.policies.set(policy, state, timeout);
    }

    /// The policy of new connections in a zone.
    pub fn set_zone_policy(&self, zone: u16, policy: u8) {
        self.policies.set_zone(zone, policy);
    }

    /// Connections that a zone may have; `None`: the limit of all zones. No zone: that
    /// limit itself.
    pub fn set_zone_limit(&self, zone: Option<u16>, limit: Option<u32>) {
        let mut ledger = self.ledger();
        match (zone, limit) {
            (None, limit) => ledger.default_zone_limit = limit.unwrap_or(u32::MAX),
            (Some(zone), Some(limit)) => {
                ledger.zone_limits.insert(zone, limit);
            }
            (Some(zone), None) => {
                ledger.zone_limits.remove(&zone);
            }
        }
    }

    /// Connections that packets of one input port may make; `None`: any number.
    pub fn set_port_limit(&self, limit: Option<u32>) {
        self.ledger().port_limit = limit.unwrap_or(u32::MAX);
    }

    /// Connections there may be; `None`: as many as fit.
    pub fn set_limit(&self, limit: Option<u32>) {
        self.ledger().limit = limit.unwrap_or(u32::MAX);
    }

    /// Whose events to keep for [`Conntrack::fetch_events`].
    pub fn set_events(&self, watched: Watched) {
        let mut ledger = self.ledger();
        self.is_watched.store(watched != Watched::Nothing, SeqCst);
        ledger.watched = watched;
    }

    /// What happened since the last call, oldest first, up to a bound, and how many events
    /// have been lost to it so far: [`Stats::n_lost_events`].
    pub fn fetch_events(&self) -> (Vec<Event>, u64) {
        let mut ledger = self.ledger();
        (ledger.fetch_events(), ledger.n_lost_events)
    }
}
