//! How the host has its bridges' protocols do what is due, and does what they want.

use std::collections::{BTreeMap, BTreeSet};

use dataplane::{PortId, PortStatus};
use flowtable::{
    fdb::FdbFilter,
    flow::Action,
    switch::Sampled,
    types::{BridgeId, PortNo},
};

use super::{BridgeSettings, Links, SettingsError, Wants};
use crate::{
    host::{Bridge, Host, PortError, PortSettings},
    state::StateError,
};

/// Settings of a bridge were not changed.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    /// They cannot be.
    #[error("{0}")]
    Settings(#[from] SettingsError),
    /// A bond cannot have this name: a port has it.
    #[error("bonds.{0}: there is a port of this name")]
    NameInUse(String),
    /// A bond's number.
    #[error("{0}")]
    Number(Box<PortError>),
    /// The change could not be saved, and was not made.
    #[error("{0}")]
    State(#[from] StateError),
}

/// Another member of a bond was not made the active one.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// There is no such bond.
    #[error("bridge {bridge} has no bond `{bond}`")]
    Bond {
        /// The bridge.
        bridge: String,
        /// What was asked for.
        bond: String,
    },
    /// It is none of its members.
    #[error("bond {bond} has no member `{member}`")]
    Member {
        /// The bond.
        bond: String,
        /// What was asked for.
        member: String,
    },
    /// It cannot be used now.
    #[error("{0} is not enabled now, so it cannot be the active member")]
    Disabled(String),
    /// Another one is whenever it can be.
    #[error(
        "{0} is the bond's primary, and active whenever it can be; take that back first: bonds.NAME.primary"
    )]
    Primary(String),
}

impl Host {
    /// What a bridge is told.
    pub fn bridge_settings(&self, bridge: BridgeId) -> BridgeSettings {
        self.bridge_of(bridge).map(|bridge| bridge.protocols.settings().clone()).unwrap_or_default()
    }

    /// Changes what a bridge is told, by a JSON merge patch, and saves it; answers with what it
    /// is told then. `validate_only`: only answers.
    ///
    /// # Errors
    /// [`ProtocolError`] says what to do; then nothing has changed.
    pub fn change_bridge_settings(
        &mut self,
        id: BridgeId,
        patch: &str,
        validate_only: bool,
    ) -> Result<BridgeSettings, ProtocolError> {
        let Some(bridge) = self.bridge_of(id) else { return Ok(BridgeSettings::default()) };
        let old = bridge.protocols.settings().clone();
        let mut settings = old.patched(patch, &bridge.port_table)?;
        let mut taken = Vec::new();
        for (name, bond) in &mut settings.bonds {
            if self.ports.contains_key(name) {
                return Err(ProtocolError::NameInUse(name.clone()));
            }
            let known = old.bonds.get(name).map_or(0, |old| old.number);
            let wanted = if bond.number == 0 { known } else { bond.number };
            if wanted == 0 || wanted != known {
                let number = PortNo::new(wanted).ok().filter(|port| *port != PortNo::ZERO);
                let chosen = self.choose_number_beside(id, number, &taken);
                bond.number = chosen.map_err(|error| ProtocolError::Number(Box::new(error)))?.get();
            } else {
                bond.number = wanted;
            }
            taken.extend(PortNo::new(bond.number).ok());
        }
        if validate_only || settings == old {
            return Ok(settings);
        }
        // Collectors that are told the last word hear of all that was counted until now.
        self.dataplane.flush_stats();
        let now = self.dataplane.now();
        if let Some(bridge) = self.bridge_mut(id) {
            bridge.set_settings(settings.clone(), now);
        }
        if let Err(error) = self.save_bridges() {
            if let Some(bridge) = self.bridge_mut(id) {
                bridge.set_settings(old, now);
            }
            return Err(error.into());
        }
        self.destinations_changed();
        self.tend_protocols();
        Ok(settings)
    }

    /// Makes another member of a bond the active one, as long as it can be.
    ///
    /// # Errors
    /// [`MemberError`] says why not.
    pub fn set_active_member(&mut self, id: BridgeId, bond: &str, member: &str) -> Result<(), MemberError> {
        let Some(bridge) = self.bridge_mut(id) else { return Ok(()) };
        let no_bond = MemberError::Bond { bridge: bridge.name.clone(), bond: bond.to_owned() };
        bridge.protocols.set_active_member(bond, member, no_bond)?;
        self.satisfy_protocols();
        Ok(())
    }

    /// Looks anew at whether somebody is at the other ends of ports with sessions.
    pub fn tend_links(&mut self) {
        if self.bfd.expire_links() {
            self.tend_protocols();
        }
    }

    /// Tells neighbours and collectors of bridges all that is still to be told: the host ends.
    pub fn end_protocols(&mut self) {
        self.dataplane.flush_stats();
        let now = self.dataplane.now();
        self.bridges.iter_mut().for_each(|bridge| bridge.protocols.end(now));
        self.satisfy_protocols();
    }

    /// A bridge speaks a protocol, so time matters to it.
    pub fn speaks_protocols(&self) -> bool {
        self.bridges.iter().any(|bridge| bridge.protocols.speaks())
    }

    /// Has the bridges' protocols do what is due.
    pub fn tend_protocols(&mut self) {
        let is_due = |bridge: &Bridge| bridge.protocols.speaks() || bridge.protocols.wants.changed;
        if !self.bridges.iter().any(is_due) {
            return;
        }
        let (now, statuses) = (self.dataplane.now(), self.dataplane.ports());
        if self.bridges.iter().any(|bridge| bridge.protocols.monitoring.is_sweep_due(now)) {
            self.dataplane.flush_stats();
        }
        let mut sessions = BTreeMap::new();
        for id in self.bridges.iter().map(Bridge::id).collect::<Vec<_>>() {
            let links = self.links_of(id, &statuses);
            let silent = self.silent_ports(id, &links);
            if let Some(bridge) = self.bridge_mut(id) {
                let wanted = bridge.wanted_sessions(&links).into_iter();
                sessions.extend(wanted.map(|(port, peer)| (PortId::new(id, port), peer)));
                bridge.protocols.set_silent(silent);
                bridge.protocols.tick(now, &links);
                let ports = statuses.iter().filter(|status| status.bridge == id);
                bridge.protocols.monitoring.tick(now, ports);
            }
        }
        self.satisfy_protocols();
        // Where frames of sessions are for the host itself.
        self.bfd.want_links(sessions);
    }

    /// Ports whose sessions say that nobody is at the other end.
    fn silent_ports(&self, id: BridgeId, links: &Links) -> BTreeSet<PortNo> {
        let ports = links.values().map(|(port, _)| *port);
        ports.filter(|port| self.bfd.link_lives(PortId::new(id, *port)) == Some(false)).collect()
    }

    /// Other ends of tunnels that bridges send copies to.
    pub(in crate::host) fn mirror_remotes(&self) -> impl Iterator<Item = std::net::IpAddr> {
        let settings = self.bridges.iter().map(|bridge| bridge.protocols.settings());
        settings.flat_map(|settings| settings.mirrors.values().filter_map(|mirror| mirror.remote))
    }

    /// Ports of a bridge, each with whether frames can cross.
    fn links_of(&self, bridge: BridgeId, statuses: &[PortStatus]) -> Links {
        let here = statuses.iter().filter(|status| status.bridge == bridge);
        let link = |status: &PortStatus| {
            let settings = self.ports.get(&status.name).map(|port| &port.settings);
            let up = status.up && settings.is_none_or(PortSettings::sends);
            (status.name.clone(), (status.port, up))
        };
        here.map(link).collect()
    }

    /// A frame has come to a bridge that the host itself listens to.
    pub(in crate::host) fn hear_protocol(&mut self, id: BridgeId, in_port: PortNo, frame: &[u8]) {
        if let Some(has_changed) = self.bfd.receive_by(PortId::new(id, in_port), frame)
            && has_changed
        {
            return;
        }
        let now = self.dataplane.now();
        if let Some(bridge) = self.bridge_mut(id) {
            let ports = std::sync::Arc::clone(&bridge.port_table);
            bridge.protocols.hear(now, (in_port, &ports), frame);
        }
    }

    /// A packet of a bridge was sampled; `true`: that was for the bridge's own collectors.
    pub(in crate::host) fn show_sample(&mut self, id: BridgeId, sampled: &Sampled) -> bool {
        let now = self.dataplane.now();
        let bridge = self.bridge_mut(id);
        bridge.is_some_and(|bridge| bridge.protocols.monitoring.show(now, sampled))
    }

    /// Does what the protocols want: first what forwarding has to know, then what is said to
    /// others about it.
    pub(in crate::host) fn satisfy_protocols(&mut self) {
        let mut all = Vec::new();
        for bridge in &mut self.bridges {
            all.push((bridge.id, std::mem::take(&mut bridge.protocols.wants)));
        }
        if all.iter().any(|(_, wants)| wants.changed) {
            self.ports_changed();
        }
        for (id, wants) in all {
            self.satisfy(id, wants);
        }
    }

    fn satisfy(&mut self, id: BridgeId, wants: Wants) {
        let Some(bridge) = self.bridge_of(id) else { return };
        let fdb = bridge.tables.fdb();
        for port in wants.flushes {
            fdb.flush(&FdbFilter { port: Some(port), ..FdbFilter::default() });
        }
        for change in &wants.groups {
            fdb.set_receivers(change.vlan, change.group, change.ports.as_ref());
        }
        let mut out: Vec<(Action, Vec<u8>)> = Vec::new();
        out.extend(wants.frames.into_iter().map(|(port, frame)| (Action::Output(port), frame)));
        for name in &wants.announces {
            let Some((_, bond)) = bridge.protocols.bonds().find(|(known, _)| known == name) else { continue };
            let frames = bond.announcements(&fdb.dump());
            out.extend(frames.into_iter().map(|frame| (Action::Output(bond.number), frame)));
        }
        for (vlan, frame) in wants.queries {
            let tag = [&[0x81, 0x00][..], &vlan.get().to_be_bytes()].concat();
            let tagged = [&frame[..12], &tag, &frame[12..]].concat();
            out.push((Action::Output(PortNo::NORMAL), if vlan.get() == 0 { frame } else { tagged }));
        }
        for (action, frame) in out {
            let from = PortId::new(id, PortNo::CONTROLLER);
            if let Err(error) = self.dataplane.packet_out(from, vec![action], frame) {
                tracing::debug!(%error, "a frame of a bridge's protocol is lost");
            }
        }
    }
}
