//! Where a worker's time goes.
//!
//! One busy round in [`DEFAULT_EVERY`], chosen by chance, is measured stage by stage with the
//! time stamp counter; the others cost a branch for each stage and an addition for each
//! batch. Whether the worker has work is noted when that changes, so that a worker that is
//! never idle reads no counter at all. All of this is the worker's own: who wants to read it
//! sends a job.

use flowtable::switch::Stage;

use crate::{port::BATCH, sys::tsc};

/// Busy rounds from one measured to the next, on average.
pub(crate) const DEFAULT_EVERY: u32 = 256;

/// Number of stages.
const N_STAGES: usize = Stage::ALL.len();

/// What has been measured since the start, or since it was last forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Measured {
    /// Cycles of the sampled rounds, by stage.
    pub(crate) stages: [u64; N_STAGES],
    pub(crate) n_sampled_rounds: u64,
    pub(crate) n_sampled_packets: u64,
    /// Batches by their number of packets.
    pub(crate) batches: [u64; BATCH + 1],
    /// Rounds over the queues, those that found nothing, and sleeps.
    pub(crate) n_polls: u64,
    pub(crate) n_idle_polls: u64,
    pub(crate) n_sleeps: u64,
    /// Cycles with packets, without, asleep, and in jobs.
    pub(crate) busy: u64,
    pub(crate) idle: u64,
    pub(crate) asleep: u64,
    pub(crate) jobs: u64,
    pub(crate) longest_job: u64,
}

impl Default for Measured {
    fn default() -> Self {
        Self {
            stages: [0; N_STAGES],
            n_sampled_rounds: 0,
            n_sampled_packets: 0,
            batches: [0; BATCH + 1],
            n_polls: 0,
            n_idle_polls: 0,
            n_sleeps: 0,
            busy: 0,
            idle: 0,
            asleep: 0,
            jobs: 0,
            longest_job: 0,
        }
    }
}

/// The measurement of one worker.
#[derive(Debug)]
pub(crate) struct Meter {
    pub(crate) total: Measured,
    /// Busy rounds from sample to sample, on average; 0: none is taken.
    every: u32,
    /// Busy rounds until the next sample.
    left: u32,
    chance: u32,
    /// This round is measured.
    is_on: bool,
    stage: Stage,
    since: u64,
    round: [u64; N_STAGES],
    n_round_packets: u64,
    /// What reading the counter costs.
    cost: u64,
    /// The worker has packets, since this time.
    is_busy: bool,
    turned: u64,
}

impl Meter {
    pub(crate) fn new(every: u32) -> Self {
        let cost = tsc::cost();
        Self {
            total: Measured::default(),
            every,
            left: every,
            chance: 0x9e37_79b9,
            is_on: false,
            stage: Stage::Receive,
            since: 0,
            round: [0; N_STAGES],
            n_round_packets: 0,
            cost,
            is_busy: false,
            turned: tsc::now(),
        }
    }

    /// How rarely rounds are measured.
    pub(crate) fn every(&self) -> u32 {
        self.every
    }

    /// Measures one busy round in `every` from now on; 0: none.
    pub(crate) fn set_every(&mut self, every: u32) {
        self.every = every;
        self.left = every;
        self.is_on = false;
    }

    /// This round is measured.
    #[inline(always)]
    pub(crate) fn is_on(&self) -> bool {
        self.is_on
    }

    /// A round begins; answers when, if it matters.
    #[inline]
    pub(crate) fn begin_round(&mut self) -> Option<u64> {
        self.total.n_polls += 1;
        self.is_on = self.left == 0 && self.every > 0;
        if self.is_busy && !self.is_on {
            return None;
        }
        let now = tsc::now();
        if self.is_on {
            (self.stage, self.since) = (Stage::Receive, now);
            (self.round, self.n_round_packets) = ([0; N_STAGES], 0);
        }
        Some(now)
    }

    /// What follows belongs to another stage; answers to which the time before it belonged.
    #[inline]
    pub(crate) fn enter(&mut self, stage: Stage) -> Stage {
        if !self.is_on {
            return stage;
        }
        let now = tsc::now();
        self.round[self.stage as usize] += (now - self.since).saturating_sub(self.cost);
        self.since = now;
        std::mem::replace(&mut self.stage, stage)
    }

    /// The time, in a round that is measured.
    #[inline]
    pub(crate) fn clock(&self) -> u64 {
        if self.is_on { tsc::now() } else { 0 }
    }

    /// A batch was received.
    #[inline]
    pub(crate) fn batch(&mut self, n_packets: usize) {
        self.total.batches[n_packets.min(BATCH)] += 1;
        self.n_round_packets += n_packets as u64;
    }

    /// The round is over.
    #[inline]
    pub(crate) fn end_round(&mut self, began: Option<u64>, found: bool) {
        if self.is_on {
            self.enter(Stage::Receive);
            self.is_on = false;
            // Of rounds without packets there is nothing to tell; the next one is measured.
            if found {
                self.keep_round();
            }
        } else if found {
            self.left = self.left.saturating_sub(1);
        }
        match (self.is_busy, found) {
            (false, true) => self.turn(began.unwrap_or(self.turned)),
            (true, false) => self.turn(tsc::now()),
            (true, true) | (false, false) => {}
        }
        self.total.n_idle_polls += u64::from(!found);
    }

    fn keep_round(&mut self) {
        for (sum, cycles) in self.total.stages.iter_mut().zip(self.round) {
            *sum += cycles;
        }
        self.total.n_sampled_rounds += 1;
        self.total.n_sampled_packets += self.n_round_packets;
        // Not in step with anything that repeats. Xorshift (Marsaglia 2003).
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 17;
        self.chance ^= self.chance << 5;
        self.left = 1 + self.chance % (2 * self.every).max(1);
    }

    /// From now on the worker has packets, or has none.
    fn turn(&mut self, now: u64) {
        let cycles = now.saturating_sub(self.turned);
        match self.is_busy {
            true => self.total.busy += cycles,
            false => self.total.idle += cycles,
        }
        self.turned = now;
        self.is_busy = !self.is_busy;
    }

    /// Brings the sums up to date.
    pub(crate) fn catch_up(&mut self) {
        self.turn(tsc::now());
        self.is_busy = !self.is_busy;
    }

    /// Does a job, and notes how long that takes.
    pub(crate) fn job_took(&mut self, began: u64) {
        let now = tsc::now();
        let cycles = now.saturating_sub(began);
        self.total.jobs += cycles;
        self.total.longest_job = self.total.longest_job.max(cycles);
        self.leave_out(cycles, now);
    }

    /// The worker slept since `began`.
    pub(crate) fn slept(&mut self, began: u64) {
        let now = tsc::now();
        let cycles = now.saturating_sub(began);
        self.total.n_sleeps += 1;
        self.total.asleep += cycles;
        self.leave_out(cycles, now);
    }

    /// Time that is neither busy nor idle.
    fn leave_out(&mut self, cycles: u64, now: u64) {
        self.turned = self.turned.saturating_add(cycles).min(now);
    }

    /// Forgets what was measured.
    pub(crate) fn forget(&mut self) {
        self.catch_up();
        self.total = Measured::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A round of some batches; each stage is entered once.
    fn round(meter: &mut Meter, batches: &[usize]) {
        let began = meter.begin_round();
        for n in batches {
            meter.batch(*n);
            for stage in Stage::ALL {
                meter.enter(*stage);
            }
        }
        meter.end_round(began, !batches.is_empty());
    }

    #[test]
    fn one_busy_round_in_some_is_measured_and_all_batches_are_counted() {
        let mut meter = Meter::new(8);
        for _ in 0..8_000 {
            round(&mut meter, &[32, 5]);
            round(&mut meter, &[]);
        }
        let total = meter.total;
        assert!((800..1200).contains(&total.n_sampled_rounds), "{total:?}");
        assert_eq!(total.n_sampled_packets, 37 * total.n_sampled_rounds);
        assert_eq!((total.batches[32], total.batches[5], total.batches[0]), (8000, 8000, 0));
        assert_eq!((total.n_polls, total.n_idle_polls), (16_000, 8_000));
        assert!(total.stages.iter().sum::<u64>() < total.busy + total.idle);
        meter.set_every(0);
        for _ in 0..100 {
            round(&mut meter, &[1]);
        }
        assert_eq!(meter.total.n_sampled_rounds, total.n_sampled_rounds);
        meter.forget();
        assert_eq!(meter.total, Measured::default());
    }

    #[test]
    fn all_time_is_busy_idle_asleep_or_jobs() {
        let start = tsc::now();
        let mut meter = Meter::new(DEFAULT_EVERY);
        for n in 0..3_000 {
            round(&mut meter, if n % 7 < 3 { &[3] } else { &[] });
            match n % 1000 {
                10 => {
                    let began = tsc::now();
                    std::thread::sleep(std::time::Duration::from_millis(5));
                    meter.slept(began);
                }
                20 => {
                    let began = tsc::now();
                    std::thread::sleep(std::time::Duration::from_millis(2));
                    meter.job_took(began);
                }
                _ => {}
            }
        }
        meter.catch_up();
        let Measured { busy, idle, asleep, jobs, longest_job, .. } = meter.total;
        let (sum, all) = (busy + idle + asleep + jobs, tsc::now() - start);
        assert!(sum <= all && sum * 10 > all * 9, "{sum} of {all}: {:?}", meter.total);
        assert!(asleep > jobs && jobs >= longest_job && longest_job * 4 > jobs, "{:?}", meter.total);
    }
}
