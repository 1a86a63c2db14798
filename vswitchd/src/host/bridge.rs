//! The host's bridges: switches with ports, tables and stations of their own, on the same
//! workers. Where rules are written by hand there can be several; a host of a network has
//! one. There is always one.

use std::sync::Arc;

use flowtable::{
    port::PortTable,
    snapshot::Snapshot,
    table::Tables,
    text::parse_filter,
    types::{BridgeId, Epoch, MacAddr, PortNo, Timestamp, VlanId},
};
use serde::{Deserialize, Serialize};

use super::{
    BridgeSettings, ChangeError, Host, PortError, UPLINK_BRIDGE, protocols::Protocols, saving::Saving,
};
use crate::state::StateError;

/// Name of the bridge that a host begins with.
pub const FIRST_NAME: &str = "br0";
/// The rule that makes a bridge a learning switch.
const NORMAL_RULE: &str = "priority=0,actions=NORMAL";
/// Longest name of a bridge: that of an interface.
const MAX_NAME_LEN: usize = 15;

/// What a bridge does that has never had rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailMode {
    /// It drops everything.
    #[default]
    Secure,
    /// It is a learning switch: it begins with the one rule `priority=0,actions=NORMAL`.
    Standalone,
}

impl FailMode {
    /// Name, as in commands.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Secure => "secure",
            Self::Standalone => "standalone",
        }
    }

    /// The mode with this name.
    pub fn by_name(name: &str) -> Option<Self> {
        [Self::Secure, Self::Standalone].into_iter().find(|mode| mode.name() == name)
    }
}

/// A station whose place was said by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StaticStation {
    /// VLAN; 0: none.
    pub vlan: u16,
    /// Address.
    pub mac: [u8; 6],
    /// Port.
    pub port: u32,
}

/// A bridge to make again after a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedBridge {
    /// Its name.
    pub name: String,
    /// How it fails.
    pub fail_mode: FailMode,
    /// Stations that were set by hand.
    #[serde(default)]
    pub stations: Vec<StaticStation>,
    /// What it is told about trees, bonds, mirrors and groups.
    #[serde(default)]
    pub settings: BridgeSettings,
}

/// One of the host's bridges.
#[derive(Debug)]
pub struct Bridge {
    pub(super) id: BridgeId,
    pub(super) name: String,
    pub(super) fail_mode: FailMode,
    pub(super) port_table: Arc<PortTable>,
    pub(super) tables: Arc<Tables>,
    pub(super) epoch: Epoch,
    pub(super) saving: Saving,
    pub(super) protocols: Protocols,
}

impl Bridge {
    pub(super) fn new(id: BridgeId, (chassis, name): (&str, &str), fail_mode: FailMode) -> Self {
        Self {
            protocols: Protocols::of(chassis, name),
            id,
            name: name.to_owned(),
            fail_mode,
            port_table: Arc::default(),
            tables: Arc::default(),
            epoch: Epoch::ZERO,
            saving: Saving::default(),
        }
    }

    /// Its number, for as long as it is there.
    pub fn id(&self) -> BridgeId {
        self.id
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it fails.
    pub fn fail_mode(&self) -> FailMode {
        self.fail_mode
    }

    /// Its tables.
    pub fn tables(&self) -> &Arc<Tables> {
        &self.tables
    }

    /// Its ports as packets see them.
    pub fn ports(&self) -> &Arc<PortTable> {
        &self.port_table
    }

    /// Takes over what it is told.
    pub(super) fn set_settings(&mut self, settings: BridgeSettings, now: Timestamp) {
        self.tables.fdb().set_config(settings.stations.config());
        if !settings.multicast.snooping {
            self.tables.fdb().forget_receivers();
        }
        self.protocols.set_settings(settings, now);
    }

    fn saved(&self) -> SavedBridge {
        let entries = self.tables.fdb().dump().into_iter().filter(|entry| entry.seen.is_none());
        let stations = entries.map(|entry| StaticStation {
            vlan: entry.vlan.get(),
            mac: entry.mac.octets(),
            port: entry.port.get(),
        });
        SavedBridge {
            name: self.name.clone(),
            fail_mode: self.fail_mode,
            stations: stations.collect(),
            settings: self.protocols.settings().clone(),
        }
    }
}

/// A command about bridges failed.
#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    /// None was named, and there are several.
    #[error("there are several bridges, {}: name the one that is meant, as the first word or with --bridge", .0.join(", "))]
    WhichOne(Vec<String>),
    /// There is no such bridge.
    #[error("there is no bridge `{0}`; vswitchctl bridge list shows those there are")]
    NotFound(String),
    /// The name cannot be one.
    #[error(
        "`{0}` cannot name a bridge: use a letter and then at most 14 of a-z A-Z 0-9 . _ -, and no word of rules"
    )]
    Name(String),
    /// All numbers are in use.
    #[error("there are {} bridges already, and there cannot be more", BridgeId::COUNT)]
    Full,
    /// The uplink has it.
    #[error("{0} is the bridge of the uplink (--uplink-mode owned); choose another name")]
    IsUplinks(String),
    /// It is the last one.
    #[error("{0} is the only bridge; a switch has at least one")]
    Last(String),
    /// Rules are made from the logical network.
    #[error(
        "this vswitchd forwards for a logical network, by one bridge; several bridges are for rules written by hand: vswitchd --standalone or --virtual"
    )]
    NotByHand,
    /// Its first rule cannot be.
    #[error("{0}")]
    Rules(Box<ChangeError>),
    /// One of its ports cannot go.
    #[error("{0}")]
    Port(Box<PortError>),
    /// The change could not be saved, and was not made.
    #[error("{0}")]
    State(#[from] StateError),
}

/// Names that a command line can tell from what follows them.
pub(super) fn check_name(name: &str) -> Result<(), BridgeError> {
    let is_well_formed = name.len() <= MAX_NAME_LEN
        && name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
    let is_word = parse_filter(name, &PortTable::default()).is_ok() || RESERVED.contains(&name);
    if is_well_formed && !is_word { Ok(()) } else { Err(BridgeError::Name(name.to_owned())) }
}

/// Words that commands take where a bridge may be named.
const RESERVED: [&str; 7] = ["all", "LOCAL", "CONTROLLER", "controller", "normal", "drop", "nx-match"];

impl Host {
    /// Rules are written by hand, and bridges told what to do.
    pub fn is_by_hand(&self) -> bool {
        self.is_handmade
    }

    /// All bridges, in the order in which they were added.
    pub fn bridges(&self) -> &[Bridge] {
        &self.bridges
    }

    /// The bridge of this name; without a name, the only one.
    ///
    /// # Errors
    /// There is none, or none is named and there are several.
    pub fn bridge(&self, name: &str) -> Result<&Bridge, BridgeError> {
        let mut known = self.bridges.iter().filter(|bridge| self.is_changeable(bridge));
        if !name.is_empty() {
            let found = known.find(|bridge| bridge.name == name);
            return found.ok_or_else(|| BridgeError::NotFound(name.to_owned()));
        }
        match &known.collect::<Vec<_>>()[..] {
            [only] => Ok(only),
            several => Err(BridgeError::WhichOne(several.iter().map(|bridge| bridge.name.clone()).collect())),
        }
    }

    /// The same, for who only looks: the uplink's bridge has a name, too.
    ///
    /// # Errors
    /// There is none, or none is named and there are several.
    pub fn visible_bridge(&self, name: &str) -> Result<&Bridge, BridgeError> {
        let uplinks = self.bridges.iter().find(|bridge| !self.is_changeable(bridge) && bridge.name == name);
        uplinks.map_or_else(|| self.bridge(name), Ok)
    }

    /// The bridge with this number.
    pub fn bridge_of(&self, id: BridgeId) -> Option<&Bridge> {
        self.bridges.iter().find(|bridge| bridge.id == id)
    }

    pub(super) fn bridge_mut(&mut self, id: BridgeId) -> Option<&mut Bridge> {
        self.bridges.iter_mut().find(|bridge| bridge.id == id)
    }

    /// Name of a bridge; empty when it is not there.
    pub fn bridge_name(&self, id: BridgeId) -> &str {
        self.bridge_of(id).map_or("", Bridge::name)
    }

    /// The bridge of a network's host, the first one of others.
    pub(super) fn first(&self) -> &Bridge {
        &self.bridges[0]
    }

    pub(super) fn first_mut(&mut self) -> &mut Bridge {
        &mut self.bridges[0]
    }

    /// What packets of a bridge see now.
    pub fn snapshot_of(&self, bridge: &Bridge) -> Snapshot {
        // Tunnels are of the first bridge: here their packets are like others.
        let is_below = self.is_uplinks(bridge.id);
        Snapshot {
            bridge: bridge.id,
            epoch: bridge.epoch,
            tables: Arc::clone(&bridge.tables),
            ports: Arc::clone(&bridge.port_table),
            underlay: if is_below { Arc::default() } else { Arc::clone(&self.underlay) },
        }
    }

    /// Adds a bridge. The same again changes nothing.
    ///
    /// # Errors
    /// [`BridgeError`] says what to do; then nothing has changed.
    pub fn add_bridge(&mut self, name: &str, fail_mode: Option<FailMode>) -> Result<BridgeId, BridgeError> {
        if !self.is_handmade {
            return Err(BridgeError::NotByHand);
        }
        if let Ok(present) = self.bridge(name)
            && !name.is_empty()
        {
            let id = present.id;
            return self.set_fail_mode(id, fail_mode).map(|()| id);
        }
        check_name(name)?;
        if self.identity.internal_port.is_some() && name == UPLINK_BRIDGE {
            return Err(BridgeError::IsUplinks(name.to_owned()));
        }
        let is_free = |id: &BridgeId| self.bridge_of(*id).is_none();
        let id = (0..).map_while(|raw| BridgeId::new(raw).ok()).find(is_free).ok_or(BridgeError::Full)?;
        self.make_bridge(id, name, fail_mode.unwrap_or_default());
        // Those of an earlier one of its name are not its own.
        self.state.forget_rules(name);
        let journal = self.state.rules(name).map(|(journal, _)| journal);
        if let Some(bridge) = self.bridge_mut(id) {
            bridge.saving = Saving::new(journal, &[]);
        }
        if let Err(error) = self.save_bridges() {
            self.bridges.pop();
            self.dataplane.remove_bridge(id);
            return Err(error.into());
        }
        self.begin_rules(id)?;
        Ok(id)
    }

    /// A bridge is there from now on, without ports and rules.
    pub(super) fn make_bridge(&mut self, id: BridgeId, name: &str, fail_mode: FailMode) {
        self.dataplane.add_bridge(id);
        self.bridges.push(Bridge::new(id, (&self.identity.chassis, name), fail_mode));
        self.publish(id);
    }

    /// Gives a bridge without rules the one that its mode begins with.
    pub(super) fn begin_rules(&mut self, id: BridgeId) -> Result<(), BridgeError> {
        let is_learning =
            |bridge: &Bridge| bridge.fail_mode == FailMode::Standalone && bridge.tables.is_empty();
        if !self.bridge_of(id).is_some_and(is_learning) {
            return Ok(());
        }
        let rule = super::written::saved_line(NORMAL_RULE);
        match self.change_rules(id, &[rule], false) {
            Ok(_) => Ok(()),
            Err(error) => Err(BridgeError::Rules(Box::new(error))),
        }
    }

    /// Changes how a bridge fails; one without rules begins accordingly.
    ///
    /// # Errors
    /// The change cannot be saved.
    pub fn set_fail_mode(&mut self, id: BridgeId, mode: Option<FailMode>) -> Result<(), BridgeError> {
        let (Some(mode), Some(bridge)) = (mode, self.bridge_mut(id)) else { return Ok(()) };
        let old = std::mem::replace(&mut bridge.fail_mode, mode);
        if let Err(error) = self.save_bridges() {
            if let Some(bridge) = self.bridge_mut(id) {
                bridge.fail_mode = old;
            }
            return Err(error.into());
        }
        self.begin_rules(id)
    }

    /// Removes a bridge with its ports, rules and stations.
    ///
    /// # Errors
    /// There is none, it is the last one, or the change cannot be saved.
    pub fn remove_bridge(&mut self, name: &str) -> Result<(), BridgeError> {
        if !self.is_handmade {
            return Err(BridgeError::NotByHand);
        }
        let id = self.bridges.iter().find(|bridge| bridge.name == name).map(|bridge| bridge.id);
        let id = id.ok_or_else(|| BridgeError::NotFound(name.to_owned()))?;
        if self.is_uplinks(id) {
            return Err(BridgeError::IsUplinks(name.to_owned()));
        }
        if self.bridges.iter().filter(|bridge| self.is_changeable(bridge)).count() == 1 {
            return Err(BridgeError::Last(name.to_owned()));
        }
        let ports = self.ports.iter().filter(|(_, port)| port.bridge == id);
        for port in ports.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.remove_port(&port).map_err(|error| BridgeError::Port(Box::new(error)))?;
        }
        let idx = self.bridges.iter().position(|bridge| bridge.id == id).unwrap_or_default();
        let bridge = self.bridges.remove(idx);
        if let Err(error) = self.save_bridges() {
            self.bridges.insert(idx, bridge);
            return Err(error.into());
        }
        self.state.forget_rules(name);
        self.dataplane.remove_bridge(id);
        Ok(())
    }

    /// Says where a station is, whatever packets say, and saves it.
    ///
    /// # Errors
    /// It cannot be saved.
    pub fn set_station(
        &mut self,
        id: BridgeId,
        (vlan, mac): (VlanId, MacAddr),
        port: PortNo,
    ) -> Result<(), StateError> {
        if let Some(bridge) = self.bridge_of(id) {
            bridge.tables.fdb().set_static(vlan, mac, port);
        }
        self.save_bridges()
    }

    /// Saves the stations that were set by hand, some of which are gone.
    ///
    /// # Errors
    /// They cannot be saved.
    pub fn stations_changed(&self) -> Result<(), StateError> {
        self.save_bridges()
    }

    pub(super) fn save_bridges(&self) -> Result<(), StateError> {
        if !self.is_handmade {
            return Ok(());
        }
        let own = self.bridges.iter().filter(|bridge| self.is_changeable(bridge));
        let saved: Vec<_> = own.map(|bridge| (bridge.id.get(), bridge.saved())).collect();
        self.state.save_bridges(&saved)
    }

    /// Makes the bridges of the last run; where there were none ever, there is the first one,
    /// with this mode.
    pub(super) fn restore_bridges(&mut self, fail_mode: FailMode) {
        let saved = if self.is_handmade { self.state.bridges() } else { Vec::new() };
        let now = self.dataplane.now();
        for (raw, SavedBridge { name, fail_mode, stations, settings }) in saved {
            let id = BridgeId::new(raw).ok().filter(|id| self.bridge_of(*id).is_none());
            let Some(id) = id else {
                tracing::warn!(name, raw, "a saved bridge has an impossible number and is left out");
                continue;
            };
            self.make_bridge(id, &name, fail_mode);
            let Some(bridge) = self.bridge_mut(id) else { continue };
            bridge.set_settings(settings, now);
            for StaticStation { vlan, mac, port } in stations {
                if let (Ok(vlan), Ok(port)) = (VlanId::new(vlan), PortNo::new(port)) {
                    bridge.tables.fdb().set_static(vlan, MacAddr::new(mac), port);
                }
            }
        }
        if self.bridges.is_empty() {
            self.make_bridge(BridgeId::FIRST, FIRST_NAME, fail_mode);
        }
        // The dataplane begins with the first one.
        if self.bridge_of(BridgeId::FIRST).is_none() {
            self.dataplane.remove_bridge(BridgeId::FIRST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_none_that_a_rule_could_begin_with() {
        for good in ["br0", "br-int", "Internal.2", "a", "br_ex"] {
            check_name(good).unwrap();
        }
        for wrong in [
            "",
            "ip",
            "tcp",
            "arp",
            "5",
            "br0/1",
            "a=b",
            "x,y",
            "-br",
            "all",
            "LOCAL",
            "sixteen-letters-x",
            "brü",
        ] {
            assert!(check_name(wrong).is_err(), "{wrong:?} was taken");
        }
    }

    #[test]
    fn a_bridge_is_saved_as_it_is() {
        let station = StaticStation { vlan: 5, mac: [2, 0, 0, 0, 0, 7], port: 3 };
        let bridge = SavedBridge {
            name: "br1".to_owned(),
            fail_mode: FailMode::Standalone,
            stations: vec![station],
            settings: BridgeSettings::default(),
        };
        let text = serde_json::to_string(&bridge).unwrap();
        assert!(text.contains("\"standalone\""), "{text}");
        assert_eq!(serde_json::from_str::<SavedBridge>(&text).unwrap(), bridge);
        assert_eq!(FailMode::by_name("secure"), Some(FailMode::Secure));
        assert_eq!(FailMode::by_name("closed"), None);
    }
}
