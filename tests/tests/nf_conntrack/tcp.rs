//! Random TCP conversations: two ends that do what RFC 9293 says, in all its variety, and somebody who now
//! and then sends what they would not. Where trackers may differ is left out here: it is in `differences`.

use ferroflow_tests::random::Random;

use crate::Side;
use crate::packet::{ACK, FIN, PSH, RST, SYN, Segment};

/// Segments of one conversation.
const MAX_LEN: u64 = 40;
/// Windows that ends offer, unscaled.
const WINDOWS: &[u16] = &[8192, 29200, 64240, 65535];
/// No sender has more on the way.
const MAX_IN_FLIGHT: u32 = 8192;
const SCALES: &[Option<u8>] = &[None, None, Some(0), Some(2), Some(7)];
/// Beyond every window, and not so far that it is behind.
const FAR: u32 = 1 << 28;
/// Segments that are young enough to be sent again.
const N_RECENT: usize = 3;

/// What an end of a conversation knows.
#[derive(Debug, Clone, Copy)]
struct Peer {
    /// Next number to send.
    next: u32,
    /// Newest number that the other end has acknowledged.
    acked: u32,
    window: u16,
    scale: Option<u8>,
    has_finished: bool,
}

/// How far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Start,
    SynSent,
    /// Both have sent a SYN, and neither has had an answer.
    Crossed,
    SynReceived,
    Open,
    Finishing,
    /// Both have finished and know it.
    Done,
    /// By the originator.
    Reset,
    /// By the responder.
    Refused,
}

/// A conversation to come, segment by segment.
pub(crate) struct Conversation {
    random: Random,
    peers: [Peer; 2],
    phase: Phase,
    /// Segments that may be sent again.
    recent: Vec<(Side, Segment)>,
    n_left: u64,
    /// One segment in so many is none of the ends'; 0: none.
    mischief: u64,
    /// It began unseen: windows are unknown, and there is one of it.
    is_picked_up: bool,
    /// Something was said that may be of another connection.
    has_strayed: bool,
}

impl Conversation {
    /// One that belongs to a seed.
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let peers = [Peer::new(&mut random), Peer::new(&mut random)];
        // One in ten began unseen.
        let is_picked_up = random.chance(1, 10);
        let phase = if is_picked_up { Phase::Open } else { Phase::Start };
        let n_left = 4 + random.below(MAX_LEN);
        let mischief = if is_picked_up { 0 } else { random.pick(&[0, 3, 5, 10]) };
        Self { random, peers, phase, recent: Vec::new(), n_left, mischief, is_picked_up, has_strayed: false }
    }

    fn planned(&mut self) -> (Side, Segment) {
        match self.phase {
            Phase::Start => {
                self.phase = Phase::SynSent;
                self.say(Side::Client, SYN, 0)
            }
            Phase::SynSent if self.random.chance(1, 8) => {
                self.phase = Phase::Crossed;
                self.say(Side::Server, SYN, 0)
            }
            Phase::SynSent if !self.has_strayed && self.random.chance(1, 12) => {
                self.phase = Phase::Refused;
                // Nobody listens. Such an answer has no number of its own (RFC 9293 §3.10.7.1).
                let (side, segment) = self.say(Side::Server, RST | ACK, 0);
                (side, Segment { seq: 0, window: 0, ..segment })
            }
            Phase::SynSent => {
                self.phase = Phase::SynReceived;
                self.say(Side::Server, SYN | ACK, 0)
            }
            Phase::Crossed => {
                self.phase = Phase::SynReceived;
                // Its SYN again, now with an acknowledgement; never without it any more.
                self.recent.clear();
                self.peers[1].next = self.peers[1].next.wrapping_sub(1);
                self.say(Side::Server, SYN | ACK, 0)
            }
            Phase::SynReceived => {
                self.phase = Phase::Open;
                self.say(Side::Client, ACK, 0)
            }
            Phase::Open | Phase::Finishing => self.talk(),
            Phase::Done | Phase::Reset | Phase::Refused => self.begin_again(),
        }
    }

    /// The ports are used again, for numbers of which the old connection knows nothing.
    fn begin_again(&mut self) -> (Side, Segment) {
        let numbers = [0, 1].map(|_| self.random.number() as u32);
        self.peers = [Peer::new(&mut self.random), Peer::new(&mut self.random)];
        for (peer, number) in self.peers.iter_mut().zip(numbers) {
            (peer.next, peer.acked) = (number, number);
        }
        self.recent.clear();
        (self.phase, self.has_strayed) = (Phase::SynSent, true);
        self.say(Side::Client, SYN, 0)
    }

    fn talk(&mut self) -> (Side, Segment) {
        if self.phase == Phase::Open && !self.is_picked_up && self.random.chance(1, 25) {
            // Both ends were started anew and have forgotten it.
            return self.begin_again();
        }
        let mut side = self.random.pick(&[Side::Client, Side::Server]);
        let in_flight = |peer: &Peer| peer.next.wrapping_sub(peer.acked);
        let len = self.random.pick(&[1, 100, 512, 1400]);
        if in_flight(&self.peers[side as usize]) + len > MAX_IN_FLIGHT {
            side = side.other();
        }
        let is_full = in_flight(&self.peers[side as usize]) + len > MAX_IN_FLIGHT;
        if is_full || self.peers[side as usize].has_finished || self.random.chance(1, 3) {
            return self.say(side, ACK, 0);
        }
        if self.random.chance(1, 8) {
            self.phase = Phase::Finishing;
            self.peers[side as usize].has_finished = true;
            return self.say(side, FIN | ACK, 0);
        }
        if self.phase == Phase::Open && self.random.chance(1, 20) {
            let peer = self.peers[side as usize];
            if peer.acked == peer.next {
                self.phase = if side == Side::Client { Phase::Reset } else { Phase::Refused };
                return self.say(side, RST | ACK, 0);
            }
        }
        self.say(side, PSH | ACK, len as usize)
    }

    /// What an end sends, and the other receives.
    fn say(&mut self, side: Side, flags: u8, len: usize) -> (Side, Segment) {
        let theirs = self.peers[1 - side as usize].next;
        let mine = &mut self.peers[side as usize];
        let counted = u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
        let segment = Segment {
            flags,
            seq: mine.next,
            ack: if flags & ACK != 0 { theirs } else { 0 },
            window: mine.window,
            scale: mine.scale.filter(|_| flags & SYN != 0),
            len,
        };
        mine.next = mine.next.wrapping_add(len as u32 + counted);
        if flags & ACK != 0 {
            self.peers[1 - side as usize].acked = theirs;
        }
        let is_done = |peer: &Peer| peer.has_finished && peer.acked == peer.next;
        if self.phase == Phase::Finishing && self.peers.iter().all(is_done) {
            self.phase = Phase::Done;
        }
        (side, segment)
    }

    /// What no end would send now, or would send again.
    fn mischief(&mut self) -> Option<(Side, Segment)> {
        let side = self.random.pick(&[Side::Client, Side::Server]);
        if self.random.chance(1, 3) && !self.recent.is_empty() && self.phase != Phase::Reset {
            let idx = self.random.below(self.recent.len() as u64) as usize;
            return Some(self.recent[idx]);
        }
        let (mine, theirs) = (self.peers[side as usize], self.peers[1 - side as usize]);
        let plain = Segment {
            flags: ACK,
            seq: mine.next,
            ack: theirs.next,
            window: mine.window,
            scale: None,
            len: 0,
        };
        let is_open = self.phase == Phase::Open;
        let may_reset = is_open && !self.has_strayed;
        let segment = match self.phase {
            Phase::Start | Phase::Reset => return None,
            // An old connection answers (RFC 9293 §3.5.1), and is told that it is over.
            Phase::SynSent => match side {
                Side::Server if self.has_strayed => return None,
                Side::Server => {
                    self.has_strayed = true;
                    Segment { seq: self.random.number() as u32, ack: self.random.number() as u32, ..plain }
                }
                Side::Client => return None,
            },
            Phase::Open | Phase::Finishing => match self.random.below(8) {
                0 => Segment {
                    flags: self.random.pick(&[ACK, ACK | PSH, FIN | ACK]),
                    seq: mine.next.wrapping_add(FAR),
                    len: 10,
                    ..plain
                },
                1 => Segment {
                    ack: theirs.next.wrapping_add(self.random.pick(&[100, FAR])),
                    len: self.random.pick(&[0, 10]),
                    ..plain
                },
                2 if may_reset => Segment { flags: RST, seq: mine.next.wrapping_add(FAR), ack: 0, ..plain },
                3 if may_reset => Segment {
                    flags: RST,
                    seq: mine.acked.wrapping_sub(self.random.pick(&[1, 100])),
                    ack: 0,
                    ..plain
                },
                4 if may_reset => Segment { flags: RST, seq: mine.next.wrapping_add(10), ack: 0, ..plain },
                5 if side == Side::Server && is_open => {
                    Segment { flags: SYN, seq: self.random.number() as u32, ack: 0, ..plain }
                }
                6 if side == Side::Client => Segment { flags: SYN | ACK, ..plain },
                7 if side == Side::Client && is_open => {
                    self.has_strayed = true;
                    Segment { flags: SYN, seq: self.random.number() as u32, ack: 0, ..plain }
                }
                _ => Segment { flags: self.random.pick(&[0, FIN, PSH, SYN | FIN, SYN | RST, 0x3f]), ..plain },
            },
            Phase::Crossed | Phase::SynReceived | Phase::Done | Phase::Refused => {
                Segment { flags: self.random.pick(&[0, SYN | FIN, SYN | RST, 0x3f]), ..plain }
            }
        };
        Some((side, segment))
    }
}

impl Peer {
    fn new(random: &mut Random) -> Self {
        // Numbers soon wrap in one of three.
        let next = if random.chance(1, 3) {
            0_u32.wrapping_sub(random.below(3000) as u32)
        } else {
            random.number() as u32
        };
        Self {
            next,
            acked: next,
            window: random.pick(WINDOWS),
            scale: random.pick(SCALES),
            has_finished: false,
        }
    }
}

impl Iterator for Conversation {
    type Item = (Side, Segment);

    fn next(&mut self) -> Option<Self::Item> {
        self.n_left = self.n_left.checked_sub(1)?;
        let is_over = match self.phase {
            Phase::Done | Phase::Reset => self.is_picked_up,
            phase => phase == Phase::Refused,
        };
        if is_over {
            return None;
        }
        let is_mischief = self.mischief != 0 && self.random.chance(1, self.mischief);
        if is_mischief && let Some(next) = self.mischief() {
            return Some(next);
        }
        let next = self.planned();
        // SYNs are sent again only while there is nothing else.
        if next.1.flags & SYN == 0 {
            self.recent.retain(|(_, segment)| segment.flags & SYN == 0);
        }
        if self.recent.len() == N_RECENT {
            self.recent.remove(0);
        }
        if next.1.flags & RST == 0 {
            self.recent.push(next);
        }
        Some(next)
    }
}
