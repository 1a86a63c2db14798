//! Who hears which group: what ports say, put together for a switch and for the routers on
//! it. Each group has a key that follows from its address, so that hosts agree about it while
//! others come and go.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{gateway, links::Links, traits::Notable};
use crate::{
    key::{PortKey, hash32},
    model::{Access, LogicalRouter, LogicalSwitch, Northbound, SwitchPort, SwitchPortKind},
};

/// First key of groups that somebody asked for; those below are the datapath's own.
const FIRST_KEY: u16 = PortKey::FIRST_GROUP + 0x100;
const N_KEYS: u16 = u16::MAX - FIRST_KEY;

/// Who hears a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hearers {
    /// Its key in the datapath.
    pub(crate) key: PortKey,
    /// Ids of the ports, besides those that hear everything.
    pub(crate) ports: BTreeSet<String>,
}

/// Who hears more than it has asked for, on a switch that listens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Listening {
    /// Ids of the ports that hear everything: those of routers, and of networks outside.
    pub(crate) hear_all: BTreeSet<String>,
    /// Ids of the ports that hear what workloads say about groups.
    pub(crate) hear_reports: BTreeSet<String>,
}

/// Name of a group.
pub(super) fn name(ip: IpAddr) -> String {
    format!("_MC_{ip}")
}

/// Address of the group of this name.
pub fn group_of(name: &str) -> Option<IpAddr> {
    name.strip_prefix("_MC_")?.parse().ok()
}

/// Who hears more than it has asked for; `None`: the switch does not listen.
pub(super) fn listening(
    nb: &Northbound,
    links: &Links,
    (id, switch): (&str, &LogicalSwitch),
    notable: &Notable<'_>,
) -> Option<Listening> {
    switch.options.snooping.as_ref()?;
    let mut listening = Listening::default();
    for (port_id, port) in notable.iter().filter(|(_, port)| hears(port)) {
        let relays = || {
            let side = links.router_side(nb, id, port_id).filter(|side| side.is_enabled());
            side.is_some_and(|side| side.relays())
        };
        // Whoever is beyond says so there.
        let is_outside = matches!(port.kind, SwitchPortKind::Network { .. } | SwitchPortKind::Switch { .. });
        let is_router = port.hears.iter().any(IpAddr::is_unspecified);
        if port.options.hears_all || is_outside || is_router || relays() {
            listening.hear_all.insert((*port_id).clone());
        }
        if port.options.hears_reports || is_outside || is_router {
            listening.hear_reports.insert((*port_id).clone());
        }
    }
    Some(listening)
}

/// The groups that somebody on a switch wants to hear.
pub(super) fn of_switch(switch: &LogicalSwitch, notable: &Notable<'_>) -> BTreeMap<IpAddr, Hearers> {
    let mut groups: BTreeMap<IpAddr, BTreeSet<String>> = BTreeMap::new();
    if switch.options.snooping.is_some() {
        for (id, ip) in heard_by(notable.iter().copied()) {
            groups.entry(ip).or_default().insert(id.to_owned());
        }
    }
    keyed(groups, BTreeSet::new())
}

/// The groups that somebody on the networks of a router wants to hear, with the router's
/// ports there.
pub(super) fn of_router(
    nb: &Northbound,
    links: &Links,
    id: &str,
    router: &LogicalRouter,
) -> BTreeMap<IpAddr, Hearers> {
    let mut groups: BTreeMap<IpAddr, BTreeSet<String>> = BTreeMap::new();
    let ports =
        router.ports.iter().filter(|(_, port)| router.options.relays && router.enabled && port.enabled);
    for (port_id, _) in ports {
        let end = links.switch_port_of(id, port_id);
        let switch = end.and_then(|(switch, _)| nb.switches.get(switch));
        let listens = |switch: &&LogicalSwitch| switch.options.snooping.is_some();
        for (_, ip) in switch.filter(listens).into_iter().flat_map(heard_on) {
            groups.entry(ip).or_default().insert(port_id.clone());
        }
    }
    // What stands for gateways has keys of the same range.
    let gateways = router.ports.values().filter(|port| !port.gateway.is_empty());
    keyed(groups, gateways.filter_map(|port| gateway::redirect_key(port.key)).collect())
}

/// Ids of the ports of a router that what is sent to any group leaves by.
pub(super) fn hear_all(router: &LogicalRouter) -> BTreeSet<String> {
    let ports = router.ports.iter().filter(|(_, port)| port.hears_all && port.enabled);
    ports.filter(|_| router.options.relays && router.enabled).map(|(id, _)| id.clone()).collect()
}

/// A port can be told what is sent to groups.
fn hears(port: &SwitchPort) -> bool {
    // Who is in the network outside hears it there, and an address hears nothing.
    let has_own_way = !matches!(
        port.kind,
        SwitchPortKind::Workload { access: Access::External(_) | Access::Virtual { .. }, .. }
    );
    port.enabled && port.options.takes_groups && has_own_way
}

fn heard_on(switch: &LogicalSwitch) -> impl Iterator<Item = (&str, IpAddr)> {
    heard_by(switch.ports.iter())
}

fn heard_by<'a>(
    ports: impl Iterator<Item = (&'a String, &'a SwitchPort)>,
) -> impl Iterator<Item = (&'a str, IpAddr)> {
    let ports = ports.filter(|(_, port)| hears(port));
    let heard = ports.flat_map(|(id, port)| port.hears.iter().map(move |ip| (id.as_str(), *ip)));
    heard.filter(|(_, ip)| ip.is_multicast())
}

/// Gives groups their keys. Of two with the same hash the later one has the next free key.
fn keyed(
    groups: BTreeMap<IpAddr, BTreeSet<String>>,
    mut taken: BTreeSet<PortKey>,
) -> BTreeMap<IpAddr, Hearers> {
    let mut keyed = BTreeMap::new();
    for (ip, ports) in groups {
        let bytes = match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let first = hash32(&bytes) % u32::from(N_KEYS);
        let keys = (0..u32::from(N_KEYS)).filter_map(|n| {
            let offset = u16::try_from((first + n) % u32::from(N_KEYS)).ok()?;
            PortKey::new(FIRST_KEY.checked_add(offset)?).ok()
        });
        // When all are taken the group is as one that nobody asked for.
        if let Some(key) = keys.into_iter().find(|key| !taken.contains(key)) {
            taken.insert(key);
            keyed.insert(ip, Hearers { key, ports });
        }
    }
    keyed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_follow_from_addresses_and_no_two_are_the_same() {
        let of = |n: u32| (0..n).map(|n| (IpAddr::from((0xe801_0000 + n).to_be_bytes()), BTreeSet::new()));
        let all = keyed(of(4000).collect(), BTreeSet::new());
        let keys: BTreeSet<_> = all.values().map(|hearers| hearers.key).collect();
        assert_eq!(keys.len(), 4000);
        assert!(keys.iter().all(|key| key.get() >= FIRST_KEY));
        // Most keep theirs, whoever else there is.
        let few = keyed(of(4000).step_by(2).collect(), BTreeSet::new());
        let n_same = few.iter().filter(|(ip, hearers)| all[*ip].key == hearers.key).count();
        assert!(n_same > 1800, "{n_same}");
        let ip: IpAddr = [239, 1, 2, 3].into();
        let one = |taken: BTreeSet<PortKey>| keyed([(ip, BTreeSet::new())].into(), taken)[&ip].key;
        let key = one(BTreeSet::new());
        assert_eq!(one([key].into()).get(), key.get() + 1);
        assert_eq!(group_of(&name(ip)), Some(ip));
        assert_eq!(group_of("_MC_flood"), None);
    }
}
