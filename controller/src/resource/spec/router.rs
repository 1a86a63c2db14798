//! Routers and their static routes.

use std::{collections::BTreeSet, net::IpAddr};

use ferroflow_proto::northbound as pb;
use ovn_northd_lite::{
    RESERVED_ZONES,
    model::{NextHop, RouteMatch, RouteTarget, RouterOptions, StaticRoute},
};

use super::{
    MAX_DATAPATH_KEY, check_count, each, label,
    load_balancer::{balancer_groups, hash_fields, load_balancers},
    reference, requested_key,
    router_port::router_port_name,
};
use crate::resource::{FieldError, Kind, Name, Shown, address, limits};

/// A router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouterSpec {
    /// Routes at all.
    pub enabled: bool,
    /// Static routes.
    pub static_routes: Vec<StaticRoute>,
    /// Id of the chassis that the whole router is on.
    pub chassis: Option<String>,
    /// Ids of its load balancers.
    pub load_balancers: BTreeSet<String>,
    /// Ids of groups of such.
    pub balancer_groups: BTreeSet<String>,
    /// Id of the bounds on what it asks hosts for.
    pub limits: Option<String>,
    /// What it does besides.
    pub options: RouterOptions,
    /// The key that it is to have; 0: any.
    pub key: u32,
}

pub(super) fn parse(name: &Name, router: &pb::LogicalRouter) -> Result<RouterSpec, FieldError> {
    let routes = &router.static_routes;
    check_count("static_routes", routes.len(), limits::MAX_STATIC_ROUTES)?;
    let parse = |(i, route)| static_route(name, &format!("static_routes[{i}]"), route);
    let static_routes = routes.iter().enumerate().map(parse).collect::<Result<_, _>>()?;
    Ok(RouterSpec {
        enabled: router.enabled.unwrap_or(true),
        static_routes,
        chassis: chassis(&router.chassis)?,
        load_balancers: load_balancers(&router.load_balancers)?,
        balancer_groups: balancer_groups(&router.load_balancer_groups)?,
        limits: reference("control_plane_limits", Kind::Limits, &router.control_plane_limits)?,
        options: RouterOptions {
            balancer_sources: sources(router, "lb_force_snat_ips", &router.lb_force_snat_ips)?,
            dnat_sources: sources(router, "dnat_force_snat_ips", &router.dnat_force_snat_ips)?,
            relays: router.multicast_relay,
            max_connections: Some(router.ct_zone_limit).filter(|n| *n > 0),
            snat_zone: router.snat_ct_zone.map(snat_zone).transpose()?,
            commits_all: router.ct_commit_all,
            learns_all: router.always_learn_from_arp_request,
            neighbour_age: router.mac_binding_age_threshold.map(neighbour_age).transpose()?,
        },
        key: requested_key(router.requested_tunnel_key, MAX_DATAPATH_KEY)?,
    })
}

/// Seconds after which a neighbour is forgotten.
fn neighbour_age(raw: u32) -> Result<u16, FieldError> {
    u16::try_from(raw).map_err(|_| {
        let reason = format!("{raw} is too long; use up to {} seconds, or 0 for never", u16::MAX);
        FieldError::new("mac_binding_age_threshold", reason)
    })
}

/// A zone that hosts do not give out themselves.
fn snat_zone(raw: u32) -> Result<u16, FieldError> {
    let zone = u16::try_from(raw).ok().filter(|zone| RESERVED_ZONES.iter().any(|range| range.contains(zone)));
    zone.ok_or_else(|| {
        let ranges: Vec<_> =
            RESERVED_ZONES.iter().map(|range| format!("{} to {}", range.start(), range.end())).collect();
        let reason = format!("{raw} is a zone that hosts give out themselves; use {}", ranges.join(" or "));
        FieldError::new("snat_ct_zone", reason)
    })
}

/// Addresses that sources become.
fn sources(router: &pb::LogicalRouter, field: &str, texts: &[String]) -> Result<Vec<IpAddr>, FieldError> {
    let ips = each(field, texts, 2, address::parse_ip)?;
    if !ips.is_empty() && router.chassis.is_empty() {
        return Err(FieldError::new(
            field,
            "a router with a chassis has one; set `chassis`, or leave it out",
        ));
    }
    if let [a, b] = ips.as_slice()
        && a.is_ipv4() == b.is_ipv4()
    {
        return Err(FieldError::new(field, "both are of one family; write one of each at most"));
    }
    Ok(ips)
}

/// Id of the chassis of this name; none for the empty text.
pub(super) fn chassis(text: &str) -> Result<Option<String>, FieldError> {
    match Name::parse(text) {
        _ if text.is_empty() => Ok(None),
        Ok(name) if name.kind() == Kind::Chassis => Ok(Some(name.id().to_owned())),
        _ => {
            let reason = format!("{} does not name a chassis; write {}", Shown(text), Kind::Chassis);
            Err(FieldError::new("chassis", reason))
        }
    }
}

fn static_route(router: &Name, path: &str, route: &pb::StaticRoute) -> Result<StaticRoute, FieldError> {
    let field = |name: &str, reason: String| FieldError::new(format!("{path}.{name}"), reason);
    let prefix = address::parse_prefix(&route.prefix).map_err(|reason| field("prefix", reason))?;
    let by = if route.by_source { RouteMatch::Source } else { RouteMatch::Destination };
    let table = label(&format!("{path}.route_table"), &route.route_table)?;
    let overrides = route.override_connected;
    if overrides && route.by_source {
        let reason = "networks of ports are destinations, and the route is for sources; clear one of both";
        return Err(field("override_connected", reason.to_owned()));
    }
    if route.discard {
        let leads = !route.next_hop.is_empty() || !route.output_port.is_empty();
        if leads || route.ecmp_symmetric_reply || route.bfd {
            let reason = "what is dropped has no next hop, no port and no answer; leave them out";
            return Err(field("discard", reason.to_owned()));
        }
        let (target, symmetric, hash_fields) = (RouteTarget::Discard, false, Vec::new());
        let monitored = false;
        return Ok(StaticRoute { prefix, by, target, symmetric, table, hash_fields, monitored, overrides });
    }
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
    let target = RouteTarget::Via(NextHop { ip: next_hop, output_port });
    let symmetric = route.ecmp_symmetric_reply;
    let hash_fields = hash_fields(&format!("{path}.selection_fields"), &route.selection_fields)?;
    let monitored = route.bfd;
    Ok(StaticRoute { prefix, by, target, symmetric, table, hash_fields, monitored, overrides })
}
