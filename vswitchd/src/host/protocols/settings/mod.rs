//! What a bridge is told, as it is written, saved and shown: a file for each of its parts. A change
//! is a JSON merge patch (RFC 7396), so that what is not said stays.

mod bonds;
mod collectors;
mod groups;
mod links;
mod mirrors;
mod tree;

use std::collections::{BTreeMap, BTreeSet};

use bridge_protocols::stp;
use flowtable::{
    port::{MAX_MIRRORS, PortRole, PortTable},
    text::parse_match,
    types::{MacAddr, VlanId},
};
use serde::{Deserialize, Serialize};

pub(super) use self::{
    bonds::BondSettings,
    collectors::{IpfixSetSettings, IpfixSettings, NetflowSettings, SflowSettings},
};
pub use self::{
    bonds::{BondModeName, LacpName},
    tree::TreeProtocol,
};
use self::{
    groups::{MulticastSettings, StationSettings},
    links::{BfdSettings, CfmSettings, LldpSettings},
    mirrors::MirrorSettings,
    tree::TreeSettings,
};

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
    /// Whom to tell of flows of IPv4.
    pub netflow: NetflowSettings,
    /// Whom to tell of flows.
    pub ipfix: IpfixSettings,
    /// Who is at the other ends of ports.
    pub lldp: LldpSettings,
    /// Ports that are ends of associations that watch over themselves, by name.
    pub cfm: BTreeMap<String, CfmSettings>,
    /// Ports with a session with the other end, by name.
    pub bfd: BTreeMap<String, BfdSettings>,
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
        self.check_collectors()?;
        self.check_links()?;
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

    fn check_collectors(&self) -> Result<(), SettingsError> {
        if self.sflow.sampling == 0 || !(14..=512).contains(&self.sflow.header) {
            return Err(wrong("sflow", "sampling is at least 1, header 14 to 512 bytes"));
        }
        self.netflow.check().map_err(|reason| wrong("netflow", reason))?;
        self.ipfix.check().map_err(|reason| wrong("ipfix", reason))
    }

    fn check_links(&self) -> Result<(), SettingsError> {
        self.lldp.check().map_err(|reason| wrong("lldp", reason))?;
        for (name, port) in &self.cfm {
            port.config(MacAddr::ZERO).map_err(|reason| wrong(format!("cfm.{name}"), reason))?;
        }
        for (name, port) in &self.bfd {
            port.peer(MacAddr::ZERO).map_err(|reason| wrong(format!("bfd.{name}"), reason))?;
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
            let output = ports.by_name(&mirror.output_port).and_then(|port| ports.get(port));
            let is_tunnel = output.map(|info| info.role == PortRole::Tunnel);
            if is_tunnel.is_some_and(|is_tunnel| is_tunnel != mirror.remote.is_some())
                || mirror.output_port.is_empty() && mirror.remote.is_some()
            {
                return Err(wrong(path(), "say the remote of a tunnel's port, and of no other"));
            }
            if mirror.key > 0xff_ffff {
                return Err(wrong(path(), "a key has 24 bits"));
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
            (
                r#"{"mirrors":{"m":{"select-all":true,"output-vlan":9,"remote":"192.0.2.1"}}}"#,
                "mirrors.m: say the remote",
            ),
            (r#"{"netflow":{"active-timeout":0}}"#, "netflow: timeouts"),
            (r#"{"netflow":{"targets":["nowhere"]}}"#, "invalid socket address"),
            (r#"{"ipfix":{"sampling":0}}"#, "ipfix: sampling"),
            (r#"{"ipfix":{"sets":{"7":{"max-flows":0}}}}"#, "ipfix: timeouts"),
            (r#"{"ipfix":{"sets":{"x":{}}}}"#, "invalid"),
            (r#"{"lldp":{"hold":1}}"#, "lldp: interval"),
            (r#"{"cfm":{"a":{}}}"#, "cfm.a: say the id"),
            (r#"{"cfm":{"a":{"id":1,"interval":500}}}"#, "cfm.a: the interval"),
            (r#"{"cfm":{"a":{"id":1,"level":8}}}"#, "cfm.a: the level"),
            (r#"{"bfd":{"a":{"interval":1}}}"#, "bfd.a: the interval"),
            (r#"{"bfd":{"a":{"destination-mac":"x"}}}"#, "bfd.a: destination-mac"),
            (r#"{"multicast":{"members":[{"port":"a","group":"10.0.0.1"}]}}"#, "multicast address"),
        ] {
            let error = patched(&BridgeSettings::default(), patch).unwrap_err().to_string();
            assert!(error.contains(part), "{patch}: {error}");
        }
    }
}
