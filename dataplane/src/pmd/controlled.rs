//! What a worker and the owner of the dataplane tell each other about packets: those for
//! controllers, rules they have made, samples; and packets that controllers send.

use std::sync::Arc;

use flowtable::{
    flow::{Action, Learned, Match},
    packet::{HEADROOM, Packet},
    stats::PortCounters,
    switch::{ContinuationId, InjectError, PacketIn, Sampled},
    types::{BridgeId, PortNo},
};

use super::Worker;
use crate::{config::PortId, pool::Frame};

/// What waits at a worker for its owner.
#[derive(Debug, Default)]
pub(crate) struct WorkerNews {
    pub(crate) packet_ins: Vec<(BridgeId, PacketIn)>,
    pub(crate) learned: Vec<(BridgeId, Learned)>,
    pub(crate) samples: Vec<(BridgeId, Sampled)>,
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
    /// There is no such bridge.
    #[error("bridge {0} is not there")]
    NoBridge(BridgeId),
}

impl Worker {
    /// Tells the owner that something waits for it.
    pub(super) fn tell_news(&mut self) {
        if self.switches().any(|switch| switch.has_news()) {
            self.fabric.tell_news();
        }
    }

    /// Hands over what waits for the owner.
    pub(crate) fn take_news(&mut self) -> WorkerNews {
        let mut news = WorkerNews::default();
        for bridge in self.bridges() {
            let Some(switch) = self.switch(bridge).filter(|switch| switch.has_news()) else { continue };
            news.packet_ins.extend(switch.take_packet_ins().into_iter().map(|one| (bridge, one)));
            news.learned.extend(switch.take_learned().into_iter().map(|one| (bridge, one)));
            news.samples.extend(switch.take_samples().into_iter().map(|one| (bridge, one)));
        }
        news
    }

    /// Carries out actions on a packet of the controller's own.
    pub(crate) fn packet_out(
        &mut self,
        in_port: PortId,
        actions: Vec<Action>,
        frame: &[u8],
    ) -> Result<(), SendError> {
        let PortId { bridge, port } = in_port;
        let packet = self.packet_of(frame, port)?;
        let (now, plan) = (self.fabric.now(), Arc::clone(&self.plan));
        let switch = self.switches.get_mut(usize::from(bridge.get())).and_then(Option::as_mut);
        let (Some(switch), Some(snapshot)) = (switch, plan.of(bridge)) else {
            self.egress.pool_mut().put_packet(packet);
            return Err(SendError::NoBridge(bridge));
        };
        let sent = switch.packet_out(now, snapshot, (port, actions), packet, self.egress.of(bridge));
        self.finish_sending();
        Ok(sent?)
    }

    /// Goes on with a packet that waits for its controller.
    pub(crate) fn resume(
        &mut self,
        (bridge, id): (BridgeId, ContinuationId),
        metadata: &Match,
        frame: &[u8],
    ) -> Result<(), SendError> {
        let packet = self.packet_of(frame, PortNo::CONTROLLER)?;
        let (now, plan) = (self.fabric.now(), Arc::clone(&self.plan));
        let switch = self.switches.get_mut(usize::from(bridge.get())).and_then(Option::as_mut);
        let (Some(switch), Some(snapshot)) = (switch, plan.of(bridge)) else {
            self.egress.pool_mut().put_packet(packet);
            return Err(SendError::NoBridge(bridge));
        };
        let sent = switch.resume(now, snapshot, (id, metadata), packet, self.egress.of(bridge));
        self.finish_sending();
        Ok(sent?)
    }

    fn finish_sending(&mut self) {
        self.cross();
        self.egress.flush();
        self.tell_news();
    }

    /// What became of packets from controllers.
    pub(crate) fn sent_counters(&mut self) -> PortCounters {
        self.switches().map(|switch| switch.injected_counters()).fold(PortCounters::default(), sum)
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

/// Both together.
pub(crate) fn sum(a: PortCounters, b: PortCounters) -> PortCounters {
    PortCounters {
        rx_packets: a.rx_packets + b.rx_packets,
        rx_bytes: a.rx_bytes + b.rx_bytes,
        rx_forwarded: a.rx_forwarded + b.rx_forwarded,
        rx_dropped: a.rx_dropped + b.rx_dropped,
    }
}
