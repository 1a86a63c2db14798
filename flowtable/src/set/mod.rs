//! Named sets of addresses, ports and other values: `web-hosts` is 10.0.0.1, 10.1.0.0/16
//! and 10.2.0.5 to 10.2.0.9. A rule says `nw_src=$web-hosts` and stays one rule, whatever
//! the set holds.
//!
//! A rule has only the name. What the set holds is kept once per version of the tables
//! ([`Sets`]) and looked up when a rule asks, so that a change of members costs what has
//! changed, and leaves rules, their statistics and the classifier as they are.
//!
//! An empty set is allowed: no packet has a value in it, so it never lets one through.
//! Sets within sets are not supported. How sets change is in [`crate::table`], their text
//! in [`crate::text`], how they are searched together with rules in
//! [`crate::classifier`].

mod kind;
mod members;
mod named_set;
mod owners;
mod range;
mod sets;
#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc};

pub(crate) use self::sets::FEW_SETS;
pub use self::{kind::SetKind, named_set::NamedSet, range::ValueRange, sets::Sets};

/// Characters of a set's name: room for the longest id of an object, and a word that says
/// what of it the set holds.
pub const MAX_NAME_LEN: usize = 79;
/// Members of a set. Room for the longest lists of blocked addresses, and an end to what
/// a request can make the switch keep.
pub const MAX_MEMBERS: usize = 1 << 20;
/// Prefixes that the members of a set are made up of: an address is one, an unlucky range
/// of IPv6 addresses 254.
pub const MAX_PREFIXES: usize = 1 << 21;

/// The name of a set: letters, digits, `_`, `.` and `-`, of which a letter or `_` is first.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetName(Arc<str>);

/// Text was not the name of a set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not the name of a set; use letters, digits, `_`, `.` and `-`, a letter or `_` first, and at most {MAX_NAME_LEN} of them"
)]
pub struct SetNameError(pub String);

impl SetName {
    /// Checks the characters.
    ///
    /// # Errors
    /// Says what a name may look like.
    pub fn new(text: &str) -> Result<Self, SetNameError> {
        let is_first = |c: char| c.is_ascii_alphabetic() || c == '_';
        let is_other = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        let is_name = text.starts_with(is_first) && text.chars().all(is_other) && text.len() <= MAX_NAME_LEN;
        if is_name { Ok(Self(text.into())) } else { Err(SetNameError(text.to_owned())) }
    }

    /// The characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "${}", self.0)
    }
}
