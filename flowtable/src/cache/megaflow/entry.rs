//! One megaflow: what it does, what it has carried, and what lookups compare.

use std::sync::Arc;

use super::NIL;
use crate::{
    fdb::Dependencies,
    flow::Rule,
    key::{FlowKey, FlowMask},
    pipeline::{Tally, Translation},
    program::Program,
    types::{Epoch, PortNo, Timestamp},
};

/// Words of a key that are kept beside an entry's slot number: enough for the masks of
/// usual rule sets, and one cache line.
pub(super) const N_INLINE: usize = 7;

/// Where an entry is; of no use once the entry is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Handle {
    pub(in crate::cache) slot: u32,
    pub(in crate::cache) generation: u32,
}

impl Handle {
    /// A number that no other entry has at the time.
    pub(crate) fn slot(self) -> u32 {
        self.slot
    }
}

/// A translation and what it has carried. What a hit needs is in the first cache line.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Megaflow {
    /// Shared with other entries that do the same.
    pub(crate) program: Arc<Program>,
    pub(crate) epoch: Epoch,
    pub(in crate::cache) last_used: Timestamp,
    pub(super) n_packets: u64,
    pub(super) n_bytes: u64,
    /// As in its [`SlotKey`].
    pub(in crate::cache) generation: u32,
    /// Row of the drop table that its drops were last counted in.
    pub(crate) drop_row: u32,
    /// Versions after its own that it is known to hold in as well.
    pub(super) n_later: u16,
    /// Signatures say all that the entry's mask looks at.
    pub(crate) is_signed: bool,
    /// See [`Program::is_alone`].
    pub(crate) is_alone: bool,
    /// Where its packets leave as they came, if that is all; else [`PortNo::UNSET`].
    pub(crate) plain: PortNo,
    /// What must not have changed, besides the epoch.
    pub(in crate::cache) rests_on: Dependencies,
    /// Packets and bytes that the rules know of.
    pub(super) pushed: (u64, u64),
    pub(in crate::cache) rules: Vec<Arc<Rule>>,
    pub(in crate::cache) tally: Tally,
    /// Masked words of the key beyond those in its [`SlotKey`].
    pub(in crate::cache) more_words: Box<[u64]>,
    pub(super) hash: u32,
    pub(super) queue: Links,
}

/// What a lookup compares: one cache line per slot, apart from the rest of the entry.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(in crate::cache) struct SlotKey {
    pub(in crate::cache) words: [u64; N_INLINE],
    /// Which entry has the slot; counts up with each that leaves.
    pub(super) generation: u32,
    pub(in crate::cache) port: u16,
    pub(in crate::cache) shape: u8,
    pub(in crate::cache) n_words: u8,
}

const _: () = assert!(size_of::<SlotKey>() == 64);
const _: () = assert!(std::mem::offset_of!(Megaflow, rests_on) < 64);

/// What has become of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// It holds.
    Current,
    /// It holds, but its program needs the packet's key.
    NeedsKey,
    /// It is of another epoch, or rests on something that has changed.
    Stale,
}

/// An entry's place in its port's queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct Links {
    pub(super) before: u32,
    pub(super) after: u32,
    /// When it joined at the end.
    pub(super) joined: Timestamp,
}

impl Megaflow {
    /// A fresh entry, not yet in the table; packets find it neither by words nor by signatures.
    pub(super) fn new(
        program: Arc<Program>,
        (epoch, now): (Epoch, Timestamp),
        (rules, tally, rests_on): (Vec<Arc<Rule>>, Tally, Dependencies),
    ) -> Self {
        Self {
            is_alone: program.is_alone(),
            plain: plain(&program),
            program,
            epoch,
            last_used: now,
            n_packets: 0,
            n_bytes: 0,
            generation: 0,
            drop_row: 0,
            n_later: 0,
            is_signed: false,
            rests_on,
            pushed: (0, 0),
            rules,
            tally,
            more_words: Box::default(),
            hash: 0,
            queue: Links { before: NIL, after: NIL, joined: now },
        }
    }

    /// Counts packets that the entry carried.
    pub(crate) fn count(&mut self, now: Timestamp, n_packets: u64, n_bytes: u64) {
        self.last_used = now;
        self.n_packets += n_packets;
        self.n_bytes += n_bytes;
    }

    /// What has become of it since an epoch.
    #[inline]
    pub(in crate::cache) fn state(&self, epoch: Epoch) -> State {
        if !self.is_of(epoch) || !self.rests_on.hold() {
            State::Stale
        } else if self.is_alone {
            State::NeedsKey
        } else {
            State::Current
        }
    }

    /// Besides the version, it rests on nothing that changes.
    pub(crate) fn rests_on_nothing(&self) -> bool {
        self.rests_on.is_empty()
    }

    /// It was made for this version, or holds in it all the same.
    #[inline]
    pub(in crate::cache) fn is_of(&self, epoch: Epoch) -> bool {
        epoch.get().wrapping_sub(self.epoch.get()) <= u64::from(self.n_later)
    }

    /// It holds in a later version as well, and in those between, which nobody uses any more.
    pub(in crate::cache) fn holds_until(&mut self, epoch: Epoch) {
        // Of one that is too far away it is not.
        let n_later = u16::try_from(epoch.get().wrapping_sub(self.epoch.get()));
        self.n_later = n_later.unwrap_or(self.n_later);
    }

    /// Tells the rules what they do not know yet.
    pub(super) fn push_stats(&mut self) {
        let (n_packets, n_bytes) = (self.n_packets - self.pushed.0, self.n_bytes - self.pushed.1);
        if n_packets > 0 {
            self.tally.credit(&self.rules, n_packets, n_bytes, self.last_used);
            self.pushed = (self.n_packets, self.n_bytes);
        }
    }
}

/// See [`Megaflow::plain`].
pub(super) fn plain(program: &Program) -> PortNo {
    match &program.emits[..] {
        [emit] if emit.is_plain() && program.meters.is_empty() && !program.has_side_effects() => emit.port,
        _ => PortNo::UNSET,
    }
}

/// A translation for packets like the one with this key.
pub(crate) struct Remembered<'a> {
    pub(crate) key: &'a FlowKey,
    pub(crate) from_tunnel: bool,
    pub(crate) translation: Translation,
    pub(crate) epoch: Epoch,
    pub(crate) now: Timestamp,
}

/// One entry, for commands.
#[derive(Debug, Clone)]
pub struct MegaflowDump {
    /// The masked bits of its packets.
    pub key: FlowKey,
    /// Which bits are compared.
    pub mask: FlowMask,
    /// What is done with its packets.
    pub program: Program,
    /// The rules that made it, in the order of the walk.
    pub rules: Vec<Arc<Rule>>,
    /// Packets carried.
    pub n_packets: u64,
    /// Their bytes.
    pub n_bytes: u64,
    /// Version of the rules it was made from.
    pub epoch: Epoch,
    /// When it last carried a packet.
    pub last_used: Timestamp,
    /// A station that it forwards to or learned has moved or gone since: it is translated
    /// again before it is used.
    pub is_stale: bool,
}
