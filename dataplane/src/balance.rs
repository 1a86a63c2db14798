//! Which worker should have which receive queue, by what each costs. Pure: loads in, moves
//! out; [`Balancer`] says when, by times that it is given.
//!
//! A proposal lowers the variance of the workers' loads by moving a queue or exchanging two,
//! the best step first, until no step helps: few moves, and none for nothing. Queues that are
//! tied to a worker stay there.

use std::time::Duration;

use flowtable::types::Timestamp;

use crate::config::PortId;

/// Least part of the variance that a step must take away: loads are measured, not known.
const MIN_STEP: f64 = 0.01;
/// A step that lowers the variance by less than this is due to rounding.
const ROUNDING: f64 = 1e-12;
/// Least load of a core that is worth a step.
const MIN_SHARE: f64 = 0.005;

/// A receive queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId {
    /// Its port.
    pub port: PortId,
    /// Its number in the port.
    pub queue: usize,
}

/// What a queue costs, and where.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Load {
    pub(crate) id: QueueId,
    pub(crate) worker: usize,
    pub(crate) pinned: bool,
    /// Part of a core.
    pub(crate) share: f64,
}

/// A queue goes to another worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    /// The queue.
    pub id: QueueId,
    /// Worker that has it.
    pub from: usize,
    /// Worker that gets it.
    pub to: usize,
}

/// How the load could be spread better.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Proposal {
    /// What to do for it; nothing, if it is spread well.
    pub moves: Vec<Move>,
    /// Load of each worker now, as part of its core.
    pub before: Vec<f64>,
    /// The same afterwards, as far as can be foreseen.
    pub after: Vec<f64>,
}

impl Proposal {
    /// Part of the variance that goes away, in percent.
    pub fn improvement_percent(&self) -> u32 {
        let (before, after) = (variance(&self.before), variance(&self.after));
        if before <= 0.0 { 0 } else { ((before - after) / before * 100.0).max(0.0) as u32 }
    }
}

/// When queues are moved without being told to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Balancing {
    /// They are.
    pub auto: bool,
    /// A worker must have been loaded so much, in percent of its core, all the time ...
    pub load_percent: u32,
    /// ... since so long; and so long nothing is moved after that.
    pub interval: Duration,
    /// So much of the variance of the workers' loads must go away, in percent.
    pub improvement_percent: u32,
}

impl Default for Balancing {
    fn default() -> Self {
        Self { auto: false, load_percent: 95, interval: Duration::from_secs(60), improvement_percent: 25 }
    }
}

/// Decides when queues are moved.
#[derive(Debug)]
pub(crate) struct Balancer {
    pub(crate) settings: Balancing,
    overloaded_since: Option<Timestamp>,
}

impl Balancer {
    pub(crate) fn new(settings: Balancing) -> Self {
        Self { settings, overloaded_since: None }
    }

    /// Looks at the loads of a while that ends now; answers what to do, if there is something.
    pub(crate) fn look(&mut self, now: Timestamp, n_workers: usize, loads: &[Load]) -> Option<Proposal> {
        let sums = sums(n_workers, loads);
        let limit = f64::from(self.settings.load_percent) / 100.0;
        if !self.settings.auto || sums.iter().all(|load| *load < limit) {
            self.overloaded_since = None;
            return None;
        }
        let since = *self.overloaded_since.get_or_insert(now);
        if now.since(since) < self.settings.interval {
            return None;
        }
        self.overloaded_since = Some(now);
        let proposal = propose(n_workers, loads);
        let is_worth_it = proposal.improvement_percent() >= self.settings.improvement_percent;
        (is_worth_it && !proposal.moves.is_empty()).then_some(proposal)
    }
}

/// How the load of queues is best spread over workers.
pub(crate) fn propose(n_workers: usize, loads: &[Load]) -> Proposal {
    let mut places: Vec<usize> = loads.iter().map(|load| load.worker.min(n_workers - 1)).collect();
    let before = sums(n_workers, loads);
    let mut after = before.clone();
    // Each step lowers the variance by a part of it, so there is an end; this is for rounding.
    for _ in 0..4 * loads.len() {
        let Some((step, variance_after)) = best_step(loads, &places, &after) else { break };
        let gain = variance(&after) - variance_after;
        if gain < variance(&after) * MIN_STEP || gain < ROUNDING {
            break;
        }
        for (idx, to) in step.into_iter().flatten() {
            after[places[idx]] -= loads[idx].share;
            after[to] += loads[idx].share;
            places[idx] = to;
        }
    }
    let moves = loads.iter().zip(&places).filter(|(load, to)| load.worker != **to);
    let moves = moves.map(|(load, to)| Move { id: load.id, from: load.worker, to: *to }).collect();
    Proposal { moves, before, after }
}

/// One queue to another worker, or two that change places.
type Step = [Option<(usize, usize)>; 2];

/// The step after which the variance is least, and that variance.
fn best_step(loads: &[Load], places: &[usize], sums: &[f64]) -> Option<(Step, f64)> {
    let mut best: Option<(Step, f64)> = None;
    let mut consider = |step: Step, (a, b): (usize, usize), share: f64| {
        let mut after = sums.to_vec();
        after[a] -= share;
        after[b] += share;
        let variance = variance(&after);
        // Of steps that are as good as each other, the first.
        if best.as_ref().is_none_or(|(_, least)| variance < *least * 0.999) {
            best = Some((step, variance));
        }
    };
    let movable = |idx: &usize| !loads[*idx].pinned && loads[*idx].share >= MIN_SHARE;
    for idx in (0..loads.len()).filter(movable) {
        for to in (0..sums.len()).filter(|to| *to != places[idx]) {
            consider([Some((idx, to)), None], (places[idx], to), loads[idx].share);
        }
    }
    for idx in (0..loads.len()).filter(movable) {
        let from = places[idx];
        for other in (idx + 1..loads.len()).filter(movable).filter(|other| places[*other] != from) {
            let to = places[other];
            let share = loads[idx].share - loads[other].share;
            consider([Some((idx, to)), Some((other, from))], (from, to), share);
        }
    }
    best
}

fn sums(n_workers: usize, loads: &[Load]) -> Vec<f64> {
    let mut sums = vec![0.0; n_workers];
    for load in loads {
        if let Some(sum) = sums.get_mut(load.worker) {
            *sum += load.share;
        }
    }
    sums
}

fn variance(loads: &[f64]) -> f64 {
    let n = loads.len().max(1) as f64;
    let mean = loads.iter().sum::<f64>() / n;
    loads.iter().map(|load| (load - mean).powi(2)).sum::<f64>() / n
}

#[cfg(test)]
mod tests {
    use flowtable::types::PortNo;

    use proptest::prelude::*;

    use super::*;

    fn load(n: u32, worker: usize, pinned: bool, share: f64) -> Load {
        Load { id: QueueId { port: PortNo::new(n).unwrap().into(), queue: 0 }, worker, pinned, share }
    }

    fn apply(loads: &mut [Load], proposal: &Proposal) {
        for step in &proposal.moves {
            let moved = loads.iter_mut().find(|load| load.id == step.id).unwrap();
            assert_eq!(moved.worker, step.from);
            moved.worker = step.to;
        }
    }

    #[test]
    fn the_obvious_is_done_and_no_more() {
        let loads = [load(1, 0, false, 0.6), load(2, 0, false, 0.3), load(3, 1, false, 0.1)];
        let proposal = propose(2, &loads);
        assert_eq!(proposal.moves, [Move { id: loads[1].id, from: 0, to: 1 }]);
        assert!(proposal.improvement_percent() >= 90);
        // One queue alone is nowhere better.
        assert_eq!(propose(2, &[load(1, 0, false, 1.0)]).moves, []);
        // Two that must change places.
        let loads =
            [load(1, 0, false, 0.5), load(2, 0, false, 0.4), load(3, 1, false, 0.2), load(4, 1, false, 0.3)];
        let after = propose(2, &loads).after;
        assert!((after[0] - 0.7).abs() < 1e-9, "{after:?}");
    }

    #[test]
    fn only_a_lasting_overload_that_can_be_helped_moves_queues() {
        let at = |seconds: u64| Timestamp::from_nanos(seconds * 1_000_000_000);
        let settings = Balancing { auto: true, ..Balancing::default() };
        let mut balancer = Balancer::new(settings);
        let high = [load(1, 0, false, 0.6), load(2, 0, false, 0.39), load(3, 1, false, 0.1)];
        let low = [load(1, 0, false, 0.3), load(2, 0, false, 0.3), load(3, 1, false, 0.1)];
        assert_eq!(balancer.look(at(0), 2, &high), None);
        assert_eq!(balancer.look(at(59), 2, &high), None);
        assert_eq!(balancer.look(at(59), 2, &low), None);
        // It begins anew.
        assert_eq!(balancer.look(at(60), 2, &high), None);
        assert_eq!(balancer.look(at(119), 2, &high), None);
        assert_eq!(balancer.look(at(120), 2, &high).unwrap().moves.len(), 1);
        assert_eq!(balancer.look(at(121), 2, &high), None, "not again before a minute is over");
        // What cannot be helped is left alone.
        let alone = [load(1, 0, false, 0.99), load(3, 1, false, 0.01)];
        let mut balancer = Balancer::new(settings);
        assert!((0..400).all(|second| balancer.look(at(second), 2, &alone).is_none()));
        let mut off = Balancer::new(Balancing::default());
        assert!((0..400).all(|second| off.look(at(second), 2, &high).is_none()));
    }

    proptest! {
        #[test]
        fn proposals_help_keep_pins_and_are_final(
            n_workers in 1_usize..5,
            queues in prop::collection::vec((0_usize..5, prop::bool::weighted(0.2), 0_u32..100), 1..14),
        ) {
            let mut loads: Vec<Load> = (1..).zip(&queues).map(|(n, (worker, pinned, share))| {
                load(n, worker % n_workers, *pinned, f64::from(*share) / 100.0)
            }).collect();
            let pins: Vec<Load> = loads.iter().filter(|load| load.pinned).copied().collect();
            let proposal = propose(n_workers, &loads);
            prop_assert!(variance(&proposal.after) <= variance(&proposal.before) + 1e-12);
            apply(&mut loads, &proposal);
            for (foreseen, sum) in proposal.after.iter().zip(sums(n_workers, &loads)) {
                prop_assert!((foreseen - sum).abs() < 1e-9);
            }
            prop_assert!(pins.iter().all(|pin| loads.contains(pin)));
            prop_assert_eq!(propose(n_workers, &loads).moves, []);
        }

        /// Where loads are the same but for rounding, nothing is to be gained.
        #[test]
        fn nothing_is_moved_for_the_sake_of_rounding(shares in prop::collection::vec(1_u32..100, 1..9)) {
            let (there, here) = ((1..).zip(&shares), (20..).zip(shares.iter().rev()));
            let of = |worker| move |(n, share): (u32, &u32)| load(n, worker, false, f64::from(*share) / 100.0);
            let loads: Vec<Load> = there.map(of(0)).chain(here.map(of(1))).collect();
            prop_assert_eq!(propose(2, &loads).moves, []);
        }

        /// Against all ways to spread few queues over two workers.
        #[test]
        fn proposals_are_close_to_the_best(shares in prop::collection::vec(1_u32..100, 2..9)) {
            let loads: Vec<Load> = (1..).zip(&shares)
                .map(|(n, share)| load(n, 0, false, f64::from(*share) / 100.0)).collect();
            let greatest = |sums: &[f64]| sums.iter().copied().fold(0.0, f64::max);
            let best = (0_u32..1 << loads.len()).map(|set| {
                let of = |side: u32| (0..).zip(&loads)
                    .filter(|(n, _)| set >> n & 1 == side).map(|(_, load)| load.share).sum::<f64>();
                greatest(&[of(0), of(1)])
            }).fold(f64::INFINITY, f64::min);
            let found = greatest(&propose(2, &loads).after);
            prop_assert!(found <= best * 1.2 + 0.01, "{found} where {best} is possible");
        }
    }
}
