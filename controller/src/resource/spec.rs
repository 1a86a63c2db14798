//! Specs: from the API's messages to typed values. What a user may not write (keys,
//! bindings) is cut off here.

use std::net::IpAddr;

use ferroflow_proto::northbound::{self as pb, resource::Spec as Wire};
use flowtable::types::{MacAddr, Priority};
use ovn_northd_lite::model::{
    Acl, AclAction, AclDirection, IpNetwork, PortAddresses, PortSecurity, StaticRoute,
};

use super::{FieldError, Kind, Name, Shown, address, limits};
use crate::compile::check_match;

/// Highest priority of an ACL, as in OVN.
const MAX_ACL_PRIORITY: u32 = 32_767;

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

/// A router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouterSpec {
    /// Routes at all.
    pub enabled: bool,
    /// Static routes.
    pub static_routes: Vec<StaticRoute>,
}

/// A port of a router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouterPortSpec {
    /// MAC address.
    pub mac: MacAddr,
    /// Addresses, each with its network.
    pub networks: Vec<IpNetwork>,
    /// Sends and receives.
    pub enabled: bool,
}

/// A host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChassisSpec {
    /// Its name in the operator's world.
    pub hostname: String,
    /// Where it takes tunnelled packets.
    pub encap_ip: IpAddr,
}

/// Parses the spec of a resource with this name.
///
/// # Errors
/// [`FieldError`] names the field.
pub fn parse_spec(name: &Name, wire: Option<&Wire>) -> Result<Spec, FieldError> {
    match (name.kind(), wire) {
        (Kind::Switch, Some(Wire::LogicalSwitch(_))) => Ok(Spec::Switch),
        (Kind::SwitchPort, Some(Wire::LogicalSwitchPort(port))) => switch_port(port).map(Spec::SwitchPort),
        (Kind::Router, Some(Wire::LogicalRouter(router))) => self::router(name, router).map(Spec::Router),
        (Kind::RouterPort, Some(Wire::LogicalRouterPort(port))) => router_port(port).map(Spec::RouterPort),
        (Kind::Acl, Some(Wire::Acl(acl))) => self::acl(acl).map(Spec::Acl),
        (Kind::Chassis, Some(Wire::Chassis(chassis))) => self::chassis(chassis).map(Spec::Chassis),
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

fn switch_port(port: &pb::LogicalSwitchPort) -> Result<SwitchPortSpec, FieldError> {
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

fn router_port_name(field: impl Into<String>, text: &str) -> Result<Name, FieldError> {
    match Name::parse(text) {
        Ok(name) if name.kind() == Kind::RouterPort => Ok(name),
        _ => {
            let reason = format!("{} does not name a router port; write {}", Shown(text), Kind::RouterPort);
            Err(FieldError::new(field, reason))
        }
    }
}

fn router(name: &Name, router: &pb::LogicalRouter) -> Result<RouterSpec, FieldError> {
    let routes = &router.static_routes;
    check_count("static_routes", routes.len(), limits::MAX_STATIC_ROUTES)?;
    let parse = |(i, route)| static_route(name, &format!("static_routes[{i}]"), route);
    let static_routes = routes.iter().enumerate().map(parse).collect::<Result<_, _>>()?;
    Ok(RouterSpec { enabled: router.enabled.unwrap_or(true), static_routes })
}

fn static_route(router: &Name, path: &str, route: &pb::StaticRoute) -> Result<StaticRoute, FieldError> {
    let field = |name: &str, reason: String| FieldError::new(format!("{path}.{name}"), reason);
    let prefix = address::parse_prefix(&route.prefix).map_err(|reason| field("prefix", reason))?;
    let next_hop = address::parse_ip(&route.next_hop).map_err(|reason| field("next_hop", reason))?;
    if prefix.addr.is_ipv4() != next_hop.is_ipv4() {
        let reason = format!("{next_hop} is not of the family of {}; use one family", route.prefix);
        return Err(field("next_hop", reason));
    }
    let output_port = if route.output_port.is_empty() {
        None
    } else {
        let port = router_port_name(format!("{path}.output_port"), &route.output_port)?;
        if port.parent().as_ref() != Some(router) {
            return Err(field("output_port", format!("{port} is not a port of {router}; name one that is")));
        }
        Some(port.id().to_owned())
    };
    Ok(StaticRoute { prefix, next_hop, output_port })
}

fn router_port(port: &pb::LogicalRouterPort) -> Result<RouterPortSpec, FieldError> {
    let mac = address::parse_mac(&port.mac).map_err(|reason| FieldError::new("mac", reason))?;
    let networks = each("networks", &port.networks, limits::MAX_NETWORKS, address::parse_interface)?;
    if networks.is_empty() {
        return Err(FieldError::new(
            "networks",
            "a router port needs an address; write one like 10.0.0.1/24",
        ));
    }
    Ok(RouterPortSpec { mac, networks, enabled: port.enabled.unwrap_or(true) })
}

fn acl(acl: &pb::Acl) -> Result<Acl, FieldError> {
    use pb::acl::{Action, Direction};
    let direction = match Direction::try_from(acl.direction) {
        Ok(Direction::FromLport) => AclDirection::FromLport,
        Ok(Direction::ToLport) => AclDirection::ToLport,
        Ok(Direction::Unspecified) | Err(_) => {
            let reason = format!("{} is not a direction; say from-lport or to-lport", acl.direction);
            return Err(FieldError::new("direction", reason));
        }
    };
    let needs_tracking = |action: &str| {
        let reason = format!(
            "{action} needs connection tracking, which this version lacks; use allow-stateless or drop"
        );
        Err(FieldError::new("action", reason))
    };
    let action = match Action::try_from(acl.action) {
        Ok(Action::Allow) => AclAction::Allow,
        Ok(Action::AllowStateless) => AclAction::AllowStateless,
        Ok(Action::Drop) => AclAction::Drop,
        Ok(Action::AllowRelated) => return needs_tracking("allow-related"),
        Ok(Action::Reject) => return needs_tracking("reject"),
        Ok(Action::Unspecified) | Err(_) => {
            let reason = format!("{} is not an action; say allow, allow-stateless or drop", acl.action);
            return Err(FieldError::new("action", reason));
        }
    };
    let priority = u16::try_from(acl.priority)
        .ok()
        .filter(|_| acl.priority <= MAX_ACL_PRIORITY)
        .and_then(|raw| Priority::new(raw).ok())
        .ok_or_else(|| {
            let reason = format!("{} is out of range; use 0 to {MAX_ACL_PRIORITY}", acl.priority);
            FieldError::new("priority", reason)
        })?;
    let wrong_match = |reason| FieldError::new("match", reason);
    if acl.r#match.len() > limits::MAX_MATCH_LEN {
        let reason = format!("{} bytes are too long; keep to {}", acl.r#match.len(), limits::MAX_MATCH_LEN);
        return Err(wrong_match(reason));
    }
    check_match(&acl.r#match).map_err(wrong_match)?;
    Ok(Acl { direction, priority, matching: acl.r#match.clone(), action })
}

fn chassis(chassis: &pb::Chassis) -> Result<ChassisSpec, FieldError> {
    let encap_ip =
        address::parse_ip(&chassis.encap_ip).map_err(|reason| FieldError::new("encap_ip", reason))?;
    let hostname = chassis.hostname.clone();
    if hostname.len() > limits::MAX_HOSTNAME_LEN {
        let reason = format!("{} bytes are too long; keep to {}", hostname.len(), limits::MAX_HOSTNAME_LEN);
        return Err(FieldError::new("hostname", reason));
    }
    Ok(ChassisSpec { hostname, encap_ip })
}

/// Parses each element of a repeated field; an error names the element.
fn each<T>(
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

fn check_count(field: &str, n: usize, max: usize) -> Result<(), FieldError> {
    if n > max {
        return Err(FieldError::new(field, format!("{n} entries are too many; keep to {max}")));
    }
    Ok(())
}
