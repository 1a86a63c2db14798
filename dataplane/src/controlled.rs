//! Packets between workers and controllers, as the owner of the dataplane sees them.

use flowtable::{
    flow::{Action, Learned, Match},
    stats::PortCounters,
    switch::{ContinuationId, PacketIn, Sampled},
    types::BridgeId,
};

use crate::{
    config::PortId,
    handle::Dataplane,
    pmd::{SendError, sum},
};

/// What has waited at the workers for the owner.
#[derive(Debug, Default)]
pub struct News {
    /// Packets for controllers, each with its bridge, and its worker, which alone can resume it.
    pub packet_ins: Vec<(BridgeId, usize, PacketIn)>,
    /// Rules that packets have made, each with its bridge.
    pub learned: Vec<(BridgeId, Learned)>,
    /// Packets for collectors, each with its bridge.
    pub samples: Vec<(BridgeId, Sampled)>,
}

impl Dataplane {
    /// Has somebody told, from then on, whenever there is something to take by
    /// [`Dataplane::take_news`]: by a worker's thread, so he must not wait. Only the first
    /// one is told.
    pub fn on_news(&self, told: impl Fn() + Send + Sync + 'static) {
        self.fabric().on_news(Box::new(told));
    }

    /// Takes what waits at the workers: of each, in the order in which it came.
    pub fn take_news(&self) -> News {
        let mut news = News::default();
        for seat in self.fabric().seats() {
            let Some(fresh) = seat.ask(|worker| worker.take_news()) else { continue };
            let packet_ins = fresh.packet_ins.into_iter();
            news.packet_ins.extend(packet_ins.map(|(bridge, packet_in)| (bridge, seat.id, packet_in)));
            news.learned.extend(fresh.learned);
            news.samples.extend(fresh.samples);
        }
        news
    }

    /// Carries out actions on a packet, as if it had come in by a port, which need not be
    /// a real one; when this returns, it is done.
    ///
    /// # Errors
    /// Says why nothing was sent.
    pub fn packet_out(
        &self,
        in_port: impl Into<PortId>,
        actions: Vec<Action>,
        frame: Vec<u8>,
    ) -> Result<(), SendError> {
        let in_port = in_port.into();
        let worker = self.worker_of(in_port).unwrap_or_default();
        let seat = self.fabric().seats().get(worker).ok_or(SendError::NoWorker(worker))?;
        seat.ask(move |worker| worker.packet_out(in_port, actions, &frame))
            .unwrap_or(Err(SendError::NoWorker(worker)))
    }

    /// Goes on with a packet of a bridge that waits at a worker for its controller.
    ///
    /// # Errors
    /// Says why it does not go on.
    pub fn resume(
        &self,
        (bridge, worker): (BridgeId, usize),
        id: ContinuationId,
        metadata: Match,
        frame: Vec<u8>,
    ) -> Result<(), SendError> {
        let seat = self.fabric().seats().get(worker).ok_or(SendError::NoWorker(worker))?;
        seat.ask(move |worker| worker.resume((bridge, id), &metadata, &frame))
            .unwrap_or(Err(SendError::NoWorker(worker)))
    }

    /// What became of packets from controllers.
    pub fn sent_counters(&self) -> PortCounters {
        let asked = self.fabric().seats().iter().filter_map(|seat| seat.ask(|worker| worker.sent_counters()));
        asked.fold(PortCounters::default(), sum)
    }
}
