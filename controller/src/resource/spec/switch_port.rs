//! Ports of switches.

use ferroflow_proto::northbound as pb;
use ovn_northd_lite::model::{PortAddresses, PortSecurity};

use super::{each, router_port::router_port_name};
use crate::resource::{FieldError, Name, Shown, address, limits};

/// A port of a switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwitchPortSpec {
    /// What is attached.
    pub attachment: Attachment,
    /// Sends and receives.
    pub enabled: bool,
}

/// What is attached to a switch port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attachment {
    /// A workload.
    Workload {
        /// Addresses it has.
        addresses: Vec<PortAddresses>,
        /// It also takes frames to addresses nobody has.
        unknown: bool,
        /// Source addresses it may use; empty: any.
        port_security: Vec<PortSecurity>,
    },
    /// The router port of this name.
    Router(Name),
}

pub(super) fn parse(port: &pb::LogicalSwitchPort) -> Result<SwitchPortSpec, FieldError> {
    use pb::logical_switch_port::Type;
    let attachment = match Type::try_from(port.r#type) {
        Ok(Type::Unspecified) => workload(port)?,
        Ok(Type::Router) => Attachment::Router(router_side(port)?),
        Err(_) => {
            return Err(FieldError::new("type", format!("{} is not a type of switch port", port.r#type)));
        }
    };
    Ok(SwitchPortSpec { attachment, enabled: port.enabled.unwrap_or(true) })
}

fn workload(port: &pb::LogicalSwitchPort) -> Result<Attachment, FieldError> {
    if !port.router_port.is_empty() {
        let reason = format!(
            "{} makes sense only for type router; set the type or clear this field",
            Shown(&port.router_port)
        );
        return Err(FieldError::new("router_port", reason));
    }
    let unknown = port.addresses.iter().any(|entry| entry == "unknown");
    let addresses = each("addresses", &port.addresses, limits::MAX_ADDRESS_ENTRIES, |entry| {
        if entry == "unknown" { Ok(None) } else { address::parse_port_addresses(entry).map(Some) }
    })?;
    let port_security = each(
        "port_security",
        &port.port_security,
        limits::MAX_ADDRESS_ENTRIES,
        address::parse_port_security,
    )?;
    Ok(Attachment::Workload { addresses: addresses.into_iter().flatten().collect(), unknown, port_security })
}

fn router_side(port: &pb::LogicalSwitchPort) -> Result<Name, FieldError> {
    for (field, list) in [("addresses", &port.addresses), ("port_security", &port.port_security)] {
        if !list.is_empty() {
            let reason = "a port of type router takes the addresses of its router port; leave this empty";
            return Err(FieldError::new(field, reason));
        }
    }
    router_port_name("router_port", &port.router_port)
}
