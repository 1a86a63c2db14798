//! What a bridge is told about spanning trees, bonds, mirrors and groups: as it is written, saved
//! and shown. A change is a JSON merge patch (RFC 7396), so that what is not said stays.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use bridge_protocols::{bond, stp};
use flowtable::{
    fdb::FdbConfig,
    flow::Match,
    port::{MAX_MIRRORS, PortTable},
    text::parse_match,
    types::VlanId,
};
use serde::{Deserialize, Serialize};

use crate::host::PortSettings;

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct BridgeSettings {
    /// Which ports forward.
    pub spanning_tree: TreeSettings,
    /// Ports that are several, by name.
    pub bonds: BTreeMap<String, BondSettings>,
    /// What is copied to where, by name.
    pub mirrors: BTreeMap<String, MirrorSettings>,
    /// Who hears which group.
    pub multicast: MulticastSettings,
    /// Where stations are.
    pub stations: StationSettings,
    /// Whom to tell of packets and counters.
    pub sflow: SflowSettings,
}

/// Of sFlow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct SflowSettings {
    /// Addresses and ports of collectors; none: nobody is told.
    pub targets: BTreeSet<SocketAddr>,
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
        Self { targets: BTreeSet::new(), agent, sampling: 400, polling: 30, header: 128 }
    }
}

/// Which protocol keeps frames from going in circles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TreeProtocol {
    /// None.
    #[default]
    None,
    /// STP.
    Stp,
    /// RSTP.
    Rstp,
}

/// Of the spanning tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct TreeSettings {
    /// Which protocol.
    pub protocol: TreeProtocol,
    /// Of the bridge: a multiple of 4096; the lowest becomes the root.
    pub priority: u16,
    /// Seconds.
    pub hello_time: u16,
    /// Seconds.
    pub max_age: u16,
    /// Seconds.
    pub forward_delay: u16,
    /// Units that a port sends in a second at most.
    pub tx_hold_count: u16,
    /// Ports that are not as usual, by name.
    pub ports: BTreeMap<String, TreePortSettings>,
}

impl Default for TreeSettings {
    fn default() -> Self {
        let usual = stp::Config::default();
        Self {
            protocol: TreeProtocol::None,
            priority: usual.id.priority,
            hello_time: usual.hello_time,
            max_age: usual.max_age,
            forward_delay: usual.forward_delay,
            tx_hold_count: usual.tx_hold_count,
            ports: BTreeMap::new(),
        }
    }
}

/// Of a port in the spanning tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct TreePortSettings {
    /// It takes part; otherwise it forwards always.
    pub enabled: bool,
    /// A multiple of 16.
    pub priority: u8,
    /// What a way by it costs.
    pub cost: u32,
    /// No bridge is behind it.
    pub edge: bool,
    /// It finds out by itself that no bridge is behind it.
    pub auto_edge: bool,
    /// One neighbour at most is behind it.
    pub point_to_point: bool,
}

impl Default for TreePortSettings {
    fn default() -> Self {
        let usual = stp::PortConfig::default();
        Self {
            enabled: true,
            priority: usual.priority,
            cost: usual.cost,
            edge: usual.is_edge,
            auto_edge: usual.auto_edge,
            point_to_point: usual.is_point_to_point,
        }
    }
}

/// How a bond uses its members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BondModeName {
    /// One at a time.
    #[default]
    ActiveBackup,
    /// All, by source address and VLAN.
    BalanceSlb,
    /// All, by addresses and ports, once LACP has agreed.
    BalanceTcp,
}

impl LacpName {
    /// Name, as in settings.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Active => "active",
            Self::Passive => "passive",
        }
    }
}

impl From<BondModeName> for bond::Mode {
    fn from(name: BondModeName) -> Self {
        match name {
            BondModeName::ActiveBackup => Self::ActiveBackup,
            BondModeName::BalanceSlb => Self::BalanceSlb,
            BondModeName::BalanceTcp => Self::BalanceTcp,
        }
    }
}

/// Whether the neighbour is to know of the bond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LacpName {
    /// No.
    #[default]
    Off,
    /// Yes, and this end speaks first.
    Active,
    /// Yes, if the other end speaks first.
    Passive,
}

/// A bond.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct BondSettings {
    /// Its number in rules; 0: one that is free.
    pub number: u32,
    /// Names of its ports.
    pub members: BTreeSet<String>,
    /// How it uses them.
    pub mode: BondModeName,
    /// The one that is active whenever it can be; empty: none.
    pub primary: String,
    /// Whether the neighbour is to know.
    pub lacp: LacpName,
    /// LACP: units every second, and not every half minute.
    pub lacp_fast: bool,
    /// LACP: the lower one decides.
    pub lacp_priority: u16,
    /// Without an answer by LACP, one member is used all the same.
    pub lacp_fallback: bool,
    /// Milliseconds that a link is up before it is used.
    pub up_delay: u64,
    /// Milliseconds that a link is down before it is given up.
    pub down_delay: u64,
    /// Seconds between two looks at the loads of members; 0: never.
    pub rebalance_interval: u64,
    /// How it takes part in forwarding, as any port.
    pub port: PortSettings,
}

impl Default for BondSettings {
    fn default() -> Self {
        Self {
            number: 0,
            members: BTreeSet::new(),
            mode: BondModeName::ActiveBackup,
            primary: String::new(),
            lacp: LacpName::Off,
            lacp_fast: false,
            lacp_priority: 0x8000,
            lacp_fallback: false,
            up_delay: 0,
            down_delay: 0,
            rebalance_interval: 10,
            port: PortSettings::default(),
        }
    }
}

/// A mirror.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct MirrorSettings {
    /// Packets of all ports.
    pub select_all: bool,
    /// Packets that come by these ports.
    pub select_src: BTreeSet<String>,
    /// Packets that leave by these ports.
    pub select_dst: BTreeSet<String>,
    /// Packets of these VLANs; none: of all.
    pub select_vlans: BTreeSet<u16>,
    /// Only what matches, in the syntax of rules.
    pub filter: String,
    /// The port that copies go to; it has nothing else.
    pub output_port: String,
    /// Without a port: the VLAN that copies go to; 0: none.
    pub output_vlan: u16,
    /// Bytes of each packet; 0: all.
    pub snaplen: u32,
}

impl MirrorSettings {
    /// What the filter means. It is checked.
    pub(super) fn matching(&self, ports: &PortTable) -> Match {
        parse_match(&self.filter, ports).unwrap_or_default()
    }
}

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

/// Settings that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The text is not what settings are.
    #[error("{0}")]
    Text(#[from] serde_json::Error),
    /// A value that cannot be.
    #[error("{path}: {reason}")]
    Value {
        /// Where.
        path: String,
        /// Why.
        reason: String,
    },
}

fn wrong(path: impl Into<String>, reason: impl Into<String>) -> SettingsError {
    SettingsError::Value { path: path.into(), reason: reason.into() }
}

impl BridgeSettings {
    /// These settings with a change; what is `null` in it is as usual again.
    ///
    /// # Errors
    /// It is no JSON object, names what there is not, or has a value that cannot be.
    pub fn patched(&self, patch: &str, ports: &PortTable) -> Result<Self, SettingsError> {
        let mut whole = serde_json::to_value(self)?;
        merge(&mut whole, serde_json::from_str(patch)?);
        let settings: Self = serde_json::from_value(whole)?;
        settings.check(ports)?;
        Ok(settings)
    }

    /// Names of ports that take no part in the spanning tree: told so, of a bond, or a mirror's.
    pub(super) fn beside_tree(&self) -> BTreeSet<&str> {
        let told = self.spanning_tree.ports.iter().filter(|(_, port)| !port.enabled).map(|(name, _)| name);
        let members = self.bonds.values().flat_map(|bond| &bond.members);
        let outputs = self.mirrors.values().map(|mirror| &mirror.output_port);
        told.chain(members).chain(outputs).map(String::as_str).collect()
    }

    /// The settings, as text.
    pub fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    fn check(&self, ports: &PortTable) -> Result<(), SettingsError> {
        let tree = &self.spanning_tree;
        tree.config(stp::BridgeId::default()).check().map_err(|reason| wrong("spanning-tree", reason))?;
        for (name, port) in &tree.ports {
            if port.cost == 0 || port.cost > 200_000_000 || port.priority & 0xf != 0 {
                let reason = "cost is 1 to 200000000, priority a multiple of 16 up to 240";
                return Err(wrong(format!("spanning-tree.ports.{name}"), reason));
            }
        }
        let mut owners = BTreeMap::new();
        for (name, bond) in &self.bonds {
            let path = format!("bonds.{name}");
            for member in &bond.members {
                if let Some(other) = owners.insert(member, name) {
                    return Err(wrong(path, format!("{member} is of bond {other} already")));
                }
            }
            if !bond.primary.is_empty() && !bond.members.contains(&bond.primary) {
                return Err(wrong(path, format!("its primary {} is none of its members", bond.primary)));
            }
            bond.port.check().map_err(|error| wrong(path, error.to_string()))?;
        }
        self.check_mirrors(ports)?;
        if self.sflow.sampling == 0 || !(14..=512).contains(&self.sflow.header) {
            return Err(wrong("sflow", "sampling is at least 1, header 14 to 512 bytes"));
        }
        let groups = &self.multicast;
        let vlans =
            groups.querier_vlans.iter().copied().chain(groups.members.iter().map(|member| member.vlan));
        for vlan in vlans {
            VlanId::new(vlan).map_err(|_| wrong("multicast", "VLANs are 0 to 4095"))?;
        }
        if groups.members.iter().any(|member| member.group.is_some_and(|group| !group.is_multicast())) {
            return Err(wrong("multicast.members", "a group is a multicast address"));
        }
        Ok(())
    }

    fn check_mirrors(&self, ports: &PortTable) -> Result<(), SettingsError> {
        if self.mirrors.len() > MAX_MIRRORS {
            return Err(wrong("mirrors", format!("there are at most {MAX_MIRRORS}")));
        }
        for (name, mirror) in &self.mirrors {
            let path = || format!("mirrors.{name}");
            if mirror.output_port.is_empty() == (mirror.output_vlan == 0) {
                return Err(wrong(path(), "say either output-port or output-vlan"));
            }
            let chooses = mirror.select_all
                || !(mirror.select_src.is_empty() && mirror.select_dst.is_empty())
                || !mirror.select_vlans.is_empty();
            if !chooses {
                return Err(wrong(path(), "say select-all, select-src, select-dst or select-vlans"));
            }
            if mirror.select_vlans.iter().chain([&mirror.output_vlan]).any(|vlan| *vlan > 4095) {
                return Err(wrong(path(), "VLANs are 0 to 4095"));
            }
            let filter =
                parse_match(&mirror.filter, ports).map_err(|error| wrong(path(), error.to_string()))?;
            if !filter.memberships().is_empty() {
                return Err(wrong(path(), "a filter has neither named sets nor ranges"));
            }
        }
        Ok(())
    }
}

impl TreeSettings {
    pub(super) fn config(&self, id: stp::BridgeId) -> stp::Config {
        stp::Config {
            id: stp::BridgeId { priority: self.priority, ..id },
            is_rapid: self.protocol != TreeProtocol::Stp,
            max_age: self.max_age,
            hello_time: self.hello_time,
            forward_delay: self.forward_delay,
            tx_hold_count: self.tx_hold_count,
        }
    }
}

/// RFC 7396 §2.
fn merge(target: &mut serde_json::Value, patch: serde_json::Value) {
    use serde_json::Value::{Null, Object};
    match patch {
        Object(patch) => {
            if !target.is_object() {
                *target = Object(serde_json::Map::new());
            }
            let Some(target) = target.as_object_mut() else { return };
            for (key, value) in patch {
                if value == Null {
                    target.remove(&key);
                } else {
                    merge(target.entry(key).or_insert(Null), value);
                }
            }
        }
        other => *target = other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patched(settings: &BridgeSettings, patch: &str) -> Result<BridgeSettings, SettingsError> {
        settings.patched(patch, &PortTable::default())
    }

    #[test]
    fn a_patch_changes_what_it_names() {
        let usual = BridgeSettings::default();
        assert_eq!(patched(&usual, "{}").unwrap(), usual);
        let one = patched(&usual, r#"{"spanning-tree":{"protocol":"rstp","priority":4096}}"#).unwrap();
        assert_eq!((one.spanning_tree.protocol, one.spanning_tree.priority), (TreeProtocol::Rstp, 4096));
        let two = patched(&one, r#"{"bonds":{"bond0":{"members":["a","b"],"lacp":"active"}}}"#).unwrap();
        assert_eq!((two.spanning_tree.priority, two.bonds["bond0"].members.len()), (4096, 2));
        let three = patched(&two, r#"{"bonds":{"bond0":null},"spanning-tree":null}"#).unwrap();
        assert_eq!(three, usual);
        assert_eq!(serde_json::from_str::<BridgeSettings>(&two.text()).unwrap(), two);
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_place() {
        let bond = r#"{"bonds":{"x":{"members":["a"]},"y":{"members":["a"]}}}"#;
        for (patch, part) in [
            ("[", "EOF"),
            (r#"{"stp":true}"#, "unknown field"),
            (r#"{"spanning-tree":{"priority":5}}"#, "spanning-tree: the priority"),
            (r#"{"spanning-tree":{"ports":{"a":{"cost":0}}}}"#, "spanning-tree.ports.a"),
            (bond, "is of bond"),
            (r#"{"bonds":{"x":{"members":["a"],"primary":"b"}}}"#, "none of its members"),
            (r#"{"mirrors":{"m":{"output-port":"a"}}}"#, "select-all"),
            (r#"{"mirrors":{"m":{"select-all":true}}}"#, "output-vlan"),
            (r#"{"mirrors":{"m":{"select-all":true,"output-vlan":9,"filter":"nonsense"}}}"#, "mirrors.m"),
            (r#"{"multicast":{"members":[{"port":"a","group":"10.0.0.1"}]}}"#, "multicast address"),
        ] {
            let error = patched(&BridgeSettings::default(), patch).unwrap_err().to_string();
            assert!(error.contains(part), "{patch}: {error}");
        }
    }
}
