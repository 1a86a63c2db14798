//! Definitions and changes of named sets, of which Open vSwitch has none:
//! `web-hosts type=ipv4 10.0.0.1,10.1.0.0/16,10.2.0.5-10.2.0.9`.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{
    TextError,
    cursor::{Piece, SEPARATORS},
    membership::set_name,
    value,
};
use crate::{
    field::Field,
    key::low_bits,
    port::PortTable,
    set::{NamedSet, SetKind, SetName, ValueRange},
    table::SetChange,
    types::MacAddr,
};

/// What a text asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SetChangeKind {
    /// A set, added, with its members.
    Add,
    /// Other members for a set.
    Replace,
    /// More members for a set.
    Insert,
    /// Fewer members for a set.
    Remove,
    /// No set of that name any more.
    Delete,
}

/// Reads a set: `web-hosts type=ipv4 10.0.0.1,10.1.0.0/16,10.2.0.5-10.2.0.9`.
///
/// # Errors
/// Says where the text is wrong, and why.
pub fn parse_set(text: &str) -> Result<NamedSet, TextError> {
    let SetText { name, kind, members } = SetText::read(text)?;
    let kind = kind.ok_or_else(|| {
        let kinds = SetKind::ALL.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ");
        Piece { text: "", at: text.len() }.error(format!("a set needs a type, which is one of: {kinds}"))
    })?;
    let mut set = NamedSet::new(name, kind);
    for member in members {
        set.insert(parse_member(kind, member)?);
    }
    Ok(set)
}

/// Reads a change of a set. What is added or replaced names its type; members that come
/// and go need not: `web-hosts 10.0.0.7`.
///
/// # Errors
/// Says where the text is wrong, and why.
pub fn parse_set_change(kind: SetChangeKind, text: &str) -> Result<SetChange, TextError> {
    match kind {
        SetChangeKind::Add => return parse_set(text).map(SetChange::Add),
        SetChangeKind::Replace => return parse_set(text).map(SetChange::Replace),
        SetChangeKind::Insert | SetChangeKind::Remove | SetChangeKind::Delete => {}
    }
    let SetText { name: set, kind: named, members } = SetText::read(text)?;
    if kind == SetChangeKind::Delete {
        return match members.first() {
            Some(member) => Err(member.error("only the name of the set is needed to delete it")),
            None => Ok(SetChange::Delete(set)),
        };
    }
    let Some(first) = members.first() else {
        return Err(Piece { text: "", at: text.len() }.error("the members are missing"));
    };
    let member_kind = named.unwrap_or_else(|| likely_kind(first.text));
    let read = members.iter().map(|member| parse_member(member_kind, *member));
    let members = read.collect::<Result<Vec<_>, _>>()?;
    Ok(match kind {
        SetChangeKind::Remove => SetChange::Remove { set, kind: member_kind, members },
        _ => SetChange::Insert { set, kind: member_kind, members },
    })
}

/// Prints a set so that [`parse_set`] reads the same.
pub fn print_set(set: &NamedSet) -> String {
    let members: Vec<_> = set.members().map(|member| print_member(set.kind(), member)).collect();
    let blank = if members.is_empty() { "" } else { " " };
    format!("{} type={}{blank}{}", set.name(), set.kind(), members.join(","))
}

/// Prints a member as it is read.
pub fn print_member(kind: SetKind, member: ValueRange) -> String {
    let (first, last) = (member.first(), member.last());
    let n_wild = member.n_wild().filter(|_| matches!(kind, SetKind::Ipv4 | SetKind::Ipv6));
    match n_wild {
        _ if first == last => print_value(kind, first),
        Some(n_wild) => format!("{}/{}", print_value(kind, first), kind.n_bits().saturating_sub(n_wild)),
        None => format!("{}-{}", print_value(kind, first), print_value(kind, last)),
    }
}

fn print_value(kind: SetKind, value: u128) -> String {
    match kind {
        SetKind::Ipv4 => Ipv4Addr::from(value as u32).to_string(),
        SetKind::Ipv6 => Ipv6Addr::from(value).to_string(),
        SetKind::Mac => {
            let [.., a, b, c, d, e, f] = value.to_be_bytes();
            MacAddr::new([a, b, c, d, e, f]).to_string()
        }
        SetKind::Port => value.to_string(),
        SetKind::Number if value > u128::from(u32::MAX) => format!("{value:#x}"),
        SetKind::Number => value.to_string(),
    }
}

/// The parts of a set's text.
struct SetText<'a> {
    name: SetName,
    kind: Option<SetKind>,
    members: Vec<Piece<'a>>,
}

impl<'a> SetText<'a> {
    fn read(text: &'a str) -> Result<Self, TextError> {
        let mut words = words(text);
        let Some(name) = words.next() else {
            return Err(Piece::whole("").error("expected the name of a set"));
        };
        let mut read = Self { name: set_name(name)?, kind: None, members: Vec::new() };
        for word in words {
            let Some((key, kind)) = word.split_once("=") else {
                read.members.push(word);
                continue;
            };
            if key.text != "type" {
                return Err(key.misspelt(format!("there is no `{}` of a set", key.text), ["type"]));
            }
            if read.kind.is_some() {
                return Err(key.error("the type is there twice"));
            }
            let names = SetKind::ALL.iter().map(|kind| kind.name());
            let unknown = || {
                let all = names.clone().collect::<Vec<_>>().join(", ");
                kind.misspelt(format!("there is no type `{}`; there are {all}", kind.text), names.clone())
            };
            read.kind = Some(SetKind::by_name(kind.text).ok_or_else(unknown)?);
        }
        Ok(read)
    }
}

/// The words of a text, which commas or blanks separate.
fn words(text: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = text.get(at..)?;
        let start = at + rest.len() - rest.trim_start_matches(SEPARATORS).len();
        let word = text.get(start..).filter(|word| !word.is_empty())?;
        let len = word.find(SEPARATORS).unwrap_or(word.len());
        at = start + len;
        word.get(..len).map(|text| Piece { text, at: start })
    })
}

/// A value, `first-last`, or an address with the length of a prefix.
fn parse_member(kind: SetKind, text: Piece<'_>) -> Result<ValueRange, TextError> {
    if let Some((first, last)) = text.split_once("-") {
        let (first, last) = (parse_value(kind, first)?, parse_value(kind, last)?);
        return ValueRange::new(first, last).ok_or_else(|| text.error("the range ends before it begins"));
    }
    let Some((address, len)) = text.split_once("/") else {
        return parse_value(kind, text).map(ValueRange::one);
    };
    if !matches!(kind, SetKind::Ipv4 | SetKind::Ipv6) {
        return Err(len.error(format!("members of type {kind} have no prefixes; write `first-last`")));
    }
    let first = parse_value(kind, address)?;
    let len = value::number_up_to(len, kind.n_bits().into())?;
    let wild = low_bits(kind.n_bits() - len as u32);
    if first & wild != 0 {
        let prefix = print_value(kind, first & !wild);
        return Err(
            address.error(format!("`{}` has bits behind the prefix; write `{prefix}/{len}`", address.text))
        );
    }
    Ok(ValueRange::new(first, first | wild).unwrap_or(ValueRange::one(first)))
}

fn parse_value(kind: SetKind, text: Piece<'_>) -> Result<u128, TextError> {
    let like = match kind {
        SetKind::Ipv4 => Field::NwSrc,
        SetKind::Ipv6 => Field::Ipv6Src,
        SetKind::Mac => Field::EthSrc,
        SetKind::Port => Field::TcpSrc,
        SetKind::Number => return value::number(text),
    };
    value::one_value(like, text, &PortTable::default())
}

/// What a member looks like. Ports look like numbers.
fn likely_kind(text: &str) -> SetKind {
    let first = text.split('-').next().unwrap_or(text);
    if first.parse::<MacAddr>().is_ok() {
        SetKind::Mac
    } else if text.contains(':') {
        SetKind::Ipv6
    } else if text.contains('.') {
        SetKind::Ipv4
    } else {
        SetKind::Number
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// What is printed reads back as the same.
        #[test]
        fn sets_read_back(
            kind in prop::sample::select(SetKind::ALL),
            members in prop::collection::vec((any::<u128>(), 0..140_u32, any::<bool>()), 0..20),
        ) {
            let mut set = NamedSet::new(SetName::new("some-set").unwrap(), kind);
            let all = low_bits(kind.n_bits());
            for (bits, n_wild, is_prefix) in members {
                let (first, wild) = (bits & all, low_bits(n_wild) & all);
                let first = if is_prefix { first & !wild } else { first };
                set.insert(ValueRange::new(first, first | wild).unwrap());
            }
            let printed = print_set(&set);
            prop_assert_eq!(parse_set(&printed), Ok(set), "{}", printed);
        }

        #[test]
        fn no_text_is_a_panic(text in "[a-z0-9$.:,/= -]{0,40}") {
            let _ = parse_set(&text);
            let _ = parse_set_change(SetChangeKind::Insert, &text);
        }
    }

    #[test]
    fn sets_are_read_as_they_are_written() {
        let set = parse_set("web-hosts type=ipv4 10.0.0.1,10.1.0.0/16, 10.2.0.5-10.2.0.9").unwrap();
        assert_eq!((set.name().as_str(), set.kind(), set.len()), ("web-hosts", SetKind::Ipv4, 3));
        assert!(set.contains(0x0a01_ffff) && set.contains(0x0a02_0005) && !set.contains(0x0a02_000a));
        assert_eq!(print_set(&set), "web-hosts type=ipv4 10.0.0.1,10.1.0.0/16,10.2.0.5-10.2.0.9");
        assert_eq!(print_set(&parse_set("none type=mac").unwrap()), "none type=mac");
        let macs = parse_set("m 02:00:00:00:00:01-02:00:00:00:00:0f type=mac").unwrap();
        assert!(macs.contains(0x0200_0000_000a));
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        for (text, at, reason) in [
            ("", 0, "expected the name"),
            ("9 type=ipv4", 0, "not the name of a set"),
            ("a 10.0.0.1", 10, "needs a type"),
            ("a type=ipv5", 7, "did you mean `ipv4`"),
            ("a tpye=ipv4", 2, "did you mean `type`"),
            ("a type=ipv4 type=ipv4", 12, "twice"),
            ("a type=ipv4 10.0.0", 12, "not an IPv4 address"),
            ("a type=ipv4 10.0.0.1/8", 12, "write `10.0.0.0/8`"),
            ("a type=ipv4 10.0.0.0/33", 21, "more than 32"),
            ("a type=ipv4 10.0.0.9-10.0.0.1", 12, "ends before it begins"),
            ("a type=port 80,70000", 15, "more than 65535"),
            ("a type=port 80/8", 15, "have no prefixes"),
        ] {
            let error = parse_set(text).unwrap_err();
            assert_eq!(error.at, at, "{text}: {error}");
            assert!(error.to_string().contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn changes_tell_what_their_members_are() {
        let insert = |text| match parse_set_change(SetChangeKind::Insert, text).unwrap() {
            SetChange::Insert { kind, members, .. } => (kind, members.len()),
            other => panic!("{other:?}"),
        };
        assert_eq!(insert("a 10.0.0.1,10.0.0.0/8"), (SetKind::Ipv4, 2));
        assert_eq!(insert("a ::ffff:1.2.3.4"), (SetKind::Ipv6, 1));
        assert_eq!(insert("a 02:00:00:00:00:01-02:00:00:00:00:02"), (SetKind::Mac, 1));
        assert_eq!(insert("a 80,443,1000-2000"), (SetKind::Number, 3));
        assert_eq!(insert("a type=port 80"), (SetKind::Port, 1));
        let delete = |text| parse_set_change(SetChangeKind::Delete, text);
        assert!(matches!(delete("a"), Ok(SetChange::Delete(_))));
        assert!(delete("a 10.0.0.1").is_err());
        assert!(parse_set_change(SetChangeKind::Remove, "a").is_err());
    }
}
