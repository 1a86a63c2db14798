//! Incremental compilation: only what a change reaches is compiled again.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    build::{
        compile_part, merge, parts, sets,
        topology::{Links, PartId},
    },
    delta::{SouthboundDelta, diff},
    model::{Acl, DefaultPolicy, LogicalSwitch, Northbound},
    southbound::{ChassisRecord, Southbound},
};

/// Which objects of the northbound model changed: they, one of their ports, ACLs or
/// routes, or whether they exist.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dirty {
    /// Ids of switches.
    pub switches: BTreeSet<String>,
    /// Ids of routers.
    pub routers: BTreeSet<String>,
    /// Ids of load balancers.
    pub load_balancers: BTreeSet<String>,
    /// Ids of address sets.
    pub address_sets: BTreeSet<String>,
    /// Ids of port groups: they, or one of their ACLs.
    pub port_groups: BTreeSet<String>,
    /// Ids of DHCP options.
    pub dhcp_options: BTreeSet<String>,
    /// Ids of name records.
    pub names: BTreeSet<String>,
    /// Ids of bounds on what hosts are asked for.
    pub limits: BTreeSet<String>,
}

/// Keeps the compiled network up to date.
///
/// # Invariants
/// - After each [`Compiler::update`] with all that changed marked dirty,
///   [`Compiler::southbound`] equals [`crate::compile`] of the same input.
#[derive(Debug, Clone, Default)]
pub struct Compiler {
    links: Links,
    /// ACLs and defaults of port groups as compiled last.
    group_rules: BTreeMap<String, (BTreeMap<String, Acl>, DefaultPolicy)>,
    parts: BTreeMap<PartId, Southbound>,
    sb: Southbound,
}

impl Compiler {
    /// A compiler of the empty network.
    pub fn new() -> Self {
        Self::default()
    }

    /// The network as compiled last.
    pub fn southbound(&self) -> &Southbound {
        &self.sb
    }

    /// Compiles what changed and tells what is different now.
    ///
    /// # Cost
    /// That of compiling the dirty datapaths and those linked to them.
    pub fn update(
        &mut self,
        nb: &Northbound,
        chassis: &BTreeMap<String, ChassisRecord>,
        dirty: &Dirty,
    ) -> SouthboundDelta {
        let dirty = &with_users(nb, dirty);
        let mut affected = self.reached(dirty);
        let was_contested = self.links.are_contested();
        for id in &dirty.switches {
            self.links.set_switch(id, nb.switches.get(id));
        }
        affected.extend(self.reached(dirty));
        affected.extend(self.reached_by_sets(nb, dirty));
        if was_contested || self.links.are_contested() {
            // Who gets a contested router port depends on switches far away.
            affected.extend(self.parts.keys().cloned());
            affected.extend(parts(nb));
        }
        let delta = self.replace(nb, chassis, &affected);
        delta.clone().apply(&mut self.sb);
        delta
    }

    /// The dirty datapaths and those that depend on them by the present links.
    fn reached(&self, dirty: &Dirty) -> BTreeSet<PartId> {
        let mut reached = BTreeSet::new();
        for switch in &dirty.switches {
            reached.insert(PartId::Switch(switch.clone()));
            reached.extend(self.links.routers_of(switch).map(|id| PartId::Router(id.to_owned())));
        }
        for router in &dirty.routers {
            reached.insert(PartId::Router(router.clone()));
            for switch in self.links.switches_of(router) {
                reached.insert(PartId::Switch(switch.to_owned()));
                reached.extend(self.links.routers_of(switch).map(|id| PartId::Router(id.to_owned())));
            }
        }
        reached
    }

    /// The sets that changed, and the switches to which other ACLs of port groups apply now.
    /// A new member of a group, on a switch that has members already, reaches no switch.
    fn reached_by_sets(&mut self, nb: &Northbound, dirty: &Dirty) -> BTreeSet<PartId> {
        let mut reached = BTreeSet::new();
        for id in &dirty.address_sets {
            reached.insert(PartId::AddressSet(id.clone()));
            reached.extend(sets::group_of(id).map(|group| PartId::PortGroup(group.to_owned())));
        }
        for id in &dirty.port_groups {
            reached.insert(PartId::PortGroup(id.clone()));
            let before: BTreeSet<_> = self.links.switches_of_group(id).cloned().collect();
            let group = nb.port_groups.get(id);
            self.links.set_group(id, group);
            let after: BTreeSet<_> = self.links.switches_of_group(id).cloned().collect();
            let rules = group.map(|group| (group.acls.clone(), group.default_policy));
            let had = match &rules {
                Some(rules) => self.group_rules.insert(id.clone(), rules.clone()),
                None => self.group_rules.remove(id),
            };
            let switches: Vec<_> = if had == rules {
                before.symmetric_difference(&after).cloned().collect()
            } else {
                before.union(&after).cloned().collect()
            };
            reached.extend(switches.into_iter().map(PartId::Switch));
        }
        reached.extend(dirty.names.iter().cloned().map(PartId::Names));
        for switch in &dirty.switches {
            reached.extend(self.links.groups_of(switch).cloned().map(PartId::PortGroup));
        }
        reached
    }

    /// Compiles the affected parts and compares with what they were.
    fn replace(
        &mut self,
        nb: &Northbound,
        chassis: &BTreeMap<String, ChassisRecord>,
        affected: &BTreeSet<PartId>,
    ) -> SouthboundDelta {
        let mut old = Southbound { chassis: self.sb.chassis.clone(), ..Southbound::default() };
        let mut new = Southbound { chassis: chassis.clone(), ..Southbound::default() };
        for id in affected {
            if let Some(part) = self.parts.remove(id) {
                merge(&mut old, part);
            }
            let part = compile_part(nb, &self.links, id);
            if part != Southbound::default() {
                merge(&mut new, part.clone());
                self.parts.insert(id.clone(), part);
            }
        }
        diff(&old, &new)
    }
}

/// What changed, with the switches and routers that use a load balancer that did. Those
/// that have used it before, and do not now, have changed themselves.
fn with_users(nb: &Northbound, dirty: &Dirty) -> Dirty {
    let mut all = dirty.clone();
    let uses = |ids: &BTreeSet<String>| !ids.is_disjoint(&dirty.load_balancers);
    if !dirty.load_balancers.is_empty() {
        let switches = nb.switches.iter().filter(|(_, switch)| uses(&switch.load_balancers));
        all.switches.extend(switches.map(|(id, _)| id.clone()));
        let routers = nb.routers.iter().filter(|(_, router)| uses(&router.load_balancers));
        all.routers.extend(routers.map(|(id, _)| id.clone()));
    }
    if !dirty.dhcp_options.is_empty() || !dirty.limits.is_empty() {
        with_served(nb, &mut all);
    }
    all
}

/// The switches and routers that use DHCP options or bounds that changed.
fn with_served(nb: &Northbound, dirty: &mut Dirty) {
    let is_dhcp =
        |dhcp: &[Option<String>; 2]| dhcp.iter().flatten().any(|id| dirty.dhcp_options.contains(id));
    let is_limit = |limits: &Option<String>| limits.as_ref().is_some_and(|id| dirty.limits.contains(id));
    let is_served = |switch: &LogicalSwitch| {
        is_limit(&switch.services.limits)
            || is_dhcp(&switch.services.dhcp)
            || switch.ports.values().any(|port| is_dhcp(&port.services.dhcp))
    };
    let switches = nb.switches.iter().filter(|(_, switch)| is_served(switch)).map(|(id, _)| id.clone());
    let routers = nb.routers.iter().filter(|(_, router)| is_limit(&router.limits)).map(|(id, _)| id.clone());
    let (switches, routers): (Vec<_>, Vec<_>) = (switches.collect(), routers.collect());
    dirty.switches.extend(switches);
    dirty.routers.extend(routers);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        SetChange, chassis_view, compile,
        fixture::*,
        model::{
            AclAction, AclDirection, Backend, LoadBalancer, Names, NatKind, NatRule, NextHop, PortGroup,
            Rate, RouteMatch, RouteTarget, Service, SetMember, StaticRoute, SwitchPort, SwitchPortKind, Vip,
        },
        punt,
    };

    /// A random change: what, and three numbers that choose where and how.
    type Edit = (u8, u8, u8, u8);

    /// Makes a change and tells what it touched.
    fn edit(nb: &mut Northbound, hosts: &mut BTreeMap<String, ChassisRecord>, edit: Edit) -> Dirty {
        let (what, i, j, k) = edit;
        let (s, r) = (i % 4, j % 3);
        let (switch_id, router_id) = (format!("s{s}"), format!("r{r}"));
        let mut dirty = Dirty::default();
        match what % 16 {
            13 | 14 => return edit_sets(nb, (what, i, j, k)),
            15 => return edit_services(nb, (what, i, j, k)),
            12 => {
                let id = format!("lb{}", j % 3);
                match k % 4 {
                    0 => drop(nb.load_balancers.remove(&id)),
                    _ => drop(nb.load_balancers.insert(id.clone(), balancer(k))),
                }
                dirty.load_balancers.insert(id);
                return dirty;
            }
            0 => drop(nb.switches.remove(&switch_id)),
            1 => drop(nb.routers.remove(&router_id)),
            2 => {
                let record = ChassisRecord { encap_ip: [192, 0, 2, k].into() };
                hosts.insert(format!("h{}", j % 3), record);
                return dirty;
            }
            3 | 4 => {
                let router =
                    nb.routers.entry(router_id.clone()).or_insert_with(|| router(100 + u32::from(r)));
                let (port, net) = (k % 8, k % 5);
                let addr = format!("10.{net}.0.{}/24", 1 + r);
                let port_id = format!("r{r}q{port}");
                router.ports.insert(port_id, router_port(1 + u16::from(port), 0x80 | k, &[&addr]));
            }
            5 => {
                let Some(router) = nb.routers.get_mut(&router_id) else { return dirty };
                router.ports.remove(&format!("r{r}q{}", k % 8));
                router.enabled = k % 4 != 0;
                let next_hop: std::net::IpAddr = [10, k % 5, 0, 9].into();
                let prefix = network(&format!("10.{}.0.0/16", 50 + k % 3));
                let target = match k % 5 {
                    0 => RouteTarget::Discard,
                    _ => RouteTarget::Via(NextHop { ip: next_hop, output_port: None }),
                };
                router.static_routes.push(StaticRoute { prefix, by: RouteMatch::Destination, target });
                router.chassis = (k % 9 == 0).then(|| format!("h{}", k % 2));
                router.load_balancers = (0..k % 3).map(|lb| format!("lb{lb}")).collect();
                router.nats.insert(format!("n{}", k % 2), nat(k));
            }
            _ => {
                let switch = nb.switches.entry(switch_id.clone()).or_insert_with(|| switch(1 + u32::from(s)));
                edit_switch(switch, s, edit);
            }
        }
        match what % 16 {
            1 | 3..=5 => dirty.routers.insert(router_id),
            _ => dirty.switches.insert(switch_id),
        };
        dirty
    }

    fn balancer(k: u8) -> LoadBalancer {
        let vip = |last, port| Vip { ip: [192, 0, 2, last].into(), port };
        let backend =
            |last: u8| Backend { ip: [10, 0, 0, last].into(), port: Some(8080), online: last % 4 != 3 };
        let backends = (0..k % 5).map(|n| backend(10 + n)).collect();
        LoadBalancer {
            vips: [(vip(k % 3, Some(80)), Service { backends })].into(),
            reject: k.is_multiple_of(2),
            ..LoadBalancer::default()
        }
    }

    fn nat(k: u8) -> NatRule {
        NatRule {
            kind: [NatKind::Source, NatKind::Destination, NatKind::Both][usize::from(k % 3)],
            external_ip: [10, k % 5, 0, 200].into(),
            logical_ip: network("10.1.0.5/32"),
            external_ports: None,
            gateway_port: None,
            stateless: k.is_multiple_of(2),
            allowed_external_ips: Vec::new(),
            exempted_external_ips: Vec::new(),
        }
    }

    /// An address set or a port group changes.
    fn edit_sets(nb: &mut Northbound, (_, i, j, k): Edit) -> Dirty {
        let mut dirty = Dirty::default();
        let id = format!("g{}", j % 2);
        match i % 5 {
            0 => {
                // Also one with the name of a group's addresses.
                let id = if k % 3 == 0 { format!("{id}_ip4") } else { id };
                let members = (0..k % 4).map(|n| SetMember::Ip(network(&format!("10.0.{n}.0/24")))).collect();
                match k % 5 {
                    0 => drop(nb.address_sets.remove(&id)),
                    _ => drop(nb.address_sets.insert(id.clone(), members)),
                }
                dirty.address_sets.insert(id);
            }
            1 => {
                nb.port_groups.remove(&id);
                dirty.port_groups.insert(id);
            }
            what => {
                let group = nb.port_groups.entry(id.clone()).or_default();
                match what {
                    2 => {
                        let matching = format!("outport == @{id} && ip4.src == {{$g0, ${id}_ip4}}");
                        let action = [AclAction::AllowRelated, AclAction::Drop][usize::from(k % 2)];
                        let acl = acl(AclDirection::ToLport, u16::from(k % 3), &matching, action);
                        group.acls.insert(format!("x{}", k % 2), acl);
                    }
                    3 if k % 3 == 0 => group.acls.clear(),
                    3 => {
                        group.default_policy = [DefaultPolicy::Allow, DefaultPolicy::Drop][usize::from(k % 2)]
                    }
                    _ => {
                        let port = |n: u8| (format!("s{}p{}", n % 4, n % 3), format!("s{}", n % 4));
                        group.ports = (0..k % 4).map(|n| port(n.wrapping_add(j))).collect();
                    }
                }
                dirty.port_groups.insert(id);
            }
        }
        dirty
    }

    /// DHCP options, names or bounds change, or who uses them.
    fn edit_services(nb: &mut Northbound, (_, i, j, k): Edit) -> Dirty {
        let mut dirty = Dirty::default();
        let id = format!("x{}", j % 2);
        match i % 4 {
            0 => {
                match k % 4 {
                    0 => drop(nb.dhcp_options.remove(&id)),
                    _ => drop(nb.dhcp_options.insert(id.clone(), dhcp_v4(&format!("10.{}.0.0/16", k % 5)))),
                }
                dirty.dhcp_options.insert(id);
            }
            1 => {
                let records = (0..k % 3).map(|n| (format!("n{n}"), [[10, 0, 0, n].into()].into()));
                match k % 4 {
                    0 => drop(nb.names.remove(&id)),
                    _ => {
                        drop(nb.names.insert(id.clone(), Names { records: records.collect(), ttl: k.into() }))
                    }
                }
                dirty.names.insert(id);
            }
            2 => {
                let rate = Rate { pps: 1 + u32::from(k), burst: 5 };
                match k % 4 {
                    0 => drop(nb.limits.remove(&id)),
                    _ => drop(nb.limits.insert(id.clone(), [(punt::Service::Dns, rate)].into())),
                }
                dirty.limits.insert(id);
            }
            _ => {
                let some = |n: u8| (k & n != 0).then(|| id.clone());
                if let Some(switch) = nb.switches.get_mut(&format!("s{}", k % 4)) {
                    switch.services.dhcp[0] = some(1);
                    switch.services.limits = some(2);
                    switch.services.names = some(4).into_iter().collect();
                    if let Some(port) = switch.ports.values_mut().next() {
                        port.services.dhcp[0] = some(8);
                    }
                    dirty.switches.insert(format!("s{}", k % 4));
                }
                if let Some(router) = nb.routers.get_mut(&format!("r{}", k % 3)) {
                    router.limits = some(16);
                    if let Some(port) = router.ports.values_mut().next() {
                        port.advertisement = some(32).map(|_| advertisement());
                        port.networks.push(network("2001:db8::1/64"));
                    }
                    dirty.routers.insert(format!("r{}", k % 3));
                }
            }
        }
        dirty
    }

    fn edit_switch(switch: &mut crate::model::LogicalSwitch, s: u8, (what, _, j, k): Edit) {
        switch.load_balancers = (0..k % 3).map(|lb| format!("lb{lb}")).collect();
        match what % 16 {
            6 | 7 => {
                let port_id = format!("s{s}l{}", j % 2);
                let router = format!("r{}", j % 3);
                // Most links have a router port of their own, some contend for one.
                let end = if k < 16 { k % 8 } else { s * 2 + j % 2 };
                let port = to_router(20 + u16::from(j % 2), &router, &format!("{router}q{end}"));
                switch.ports.insert(port_id, port);
            }
            8 => drop(switch.ports.remove(&format!("s{s}l{}", j % 2))),
            9 => drop(switch.ports.remove(&format!("s{s}p{}", j % 4))),
            10 => {
                let acl = acl(AclDirection::ToLport, k.into(), "ip4", AclAction::Drop);
                switch.acls.insert(format!("acl{}", j % 2), acl);
            }
            _ => {
                let addr = format!("10.{}.0.{}", k % 5, 10 + j % 4);
                let mut port = workload(1 + u16::from(j % 4), k, &[&addr], &format!("h{}", k % 3));
                port.enabled = k % 7 != 0;
                if let SwitchPort { kind: SwitchPortKind::Workload { unknown, .. }, .. } = &mut port {
                    *unknown = k % 5 == 0;
                }
                switch.ports.insert(format!("s{s}p{}", j % 4), port);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn incremental_equals_full(edits in proptest::collection::vec(any::<Edit>(), 1..30)) {
            let (mut nb, mut hosts) = (Northbound::default(), BTreeMap::new());
            let mut compiler = Compiler::new();
            let mut follower = Southbound::default();
            for one in edits {
                let dirty = edit(&mut nb, &mut hosts, one);
                let delta = compiler.update(&nb, &hosts, &dirty);
                let full = compile(&nb, &hosts);
                prop_assert_eq!(compiler.southbound(), &full, "after {:?}", one);
                prop_assert_eq!(&delta, &diff(&follower, &full), "after {:?}", one);
                delta.apply(&mut follower);
                prop_assert_eq!(&follower, &full);
                prop_assert!(compiler.update(&nb, &hosts, &dirty).is_empty());
                let view = chassis_view(&full, "h1");
                prop_assert_eq!(&chassis_view(&view, "h1"), &view, "a view has all it needs");
            }
        }
    }

    #[test]
    fn a_new_member_is_sent_alone() {
        let mut nb = small();
        let member = |text: &str| SetMember::Ip(network(text));
        nb.address_sets.insert("ops".into(), [member("10.0.0.0/8")].into());
        let of_group = acl(
            AclDirection::ToLport,
            5,
            "outport == @g && ip4.src == {$ops, $g_ip4}",
            AclAction::AllowRelated,
        );
        let group = PortGroup {
            ports: [("a".into(), "web".into())].into(),
            acls: [("x".into(), of_group)].into(),
            ..PortGroup::default()
        };
        nb.port_groups.insert("g".into(), group);
        let mut compiler = Compiler::new();
        let all = Dirty {
            switches: nb.switches.keys().cloned().collect(),
            routers: nb.routers.keys().cloned().collect(),
            address_sets: ["ops".to_owned()].into(),
            port_groups: ["g".to_owned()].into(),
            ..Dirty::default()
        };
        compiler.update(&nb, &hosts(), &all);
        assert_eq!(compiler.southbound(), &compile(&nb, &hosts()));

        nb.address_sets.get_mut("ops").unwrap().insert(member("192.0.2.1/32"));
        let dirty = Dirty { address_sets: ["ops".to_owned()].into(), ..Dirty::default() };
        let delta = compiler.update(&nb, &hosts(), &dirty);
        let one = |added: &str| SetChange { added: [added.to_owned()].into(), ..SetChange::default() };
        let sets = [("$ops".to_owned(), one("192.0.2.1"))].into();
        assert_eq!(delta, SouthboundDelta { sets, ..SouthboundDelta::default() });

        // Another port of the same switch: its flows stay.
        nb.port_groups.get_mut("g").unwrap().ports.insert("b".into(), "web".into());
        let dirty = Dirty { port_groups: ["g".to_owned()].into(), ..Dirty::default() };
        let delta = compiler.update(&nb, &hosts(), &dirty);
        assert_eq!(delta.sets.keys().collect::<Vec<_>>(), ["$g_ip4", "$g_ip6", "@g"]);
        assert_eq!((delta.flows.len(), delta.datapaths.len()), (0, 0));
        // The first one of another switch: the group's ACLs apply there now.
        nb.port_groups.get_mut("g").unwrap().ports.insert("c".into(), "db".into());
        let delta = compiler.update(&nb, &hosts(), &dirty);
        assert!(delta.flows.values().all(|flow| flow.datapath.get() == 2) && !delta.flows.is_empty());
        assert_eq!(compiler.southbound(), &compile(&nb, &hosts()));
        // Hosts are told of sets that their flows name.
        let mut far = compiler.southbound().clone();
        far.bindings.values_mut().for_each(|binding| binding.chassis = None);
        assert!(chassis_view(&far, "h1").sets.is_empty());
        assert_eq!(chassis_view(compiler.southbound(), "h1").sets.len(), 3);
    }

    #[test]
    fn what_is_not_reached_is_not_compiled_again() {
        let mut nb = small();
        let mut far = switch(9);
        far.ports.insert("x".into(), workload(1, 0x55, &["10.5.0.5"], "h2"));
        nb.switches.insert("far".into(), far);
        let all = Dirty {
            switches: nb.switches.keys().cloned().collect(),
            routers: nb.routers.keys().cloned().collect(),
            ..Dirty::default()
        };
        let mut compiler = Compiler::new();
        compiler.update(&nb, &hosts(), &all);
        nb.switches.get_mut("far").unwrap().ports.clear();
        nb.routers.get_mut("r").unwrap().ports.get_mut("r-web").unwrap().mac = mac(0xee);
        let dirty = Dirty { routers: ["r".to_owned()].into(), ..Dirty::default() };
        let delta = compiler.update(&nb, &hosts(), &dirty);
        assert!(compiler.southbound().bindings.contains_key("x"), "nobody said that `far` changed");
        let touched: BTreeSet<_> = delta.flows.values().map(|flow| flow.datapath.get()).collect();
        assert_eq!(touched, [1, 3].into(), "the switch knows the router's address");
    }
}
