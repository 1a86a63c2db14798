//! For which addresses of a load balancer its routers answer.

use clap::ValueEnum;
use ferroflow_proto::northbound::{Resource, load_balancer};
use serde::{Deserialize, Serialize};

use crate::{error::CtlError, net::object::unknown_value};

/// For which of a load balancer's addresses its routers answer ARP and ND.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Responder {
    /// Those in the network of the port that is asked
    #[default]
    Reachable,
    /// All of them
    All,
    /// None
    None,
}

impl Responder {
    /// # Errors
    /// [`CtlError`] when the value is not one that is known here.
    pub fn read(resource: &Resource, value: i32) -> Result<Self, CtlError> {
        use load_balancer::NeighborResponder as Wire;
        match Wire::try_from(value) {
            Ok(Wire::Unspecified) => Ok(Self::Reachable),
            Ok(Wire::All) => Ok(Self::All),
            Ok(Wire::None) => Ok(Self::None),
            Err(_) => Err(unknown_value(resource, "neighbor responder", value)),
        }
    }

    /// As the API has it.
    pub fn write(self) -> i32 {
        use load_balancer::NeighborResponder as Wire;
        match self {
            Self::Reachable => Wire::Unspecified,
            Self::All => Wire::All,
            Self::None => Wire::None,
        }
        .into()
    }

    /// It need not be said.
    pub fn is_usual(&self) -> bool {
        *self == Self::Reachable
    }

    /// As it is typed.
    pub fn word(self) -> &'static str {
        match self {
            Self::Reachable => "reachable",
            Self::All => "all",
            Self::None => "none",
        }
    }
}
