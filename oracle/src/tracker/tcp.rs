//! TCP connections as somebody on the way sees them (RFC 9293; van Rooij, "Real Stateful TCP Packet
//! Filtering in IP Filter", 2000; RFC 5961 for resets and SYNs in between; for what one side has
//! forgotten and the other has not, docs/differences-from-nf_conntrack.md).
//!
//! What a side may send ends where the other's acknowledgements and its largest window end; what it
//! may acknowledge ends with what the other has sent.

/// A segment's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Segment {
    pub syn: bool,
    pub ack: bool,
    pub fin: bool,
    pub rst: bool,
    pub seq: u32,
    pub acked: u32,
    pub window: u16,
    /// Bytes of payload.
    pub len: u32,
}

impl Segment {
    /// The number behind the last; SYN and FIN have one each.
    fn end(&self) -> u32 {
        self.seq.wrapping_add(self.len + u32::from(self.syn) + u32::from(self.fin))
    }

    fn makes_sense(&self) -> bool {
        if self.syn { !self.fin && !self.rst } else { self.ack || self.rst }
    }
}

/// What a segment is to its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    /// It belongs to it.
    Valid,
    /// It does not.
    Invalid,
    /// It begins another.
    Restart,
}

/// What is known of a side.
#[derive(Debug, Clone, Copy, Default)]
struct Side {
    /// Behind the last number that it has sent.
    sent: u32,
    /// The newest number that the other side has acknowledged.
    heard: u32,
    /// Bytes that it takes at once.
    window: u64,
    /// It has sent a FIN.
    finished: bool,
}

impl Side {
    fn syn(segment: &Segment) -> Self {
        Self {
            sent: segment.end(),
            heard: segment.seq,
            window: segment.window.max(1).into(),
            finished: false,
        }
    }

    fn is_done(&self) -> bool {
        self.finished && self.heard == self.sent
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    SynSent,
    SynReceived,
    Established,
    FinWait,
    Closing,
    TimeWait,
    Closed,
}

/// A connection.
#[derive(Debug, Clone)]
pub(super) struct Tcp {
    phase: Phase,
    sides: [Side; 2],
    /// Its beginning was not seen: windows may be scaled by anything up to 2^14.
    picked_up: bool,
    /// The side that began has sent another SYN: it may have forgotten this connection, and the other
    /// side too.
    may_begin_again: bool,
}

impl Tcp {
    /// The connection that a segment begins, also one that began unseen.
    pub(super) fn begin(segment: &Segment) -> Option<Self> {
        if !segment.makes_sense() || segment.rst || segment.fin || segment.syn && segment.ack {
            return None;
        }
        if segment.syn {
            let sides = [Side::syn(segment), Side::default()];
            return Some(Self { phase: Phase::SynSent, sides, picked_up: false, may_begin_again: false });
        }
        let window = |window: u16| u64::from(window.max(1)) << 14;
        let mine =
            Side { sent: segment.end(), heard: segment.seq, window: window(segment.window), finished: false };
        let theirs =
            Side { sent: segment.acked, heard: segment.acked, window: window(u16::MAX), finished: false };
        let (phase, sides) = (Phase::Established, [mine, theirs]);
        Some(Self { phase, sides, picked_up: true, may_begin_again: false })
    }

    /// Milliseconds that it is kept (ovs-vswitchd.conf.db(5), `CT_Timeout_Policy`).
    pub(super) fn timeout(&self) -> u64 {
        1000 * match self.phase {
            Phase::SynSent | Phase::SynReceived | Phase::Closed => 30,
            Phase::Established => 86_400,
            Phase::FinWait => 900,
            Phase::Closing | Phase::TimeWait => 45,
        }
    }

    /// Another segment, of the side that began or of the other.
    pub(super) fn step(&mut self, reply: bool, segment: &Segment) -> Fit {
        if !segment.makes_sense() {
            return Fit::Invalid;
        }
        if segment.rst {
            return self.reset(reply, segment);
        }
        match (segment.syn, segment.ack) {
            (true, false) => self.syn(reply, segment),
            (true, true) => self.syn_ack(reply, segment),
            _ => self.data(reply, segment),
        }
    }

    fn syn(&mut self, reply: bool, segment: &Segment) -> Fit {
        match self.phase {
            Phase::TimeWait | Phase::Closed => Fit::Restart,
            Phase::SynSent => {
                self.sides[usize::from(reply)] = Side::syn(segment);
                if reply {
                    self.phase = Phase::SynReceived;
                }
                Fit::Valid
            }
            // Answered by a challenge, or by somebody who has forgotten as well.
            _ if !reply => {
                self.may_begin_again = true;
                Fit::Valid
            }
            Phase::SynReceived if segment.end() == self.sides[1].sent => Fit::Valid,
            _ => Fit::Invalid,
        }
    }

    fn answers_syn(&self, segment: &Segment) -> bool {
        let first = &self.sides[0];
        is_after(segment.acked, first.heard) && !is_after(segment.acked, first.sent)
    }

    fn syn_ack(&mut self, reply: bool, segment: &Segment) -> Fit {
        match (self.phase, reply) {
            (Phase::SynSent, true) if self.answers_syn(segment) => {
                self.sides[1] = Side::syn(segment);
                self.sides[0].heard = segment.acked;
                self.phase = Phase::SynReceived;
                Fit::Valid
            }
            (Phase::SynSent | Phase::TimeWait | Phase::Closed, _) => Fit::Invalid,
            (Phase::SynReceived, _) if self.repeats_syn(reply, segment) => {
                let theirs = &mut self.sides[usize::from(!reply)];
                if is_after(segment.acked, theirs.heard) {
                    theirs.heard = segment.acked;
                }
                if !reply && segment.acked == self.sides[1].sent {
                    self.phase = Phase::Established;
                }
                Fit::Valid
            }
            (_, false) => Fit::Invalid,
            (phase, true) => {
                let fits = self.may_send(true, segment) && self.may_hear(true, segment);
                if !fits && self.may_begin_again {
                    self.begin_again(segment);
                    return Fit::Valid;
                }
                // Once more, or nothing of ours.
                if fits && phase != Phase::SynReceived { Fit::Valid } else { Fit::Invalid }
            }
        }
    }

    fn repeats_syn(&self, reply: bool, segment: &Segment) -> bool {
        segment.end() == self.sides[usize::from(reply)].sent && self.may_hear(reply, segment)
    }

    /// The answer to the other SYN. Of that one nothing is known but what the answer says.
    fn begin_again(&mut self, answer: &Segment) {
        let first =
            Side { sent: answer.acked, heard: answer.acked, window: u16::MAX.into(), finished: false };
        *self = Self {
            phase: Phase::SynReceived,
            sides: [first, Side::syn(answer)],
            picked_up: false,
            may_begin_again: false,
        };
    }

    fn reset(&mut self, reply: bool, segment: &Segment) -> Fit {
        let side = &self.sides[usize::from(reply)];
        let exact = segment.seq == side.sent || segment.seq == side.heard;
        let ends = match (self.phase, reply) {
            (Phase::SynSent, true) if segment.ack && self.answers_syn(segment) => true,
            // Otherwise an answer to an acknowledgement of an older connection.
            (Phase::SynSent, false) if !exact => return Fit::Valid,
            (Phase::SynSent, reply) => !reply,
            (Phase::TimeWait | Phase::Closed, _) => false,
            _ => exact,
        };
        if self.phase == Phase::SynSent && !ends {
            return Fit::Invalid;
        }
        // What has been acknowledged is not in the window any more (RFC 5961).
        let is_old = is_after(side.heard, segment.seq);
        if !ends && (is_old || !self.may_send(reply, segment)) {
            // Perhaps it refuses the other SYN.
            let may_refuse = reply && segment.ack && self.may_begin_again;
            return if may_refuse { Fit::Valid } else { Fit::Invalid };
        }
        if ends {
            self.phase = Phase::Closed;
        }
        Fit::Valid
    }

    fn data(&mut self, reply: bool, segment: &Segment) -> Fit {
        if self.phase == Phase::SynSent {
            // The side that began must hear of an older connection that the other still has (RFC 9293 §3.5.1).
            return if reply && !segment.fin { Fit::Valid } else { Fit::Invalid };
        }
        if !self.may_send(reply, segment) || !self.may_hear(reply, segment) {
            return Fit::Invalid;
        }
        if self.phase == Phase::Closed {
            return Fit::Valid;
        }
        let scale = if self.picked_up { 14 } else { 0 };
        let (from, to) = (usize::from(reply), usize::from(!reply));
        let mine = &mut self.sides[from];
        if is_after(segment.end(), mine.sent) {
            mine.sent = segment.end();
        }
        mine.finished |= segment.fin;
        mine.window = mine.window.max(u64::from(segment.window) << scale);
        if is_after(segment.acked, self.sides[to].heard) {
            self.sides[to].heard = segment.acked;
        }
        let [one, other] = &self.sides;
        self.phase = match (one.finished, other.finished) {
            (true, true) if one.is_done() && other.is_done() => Phase::TimeWait,
            (true, true) => Phase::Closing,
            (true, false) | (false, true) => Phase::FinWait,
            (false, false) if self.phase == Phase::SynReceived => {
                // The handshake ends with the originator's acknowledgement.
                if !reply && segment.acked == other.sent { Phase::Established } else { Phase::SynReceived }
            }
            (false, false) => self.phase,
        };
        Fit::Valid
    }

    /// Neither beyond what the other side takes, nor older than what it may have to hear again.
    fn may_send(&self, reply: bool, segment: &Segment) -> bool {
        let (mine, theirs) = (&self.sides[usize::from(reply)], &self.sides[usize::from(!reply)]);
        let window = theirs.window.max(1) as u32;
        let newest = mine.heard.wrapping_add(window);
        // A keep-alive is one number before.
        let oldest = mine.sent.wrapping_sub(window).wrapping_sub(1);
        !is_after(segment.end(), newest) && !is_after(oldest, segment.seq)
    }

    /// It acknowledges what has been sent, and not something of long ago (66 000 bytes, or a window).
    fn may_hear(&self, reply: bool, segment: &Segment) -> bool {
        let (mine, theirs) = (&self.sides[usize::from(reply)], &self.sides[usize::from(!reply)]);
        let oldest = theirs.heard.wrapping_sub(mine.window.max(66_000) as u32);
        segment.ack && !is_after(segment.acked, theirs.sent) && !is_after(oldest, segment.acked)
    }
}

/// Numbers go round.
fn is_after(a: u32, b: u32) -> bool {
    a != b && a.wrapping_sub(b) < 1 << 31
}
