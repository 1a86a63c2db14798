//! Address sets and port groups as hosts are told of them: by name, with members, and
//! apart from the flows that name them, so that a new member changes no flow.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::{
    backends, heard,
    model::{Northbound, SwitchPort, SwitchPortKind},
    names, sampling, template,
};

/// Endings of the address sets that a port group has.
pub(crate) const FAMILIES: [(&str, bool); 2] = [("_ip4", true), ("_ip6", false)];

/// Sets with their members.
type Sets = BTreeMap<String, BTreeSet<String>>;

/// An address set, if there is one.
pub(super) fn of_addresses(nb: &Northbound, id: &str) -> Sets {
    let members = nb.address_sets.get(id).map(|members| members.iter().map(ToString::to_string).collect());
    members.map(|members| (format!("${id}"), members)).into_iter().collect()
}

/// The ports of a group, and their addresses, if there is such a group. An address set of
/// the same name has precedence.
pub(super) fn of_group(nb: &Northbound, id: &str) -> Sets {
    let Some(group) = nb.port_groups.get(id) else { return Sets::new() };
    let mut sets = Sets::from([(format!("@{id}"), group.ports.keys().cloned().collect())]);
    let ips: Vec<IpAddr> = group
        .ports
        .iter()
        .filter_map(|(port, switch)| nb.switches.get(switch)?.ports.get(port))
        .flat_map(addresses)
        .collect();
    for (ending, is_v4) in FAMILIES {
        if !nb.address_sets.contains_key(&format!("{id}{ending}")) {
            let family = ips.iter().filter(|ip| ip.is_ipv4() == is_v4);
            sets.insert(format!("${id}{ending}"), family.map(ToString::to_string).collect());
        }
    }
    sets
}

/// The addresses that a port brings into its groups.
pub(crate) fn addresses(port: &SwitchPort) -> impl Iterator<Item = IpAddr> {
    let addresses = match &port.kind {
        SwitchPortKind::Workload { addresses, .. } => addresses.as_slice(),
        SwitchPortKind::Router { .. } | SwitchPortKind::Switch { .. } | SwitchPortKind::Network { .. } => &[],
    };
    addresses.iter().flat_map(|address| address.ips.iter().copied())
}

/// Name records, if there are such.
pub(super) fn of_names(nb: &Northbound, id: &str) -> Sets {
    nb.names.get(id).map(|names| (names::set_of(id), names::members(names))).into_iter().collect()
}

/// Backends of a load balancer, if hosts are told of them.
pub(super) fn of_backends(nb: &Northbound, id: &str) -> Sets {
    let members = nb.load_balancers.get(id).and_then(backends::members);
    members.map(|members| (backends::set_of(id), members)).into_iter().collect()
}

/// Values of a variable, if there is such.
pub(super) fn of_variable(nb: &Northbound, id: &str) -> Sets {
    let values = nb.template_variables.get(id).map(template::members);
    values.map(|members| (template::set_of(id), members)).into_iter().collect()
}

/// Where a collector of sampled packets is told of them, if there is such.
pub(super) fn of_collector(nb: &Northbound, id: &str) -> Sets {
    let members = nb.sample_collectors.get(id).map(sampling::members);
    members.map(|members| (sampling::set_of(id), members)).into_iter().collect()
}

/// Neighbours of a router port, if hosts have heard of any.
pub(super) fn of_heard(nb: &Northbound, port: &str) -> Sets {
    nb.heard.get(port).map(|heard| (heard::set_of(port), heard::members(heard))).into_iter().collect()
}

/// The port group that an address set of this name would be a part of.
pub fn group_of(address_set: &str) -> Option<&str> {
    FAMILIES.iter().find_map(|(ending, _)| address_set.strip_suffix(ending))
}
