//! What can be read of where the workers' time goes.

use std::sync::Arc;

use super::Dataplane;
use crate::{pmd::Seat, status::WorkerPerf, sys::tsc};

impl Dataplane {
    /// Where the time of each worker goes. Reading it wakes a worker that sleeps.
    pub fn perf(&self) -> Vec<WorkerPerf> {
        let hz = self.fabric.tsc_hz();
        let read = |seat: &Arc<Seat>| {
            let (id, core) = (seat.id, seat.core);
            seat.ask(move |worker| {
                let (measured, every) = worker.measured();
                WorkerPerf {
                    id,
                    core,
                    at: tsc::now(),
                    hz,
                    every,
                    busy: measured.busy,
                    idle: measured.idle,
                    asleep: measured.asleep,
                    jobs: measured.jobs,
                    longest_job: measured.longest_job,
                    cpu_time: worker.cpu_time(),
                    stages: measured.stages.to_vec(),
                    n_sampled_rounds: measured.n_sampled_rounds,
                    n_sampled_packets: measured.n_sampled_packets,
                    batches: measured.batches.to_vec(),
                    n_polls: measured.n_polls,
                    n_idle_polls: measured.n_idle_polls,
                    n_sleeps: measured.n_sleeps,
                    counters: worker.counters(),
                }
            })
        };
        self.fabric.seats().iter().filter_map(read).collect()
    }

    /// Measures one busy round in `every` by stage from now on, 0: none; `None` leaves that as
    /// it is. Forgets what was measured, if asked to.
    pub fn set_measuring(&self, every: Option<u32>, forget: bool) {
        for seat in self.fabric.seats() {
            let _ = seat.ask(move |worker| worker.set_measuring(every, forget));
        }
    }
}
