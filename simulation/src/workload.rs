//! What users do to the network: a few things at a time, of a small world in which they meet.

use std::{collections::BTreeSet, net::Ipv4Addr};

use crate::{
    model::{Acl, Action, Balancer, Group, Mac, Nat, NatKind, Net, Op, Owner, Port, Switch, Term},
    random::Random,
};

/// How large the world is.
const SWITCHES: u8 = 3;
const ROUTERS: u8 = 2;
const SETS: u8 = 3;
const GROUPS: u8 = 3;
const BALANCERS: u8 = 2;
/// Translations of a router, and hosts that may be its gateway, at most.
const NATS: u8 = 4;
const GATEWAYS: u64 = 3;
const ACLS: u8 = 5;
/// Addresses of workloads on a switch: fewer than would do, so that they are used again.
const ADDRESSES: u8 = 24;
/// UDP and TCP ports that ACLs, services and packets are about.
pub(crate) const SERVICES: [u16; 5] = [53, 80, 443, 1000, 8080];

/// The ids of ports that there can be on a switch.
fn port_id(switch: u8, number: u64) -> String {
    format!("s{switch}p{number}")
}

/// What there is at first.
pub(crate) fn foundation(random: &mut Random, room: Room) -> Vec<Op> {
    let mut ops = Vec::new();
    let mut net = Net::default();
    for id in 0..SWITCHES {
        ops.push(Op::Switch(id, Switch { drops: random.percent(30), balancers: BTreeSet::new() }));
    }
    for id in 0..ROUTERS {
        ops.push(Op::Router(id, true));
        for switch in 0..SWITCHES {
            if random.percent(60) {
                let link = link(&net, random, room, id, switch);
                net.apply(&link);
                ops.push(link);
            }
        }
    }
    ops.extend((0..SETS).map(|id| Op::Set(id, members(random))));
    ops.extend(
        (0..GROUPS).map(|id| Op::Group(id, Group { ports: BTreeSet::new(), drops: random.percent(10) })),
    );
    ops
}

/// How much room there is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    /// Ids of ports on each switch.
    pub(crate) ports: u64,
    /// Hosts that workloads may be asked to move to, and that may be gateways.
    pub(crate) hosts: u64,
    /// Routers may have gateways.
    pub(crate) has_gateways: bool,
}

/// A port that somebody wants to have on a switch: one that there is not, with addresses that nobody has.
pub(crate) fn new_port(net: &Net, random: &mut Random, room: Room) -> Option<Op> {
    let switches: Vec<_> = net.switches.keys().copied().collect();
    let switch = *random.pick(&switches)?;
    let id = port_id(switch, random.below(room.ports));
    if net.ports.contains_key(&id) {
        return None;
    }
    Some(Op::Port(id, port(net, random, switch)?))
}

fn port(net: &Net, random: &mut Random, switch: u8) -> Option<Port> {
    let mac: Mac = [0x0a, 0, 0, 0, switch, 10 + random.below(ADDRESSES.into()) as u8];
    let ip = Ipv4Addr::new(10, switch, 0, 10 + random.below(ADDRESSES.into()) as u8);
    let mut others = net.ports.values().filter(|port| port.switch == switch);
    // Now and then it is somebody else's; then the API refuses.
    if others.any(|port| port.mac == mac || port.ip == ip) && !random.percent(5) {
        return None;
    }
    let (enabled, secure) = (!random.percent(8), random.percent(50));
    Some(Port { switch, mac, ip, enabled, secure, requested: None, additional: None })
}

/// Something that somebody does, if there is something to be done it to.
pub(crate) fn change(net: &Net, random: &mut Random, room: Room) -> Vec<Op> {
    let one = |op: Option<Op>| op.into_iter().collect();
    let switches: Vec<_> = net.switches.keys().copied().collect();
    let ports: Vec<_> = net.ports.keys().collect();
    match random.below(24) {
        0..=3 => one(new_port(net, random, room)),
        4 | 5 => one(random.pick(&ports).map(|id| Op::NoPort(net.ports[*id].switch, (*id).clone()))),
        6 | 7 => {
            let Some(id) = random.pick(&ports) else { return Vec::new() };
            let old = &net.ports[*id];
            let mut new = Port { enabled: !random.percent(15), secure: random.percent(50), ..old.clone() };
            if random.percent(40)
                && let Some(other) = port(net, random, old.switch)
            {
                (new.mac, new.ip) = (other.mac, other.ip);
            }
            vec![Op::Port((*id).clone(), new)]
        }
        8..=11 => {
            let owner = match random.pick(&switches) {
                Some(switch) if random.percent(60) => Owner::Switch(*switch),
                _ => Owner::Group(random.below(GROUPS.into()) as u8),
            };
            let id = random.below(ACLS.into()) as u8;
            if random.percent(25) && net.acls.contains_key(&(owner, id)) {
                return vec![Op::NoAcl(owner, id)];
            }
            vec![Op::Acl(owner, id, acl(net, random, owner, id))]
        }
        12 | 13 => vec![Op::Set(random.below(SETS.into()) as u8, members(random))],
        14 | 15 => {
            let ports = ports.iter().filter(|_| random.percent(30)).map(|id| (*id).clone()).collect();
            let drops = random.percent(15);
            vec![Op::Group(random.below(GROUPS.into()) as u8, Group { ports, drops })]
        }
        16 => {
            let Some(id) = random.pick(&switches) else { return Vec::new() };
            let balancers = net.balancers.keys().copied().filter(|_| random.percent(60)).collect();
            vec![Op::Switch(*id, Switch { drops: random.percent(30), balancers })]
        }
        17 => vec![balancer(net, random)],
        18 => {
            let (router, switch) = (random.below(ROUTERS.into()) as u8, random.below(SWITCHES.into()) as u8);
            let is_there = net.links.contains_key(&(router, switch));
            match random.below(4) {
                0 if is_there => no_link(net, router, switch),
                1 | 2 if is_there || net.switches.contains_key(&switch) => {
                    vec![link(net, random, room, router, switch)]
                }
                _ => vec![Op::Router(router, !random.percent(25))],
            }
        }
        19 | 20 => one(movement(net, random, room)),
        21 | 22 => one(nat(net, random)),
        _ => whole_switch(net, random),
    }
}

/// A workload is asked to move, has moved, or is told where it may be.
fn movement(net: &Net, random: &mut Random, room: Room) -> Option<Op> {
    let ports: Vec<_> = net.ports.iter().collect();
    let (id, old) = *random.pick(&ports)?;
    let some = |random: &mut Random| (room.hosts > 0).then(|| random.below(room.hosts) as u8);
    let (requested, additional) = match (old.requested, old.additional) {
        // It has come to where it was to go, or it stays.
        (_, Some(to)) if random.percent(60) => (Some(to).filter(|_| random.percent(50)), None),
        (Some(from), None) if random.percent(60) => (Some(from), some(random)),
        (Some(_), _) if random.percent(40) => (None, None),
        _ => (some(random), some(random).filter(|_| random.percent(60))),
    };
    let additional = additional.filter(|host| Some(*host) != requested);
    Some(Op::Port(id.clone(), Port { requested, additional, ..old.clone() }))
}

/// All may be anywhere, and nobody is at two places.
pub(crate) fn end_of_movements(net: &Net) -> Vec<Op> {
    let asked = net.ports.iter().filter(|(_, port)| port.requested.is_some() || port.additional.is_some());
    asked
        .map(|(id, port)| Op::Port(id.clone(), Port { requested: None, additional: None, ..port.clone() }))
        .collect()
}

/// A switch goes with all that it has, or comes back.
fn whole_switch(net: &Net, random: &mut Random) -> Vec<Op> {
    let id = random.below(SWITCHES.into()) as u8;
    if !net.switches.contains_key(&id) {
        return vec![Op::Switch(id, Switch::default())];
    }
    if !random.percent(30) {
        return Vec::new();
    }
    let links = net.links.keys().filter(|(_, switch)| *switch == id);
    links.flat_map(|(router, switch)| no_link(net, *router, *switch)).chain([Op::NoSwitch(id)]).collect()
}

/// A link between a router and a switch, now and then with gateways; a router has them at one switch at most.
fn link(net: &Net, random: &mut Random, room: Room, router: u8, switch: u8) -> Op {
    let is_taken = net.gateway(router).is_some_and(|(outside, _)| outside != switch);
    let mut gateways = Vec::new();
    if room.has_gateways && !is_taken && random.percent(60) {
        for _ in 0..random.within(1, GATEWAYS) {
            let host = random.below(room.hosts) as u8;
            if !gateways.contains(&host) {
                gateways.push(host);
            }
        }
    }
    Op::Link(router, switch, gateways)
}

/// A link goes; with a gateway go the router's translations.
fn no_link(net: &Net, router: u8, switch: u8) -> Vec<Op> {
    let is_gateway = net.gateway(router).is_some_and(|(outside, _)| outside == switch);
    let nats = net.nats.keys().filter(|(of, _)| *of == router && is_gateway);
    nats.map(|(router, id)| Op::NoNat(*router, *id)).chain([Op::NoLink(router, switch)]).collect()
}

/// A translation at a router's gateway comes or goes.
fn nat(net: &Net, random: &mut Random) -> Option<Op> {
    let router = random.below(ROUTERS.into()) as u8;
    let (outside, _) = net.gateway(router)?;
    let id = random.below(NATS.into()) as u8;
    if net.nats.contains_key(&(router, id)) && random.percent(40) {
        return Some(Op::NoNat(router, id));
    }
    let inside: Vec<_> =
        net.ports.values().filter(|port| port.switch != outside).map(|port| port.ip).collect();
    let ip = *random.pick(&inside)?;
    let kind = match id {
        // One of these, so that no two are for the same sources.
        0 => NatKind::Source(ip.octets()[1]),
        _ if random.percent(50) => NatKind::Destination(ip),
        _ => NatKind::Floating(ip),
    };
    let is_same = |((of, other), nat): (&(u8, u8), &Nat)| {
        *of == router
            && *other != id
            && matches!(nat.kind, NatKind::Destination(inside) | NatKind::Floating(inside) if inside == ip)
    };
    (id == 0 || !net.nats.iter().any(is_same)).then_some(Op::Nat(router, id, Nat { outside, kind }))
}

fn balancer(net: &Net, random: &mut Random) -> Op {
    let id = random.below(BALANCERS.into()) as u8;
    let is_used = net.switches.values().any(|switch| switch.balancers.contains(&id));
    if net.balancers.contains_key(&id) && !is_used && random.percent(30) {
        return Op::NoBalancer(id);
    }
    let port = SERVICES[random.index(SERVICES.len())];
    let candidates: Vec<_> = net.ports.values().map(|port| port.ip).collect();
    let n = random.below(4);
    let backends = (0..n).filter_map(|_| Some((*random.pick(&candidates)?, 8080))).collect();
    Op::Balancer(id, Balancer { vip: Ipv4Addr::new(172, 16, 0, 1 + id), port, backends })
}

fn members(random: &mut Random) -> BTreeSet<Ipv4Addr> {
    let n = random.below(12);
    let member = |random: &mut Random| {
        Ipv4Addr::new(10, random.below(SWITCHES.into()) as u8, 0, 10 + random.below(ADDRESSES.into()) as u8)
    };
    (0..n).map(|_| member(random)).collect()
}

fn acl(net: &Net, random: &mut Random, owner: Owner, id: u8) -> Acl {
    let is_from = random.percent(50);
    let mut terms = match owner {
        Owner::Group(group) => vec![Term::Member(group)],
        Owner::Switch(_) => Vec::new(),
    };
    let set = random.below(SETS.into()) as u8;
    terms.push(match random.below(8) {
        0 => Term::Source(set, false),
        1 => Term::Source(set, true),
        2 => Term::Destination(set),
        3 => Term::Peer(random.below(GROUPS.into()) as u8),
        4 => Term::Member(random.below(GROUPS.into()) as u8),
        5 => {
            let ports: Vec<_> = net.ports.keys().collect();
            random.pick(&ports).map_or(Term::Ip4, |id| Term::Is((*id).clone()))
        }
        6 => Term::Ip6,
        _ => Term::Ip4,
    });
    let service = SERVICES[random.index(SERVICES.len())];
    let last = if random.percent(30) { service + 400 } else { service };
    match random.below(4) {
        0 => terms.push(Term::Udp(service, last)),
        1 => terms.push(Term::Tcp(service, last)),
        _ => {}
    }
    // No two of all ACLs have the same priority.
    let (kind, number) = match owner {
        Owner::Switch(number) => (0, u16::from(number)),
        Owner::Group(number) => (1, u16::from(number)),
    };
    let rank = (u16::from(id) * 8 + number) * 2 + kind;
    let priority = 100 * random.within(1, 30) as u16 + rank;
    let action = match random.below(10) {
        0..=2 => Action::Allow,
        3 | 4 => Action::AllowRelated,
        5 => Action::AllowStateless,
        6..=8 => Action::Drop,
        _ => Action::Reject,
    };
    Acl { is_from, priority, terms, action }
}
