//! What sets hold, and which fields that suits.

use std::fmt;

use crate::field::{Field, Format};

/// What a set holds, and so which fields it can stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SetKind {
    /// IPv4 addresses.
    Ipv4,
    /// IPv6 addresses.
    Ipv6,
    /// MAC addresses.
    Mac,
    /// TCP, UDP or SCTP ports, types and codes of ICMP.
    Port,
    /// Other numbers: ports of the switch, VLANs, registers, tunnel keys, marks.
    Number,
}

impl SetKind {
    /// All kinds.
    pub const ALL: &[Self] = &[Self::Ipv4, Self::Ipv6, Self::Mac, Self::Port, Self::Number];

    /// Name in text.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::Mac => "mac",
            Self::Port => "port",
            Self::Number => "number",
        }
    }

    /// The kind with this name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }

    /// Bits of a value.
    pub const fn n_bits(self) -> u32 {
        match self {
            Self::Ipv4 => 32,
            Self::Mac => 48,
            Self::Port => 16,
            Self::Ipv6 | Self::Number => 128,
        }
    }

    /// The kind of a field's values; `None` where they have no order: flags and the like.
    pub fn of(field: Field) -> Option<Self> {
        let info = field.info();
        match info.format {
            Format::Ipv4 => Some(Self::Ipv4),
            Format::Ipv6 => Some(Self::Ipv6),
            Format::Mac => Some(Self::Mac),
            // Its lowest bits are another field's.
            _ if field == Field::NwTos => None,
            Format::Decimal if is_transport_port(field) => Some(Self::Port),
            Format::Decimal | Format::Hex | Format::Port => Some(Self::Number),
            Format::Frag | Format::CtState | Format::TcpFlags | Format::TunFlags | Format::PacketType => None,
        }
    }
}

impl fmt::Display for SetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Types and codes of ICMP share the storage of ports.
fn is_transport_port(field: Field) -> bool {
    let place = |field: Field| (field.info().offset, field.info().n_bits);
    [Field::TcpSrc, Field::TcpDst, Field::CtTpSrc, Field::CtTpDst].map(place).contains(&place(field))
}
