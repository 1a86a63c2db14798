//! The members of a set: a list in order, to be changed and printed, and a trie, to be
//! searched.

use std::sync::Arc;

use super::ValueRange;
use crate::trie::Trie;

/// Members of a chunk at which it is split in two.
const CHUNK: usize = 128;

/// Ranges in order, in shared chunks.
///
/// # Cost
/// A copy costs one reference count per chunk; a change after it, one chunk and, for each
/// prefix of the member, the way to it in the trie.
///
/// # Invariants
/// - Chunks are not empty; members rise through all of them, none is there twice.
/// - The trie counts, for each prefix, the members that it is a part of.
#[derive(Debug, Clone, Default)]
pub(super) struct Members {
    chunks: Vec<Arc<Vec<ValueRange>>>,
    n_members: usize,
    n_prefixes: usize,
    trie: Trie<u32>,
}

impl Members {
    pub(super) fn len(&self) -> usize {
        self.n_members
    }

    /// Prefixes that the members are made up of.
    pub(super) fn n_prefixes(&self) -> usize {
        self.n_prefixes
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = ValueRange> {
        self.chunks.iter().flat_map(|chunk| chunk.iter().copied())
    }

    pub(super) fn has(&self, member: ValueRange) -> bool {
        self.find(member).1.is_ok()
    }

    /// Adds a member of a field of `n_bits`; false when it is there.
    pub(super) fn insert(&mut self, member: ValueRange, n_bits: u32) -> bool {
        let (idx, Err(at)) = self.find(member) else { return false };
        match self.chunks.get_mut(idx) {
            Some(chunk) => {
                let chunk = Arc::make_mut(chunk);
                chunk.insert(at, member);
                if chunk.len() > CHUNK {
                    let rest = chunk.split_off(chunk.len() / 2);
                    self.chunks.insert(idx + 1, Arc::new(rest));
                }
            }
            None => self.chunks.push(Arc::new(vec![member])),
        }
        self.n_members += 1;
        for (bits, len) in member.prefixes(n_bits) {
            self.n_prefixes += 1;
            self.trie.update(bits, len, |n_members| *n_members += 1);
        }
        true
    }

    /// Takes a member out; false when there is none.
    pub(super) fn remove(&mut self, member: ValueRange, n_bits: u32) -> bool {
        let (idx, Ok(at)) = self.find(member) else { return false };
        let chunk = Arc::make_mut(&mut self.chunks[idx]);
        chunk.remove(at);
        if chunk.is_empty() {
            self.chunks.remove(idx);
        }
        self.n_members -= 1;
        for (bits, len) in member.prefixes(n_bits) {
            self.n_prefixes -= 1;
            self.trie.update(bits, len, |n_members| *n_members = n_members.saturating_sub(1));
        }
        true
    }

    /// A value, left-aligned, is within a member; and how many leading bits prove that it
    /// is, or is not. Members that fill a prefix together are as good as one.
    pub(super) fn search(&self, value: u128) -> (bool, u32) {
        self.trie.covers(value)
    }

    /// The chunk that a member is in or would be in, and its place there.
    fn find(&self, member: ValueRange) -> (usize, Result<usize, usize>) {
        let behind = self.chunks.partition_point(|chunk| chunk.first().is_some_and(|first| *first <= member));
        let idx = behind.saturating_sub(1);
        (idx, self.chunks.get(idx).map_or(Err(0), |chunk| chunk.binary_search(&member)))
    }
}
