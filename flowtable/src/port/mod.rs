//! The ports as the pipeline sees them: numbers, names, roles. How frames get in and
//! out of them is not known here.
//!
//! `bridging.rs` says how a port takes part in forwarding, `bond.rs` which ports are one,
//! `mirror.rs` what is copied to where.

mod bond;
mod bridging;
mod mirror;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

pub use self::{
    bond::{Admission, Bond, BondMode, N_SLOTS},
    bridging::{Bridging, PriorityTags, TreeState, VlanMode},
    mirror::{MAX_MIRRORS, Mirror, MirrorOutput},
};
use crate::{account::Accounts, flow::Sample, types::PortNo};

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
    /// that tells which; of an uplink, the frames within its tunnels.
    pub partial_checksums: bool,
}

/// How `NORMAL` forwards what is for groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Snooping {
    /// What is for groups that nobody has asked for goes to all; otherwise to routers only.
    pub floods_unknown: bool,
}

/// All ports of the switch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortTable {
    ports: BTreeMap<PortNo, PortInfo>,
    /// Where it is not the default.
    bridging: BTreeMap<PortNo, Bridging>,
    /// Ports that want something done before the tables.
    n_guarded: usize,
    /// Ports that are several.
    bonds: BTreeMap<PortNo, Arc<Bond>>,
    /// The bond that a port is of.
    bond_of: BTreeMap<PortNo, PortNo>,
    mirrors: Vec<Arc<Mirror>>,
    mirror_ports: BTreeSet<PortNo>,
    snooping: Option<Snooping>,
    sampling: Vec<Sample>,
    accounts: Option<Arc<Accounts>>,
}

impl PortTable {
    /// Adds or replaces a port.
    pub fn insert(&mut self, port: PortNo, info: PortInfo) {
        self.ports.insert(port, info);
    }

    /// Says how a port takes part in forwarding.
    pub fn set_bridging(&mut self, port: PortNo, bridging: Bridging) {
        let guards = usize::from(bridging.is_guarded());
        let old = if bridging == Bridging::default() {
            self.bridging.remove(&port)
        } else {
            self.bridging.insert(port, bridging)
        };
        self.n_guarded += guards;
        self.n_guarded -= usize::from(old.is_some_and(|old| old.is_guarded()));
    }

    /// Makes a port of several. The port has an entry of its own, which says how all of them
    /// take part.
    pub fn set_bond(&mut self, port: PortNo, bond: Bond) {
        self.bond_of.extend(bond.members.iter().map(|member| (*member, port)));
        self.bonds.insert(port, Arc::new(bond));
    }

    /// Says what is copied to where: at most [`MAX_MIRRORS`].
    pub fn set_mirrors(&mut self, mirrors: Vec<Arc<Mirror>>) {
        self.mirror_ports = mirrors.iter().filter_map(|mirror| mirror.output.port()).collect();
        self.mirrors = mirrors;
        self.mirrors.truncate(MAX_MIRRORS);
    }

    /// Says whether `NORMAL` sends what is for groups only to who has asked for them.
    pub fn set_snooping(&mut self, snooping: Option<Snooping>) {
        self.snooping = snooping;
    }

    /// Says which of all packets that ports receive collectors are shown, for each of them.
    pub fn set_sampling(&mut self, sampling: Vec<Sample>) {
        self.sampling = sampling;
    }

    /// Which of all packets collectors are shown.
    pub(crate) fn sampling(&self) -> &[Sample] {
        &self.sampling
    }

    /// Says where flows are counted one by one; `None`: they are not.
    pub fn set_accounts(&mut self, accounts: Option<Arc<Accounts>>) {
        self.accounts = accounts;
    }

    /// Where flows are counted one by one.
    pub(crate) fn accounts(&self) -> Option<&Arc<Accounts>> {
        self.accounts.as_ref()
    }

    /// Something is to be done before the tables.
    pub(crate) fn has_guards(&self) -> bool {
        let watches = !self.mirrors.is_empty() || !self.sampling.is_empty() || self.accounts.is_some();
        self.n_guarded > 0 || watches
    }

    /// How a port takes part in forwarding.
    pub fn bridging(&self, port: PortNo) -> &Bridging {
        static USUAL: Bridging = Bridging::USUAL;
        self.bridging.get(&port).unwrap_or(&USUAL)
    }

    /// The ports that a port stands for, if it does.
    pub fn bond(&self, port: PortNo) -> Option<&Arc<Bond>> {
        self.bonds.get(&port)
    }

    /// The bond that a port is of, or the port itself: what `NORMAL` takes for a port.
    pub fn bundle_of(&self, port: PortNo) -> PortNo {
        self.bond_of.get(&port).copied().unwrap_or(port)
    }

    /// What is copied to where.
    pub fn mirrors(&self) -> &[Arc<Mirror>] {
        &self.mirrors
    }

    /// It gets what a mirror copies, and nothing else by `NORMAL`.
    pub fn is_mirror_port(&self, port: PortNo) -> bool {
        self.mirror_ports.contains(&port)
    }

    /// How `NORMAL` forwards what is for groups; `None`: to all.
    pub fn snooping(&self) -> Option<Snooping> {
        self.snooping
    }

    /// Takes a port away.
    pub fn remove(&mut self, port: PortNo) -> Option<PortInfo> {
        self.set_bridging(port, Bridging::default());
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

    /// Where flooded packets may go, in the order of their numbers: all but the members of
    /// bonds, which get them as one.
    pub(crate) fn bundles(&self) -> impl Iterator<Item = (PortNo, &PortInfo)> {
        self.iter().filter(|(port, _)| !self.bond_of.contains_key(port))
    }
}
