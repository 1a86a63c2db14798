//! Frames in and out of an interface: each queue has a socket, and with it a way out. A
//! worker sends everything by one of them, which keeps the order of a flow and makes one
//! call send a whole batch.

use std::os::fd::RawFd;

use flowtable::{
    drop::DropReason,
    packet::{HEADROOM, Packet},
    types::PortNo,
};

use super::device::{AfXdpOutlet, AfXdpQueue};
use crate::{
    pool::{Frame, Pool},
    port::{Outlet, RxQueue},
    sys::xsk::{Flush, SendError},
};

impl RxQueue for AfXdpQueue {
    fn rx_burst(&mut self, from: PortNo, max: usize, pool: &mut Pool, batch: &mut Vec<Packet<Frame>>) {
        if self.metrics.is_gone() {
            return;
        }
        // A frame that has no buffer stays in the ring: the kernel then drops and counts
        // what comes after.
        let budget = max.saturating_sub(batch.len()).min(pool.n_free());
        if budget == 0 {
            if batch.len() < max && self.socket.has_received() {
                pool.count_exhausted();
            }
            return;
        }
        self.socket.receive(budget, |bytes| {
            let Some(mut frame) = pool.get() else { return };
            let room = &mut frame.as_mut()[HEADROOM..];
            // Fits: MAX_FRAME_LEN is checked against the pool's frames.
            let len = bytes.len().min(room.len());
            room[..len].copy_from_slice(&bytes[..len]);
            batch.push(Packet::new(frame, HEADROOM, len, from));
        });
    }

    fn has_pending(&self) -> bool {
        false
    }

    fn wait_fd(&self) -> Option<RawFd> {
        (!self.metrics.is_gone()).then(|| self.socket.fd())
    }

    fn kernel_dropped(&self) -> u64 {
        self.socket.kernel_dropped()
    }
}

impl AfXdpOutlet {
    fn apply(&mut self, flush: Flush) {
        match flush {
            Flush::Done | Flush::Later => self.down = false,
            Flush::Down => self.down = true,
            Flush::Gone if self.metrics.set_gone() => {
                tracing::warn!(
                    interface = self.interface,
                    "the interface is gone; its port drops everything"
                );
            }
            Flush::Gone => {}
        }
    }
}

impl Outlet for AfXdpOutlet {
    fn tx(&mut self, frame: &[u8]) -> Result<(), DropReason> {
        if self.down || self.metrics.is_gone() {
            return Err(DropReason::PortDown);
        }
        let result = match self.socket.send(frame) {
            Err(SendError::Full) => {
                let flush = self.socket.flush();
                let again = self.socket.send(frame);
                self.apply(flush);
                again
            }
            result => result,
        };
        result.map_err(|error| match error {
            SendError::Full => DropReason::TxRingFull,
            SendError::TooLong => DropReason::TooBig,
        })
    }

    fn flush(&mut self) -> u64 {
        if self.metrics.is_gone() || !self.socket.has_unsent() {
            return 0;
        }
        let flush = self.socket.flush();
        let n_refused = self.socket.take_refused();
        self.apply(flush);
        n_refused
    }

    fn has_unsent(&self) -> bool {
        !self.metrics.is_gone() && self.socket.has_unsent()
    }
}
