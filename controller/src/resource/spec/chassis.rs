//! Hosts.

use std::net::IpAddr;

use ferroflow_proto::northbound as pb;

use crate::resource::{FieldError, address, limits};

/// A host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChassisSpec {
    /// Its name in the operator's world.
    pub hostname: String,
    /// Where it takes tunnelled packets.
    pub encap_ip: IpAddr,
}

pub(super) fn parse(chassis: &pb::Chassis) -> Result<ChassisSpec, FieldError> {
    let encap_ip =
        address::parse_ip(&chassis.encap_ip).map_err(|reason| FieldError::new("encap_ip", reason))?;
    let hostname = chassis.hostname.clone();
    if hostname.len() > limits::MAX_HOSTNAME_LEN {
        let reason = format!("{} bytes are too long; keep to {}", hostname.len(), limits::MAX_HOSTNAME_LEN);
        return Err(FieldError::new("hostname", reason));
    }
    Ok(ChassisSpec { hostname, encap_ip })
}
