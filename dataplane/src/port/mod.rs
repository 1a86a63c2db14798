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
pub(crate) mod vhost;
pub(crate) mod vnet;

use std::{io, os::fd::RawFd, path::PathBuf, sync::Arc};

use flowtable::{
    drop::DropReason,
    offload::{self, Segments},
    packet::Packet,
    types::{BridgeId, MacAddr, PortNo},
};

use self::{
    afxdp::{AfXdpHold, AfXdpOutlet, AfXdpQueue},
    frames::{FrameOutlet, FrameQueue},
    memory::{MemoryOutlet, MemoryQueue},
    metrics::PortMetrics,
    vhost::{VhostHold, VhostOutlet, VhostQueue},
    vnet::{VnetHold, VnetOutlet, VnetQueue},
};
use crate::{
    config::PortId,
    load::QueueLoad,
    pool::{Frame, Pool},
    qos::{bucket::Bucket, shaper::Shaper},
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
    /// A guest's socket cannot be made, or not be waited for.
    #[error(
        "socket {}: {source}; it must be in a directory that is there, and no other process may listen at it",
        .socket.display()
    )]
    Socket {
        /// The socket.
        socket: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refused.
    #[error(transparent)]
    System(#[from] SysError),
    /// Another process still has it.
    #[error("{0} stays with the process before until that has let go of it")]
    NotYet(String),
    /// The worker for the port has ended.
    #[error("worker {0} has stopped; restart the switch")]
    WorkerGone(usize),
}

/// What a port is, found out when it was attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortReport {
    /// How frames get in and out: `native-zerocopy`, `native-copy` or `generic-copy` by AF_XDP,
    /// `tap-vnet`, `packet-vnet`, `vhost-user-client`, `vhost-user-server`, or `memory`.
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

    /// Looking for frames is a system call: it is better to ask first whether there are any.
    fn is_dear(&self) -> bool {
        false
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

    /// Takes a packet with what is left to do on it, if it can hand that on; otherwise it must
    /// be done before.
    fn tx_undone(&mut self, _packet: &Packet<Frame>) -> Option<Result<(), DropReason>> {
        None
    }

    /// Sends what `tx` has taken. Returns how many of those frames were lost after all.
    fn flush(&mut self) -> u64 {
        0
    }

    /// There are frames that need another flush.
    fn has_unsent(&self) -> bool {
        false
    }

    /// It takes packets with their frames ([`Outlet::give`]), for which others have to be copied.
    fn takes_frames(&self) -> bool {
        false
    }

    /// Takes a packet for sending, and its frame for good, where [`Outlet::takes_frames`].
    ///
    /// # Errors
    /// Why it was dropped.
    fn give(&mut self, packet: Packet<Frame>, _pool: &mut Pool) -> Result<(), (DropReason, Packet<Frame>)> {
        Err((DropReason::TxError, packet))
    }

    /// Gives back frames that have been sent.
    fn settle(&mut self, _pool: &mut Pool) {}
}

/// A receive queue of any kind.
#[derive(Debug)]
pub(crate) enum AnyQueue {
    AfXdp(Box<AfXdpQueue>),
    Memory(MemoryQueue),
    Frames(FrameQueue),
    Vnet(VnetQueue),
    Vhost(VhostQueue),
}

/// A way out of any kind.
#[derive(Debug)]
pub(crate) enum AnyOutlet {
    AfXdp(Box<AfXdpOutlet>),
    Memory(MemoryOutlet),
    Frames(FrameOutlet),
    Vnet(VnetOutlet),
    Vhost(VhostOutlet),
}

/// Calls a method of whichever kind it is.
macro_rules! dispatch {
    ($kinds:ident, $this:expr, $inner:ident => $call:expr) => {
        match $this {
            $kinds::AfXdp($inner) => $call,
            $kinds::Memory($inner) => $call,
            $kinds::Frames($inner) => $call,
            $kinds::Vnet($inner) => $call,
            $kinds::Vhost($inner) => $call,
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

    fn is_dear(&self) -> bool {
        dispatch!(Self, self, inner => inner.is_dear())
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

    fn tx_undone(&mut self, packet: &Packet<Frame>) -> Option<Result<(), DropReason>> {
        dispatch!(Self, self, inner => inner.tx_undone(packet))
    }

    fn flush(&mut self) -> u64 {
        dispatch!(Self, self, inner => inner.flush())
    }

    fn has_unsent(&self) -> bool {
        dispatch!(Self, self, inner => inner.has_unsent())
    }

    fn takes_frames(&self) -> bool {
        dispatch!(Self, self, inner => inner.takes_frames())
    }

    #[inline]
    fn give(&mut self, packet: Packet<Frame>, pool: &mut Pool) -> Result<(), (DropReason, Packet<Frame>)> {
        dispatch!(Self, self, inner => inner.give(packet, pool))
    }

    #[inline]
    fn settle(&mut self, pool: &mut Pool) {
        dispatch!(Self, self, inner => inner.settle(pool));
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
    pub(crate) hold: Option<Hold>,
    /// The interface it stands on.
    pub(crate) interface: Option<OnInterface>,
}

/// What keeps an interface ours, until it is dropped.
#[derive(Debug)]
pub(crate) enum Hold {
    /// Its frames are steered to our sockets.
    AfXdp { _hold: AfXdpHold },
    /// Its frames are kept from the host.
    Vnet(VnetHold),
    /// Somebody speaks with its guest.
    Vhost { _hold: VhostHold },
}

impl Hold {
    /// The port is detached, and its interface the host's again. To drop it is to leave that to another process.
    pub(crate) fn clear(self, on: Option<&OnInterface>) {
        if let (Self::Vnet(hold), Some(on)) = (self, on) {
            hold.clear(on);
        }
    }
}

/// The interface that a port stands on.
#[derive(Debug)]
pub(crate) struct OnInterface {
    pub(crate) name: String,
    pub(crate) ifindex: u32,
    /// It may go to another network namespace, and the port with it.
    pub(crate) wanders: bool,
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
    /// It is asked whether it has frames before they are looked for.
    pub(crate) is_dear: bool,
    /// It has said that it has.
    pub(crate) is_ready: bool,
    /// What its port may receive.
    pub(crate) rate: Option<Arc<Bucket>>,
}

impl AttachedQueue {
    pub(crate) fn new(port: PortId, queue: usize, device: AnyQueue, metrics: Arc<PortMetrics>) -> Self {
        let is_dear = device.is_dear();
        Self {
            port,
            queue,
            device,
            metrics,
            load: QueueLoad::default(),
            debt: 0,
            work_per_packet: 1,
            active_in: 0,
            is_dear,
            is_ready: true,
            rate: None,
        }
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
    /// Where packets wait, if they have to.
    pub(crate) shaper: Option<Box<Shaper<Packet<Frame>>>>,
    takes_frames: bool,
}

/// What was lost of a packet that was to be sent: more than one frame may have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Loss {
    pub(crate) reason: DropReason,
    pub(crate) n_frames: u64,
}

impl AttachedOutlet {
    /// In the hands of its first worker.
    pub(crate) fn new(port: PortId, outlet: usize, device: AnyOutlet, metrics: Arc<PortMetrics>) -> Self {
        let takes_frames = device.takes_frames();
        Self { port, outlet, device, metrics, shaper: None, takes_frames }
    }

    /// Counts a packet that was not sent.
    pub(crate) fn lose(&self, reason: DropReason) {
        self.metrics.tx(self.outlet).dropped(reason, 1);
    }

    /// Sends one packet, or says why not; counts either. What is left to do on it is handed on
    /// where the port can, and done here where it cannot; `room` is to do it in.
    #[inline]
    pub(crate) fn send(&mut self, packet: &mut Packet<Frame>, room: &mut [u8]) -> Result<(), Loss> {
        if !self.metrics.fits(packet.bytes(), packet.wire_len()) {
            return self.count(packet.len(), Err(DropReason::TooBig));
        }
        if !packet.offload.is_none() {
            return self.send_undone(packet, room);
        }
        let result = self.device.tx(packet.bytes());
        self.count(packet.len(), result)
    }

    /// Packets with nothing left to do are sent with their frames, by [`AttachedOutlet::give`].
    #[inline]
    pub(crate) fn takes_frame_of(&self, packet: &Packet<Frame>) -> bool {
        self.takes_frames && packet.offload.is_none()
    }

    /// Sends one packet with its frame, or gives it back and says why not; counts either.
    #[inline]
    pub(crate) fn give(
        &mut self,
        packet: Packet<Frame>,
        pool: &mut Pool,
    ) -> Result<(), (Loss, Packet<Frame>)> {
        let len = packet.len();
        let result = if self.metrics.fits(packet.bytes(), len) {
            self.device.give(packet, pool)
        } else {
            Err((DropReason::TooBig, packet))
        };
        match result {
            Ok(()) => {
                self.metrics.tx(self.outlet).sent(len as u64);
                Ok(())
            }
            Err((reason, packet)) => {
                self.lose(reason);
                Err((Loss { reason, n_frames: 1 }, packet))
            }
        }
    }

    fn send_undone(&mut self, packet: &mut Packet<Frame>, room: &mut [u8]) -> Result<(), Loss> {
        if let Some(result) = self.device.tx_undone(packet) {
            return self.count(packet.len(), result);
        }
        if let Some(segments) = Segments::of(packet) {
            return self.send_cut(segments, room);
        }
        offload::complete(packet);
        let result = self.device.tx(packet.bytes());
        self.count(packet.len(), result)
    }

    fn send_cut(&mut self, mut segments: Segments<'_>, room: &mut [u8]) -> Result<(), Loss> {
        let mut loss: Option<Loss> = None;
        while let Some(len) = segments.write_next(room) {
            let result = self.device.tx(&room[..len]);
            if let Err(more) = self.count(len, result) {
                let n_frames = loss.map_or(0, |loss| loss.n_frames) + 1;
                loss = Some(Loss { n_frames, ..more });
            }
        }
        let n_frames = segments.n_left() as u64;
        if n_frames > 0 {
            // They have no room: longer than a frame of any port.
            self.metrics.tx(self.outlet).dropped(DropReason::TooBig, n_frames);
            loss = Some(Loss { reason: DropReason::TooBig, n_frames });
        }
        loss.map_or(Ok(()), Err)
    }

    #[inline]
    fn count(&self, len: usize, result: Result<(), DropReason>) -> Result<(), Loss> {
        let counters = self.metrics.tx(self.outlet);
        match result {
            Ok(()) => counters.sent(len as u64),
            Err(reason) => counters.dropped(reason, 1),
        }
        result.map_err(|reason| Loss { reason, n_frames: 1 })
    }

    /// Flushes; returns how many frames the kernel took and then refused. Those that have been
    /// sent go to the pool.
    #[inline]
    pub(crate) fn flush(&mut self, pool: &mut Pool) -> u64 {
        let n_lost = self.device.flush();
        self.device.settle(pool);
        if n_lost > 0 {
            self.metrics.tx(self.outlet).refused(n_lost);
        }
        n_lost
    }
}
