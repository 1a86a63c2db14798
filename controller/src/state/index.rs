//! What must be found without a search: who has a port id, a peer, a key, an address, a
//! chassis. Derived from the records; never stored.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::IpAddr,
};

use flowtable::types::MacAddr;
use ovn_northd_lite::model::{Gateway, TemplateService};

use super::{Record, keys};
use crate::resource::{Access, Attachment, Kind, Name, Spec};

/// An address that one port of a switch can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Address {
    Mac(MacAddr),
    Ip(IpAddr),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Mac(mac) => mac.fmt(f),
            Self::Ip(ip) => ip.fmt(f),
        }
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Index {
    /// Id of a port → the port.
    pub(super) ports: HashMap<String, Name>,
    /// Router port → the switch port at its other side.
    pub(super) peers: HashMap<Name, Name>,
    /// Scope of keys → the keys in use.
    pub(super) keys: HashMap<String, HashSet<u32>>,
    /// Switch → address → the port that has it.
    pub(super) addresses: HashMap<Name, HashMap<Address, Name>>,
    /// Id of a chassis → the ports bound to it.
    pub(super) bound: HashMap<String, BTreeSet<Name>>,
    /// Name of a set in matches, or of a load balancer → who names it.
    pub(super) mentions: HashMap<String, BTreeSet<Name>>,
    /// Id of a switch port → the ports of workloads behind its interface.
    pub(super) nested: HashMap<String, BTreeSet<Name>>,
    /// Switch → its ports to routers.
    pub(super) to_routers: HashMap<Name, BTreeSet<Name>>,
    /// Switch port or load balancer → the groups it is in.
    pub(super) groups: HashMap<Name, BTreeSet<Name>>,
}

impl Index {
    pub(super) fn add(&mut self, record: &Record) {
        let name = &record.name;
        if is_port(name) {
            self.ports.insert(name.id().to_owned(), name.clone());
        }
        if let Some(peer) = peer_of(record) {
            self.peers.insert(peer.clone(), name.clone());
            if let Some(switch) = name.parent() {
                self.to_routers.entry(switch).or_default().insert(name.clone());
            }
        }
        if let Some(scope) = keys::scope(name) {
            self.keys.entry(scope).or_default().insert(record.key);
        }
        if let Some(binding) = &record.binding {
            self.bound.entry(binding.chassis.clone()).or_default().insert(name.clone());
        }
        if let Some(parent) = record.parent_port() {
            self.nested.entry(parent.id().to_owned()).or_default().insert(name.clone());
        }
        for set in sets_of(record) {
            self.mentions.entry(set).or_default().insert(name.clone());
        }
        for member in members_of(record) {
            self.groups.entry(member.clone()).or_default().insert(name.clone());
        }
        let addresses = addresses_of(record);
        if let (false, Some(switch)) = (addresses.is_empty(), name.parent()) {
            let owners = self.addresses.entry(switch).or_default();
            owners.extend(addresses.into_iter().map(|address| (address, name.clone())));
        }
    }

    pub(super) fn remove(&mut self, record: &Record) {
        let name = &record.name;
        if is_port(name) {
            self.ports.remove(name.id());
        }
        if let Some(peer) = peer_of(record) {
            self.peers.remove(peer);
            if let Some(switch) = name.parent() {
                remove_from(&mut self.to_routers, switch.as_str(), |ports| {
                    ports.remove(name);
                    ports.is_empty()
                });
            }
        }
        if let Some(scope) = keys::scope(name) {
            remove_from(&mut self.keys, scope.as_str(), |keys| {
                keys.remove(&record.key);
                keys.is_empty()
            });
        }
        if let Some(binding) = &record.binding {
            remove_from(&mut self.bound, binding.chassis.as_str(), |ports| {
                ports.remove(name);
                ports.is_empty()
            });
        }
        if let Some(parent) = record.parent_port() {
            remove_from(&mut self.nested, parent.id(), |ports| {
                ports.remove(name);
                ports.is_empty()
            });
        }
        for set in sets_of(record) {
            remove_from(&mut self.mentions, &set, |acls| {
                acls.remove(name);
                acls.is_empty()
            });
        }
        for member in members_of(record) {
            remove_from(&mut self.groups, member.as_str(), |groups| {
                groups.remove(name);
                groups.is_empty()
            });
        }
        if let Some(switch) = name.parent() {
            remove_from(&mut self.addresses, switch.as_str(), |owners| {
                for address in addresses_of(record) {
                    owners.remove(&address);
                }
                owners.is_empty()
            });
        }
    }
}

/// Changes the set of a key; drops it when that leaves it empty.
fn remove_from<K, V>(map: &mut HashMap<K, V>, key: &str, change: impl FnOnce(&mut V) -> bool)
where
    K: std::borrow::Borrow<str> + std::hash::Hash + Eq,
{
    if map.get_mut(key).is_some_and(change) {
        map.remove(key);
    }
}

pub(super) fn is_port(name: &Name) -> bool {
    matches!(name.kind(), Kind::SwitchPort | Kind::RouterPort)
}

/// The router port this switch port is linked to.
pub(super) fn peer_of(record: &Record) -> Option<&Name> {
    match &record.spec {
        Spec::SwitchPort(port) => match &port.attachment {
            Attachment::Router(peer) => Some(peer),
            Attachment::Workload { .. } | Attachment::Switch(_) | Attachment::Network { .. } => None,
        },
        _ => None,
    }
}

/// The sets that the match of this ACL or rule names, and what this switch, port or router does, by
/// whole names.
pub(super) fn sets_of(record: &Record) -> BTreeSet<String> {
    let balancers = |ids: &BTreeSet<String>, groups: &BTreeSet<String>| -> BTreeSet<String> {
        let groups = groups.iter().map(|id| format!("load-balancer-groups/{id}"));
        ids.iter().map(|id| format!("load-balancers/{id}")).chain(groups).collect()
    };
    let hosts = |gateway: &Gateway| match gateway {
        Gateway::Group(id) => Some(format!("ha-chassis-groups/{id}")),
        Gateway::Hosts(_) => None,
    };
    let limits = |id: &Option<String>| id.as_ref().map(|id| format!("control-plane-limits/{id}"));
    let dhcp = |ids: &[Option<String>; 2]| -> Vec<String> {
        ids.iter().flatten().map(|id| format!("dhcp-options/{id}")).collect()
    };
    match &record.spec {
        Spec::Switch(switch) => {
            let services = &switch.services;
            let names = services.names.iter().map(|id| format!("names/{id}"));
            let named = names.chain(dhcp(&services.dhcp)).chain(limits(&services.limits));
            balancers(&switch.load_balancers, &switch.balancer_groups).into_iter().chain(named).collect()
        }
        Spec::SwitchPort(port) => {
            let gateway = match &port.attachment {
                Attachment::Workload { access: Access::External(gateway), .. }
                | Attachment::Network { gateway, .. } => hosts(gateway),
                Attachment::Workload { .. } | Attachment::Router(_) | Attachment::Switch(_) => None,
            };
            dhcp(&port.services.dhcp).into_iter().chain(gateway).collect()
        }
        Spec::RouterPort(port) => hosts(&port.gateway).into_iter().collect(),
        Spec::Router(router) => {
            let named = balancers(&router.load_balancers, &router.balancer_groups).into_iter();
            named.chain(limits(&router.limits)).collect()
        }
        Spec::LoadBalancer(balancer) => {
            let ids = balancer.templates.iter().flat_map(TemplateService::variables);
            ids.map(|id| format!("template-variables/{id}")).collect()
        }
        Spec::Acl(acl) => {
            let samples = acl.samples.new.iter().chain(&acl.samples.established);
            let collectors = samples.flat_map(|sample| &sample.collectors);
            let collectors = collectors.map(|id| format!("sample-collectors/{id}"));
            ovn_northd_lite::sets_of(&acl.matching).into_iter().chain(collectors).collect()
        }
        Spec::QosRule(rule) => ovn_northd_lite::sets_of(&rule.matching),
        _ => BTreeSet::new(),
    }
}

/// The ports of this port group, or the load balancers of this group of them.
pub(super) fn members_of(record: &Record) -> &[Name] {
    match &record.spec {
        Spec::PortGroup(group) => &group.ports,
        Spec::LoadBalancerGroup(balancers) => balancers,
        _ => &[],
    }
}

/// The addresses this port claims for itself on its switch.
pub(super) fn addresses_of(record: &Record) -> BTreeSet<Address> {
    let Spec::SwitchPort(port) = &record.spec else { return BTreeSet::new() };
    let Attachment::Workload { addresses, .. } = &port.attachment else { return BTreeSet::new() };
    let each = addresses.iter().chain(&record.chosen).flat_map(|entry| {
        let ips = entry.ips.iter().copied().map(Address::Ip);
        std::iter::once(Address::Mac(entry.mac)).chain(ips)
    });
    each.collect()
}
