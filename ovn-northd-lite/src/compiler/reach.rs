//! Which units can see a change.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{Compiler, Dirty};
use crate::{
    build::{
        balancer::Used,
        gateway,
        links::Relinked,
        multicast::Hearers,
        traits::{AclName, RouterState, SwitchState},
        unit::Item,
    },
    model::{Acl, Gateway, Northbound, SwitchPort},
};

/// What is reached of each switch and router.
#[derive(Default)]
pub(super) struct Reach {
    pub(super) switches: BTreeMap<String, SwitchReach>,
    pub(super) routers: BTreeMap<String, RouterReach>,
    /// Load balancers that groups which are dirty name now, or have named before.
    members: BTreeMap<String, BTreeSet<String>>,
}

/// What is reached of a switch.
#[derive(Default)]
pub(super) struct SwitchReach {
    /// All its units.
    pub(super) all: bool,
    /// More than ports and load balancers: its state is to be made anew.
    rechecks: bool,
    /// Ports that have changed.
    ports: BTreeSet<String>,
    acls: BTreeSet<AclName>,
    balancers: BTreeSet<String>,
    pub(super) items: BTreeSet<Item>,
}

/// What is reached of a router.
#[derive(Default)]
pub(super) struct RouterReach {
    /// All its units.
    pub(super) all: bool,
    /// All its units but neighbours.
    pub(super) own: bool,
    /// Its state is to be made anew, whatever else is reached.
    rechecks: bool,
    balancers: BTreeSet<String>,
    /// Ports, all of whose neighbours are reached.
    pub(super) links: BTreeSet<String>,
    pub(super) items: BTreeSet<Item>,
}

impl Reach {
    /// What a change reaches, with links, references and states brought up to date.
    pub(super) fn of(compiler: &mut Compiler, nb: &Northbound, dirty: &Dirty) -> Self {
        let mut reach = Self::default();
        reach.mark_switches(compiler, nb, dirty);
        reach.mark_routers(compiler, nb, dirty);
        reach.mark_groups(compiler, nb, dirty);
        reach.mark_balancers(compiler, nb, dirty);
        reach.mark_services(nb, dirty);
        reach.mark_samples(compiler, nb, dirty);
        reach.mark_gateways(compiler, nb, dirty);
        reach.compare_routers(compiler, nb);
        reach.compare_switches(compiler, nb);
        reach
    }

    fn switch(&mut self, id: &str) -> &mut SwitchReach {
        self.switches.entry(id.to_owned()).or_default()
    }

    fn router(&mut self, id: &str) -> &mut RouterReach {
        self.routers.entry(id.to_owned()).or_default()
    }

    fn mark_switches(&mut self, compiler: &mut Compiler, nb: &Northbound, dirty: &Dirty) {
        let mut relinked = Relinked::default();
        for id in &dirty.switches {
            relinked.extend(compiler.links.set_switch(id, nb.switches.get(id)));
            let reach = self.switch(id);
            (reach.all, reach.rechecks) = (true, true);
            let ends: Vec<_> = compiler.links.of_switch(id).collect();
            for (_, router, router_port) in ends {
                self.router(router).links.insert(router_port.to_owned());
            }
        }
        for (id, port_id) in &dirty.switch_ports {
            let port = nb.switches.get(id).and_then(|switch| switch.ports.get(port_id));
            relinked.extend(compiler.links.set_port(id, port_id, port));
            self.switch_port(compiler, id, port_id);
            self.switch(id).ports.insert(port_id.clone());
        }
        for id in dirty.switches.iter().chain(&dirty.switch_settings) {
            let switch = nb.switches.get(id);
            let users = &mut compiler.references;
            users.switches.set(id, switch.map(|switch| switch.load_balancers.clone()).unwrap_or_default());
            let groups = switch.map(|switch| switch.balancer_groups.clone()).unwrap_or_default();
            users.switches_of_groups.set(id, groups);
            self.switch(id).rechecks = true;
            // Whether a switch listens is what routers know of groups on it.
            for (_, router, _) in compiler.links.of_switch(id) {
                self.router(router).rechecks |= relays(compiler, router);
            }
        }
        for (id, acl) in &dirty.switch_acls {
            let reach = self.switch(id);
            reach.rechecks = true;
            reach.acls.insert((None, acl.clone()));
        }
        for (id, rule) in &dirty.qos_rules {
            self.switch(id).items.insert(Item::Qos(rule.clone()));
        }
        self.relinked(compiler, &relinked);
    }

    /// A port of a switch: itself, and as a neighbour of the routers on the switch.
    fn switch_port(&mut self, compiler: &Compiler, switch: &str, port: &str) {
        self.switch(switch).items.insert(Item::Port(port.to_owned()));
        for (_, router, router_port) in compiler.links.of_switch(switch) {
            let neighbour = Item::Neighbour(router_port.to_owned(), port.to_owned());
            let reach = self.router(router);
            reach.items.insert(neighbour);
            // It sends on what somebody behind the port wants to hear.
            reach.rechecks |= relays(compiler, router);
        }
    }

    fn relinked(&mut self, compiler: &Compiler, relinked: &Relinked) {
        for (switch, port) in &relinked.switch_ports {
            self.switch_port(compiler, switch, port);
            // Load balancers of routers work at the switches linked to them.
            self.switch(switch).rechecks = true;
        }
        for (router, port) in &relinked.router_ports {
            let reach = self.router(router);
            reach.items.insert(Item::Port(port.clone()));
            reach.links.insert(port.clone());
        }
    }

    fn mark_routers(&mut self, compiler: &mut Compiler, nb: &Northbound, dirty: &Dirty) {
        for id in &dirty.routers {
            self.router(id).all = true;
            self.router_sides(compiler, id, None);
        }
        for id in dirty.routers.iter().chain(&dirty.router_settings) {
            let router = nb.routers.get(id);
            let users = &mut compiler.references;
            users.routers.set(id, router.map(|router| router.load_balancers.clone()).unwrap_or_default());
            let groups = router.map(|router| router.balancer_groups.clone()).unwrap_or_default();
            users.routers_of_groups.set(id, groups);
            self.router(id).rechecks = true;
        }
        for (id, port) in &dirty.router_ports {
            let reach = self.router(id);
            // Next hops and translations look for the port that leads to an address.
            reach.own = true;
            reach.items.insert(Item::Port(port.clone()));
            reach.links.insert(port.clone());
            self.router_sides(compiler, id, Some(port));
        }
        for (id, policy) in &dirty.policies {
            self.router(id).items.insert(Item::Policy(policy.clone()));
        }
        for (id, nat) in &dirty.nats {
            self.router(id).items.insert(Item::Nat(nat.clone()));
        }
    }

    /// The switch ports that are linked to a router's ports, or to one of them: they see it.
    fn router_sides(&mut self, compiler: &Compiler, router: &str, port: Option<&str>) {
        for (_, switch, switch_port) in
            compiler.links.of_router(router).filter(|(id, ..)| port.is_none_or(|port| port == *id))
        {
            self.switch_port(compiler, switch, switch_port);
            self.switch(switch).rechecks = true;
        }
    }

    fn mark_groups(&mut self, compiler: &mut Compiler, nb: &Northbound, dirty: &Dirty) {
        for id in &dirty.port_groups {
            let before = compiler.links.switches_of_group(id);
            let group = nb.port_groups.get(id);
            compiler.links.set_group(id, group);
            let after = compiler.links.switches_of_group(id);
            for switch in before.union(&after) {
                let reach = self.switch(switch);
                reach.rechecks = true;
                let acls = group.iter().flat_map(|group| group.acls.keys());
                reach.acls.extend(acls.map(|acl| (Some(id.clone()), acl.clone())));
            }
        }
        for (id, acl) in &dirty.group_acls {
            for switch in compiler.links.switches_of_group(id) {
                let reach = self.switch(&switch);
                reach.rechecks = true;
                reach.acls.insert((Some(id.clone()), acl.clone()));
            }
        }
    }

    fn mark_balancers(&mut self, compiler: &mut Compiler, nb: &Northbound, dirty: &Dirty) {
        if dirty.load_balancers.is_empty() && dirty.balancer_groups.is_empty() {
            return;
        }
        let mut routed = compiler.links.routed().clone();
        for id in &dirty.load_balancers {
            for (switch, port) in compiler.links.set_balancer(id, nb.load_balancers.get(id)) {
                self.switch(&switch).items.insert(Item::Port(port));
            }
        }
        routed.extend(compiler.links.routed().iter().cloned());
        let compiler = self.follow_balancer_groups(compiler, nb, dirty, &routed);
        let users = &compiler.references;
        for id in &dirty.load_balancers {
            let groups: Vec<_> = users.groups.of(id).collect();
            let of_groups = groups.iter().flat_map(|group| users.switches_of_groups.of(group));
            for switch in users.switches.of(id).chain(of_groups) {
                self.switch(switch).balancers.insert(id.clone());
            }
            let of_groups = groups.iter().flat_map(|group| users.routers_of_groups.of(group));
            for router in users.routers.of(id).chain(of_groups) {
                self.balancer_of_router(compiler, router, id, routed.contains(id));
            }
        }
    }

    /// Load balancers that come into groups or leave them, where those are used.
    fn follow_balancer_groups<'c>(
        &mut self,
        compiler: &'c mut Compiler,
        nb: &Northbound,
        dirty: &Dirty,
        routed: &BTreeSet<String>,
    ) -> &'c Compiler {
        let none = BTreeSet::new();
        for group in &dirty.balancer_groups {
            let new = nb.balancer_groups.get(group).unwrap_or(&none);
            let old = compiler.references.groups.by(group).unwrap_or(&none);
            let changed: Vec<_> = old.symmetric_difference(new).cloned().collect();
            self.members.insert(group.clone(), old.union(new).cloned().collect());
            for switch in compiler.references.switches_of_groups.of(group) {
                self.switch(switch).balancers.extend(changed.iter().cloned());
            }
            for router in compiler.references.routers_of_groups.of(group) {
                for id in &changed {
                    self.balancer_of_router(compiler, router, id, routed.contains(id));
                }
            }
            compiler.references.groups.set(group, new.clone());
        }
        compiler
    }

    /// A load balancer of a router changes, comes or goes.
    fn balancer_of_router(&mut self, compiler: &Compiler, router: &str, id: &str, is_routed: bool) {
        self.router(router).balancers.insert(id.to_owned());
        for (_, switch, port) in compiler.links.of_router(router) {
            self.switch(switch).balancers.insert(id.to_owned());
            if is_routed {
                self.switch_port(compiler, switch, port);
            }
        }
    }

    /// Who uses DHCP options or bounds that are dirty. They have few users, or are all of
    /// these users' business: nobody keeps count.
    fn mark_services(&mut self, nb: &Northbound, dirty: &Dirty) {
        if dirty.dhcp_options.is_empty() && dirty.limits.is_empty() {
            return;
        }
        let is_dhcp =
            |ids: &[Option<String>; 2]| ids.iter().flatten().any(|id| dirty.dhcp_options.contains(id));
        let is_limit = |id: &Option<String>| id.as_ref().is_some_and(|id| dirty.limits.contains(id));
        for (id, switch) in &nb.switches {
            if is_dhcp(&switch.services.dhcp) || is_limit(&switch.services.limits) {
                self.switch(id).rechecks = true;
            }
            for (port, _) in switch.ports.iter().filter(|(_, port)| is_dhcp(&port.services.dhcp)) {
                self.switch(id).items.insert(Item::Port(port.clone()));
            }
        }
        for (id, _) in nb.routers.iter().filter(|(_, router)| is_limit(&router.limits)) {
            self.router(id).rechecks = true;
        }
    }

    /// ACLs that name collectors which are dirty. These rarely change: nobody keeps count of
    /// their users.
    fn mark_samples(&mut self, compiler: &Compiler, nb: &Northbound, dirty: &Dirty) {
        if dirty.sample_collectors.is_empty() {
            return;
        }
        let is_user = |acl: &Acl| {
            let samples = acl.samples.new.iter().chain(&acl.samples.established);
            samples.flat_map(|sample| &sample.collectors).any(|id| dirty.sample_collectors.contains(id))
        };
        for (id, switch) in &nb.switches {
            for (acl, _) in switch.acls.iter().filter(|(_, acl)| is_user(acl)) {
                let reach = self.switch(id);
                reach.rechecks = true;
                reach.acls.insert((None, acl.clone()));
            }
        }
        for (group, content) in &nb.port_groups {
            for (acl, _) in content.acls.iter().filter(|(_, acl)| is_user(acl)) {
                for id in compiler.links.switches_of_group(group) {
                    let reach = self.switch(&id);
                    reach.rechecks = true;
                    reach.acls.insert((Some(group.clone()), acl.clone()));
                }
            }
        }
    }

    /// Ports that name groups of hosts which are dirty. Such groups change when hosts come and
    /// go: nobody keeps count of their users.
    fn mark_gateways(&mut self, compiler: &Compiler, nb: &Northbound, dirty: &Dirty) {
        if dirty.ha_groups.is_empty() {
            return;
        }
        let is_dirty =
            |gateway: &Gateway| matches!(gateway, Gateway::Group(id) if dirty.ha_groups.contains(id));
        for (id, switch) in &nb.switches {
            let is_user = |port: &SwitchPort| port.kind.gateway().is_some_and(is_dirty);
            let ports = switch.ports.iter().filter(|(_, port)| is_user(port));
            ports.for_each(|(port, _)| self.switch_port(compiler, id, port));
        }
        for (id, router) in &nb.routers {
            for (port, _) in router.ports.iter().filter(|(_, port)| is_dirty(gateway::place(router, port))) {
                self.router(id).items.insert(Item::Port(port.clone()));
                self.router_sides(compiler, id, Some(port));
            }
        }
    }

    /// Makes the states of routers anew; where they differ, more is reached.
    fn compare_routers(&mut self, compiler: &mut Compiler, nb: &Northbound) {
        let ids: Vec<_> = self.routers.keys().cloned().collect();
        for id in ids {
            let reach = self.router(&id);
            let is_by_neighbours = !reach.all
                && !reach.own
                && !reach.rechecks
                && reach.balancers.is_empty()
                && !reach.items.is_empty()
                && reach.items.iter().all(|item| matches!(item, Item::Neighbour(..)));
            if is_by_neighbours {
                continue;
            }
            let new = nb.routers.get(&id).map(|router| RouterState::of(nb, &compiler.links, &id, router));
            let old = compiler.routers.remove(&id);
            if let Some(new) = &new {
                compiler.routers.insert(id.clone(), new.clone());
            }
            let (Some(old), Some(new)) = (&old, &new) else {
                reach.all = true;
                self.router_sides(compiler, &id, None);
                continue;
            };
            reach.compare(old, new);
            let items = items_of(nb, &self.members, (&old.balancers, &new.balancers));
            self.router(&id).items.extend(items);
            if old.traits != new.traits || old.balancers != new.balancers {
                self.router_sides(compiler, &id, None);
            }
        }
    }

    /// Brings the states of switches up to date; where they differ, more is reached.
    fn compare_switches(&mut self, compiler: &mut Compiler, nb: &Northbound) {
        let Compiler { links, switches, .. } = compiler;
        for (id, reach) in &mut self.switches {
            let Some(switch) = nb.switches.get(id) else {
                switches.remove(id);
                reach.all = true;
                continue;
            };
            reach.items.extend(reach.balancers.iter().cloned().map(Item::Balancer));
            match switches.get_mut(id) {
                Some(state) if !reach.rechecks => {
                    if !reach.ports.is_empty() {
                        let before = std::mem::take(&mut state.groups);
                        reach.all |= state.follow_ports(nb, links, (id, switch), &reach.ports);
                        reach.items.extend(changed_groups(&before, &state.groups));
                    }
                    reach.all |= !reach.balancers.is_empty() && state.follow_balancers(nb);
                }
                Some(state) => {
                    let new = match reach.all {
                        true => SwitchState::of(nb, links, id, switch),
                        false => state.after(nb, links, (id, switch), &reach.ports),
                    };
                    reach.compare(state, &new);
                    let items = items_of(nb, &self.members, (&state.balancers, &new.balancers));
                    reach.items.extend(items);
                    *state = new;
                }
                None => {
                    switches.insert(id.clone(), SwitchState::of(nb, links, id, switch));
                    reach.all = true;
                }
            }
        }
    }
}

/// Load balancers that somebody uses now and has not used before, or the other way around:
/// those that are named, and those that are in groups which are, or were.
fn items_of(
    nb: &Northbound,
    members: &BTreeMap<String, BTreeSet<String>>,
    (old, new): (&Used, &Used),
) -> BTreeSet<Item> {
    let groups = old.groups.symmetric_difference(&new.groups);
    let groups = groups.filter_map(|group| members.get(group).or_else(|| nb.balancer_groups.get(group)));
    let ids = old.ids.symmetric_difference(&new.ids).chain(groups.flatten());
    ids.cloned().map(Item::Balancer).collect()
}

impl SwitchReach {
    fn compare(&mut self, old: &SwitchState, new: &SwitchState) {
        self.all |= old.traits != new.traits;
        if self.all {
            return;
        }
        self.items.extend(changed_groups(&old.groups, &new.groups));
        if !self.rechecks {
            return;
        }
        let is_dirty = |names: &BTreeSet<AclName>| !self.acls.is_disjoint(names);
        for (place, names) in &old.acls {
            if new.acls.get(place) != Some(names) {
                self.items.insert(Item::Acls(place.clone()));
            }
        }
        for (place, names) in &new.acls {
            if old.acls.get(place) != Some(names) || is_dirty(names) {
                self.items.insert(Item::Acls(place.clone()));
            }
        }
    }
}

impl RouterReach {
    fn compare(&mut self, old: &RouterState, new: &RouterState) {
        self.all |= old.traits != new.traits;
        if self.all {
            return;
        }
        self.items.extend(self.balancers.iter().cloned().map(Item::Balancer));
        self.items.extend(changed_groups(&old.groups, &new.groups));
        let route = |(by, prefix): &(_, _)| Item::Route(*by, *prefix);
        let gone = old.routes.keys().filter(|key| !new.routes.contains_key(key));
        self.items.extend(gone.map(route));
        let changed = new.routes.iter().filter(|(key, routes)| old.routes.get(key) != Some(routes));
        self.items.extend(changed.map(|(key, _)| route(key)));
    }
}

/// Groups that are heard by others than before, or by nobody any more.
fn changed_groups(
    old: &BTreeMap<IpAddr, Hearers>,
    new: &BTreeMap<IpAddr, Hearers>,
) -> impl Iterator<Item = Item> {
    let gone = old.keys().filter(|ip| !new.contains_key(*ip));
    let changed = new.iter().filter(|(ip, hearers)| old.get(*ip) != Some(*hearers));
    gone.chain(changed.map(|(ip, _)| ip)).copied().map(Item::Group).collect::<Vec<_>>().into_iter()
}

/// A router sends groups on from one of its networks to others.
fn relays(compiler: &Compiler, router: &str) -> bool {
    compiler.routers.get(router).is_some_and(|state| state.traits.options.relays)
}
