//! The rules of one table that share a mask, and the fields of which they name ranges or
//! sets.

use std::{cmp::Ordering, collections::BTreeMap, sync::Arc};

use super::{
    branch::SetSearch,
    bucket::{Bucket, Goal},
    paged_map::PagedMap,
    tuple_space::PrefixSearch,
};
use crate::{
    field::Field,
    flow::{Match, Rule},
    key::{FlowKey, N_WORDS, Tracked, low_bits},
    types::Priority,
};

/// Number of stages of a lookup: metadata, L2, L3, L4.
const N_STAGES: usize = 4;
/// Fields whose prefixes are kept in tries, and the stage that examines them.
pub(super) const PREFIX_FIELDS: [(Field, usize); 6] = [
    (Field::NwSrc, 2),
    (Field::NwDst, 2),
    (Field::Ipv6Src, 2),
    (Field::Ipv6Dst, 2),
    (Field::TcpSrc, 3),
    (Field::TcpDst, 3),
];
/// Seed of the hashes. Fixed: keys of these maps come from rules, which the operator
/// writes; packets are only looked up.
const HASH_SEED: u64 = 0x6665_7272_6f66_6c6f;
/// An odd number without a pattern.
const HASH_FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// Bits of each key word that belong to each stage.
static STAGE_MASKS: [[u64; N_WORDS]; N_STAGES] = stage_masks();

/// Stage of a byte of the key. Port, connection, tunnel and registers come first: they
/// are the cheapest to have in a megaflow. Within the headers the order is that of the
/// wire, so that a miss on an outer header leaves inner ones wild.
const fn stage_of(offset: usize) -> usize {
    use std::mem::offset_of;
    if offset < offset_of!(FlowKey, eth_dst) || offset >= offset_of!(FlowKey, ct_mark) {
        0
    } else if offset < offset_of!(FlowKey, ipv6_label) {
        1
    } else if offset < offset_of!(FlowKey, nd_options_type) {
        2
    } else {
        3
    }
}

const fn stage_masks() -> [[u64; N_WORDS]; N_STAGES] {
    let mut masks = [[0; N_WORDS]; N_STAGES];
    let mut offset = 0;
    while offset < N_WORDS * 8 {
        let mut bytes = [0; 8];
        bytes[offset % 8] = 0xff;
        masks[stage_of(offset)][offset / 8] |= u64::from_ne_bytes(bytes);
        offset += 1;
    }
    masks
}

/// The hash of some words. Rules that have the same are told apart by all of their words.
struct StageHash(u64);

impl StageHash {
    #[inline]
    fn write(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word) * u128::from(HASH_FACTOR);
        self.0 = product as u64 ^ (product >> 64) as u64;
    }
}

/// Some bits of a word of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct MaskWord {
    idx: u8,
    mask: u64,
}

/// A part of a lookup: words that are examined together.
#[derive(Debug, Clone)]
struct Stage {
    words: Box<[MaskWord]>,
    /// Prefixes in these words: which of [`PREFIX_FIELDS`], and how long.
    prefixes: Box<[(u8, u8)]>,
    /// The rules by hash of all words so far, counted. Of the last stage it is empty: the rules
    /// themselves are that index.
    n_rules: PagedMap<u32>,
}

/// Where a rule is in a subtable, as long as that does not change.
#[derive(Debug, Clone, Copy)]
pub(super) struct PlaceInSubtable {
    hash: u64,
    idx: u32,
}

/// Rules with the same mask, found by hash in up to four stages; of those with the same
/// masked bits, by the ranges and sets that they name.
///
/// # Invariants
/// - A stage but the last counts the rules of each hash of the words up to it; a rule can only
///   match where each stage's hash is known.
/// - Each stage has a word.
#[derive(Debug, Clone)]
pub(super) struct Subtable {
    /// The mask in order of the key, which is its identity and its rank.
    mask: Box<[MaskWord]>,
    /// The fields of which matches name ranges or sets, in order: a part of the identity.
    fields: Box<[Field]>,
    /// The mask in the order that it is examined.
    stages: Box<[Stage]>,
    /// For each of [`PREFIX_FIELDS`]: the prefix length, 0 where the mask is none.
    prefix_lens: [u32; PREFIX_FIELDS.len()],
    rules: PagedMap<Bucket>,
    priorities: BTreeMap<Priority, usize>,
    max_priority: Priority,
}

impl Subtable {
    /// An empty subtable for matches with the mask and fields of this one.
    pub(super) fn new(matching: &Match) -> Self {
        let mask: Box<[_]> =
            matching.words().iter().map(|word| MaskWord { idx: word.idx, mask: word.mask }).collect();
        let prefix_lens = PREFIX_FIELDS.map(|(field, _)| prefix_len(matching, field));
        let stage = |at: usize| Stage {
            words: words_of(&mask, &STAGE_MASKS[at]).collect(),
            prefixes: prefixes_of(&prefix_lens, at).collect(),
            n_rules: PagedMap::default(),
        };
        Self {
            stages: (0..N_STAGES).map(stage).filter(|stage| !stage.words.is_empty()).collect(),
            prefix_lens,
            mask,
            fields: fields_of(matching).collect(),
            rules: PagedMap::default(),
            priorities: BTreeMap::new(),
            max_priority: Priority::MIN,
        }
    }

    /// Its matches name ranges or sets.
    pub(super) fn asks_for_members(&self) -> bool {
        !self.fields.is_empty()
    }

    /// The match has this subtable's mask and fields.
    pub(super) fn suits(&self, matching: &Match) -> bool {
        self.fields.iter().copied().eq(fields_of(matching))
            && self.mask.len() == matching.words().len()
            && self.mask.iter().zip(matching.words()).all(|(a, b)| a.idx == b.idx && a.mask == b.mask)
    }

    /// Order of search: falling highest priority, then rank.
    pub(super) fn order(&self, other: &Self) -> Ordering {
        other.max_priority.cmp(&self.max_priority).then_with(|| self.rank(other))
    }

    /// Order that decides between rules of equal priority; see [`super`].
    pub(super) fn rank(&self, other: &Self) -> Ordering {
        self.mask.cmp(&other.mask).then_with(|| self.fields.cmp(&other.fields))
    }

    /// The highest priority of its rules.
    pub(super) fn max_priority(&self) -> Priority {
        self.max_priority
    }

    /// There is no rule.
    pub(super) fn is_empty(&self) -> bool {
        self.priorities.is_empty()
    }

    /// Prefix length of each of [`PREFIX_FIELDS`], 0: not a prefix.
    pub(super) fn prefix_lens(&self) -> [u32; PREFIX_FIELDS.len()] {
        self.prefix_lens
    }

    /// All rules.
    pub(super) fn rules(&self) -> impl Iterator<Item = &Arc<Rule>> {
        self.rules.values().flat_map(|bucket| bucket.rules())
    }

    /// Where a rule is; `None`: among others that ranges or sets tell apart.
    pub(super) fn place_of(&self, rule: &Arc<Rule>) -> Option<PlaceInSubtable> {
        let hash = self.hash(&rule.matching, |_, _| ());
        let idx = self.rules.get(hash)?.plain()?.iter().position(|other| Arc::ptr_eq(other, rule))?;
        Some(PlaceInSubtable { hash, idx: idx as u32 })
    }

    /// The rule in a place.
    #[inline]
    pub(super) fn rule_at(&self, place: PlaceInSubtable) -> Option<&Arc<Rule>> {
        self.rules.get(place.hash)?.plain()?.get(place.idx as usize)
    }

    /// The rule of this priority and match.
    pub(super) fn get(&self, priority: Priority, matching: &Match) -> Option<&Arc<Rule>> {
        self.rules.get(self.hash(matching, |_, _| ()))?.get(priority, matching, matching.memberships())
    }

    /// Adds a rule that suits; gives back the one it replaces.
    pub(super) fn insert(&mut self, rule: Arc<Rule>) -> Option<Arc<Rule>> {
        let priority = rule.priority;
        let mut hashes = [0; N_STAGES];
        let full = self.hash(&rule.matching, |stage, hash| hashes[stage] = hash);
        let replaced = self.rules.update(full, |bucket| (true, bucket.insert(rule, 0)));
        if replaced.is_none() {
            for (stage, hash) in early(&mut self.stages).zip(hashes) {
                stage.n_rules.update(hash, |n_rules| {
                    *n_rules += 1;
                    (true, ())
                });
            }
            *self.priorities.entry(priority).or_default() += 1;
            self.max_priority = self.max_priority.max(priority);
        }
        replaced
    }

    /// Takes the rule of this priority and match out.
    pub(super) fn remove(&mut self, priority: Priority, matching: &Match) -> Option<Arc<Rule>> {
        self.get(priority, matching)?;
        let mut hashes = [0; N_STAGES];
        let full = self.hash(matching, |stage, hash| hashes[stage] = hash);
        let removed = self.rules.update(full, |bucket| {
            let removed = bucket.remove(priority, matching, 0);
            (!bucket.is_empty(), removed)
        });
        for (stage, hash) in early(&mut self.stages).zip(hashes) {
            stage.n_rules.update(hash, |n_rules| {
                *n_rules = n_rules.saturating_sub(1);
                (*n_rules > 0, ())
            });
        }
        if let Some(n) = self.priorities.get_mut(&priority) {
            *n -= 1;
            if *n == 0 {
                self.priorities.remove(&priority);
            }
        }
        self.max_priority = self.priorities.last_key_value().map_or(Priority::MIN, |(priority, _)| *priority);
        removed
    }

    /// Offers the rules that match and are wanted. Examines stage by stage and stops at
    /// the first that no rule can satisfy, so that later stages stay wild; ranges and sets
    /// come last.
    #[inline]
    pub(super) fn search<'a>(
        &'a self,
        key: &mut Tracked,
        prefixes: &mut PrefixSearch<'_>,
        sets: &mut SetSearch<'a>,
        goal: &mut Goal<'a>,
    ) {
        if let Some(bucket) = self.bucket(key, prefixes) {
            bucket.search(0, key, sets, goal);
        }
    }

    /// The rules that alone can match.
    #[inline]
    fn bucket(&self, key: &mut Tracked, prefixes: &mut PrefixSearch<'_>) -> Option<&Bucket> {
        let mut hasher = StageHash(HASH_SEED);
        let mut is_known = true;
        for stage in &self.stages {
            if !is_known || stage.prefixes.iter().any(|(idx, len)| prefixes.exclude(*idx, *len, key)) {
                return None;
            }
            for word in &stage.words {
                hasher.write(key.read_word(usize::from(word.idx), word.mask));
            }
            is_known = stage.n_rules.get(hasher.0).is_some();
        }
        self.rules.get(hasher.0)
    }

    /// Hash of a match's words; shows those of the words up to the end of each stage.
    fn hash(&self, matching: &Match, mut show: impl FnMut(usize, u64)) -> u64 {
        let mut hasher = StageHash(HASH_SEED);
        for (idx, stage) in self.stages.iter().enumerate() {
            for word in &stage.words {
                let value = matching.words().binary_search_by_key(&word.idx, |word| word.idx);
                hasher.write(value.map_or(0, |idx| matching.words()[idx].value & word.mask));
            }
            show(idx, hasher.0);
        }
        hasher.0
    }
}

/// The stages with an index: all but the last.
fn early(stages: &mut [Stage]) -> impl Iterator<Item = &mut Stage> {
    let n = stages.len().saturating_sub(1);
    stages.iter_mut().take(n)
}

/// What of a mask a stage examines.
fn words_of(mask: &[MaskWord], stage: &[u64; N_WORDS]) -> impl Iterator<Item = MaskWord> {
    let part = |word: &MaskWord| MaskWord { mask: word.mask & stage[usize::from(word.idx)], ..*word };
    mask.iter().map(part).filter(|word| word.mask != 0)
}

/// The prefixes that a stage examines.
fn prefixes_of(lens: &[u32; PREFIX_FIELDS.len()], at: usize) -> impl Iterator<Item = (u8, u8)> {
    let lens = lens.iter().zip(PREFIX_FIELDS).enumerate();
    let here = lens.filter(move |(_, (len, (_, stage)))| **len > 0 && *stage == at);
    here.map(|(idx, (len, _))| (idx as u8, *len as u8))
}

/// Length of the prefix that a match requires of a field; 0 where its mask is none.
fn prefix_len(matching: &Match, field: Field) -> u32 {
    let (_, mask) = matching.get(field);
    let n_bits = field.info().n_bits;
    let len = mask.count_ones();
    if mask == field.all_bits() & !low_bits(n_bits - len) { len } else { 0 }
}

/// The fields of which a match names ranges or sets, one that it names two of twice.
fn fields_of(matching: &Match) -> impl Iterator<Item = Field> {
    matching.memberships().iter().map(|membership| membership.field)
}
