//! Which switch port is attached to which router port, which switches have ports of which
//! port group, and what of it each datapath's features see.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{
    Acl, DhcpOptions, LoadBalancer, LogicalRouter, LogicalSwitch, Northbound, PortGroup, PortServices,
    RouterPort, SwitchPortKind,
};

/// What is compiled as a whole, by its northbound place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum PartId {
    /// Id of a switch.
    Switch(String),
    /// Id of a router.
    Router(String),
    /// Id of an address set.
    AddressSet(String),
    /// Id of a port group.
    PortGroup(String),
    /// Id of name records.
    Names(String),
}

/// (datapath, port), both ids.
type PortId = (String, String);

/// The links between switches and routers. A router port is linked to one switch port:
/// of several that ask for it the first one in order gets it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Links {
    /// Router ports by switch and port.
    by_switch: BTreeMap<String, BTreeMap<String, PortId>>,
    /// Switch ports by router and port.
    by_router: BTreeMap<String, BTreeMap<String, BTreeSet<PortId>>>,
    /// Switches with ports of a port group.
    by_group: BTreeMap<String, BTreeSet<String>>,
    /// Port groups with ports of a switch.
    groups: BTreeMap<String, BTreeSet<String>>,
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
        links
    }

    /// Replaces the switches of one port group.
    pub(crate) fn set_group(&mut self, id: &str, group: Option<&PortGroup>) {
        for switch in self.by_group.remove(id).unwrap_or_default() {
            if let Some(groups) = self.groups.get_mut(&switch) {
                groups.remove(id);
                if groups.is_empty() {
                    self.groups.remove(&switch);
                }
            }
        }
        for switch in group.map(PortGroup::switches).unwrap_or_default() {
            self.by_group.entry(id.to_owned()).or_default().insert(switch.to_owned());
            self.groups.entry(switch.to_owned()).or_default().insert(id.to_owned());
        }
    }

    /// Switches that have ports of a port group.
    pub(crate) fn switches_of_group(&self, group: &str) -> impl Iterator<Item = &String> {
        self.by_group.get(group).into_iter().flatten()
    }

    /// Port groups that have ports of a switch.
    pub(crate) fn groups_of(&self, switch: &str) -> impl Iterator<Item = &String> {
        self.groups.get(switch).into_iter().flatten()
    }

    /// Replaces the links of one switch.
    pub(crate) fn set_switch(&mut self, id: &str, switch: Option<&LogicalSwitch>) {
        for (port, (router, router_port)) in self.by_switch.remove(id).unwrap_or_default() {
            if let Some(ports) = self.by_router.get_mut(&router)
                && let Some(ends) = ports.get_mut(&router_port)
            {
                ends.remove(&(id.to_owned(), port));
                if ends.is_empty() {
                    ports.remove(&router_port);
                }
                if ports.is_empty() {
                    self.by_router.remove(&router);
                }
            }
        }
        for (port_id, port) in switch.iter().flat_map(|switch| &switch.ports) {
            if let SwitchPortKind::Router { router, port } = &port.kind {
                let ports = self.by_router.entry(router.clone()).or_default();
                ports.entry(port.clone()).or_default().insert((id.to_owned(), port_id.clone()));
                let ends = self.by_switch.entry(id.to_owned()).or_default();
                ends.insert(port_id.clone(), (router.clone(), port.clone()));
            }
        }
    }

    /// Some router port is asked for by several switch ports.
    pub(crate) fn are_contested(&self) -> bool {
        self.by_router.values().flat_map(BTreeMap::values).any(|ends| ends.len() > 1)
    }

    /// Routers that ports of the switch ask for.
    pub(crate) fn routers_of(&self, switch: &str) -> impl Iterator<Item = &str> {
        self.by_switch.get(switch).into_iter().flatten().map(|(_, (router, _))| router.as_str())
    }

    /// Switches whose ports ask for a port of the router.
    pub(crate) fn switches_of(&self, router: &str) -> impl Iterator<Item = &str> {
        let ports = self.by_router.get(router).into_iter().flat_map(BTreeMap::values);
        ports.flatten().map(|(switch, _)| switch.as_str())
    }

    /// The switch port a router port is linked to.
    fn switch_port_of(&self, router: &str, port: &str) -> Option<&PortId> {
        self.by_router.get(router)?.get(port)?.first()
    }

    /// The router's side of a switch port's link.
    fn router_side<'a>(&'a self, nb: &'a Northbound, switch: &str, port: &str) -> Option<RouterSide<'a>> {
        let (router_id, port_id) = self.by_switch.get(switch)?.get(port)?;
        let linked = self.switch_port_of(router_id, port_id)?;
        if linked.0 != switch || linked.1 != port {
            return None;
        }
        let router = nb.routers.get(router_id)?;
        Some(RouterSide { router_id, port_id, router, port: router.ports.get(port_id)? })
    }
}

/// A router port, seen from a switch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RouterSide<'a> {
    pub(crate) router_id: &'a str,
    pub(crate) port_id: &'a str,
    pub(crate) router: &'a LogicalRouter,
    pub(crate) port: &'a RouterPort,
}

impl RouterSide<'_> {
    /// Neither the router nor its port is off.
    pub(crate) fn is_enabled(&self) -> bool {
        self.router.enabled && self.port.enabled
    }

    /// Name of the router port.
    pub(crate) fn object(&self) -> String {
        format!("routers/{}/ports/{}", self.router_id, self.port_id)
    }
}

/// A switch, seen from a router port that is linked to it.
#[derive(Debug)]
pub(crate) struct SwitchSide<'a> {
    pub(crate) switch_id: &'a str,
    pub(crate) port_id: &'a str,
    pub(crate) switch: &'a LogicalSwitch,
    /// Other router ports on the switch.
    pub(crate) neighbours: Vec<RouterSide<'a>>,
}

/// What the features of a switch are built from.
pub(crate) struct SwitchInput<'a> {
    /// Northbound name.
    pub(crate) object: String,
    pub(crate) switch: &'a LogicalSwitch,
    /// Linked router ports by switch port.
    pub(crate) links: BTreeMap<&'a str, RouterSide<'a>>,
    /// Port groups that have ports of it, by id.
    pub(crate) groups: Vec<(&'a str, &'a PortGroup)>,
    /// Load balancers of the switch and of the linked routers that are everywhere.
    balancers: BTreeMap<&'a str, &'a LoadBalancer>,
    dhcp_options: &'a BTreeMap<String, DhcpOptions>,
}

impl<'a> SwitchInput<'a> {
    pub(crate) fn new(nb: &'a Northbound, links: &'a Links, id: &str, switch: &'a LogicalSwitch) -> Self {
        let sides =
            switch.ports.keys().filter_map(|port| Some((port.as_str(), links.router_side(nb, id, port)?)));
        let groups = links.groups_of(id);
        let links: BTreeMap<_, _> = sides.collect();
        let routers = links.values().filter(|side| side.is_enabled() && side.router.chassis.is_none());
        let ids = routers.flat_map(|side| &side.router.load_balancers).chain(&switch.load_balancers);
        let balancers = named(nb, ids);
        let groups = groups.filter_map(|id| Some((id.as_str(), nb.port_groups.get(id)?))).collect();
        let dhcp_options = &nb.dhcp_options;
        Self { object: format!("switches/{id}"), switch, links, groups, balancers, dhcp_options }
    }

    /// ACLs of the switch and its port groups, with their names.
    pub(crate) fn acls(&self) -> impl Iterator<Item = (String, &'a Acl)> {
        let named = |of: String| move |(id, acl): (&String, &'a Acl)| (format!("{of}/acls/{id}"), acl);
        let groups = self.groups.iter().map(|(id, group)| (format!("port-groups/{id}"), &group.acls));
        let all = std::iter::once((self.object.clone(), &self.switch.acls)).chain(groups);
        all.flat_map(move |(of, acls)| acls.iter().map(named(of)))
    }

    /// DHCP options of a port with their ids: its own, or the switch's.
    pub(crate) fn dhcp(&self, port: &PortServices) -> Vec<(&'a str, &'a DhcpOptions)> {
        let families = port.dhcp.iter().zip(&self.switch.services.dhcp);
        let ids = families.filter_map(|(own, common)| own.as_ref().or(common.as_ref()));
        let found = ids.filter_map(|id| self.dhcp_options.get_key_value(id));
        found.map(|(id, options)| (id.as_str(), options)).collect()
    }

    /// Load balancers for the switch's workloads.
    pub(crate) fn balancers(&self) -> impl Iterator<Item = (&'a str, &'a LoadBalancer)> {
        self.balancers.iter().map(|(id, balancer)| (*id, *balancer))
    }

    /// Name of a port.
    pub(crate) fn port_object(&self, port: &str) -> String {
        format!("{}/ports/{port}", self.object)
    }
}

/// What the features of a router are built from.
pub(crate) struct RouterInput<'a> {
    /// Northbound name.
    pub(crate) object: String,
    pub(crate) router: &'a LogicalRouter,
    /// Linked switches by router port.
    pub(crate) links: BTreeMap<&'a str, SwitchSide<'a>>,
    balancers: BTreeMap<&'a str, &'a LoadBalancer>,
}

/// The load balancers with these ids.
fn named<'a>(
    nb: &'a Northbound,
    ids: impl Iterator<Item = &'a String>,
) -> BTreeMap<&'a str, &'a LoadBalancer> {
    ids.filter_map(|id| Some((id.as_str(), nb.load_balancers.get(id)?))).collect()
}

impl<'a> RouterInput<'a> {
    pub(crate) fn new(nb: &'a Northbound, links: &'a Links, id: &str, router: &'a LogicalRouter) -> Self {
        let side = |port: &str| {
            let (switch_id, port_id) = links.switch_port_of(id, port)?;
            let switch = nb.switches.get(switch_id)?;
            let others = switch.ports.keys().filter(|other| *other != port_id);
            let neighbours = others.filter_map(|other| links.router_side(nb, switch_id, other)).collect();
            Some(SwitchSide { switch_id, port_id, switch, neighbours })
        };
        let sides = router.ports.keys().filter_map(|port| Some((port.as_str(), side(port)?)));
        let balancers = named(nb, router.load_balancers.iter());
        Self { object: format!("routers/{id}"), router, links: sides.collect(), balancers }
    }

    /// The router's load balancers.
    pub(crate) fn balancers(&self) -> impl Iterator<Item = (&'a str, &'a LoadBalancer)> {
        self.balancers.iter().map(|(id, balancer)| (*id, *balancer))
    }

    /// Name of a port.
    pub(crate) fn port_object(&self, port: &str) -> String {
        format!("{}/ports/{port}", self.object)
    }

    /// Ports that are on, of a router that is.
    pub(crate) fn enabled_ports(&self) -> impl Iterator<Item = (&'a str, &'a RouterPort)> {
        let router = self.router;
        router
            .ports
            .iter()
            .filter(move |(_, port)| router.enabled && port.enabled)
            .map(|(id, port)| (id.as_str(), port))
    }
}
