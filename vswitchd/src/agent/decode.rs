//! Updates from the controller as typed values: checked here, once. An update that is
//! wrong in any part is refused as a whole.

use std::{net::IpAddr, sync::Arc};

use ferroflow_proto::chassis as pb;
use flowtable::{
    program::TunnelKind,
    types::{MacAddr, Priority, RangeError},
};
use ovn_northd_lite::{
    GroupChange, SetChange, SouthboundDelta,
    key::{DatapathKey, PortKey},
    model::{Querier, Rate, Snooping},
    punt::Service,
    southbound::{Advertises, ChassisRecord, Datapath, LogicalFlow, Pipeline},
    text::shared,
};

use super::binding::port_binding;

/// Longest router advertisement: what the least MTU leaves.
const MAX_ADVERTISEMENT_LEN: usize = 1240;

/// An update is not well-formed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpdateError {
    /// A number is out of its range.
    #[error("{what}: {source}")]
    Range {
        /// Which thing has it.
        what: String,
        /// What is allowed.
        source: RangeError,
    },
    /// A binding has something that cannot be.
    #[error("port {port}: `{value}` cannot be its {what}")]
    Binding {
        /// The port.
        port: String,
        /// What of it.
        what: &'static str,
        /// What it has instead.
        value: String,
    },
    /// A chassis has no usable address.
    #[error("chassis {name}: `{address}` is not an IP address")]
    Address {
        /// The chassis.
        name: String,
        /// What it has instead.
        address: String,
    },
}

/// Decodes what an update adds, changes and removes.
///
/// # Errors
/// Names the part that is wrong.
pub fn decode(update: pb::SyncResponse) -> Result<SouthboundDelta, UpdateError> {
    let mut delta = SouthboundDelta::default();
    for datapath in update.datapaths {
        let key = datapath_key(datapath.key, &datapath.name)?;
        delta.datapaths.insert(
            key,
            Datapath {
                name: datapath.name,
                is_router: datapath.router,
                sets: datapath.sets.into_iter().collect(),
                limits: datapath.limits.into_iter().filter_map(limit).collect(),
                snooping: datapath.snooping.and_then(snooping),
                max_connections: Some(datapath.ct_zone_limit).filter(|n| *n > 0),
                snat_zone: datapath.snat_ct_zone.and_then(|zone| u16::try_from(zone).ok()),
            },
        );
    }
    for binding in update.port_bindings {
        let (name, binding) = port_binding(binding)?;
        delta.bindings.insert(name, binding);
    }
    for group in update.multicast_groups {
        let key = (datapath_key(group.datapath, &group.name)?, port_key(group.key, &group.name)?);
        let (added, removed) = (group.ports.into_iter().collect(), group.removed_ports.into_iter().collect());
        delta.groups.insert(key, GroupChange { name: group.name, added, removed });
    }
    for chassis in update.chassis {
        let encap_ip = chassis.encap_ip.parse().map_err(|_| UpdateError::Address {
            name: chassis.name.clone(),
            address: chassis.encap_ip.clone(),
        })?;
        // One of a later version that is not known here is no way from here.
        let encap_types = chassis.encap_types.iter().filter_map(|name| TunnelKind::of_name(name)).collect();
        delta.chassis.insert(chassis.name, ChassisRecord { encap_ip, encap_types });
    }
    for flow in update.logical_flows {
        delta.flows.insert(flow.id, Arc::new(logical_flow(flow)?));
    }
    for change in update.set_changes {
        let (added, removed) = (change.added.into_iter().collect(), change.removed.into_iter().collect());
        delta.sets.insert(change.name, SetChange { added, removed });
    }
    let removed = update.removed.unwrap_or_default();
    for key in removed.datapaths {
        delta.removed.datapaths.insert(datapath_key(key, "removed")?);
    }
    for group in removed.multicast_groups {
        let key = (datapath_key(group.datapath, "removed")?, port_key(group.key, "removed")?);
        delta.removed.groups.insert(key);
    }
    delta.removed.bindings.extend(removed.port_bindings);
    delta.removed.chassis.extend(removed.chassis);
    delta.removed.flows.extend(removed.logical_flows);
    delta.removed.sets.extend(removed.sets);
    Ok(delta)
}

/// A bound; one of a class that this version does not know bounds nothing here.
fn limit(limit: pb::Limit) -> Option<(Service, Rate)> {
    let (service, _) = Service::CLASSES.iter().find(|(_, class)| *class == limit.class)?;
    Some((*service, Rate { pps: limit.rate.max(1), burst: limit.burst }))
}

/// How to listen, where that makes sense; else the switch is as one that does not.
fn snooping(wire: pb::Snooping) -> Option<Snooping> {
    let short = |raw: u32| u16::try_from(raw).ok().filter(|seconds| *seconds > 0);
    let querier = |querier: pb::Querier| {
        let address = |text: &str| (!text.is_empty()).then(|| text.parse::<IpAddr>().ok()).flatten();
        Some(Querier {
            interval: short(querier.interval)?,
            max_response: u8::try_from(querier.max_response).ok()?,
            mac: querier.mac.parse().ok()?,
            v4: address(&querier.ip4).and_then(|ip| if let IpAddr::V4(ip) = ip { Some(ip) } else { None }),
            v6: address(&querier.ip6).and_then(|ip| if let IpAddr::V6(ip) = ip { Some(ip) } else { None }),
        })
    };
    Some(Snooping {
        floods_unknown: wire.flood_unregistered,
        max_groups: wire.table_size,
        max_age: short(wire.idle_timeout)?,
        querier: wire.querier.and_then(querier),
    })
}

/// Advertisements that make sense.
pub(super) fn advertises(wire: pb::Advertises) -> Option<Advertises> {
    let mac = MacAddr::new(wire.mac.try_into().ok()?);
    let of = |raw: u32| u16::try_from(raw).ok();
    let interval = (of(wire.min_interval)?.max(1), of(wire.max_interval)?);
    let is_sound = interval.0 <= interval.1 && wire.message.len() <= MAX_ADVERTISEMENT_LEN;
    is_sound.then_some(Advertises { mac, message: wire.message, interval })
}

fn logical_flow(flow: pb::LogicalFlow) -> Result<LogicalFlow, UpdateError> {
    let what = || format!("logical flow {:#x}", flow.id);
    let out_of = |what_of, max| RangeError { what: what_of, value: u64::from(u32::MAX), min: 0, max };
    let stage = u8::try_from(flow.stage)
        .map_err(|_| UpdateError::Range { what: what(), source: out_of("stage", u64::from(u8::MAX)) })?;
    let priority = u16::try_from(flow.priority)
        .map_err(|_| out_of("priority", u64::from(u16::MAX)))
        .and_then(Priority::new)
        .map_err(|source| UpdateError::Range { what: what(), source })?;
    Ok(LogicalFlow {
        datapath: datapath_key(flow.datapath, &what())?,
        pipeline: if flow.egress { Pipeline::Egress } else { Pipeline::Ingress },
        stage,
        stage_name: shared(&flow.stage_name),
        priority,
        matching: flow.r#match,
        actions: flow.actions,
        object: shared(&flow.object),
        why: shared(&flow.why),
    })
}

pub(super) fn datapath_key(raw: u32, what: &str) -> Result<DatapathKey, UpdateError> {
    DatapathKey::new(raw).map_err(|source| UpdateError::Range { what: what.to_owned(), source })
}

pub(super) fn port_key(raw: u32, what: &str) -> Result<PortKey, UpdateError> {
    let range = RangeError { what: "port key", value: u64::from(raw), min: 1, max: 0xffff };
    u16::try_from(raw)
        .map_err(|_| range)
        .and_then(PortKey::new)
        .map_err(|source| UpdateError::Range { what: what.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_part_refuses_the_whole_update() {
        let datapath =
            |key| pb::Datapath { key, name: "switches/web".to_owned(), router: false, ..Default::default() };
        let good = pb::SyncResponse { datapaths: vec![datapath(1)], ..Default::default() };
        assert_eq!(decode(good).unwrap().datapaths.len(), 1);
        let wrong = pb::SyncResponse { datapaths: vec![datapath(1), datapath(0)], ..Default::default() };
        assert!(decode(wrong).unwrap_err().to_string().contains("switches/web"));
        let chassis =
            pb::Chassis { name: "h1".to_owned(), encap_ip: "here".to_owned(), encap_types: Vec::new() };
        let wrong = pb::SyncResponse { chassis: vec![chassis], ..Default::default() };
        assert!(decode(wrong).unwrap_err().to_string().contains("`here`"));
    }
}
