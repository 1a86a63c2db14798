//! The ports as the pipeline sees them: numbers, names, roles. How frames get in and
//! out of them is not known here.

use std::collections::BTreeMap;

use crate::types::PortNo;

/// What a port is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PortRole {
    /// A workload: a container, a machine.
    Workload,
    /// The underlay: carries tunnelled packets to other hosts.
    Uplink,
    /// A tunnel: packets sent to it leave by an uplink, encapsulated.
    Tunnel,
}

/// One port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortInfo {
    /// Name, as in commands.
    pub name: String,
    /// What it is for.
    pub role: PortRole,
    /// It can send and receive.
    pub up: bool,
    /// Largest L3 packet it takes, in bytes.
    pub mtu: u32,
    /// Frames received here may have partial checksums (a veth's do), without anything
    /// that tells which.
    pub partial_checksums: bool,
}

/// All ports of the switch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortTable {
    ports: BTreeMap<PortNo, PortInfo>,
}

impl PortTable {
    /// Adds or replaces a port.
    pub fn insert(&mut self, port: PortNo, info: PortInfo) {
        self.ports.insert(port, info);
    }

    /// Takes a port away.
    pub fn remove(&mut self, port: PortNo) -> Option<PortInfo> {
        self.ports.remove(&port)
    }

    /// A port, if it exists.
    pub fn get(&self, port: PortNo) -> Option<&PortInfo> {
        self.ports.get(&port)
    }

    /// The port with a name.
    pub fn by_name(&self, name: &str) -> Option<PortNo> {
        self.iter().find(|(_, info)| info.name == name).map(|(port, _)| port)
    }

    /// All ports in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (PortNo, &PortInfo)> {
        self.ports.iter().map(|(port, info)| (*port, info))
    }
}
