//! Random packets: mostly what the workloads of a network would say to each other.

use oracle::rng::Rng;

use crate::world::{World, router_mac, router_networks};

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
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speech {
    Tcp(u16),
    Udp(u16),
    Ping,
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
        match (rng.below(12), router) {
            // Routers themselves are only pinged.
            (0, Some(router)) => {
                let [v4, v6] = router_networks(router, Some(own.switch));
                dst = if is_v4 { v4 } else { v6 }.split('/').next().unwrap().to_owned();
                eth_dst = router_mac(router, Some(own.switch));
                speech = Speech::Ping;
            }
            (1, Some(router)) => {
                dst = if is_v4 { "192.0.2.7" } else { "2001:db8::7" }.to_owned();
                eth_dst = router_mac(router, Some(own.switch));
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
        Self { from, eth_src, eth_dst, src, dst, is_v4, speech, is_established: rng.one_in(3) }
    }
}
