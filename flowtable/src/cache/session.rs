//! Sessions: exact headers to megaflow, in a fixed table of small buckets.
//!
//! A session compares fourteen words of the key: port, Ethernet, outer VLAN tags, IP
//! addresses, protocol, TOS, TTL, fragment bits, ports, tunnel key, outer IPv4
//! addresses and the first two Geneve option fields. What is left out (TCP flags, ARP
//! and ND hardware addresses, labels) would split one conversation over many entries.

use std::mem::offset_of;

use super::{Handle, Secrets, fold};
use crate::key::{FlowKey, FlowMask};

/// Words of the key that a session compares.
const WORDS: [usize; 14] = [
    offset_of!(FlowKey, in_port) / 8,
    offset_of!(FlowKey, eth_dst) / 8,
    offset_of!(FlowKey, eth_type) / 8,
    offset_of!(FlowKey, vlan_tci) / 8,
    offset_of!(FlowKey, nw_src) / 8,
    offset_of!(FlowKey, ipv6_src) / 8,
    offset_of!(FlowKey, ipv6_src) / 8 + 1,
    offset_of!(FlowKey, ipv6_dst) / 8,
    offset_of!(FlowKey, ipv6_dst) / 8 + 1,
    offset_of!(FlowKey, nw_proto) / 8,
    offset_of!(FlowKey, tun_id) / 8,
    offset_of!(FlowKey, tun_src) / 8,
    offset_of!(FlowKey, tun_metadata_present) / 8,
    offset_of!(FlowKey, tun_metadata) / 8,
];

/// Sessions of a bucket.
const WAYS: usize = 4;

/// How rarely a new session replaces another.
const REPLACE_ONE_IN: u64 = 16;

/// A session: two cache lines.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Session {
    words: [u64; WORDS.len()],
    handle: Handle,
    /// Lookup count of the table when it was last used, to choose a victim.
    last_used: u64,
}

const _: () = assert!(size_of::<Session>() == 128);

/// The sessions of a worker.
#[derive(Debug)]
pub(crate) struct Sessions {
    secrets: Secrets<{ WORDS.len() }>,
    /// Part of the hash of each session of a bucket; 0: free.
    tags: Vec<[u32; WAYS]>,
    sessions: Vec<[Session; WAYS]>,
    n_used: usize,
    n_lookups: u64,
}

impl Sessions {
    /// A table for `capacity` sessions, rounded up to a power of two; 0: none.
    pub(crate) fn new(capacity: usize, seed: u64) -> Self {
        let n_buckets = if capacity == 0 { 0 } else { capacity.div_ceil(WAYS).next_power_of_two() };
        let free = Session { words: [0; WORDS.len()], handle: Handle::default(), last_used: 0 };
        Self {
            secrets: Secrets::new(seed),
            tags: vec![[0; WAYS]; n_buckets],
            sessions: vec![[free; WAYS]; n_buckets],
            n_used: 0,
            n_lookups: 0,
        }
    }

    pub(crate) fn is_disabled(&self) -> bool {
        self.tags.is_empty()
    }

    /// Sessions in use.
    pub(crate) fn len(&self) -> usize {
        self.n_used
    }

    /// A session compares all of these bits.
    pub(crate) fn covers(mask: &FlowMask) -> bool {
        mask.words().iter().enumerate().all(|(idx, word)| *word == 0 || WORDS.contains(&idx))
    }

    /// The hash of what sessions compare.
    #[inline]
    pub(crate) fn hash(&self, key: &FlowKey) -> u64 {
        let words = key.words();
        let mut sum = 0_u64;
        for at in (0..WORDS.len()).step_by(2) {
            let (a, b) = (words[WORDS[at]], words[WORDS[at + 1]]);
            sum = sum.wrapping_add(fold(a ^ self.secrets.0[at], b ^ self.secrets.0[at + 1]));
        }
        fold(sum, self.secrets.0[0] | 1)
    }

    /// The megaflow of the session with this key.
    #[inline]
    pub(crate) fn find(&mut self, hash: u64, key: &FlowKey) -> Option<Handle> {
        let (bucket, tag) = self.place(hash);
        self.n_lookups += 1;
        for way in 0..WAYS {
            if self.tags[bucket][way] == tag {
                let session = &mut self.sessions[bucket][way];
                if same(&session.words, key) {
                    session.last_used = self.n_lookups;
                    return Some(session.handle);
                }
            }
        }
        None
    }

    /// Makes or changes the session with this key. The megaflow's mask must be
    /// covered. In a full bucket the least recently used one makes way, but only now and
    /// then: traffic of more conversations than there is room for shall not spend its time
    /// on pushing each other out.
    pub(crate) fn insert(&mut self, hash: u64, key: &FlowKey, handle: Handle) {
        let (bucket, tag) = self.place(hash);
        let (tags, sessions) = (&mut self.tags[bucket], &mut self.sessions[bucket]);
        let present = (0..WAYS).find(|way| tags[*way] == tag && same(&sessions[*way].words, key));
        let way = match present.or_else(|| tags.iter().position(|tag| *tag == 0)) {
            Some(way) => way,
            None if !self.n_lookups.is_multiple_of(REPLACE_ONE_IN) => return,
            None => (0..WAYS).min_by_key(|way| sessions[*way].last_used).unwrap_or(0),
        };
        self.n_used += usize::from(tags[way] == 0);
        tags[way] = tag;
        sessions[way] =
            Session { words: WORDS.map(|idx| key.words()[idx]), handle, last_used: self.n_lookups };
    }

    /// Forgets the session with this key: its megaflow is gone.
    pub(crate) fn forget(&mut self, hash: u64, key: &FlowKey) {
        let (bucket, tag) = self.place(hash);
        for way in 0..WAYS {
            if self.tags[bucket][way] == tag && same(&self.sessions[bucket][way].words, key) {
                self.tags[bucket][way] = 0;
                self.n_used -= 1;
            }
        }
    }

    /// Bucket and tag of a hash.
    fn place(&self, hash: u64) -> (usize, u32) {
        (hash as usize & (self.tags.len() - 1), (hash >> 32) as u32 | 1)
    }
}

#[inline]
fn same(words: &[u64; WORDS.len()], key: &FlowKey) -> bool {
    let differing = WORDS.iter().zip(words).fold(0, |sum, (idx, word)| sum | (key.words()[*idx] ^ word));
    differing == 0
}
