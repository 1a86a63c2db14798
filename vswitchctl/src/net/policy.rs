//! What becomes of packets that no ACL decides about: of a switch, of a port group.

use clap::ValueEnum;
use ferroflow_proto::northbound::{DefaultPolicy, Resource};
use serde::{Deserialize, Serialize};

use crate::{error::CtlError, net::object::unknown_value};

/// A default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// They are allowed
    #[default]
    Allow,
    /// They are dropped
    Drop,
}

impl Policy {
    /// As it is typed.
    pub fn word(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Drop => "drop",
        }
    }

    /// From the API.
    ///
    /// # Errors
    /// [`CtlError::Newer`] when it is none of these.
    pub fn read(resource: &Resource, value: i32) -> Result<Self, CtlError> {
        match DefaultPolicy::try_from(value) {
            Ok(DefaultPolicy::Unspecified) => Ok(Self::Allow),
            Ok(DefaultPolicy::Drop) => Ok(Self::Drop),
            Err(_) => Err(unknown_value(resource, "default_policy", value)),
        }
    }

    /// For the API.
    pub fn write(self) -> i32 {
        match self {
            Self::Allow => DefaultPolicy::Unspecified,
            Self::Drop => DefaultPolicy::Drop,
        }
        .into()
    }
}
