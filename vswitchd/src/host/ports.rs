//! Ports come and go: by command, by a restart, and when their interface does.

use std::collections::BTreeSet;

use dataplane::{AttachError, Device, PortId, PortSpec};
use flowtable::types::{BridgeId, PortNo};

use super::{Bridge, FIRST_NAME, Host, PortKind, PortSettings};
use crate::state::{PortNote, SavedPort, StateError};

/// A workload's port that is to be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Its bridge.
    pub bridge: BridgeId,
    /// Its number there.
    pub port: PortNo,
    /// Name of the other end, when it is one end of a link to another bridge.
    pub peer: Option<String>,
    /// Switch port it is for; empty: none.
    pub logical_port: String,
    /// How its interface is attached.
    pub kind: PortKind,
    /// Network outside that it leads to; empty: none.
    pub network: String,
    /// How it takes part in forwarding.
    pub settings: PortSettings,
    /// Why it is not attached; `None`: it is.
    pub trouble: Option<String>,
}

/// A port that is to be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NewPort {
    /// Its bridge and number.
    pub(super) id: PortId,
    /// The other end, when it is one end of a link.
    pub(super) peer: Option<String>,
    /// Switch port it is for; empty: none.
    pub(super) logical_port: String,
    /// How its interface is attached.
    pub(super) kind: PortKind,
    /// Network outside that it leads to; empty: none.
    pub(super) network: String,
}

/// What a request for a port comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// It is there, as it is to be.
    Present(PortId),
    /// It is to be added.
    New(NewPort),
}

impl Default for NewPort {
    fn default() -> Self {
        Self {
            id: PortNo::ZERO.into(),
            peer: None,
            logical_port: String::new(),
            kind: PortKind::Auto,
            network: String::new(),
        }
    }
}

impl Port {
    /// It among the ports of all bridges.
    pub fn id(&self) -> PortId {
        PortId::new(self.bridge, self.port)
    }

    /// Frames flow.
    pub fn is_attached(&self) -> bool {
        self.trouble.is_none()
    }
}

/// A port command failed.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// The interface cannot be attached.
    #[error("{0}")]
    Attach(#[from] AttachError),
    /// A port of the last run has a number that it cannot have now.
    #[error(
        "port {port} is {interface}, and now it would be the uplink's or a tunnel's; remove it before: \
         vswitchctl port del {interface}, or start with another --state-dir"
    )]
    Reserved {
        /// The port's interface.
        interface: String,
        /// Its number.
        port: u32,
    },
    /// The interface is the uplink.
    #[error("{0} is the uplink, or part of it; it is attached with --uplink and stays")]
    IsUplink(String),
    /// The bridge of an uplink that is owned cannot be made.
    #[error("the uplink's bridge cannot be made: {0}")]
    Uplink(String),
    /// The interface has another logical port.
    #[error("{interface} is attached for `{present}`; remove it first: vswitchctl port del {interface}")]
    Claimed {
        /// The interface.
        interface: String,
        /// What it is for.
        present: String,
    },
    /// The logical port has another interface.
    #[error(
        "switch port {logical_port} is at {interface} already; remove that first: vswitchctl port del {interface}"
    )]
    LogicalInUse {
        /// The logical port.
        logical_port: String,
        /// Where it is.
        interface: String,
    },
    /// The network has another interface.
    #[error(
        "network {network} is at {interface} already; remove that first: vswitchctl port del {interface}"
    )]
    NetworkInUse {
        /// The network.
        network: String,
        /// Where it is.
        interface: String,
    },
    /// An interface is for one thing.
    #[error(
        "an interface is a workload's or leads to a network, not both; leave --logical-port or --network out"
    )]
    TwoPurposes,
    /// There is no such port.
    #[error("{0} is not attached; vswitchctl port list shows what is")]
    NotFound(String),
    /// A lab has no interfaces.
    #[error("this is a lab, without interfaces; give it a port with: vswitchctl lab port add {0}")]
    IsLab(String),
    /// The number is another port's.
    #[error("port {port} is {name} already; vswitchctl port list shows which are free")]
    NumberInUse {
        /// The number.
        port: PortNo,
        /// Whose it is.
        name: String,
    },
    /// Rules are written by hand, so there are no logical ports.
    #[error("this switch has no network, so it knows no switch port `{0}`; leave --logical-port out")]
    NoNetwork(String),
    /// The port is there, but another one.
    #[error(
        "{0} is there with another bridge, number, kind, peer or MTU; remove it first: vswitchctl port del {0}"
    )]
    Differs(String),
    /// A bond has the name.
    #[error("{0} is a bond; names of ports and bonds are each there once")]
    IsBond(String),
    /// A link to itself.
    #[error("{0} cannot be its own other end; a link has two ports, each the other's --peer")]
    OwnPeer(String),
    /// A host of a network has one bridge.
    #[error(
        "this switch forwards for a logical network, by one bridge; links are between bridges of rules written by hand"
    )]
    NoLinks,
    /// VLANs that cannot be.
    #[error("{0}")]
    Vlan(String),
    /// A rate or queue that cannot be.
    #[error("{0}")]
    Rate(String),
    /// All numbers are in use.
    #[error("all port numbers are in use")]
    Full,
    /// The change could not be saved, and was not made.
    #[error("{0}")]
    State(#[from] StateError),
}

impl PortError {
    /// Another process has what is wanted: it may let go of it.
    pub fn is_busy(&self) -> bool {
        let Self::Attach(error) = self else { return false };
        match error {
            AttachError::NotYet(_) => true,
            AttachError::System(error) => error.source.kind() == std::io::ErrorKind::ResourceBusy,
            _ => false,
        }
    }
}

impl Host {
    /// Workload ports by interface.
    pub fn workload_ports(&self) -> impl Iterator<Item = (&str, &Port)> {
        self.ports.iter().map(|(interface, port)| (interface.as_str(), port))
    }

    /// Attaches an interface this way. The same again changes nothing.
    ///
    /// # Errors
    /// [`PortError`] says what to do; then nothing has changed.
    pub fn add_port_by(
        &mut self,
        bridge: BridgeId,
        (interface, kind): (&str, PortKind),
        purpose: (&str, &str),
        number: Option<PortNo>,
    ) -> Result<PortId, PortError> {
        match self.new_port(bridge, (interface, kind), purpose, number)? {
            Wanted::Present(id) => Ok(id),
            Wanted::New(new) => {
                let id = new.id;
                self.attach_workload(interface, new)?;
                Ok(id)
            }
        }
    }

    /// What a request for a port comes to.
    pub(super) fn new_port(
        &self,
        bridge: BridgeId,
        (interface, kind): (&str, PortKind),
        (logical_port, network): (&str, &str),
        number: Option<PortNo>,
    ) -> Result<Wanted, PortError> {
        if self.lab.is_some() {
            return Err(PortError::IsLab(interface.to_owned()));
        }
        if self.is_of_uplink(interface) {
            return Err(PortError::IsUplink(interface.to_owned()));
        }
        if let Some(present) = self.ports.get(interface) {
            if present.kind != kind {
                return Err(PortError::Differs(interface.to_owned()));
            }
            let same = self.same_again(interface, present, (bridge, number, None), (logical_port, network));
            return same.map(Wanted::Present);
        }
        self.check_purpose(logical_port, network)?;
        let id = PortId::new(bridge, self.choose_number(bridge, number)?);
        let (logical_port, network) = (logical_port.to_owned(), network.to_owned());
        Ok(Wanted::New(NewPort { id, peer: None, logical_port, network, kind }))
    }

    /// What an interface is to be for can be, and nothing else is for it.
    pub(super) fn check_purpose(&self, logical_port: &str, network: &str) -> Result<(), PortError> {
        if !logical_port.is_empty() && !network.is_empty() {
            return Err(PortError::TwoPurposes);
        }
        let purpose = if network.is_empty() { logical_port } else { network };
        if self.is_handmade && !purpose.is_empty() {
            return Err(PortError::NoNetwork(purpose.to_owned()));
        }
        self.check_unclaimed(logical_port)?;
        self.check_unconnected(network)
    }

    fn check_unclaimed(&self, logical_port: &str) -> Result<(), PortError> {
        let elsewhere =
            self.ports.iter().find(|(_, port)| !logical_port.is_empty() && port.logical_port == logical_port);
        match elsewhere {
            Some((interface, _)) => Err(PortError::LogicalInUse {
                logical_port: logical_port.to_owned(),
                interface: interface.clone(),
            }),
            None => Ok(()),
        }
    }

    fn check_unconnected(&self, network: &str) -> Result<(), PortError> {
        let elsewhere = self.ports.iter().find(|(_, port)| !network.is_empty() && port.network == network);
        match elsewhere {
            Some((interface, _)) => {
                Err(PortError::NetworkInUse { network: network.to_owned(), interface: interface.clone() })
            }
            None => Ok(()),
        }
    }

    /// Attaches what may be attached, and does nothing else about it.
    pub(super) fn attach_alone(&mut self, name: &str, new: NewPort) -> Result<(), PortError> {
        let NewPort { id, peer, logical_port, network, kind } = new;
        let (bridge, port) = (id.bridge, id.port);
        self.dataplane.attach(self.workload_spec(id, (name, &kind), peer.is_some()))?;
        let settings = PortSettings::default();
        let added = Port { bridge, port, peer, logical_port, network, kind, settings, trouble: None };
        self.ports.insert(name.to_owned(), added);
        Ok(())
    }

    /// Attaches what may be attached, and remembers it.
    pub(super) fn attach_workload(&mut self, name: &str, new: NewPort) -> Result<PortNo, PortError> {
        let id = new.id;
        if self.bridges.iter().flat_map(|bridge| bridge.protocols.numbers()).any(|(_, bond)| bond == name) {
            return Err(PortError::IsBond(name.to_owned()));
        }
        self.attach_alone(name, new)?;
        if let Err(error) = self.save_ports() {
            self.ports.remove(name);
            self.detach(id);
            return Err(error.into());
        }
        self.link_ports();
        self.ports_changed();
        Ok(id.port)
    }

    /// Detaches an interface.
    ///
    /// # Errors
    /// There is no such port, or the change cannot be saved; then nothing has changed.
    pub fn remove_port(&mut self, interface: &str) -> Result<(), PortError> {
        if self.is_of_uplink(interface) {
            return Err(PortError::IsUplink(interface.to_owned()));
        }
        let port = self.ports.remove(interface).ok_or_else(|| PortError::NotFound(interface.to_owned()))?;
        if let Err(error) = self.save_ports() {
            self.ports.insert(interface.to_owned(), port);
            return Err(error.into());
        }
        if port.is_attached() {
            self.detach(port.id());
        }
        if let Some(lab) = &mut self.lab {
            lab.remove(interface);
        }
        self.link_ports();
        self.ports_changed();
        Ok(())
    }

    /// Looks after links: takes over changes of link state and MTU, lets go of interfaces
    /// that are gone, and attaches those that are back.
    pub fn tend_ports(&mut self) {
        if !self.dataplane.is_waiting() {
            self.tend_uplink();
        }
        let mut changed = self.let_go();
        let mut back = Vec::new();
        for (interface, port) in &mut self.ports {
            if !port.is_attached() {
                match self.dataplane.attach(interface_spec(port.id(), interface, &port.kind)) {
                    Ok(_) => {
                        tracing::info!(interface, port = %port.port, "the interface is back");
                        port.trouble = None;
                        back.push(interface.clone());
                        changed = true;
                    }
                    Err(error) => port.trouble = Some(error.to_string()),
                }
            }
        }
        back.iter().for_each(|interface| self.apply_rates(interface));
        let statuses = self.dataplane.port_links();
        let differs = |bridge: &Bridge| *bridge.port_table != self.table_of(bridge.id, &statuses);
        if changed || self.bridges.iter().any(differs) {
            self.ports_changed();
        }
    }

    /// Lets go of interfaces that are gone. True when there was one.
    fn let_go(&mut self) -> bool {
        let gone: Vec<_> = self.dataplane.port_links().into_iter().filter(|status| status.gone).collect();
        let mut changed = false;
        for status in gone {
            let id = PortId::new(status.bridge, status.port);
            let Some((interface, port)) = self.ports.iter_mut().find(|(_, port)| port.id() == id) else {
                continue;
            };
            if port.is_attached() {
                tracing::warn!(interface, port = %port.port, "the interface is gone; waiting for it");
                port.trouble = Some(format!("{interface}: the interface is gone"));
                self.detach(id);
                changed = true;
            }
        }
        changed
    }

    /// Ports that are waited for, and why.
    pub(super) fn port_errors(&self) -> impl Iterator<Item = String> {
        self.ports.values().filter_map(|port| port.trouble.clone())
    }

    pub(super) fn restore_ports(&mut self) {
        for saved in self.state.ports() {
            let name = if saved.bridge.is_empty() { FIRST_NAME } else { &saved.bridge };
            let bridge = self.bridges.iter().find(|bridge| bridge.name == name).map(|bridge| bridge.id);
            let (Ok(mut port), Some(bridge)) = (PortNo::new(saved.port), bridge) else {
                tracing::warn!(?saved, "a saved port has an impossible number or bridge and is left out");
                continue;
            };
            if bridge == BridgeId::FIRST && port.get() < self.first_number() {
                // A tunnel's, which there was not before.
                let Some(free) = self.free_number() else { continue };
                tracing::info!(interface = saved.interface, %port, %free, "the port has another number");
                port = free;
            }
            let is_patch = saved.peer.is_some();
            if let Some(lab) = self.lab.as_mut().filter(|_| !is_patch) {
                lab.add(&saved.interface, saved.mtu, &saved.network);
            }
            let spec =
                self.workload_spec(PortId::new(bridge, port), (&saved.interface, &saved.kind), is_patch);
            let trouble = self.dataplane.attach(spec).err().map(|error| error.to_string());
            if let Some(trouble) = &trouble {
                tracing::warn!(trouble, "a port of the last run cannot be attached; trying again");
            }
            let SavedPort { interface, logical_port, network, kind, settings, peer, .. } = saved;
            let restored = Port { bridge, port, peer, logical_port, network, kind, settings, trouble };
            self.ports.insert(interface.clone(), restored);
            self.apply_rates(&interface);
        }
        self.link_ports();
        self.ports_changed();
    }

    pub(super) fn same_again(
        &self,
        name: &str,
        present: &Port,
        (bridge, number, peer): (BridgeId, Option<PortNo>, Option<&str>),
        (logical_port, network): (&str, &str),
    ) -> Result<PortId, PortError> {
        let is_other = present.bridge != bridge || present.peer.as_deref() != peer;
        if is_other || number.is_some_and(|number| number != present.port) {
            return Err(PortError::Differs(name.to_owned()));
        }
        if (present.logical_port.as_str(), present.network.as_str()) == (logical_port, network) {
            return Ok(present.id());
        }
        let purpose = if present.network.is_empty() { &present.logical_port } else { &present.network };
        Err(PortError::Claimed { interface: name.to_owned(), present: purpose.clone() })
    }

    /// This number if it is free in the bridge; without one, the lowest that is.
    pub(super) fn choose_number(
        &self,
        bridge: BridgeId,
        wanted: Option<PortNo>,
    ) -> Result<PortNo, PortError> {
        self.choose_number_beside(bridge, wanted, &[])
    }

    /// The same, where these are not free either.
    pub(super) fn choose_number_beside(
        &self,
        bridge: BridgeId,
        wanted: Option<PortNo>,
        others: &[PortNo],
    ) -> Result<PortNo, PortError> {
        let first = self.first_number();
        let owner =
            |number: PortNo| self.ports.iter().find(|(_, port)| port.id() == PortId::new(bridge, number));
        if let Some(port) = wanted {
            let reserved = (port.get() < first).then_some("the uplink's or the tunnel's");
            let bonds = self.bridge_of(bridge).into_iter().flat_map(|bridge| bridge.protocols.numbers());
            let bond =
                bonds.chain(others.iter().map(|port| (*port, "a bond"))).find(|(known, _)| *known == port);
            let owner = owner(port).map(|(name, _)| name.as_str()).or(bond.map(|(_, name)| name));
            return match owner.or(reserved) {
                Some(name) => Err(PortError::NumberInUse { port, name: name.to_owned() }),
                None => Ok(port),
            };
        }
        let of_bridge = self.ports.values().filter(|port| port.bridge == bridge);
        let bonds = self.bridge_of(bridge).into_iter().flat_map(|bridge| bridge.protocols.numbers());
        let bonds = bonds.map(|(port, _)| port).chain(others.iter().copied());
        let taken: BTreeSet<_> = of_bridge.map(|port| port.port).chain(bonds).map(PortNo::get).collect();
        let free = (first..=PortNo::MAX_REAL).find(|raw| !taken.contains(raw));
        free.and_then(|raw| PortNo::new(raw).ok()).ok_or(PortError::Full)
    }

    /// A number of the first bridge that no port has now, nor had in the last run.
    fn free_number(&self) -> Option<PortNo> {
        let saved = self.state.ports();
        let taken = saved.iter().map(|port| port.port).chain(self.ports.values().map(|port| port.port.get()));
        PortNo::new(taken.max()?.max(self.first_number()) + 1).ok()
    }

    /// Saves the ports as a whole, durably.
    ///
    /// # Errors
    /// The file system's.
    pub(super) fn save_ports(&mut self) -> Result<(), StateError> {
        let saved: Vec<_> =
            self.ports.iter().map(|(interface, port)| self.saved_port(interface, port)).collect();
        self.ports_file.replace(&saved)
    }

    /// Saves that containers' ports have come or gone, so that it outlives the process.
    ///
    /// # Cost
    /// That of these ports; the first time of all.
    pub(super) fn save_workloads<'a>(
        &mut self,
        changed: impl Iterator<Item = &'a String>,
    ) -> Result<(), StateError> {
        if !self.ports_file.takes_notes() {
            return self.save_ports();
        }
        let note = |interface: &String| match self.ports.get(interface) {
            Some(port) => PortNote::Added(Box::new(self.saved_port(interface, port))),
            None => PortNote::Removed(interface.clone()),
        };
        let notes: Vec<_> = changed.map(note).collect();
        self.ports_file.note(&notes)
    }

    /// Saves the ports as a whole where some were only noted: whoever goes on from what is saved may be
    /// of a version that reads no notes.
    pub fn save_noted_ports(&mut self) {
        if !self.ports_file.is_whole()
            && let Err(error) = self.save_ports()
        {
            tracing::warn!(%error, "containers' ports stay noted");
        }
    }

    /// Has the next container's port noted, not all of them saved.
    pub fn tend_saved_ports(&mut self) {
        // Rules written by hand have no containers.
        if !self.is_handmade && self.ports_file.is_long() {
            self.save_noted_ports();
        }
    }

    fn saved_port(&self, interface: &str, port: &Port) -> SavedPort {
        SavedPort {
            bridge: self.bridge_name(port.bridge).to_owned(),
            port: port.port.get(),
            peer: port.peer.clone(),
            interface: interface.to_owned(),
            logical_port: port.logical_port.clone(),
            kind: port.kind.clone(),
            network: port.network.clone(),
            mtu: self.lab.as_ref().and_then(|lab| lab.mtu(interface)),
            settings: port.settings.clone(),
        }
    }

    fn workload_spec(&self, port: PortId, (name, kind): (&str, &PortKind), is_patch: bool) -> PortSpec {
        if is_patch {
            return PortSpec { port, name: name.to_owned(), device: Device::Patch { keeps_queues: false } };
        }
        match self.lab.as_ref().and_then(|lab| lab.memory(name)) {
            Some(memory) => PortSpec { port, name: name.to_owned(), device: Device::Memory(memory.clone()) },
            None => interface_spec(port, name, kind),
        }
    }
}

fn interface_spec(port: PortId, interface: &str, kind: &PortKind) -> PortSpec {
    PortSpec { port, name: interface.to_owned(), device: kind.device(interface) }
}
