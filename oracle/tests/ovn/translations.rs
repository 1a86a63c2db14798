//! What changes addresses on the way: load balancers, and translations of routers.

use std::collections::BTreeSet;

use oracle::rng::Rng;

use crate::world::World;

/// Where a router is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// On every host.
    Everywhere,
    /// On one host, as a whole.
    OneHost,
    /// On every host, but for the port to this switch, or to the one between routers.
    Gateway(Option<usize>),
}

/// A load balancer, with one backend: whom others get is not what is compared.
#[derive(Debug, Clone)]
pub(crate) struct Balancer {
    pub(crate) vip: String,
    pub(crate) is_v4: bool,
    pub(crate) protocol: &'static str,
    pub(crate) port: u16,
    /// Index of the backend, and its port; `None`: nobody serves.
    pub(crate) backend: Option<(usize, u16)>,
    /// Clients are told when nobody serves.
    pub(crate) is_refusing: bool,
    pub(crate) switches: Vec<usize>,
    /// Routers that are not everywhere.
    pub(crate) routers: Vec<usize>,
}

/// Which addresses a translation changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Source,
    Destination,
    Both,
}

/// A translation of a router that is not everywhere.
#[derive(Debug, Clone)]
pub(crate) struct Nat {
    pub(crate) router: usize,
    pub(crate) kind: Kind,
    pub(crate) external: String,
    /// Inside: a network for `Source`.
    pub(crate) logical: String,
    pub(crate) is_stateless: bool,
    /// Index of the workload whose host does it, with the MAC address outside.
    pub(crate) distributed: Option<(usize, String)>,
    /// Index of the address set of those outside whom it is for, or, if `true`, not for.
    pub(crate) peers: Option<(usize, bool)>,
}

impl Kind {
    /// As ovn-nbctl(8) has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Source => "snat",
            Self::Destination => "dnat",
            Self::Both => "dnat_and_snat",
        }
    }
}

impl Balancer {
    /// Address and port, as texts have it.
    pub(crate) fn endpoint(&self) -> String {
        endpoint(&self.vip, self.is_v4, self.port)
    }
}

/// Address and port, as texts have it.
pub(crate) fn endpoint(ip: &str, is_v4: bool, port: u16) -> String {
    if is_v4 { format!("{ip}:{port}") } else { format!("[{ip}]:{port}") }
}

impl World {
    /// Where routers are, and what they translate.
    pub(crate) fn translate(&mut self, rng: &mut Rng) {
        let is_between = self.routers.len() > 1;
        for router in 0..self.routers.len() {
            let switch = rng.pick(&self.routers[router]);
            let place = match rng.below(5) {
                0 => Place::OneHost,
                1 if is_between => Place::Gateway(None),
                1 | 2 => Place::Gateway(Some(switch)),
                _ => Place::Everywhere,
            };
            self.places.push(place);
            if place != Place::Everywhere {
                let n_rules = 1 + rng.index(4);
                self.nats_of(router, n_rules, rng);
            }
        }
    }

    fn nats_of(&mut self, router: usize, n_rules: usize, rng: &mut Rng) {
        let mut used = BTreeSet::new();
        for n in 0..n_rules {
            let nat = self.a_nat(router, n, rng);
            // Which of two rules for one address inside wins, OVN does not say.
            if used.insert(nat.logical.clone()) {
                self.nats.push(nat);
            }
        }
    }

    fn a_nat(&self, router: usize, n: usize, rng: &mut Rng) -> Nat {
        let idx = rng.index(self.ports.len());
        let target = &self.ports[idx];
        let kind = rng.pick(&[Kind::Source, Kind::Destination, Kind::Both]);
        let logical = match kind {
            Kind::Source if rng.one_in(2) => format!("10.0.{}.0/24", target.switch),
            _ => target.ip(true),
        };
        let is_both = kind == Kind::Both;
        let is_distributed = is_both && matches!(self.places[router], Place::Gateway(_)) && rng.one_in(3);
        let is_stateless = is_both && !is_distributed && rng.one_in(3);
        let peers = rng.one_in(4).then(|| (rng.index(self.sets.len()), rng.one_in(2)));
        // Other peers' packets OVN then drops, whatever a policy says.
        let reroutes = self.policies.iter().any(|policy| policy.router == router && policy.hop.is_some());
        let peers = peers.filter(|_| !is_stateless || !reroutes);
        Nat {
            router,
            kind,
            external: self.an_address(router, (n, kind, peers.is_some()), rng),
            logical,
            is_stateless,
            distributed: is_distributed.then(|| (idx, format!("0a:00:00:00:ee:{:02x}", 16 * router + n))),
            peers,
        }
    }

    /// An address outside, for the translation number so and so.
    fn an_address(&self, router: usize, (n, kind, has_peers): (usize, Kind, bool), rng: &mut Rng) -> String {
        let (network, own) = match self.places[router] {
            Place::Gateway(None) => ("100.64.0".to_owned(), router + 1),
            Place::Gateway(Some(switch)) => (format!("10.0.{switch}"), 254),
            // What is sent to one in its own networks and not translated, OVN sends on.
            _ if has_peers || rng.one_in(2) => return format!("172.16.0.{}", 200 + 10 * router + n),
            _ => (format!("10.0.{}", rng.pick(&self.routers[router])), 254),
        };
        let is_own = kind == Kind::Source && rng.one_in(3);
        format!("{network}.{}", if is_own { own } else { 200 + 10 * router + n })
    }

    /// Load balancers.
    pub(crate) fn balance(&mut self, rng: &mut Rng) {
        for n in 0..rng.below(3) {
            let (protocol, port) = rng.pick(&[("tcp", 80), ("udp", 53)]);
            let is_v4 = !rng.one_in(4);
            let backend = (!rng.one_in(4)).then(|| (rng.index(self.ports.len()), rng.pick(&[port, 9000])));
            let routers = 0..self.routers.len();
            self.balancers.push(Balancer {
                vip: if is_v4 { format!("10.96.0.{}", n + 1) } else { format!("fd96::{}", n + 1) },
                is_v4,
                protocol,
                port,
                backend,
                is_refusing: rng.one_in(2),
                switches: (0..self.n_switches).filter(|_| !rng.one_in(3)).collect(),
                routers: routers
                    .filter(|router| self.places[*router] != Place::Everywhere && rng.one_in(2))
                    .collect(),
            });
        }
    }

    /// Something changes addresses on the way.
    pub(crate) fn translates(&self) -> bool {
        !self.nats.is_empty() || !self.balancers.is_empty()
    }

    /// Addresses outside that packets may be sent to. ovn-trace gives up where a router of one host looks
    /// for the translation of a source.
    pub(crate) fn external(&self) -> Vec<&Nat> {
        let is_told = |nat: &&Nat| {
            let is_looked_up = nat.kind != Kind::Destination && !nat.is_stateless;
            self.places[nat.router] != Place::OneHost || !is_looked_up
        };
        self.nats.iter().filter(is_told).collect()
    }
}
