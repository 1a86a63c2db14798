//! Random logical networks, as plain values that both sides are told in their own words.

use std::collections::BTreeSet;

use oracle::rng::Rng;

use crate::translations::{Balancer, Nat, Place};

/// Switches; `j` joins routers.
pub(crate) const SWITCHES: [&str; 3] = ["s0", "s1", "s2"];

/// A logical network.
#[derive(Debug, Clone, Default)]
pub(crate) struct World {
    pub(crate) n_switches: usize,
    pub(crate) ports: Vec<Port>,
    /// Switches of each router. With two routers there is a switch between them.
    pub(crate) routers: Vec<Vec<usize>>,
    pub(crate) routes: Vec<Route>,
    pub(crate) groups: Vec<Vec<usize>>,
    /// Members of the address sets: IPv4.
    pub(crate) sets: Vec<Vec<String>>,
    pub(crate) acls: Vec<Acl>,
    pub(crate) policies: Vec<Policy>,
    pub(crate) balancers: Vec<Balancer>,
    /// Where each router is.
    pub(crate) places: Vec<Place>,
    pub(crate) nats: Vec<Nat>,
    /// Routers' ports, by router and switch, whose packets take the routes of table `red`.
    pub(crate) red: BTreeSet<(usize, usize)>,
}

/// A workload: its number is its index, which its addresses are made of.
#[derive(Debug, Clone)]
pub(crate) struct Port {
    pub(crate) number: u8,
    pub(crate) switch: usize,
    pub(crate) is_secured: bool,
    pub(crate) takes_unknown: bool,
}

/// A static route.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    pub(crate) router: usize,
    pub(crate) prefix: String,
    /// The next hop; `None`: nowhere.
    pub(crate) hop: Option<String>,
    pub(crate) is_by_source: bool,
    /// For packets by ports of table `red` alone.
    pub(crate) is_red: bool,
}

/// A policy of a router. Priorities are unique.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    pub(crate) router: usize,
    pub(crate) priority: u16,
    pub(crate) matching: String,
    pub(crate) action: &'static str,
    /// The next hop of `reroute`.
    pub(crate) hop: Option<String>,
}

/// An ACL of a switch or of a port group. Priorities are unique, since among equals OVN does not say which
/// one wins.
#[derive(Debug, Clone)]
pub(crate) struct Acl {
    pub(crate) group: Option<usize>,
    pub(crate) switch: usize,
    pub(crate) is_inbound: bool,
    pub(crate) priority: u16,
    pub(crate) matching: String,
    pub(crate) action: &'static str,
}

impl Port {
    pub(crate) fn id(&self) -> String {
        format!("p{}", self.number)
    }

    pub(crate) fn mac(&self) -> String {
        format!("0a:00:00:00:00:{:02x}", self.number)
    }

    pub(crate) fn ip(&self, is_v4: bool) -> String {
        let (switch, number) = (self.switch, self.number);
        if is_v4 { format!("10.0.{switch}.{number}") } else { format!("fd00:{switch}::{number:x}") }
    }
}

/// MAC address of a router's port on a switch, or on the switch between routers.
pub(crate) fn router_mac(router: usize, switch: Option<usize>) -> String {
    format!("0a:00:00:00:{:02x}:{:02x}", 0xf0 + router, switch.map_or(0xff, |switch| switch as u8))
}

/// Addresses of a router's port.
pub(crate) fn router_networks(router: usize, switch: Option<usize>) -> [String; 2] {
    match switch {
        Some(switch) => [format!("10.0.{switch}.254/24"), format!("fd00:{switch}::fe/64")],
        None => [format!("100.64.0.{}/24", router + 1), format!("fd64::{}/64", router + 1)],
    }
}

impl World {
    pub(crate) fn random(rng: &mut Rng) -> Self {
        let mut world = Self { n_switches: 1 + rng.index(3), ..Self::default() };
        for switch in 0..world.n_switches {
            for _ in 0..1 + rng.index(3) {
                let number = world.ports.len() as u8 + 1;
                let (is_secured, takes_unknown) = (rng.one_in(3), rng.one_in(8));
                world.ports.push(Port { number, switch, is_secured, takes_unknown });
            }
        }
        world.route(rng);
        for _ in 0..2 {
            let members = (0..world.ports.len()).filter(|_| rng.one_in(2)).collect();
            world.groups.push(members);
            let of_set = (0..1 + rng.index(3)).map(|_| match rng.below(3) {
                0 => format!("10.0.{}.0/24", rng.below(3)),
                _ => rng.pick(&world.ports).ip(true),
            });
            let of_set: BTreeSet<String> = of_set.collect();
            world.sets.push(of_set.into_iter().collect());
        }
        world.overrule(rng);
        world.translate(rng);
        world.balance(rng);
        let mut priority = 100;
        for _ in 0..rng.below(8) {
            priority += 1 + rng.below(50) as u16;
            let acl = world.acl(priority, rng);
            world.acls.push(acl);
        }
        world
    }

    fn route(&mut self, rng: &mut Rng) {
        let all: Vec<usize> = (0..self.n_switches).collect();
        match rng.below(4) {
            0 => {}
            1 if self.n_switches > 1 => {
                let (near, far) = all.split_at(1);
                self.routers = vec![near.to_vec(), far.to_vec()];
                for (router, others) in [(0, far), (1, near)] {
                    for switch in others.iter().filter(|_| !rng.one_in(6)) {
                        let hop = |prefix: &str| Some(format!("{prefix}{}", 2 - router));
                        let ways = [
                            (format!("10.0.{switch}.0/24"), hop("100.64.0.")),
                            (format!("fd00:{switch}::/64"), hop("fd64::")),
                        ];
                        self.routes.extend(ways.map(|(prefix, hop)| Route {
                            router,
                            prefix,
                            hop,
                            is_by_source: false,
                            is_red: false,
                        }));
                    }
                }
            }
            _ => self.routers = vec![all],
        }
        for router in 0..self.routers.len() {
            let switches = self.routers[router].iter().filter(|_| rng.one_in(3));
            self.red.extend(switches.map(|switch| (router, *switch)));
            let mut used = BTreeSet::new();
            for _ in 0..rng.below(4) {
                let route = self.a_route(router, rng);
                // Whom one of several to the same gets is not what is compared.
                if used.insert((route.prefix.clone(), route.is_by_source, route.is_red)) {
                    self.routes.push(route);
                }
            }
        }
    }

    fn a_route(&self, router: usize, rng: &mut Rng) -> Route {
        let hop = (!rng.one_in(3)).then(|| rng.pick(&self.ports).ip(true));
        // A next hop has to be on a network of the router's.
        let is_near = |hop: &String| {
            self.routers[router].iter().any(|switch| hop.starts_with(&format!("10.0.{switch}.")))
        };
        let is_by_source = rng.one_in(3);
        let prefix = match rng.below(3) {
            0 if !is_by_source => "192.0.2.0/24".to_owned(),
            _ => format!("{}/32", rng.pick(&self.ports).ip(true)),
        };
        // Routes by source without a table OVN has for all ports.
        let has_red = self.red.iter().any(|(of, _)| *of == router);
        let is_red = has_red && (is_by_source || !rng.one_in(3));
        Route { router, prefix, hop: hop.filter(is_near), is_by_source, is_red }
    }

    /// Policies.
    fn overrule(&mut self, rng: &mut Rng) {
        let mut priority = 10;
        for router in 0..self.routers.len() {
            for _ in 0..rng.below(3) {
                priority += 1 + rng.below(9) as u16;
                let (port, side) = (rng.pick(&self.ports), rng.pick(&["src", "dst"]));
                let switch = rng.pick(&self.routers[router]);
                let matching = match rng.below(6) {
                    0 => format!("ip4.{side} == {}", port.ip(true)),
                    1 => format!("ip4.{side} == $as{}", rng.index(self.sets.len())),
                    2 => format!("ip4 && inport == \"r{router}-{}\"", SWITCHES[switch]),
                    3 => "ip4 && tcp".to_owned(),
                    4 => format!("ip4.{side} == 10.0.0.0/16 && udp"),
                    _ => format!("ip4.src != {} && icmp4", port.ip(true)),
                };
                let near: Vec<_> = self.ports.iter().filter(|port| port.switch == switch).collect();
                let hop = rng.pick(&near).ip(true);
                let (action, hop) = match rng.below(4) {
                    0 => ("drop", None),
                    1 => ("allow", None),
                    _ => ("reroute", Some(hop)),
                };
                self.policies.push(Policy { router, priority, matching, action, hop });
            }
        }
    }

    fn acl(&self, priority: u16, rng: &mut Rng) -> Acl {
        let group = rng.one_in(3).then(|| rng.index(self.groups.len()));
        let is_inbound = rng.one_in(2);
        let mut parts = Vec::new();
        if let Some(group) = group {
            let side = if is_inbound { "outport" } else { "inport" };
            parts.push(format!("{side} == @g{group}"));
        } else if rng.one_in(3) {
            let side = if is_inbound { "outport" } else { "inport" };
            parts.push(format!("{side} == \"{}\"", rng.pick(&self.ports).id()));
        }
        parts.push(self.term(rng));
        if rng.one_in(3) {
            parts.push(self.term(rng));
        }
        let mut actions = vec!["allow", "allow-related", "drop", "drop", "reject"];
        // What passes untracked OVN does not balance either.
        if self.balancers.is_empty() {
            actions.push("allow-stateless");
        }
        Acl {
            group,
            switch: rng.index(self.n_switches),
            is_inbound,
            priority,
            matching: parts.join(" && "),
            action: rng.pick(&actions),
        }
    }

    fn term(&self, rng: &mut Rng) -> String {
        let port = rng.pick(&self.ports);
        let (v4, v6, side) = (port.ip(true), port.ip(false), rng.pick(&["src", "dst"]));
        let set = rng.index(self.sets.len());
        match rng.below(18) {
            0 => "ip4".to_owned(),
            1 => "ip6".to_owned(),
            2 => "ip".to_owned(),
            3 => "tcp".to_owned(),
            4 => "udp.dst == 53".to_owned(),
            5 => "tcp.dst == {22, 80, 443}".to_owned(),
            6 => "80 <= tcp.dst <= 90".to_owned(),
            7 => "icmp4".to_owned(),
            8 => "(icmp6 || icmp4.type == 8)".to_owned(),
            9 => format!("ip4.{side} == {v4}"),
            10 => format!("ip6.{side} == {v6}"),
            11 => format!("ip4.{side} == $as{set}"),
            12 => format!("ip4.{side} == {{$as{set}, {v4}}}"),
            13 => format!("ip4.{side} != $as{set}"),
            14 => format!("ip4.{side} == $g{set}_ip4"),
            15 => format!("(ip4.{side} == 10.0.0.0/24 || tcp.dst > 100)"),
            16 => format!("eth.{side} == {}", port.mac()),
            _ => "(udp.dst != 53 || tcp)".to_owned(),
        }
    }

    /// The router that is on a switch.
    pub(crate) fn router_on(&self, switch: usize) -> Option<usize> {
        self.routers.iter().position(|switches| switches.contains(&switch))
    }
}
