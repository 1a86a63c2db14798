//! The Geneve header and its options (RFC 8926 §3.4, §3.5).

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    network_endian::{U16, U32},
};

use super::{Decoded, GroupPolicy, TunnelSpec, tun_flags};
use crate::wire::ethertype;

/// An option that has a `tun_metadata` field of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GeneveOption {
    /// Class: who defined it.
    pub class: u16,
    /// Type; the high bit says "critical".
    pub kind: u8,
    /// Bytes of the value.
    pub len: usize,
    /// Which of `tun_metadata0..63` holds it.
    pub idx: usize,
}

impl GeneveOption {
    /// Its bit in `tun_metadata_present`.
    pub const fn bit(self) -> u64 {
        1 << self.idx
    }
}

/// OVN's option: bit 31 reserved, bits 16 to 30 logical input port, bits 0 to 15 logical
/// output port (ovn-architecture(7), "Tunnel Encapsulations").
pub const OVN_OPTION: GeneveOption = GeneveOption { class: 0x0102, kind: 0x80, len: 4, idx: 0 };

const CRITICAL: u8 = 0x80;
const FLAG_OAM: u8 = 0x80;
const FLAG_CRITICAL: u8 = 0x40;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    /// Version (2 bits), length of the options in words (6 bits).
    version_len: u8,
    flags: u8,
    protocol: U16,
    /// Network identifier (24 bits), reserved.
    vni: U32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct OptionHeader {
    class: U16,
    kind: u8,
    /// Reserved (3 bits), length of the value in words (5 bits).
    words: u8,
}

/// Nothing when the header is cut off, of another version, carries something other than
/// Ethernet, or has options that overrun it, repeat a known one or are critical and
/// unknown. Critical options are told by their type alone, whatever the header's C bit
/// says.
pub(super) fn decode(payload: &[u8]) -> Option<Decoded> {
    let (header, rest) = Header::ref_from_prefix(payload).ok()?;
    let options_len = usize::from(header.version_len & 0x3f) * 4;
    let (mut options, _) = rest.split_at_checked(options_len)?;
    if header.version_len >> 6 != 0 || header.protocol != ethertype::ETHERNET {
        return None;
    }
    let mut ovn = None;
    while !options.is_empty() {
        let (option, rest) = OptionHeader::ref_from_prefix(options).ok()?;
        let (value, rest) = rest.split_at_checked(usize::from(option.words & 0x1f) * 4)?;
        if option.class == OVN_OPTION.class && option.kind == OVN_OPTION.kind {
            let first = ovn.replace(<[u8; OVN_OPTION.len]>::try_from(value).ok()?).is_none();
            if !first {
                return None;
            }
        } else if option.kind & CRITICAL != 0 {
            return None;
        }
        options = rest;
    }
    Some(Decoded {
        len: size_of::<Header>() + options_len,
        vni: header.vni.get() >> 8,
        oam: header.flags & FLAG_OAM != 0,
        ovn,
        policy: GroupPolicy::default(),
    })
}

/// Appends the header and those options of `spec` that are assigned.
pub(super) fn encode(spec: &TunnelSpec, out: &mut Vec<u8>) {
    let at = OVN_OPTION.idx * 4;
    let ovn = (spec.tun_metadata_present & OVN_OPTION.bit() != 0)
        .then(|| spec.tun_metadata.get(at..at + OVN_OPTION.len))
        .flatten();
    let (words, critical) = if ovn.is_some() { (2, FLAG_CRITICAL) } else { (0, 0) };
    let oam = if spec.flags & tun_flags::OAM != 0 { FLAG_OAM } else { 0 };
    let header = Header {
        version_len: words,
        flags: oam | critical,
        protocol: ethertype::ETHERNET.into(),
        vni: (spec.vni.get() << 8).into(),
    };
    out.extend_from_slice(header.as_bytes());
    if let Some(value) = ovn {
        let option = OptionHeader { class: OVN_OPTION.class.into(), kind: OVN_OPTION.kind, words: 1 };
        out.extend_from_slice(option.as_bytes());
        out.extend_from_slice(value);
    }
}
