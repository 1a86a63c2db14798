//! How packets get to the host that is the gateway of a router port.

use clap::ValueEnum;
use ferroflow_proto::northbound::{Resource, logical_router_port};
use serde::{Deserialize, Serialize};

use crate::{error::CtlError, net::object::unknown_value};

/// How packets get to a gateway from the other hosts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RedirectType {
    /// By a tunnel
    #[default]
    Overlay,
    /// By the network outside that its switch is in
    Bridged,
}

impl RedirectType {
    /// # Errors
    /// [`CtlError`] when the value is not one that is known here.
    pub fn read(resource: &Resource, value: i32) -> Result<Self, CtlError> {
        use logical_router_port::RedirectType as Wire;
        match Wire::try_from(value) {
            Ok(Wire::Unspecified) => Ok(Self::Overlay),
            Ok(Wire::Bridged) => Ok(Self::Bridged),
            Err(_) => Err(unknown_value(resource, "redirect type", value)),
        }
    }

    /// As the API has it.
    pub fn write(self) -> i32 {
        use logical_router_port::RedirectType as Wire;
        match self {
            Self::Overlay => Wire::Unspecified,
            Self::Bridged => Wire::Bridged,
        }
        .into()
    }

    /// It need not be said.
    pub fn is_usual(&self) -> bool {
        *self == Self::Overlay
    }

    /// As it is typed.
    pub fn word(self) -> &'static str {
        match self {
            Self::Overlay => "overlay",
            Self::Bridged => "bridged",
        }
    }
}
