//! What a user writes, made into typed values at the API's edge: names, addresses,
//! specs, field masks, labels. One resource at a time; what resources mean to each other
//! (parents, references, unique ids) is [`crate::state`]'s.

mod address;
mod labels;
pub mod limits;
mod mask;
mod name;
mod spec;
#[cfg(test)]
mod tests;

use std::fmt;

pub(crate) use self::{address::parse_port_addresses, spec::backend_key};
pub use self::{
    labels::check_labels,
    mask::merge,
    name::{Kind, Name, NameError, check_id},
    spec::{
        Access, AddressManagement, Attachment, ChassisSpec, Dynamic, PortGroupSpec, RouterPortSpec,
        RouterSpec, Spec, SwitchPortSpec, SwitchSpec, parse_spec, strip,
    },
};

/// A field has a value that is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("field `{field}`: {reason}")]
pub struct FieldError {
    /// Path of the field within the resource, `addresses[1]`.
    pub field: String,
    /// The value and what to do.
    pub reason: String,
}

impl FieldError {
    pub(crate) fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into() }
    }
}

/// A user's text inside an error: quoted, escaped, and never long.
pub struct Shown<'a>(pub &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MAX_CHARS: usize = 80;
        let end = self.0.char_indices().nth(MAX_CHARS).map_or(self.0.len(), |(at, _)| at);
        let (shown, rest) = self.0.split_at_checked(end).unwrap_or((self.0, ""));
        let more = if rest.is_empty() { "" } else { "…" };
        write!(f, "`{}{more}`", shown.escape_debug())
    }
}
