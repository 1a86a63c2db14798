//! What helpers keep in the second slot of a connection. All of it is read and written
//! under the lock of the first one.

use super::{
    Conntrack, Tuple,
    alg::{SeqShift, expect::Expectation},
    kind,
    slot::{HELPER_WORDS, IDENTITY, Slot},
};

/// Where the next line of either side begins. Of a related connection: ports and protocol
/// of the one that announced it, and who of it did.
const LINES: usize = HELPER_WORDS[0];
/// By how much numbers are shifted, before and behind.
const SHIFTS: usize = HELPER_WORDS[1];
/// Where the shift changes, and number of the last command understood.
const PLACES: usize = HELPER_WORDS[2];
/// The originator of the announcing connection announced it.
const BY_ORIGINATOR: u64 = 1 << 40;

impl Slot {
    /// Zero: not known.
    pub(super) fn line_start(&self, direction: usize) -> u32 {
        (self.get(LINES) >> (32 * (direction & 1))) as u32
    }

    pub(super) fn set_line_start(&self, direction: usize, seq: u32) {
        let shift = 32 * (direction & 1);
        self.set(LINES, self.get(LINES) & !(0xffff_ffff << shift) | u64::from(seq) << shift);
    }

    pub(super) fn last_command(&self) -> u32 {
        self.get(PLACES) as u32
    }

    pub(super) fn set_last_command(&self, seq: u32) {
        self.set(PLACES, self.get(PLACES) & !0xffff_ffff | u64::from(seq));
    }

    pub(super) fn seq_shift(&self) -> SeqShift {
        let shifts = self.get(SHIFTS);
        SeqShift {
            position: (self.get(PLACES) >> 32) as u32,
            before: (shifts >> 32) as i32,
            after: shifts as i32,
            direction: self.get(IDENTITY) as u8 & 1,
        }
    }

    pub(super) fn set_seq_shift(&self, shift: SeqShift) {
        self.set(SHIFTS, u64::from(shift.before as u32) << 32 | u64::from(shift.after as u32));
        self.set(PLACES, self.get(PLACES) & 0xffff_ffff | u64::from(shift.position) << 32);
        // Beside the kind of the slot.
        self.set(IDENTITY, self.get(IDENTITY) & !1 | u64::from(shift.direction & 1));
    }

    /// The connection was announced by another one.
    pub(super) fn set_master(&self, expectation: &Expectation) {
        let Tuple { src_port, dst_port, proto, .. } = expectation.master;
        let by = if expectation.by_originator { BY_ORIGINATOR } else { 0 };
        self.set(LINES, by | u64::from(proto) << 32 | u64::from(src_port) << 16 | u64::from(dst_port));
    }
}

impl Conntrack {
    /// The second slot of a connection.
    pub(super) fn extension_of(&self, slot: &Slot) -> Option<&Slot> {
        self.slots().get(slot.extension() as usize).filter(|_| slot.has_extension())
    }

    /// The tuple that is shown as that of the connection's first packet: for a related
    /// connection, of the one that announced it.
    pub(super) fn original_of(&self, slot: &Slot) -> Tuple {
        let own = self.tuple_of(slot, 0);
        let Some(extension) = self.extension_of(slot).filter(|_| slot.kind() & kind::RELATED != 0) else {
            return own;
        };
        let word = extension.get(LINES);
        // Both connections are between the same two; who was called back began the first.
        let ends = if word & BY_ORIGINATOR != 0 { self.tuple_of(slot, 1) } else { own };
        Tuple {
            src: ends.src,
            dst: ends.dst,
            proto: (word >> 32) as u8,
            src_port: (word >> 16) as u16,
            dst_port: word as u16,
            ..own
        }
    }
}
