//! Rules that packets have made, waiting to be taken into the tables. The queue is bounded,
//! and each port has a share of it.

use std::collections::HashMap;

use super::{Moment, Switch};
use crate::{
    flow::{Learned, Match},
    program::Effect,
    types::{PortNo, Priority, TableId, Timestamp},
};

/// Rules that wait at most.
pub const MAX_LEARNED: usize = 4096;
/// Rules by packets of one port that wait at most.
pub const MAX_PORT_LEARNED: usize = 1024;

/// What packets wanted to be learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LearnCounters {
    /// Rules that were queued.
    pub n_queued: u64,
    /// Packets whose rule found no room in the queue. The next one tries again.
    pub n_lost: u64,
}

/// The queue.
#[derive(Debug, Default)]
pub(super) struct Lessons {
    queue: Vec<Learned>,
    /// Where a rule is in the queue.
    places: HashMap<(TableId, Priority, Match), usize>,
    n_of_port: HashMap<PortNo, usize>,
    counters: LearnCounters,
}

impl Lessons {
    /// Nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Queues a rule, or renews it when it is there. Of two that differ only in what they do,
    /// the later one stays.
    fn add(&mut self, learned: &Learned, in_port: PortNo, now: Timestamp) {
        let rule = &learned.rule;
        let key = (rule.table, rule.priority, rule.matching.clone());
        let mut learned = learned.clone();
        learned.rule.life.born = now;
        if let Some(place) = self.places.get(&key).and_then(|place| self.queue.get_mut(*place)) {
            *place = learned;
            return;
        }
        let n_of_port = self.n_of_port.entry(in_port).or_default();
        if self.queue.len() >= MAX_LEARNED || *n_of_port >= MAX_PORT_LEARNED {
            self.counters.n_lost += 1;
            return;
        }
        *n_of_port += 1;
        self.counters.n_queued += 1;
        self.places.insert(key, self.queue.len());
        self.queue.push(learned);
    }
}

impl Switch {
    /// Takes the rules that packets have made since the last time, oldest first, for
    /// [`Tables::learn`](crate::table::Tables::learn).
    pub fn take_learned(&mut self) -> Vec<Learned> {
        self.lessons.places.clear();
        self.lessons.n_of_port.clear();
        std::mem::take(&mut self.lessons.queue)
    }

    /// What packets wanted to be learned.
    pub fn learn_counters(&self) -> LearnCounters {
        self.lessons.counters
    }

    /// Does what a packet changes besides itself.
    pub(super) fn teach(&mut self, moment: &Moment<'_>, effects: &[Effect], in_port: PortNo) {
        for effect in effects {
            match effect {
                Effect::Learn(learned) => self.lessons.add(learned, in_port, moment.now),
                Effect::Station(station) => {
                    moment.snapshot.tables.fdb().learn(moment.now, station);
                }
            }
        }
    }
}
