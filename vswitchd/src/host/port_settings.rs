//! How a port takes part in forwarding, as it was set by hand: whether packets may leave by
//! it, whether it is flooded, and the VLANs that `NORMAL` keeps apart.

use std::collections::BTreeSet;

use flowtable::{
    port::{Bridging, PriorityTags, VlanMode},
    types::VlanId,
};
use serde::{Deserialize, Serialize};

use super::{Host, PortError, RateSettings};

/// How a port takes part in forwarding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PortSettings {
    /// It takes part at all.
    pub enabled: bool,
    /// It takes packets.
    pub receives: bool,
    /// Packets may leave by it.
    pub forwards: bool,
    /// Its packets go to controllers when a table has no rule for them and says so.
    pub packet_ins: bool,
    /// `NORMAL` sends nothing from it to another such port.
    pub protected: bool,
    /// It gets flooded packets.
    pub floods: bool,
    /// Tags.
    pub mode: Mode,
    /// VLAN of frames without a tag; 0: none.
    pub tag: u16,
    /// VLANs of a trunk, or customers' VLANs of a tunnel; none: all.
    pub trunks: BTreeSet<u16>,
    /// What it may receive and send.
    #[serde(skip_serializing_if = "RateSettings::is_none")]
    pub rates: RateSettings,
    /// When frames that leave without a VLAN have a tag for their priority.
    pub priority_tags: PriorityTagsName,
}

/// When frames that leave without a VLAN have a tag all the same, for their priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PriorityTagsName {
    /// Never.
    #[default]
    No,
    /// When their priority is not 0.
    IfNonzero,
    /// Always.
    Always,
}

impl PriorityTagsName {
    const ALL: [(&str, Self); 3] =
        [("no", Self::No), ("if-nonzero", Self::IfNonzero), ("always", Self::Always)];

    /// Name, as in commands.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, tags)| *tags == self).map_or("", |(name, _)| name)
    }

    /// By its name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, tags)| *tags)
    }
}

/// What tags frames have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Tags as they are.
    #[default]
    Trunk,
    /// None, and one VLAN.
    Access,
    /// A trunk with a VLAN for what has no tag, which leaves with one.
    NativeTagged,
    /// A trunk with a VLAN for what has no tag, which leaves without one.
    NativeUntagged,
    /// One VLAN for all; tags are the customer's, and stay.
    #[serde(rename = "dot1q-tunnel")]
    Tunnel,
}

impl Mode {
    const ALL: [(&str, Self); 5] = [
        ("trunk", Self::Trunk),
        ("access", Self::Access),
        ("native-tagged", Self::NativeTagged),
        ("native-untagged", Self::NativeUntagged),
        ("dot1q-tunnel", Self::Tunnel),
    ];

    /// Name, as in commands.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, mode)| *mode == self).map_or("", |(name, _)| name)
    }

    /// The mode with this name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, mode)| *mode)
    }
}

impl Default for PortSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            receives: true,
            forwards: true,
            packet_ins: true,
            protected: false,
            floods: true,
            mode: Mode::Trunk,
            tag: 0,
            trunks: BTreeSet::new(),
            rates: RateSettings::default(),
            priority_tags: PriorityTagsName::No,
        }
    }
}

impl PortSettings {
    /// Packets may leave by it, if its interface is up.
    pub(super) fn sends(&self) -> bool {
        self.enabled && self.forwards
    }

    /// As the pipeline wants it. `None`: a VLAN that there cannot be.
    pub(super) fn bridging(&self) -> Option<Bridging> {
        let tag = VlanId::new(self.tag).ok()?;
        let mode = match self.mode {
            Mode::Trunk => VlanMode::Trunk,
            Mode::Access => VlanMode::Access(tag),
            Mode::NativeTagged => VlanMode::NativeTagged(tag),
            Mode::NativeUntagged => VlanMode::NativeUntagged(tag),
            Mode::Tunnel => VlanMode::Tunnel(tag),
        };
        let trunks = self.trunks.iter().map(|vlan| VlanId::new(*vlan).ok());
        let trunks = trunks.collect::<Option<BTreeSet<_>>>()?;
        let trunks = (!trunks.is_empty()).then_some(trunks);
        Some(Bridging {
            mode,
            trunks,
            floods: self.floods,
            receives: self.enabled && self.receives,
            packet_ins: self.packet_ins,
            protected: self.protected,
            priority_tags: match self.priority_tags {
                PriorityTagsName::No => PriorityTags::No,
                PriorityTagsName::IfNonzero => PriorityTags::IfNonzero,
                PriorityTagsName::Always => PriorityTags::Always,
            },
            ..Bridging::default()
        })
    }

    pub(super) fn check(&self) -> Result<(), PortError> {
        let wrong = |reason: &str| Err(PortError::Vlan(reason.to_owned()));
        if self.bridging().is_none() {
            return wrong("VLANs are 0 to 4095");
        }
        if let Some(trouble) = self.rates.trouble() {
            return Err(PortError::Rate(trouble));
        }
        match self.mode {
            Mode::Trunk if self.tag != 0 => wrong("a trunk has no VLAN of its own; native-untagged has"),
            Mode::Access if !self.trunks.is_empty() => {
                wrong("an access port is in one VLAN and has no others")
            }
            Mode::Tunnel if self.tag == 0 => wrong("a tunnel has a VLAN of its own: say --tag"),
            Mode::Trunk | Mode::Access | Mode::NativeTagged | Mode::NativeUntagged | Mode::Tunnel => Ok(()),
        }
    }
}

impl Host {
    /// Changes how a port takes part in forwarding, and saves it.
    ///
    /// # Errors
    /// [`PortError`] says what to do; then nothing has changed.
    pub fn modify_port(
        &mut self,
        interface: &str,
        change: impl FnOnce(&mut PortSettings),
    ) -> Result<(), PortError> {
        let port = self.ports.get_mut(interface).ok_or_else(|| PortError::NotFound(interface.to_owned()))?;
        let old = port.settings.clone();
        change(&mut port.settings);
        let checked = port.settings.check();
        if let Err(error) = checked.and_then(|()| Ok(self.save_ports()?)) {
            if let Some(port) = self.ports.get_mut(interface) {
                port.settings = old;
            }
            return Err(error);
        }
        self.apply_rates(interface);
        self.ports_changed();
        Ok(())
    }

    /// Makes a port that is attached keep to its rates.
    pub(super) fn apply_rates(&self, interface: &str) {
        let Some(port) = self.ports.get(interface).filter(|port| port.is_attached()) else { return };
        let rates = self.with_shaping(port.id(), port.settings.rates.to_dataplane());
        if let Err(error) = self.dataplane.set_rates(port.id(), rates) {
            tracing::warn!(interface, %error, "the port's rates are not kept to");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_saved_as_they_are() {
        let settings =
            PortSettings { mode: Mode::NativeUntagged, tag: 7, trunks: [1, 2].into(), ..Default::default() };
        let text = serde_json::to_string(&settings).unwrap();
        assert!(text.contains("native-untagged"), "{text}");
        assert_eq!(serde_json::from_str::<PortSettings>(&text).unwrap(), settings);
        assert_eq!(serde_json::from_str::<PortSettings>("{}").unwrap(), PortSettings::default());
        settings.check().unwrap();
        assert!(Mode::ALL.iter().all(|(name, mode)| Mode::by_name(name) == Some(*mode)));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let of = |mode, tag, trunks: &[u16]| PortSettings {
            mode,
            tag,
            trunks: trunks.iter().copied().collect(),
            ..PortSettings::default()
        };
        for wrong in [of(Mode::Access, 4096, &[]), of(Mode::Trunk, 5, &[]), of(Mode::Access, 5, &[6])] {
            assert!(wrong.check().is_err(), "{wrong:?} was taken");
        }
    }
}
