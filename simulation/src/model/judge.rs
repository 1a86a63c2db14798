//! What the network means for a packet: who may get it. One port, one direction at a time, by looking
//! at every ACL there is. Addresses of IPv6 are written as the ones of IPv4 that they stand for.

use std::net::Ipv4Addr;

use super::{Action, Balancer, Mac, NatKind, Net, Owner, Port, Term, nat_ip, router_mac};

/// What counts of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// Source.
    pub src_mac: Mac,
    /// Destination.
    pub dst_mac: Mac,
    /// Source.
    pub src: Ipv4Addr,
    /// Destination.
    pub dst: Ipv4Addr,
    /// It is one of IPv6.
    pub is_ipv6: bool,
    /// TCP; else UDP.
    pub is_tcp: bool,
    /// Destination.
    pub dst_port: u16,
}

/// What hosts decide about a packet, one after the other.
#[derive(Debug, Clone, Copy)]
pub enum Half<'a> {
    /// The host of the sender, this port, and the gateway on its way, which goes by a network of its own: they let the
    /// packet go on its way to the switch of the receiver.
    Sent(&'a str, &'a Net),
    /// The host of the sender, this port: a service sends the packet back to it, who is his own backend.
    Back(&'a str),
    /// The host of the receiver, this port: it lets the packet go to it.
    Received(&'a str),
}

/// A port as ACLs see it.
#[derive(Clone, Copy)]
enum Seen<'a> {
    Workload(&'a str),
    Router,
}

impl Net {
    /// Whether a packet as it was sent may become one as it was received, as far as this host decides.
    pub fn allows(&self, half: Half<'_>, sent: &Packet, received: &Packet) -> bool {
        match half {
            Half::Sent(port, gateway) => self.lets_go(gateway, port, sent, received),
            Half::Back(port) => self.sends_back(port, sent, received),
            Half::Received(port) => self.lets_in(port, received),
        }
    }

    /// The port of a packet that its host lets enter the switch.
    fn lets_enter(&self, id: &str, sent: &Packet) -> Option<&Port> {
        let port = self.ports.get(id).filter(|port| port.enabled)?;
        let is_own = sent.src_mac == port.mac && sent.src == port.ip;
        let passes = (is_own || !port.secure) && self.passes(port.switch, Seen::Workload(id), true, sent);
        passes.then_some(port)
    }

    /// Who is his own backend, or sends by a backend's address, hears from the service, without a router's help.
    fn sends_back(&self, id: &str, sent: &Packet, received: &Packet) -> bool {
        let Some(port) = self.lets_enter(id, sent) else { return false };
        let is_own_backend = |one: &Packet| {
            (received.src, received.dst, received.dst_port) == (sent.dst, sent.src, one.dst_port)
                && one.dst == sent.src
        };
        self.balanced(port.switch, sent).iter().any(is_own_backend)
    }

    fn lets_go(&self, gateway: &Self, id: &str, sent: &Packet, received: &Packet) -> bool {
        let Some(port) = self.lets_enter(id, sent) else { return false };
        let balanced = self.balanced(port.switch, sent);
        let addressed = (0..=u8::MAX).find(|router| {
            self.links.contains_key(&(*router, port.switch))
                && router_mac(*router, port.switch) == sent.dst_mac
        });
        let mut ways = balanced.into_iter().chain([*sent]);
        let Some(router) = addressed else {
            // By nobody's hands: it is as it was sent.
            return ways.any(|way| way == *received);
        };
        let is_there = |net: &Self| net.routers.get(&router).copied().unwrap_or_default();
        let outside = self.gateway(router).map(|(outside, _)| outside);
        ways.any(|way| {
            let crosses = [Some(port.switch), Some(way.dst.octets()[1])].contains(&outside);
            let by = if outside.is_some() && crosses { gateway } else { self };
            // From outside, the router's side of that switch is at the gateway.
            let leaves = |net: &Self| net.passes(port.switch, Seen::Router, false, &way);
            is_there(self)
                && is_there(by)
                && (leaves(self) || outside == Some(port.switch) && leaves(by))
                && by.lets_out(router, port.switch, &way, received)
        })
    }

    /// The router sends it on: into one switch by its port there.
    fn lets_out(&self, router: u8, from: u8, packet: &Packet, received: &Packet) -> bool {
        let once = self.translated(router, from, packet);
        // What leaves towards an address that the router itself has comes in there again.
        let again = self.gateway(router).map(|(outside, _)| self.translated(router, outside, &once));
        again.into_iter().chain([once]).any(|one| {
            let to = one.dst.octets()[1];
            let routed = Packet { dst_mac: received.dst_mac, src_mac: router_mac(router, to), ..one };
            routed == *received
                && self.links.contains_key(&(router, to))
                && self.passes(to, Seen::Router, true, &routed)
        })
    }

    /// A packet that a router has from a switch, with the addresses that it goes on with.
    pub fn translated(&self, router: u8, from: u8, packet: &Packet) -> Packet {
        let Some((outside, _)) = self.gateway(router).filter(|_| !packet.is_ipv6) else { return *packet };
        let nats = self.nats.iter().filter(|((of, _), nat)| *of == router && nat.outside == outside);
        let nats: Vec<_> = nats.map(|((_, id), nat)| (nat_ip(router, *id, outside), nat.kind)).collect();
        let inside = |(ip, kind): &(Ipv4Addr, NatKind)| match kind {
            NatKind::Destination(inside) | NatKind::Floating(inside) if *ip == packet.dst => Some(*inside),
            _ => None,
        };
        let coming_in = nats.iter().find_map(inside).filter(|_| from == outside);
        let dst = coming_in.unwrap_or(packet.dst);
        if dst.octets()[1] != outside {
            return Packet { dst, ..*packet };
        }
        let floating = nats.iter().find(|(_, kind)| *kind == NatKind::Floating(packet.src));
        let hidden = || nats.iter().find(|(_, kind)| *kind == NatKind::Source(packet.src.octets()[1]));
        let src = floating.or_else(hidden).map_or(packet.src, |(ip, _)| *ip);
        Packet { src, dst, ..*packet }
    }

    fn lets_in(&self, id: &str, packet: &Packet) -> bool {
        let Some(port) = self.ports.get(id).filter(|port| port.enabled) else { return false };
        packet.dst_mac == port.mac && self.passes(port.switch, Seen::Workload(id), false, packet)
    }

    /// The load balancers of a switch.
    fn used(&self, switch: u8) -> impl Iterator<Item = &Balancer> {
        let used = self.switches.get(&switch).into_iter().flat_map(|switch| &switch.balancers);
        used.filter_map(|id| self.balancers.get(id))
    }

    /// What load balancers of the switch may make of a packet: one for each backend.
    fn balanced(&self, switch: u8, sent: &Packet) -> Vec<Packet> {
        let asked = self
            .used(switch)
            .filter(|one| (one.vip, one.port) == (sent.dst, sent.dst_port) && is_balanced(sent));
        let backends = asked.flat_map(|one| &one.backends);
        backends.map(|(dst, dst_port)| Packet { dst: *dst, dst_port: *dst_port, ..*sent }).collect()
    }

    /// ACLs and defaults let it pass a port of a switch.
    fn passes(&self, switch: u8, port: Seen<'_>, is_from: bool, packet: &Packet) -> bool {
        let Some(settings) = self.switches.get(&switch) else { return false };
        let is_here = |owner: Owner| match owner {
            Owner::Switch(own) => own == switch,
            Owner::Group(group) => {
                let members = self.groups.get(&group).into_iter().flat_map(|group| &group.ports);
                members.into_iter().any(|id| self.ports.get(id).is_some_and(|port| port.switch == switch))
            }
        };
        let decisive = self
            .acls
            .iter()
            .filter(|((owner, _), acl)| acl.is_from == is_from && is_here(*owner))
            .filter(|(_, acl)| acl.terms.iter().all(|term| self.holds(term, port, is_from, packet)))
            .max_by_key(|(_, acl)| acl.priority);
        if let Some((_, acl)) = decisive {
            return !matches!(acl.action, Action::Drop | Action::Reject);
        }
        let Seen::Workload(id) = port else { return true };
        let mut groups = self.groups.values().filter(|group| group.ports.contains(id));
        !settings.drops && !groups.any(|group| group.drops)
    }

    fn holds(&self, term: &Term, port: Seen<'_>, is_from: bool, packet: &Packet) -> bool {
        let is_in = |set: &u8, ip| self.sets.get(set).is_some_and(|members| members.contains(&ip));
        let group = |group: &u8| self.groups.get(group);
        match (term, port) {
            (Term::Ip4, _) => !packet.is_ipv6,
            (Term::Ip6, _) => packet.is_ipv6,
            (Term::Source(set, negated), _) => !packet.is_ipv6 && is_in(set, packet.src) != *negated,
            (Term::Destination(set), _) => !packet.is_ipv6 && is_in(set, packet.dst),
            (Term::Udp(least, most), _) => !packet.is_tcp && (*least..=*most).contains(&packet.dst_port),
            (Term::Tcp(least, most), _) => packet.is_tcp && (*least..=*most).contains(&packet.dst_port),
            (Term::Member(id), Seen::Workload(port)) => {
                group(id).is_some_and(|group| group.ports.contains(port))
            }
            (Term::Is(id), Seen::Workload(port)) => id == port,
            (Term::Member(_) | Term::Is(_), Seen::Router) => false,
            (Term::Peer(id), _) => {
                let peer = if is_from { packet.dst } else { packet.src };
                let members = group(id).into_iter().flat_map(|group| &group.ports);
                members.filter_map(|id| self.ports.get(id)).any(|port| port.ip == peer)
            }
        }
    }
}

/// Services are of UDP over IPv4.
fn is_balanced(packet: &Packet) -> bool {
    !packet.is_tcp && !packet.is_ipv6
}
