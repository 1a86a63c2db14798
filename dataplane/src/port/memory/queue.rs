//! Frames in and out of a memory port.

use std::os::fd::RawFd;

use flowtable::{
    drop::DropReason,
    packet::{HEADROOM, Packet},
    types::PortNo,
};

use super::device::MemoryDevice;
use crate::{
    pool::{Frame, Pool},
    port::{BATCH, Port},
};

impl Port for MemoryDevice {
    fn rx_burst(&mut self, port: PortNo, pool: &mut Pool, batch: &mut Vec<Packet<Frame>>) {
        while batch.len() < BATCH && !self.wire_in().is_empty() {
            let Some(mut frame) = pool.get() else { return };
            let Ok(buf) = self.wire_in().try_recv() else {
                pool.put(frame);
                return;
            };
            // As long as a frame can be: `inject` refuses longer ones.
            let room = &mut frame.as_mut()[HEADROOM..];
            let len = buf.len().min(room.len());
            room[..len].copy_from_slice(&buf[..len]);
            self.recycle(buf);
            batch.push(Packet::new(frame, HEADROOM, len, port));
        }
    }

    fn tx(&mut self, frame: &[u8]) -> Result<(), DropReason> {
        if self.wire_out().is_full() {
            return Err(DropReason::TxRingFull);
        }
        let mut buf = self.spare();
        buf.clear();
        buf.extend_from_slice(frame);
        self.wire_out().try_send(buf).map_err(|error| {
            self.recycle(error.into_inner());
            DropReason::TxRingFull
        })
    }

    fn flush(&mut self) -> u64 {
        0
    }

    fn has_unsent(&self) -> bool {
        false
    }

    fn has_pending(&self) -> bool {
        !self.wire_in().is_empty()
    }

    fn wait_fds(&self, _fds: &mut Vec<RawFd>) {}

    fn set_gone(&mut self) {}
}
