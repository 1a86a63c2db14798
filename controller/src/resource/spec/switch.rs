//! Switches.

use std::collections::BTreeSet;

use ferroflow_proto::northbound as pb;
use ovn_northd_lite::model::{DefaultPolicy, SwitchOptions, SwitchServices};

use super::{
    AddressManagement, MAX_DATAPATH_KEY, address_management, check_count, default_policy,
    load_balancer::{balancer_groups, load_balancers},
    multicast, reference, requested_key,
};
use crate::resource::{FieldError, Kind, limits};

/// A switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwitchSpec {
    /// What becomes of packets that no ACL decides about.
    pub default_policy: DefaultPolicy,
    /// Ids of its load balancers.
    pub load_balancers: BTreeSet<String>,
    /// Ids of groups of such.
    pub balancer_groups: BTreeSet<String>,
    /// What it gives its ports addresses from.
    pub address_management: Option<AddressManagement>,
    /// What hosts answer for it.
    pub services: SwitchServices,
    /// What it does besides.
    pub options: SwitchOptions,
    /// The key that it is to have; 0: any.
    pub key: u32,
}

pub(super) fn parse(switch: &pb::LogicalSwitch) -> Result<SwitchSpec, FieldError> {
    Ok(SwitchSpec {
        default_policy: default_policy(switch.default_policy)?,
        load_balancers: load_balancers(&switch.load_balancers)?,
        balancer_groups: balancer_groups(&switch.load_balancer_groups)?,
        address_management: switch.address_management.as_ref().map(address_management::parse).transpose()?,
        services: services(switch)?,
        options: options(switch)?,
        key: requested_key(switch.requested_tunnel_key, MAX_DATAPATH_KEY)?,
    })
}

fn options(switch: &pb::LogicalSwitch) -> Result<SwitchOptions, FieldError> {
    let usual = SwitchOptions::default();
    let station_age = match switch.fdb_age_threshold.map(u16::try_from) {
        None => usual.station_age,
        Some(Ok(age)) => age,
        Some(Err(_)) => {
            let reason = format!("it is out of range; use up to {} seconds, 0 for ever", u16::MAX);
            return Err(FieldError::new("fdb_age_threshold", reason));
        }
    };
    Ok(SwitchOptions {
        station_age,
        vlan_passthru: switch.vlan_passthru,
        asks_routers: switch.broadcast_arps_to_all_routers.unwrap_or(usual.asks_routers),
        snooping: switch.multicast_snooping.as_ref().map(multicast::parse).transpose()?,
        max_connections: Some(switch.ct_zone_limit).filter(|n| *n > 0),
    })
}

fn services(switch: &pb::LogicalSwitch) -> Result<SwitchServices, FieldError> {
    check_count("names", switch.names.len(), limits::MAX_NAME_LISTS)?;
    let names = switch.names.iter().enumerate();
    let names = names.map(|(i, text)| {
        let field = format!("names[{i}]");
        let missing = || FieldError::new(field.as_str(), "it is empty; write names/{id}");
        reference(&field, Kind::Names, text)?.ok_or_else(missing)
    });
    Ok(SwitchServices {
        dhcp: [
            reference("dhcpv4_options", Kind::DhcpOptions, &switch.dhcpv4_options)?,
            reference("dhcpv6_options", Kind::DhcpOptions, &switch.dhcpv6_options)?,
        ],
        names: names.collect::<Result<_, _>>()?,
        limits: reference("control_plane_limits", Kind::Limits, &switch.control_plane_limits)?,
    })
}
