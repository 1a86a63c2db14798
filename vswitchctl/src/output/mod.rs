//! How answers look: tables for people, JSON and YAML of the same structs for programs.

mod table;

use std::borrow::Cow;

use clap::ValueEnum;
use serde::Serializer;

pub use table::{Table, Tabular, write_fields};

/// How to print an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    Table,
    /// For programs
    Json,
    /// For both
    Yaml,
}

/// `text` without what would move the cursor or colour the terminal: names and
/// messages come from elsewhere.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\n' | '\r' | '\t' => clean.push(' '),
            c if c.is_control() => clean.extend(c.escape_default()),
            c => clean.push(c),
        }
    }
    Cow::Owned(clean)
}

/// `yes` or `no`.
pub(crate) fn yes(value: bool) -> String {
    if value { "yes" } else { "no" }.into()
}

/// `a=1,b=2`.
pub(crate) fn pairs<'a>(labels: impl IntoIterator<Item = (&'a String, &'a String)>) -> String {
    labels.into_iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// Last segment of a resource name.
pub(crate) fn short(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// Id of the object that `name` is below: `web` of `switches/web/ports/web-1`.
pub(crate) fn parent_id(name: &str) -> &str {
    name.split('/').nth(1).unwrap_or_default()
}

/// Nanoseconds as seconds: `12.345s`.
pub(crate) fn duration(nanos: u64) -> String {
    format!("{}.{:03}s", nanos / 1_000_000_000, nanos / 1_000_000 % 1000)
}

/// Writes a 64-bit id as `0x…`: as a JSON number many readers would round it.
pub(crate) fn as_hex<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{value:#x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("plain äöü"), "plain äöü");
        assert_eq!(printable("a\nb\u{1b}[2J"), "a b\\u{1b}[2J");
    }

    #[test]
    fn parts_of_names() {
        assert_eq!(short("switches/web/ports/web-1"), "web-1");
        assert_eq!(parent_id("switches/web/ports/web-1"), "web");
        assert_eq!((short(""), parent_id("")), ("", ""));
    }
}
