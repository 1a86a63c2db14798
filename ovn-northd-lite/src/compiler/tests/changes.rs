//! Random changes of everything that the northbound model has: after each of them what
//! was compiled step by step is what is compiled at once.
//!
//! The network is small, so that changes meet. A change is four numbers, of which smaller
//! ones say less. Now and then several are compiled together, as revisions are that come
//! while the compiler is busy.

use std::net::IpAddr;

use flowtable::{
    flow::Rule,
    program::TunnelKind,
    table::{self, MeterChange, Tables},
    types::PortNo,
};
use proptest::prelude::*;

use super::*;
use crate::{
    Audit, LocalPorts, Lowering, Views,
    build::whole::{HASH_BITS, test_hash_bits},
    chassis_view, compile, diff,
    model::{
        Access, Acl, AclLog, Backend, Bandwidth, Candidate, Condition, DefaultPolicy, Distributed, Gateway,
        HashField, HealthCheck, IpNetwork, LoadBalancer, LogicalRouter, LogicalSwitch, Monitored, Names,
        NatKind, NatRule, NextHop, PolicyAction, PortCheck, PortOptions, ProbePoint, Protocol, QosRule, Rate,
        Responder, RouteMatch, RouteTarget, RouterPolicy, Sample, SampleCollector, Samples, Service,
        Severity, Shaping, Snooping, StaticMac, StaticRoute, SwitchOptions, SwitchPort, SwitchPortKind,
        TemplateBackend, TemplatePort, TemplateService, Vip,
    },
    punt,
    southbound::{ChassisRecord, PortBinding, Wire},
};

/// What, where, and how.
type Change = (u8, u8, u8, u8);

/// Changes in a row.
const ROW: usize = 120;
/// Each of so many steps is compared down to the tables.
const LOWERED: usize = 9;
/// Of so many changes the last two are one step, the others one each.
const TOGETHER: usize = 6;
/// Steps in a row.
const STEPS: usize = ROW / TOGETHER * (TOGETHER - 1);

/// How many steps a run makes, each of which is compared: few where that takes long.
fn n_steps() -> usize {
    let wanted = std::env::var("FERROFLOW_CHANGES").ok().and_then(|text| text.parse().ok());
    wanted.unwrap_or(if cfg!(debug_assertions) { 2_000 } else { 100_000 })
}

/// A network that changes, with what is compiled of it.
#[derive(Default)]
pub(super) struct World {
    pub(super) nb: Northbound,
    pub(super) hosts: BTreeMap<String, ChassisRecord>,
    dirty: Dirty,
}

impl World {
    /// Makes these changes, and says what is dirty.
    pub(super) fn step(&mut self, changes: &[Change]) -> Dirty {
        changes.iter().for_each(|change| self.change(*change));
        std::mem::take(&mut self.dirty)
    }

    fn change(&mut self, (what, i, j, k): Change) {
        let (s, r) = (i % 3, i % 2);
        match what % 27 {
            0 => self.switch(s, j, k),
            1 => self.switch_settings(s, j, k),
            2..=5 => self.workload(s, j, k),
            6 | 7 => self.link(s, j, k),
            8 | 9 => self.switch_acl(s, j, k),
            10 => self.router(r, j, k),
            11 => self.router_settings(r, j, k),
            12 | 13 => self.router_port(r, j, k),
            14 => self.nat(r, j, k),
            15 => self.policy(r, j, k),
            16 => self.balancer(i, j, k),
            17 => self.address_set(i, k),
            18 => self.port_group(i, j, k),
            20 => self.services(i, j, k),
            21 => self.qos_rule(s, j, k),
            22 => self.heard(r, j, k),
            23 => self.balancer_group(i, k),
            24 => self.ha_group(i, j, k),
            25 => self.template_variable(i, j, k),
            26 => self.collector(i, j, k),
            _ if k.is_multiple_of(5) => {
                let encap_types = TunnelKind::ALL[usize::from(j % 2)..].iter().rev().copied().collect();
                let record = ChassisRecord { encap_ip: [192, 0, 2, j % 4].into(), encap_types };
                self.dirty.chassis.insert(host(i));
                match k % 3 {
                    0 => drop(self.hosts.remove(&host(i))),
                    _ => drop(self.hosts.insert(host(i), record)),
                }
            }
            _ => self.group_acl(i, j, k),
        }
    }

    fn switch(&mut self, s: u8, j: u8, k: u8) {
        let id = format!("s{s}");
        match k % 4 {
            0 => drop(self.nb.switches.remove(&id)),
            1 => {
                // The same switch with another key.
                let switch = self.nb.switches.entry(id.clone()).or_insert_with(|| switch(1));
                switch.key = crate::key::DatapathKey::new(1 + u32::from(s) + 10 * u32::from(j % 3)).unwrap();
            }
            _ => drop(self.switch_mut(s)),
        }
        self.dirty.switches.insert(id);
    }

    fn switch_mut(&mut self, s: u8) -> &mut LogicalSwitch {
        let id = format!("s{s}");
        if !self.nb.switches.contains_key(&id) {
            self.dirty.switches.insert(id.clone());
        }
        self.nb.switches.entry(id).or_insert_with(|| switch(1 + u32::from(s)))
    }

    fn router_mut(&mut self, r: u8) -> &mut LogicalRouter {
        let id = format!("r{r}");
        if !self.nb.routers.contains_key(&id) {
            self.dirty.routers.insert(id.clone());
        }
        self.nb.routers.entry(id).or_insert_with(|| router(100 + u32::from(r)))
    }

    /// DHCP options, names or bounds change, or who uses them.
    fn services(&mut self, i: u8, j: u8, k: u8) {
        let id = format!("x{}", j % 2);
        match i % 4 {
            0 => {
                match k % 4 {
                    0 => drop(self.nb.dhcp_options.remove(&id)),
                    _ => drop(
                        self.nb.dhcp_options.insert(id.clone(), dhcp_v4(&format!("10.{}.0.0/16", k % 2))),
                    ),
                }
                self.dirty.dhcp_options.insert(id);
            }
            1 => {
                let records = (0..k % 3).map(|n| (format!("n{n}"), [[10, 0, 0, n].into()].into()));
                let names = Names { records: records.collect(), ttl: k.into() };
                match k % 4 {
                    0 => drop(self.nb.names.remove(&id)),
                    _ => drop(self.nb.names.insert(id.clone(), names)),
                }
                self.dirty.names.insert(id);
            }
            2 => {
                let rate = Rate { pps: 1 + u32::from(k), burst: 5 };
                match k % 4 {
                    0 => drop(self.nb.limits.remove(&id)),
                    _ => drop(self.nb.limits.insert(id.clone(), [(punt::Service::Dns, rate)].into())),
                }
                self.dirty.limits.insert(id);
            }
            _ => self.served(j, k, &id),
        }
    }

    fn served(&mut self, j: u8, k: u8, id: &str) {
        let some = |n: u8| (k >> n & 1 == 1).then(|| id.to_owned());
        let (s, r) = (j % 3, j % 2);
        let switch = self.switch_mut(s);
        switch.services.dhcp[0] = some(0);
        switch.services.limits = some(1);
        switch.services.names = some(2).into_iter().collect();
        let port = switch.ports.iter_mut().next().map(|(port, there)| {
            there.services.dhcp[0] = some(3);
            port.clone()
        });
        self.dirty.switch_ports.extend(port.map(|port| (format!("s{s}"), port)));
        self.dirty.switch_settings.insert(format!("s{s}"));
        let router = self.router_mut(r);
        router.limits = some(4);
        let port = router.ports.iter_mut().next().map(|(port, there)| {
            there.advertisement = some(5).map(|_| advertisement());
            port.clone()
        });
        self.dirty.router_ports.extend(port.map(|port| (format!("r{r}"), port)));
        self.dirty.router_settings.insert(format!("r{r}"));
    }

    fn switch_settings(&mut self, s: u8, j: u8, k: u8) {
        let switch = self.switch_mut(s);
        switch.default_policy = default_policy(j);
        switch.load_balancers = balancers(k);
        switch.balancer_groups = balancer_groups(k / 8);
        switch.options = SwitchOptions {
            station_age: u16::from(k % 2) * 300,
            vlan_passthru: k.is_multiple_of(5),
            asks_routers: !j.is_multiple_of(3),
            snooping: (!k.is_multiple_of(3)).then(|| Snooping {
                floods_unknown: k.is_multiple_of(7),
                max_age: 15 + u16::from(k % 2),
                ..Snooping::default()
            }),
            max_connections: (k % 4 == 1).then_some(u32::from(j)),
        };
        self.dirty.switch_settings.insert(format!("s{s}"));
    }

    fn workload(&mut self, s: u8, j: u8, k: u8) {
        let id = format!("s{s}p{}", j % 3);
        let switch = self.switch_mut(s);
        if k.is_multiple_of(8) {
            switch.ports.remove(&id);
        } else {
            let ips = ["10.0.0.5", "10.1.0.5", "2001:db8::5", "10.0.1.6"];
            let ips = ips.into_iter().enumerate().filter(|(n, _)| k >> n & 1 == 1);
            let ips: Vec<_> = ips.map(|(_, ip)| ip).collect();
            let mut port = workload(1 + u16::from(j % 3), k % 5, &ips, &host(k));
            port.enabled = !k.is_multiple_of(7);
            if k % 6 == 1 {
                port = secured(port, k % 5, &["10.0.0.5/32", "2001:db8::/64"][..usize::from(j % 3)]);
            }
            let tag = flowtable::types::VlanId::new(u16::from(k % 9)).unwrap();
            if k % 10 == 9 {
                let candidates = [Candidate { chassis: host(j), priority: 1 }];
                let gateway: Vec<_> = candidates.into_iter().take(usize::from(j % 2)).collect();
                let gateway = if k % 20 == 9 { Gateway::Group(ha_group(j)) } else { gateway.into() };
                let tag = Some(tag).filter(|_| j.is_multiple_of(3));
                let (network, is_service) = (format!("n{}", k % 2), j % 3 == 1);
                port.kind = SwitchPortKind::Network { network, tag, is_service, gateway };
            }
            if let SwitchPort {
                kind: SwitchPortKind::Workload { unknown, chassis, additional, access, .. },
                ..
            } = &mut port
            {
                additional
                    .extend((0..k / 3 % 3).filter(|_| j.is_multiple_of(3)).map(|n| host(j.wrapping_add(n))));
                *access = match k % 11 {
                    3 => Access::Nested { parent: format!("s{s}p0"), tag },
                    4 => Access::EachChassis,
                    5 if j.is_multiple_of(2) => Access::External(Gateway::Group(ha_group(j))),
                    5 => {
                        let host = Candidate { chassis: host(j), priority: u16::from(j) };
                        Access::External(vec![host].into())
                    }
                    6 => Access::Virtual { ip: [10, 0, 0, 7].into(), parents: vec![format!("s{s}p0")] },
                    _ => Access::Interface,
                };
                *unknown = k.is_multiple_of(5);
                *chassis = chassis.take().filter(|_| !j.is_multiple_of(4));
            }
            port.options = PortOptions {
                learns: [None, Some(true), Some(false)][usize::from(j / 4 % 3)],
                silent: k % 9 == 2,
                takes_groups: k % 9 != 3,
                announces: k % 9 != 4,
                hears_all: k % 9 == 5,
                hears_reports: k % 9 == 6,
                shaping: (k % 9 > 6)
                    .then_some(Shaping { max: Some(u64::from(j) + 100), ..Shaping::default() }),
                awaits_rarp: k.is_multiple_of(2),
                clones_to_unknown: k % 7 == 3,
                max_connections: (k % 5 == 1).then_some(u32::from(j)),
                checks: (0..k / 16 % 3).map(|n| port_check(n, j)).collect(),
                is_looked_up: k % 10 == 5,
                ..PortOptions::default()
            };
            port.hears = groups(j, k);
            switch.ports.insert(id.clone(), port);
        }
        self.dirty.switch_ports.insert((format!("s{s}"), id));
    }

    /// A port to a router; some contend for the same end, or ask for none that there is.
    fn link(&mut self, s: u8, j: u8, k: u8) {
        let id = format!("s{s}l{}", j % 2);
        let switch = self.switch_mut(s);
        match k % 5 {
            0 => drop(switch.ports.remove(&id)),
            _ => {
                let r = k % 2;
                let mut port = to_router(20 + u16::from(j % 2), &format!("r{r}"), &format!("r{r}q{}", j % 4));
                if k % 6 == 5 {
                    let (switch, port_id) = (format!("s{}", j % 3), format!("s{}l{}", j % 3, k / 6 % 2));
                    port.kind = SwitchPortKind::Switch { switch, port: port_id };
                }
                port.enabled = !k.is_multiple_of(9);
                port.options.stands_for = ["10.0.0.0/25", "2001:db8::/64"]
                    .iter()
                    .take(usize::from(j % 3))
                    .map(|text| network(text))
                    .collect();
                port.options.stands_for_mac = (k.is_multiple_of(3)).then(|| mac(k));
                port.options.announces = k % 7 != 4;
                port.options.tracks_router = k % 4 == 1;
                port.hears = groups(j, k / 16);
                switch.ports.insert(id.clone(), port);
            }
        }
        self.dirty.switch_ports.insert((format!("s{s}"), id));
    }

    fn switch_acl(&mut self, s: u8, j: u8, k: u8) {
        let id = format!("a{}", j % 3);
        let switch = self.switch_mut(s);
        match k % 6 {
            0 => drop(switch.acls.remove(&id)),
            _ => drop(switch.acls.insert(id.clone(), an_acl(j, k))),
        }
        self.dirty.switch_acls.insert((format!("s{s}"), id));
    }

    fn qos_rule(&mut self, s: u8, j: u8, k: u8) {
        let id = format!("q{}", j % 3);
        let switch = self.switch_mut(s);
        let matching = ["ip4", "inport == @g0 && ip4.src == $as0", "tcp.dts == 80"][usize::from(j / 3 % 3)];
        let rule = QosRule {
            direction: [AclDirection::ToLport, AclDirection::FromLport][usize::from(k % 2)],
            priority: flowtable::types::Priority::new((j % 2).into()).unwrap(),
            matching: matching.to_owned(),
            dscp: (k.is_multiple_of(3)).then_some(k % 64),
            bandwidth: (!k.is_multiple_of(4))
                .then(|| Bandwidth { kbps: u32::from(k), burst_kbit: 1 + u32::from(j) }),
        };
        match k % 6 {
            0 => drop(switch.qos_rules.remove(&id)),
            _ => drop(switch.qos_rules.insert(id.clone(), rule)),
        }
        self.dirty.qos_rules.insert((format!("s{s}"), id));
    }

    fn router(&mut self, r: u8, j: u8, k: u8) {
        let id = format!("r{r}");
        match k % 4 {
            0 => drop(self.nb.routers.remove(&id)),
            1 => {
                let key = crate::key::DatapathKey::new(100 + u32::from(r) + 10 * u32::from(j % 3)).unwrap();
                self.router_mut(r).key = key;
            }
            _ => drop(self.router_mut(r)),
        }
        self.dirty.routers.insert(id);
    }

    fn heard(&mut self, r: u8, j: u8, k: u8) {
        let port = format!("r{r}q{}", j % 4);
        let heard: BTreeMap<_, _> = (0..k % 4).map(|n| ([10, 0, k % 3, n].into(), mac(k / 16))).collect();
        match k % 5 {
            0 => drop(self.nb.heard.remove(&port)),
            _ => drop(self.nb.heard.insert(port.clone(), heard)),
        }
        self.dirty.heard.insert(port);
    }

    fn router_settings(&mut self, r: u8, j: u8, k: u8) {
        let router = self.router_mut(r);
        match j % 4 {
            0 => router.enabled = !k.is_multiple_of(3),
            1 => router.chassis = (k.is_multiple_of(2)).then(|| host(k)),
            2 => {
                router.load_balancers = balancers(k);
                router.balancer_groups = balancer_groups(k / 8);
            }
            _ if k.is_multiple_of(6) => {
                let sources = |some: bool| if some { vec![[10, 0, 0, 99].into()] } else { Vec::new() };
                router.options.balancer_sources = sources(k % 4 < 2);
                router.options.dnat_sources = sources(k % 8 < 4);
                router.options.relays = k % 5 < 4;
                router.options.max_connections = (k % 4 == 1).then_some(u32::from(j));
                router.options.snat_zone = (k % 9 == 3).then_some(64_000 + u16::from(j % 2));
                router.options.commits_all = k % 4 < 2;
                router.options.learns_all = k % 8 < 2;
                router.options.neighbour_age = (k % 9 == 6).then_some(u16::from(j));
            }
            _ if k.is_multiple_of(7) => router.static_routes.clear(),
            _ => router.static_routes.push(a_route(k)),
        }
        self.dirty.router_settings.insert(format!("r{r}"));
    }

    fn router_port(&mut self, r: u8, j: u8, k: u8) {
        let id = format!("r{r}q{}", j % 4);
        let router = self.router_mut(r);
        if k.is_multiple_of(7) {
            router.ports.remove(&id);
        } else {
            let networks = [&["10.0.0.1/24"][..], &["10.1.0.1/24", "2001:db8::1/64"], &["10.0.1.1/24"]];
            let mut port = router_port(1 + u16::from(j % 4), 0x80 | (k % 3), networks[usize::from(k % 3)]);
            port.enabled = !k.is_multiple_of(5);
            let candidates = [(host(k), k % 3), (host(k.wrapping_add(1)), k % 4)];
            let candidates = candidates.into_iter().take(usize::from(k % 3));
            let candidate =
                |(chassis, priority): (String, u8)| Candidate { chassis, priority: priority.into() };
            let hosts = Candidate::ranked(candidates.map(candidate).collect());
            port.gateway = if k % 8 == 6 { Gateway::Group(ha_group(j)) } else { hosts.into() };
            let bound = StaticMac { mac: mac(j), overrides: k.is_multiple_of(2) };
            port.mtu = (k.is_multiple_of(4)).then_some(1300 + u16::from(j));
            port.mtu_bypass = ["", "tcp", "tcp.dts == 1"][usize::from(j % 3)].to_owned();
            port.route_table = table_name(j / 4);
            port.hears_all = k % 8 == 3;
            port.resides = k % 8 > 4;
            port.bridges = j.is_multiple_of(2);
            port.dhcp_server = (k % 8 == 4).then(|| [10, 1, 0, 5].into());
            let session = Monitored { min_tx: 100, min_rx: 200, multiplier: 3, is_up: k % 4 < 2 };
            port.monitored = (0..k % 3).map(|n| ([10, n, 0, 9].into(), session.clone())).collect();
            port.static_macs = (0..k % 3).map(|n| ([10, 0, n, 9].into(), bound)).collect();
            router.ports.insert(id.clone(), port);
        }
        self.dirty.router_ports.insert((format!("r{r}"), id));
    }

    fn nat(&mut self, r: u8, j: u8, k: u8) {
        let id = format!("n{}", j % 3);
        let router = self.router_mut(r);
        if k.is_multiple_of(5) {
            router.nats.remove(&id);
        } else {
            let kind = [NatKind::Source, NatKind::Destination, NatKind::Both][usize::from(k % 3)];
            let peers = |some: bool| if some { vec![network("198.51.100.0/24")] } else { Vec::new() };
            let rule = NatRule {
                kind,
                external_ip: [10, j % 2, 0, if k.is_multiple_of(4) { 1 } else { 200 }].into(),
                logical_ip: network("10.1.0.5/32"),
                external_ports: (k.is_multiple_of(11)).then_some((1000, 2000)),
                gateway_port: (k.is_multiple_of(13)).then(|| format!("r{r}q0")),
                stateless: k.is_multiple_of(2),
                allowed_external_ips: peers(k.is_multiple_of(17)),
                exempted_external_ips: peers(k.is_multiple_of(19)),
                distributed: (k % 3 == 1)
                    .then(|| Distributed { mac: mac(k), port: format!("s{}p{}", k % 2, j % 3) }),
                condition: (k.is_multiple_of(7)).then(|| Condition {
                    priority: flowtable::types::Priority::new(u16::from(j)).unwrap(),
                    matching: ["ip4", "tcp.dst == 80", "tcp.dts == 1"][usize::from(j % 3)].to_owned(),
                }),
                add_route: j.is_multiple_of(4),
            };
            router.nats.insert(id.clone(), rule);
        }
        self.dirty.nats.insert((format!("r{r}"), id));
    }

    fn policy(&mut self, r: u8, j: u8, k: u8) {
        let id = format!("p{}", j % 3);
        let router = self.router_mut(r);
        if k.is_multiple_of(5) {
            router.policies.remove(&id);
        } else {
            let hops = |n: u8| (0..n).map(|hop| [10, hop, 0, 9].into()).collect();
            let action = match k % 4 {
                0 => PolicyAction::Allow,
                1 => PolicyAction::Drop,
                2 if j.is_multiple_of(2) => PolicyAction::Jump(chain(j / 2)),
                n => PolicyAction::Reroute(hops(n - 1)),
            };
            let matching = ["ip4", "ip4.src == 10.0.0.0/24", "tcp.dts == 1"][usize::from(k % 3)].to_owned();
            let priority = flowtable::types::Priority::new((k % 4).into()).unwrap();
            let (chain, mark) = (chain(j), u32::from(k % 2));
            let output_port = (k.is_multiple_of(7)).then(|| format!("r{r}q{}", k % 3));
            let monitored = k.is_multiple_of(3);
            let policy = RouterPolicy { priority, matching, action, chain, mark, output_port, monitored };
            router.policies.insert(id.clone(), policy);
        }
        self.dirty.policies.insert((format!("r{r}"), id));
    }

    fn balancer(&mut self, i: u8, j: u8, k: u8) {
        let id = format!("lb{}", i % 3);
        if k.is_multiple_of(5) {
            self.nb.load_balancers.remove(&id);
        } else {
            let backend =
                |last: u8| Backend { ip: [10, 0, 0, last].into(), port: Some(8080), online: last % 4 != 3 };
            let service = |n: u8| Service { backends: (0..n).map(|n| backend(4 + n)).collect() };
            let point = |n: u8| {
                let port = format!("s{}p{}", n % 3, j % 3);
                let source = [10, 0, 0, 250 + j % 2].into();
                ([10, 0, 0, 4 + n].into(), ProbePoint { switch: format!("s{}", n % 3), port, source })
            };
            let vip = |last, port| Vip { ip: [10, 0, 0, last].into(), port };
            let mut vips = vec![(vip(100 + j % 2, Some(80)), service(k % 3))];
            if k.is_multiple_of(3) {
                // A router's own address, or a whole address.
                vips.push((vip(if j.is_multiple_of(2) { 1 } else { 9 }, None), service(1)));
            }
            let balancer = LoadBalancer {
                protocol: [Protocol::Tcp, Protocol::Udp][usize::from(k % 2)],
                vips: vips.into_iter().collect(),
                reject: j.is_multiple_of(2),
                hash_fields: if k.is_multiple_of(7) { vec![HashField::IpSrc] } else { Vec::new() },
                affinity: (k.is_multiple_of(3)).then_some(1 + u16::from(j)),
                health_check: (!k.is_multiple_of(4)).then_some(HealthCheck {
                    interval: u16::from(j),
                    timeout: 1,
                    n_successes: 2,
                    n_failures: 3,
                }),
                probe_points: (0..k % 3).map(point).collect(),
                skip_snat: j.is_multiple_of(3),
                responder: [Responder::Reachable, Responder::All, Responder::None][usize::from(j % 3)],
                add_route: j % 4 == 2,
                event: k % 4 == 1,
                templates: (0..j % 3).map(|n| template_service(n, k)).collect(),
                hairpin_sources: (k % 5 == 2).then(|| [10, 0, 0, 98].into()).into_iter().collect(),
                flushes: k % 4 < 2,
                stateless: k % 4 > 1,
            };
            self.nb.load_balancers.insert(id.clone(), balancer);
        }
        self.dirty.load_balancers.insert(id);
    }

    fn balancer_group(&mut self, i: u8, k: u8) {
        let id = format!("lg{}", i % 2);
        match k % 6 {
            0 => drop(self.nb.balancer_groups.remove(&id)),
            _ => drop(self.nb.balancer_groups.insert(id.clone(), balancers(k / 4))),
        }
        self.dirty.balancer_groups.insert(id);
    }

    fn ha_group(&mut self, i: u8, j: u8, k: u8) {
        let id = ha_group(i);
        let candidate = |n: u8| Candidate { chassis: host(n), priority: u16::from(j % 3) };
        match k % 6 {
            0 => drop(self.nb.ha_groups.remove(&id)),
            _ => {
                let hosts = Candidate::ranked((0..k % 3).map(|n| candidate(n.wrapping_add(j))).collect());
                self.nb.ha_groups.insert(id.clone(), hosts);
            }
        }
        self.dirty.ha_groups.insert(id);
    }

    fn template_variable(&mut self, i: u8, j: u8, k: u8) {
        let id = variable(i);
        match k % 5 {
            0 => drop(self.nb.template_variables.remove(&id)),
            _ => {
                let values = |n: u8| [format!("10.0.0.{}", 100 + n % 3), (80 + n % 2).to_string()].into();
                let all = (0..j % 4).map(|n| (host(n), values(n.wrapping_add(k)))).collect();
                self.nb.template_variables.insert(id.clone(), all);
            }
        }
        self.dirty.template_variables.insert(id);
    }

    fn collector(&mut self, i: u8, j: u8, k: u8) {
        let id = format!("c{}", i % 2);
        let collector = SampleCollector {
            set: 1 + u32::from(j % 2),
            probability: 1 + u16::from(k % 3),
            targets: (0..k % 3).map(|n| ([192, 0, 2, n], 4739).into()).collect(),
            new_application: j % 4,
            established_application: k % 2,
        };
        match k % 5 {
            0 => drop(self.nb.sample_collectors.remove(&id)),
            _ => drop(self.nb.sample_collectors.insert(id.clone(), collector)),
        }
        self.dirty.sample_collectors.insert(id);
    }

    /// Also one with the name of a group's addresses.
    fn address_set(&mut self, i: u8, k: u8) {
        let id = if i.is_multiple_of(4) { format!("g{}_ip4", i % 2) } else { format!("as{}", i % 2) };
        if k.is_multiple_of(6) {
            self.nb.address_sets.remove(&id);
        } else {
            let ip = |n: u8| SetMember::Ip(IpNetwork { addr: [10, 0, n, 0].into(), prefix_len: 24 });
            let mut members: BTreeSet<_> = (0..k % 4).map(ip).collect();
            if k.is_multiple_of(3) {
                members.insert(SetMember::Mac(mac(k)));
            }
            self.nb.address_sets.insert(id.clone(), members);
        }
        self.dirty.address_sets.insert(id);
    }

    fn port_group(&mut self, i: u8, j: u8, k: u8) {
        let id = format!("g{}", i % 2);
        if k.is_multiple_of(9) {
            self.nb.port_groups.remove(&id);
        } else {
            let group = self.nb.port_groups.entry(id.clone()).or_default();
            let port = |n: u8| (format!("s{}p{}", n % 3, n / 3 % 3), format!("s{}", n % 3));
            group.ports = (0..k % 4).map(|n| port(n.wrapping_add(j))).collect();
            group.default_policy = default_policy(j / 4);
        }
        self.dirty.port_groups.insert(id);
    }

    fn group_acl(&mut self, i: u8, j: u8, k: u8) {
        let id = format!("g{}", i % 2);
        let Some(group) = self.nb.port_groups.get_mut(&id) else { return };
        let acl = format!("x{}", j % 3);
        match k % 6 {
            0 => drop(group.acls.remove(&acl)),
            _ => drop(group.acls.insert(acl.clone(), an_acl(j, k))),
        }
        self.dirty.group_acls.insert((id, acl));
    }
}

/// Groups that somebody wants to hear, two of which may have the same key; now and then
/// everything.
fn groups(j: u8, k: u8) -> BTreeSet<IpAddr> {
    let all: [IpAddr; 4] =
        [[239, 0, 0, 1].into(), [239, 0, 0, j % 4].into(), [0, 0, 0, 0].into(), [0xff05; 8].into()];
    all.into_iter().enumerate().filter(|(n, _)| k >> (n + 2) & 1 == 1).map(|(_, ip)| ip).collect()
}

fn host(n: u8) -> String {
    format!("h{}", n % 3)
}

fn default_policy(n: u8) -> DefaultPolicy {
    [DefaultPolicy::Allow, DefaultPolicy::Drop][usize::from(n % 2)]
}

fn balancers(k: u8) -> BTreeSet<String> {
    (0..3).filter(|n| k >> n & 1 == 1).map(|n| format!("lb{n}")).collect()
}

fn balancer_groups(k: u8) -> BTreeSet<String> {
    (0..2).filter(|n| k >> n & 1 == 1).map(|n| format!("lg{n}")).collect()
}

fn ha_group(n: u8) -> String {
    format!("hg{}", n % 2)
}

fn variable(n: u8) -> String {
    format!("v{}", n % 2)
}

fn template_service(n: u8, k: u8) -> TemplateService {
    let fixed = TemplateBackend::Fixed(Vip { ip: [10, 0, 0, 4].into(), port: Some(8080) });
    let port = [TemplatePort::Number(80), TemplatePort::Variable(variable(k))];
    TemplateService {
        is_v4: !k.is_multiple_of(3),
        address: variable(n),
        port: Some(port[usize::from(k % 2)].clone()),
        backends: [Some(TemplateBackend::Variable(variable(k / 2))), (k % 4 == 1).then_some(fixed)]
            .into_iter()
            .flatten()
            .collect(),
    }
}

fn port_check(n: u8, j: u8) -> PortCheck {
    PortCheck {
        protocol: [None, Some(Protocol::Udp)][usize::from(n % 2)],
        ip: [10, 0, 0, 5 + n].into(),
        port: u16::from(n % 2) * 53,
        source: [10, 0, 0, 250 + j % 2].into(),
        times: HealthCheck { interval: 1, timeout: 1, n_successes: 1, n_failures: 1 },
    }
}

fn sample(n: u8) -> Sample {
    let collectors = (0..2).filter(|bit| n >> bit & 1 == 1).map(|bit| format!("c{bit}")).collect();
    Sample { point: 1 + u32::from(n % 3), collectors }
}

fn an_acl(j: u8, k: u8) -> Acl {
    let direction = [AclDirection::ToLport, AclDirection::FromLport][usize::from(k % 2)];
    let actions = [
        AclAction::Drop,
        AclAction::Allow,
        AclAction::AllowRelated,
        AclAction::AllowStateless,
        AclAction::Reject,
        AclAction::Pass,
    ];
    let matching = [
        "ip4",
        "outport == @g0 && ip4.src == {$as0, $g0_ip4}",
        "tcp.dst == 80..90",
        "ip4.dst == ^v0 && tcp.dst == ^v1",
        "1000 <= tcp.dst <= 2000 && ip4.src != $as1",
        "tcp.dts == 80",
    ];
    Acl {
        tier: k / 64,
        label: u32::from(k % 3),
        after_lb: direction == AclDirection::FromLport && j % 5 > 2,
        persists: k % 7 == 3,
        samples: Samples {
            new: (k % 4 == 1).then(|| sample(j)),
            established: (k % 8 > 5).then(|| sample(j / 2)),
        },
        log: (k.is_multiple_of(5)).then(|| AclLog {
            name: String::new(),
            severity: Severity::Info,
            rate: (k.is_multiple_of(2)).then_some(Rate { pps: 1 + u32::from(k % 3), burst: 9 }),
            related: j % 3 == 1,
        }),
        ..acl(direction, u16::from(j % 2), matching[usize::from(k / 2 % 6)], actions[usize::from(j / 2 % 6)])
    }
}

fn a_route(k: u8) -> StaticRoute {
    let target = match k % 5 {
        0 => RouteTarget::Discard,
        n => RouteTarget::Via(NextHop {
            ip: [10, n % 2, 0, 9].into(),
            output_port: (k.is_multiple_of(4)).then(|| "r0q1".to_owned()),
        }),
    };
    let by = if k.is_multiple_of(3) { RouteMatch::Source } else { RouteMatch::Destination };
    StaticRoute {
        // The last one may be that of a port.
        prefix: network(["10.50.0.7/16", "10.51.0.7/16", "10.0.0.0/24"][usize::from(k % 3)]),
        by,
        target,
        symmetric: k.is_multiple_of(3),
        table: table_name(k / 5),
        hash_fields: if k.is_multiple_of(7) { vec![HashField::IpDst] } else { Vec::new() },
        monitored: k % 4 == 1,
        overrides: k % 8 == 2,
    }
}

/// A chain of policies, or none.
fn chain(n: u8) -> String {
    ["", "", "x", "y"][usize::from(n % 4)].to_owned()
}

/// A name of static routes, or none.
fn table_name(n: u8) -> String {
    ["", "", "t"][usize::from(n % 3)].to_owned()
}

/// Tables with what a host begins with: the meters that all networks share.
fn bare() -> Tables {
    let meters = Lowering::default().lowered().meters;
    let meters = meters.into_iter().map(|meter| table::Change::Meter(MeterChange::Set(meter)));
    Tables::default().transact(meters.collect()).unwrap()
}

/// The network without groups of load balancers and of hosts: what they stand for instead.
fn without_groups(nb: &Northbound) -> Northbound {
    let mut plain = nb.clone();
    let members = |groups: &mut BTreeSet<String>| -> BTreeSet<String> {
        let groups = std::mem::take(groups);
        groups.iter().filter_map(|group| nb.balancer_groups.get(group)).flatten().cloned().collect()
    };
    let hosts = |gateway: &mut Gateway| *gateway = Gateway::Hosts(gateway.hosts(&nb.ha_groups));
    for switch in plain.switches.values_mut() {
        switch.load_balancers.extend(members(&mut switch.balancer_groups));
        for port in switch.ports.values_mut() {
            match &mut port.kind {
                SwitchPortKind::Network { gateway, .. }
                | SwitchPortKind::Workload { access: Access::External(gateway), .. } => hosts(gateway),
                _ => {}
            }
        }
    }
    for router in plain.routers.values_mut() {
        router.load_balancers.extend(members(&mut router.balancer_groups));
        router.ports.values_mut().for_each(|port| hosts(&mut port.gateway));
    }
    (plain.balancer_groups, plain.ha_groups) = Default::default();
    plain
}

fn follow(changes: Vec<Change>) -> Result<(), TestCaseError> {
    let mut world = World::default();
    let mut compiler = Compiler::new();
    let mut before = Southbound::default();
    let (mut views, mut unheard) = (Views::default(), Views::default());
    let mut hosts: BTreeMap<String, Southbound> = BTreeMap::new();
    let mut lowering = Lowering::default();
    let mut tables = bare();
    for (n, change) in steps(&changes).enumerate() {
        let dirty = world.step(change);
        let delta = compiler.update(&world.nb, &world.hosts, &dirty);
        let full = compile(&world.nb, &world.hosts);
        prop_assert_eq!(compiler.southbound(), &full, "after {:?}, {:?}", change, dirty);
        prop_assert_eq!(&delta, &diff(&before, &full), "after {:?}, {:?}", change, dirty);
        if n.is_multiple_of(LOWERED) {
            prop_assert_eq!(&compile(&without_groups(&world.nb), &world.hosts), &full);
        }
        let told = views.update(&full, &delta, |_| true);
        let silent = unheard.update(&full, &delta, |id| id == "h2");
        prop_assert!(told.keys().eq(silent.keys()), "{:?} {:?}", told.keys(), silent.keys());
        prop_assert!(silent.iter().all(|(id, change)| change.is_none() || told[id] == *change));
        prop_assert!(silent.get("h2").is_none_or(Option::is_some));
        let told: BTreeMap<_, _> = told.into_iter().filter_map(|(id, change)| Some((id, change?))).collect();
        hosts.retain(|id, _| full.chassis.contains_key(id));
        for id in full.chassis.keys() {
            let host = hosts.entry(id.clone()).or_default();
            let wanted = chassis_view(&full, id);
            prop_assert!(
                told.contains_key(id) == (*host != wanted),
                "{} is told what it knows, or is not",
                id
            );
            told.get(id).map(|change| (**change).clone()).unwrap_or_default().apply(host);
            prop_assert_eq!(&*host, &wanted, "{} after {:?}", id, change);
            prop_assert_eq!(&views.of(&full, id), &wanted);
        }
        if !full.chassis.contains_key("h1") {
            lowering = Lowering::default();
            tables = bare();
        } else if n.is_multiple_of(LOWERED) || told.contains_key("h1") {
            let news = diff(lowering.view(), &hosts["h1"]);
            tables = tables.transact(lowering.update(news, local(&hosts["h1"], n)).changes()).unwrap();
            prop_assert_eq!(lowering.view(), &hosts["h1"]);
            prop_assert_eq!(lowering.audit(&mut Audit::default(), &tables, 0, usize::MAX), Ok(()));
            if n.is_multiple_of(LOWERED) {
                same_as_at_once(&lowering, &tables, local(&hosts["h1"], n))?;
            }
        }
        delta.apply(&mut before);
        prop_assert!(before == full);
        prop_assert!(compiler.update(&world.nb, &world.hosts, &dirty).is_empty());
    }
    Ok(())
}

/// The host's ports: most of those that are on it, and now and then one of them twice.
fn local(view: &Southbound, n: usize) -> LocalPorts {
    let is_here = |binding: &PortBinding| {
        let hosts = binding.chassis.iter().chain(&binding.additional);
        hosts.into_iter().any(|id| id == "h1") || binding.wire == Wire::EachChassis
    };
    let here = view.bindings.iter().filter(|(_, binding)| is_here(binding));
    let here =
        here.filter(|(_, binding)| binding.peer.is_none() && usize::from(binding.key.get()) % 5 != n / 7 % 5);
    let number = |id: &str| 1 + id.bytes().map(u32::from).sum::<u32>() % 97 % (20 - n as u32 / 11 % 8);
    let ports = here.map(|(id, _)| (id.clone(), PortNo::new(number(id)).unwrap()));
    let tunnel = (!(n / 30).is_multiple_of(3)).then(|| PortNo::new(500).unwrap());
    let networks = (0..2).filter(|network| !(n / 9 + network).is_multiple_of(3));
    let networks = networks.map(|network| (format!("n{network}"), PortNo::new(600).unwrap()));
    let down = (0..3).filter(|other| (n / 5 + other).is_multiple_of(3)).map(|other| format!("h{other}"));
    let down = down.collect();
    let waiting = view.bindings.iter().filter(|(_, binding)| binding.awaits_rarp).map(|(id, _)| id);
    let waiting = waiting.filter(|id| (n / 3 + id.len()).is_multiple_of(2));
    LocalPorts {
        chassis: "h1".to_owned(),
        ports: ports.collect(),
        tunnel,
        vxlan: (!(n / 20).is_multiple_of(3)).then(|| PortNo::new(501).unwrap()),
        networks: networks.collect(),
        down,
        activated: waiting.cloned().collect(),
    }
}

/// The rules, and what the tables have become change by change, are what they would be at
/// once; all numbers are known before.
fn same_as_at_once(lowering: &Lowering, tables: &Tables, local: LocalPorts) -> Result<(), TestCaseError> {
    let mut fresh = lowering.emptied();
    let all = fresh.update(diff(&Southbound::default(), lowering.view()), local);
    let (step, once) = (lowering.lowered(), fresh.lowered());
    prop_assert_eq!(step.rules.len(), once.rules.len());
    for (a, b) in step.rules.iter().zip(&once.rules) {
        let text = |rule: &Rule| {
            format!("{:?}", (rule.table, rule.priority, &rule.matching, &rule.actions, &rule.origin))
        };
        prop_assert_eq!(text(a), text(b));
    }
    prop_assert_eq!((&step.groups, &step.sets, &step.errors), (&once.groups, &once.sets, &once.errors));
    prop_assert_eq!(&step.meters, &once.meters);
    let at_once = bare().transact(all.changes()).unwrap();
    let text = |tables: &Tables| {
        let rules: BTreeSet<_> = tables.rules().map(|rule| format!("{} {rule}", rule.table)).collect();
        let groups: Vec<_> = tables.groups().map(|group| (**group).clone()).collect();
        let meters: Vec<_> = tables.meters().map(|meter| meter.config().clone()).collect();
        (rules, tables.sets().clone(), groups, meters)
    };
    prop_assert_eq!(text(tables), text(&at_once));
    Ok(())
}

fn steps(changes: &[Change]) -> impl Iterator<Item = &[Change]> {
    changes.chunks(TOGETHER).flat_map(|some| {
        let (single, together) = some.split_at(some.len().min(TOGETHER - 2));
        single.chunks(1).chain([together]).filter(|step| !step.is_empty())
    })
}

/// Makes that many steps, in rows that each processor takes its share of.
fn follow_many(n_steps: usize, follow: fn(Vec<Change>) -> Result<(), TestCaseError>) {
    let n_threads = std::thread::available_parallelism().map_or(1, usize::from);
    let cases = u32::try_from(n_steps.div_ceil(STEPS * n_threads)).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..n_threads {
            scope.spawn(|| {
                let config = ProptestConfig { cases, max_shrink_iters: 2_000, ..ProptestConfig::default() };
                let changes = proptest::collection::vec(any::<Change>(), ROW);
                proptest!(config, |(changes in changes)| follow(changes)?);
            });
        }
    });
}

#[test]
fn incremental_equals_full() {
    follow_many(n_steps(), follow);
}

/// With hashes so short that flows often have the same one.
#[test]
fn incremental_equals_full_when_ids_collide() {
    follow_many(n_steps().div_ceil(10), |changes| {
        test_hash_bits(11);
        let followed = follow(changes);
        test_hash_bits(HASH_BITS);
        followed
    });
}
