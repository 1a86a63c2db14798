//! What the tracker knows of a TCP connection (RFC 9293), and which segments fit it.
//!
//! Sequence numbers are checked as van Rooij describes it ("Real Stateful TCP Packet
//! Filtering in IP Filter", 2000): what a side may send is bounded by what the other
//! has acknowledged and by the largest window it has offered. Resets and SYNs within a
//! connection follow RFC 5961: only a reset with the expected number ends a
//! connection; what else is in the window may be answered by a challenge, and passes
//! without changing anything.

use super::timeout::State;

/// Flags of a segment.
pub(super) mod flag {
    pub(crate) const FIN: u8 = 0x01;
    pub(crate) const SYN: u8 = 0x02;
    pub(crate) const RST: u8 = 0x04;
    pub(crate) const ACK: u8 = 0x10;
}

/// Largest shift of a window (RFC 7323 §2.3).
const MAX_SCALE: u8 = 14;
/// How far an acknowledgement may lie behind the newest: those overtaken on the way.
const MAX_ACK_AGE: u32 = 66_000;

/// The header of a segment, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Segment {
    /// The low 8 flags.
    pub flags: u8,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Window, as it is in the header.
    pub window: u16,
    /// Window scale option; only SYNs have one.
    pub scale: Option<u8>,
    /// Bytes of payload.
    pub len: u32,
}

impl Segment {
    fn has(&self, flags: u8) -> bool {
        self.flags & flags != 0
    }

    /// The number after the segment's last; SYN and FIN count.
    pub(super) fn end(&self) -> u32 {
        let flags = u32::from(self.has(flag::SYN)) + u32::from(self.has(flag::FIN));
        self.seq.wrapping_add(self.len).wrapping_add(flags)
    }

    /// The flags make sense together.
    fn is_sane(&self) -> bool {
        match self.has(flag::SYN) {
            true => !self.has(flag::FIN | flag::RST),
            false => self.has(flag::ACK | flag::RST),
        }
    }
}

/// One side of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Peer {
    /// The number after the last that it sent.
    pub(super) end: u32,
    /// The newest number that the other side acknowledged.
    pub(super) acked: u32,
    /// Largest window that it offered, shifted right by `scale`.
    pub(super) window: u16,
    pub(super) scale: u8,
    pub(super) flags: u8,
}

/// It sent a window scale option.
const SCALED: u8 = 1;
/// It sent a FIN.
const FINISHED: u8 = 2;
/// It sent a SYN within the connection.
const BEGINS_AGAIN: u8 = 4;
/// The scale that this SYN named, above the flags; all bits: none.
const NEW_SCALE_SHIFT: u32 = 4;
const NO_SCALE: u8 = 15;

impl Peer {
    /// Its window is not shifted yet: whether scaling is in force is not known, and windows
    /// of SYNs are never scaled (RFC 7323 §2.2).
    fn of_syn(segment: &Segment) -> Self {
        let (scale, flags) = segment.scale.map_or((0, 0), |scale| (scale.min(MAX_SCALE), SCALED));
        Self { end: segment.end(), acked: segment.seq, window: segment.window, scale, flags }
    }

    /// After both SYNs: the window that its SYN offered, in units of its scale.
    fn settle_scale(&mut self, in_force: bool) {
        match in_force {
            true => self.window = u32::from(self.window).div_ceil(1 << self.scale) as u16,
            false => (self.scale, self.flags) = (0, self.flags & !SCALED),
        }
    }

    /// Bytes that it has offered to take.
    fn window(&self) -> u32 {
        (u32::from(self.window) << self.scale).max(1)
    }

    fn has_finished(&self) -> bool {
        self.flags & FINISHED != 0
    }

    fn is_done(&self) -> bool {
        self.has_finished() && self.acked == self.end
    }

    pub(super) fn to_words(self) -> (u64, u32) {
        let first = u64::from(self.end) << 32 | u64::from(self.acked);
        (first, u32::from(self.window) << 16 | u32::from(self.scale) << 8 | u32::from(self.flags))
    }

    pub(super) fn from_words(first: u64, second: u32) -> Self {
        Self {
            end: (first >> 32) as u32,
            acked: first as u32,
            window: (second >> 16) as u16,
            // Storage may come from elsewhere: a shift beyond the type would be an error.
            scale: (second >> 8) as u8 & 15,
            flags: second as u8,
        }
    }
}

/// What a segment is to its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    /// Part of it.
    Valid,
    /// The first segment of a new connection with the same addresses and ports.
    Restart,
    /// It fits nowhere.
    Invalid,
}

/// A TCP connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tcp {
    pub(super) state: State,
    /// Originator, responder.
    pub(super) peers: [Peer; 2],
}

impl Tcp {
    /// The connection that a segment begins; with `loose`, also one that began unseen.
    pub(super) fn begin(segment: &Segment, loose: bool) -> Option<Self> {
        if !segment.is_sane() || segment.has(flag::RST) {
            return None;
        }
        if segment.has(flag::SYN) {
            let peers = [Peer::of_syn(segment), Peer::default()];
            return (!segment.has(flag::ACK)).then_some(Self { state: State::TcpSynSent, peers });
        }
        if !loose || segment.has(flag::FIN) {
            return None;
        }
        // Nothing is known of the scales: take the windows for as large as they can be.
        let unseen = |end, acked, window| Peer { end, acked, window, scale: MAX_SCALE, flags: 0 };
        let mine = unseen(segment.end(), segment.seq, segment.window.max(1));
        let theirs = unseen(segment.ack, segment.ack, u16::MAX);
        Some(Self { state: State::TcpEstablished, peers: [mine, theirs] })
    }

    /// A segment from side `from` (0 the originator). Without `strict`, numbers outside
    /// of the windows pass.
    pub(super) fn step(&mut self, from: usize, segment: &Segment, strict: bool) -> Fit {
        let from = from & 1;
        if !segment.is_sane() {
            return Fit::Invalid;
        }
        if segment.has(flag::RST) {
            return self.reset(from, segment, strict);
        }
        match (segment.has(flag::SYN), segment.has(flag::ACK)) {
            (true, false) => self.syn(from, segment),
            (true, true) => self.syn_ack(from, segment, strict),
            _ => self.data(from, segment, strict),
        }
    }

    fn syn(&mut self, from: usize, segment: &Segment) -> Fit {
        match (self.state, from) {
            (State::TcpTimeWait | State::TcpClosed, _) => Fit::Restart,
            // Sent again, perhaps by somebody who has forgotten the first one.
            (State::TcpSynSent, 0) => {
                self.peers[0] = Peer::of_syn(segment);
                Fit::Valid
            }
            // Both have begun at once (RFC 9293 §3.5).
            (State::TcpSynSent, _) => {
                self.peers[1] = Peer::of_syn(segment);
                self.settle_scales();
                self.state = State::TcpSynRecv;
                Fit::Valid
            }
            // Perhaps it has forgotten the connection: the receiver answers with a challenge
            // (RFC 5961 §4), or has forgotten it too.
            (_, 0) => {
                let scale = segment.scale.map_or(NO_SCALE, |scale| scale.min(MAX_SCALE));
                let known = self.peers[0].flags & (SCALED | FINISHED);
                self.peers[0].flags = known | BEGINS_AGAIN | scale << NEW_SCALE_SHIFT;
                Fit::Valid
            }
            (State::TcpSynRecv, _) if segment.end() == self.peers[1].end => Fit::Valid,
            // The responder begins a connection of its own: not as part of this one.
            _ => Fit::Invalid,
        }
    }

    fn syn_ack(&mut self, from: usize, segment: &Segment, strict: bool) -> Fit {
        let is_repeated = segment.end() == self.peers[from].end;
        match (self.state, from) {
            (State::TcpSynSent, 1) if self.answers_syn(segment) => {
                self.peers[1] = Peer::of_syn(segment);
                self.peers[0].acked = segment.ack;
                self.settle_scales();
                self.state = State::TcpSynRecv;
                Fit::Valid
            }
            (State::TcpSynSent | State::TcpTimeWait | State::TcpClosed, _) => Fit::Invalid,
            (State::TcpSynRecv, _) if is_repeated && self.may_acknowledge(from, segment) => {
                let theirs = &mut self.peers[1 - from];
                if is_after(segment.ack, theirs.acked) {
                    theirs.acked = segment.ack;
                }
                if from == 0 && segment.ack == theirs.end {
                    self.state = State::TcpEstablished;
                }
                Fit::Valid
            }
            (_, 0) => Fit::Invalid,
            (state, _) => {
                let fits = self.may_send(1, segment) && self.may_acknowledge(1, segment);
                match (state, fits) {
                    _ if !fits && self.begins_again() => self.begin_again(segment),
                    (State::TcpSynRecv, _) => return Fit::Invalid,
                    // Sent again.
                    _ if fits || !strict => {}
                    _ => return Fit::Invalid,
                }
                Fit::Valid
            }
        }
    }

    fn begins_again(&self) -> bool {
        self.peers[0].flags & BEGINS_AGAIN != 0
    }

    /// Both sides have forgotten the connection and made another, whose SYN was taken for a
    /// stray: of that only the scale is known.
    fn begin_again(&mut self, syn_ack: &Segment) {
        let (scale, flags) = match self.peers[0].flags >> NEW_SCALE_SHIFT {
            NO_SCALE => (0, 0),
            scale => (scale, SCALED),
        };
        let mine = Peer { end: syn_ack.ack, acked: syn_ack.ack, window: u16::MAX, scale, flags };
        *self = Self { state: State::TcpSynRecv, peers: [mine, Peer::of_syn(syn_ack)] };
        self.settle_scales();
    }

    /// An acknowledgement of the first SYN, or of a part of the data with it.
    fn answers_syn(&self, segment: &Segment) -> bool {
        let first = &self.peers[0];
        is_after(segment.ack, first.acked) && !is_after(segment.ack, first.end)
    }

    /// Scaling is in force when both sides have named a scale (RFC 7323 §2.2).
    fn settle_scales(&mut self) {
        let in_force = self.peers.iter().all(|peer| peer.flags & SCALED != 0);
        self.peers.iter_mut().for_each(|peer| peer.settle_scale(in_force));
    }

    fn reset(&mut self, from: usize, segment: &Segment, strict: bool) -> Fit {
        let exact = segment.seq == self.peers[from].end || segment.seq == self.peers[from].acked;
        let ends = match (self.state, from) {
            // A reset in answer to a SYN proves itself by the acknowledgement
            // (RFC 9293 §3.10.7.3).
            (State::TcpSynSent, 1) if segment.has(flag::ACK) && self.answers_syn(segment) => true,
            // An answer to an acknowledgement of an older connection (RFC 9293 §3.5.1).
            (State::TcpSynSent, 0) if !exact => return Fit::Valid,
            (State::TcpSynSent, 0) => true,
            (State::TcpSynSent, _) => return Fit::Invalid,
            (State::TcpTimeWait | State::TcpClosed, _) => false,
            _ => exact,
        };
        // What was acknowledged is not in the receiver's window any more (RFC 5961 §3).
        let is_old = is_after(self.peers[from].acked, segment.seq);
        if !ends && strict && (is_old || !self.may_send(from, segment)) {
            // It may be the answer to a SYN within the connection: the originator knows.
            let may_refuse = from == 1 && segment.has(flag::ACK) && self.begins_again();
            return if may_refuse { Fit::Valid } else { Fit::Invalid };
        }
        if ends {
            if self.state == State::TcpSynSent {
                self.settle_scales();
            }
            self.state = State::TcpClosed;
        }
        Fit::Valid
    }

    fn data(&mut self, from: usize, segment: &Segment, strict: bool) -> Fit {
        if self.state == State::TcpSynSent {
            // The responder may still be in an older connection; the originator must hear of
            // it, to end that by a reset (RFC 9293 §3.5.1).
            let is_of_older = from == 1 && !segment.has(flag::FIN);
            return if is_of_older { Fit::Valid } else { Fit::Invalid };
        }
        let fits = self.may_send(from, segment) && self.may_acknowledge(from, segment);
        if !fits {
            return if strict { Fit::Invalid } else { Fit::Valid };
        }
        if self.state == State::TcpClosed {
            return Fit::Valid;
        }
        let (end, ack) = (segment.end(), segment.ack);
        let mine = &mut self.peers[from];
        if is_after(end, mine.end) {
            mine.end = end;
        }
        if segment.has(flag::FIN) {
            mine.flags |= FINISHED;
        }
        mine.window = mine.window.max(segment.window);
        let theirs = &mut self.peers[1 - from];
        if is_after(ack, theirs.acked) {
            theirs.acked = ack;
        }
        self.advance(from, ack);
        Fit::Valid
    }

    fn advance(&mut self, from: usize, ack: u32) {
        let [one, other] = &self.peers;
        self.state = match (one.has_finished(), other.has_finished()) {
            (true, true) if one.is_done() && other.is_done() => State::TcpTimeWait,
            (true, true) => State::TcpClosing,
            (true, false) | (false, true) => State::TcpFinWait,
            (false, false) if self.state == State::TcpSynRecv => {
                if from == 0 && ack == other.end {
                    State::TcpEstablished
                } else {
                    State::TcpSynRecv
                }
            }
            (false, false) => self.state,
        };
    }

    /// The segment's numbers are within what the other side has offered to take, and not
    /// older than what it may still have to hear again.
    fn may_send(&self, from: usize, segment: &Segment) -> bool {
        let (mine, theirs) = (&self.peers[from], &self.peers[1 - from]);
        let newest = mine.acked.wrapping_add(theirs.window());
        // One number before the oldest: a keep-alive (RFC 9293 §3.8.4).
        let oldest = mine.end.wrapping_sub(theirs.window()).wrapping_sub(1);
        !is_after(segment.end(), newest) && !is_after(oldest, segment.seq)
    }

    /// It acknowledges what was sent, and not long ago.
    fn may_acknowledge(&self, from: usize, segment: &Segment) -> bool {
        let (mine, theirs) = (&self.peers[from], &self.peers[1 - from]);
        let oldest = theirs.acked.wrapping_sub(mine.window().max(MAX_ACK_AGE));
        segment.has(flag::ACK) && !is_after(segment.ack, theirs.end) && !is_after(oldest, segment.ack)
    }
}

/// Order of numbers that wrap around.
fn is_after(a: u32, b: u32) -> bool {
    a.wrapping_sub(b) as i32 > 0
}
