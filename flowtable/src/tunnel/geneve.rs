//! The Geneve header and its options (RFC 8926 §3.4, §3.5).

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    network_endian::{U16, U32},
};

use super::{
    Decoded, GroupPolicy, TunnelSpec,
    option_map::{OptionMap, Options, VALUE_LEN},
    tun_flags,
};
use crate::wire::ethertype;

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
pub(super) fn decode(payload: &[u8], map: &OptionMap) -> Option<Decoded> {
    let (header, rest) = Header::ref_from_prefix(payload).ok()?;
    let options_len = usize::from(header.version_len & 0x3f) * 4;
    let (mut options, _) = rest.split_at_checked(options_len)?;
    if header.version_len >> 6 != 0 || header.protocol != ethertype::ETHERNET {
        return None;
    }
    let mut known = Options::NONE;
    while !options.is_empty() {
        let (option, rest) = OptionHeader::ref_from_prefix(options).ok()?;
        let (value, rest) = rest.split_at_checked(usize::from(option.words & 0x1f) * 4)?;
        match map.find(option.class.get(), option.kind) {
            Some(mapped) => known.insert(mapped, value)?,
            None if option.kind & CRITICAL != 0 => return None,
            None => {}
        }
        options = rest;
    }
    Some(Decoded {
        len: size_of::<Header>() + options_len,
        vni: header.vni.get() >> 8,
        has_key: true,
        has_checksum: false,
        oam: header.flags & FLAG_OAM != 0,
        options: known,
        policy: GroupPolicy::default(),
    })
}

/// Appends the header and those options of `spec` that the map knows.
pub(super) fn encode(spec: &TunnelSpec, map: &OptionMap, out: &mut Vec<u8>) {
    let value_of = |idx: usize| spec.tun_metadata.get(idx * VALUE_LEN..(idx + 1) * VALUE_LEN);
    let sent = || map.iter().filter(|option| spec.tun_metadata_present & option.bit() != 0);
    let words = 2 * sent().count() as u8;
    let critical = if sent().any(|option| option.kind & CRITICAL != 0) { FLAG_CRITICAL } else { 0 };
    let oam = if spec.flags & tun_flags::OAM != 0 { FLAG_OAM } else { 0 };
    let header = Header {
        version_len: words,
        flags: oam | critical,
        protocol: ethertype::ETHERNET.into(),
        vni: (spec.vni.get() << 8).into(),
    };
    out.extend_from_slice(header.as_bytes());
    for (option, value) in sent().filter_map(|option| Some((option, value_of(option.idx)?))) {
        let header = OptionHeader { class: option.class.into(), kind: option.kind, words: 1 };
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(value);
    }
}
