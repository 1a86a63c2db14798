//! What a bridge is told of those who collect what passes it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use bridge_protocols::flows::Limits;
use serde::{Deserialize, Serialize};

use super::BridgeSettings;

/// Flows that can be asked for at most.
const MAX_FLOWS: usize = 1 << 20;

/// Of sFlow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct SflowSettings {
    /// Addresses and ports of collectors; none: nobody is told.
    pub targets: BTreeSet<SocketAddr>,
    /// The address that datagrams come from; none: that of the way there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    /// This agent's address, by which collectors know it.
    pub agent: IpAddr,
    /// One packet of so many.
    pub sampling: u16,
    /// Seconds between two words about counters; 0: never.
    pub polling: u64,
    /// Bytes of each packet.
    pub header: usize,
}

impl Default for SflowSettings {
    fn default() -> Self {
        let agent = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        Self { targets: BTreeSet::new(), source: None, agent, sampling: 400, polling: 30, header: 128 }
    }
}

/// Of NetFlow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct NetflowSettings {
    /// Addresses and ports of collectors; none: nobody is told.
    pub targets: BTreeSet<SocketAddr>,
    /// The address that datagrams come from; none: that of the way there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    /// Kind of the engine, by which collectors know bridges apart.
    pub engine_type: u8,
    /// Number of the engine.
    pub engine_id: u8,
    /// Seconds after which a flow that goes on is told of.
    pub active_timeout: u64,
    /// Seconds without a packet after which a flow is over.
    pub inactive_timeout: u64,
    /// Flows at most.
    pub max_flows: usize,
}

impl Default for NetflowSettings {
    fn default() -> Self {
        Self {
            targets: BTreeSet::new(),
            source: None,
            engine_type: 0,
            engine_id: 0,
            active_timeout: 600,
            inactive_timeout: 15,
            max_flows: 1 << 16,
        }
    }
}

/// Of IPFIX.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct IpfixSettings {
    /// Addresses and ports of collectors of all that the bridge's ports receive; none: nobody is
    /// told.
    pub targets: BTreeSet<SocketAddr>,
    /// The address that messages come from; none: that of the way there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    /// One packet of so many; 1: all are counted.
    pub sampling: u16,
    /// Observation domain.
    pub domain: u32,
    /// Observation point.
    pub point: u32,
    /// Seconds after which a flow that goes on is told of.
    pub active_timeout: u64,
    /// Seconds without a packet after which a flow is over.
    pub inactive_timeout: u64,
    /// Flows at most.
    pub max_flows: usize,
    /// Seconds between two times that templates are sent.
    pub template_interval: u64,
    /// Collectors of what rules sample, by the number that rules call them.
    pub sets: BTreeMap<u32, IpfixSetSettings>,
}

impl Default for IpfixSettings {
    fn default() -> Self {
        Self {
            targets: BTreeSet::new(),
            source: None,
            sampling: 400,
            domain: 0,
            point: 0,
            active_timeout: 60,
            inactive_timeout: 15,
            max_flows: 8192,
            template_interval: 60,
            sets: BTreeMap::new(),
        }
    }
}

/// Of collectors of what rules sample.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct IpfixSetSettings {
    /// Addresses and ports of collectors.
    pub targets: BTreeSet<SocketAddr>,
    /// The address that messages come from; none: that of the way there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    /// Seconds after which a flow that goes on is told of.
    pub active_timeout: u64,
    /// Seconds without a packet after which a flow is over.
    pub inactive_timeout: u64,
    /// Flows at most.
    pub max_flows: usize,
    /// Seconds between two times that templates are sent.
    pub template_interval: u64,
}

impl Default for IpfixSetSettings {
    fn default() -> Self {
        let IpfixSettings { active_timeout, inactive_timeout, max_flows, template_interval, .. } =
            IpfixSettings::default();
        let (targets, source) = (BTreeSet::new(), None);
        Self { targets, source, active_timeout, inactive_timeout, max_flows, template_interval }
    }
}

/// What three kinds of settings say of flows.
fn limits(active: u64, inactive: u64, max_flows: usize) -> Limits {
    Limits { active: Duration::from_secs(active), inactive: Duration::from_secs(inactive), max_flows }
}

/// Why these cannot be.
fn check(limits: &Limits) -> Result<(), &'static str> {
    let is_timed = !limits.active.is_zero() && !limits.inactive.is_zero();
    if is_timed && (1..=MAX_FLOWS).contains(&limits.max_flows) {
        return Ok(());
    }
    Err("timeouts are at least 1 second, and flows 1 to 1048576")
}

impl NetflowSettings {
    /// What it says of flows.
    pub(in crate::host::protocols) fn limits(&self) -> Limits {
        limits(self.active_timeout, self.inactive_timeout, self.max_flows)
    }

    /// Why it cannot be.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        check(&self.limits())
    }
}

impl IpfixSettings {
    /// As those of a set that all ports' packets are for.
    pub(in crate::host::protocols) fn as_set(&self) -> IpfixSetSettings {
        let Self { active_timeout, inactive_timeout, max_flows, template_interval, .. } = *self;
        let (targets, source) = (self.targets.clone(), self.source);
        IpfixSetSettings { targets, source, active_timeout, inactive_timeout, max_flows, template_interval }
    }

    /// Why it cannot be.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        if self.sampling == 0 || self.sets.contains_key(&0) {
            return Err("sampling is at least 1, and sets have numbers from 1 on");
        }
        let own = self.as_set();
        self.sets.values().chain([&own]).try_for_each(|set| {
            let has_time = set.template_interval > 0;
            check(&set.limits()).and(if has_time { Ok(()) } else { Err("template-interval is at least 1") })
        })
    }
}

impl BridgeSettings {
    /// With collectors that the network tells of, besides those of which somebody here has said how
    /// they are told.
    pub(in crate::host::protocols) fn with_collectors(
        &self,
        sampled: &BTreeMap<u32, BTreeSet<SocketAddr>>,
    ) -> Self {
        let mut all = self.clone();
        for (set, targets) in sampled {
            let told = IpfixSetSettings { targets: targets.clone(), ..IpfixSetSettings::default() };
            all.ipfix.sets.entry(*set).or_insert(told);
        }
        all
    }
}

impl IpfixSetSettings {
    /// What it says of flows.
    pub(in crate::host::protocols) fn limits(&self) -> Limits {
        limits(self.active_timeout, self.inactive_timeout, self.max_flows)
    }
}
