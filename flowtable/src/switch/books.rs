//! The books of a switch: each packet is entered once when it is received and once for
//! what became of it.

use std::sync::Arc;

use super::Lookup;
use crate::{
    drop::DropReason,
    flow::Rule,
    program::MeterStep,
    stats::{Cause, Drops, PortCounters, SwitchCounters},
    types::{MeterId, PortNo},
};

/// Counters of a switch, and the page that is open: the port of the current batch.
#[derive(Debug)]
pub(super) struct Books {
    pub(super) all: SwitchCounters,
    pub(super) drops: Drops,
    /// By port number.
    ports: Vec<PortCounters>,
    /// Of packets from controllers.
    injected: PortCounters,
    in_port: PortNo,
    is_injected: bool,
}

/// Packets of a pass that were found and left, to be entered together.
#[derive(Debug, Default)]
pub(super) struct Totals {
    n_packets: u64,
    n_bytes: u64,
    n_sessions: u64,
}

impl Totals {
    /// Some that were found the same way.
    #[inline]
    pub(super) fn add(&mut self, lookup: Lookup, n_packets: u64, n_bytes: u64) {
        self.n_packets += n_packets;
        self.n_bytes += n_bytes;
        if matches!(lookup, Lookup::Session(_)) {
            self.n_sessions += n_packets;
        }
    }
}

impl Books {
    pub(super) fn new() -> Self {
        Self {
            all: SwitchCounters::default(),
            drops: Drops::default(),
            ports: vec![PortCounters::default()],
            injected: PortCounters::default(),
            in_port: PortNo::ZERO,
            is_injected: false,
        }
    }

    /// What follows was received from this port.
    pub(super) fn open(&mut self, in_port: PortNo) {
        self.in_port = in_port;
        self.is_injected = false;
        let n_ports = in_port.get() as usize + 1;
        if self.ports.len() < n_ports {
            self.ports.resize(n_ports, PortCounters::default());
        }
    }

    /// What follows was received from a controller.
    pub(super) fn open_injected(&mut self) {
        self.in_port = PortNo::CONTROLLER;
        self.is_injected = true;
    }

    pub(super) fn injected(&self) -> PortCounters {
        self.injected
    }

    pub(super) fn port(&self, port: PortNo) -> PortCounters {
        self.ports.get(port.get() as usize).copied().unwrap_or_default()
    }

    pub(super) fn received(&mut self, n_packets: u64, n_bytes: u64) {
        if self.is_injected {
            self.all.n_injected += n_packets;
        } else {
            self.all.n_packets += n_packets;
        }
        let port = self.page();
        port.rx_packets += n_packets;
        port.rx_bytes += n_bytes;
    }

    /// Packets that were found and left.
    pub(super) fn left(&mut self, totals: &Totals) {
        self.received(totals.n_packets, totals.n_bytes);
        self.forwarded(totals.n_packets);
        self.all.n_session_hits += totals.n_sessions;
        self.all.n_megaflow_hits += totals.n_packets - totals.n_sessions;
    }

    /// How a packet that got to the tables was found.
    pub(super) fn found(&mut self, lookup: Lookup) {
        match lookup {
            Lookup::Session(_) => self.all.n_session_hits += 1,
            Lookup::Signed(_) | Lookup::Megaflow(_) => self.all.n_megaflow_hits += 1,
            Lookup::Unknown | Lookup::Missed => self.all.n_misses += 1,
            Lookup::Dropped(_) => {}
        }
    }

    pub(super) fn forwarded(&mut self, n_packets: u64) {
        if !self.is_injected {
            self.all.n_forwarded += n_packets;
        }
        self.page().rx_forwarded += n_packets;
    }

    /// Enters a dropped packet in the drop table; the row is looked for at `hint` first.
    /// Answers where it is.
    pub(super) fn dropped(
        &mut self,
        hint: usize,
        reason: DropReason,
        rule: Option<&Arc<Rule>>,
        n_bytes: u64,
    ) -> usize {
        self.dropped_by(hint, (reason, rule, None), n_bytes)
    }

    /// Enters a packet dropped by a meter.
    pub(super) fn metered(&mut self, step: &MeterStep, n_bytes: u64) {
        self.dropped_by(0, (DropReason::Metered, Some(&step.rule), Some(step.meter.config().id)), n_bytes);
    }

    /// The same, also by a meter.
    pub(super) fn dropped_by(
        &mut self,
        hint: usize,
        (reason, rule, meter): (DropReason, Option<&Arc<Rule>>, Option<MeterId>),
        n_bytes: u64,
    ) -> usize {
        self.all.n_dropped += u64::from(!self.is_injected);
        self.page().rx_dropped += 1;
        let (idx, row) = self.drops.row(hint, Cause { in_port: self.in_port, reason, rule, meter });
        row.n_packets += 1;
        row.n_bytes += n_bytes;
        idx
    }

    /// Enters a copy that failed.
    pub(super) fn failed_copy(&mut self, reason: DropReason) {
        self.lost_copy((reason, None, None));
    }

    /// Enters a copy that a meter dropped.
    pub(super) fn metered_copy(&mut self, step: &MeterStep) {
        let (reason, meter) = (DropReason::Metered, Some(step.meter.config().id));
        self.lost_copy((reason, Some(&step.rule), meter));
    }

    /// Enters a copy that did not leave.
    pub(super) fn lost_copy(
        &mut self,
        (reason, rule, meter): (DropReason, Option<&Arc<Rule>>, Option<MeterId>),
    ) {
        let cause = Cause { in_port: self.in_port, reason, rule, meter };
        self.all.n_failed_copies += 1;
        let (_, row) = self.drops.row(0, cause);
        row.n_copies += 1;
    }

    fn page(&mut self) -> &mut PortCounters {
        if self.is_injected {
            return &mut self.injected;
        }
        &mut self.ports[self.in_port.get() as usize]
    }
}
