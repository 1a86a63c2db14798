//! Helpers for protocols that announce further connections: FTP (RFC 959, RFC 2428) and
//! TFTP (RFC 1350).
//!
//! A connection that was committed with `alg` is read along with. What its two ends agree
//! on becomes an [expectation](expect); the first packet of the connection that answers
//! it is *related*, and inherits mark, label and translation. Where the addresses of
//! the one who announces are translated, the announcement is too ([`ftp`] says how it is
//! read, [`mangle`] how it is changed), and as its length changes with it, the sequence
//! numbers of all that follows.
//!
//! Only whole lines at places where a line can begin are read, as in the kernel: what
//! stands in the middle of a line, perhaps put there by somebody else, announces nothing.

pub(super) mod expect;
mod ftp;
mod mangle;

use std::ops::Range;

pub(super) use self::mangle::shift;
use self::{
    expect::{Expectation, Key},
    ftp::{Announced, Found},
};
use super::{Conntrack, Request, Shift, Tuple, Verdict, View, kind, millis, slot::Slot, view::L4};
use crate::{
    drop::DropReason,
    packet::{FrameBuf, Packet},
    types::Timestamp,
    wire::{Tcp, Udp, ip_proto},
};

/// A helper.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Alg {
    /// File Transfer Protocol, on its control connection.
    Ftp,
    /// Trivial File Transfer Protocol.
    Tftp,
}

impl Alg {
    /// All helpers.
    pub const ALL: &[Self] = &[Self::Ftp, Self::Tftp];

    /// Name in rules and dumps.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ftp => "ftp",
            Self::Tftp => "tftp",
        }
    }

    /// Its bit in a slot, for connections of a protocol that it can help.
    pub(super) fn kind_for(self, proto: u8) -> u8 {
        match (self, proto) {
            (Self::Ftp, ip_proto::TCP) => kind::FTP,
            (Self::Tftp, ip_proto::UDP) => kind::TFTP,
            _ => 0,
        }
    }

    /// The helper of a slot of this kind.
    pub(super) fn of(kind: u8) -> Option<Self> {
        match kind & (kind::FTP | kind::TFTP) {
            kind::FTP => Some(Self::Ftp),
            kind::TFTP => Some(Self::Tftp),
            _ => None,
        }
    }
}

/// The two tuples of a connection, and the direction that a packet of it has.
struct Master {
    tuples: [Tuple; 2],
    direction: usize,
}

impl Master {
    /// What the other side will open to the port that this side has announced; `port` is
    /// where the other side will look for it.
    fn expects(&self, announced: u16, port: u16) -> (Key, Expectation) {
        let (mine, theirs) = (&self.tuples[self.direction], &self.tuples[1 - self.direction]);
        let key =
            Key { of: Tuple { src: theirs.src, src_port: 0, dst: theirs.dst, dst_port: port, ..*mine } };
        let expectation = Expectation {
            master: self.tuples[0],
            by_originator: self.direction == 0,
            to: (mine.src, announced),
            from: mine.dst,
            expires: 0,
        };
        (key, expectation)
    }

    /// The other side knows this one by another address.
    fn is_translated(&self) -> bool {
        self.tuples[1 - self.direction].dst != self.tuples[self.direction].src
    }
}

impl Conntrack {
    /// Reads a packet of a connection that has a helper, and changes what it announces where
    /// that is translated (`may_change`: and where the packet goes on). To be called after
    /// [`Conntrack::track`], with its verdict, before its addresses are changed.
    ///
    /// # Errors
    /// [`DropReason::AlgSplit`], [`DropReason::CtNatExhausted`], or as
    /// [`crate::execute::apply`].
    pub(crate) fn help<B: FrameBuf>(
        &self,
        (now, request): (Timestamp, &Request),
        (view, verdict): (&View, &Verdict),
        packet: &Packet<B>,
    ) -> Result<Option<Change>, DropReason> {
        let now = millis(now);
        let (l4, end) = (usize::from(packet.layout.l4), usize::from(packet.layout.l3_end));
        let segment = packet.bytes().get(l4..end).unwrap_or_default();
        match (verdict.alg, &view.l4) {
            (Some(Alg::Tftp), L4::Udp) => {
                self.help_tftp(now, request, view, segment.get(Udp::LEN..).unwrap_or_default());
                Ok(None)
            }
            (Some(Alg::Ftp), L4::Tcp(tcp)) => {
                let header_len = segment.len().saturating_sub(tcp.len as usize).max(Tcp::LEN);
                let payload = segment.get(header_len..).unwrap_or_default();
                let found = self.help_ftp((now, request), view, tcp.seq, payload)?;
                Ok(found.map(|(range, text, seq)| {
                    let start = l4 + header_len;
                    Change { range: range.start + start..range.end + start, text, seq }
                }))
            }
            _ => Ok(None),
        }
    }

    /// A request to read or write is answered from another port.
    fn help_tftp(&self, now: u32, request: &Request, view: &View, payload: &[u8]) {
        const READ: u8 = 1;
        const WRITE: u8 = 2;
        if !matches!(payload, [0, READ | WRITE, ..]) {
            return;
        }
        let tuple = Tuple { zone: request.zone, ..view.tuple };
        let Some((master, _)) = self.master(&tuple) else { return };
        let port = master.tuples[1 - master.direction].dst_port;
        let (key, expectation) = master.expects(view.tuple.src_port, port);
        self.expectations().add(now, key, expectation);
    }

    /// What to change of an FTP segment: which bytes, to what, and its number.
    fn help_ftp(
        &self,
        (now, request): (u32, &Request),
        view: &View,
        seq: u32,
        payload: &[u8],
    ) -> Result<Option<(Range<usize>, String, u32)>, DropReason> {
        let Some(last) = payload.last() else { return Ok(None) };
        let tuple = Tuple { zone: request.zone, ..view.tuple };
        let Some((idx, direction, guard)) = self.lookup(&tuple, tuple.hash(&self.secrets)) else {
            return Ok(None);
        };
        let Some(slot) = self.slots().get(idx as usize) else { return Ok(None) };
        let Some(extension) = self.extension_of(slot) else { return Ok(None) };
        let begins_line = extension.line_start(direction) == seq || extension.last_command() == seq;
        let next = seq.wrapping_add(payload.len() as u32);
        let is_newer = next.wrapping_sub(extension.line_start(direction)) as i32 > 0;
        if *last == b'\n' && (is_newer || extension.line_start(direction) == 0) {
            extension.set_line_start(direction, next);
        }
        let found = if begins_line { ftp::find(payload, direction == 0) } else { Found::Nothing };
        if let Found::Announced(_) = found {
            extension.set_last_command(seq);
        }
        let master = Master { tuples: [self.tuple_of(slot, 0), self.tuple_of(slot, 1)], direction };
        drop(guard);
        match found {
            Found::Nothing => Ok(None),
            Found::Partial => Err(DropReason::AlgSplit),
            Found::Announced(announced) => self.announce(now, request, &master, announced, seq),
        }
    }

    fn announce(
        &self,
        now: u32,
        request: &Request,
        master: &Master,
        announced: Announced,
        seq: u32,
    ) -> Result<Option<(Range<usize>, String, u32)>, DropReason> {
        let own = master.tuples[master.direction];
        // Others than its own an end cannot speak for (the FTP bounce attack, RFC 2577 §3).
        let is_own = announced.address.is_none_or(|address| own.address(own.src) == address);
        if !is_own || announced.port == 0 {
            return Ok(None);
        }
        let translates = request.nat.is_some() && master.is_translated();
        let port = if translates {
            self.expectations().choose_port(announced.port, |port| master.expects(announced.port, port))
        } else {
            Some(announced.port)
        };
        let port = port.ok_or(DropReason::CtNatExhausted)?;
        let (key, expectation) = master.expects(announced.port, port);
        self.expectations().add(now, key, expectation);
        let seen = own.address(master.tuples[1 - master.direction].dst);
        Ok(translates.then(|| (announced.range.clone(), announced.text(seen, port), seq)))
    }

    fn master(&self, tuple: &Tuple) -> Option<(Master, u32)> {
        let (idx, direction, guard) = self.lookup(tuple, tuple.hash(&self.secrets))?;
        let slot = self.slots().get(idx as usize)?;
        let tuples = [self.tuple_of(slot, 0), self.tuple_of(slot, 1)];
        drop(guard);
        Some((Master { tuples, direction }, idx))
    }

    /// The packet was changed by so many bytes: from the next number on, all of its direction
    /// are shifted.
    fn grow(&self, tuple: &Tuple, seq: u32, by: i32) {
        let Some((idx, direction, guard)) = self.lookup(tuple, tuple.hash(&self.secrets)) else { return };
        let slot = self.slots().get(idx as usize);
        if let Some((slot, extension)) = slot.and_then(|slot| Some((slot, self.extension_of(slot)?))) {
            let shift = extension.seq_shift();
            // A segment that is sent again has been counted.
            if shift.before == shift.after || seq.wrapping_sub(shift.position) as i32 > 0 {
                slot.begin_change();
                extension.set_seq_shift(SeqShift {
                    position: seq,
                    before: shift.after,
                    after: shift.after.wrapping_add(by),
                    direction: direction as u8,
                });
            }
        }
        drop(guard);
    }

    /// Carries out a change.
    ///
    /// # Errors
    /// The packet cannot grow; it must be dropped.
    pub(crate) fn change<B: FrameBuf>(
        &self,
        request: &Request,
        view: &View,
        change: &Change,
        packet: &mut Packet<B>,
    ) -> Result<(), DropReason> {
        let by = change.text.len() as i32 - change.range.len() as i32;
        mangle::replace(packet, change.range.clone(), change.text.as_bytes())?;
        if by != 0 {
            self.grow(&Tuple { zone: request.zone, ..view.tuple }, change.seq, by);
        }
        Ok(())
    }

    /// How the numbers of a segment are shifted, and its acknowledgement as the side that it
    /// is about counts.
    pub(super) fn shift_of(&self, slot: &Slot, direction: usize, seq: u32, ack: u32) -> (Shift, u32) {
        let Some(extension) = self.extension_of(slot).filter(|_| slot.kind() & kind::FTP != 0) else {
            return (Shift::default(), ack);
        };
        let shift = extension.seq_shift();
        if usize::from(shift.direction) == direction {
            return (Shift { seq: shift.of(seq), ack: 0 }, ack);
        }
        let by = shift.of(ack.wrapping_sub(shift.before as u32));
        (Shift { seq: 0, ack: by.wrapping_neg() }, ack.wrapping_sub(by as u32))
    }
}

/// New bytes for a part of a frame.
#[derive(Debug)]
pub(crate) struct Change {
    range: Range<usize>,
    text: String,
    seq: u32,
}

/// How the numbers of one side of a connection are shifted since announcements changed
/// in length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct SeqShift {
    /// Number of the segment that last changed.
    pub(super) position: u32,
    /// Up to there.
    pub(super) before: i32,
    /// Behind it.
    pub(super) after: i32,
    /// Who sends them.
    pub(super) direction: u8,
}

impl SeqShift {
    fn of(&self, seq: u32) -> i32 {
        if seq.wrapping_sub(self.position) as i32 > 0 { self.after } else { self.before }
    }
}
