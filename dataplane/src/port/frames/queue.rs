//! Frames from a source and to a sink.

use std::sync::Arc;

use flowtable::{
    drop::DropReason,
    packet::{HEADROOM, Packet},
    types::PortNo,
};

use super::device::{FrameOutlet, FrameQueue};
use crate::{
    pool::{self, Frame, Pool},
    port::{Outlet, RxQueue},
    sys::event::Waker,
};

impl RxQueue for FrameQueue {
    fn rx_burst(&mut self, from: PortNo, max: usize, pool: &mut Pool, batch: &mut Vec<Packet<Frame>>) {
        while batch.len() < max {
            let Some(mut frame) = pool.get() else { return };
            let room = &mut frame.as_mut()[HEADROOM..];
            let Some(len) = self.source.next(room) else {
                pool.put(frame);
                return;
            };
            let len = len.min(room.len());
            pool::add(batch, (frame, HEADROOM, len), from);
        }
    }

    fn has_pending(&self) -> bool {
        self.source.is_ready()
    }

    fn set_waker(&mut self, waker: &Arc<Waker>) {
        self.attach(waker);
    }
}

impl Outlet for FrameOutlet {
    #[inline]
    fn tx(&mut self, frame: &[u8]) -> Result<(), DropReason> {
        if self.sink.take(frame) { Ok(()) } else { Err(DropReason::TxRingFull) }
    }
}
