//! What the network means for a packet: who may get it. One port, one direction at a time, by looking
//! at every ACL there is.

use std::net::Ipv4Addr;

use super::{Action, Balancer, Mac, Net, Owner, Term};

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
    /// TCP; else UDP.
    pub is_tcp: bool,
    /// Destination.
    pub dst_port: u16,
}

/// What one host decides about a packet.
#[derive(Debug, Clone, Copy)]
pub enum Half<'a> {
    /// The host of the sender, this port: it lets the packet go on its way to the switch of the receiver.
    Sent(&'a str),
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
            Half::Sent(port) => self.lets_go(port, sent, received),
            Half::Received(port) => self.lets_in(port, received),
        }
    }

    fn lets_go(&self, id: &str, sent: &Packet, received: &Packet) -> bool {
        let Some(port) = self.ports.get(id).filter(|port| port.enabled) else { return false };
        let is_own = sent.src_mac == port.mac && sent.src == port.ip;
        if port.secure && !is_own || !self.passes(port.switch, Seen::Workload(id), true, sent) {
            return false;
        }
        let balanced = sent.dst != received.dst || sent.dst_port != received.dst_port;
        if balanced && !self.balances(port.switch, sent, received) {
            return false;
        }
        if sent.src != received.src {
            // Who is his own backend hears from a service, without a router's help.
            let services =
                self.used(port.switch).filter(|one| one.backends.contains(&(port.ip, received.dst_port)));
            return balanced
                && received.dst == port.ip
                && services.map(|one| one.vip).any(|vip| vip == received.src);
        }
        let after = Packet { dst: received.dst, dst_port: received.dst_port, ..*sent };
        let addressed = (0..=u8::MAX).find(|router| {
            self.links.contains(&(*router, port.switch))
                && super::router_mac(*router, port.switch) == sent.dst_mac
        });
        let Some(router) = addressed else {
            // By nobody's hands: it is as it was sent.
            return sent.dst_mac == received.dst_mac
                && sent.src_mac == received.src_mac
                && sent.src == received.src;
        };
        if !self.routers.get(&router).copied().unwrap_or_default() {
            return false;
        }
        let to = received.dst.octets()[1];
        // Out of one switch by the router's port, and into the other one by another.
        let routed = Packet { dst_mac: received.dst_mac, src_mac: super::router_mac(router, to), ..after };
        received.src_mac == routed.src_mac
            && self.links.contains(&(router, to))
            && self.passes(port.switch, Seen::Router, false, &after)
            && self.passes(to, Seen::Router, true, &routed)
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

    /// A load balancer of the switch has such a backend.
    fn balances(&self, switch: u8, sent: &Packet, received: &Packet) -> bool {
        !sent.is_tcp
            && self.used(switch).any(|balancer| {
                (balancer.vip, balancer.port) == (sent.dst, sent.dst_port)
                    && balancer.backends.contains(&(received.dst, received.dst_port))
            })
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
            (Term::Ip, _) => true,
            (Term::Source(set, negated), _) => is_in(set, packet.src) != *negated,
            (Term::Destination(set), _) => is_in(set, packet.dst),
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
