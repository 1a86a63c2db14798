//! What a bridge is told of groups and stations.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use flowtable::fdb::FdbConfig;
use serde::{Deserialize, Serialize};

/// Of packets to groups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct MulticastSettings {
    /// It listens to who wants what.
    pub snooping: bool,
    /// What nobody has asked for goes to all.
    pub flood_unregistered: bool,
    /// Groups at most.
    pub max_groups: usize,
    /// Seconds after which who is silent wants nothing any more.
    pub max_age: u64,
    /// Who leaves hears nothing more at once.
    pub fast_leave: bool,
    /// It asks itself, from this address; 0.0.0.0: it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub querier: Option<Ipv4Addr>,
    /// VLANs that it asks in.
    pub querier_vlans: BTreeSet<u16>,
    /// Ports that hear what hosts say they want to hear, as routers do.
    pub flood_reports: BTreeSet<String>,
    /// Who hears a group whatever is said.
    pub members: Vec<StaticMember>,
}

impl Default for MulticastSettings {
    fn default() -> Self {
        Self {
            snooping: false,
            flood_unregistered: true,
            max_groups: 2048,
            max_age: 300,
            fast_leave: false,
            querier: None,
            querier_vlans: [0].into(),
            flood_reports: BTreeSet::new(),
            members: Vec::new(),
        }
    }
}

/// A port that hears a group, or all of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct StaticMember {
    /// In this VLAN.
    #[serde(default)]
    pub vlan: u16,
    /// The group; none: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<IpAddr>,
    /// The port.
    pub port: String,
}

/// Of what is known of stations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct StationSettings {
    /// Stations at most.
    pub max: usize,
    /// Seconds after which a silent one is forgotten.
    pub max_age: u64,
}

impl Default for StationSettings {
    fn default() -> Self {
        let usual = FdbConfig::default();
        Self { max: usual.max_entries, max_age: usual.max_age.as_secs() }
    }
}

impl StationSettings {
    pub(in crate::host) fn config(&self) -> FdbConfig {
        FdbConfig { max_entries: self.max, max_age: Duration::from_secs(self.max_age) }
    }
}
