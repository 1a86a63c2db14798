//! The ports as the pipeline sees them: numbers, names, roles. How frames get in and
//! out of them is not known here.

use std::collections::{BTreeMap, BTreeSet};

use crate::types::{PortNo, VlanId};

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

/// Which VLANs' frames a port takes, and which of them have a tag on it: what `NORMAL` does
/// there. Rules that name the port are not concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum VlanMode {
    /// Frames have tags; one without is in VLAN 0.
    #[default]
    Trunk,
    /// Frames have no tags and are in this VLAN; one with a tag is dropped.
    Access(VlanId),
    /// As a trunk, but frames without a tag are in this VLAN, and leave with one.
    NativeTagged(VlanId),
    /// As a trunk, but frames without a tag are in this VLAN, and leave without one.
    NativeUntagged(VlanId),
}

/// How a port takes part in forwarding, as its owner has set it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridging {
    /// Tags.
    pub mode: VlanMode,
    /// VLANs of a trunk besides its native one; `None`: all.
    pub trunks: Option<BTreeSet<VlanId>>,
    /// It gets flooded frames.
    pub floods: bool,
    /// It takes packets; otherwise they are dropped before the tables.
    pub receives: bool,
    /// Its packets go to controllers when a table has no rule for them and says so.
    pub packet_ins: bool,
    /// `NORMAL` sends nothing from one protected port to another.
    pub protected: bool,
}

impl Default for Bridging {
    fn default() -> Self {
        Self::USUAL
    }
}

impl Bridging {
    /// A trunk that takes, sends and floods everything.
    const USUAL: Self = Self {
        mode: VlanMode::Trunk,
        trunks: None,
        floods: true,
        receives: true,
        packet_ins: true,
        protected: false,
    };

    /// The VLAN that a received frame with this id in its tag is in; 0: no tag, or none of
    /// importance. `None`: the port does not take it.
    pub fn vlan_in(&self, vid: VlanId) -> Option<VlanId> {
        let vlan = match self.mode {
            VlanMode::Access(vlan) => return (vid.get() == 0).then_some(vlan),
            VlanMode::NativeTagged(native) | VlanMode::NativeUntagged(native) if vid.get() == 0 => native,
            _ => vid,
        };
        self.has(vlan).then_some(vlan)
    }

    /// The id in the tag of a frame of this VLAN that leaves; 0: no tag. `None`: the port is
    /// not in that VLAN.
    pub fn vid_out(&self, vlan: VlanId) -> Option<VlanId> {
        let untagged = match self.mode {
            VlanMode::Access(own) | VlanMode::NativeUntagged(own) => vlan == own,
            VlanMode::Trunk | VlanMode::NativeTagged(_) => false,
        };
        self.has(vlan).then_some(if untagged { VlanId::NONE } else { vlan })
    }

    fn has(&self, vlan: VlanId) -> bool {
        match self.mode {
            VlanMode::Access(own) => own == vlan,
            VlanMode::NativeTagged(native) | VlanMode::NativeUntagged(native) if native == vlan => true,
            _ => self.trunks.as_ref().is_none_or(|trunks| trunks.contains(&vlan)),
        }
    }
}

/// All ports of the switch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortTable {
    ports: BTreeMap<PortNo, PortInfo>,
    /// Where it is not the default.
    bridging: BTreeMap<PortNo, Bridging>,
    /// Ports that take no packets.
    n_closed: usize,
}

impl PortTable {
    /// Adds or replaces a port.
    pub fn insert(&mut self, port: PortNo, info: PortInfo) {
        self.ports.insert(port, info);
    }

    /// Says how a port takes part in forwarding.
    pub fn set_bridging(&mut self, port: PortNo, bridging: Bridging) {
        let closes = usize::from(!bridging.receives);
        let old = if bridging == Bridging::default() {
            self.bridging.remove(&port)
        } else {
            self.bridging.insert(port, bridging)
        };
        self.n_closed += closes;
        self.n_closed -= usize::from(old.is_some_and(|old| !old.receives));
    }

    /// Some port takes no packets.
    pub(crate) fn has_closed(&self) -> bool {
        self.n_closed > 0
    }

    /// How a port takes part in forwarding.
    pub fn bridging(&self, port: PortNo) -> &Bridging {
        static USUAL: Bridging = Bridging::USUAL;
        self.bridging.get(&port).unwrap_or(&USUAL)
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
}
