//! Frames in and out of a memory port.

use std::sync::Arc;

use flowtable::{
    drop::DropReason,
    packet::{HEADROOM, Packet},
    types::PortNo,
};

use super::device::{MemoryOutlet, MemoryQueue};
use crate::{
    pool::{Frame, Pool},
    port::{Outlet, RxQueue},
    sys::event::Waker,
};

impl RxQueue for MemoryQueue {
    fn rx_burst(&mut self, from: PortNo, max: usize, pool: &mut Pool, batch: &mut Vec<Packet<Frame>>) {
        while batch.len() < max && !self.wire.wire_in().is_empty() {
            let Some(mut frame) = pool.get() else { return };
            let Ok(buf) = self.wire.wire_in().try_recv() else {
                pool.put(frame);
                return;
            };
            // As long as a frame can be: `inject` refuses longer ones.
            let room = &mut frame.as_mut()[HEADROOM..];
            let len = buf.len().min(room.len());
            room[..len].copy_from_slice(&buf[..len]);
            self.wire.recycle(buf);
            batch.push(Packet::new(frame, HEADROOM, len, from));
        }
    }

    fn has_pending(&self) -> bool {
        !self.wire.wire_in().is_empty()
    }

    fn set_waker(&mut self, waker: &Arc<Waker>) {
        self.wire.set_waker(waker);
    }
}

impl Outlet for MemoryOutlet {
    fn tx(&mut self, frame: &[u8]) -> Result<(), DropReason> {
        if self.attachment.wire_out().is_full() {
            return Err(DropReason::TxRingFull);
        }
        let mut buf = self.attachment.spare();
        buf.clear();
        buf.extend_from_slice(frame);
        self.attachment.wire_out().try_send(buf).map_err(|error| {
            self.attachment.recycle(error.into_inner());
            DropReason::TxRingFull
        })
    }
}
