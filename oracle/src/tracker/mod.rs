//! A connection tracker that looks at all its connections for each packet, after ovs-fields(7)
//! ("Connection Tracking Fields"), ovs-actions(7) (`ct`) and, for TCP, the papers (`tcp.rs`).
//!
//! Every change can be taken back: a walk that hits a limit has not happened.

mod packet;
mod tcp;

pub use self::packet::{About, Packet, Proto, Tuple};
use self::tcp::Tcp;

/// Bits of `ct_state` (ovs-fields(7)).
pub mod state {
    /// Not committed, or not answered yet.
    pub const NEW: u8 = 1;
    /// Both sides have spoken.
    pub const EST: u8 = 2;
    /// About another connection.
    pub const REL: u8 = 4;
    /// Of the side that did not begin.
    pub const RPL: u8 = 8;
    /// Fits nowhere.
    pub const INV: u8 = 16;
    /// Has been tracked.
    pub const TRK: u8 = 32;
    /// The source address is translated.
    pub const SNAT: u8 = 64;
    /// The destination address is translated.
    pub const DNAT: u8 = 128;
}

/// What a rule asks for.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The connection is to be remembered.
    pub commit: bool,
    /// Even if it is the answer to another.
    pub force: bool,
    /// The name space.
    pub zone: u16,
    /// Translate.
    pub nat: Option<Translation>,
    /// New bits of the mark, and which.
    pub mark: (u32, u32),
    /// New bits of the label, and which.
    pub label: (u128, u128),
}

/// A translation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Translation {
    /// That of the connection.
    Existing,
    /// Of new connections.
    To {
        /// The source's address, not the destination's.
        source: bool,
        /// IPv6.
        ipv6: bool,
        /// The address.
        address: u128,
        /// The port.
        port: Option<u16>,
    },
}

/// What the tracker says of a packet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Bits of [`state`].
    pub state: u8,
    /// The connection's mark.
    pub mark: u32,
    /// The connection's label.
    pub label: u128,
    /// What its first packet had.
    pub original: Option<Tuple>,
    /// What the packet becomes.
    pub rewrite: Option<Tuple>,
    /// What the packet that an ICMP error quotes becomes.
    pub quoted: Option<Tuple>,
}

/// Why a packet is dropped, or the rest of the world cannot be foreseen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No free translation.
    Exhausted,
    /// Which free translation is chosen is not said anywhere.
    Unforeseeable,
}

/// A connection.
#[derive(Debug, Clone)]
struct Connection {
    zone: u16,
    /// What its first packet had, and what answers have.
    tuples: [Tuple; 2],
    /// [`state::SNAT`], [`state::DNAT`] or none.
    nat: u8,
    mark: u32,
    label: u128,
    has_replied: bool,
    tcp: Option<Tcp>,
    sctp: Option<packet::Association>,
    /// Milliseconds.
    expires: u64,
}

/// The connections, and how to take changes back.
#[derive(Debug, Clone, Default)]
pub struct Tracker {
    connections: Vec<Option<Connection>>,
    undo: Vec<(usize, Option<Connection>)>,
}

impl Tracker {
    /// Nothing before this is taken back.
    pub fn settle(&mut self) {
        self.undo.clear();
    }

    /// A moment to come back to.
    pub fn mark(&self) -> usize {
        self.undo.len()
    }

    /// Back to a moment.
    pub fn roll_back(&mut self, mark: usize) {
        for (idx, before) in self.undo.drain(mark..).rev() {
            self.connections[idx] = before;
        }
    }

    /// Tracks a packet; `now` in milliseconds.
    ///
    /// # Errors
    /// It is dropped.
    pub fn track(&mut self, now: u64, request: &Request, packet: &Packet) -> Result<Verdict, Refusal> {
        if let Some(about) = &packet.about {
            return Ok(self.related(now, request, packet, about));
        }
        if packet.proto == Proto::Invalid {
            return Ok(invalid());
        }
        // Who talks to itself, from and to the same port: nobody says which packets are the answers.
        if packet.tuple == packet.tuple.reversed() {
            return Err(Refusal::Unforeseeable);
        }
        if let Some((idx, reply)) = self.find(now, request.zone, &packet.tuple) {
            let is_gone = request.commit && request.force && reply;
            let fit = if is_gone { Fit::Restart } else { self.known(now, request, packet, idx, reply) };
            match fit {
                Fit::Verdict(verdict) => return Ok(verdict),
                Fit::Invalid => return Ok(invalid()),
                Fit::Restart => self.replace(idx, None),
            }
        }
        self.fresh(now, request, packet)
    }

    fn find(&self, now: u64, zone: u16, tuple: &Tuple) -> Option<(usize, bool)> {
        let all = self.connections.iter().enumerate();
        let living = all.filter_map(|(idx, connection)| Some((idx, connection.as_ref()?)));
        let mine = living.filter(|(_, connection)| connection.zone == zone && now < connection.expires);
        mine.into_iter().find_map(|(idx, connection)| {
            let [original, answers] = &connection.tuples;
            if original == tuple { Some((idx, false)) } else { (answers == tuple).then_some((idx, true)) }
        })
    }

    fn replace(&mut self, idx: usize, with: Option<Connection>) {
        let before = std::mem::replace(&mut self.connections[idx], with);
        self.undo.push((idx, before));
    }

    fn known(&mut self, now: u64, request: &Request, packet: &Packet, idx: usize, reply: bool) -> Fit {
        let Some(mut connection) = self.connections[idx].clone() else { return Fit::Invalid };
        let replied = connection.has_replied || reply;
        let timeout = match (packet.proto, &mut connection) {
            (Proto::Tcp(segment), Connection { tcp: Some(tcp), .. }) => match tcp.step(reply, &segment) {
                tcp::Fit::Valid => tcp.timeout(),
                tcp::Fit::Invalid => {
                    self.replace(idx, Some(connection));
                    return Fit::Invalid;
                }
                tcp::Fit::Restart => return Fit::Restart,
            },
            (Proto::Sctp(chunk), Connection { sctp: Some(sctp), .. }) => match sctp.step(reply, chunk) {
                tcp::Fit::Valid => sctp.timeout(),
                tcp::Fit::Invalid => {
                    self.replace(idx, Some(connection));
                    return Fit::Invalid;
                }
                tcp::Fit::Restart => return Fit::Restart,
            },
            // ovs-vswitchd.conf.db(5), `CT_Timeout_Policy`: of UDP, ICMP and other protocols.
            _ if replied => 30_000,
            _ => 60_000,
        };
        connection.has_replied = replied;
        connection.expires = now + timeout;
        if request.commit {
            connection.mark =
                merged(connection.mark.into(), request.mark.0.into(), request.mark.1.into()) as u32;
            connection.label = merged(connection.label, request.label.0, request.label.1);
        }
        let age = if replied { state::EST } else { state::NEW };
        let way = if reply { state::RPL } else { 0 };
        let (nat, rewrite) = match request.nat {
            Some(_) if connection.nat != 0 => {
                let other = &connection.tuples[usize::from(!reply)];
                (seen_nat(connection.nat, reply), Some(other.reversed()))
            }
            _ => (0, None),
        };
        let verdict = Verdict {
            state: state::TRK | age | way | nat,
            mark: connection.mark,
            label: connection.label,
            original: Some(connection.tuples[0].clone()),
            rewrite,
            quoted: None,
        };
        self.replace(idx, Some(connection));
        Fit::Verdict(verdict)
    }

    /// A packet of no known connection.
    fn fresh(&mut self, now: u64, request: &Request, packet: &Packet) -> Result<Verdict, Refusal> {
        let (mut tcp, mut sctp) = (None, None);
        let timeout = match packet.proto {
            Proto::Tcp(segment) => match Tcp::begin(&segment) {
                Some(begun) => {
                    let timeout = begun.timeout();
                    tcp = Some(begun);
                    timeout
                }
                None => return Ok(invalid()),
            },
            Proto::Sctp(chunk) => match packet::Association::begin(chunk) {
                Some(begun) => {
                    let timeout = begun.timeout();
                    sctp = Some(begun);
                    timeout
                }
                None => return Ok(invalid()),
            },
            Proto::IcmpAnswer => return Ok(invalid()),
            _ => 60_000,
        };
        let mut verdict = Verdict {
            state: state::TRK | state::NEW,
            original: Some(packet.tuple.clone()),
            ..Verdict::default()
        };
        if !request.commit {
            return Ok(verdict);
        }
        let (answers, nat) = self.answers(now, request, &packet.tuple)?;
        verdict.mark = request.mark.0 & request.mark.1;
        verdict.label = request.label.0 & request.label.1;
        verdict.state |= nat;
        verdict.rewrite = (nat != 0).then(|| answers.reversed());
        let connection = Connection {
            zone: request.zone,
            tuples: [packet.tuple.clone(), answers],
            nat,
            mark: verdict.mark,
            label: verdict.label,
            has_replied: false,
            tcp,
            sctp,
            expires: now + timeout,
        };
        let is_free = |place: &Option<Connection>| place.as_ref().is_none_or(|old| old.expires <= now);
        let idx = self.connections.iter().position(is_free).unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        self.replace(idx, Some(connection));
        Ok(verdict)
    }

    /// What answers to a new connection have: nobody else's.
    fn answers(&self, now: u64, request: &Request, tuple: &Tuple) -> Result<(Tuple, u8), Refusal> {
        let plain = tuple.reversed();
        let is_free = |answers: &Tuple| self.find(now, request.zone, answers).is_none();
        let Some(Translation::To { source, ipv6, address, port }) = request.nat else {
            let own = is_free(&plain) || plain == *tuple;
            return if own { Ok((plain, 0)) } else { Err(Refusal::Exhausted) };
        };
        if ipv6 != tuple.ipv6 {
            return Err(Refusal::Exhausted);
        }
        let mut answers = plain.clone();
        let place = if source { &mut answers.dst } else { &mut answers.src };
        *place = address;
        match port.filter(|_| tuple.has_ports()) {
            Some(port) if source => answers.dst_port = port,
            Some(port) => answers.src_port = port,
            None => {}
        }
        let kind = match (answers == plain, source) {
            (true, _) => 0,
            (false, true) => state::SNAT,
            (false, false) => state::DNAT,
        };
        // Without a port of its own the source's, or an echo's identifier, is kept if it can be.
        let any_port = source && (tuple.is_icmp() || port.is_none() && tuple.has_ports());
        let keeps = !tuple.has_ports() || tuple.src_port >= 1024;
        match (any_port, is_free(&answers)) {
            (false, true) => Ok((answers, kind)),
            (false, false) => Err(Refusal::Exhausted),
            (true, true) if keeps => Ok((answers, kind)),
            (true, _) => Err(Refusal::Unforeseeable),
        }
    }

    /// An ICMP error is about the connection whose packet it quotes.
    fn related(&self, now: u64, request: &Request, packet: &Packet, about: &About) -> Verdict {
        // It goes to who has sent the quoted packet, or it is none of its business.
        if packet.tuple.dst != about.tuple.src {
            return invalid();
        }
        let Some((idx, reply)) = self.find(now, request.zone, &about.tuple.reversed()) else {
            return invalid();
        };
        let Some(connection) = &self.connections[idx] else { return invalid() };
        let way = if reply { state::RPL } else { 0 };
        let mut verdict = Verdict {
            state: state::TRK | state::REL | way,
            mark: connection.mark,
            label: connection.label,
            original: Some(connection.tuples[0].clone()),
            ..Verdict::default()
        };
        if request.nat.is_some() && connection.nat != 0 {
            // The quoted packet went the other way: its sender knows it by that side's tuple.
            let quoted = connection.tuples[usize::from(!reply)].clone();
            let mut outer = packet.tuple.clone();
            // Routers in front of an end that has another address are hidden as it is (RFC 5508 §4.2).
            if quoted.dst != about.tuple.dst {
                outer.src = quoted.dst;
            }
            outer.dst = quoted.src;
            verdict.state |= seen_nat(connection.nat, reply);
            (verdict.rewrite, verdict.quoted) = (Some(outer), Some(quoted));
        }
        verdict
    }
}

/// What a packet is to a connection.
enum Fit {
    Verdict(Verdict),
    Invalid,
    Restart,
}

fn invalid() -> Verdict {
    Verdict { state: state::TRK | state::INV, ..Verdict::default() }
}

fn merged(old: u128, new: u128, bits: u128) -> u128 {
    old & !bits | new & bits
}

/// Of answers the other address is translated.
fn seen_nat(nat: u8, reply: bool) -> u8 {
    match (nat, reply) {
        (state::SNAT, true) => state::DNAT,
        (state::DNAT, true) => state::SNAT,
        (nat, _) => nat,
    }
}
