//! Which switch port is attached to which router port, which switches have ports of which
//! port group, which load balancers have backends behind a port that they check, and which
//! have an address.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::topology::RouterSide;
use crate::model::{LoadBalancer, LogicalSwitch, Northbound, PortGroup, SwitchPort, SwitchPortKind};

/// (datapath, port), both ids.
pub(crate) type PortId = (String, String);

/// Ends of links that may be other ones now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Relinked {
    pub(crate) switch_ports: BTreeSet<PortId>,
    pub(crate) router_ports: BTreeSet<PortId>,
}

impl Relinked {
    pub(crate) fn extend(&mut self, other: Self) {
        self.switch_ports.extend(other.switch_ports);
        self.router_ports.extend(other.router_ports);
    }
}

/// The links between switches and routers. A router port is linked to one switch port:
/// of several that ask for it the first one in order gets it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Links {
    /// Router ports by switch and port.
    by_switch: BTreeMap<String, BTreeMap<String, PortId>>,
    /// Switch ports by router and port.
    by_router: BTreeMap<String, BTreeMap<String, BTreeSet<PortId>>>,
    /// Ports of other switches that switch ports ask for.
    beyond: BTreeMap<PortId, PortId>,
    /// Switch ports that ask for a port of another switch, by that.
    asking: BTreeMap<PortId, BTreeSet<PortId>>,
    /// Ports of port groups, with their switches.
    members: BTreeMap<String, BTreeMap<String, String>>,
    /// Port groups of each port.
    groups_of_port: BTreeMap<String, BTreeSet<String>>,
    /// Port groups with ports of a switch, and how many.
    groups_of_switch: BTreeMap<String, BTreeMap<String, usize>>,
    /// Ports whose workloads each load balancer checks.
    probed: BTreeMap<String, BTreeSet<PortId>>,
    /// Load balancers that check the workload of each port.
    probed_by: BTreeMap<PortId, BTreeSet<String>>,
    /// Addresses of each load balancer, and load balancers by address.
    addresses: BTreeMap<String, BTreeSet<IpAddr>>,
    services: BTreeMap<IpAddr, BTreeSet<String>>,
    /// Load balancers to whose addresses other routers have routes.
    routed: BTreeSet<String>,
}

impl Links {
    /// All links of a network.
    pub(crate) fn of(nb: &Northbound) -> Self {
        let mut links = Self::default();
        for (id, switch) in &nb.switches {
            links.set_switch(id, Some(switch));
        }
        for (id, group) in &nb.port_groups {
            links.set_group(id, Some(group));
        }
        for (id, balancer) in &nb.load_balancers {
            links.set_balancer(id, Some(balancer));
        }
        links
    }

    /// Replaces the links of a whole switch; what [`Links::set_port`] answers, for all.
    pub(crate) fn set_switch(&mut self, id: &str, switch: Option<&LogicalSwitch>) -> Relinked {
        let known = self.by_switch.get(id).into_iter().flat_map(BTreeMap::keys).cloned();
        let routed = switch.iter().flat_map(|switch| &switch.ports);
        let is_linked = |port: &SwitchPort| target(port).is_some() || beyond(port).is_some();
        let routed = routed.filter(|(_, port)| is_linked(port)).map(|(id, _)| id.clone());
        let first = (id.to_owned(), String::new());
        let asking = self.beyond.range(first..).take_while(|((switch, _), _)| switch == id);
        let asking: Vec<_> = asking.map(|((_, port), _)| port.clone()).collect();
        let ports: BTreeSet<_> = known.chain(routed).chain(asking).collect();
        let port = |port: &String| switch.and_then(|switch| switch.ports.get(port));
        let mut relinked = Relinked::default();
        ports.iter().for_each(|port_id| relinked.extend(self.set_port(id, port_id, port(port_id))));
        relinked
    }

    /// Replaces the link of a switch port.
    pub(crate) fn set_port(&mut self, switch: &str, id: &str, port: Option<&SwitchPort>) -> Relinked {
        let new = port.and_then(target);
        let old = self.by_switch.get(switch).and_then(|ports| ports.get(id)).cloned();
        let neighbours = self.set_beyond(switch, id, port);
        if old == new {
            return Relinked { switch_ports: neighbours, ..Relinked::default() };
        }
        let mut touched =
            Relinked { switch_ports: neighbours, router_ports: old.iter().chain(&new).cloned().collect() };
        touched.switch_ports.insert((switch.to_owned(), id.to_owned()));
        for (router, router_port) in old.iter().chain(&new) {
            touched.switch_ports.extend(self.switch_port_of(router, router_port).cloned());
        }
        if let Some((router, router_port)) = &old {
            self.unlink((switch, id), router, router_port);
        }
        if let Some((router, router_port)) = &new {
            let ports = self.by_router.entry(router.clone()).or_default();
            ports.entry(router_port.clone()).or_default().insert((switch.to_owned(), id.to_owned()));
            let target = (router.clone(), router_port.clone());
            self.by_switch.entry(switch.to_owned()).or_default().insert(id.to_owned(), target);
        }
        for (router, router_port) in old.iter().chain(&new) {
            touched.switch_ports.extend(self.switch_port_of(router, router_port).cloned());
        }
        touched
    }

    /// Replaces the port of another switch that a switch port asks for. Answers with those
    /// that may be linked to it, or not be any more.
    fn set_beyond(&mut self, switch: &str, id: &str, port: Option<&SwitchPort>) -> BTreeSet<PortId> {
        let own = (switch.to_owned(), id.to_owned());
        let new = port.and_then(beyond).map(|(switch, port)| (switch.to_owned(), port.to_owned()));
        let old = self.beyond.get(&own).cloned();
        if old == new {
            return BTreeSet::new();
        }
        if let Some(old) = &old
            && let Some(asking) = self.asking.get_mut(old)
        {
            asking.remove(&own);
            if asking.is_empty() {
                self.asking.remove(old);
            }
        }
        match &new {
            Some(new) => {
                self.asking.entry(new.clone()).or_default().insert(own.clone());
                self.beyond.insert(own.clone(), new.clone());
            }
            None => drop(self.beyond.remove(&own)),
        }
        let asking = self.asking.get(&own).into_iter().flatten().cloned();
        asking.chain(old).chain(new).chain([own.clone()]).collect()
    }

    fn unlink(&mut self, (switch, id): (&str, &str), router: &str, router_port: &str) {
        if let Some(ports) = self.by_switch.get_mut(switch) {
            ports.remove(id);
            if ports.is_empty() {
                self.by_switch.remove(switch);
            }
        }
        let Some(ports) = self.by_router.get_mut(router) else { return };
        if let Some(ends) = ports.get_mut(router_port) {
            ends.remove(&(switch.to_owned(), id.to_owned()));
            if ends.is_empty() {
                ports.remove(router_port);
            }
        }
        if ports.is_empty() {
            self.by_router.remove(router);
        }
    }

    /// Replaces the ports of a port group. Answers with the switches that have other ports
    /// of it now.
    pub(crate) fn set_group(&mut self, id: &str, group: Option<&PortGroup>) -> BTreeSet<String> {
        let none = BTreeMap::new();
        let new = group.map_or(&none, |group| &group.ports);
        let old = self.members.remove(id).unwrap_or_default();
        let mut switches = BTreeSet::new();
        for (port, switch) in old.iter().filter(|(port, switch)| new.get(*port) != Some(switch)) {
            switches.insert(switch.clone());
            if let Some(groups) = self.groups_of_port.get_mut(port) {
                groups.remove(id);
                if groups.is_empty() {
                    self.groups_of_port.remove(port);
                }
            }
            if let Some(groups) = self.groups_of_switch.get_mut(switch) {
                if groups.get(id).is_some_and(|n| *n <= 1) {
                    groups.remove(id);
                } else if let Some(n) = groups.get_mut(id) {
                    *n -= 1;
                }
                if groups.is_empty() {
                    self.groups_of_switch.remove(switch);
                }
            }
        }
        for (port, switch) in new.iter().filter(|(port, switch)| old.get(*port) != Some(switch)) {
            switches.insert(switch.clone());
            self.groups_of_port.entry(port.clone()).or_default().insert(id.to_owned());
            *self.groups_of_switch.entry(switch.clone()).or_default().entry(id.to_owned()).or_default() += 1;
        }
        if !new.is_empty() {
            self.members.insert(id.to_owned(), new.clone());
        }
        switches
    }

    /// Replaces what a load balancer checks. Answers with the ports that it checks now, or
    /// has checked before.
    pub(crate) fn set_balancer(&mut self, id: &str, balancer: Option<&LoadBalancer>) -> BTreeSet<PortId> {
        self.set_services(id, balancer);
        let checking = balancer.filter(|balancer| balancer.health_check.is_some());
        let points = checking.into_iter().flat_map(|balancer| balancer.probe_points.values());
        let new: BTreeSet<PortId> = points.map(|point| (point.switch.clone(), point.port.clone())).collect();
        let old = self.probed.remove(id).unwrap_or_default();
        for port in old.difference(&new) {
            if let Some(by) = self.probed_by.get_mut(port) {
                by.remove(id);
                if by.is_empty() {
                    self.probed_by.remove(port);
                }
            }
        }
        for port in new.difference(&old) {
            self.probed_by.entry(port.clone()).or_default().insert(id.to_owned());
        }
        let touched = old.union(&new).cloned().collect();
        if !new.is_empty() {
            self.probed.insert(id.to_owned(), new);
        }
        touched
    }

    /// Replaces the addresses of a load balancer.
    fn set_services(&mut self, id: &str, balancer: Option<&LoadBalancer>) {
        let vips = balancer.into_iter().flat_map(|balancer| balancer.vips.keys());
        let new: BTreeSet<IpAddr> = vips.map(|vip| vip.ip).collect();
        let old = self.addresses.remove(id).unwrap_or_default();
        for ip in old.difference(&new) {
            if let Some(ids) = self.services.get_mut(ip) {
                ids.remove(id);
                if ids.is_empty() {
                    self.services.remove(ip);
                }
            }
        }
        for ip in new.difference(&old) {
            self.services.entry(*ip).or_default().insert(id.to_owned());
        }
        if !new.is_empty() {
            self.addresses.insert(id.to_owned(), new);
        }
        match balancer.is_some_and(|balancer| balancer.add_route) {
            true => drop(self.routed.insert(id.to_owned())),
            false => drop(self.routed.remove(id)),
        }
    }

    /// Load balancers with a service at an address.
    pub(crate) fn services_at(&self, ip: IpAddr) -> impl DoubleEndedIterator<Item = &String> {
        self.services.get(&ip).into_iter().flatten()
    }

    /// Load balancers to whose addresses other routers have routes.
    pub(crate) fn routed(&self) -> &BTreeSet<String> {
        &self.routed
    }

    /// Load balancers that check the workload of a port.
    pub(crate) fn probed_by(&self, switch: &str, port: &str) -> impl Iterator<Item = &String> {
        self.probed_by.get(&(switch.to_owned(), port.to_owned())).into_iter().flatten()
    }

    /// Switches that have ports of a port group.
    pub(crate) fn switches_of_group(&self, group: &str) -> BTreeSet<String> {
        self.members.get(group).into_iter().flat_map(BTreeMap::values).cloned().collect()
    }

    /// Port groups that have ports of a switch.
    pub(crate) fn groups_of_switch(&self, switch: &str) -> impl Iterator<Item = &String> {
        self.groups_of_switch.get(switch).into_iter().flat_map(BTreeMap::keys)
    }

    /// Port groups that a port is in.
    pub(crate) fn groups_of_port(&self, port: &str) -> impl Iterator<Item = &String> {
        self.groups_of_port.get(port).into_iter().flatten()
    }

    /// Router ports that ports of the switch are linked to: (switch port, router, port).
    pub(crate) fn of_switch(&self, switch: &str) -> impl Iterator<Item = (&str, &str, &str)> {
        let ports = self.by_switch.get(switch).into_iter().flatten();
        let linked = ports.filter(move |(port, (router, router_port))| {
            self.switch_port_of(router, router_port)
                .is_some_and(|(of, linked)| of == switch && linked == *port)
        });
        linked.map(|(port, (router, router_port))| (port.as_str(), router.as_str(), router_port.as_str()))
    }

    /// Switch ports that a router's ports are linked to: (port, switch, switch port).
    pub(crate) fn of_router(&self, router: &str) -> impl Iterator<Item = (&str, &str, &str)> {
        let ports = self.by_router.get(router).into_iter().flatten();
        ports.filter_map(|(port, ends)| {
            let (switch, switch_port) = ends.first()?;
            Some((port.as_str(), switch.as_str(), switch_port.as_str()))
        })
    }

    /// The switch port a router port is linked to.
    pub(crate) fn switch_port_of(&self, router: &str, port: &str) -> Option<&PortId> {
        self.by_router.get(router)?.get(port)?.first()
    }

    /// The router port a switch port asks for.
    pub(crate) fn router_port_of(&self, switch: &str, port: &str) -> Option<&PortId> {
        self.by_switch.get(switch)?.get(port)
    }

    /// The router's side of a switch port's link.
    pub(crate) fn router_side<'a>(
        &'a self,
        nb: &'a Northbound,
        switch: &str,
        port: &str,
    ) -> Option<RouterSide<'a>> {
        let (router_id, port_id) = self.router_port_of(switch, port)?;
        let linked = self.switch_port_of(router_id, port_id)?;
        if linked.0 != switch || linked.1 != port {
            return None;
        }
        let router = nb.routers.get(router_id)?;
        Some(RouterSide::new(nb, (router_id, router), (port_id, router.ports.get(port_id)?)))
    }
}

/// The router port that a switch port asks for.
fn target(port: &SwitchPort) -> Option<PortId> {
    match &port.kind {
        SwitchPortKind::Router { router, port } => Some((router.clone(), port.clone())),
        SwitchPortKind::Workload { .. } | SwitchPortKind::Switch { .. } | SwitchPortKind::Network { .. } => {
            None
        }
    }
}

/// The port of another switch that a switch port asks for: switch, port.
pub(crate) fn beyond(port: &SwitchPort) -> Option<(&str, &str)> {
    match &port.kind {
        SwitchPortKind::Switch { switch, port } => Some((switch, port)),
        SwitchPortKind::Workload { .. } | SwitchPortKind::Router { .. } | SwitchPortKind::Network { .. } => {
            None
        }
    }
}
