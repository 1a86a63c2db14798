//! A connection's place in storage: 96 bytes of plain words, addressed by index.
//!
//! With its share of the index (four cells of eight bytes) a connection costs 128
//! bytes. An IPv6 connection takes a second slot for its four addresses in full; the
//! first one then holds digests of them. The few connections that helpers are about have
//! one too (`extension`).
//!
//! # Concurrency
//! Words [`LIVE`] and behind (but the links) change under the slot's lock, a bit in
//! [`LIVE`]. Identity and tuple words change under the ledger's mutex *and* the slot's
//! lock; links under the mutex alone. Whoever finds a slot by the index takes its lock
//! and then compares the tuple, so a slot that was given to another connection
//! meanwhile is never mistaken for the old one.

use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

use super::{tcp::Peer, timeout::State, tuple::Tuple};
use crate::hints::prefetch;

/// Words of a slot.
const N_WORDS: usize = 12;
/// Bytes that a connection may cost in all.
const BUDGET: usize = 128;
/// Index cells for each slot: two are used, so that chains stay short.
pub const CELLS_PER_SLOT: usize = 4;

const _: () = assert!(size_of::<Slot>() + CELLS_PER_SLOT * size_of::<AtomicU64>() <= BUDGET);

/// Originator's source and destination address, IPv6 digested.
const ADDRESSES: [usize; 2] = [0, 1];
/// Ports of both directions.
const PORTS: usize = 2;
/// Zone, protocol, [`kind`] bits, input port, list.
const IDENTITY: usize = 3;
/// Mark and extension slot.
const MARK: usize = 4;
/// Label, high half first.
const LABEL: [usize; 2] = [5, 6];
/// Lock, flags, policy, state, expiry.
const LIVE: usize = 7;
/// What the protocol knows of each side.
const PEERS: [usize; 2] = [8, 9];
/// Windows of both sides.
const WINDOWS: usize = 10;
/// Next and previous slot of its list.
const LINKS: usize = 11;

const LOCK: u64 = 1 << 63;
/// The other side has answered.
const REPLIED: u64 = 1 << 62;
/// A packet has come since the sweep last saw it.
const TOUCHED: u64 = 1 << 61;

/// Bits of a slot's kind.
pub(super) mod kind {
    pub(crate) const USED: u8 = 1;
    pub(crate) const IPV6: u8 = 2;
    /// Holds the addresses of another slot.
    pub(crate) const EXTENSION: u8 = 4;
    pub(crate) const SNAT: u8 = 8;
    pub(crate) const DNAT: u8 = 16;
    /// Another connection has announced it.
    pub(crate) const RELATED: u8 = 32;
    pub(crate) const FTP: u8 = 64;
    pub(crate) const TFTP: u8 = 128;

    /// A second slot belongs to such a connection.
    pub(crate) fn has_extension(kind: u8) -> bool {
        kind & (IPV6 | FTP | RELATED) != 0
    }
}

/// One slot. All zero: free.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Slot([AtomicU64; N_WORDS]);

/// The part of a slot that changes with packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Live {
    pub(super) state: State,
    pub(super) policy: u8,
    pub(super) has_replied: bool,
    pub(super) was_touched: bool,
    /// Milliseconds, modulo 2^32.
    pub(super) expires: u32,
}

impl Live {
    fn to_word(self) -> u64 {
        u64::from(self.expires)
            | (self.state as u64) << 32
            | u64::from(self.policy & 15) << 40
            | if self.has_replied { REPLIED } else { 0 }
            | if self.was_touched { TOUCHED } else { 0 }
    }

    fn from_word(word: u64) -> Self {
        Self {
            state: State::from_raw((word >> 32) as u8),
            policy: (word >> 40) as u8 & 15,
            has_replied: word & REPLIED != 0,
            was_touched: word & TOUCHED != 0,
            expires: word as u32,
        }
    }

    /// Its time is over.
    pub(super) fn is_over(&self, now: u32) -> bool {
        now.wrapping_sub(self.expires) as i32 >= 0
    }
}

/// A locked slot.
pub(super) struct Guard<'a> {
    slot: &'a Slot,
    pub(super) live: Live,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.slot.0[LIVE].store(self.live.to_word(), Release);
    }
}

impl Slot {
    /// Fetches all of it.
    #[inline]
    pub(super) fn prefetch(&self) {
        prefetch(&self.0[0]);
        prefetch(&self.0[N_WORDS - 1]);
    }

    /// Waits for the lock. It is held for some dozens of instructions at a time.
    pub(super) fn lock(&self) -> Guard<'_> {
        loop {
            let word = self.0[LIVE].load(Relaxed);
            if word & LOCK == 0
                && self.0[LIVE].compare_exchange_weak(word, word | LOCK, Acquire, Relaxed).is_ok()
            {
                return Guard { slot: self, live: Live::from_word(word) };
            }
            std::hint::spin_loop();
        }
    }

    /// The changing part as it was a moment ago.
    pub(super) fn glance(&self) -> Live {
        Live::from_word(self.0[LIVE].load(Relaxed))
    }

    /// Forgets a lock that a worker held when its process died.
    pub(super) fn break_lock(&self) {
        // An extension has no lock, and other things in its place.
        if self.kind() & kind::EXTENSION == 0 {
            self.0[LIVE].fetch_and(!LOCK, Relaxed);
        }
    }

    pub(super) fn get(&self, word: usize) -> u64 {
        self.0[word].load(Relaxed)
    }

    pub(super) fn set(&self, word: usize, value: u64) {
        self.0[word].store(value, Relaxed);
    }

    pub(super) fn kind(&self) -> u8 {
        (self.get(IDENTITY) >> 32) as u8
    }

    pub(super) fn zone(&self) -> u16 {
        (self.get(IDENTITY) >> 48) as u16
    }

    pub(super) fn proto(&self) -> u8 {
        (self.get(IDENTITY) >> 40) as u8
    }

    pub(super) fn in_port(&self) -> u16 {
        (self.get(IDENTITY) >> 16) as u16
    }

    /// The slot is the first of a connection.
    pub(super) fn is_connection(&self) -> bool {
        self.kind() & (kind::USED | kind::EXTENSION) == kind::USED
    }

    pub(super) fn list(&self) -> u16 {
        self.get(IDENTITY) as u16
    }

    pub(super) fn set_list(&self, list: u16) {
        self.set(IDENTITY, self.get(IDENTITY) & !0xffff | u64::from(list));
    }

    /// (next, previous).
    pub(super) fn links(&self) -> (u32, u32) {
        let word = self.get(LINKS);
        ((word >> 32) as u32, word as u32)
    }

    pub(super) fn set_links(&self, next: u32, previous: u32) {
        self.set(LINKS, u64::from(next) << 32 | u64::from(previous));
    }

    pub(super) fn mark(&self) -> u32 {
        (self.get(MARK) >> 32) as u32
    }

    /// Slot of the addresses in full, for IPv6.
    pub(super) fn extension(&self) -> u32 {
        self.get(MARK) as u32
    }

    pub(super) fn label(&self) -> u128 {
        u128::from(self.get(LABEL[0])) << 64 | u128::from(self.get(LABEL[1]))
    }

    /// The slot must be locked.
    pub(super) fn set_mark(&self, mark: u32) {
        self.set(MARK, u64::from(mark) << 32 | u64::from(self.extension()));
    }

    /// The slot must be locked.
    pub(super) fn set_label(&self, label: u128) {
        self.set(LABEL[0], (label >> 64) as u64);
        self.set(LABEL[1], label as u64);
    }

    /// The slot must be locked.
    pub(super) fn peers(&self) -> [Peer; 2] {
        let windows = self.get(WINDOWS);
        [
            Peer::from_words(self.get(PEERS[0]), (windows >> 32) as u32),
            Peer::from_words(self.get(PEERS[1]), windows as u32),
        ]
    }

    /// The slot must be locked.
    pub(super) fn set_peers(&self, peers: &[Peer; 2]) {
        let [(first, high), (second, low)] = peers.map(Peer::to_words);
        self.set(PEERS[0], first);
        self.set(PEERS[1], second);
        self.set(WINDOWS, u64::from(high) << 32 | u64::from(low));
    }

    /// SCTP's verification tags by the side that must send them. The slot must be locked.
    pub(super) fn tags(&self) -> [u32; 2] {
        [self.get(PEERS[0]) as u32, self.get(PEERS[1]) as u32]
    }

    /// The slot must be locked.
    pub(super) fn set_tags(&self, tags: [u32; 2]) {
        self.set(PEERS[0], tags[0].into());
        self.set(PEERS[1], tags[1].into());
    }

    /// Takes the slot for a connection. `extension` holds the addresses of IPv6.
    pub(super) fn fill(&self, tuples: &[Tuple; 2], kind: u8, in_port: u16, extension: Option<(u32, &Self)>) {
        for (word, tuple) in ADDRESSES.into_iter().zip(tuples) {
            let (src, dst) = digests(tuple);
            self.set(word, u64::from(src) << 32 | u64::from(dst));
        }
        let [one, other] = tuples;
        let ports = [one.src_port, one.dst_port, other.src_port, other.dst_port];
        self.set(PORTS, ports.into_iter().fold(0, |word, port| word << 16 | u64::from(port)));
        let identity = u64::from(one.zone) << 48 | u64::from(one.proto) << 40;
        self.set(IDENTITY, identity | u64::from(kind) << 32 | u64::from(in_port) << 16);
        self.set(MARK, extension.map_or(0, |(idx, _)| idx.into()));
        [LABEL[0], LABEL[1], PEERS[0], PEERS[1], WINDOWS].into_iter().for_each(|word| self.set(word, 0));
        if let Some((_, slot)) = extension {
            let addresses = [one.src, one.dst, other.src, other.dst];
            for (idx, address) in addresses.into_iter().enumerate() {
                // The words around the identity are left alone.
                slot.set(EXTENSION_WORDS[idx * 2], (address >> 64) as u64);
                slot.set(EXTENSION_WORDS[idx * 2 + 1], address as u64);
            }
            HELPER_WORDS.into_iter().for_each(|word| slot.set(word, 0));
            slot.set(IDENTITY, u64::from(kind::USED | kind::EXTENSION) << 32);
        }
    }

    /// Gives the slot back.
    pub(super) fn clear(&self) {
        self.set(IDENTITY, 0);
    }

    /// The tuple of a direction. For IPv6, `extension` is the second slot.
    pub(super) fn tuple(&self, direction: usize, extension: Option<&Self>) -> Tuple {
        let direction = direction & 1;
        let addresses = self.get(ADDRESSES[direction]);
        let ports = self.get(PORTS) >> (32 * (1 - direction));
        let (mut src, mut dst) = (u128::from(addresses >> 32), u128::from(addresses as u32));
        if let Some(slot) = extension {
            let address = |at: usize| {
                u128::from(slot.get(EXTENSION_WORDS[at])) << 64
                    | u128::from(slot.get(EXTENSION_WORDS[at + 1]))
            };
            (src, dst) = (address(direction * 4), address(direction * 4 + 2));
        }
        Tuple {
            zone: self.zone(),
            ipv6: self.kind() & kind::IPV6 != 0,
            proto: self.proto(),
            src,
            dst,
            src_port: (ports >> 16) as u16,
            dst_port: ports as u16,
        }
    }

    /// The slot may hold this tuple in this direction: sure for IPv4.
    pub(super) fn resembles(&self, direction: usize, tuple: &Tuple) -> bool {
        let (src, dst) = digests(tuple);
        let kind = self.kind();
        self.get(ADDRESSES[direction & 1]) == (u64::from(src) << 32 | u64::from(dst))
            && self.get(PORTS) >> (32 * (1 - (direction & 1))) as u32 & 0xffff_ffff
                == u64::from(tuple.src_port) << 16 | u64::from(tuple.dst_port)
            && self.zone() == tuple.zone
            && self.proto() == tuple.proto
            && kind & (kind::USED | kind::EXTENSION) == kind::USED
            && (kind & kind::IPV6 != 0) == tuple.ipv6
    }
}

/// Words of an extension slot that hold addresses.
const EXTENSION_WORDS: [usize; 8] = [0, 1, 2, 4, 5, 6, 8, 9];
/// Those that helpers use: all but the identity and the addresses.
pub(super) const HELPER_WORDS: [usize; 3] = [LIVE, WINDOWS, LINKS];

fn digests(tuple: &Tuple) -> (u32, u32) {
    let digest = |address: u128| (address ^ address >> 32 ^ address >> 64 ^ address >> 96) as u32;
    if tuple.ipv6 { (digest(tuple.src), digest(tuple.dst)) } else { (tuple.src as u32, tuple.dst as u32) }
}
