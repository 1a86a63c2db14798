//! Sessions: where packets of a known conversation find their megaflow at once, however many
//! shapes their port has.
//!
//! A session is six bytes, part of a hash and a slot: what it leads to is compared with the
//! packet anyway ([`super::signed`]), so that it need not know more, and cannot be wrong in a
//! way that matters. A million of them are less than 8 MiB.
//!
//! The table begins small and doubles when it is half full, until it is as large as it may
//! become: what few conversations use stays together, and so in the cache. What was in it is
//! forgotten then; the conversations make themselves known again.

use std::ops::Range;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, transmute_mut, transmute_ref};

use super::bytes_of;
use crate::hints::prefetch;

/// Sessions of a bucket.
const WAYS: usize = 10;
/// Buckets at first.
const MIN_BUCKETS: usize = 64;

/// How rarely a new session replaces another.
const REPLACE_ONE_IN: u64 = 16;

/// Sessions whose hashes are alike: one cache line.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Bucket {
    /// Part of the hash of each; 0: free.
    tags: [u16; WAYS],
    slots: [u32; WAYS],
    spare: u32,
}

/// Words of a cache line, which is a bucket.
const LINE: usize = 8;

const _: () = assert!(size_of::<Bucket>() == LINE * size_of::<u64>());

/// Slots of megaflows by the hashes of packets.
#[derive(Debug)]
pub(crate) struct Sessions {
    /// As words: a vector of zeros of theirs is taken from the system as it is, without being written, which
    /// one of whole lines is not.
    words: Vec<u64>,
    /// Word of the first bucket.
    start: usize,
    n_buckets: usize,
    /// Of the buckets in use.
    mask: usize,
    n_used: usize,
    n_inserts: u64,
}

impl Sessions {
    /// A table for `capacity` sessions, rounded up to a power of two. Its memory is taken when
    /// it is first used.
    pub(crate) fn new(capacity: usize) -> Self {
        let n_buckets = capacity.div_ceil(WAYS).next_power_of_two();
        let words = vec![0; (n_buckets + 1) * LINE];
        let start = words.as_ptr().align_offset(size_of::<Bucket>()).min(LINE);
        Self { words, start, n_buckets, mask: n_buckets.min(MIN_BUCKETS) - 1, n_used: 0, n_inserts: 0 }
    }

    /// Sessions in use.
    pub(crate) fn len(&self) -> usize {
        self.n_used
    }

    /// The memory of the table.
    pub(crate) fn memory(&self) -> Range<*const u8> {
        bytes_of(&self.words)
    }

    /// Fetches what [`Sessions::find`] looks at.
    #[inline]
    pub(crate) fn prefetch(&self, hash: u64) {
        if let Some(bucket) = self.bucket(hash) {
            prefetch(bucket);
        }
    }

    /// Where the session with this hash leads. Without branches on the way to it: which of a
    /// bucket it is nobody can predict, and a wrong guess would have to wait for the memory.
    #[inline]
    pub(crate) fn find(&self, hash: u64) -> Option<u32> {
        let bucket = self.bucket(hash)?;
        let agreeing = agreeing(&bucket.tags, tag(hash));
        let slot = bucket.slots[agreeing.trailing_zeros() as usize % WAYS];
        (agreeing != 0).then_some(slot)
    }

    /// Makes or changes the session with this hash. In a full bucket another one makes way, but
    /// only now and then: traffic of more conversations than there is room for shall not spend
    /// its time on pushing each other out, and a scan shall not push out what is in use.
    pub(crate) fn insert(&mut self, hash: u64, slot: u32) {
        self.n_inserts += 1;
        if self.n_used * 2 > (self.mask + 1) * WAYS && self.mask + 1 < self.n_buckets {
            self.words[self.start..][..(self.mask + 1) * LINE].fill(0);
            (self.mask, self.n_used) = (self.mask * 2 + 1, 0);
        }
        let (n_inserts, tag) = (self.n_inserts, tag(hash));
        let Some(bucket) = self.bucket_mut(hash) else { return };
        // Two sessions of one tag in a bucket would hide one another.
        let same_tag = bucket.tags.iter().position(|other| *other == tag);
        let way = match same_tag.or_else(|| bucket.tags.iter().position(|tag| *tag == 0)) {
            Some(way) => way,
            None if !n_inserts.is_multiple_of(REPLACE_ONE_IN) => return,
            None => (n_inserts / REPLACE_ONE_IN) as usize % WAYS,
        };
        let is_more = bucket.tags[way] == 0;
        (bucket.tags[way], bucket.slots[way]) = (tag, slot);
        self.n_used += usize::from(is_more);
    }

    /// Forgets the session with this hash: it leads nowhere any more.
    pub(crate) fn forget(&mut self, hash: u64) {
        let Some(bucket) = self.bucket_mut(hash) else { return };
        let mut n_forgotten = 0;
        for other in bucket.tags.iter_mut().filter(|other| **other == tag(hash)) {
            *other = 0;
            n_forgotten += 1;
        }
        self.n_used -= n_forgotten;
    }

    /// The bucket of a hash; there always is one.
    #[inline]
    fn bucket(&self, hash: u64) -> Option<&Bucket> {
        let words: &[u64; LINE] = self.words.get(self.word(hash)..)?.first_chunk()?;
        Some(transmute_ref!(words))
    }

    #[inline]
    fn bucket_mut(&mut self, hash: u64) -> Option<&mut Bucket> {
        let at = self.word(hash);
        let words: &mut [u64; LINE] = self.words.get_mut(at..)?.first_chunk_mut()?;
        Some(transmute_mut!(words))
    }

    /// First word of a hash's bucket.
    #[inline]
    fn word(&self, hash: u64) -> usize {
        self.start + (hash as usize & self.mask) * LINE
    }
}

/// A bit for each way whose tag is this one.
#[inline]
fn agreeing(tags: &[u16; WAYS], tag: u16) -> u32 {
    (0..WAYS).fold(0, |bits, way| bits | u32::from(tags[way] == tag) << way)
}

/// The part of a hash that a session keeps; never 0.
#[inline]
fn tag(hash: u64) -> u16 {
    (hash >> 48) as u16 | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hashes that share eight buckets.
    fn hash(n: u64) -> u64 {
        (n << 49) | (n % 8)
    }

    #[test]
    fn sessions_are_found_replaced_and_forgotten() {
        let mut sessions = Sessions::new(80);
        (1..=32).for_each(|n| sessions.insert(hash(n), n as u32));
        assert_eq!(sessions.len(), 32);
        assert!((1..=32).all(|n| sessions.find(hash(n)) == Some(n as u32)));
        sessions.insert(hash(5), 50);
        sessions.forget(hash(6));
        sessions.forget(hash(6));
        assert_eq!((sessions.len(), sessions.find(hash(5)), sessions.find(hash(6))), (31, Some(50), None));
    }

    #[test]
    fn a_scan_leaves_most_of_a_full_table() {
        let mut sessions = Sessions::new(80);
        (1..=80).for_each(|n| sessions.insert(hash(n), n as u32));
        (1000..1064).for_each(|n| sessions.insert(hash(n), n as u32));
        let n_left = (1..=80).filter(|n| sessions.find(hash(*n)).is_some()).count();
        assert_eq!((sessions.len(), n_left), (80, 76));
    }

    #[test]
    fn a_table_grows_to_its_capacity_and_not_beyond() {
        let mut sessions = Sessions::new(10_000);
        let spread = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for _ in 0..2 {
            (0..100_000).for_each(|n| sessions.insert(spread(n), n as u32));
        }
        assert_eq!(sessions.mask + 1, sessions.n_buckets);
        assert!(sessions.len() > 9_000 && sessions.len() <= sessions.n_buckets * WAYS);
        let line = std::ptr::from_ref(sessions.bucket(7).unwrap()).addr();
        assert!(line.is_multiple_of(size_of::<Bucket>()));
        assert!((0..100_000).all(|n| sessions.find(spread(n)).is_none_or(|slot| u64::from(slot) < 100_000)));
    }

    #[test]
    fn a_table_for_none_has_room_for_a_bucket() {
        let mut sessions = Sessions::new(0);
        assert_eq!(sessions.find(7), None);
        sessions.insert(7, 1);
        assert_eq!(sessions.find(7), Some(1));
    }
}
