//! Numbers that this chassis gives out: each to one, and the same one as long as it needs
//! it, whatever comes and goes beside it.
//!
//! A number begins as a hash, so that a chassis that has forgotten everything mostly gives
//! the same ones again; where that is taken, it is the next free one.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::{RangeBounds, RangeInclusive},
};

use flowtable::types::Priority;

use super::zones::{self, Owner};
use crate::{
    key::{DatapathKey, hash32},
    southbound::{LogicalFlow, Pipeline},
};

/// Given numbers from 1 to a last one.
#[derive(Debug, Clone)]
pub(super) struct Numbers<K> {
    given: BTreeMap<K, u32>,
    taken: BTreeSet<u32>,
    last: u32,
    /// Numbers that are not given.
    reserved: &'static [RangeInclusive<u16>],
    /// How often a number was given or let go.
    version: u64,
}

/// The same numbers, however they came about.
impl<K: PartialEq> PartialEq for Numbers<K> {
    fn eq(&self, other: &Self) -> bool {
        (&self.given, &self.taken, self.last) == (&other.given, &other.taken, other.last)
    }
}

impl<K: Eq> Eq for Numbers<K> {}

impl<K: Ord + Clone> Numbers<K> {
    fn up_to(last: u32) -> Self {
        Self { given: BTreeMap::new(), taken: BTreeSet::new(), last, reserved: &[], version: 0 }
    }

    /// The same without these numbers.
    fn without(self, reserved: &'static [RangeInclusive<u16>]) -> Self {
        Self { reserved, ..self }
    }

    fn is_reserved(&self, number: u32) -> bool {
        u16::try_from(number).is_ok_and(|number| self.reserved.iter().any(|range| range.contains(&number)))
    }

    /// Numbers that can be given.
    fn n_numbers(&self) -> u64 {
        let n_reserved: usize =
            self.reserved.iter().map(|range| range.clone().filter(|n| *n > 0).count()).sum();
        u64::from(self.last) - n_reserved as u64
    }

    /// The number of a key, from `home` on if it has none; `None`: all are taken.
    pub(super) fn get(&mut self, key: &K, home: u32) -> Option<u32> {
        if let Some(number) = self.given.get(key) {
            return Some(*number);
        }
        if self.taken.len() as u64 >= self.n_numbers() {
            return None;
        }
        let mut number = home % self.last + 1;
        while self.is_reserved(number) || !self.taken.insert(number) {
            number = number % self.last + 1;
        }
        self.given.insert(key.clone(), number);
        self.version += 1;
        Some(number)
    }

    /// Gives a key the number that it had before, if nobody has it.
    pub(super) fn restore(&mut self, key: K, number: u32) {
        let is_one = number > 0 && number <= self.last && !self.is_reserved(number);
        let is_free = is_one && !self.given.contains_key(&key);
        if is_free && self.taken.insert(number) {
            self.given.insert(key, number);
            self.version += 1;
        }
    }

    /// The key needs no number any more.
    pub(super) fn release(&mut self, key: &K) {
        if let Some(number) = self.given.remove(key) {
            self.taken.remove(&number);
            self.version += 1;
        }
    }

    /// Changes whenever a number is given or let go.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// Keys within a range that have numbers.
    pub(super) fn range(&self, range: impl RangeBounds<K>) -> impl Iterator<Item = &K> {
        self.given.range(range).map(|(key, _)| key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, u32)> {
        self.given.iter().map(|(key, number)| (key, *number))
    }
}

/// Where a flow is and what it matches: what its group and its continuations belong to.
pub(super) type FlowPlace = (DatapathKey, Pipeline, u8, Priority, String);

/// All numbers of a chassis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Memory {
    /// Zones of tracked connections.
    pub(super) zones: Numbers<Owner>,
    /// Of flows that have groups or continuations.
    pub(super) flows: Numbers<FlowPlace>,
    /// Conjunctions of flows: (id, which).
    pub(super) conjunctions: Numbers<(u64, usize)>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            zones: Numbers::up_to(u16::MAX.into()).without(&zones::RESERVED),
            // As many as there are meters behind those of datapaths.
            flows: Numbers::up_to(0x7fff_0000),
            conjunctions: Numbers::up_to(u32::MAX),
        }
    }
}

impl Memory {
    /// The number of a flow.
    pub(super) fn of_flow(&mut self, flow: &LogicalFlow) -> (FlowPlace, u32) {
        let matching = flow.matching.clone();
        let place = (flow.datapath, flow.pipeline, flow.stage, flow.priority, matching);
        let numbers =
            [flow.datapath.get(), flow.pipeline as u32, flow.stage.into(), flow.priority.get().into()];
        let bytes = numbers.iter().flat_map(|number| number.to_be_bytes());
        let bytes: Vec<_> = bytes.chain(flow.matching.bytes()).collect();
        let number = self.flows.get(&place, hash32(&bytes) >> 1).unwrap_or(0);
        (place, number)
    }

    /// The number of a conjunction of a flow.
    pub(super) fn of_conjunction(&mut self, id: u64, idx: usize) -> u32 {
        let home = hash32(&[id.to_be_bytes(), idx.to_be_bytes()].concat());
        self.conjunctions.get(&(id, idx), home).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_own_number_and_keeps_it() {
        let mut numbers = Numbers::up_to(5);
        // All want the same one.
        let given: Vec<_> = (0..5).map(|key| numbers.get(&key, 3).unwrap()).collect();
        assert_eq!(given, [4, 5, 1, 2, 3]);
        assert_eq!(numbers.get(&9, 3), None, "there are no more");
        numbers.release(&1);
        assert_eq!(numbers.get(&0, 0), Some(4), "others come and go");
        assert_eq!(numbers.get(&9, 3), Some(5));
        let mut again = Numbers::up_to(5);
        numbers.iter().for_each(|(key, number)| again.restore(*key, number));
        assert_eq!(again, numbers);
        again.restore(77, 4);
        assert_eq!(again, numbers, "it is somebody else's");
    }
}
