//! Packets are not taken any more, and another process may take them.
//!
//! Between two rounds each worker stops, and sends what it has. What it had handed to another one
//! is sent by that in a second turn, when all have stopped. No thread waits for that: the last
//! worker that is done leaves the connections in good order and gives the turn away. From its last turn on a worker
//! touches no AF_XDP ring and no frame of AF_XDP sockets any more: they are the next process's.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::AcqRel},
};

use crossbeam::channel::Sender;

use super::{Fabric, Worker};

/// A pause under way.
pub(crate) struct Pause {
    fabric: Arc<Fabric>,
    /// Workers that have not had this turn.
    n_behind: AtomicUsize,
    /// There is another turn behind this one.
    is_first: bool,
    /// AF_XDP sockets are another process's from the last turn on, with their frames.
    gives_frames: bool,
    /// Told when it is over.
    done: Sender<()>,
}

impl Pause {
    /// Has all workers stop; `done` is told when nothing is under way any more.
    pub(crate) fn begin(fabric: &Arc<Fabric>, done: Sender<()>) {
        // One that is alone hands nothing to others.
        Self::take_turn(fabric, fabric.seats().len() > 1, done);
    }

    fn take_turn(fabric: &Arc<Fabric>, is_first: bool, done: Sender<()>) {
        let n_behind = AtomicUsize::new(fabric.seats().len());
        let gives_frames = !is_first && fabric.memories().give_away();
        let pause = Arc::new(Self { fabric: Arc::clone(fabric), n_behind, is_first, gives_frames, done });
        for seat in fabric.seats() {
            let (own, ended) = (Arc::clone(&pause), Arc::clone(&pause));
            // A worker that has ended holds nothing back.
            if !seat.post(move |worker| own.stop(worker)) {
                ended.arrived();
            }
        }
    }

    /// A worker's turn, between two rounds: what it became of the packets of the last one has been sent, or
    /// is sent now.
    fn stop(self: Arc<Self>, worker: &mut Worker) {
        self.fabric.hold();
        worker.send_off();
        if !self.is_first && self.gives_frames {
            worker.leave_frames();
        }
        self.arrived();
    }

    fn arrived(&self) {
        if self.n_behind.fetch_sub(1, AcqRel) != 1 {
            return;
        }
        if self.is_first {
            return Self::take_turn(&self.fabric, false, self.done.clone());
        }
        self.fabric.park();
        // Nobody may listen any more.
        let _ = self.done.send(());
    }
}
