//! What a bridge is told of those at the other ends of its ports.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use bridge_protocols::{
    bfd::{Path, Timing},
    cfm::{self, Maid},
    lldp::PortConfig,
};
use flowtable::types::MacAddr;
use serde::{Deserialize, Serialize};

use crate::bfd::LinkPeer;

/// Of who is at the other end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct LldpSettings {
    /// Neighbours are told of, and listened to.
    pub enabled: bool,
    /// Seconds between two units.
    pub interval: u64,
    /// What is told is true for so many intervals.
    pub hold: u16,
    /// Name of the system; empty: the host's.
    pub system_name: String,
    /// Addresses by which it is managed.
    pub management: BTreeSet<IpAddr>,
    /// Ports that are not as others, by name.
    pub ports: BTreeMap<String, LldpMode>,
}

impl Default for LldpSettings {
    fn default() -> Self {
        let (system_name, management, ports) = (String::new(), BTreeSet::new(), BTreeMap::new());
        Self { enabled: false, interval: 30, hold: 4, system_name, management, ports }
    }
}

/// How a port takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LldpMode {
    /// It tells and listens.
    #[default]
    Both,
    /// It only tells.
    Send,
    /// It only listens.
    Receive,
    /// Not at all.
    Off,
}

impl LldpSettings {
    /// Why it cannot be.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        let is_right = (1..=3600).contains(&self.interval) && (2..=10).contains(&self.hold);
        if is_right { Ok(()) } else { Err("interval is 1 to 3600 seconds, hold 2 to 10") }
    }

    /// How a port takes part.
    pub(in crate::host::protocols) fn port(&self, name: &str, is_up: bool) -> PortConfig {
        let mode = self.ports.get(name).copied().unwrap_or_default();
        PortConfig {
            name: name.to_owned(),
            is_up,
            sends: matches!(mode, LldpMode::Both | LldpMode::Send),
            receives: matches!(mode, LldpMode::Both | LldpMode::Receive),
        }
    }
}

/// Of a port that is an end of an association that watches over itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct CfmSettings {
    /// Which end it is.
    pub id: u16,
    /// Level of the domain.
    pub level: u8,
    /// Milliseconds between two messages.
    pub interval: u64,
    /// Name of the domain.
    pub domain: String,
    /// Name of the association.
    pub association: String,
    /// Other ends that are to be there.
    pub expected: BTreeSet<u16>,
}

impl Default for CfmSettings {
    fn default() -> Self {
        // As Open vSwitch has it.
        let name = || "ovs".to_owned();
        let expected = BTreeSet::new();
        Self { id: 0, level: 0, interval: 1000, domain: name(), association: name(), expected }
    }
}

impl CfmSettings {
    /// As the end wants it; otherwise why it cannot be.
    pub(in crate::host::protocols) fn config(&self, address: MacAddr) -> Result<cfm::Config, &'static str> {
        let is_id = |id: &u16| (1..=0x1fff).contains(id);
        if !is_id(&self.id) || !self.expected.iter().all(is_id) {
            return Err("say the id of this end, 1 to 8191; so are those that are expected");
        }
        if self.expected.len() > cfm::MAX_REMOTES {
            return Err("256 other ends are expected at most");
        }
        if self.level > cfm::MAX_LEVEL {
            return Err("the level is 0 to 7");
        }
        let interval = Duration::from_millis(self.interval);
        if cfm::interval_code(interval).is_none() {
            return Err("the interval is 100, 1000, 10000, 60000 or 600000 milliseconds");
        }
        let maid = Maid::new(&self.domain, &self.association);
        let maid = maid.ok_or("domain and association have names, of 44 bytes together at most")?;
        let expected = self.expected.iter().copied().collect();
        Ok(cfm::Config { address, mpid: self.id, level: self.level, interval, maid, expected })
    }
}

/// Of a port with a session with the other end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct BfdSettings {
    /// Milliseconds between two packets, both ways.
    pub interval: u64,
    /// So many may be missed.
    pub multiplier: u8,
    /// Address of this end.
    pub source: IpAddr,
    /// Address of the other end.
    pub destination: IpAddr,
    /// Ethernet address of the other end.
    pub destination_mac: String,
}

impl Default for BfdSettings {
    fn default() -> Self {
        let usual = Path::by_link(MacAddr::ZERO);
        Self {
            interval: 300,
            multiplier: 3,
            source: usual.ips.0,
            destination: usual.ips.1,
            destination_mac: usual.macs.1.to_string(),
        }
    }
}

impl BfdSettings {
    /// As the session wants it; otherwise why it cannot be.
    pub(in crate::host::protocols) fn peer(&self, own: MacAddr) -> Result<LinkPeer, &'static str> {
        let mac = self.destination_mac.parse().map_err(|_| "destination-mac is an Ethernet address")?;
        if !(10..=60_000).contains(&self.interval) || self.multiplier == 0 {
            return Err("the interval is 10 to 60000 milliseconds, and multiplier at least 1");
        }
        if self.source.is_ipv4() != self.destination.is_ipv4() {
            return Err("source and destination are both of IPv4 or both of IPv6");
        }
        let path = Path { macs: (own, mac), ips: (self.source, self.destination) };
        let timing = Timing { interval: Duration::from_millis(self.interval), multiplier: self.multiplier };
        Ok(LinkPeer { path, timing })
    }
}
