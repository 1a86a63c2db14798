//! Connections that are expected because others have announced them. There are few, and
//! they live for seconds: a map behind a mutex of its own, with fixed bounds.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{MutexGuard, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

use crate::{
    conntrack::{Conntrack, Tuple, kind, millis},
    types::Timestamp,
};

/// Expectations of one connection; the oldest goes.
pub(super) const MAX_OF_MASTER: usize = 4;
/// Expectations in all; the oldest goes.
const MAX: usize = 8192;
/// Milliseconds that an announcement is good for.
const TIMEOUT: u32 = 300_000;
/// Ports that are tried for a translated announcement.
const MAX_TRIES: u16 = 128;

/// A packet that is waited for; its source port does not matter and is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) of: Tuple,
}

/// What is known of a connection before it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Expectation {
    /// The tuple of the first packet of the connection that announced it.
    pub(crate) master: Tuple,
    /// The originator of that connection announced it, and is called back.
    pub(crate) by_originator: bool,
    /// Where it really goes to.
    pub(crate) to: (u128, u16),
    /// Who it seems to come from there.
    pub(crate) from: u128,
    /// Milliseconds, modulo 2^32.
    pub(crate) expires: u32,
}

impl Expectation {
    /// The tuple of the answers to a first packet, such that `is_free` accepts it, and what
    /// is translated.
    pub(in crate::conntrack) fn answers(
        &self,
        tuple: &Tuple,
        mut is_free: impl FnMut(&Tuple) -> bool,
    ) -> Option<(Tuple, u8)> {
        let snat = if self.from != tuple.src { kind::SNAT } else { 0 };
        let dnat = if self.to != (tuple.dst, tuple.dst_port) { kind::DNAT } else { 0 };
        let (src, src_port) = self.to;
        let plain = Tuple { src, src_port, dst: self.from, ..tuple.reversed() };
        // Another port of the caller's will do when somebody else has its own.
        let n_tries = if snat != 0 { MAX_TRIES } else { 1 };
        let ports = (0..n_tries).map(|step| plain.dst_port.checked_add(step).unwrap_or(1024 + step));
        let found =
            ports.into_iter().map(|dst_port| Tuple { dst_port, ..plain }).find(|answers| is_free(answers))?;
        Some((found, snat | dnat))
    }
}

/// An expectation, for commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// Its first packet; any source port.
    pub tuple: Tuple,
    /// The first packet of the connection that announced it.
    pub master: Tuple,
    /// How long it is waited for, from now.
    pub expires_in: Duration,
}

/// All expectations.
#[derive(Debug, Default)]
pub(in crate::conntrack) struct Expectations {
    by_key: HashMap<Key, (Expectation, u64)>,
    by_age: BTreeMap<u64, Key>,
    by_master: HashMap<Tuple, VecDeque<Key>>,
    n_added: u64,
}

impl Expectations {
    pub(super) fn add(&mut self, now: u32, key: Key, expectation: Expectation) {
        self.remove(&key);
        while self.by_key.len() >= MAX {
            let Some(oldest) = self.by_age.values().next().copied() else { break };
            self.remove(&oldest);
        }
        let of_master = self.by_master.entry(expectation.master).or_default();
        of_master.push_back(key);
        let surplus = if of_master.len() > MAX_OF_MASTER { of_master.front().copied() } else { None };
        self.n_added += 1;
        let expectation = Expectation { expires: now.wrapping_add(TIMEOUT), ..expectation };
        self.by_key.insert(key, (expectation, self.n_added));
        self.by_age.insert(self.n_added, key);
        if let Some(surplus) = surplus {
            self.remove(&surplus);
        }
    }

    fn remove(&mut self, key: &Key) {
        let Some((expectation, serial)) = self.by_key.remove(key) else { return };
        self.by_age.remove(&serial);
        if let Some(of_master) = self.by_master.get_mut(&expectation.master) {
            of_master.retain(|other| other != key);
            if of_master.is_empty() {
                self.by_master.remove(&expectation.master);
            }
        }
    }

    fn remove_of(&mut self, master: &Tuple) {
        for key in self.by_master.remove(master).unwrap_or_default() {
            if let Some((_, serial)) = self.by_key.remove(&key) {
                self.by_age.remove(&serial);
            }
        }
    }

    /// A port, from this one on, at which nothing is expected for others.
    pub(super) fn choose_port(&self, first: u16, expects: impl Fn(u16) -> (Key, Expectation)) -> Option<u16> {
        let ports = (0..MAX_TRIES).map(|step| first.checked_add(step).unwrap_or(1024 + step));
        ports.into_iter().find(|port| {
            let (key, wanted) = expects(*port);
            let is_same = |other: &Expectation| (other.master, other.to) == (wanted.master, wanted.to);
            self.by_key.get(&key).is_none_or(|(other, _)| is_same(other))
        })
    }
}

impl Conntrack {
    pub(in crate::conntrack) fn expectations(&self) -> ExpectationsGuard<'_> {
        let guard = self.expectations.lock().unwrap_or_else(PoisonError::into_inner);
        ExpectationsGuard { guard, tracker: self }
    }

    /// What is expected of a packet that begins a connection.
    pub(in crate::conntrack) fn expected(&self, now: u32, tuple: &Tuple) -> Option<(Key, Expectation)> {
        if self.n_expected.load(Relaxed) == 0 {
            return None;
        }
        let key = Key { of: Tuple { src_port: 0, ..*tuple } };
        let mut all = self.expectations();
        let (expectation, _) = *all.by_key.get(&key)?;
        if now.wrapping_sub(expectation.expires) as i32 >= 0 {
            all.remove(&key);
            return None;
        }
        Some((key, expectation))
    }

    /// It has come.
    pub(in crate::conntrack) fn fulfil(&self, key: &Key) {
        self.expectations().remove(key);
    }

    /// Nobody can wait for what this connection has announced.
    pub(in crate::conntrack) fn forget_expectations_of(&self, master: &Tuple) {
        if self.n_expected.load(Relaxed) != 0 {
            self.expectations().remove_of(master);
        }
    }

    /// What is expected, oldest first.
    pub fn expected_connections(&self, now: Timestamp) -> Vec<Expected> {
        let now = millis(now);
        let all = self.expectations();
        let found = all.by_age.values().filter_map(|key| Some((key, all.by_key.get(key)?.0)));
        let left = |expires: u32| (expires.wrapping_sub(now) as i32).max(0) as u64;
        found
            .map(|(key, expectation)| Expected {
                tuple: key.of,
                master: expectation.master,
                expires_in: Duration::from_millis(left(expectation.expires)),
            })
            .filter(|expected| !expected.expires_in.is_zero())
            .collect()
    }
}

/// The expectations; notes how many there are when it is done with.
pub(in crate::conntrack) struct ExpectationsGuard<'a> {
    guard: MutexGuard<'a, Expectations>,
    tracker: &'a Conntrack,
}

impl std::ops::Deref for ExpectationsGuard<'_> {
    type Target = Expectations;

    fn deref(&self) -> &Expectations {
        &self.guard
    }
}

impl std::ops::DerefMut for ExpectationsGuard<'_> {
    fn deref_mut(&mut self) -> &mut Expectations {
        &mut self.guard
    }
}

impl Drop for ExpectationsGuard<'_> {
    fn drop(&mut self) {
        self.tracker.n_expected.store(self.guard.by_key.len(), Relaxed);
    }
}
