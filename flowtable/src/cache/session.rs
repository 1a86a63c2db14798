//! Sessions: signatures to megaflows, in a fixed table of small buckets.
//!
//! A packet from a port is looked up by its [`Signature`] alone, one cache line that is
//! read straight from the frame; one from a tunnel by that and [`TunnelWords`]. What is
//! left out (TCP flags, flow labels, most of the outer header) would split one conversation
//! over many entries.
//!
//! A lookup touches two lines: the bucket's tags and handles, and the words of the session
//! whose tag agrees.

use std::{mem::offset_of, ops::Range};

use super::{Handle, Secrets, bytes_of, fold};
use crate::{
    hints::prefetch,
    key::{FlowKey, FlowMask, N_WORDS},
    parse::{N_SIGNATURE_WORDS, Signature},
};

/// Words that sessions of packets from tunnels compare besides the signature, as in
/// [`TUNNEL_WORDS`].
pub(crate) type TunnelWords = [u64; TUNNEL_WORDS.len()];

/// Their places in a key: tunnel key, outer IPv4 addresses, which Geneve option fields
/// there are, and the first two of them.
pub(crate) const TUNNEL_WORDS: [usize; 4] = [
    offset_of!(FlowKey, tun_id) / 8,
    offset_of!(FlowKey, tun_src) / 8,
    offset_of!(FlowKey, tun_metadata_present) / 8,
    offset_of!(FlowKey, tun_metadata) / 8,
];

/// Sessions of packets from ports.
pub(crate) type PortSessions = Sessions<N_SIGNATURE_WORDS>;
/// Sessions of packets from tunnels.
pub(crate) type TunnelSessions = Sessions<{ N_SIGNATURE_WORDS + TUNNEL_WORDS.len() }>;

/// Sessions of a bucket.
const WAYS: usize = 4;

/// How rarely a new session replaces another.
const REPLACE_ONE_IN: u64 = 16;

/// What is known of the sessions of a bucket: one cache line.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C, align(64))]
struct Bucket {
    /// Part of the hash of each; 0: free.
    tags: [u32; WAYS],
    handles: [Handle; WAYS],
    /// Lookup count of the table when each was last used, to choose a victim.
    last_used: [u32; WAYS],
}

const _: () = assert!(size_of::<Bucket>() == 64);

/// What a session compares.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Words<const N: usize>([u64; N]);

const _: () = assert!(size_of::<Words<N_SIGNATURE_WORDS>>() == 64);

/// The sessions of a worker, of N words each.
#[derive(Debug)]
pub(crate) struct Sessions<const N: usize> {
    secrets: Secrets<N>,
    buckets: Vec<Bucket>,
    /// By bucket and way.
    words: Vec<Words<N>>,
    n_used: usize,
    n_lookups: u64,
}

impl<const N: usize> Sessions<N> {
    /// A table for `capacity` sessions, rounded up to a power of two; 0: none.
    pub(crate) fn new(capacity: usize, seed: u64) -> Self {
        let n_buckets = if capacity == 0 { 0 } else { capacity.div_ceil(WAYS).next_power_of_two() };
        Self {
            secrets: Secrets::new(seed),
            buckets: vec![Bucket::default(); n_buckets],
            words: vec![Words([0; N]); n_buckets * WAYS],
            n_used: 0,
            n_lookups: 0,
        }
    }

    pub(crate) fn is_disabled(&self) -> bool {
        self.buckets.is_empty()
    }

    /// Sessions in use.
    pub(crate) fn len(&self) -> usize {
        self.n_used
    }

    /// The memory of the table.
    pub(crate) fn memory(&self) -> [Range<*const u8>; 2] {
        [bytes_of(&self.buckets), bytes_of(&self.words)]
    }

    /// The hash of what a session compares.
    #[inline]
    pub(crate) fn hash(&self, words: &[u64; N]) -> u64 {
        let mut sum = 0_u64;
        for (pair, secrets) in words.chunks_exact(2).zip(self.secrets.0.chunks_exact(2)) {
            sum = sum.wrapping_add(fold(pair[0] ^ secrets[0], pair[1] ^ secrets[1]));
        }
        fold(sum, self.secrets.0[0] | 1)
    }

    /// Fetches what [`Sessions::candidate`] looks at.
    #[inline]
    pub(crate) fn prefetch(&self, hash: u64) {
        prefetch(&self.buckets[self.place(hash).0]);
    }

    /// Where the session with this hash is most likely, and if it can be there at all. Without
    /// branches: which way it is nobody can predict, and a wrong guess would have to wait for
    /// the memory.
    #[inline]
    pub(crate) fn candidate(&self, hash: u64) -> (usize, bool) {
        let (at, tag) = self.place(hash);
        let tags = &self.buckets[at].tags;
        let agreeing = (0..WAYS).fold(0, |bits, way| bits | u32::from(tags[way] == tag) << way);
        let place = at * WAYS + agreeing.trailing_zeros() as usize % WAYS;
        prefetch(&self.words[place]);
        (place, agreeing != 0)
    }

    /// The candidate has these words.
    #[inline]
    pub(crate) fn is_for(&self, candidate: usize, words: &[u64; N]) -> bool {
        let differing = self.words[candidate].0.iter().zip(words).fold(0, |sum, (a, b)| sum | (a ^ b));
        differing == 0
    }

    /// The megaflow of the candidate, which is used now.
    #[inline]
    pub(crate) fn hit(&mut self, candidate: usize) -> Handle {
        self.n_lookups += 1;
        let bucket = &mut self.buckets[candidate / WAYS];
        bucket.last_used[candidate % WAYS] = self.n_lookups as u32;
        bucket.handles[candidate % WAYS]
    }

    /// Makes or changes the session with these words. In a full bucket the least recently
    /// used one makes way, but only now and then: traffic of more conversations than there
    /// is room for shall not spend its time on pushing each other out.
    pub(crate) fn insert(&mut self, hash: u64, words: &[u64; N], handle: Handle) {
        self.n_lookups += 1;
        let now = self.n_lookups as u32;
        let (at, tag) = self.place(hash);
        let (bucket, places) = (&mut self.buckets[at], &mut self.words[at * WAYS..][..WAYS]);
        // Two sessions of one tag in a bucket would hide one another.
        let same_tag = bucket.tags.iter().position(|other| *other == tag);
        let way = match same_tag.or_else(|| bucket.tags.iter().position(|tag| *tag == 0)) {
            Some(way) => way,
            None if !self.n_lookups.is_multiple_of(REPLACE_ONE_IN) => return,
            None => (0..WAYS).max_by_key(|way| now.wrapping_sub(bucket.last_used[*way])).unwrap_or(0),
        };
        self.n_used += usize::from(bucket.tags[way] == 0);
        (bucket.tags[way], bucket.handles[way], bucket.last_used[way]) = (tag, handle, now);
        places[way] = Words(*words);
    }

    /// Forgets a session: its megaflow is gone.
    pub(crate) fn forget(&mut self, candidate: usize) {
        if let Some(bucket) = self.buckets.get_mut(candidate / WAYS) {
            self.n_used -= usize::from(bucket.tags[candidate % WAYS] != 0);
            bucket.tags[candidate % WAYS] = 0;
        }
    }

    /// Bucket and tag of a hash.
    #[inline]
    fn place(&self, hash: u64) -> (usize, u32) {
        (hash as usize & (self.buckets.len() - 1), (hash >> 32) as u32 | 1)
    }
}

/// Sessions compare all bits of this mask that a received packet can have.
pub(super) fn covers(mask: &FlowMask) -> bool {
    let outer = offset_of!(FlowKey, tun_tos) / 8..offset_of!(FlowKey, metadata) / 8;
    let options = offset_of!(FlowKey, tun_metadata_present) / 8..N_WORDS;
    let left_out = |idx: &usize| mask.words()[*idx] != 0 && !TUNNEL_WORDS.contains(idx);
    Signature::covers(mask) && !outer.chain(options).any(|idx| left_out(&idx))
}

/// All that a session of a packet from a tunnel compares.
pub(crate) fn tunnelled(
    signature: &Signature,
    tunnel: &TunnelWords,
) -> [u64; N_SIGNATURE_WORDS + TUNNEL_WORDS.len()] {
    std::array::from_fn(|idx| match signature.0.get(idx) {
        Some(word) => *word,
        None => tunnel[idx - N_SIGNATURE_WORDS],
    })
}
