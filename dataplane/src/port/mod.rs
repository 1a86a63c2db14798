//! Ports: where frames come in and go out.
//!
//! A port has receive queues and ways out, each in the hands of one worker: queues wander
//! between workers, ways out stay. Each kind is a folder of the same anatomy: `mod.rs` (its
//! face), `device.rs` (what it stands on), `queue.rs` (frames in and out). [`metrics`] counts
//! for all of them. Workers hold [`AnyQueue`]s and [`AnyOutlet`]s, enums: which kind a port
//! is, is decided by a branch, not by a virtual call per packet.

pub(crate) mod afxdp;
pub(crate) mod frames;
pub(crate) mod memory;
pub(crate) mod metrics;

use std::{os::fd::RawFd, sync::Arc};

use flowtable::{
    drop::DropReason,
    packet::Packet,
    types::{BridgeId, MacAddr, PortNo},
};

use self::{
    afxdp::{AfXdpHold, AfXdpOutlet, AfXdpQueue},
    frames::{FrameOutlet, FrameQueue},
    memory::{MemoryOutlet, MemoryQueue},
    metrics::PortMetrics,
};
use crate::{
    config::PortId,
    load::QueueLoad,
    pool::{Frame, Pool},
    sys::{SysError, event::Waker},
};

/// Most packets of a batch.
pub const BATCH: usize = 32;

/// Why a port could not be attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The number is not one of a real port.
    #[error("port number {0} is not one of a real port; use 1 to 65279, or LOCAL (65534)")]
    NotReal(PortNo),
    /// The number is taken.
    #[error("port {0} is attached already; detach it first")]
    InUse(PortId),
    /// The bridge is not there.
    #[error("bridge {0} is not there; add it first")]
    NoBridge(BridgeId),
    /// The port is attached under another number, or its parts have been used up.
    #[error("this memory port is attached already; make another one")]
    MemoryInUse,
    /// The interface's packets do not fit a frame.
    #[error(
        "interface {interface}: MTU {mtu} is larger than an AF_XDP port can carry ({max}); \
         lower it with `ip link set dev {interface} mtu {max}`"
    )]
    MtuTooBig {
        /// The interface.
        interface: String,
        /// Its MTU.
        mtu: u32,
        /// The largest possible.
        max: u32,
    },
    /// More UDP ports than a steering program can compare with.
    #[error("interface {interface}: {n} tunnel ports to steer by; at most {max} are possible")]
    TooManyUdpPorts {
        /// The interface.
        interface: String,
        /// How many were asked for.
        n: usize,
        /// How many are possible.
        max: usize,
    },
    /// The kernel refused.
    #[error(transparent)]
    System(#[from] SysError),
    /// The worker for the port has ended.
    #[error("worker {0} has stopped; restart the switch")]
    WorkerGone(usize),
}

/// What a port is, found out when it was attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortReport {
    /// `native-copy`, `generic-copy`, `native-zerocopy` or `memory`.
    pub mode: String,
    /// Its MAC address.
    pub mac: MacAddr,
    /// Largest L3 packet it takes, in bytes.
    pub mtu: u32,
}

/// A receive queue of a kind of port. All methods are called by the worker that has it.
pub(crate) trait RxQueue {
    /// Appends packets received by `from` until `batch` has `max` or nothing is left. Without
    /// a free frame, frames stay where they are.
    fn rx_burst(&mut self, from: PortNo, max: usize, pool: &mut Pool, batch: &mut Vec<Packet<Frame>>);

    /// Frames can be received now, and no file would tell.
    fn has_pending(&self) -> bool;

    /// A file that is readable when there is something to receive.
    fn wait_fd(&self) -> Option<RawFd> {
        None
    }

    /// Another worker has it from now on, to be woken by this.
    fn set_waker(&mut self, _waker: &Arc<Waker>) {}

    /// Frames dropped in front of the queue because nobody took them in time.
    fn kernel_dropped(&self) -> u64 {
        0
    }
}

/// A way out of a kind of port. All methods are called by the worker that has it.
pub(crate) trait Outlet {
    /// Takes one frame for sending.
    ///
    /// # Errors
    /// Why it was dropped.
    fn tx(&mut self, frame: &[u8]) -> Result<(), DropReason>;

    /// Sends what `tx` has taken. Returns how many of those frames were lost after all.
    fn flush(&mut self) -> u64 {
        0
    }

    /// There are frames that need another flush.
    fn has_unsent(&self) -> bool {
        false
    }
}

/// A receive queue of any kind.
#[derive(Debug)]
pub(crate) enum AnyQueue {
    AfXdp(Box<AfXdpQueue>),
    Memory(MemoryQueue),
    Frames(FrameQueue),
}

/// A way out of any kind.
#[derive(Debug)]
pub(crate) enum AnyOutlet {
    AfXdp(Box<AfXdpOutlet>),
    Memory(MemoryOutlet),
    Frames(FrameOutlet),
}

/// Calls a method of whichever kind it is.
macro_rules! dispatch {
    ($kinds:ident, $this:expr, $inner:ident => $call:expr) => {
        match $this {
            $kinds::AfXdp($inner) => $call,
            $kinds::Memory($inner) => $call,
            $kinds::Frames($inner) => $call,
        }
    };
}

impl RxQueue for AnyQueue {
    #[inline]
    fn rx_burst(&mut self, from: PortNo, max: usize, pool: &mut Pool, batch: &mut Vec<Packet<Frame>>) {
        dispatch!(Self, self, inner => inner.rx_burst(from, max, pool, batch));
    }

    fn has_pending(&self) -> bool {
        dispatch!(Self, self, inner => inner.has_pending())
    }

    fn wait_fd(&self) -> Option<RawFd> {
        dispatch!(Self, self, inner => inner.wait_fd())
    }

    fn set_waker(&mut self, waker: &Arc<Waker>) {
        dispatch!(Self, self, inner => inner.set_waker(waker));
    }

    fn kernel_dropped(&self) -> u64 {
        dispatch!(Self, self, inner => inner.kernel_dropped())
    }
}

impl Outlet for AnyOutlet {
    #[inline]
    fn tx(&mut self, frame: &[u8]) -> Result<(), DropReason> {
        dispatch!(Self, self, inner => inner.tx(frame))
    }

    fn flush(&mut self) -> u64 {
        dispatch!(Self, self, inner => inner.flush())
    }

    fn has_unsent(&self) -> bool {
        dispatch!(Self, self, inner => inner.has_unsent())
    }
}

/// A device, opened: its parts, to be given to workers.
pub(crate) struct Opened {
    pub(crate) kind: &'static str,
    pub(crate) report: PortReport,
    pub(crate) metrics: Arc<PortMetrics>,
    pub(crate) queues: Vec<AnyQueue>,
    pub(crate) outlets: Vec<AnyOutlet>,
    /// What keeps an interface ours, until it is dropped.
    pub(crate) hold: Option<AfXdpHold>,
    /// Name and number of the interface it stands on.
    pub(crate) interface: Option<(String, u32)>,
}

/// A receive queue in the hands of a worker.
#[derive(Debug)]
pub(crate) struct AttachedQueue {
    pub(crate) port: PortId,
    /// Number among those of its port.
    pub(crate) queue: usize,
    pub(crate) device: AnyQueue,
    pub(crate) metrics: Arc<PortMetrics>,
    pub(crate) load: QueueLoad,
    /// Work that it owes the other queues of its worker.
    pub(crate) debt: u32,
    /// Work of each of its last packets.
    pub(crate) work_per_packet: u32,
    /// The last round of its worker in which it had packets.
    pub(crate) active_in: u32,
}

impl AttachedQueue {
    pub(crate) fn new(port: PortId, queue: usize, device: AnyQueue, metrics: Arc<PortMetrics>) -> Self {
        let load = QueueLoad::default();
        Self { port, queue, device, metrics, load, debt: 0, work_per_packet: 1, active_in: 0 }
    }

    /// Receives up to a batch and counts it.
    #[inline]
    pub(crate) fn receive(&mut self, max: usize, pool: &mut Pool, batch: &mut Vec<Packet<Frame>>) {
        self.device.rx_burst(self.port.port, max, pool, batch);
        if !batch.is_empty() {
            let n_bytes = batch.iter().map(|packet| packet.len() as u64).sum();
            self.metrics.rx(self.queue).received(batch.len() as u64, n_bytes);
        }
    }

    /// Packets received since the port was attached, by whichever workers.
    pub(crate) fn n_packets(&self) -> u64 {
        self.metrics.rx(self.queue).n_packets()
    }

    /// Brings what the kernel counts up to date.
    pub(crate) fn refresh(&self) {
        self.metrics.rx(self.queue).set_kernel_dropped(self.device.kernel_dropped());
    }
}

/// A way out in the hands of a worker.
#[derive(Debug)]
pub(crate) struct AttachedOutlet {
    pub(crate) port: PortId,
    /// Number among those of its port.
    pub(crate) outlet: usize,
    pub(crate) device: AnyOutlet,
    pub(crate) metrics: Arc<PortMetrics>,
}

impl AttachedOutlet {
    /// Sends one frame, or says why not; counts either.
    #[inline]
    pub(crate) fn send(&mut self, frame: &[u8]) -> Result<(), DropReason> {
        let fits = self.metrics.fits(frame);
        let result = if fits { self.device.tx(frame) } else { Err(DropReason::TooBig) };
        let counters = self.metrics.tx(self.outlet);
        match result {
            Ok(()) => counters.sent(frame.len() as u64),
            Err(reason) => counters.dropped(reason, 1),
        }
        result
    }

    /// Flushes; returns how many frames the kernel took and then refused.
    #[inline]
    pub(crate) fn flush(&mut self) -> u64 {
        let n_lost = self.device.flush();
        if n_lost > 0 {
            self.metrics.tx(self.outlet).refused(n_lost);
        }
        n_lost
    }
}
