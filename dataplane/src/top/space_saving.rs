//! The most frequent of many keys, in bounded memory: space-saving (Metwally, Agrawal, El Abbadi:
//! Efficient Computation of Frequent and Top-k Elements in Data Streams, 2005).
//!
//! # Invariants
//! - What is counted of a key is what it had since it has a place, and [`Counter::missed`] is the
//!   most it can have had before.
//! - A key without a place has had no more than [`SpaceSaving::most_missed`].

use std::{collections::HashMap, hash::Hash};

/// What was counted of a key.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Counter {
    /// Packets since it has a place.
    pub(crate) n_packets: u64,
    /// Bytes since then.
    pub(crate) n_bytes: u64,
    /// Squares of the packets' lengths, for how uncertain samples are.
    pub(crate) squares: f64,
    /// Weight that it can have had before, at most.
    pub(crate) missed: u64,
    /// By which places are given.
    weight: u64,
}

#[derive(Debug, Clone)]
struct Place<K> {
    key: K,
    counter: Counter,
    /// Where it is in the heap.
    at: usize,
}

/// The keys with the greatest weights.
#[derive(Debug, Clone)]
pub(crate) struct SpaceSaving<K> {
    capacity: usize,
    places: Vec<Place<K>>,
    index: HashMap<K, usize>,
    /// Places, the lightest first: none is heavier than those at twice its index.
    heap: Vec<usize>,
}

impl<K: Copy + Eq + Hash> SpaceSaving<K> {
    /// With so many places, at least one.
    pub(crate) fn new(capacity: usize) -> Self {
        let capacity = capacity.max(1);
        // All of it at once: packets have nothing allocated for them.
        Self {
            capacity,
            places: Vec::with_capacity(capacity),
            index: HashMap::with_capacity(capacity + 1),
            heap: Vec::with_capacity(capacity),
        }
    }

    /// Counts a packet of a key.
    pub(crate) fn add(&mut self, key: K, len: u64, weight: u64) {
        let idx = match self.index.get(&key) {
            Some(idx) => *idx,
            None => self.give_place(key),
        };
        let place = &mut self.places[idx];
        place.counter.n_packets += 1;
        place.counter.n_bytes += len;
        place.counter.squares += (len * len) as f64;
        place.counter.weight += weight;
        let at = place.at;
        self.sink(at);
    }

    /// A place for a key that has none: the lightest one's, if all are taken.
    fn give_place(&mut self, key: K) -> usize {
        if self.places.len() < self.capacity {
            let (idx, at) = (self.places.len(), self.heap.len());
            self.places.push(Place { key, counter: Counter::default(), at });
            self.heap.push(idx);
            self.index.insert(key, idx);
            // It has no weight yet.
            self.rise(at);
            return idx;
        }
        let idx = self.heap[0];
        let place = &mut self.places[idx];
        self.index.remove(&place.key);
        let weight = place.counter.weight;
        place.key = key;
        place.counter = Counter { weight, missed: weight, ..Counter::default() };
        self.index.insert(key, idx);
        idx
    }

    fn weight_at(&self, at: usize) -> u64 {
        self.places[self.heap[at]].counter.weight
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        self.places[self.heap[a]].at = a;
        self.places[self.heap[b]].at = b;
    }

    fn rise(&mut self, mut at: usize) {
        while at > 0 {
            let above = (at - 1) / 2;
            if self.weight_at(above) <= self.weight_at(at) {
                return;
            }
            self.swap(at, above);
            at = above;
        }
    }

    fn sink(&mut self, mut at: usize) {
        loop {
            let (left, right) = (2 * at + 1, 2 * at + 2);
            if left >= self.heap.len() {
                return;
            }
            let is_right = right < self.heap.len() && self.weight_at(right) < self.weight_at(left);
            let lightest = if is_right { right } else { left };
            if self.weight_at(at) <= self.weight_at(lightest) {
                return;
            }
            self.swap(at, lightest);
            at = lightest;
        }
    }

    /// Weight that a key without a place can have had, at most.
    pub(crate) fn most_missed(&self) -> u64 {
        if self.places.len() < self.capacity { 0 } else { self.weight_at(0) }
    }

    /// What was counted of a key that has a place.
    pub(crate) fn get(&self, key: &K) -> Option<&Counter> {
        self.index.get(key).map(|idx| &self.places[*idx].counter)
    }

    /// All keys that have one.
    pub(crate) fn keys(&self) -> impl Iterator<Item = K> {
        self.places.iter().map(|place| place.key)
    }

    /// Forgets everything, and keeps its memory.
    pub(crate) fn clear(&mut self) {
        self.places.clear();
        self.index.clear();
        self.heap.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Beside exact counting: no more memory than was given, and the bounds hold.
        #[test]
        fn bounds_hold(packets in proptest::collection::vec((0..40_u32, 1..2000_u64), 0..400), capacity in 1..30_usize) {
            let mut sketch = SpaceSaving::new(capacity);
            let mut exact = HashMap::<u32, u64>::new();
            let mut total = 0;
            for (key, len) in packets {
                // Low keys are frequent ones.
                let key = key * key / 40;
                sketch.add(key, len, len);
                *exact.entry(key).or_default() += len;
                total += len;
            }
            prop_assert!(sketch.places.len() <= capacity && sketch.heap.len() == sketch.places.len());
            prop_assert!(sketch.most_missed() <= total / capacity as u64);
            for (key, truth) in exact {
                match sketch.get(&key) {
                    Some(counter) => {
                        prop_assert!(counter.n_bytes <= truth && truth <= counter.n_bytes + counter.missed);
                        prop_assert_eq!(counter.n_bytes + counter.missed, counter.weight);
                    }
                    None => prop_assert!(truth <= sketch.most_missed()),
                }
            }
            for at in 1..sketch.heap.len() {
                prop_assert!(sketch.weight_at((at - 1) / 2) <= sketch.weight_at(at));
                prop_assert_eq!(sketch.places[sketch.heap[at]].at, at);
            }
            sketch.clear();
            prop_assert_eq!((sketch.most_missed(), sketch.keys().count()), (0, 0));
        }
    }
}
