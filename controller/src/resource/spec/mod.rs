//! Specs: from the API's messages to typed values, one file per kind. What a user may not
//! write (keys, bindings) is cut off here.

mod acl;
mod chassis;
mod router;
mod router_port;
mod switch_port;

use ferroflow_proto::northbound::resource::Spec as Wire;
use ovn_northd_lite::model::Acl;

pub use self::{
    chassis::ChassisSpec,
    router::RouterSpec,
    router_port::RouterPortSpec,
    switch_port::{Attachment, SwitchPortSpec},
};
use super::{FieldError, Kind, Name};

/// What a resource is, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spec {
    /// A switch.
    Switch,
    /// A port of a switch.
    SwitchPort(SwitchPortSpec),
    /// A router.
    Router(RouterSpec),
    /// A port of a router.
    RouterPort(RouterPortSpec),
    /// An ACL.
    Acl(Acl),
    /// A host.
    Chassis(ChassisSpec),
}

/// Parses the spec of a resource with this name.
///
/// # Errors
/// [`FieldError`] names the field.
pub fn parse_spec(name: &Name, wire: Option<&Wire>) -> Result<Spec, FieldError> {
    match (name.kind(), wire) {
        (Kind::Switch, Some(Wire::LogicalSwitch(_))) => Ok(Spec::Switch),
        (Kind::SwitchPort, Some(Wire::LogicalSwitchPort(port))) => switch_port::parse(port).map(Spec::SwitchPort),
        (Kind::Router, Some(Wire::LogicalRouter(router))) => router::parse(name, router).map(Spec::Router),
        (Kind::RouterPort, Some(Wire::LogicalRouterPort(port))) => router_port::parse(port).map(Spec::RouterPort),
        (Kind::Acl, Some(Wire::Acl(acl))) => acl::parse(acl).map(Spec::Acl),
        (Kind::Chassis, Some(Wire::Chassis(chassis))) => chassis::parse(chassis).map(Spec::Chassis),
        (kind, found) => {
            let found = found.map_or("none", |wire| kind_of(wire).spec_field());
            let reason = format!("{name} needs `{}`, not {found}", kind.spec_field());
            Err(FieldError::new("spec", reason))
        }
    }
}

fn kind_of(wire: &Wire) -> Kind {
    match wire {
        Wire::LogicalSwitch(_) => Kind::Switch,
        Wire::LogicalSwitchPort(_) => Kind::SwitchPort,
        Wire::LogicalRouter(_) => Kind::Router,
        Wire::LogicalRouterPort(_) => Kind::RouterPort,
        Wire::Acl(_) => Kind::Acl,
        Wire::Chassis(_) => Kind::Chassis,
    }
}

/// Clears the fields that only the controller writes.
pub fn strip(wire: &mut Wire) {
    match wire {
        Wire::LogicalSwitch(switch) => switch.tunnel_key = 0,
        Wire::LogicalSwitchPort(port) => {
            port.tunnel_key = 0;
            port.chassis.clear();
            port.up = false;
        }
        Wire::LogicalRouter(router) => router.tunnel_key = 0,
        Wire::LogicalRouterPort(port) => port.tunnel_key = 0,
        Wire::Acl(_) => {}
        Wire::Chassis(chassis) => {
            chassis.connected = false;
            chassis.applied_revision = 0;
        }
    }
}

/// Parses each element of a repeated field; an error names the element.
pub(super) fn each<T>(
    field: &str,
    list: &[String],
    max: usize,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, FieldError> {
    check_count(field, list.len(), max)?;
    list.iter()
        .enumerate()
        .map(|(i, text)| parse(text).map_err(|reason| FieldError::new(format!("{field}[{i}]"), reason)))
        .collect()
}

/// Refuses a list that is too long.
pub(super) fn check_count(field: &str, n: usize, max: usize) -> Result<(), FieldError> {
    if n > max {
        return Err(FieldError::new(field, format!("{n} entries are too many; keep to {max}")));
    }
    Ok(())
}
