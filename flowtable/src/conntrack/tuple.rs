//! Which packets belong to one direction of a connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::wire::ip_proto;

/// Addresses, protocol and ports of one direction, within a zone.
///
/// For ICMP the source port is the identifier and the destination port is type and
/// code: a direction has the type of its requests or of their answers. Protocols
/// without ports have zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tuple {
    /// Name space.
    pub zone: u16,
    /// The addresses are IPv6; IPv4 addresses are in the low 32 bits.
    pub ipv6: bool,
    /// IP protocol.
    pub proto: u8,
    /// Source address.
    pub src: u128,
    /// Destination address.
    pub dst: u128,
    /// Source port or ICMP identifier.
    pub src_port: u16,
    /// Destination port or ICMP type (high byte) and code.
    pub dst_port: u16,
}

impl Tuple {
    /// The tuple of the answers.
    #[must_use]
    pub fn reversed(&self) -> Self {
        let (src_port, dst_port) = if self.is_icmp() {
            let answer = answer_to(self.ipv6, self.icmp_type()).unwrap_or(self.icmp_type());
            (self.src_port, u16::from(answer) << 8 | self.dst_port & 0xff)
        } else {
            (self.dst_port, self.src_port)
        };
        Self { src: self.dst, dst: self.src, src_port, dst_port, ..*self }
    }

    /// ICMP or ICMPv6.
    pub fn is_icmp(&self) -> bool {
        self.proto == if self.ipv6 { ip_proto::ICMPV6 } else { ip_proto::ICMP }
    }

    /// Type of an ICMP message.
    pub fn icmp_type(&self) -> u8 {
        (self.dst_port >> 8) as u8
    }

    /// Source and destination port as the key has them: type and code for ICMP.
    pub fn key_ports(&self) -> (u16, u16) {
        if self.is_icmp() {
            (self.icmp_type().into(), self.dst_port & 0xff)
        } else {
            (self.src_port, self.dst_port)
        }
    }

    /// An address as it is written.
    pub fn address(&self, bits: u128) -> IpAddr {
        if self.ipv6 { Ipv6Addr::from_bits(bits).into() } else { Ipv4Addr::from_bits(bits as u32).into() }
    }

    /// A hash that nobody can foresee who does not know the secrets.
    pub(super) fn hash(&self, secrets: &[u64; 4]) -> u32 {
        let ports = u64::from(self.src_port) << 48
            | u64::from(self.dst_port) << 32
            | u64::from(self.zone) << 16
            | u64::from(self.proto) << 8
            | u64::from(self.ipv6);
        let mut sum = fold(self.src as u64 ^ secrets[0], self.dst as u64 ^ secrets[1]);
        if self.ipv6 {
            sum ^= fold((self.src >> 64) as u64 ^ secrets[2], (self.dst >> 64) as u64 ^ secrets[3]);
        }
        (fold(sum ^ secrets[2], ports ^ secrets[3]) >> 16) as u32
    }
}

/// The ICMP type that answers a request; requests alone begin connections.
pub(super) fn answer_to(ipv6: bool, kind: u8) -> Option<u8> {
    match (ipv6, kind) {
        (false, 8) => Some(0),
        (false, 0) => Some(8),
        (false, 13 | 15 | 17) => Some(kind + 1),
        (false, 14 | 16 | 18) => Some(kind - 1),
        (true, 128) => Some(129),
        (true, 129) => Some(128),
        _ => None,
    }
}

/// The message is a request, not an answer.
pub(super) fn is_request(ipv6: bool, kind: u8) -> bool {
    if ipv6 { kind == 128 } else { matches!(kind, 8 | 13 | 15 | 17) }
}

fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}
