//! The two sides of a memory port.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use crossbeam::{
    channel::{Receiver, Sender, bounded},
    queue::ArrayQueue,
};
use flowtable::{packet::HEADROOM, types::MacAddr};

use crate::{
    pool::FRAME_LEN,
    port::{AnyOutlet, AnyQueue, Opened, PortReport, metrics::PortMetrics},
    sys::event::Waker,
};

/// MTU of a memory port that was not given one.
const DEFAULT_MTU: u32 = 1500;
/// Longest frame that fits a buffer behind the headroom.
pub(super) const MAX_FRAME_LEN: usize = FRAME_LEN - HEADROOM;

/// A frame was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InjectError {
    /// The queue to the switch is full.
    #[error("the memory port's queue is full; wait until the switch has taken some frames")]
    Full,
    /// No worker has the port.
    #[error("the memory port is not attached")]
    NotAttached,
    /// The frame is longer than any port can carry.
    #[error("a frame of {len} bytes is too long; at most {max} are possible")]
    TooLong {
        /// Its length.
        len: usize,
        /// The longest possible.
        max: usize,
    },
}

#[derive(Debug)]
struct Shared {
    queues: Box<[Wire]>,
    from_switch: Receiver<Vec<u8>>,
    /// The workers' end, to be had by one attachment at a time.
    device_tx: Sender<Vec<u8>>,
    spare: ArrayQueue<Vec<u8>>,
    attached: AtomicBool,
    mac: MacAddr,
    mtu: u32,
}

/// One receive queue, as the switch sees it.
#[derive(Debug)]
struct Wire {
    to_switch: Sender<Vec<u8>>,
    device_rx: Receiver<Vec<u8>>,
    /// Of the worker that has it.
    waker: ArcSwapOption<Waker>,
}

impl Wire {
    fn new(capacity: usize) -> Self {
        let (to_switch, device_rx) = bounded(capacity);
        Self { to_switch, device_rx, waker: ArcSwapOption::empty() }
    }
}

/// The outside of a memory port. Clones are the same port.
#[derive(Debug, Clone)]
pub struct MemoryPort {
    shared: Arc<Shared>,
}

impl MemoryPort {
    /// A port whose queues hold up to `capacity` frames each way.
    pub fn new(capacity: usize) -> Self {
        Self::with(capacity, MacAddr::new([0x02, 0, 0, 0, 0, 0x01]), DEFAULT_MTU)
    }

    /// A port with an address and an MTU.
    pub fn with(capacity: usize, mac: MacAddr, mtu: u32) -> Self {
        Self::make(1, capacity, mac, mtu)
    }

    /// A port with several receive queues of this capacity, as a network card has them:
    /// frames of one queue keep their order.
    pub fn with_queues(n_queues: usize, capacity: usize) -> Self {
        Self::make(n_queues.max(1), capacity, MacAddr::new([0x02, 0, 0, 0, 0, 0x01]), DEFAULT_MTU)
    }

    fn make(n_queues: usize, capacity: usize, mac: MacAddr, mtu: u32) -> Self {
        let capacity = capacity.max(1);
        let (device_tx, from_switch) = bounded(capacity);
        let shared = Shared {
            queues: (0..n_queues).map(|_| Wire::new(capacity)).collect(),
            from_switch,
            device_tx,
            spare: ArrayQueue::new((1 + n_queues) * capacity),
            attached: AtomicBool::new(false),
            mac,
            mtu,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Puts a frame on the wire towards the switch. Frames wait there while the port is
    /// not attached.
    ///
    /// # Errors
    /// The queue is full, or the frame is too long.
    pub fn inject(&self, frame: &[u8]) -> Result<(), InjectError> {
        self.inject_into(0, frame)
    }

    /// The same, into a queue; of a number that is not there, into the last one.
    ///
    /// # Errors
    /// The queue is full, or the frame is too long.
    pub fn inject_into(&self, queue: usize, frame: &[u8]) -> Result<(), InjectError> {
        self.check(frame)?;
        let wire = &self.shared.queues[queue.min(self.shared.queues.len() - 1)];
        let mut buf = self.shared.spare.pop().unwrap_or_default();
        buf.clear();
        buf.extend_from_slice(frame);
        let sent = wire.to_switch.try_send(buf);
        if let Err(error) = sent {
            self.recycle(error.into_inner());
            return Err(InjectError::Full);
        }
        if let Some(waker) = &*wire.waker.load() {
            waker.wake();
        }
        Ok(())
    }

    /// A frame can be put on the wire, when there is room.
    ///
    /// # Errors
    /// It is too long.
    pub fn check(&self, frame: &[u8]) -> Result<(), InjectError> {
        match frame.len() {
            len if len > MAX_FRAME_LEN => Err(InjectError::TooLong { len, max: MAX_FRAME_LEN }),
            _ => Ok(()),
        }
    }

    /// The next frame that left the switch, if there is one.
    pub fn receive(&self) -> Option<Vec<u8>> {
        self.shared.from_switch.try_recv().ok()
    }

    /// The next frame that leaves the switch within `timeout`.
    pub fn receive_within(&self, timeout: Duration) -> Option<Vec<u8>> {
        self.shared.from_switch.recv_timeout(timeout).ok()
    }

    /// Gives the buffer of a received frame back, to be used again.
    pub fn recycle(&self, buf: Vec<u8>) {
        let _ = self.shared.spare.push(buf);
    }

    /// Frames that wait to be received from here.
    pub fn n_received(&self) -> usize {
        self.shared.from_switch.len()
    }

    /// Frames that the switch has not taken yet.
    pub fn n_injected(&self) -> usize {
        self.shared.queues.iter().map(|wire| wire.to_switch.len()).sum()
    }

    /// Its MAC address.
    pub fn mac(&self) -> MacAddr {
        self.shared.mac
    }

    /// Largest L3 packet it takes.
    pub fn mtu(&self) -> u32 {
        self.shared.mtu
    }

    /// The workers' side; `None` when there is one already.
    pub(crate) fn open(&self) -> Option<Opened> {
        let attachment = Arc::new(Attachment::of(self)?);
        let n_queues = self.shared.queues.len();
        let queue = |queue| {
            AnyQueue::Memory(MemoryQueue { wire: WireEnd { queue, attachment: Arc::clone(&attachment) } })
        };
        let outlet = |_| AnyOutlet::Memory(MemoryOutlet { attachment: Arc::clone(&attachment) });
        Some(Opened {
            kind: "memory",
            report: PortReport { mode: "memory".to_owned(), mac: self.mac(), mtu: self.mtu() },
            metrics: Arc::new(PortMetrics::new(self.mtu(), n_queues, n_queues)),
            queues: (0..n_queues).map(queue).collect(),
            outlets: (0..n_queues).map(outlet).collect(),
            hold: None,
            interface: None,
        })
    }
}

/// The port is in the hands of workers, as long as they have a part of it.
#[derive(Debug)]
pub(super) struct Attachment {
    port: MemoryPort,
}

impl Attachment {
    fn of(port: &MemoryPort) -> Option<Self> {
        let was_attached = port.shared.attached.swap(true, Ordering::AcqRel);
        (!was_attached).then(|| Self { port: port.clone() })
    }

    pub(super) fn wire_out(&self) -> &Sender<Vec<u8>> {
        &self.port.shared.device_tx
    }

    pub(super) fn recycle(&self, buf: Vec<u8>) {
        self.port.recycle(buf);
    }

    pub(super) fn spare(&self) -> Vec<u8> {
        self.port.shared.spare.pop().unwrap_or_default()
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.port.shared.queues.iter().for_each(|wire| wire.waker.store(None));
        self.port.shared.attached.store(false, Ordering::Release);
    }
}

/// The switch's end of one queue.
#[derive(Debug)]
pub(super) struct WireEnd {
    queue: usize,
    attachment: Arc<Attachment>,
}

impl WireEnd {
    pub(super) fn wire_in(&self) -> &Receiver<Vec<u8>> {
        &self.attachment.port.shared.queues[self.queue].device_rx
    }

    pub(super) fn set_waker(&self, waker: &Arc<Waker>) {
        self.attachment.port.shared.queues[self.queue].waker.store(Some(Arc::clone(waker)));
    }

    pub(super) fn recycle(&self, buf: Vec<u8>) {
        self.attachment.recycle(buf);
    }
}

/// One receive queue of a memory port.
#[derive(Debug)]
pub(crate) struct MemoryQueue {
    pub(super) wire: WireEnd,
}

/// A way out of a memory port: all lead to the same queue.
#[derive(Debug)]
pub(crate) struct MemoryOutlet {
    pub(super) attachment: Arc<Attachment>,
}
