//! Frames from a guest and to it, by the worker's hand.

use std::{
    cell::{Cell, RefCell},
    os::fd::RawFd,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use flowtable::{
    drop::DropReason,
    packet::{GsoKind, Packet},
    types::PortNo,
};

use super::{
    fault::Fault,
    ring::{NotSent, Vring},
    shared::Shared,
};
use crate::{
    pool::{Frame, Pool},
    port::{Outlet, RxQueue},
    sys::{event::Waker, event_file::EventFile, lease::Lease, vnet::Record},
};

/// Attempts to get a ring that another worker sends by as well, before a frame is given up:
/// as long as that one needs for a frame, many times over.
const PATIENCE: u32 = 20_000;
const CWR: u8 = 0x80;

/// One receive queue: the ring that the guest sends by.
#[derive(Debug)]
pub(crate) struct VhostQueue {
    shared: Arc<Shared>,
    ring: usize,
    /// Kept as long as somebody may wait for it by its number.
    kick: RefCell<Option<Arc<EventFile>>>,
    /// The guest has been told to wake us.
    is_kicked: Cell<bool>,
}

/// One way out: a ring that the guest receives by.
#[derive(Debug)]
pub(crate) struct VhostOutlet {
    shared: Arc<Shared>,
    outlet: usize,
    /// From the first frame of a round to its last.
    lease: Option<Lease<Option<Vring>>>,
    ring: usize,
}

impl VhostQueue {
    pub(super) fn new(shared: Arc<Shared>, pair: usize) -> Self {
        let (kick, is_kicked) = (RefCell::new(None), Cell::new(false));
        Self { shared, ring: 2 * pair + 1, kick, is_kicked }
    }

    /// Does something with the ring, unless there is none or somebody changes it.
    fn with_ring<T>(&self, work: impl FnOnce(&mut Vring) -> T) -> Option<T> {
        let seat = &self.shared.seats[self.ring];
        if !seat.is_live() {
            return None;
        }
        seat.ring.ask()?.as_mut().map(work)
    }

    /// The worker has slept, or was about to: now it looks by itself.
    #[cold]
    fn wake_up(&self) {
        self.is_kicked.set(false);
        if let Some(kick) = &*self.kick.borrow() {
            kick.clear();
        }
    }

    #[cold]
    fn break_ring(&self, fault: Fault) {
        // Nobody waits for the ring meanwhile for longer than this takes.
        if let Some(mut lease) = self.shared.seats[self.ring].ring.ask() {
            *lease = None;
        }
        self.shared.report(self.ring, fault);
    }
}

impl RxQueue for VhostQueue {
    #[inline]
    fn rx_burst(&mut self, from: PortNo, max: usize, pool: &mut Pool, batch: &mut Vec<Packet<Frame>>) {
        if self.is_kicked.get() {
            self.wake_up();
        }
        let n_before = batch.len();
        let received = self.with_ring(|vring| {
            if vring.is_kicked() {
                vring.set_kicked(false);
            }
            let received = vring.receive((from, max), pool, batch);
            vring.publish()?;
            received
        });
        match received {
            None | Some(Ok(0)) => {}
            Some(Ok(n_refused)) => {
                self.shared.seats[self.ring].n_refused.fetch_add(n_refused, Relaxed);
            }
            Some(Err(fault)) => {
                if matches!(fault, Fault::MemoryGone) {
                    batch.drain(n_before..).for_each(|packet| pool.put_packet(packet));
                }
                self.break_ring(fault);
            }
        }
    }

    /// True as well when the guest would not wake us: the ring is a new one, is being changed, or
    /// the guest has no means to.
    fn has_pending(&self) -> bool {
        let seat = &self.shared.seats[self.ring];
        if !seat.is_live() {
            return false;
        }
        let Some(lease) = seat.ring.ask() else { return true };
        let is_awake = |vring: &Vring| vring.has_available() || !vring.is_kicked();
        lease.as_ref().is_some_and(is_awake) || self.kick.borrow().is_none()
    }

    /// Asked for before a worker sleeps: from now on the guest wakes it.
    fn wait_fd(&self) -> Option<RawFd> {
        let kick = self.shared.seats[self.ring].kick();
        let fd = kick.as_ref().map(|kick| kick.fd());
        *self.kick.borrow_mut() = kick;
        if self.with_ring(|vring| vring.set_kicked(true)).is_some() {
            self.is_kicked.set(true);
        }
        fd
    }

    fn set_waker(&mut self, waker: &Arc<Waker>) {
        self.shared.seats[self.ring].set_waker(waker);
    }

    fn kernel_dropped(&self) -> u64 {
        self.shared.seats[self.ring].n_refused.load(Relaxed)
    }
}

impl VhostOutlet {
    pub(super) fn new(shared: Arc<Shared>, outlet: usize) -> Self {
        Self { shared, outlet, lease: None, ring: 0 }
    }

    /// Workers have to take turns at rings: the guest has fewer than there are ways out.
    fn is_shared(&self) -> bool {
        self.shared.n_outward() < self.shared.n_outlets
    }

    /// Gets hold of the ring.
    #[inline]
    fn grasp(&mut self) -> Result<(), DropReason> {
        if self.lease.is_some() {
            return Ok(());
        }
        let n = self.shared.n_outward();
        if n == 0 {
            return Err(DropReason::PortDown);
        }
        self.ring = 2 * (self.outlet % n);
        let seat = &self.shared.seats[self.ring];
        self.lease = seat.ring.ask();
        if self.lease.is_none() && self.is_shared() {
            self.lease = (0..PATIENCE).find_map(|_| {
                std::hint::spin_loop();
                seat.ring.ask()
            });
        }
        // Somebody changes it just now, or another worker is at it for very long.
        if self.lease.is_some() { Ok(()) } else { Err(DropReason::TxRingFull) }
    }

    fn send(&mut self, record: &Record, frame: &[u8]) -> Result<(), DropReason> {
        let vring = self.lease.as_mut().and_then(|lease| lease.as_mut()).ok_or(DropReason::PortDown)?;
        let sent = vring.send(record, frame);
        if self.is_shared() {
            self.let_go();
        }
        sent.map_err(|not_sent| match not_sent {
            NotSent::Dropped(reason) => reason,
            NotSent::Broken(fault) => {
                self.break_ring(fault);
                DropReason::PortDown
            }
        })
    }

    /// Has the guest see what it got, and others get at the ring.
    #[inline]
    fn let_go(&mut self) {
        let Some(mut lease) = self.lease.take() else { return };
        let published = lease.as_mut().map_or(Ok(()), Vring::publish);
        if let Err(fault) = published {
            *lease = None;
            self.shared.report(self.ring, fault);
        }
    }

    #[cold]
    fn break_ring(&mut self, fault: Fault) {
        let lease = self.lease.take().or_else(|| self.shared.seats[self.ring].ring.ask());
        if let Some(mut lease) = lease {
            *lease = None;
        }
        self.shared.report(self.ring, fault);
    }
}

impl Outlet for VhostOutlet {
    #[inline]
    fn tx(&mut self, frame: &[u8]) -> Result<(), DropReason> {
        self.grasp()?;
        self.send(&Record::NONE, frame)
    }

    fn tx_undone(&mut self, packet: &Packet<Frame>) -> Option<Result<(), DropReason>> {
        let (offload, frame) = (&packet.offload, packet.bytes());
        // A record has no words for what is behind a tunnel's header.
        if offload.gso.is_some_and(|gso| gso.inner.l3 != 0) {
            return None;
        }
        if let Err(reason) = self.grasp() {
            return Some(Err(reason));
        }
        let features = self.lease.as_ref().and_then(|lease| lease.as_ref()).map(Vring::features);
        let Some(features) = features else { return Some(Err(DropReason::PortDown)) };
        let at = |at: usize| frame.get(at).copied().unwrap_or(0);
        let is_ipv6 = at(packet.layout.l3.into()) >> 4 == 6;
        let is_tcp = offload.gso.is_some_and(|gso| gso.kind == GsoKind::Tcp);
        let is_reduced = is_tcp && at(usize::from(packet.layout.l4) + 13) & CWR != 0;
        if !features.takes(offload, is_ipv6) || is_reduced && !features.takes_reduced() {
            return None;
        }
        let segment_len = offload.gso.map_or(0, |gso| gso.segment_len.get().into());
        let header_len = packet.wire_len().saturating_sub(segment_len);
        let record = Record::new(offload, frame, &packet.layout, header_len);
        Some(self.send(&record, frame))
    }

    #[inline]
    fn flush(&mut self) -> u64 {
        self.let_go();
        0
    }
}
