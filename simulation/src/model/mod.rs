//! A dull model of the network, written from the documentation and from nothing else: what users have
//! said at each revision, as plain maps. `words.rs` says it to the API, `judge.rs` says what it means for a
//! packet. It shares no code with the compiler or the switch.

mod judge;
mod words;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, Ipv6Addr},
    rc::Rc,
};

pub use judge::{Half, Packet};

/// MAC address.
pub type Mac = [u8; 6];

/// The network of all addresses by IPv6, fd00::/96.
const PREFIX: u128 = 0xfd << 120;

/// What users have said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Net {
    /// Switches by number.
    pub switches: BTreeMap<u8, Switch>,
    /// Workloads' ports by id.
    pub ports: BTreeMap<String, Port>,
    /// Routers by number; the value: enabled.
    pub routers: BTreeMap<u8, bool>,
    /// Routers with the switches that they are linked to; hosts that may be the gateway there, the best first.
    pub links: BTreeMap<(u8, u8), Vec<u8>>,
    /// Translations of routers by number.
    pub nats: BTreeMap<(u8, u8), Nat>,
    /// ACLs of switches and groups by number.
    pub acls: BTreeMap<(Owner, u8), Acl>,
    /// Members of address sets.
    pub sets: BTreeMap<u8, BTreeSet<Ipv4Addr>>,
    /// Port groups.
    pub groups: BTreeMap<u8, Group>,
    /// Load balancers.
    pub balancers: BTreeMap<u8, Balancer>,
}

/// A switch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Switch {
    /// What no ACL decides about is dropped.
    pub drops: bool,
    /// Load balancers.
    pub balancers: BTreeSet<u8>,
}

/// A workload's port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Its switch.
    pub switch: u8,
    /// Its address.
    pub mac: Mac,
    /// Its address; by IPv6 it has another one, see [`ipv6`].
    pub ip: Ipv4Addr,
    /// It sends and receives.
    pub enabled: bool,
    /// It sends by its own addresses only.
    pub secure: bool,
    /// The host that may have it; none: any.
    pub requested: Option<u8>,
    /// The host that may have it besides, while it moves.
    pub additional: Option<u8>,
}

/// A port group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Group {
    /// Its members.
    pub ports: BTreeSet<String>,
    /// What no ACL decides about is dropped.
    pub drops: bool,
}

/// Whose an ACL is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// A switch's.
    Switch(u8),
    /// A port group's.
    Group(u8),
}

/// An ACL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acl {
    /// At the source; else at the destination.
    pub is_from: bool,
    /// No two have the same.
    pub priority: u16,
    /// All of these hold.
    pub terms: Vec<Term>,
    /// Verdict.
    pub action: Action,
}

/// A term of an ACL's match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Term {
    /// The packet is IPv4.
    Ip4,
    /// The packet is IPv6.
    Ip6,
    /// The packet is IPv4, and the source is in a set; negated: it is not.
    Source(u8, bool),
    /// The packet is IPv4, and the destination is in a set.
    Destination(u8),
    /// It is UDP to a port between these.
    Udp(u16, u16),
    /// It is TCP to a port between these.
    Tcp(u16, u16),
    /// The port that it enters or leaves by is in the group.
    Member(u8),
    /// The other end has the address of a port of the group.
    Peer(u8),
    /// The port that it enters or leaves by is this one.
    Is(String),
}

/// Verdict of an ACL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It passes.
    Allow,
    /// It passes, and so do answers.
    AllowRelated,
    /// It passes, untracked.
    AllowStateless,
    /// It is dropped.
    Drop,
    /// It is dropped, and the sender told.
    Reject,
}

/// A load balancer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Balancer {
    /// Address of its service.
    pub vip: Ipv4Addr,
    /// UDP port of its service.
    pub port: u16,
    /// Addresses of its backends, and their port.
    pub backends: BTreeSet<(Ipv4Addr, u16)>,
}

/// A translation at a router's gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nat {
    /// The switch at the gateway, whose network has the address outside.
    pub outside: u8,
    /// What is translated.
    pub kind: NatKind,
}

/// What is translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NatKind {
    /// Sources on this switch become the address outside.
    Source(u8),
    /// The address outside stands for this one.
    Destination(Ipv4Addr),
    /// Both, for this address.
    Floating(Ipv4Addr),
}

/// Something that a user says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// There is a switch, and it is so.
    Switch(u8, Switch),
    /// There is none.
    NoSwitch(u8),
    /// There is a port.
    Port(String, Port),
    /// There is none on this switch.
    NoPort(u8, String),
    /// There is a router, enabled or not.
    Router(u8, bool),
    /// A router is linked to a switch; by these gateways, or everywhere.
    Link(u8, u8, Vec<u8>),
    /// It is not.
    NoLink(u8, u8),
    /// A router translates.
    Nat(u8, u8, Nat),
    /// It does not.
    NoNat(u8, u8),
    /// There is an ACL.
    Acl(Owner, u8, Acl),
    /// There is none.
    NoAcl(Owner, u8),
    /// There is a set with these members.
    Set(u8, BTreeSet<Ipv4Addr>),
    /// There is a group.
    Group(u8, Group),
    /// There is a load balancer.
    Balancer(u8, Balancer),
    /// There is none.
    NoBalancer(u8),
}

/// The address by IPv6 of whoever has this one: the model knows both by the one.
pub fn ipv6(ip: Ipv4Addr) -> Ipv6Addr {
    (PREFIX | u128::from(ip.to_bits())).into()
}

/// Whose address by IPv6 it is.
pub fn ipv4(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let low = ip.to_bits() as u32;
    (PREFIX | u128::from(low) == ip.to_bits()).then(|| low.into())
}

/// Address of a router on a switch.
pub fn router_ip(router: u8, switch: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, switch, 0, 1 + router)
}

/// The address outside of a translation.
pub fn nat_ip(router: u8, id: u8, outside: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, outside, 0, 200 + 8 * router + id)
}

/// MAC address of a router on a switch.
pub fn router_mac(router: u8, switch: u8) -> Mac {
    [0x0a, 0xff, 0, 0, router, switch]
}

impl Net {
    /// What it is after somebody has said something, within a transaction that [`Net::end`] ends.
    pub fn apply(&mut self, op: &Op) {
        match op.clone() {
            Op::Switch(id, switch) => drop(self.switches.insert(id, switch)),
            Op::NoSwitch(id) => {
                self.switches.remove(&id);
                self.ports.retain(|_, port| port.switch != id);
                self.links.retain(|(_, switch), _| *switch != id);
                self.acls.retain(|(owner, _), _| *owner != Owner::Switch(id));
            }
            Op::Port(id, port) => drop(self.ports.insert(id, port)),
            Op::NoPort(_, id) => drop(self.ports.remove(&id)),
            Op::Router(id, enabled) => drop(self.routers.insert(id, enabled)),
            Op::Link(router, switch, gateways) => drop(self.links.insert((router, switch), gateways)),
            Op::NoLink(router, switch) => drop(self.links.remove(&(router, switch))),
            Op::Nat(router, id, nat) => drop(self.nats.insert((router, id), nat)),
            Op::NoNat(router, id) => drop(self.nats.remove(&(router, id))),
            Op::Acl(owner, id, acl) => drop(self.acls.insert((owner, id), acl)),
            Op::NoAcl(owner, id) => drop(self.acls.remove(&(owner, id))),
            Op::Set(id, members) => drop(self.sets.insert(id, members)),
            Op::Group(id, group) => drop(self.groups.insert(id, group)),
            Op::Balancer(id, balancer) => drop(self.balancers.insert(id, balancer)),
            Op::NoBalancer(id) => drop(self.balancers.remove(&id)),
        }
    }

    /// Some router has a gateway.
    pub fn has_gateways(&self) -> bool {
        self.links.values().any(|gateways| !gateways.is_empty())
    }

    /// The switch at a router's gateway, and the hosts that may be it.
    pub fn gateway(&self, router: u8) -> Option<(u8, &[u8])> {
        let mut links = self.links.iter().filter(|((of, _), gateways)| *of == router && !gateways.is_empty());
        links.next().map(|((_, switch), gateways)| (*switch, gateways.as_slice()))
    }

    /// A port that is not there in the end has left its groups; one that was made anew has not.
    pub fn end(&mut self) {
        for group in self.groups.values_mut() {
            group.ports.retain(|port| self.ports.contains_key(port));
        }
    }
}

/// The network at every revision.
#[derive(Debug, Default)]
pub struct History(BTreeMap<u64, Rc<Net>>);

impl History {
    /// What the network is at a revision.
    pub fn at(&self, revision: u64) -> Rc<Net> {
        let found = self.0.range(..=revision).next_back();
        found.map(|(_, net)| Rc::clone(net)).unwrap_or_default()
    }

    /// What the networks from one revision to another are, the newest first.
    pub fn between(&self, oldest: u64, newest: u64) -> Vec<Rc<Net>> {
        let mut all: Vec<_> =
            self.0.range(oldest..=newest.max(oldest)).map(|(_, net)| Rc::clone(net)).rev().collect();
        all.push(self.at(oldest));
        all
    }

    /// Something was said that makes a revision.
    pub fn record(&mut self, revision: u64, ops: &[Op]) {
        let mut net = (*self.at(revision)).clone();
        ops.iter().for_each(|op| net.apply(op));
        net.end();
        self.0.insert(revision, Rc::new(net));
    }
}
