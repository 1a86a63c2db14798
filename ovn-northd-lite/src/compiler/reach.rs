//! Which units can see a change.

use std::collections::{BTreeMap, BTreeSet};

use super::{Compiler, Dirty};
use crate::{
    build::{
        links::Relinked,
        traits::{AclName, RouterState, SwitchState},
        unit::Item,
    },
    model::Northbound,
};

/// What is reached of each switch and router.
#[derive(Default)]
pub(super) struct Reach {
    pub(super) switches: BTreeMap<String, SwitchReach>,
    pub(super) routers: BTreeMap<String, RouterReach>,
}

/// What is reached of a switch.
#[derive(Default)]
pub(super) struct SwitchReach {
    /// All its units.
    pub(super) all: bool,
    /// More than a port: its state is to be made anew.
    rechecks: bool,
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
        }
        for id in dirty.switches.iter().chain(&dirty.switch_settings) {
            let names = nb.switches.get(id).map(|switch| &switch.load_balancers);
            compiler.references.switches.set(id, names.cloned().unwrap_or_default());
            self.switch(id).rechecks = true;
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
            self.router(router).items.insert(neighbour);
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
            let names = nb.routers.get(id).map(|router| &router.load_balancers);
            compiler.references.routers.set(id, names.cloned().unwrap_or_default());
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
        for id in &dirty.load_balancers {
            for (switch, port) in compiler.links.set_balancer(id, nb.load_balancers.get(id)) {
                self.switch(&switch).items.insert(Item::Port(port));
            }
            for switch in compiler.references.switches.of(id) {
                let reach = self.switch(switch);
                reach.rechecks = true;
                reach.balancers.insert(id.clone());
            }
            for router in compiler.references.routers.of(id) {
                self.router(router).balancers.insert(id.clone());
                for (_, switch, _) in compiler.links.of_router(router) {
                    let reach = self.switch(switch);
                    reach.rechecks = true;
                    reach.balancers.insert(id.clone());
                }
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
            let new = nb.routers.get(&id).map(|router| RouterState::of(nb, &id, router));
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
            if old.traits != new.traits || old.balancers != new.balancers {
                self.router_sides(compiler, &id, None);
            }
        }
    }

    /// Makes the states of switches anew; where they differ, more is reached.
    fn compare_switches(&mut self, compiler: &mut Compiler, nb: &Northbound) {
        for (id, reach) in &mut self.switches {
            let old = compiler.switches.remove(id);
            let new = nb.switches.get(id).map(|switch| match &old {
                Some(old) if !reach.rechecks => old.with_ports_of(switch),
                _ => SwitchState::of(nb, &compiler.links, id, switch),
            });
            match (&old, &new) {
                (Some(old), Some(new)) => reach.compare(old, new),
                _ => reach.all = true,
            }
            compiler.switches.extend(new.map(|new| (id.clone(), new)));
        }
    }
}

impl SwitchReach {
    fn compare(&mut self, old: &SwitchState, new: &SwitchState) {
        self.all |= old.traits != new.traits;
        if self.all || !self.rechecks {
            return;
        }
        let balancers = old.balancers.symmetric_difference(&new.balancers);
        let balancers = balancers.chain(self.balancers.intersection(&new.balancers));
        self.items.extend(balancers.cloned().map(Item::Balancer));
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
        let balancers = old.balancers.symmetric_difference(&new.balancers);
        let balancers = balancers.chain(self.balancers.intersection(&new.balancers));
        self.items.extend(balancers.cloned().map(Item::Balancer));
        let route = |(by, prefix): &(_, _)| Item::Route(*by, *prefix);
        let gone = old.routes.keys().filter(|key| !new.routes.contains_key(key));
        self.items.extend(gone.map(route));
        let changed = new.routes.iter().filter(|(key, routes)| old.routes.get(key) != Some(routes));
        self.items.extend(changed.map(|(key, _)| route(key)));
    }
}

/// Who names which load balancers, both ways.
#[derive(Debug, Clone, Default)]
pub(super) struct References {
    named: BTreeMap<String, BTreeSet<String>>,
    users: BTreeMap<String, BTreeSet<String>>,
}

impl References {
    /// Replaces what a user names.
    fn set(&mut self, user: &str, names: BTreeSet<String>) {
        let old = self.named.remove(user).unwrap_or_default();
        for name in old.difference(&names) {
            if let Some(users) = self.users.get_mut(name) {
                users.remove(user);
                if users.is_empty() {
                    self.users.remove(name);
                }
            }
        }
        for name in names.difference(&old) {
            self.users.entry(name.clone()).or_default().insert(user.to_owned());
        }
        if !names.is_empty() {
            self.named.insert(user.to_owned(), names);
        }
    }

    /// Who names it.
    fn of(&self, name: &str) -> impl Iterator<Item = &String> {
        self.users.get(name).into_iter().flatten()
    }
}
