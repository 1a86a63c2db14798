//! Control packets of bidirectional forwarding detection (RFC 5880 §4.1), and the frames
//! that carry them: Ethernet, IPv4 or IPv6, UDP (RFC 5881 §4).

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use flowtable::{checksum, types::MacAddr};

/// UDP port that sessions over one hop listen at (RFC 5881 §4).
pub const UDP_PORT: u16 = 3784;

/// Length of a control packet without authentication.
const LEN: usize = 24;
/// Lengths of the headers around it.
const ETH: usize = 14;
const IPV4: usize = 20;
const IPV6: usize = 40;
const UDP: usize = 8;
/// RFC 5881 §5: whoever is further than one hop away cannot send with this TTL.
const TTL: u8 = 255;
/// Source ports of RFC 5881 §4 start here.
const SOURCE_PORT: u16 = 49_152;
/// Ethernet address of the other end, where it is not known: that of Open vSwitch's sessions.
const ANY_END: MacAddr = MacAddr::new([0x00, 0x23, 0x20, 0, 0, 1]);
/// Ethernet address of this end within a tunnel, which nobody else hears.
const WITHIN: MacAddr = MacAddr::new([0x02, 0, 0, 0, 0, 1]);

/// State of a session (RFC 5880 §4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Its host ends it.
    AdminDown = 0,
    /// Nothing is heard.
    Down = 1,
    /// The other side is heard, and does not hear this one yet.
    Init = 2,
    /// Both are heard.
    Up = 3,
}

impl State {
    /// Name in texts.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AdminDown => "admin-down",
            Self::Down => "down",
            Self::Init => "init",
            Self::Up => "up",
        }
    }

    const fn of(bits: u8) -> Self {
        match bits {
            0 => Self::AdminDown,
            1 => Self::Down,
            2 => Self::Init,
            _ => Self::Up,
        }
    }
}

/// From where to where the packets of a session go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path {
    /// Ethernet addresses of this end and the other one.
    pub macs: (MacAddr, MacAddr),
    /// IP addresses, likewise.
    pub ips: (IpAddr, IpAddr),
}

impl Path {
    /// Within the tunnel from one address to another.
    pub const fn within_tunnel(from: IpAddr, to: IpAddr) -> Self {
        Self { macs: (WITHIN, ANY_END), ips: (from, to) }
    }

    /// By a link to whoever is at its other end, as Open vSwitch has it where nothing else is said.
    pub const fn by_link(own: MacAddr) -> Self {
        let ips = (IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1)), IpAddr::V4(Ipv4Addr::new(169, 254, 1, 0)));
        Self { macs: (own, ANY_END), ips }
    }
}

/// A control packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ControlPacket {
    /// Why the sender's session went down last.
    pub diagnostic: u8,
    /// The sender's state.
    pub state: State,
    /// The sender wants an answer.
    pub poll: bool,
    /// It is the answer.
    pub last: bool,
    /// So many intervals without a packet end the session.
    pub multiplier: u8,
    /// The sender's number of the session.
    pub mine: u32,
    /// The receiver's, as far as the sender knows; 0: it does not.
    pub yours: u32,
    /// The sender will not send more often.
    pub min_tx: Duration,
    /// The sender cannot take more often.
    pub min_rx: Duration,
}

impl ControlPacket {
    /// The message itself, without headers.
    pub fn encode(&self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[0] = 1 << 5 | self.diagnostic & 0x1f;
        bytes[1] = (self.state as u8) << 6 | u8::from(self.poll) << 5 | u8::from(self.last) << 4;
        bytes[2] = self.multiplier;
        bytes[3] = LEN as u8;
        bytes[4..8].copy_from_slice(&self.mine.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.yours.to_be_bytes());
        let micros = |time: Duration| u32::try_from(time.as_micros()).unwrap_or(u32::MAX).to_be_bytes();
        bytes[12..16].copy_from_slice(&micros(self.min_tx));
        bytes[16..20].copy_from_slice(&micros(self.min_rx));
        bytes
    }

    /// Reads a packet that RFC 5880 §6.8.6 does not have discarded.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; LEN] = bytes.first_chunk()?;
        let [head, flags, multiplier, len, ..] = *bytes;
        let word = |at: usize| {
            let word = bytes.get(at..at + 4).and_then(|word| word.try_into().ok());
            word.map_or(0, u32::from_be_bytes)
        };
        let (is_authenticated, is_multipoint) = (flags & 0x04 != 0, flags & 0x01 != 0);
        let packet = Self {
            diagnostic: head & 0x1f,
            state: State::of(flags >> 6),
            poll: flags & 0x20 != 0,
            last: flags & 0x10 != 0,
            multiplier,
            mine: word(4),
            yours: word(8),
            min_tx: Duration::from_micros(word(12).into()),
            min_rx: Duration::from_micros(word(16).into()),
        };
        let is_first = matches!(packet.state, State::Down | State::AdminDown);
        let is_sound = head >> 5 == 1
            && usize::from(len) == LEN
            && !is_authenticated
            && !is_multipoint
            && multiplier != 0
            && packet.mine != 0
            && (packet.yours != 0 || is_first);
        is_sound.then_some(packet)
    }

    /// The frame that takes it there. When the addresses are not of one family, the other end's
    /// counts as its own.
    pub fn frame(&self, path: &Path) -> Vec<u8> {
        let Path { macs: (own, other), ips } = path;
        let mut udp = Vec::with_capacity(UDP + LEN);
        udp.extend(SOURCE_PORT.to_be_bytes());
        udp.extend(UDP_PORT.to_be_bytes());
        udp.extend([0, (UDP + LEN) as u8, 0, 0]);
        udp.extend(self.encode());
        let (eth_type, ip) = match *ips {
            (IpAddr::V6(from), to) => {
                let to = if let IpAddr::V6(to) = to { to } else { from };
                // Over IPv6 there must be a checksum (RFC 8200 §8.1).
                let pseudo = checksum::pseudo_ipv6(from.to_bits(), to.to_bits(), 17, udp.len());
                let sum = match pseudo.bytes(&udp).checksum() {
                    0 => u16::MAX,
                    sum => sum,
                };
                udp[6..8].copy_from_slice(&sum.to_be_bytes());
                let mut ip = vec![0x6c, 0, 0, 0, 0, (UDP + LEN) as u8, 17, TTL];
                ip.extend(from.octets());
                ip.extend(to.octets());
                ([0x86, 0xdd], ip)
            }
            (IpAddr::V4(from), to) => {
                let to = if let IpAddr::V4(to) = to { to } else { from };
                // UDP over IPv4 needs no checksum (RFC 768); what is damaged on a link is dropped there.
                let mut ip = vec![0x45, 0xc0, 0, (IPV4 + UDP + LEN) as u8, 0, 0, 0x40, 0, TTL, 17, 0, 0];
                ip.extend(from.octets());
                ip.extend(to.octets());
                let sum = checksum::Sum::default().bytes(&ip).checksum().to_be_bytes();
                ip[10..12].copy_from_slice(&sum);
                ([0x08, 0x00], ip)
            }
        };
        [&other.octets()[..], &own.octets(), &eth_type, &ip, &udp].concat()
    }

    /// The packet in a frame, and who sent it.
    pub fn of_frame(frame: &[u8]) -> Option<(IpAddr, Self)> {
        let (eth_type, ip) = (frame.get(ETH - 2..ETH)?, frame.get(ETH..)?);
        let (from, header_len) = match (eth_type, ip.first()?) {
            ([0x08, 0x00], 0x45) => {
                let from: [u8; 4] = ip.get(12..16)?.try_into().ok()?;
                let is_plain = ip.get(8) == Some(&TTL) && ip.get(9) == Some(&17);
                (is_plain.then(|| IpAddr::from(from))?, IPV4)
            }
            ([0x86, 0xdd], version) if version >> 4 == 6 => {
                let from: [u8; 16] = ip.get(8..24)?.try_into().ok()?;
                let is_plain = ip.get(7) == Some(&TTL) && ip.get(6) == Some(&17);
                (is_plain.then(|| IpAddr::from(from))?, IPV6)
            }
            _ => return None,
        };
        Some((from, Self::decode(ip.get(header_len + UDP..)?)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn packet() -> ControlPacket {
        ControlPacket {
            diagnostic: 1,
            state: State::Up,
            poll: true,
            last: false,
            multiplier: 3,
            mine: 0x0102_0304,
            yours: 0x0506_0708,
            min_tx: Duration::from_millis(300),
            min_rx: Duration::from_millis(200),
        }
    }

    #[test]
    fn packets_are_as_rfc_5880_draws_them_and_come_back() {
        let bytes = packet().encode();
        assert_eq!(bytes[..12], [0x21, 0xe0, 3, 24, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(bytes[12..], [0, 4, 0x93, 0xe0, 0, 3, 0x0d, 0x40, 0, 0, 0, 0]);
        let (from, to) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let frame = packet().frame(&Path::within_tunnel(from, to));
        assert_eq!(ControlPacket::of_frame(&frame), Some((from, packet())));
        assert_eq!(checksum::Sum::default().bytes(&frame[14..34]).checksum(), 0, "IPv4 checksum");
        let (from, to) = ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap());
        let frame = packet().frame(&Path::within_tunnel(from, to));
        assert_eq!(ControlPacket::of_frame(&frame), Some((from, packet())));
        assert_eq!((frame.len(), &frame[12..22]), (86, &[0x86, 0xdd, 0x6c, 0, 0, 0, 0, 32, 17, 255][..]));
        let bits = |ip| if let IpAddr::V6(ip) = ip { ip.to_bits() } else { 0 };
        let pseudo = checksum::pseudo_ipv6(bits(from), bits(to), 17, 32);
        assert_eq!(pseudo.bytes(&frame[54..]).checksum(), 0, "UDP checksum");
    }

    #[test]
    fn what_is_none_is_discarded() {
        let frame =
            packet().frame(&Path::within_tunnel(Ipv4Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()));
        for len in 0..frame.len() {
            assert_eq!(ControlPacket::of_frame(&frame[..len]), None);
        }
        let at = ETH + IPV4 + UDP;
        let changes: [(usize, u8); 8] = [
            (ETH + 8, 254),
            (at, 0x41),
            (at + 1, 0xe4),
            (at + 1, 0xe1),
            (at + 2, 0),
            (at + 3, 23),
            (ETH + 9, 6),
            (ETH, 0x46),
        ];
        for (idx, value) in changes {
            let mut frame = frame.clone();
            frame[idx] = value;
            assert_eq!(ControlPacket::of_frame(&frame), None, "byte {idx} {value:#x}");
        }
        let strange = ControlPacket { mine: 0, ..packet() };
        assert_eq!(ControlPacket::decode(&strange.encode()), None);
        let strange = ControlPacket { yours: 0, ..packet() };
        assert_eq!(ControlPacket::decode(&strange.encode()), None, "up, and knows nobody");
        let first = ControlPacket { yours: 0, state: State::Down, ..packet() };
        assert_eq!(ControlPacket::decode(&first.encode()), Some(first));
    }
}
