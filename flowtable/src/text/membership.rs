//! Ranges and sets in matches, which Open vSwitch does not have: `tp_dst=1000-2000`,
//! `nw_src=10.0.0.5-10.0.0.77`, `eth_src=$printers`.

use super::{TextError, cursor::Piece, value};
use crate::{
    field::{Field, Format},
    flow::Values,
    port::PortTable,
    set::{SetKind, SetName, ValueRange},
};

/// The values that a text names by a range or a set; `None` where it does neither.
pub(super) fn parse(field: Field, text: Piece<'_>, ports: &PortTable) -> Result<Option<Values>, TextError> {
    let text = text.trim();
    if let Some(name) = text.text.strip_prefix('$') {
        let name = Piece { text: name, at: text.at + 1 };
        if SetKind::of(field).is_none() {
            return Err(text.error(format!("`{field}` cannot be matched by a set{}", better_field(field))));
        }
        return set_name(name).map(|name| Some(Values::Set(name)));
    }
    let Some((first, last)) = text.split_once("-").filter(|bounds| is_range(field, *bounds)) else {
        return Ok(None);
    };
    if SetKind::of(field).is_none() {
        return Err(text.error(format!("`{field}` cannot be matched by a range{}", better_field(field))));
    }
    let (first, last) = (value::one_value(field, first, ports)?, value::one_value(field, last, ports)?);
    let range = ValueRange::new(first, last);
    range.map(|range| Some(Values::Range(range))).ok_or_else(|| text.error("the range ends before it begins"))
}

/// The name of a set, without the `$`.
pub(super) fn set_name(text: Piece<'_>) -> Result<SetName, TextError> {
    SetName::new(text.text).map_err(|error| text.error(error.to_string()))
}

/// Prints values as they are read.
pub(super) fn print(field: Field, values: &Values) -> String {
    let one = |bits| match field.info().format {
        // A name might have a `-` in it.
        Format::Port => format!("{bits}"),
        _ => value::print(field, bits, field.all_bits()),
    };
    match values {
        Values::Range(range) => format!("{}-{}", one(range.first()), one(range.last())),
        Values::Set(name) => format!("${name}"),
    }
}

/// A `-` stands between two values, and is not part of a name or a flag.
fn is_range(field: Field, (first, last): (Piece<'_>, Piece<'_>)) -> bool {
    match field.info().format {
        Format::Port => value::number(first).is_ok() && value::number(last).is_ok(),
        Format::Frag | Format::CtState | Format::TcpFlags | Format::TunFlags | Format::PacketType => false,
        Format::Decimal | Format::Hex | Format::Mac | Format::Ipv4 | Format::Ipv6 => true,
    }
}

fn better_field(field: Field) -> &'static str {
    if field == Field::NwTos { "; `ip_dscp` can" } else { "" }
}
