//! Specs: from the API's messages to typed values, one file per kind. What a user may not
//! write (keys, bindings) is cut off here.

mod acl;
mod address_management;
mod address_set;
mod bfd_session;
mod chassis;
mod dhcp_options;
mod gateway;
mod limits;
mod load_balancer;
mod multicast;
mod names;
mod nat;
mod port_check;
mod port_group;
mod qos_rule;
mod router;
mod router_advertisement;
mod router_policy;
mod router_port;
mod sample_collector;
mod switch;
mod switch_port;
mod template_variable;

use std::collections::BTreeSet;

use ferroflow_proto::northbound::{self as pb, resource::Spec as Wire};
use ovn_northd_lite::model::{
    Acl, Candidate, DefaultPolicy, DhcpOptions, Limits, LoadBalancer, Names, NatRule, QosRule, RouterPolicy,
    SampleCollector, SetMember, TemplateVariable,
};

pub(crate) use self::load_balancer::backend_key;
pub use self::{
    address_management::AddressManagement,
    chassis::ChassisSpec,
    port_group::PortGroupSpec,
    router::RouterSpec,
    router_port::RouterPortSpec,
    switch::SwitchSpec,
    switch_port::{Access, Attachment, Dynamic, SwitchPortSpec},
};
use super::{FieldError, Kind, Name, Shown, limits::MAX_WORD_LEN};

/// What a resource is, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spec {
    /// A switch.
    Switch(SwitchSpec),
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
    /// A load balancer.
    LoadBalancer(LoadBalancer),
    /// Load balancers with a name.
    LoadBalancerGroup(Vec<Name>),
    /// Hosts that may be a gateway, the best first.
    HaChassisGroup(Vec<Candidate>),
    /// Values that are others on each chassis.
    TemplateVariable(TemplateVariable),
    /// Who is told of sampled packets.
    SampleCollector(SampleCollector),
    /// A translation.
    Nat(NatRule),
    /// A policy of a router.
    RouterPolicy(RouterPolicy),
    /// An address set.
    AddressSet(BTreeSet<SetMember>),
    /// A port group.
    PortGroup(PortGroupSpec),
    /// What DHCP clients are told.
    DhcpOptions(DhcpOptions),
    /// Names with their addresses.
    Names(Names),
    /// Bounds on what packets ask hosts for.
    Limits(Limits),
    /// A rule about quality of service.
    QosRule(QosRule),
}

/// Parses the spec of a resource with this name.
///
/// # Errors
/// [`FieldError`] names the field.
pub fn parse_spec(name: &Name, wire: Option<&Wire>) -> Result<Spec, FieldError> {
    match (name.kind(), wire) {
        (Kind::Switch, Some(Wire::LogicalSwitch(switch))) => switch::parse(switch).map(Spec::Switch),
        (Kind::SwitchPort, Some(Wire::LogicalSwitchPort(port))) => {
            switch_port::parse(name, port).map(Spec::SwitchPort)
        }
        (Kind::Router, Some(Wire::LogicalRouter(router))) => router::parse(name, router).map(Spec::Router),
        (Kind::RouterPort, Some(Wire::LogicalRouterPort(port))) => {
            router_port::parse(port).map(Spec::RouterPort)
        }
        (Kind::Acl, Some(Wire::Acl(acl))) => acl::parse(acl).map(Spec::Acl),
        (Kind::Chassis, Some(Wire::Chassis(chassis))) => chassis::parse(chassis).map(Spec::Chassis),
        (Kind::LoadBalancer, Some(Wire::LoadBalancer(balancer))) => {
            load_balancer::parse(balancer).map(Spec::LoadBalancer)
        }
        (Kind::LoadBalancerGroup, Some(Wire::LoadBalancerGroup(group))) => {
            load_balancer::parse_group(group).map(Spec::LoadBalancerGroup)
        }
        (Kind::HaChassisGroup, Some(Wire::HaChassisGroup(group))) => {
            gateway::parse_group(group).map(Spec::HaChassisGroup)
        }
        (Kind::TemplateVariable, Some(Wire::TemplateVariable(variable))) => {
            template_variable::parse(variable).map(Spec::TemplateVariable)
        }
        (Kind::SampleCollector, Some(Wire::SampleCollector(collector))) => {
            sample_collector::parse(collector).map(Spec::SampleCollector)
        }
        (Kind::Nat, Some(Wire::Nat(nat))) => nat::parse(name, nat).map(Spec::Nat),
        (Kind::RouterPolicy, Some(Wire::RouterPolicy(policy))) => {
            router_policy::parse(name, policy).map(Spec::RouterPolicy)
        }
        (Kind::AddressSet, Some(Wire::AddressSet(set))) => address_set::parse(set).map(Spec::AddressSet),
        (Kind::PortGroup, Some(Wire::PortGroup(group))) => port_group::parse(group).map(Spec::PortGroup),
        (Kind::DhcpOptions, Some(Wire::DhcpOptions(dhcp))) => {
            dhcp_options::parse(dhcp).map(Spec::DhcpOptions)
        }
        (Kind::Names, Some(Wire::Names(names))) => names::parse(names).map(Spec::Names),
        (Kind::Limits, Some(Wire::ControlPlaneLimits(bounds))) => limits::parse(bounds).map(Spec::Limits),
        (Kind::QosRule, Some(Wire::QosRule(rule))) => qos_rule::parse(rule).map(Spec::QosRule),
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
        Wire::LoadBalancer(_) => Kind::LoadBalancer,
        Wire::LoadBalancerGroup(_) => Kind::LoadBalancerGroup,
        Wire::HaChassisGroup(_) => Kind::HaChassisGroup,
        Wire::TemplateVariable(_) => Kind::TemplateVariable,
        Wire::SampleCollector(_) => Kind::SampleCollector,
        Wire::Nat(_) => Kind::Nat,
        Wire::RouterPolicy(_) => Kind::RouterPolicy,
        Wire::AddressSet(_) => Kind::AddressSet,
        Wire::PortGroup(_) => Kind::PortGroup,
        Wire::DhcpOptions(_) => Kind::DhcpOptions,
        Wire::Names(_) => Kind::Names,
        Wire::ControlPlaneLimits(_) => Kind::Limits,
        Wire::QosRule(_) => Kind::QosRule,
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
            port.additional_chassis.clear();
            port.dynamic_addresses.clear();
            port.chosen_tag = 0;
            port.virtual_parent.clear();
            port.multicast_groups.clear();
            port.health_checks.iter_mut().for_each(|check| check.health = 0);
        }
        Wire::LogicalRouter(router) => router.tunnel_key = 0,
        Wire::LogicalRouterPort(port) => {
            port.tunnel_key = 0;
            port.neighbours.clear();
            port.bfd_sessions.iter_mut().for_each(|session| session.state = 0);
        }
        Wire::Acl(_)
        | Wire::AddressSet(_)
        | Wire::PortGroup(_)
        | Wire::LoadBalancerGroup(_)
        | Wire::HaChassisGroup(_)
        | Wire::TemplateVariable(_)
        | Wire::SampleCollector(_)
        | Wire::Nat(_)
        | Wire::RouterPolicy(_)
        | Wire::DhcpOptions(_)
        | Wire::Names(_)
        | Wire::ControlPlaneLimits(_)
        | Wire::QosRule(_) => {}
        Wire::LoadBalancer(balancer) => {
            let backends = balancer.vips.iter_mut().flat_map(|vip| &mut vip.backends);
            backends.for_each(|backend| backend.health = 0);
        }
        Wire::Chassis(chassis) => {
            chassis.connected = false;
            chassis.applied_revision = 0;
        }
    }
}

/// Id of the resource that a field names; none if it is empty.
fn reference(field: &str, kind: Kind, text: &str) -> Result<Option<String>, FieldError> {
    if text.is_empty() {
        return Ok(None);
    }
    match Name::parse(text) {
        Ok(name) if name.kind() == kind => Ok(Some(name.id().to_owned())),
        _ => Err(FieldError::new(field, format!("{} is not the name of one; write {kind}", Shown(text)))),
    }
}

/// Largest keys of datapaths and of ports in tunnels.
const MAX_DATAPATH_KEY: u32 = 0xff_ffff;
const MAX_PORT_KEY: u32 = 0x7fff;

/// A key in tunnels that a user asks for; 0: any.
fn requested_key(key: u32, max: u32) -> Result<u32, FieldError> {
    match key {
        _ if key <= max => Ok(key),
        _ => {
            let reason = format!("{key} is out of range; use 1 to {max}, or 0 for any");
            Err(FieldError::new("requested_tunnel_key", reason))
        }
    }
}

/// A name that is nobody's but the user's own; it may be empty.
fn label(field: &str, text: &str) -> Result<String, FieldError> {
    let is_fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.len() <= MAX_WORD_LEN && text.chars().all(is_fine) {
        return Ok(text.to_owned());
    }
    let most = MAX_WORD_LEN;
    let reason = format!("{} is no name; use up to {most} letters, digits, -, _ and .", Shown(text));
    Err(FieldError::new(field, reason))
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

fn default_policy(policy: i32) -> Result<DefaultPolicy, FieldError> {
    match pb::DefaultPolicy::try_from(policy) {
        Ok(pb::DefaultPolicy::Unspecified) => Ok(DefaultPolicy::Allow),
        Ok(pb::DefaultPolicy::Drop) => Ok(DefaultPolicy::Drop),
        Err(_) => {
            let reason = format!("{policy} is not a default; say drop, or leave it out to allow");
            Err(FieldError::new("default_policy", reason))
        }
    }
}
