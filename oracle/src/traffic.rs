//! Random frames of a small world, so that they meet the rules of `rules.rs`; most are sound, some are
//! cut off or damaged.

use crate::{
    checksum, frame,
    rng::Rng,
    rules::Features,
    syntax::Kind,
    tracker::{Packet, Proto},
};

/// Ports that frames come in by.
pub const IN_PORTS: [u32; 4] = [1, 2, 3, 4];

/// A frame and where it comes in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// The port.
    pub port: u32,
    /// The frame.
    pub frame: Vec<u8>,
}

/// Different packets of a world: the rest are met by caches that know them.
const N_ARRIVALS: usize = 96;
/// Conversations of a world in which connections are tracked.
const N_CONVERSATIONS: usize = 8;

/// The packets of a world.
#[derive(Debug, Clone)]
pub struct Traffic {
    arrivals: Vec<Arrival>,
    conversations: Vec<Conversation>,
}

/// A packet that comes.
#[derive(Debug, Clone)]
pub struct Arrived {
    /// Its number, if it comes again and again.
    pub number: Option<usize>,
    /// Its frame.
    pub frame: Vec<u8>,
}

/// A TCP connection from its first segment to its last, and from the beginning again.
#[derive(Debug, Clone)]
struct Conversation {
    segments: Vec<Vec<u8>>,
    next: usize,
}

/// Random traffic.
pub fn traffic(rng: &mut Rng, features: &Features) -> Traffic {
    let mut arrivals: Vec<Arrival> = Vec::new();
    while arrivals.len() < N_ARRIVALS {
        let arrival = of_theme(rng, features.theme);
        // Segments that belong nowhere are no test of what belongs where.
        let is_tcp = frame::view(&arrival.frame).is_some_and(|view| view.proto == 6);
        let packet = Packet::read(&arrival.frame);
        let is_alone = packet.proto != Proto::Invalid && packet.tuple.src == packet.tuple.dst;
        // Trackers keep fragments back until all have come.
        let is_fragment = frame::view(&arrival.frame).is_some_and(|view| view.frag != 0);
        if !(features.tracking && (is_tcp || is_alone || is_fragment)) {
            arrivals.push(arrival);
        }
    }
    let mut conversations = Vec::new();
    if features.tracking {
        for _ in 0..N_ARRIVALS / 3 {
            let to = rng.pick(&arrivals);
            arrivals.extend(answer_to(rng, &to));
        }
        for _ in 0..N_ARRIVALS / 8 {
            let about = rng.pick(&arrivals);
            arrivals.extend(error_about(rng, &about));
        }
        conversations.extend((0..N_CONVERSATIONS).map(|_| conversation(rng)));
    }
    Traffic { arrivals, conversations }
}

/// An arrival, in half of the cases one of the kind that the world is about.
fn of_theme(rng: &mut Rng, theme: Option<Kind>) -> Arrival {
    const MAX_TRIES: usize = 30;
    let is_plain = rng.one_in(2);
    let suits = |arrival: &Arrival| {
        theme.zip(frame::view(&arrival.frame)).is_some_and(|(kind, view)| {
            let (_, eth_type, proto) = kind.meaning();
            view.eth_type == eth_type && proto.is_none_or(|proto| proto == view.proto)
        })
    };
    let mut made = arrival(rng);
    for _ in 0..MAX_TRIES {
        if is_plain || suits(&made) {
            break;
        }
        made = arrival(rng);
    }
    made
}

impl Traffic {
    /// A port that packets come by.
    pub fn port(&self, rng: &mut Rng) -> u32 {
        self.arrivals[rng.index(self.arrivals.len())].port
    }

    /// A packet by a port.
    pub fn next(&mut self, rng: &mut Rng, port: u32) -> Arrived {
        if !self.conversations.is_empty() && rng.one_in(3) {
            let idx = rng.index(self.conversations.len());
            return Arrived { number: None, frame: self.conversations[idx].next(rng) };
        }
        let own: Vec<usize> =
            (0..self.arrivals.len()).filter(|idx| self.arrivals[*idx].port == port).collect();
        let number = rng.pick(&own);
        Arrived { number: Some(number), frame: self.arrivals[number].frame.clone() }
    }
}

impl Conversation {
    /// The next segment; sometimes one is lost or comes again.
    fn next(&mut self, rng: &mut Rng) -> Vec<u8> {
        match rng.below(16) {
            0 => self.next += 1,
            1 => self.next += self.segments.len() - 1,
            _ => {}
        }
        let frame = self.segments[self.next % self.segments.len()].clone();
        self.next = (self.next + 1) % self.segments.len();
        frame
    }
}

/// The packet that goes the other way.
fn answer_to(rng: &mut Rng, to: &Arrival) -> Option<Arrival> {
    let mut frame = to.frame.clone();
    let view = frame::view(&frame)?;
    let (src, dst, len) = match view.net {
        frame::Net::Ipv4 => (view.l3 + 12, view.l3 + 16, 4),
        frame::Net::Ipv6 => (view.l3 + 8, view.l3 + 24, 16),
        _ => return None,
    };
    for at in 0..len {
        frame.swap(src + at, dst + at);
    }
    match view.l4 {
        Some((frame::L4::Udp | frame::L4::Sctp, at)) => {
            frame.swap(at, at + 2);
            frame.swap(at + 1, at + 3);
        }
        Some((frame::L4::Icmp, at)) if frame[at] == 8 => frame[at] = 0,
        Some((frame::L4::Icmpv6, at)) if frame[at] == 128 => frame[at] = 129,
        _ => {}
    }
    checksum::complete(&mut frame, &view, true);
    Some(Arrival { port: rng.pick(&IN_PORTS), frame })
}

/// An ICMP error about a packet, from where it went or from a router on the way.
fn error_about(rng: &mut Rng, about: &Arrival) -> Option<Arrival> {
    let view = frame::view(&about.frame)?;
    let ip = &about.frame[view.l3..view.end];
    let mut frame = about.frame[..12].to_vec();
    let quoted = &ip[..ip.len().min(rng.pick(&[28, 48, 60, 100]))];
    let (a, b) = match view.net {
        frame::Net::Ipv4 => (12, 16),
        frame::Net::Ipv6 => (8, 24),
        _ => return None,
    };
    let len = b - a;
    let mut from = ip[b..b + len].to_vec();
    if rng.one_in(3) {
        from[len - 1] = rng.below(8) as u8;
    }
    let to = &ip[a..a + len];
    if len == 4 {
        frame.extend([8, 0]);
        frame.extend([0x45, 0]);
        frame.extend((28 + quoted.len() as u16).to_be_bytes());
        frame.extend([0, 1, 0, 0, 64, 1, 0, 0]);
        frame.extend([&from[..], to].concat());
        frame.extend([rng.pick(&[3, 11, 12]), 1, 0, 0, 0, 0, 0, 0]);
    } else {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend((8 + quoted.len() as u16).to_be_bytes());
        frame.extend([58, 64]);
        frame.extend([&from[..], to].concat());
        frame.extend([rng.pick(&[1, 2, 3]), 0, 0, 0, 0, 0, 0, 0]);
    }
    frame.extend(quoted);
    let view = frame::view(&frame)?;
    checksum::complete(&mut frame, &view, true);
    Some(Arrival { port: rng.pick(&IN_PORTS), frame })
}

/// A handshake, some data, an end. Answers may be to another address than the requests came from, as
/// when the switch has translated it.
fn conversation(rng: &mut Rng) -> Conversation {
    const SYN: u8 = 2;
    const ACK: u8 = 16;
    const FIN: u8 = 1;
    const RST: u8 = 4;
    let endpoint = |rng: &mut Rng| (rng.below(8) as u8, 1 + rng.below(3) as u16);
    let (client, server) = (endpoint(rng), endpoint(rng));
    let server = (if server.0 == client.0 { (server.0 + 1) % 8 } else { server.0 }, server.1);
    let seen = if rng.one_in(2) { client } else { endpoint(rng) };
    let ipv6 = rng.one_in(4);
    let (mut there, mut back) = (rng.bits() as u32, rng.bits() as u32);
    let mut segments = Vec::new();
    let mut say = |reply: bool, flags: u8, seq: u32, ack: u32, len: usize| {
        let (from, to) = if reply { (server, seen) } else { (client, server) };
        segments.push(segment_of(ipv6, from, to, (flags, seq, ack), len));
    };
    say(false, SYN, there, 0, 0);
    there = there.wrapping_add(1);
    say(true, SYN | ACK, back, there, 0);
    back = back.wrapping_add(1);
    say(false, ACK, there, back, 0);
    for _ in 0..rng.below(4) {
        let (reply, len) = (rng.one_in(2), rng.below(40) as u32);
        let (seq, ack) = if reply { (back, there) } else { (there, back) };
        say(reply, ACK, seq, ack, len as usize);
        let sent = if reply { &mut back } else { &mut there };
        *sent = sent.wrapping_add(len);
        let (seq, ack) = if reply { (there, back) } else { (back, there) };
        say(!reply, ACK, seq, ack, 0);
    }
    if rng.one_in(3) {
        say(false, RST | ACK, there, back, 0);
    } else {
        say(false, FIN | ACK, there, back, 0);
        there = there.wrapping_add(1);
        say(true, FIN | ACK, back, there, 0);
        back = back.wrapping_add(1);
        say(false, ACK, there, back, 0);
    }
    Conversation { segments, next: 0 }
}

fn segment_of(
    ipv6: bool,
    from: (u8, u16),
    to: (u8, u16),
    (flags, seq, ack): (u8, u32, u32),
    len: usize,
) -> Vec<u8> {
    let mut tcp = [from.1.to_be_bytes(), to.1.to_be_bytes()].concat();
    tcp.extend([seq.to_be_bytes(), ack.to_be_bytes()].concat());
    tcp.extend([0x50, flags, 0x20, 0, 0, 0, 0, 0]);
    tcp.extend(std::iter::repeat_n(0x61, len));
    let mut frame = vec![2, 0, 0, 0, 0, to.0 & 3, 2, 0, 0, 0, 0, from.0 & 3];
    if ipv6 {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend((tcp.len() as u16).to_be_bytes());
        frame.extend([6, 64]);
        for host in [from.0, to.0] {
            frame.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host]);
        }
    } else {
        frame.extend([8, 0, 0x45, 0]);
        frame.extend((20 + tcp.len() as u16).to_be_bytes());
        frame.extend([0, 1, 0, 0, 64, 6, 0, 0, 10, 0, 0, from.0, 10, 0, 0, to.0]);
    }
    frame.extend(tcp);
    if let Some(view) = frame::view(&frame) {
        checksum::complete(&mut frame, &view, true);
    }
    frame
}

/// A random arrival.
pub fn arrival(rng: &mut Rng) -> Arrival {
    let port = rng.pick(&IN_PORTS);
    let mut frame = sound(rng);
    if rng.one_in(40) {
        let at = 14 + rng.index(frame.len() - 14);
        frame[at] ^= 1 << rng.below(8);
    }
    if rng.one_in(40) {
        frame.truncate(rng.index(frame.len() + 1));
    }
    if rng.one_in(12) {
        let n = 1 + rng.index(20);
        frame.extend(std::iter::repeat_n(0xee, n));
    }
    // Whatever is left has right checksums: a wrong one stays wrong, which is another test's matter.
    let keep_zero = rng.one_in(10);
    if let Some(view) = frame::view(&frame) {
        checksum::complete(&mut frame, &view, !keep_zero);
    }
    Arrival { port, frame }
}

fn sound(rng: &mut Rng) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, rng.below(4) as u8, 2, 0, 0, 0, 0, rng.below(4) as u8];
    if rng.one_in(12) {
        frame[..6].fill(0xff);
    }
    let n_tags = rng.pick(&[0, 0, 0, 0, 1, 1, 2]);
    for _ in 0..n_tags {
        frame.extend(rng.pick(&[0x8100_u16, 0x8100, 0x88a8]).to_be_bytes());
        let dei = if rng.one_in(8) { 0x1000 } else { 0 };
        let tci = rng.pick(&[0_u16, 100, 100, 101, 0x2064]) | dei;
        frame.extend(tci.to_be_bytes());
    }
    let (eth_type, body) = match rng.below(16) {
        0 => (0x88b5, payload(rng)),
        1 => (0x0806, arp(rng)),
        2 => (0x8847, mpls(rng)),
        3 => (16, payload(rng)),
        4..=7 => (0x86dd, ipv6(rng)),
        _ => (0x0800, ipv4(rng)),
    };
    frame.extend(u16::to_be_bytes(eth_type));
    frame.extend(body);
    frame
}

fn payload(rng: &mut Rng) -> Vec<u8> {
    (0..16 + rng.below(40)).map(|_| rng.bits() as u8).collect()
}

fn arp(rng: &mut Rng) -> Vec<u8> {
    let mut arp = vec![0, 1, 8, 0, 6, 4, 0, 1 + rng.below(2) as u8];
    for _ in 0..2 {
        arp.extend([2, 0, 0, 0, 0, rng.below(4) as u8, 10, 0, 0, rng.below(8) as u8]);
    }
    arp
}

fn mpls(rng: &mut Rng) -> Vec<u8> {
    let n_labels = rng.pick(&[1, 1, 1, 2, 2, 3, 4]);
    let mut packet = Vec::new();
    for idx in 1..=n_labels {
        let bottom = if idx == n_labels { 0x100 } else { 0 };
        let (label, class) = (rng.below(4) as u32, rng.below(8) as u32);
        let ttl = rng.pick(&[64, 64, 2, 1]);
        packet.extend((label << 12 | class << 9 | bottom | ttl).to_be_bytes());
    }
    packet.extend(if rng.one_in(3) { payload(rng) } else { ipv4(rng) });
    packet
}

fn ipv4(rng: &mut Rng) -> Vec<u8> {
    let proto = rng.pick(&[6_u8, 6, 6, 17, 17, 132, 1, 1, 47, 0]);
    let segment = segment(rng, proto);
    let n_options = if rng.one_in(8) { 2 } else { 0 };
    let fragment = rng.pick(&[0_u16, 0, 0, 0, 0, 0, 0x4000, 0x2000, 0x2010, 0x0010]);
    let mut ip = vec![0x45 + n_options, rng.pick(&[0, 0, 4, 0x2e, 1, 0x28])];
    ip.extend((20 + 4 * u16::from(n_options) + segment.len() as u16).to_be_bytes());
    ip.extend((rng.bits() as u16).to_be_bytes());
    ip.extend(fragment.to_be_bytes());
    ip.extend([rng.pick(&[64, 64, 64, 2, 1, 0]), proto, 0, 0]);
    for _ in 0..2 {
        ip.extend([10, 0, 0, rng.below(8) as u8]);
    }
    ip.extend(std::iter::repeat_n(1, 4 * usize::from(n_options)));
    ip.extend(segment);
    ip
}

fn ipv6(rng: &mut Rng) -> Vec<u8> {
    let proto = rng.pick(&[6_u8, 6, 17, 17, 132, 58, 58, 47]);
    let segment = segment(rng, proto);
    let mut extensions = Vec::new();
    let mut next = proto;
    match rng.below(12) {
        0 => {
            extensions = vec![proto, 0, 1, 4, 0, 0, 0, 0];
            next = rng.pick(&[0, 60]);
        }
        1 | 2 => {
            let [high, low] = rng.pick(&[1_u16, 8 << 3, 8 << 3 | 1, 0]).to_be_bytes();
            extensions = vec![proto, 0, high, low, 0, 0, 0, 7];
            next = 44;
        }
        _ => {}
    }
    let mut ip = (6 << 28 | rng.pick(&[0_u32, 0x2e, 1]) << 20 | rng.below(3) as u32).to_be_bytes().to_vec();
    ip.extend(((extensions.len() + segment.len()) as u16).to_be_bytes());
    ip.extend([next, rng.pick(&[64, 64, 64, 2, 1, 0])]);
    for _ in 0..2 {
        ip.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, rng.below(8) as u8]);
    }
    ip.extend(extensions);
    ip.extend(segment);
    ip
}

fn segment(rng: &mut Rng, proto: u8) -> Vec<u8> {
    let port = |rng: &mut Rng| [0, rng.below(4) as u8];
    let mut bytes = [port(rng), port(rng)].concat();
    match proto {
        6 => {
            bytes.extend([0, 0, 0, 7, 0, 0, 0, 9, 0x50, rng.pick(&[2, 0x10, 0x12, 4]), 0x20, 0, 0, 0, 0, 0]);
            bytes.extend(payload(rng));
        }
        17 => {
            let payload = payload(rng);
            bytes.extend((8 + payload.len() as u16).to_be_bytes());
            bytes.extend([0, 0]);
            bytes.extend(payload);
        }
        132 => {
            // Tag and first chunk: an association begins, is answered, carries data.
            let (kind, tag) = rng.pick(&[(1, 0), (2, 7), (0, 7), (11, 7), (7, 9), (0, 9)]);
            let asked = if kind == 1 { 7 } else { 9 };
            bytes.extend([0, 0, 0, tag, 0, 0, 0, 0, kind, 0, 0, 20, 0, 0, 0, asked]);
            bytes.extend(payload(rng));
        }
        1 => {
            bytes = vec![rng.pick(&[0, 8, 8, 3]), rng.below(3) as u8, 0, 0, 0, 1, 0, 2];
            bytes.extend(payload(rng));
        }
        58 => bytes = icmpv6(rng),
        _ => bytes = payload(rng),
    }
    bytes
}

fn icmpv6(rng: &mut Rng) -> Vec<u8> {
    let kind = rng.pick(&[128_u8, 129, 135, 136, 136, 1]);
    let mut bytes = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    if matches!(kind, 135 | 136) {
        bytes.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, rng.below(8) as u8]);
        bytes.extend([if kind == 135 { 1 } else { 2 }, 1, 2, 0, 0, 0, 0, rng.below(4) as u8]);
    } else {
        bytes.extend(payload(rng));
    }
    bytes
}
