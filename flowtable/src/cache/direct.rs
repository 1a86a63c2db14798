//! Rules that decide by themselves, found without any megaflow.
//!
//! Some rules make a mask for nearly every packet: an allowed port, an allowed network and an
//! allowed host are told from what is not allowed by as many bits as happen to differ first, and
//! an attacker can go through all combinations (tuple-space explosion, CVE-2019-25076). Where
//! the table has few rules, comparing a packet with each of them takes less time than looking
//! for such a megaflow. So once a port's masks multiply, packets with a signature are compared
//! with the rules of the first table, in the order of precedence, in terms of signatures.
//!
//! What then happens must follow from the rule alone: the walk ends at it, and its actions look
//! at nothing that differs between packets of the port and IP version. Whether that is so, the
//! first packet's translation tells. Packets of other rules go the usual way.
//!
//! # Invariants
//! - The lists are of one epoch; a rule that no packet with a signature can match is not in
//!   them, and all others of the table are.
//! - Entries that are noted are there: whoever takes one away says so.

use std::sync::Arc;

use super::{Handle, signed::bits};
use crate::{
    flow::Rule,
    key::{FlowKey, FlowMask},
    parse::{N_SIGNATURE_WORDS, Signature},
    pipeline::Translation,
    snapshot::Snapshot,
    switch::MAX_BATCH,
    types::{Epoch, TableId},
};

/// Rules of the first table that are looked at, of whatever kind.
const MAX_RULES: usize = 64;
/// Rules that packets are compared with.
const MAX_COMPARED: usize = 16;
/// Packets after which it is decided whether comparing them is worth it.
const TRIAL: u32 = 4096;

/// What becomes of packets of a rule.
#[derive(Debug, Clone, Copy)]
enum Outcome {
    /// No packet has come yet.
    Unknown,
    /// What this entry says.
    Entry(Handle),
    /// It depends.
    Depends,
}

/// A rule, or the end of the table, in terms of signatures.
#[derive(Debug)]
struct Compared {
    /// Words of a signature that the rule looks at: which, under what mask, and what must be there.
    words: [(usize, u64, u64); N_SIGNATURE_WORDS],
    n_words: usize,
    rule: Option<Arc<Rule>>,
    outcome: Outcome,
}

/// The rules of the first table as a port's packets are compared with them.
#[derive(Debug, Default)]
pub(super) struct Direct {
    epoch: Option<Epoch>,
    /// Of IPv4 and IPv6, in the order of precedence; empty: packets go the usual way.
    lists: [Vec<Compared>; 2],
    n_compared: u32,
    n_hits: u32,
}

/// Index of a list.
fn version_idx(signature: &Signature) -> usize {
    usize::from(!signature.is_ipv4())
}

impl Direct {
    /// Packets are compared in this epoch.
    #[inline]
    pub(super) fn is_on(&self, epoch: Epoch) -> bool {
        self.epoch == Some(epoch) && !self.lists[0].is_empty()
    }

    /// Begins to compare packets of the snapshot's epoch, if that was not tried. Gives back the
    /// entries of the epoch before.
    pub(super) fn begin(&mut self, snapshot: &Snapshot) -> Vec<Handle> {
        if self.epoch == Some(snapshot.epoch) {
            return Vec::new();
        }
        let outcomes = self.lists.iter().flatten().map(|compared| compared.outcome);
        let old = outcomes.filter_map(|outcome| match outcome {
            Outcome::Entry(handle) => Some(handle),
            Outcome::Unknown | Outcome::Depends => None,
        });
        let old = old.collect();
        let lists = list(snapshot, true).zip(list(snapshot, false));
        let lists = lists.map(|(v4, v6)| [v4, v6]).unwrap_or_default();
        *self = Self { epoch: Some(snapshot.epoch), lists, n_compared: 0, n_hits: 0 };
        old
    }

    /// The entries of packets, by bit in `select`, whose rule decides by itself; answers which
    /// of them have one.
    pub(super) fn find_all(
        &mut self,
        select: u32,
        signatures: &[Signature],
        slots: &mut [u32; MAX_BATCH],
    ) -> u32 {
        let mut hits = 0_u32;
        for idx in bits(select) {
            let Some(signature) = signatures.get(idx) else { continue };
            let found = self.lists[version_idx(signature)].iter().find(|compared| compared.suits(signature));
            if let Some(Compared { outcome: Outcome::Entry(handle), .. }) = found {
                slots[idx] = handle.slot;
                hits |= 1 << idx;
            }
        }
        self.n_compared += select.count_ones();
        self.n_hits += hits.count_ones();
        if self.n_compared >= TRIAL {
            if self.n_hits < self.n_compared / 2 {
                self.lists = Default::default();
            }
            (self.n_compared, self.n_hits) = (0, 0);
        }
        hits
    }

    /// The translation of a packet with this signature follows from its rule alone; where it
    /// does not, that is noted.
    pub(super) fn takes(&mut self, signature: &Signature, translation: &Translation) -> bool {
        let Some(compared) = self.compared(signature) else { return false };
        let Translation { rules, tally, .. } = translation;
        let ends_there = match (&compared.rule, &rules[..], &tally.misses[..]) {
            (Some(compared), [rule], []) => Arc::ptr_eq(compared, rule),
            (None, [], [table]) => *table == TableId::FIRST,
            _ => false,
        };
        let takes = ends_there && translation.follows_from_rules();
        if !takes {
            compared.outcome = Outcome::Depends;
        }
        takes
    }

    /// Notes the entry of packets like the one with this signature.
    pub(super) fn enter(&mut self, signature: &Signature, handle: Handle) {
        if let Some(compared) = self.compared(signature) {
            compared.outcome = Outcome::Entry(handle);
        }
    }

    /// Forgets an entry, which is gone.
    pub(super) fn forget(&mut self, handle: Handle) {
        for compared in self.lists.iter_mut().flatten() {
            if matches!(compared.outcome, Outcome::Entry(entry) if entry == handle) {
                compared.outcome = Outcome::Unknown;
            }
        }
    }

    fn compared(&mut self, signature: &Signature) -> Option<&mut Compared> {
        self.lists[version_idx(signature)].iter_mut().find(|compared| compared.suits(signature))
    }
}

impl Compared {
    fn new(
        mask: &[u64; N_SIGNATURE_WORDS],
        value: &[u64; N_SIGNATURE_WORDS],
        rule: Option<Arc<Rule>>,
    ) -> Self {
        let all = mask.iter().zip(value).enumerate().map(|(idx, (mask, value))| (idx, *mask, *value));
        let used = all.filter(|(_, mask, _)| *mask != 0);
        let (mut words, mut n_words) = ([(0, 0, 0); N_SIGNATURE_WORDS], 0);
        for (place, word) in words.iter_mut().zip(used) {
            *place = word;
            n_words += 1;
        }
        Self { words, n_words, rule, outcome: Outcome::Unknown }
    }

    #[inline]
    fn suits(&self, signature: &Signature) -> bool {
        // No early end: which word differs first nobody can foresee, how many there are the
        // processor can.
        let differing = |sum, (idx, mask, value): &(usize, u64, u64)| {
            sum | (signature.0[idx % N_SIGNATURE_WORDS] & mask) ^ value
        };
        self.words[..self.n_words].iter().fold(0, differing) == 0
    }
}

/// The rules that packets with signatures of one IP version can match, and the end of the table.
/// Nothing when there are too many or a signature does not tell.
fn list(snapshot: &Snapshot, is_ipv4: bool) -> Option<Vec<Compared>> {
    let mut list = Vec::new();
    for rule in snapshot.tables.few_rules(TableId::FIRST, MAX_RULES)? {
        let (mut mask, mut value) = (FlowMask::empty(), FlowKey::zero());
        for word in rule.matching.words() {
            mask.words_mut()[usize::from(word.idx)] = word.mask;
            value.words_mut()[usize::from(word.idx)] = word.value;
        }
        if !Signature::covers(&mask) {
            return None;
        }
        if Signature::can_match(&mask, &value, is_ipv4) {
            let (mask, value) =
                (Signature::words_of(mask.fields(), is_ipv4), Signature::words_of(&value, is_ipv4));
            list.push(Compared::new(&mask, &value, Some(Arc::clone(rule))));
        }
    }
    let all = [0; N_SIGNATURE_WORDS];
    list.push(Compared::new(&all, &all, None));
    (list.len() <= MAX_COMPARED).then_some(list)
}
