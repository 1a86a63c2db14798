//! A connection's place in storage: 112 bytes of plain words, addressed by index.
//!
//! With its share of the index (a quarter of a bucket of 64 bytes) a connection costs 128
//! bytes, over IPv4 and IPv6 alike: addresses are kept once, for those of the answers follow
//! from them. Only two kinds of connections take a second slot (`extension`): those that
//! helpers are about, and TCP and SCTP over IPv6 with a translated address. Other
//! protocols have room for that address where TCP has its numbers.
//!
//! # Concurrency
//! Word [`LIVE`] and those of mark, label and protocol change under the slot's lock, a bit in
//! [`LIVE`]. Identity and tuple words change under the ledger's mutex *and* the slot's
//! lock; links under the mutex alone. Whoever finds a slot by the index takes its lock
//! and then compares the tuple, so a slot that was given to another connection
//! meanwhile is never mistaken for the old one.
//!
//! # When the process dies
//! It may be killed at any instruction, and a tracker of the next process takes the slots over.
//! No checksum says which are whole, since each packet would have to renew it. Instead all of a
//! new connection is written before the one word that makes a slot one ([`Slot::publish`]), and
//! taking one out is a write of that word: a connection is there as a whole or not at all. Of
//! what packets change, each word is good by itself with the others as they were before or
//! behind it: the packet then was seen in part, as if it had been lost on its way. Where that
//! is not so, for labels and shifted numbers of TCP, a bit in [`LIVE`] is set first
//! ([`Slot::begin_change`]); a connection that has it is dropped when it is taken over.

use std::sync::atomic::{
    AtomicU64, Ordering,
    Ordering::{Acquire, Relaxed, Release},
    fence,
};

use super::{
    index::{Bucket, SLOTS_PER_BUCKET},
    tcp::Peer,
    timeout::State,
    touch::Directions,
    tuple::Tuple,
};
use crate::hints::prefetch;

/// Words of a slot. What a packet of UDP over IPv4 reads are the first eight.
const N_WORDS: usize = 14;
/// Bytes that a connection may cost in all.
const BUDGET: usize = 128;

const _: () = assert!(size_of::<Slot>() + size_of::<Bucket>() / SLOTS_PER_BUCKET <= BUDGET);

/// Lock, flags, policy, state, expiry.
const LIVE: usize = 0;
/// Zone, protocol, [`kind`] bits, input port, list.
pub(super) const IDENTITY: usize = 1;
/// Ports of both directions.
const PORTS: usize = 2;
/// IPv4: source and destination address of both directions. IPv6: the originator's address.
const ADDRESSES: [usize; 2] = [3, 4];
/// Mark and extension slot.
const MARK: usize = 5;
/// Label, high half first.
const LABEL: [usize; 2] = [6, 7];
/// What the protocol knows of each side; where it knows nothing, the translated address of
/// an IPv6 connection.
const PEERS: [usize; 2] = [8, 9];
/// Windows of both sides.
const WINDOWS: usize = 10;
/// Next and previous slot of its list.
const LINKS: usize = 11;
/// IPv6: the responder's address.
const RESPONDER: [usize; 2] = [12, 13];
/// In an extension: source and destination of answers over IPv6.
const ANSWERS: [[usize; 2]; 2] = [[3, 4], [5, 6]];
/// Words of an extension that helpers use.
pub(super) const HELPER_WORDS: [usize; 3] = [7, 8, 9];

const LOCK: u64 = 1 << 63;
/// The other side has answered.
const REPLIED: u64 = 1 << 62;
/// A packet has come since the sweep last saw it.
const TOUCHED: u64 = 1 << 61;
/// Words that only make sense together are being written.
const CHANGING: u64 = 1 << 60;

/// Bits of a slot's kind.
pub(super) mod kind {
    pub(crate) const USED: u8 = 1;
    pub(crate) const IPV6: u8 = 2;
    /// Second slot of a connection.
    pub(crate) const EXTENSION: u8 = 4;
    pub(crate) const SNAT: u8 = 8;
    pub(crate) const DNAT: u8 = 16;
    /// Another connection has announced it.
    pub(crate) const RELATED: u8 = 32;
    pub(crate) const FTP: u8 = 64;
    pub(crate) const TFTP: u8 = 128;

    /// A second slot belongs to such a connection of this protocol.
    pub(crate) fn has_extension(kind: u8, proto: u8) -> bool {
        use crate::wire::ip_proto::{SCTP, TCP};
        let is_translated = kind & IPV6 != 0 && kind & (SNAT | DNAT) != 0;
        kind & (FTP | RELATED) != 0 || is_translated && matches!(proto, TCP | SCTP)
    }
}

/// One slot. All zero: free.
///
/// A connection takes one; one that a helper is about takes two, and so does a TCP or SCTP
/// connection over IPv6 that is translated.
#[derive(Debug, Default)]
#[repr(C, align(16))]
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

/// What makes a filled slot a connection.
#[must_use]
pub(super) struct Identity(u64);

/// A locked slot.
pub(super) struct Guard<'a> {
    slot: &'a Slot,
    pub(super) live: Live,
}

impl Guard<'_> {
    /// Writes the changing part, and holds on to the lock.
    pub(super) fn write(&self) {
        self.slot.store(LIVE, self.live.to_word() | LOCK, Release);
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.slot.store(LIVE, self.live.to_word(), Release);
    }
}

impl Slot {
    /// Fetches all of it.
    #[inline]
    pub(super) fn prefetch(&self) {
        prefetch(&self.0[0]);
        prefetch(&self.0[PEERS[0]]);
        prefetch(&self.0[N_WORDS - 1]);
    }

    /// Waits for the lock. It is held for some dozens of instructions at a time.
    pub(super) fn lock(&self) -> Guard<'_> {
        #[cfg(test)]
        if !death::may_write() {
            return Guard { slot: self, live: self.glance() };
        }
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
        // Also of free slots and extensions: who looked for somebody who is gone may have held them.
        if self.get(LIVE) & LOCK != 0 {
            self.0[LIVE].fetch_and(!LOCK, Relaxed);
        }
    }

    /// Words that only make sense together are written from here on, until the slot is unlocked.
    /// The slot must be locked.
    pub(super) fn begin_change(&self) {
        self.store(LIVE, self.get(LIVE) | CHANGING, Relaxed);
        // Nothing that follows is written before.
        fence(Release);
    }

    /// Such words were being written when the process died.
    pub(super) fn is_changing(&self) -> bool {
        self.get(LIVE) & CHANGING != 0
    }

    pub(super) fn get(&self, word: usize) -> u64 {
        self.0[word].load(Relaxed)
    }

    pub(super) fn set(&self, word: usize, value: u64) {
        self.store(word, value, Relaxed);
    }

    /// All that is written to a slot, but for taking its lock.
    #[inline]
    fn store(&self, word: usize, value: u64, order: Ordering) {
        #[cfg(test)]
        if !death::may_write() {
            return;
        }
        self.0[word].store(value, order);
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

    /// Zone, protocol, [`kind`] bits.
    pub(super) fn identity(&self) -> u32 {
        (self.get(IDENTITY) >> 32) as u32
    }

    /// The slot is marked like this, and of a connection over IPv4 between these. The slot must be
    /// locked.
    #[inline]
    pub(super) fn is_between(&self, identity: u32, direction: usize, directions: &Directions) -> bool {
        let Directions { own, answer } = directions;
        let [first, second] = if direction == 0 { [own, answer] } else { [answer, own] };
        self.identity() == identity
            && self.get(ADDRESSES[0]) == first.0
            && self.get(ADDRESSES[1]) == second.0
            && self.get(PORTS) == u64::from(first.1) << 32 | u64::from(second.1)
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

    /// The second slot, where there is one.
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

    /// The second slot belongs to the connection.
    pub(super) fn has_extension(&self) -> bool {
        kind::has_extension(self.kind(), self.proto())
    }

    /// Fills the slot for a connection, and `extension` if such a connection has one. Answers what
    /// makes it one, to be published when all else is written.
    pub(super) fn fill(
        &self,
        tuples: &[Tuple; 2],
        kind: u8,
        in_port: u16,
        extension: Option<(u32, &Self)>,
    ) -> Identity {
        let [one, other] = tuples;
        let ports = [one.src_port, one.dst_port, other.src_port, other.dst_port];
        self.set(PORTS, ports.into_iter().fold(0, |word, port| word << 16 | u64::from(port)));
        let identity = u64::from(one.zone) << 48 | u64::from(one.proto) << 40;
        let identity = Identity(identity | u64::from(kind) << 32 | u64::from(in_port) << 16);
        self.set(MARK, extension.map_or(0, |(idx, _)| idx.into()));
        [LABEL[0], LABEL[1], PEERS[0], PEERS[1], WINDOWS].into_iter().for_each(|word| self.set(word, 0));
        let extension = extension.map(|(_, slot)| slot);
        if let Some(slot) = extension {
            HELPER_WORDS.into_iter().for_each(|word| slot.set(word, 0));
            slot.set(IDENTITY, u64::from(kind::USED | kind::EXTENSION) << 32);
        }
        if !one.ipv6 {
            for (word, tuple) in ADDRESSES.into_iter().zip(tuples) {
                self.set(word, u64::from(tuple.src as u32) << 32 | u64::from(tuple.dst as u32));
            }
            return identity;
        }
        self.set_long(ADDRESSES, one.src);
        self.set_long(RESPONDER, one.dst);
        match extension {
            Some(slot) => {
                slot.set_long(ANSWERS[0], other.src);
                slot.set_long(ANSWERS[1], other.dst);
            }
            None if kind & kind::SNAT != 0 => self.set_long(PEERS, other.dst),
            None if kind & kind::DNAT != 0 => self.set_long(PEERS, other.src),
            None => {}
        }
        identity
    }

    /// Makes the slot what it was filled for. The slot must be locked.
    pub(super) fn publish(&self, identity: Identity) {
        self.store(IDENTITY, identity.0, Release);
    }

    fn set_long(&self, words: [usize; 2], address: u128) {
        self.set(words[0], (address >> 64) as u64);
        self.set(words[1], address as u64);
    }

    fn get_long(&self, words: [usize; 2]) -> u128 {
        u128::from(self.get(words[0])) << 64 | u128::from(self.get(words[1]))
    }

    /// Gives the slot back.
    pub(super) fn clear(&self) {
        // One that is free already is not touched: there are many.
        if self.get(IDENTITY) != 0 {
            self.set(IDENTITY, 0);
        }
    }

    /// The tuple of a direction. `extension` is the second slot, where there is one.
    pub(super) fn tuple(&self, direction: usize, extension: Option<&Self>) -> Tuple {
        let (src, dst) = self.addresses(direction, extension);
        let ports = self.ports(direction);
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

    /// Source and destination port of a direction.
    fn ports(&self, direction: usize) -> u32 {
        (self.get(PORTS) >> (32 * (1 - (direction & 1)))) as u32
    }

    /// Source and destination address of a direction.
    fn addresses(&self, direction: usize, extension: Option<&Self>) -> (u128, u128) {
        let kind = self.kind();
        if kind & kind::IPV6 == 0 {
            let addresses = self.get(ADDRESSES[direction & 1]);
            return (u128::from(addresses >> 32), u128::from(addresses as u32));
        }
        let (originator, responder) = (self.get_long(ADDRESSES), self.get_long(RESPONDER));
        match (direction & 1, extension) {
            (0, _) => (originator, responder),
            (_, Some(slot)) => (slot.get_long(ANSWERS[0]), slot.get_long(ANSWERS[1])),
            (_, None) if kind & kind::SNAT != 0 => (responder, self.get_long(PEERS)),
            (_, None) if kind & kind::DNAT != 0 => (self.get_long(PEERS), originator),
            (_, None) => (responder, originator),
        }
    }

    /// The slot holds this tuple in this direction. `extension` is its second slot, where it
    /// has one.
    #[inline]
    pub(super) fn holds<'a>(
        &'a self,
        direction: usize,
        tuple: &Tuple,
        extension: impl FnOnce(&'a Self) -> Option<&'a Self>,
    ) -> bool {
        let identity = self.get(IDENTITY);
        let kind = (identity >> 32) as u8;
        let wanted = kind::USED | if tuple.ipv6 { kind::IPV6 } else { 0 };
        if kind & (kind::USED | kind::EXTENSION | kind::IPV6) != wanted
            || identity >> 40 != u64::from(tuple.zone) << 8 | u64::from(tuple.proto)
            || self.ports(direction) != u32::from(tuple.src_port) << 16 | u32::from(tuple.dst_port)
        {
            return false;
        }
        match tuple.ipv6 {
            false => {
                let addresses = u64::from(tuple.src as u32) << 32 | u64::from(tuple.dst as u32);
                self.get(ADDRESSES[direction & 1]) == addresses
            }
            true => {
                let extension = if direction & 1 == 0 { None } else { extension(self) };
                self.addresses(direction, extension) == (tuple.src, tuple.dst)
            }
        }
    }
}

/// A thread that dies: what it does after so many writes to slots does not happen any more.
#[cfg(test)]
pub(super) mod death {
    use std::cell::Cell;

    thread_local! {
        static WRITES_LEFT: Cell<u64> = const { Cell::new(u64::MAX) };
    }

    /// The calling thread is dead after so many writes.
    pub(crate) fn after(n_writes: u64) {
        WRITES_LEFT.set(n_writes);
    }

    /// It lives on. Answers whether it had died.
    pub(crate) fn revive() -> bool {
        WRITES_LEFT.replace(u64::MAX) == 0
    }

    /// Writes that are left to it.
    pub(crate) fn left() -> u64 {
        WRITES_LEFT.get()
    }

    pub(crate) fn may_write() -> bool {
        let left = WRITES_LEFT.get();
        if left != u64::MAX {
            WRITES_LEFT.set(left.saturating_sub(1));
        }
        left > 0
    }
}
