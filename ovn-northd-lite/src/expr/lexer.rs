//! Words of the match and action languages: from text to tokens with positions. What the
//! words mean is the parsers' business.

use std::net::{Ipv4Addr, Ipv6Addr};

use flowtable::types::MacAddr;

use super::ExprError;

/// Longest accepted text; a larger one is a mistake or an attack.
const MAX_TEXT_LEN: usize = 64 * 1024;

/// How a constant was written, and so how it is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Notation {
    /// `80`
    Decimal,
    /// `0x50`
    Hex,
    /// `0a:00:00:00:00:01`
    Mac,
    /// `10.0.0.1`
    Ipv4,
    /// `fe80::1`
    Ipv6,
}

/// A word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Token {
    /// Name of a symbol or action.
    Name(String),
    /// `"text"`
    Text(String),
    /// `$name`
    AddressSet(String),
    /// `@name`
    PortGroup(String),
    /// `^name`
    Variable(String),
    /// Number or address.
    Constant(u128, Notation),
    /// Operator or bracket.
    Punctuation(&'static str),
    /// After the last word.
    End,
}

impl Token {
    /// As it is called in errors.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Name(name) => format!("`{name}`"),
            Self::Text(text) => format!("\"{text}\""),
            Self::AddressSet(name) => format!("`${name}`"),
            Self::PortGroup(name) => format!("`@{name}`"),
            Self::Variable(name) => format!("`^{name}`"),
            Self::Constant(value, notation) => format!("`{}`", print_number(*value, *notation)),
            Self::Punctuation(mark) => format!("`{mark}`"),
            Self::End => "the end".to_owned(),
        }
    }
}

/// Operators and brackets, longer ones before their prefixes.
const PUNCTUATION: &[&str] = &[
    "<->", "==", "!=", "<=", ">=", "&&", "||", "..", "--", "<", ">", "!", "(", ")", "[", "]", "{", "}", ",",
    "/", "=", ";",
];

/// A number or address in its notation.
pub(crate) fn print_number(value: u128, notation: Notation) -> String {
    match notation {
        Notation::Decimal => value.to_string(),
        Notation::Hex => format!("{value:#x}"),
        Notation::Mac => {
            let [.., a, b, c, d, e, f] = value.to_be_bytes();
            MacAddr::new([a, b, c, d, e, f]).to_string()
        }
        Notation::Ipv4 => Ipv4Addr::from(value as u32).to_string(),
        Notation::Ipv6 => Ipv6Addr::from(value).to_string(),
    }
}

/// Cuts a text into words, each with its position in bytes. The last one is
/// [`Token::End`].
pub(crate) fn tokens(text: &str) -> Result<Vec<(usize, Token)>, ExprError> {
    if text.len() > MAX_TEXT_LEN {
        return Err(ExprError::new(0, format!("the text is longer than {MAX_TEXT_LEN} bytes")));
    }
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let Some(first) = rest.chars().next() else { break };
        if first.is_ascii_whitespace() {
            at += 1;
            continue;
        }
        let (token, len) = token(rest, first, at)?;
        found.push((at, token));
        at += len;
    }
    found.push((text.len(), Token::End));
    Ok(found)
}

/// The word that `rest` starts with, and its length.
fn token(rest: &str, first: char, at: usize) -> Result<(Token, usize), ExprError> {
    match first {
        '"' => quoted(rest, at),
        '$' | '@' | '^' => {
            let name = set_name(&rest[1..]);
            if name.is_empty() {
                return Err(ExprError::new(at, format!("`{first}` must be followed by a name")));
            }
            let len = name.len() + 1;
            let name = name.to_owned();
            let token = match first {
                '$' => Token::AddressSet(name),
                '@' => Token::PortGroup(name),
                _ => Token::Variable(name),
            };
            Ok((token, len))
        }
        c if c.is_ascii_alphanumeric() || c == '_' || rest.starts_with("::") => {
            let text = word(rest);
            Ok((name_or_constant(text, at)?, text.len()))
        }
        _ => match PUNCTUATION.iter().find(|mark| rest.starts_with(**mark)) {
            Some(mark) => Ok((Token::Punctuation(mark), mark.len())),
            None if first == '&' || first == '|' => {
                Err(ExprError::new(at, format!("`{first}` must be doubled: `{first}{first}`")))
            }
            None => {
                Err(ExprError::new(at, format!("`{}` is not part of the language", first.escape_default())))
            }
        },
    }
}

/// The name of a set: what an id may be made of.
fn set_name(rest: &str) -> &str {
    let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-')));
    &rest[..end.unwrap_or(rest.len())]
}

/// The letters, digits, `_`, `.` and `:` at the start; `..` ends a word.
fn word(rest: &str) -> &str {
    let inside = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | ':');
    let end = rest.find(|c| !inside(c)).unwrap_or(rest.len());
    let text = &rest[..end];
    text.find("..").map_or(text, |dots| &text[..dots])
}

fn name_or_constant(text: &str, at: usize) -> Result<Token, ExprError> {
    let wrong = |what: &str| Err(ExprError::new(at, format!("`{text}` is not {what}")));
    if text.contains(':') {
        if let Ok(ip) = text.parse::<Ipv6Addr>() {
            return Ok(Token::Constant(ip.into(), Notation::Ipv6));
        }
        return match text.parse::<MacAddr>() {
            Ok(mac) => {
                let value = mac.octets().iter().fold(0, |value, byte| value << 8 | u128::from(*byte));
                Ok(Token::Constant(value, Notation::Mac))
            }
            Err(_) => wrong("a MAC or IPv6 address"),
        };
    }
    if !text.starts_with(|c: char| c.is_ascii_digit()) {
        return Ok(Token::Name(text.to_owned()));
    }
    if text.contains('.') {
        return match text.parse::<Ipv4Addr>() {
            Ok(ip) => Ok(Token::Constant(u32::from(ip).into(), Notation::Ipv4)),
            Err(_) => wrong("an IPv4 address"),
        };
    }
    let hex = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let (digits, radix, notation) =
        hex.map_or((text, 10, Notation::Decimal), |digits| (digits, 16, Notation::Hex));
    match u128::from_str_radix(digits, radix) {
        Ok(value) => Ok(Token::Constant(value, notation)),
        Err(_) => wrong("a number"),
    }
}

/// A quoted text; `\"` and `\\` stand for the second character.
fn quoted(rest: &str, at: usize) -> Result<(Token, usize), ExprError> {
    let mut value = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((idx, c)) = chars.next() {
        match c {
            '"' => return Ok((Token::Text(value), idx + 1)),
            '\\' => match chars.next() {
                Some((_, escaped @ ('"' | '\\'))) => value.push(escaped),
                _ => return Err(ExprError::new(at + idx, "only `\\\"` and `\\\\` may follow a backslash")),
            },
            c if c.is_control() => {
                return Err(ExprError::new(at + idx, "a control character within quotes"));
            }
            c => value.push(c),
        }
    }
    Err(ExprError::new(at, "the closing quote is missing"))
}

/// A text in quotes, as [`tokens`] reads it.
pub(crate) fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_numbers_and_names_are_told_apart() {
        let kinds: Vec<_> = tokens("fe80::1 ff:ff:ff:ff:ff:ff 10.0.0.1 0x1F 7 eth.dst :: reg0[0..15] ::1")
            .unwrap()
            .into_iter()
            .map(|(_, token)| token.describe())
            .collect();
        assert_eq!(
            kinds.join(" "),
            "`fe80::1` `ff:ff:ff:ff:ff:ff` `10.0.0.1` `0x1f` `7` `eth.dst` `::` `reg0` `[` `0` `..` `15` `]` \
             `::1` the end"
        );
    }

    #[test]
    fn what_is_no_word_is_named_with_its_place() {
        for (text, wanted) in [
            ("ip4 & tcp", "column 5: `&` must be doubled: `&&`"),
            ("inport == \"a", "column 11: the closing quote is missing"),
            ("1.2.3", "column 1: `1.2.3` is not an IPv4 address"),
            ("a:b", "column 1: `a:b` is not a MAC or IPv6 address"),
            ("ip4 # x", "column 5: `#` is not part of the language"),
            ("12ab", "column 1: `12ab` is not a number"),
        ] {
            assert_eq!(tokens(text).unwrap_err().to_string(), wanted);
        }
    }
}
