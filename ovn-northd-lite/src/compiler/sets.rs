//! The members of address sets and port groups: compared as values, so that a new member
//! costs little in a large set.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use super::Dirty;
use crate::{
    backends,
    build::{
        links::Links,
        sets::{FAMILIES, addresses, group_of},
    },
    delta::{SetChange, SouthboundDelta},
    heard,
    model::{IpNetwork, Northbound, PortGroup, SetMember},
    names, sampling,
    southbound::Southbound,
    template,
};

/// What a port brings into a group, and the switch it is on.
type Member = (String, Vec<SetMember>);

/// The addresses of a port group.
#[derive(Debug, Clone, Default)]
struct GroupAddresses {
    ports: BTreeMap<String, Member>,
    /// How many ports have an address.
    ips: BTreeMap<SetMember, usize>,
}

/// Address sets and port groups as they were compiled last.
#[derive(Debug, Clone, Default)]
pub(super) struct SetTracker {
    groups: BTreeMap<String, GroupAddresses>,
    /// Members of the sets of addresses, by the sets' names without `$`.
    told: BTreeMap<String, BTreeSet<SetMember>>,
}

/// Which ports of a group may have other addresses: `None`, all of them.
type DirtyPorts = Option<BTreeSet<String>>;

impl SetTracker {
    /// Follows what is dirty.
    pub(super) fn update(
        &mut self,
        nb: &Northbound,
        dirty: &Dirty,
        links: &Links,
        sb: &mut Southbound,
        delta: &mut SouthboundDelta,
    ) {
        let mut names: BTreeSet<_> = dirty.address_sets.iter().cloned().collect();
        for (id, ports) in dirty_groups(dirty, links) {
            self.follow_group(nb, &id, ports);
            names.extend(FAMILIES.map(|(ending, _)| format!("{id}{ending}")));
            if dirty.port_groups.contains(&id) {
                let new = nb.port_groups.get(&id);
                tell_ports(&id, new, sb, delta);
            }
        }
        for name in names {
            self.tell_addresses(nb, &name, sb, delta);
        }
        for id in &dirty.names {
            tell_texts(names::set_of(id), nb.names.get(id).map(names::members), sb, delta);
        }
        for id in &dirty.load_balancers {
            let served = nb.load_balancers.get(id).and_then(backends::members);
            tell_texts(backends::set_of(id), served, sb, delta);
        }
        for id in &dirty.template_variables {
            let values = nb.template_variables.get(id).map(template::members);
            tell_texts(template::set_of(id), values, sb, delta);
        }
        for id in &dirty.sample_collectors {
            let targets = nb.sample_collectors.get(id).map(sampling::members);
            tell_texts(sampling::set_of(id), targets, sb, delta);
        }
        for port in &dirty.heard {
            tell_texts(heard::set_of(port), nb.heard.get(port).map(heard::members), sb, delta);
        }
    }

    fn follow_group(&mut self, nb: &Northbound, id: &str, dirty: DirtyPorts) {
        let Some(group) = nb.port_groups.get(id) else {
            self.groups.remove(id);
            return;
        };
        let known = self.groups.entry(id.to_owned()).or_default();
        let dirty = dirty.unwrap_or_else(|| known.ports.keys().chain(group.ports.keys()).cloned().collect());
        for port in dirty {
            let new = group.ports.get(&port).map(|switch| {
                let there = nb.switches.get(switch).and_then(|switch| switch.ports.get(&port));
                let ips = there.into_iter().flat_map(addresses).map(|ip| {
                    let prefix_len = if ip.is_ipv4() { 32 } else { 128 };
                    SetMember::Ip(IpNetwork { addr: ip, prefix_len })
                });
                (switch.clone(), ips.collect())
            });
            known.set(port, new);
        }
    }

    /// Tells how a set of addresses differs.
    fn tell_addresses(
        &mut self,
        nb: &Northbound,
        name: &str,
        sb: &mut Southbound,
        delta: &mut SouthboundDelta,
    ) {
        let of_group = || {
            let group = group_of(name).filter(|id| nb.port_groups.contains_key(*id))?;
            let is_v4 = FAMILIES.iter().find(|(ending, _)| name.ends_with(ending))?.1;
            let ips = self.groups.get(group)?.ips.keys();
            let of_family =
                |member: &&SetMember| matches!(member, SetMember::Ip(ip) if ip.addr.is_ipv4() == is_v4);
            Some(Cow::Owned(ips.filter(of_family).copied().collect()))
        };
        // An address set of a group's name has precedence.
        let new: Option<Cow<'_, BTreeSet<SetMember>>> =
            nb.address_sets.get(name).map(Cow::Borrowed).or_else(of_group);
        let full = format!("${name}");
        let Some(new) = new else {
            if self.told.remove(name).is_some() {
                sb.sets.remove(&full);
                delta.removed.sets.insert(full);
            }
            return;
        };
        let is_new = !self.told.contains_key(name);
        let old = self.told.entry(name.to_owned()).or_default();
        let added: Vec<_> = new.difference(old).copied().collect();
        let removed: Vec<_> = old.difference(&new).copied().collect();
        for member in &removed {
            old.remove(member);
        }
        old.extend(&added);
        let texts = |members: Vec<SetMember>| members.iter().map(ToString::to_string).collect();
        let change = SetChange { added: texts(added), removed: texts(removed) };
        tell(full, is_new, change, sb, delta);
    }
}

impl GroupAddresses {
    fn set(&mut self, port: String, new: Option<Member>) {
        for ip in new.iter().flat_map(|(_, ips)| ips) {
            *self.ips.entry(*ip).or_default() += 1;
        }
        let old = match new {
            Some(new) => self.ports.insert(port, new),
            None => self.ports.remove(&port),
        };
        for ip in old.iter().flat_map(|(_, ips)| ips) {
            if let Some(n) = self.ips.get_mut(ip) {
                *n -= 1;
                if *n == 0 {
                    self.ips.remove(ip);
                }
            }
        }
    }
}

/// The port groups that are dirty, or have dirty ports.
fn dirty_groups(dirty: &Dirty, links: &Links) -> BTreeMap<String, DirtyPorts> {
    let mut groups: BTreeMap<String, DirtyPorts> = BTreeMap::new();
    for (_, port) in &dirty.switch_ports {
        for group in links.groups_of_port(port) {
            let ports = groups.entry(group.clone()).or_insert_with(|| Some(BTreeSet::new()));
            ports.get_or_insert_default().insert(port.clone());
        }
    }
    for switch in &dirty.switches {
        groups.extend(links.groups_of_switch(switch).map(|group| (group.clone(), None)));
    }
    groups.extend(dirty.port_groups.iter().map(|group| (group.clone(), None)));
    groups
}

/// Tells how the list of a group's ports differs.
fn tell_ports(id: &str, new: Option<&PortGroup>, sb: &mut Southbound, delta: &mut SouthboundDelta) {
    let full = format!("@{id}");
    let Some(new) = new else {
        if sb.sets.remove(&full).is_some() {
            delta.removed.sets.insert(full);
        }
        return;
    };
    let none = BTreeSet::new();
    let old = sb.sets.get(&full);
    let (is_new, old) = (old.is_none(), old.unwrap_or(&none));
    let added = new.ports.keys().filter(|port| !old.contains(*port)).cloned().collect();
    let removed = old.iter().filter(|port| !new.ports.contains_key(*port)).cloned().collect();
    tell(full, is_new, SetChange { added, removed }, sb, delta);
}

/// Tells how a set of names, backends, neighbours or values differs.
fn tell_texts(full: String, new: Option<BTreeSet<String>>, sb: &mut Southbound, delta: &mut SouthboundDelta) {
    let Some(new) = new else {
        if sb.sets.remove(&full).is_some() {
            delta.removed.sets.insert(full);
        }
        return;
    };
    let none = BTreeSet::new();
    let old = sb.sets.get(&full);
    let (is_new, old) = (old.is_none(), old.unwrap_or(&none));
    let added = new.difference(old).cloned().collect();
    let removed = old.difference(&new).cloned().collect();
    tell(full, is_new, SetChange { added, removed }, sb, delta);
}

fn tell(name: String, is_new: bool, change: SetChange, sb: &mut Southbound, delta: &mut SouthboundDelta) {
    let members = sb.sets.entry(name.clone()).or_default();
    for member in &change.removed {
        members.remove(member);
    }
    members.extend(change.added.iter().cloned());
    if is_new || change != SetChange::default() {
        delta.sets.insert(name, change);
    }
}
