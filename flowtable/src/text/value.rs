//! Values of fields: numbers, addresses, flags, with or without a mask. Each form is
//! printed as it is read.

use std::{
    fmt::Write as _,
    net::{Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use super::{TextError, cursor::Piece, names};
use crate::{
    field::{Field, Format},
    key::{ct_state, low_bits},
    port::PortTable,
    types::MacAddr,
};

type Flags = &'static [(&'static str, u16)];

const CT_STATE: Flags = &[
    ("new", ct_state::NEW),
    ("est", ct_state::EST),
    ("rel", ct_state::REL),
    ("rpl", ct_state::RPL),
    ("inv", ct_state::INV),
    ("trk", ct_state::TRK),
    ("snat", ct_state::SNAT),
    ("dnat", ct_state::DNAT),
];
const TCP_FLAGS: Flags = &[
    ("fin", 0x01),
    ("syn", 0x02),
    ("rst", 0x04),
    ("psh", 0x08),
    ("ack", 0x10),
    ("urg", 0x20),
    ("ece", 0x40),
    ("cwr", 0x80),
    ("ns", 0x100),
];
const TUN_FLAGS: Flags = &[("oam", 1), ("df", 2), ("csum", 4), ("key", 8)];
/// Name, bits, mask.
const FRAG: &[(&str, u128, u128)] =
    &[("no", 0, 3), ("yes", 1, 1), ("first", 1, 3), ("later", 3, 3), ("not_later", 0, 2)];
/// A decimal number, or a hexadecimal one with `0x`.
pub(super) fn number(text: Piece<'_>) -> Result<u128, TextError> {
    let text = text.trim();
    let hex = text.text.strip_prefix("0x").or_else(|| text.text.strip_prefix("0X"));
    let (digits, radix) = hex.map_or((text.text, 10), |digits| (digits, 16));
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return Err(text.error(format!("`{}` is not a number", text.text)));
    }
    let too_large = |_| text.error(format!("`{}` is too large", text.text));
    u128::from_str_radix(digits, radix).map_err(too_large)
}

/// A number from 0 to `max`.
pub(super) fn number_up_to(text: Piece<'_>, max: u128) -> Result<u128, TextError> {
    let value = number(text)?;
    if value <= max { Ok(value) } else { Err(text.error(format!("{} is more than {max}", text.trim().text))) }
}

/// A number that fits an integer type.
pub(super) fn integer<T: TryFrom<u128>>(text: Piece<'_>) -> Result<T, TextError> {
    let too_large = |_| text.error(format!("`{}` is too large", text.trim().text));
    T::try_from(number(text)?).map_err(too_large)
}

/// Value and mask of a field, as the field's format has them.
pub(super) fn value_and_mask(
    field: Field,
    text: Piece<'_>,
    ports: &PortTable,
) -> Result<(u128, u128), TextError> {
    let info = field.info();
    let all = field.all_bits();
    if let Some(flags) = flags_of(info.format)
        && !text.text.starts_with(|c: char| c.is_ascii_digit())
    {
        return parse_flags(text, flags, all);
    }
    if info.format == Format::Frag
        && let Some((_, value, mask)) = FRAG.iter().find(|(name, ..)| *name == text.trim().text)
    {
        return Ok((*value, *mask));
    }
    let (value, mask) = match text.split_once("/") {
        Some((value, mask)) => (value, Some(mask)),
        None => (text, None),
    };
    let value_bits = one_value(field, value, ports)?;
    let Some(mask) = mask else { return Ok((value_bits, all)) };
    let mask_bits = match info.format {
        Format::Ipv4 | Format::Ipv6 if mask.text.trim().chars().all(|c| c.is_ascii_digit()) => {
            let len = number_up_to(mask, info.n_bits.into())?;
            all & !low_bits(info.n_bits - len as u32)
        }
        _ => one_value(field, mask, ports)?,
    };
    if !info.maskable && mask_bits != all {
        return Err(mask.error(format!("`{field}` can only be used whole, without a mask")));
    }
    Ok((value_bits & mask_bits, mask_bits))
}

/// The value of a field, without a mask.
pub(super) fn one_value(field: Field, text: Piece<'_>, ports: &PortTable) -> Result<u128, TextError> {
    match field.info().format {
        Format::Mac => {
            let mac: MacAddr = address(text, "a MAC address, like 0a:00:00:00:00:01")?;
            Ok(mac.octets().iter().fold(0, |bits, byte| bits << 8 | u128::from(*byte)))
        }
        Format::Ipv4 => {
            let ip: Ipv4Addr = address(text, "an IPv4 address, like 10.0.0.1")?;
            Ok(u32::from(ip).into())
        }
        Format::Ipv6 => {
            let ip: Ipv6Addr = address(text, "an IPv6 address, like fd00::1")?;
            Ok(ip.into())
        }
        Format::Port => Ok(names::port(text, ports)?.get().into()),
        Format::PacketType => packet_type(text),
        Format::Frag if number(text).is_err() => {
            let words = FRAG.iter().map(|(name, ..)| *name);
            Err(text.misspelt("expected no, yes, first, later or not_later", words))
        }
        Format::Decimal
        | Format::Hex
        | Format::Frag
        | Format::CtState
        | Format::TcpFlags
        | Format::TunFlags => number_up_to(text, largest(field)),
    }
}

/// Largest value of a field. Types and codes of ICMP have one byte, though they share
/// the storage of L4 ports; port numbers have two, though their field has four.
pub(super) fn largest(field: Field) -> u128 {
    match field {
        Field::IcmpType | Field::IcmpCode | Field::Icmpv6Type | Field::Icmpv6Code => 0xff,
        Field::InPort | Field::ActsetOutput => 0xffff,
        _ => field.all_bits(),
    }
}

fn address<T: FromStr>(text: Piece<'_>, what: &str) -> Result<T, TextError> {
    let text = text.trim();
    text.text.parse().map_err(|_| text.error(format!("`{}` is not {what}", text.text)))
}

/// `(name space,type)`, or both in one number.
fn packet_type(text: Piece<'_>) -> Result<u128, TextError> {
    let text = text.trim();
    let inner = text.text.strip_prefix('(').and_then(|inner| inner.strip_suffix(')'));
    let Some(inner) = inner else { return number_up_to(text, u32::MAX.into()) };
    let inner = Piece { text: inner, at: text.at + 1 };
    let Some((space, kind)) = inner.split_once(",") else {
        return Err(inner.error("expected (name space,type)"));
    };
    Ok(number_up_to(space, 0xffff)? << 16 | number_up_to(kind, 0xffff)?)
}

fn flags_of(format: Format) -> Option<Flags> {
    match format {
        Format::CtState => Some(CT_STATE),
        Format::TcpFlags => Some(TCP_FLAGS),
        Format::TunFlags => Some(TUN_FLAGS),
        _ => None,
    }
}

/// `+new-est`: those matter; `new|est`: just these are set.
fn parse_flags(text: Piece<'_>, flags: Flags, all: u128) -> Result<(u128, u128), TextError> {
    let bit = |name: Piece<'_>| {
        let known = flags.iter().find(|(known, _)| *known == name.text);
        let names = flags.iter().map(|(name, _)| *name);
        known.map(|(_, bit)| u128::from(*bit)).ok_or_else(|| {
            let all = names.clone().collect::<Vec<_>>().join(", ");
            name.misspelt(format!("there is no flag `{}`; there are {all}", name.text), names)
        })
    };
    let text = text.trim();
    if !text.text.starts_with(['+', '-']) {
        let (mut value, mut rest) = (0, Some(text));
        while let Some(part) = rest {
            let (name, behind) = part.split_once("|").map_or((part, None), |(name, rest)| (name, Some(rest)));
            value |= bit(name.trim())?;
            rest = behind;
        }
        return Ok((value, all));
    }
    let (mut value, mut mask) = (0, 0);
    let mut start = 0;
    while start < text.text.len() {
        let behind = &text.text[start + 1..];
        let len = behind.find(['+', '-']).unwrap_or(behind.len());
        let name = Piece { text: &behind[..len], at: text.at + start + 1 };
        let bit = bit(name.trim())?;
        if mask & bit != 0 {
            return Err(name.error(format!("the flag `{}` is there twice", name.text)));
        }
        mask |= bit;
        if text.text[start..].starts_with('+') {
            value |= bit;
        }
        start += 1 + len;
    }
    Ok((value, mask))
}

/// A field's value under a mask, as [`value_and_mask`] reads it.
pub(super) fn print(field: Field, value: u128, mask: u128) -> String {
    let info = field.info();
    let whole = mask == field.all_bits();
    match info.format {
        Format::Mac if whole => mac(value),
        Format::Mac => format!("{}/{}", mac(value), mac(mask)),
        Format::Ipv4 => masked_address(field, value, mask, |bits| Ipv4Addr::from(bits as u32).to_string()),
        Format::Ipv6 => masked_address(field, value, mask, |bits| Ipv6Addr::from(bits).to_string()),
        Format::Port if whole => names::print_port(value),
        Format::PacketType if whole => format!("({},{:#x})", value >> 16, value & 0xffff),
        Format::Frag => match FRAG.iter().find(|(_, v, m)| (*v, *m) == (value, mask)) {
            Some((name, ..)) => (*name).to_owned(),
            None => hex(field, value, mask),
        },
        Format::CtState | Format::TcpFlags | Format::TunFlags => {
            let flags = flags_of(info.format).unwrap_or_default();
            print_flags(flags, value, mask).unwrap_or_else(|| hex(field, value, mask))
        }
        Format::Decimal if whole => value.to_string(),
        Format::Decimal | Format::Hex | Format::Port | Format::PacketType => hex(field, value, mask),
    }
}

fn hex(field: Field, value: u128, mask: u128) -> String {
    let width = match field {
        Field::EthType | Field::VlanTci | Field::VlanTpid | Field::CvlanTci | Field::CvlanTpid => 6,
        _ => 0,
    };
    if mask == field.all_bits() {
        format!("{value:#0width$x}")
    } else {
        format!("{value:#0width$x}/{mask:#0width$x}")
    }
}

/// State bits of a connection by their names, with `,` or `|` between them. Those that
/// belong to each other must be there together.
pub(super) fn ct_state(text: Piece<'_>) -> Result<u16, TextError> {
    let mut bits = 0;
    let mut at = 0;
    for word in text.text.split([',', '|']) {
        let piece = Piece { text: word, at: text.at + at }.trim();
        at += word.len() + 1;
        let found = CT_STATE.iter().find(|(name, _)| *name == piece.text);
        let Some((_, bit)) = found else {
            let names = CT_STATE.iter().map(|(name, _)| *name);
            return Err(piece.misspelt(format!("a connection has no state `{}`", piece.text), names));
        };
        bits |= bit;
    }
    if bits & ct_state::TRK == 0 {
        return Err(text.error("what the tracker has seen is `trk`, and perhaps more: `trk,new`"));
    }
    if bits & ct_state::NEW != 0 && bits & ct_state::EST != 0 {
        return Err(text.error("a connection is not both `new` and `est`"));
    }
    Ok(bits)
}

/// State bits of a connection by their names.
pub(super) fn print_ct_state(bits: u16) -> String {
    let names: Vec<_> = CT_STATE.iter().filter(|(_, bit)| bits & bit != 0).map(|(name, _)| *name).collect();
    names.join("|")
}

/// Flags as `+a-b`, when the mask has only bits with names.
pub(super) fn print_flags(flags: &[(&str, u16)], value: u128, mask: u128) -> Option<String> {
    let mut text = String::new();
    let mut named = 0;
    for (name, bit) in flags {
        let bit = u128::from(*bit);
        named |= bit;
        if mask & bit != 0 {
            // Writing to a string cannot fail.
            let _ = write!(text, "{}{name}", if value & bit != 0 { '+' } else { '-' });
        }
    }
    (mask & !named == 0 && mask != 0).then_some(text)
}

/// Connection state, TCP flags or tunnel flags as `+a-b`.
pub(super) fn print_named_flags(field: Field, value: u128, mask: u128) -> Option<String> {
    print_flags(flags_of(field.info().format)?, value, mask)
}

fn masked_address(field: Field, value: u128, mask: u128, print: impl Fn(u128) -> String) -> String {
    let n_bits = field.info().n_bits;
    let len = mask.count_ones();
    let is_prefix = mask == field.all_bits() & !low_bits(n_bits - len);
    if mask == field.all_bits() {
        print(value)
    } else if is_prefix {
        format!("{}/{len}", print(value))
    } else {
        format!("{}/{}", print(value), print(mask))
    }
}

fn mac(bits: u128) -> String {
    let [.., a, b, c, d, e, f] = bits.to_be_bytes();
    MacAddr::new([a, b, c, d, e, f]).to_string()
}
