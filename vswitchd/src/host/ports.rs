//! Ports come and go: by command, by a restart, and when their interface does.

use std::sync::Arc;

use dataplane::{AttachError, Device, PortSpec, PortStatus, Steering};
use ferroflow_proto::chassis::{Claim, Claims};
use flowtable::{
    port::{PortInfo, PortRole, PortTable},
    types::PortNo,
};
use ovn_northd_lite::SouthboundDelta;

use super::{Event, GENEVE_UDP_PORT, Host, PortChange, PortEvent, PortSettings, TUNNEL, TUNNEL_NAME, UPLINK};
use crate::state::{SavedPort, StateError};

/// First number of a workload's port.
const FIRST_WORKLOAD: u32 = 3;

/// A workload's port that is to be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Its number.
    pub port: PortNo,
    /// Switch port it is for; empty: none.
    pub logical_port: String,
    /// Network outside that it leads to; empty: none.
    pub network: String,
    /// How it takes part in forwarding.
    pub settings: PortSettings,
    /// Why it is not attached; `None`: it is.
    pub trouble: Option<String>,
}

impl Port {
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
    /// The tunnel endpoint's address is not one that tunnels can use.
    #[error("--encap-ip {0}: tunnels use IPv4 on the underlay; name an IPv4 address of the uplink")]
    EncapIp(std::net::IpAddr),
    /// The interface is the uplink.
    #[error("{0} is the uplink; it is attached with --uplink and stays")]
    IsUplink(String),
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
    #[error("{0} is there with another number or MTU; remove it first: vswitchctl port del {0}")]
    Differs(String),
    /// VLANs that cannot be.
    #[error("{0}")]
    Vlan(String),
    /// All numbers are in use.
    #[error("all port numbers are in use")]
    Full,
    /// The change could not be saved, and was not made.
    #[error("{0}")]
    State(#[from] StateError),
}

impl Host {
    /// Workload ports by interface.
    pub fn workload_ports(&self) -> impl Iterator<Item = (&str, &Port)> {
        self.ports.iter().map(|(interface, port)| (interface.as_str(), port))
    }

    /// Attaches an interface and claims a logical port for it. The same again changes
    /// nothing.
    ///
    /// # Errors
    /// [`PortError`] says what to do; then nothing has changed.
    pub fn add_port(
        &mut self,
        interface: &str,
        (logical_port, network): (&str, &str),
        number: Option<PortNo>,
    ) -> Result<PortNo, PortError> {
        if !logical_port.is_empty() && !network.is_empty() {
            return Err(PortError::TwoPurposes);
        }
        if self.lab.is_some() {
            return Err(PortError::IsLab(interface.to_owned()));
        }
        if self.uplink() == Some(interface) {
            return Err(PortError::IsUplink(interface.to_owned()));
        }
        if let Some(present) = self.ports.get(interface) {
            return self.same_again(interface, present, (logical_port, network), number);
        }
        let purpose = if network.is_empty() { logical_port } else { network };
        if self.is_handmade && !purpose.is_empty() {
            return Err(PortError::NoNetwork(purpose.to_owned()));
        }
        self.check_unclaimed(logical_port)?;
        self.check_unconnected(network)?;
        let port = self.choose_number(number)?;
        self.attach_workload(interface, port, (logical_port, network))
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

    /// Attaches what may be attached, and remembers it.
    pub(super) fn attach_workload(
        &mut self,
        name: &str,
        port: PortNo,
        (logical_port, network): (&str, &str),
    ) -> Result<PortNo, PortError> {
        self.dataplane.attach(self.workload_spec(port, name))?;
        let (logical_port, network, settings) =
            (logical_port.to_owned(), network.to_owned(), PortSettings::default());
        self.ports.insert(name.to_owned(), Port { port, logical_port, network, settings, trouble: None });
        if let Err(error) = self.save_ports() {
            self.ports.remove(name);
            self.detach(port);
            return Err(error.into());
        }
        self.ports_changed();
        Ok(port)
    }

    /// Detaches an interface.
    ///
    /// # Errors
    /// There is no such port, or the change cannot be saved; then nothing has changed.
    pub fn remove_port(&mut self, interface: &str) -> Result<(), PortError> {
        if self.uplink() == Some(interface) {
            return Err(PortError::IsUplink(interface.to_owned()));
        }
        let port = self.ports.remove(interface).ok_or_else(|| PortError::NotFound(interface.to_owned()))?;
        if let Err(error) = self.save_ports() {
            self.ports.insert(interface.to_owned(), port);
            return Err(error.into());
        }
        if port.is_attached() {
            self.detach(port.port);
        }
        if let Some(lab) = &mut self.lab {
            lab.remove(interface);
        }
        self.ports_changed();
        Ok(())
    }

    /// Looks after links: takes over changes of link state and MTU, lets go of interfaces
    /// that are gone, and attaches those that are back.
    pub fn tend_ports(&mut self) {
        let mut changed = self.let_go();
        for (interface, port) in &mut self.ports {
            if !port.is_attached() {
                match self.dataplane.attach(interface_spec(port.port, interface)) {
                    Ok(_) => {
                        tracing::info!(interface, port = %port.port, "the interface is back");
                        port.trouble = None;
                        changed = true;
                    }
                    Err(error) => port.trouble = Some(error.to_string()),
                }
            }
        }
        if changed || *self.port_table != self.table_of(&self.dataplane.ports()) {
            self.ports_changed();
        }
    }

    /// Lets go of interfaces that are gone. True when there was one.
    fn let_go(&mut self) -> bool {
        let gone: Vec<_> = self.dataplane.ports().into_iter().filter(|status| status.gone).collect();
        let mut changed = false;
        for status in gone {
            let Some((interface, port)) = self.ports.iter_mut().find(|(_, port)| port.port == status.port)
            else {
                continue;
            };
            if port.is_attached() {
                tracing::warn!(interface, port = %port.port, "the interface is gone; waiting for it");
                port.trouble = Some(format!("{interface}: the interface is gone"));
                self.detach(status.port);
                changed = true;
            }
        }
        changed
    }

    /// Ports that are waited for, and why.
    pub(super) fn port_errors(&self) -> impl Iterator<Item = String> {
        self.ports.values().filter_map(|port| port.trouble.clone())
    }

    pub(super) fn attach_uplink(&mut self) -> Result<(), PortError> {
        let Some((interface, ip)) = self.identity.endpoint.clone() else { return Ok(()) };
        let std::net::IpAddr::V4(local) = ip else { return Err(PortError::EncapIp(ip)) };
        let steering = Steering::Tunnel { local, udp_ports: vec![GENEVE_UDP_PORT] };
        self.dataplane.attach(PortSpec {
            port: UPLINK,
            name: interface.clone(),
            device: Device::AfXdp { interface, steering },
        })?;
        Arc::make_mut(&mut self.underlay).tunnels = vec![Self::tunnel_port(ip)];
        self.ports_changed();
        Ok(())
    }

    pub(super) fn restore_ports(&mut self) {
        for saved in self.state.ports() {
            let Ok(port) = PortNo::new(saved.port) else {
                tracing::warn!(?saved, "a saved port has an impossible number and is left out");
                continue;
            };
            if let Some(lab) = &mut self.lab {
                lab.add(&saved.interface, saved.mtu);
            }
            let attached = self.dataplane.attach(self.workload_spec(port, &saved.interface));
            let trouble = attached.err().map(|error| error.to_string());
            if let Some(trouble) = &trouble {
                tracing::warn!(trouble, "a port of the last run cannot be attached; trying again");
            }
            let SavedPort { interface, logical_port, network, settings, .. } = saved;
            self.ports.insert(interface, Port { port, logical_port, network, settings, trouble });
        }
        self.ports_changed();
    }

    fn same_again(
        &self,
        interface: &str,
        present: &Port,
        (logical_port, network): (&str, &str),
        number: Option<PortNo>,
    ) -> Result<PortNo, PortError> {
        if number.is_some_and(|number| number != present.port) {
            return Err(PortError::Differs(interface.to_owned()));
        }
        if (present.logical_port.as_str(), present.network.as_str()) == (logical_port, network) {
            return Ok(present.port);
        }
        let purpose = if present.network.is_empty() { &present.logical_port } else { &present.network };
        Err(PortError::Claimed { interface: interface.to_owned(), present: purpose.clone() })
    }

    /// This number if it is free; without one, the lowest that is.
    pub(super) fn choose_number(&self, wanted: Option<PortNo>) -> Result<PortNo, PortError> {
        // Without a network there is neither uplink nor tunnel.
        let first = if self.is_handmade { 1 } else { FIRST_WORKLOAD };
        if let Some(port) = wanted {
            let owner = self.ports.iter().find(|(_, present)| present.port == port);
            let reserved = (port.get() < first).then_some("the uplink's or the tunnel's");
            return match owner.map(|(name, _)| name.as_str()).or(reserved) {
                Some(name) => Err(PortError::NumberInUse { port, name: name.to_owned() }),
                None => Ok(port),
            };
        }
        (first..=PortNo::MAX_REAL)
            .filter_map(|raw| PortNo::new(raw).ok())
            .find(|number| self.ports.values().all(|port| port.port != *number))
            .ok_or(PortError::Full)
    }

    pub(super) fn save_ports(&self) -> Result<(), StateError> {
        let saved: Vec<_> = self
            .ports
            .iter()
            .map(|(interface, port)| SavedPort {
                port: port.port.get(),
                interface: interface.clone(),
                logical_port: port.logical_port.clone(),
                network: port.network.clone(),
                mtu: self.lab.as_ref().and_then(|lab| lab.mtu(interface)),
                settings: port.settings.clone(),
            })
            .collect();
        self.state.save_ports(&saved)
    }

    /// Makes changed ports visible to packets and to the controller.
    pub(super) fn ports_changed(&mut self) {
        let statuses = self.dataplane.ports();
        let table = Arc::new(self.table_of(&statuses));
        let before = std::mem::replace(&mut self.port_table, table);
        self.lower(SouthboundDelta::default());
        self.publish();
        self.tell_ports(&before);
        let claims = self.ports.values().filter(|port| !port.logical_port.is_empty()).map(|port| Claim {
            logical_port: port.logical_port.clone(),
            up: port.is_attached() && statuses.iter().any(|status| status.port == port.port && status.up),
        });
        let claims = Claims { claims: claims.collect() };
        self.claims.send_if_modified(|sent| {
            let differs = *sent != claims;
            *sent = claims;
            differs
        });
    }

    /// Tells how the ports have changed.
    fn tell_ports(&self, before: &PortTable) {
        let tell = |what, port: PortNo, PortInfo { name, up, mtu, .. }: &PortInfo| {
            let event = PortEvent { what, port, name: name.clone(), up: *up, mtu: *mtu };
            self.events.tell(self.dataplane.now(), Event::Port(event));
        };
        for (port, info) in before.iter().filter(|(port, _)| self.port_table.get(*port).is_none()) {
            tell(PortChange::Removed, port, info);
        }
        for (port, info) in self.port_table.iter() {
            match before.get(port) {
                None => tell(PortChange::Added, port, info),
                Some(old) if old != info => tell(PortChange::Modified, port, info),
                Some(_) => {}
            }
        }
    }

    fn workload_spec(&self, port: PortNo, name: &str) -> PortSpec {
        match self.lab.as_ref().and_then(|lab| lab.memory(name)) {
            Some(memory) => PortSpec { port, name: name.to_owned(), device: Device::Memory(memory.clone()) },
            None => interface_spec(port, name),
        }
    }

    fn table_of(&self, statuses: &[PortStatus]) -> PortTable {
        let mut table = PortTable::default();
        for status in statuses {
            let is_uplink = self.uplink() == Some(&status.name);
            let role = if is_uplink { PortRole::Uplink } else { PortRole::Workload };
            let settings = self.ports.get(&status.name).map(|port| &port.settings);
            if let Some(bridging) = settings.and_then(PortSettings::bridging) {
                table.set_bridging(status.port, bridging);
            }
            let info = PortInfo {
                name: status.name.clone(),
                role,
                up: status.up && settings.is_none_or(|settings| settings.forwards),
                mtu: status.mtu,
                partial_checksums: status.kind == "afxdp",
            };
            table.insert(status.port, info);
        }
        if let Some(uplink) = table.get(UPLINK).filter(|port| port.role == PortRole::Uplink).cloned() {
            let name = TUNNEL_NAME.to_owned();
            table.insert(
                TUNNEL,
                PortInfo { name, role: PortRole::Tunnel, partial_checksums: false, ..uplink },
            );
        }
        table
    }
}

fn interface_spec(port: PortNo, interface: &str) -> PortSpec {
    PortSpec {
        port,
        name: interface.to_owned(),
        device: Device::AfXdp { interface: interface.to_owned(), steering: Steering::All },
    }
}
