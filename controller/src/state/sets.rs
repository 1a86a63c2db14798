//! What is named by others: an ACL names only sets and variables that there are, a load balancer
//! only variables, a switch, port or router only load balancers, DHCP options, names and limits
//! that there are, and what is named stays.

use ferroflow_proto::northbound::resource::Spec as Wire;
use ovn_northd_lite::template;

use super::{Draft, Reason, Record, index};
use crate::resource::{Kind, Name, Spec};

/// The sets, load balancers and so on that a resource names are there.
pub(super) fn check_put(draft: &Draft<'_>, record: &Record) -> Result<(), Reason> {
    for set in index::sets_of(record) {
        let target = target_of(&set)?;
        let (name, field) = (record.name.clone(), field_of(&set, target.kind()).to_owned());
        if !exists(draft, &set)? {
            return Err(Reason::Dangling { name, field, target });
        }
    }
    Ok(())
}

/// Nobody names the set or load balancer that is gone.
pub(super) fn check_deleted(draft: &Draft<'_>, name: &Name) -> Result<(), Reason> {
    let id = name.id();
    let texts = match name.kind() {
        Kind::LoadBalancer
        | Kind::LoadBalancerGroup
        | Kind::HaChassisGroup
        | Kind::SampleCollector
        | Kind::DhcpOptions
        | Kind::Names
        | Kind::Limits => vec![name.to_string()],
        Kind::AddressSet => vec![format!("${id}")],
        Kind::TemplateVariable => vec![name.to_string(), template::set_of(id)],
        Kind::PortGroup => vec![format!("@{id}"), format!("${id}_ip4"), format!("${id}_ip6")],
        _ => Vec::new(),
    };
    for text in texts {
        if let Some(by) = draft.untouched_mentions(&text).next()
            && !exists(draft, &text)?
        {
            return Err(Reason::Referenced { name: name.clone(), by: by.clone() });
        }
    }
    Ok(())
}

/// The field that a resource is named in.
fn field_of(set: &str, kind: Kind) -> &'static str {
    match kind {
        _ if !set.contains('/') => "match",
        Kind::DhcpOptions => "dhcp_options",
        Kind::Names => "names",
        Kind::Limits => "control_plane_limits",
        Kind::LoadBalancerGroup => "load_balancer_groups",
        Kind::HaChassisGroup => "ha_chassis_group",
        Kind::SampleCollector => "sample_new, or sample_established",
        Kind::TemplateVariable => "templates",
        _ => "load_balancers",
    }
}

/// What a set's name in a match refers to first.
fn target_of(set: &str) -> Result<Name, Reason> {
    if set.contains('/') {
        return Ok(Name::parse(set)?);
    }
    let collection = match set.chars().next() {
        Some('@') => "port-groups",
        Some('^') => "template-variables",
        _ => "address-sets",
    };
    Ok(Name::parse(&format!("{collection}/{}", set.get(1..).unwrap_or_default()))?)
}

/// There is such a set: of its own, or as the addresses of a port group.
fn exists(draft: &Draft<'_>, set: &str) -> Result<bool, Reason> {
    if draft.get(&target_of(set)?).is_some() {
        return Ok(true);
    }
    let group = set.strip_prefix('$').and_then(ovn_northd_lite::group_of);
    let group = group.and_then(|group| Name::parse(&format!("port-groups/{group}")).ok());
    Ok(group.is_some_and(|group| draft.get(&group).is_some()))
}

/// Takes members out of a group; false when all stay.
pub(super) fn retain_members(group: &mut Record, stays: impl Fn(&Name) -> bool) -> bool {
    let (members, wire) = match (&mut group.spec, &mut group.wire) {
        (Spec::PortGroup(spec), Wire::PortGroup(wire)) => (&mut spec.ports, &mut wire.ports),
        (Spec::LoadBalancerGroup(spec), Wire::LoadBalancerGroup(wire)) => (spec, &mut wire.load_balancers),
        _ => return false,
    };
    let before = members.len();
    members.retain(stays);
    *wire = members.iter().map(Name::to_string).collect();
    members.len() != before
}
