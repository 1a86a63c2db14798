//! What a worker and the owner of the dataplane tell each other about packets: those for
//! controllers, rules they have made, samples; and packets that controllers send.

use std::sync::Arc;

use flowtable::{
    flow::{Action, Learned, Match},
    packet::{HEADROOM, Packet},
    stats::PortCounters,
    switch::{ContinuationId, InjectError, PacketIn, Sampled},
    types::PortNo,
};

use super::Worker;
use crate::pool::Frame;

/// What waits at a worker for its owner.
#[derive(Debug, Default)]
pub(crate) struct WorkerNews {
    pub(crate) packet_ins: Vec<PacketIn>,
    pub(crate) learned: Vec<Learned>,
    pub(crate) samples: Vec<Sampled>,
}

/// A packet from a controller was not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The switch refuses it.
    #[error(transparent)]
    Refused(#[from] InjectError),
    /// It is longer than a frame can be.
    #[error("the frame has {len} bytes; at most {max} are sent")]
    TooLong {
        /// Its bytes.
        len: usize,
        /// Most that are possible.
        max: usize,
    },
    /// All buffers are in use.
    #[error("no buffer is free for it; try again")]
    NoBuffer,
    /// There is no such worker.
    #[error("worker {0} is not there")]
    NoWorker(usize),
}

impl Worker {
    /// Tells the owner that something waits for it.
    pub(super) fn tell_news(&self) {
        if self.switch.has_news() {
            self.fabric.tell_news();
        }
    }

    /// Hands over what waits for the owner.
    pub(crate) fn take_news(&mut self) -> WorkerNews {
        WorkerNews {
            packet_ins: self.switch.take_packet_ins(),
            learned: self.switch.take_learned(),
            samples: self.switch.take_samples(),
        }
    }

    /// Carries out actions on a packet of the controller's own.
    pub(crate) fn packet_out(
        &mut self,
        in_port: PortNo,
        actions: Vec<Action>,
        frame: &[u8],
    ) -> Result<(), SendError> {
        let packet = self.packet_of(frame, in_port)?;
        let (now, snapshot) = (self.fabric.now(), Arc::clone(&self.snapshot));
        let sent = self.switch.packet_out(now, &snapshot, (in_port, actions), packet, &mut self.egress);
        self.egress.flush();
        self.tell_news();
        Ok(sent?)
    }

    /// Goes on with a packet that waits for its controller.
    pub(crate) fn resume(
        &mut self,
        id: ContinuationId,
        metadata: &Match,
        frame: &[u8],
    ) -> Result<(), SendError> {
        let packet = self.packet_of(frame, PortNo::CONTROLLER)?;
        let (now, snapshot) = (self.fabric.now(), Arc::clone(&self.snapshot));
        let sent = self.switch.resume(now, &snapshot, (id, metadata), packet, &mut self.egress);
        self.egress.flush();
        self.tell_news();
        Ok(sent?)
    }

    /// What became of packets from controllers.
    pub(crate) fn sent_counters(&self) -> PortCounters {
        self.switch.injected_counters()
    }

    fn packet_of(&mut self, bytes: &[u8], in_port: PortNo) -> Result<Packet<Frame>, SendError> {
        let mut frame = self.egress.pool_mut().get().ok_or(SendError::NoBuffer)?;
        let max = frame.as_ref().len() - HEADROOM;
        let Some(room) = frame.as_mut().get_mut(HEADROOM..HEADROOM + bytes.len()) else {
            self.egress.pool_mut().put(frame);
            return Err(SendError::TooLong { len: bytes.len(), max });
        };
        room.copy_from_slice(bytes);
        Ok(Packet::new(frame, HEADROOM, bytes.len(), in_port))
    }
}
