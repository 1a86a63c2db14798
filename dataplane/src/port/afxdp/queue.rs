//! Frames in and out of an interface.
//!
//! All queues are received from; everything is sent by the first, which keeps the order
//! of a flow and makes one call send a whole batch.

use std::os::fd::RawFd;

use flowtable::{
    drop::DropReason,
    packet::{HEADROOM, Packet},
    types::PortNo,
};

use super::device::AfXdpPort;
use crate::{
    pool::{Frame, Pool},
    port::{BATCH, Port},
    sys::xsk::{Flush, SendError},
};

impl AfXdpPort {
    fn apply(&mut self, flush: Flush) {
        match flush {
            Flush::Done | Flush::Later => self.down = false,
            Flush::Down => self.down = true,
            Flush::Gone => self.set_gone(),
        }
    }
}

impl Port for AfXdpPort {
    fn rx_burst(&mut self, port: PortNo, pool: &mut Pool, batch: &mut Vec<Packet<Frame>>) {
        if self.gone {
            return;
        }
        for _ in 0..self.sockets.len() {
            let queue = self.next_queue;
            self.next_queue = if queue + 1 < self.sockets.len() { queue + 1 } else { 0 };
            let Some(socket) = self.sockets.get_mut(queue) else { return };
            // A frame that has no buffer stays in the ring: the kernel then drops and
            // counts what comes after.
            let budget = BATCH.saturating_sub(batch.len()).min(pool.n_free());
            if budget == 0 {
                if batch.len() < BATCH && socket.has_received() {
                    pool.count_exhausted();
                }
                return;
            }
            socket.receive(budget, |bytes| {
                let Some(mut frame) = pool.get() else { return };
                let room = &mut frame.as_mut()[HEADROOM..];
                // Fits: MAX_FRAME_LEN is checked against the pool's frames.
                let len = bytes.len().min(room.len());
                room[..len].copy_from_slice(&bytes[..len]);
                batch.push(Packet::new(frame, HEADROOM, len, port));
            });
        }
    }

    fn tx(&mut self, frame: &[u8]) -> Result<(), DropReason> {
        let Some(socket) = self.sockets.first_mut().filter(|_| !self.gone && !self.down) else {
            return Err(DropReason::PortDown);
        };
        let result = match socket.send(frame) {
            Err(SendError::Full) => {
                let flush = socket.flush();
                let again = socket.send(frame);
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
        let Some(socket) = self.sockets.first_mut().filter(|socket| !self.gone && socket.has_unsent()) else {
            return 0;
        };
        let flush = socket.flush();
        let n_refused = socket.take_refused();
        self.apply(flush);
        n_refused
    }

    fn has_unsent(&self) -> bool {
        !self.gone && self.sockets.first().is_some_and(|socket| socket.has_unsent())
    }

    fn has_pending(&self) -> bool {
        false
    }

    fn wait_fds(&self, fds: &mut Vec<RawFd>) {
        if !self.gone {
            fds.extend(self.sockets.iter().map(|socket| socket.fd()));
        }
    }

    fn set_gone(&mut self) {
        if !self.gone {
            self.gone = true;
            self.metrics.set_gone();
            tracing::warn!(interface = self.interface, "the interface is gone; its port drops everything");
        }
    }

    fn kernel_dropped(&self) -> u64 {
        self.sockets.iter().map(|socket| socket.kernel_dropped()).sum()
    }
}
