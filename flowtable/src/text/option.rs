//! Which Geneve options have fields, as `ovs-ofctl add-tlv-map` writes it:
//! `{class=0xffff,type=0x80,len=4}->tun_metadata1`.

use super::{
    TextError,
    cursor::{Cursor, Piece},
    value,
};
use crate::tunnel::{GeneveOption, OptionChange};

const ITEMS: &[&str] = &["class", "type", "len"];
const FIELD: &str = "tun_metadata";
const FORM: &str = "expected an option such as {class=0xffff,type=0x80,len=4}->tun_metadata1";

/// Reads an option and its field.
///
/// # Errors
/// Says where the text is wrong, and why.
pub fn parse_mapped_option(text: &str) -> Result<OptionChange, TextError> {
    let (option, field) = read(text)?;
    let field = field.ok_or_else(|| Piece { text: "", at: text.len() }.error(FORM))?;
    let idx = field.text.strip_prefix(FIELD).and_then(|idx| idx.parse().ok());
    let idx = idx.ok_or_else(|| field.misspelt("expected tun_metadata0 to 63", [FIELD]))?;
    let Described { class, kind, len } = option;
    Ok(OptionChange::Map(GeneveOption { class, kind, len: len.unwrap_or(4), idx }))
}

/// Reads an option that shall have no field any more; length and field need not be said.
///
/// # Errors
/// Says where the text is wrong, and why.
pub fn parse_unmapped_option(text: &str) -> Result<OptionChange, TextError> {
    let (Described { class, kind, .. }, _) = read(text)?;
    Ok(OptionChange::Unmap { class, kind })
}

struct Described {
    class: u16,
    kind: u8,
    len: Option<usize>,
}

fn read(text: &str) -> Result<(Described, Option<Piece<'_>>), TextError> {
    let whole = Piece::whole(text).trim();
    let (before, rest) = whole.split_once("{").ok_or_else(|| whole.error(FORM))?;
    let (inside, behind) = rest.split_once("}").ok_or_else(|| rest.error(FORM))?;
    if !before.trim().text.is_empty() {
        return Err(before.error(FORM));
    }
    let field = match behind.trim().split_once("->") {
        Some((before, field)) if before.text.is_empty() => Some(field.trim()),
        None if behind.trim().text.is_empty() => None,
        _ => return Err(behind.error(FORM)),
    };
    let (mut class, mut kind, mut len) = (None, None, None);
    let mut cursor = Cursor::new(inside);
    while let Some(name) = cursor.name()? {
        let text = cursor.form()?.value(name)?;
        match name.text {
            "class" => class = Some(value::integer(text)?),
            "type" => kind = Some(value::integer(text)?),
            "len" => len = Some(value::integer(text)?),
            _ => return Err(name.misspelt("unknown item", ITEMS.iter().copied())),
        }
    }
    let missing = || inside.error("an option has a class and a type");
    Ok((Described { class: class.ok_or_else(missing)?, kind: kind.ok_or_else(missing)?, len }, field))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tunnel::OVN_OPTION;

    #[test]
    fn what_is_printed_reads_back() {
        let option = GeneveOption { class: 0xffff, kind: 0x81, len: 4, idx: 63 };
        for option in [option, OVN_OPTION] {
            assert_eq!(parse_mapped_option(&option.to_string()), Ok(OptionChange::Map(option)));
            let unmapped = OptionChange::Unmap { class: option.class, kind: option.kind };
            assert_eq!(parse_unmapped_option(&option.to_string()), Ok(unmapped));
        }
        let unmapped = parse_unmapped_option(" {class=1, type=2} ");
        assert_eq!(unmapped, Ok(OptionChange::Unmap { class: 1, kind: 2 }));
    }

    #[test]
    fn mistakes_are_told_where_they_are() {
        let cases = [
            ("", 0),
            ("class=1,type=2", 0),
            ("{class=1,type=2", 1),
            ("x{class=1,type=2}->tun_metadata1", 0),
            ("{class=1,type=2}", 16),
            ("{class=1}->tun_metadata1", 1),
            ("{class=1,typ=2}->tun_metadata1", 9),
            ("{class=65536,type=2}->tun_metadata1", 7),
            ("{class=1,type=2}->tun_metadat1", 18),
            ("{class=1,type=2}=>tun_metadata1", 16),
        ];
        for (text, at) in cases {
            let error = parse_mapped_option(text).unwrap_err();
            assert_eq!(error.at, at, "{text}: {error}");
        }
    }
}
