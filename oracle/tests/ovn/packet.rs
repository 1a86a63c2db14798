//! Random packets: mostly what the workloads of a network would say to each other.

use std::net::IpAddr;

use oracle::rng::Rng;

use crate::{
    translations::Balancer,
    world::{World, router_mac, router_networks},
};

/// Port that all packets are from which have one.
pub(crate) const SRC_PORT: u16 = 49152;
/// What packets begin with.
pub(crate) const TTL: u8 = 64;

/// What of a packet is compared where it leaves.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Headers {
    pub(crate) eth_src: String,
    pub(crate) eth_dst: String,
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) ttl: u8,
    /// 0 in pings.
    pub(crate) ports: [u16; 2],
}

/// A packet of a workload.
#[derive(Debug, Clone)]
pub(crate) struct Probe {
    /// Index of the port.
    pub(crate) from: usize,
    pub(crate) eth_src: String,
    pub(crate) eth_dst: String,
    pub(crate) src: String,
    pub(crate) dst: String,
    pub(crate) is_v4: bool,
    pub(crate) speech: Speech,
    /// Lookups of its connection say that there is one.
    pub(crate) is_established: bool,
    /// A router answers.
    pub(crate) is_for_router: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speech {
    Tcp(u16),
    Udp(u16),
    Ping,
}

/// Of a client that is its own backend ovn-trace does not change the source, which ACLs may match, and takes
/// one behind a router for its switch's.
fn is_told(world: &World, balancer: &Balancer, from: usize) -> bool {
    let is_own = balancer.backend.is_some_and(|(backend, _)| backend == from);
    let serves = balancer.switches.contains(&world.ports[from].switch);
    !is_own || serves && !world.acls.iter().any(|acl| acl.is_inbound)
}

/// Of a port to workloads.
fn is_of_router(ip: &str) -> bool {
    ip.ends_with(".254") || ip.ends_with("::fe")
}

impl Probe {
    pub(crate) fn random(world: &World, rng: &mut Rng) -> Self {
        let from = rng.index(world.ports.len());
        let (own, other) = (&world.ports[from], rng.pick(&world.ports));
        let is_v4 = !rng.one_in(4);
        let mut speech = match rng.below(3) {
            0 => Speech::Tcp(rng.pick(&[22, 80, 85, 443, 9000])),
            1 => Speech::Udp(rng.pick(&[53, 80])),
            _ => Speech::Ping,
        };
        let router = world.router_on(own.switch);
        let is_near = other.switch == own.switch;
        let mut dst = other.ip(is_v4);
        let mut eth_dst = match router {
            Some(router) if !is_near => router_mac(router, Some(own.switch)),
            _ => other.mac(),
        };
        match (rng.below(14), router) {
            // Routers themselves are only pinged.
            (0, Some(router)) if !world.translates() => {
                let [v4, v6] = router_networks(router, Some(own.switch));
                dst = if is_v4 { v4 } else { v6 }.split('/').next().unwrap().to_owned();
                eth_dst = router_mac(router, Some(own.switch));
                speech = Speech::Ping;
            }
            (1, Some(router)) => {
                dst = if is_v4 { "192.0.2.7" } else { "2001:db8::7" }.to_owned();
                eth_dst = router_mac(router, Some(own.switch));
            }
            (5..=7, Some(router)) if !world.balancers.is_empty() => {
                let balancer = rng.pick(&world.balancers);
                if balancer.is_v4 == is_v4 && is_told(world, &balancer, from) {
                    dst.clone_from(&balancer.vip);
                    speech = match balancer.protocol {
                        "tcp" => Speech::Tcp(balancer.port),
                        _ => Speech::Udp(balancer.port),
                    };
                    eth_dst = router_mac(router, Some(own.switch));
                }
            }
            (8..=10, Some(router)) if is_v4 && !world.external().is_empty() => {
                dst.clone_from(&rng.pick(&world.external()).external);
                eth_dst = router_mac(router, Some(own.switch));
                if is_of_router(&dst) && speech == Speech::Ping {
                    speech = Speech::Udp(53);
                }
            }
            (2, _) => eth_dst = "0a:00:00:00:00:77".to_owned(),
            (3, _) if is_near => eth_dst = "ff:ff:ff:ff:ff:ff".to_owned(),
            // Nobody has this address of the network.
            (4, Some(router)) if !is_near => {
                let switch = other.switch;
                dst = if is_v4 { format!("10.0.{switch}.99") } else { format!("fd00:{switch}::99") };
                eth_dst = router_mac(router, Some(own.switch));
            }
            _ => {}
        }
        let (mut eth_src, mut src) = (own.mac(), own.ip(is_v4));
        match rng.below(16) {
            0 => eth_src = "0a:00:00:00:00:66".to_owned(),
            1 => src = if is_v4 { "10.0.0.66" } else { "fd00:0::66" }.to_owned(),
            _ => {}
        }
        // What translates a connection would have to be there before its packet.
        let is_established = rng.one_in(3) && world.nats.is_empty();
        let is_for_router = speech == Speech::Ping && is_of_router(&dst);
        Self { from, eth_src, eth_dst, src, dst, is_v4, speech, is_established, is_for_router }
    }

    /// As it is when it comes.
    pub(crate) fn headers(&self) -> Headers {
        Headers {
            eth_src: self.eth_src.clone(),
            eth_dst: self.eth_dst.clone(),
            src: self.src.parse().unwrap(),
            dst: self.dst.parse().unwrap(),
            ttl: TTL,
            ports: match self.speech {
                Speech::Tcp(port) | Speech::Udp(port) => [SRC_PORT, port],
                Speech::Ping => [0, 0],
            },
        }
    }
}
