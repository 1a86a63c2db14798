//! DHCP as far as the network decides about it: which options there are, what their values
//! look like in texts, and what a host's responder is told of an offer. The protocol itself
//! (messages, states of clients) is the responder's.

mod relay;
mod v4;
mod v6;
mod value;

pub use self::{
    relay::{Relay, Toward},
    v4::{OfferV4, OptionV4},
    v6::{OfferV6, OptionV6},
    value::{Kind, Value, domain},
};

use crate::expr::nearest;

/// Longest options of an offer: what fits into a packet of the least MTU, with headers.
const MAX_OPTIONS_LEN: usize = 1024;

/// An option has a name or a value that is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// There is no such option.
    #[error("there is no DHCP option `{name}`{}", did_you_mean(.near))]
    Unknown {
        /// What was written.
        name: String,
        /// What may have been meant.
        near: Option<&'static str>,
    },
    /// The value cannot be that.
    #[error("option `{name}`: {reason}")]
    Value {
        /// The option.
        name: String,
        /// What is wrong, and what to write.
        reason: String,
    },
    /// All of them together are too long.
    #[error("the options have {len} bytes; keep to {MAX_OPTIONS_LEN}")]
    TooLong {
        /// Their length.
        len: usize,
    },
}

/// Number of the option of a name, of a table.
fn number_of<C: Copy>(name: &str, table: &[(&'static str, C, Kind)]) -> Result<C, OptionError> {
    let found = table.iter().find(|(known, ..)| *known == name);
    found.map(|(_, code, _)| *code).ok_or_else(|| OptionError::Unknown {
        name: name.escape_debug().take(40).collect(),
        near: nearest(name, table.iter().map(|(known, ..)| *known)),
    })
}

/// Name of the option of a number; empty: there is none.
fn name_of<C: PartialEq>(code: C, table: &[(&'static str, C, Kind)]) -> &'static str {
    table.iter().find(|(_, known, _)| *known == code).map_or("", |(name, ..)| name)
}

fn did_you_mean(near: &Option<&'static str>) -> String {
    near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default()
}
