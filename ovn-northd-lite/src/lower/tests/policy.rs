//! Network policy against its contract: random ACLs, sets and defaults, that change while
//! connections are on, and random packets through real switches with their trackers. What
//! becomes of each is compared with an evaluator that knows the contract and nothing of
//! flows, stages or hints.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr},
};

use flowtable::{
    build::{self, Host as End},
    types::Priority,
};

use super::fabric::Fabric;
use crate::{
    fixture::*,
    model::{
        Acl, AclAction, AclDirection, AclLog, DefaultPolicy, IpNetwork, Northbound, PortGroup, Samples,
        SetMember, Severity,
    },
};

const PORTS: [&str; 3] = ["p0", "p1", "p2"];
const DIRECTIONS: [AclDirection; 2] = [AclDirection::FromLport, AclDirection::ToLport];

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// A UDP packet between two of the ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Sent {
    from: usize,
    to: usize,
    src: u16,
    dst: u16,
}

impl Sent {
    fn any(random: &mut Random) -> Self {
        let from = random.below(3);
        let to = (from + 1 + random.below(2)) % 3;
        Self { from, to, src: 10 + random.below(3) as u16, dst: 10 + random.below(3) as u16 }
    }

    fn reversed(self) -> Self {
        Self { from: self.to, to: self.from, src: self.dst, dst: self.src }
    }

    fn frame(self) -> Vec<u8> {
        let end = |port: usize, number| End {
            mac: mac(port as u8 + 1),
            ip: IpAddr::V4(address(port)),
            port: number,
        };
        build::udp(&end(self.from, self.src), &end(self.to, self.dst), b"x")
    }
}

fn address(port: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, port as u8 + 1)
}

/// Part of a match, with what it means.
#[derive(Debug, Clone)]
enum Atom {
    Source(Addresses),
    Destination(Addresses),
    SourcePort(u16),
    /// From, to.
    DestinationPorts(u16, u16),
    Here(Members),
    NotSource(Addresses),
}

#[derive(Debug, Clone)]
enum Addresses {
    Of(usize),
    Set(usize),
    GroupIps(usize),
}

#[derive(Debug, Clone)]
enum Members {
    Port(usize),
    Group(usize),
}

/// An AND of atoms, or an OR of two such.
#[derive(Debug, Clone)]
struct Matching {
    any_of: Vec<Vec<Atom>>,
}

#[derive(Debug, Clone)]
struct Rule {
    acl: Acl,
    matching: Matching,
}

/// The network's policy.
#[derive(Debug, Clone, Default)]
struct World {
    /// Of the switch by number, of groups by group and number.
    rules: Vec<(Option<usize>, Rule)>,
    sets: [BTreeSet<usize>; 2],
    groups: [BTreeSet<usize>; 2],
    group_drops: [bool; 2],
    switch_drops: bool,
}

impl World {
    fn any(random: &mut Random) -> Self {
        let mut world = Self::default();
        let n_rules = random.below(9);
        let mut taken = BTreeSet::new();
        let has_tiers = random.one_in(2);
        let is_stateful = !random.one_in(4);
        while world.rules.len() < n_rules {
            let direction = DIRECTIONS[random.below(2)];
            let tier = if has_tiers { random.below(4) as u8 } else { 0 };
            let priority = random.below(50) as u16;
            if !taken.insert((direction, tier, priority)) {
                continue;
            }
            let action = match random.below(12) {
                0..5 if is_stateful => AclAction::AllowRelated,
                0..5 => AclAction::Allow,
                5 => AclAction::Allow,
                6 => AclAction::AllowStateless,
                7 => AclAction::Pass,
                8 => AclAction::Reject,
                _ => AclAction::Drop,
            };
            let matching = Matching::any(random, direction);
            let log = random.one_in(5).then(|| AclLog {
                name: String::new(),
                severity: Severity::Warning,
                rate: None,
                related: false,
            });
            let label = if action == AclAction::AllowRelated { random.below(3) as u32 } else { 0 };
            let priority = Priority::new(priority).unwrap();
            let text = matching.text(direction);
            let (after_lb, persists, samples) = (false, false, Samples::default());
            let acl = Acl {
                direction,
                tier,
                priority,
                matching: text,
                action,
                label,
                log,
                after_lb,
                persists,
                samples,
            };
            let owner = random.one_in(3).then(|| random.below(2));
            world.rules.push((owner, Rule { acl, matching }));
        }
        world.switch_drops = random.one_in(5);
        for i in 0..2 {
            world.group_drops[i] = random.one_in(5);
            world.members(random, i);
        }
        world
    }

    fn members(&mut self, random: &mut Random, i: usize) {
        let mut subset = || (0..3).filter(|_| random.one_in(2)).collect();
        (self.sets[i], self.groups[i]) = (subset(), subset());
    }

    /// Something of it becomes different.
    fn change(&mut self, random: &mut Random) {
        match random.below(4) {
            0 if !self.rules.is_empty() => drop(self.rules.remove(random.below(self.rules.len()))),
            1 => self.members(random, 0),
            2 => self.members(random, 1),
            _ => *self = Self::any(random),
        }
    }

    fn northbound(&self) -> Northbound {
        let mut nb = Northbound::default();
        let mut net = switch(1);
        for (i, id) in PORTS.iter().enumerate() {
            let host = if i == 2 { "h2" } else { "h1" };
            let ip = address(i).to_string();
            net.ports.insert((*id).into(), workload(i as u16 + 1, i as u8 + 1, &[&ip], host));
        }
        let policy = |drops: bool| if drops { DefaultPolicy::Drop } else { DefaultPolicy::Allow };
        net.default_policy = policy(self.switch_drops);
        for i in 0..2 {
            let member =
                |port: &usize| SetMember::Ip(IpNetwork { addr: address(*port).into(), prefix_len: 32 });
            nb.address_sets.insert(format!("s{i}"), self.sets[i].iter().map(member).collect());
            let ports = self.groups[i].iter().map(|port| (PORTS[*port].to_owned(), "net".to_owned()));
            let group = PortGroup {
                ports: ports.collect(),
                default_policy: policy(self.group_drops[i]),
                ..PortGroup::default()
            };
            nb.port_groups.insert(format!("g{i}"), group);
        }
        for (number, (owner, rule)) in self.rules.iter().enumerate() {
            let id = format!("a{number}");
            let acls = match owner {
                None => &mut net.acls,
                Some(group) => &mut nb.port_groups.get_mut(&format!("g{group}")).unwrap().acls,
            };
            acls.insert(id, rule.acl.clone());
        }
        nb.switches.insert("net".into(), net);
        nb
    }

    /// ACLs that apply to the switch, in a direction.
    fn rules(&self, direction: AclDirection) -> impl Iterator<Item = &Rule> {
        let applies = |owner: &Option<usize>| owner.is_none_or(|group| !self.groups[group].is_empty());
        let applying = self.rules.iter().filter(move |(owner, _)| applies(owner)).map(|(_, rule)| rule);
        applying.filter(move |rule| rule.acl.direction == direction)
    }

    fn is_stateful(&self) -> bool {
        let mut all = DIRECTIONS.into_iter().flat_map(|direction| self.rules(direction));
        all.any(|rule| rule.acl.action == AclAction::AllowRelated)
    }

    /// The default drops what this port sends or gets.
    fn drops_by_default(&self, port: usize) -> bool {
        self.switch_drops || (0..2).any(|i| self.group_drops[i] && self.groups[i].contains(&port))
    }

    fn has_default(&self) -> bool {
        self.switch_drops || (0..2).any(|i| self.group_drops[i] && !self.groups[i].is_empty())
    }
}

impl Matching {
    fn any(random: &mut Random, direction: AclDirection) -> Self {
        let n_parts = 1 + usize::from(random.one_in(4));
        let part = |random: &mut Random| {
            let n = 1 + random.below(3);
            (0..n).map(|_| Atom::any(random, direction)).collect()
        };
        Self { any_of: (0..n_parts).map(|_| part(random)).collect() }
    }

    fn text(&self, direction: AclDirection) -> String {
        let part = |atoms: &Vec<Atom>| {
            let texts: Vec<_> = atoms.iter().map(|atom| atom.text(direction)).collect();
            format!("({})", texts.join(" && "))
        };
        self.any_of.iter().map(part).collect::<Vec<_>>().join(" || ")
    }

    fn holds(&self, world: &World, sent: Sent, here: usize) -> bool {
        self.any_of.iter().any(|atoms| atoms.iter().all(|atom| atom.holds(world, sent, here)))
    }
}

impl Atom {
    fn any(random: &mut Random, _: AclDirection) -> Self {
        let addresses = |random: &mut Random| match random.below(3) {
            0 => Addresses::Of(random.below(3)),
            1 => Addresses::Set(random.below(2)),
            _ => Addresses::GroupIps(random.below(2)),
        };
        match random.below(6) {
            0 => Self::Source(addresses(random)),
            1 => Self::Destination(addresses(random)),
            2 => Self::SourcePort(10 + random.below(3) as u16),
            3 => Self::DestinationPorts(10 + random.below(3) as u16, 10 + random.below(3) as u16),
            4 => Self::NotSource(addresses(random)),
            _ if random.one_in(2) => Self::Here(Members::Port(random.below(3))),
            _ => Self::Here(Members::Group(random.below(2))),
        }
    }

    fn text(&self, direction: AclDirection) -> String {
        let field = match direction {
            AclDirection::FromLport => "inport",
            AclDirection::ToLport => "outport",
        };
        match self {
            Self::Source(addresses) => format!("ip4.src == {}", addresses.text()),
            Self::Destination(addresses) => format!("ip4.dst == {}", addresses.text()),
            Self::NotSource(addresses) => format!("ip4.src != {}", addresses.text()),
            Self::SourcePort(port) => format!("udp.src == {port}"),
            Self::DestinationPorts(first, last) => format!("{first} <= udp.dst <= {last}"),
            Self::Here(Members::Port(port)) => format!("{field} == \"{}\"", PORTS[*port]),
            Self::Here(Members::Group(group)) => format!("{field} == @g{group}"),
        }
    }

    fn holds(&self, world: &World, sent: Sent, here: usize) -> bool {
        match self {
            Self::Source(addresses) => addresses.has(world, sent.from),
            Self::Destination(addresses) => addresses.has(world, sent.to),
            Self::NotSource(addresses) => !addresses.has(world, sent.from),
            Self::SourcePort(port) => sent.src == *port,
            Self::DestinationPorts(first, last) => (*first..=*last).contains(&sent.dst),
            Self::Here(Members::Port(port)) => here == *port,
            Self::Here(Members::Group(group)) => world.groups[*group].contains(&here),
        }
    }
}

impl Addresses {
    fn text(&self) -> String {
        match self {
            Self::Of(port) => address(*port).to_string(),
            Self::Set(set) => format!("$s{set}"),
            Self::GroupIps(group) => format!("$g{group}_ip4"),
        }
    }

    fn has(&self, world: &World, port: usize) -> bool {
        match self {
            Self::Of(one) => *one == port,
            Self::Set(set) => world.sets[*set].contains(&port),
            Self::GroupIps(group) => world.groups[*group].contains(&port),
        }
    }
}

/// A connection as a port remembers it.
#[derive(Debug, Clone, Copy)]
struct Connection {
    has_replied: bool,
    is_blocked: bool,
}

/// What a packet is to the connections of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Untracked,
    New,
    Going { is_blocked: bool },
    Reply { is_blocked: bool },
}

/// Who may say what: the contract.
#[derive(Default)]
struct Evaluator {
    /// By port and first packet.
    connections: HashMap<(usize, Sent), Connection>,
}

impl Evaluator {
    fn arrives(&mut self, world: &World, sent: Sent) -> bool {
        self.passes(world, AclDirection::FromLport, sent.from, sent)
            && self.passes(world, AclDirection::ToLport, sent.to, sent)
    }

    fn state(&mut self, world: &World, direction: AclDirection, here: usize, sent: Sent) -> State {
        let stateless = |rule: &&Rule| rule.acl.action == AclAction::AllowStateless;
        let mut stateless = world.rules(direction).filter(stateless);
        if !world.is_stateful() || stateless.any(|rule| rule.matching.holds(world, sent, here)) {
            return State::Untracked;
        }
        if let Some(connection) = self.connections.get_mut(&(here, sent.reversed())) {
            connection.has_replied = true;
            return State::Reply { is_blocked: connection.is_blocked };
        }
        match self.connections.get(&(here, sent)) {
            Some(Connection { has_replied: true, is_blocked }) => State::Going { is_blocked: *is_blocked },
            Some(_) | None => State::New,
        }
    }

    fn passes(&mut self, world: &World, direction: AclDirection, here: usize, sent: Sent) -> bool {
        let state = self.state(world, direction, here, sent);
        // Connections are remembered in both directions, whichever has ACLs.
        if world.rules(direction).next().is_none() && !world.has_default() && !world.is_stateful() {
            return true;
        }
        if let State::Reply { is_blocked } = state {
            return !is_blocked;
        }
        let mut verdict = None;
        for tier in 0..4 {
            let of_tier = world.rules(direction).filter(|rule| rule.acl.tier == tier);
            let matching = of_tier.filter(|rule| rule.matching.holds(world, sent, here));
            let Some(rule) = matching.max_by_key(|rule| rule.acl.priority) else { continue };
            verdict = match rule.acl.action {
                AclAction::Pass => None,
                AclAction::Drop | AclAction::Reject => Some(false),
                AclAction::Allow | AclAction::AllowRelated | AclAction::AllowStateless => Some(true),
            };
            if verdict.is_some() {
                break;
            }
        }
        let passes = verdict.unwrap_or(!world.drops_by_default(here));
        match (passes, state) {
            (true, State::New) => {
                let fresh = Connection { has_replied: false, is_blocked: false };
                self.connections.entry((here, sent)).or_insert(fresh).is_blocked = false;
            }
            (passes, State::Going { is_blocked }) if is_blocked == passes => {
                self.connections.get_mut(&(here, sent)).unwrap().is_blocked = !passes;
            }
            _ => {}
        }
        passes
    }
}

/// Sends so many random packets through so many worlds; how many arrived, were dropped,
/// and were replies.
fn run(seed: u64, n_worlds: usize, n_packets: usize) -> BTreeMap<&'static str, usize> {
    let mut random = Random(seed);
    let mut seen = BTreeMap::new();
    for number in 0..n_worlds {
        let mut world = World::any(&mut random);
        let mut fabric = Fabric::new(&world.northbound());
        let mut evaluator = Evaluator::default();
        let mut last = Sent::any(&mut random);
        for packet in 0..n_packets {
            if packet > 0 && packet % (n_packets / 4) == 0 {
                world.change(&mut random);
                fabric.change(&world.northbound());
            }
            // Conversations, and strangers.
            let sent = match random.below(3) {
                0 => last,
                1 => last.reversed(),
                _ => Sent::any(&mut random),
            };
            last = sent;
            let wanted = evaluator.arrives(&world, sent);
            let arrived: Vec<_> = fabric.send(PORTS[sent.from], &sent.frame());
            let is_there = match &arrived[..] {
                [] => false,
                [(port, frame)] => port == PORTS[sent.to] && *frame == sent.frame(),
                _ => panic!("{arrived:?}"),
            };
            let context = || {
                let rules: Vec<_> = world.rules.iter().map(|(of, rule)| (of, &rule.acl)).collect();
                format!(
                    "seed {seed}, world {number}, packet {packet}: {sent:?}\n{rules:#?}\n{world:?}\n{:?}",
                    fabric.drops()
                )
            };
            assert_eq!(is_there, wanted, "{}", context());
            *seen.entry(if wanted { "arrived" } else { "dropped" }).or_default() += 1;
            *seen.entry(if world.is_stateful() { "tracked" } else { "untracked" }).or_default() += 1;
        }
        fabric.check_conservation();
    }
    seen
}

#[test]
fn random_packets_fare_as_the_contract_says() {
    // What differs between worlds matters more than many packets through one of them: there
    // are 54 different ones.
    let (n_worlds, n_packets) = if cfg!(debug_assertions) { (40, 500) } else { (400, 1000) };
    let seen = run(1, n_worlds, n_packets);
    let n_all = n_worlds * n_packets;
    assert_eq!(seen["arrived"] + seen["dropped"], n_all);
    // Nothing of it is rare.
    assert!(seen.values().all(|n| *n > n_all / 10), "{seen:?}");
}

/// The segment with acknowledgement number 2: those that are built here have number 1.
fn acknowledging(mut segment: Vec<u8>) -> Vec<u8> {
    let (number, checksum) = (14 + 20 + 8, 14 + 20 + 16);
    segment[number + 3] = 2;
    // So much more is summed up (RFC 1624 §3).
    let sum = !u16::from_be_bytes([segment[checksum], segment[checksum + 1]]);
    let (sum, carry) = sum.overflowing_add(2);
    segment[checksum..checksum + 2].copy_from_slice(&(!(sum + u16::from(carry))).to_be_bytes());
    segment
}

#[test]
fn answers_come_back_on_a_switch_whose_only_acl_is_about_requests() {
    const SYN: u16 = 0x02;
    const SYN_ACK: u16 = 0x12;
    for direction in DIRECTIONS {
        // On one host, and on two.
        for server in [1, 2] {
            let mut nb = World::default().northbound();
            let net = nb.switches.get_mut("net").unwrap();
            net.acls.insert("web".into(), acl(direction, 1, "tcp.dst == 80", AclAction::AllowRelated));
            let mut fabric = Fabric::new(&nb);
            let end = |port: usize, number| End {
                mac: mac(port as u8 + 1),
                ip: IpAddr::V4(address(port)),
                port: number,
            };
            let (client, service) = (end(0, 4000), end(server, 80));
            let request = build::tcp(&client, &service, SYN, b"");
            let answer = acknowledging(build::tcp(&service, &client, SYN_ACK, b""));
            assert_eq!(fabric.send(PORTS[0], &request), [(PORTS[server].to_owned(), request.clone())]);
            let arrived = fabric.send(PORTS[server], &answer);
            assert_eq!(arrived, [(PORTS[0].to_owned(), answer)], "{direction:?} {:?}", fabric.drops());
            fabric.check_conservation();
        }
    }
}
