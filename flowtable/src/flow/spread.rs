//! Choices by a hash of the packet: `multipath` and `bundle`.

use crate::{
    field::{Field, SubField},
    types::PortNo,
};

/// What is hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HashFields {
    /// Source MAC address.
    EthSrc,
    /// Addresses, VLAN, EtherType, IP protocol and ports of TCP and SCTP, both directions
    /// alike.
    SymmetricL4,
    /// IP addresses, protocol, ports of TCP and SCTP, both directions alike.
    SymmetricL3L4,
    /// The same with the ports of UDP.
    SymmetricL3L4Udp,
    /// IPv4 source.
    NwSrc,
    /// IPv4 destination.
    NwDst,
}

impl HashFields {
    /// All of them, with their names in flow text.
    pub const ALL: &[(&'static str, Self)] = &[
        ("eth_src", Self::EthSrc),
        ("symmetric_l4", Self::SymmetricL4),
        ("symmetric_l3l4", Self::SymmetricL3L4),
        ("symmetric_l3l4+udp", Self::SymmetricL3L4Udp),
        ("nw_src", Self::NwSrc),
        ("nw_dst", Self::NwDst),
    ];
}

/// How a hash becomes one of several links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MultipathAlgorithm {
    /// Hash modulo number of links.
    ModuloN,
    /// Equal ranges of the hash (RFC 2992).
    HashThreshold,
    /// Highest random weight: a change of the number moves the fewest flows (RFC 2991).
    HighestWeight,
    /// Hashes again until the result is small enough; the argument is the range.
    IterHash,
}

impl MultipathAlgorithm {
    /// All of them, with their names in flow text.
    pub const ALL: &[(&'static str, Self)] = &[
        ("modulo_n", Self::ModuloN),
        ("hash_threshold", Self::HashThreshold),
        ("hrw", Self::HighestWeight),
        ("iter_hash", Self::IterHash),
    ];
}

/// Writes the number of a link, chosen by a hash, to a sub-field.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Multipath {
    /// What is hashed.
    pub fields: HashFields,
    /// Part of the hash: other numbers make other choices.
    pub basis: u16,
    /// How to choose.
    pub algorithm: MultipathAlgorithm,
    /// Number of links, at least 1.
    pub n_links: u32,
    /// Argument of the algorithm.
    pub argument: u32,
    /// Where the number, from 0, is written.
    pub dst: SubField,
}

/// How a bundle chooses among its members that are up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BundleAlgorithm {
    /// The first one.
    ActiveBackup,
    /// By highest random weight.
    HighestWeight,
}

impl BundleAlgorithm {
    /// All of them, with their names in flow text.
    pub const ALL: &[(&'static str, Self)] =
        &[("active_backup", Self::ActiveBackup), ("hrw", Self::HighestWeight)];
}

/// Chooses one of several ports that are up.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Bundle {
    /// What is hashed.
    pub fields: HashFields,
    /// Part of the hash.
    pub basis: u16,
    /// How to choose.
    pub algorithm: BundleAlgorithm,
    /// The ports.
    pub members: Vec<PortNo>,
    /// Where the port's number is written; `None`: the packet is sent to it.
    pub dst: Option<SubField>,
}

impl HashFields {
    /// Fields that are hashed as they are; those of symmetric hashes depend on the packet.
    pub(crate) fn plain(self) -> Option<Field> {
        match self {
            Self::EthSrc => Some(Field::EthSrc),
            Self::NwSrc => Some(Field::NwSrc),
            Self::NwDst => Some(Field::NwDst),
            Self::SymmetricL4 | Self::SymmetricL3L4 | Self::SymmetricL3L4Udp => None,
        }
    }
}
