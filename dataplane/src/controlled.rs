//! Packets between workers and controllers, as the owner of the dataplane sees them.

use flowtable::{
    flow::{Action, Learned, Match},
    stats::PortCounters,
    switch::{ContinuationId, PacketIn, Sampled},
    types::PortNo,
};

use crate::{handle::Dataplane, pmd::SendError};

/// What has waited at the workers for the owner.
#[derive(Debug, Default)]
pub struct News {
    /// Packets for controllers, each with its worker, which alone can resume it.
    pub packet_ins: Vec<(usize, PacketIn)>,
    /// Rules that packets have made.
    pub learned: Vec<Learned>,
    /// Packets for collectors.
    pub samples: Vec<Sampled>,
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
            news.packet_ins.extend(fresh.packet_ins.into_iter().map(|packet_in| (seat.id, packet_in)));
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
    pub fn packet_out(&self, in_port: PortNo, actions: Vec<Action>, frame: Vec<u8>) -> Result<(), SendError> {
        let worker = self.worker_of(in_port).unwrap_or_default();
        let seat = self.fabric().seats().get(worker).ok_or(SendError::NoWorker(worker))?;
        seat.ask(move |worker| worker.packet_out(in_port, actions, &frame))
            .unwrap_or(Err(SendError::NoWorker(worker)))
    }

    /// Goes on with a packet that waits at a worker for its controller.
    ///
    /// # Errors
    /// Says why it does not go on.
    pub fn resume(
        &self,
        worker: usize,
        id: ContinuationId,
        metadata: Match,
        frame: Vec<u8>,
    ) -> Result<(), SendError> {
        let seat = self.fabric().seats().get(worker).ok_or(SendError::NoWorker(worker))?;
        seat.ask(move |worker| worker.resume(id, &metadata, &frame))
            .unwrap_or(Err(SendError::NoWorker(worker)))
    }

    /// What became of packets from controllers.
    pub fn sent_counters(&self) -> PortCounters {
        let asked = self.fabric().seats().iter().filter_map(|seat| seat.ask(|worker| worker.sent_counters()));
        asked.fold(PortCounters::default(), |sum, one| PortCounters {
            rx_packets: sum.rx_packets + one.rx_packets,
            rx_bytes: sum.rx_bytes + one.rx_bytes,
            rx_forwarded: sum.rx_forwarded + one.rx_forwarded,
            rx_dropped: sum.rx_dropped + one.rx_dropped,
        })
    }
}
