//! What outlives a packet: connections, the buckets of meters, and choices that nobody has to make in
//! a given way, but always the same.

use std::{collections::BTreeMap, sync::Arc};

use super::lessons::Stations;
use crate::{
    syntax::{Band, Flow, Meter, Rules},
    tracker::Tracker,
};

/// A choice: which rule's or group's, and what it depends on.
pub type Question = (String, Vec<u128>);

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    pub(super) tracker: Tracker,
    meters: BTreeMap<u32, Vec<Bucket>>,
    /// Choices that the switch has been seen to make.
    answers: BTreeMap<Question, usize>,
    /// Choices of the packet under way that nobody has seen before, with the number of possible answers.
    fresh: Vec<(Question, usize)>,
    /// What to answer to them.
    guesses: Vec<usize>,
    /// Rules that packets have made.
    pub(super) learned: Arc<Vec<Flow>>,
    /// Those that are there with the next batch, and their limits.
    pub(super) lessons: Vec<(Flow, usize)>,
    pub(super) stations: Stations,
    /// Counts what changes what later packets meet: learned rules, stations.
    pub(super) version: u64,
}

/// A moment to come back to.
#[derive(Debug, Clone)]
pub(super) struct Mark {
    tracker: usize,
    snapshot: Snapshot,
}

/// Tokens of a band.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// Billionths of a unit that are there.
    tokens: u128,
    /// When they were counted.
    at: u64,
}

const BILLION: u128 = 1_000_000_000;
/// Nanoseconds by which clocks may round differently in the life of a world.
const TOLERANCE: u128 = 1000;

/// What a meter says of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Pass,
    Drop,
    Raise(u8),
}

impl Memory {
    /// Nothing has happened yet.
    pub fn new(rules: &Rules) -> Self {
        let mut memory = Self::default();
        memory.change(&Rules::default(), rules);
        memory
    }

    /// The rules change: connections stay, choices are made anew; bands that stay as they are go on.
    pub fn change(&mut self, old: &Rules, new: &Rules) {
        self.answers.clear();
        let mut meters = BTreeMap::new();
        for meter in &new.meters {
            let before = old.meters.iter().find(|before| before.id == meter.id);
            let kept = before.filter(|before| *before == meter).and_then(|_| self.meters.remove(&meter.id));
            let full = || meter.bands.iter().map(|band| Bucket { tokens: capacity(meter, band), at: 0 });
            meters.insert(meter.id, kept.unwrap_or_else(|| full().collect()));
        }
        self.meters = meters;
        self.learned = Arc::default();
        self.version += 1;
    }

    /// Another packet comes: what earlier ones did stays done.
    pub fn begin_packet(&mut self) {
        self.tracker.settle();
        self.fresh.clear();
    }

    /// A moment to come back to, within one packet.
    pub(super) fn mark(&self) -> Mark {
        Mark { tracker: self.tracker.mark(), snapshot: self.snapshot() }
    }

    pub(super) fn roll_back(&mut self, mark: Mark) {
        self.tracker.roll_back(mark.tracker);
        self.restore(&mark.snapshot);
    }

    /// Takes the packet back altogether, so that it can be tried again with other guesses.
    pub fn forget_packet(&mut self, before: &Snapshot) {
        self.tracker.roll_back(0);
        self.restore(before);
    }

    fn restore(&mut self, Snapshot { meters, lessons, stations }: &Snapshot) {
        self.meters.clone_from(meters);
        self.lessons.clone_from(lessons);
        if self.stations != *stations {
            self.stations.clone_from(stations);
            self.version += 1;
        }
    }

    /// Changes whenever what packets have taught does.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// What cannot be taken back step by step.
    pub fn snapshot(&self) -> Snapshot {
        let (meters, lessons) = (self.meters.clone(), self.lessons.clone());
        Snapshot { meters, lessons, stations: self.stations.clone() }
    }

    /// Answers of the next interpretation to questions that are new.
    pub fn guess(&mut self, guesses: Vec<usize>) {
        self.guesses = guesses;
    }

    /// A walk that is done again asks anew.
    pub(super) fn forget_questions(&mut self) {
        self.fresh.clear();
    }

    /// Questions of the last packet that were new, with the numbers of possible answers.
    pub fn fresh(&self) -> &[(Question, usize)] {
        &self.fresh
    }

    /// The switch was seen to answer so to the questions of the last packet.
    pub fn learn(&mut self, answers: &[usize]) {
        for ((question, _), answer) in self.fresh.iter().zip(answers) {
            self.answers.insert(question.clone(), *answer);
        }
    }

    /// One of `n` possible answers.
    pub(super) fn choose(&mut self, question: Question, n: usize) -> usize {
        if n <= 1 {
            return 0;
        }
        if let Some(answer) = self.answers.get(&question) {
            return (*answer).min(n - 1);
        }
        let known = self.fresh.iter().position(|(fresh, _)| *fresh == question);
        let place = known.unwrap_or_else(|| {
            self.fresh.push((question, n));
            self.fresh.len() - 1
        });
        self.guesses.get(place).copied().unwrap_or(0).min(n - 1)
    }

    /// Shows a packet of so many bytes to a meter (OpenFlow 1.5 §5.8.1: of the bands whose rate is
    /// exceeded, the one of the highest rate applies).
    pub(super) fn measure(&mut self, meter: &Meter, now: u64, len: usize) -> Verdict {
        let mut applied: Option<Band> = None;
        for (idx, band) in meter.bands.iter().enumerate() {
            if !self.fits(meter, idx, now, len) && applied.is_none_or(|highest| band.rate > highest.rate) {
                applied = Some(*band);
            }
        }
        match applied {
            None => Verdict::Pass,
            Some(Band { levels: 0, .. }) => Verdict::Drop,
            Some(Band { levels, .. }) => Verdict::Raise(levels),
        }
    }

    /// A token bucket.
    fn fits(&mut self, meter: &Meter, idx: usize, now: u64, len: usize) -> bool {
        let band = &meter.bands[idx];
        let rate = u128::from(band.rate) * unit(meter);
        let size = if meter.packets { 1 } else { len as u128 * 8 } * BILLION;
        let Some(mut bucket) = self.meters.get(&meter.id).and_then(|bands| bands.get(idx)).copied() else {
            return true;
        };
        let grown = bucket.tokens + u128::from(now - bucket.at) * rate;
        bucket = Bucket { tokens: grown.min(capacity(meter, band)), at: now };
        let fits = if bucket.tokens.abs_diff(size) <= rate * TOLERANCE {
            // Too close to tell, for clocks that round.
            let question = (format!("meter {} band {idx}", meter.id), vec![now.into(), bucket.tokens]);
            self.choose(question, 2) == 0
        } else {
            size < bucket.tokens
        };
        if fits {
            bucket.tokens = bucket.tokens.saturating_sub(size);
        }
        if let Some(place) = self.meters.get_mut(&meter.id).and_then(|bands| bands.get_mut(idx)) {
            *place = bucket;
        }
        fits
    }
}

/// What there was before a packet.
#[derive(Debug, Clone)]
pub struct Snapshot {
    meters: BTreeMap<u32, Vec<Bucket>>,
    lessons: Vec<(Flow, usize)>,
    stations: Stations,
}

/// Packets, or bits of thousands.
fn unit(meter: &Meter) -> u128 {
    if meter.packets { 1 } else { 1000 }
}

fn capacity(meter: &Meter, band: &Band) -> u128 {
    u128::from(if band.burst == 0 { band.rate } else { band.burst }) * unit(meter) * BILLION
}
