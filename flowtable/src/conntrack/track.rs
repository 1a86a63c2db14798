//! Tracking one packet: which connection it belongs to, what that makes of it, and what a
//! packet without one begins.

use std::sync::atomic::Ordering::Relaxed;

use super::{
    Alg, Conntrack, L4, Request, Rewrite, Segment, Shift, Tuple, Verdict, View,
    alg::expect::Expectation,
    kind, millis, sctp,
    slot::{Guard, Slot},
    tcp,
    timeout::State,
    tuple,
};
use crate::{
    drop::DropReason,
    key::ct_state,
    packet::{FrameBuf, Packet},
    parse::Signature,
    types::Timestamp,
};

/// What a new connection begins with.
pub(super) struct Begin {
    pub(super) state: State,
    pub(super) peers: [tcp::Peer; 2],
    pub(super) tags: [u32; 2],
}

/// What a packet is to a connection that was found.
enum Known {
    Verdict(Verdict),
    Invalid,
    /// The connection must go: its time is over, or the packet begins another.
    Stale,
}

impl Conntrack {
    /// What [`Conntrack::track`] wants to know of a packet that the parser has seen. One with
    /// a wrong checksum is invalid, unless the tracker does not check them.
    ///
    /// # Cost
    /// Reads the whole L4 segment.
    pub fn view<B: FrameBuf>(&self, packet: &Packet<B>) -> View {
        let view = View::read(packet).unwrap_or(View::NONE);
        if self.check_checksums.load(Relaxed) { view.checked(packet) } else { view }
    }

    /// The same of a packet whose signature was taken.
    #[inline]
    pub(crate) fn view_of_plain<B: FrameBuf>(&self, packet: &Packet<B>, signature: &Signature) -> View {
        View::of_plain(packet, signature, self.check_checksums.load(Relaxed))
    }

    /// What the protocol says in a TCP or UDP packet over IPv4 with this signature.
    #[inline]
    pub(crate) fn l4_of_plain<B: FrameBuf>(&self, packet: &Packet<B>, signature: &Signature) -> L4 {
        View::l4_of_plain(packet, signature, self.check_checksums.load(Relaxed))
    }

    /// The same of a packet in fragments: `first` is the one with its beginning, `payload`
    /// protocol and bytes of all that was cut into pieces.
    pub(crate) fn view_of_whole<B: FrameBuf>(&self, first: &Packet<B>, payload: (u8, &[u8])) -> View {
        View::of_whole(first, payload, self.check_checksums.load(Relaxed)).unwrap_or(View::NONE)
    }

    /// Tracks a packet.
    ///
    /// # Errors
    /// The packet is to be dropped: [`DropReason::CtFull`], [`DropReason::CtLimit`],
    /// [`DropReason::CtNatExhausted`].
    ///
    /// # Cost
    /// One index lookup and one slot; for a new connection, the mutex.
    pub fn track(&self, now: Timestamp, request: &Request, view: &View) -> Result<Verdict, DropReason> {
        self.track_as((now, request.in_port), request, view, (self.hash_of(request.zone, view), false))
    }

    /// The hash that a packet is looked up by; fetches what [`Conntrack::fetch`] reads.
    #[inline]
    pub(crate) fn hash_of(&self, zone: u16, view: &View) -> u32 {
        let hash = Tuple { zone, ..view.tuple }.hash(&self.secrets);
        self.index().prefetch(hash);
        hash
    }

    /// Fetches the slot that is most likely the one of a hash; answers which, and in which
    /// direction.
    #[inline]
    pub(crate) fn fetch(&self, hash: u32) -> Option<(u32, usize)> {
        let (idx, direction) = self.index().first(hash)?;
        self.slots().get(idx as usize)?.prefetch();
        Some((idx, direction))
    }

    /// [`Conntrack::track`] for a packet from this port, whose hash is known, and of which
    /// [`Conntrack::touch`] may have said that it belongs to no connection.
    pub(crate) fn track_as(
        &self,
        (now, in_port): (Timestamp, u16),
        request: &Request,
        view: &View,
        (hash, is_unknown): (u32, bool),
    ) -> Result<Verdict, DropReason> {
        let now = millis(now);
        let tuple = Tuple { zone: request.zone, ..view.tuple };
        match &view.l4 {
            L4::Invalid => return Ok(self.invalid()),
            L4::Error { about } => return Ok(self.related(now, request, &tuple, about)),
            L4::Tcp(_) | L4::Udp | L4::Icmp | L4::Sctp { .. } | L4::Other => {}
        }
        let found = if is_unknown { None } else { self.lookup(&tuple, hash) };
        if let Some((idx, direction, guard)) = found {
            match self.known(now, request, view, (idx, direction, guard)) {
                Known::Verdict(verdict) => return Ok(verdict),
                Known::Invalid => return Ok(self.invalid()),
                Known::Stale => self.forget(now, &tuple, hash),
            }
        }
        let Some(begin) = self.begin(view) else { return Ok(self.invalid()) };
        let expected = self.expected(now, &tuple);
        let new = self.first(&tuple, expected.as_ref().map(|(_, expectation)| expectation));
        if !request.commit {
            return Ok(new);
        }
        let expectation = expected.as_ref().map(|(_, expectation)| expectation);
        match self.commit((now, in_port), request, (&tuple, hash), &begin, (&new, expectation))? {
            Some(verdict) => {
                if let Some((key, _)) = &expected {
                    self.fulfil(key);
                }
                Ok(verdict)
            }
            // Another worker was faster: the packet belongs to its connection.
            None => match self.lookup(&tuple, hash).map(|found| self.known(now, request, view, found)) {
                Some(Known::Verdict(verdict)) => Ok(verdict),
                _ => Ok(self.invalid()),
            },
        }
    }

    /// What a packet is that begins a connection. One that is expected inherits from the
    /// connection that announced it.
    fn first(&self, tuple: &Tuple, expectation: Option<&Expectation>) -> Verdict {
        let mut new = Verdict {
            state: ct_state::TRK | ct_state::NEW,
            mark: 0,
            label: 0,
            original: Some(*tuple),
            rewrite: None,
            alg: None,
        };
        let Some(Expectation { master, .. }) = expectation else { return new };
        new.state |= ct_state::REL;
        new.original = Some(*master);
        if let Some((idx, _, guard)) = self.lookup(master, master.hash(&self.secrets)) {
            if let Some(slot) = self.slots().get(idx as usize) {
                (new.mark, new.label) = (slot.mark(), slot.label());
            }
            drop(guard);
        }
        new
    }

    fn invalid(&self) -> Verdict {
        self.counters.n_invalid.fetch_add(1, Relaxed);
        let state = ct_state::TRK | ct_state::INV;
        Verdict { state, mark: 0, label: 0, original: None, rewrite: None, alg: None }
    }

    /// A packet of a connection that is there.
    fn known(
        &self,
        now: u32,
        request: &Request,
        view: &View,
        (idx, direction, mut guard): (u32, usize, Guard<'_>),
    ) -> Known {
        let Some(slot) = self.slots().get(idx as usize) else { return Known::Invalid };
        if guard.live.is_over(now) || request.force && request.commit && direction == 1 {
            return Known::Stale;
        }
        let before = guard.live;
        let (fit, shift) = self.step(slot, &mut guard, view, direction);
        match fit {
            tcp::Fit::Valid => {}
            tcp::Fit::Restart => return Known::Stale,
            tcp::Fit::Invalid => return Known::Invalid,
        }
        let live = &mut guard.live;
        live.has_replied |= direction == 1;
        live.was_touched = true;
        live.expires = now.wrapping_add(self.policies.get(live.policy, live.state));
        let live = *live;
        if request.commit {
            set_marks(slot, request);
        }
        let established = if live.has_replied { ct_state::EST } else { ct_state::NEW };
        let reply = if direction == 1 { ct_state::RPL } else { 0 };
        let kind = slot.kind();
        let nat = if request.nat.is_some() { kind } else { 0 };
        let translated = nat & (kind::SNAT | kind::DNAT) != 0;
        let verdict = Verdict {
            state: ct_state::TRK | established | reply | related_bit(kind) | nat_bits(nat, direction),
            mark: slot.mark(),
            label: slot.label(),
            original: Some(self.original_of(slot)),
            rewrite: translated.then(|| Rewrite {
                outer: self.tuple_of(slot, 1 - direction).reversed(),
                inner: None,
                shift,
            }),
            alg: Alg::of(kind),
        };
        drop(guard);
        if self.is_watched.load(Relaxed) && !before.is_established() && live.is_established() {
            self.tell_established(now, (idx, direction), &view_tuple(view, request));
        }
        // A shorter life needs another place in the order of going.
        if live.state != before.state && (live.state.is_over() || live.state == State::TcpFinWait) {
            self.move_on(idx, &view_tuple(view, request));
        }
        Known::Verdict(verdict)
    }

    /// What the protocol makes of a packet.
    fn step(&self, slot: &Slot, guard: &mut Guard<'_>, view: &View, direction: usize) -> (tcp::Fit, Shift) {
        let live = &mut guard.live;
        let replied = live.has_replied || direction == 1;
        match &view.l4 {
            L4::Tcp(segment) => {
                let mut tcp = tcp::Tcp { state: live.state, peers: slot.peers() };
                // Each side's numbers are as that side counts.
                let (shift, ack) = self.shift_of(slot, direction, segment.seq, segment.ack);
                let segment = Segment { ack, ..*segment };
                let fit = tcp.step(direction, &segment, self.check_sequence.load(Relaxed));
                live.state = tcp.state;
                slot.set_peers(&tcp.peers);
                return (fit, shift);
            }
            L4::Sctp { chunk, tag, initiate } => {
                let mut tags = slot.tags();
                let fit = sctp::step(&mut live.state, &mut tags, direction, (*chunk, *tag, *initiate));
                slot.set_tags(tags);
                return (fit, Shift::default());
            }
            l4 => match without_numbers(l4, replied) {
                Some(state) => live.state = state,
                None => return (tcp::Fit::Invalid, Shift::default()),
            },
        }
        (tcp::Fit::Valid, Shift::default())
    }

    /// What a connection begins with when this is its first packet.
    fn begin(&self, view: &View) -> Option<Begin> {
        let plain = |state| Some(Begin { state, peers: Default::default(), tags: [0; 2] });
        match &view.l4 {
            L4::Tcp(segment) => {
                let tcp = tcp::Tcp::begin(segment, self.pick_up.load(Relaxed))?;
                Some(Begin { state: tcp.state, peers: tcp.peers, tags: [0; 2] })
            }
            L4::Udp => plain(State::UdpFirst),
            L4::Icmp if tuple::is_request(view.tuple.ipv6, view.tuple.icmp_type()) => plain(State::IcmpFirst),
            L4::Sctp { chunk, tag, initiate } => {
                let tags = sctp::begin((*chunk, *tag, *initiate))?;
                Some(Begin { state: State::SctpInit, peers: Default::default(), tags })
            }
            L4::Other => plain(State::OtherFirst),
            L4::Icmp | L4::Error { .. } | L4::Invalid => None,
        }
    }

    /// An ICMP error belongs to the connection of the packet that it quotes, and goes the
    /// other way.
    fn related(&self, now: u32, request: &Request, tuple: &Tuple, about: &Tuple) -> Verdict {
        // Nobody else has to hear of it.
        if tuple.dst != about.src {
            return self.invalid();
        }
        let way = Tuple { zone: request.zone, ..*about }.reversed();
        let Some((idx, direction, guard)) = self.lookup(&way, way.hash(&self.secrets)) else {
            return self.invalid();
        };
        let Some(slot) = self.slots().get(idx as usize).filter(|_| !guard.live.is_over(now)) else {
            drop(guard);
            return self.invalid();
        };
        let kind = if request.nat.is_some() { slot.kind() } else { 0 };
        let quoted = self.tuple_of(slot, 1 - direction);
        let rewrite = (kind & (kind::SNAT | kind::DNAT) != 0).then(|| {
            // A router in front of an end that is known by another address is hidden as that
            // end is (RFC 5508 §4.2); others keep theirs.
            let src = if quoted.dst == about.dst { tuple.src } else { quoted.dst };
            Rewrite {
                outer: Tuple { src, dst: quoted.src, ..*tuple },
                inner: Some(quoted),
                shift: Shift::default(),
            }
        });
        let reply = if direction == 1 { ct_state::RPL } else { 0 };
        Verdict {
            state: ct_state::TRK | ct_state::REL | reply | nat_bits(kind, direction),
            mark: slot.mark(),
            label: slot.label(),
            original: Some(self.original_of(slot)),
            rewrite,
            alg: None,
        }
    }

    /// The connection with this tuple in one of its directions, its slot locked.
    pub(super) fn lookup(&self, tuple: &Tuple, hash: u32) -> Option<(u32, usize, Guard<'_>)> {
        const MAX_RETRIES: usize = 4;
        for _ in 0..MAX_RETRIES {
            let (idx, direction) = self.find(tuple, hash)?;
            let guard = self.slots().get(idx as usize)?.lock();
            if self.holds(idx, direction, tuple) {
                return Some((idx, direction, guard));
            }
        }
        let _ledger = self.ledger();
        let (idx, direction) = self.find(tuple, hash)?;
        Some((idx, direction, self.slots().get(idx as usize)?.lock()))
    }

    /// Where a tuple is: sure while nobody else holds the mutex.
    pub(super) fn find(&self, tuple: &Tuple, hash: u32) -> Option<(u32, usize)> {
        self.index().find(hash, |idx, direction| self.holds(idx, direction, tuple))
    }

    pub(super) fn holds(&self, idx: u32, direction: usize, tuple: &Tuple) -> bool {
        let slot = self.slots().get(idx as usize);
        slot.is_some_and(|slot| slot.holds(direction, tuple, |slot| self.extension_of(slot)))
    }
}

/// The state of a connection of a protocol without numbers, after a packet.
pub(super) fn without_numbers(l4: &L4, has_replied: bool) -> Option<State> {
    Some(match (l4, has_replied) {
        (L4::Udp, true) => State::UdpMultiple,
        (L4::Udp, false) => State::UdpSingle,
        (L4::Icmp, true) => State::IcmpReply,
        (L4::Icmp, false) => State::IcmpFirst,
        (L4::Other, true) => State::OtherMultiple,
        (L4::Other, false) => State::OtherSingle,
        (L4::Tcp(_) | L4::Sctp { .. } | L4::Error { .. } | L4::Invalid, _) => return None,
    })
}

/// New bits of mark and label. The slot must be locked.
pub(super) fn set_marks(slot: &Slot, request: &Request) {
    let (mark, mask) = request.mark;
    if mask != 0 {
        slot.set_mark(slot.mark() & !mask | mark & mask);
    }
    let (label, mask) = request.label;
    let old = slot.label();
    let new = old & !mask | label & mask;
    if new != old {
        slot.begin_change();
        slot.set_label(new);
    }
}

/// A connection stays related for its whole life, as in the kernel's datapath.
pub(super) fn related_bit(kind: u8) -> u16 {
    if kind & kind::RELATED != 0 { ct_state::REL } else { 0 }
}

/// Which address of a packet is translated: of answers, the other one.
pub(super) fn nat_bits(kind: u8, direction: usize) -> u16 {
    let (source, destination) = (kind & kind::SNAT != 0, kind & kind::DNAT != 0);
    let (source, destination) = if direction == 0 { (source, destination) } else { (destination, source) };
    (if source { ct_state::SNAT } else { 0 }) | if destination { ct_state::DNAT } else { 0 }
}

fn view_tuple(view: &View, request: &Request) -> Tuple {
    Tuple { zone: request.zone, ..view.tuple }
}
