//! Ports: where frames come in and go out.
//!
//! Each kind is a folder of the same anatomy: `mod.rs` (its face), `device.rs` (what it
//! stands on), `queue.rs` (frames in and out). [`metrics`] counts for all of them. The
//! worker holds ports as [`AnyPort`], an enum: which kind a port is, is decided by a
//! branch, not by a virtual call per packet.

pub(crate) mod afxdp;
pub(crate) mod memory;
pub(crate) mod metrics;

use std::{os::fd::RawFd, sync::Arc};

use flowtable::{
    drop::DropReason,
    packet::Packet,
    stats::PortCounters,
    types::{BridgeId, MacAddr, PortNo},
};

use self::{afxdp::AfXdpPort, memory::MemoryDevice, metrics::PortMetrics};
use crate::{
    config::PortId,
    pool::{Frame, Pool},
    sys::SysError,
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
    /// The memory port is attached under another number.
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
    /// `native-copy`, `generic-copy`, `native-zerocopy`, `memory` or `patch`.
    pub mode: String,
    /// Its MAC address.
    pub mac: MacAddr,
    /// Largest L3 packet it takes, in bytes.
    pub mtu: u32,
}

/// What a kind of port can do. All methods are called by the worker that owns the port.
pub(crate) trait Port {
    /// Appends received packets until `batch` has [`BATCH`] or nothing is left. Without
    /// a free frame, frames stay where they are.
    fn rx_burst(&mut self, port: PortNo, pool: &mut Pool, batch: &mut Vec<Packet<Frame>>);

    /// Takes one frame for sending.
    ///
    /// # Errors
    /// Why it was dropped.
    fn tx(&mut self, frame: &[u8]) -> Result<(), DropReason>;

    /// Sends what `tx` has taken. Returns how many of those frames were lost after all.
    fn flush(&mut self) -> u64;

    /// There are frames that need another flush.
    fn has_unsent(&self) -> bool;

    /// Frames can be received now, and no file would tell.
    fn has_pending(&self) -> bool;

    /// Files that are readable when there is something to receive. None of a port that
    /// is gone.
    fn wait_fds(&self, fds: &mut Vec<RawFd>);

    /// One of its files is broken: it will never receive again.
    fn set_gone(&mut self);

    /// Frames dropped in front of the port because nobody took them in time.
    fn kernel_dropped(&self) -> u64 {
        0
    }
}

/// A port of any kind.
#[derive(Debug)]
pub(crate) enum AnyPort {
    AfXdp(Box<AfXdpPort>),
    Memory(MemoryDevice),
}

/// Calls a method of whichever kind the port is.
macro_rules! dispatch {
    ($port:expr, $inner:ident => $call:expr) => {
        match $port {
            AnyPort::AfXdp($inner) => $call,
            AnyPort::Memory($inner) => $call,
        }
    };
}

impl Port for AnyPort {
    fn rx_burst(&mut self, port: PortNo, pool: &mut Pool, batch: &mut Vec<Packet<Frame>>) {
        dispatch!(self, inner => inner.rx_burst(port, pool, batch));
    }

    fn tx(&mut self, frame: &[u8]) -> Result<(), DropReason> {
        dispatch!(self, inner => inner.tx(frame))
    }

    fn flush(&mut self) -> u64 {
        dispatch!(self, inner => inner.flush())
    }

    fn has_unsent(&self) -> bool {
        dispatch!(self, inner => inner.has_unsent())
    }

    fn has_pending(&self) -> bool {
        dispatch!(self, inner => inner.has_pending())
    }

    fn wait_fds(&self, fds: &mut Vec<RawFd>) {
        dispatch!(self, inner => inner.wait_fds(fds));
    }

    fn set_gone(&mut self) {
        dispatch!(self, inner => inner.set_gone());
    }

    fn kernel_dropped(&self) -> u64 {
        dispatch!(self, inner => inner.kernel_dropped())
    }
}

/// A port in the hands of its worker: the device and what is counted about it.
#[derive(Debug)]
pub(crate) struct AttachedPort {
    pub(crate) port: PortId,
    pub(crate) device: AnyPort,
    pub(crate) metrics: Arc<PortMetrics>,
    /// What the switch had counted under this number before the port had it.
    pub(crate) base: PortCounters,
}

impl AttachedPort {
    /// Receives up to a batch and counts it.
    pub(crate) fn receive(&mut self, pool: &mut Pool, batch: &mut Vec<Packet<Frame>>) {
        self.device.rx_burst(self.port.port, pool, batch);
        if !batch.is_empty() {
            let n_bytes = batch.iter().map(|packet| packet.len() as u64).sum();
            self.metrics.received(batch.len() as u64, n_bytes);
        }
    }

    /// Sends one frame, or says why not; counts either.
    pub(crate) fn send(&mut self, frame: &[u8]) -> Result<(), DropReason> {
        let fits = self.metrics.fits(frame);
        let result = if fits { self.device.tx(frame) } else { Err(DropReason::TooBig) };
        match result {
            Ok(()) => self.metrics.sent(frame.len() as u64),
            Err(reason) => self.metrics.dropped(reason, 1),
        }
        result
    }

    /// Flushes; returns how many frames the kernel took and then refused.
    pub(crate) fn flush(&mut self) -> u64 {
        let n_lost = self.device.flush();
        if n_lost > 0 {
            self.metrics.refused(n_lost);
        }
        n_lost
    }
}
