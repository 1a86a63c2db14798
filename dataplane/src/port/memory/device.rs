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

use crate::{pool::FRAME_LEN, sys::event::Waker};

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
    to_switch: Sender<Vec<u8>>,
    from_switch: Receiver<Vec<u8>>,
    /// The worker's ends, to be had by one attachment at a time.
    device_rx: Receiver<Vec<u8>>,
    device_tx: Sender<Vec<u8>>,
    spare: ArrayQueue<Vec<u8>>,
    waker: ArcSwapOption<Waker>,
    attached: AtomicBool,
    mac: MacAddr,
    mtu: u32,
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
        let capacity = capacity.max(1);
        let (to_switch, device_rx) = bounded(capacity);
        let (device_tx, from_switch) = bounded(capacity);
        let shared = Shared {
            to_switch,
            from_switch,
            device_rx,
            device_tx,
            spare: ArrayQueue::new(2 * capacity),
            waker: ArcSwapOption::empty(),
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
        self.check(frame)?;
        let mut buf = self.shared.spare.pop().unwrap_or_default();
        buf.clear();
        buf.extend_from_slice(frame);
        let sent = self.shared.to_switch.try_send(buf);
        if let Err(error) = sent {
            self.recycle(error.into_inner());
            return Err(InjectError::Full);
        }
        if let Some(waker) = &*self.shared.waker.load() {
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
        self.shared.to_switch.len()
    }

    /// Its MAC address.
    pub fn mac(&self) -> MacAddr {
        self.shared.mac
    }

    /// Largest L3 packet it takes.
    pub fn mtu(&self) -> u32 {
        self.shared.mtu
    }

    /// The worker's side; `None` when there is one already.
    pub(crate) fn attach(&self, waker: Arc<Waker>) -> Option<MemoryDevice> {
        if self.shared.attached.swap(true, Ordering::AcqRel) {
            return None;
        }
        self.shared.waker.store(Some(waker));
        Some(MemoryDevice { port: self.clone() })
    }
}

/// The worker's side of a memory port.
#[derive(Debug)]
pub(crate) struct MemoryDevice {
    port: MemoryPort,
}

impl MemoryDevice {
    pub(super) fn wire_in(&self) -> &Receiver<Vec<u8>> {
        &self.port.shared.device_rx
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

impl Drop for MemoryDevice {
    fn drop(&mut self) {
        self.port.shared.waker.store(None);
        self.port.shared.attached.store(false, Ordering::Release);
    }
}
