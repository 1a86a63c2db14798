//! The workloads that are measured beside Open vSwitch: rules, traffic, and the goals.
//!
//! A workload's rules are one text ([`texts`]), which both switches read; its traffic is one
//! recipe ([`Traffic`]), which two generators follow that do the same for each packet: one
//! here ([`generator`]), one in C for the other side (`peer/flowgen.c`). [`rig`] is our
//! switch under that load; [`list`] names all workloads; [`window`] is what either side
//! answers.

pub mod generator;
pub mod list;
pub mod rig;
pub mod texts;
pub mod window;

use std::net::Ipv4Addr;

use flowtable::program::TunnelKind;

/// This host on the underlay.
pub const LOCAL: Ipv4Addr = Ipv4Addr::new(172, 31, 1, 2);
/// The other host.
pub const REMOTE: Ipv4Addr = Ipv4Addr::new(172, 31, 1, 1);
/// Who serves those that a load balancer translates.
pub const BACKEND: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
/// Key of tunnelled packets.
pub const VNI: u32 = 100;

/// Headers that the flows of a workload have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// 10.1/16 to 10.2/16, ports mixed.
    Plain,
    /// As [`texts::twenty_masks`] wants them: the last byte of the destination MAC chooses the
    /// prefix length, the source is in one of 500 networks.
    Masks,
    /// Addresses and ports of all bits.
    Random,
}

/// What packets come.
#[derive(Debug, Clone, Copy)]
pub struct Traffic {
    /// Number of flows, in an order without pattern.
    pub n_flows: u32,
    /// Their headers.
    pub shape: Shape,
    /// Half of the packets are answers.
    pub both_ways: bool,
    /// Answers come from here, though packets went to other addresses: they were translated.
    pub backend: Option<Ipv4Addr>,
    /// TCP segments (ACK) instead of UDP.
    pub tcp: bool,
}

impl Traffic {
    /// UDP one way, between plain addresses.
    pub const fn plain(n_flows: u32) -> Self {
        Self { n_flows, shape: Shape::Plain, both_ways: false, backend: None, tcp: false }
    }

    /// UDP both ways.
    pub const fn both_ways(n_flows: u32) -> Self {
        Self { both_ways: true, ..Self::plain(n_flows) }
    }
}

/// The way packets take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From a port to another.
    Ports,
    /// From a port into a tunnel.
    Encap(TunnelKind),
    /// Out of a tunnel to a port.
    Decap(TunnelKind),
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measured {
    /// Packets of flows that are known.
    Rate,
    /// Flows, each of one packet, that nobody has seen before; so many at a time.
    FirstPackets {
        /// Flows of a burst.
        n: u32,
    },
}

/// How Open vSwitch's caches are set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// Name in tables.
    pub name: &'static str,
    /// `other_config:emc-insert-inv-prob`; 0 switches the exact match cache off.
    pub emc_inverse_probability: u32,
    /// `other_config:smc-enable`.
    pub smc: bool,
}

/// What a user gets: one of a hundred new flows goes into the exact match cache.
pub const EMC_DEFAULT: Setting = Setting { name: "EMC 1/100", emc_inverse_probability: 100, smc: false };
/// Each new flow goes into the exact match cache.
pub const EMC_ALWAYS: Setting = Setting { name: "EMC always", emc_inverse_probability: 1, smc: false };
/// The signature match cache.
pub const SMC: Setting = Setting { name: "SMC", emc_inverse_probability: 0, smc: true };
/// Megaflows alone.
pub const DPCLS: Setting = Setting { name: "megaflows", emc_inverse_probability: 0, smc: false };
/// All of them: the best one counts.
pub const SETTINGS: &[Setting] = &[EMC_DEFAULT, EMC_ALWAYS, SMC, DPCLS];

/// A goal: how many times the rate of Open vSwitch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Goal {
    /// At least.
    pub floor: f64,
    /// Better.
    pub stretch: f64,
}

/// A workload.
#[derive(Debug, Clone, Copy)]
pub struct Workload {
    /// Its id among the goals.
    pub id: &'static str,
    /// What it is.
    pub title: &'static str,
    /// Packets.
    pub traffic: Traffic,
    /// Rules, in the syntax of ovs-ofctl(8).
    pub rules: fn() -> Vec<String>,
    /// From where to where.
    pub way: Way,
    /// What is counted.
    pub measured: Measured,
    /// Connections there may be; 0: nothing is tracked.
    pub n_connections: u32,
    /// Seconds until everything is known.
    pub warm_up: f64,
    /// Settings of Open vSwitch to try.
    pub settings: &'static [Setting],
    /// What to reach.
    pub goal: Goal,
}

/// The word for a tunnel of a kind, in names and in Open vSwitch's database.
pub fn tunnel_name(kind: TunnelKind) -> &'static str {
    kind.name()
}
