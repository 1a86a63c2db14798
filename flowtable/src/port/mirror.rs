//! What is copied to where, for whoever looks at it.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use crate::{
    flow::{Match, RuleStats},
    types::{PortNo, VlanId},
};

/// Mirrors of a bridge at most: a bit each.
pub const MAX_MIRRORS: usize = 32;

/// Where copies go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MirrorOutput {
    /// To a port, which has nothing else.
    Port(PortNo),
    /// To all ports in a VLAN, which has nothing else.
    Vlan(VlanId),
    /// Through a tunnel.
    Tunnel {
        /// The tunnel's port, which has other packets as well.
        port: PortNo,
        /// Where it ends.
        remote: IpAddr,
        /// The network that copies are in there.
        key: u32,
    },
}

impl MirrorOutput {
    /// The port that has nothing else.
    pub(super) fn port(self) -> Option<PortNo> {
        match self {
            Self::Port(port) => Some(port),
            Self::Vlan(_) | Self::Tunnel { .. } => None,
        }
    }
}

/// A mirror: a copy of each packet that it chooses.
#[derive(Debug, Clone)]
pub struct Mirror {
    /// Its name.
    pub name: String,
    /// Packets that come by these ports; `None`: by any.
    pub from: Option<BTreeSet<PortNo>>,
    /// Packets that leave by these ports; `None`: by any.
    pub to: Option<BTreeSet<PortNo>>,
    /// Of these VLANs; `None`: of any.
    pub vlans: Option<BTreeSet<VlanId>>,
    /// Only what matches, without named sets and ranges.
    pub filter: Match,
    /// Where the copies go.
    pub output: MirrorOutput,
    /// They are cut to so many bytes.
    pub max_len: Option<u32>,
    /// What counts them.
    pub stats: Arc<RuleStats>,
}

/// But for what has been counted.
impl PartialEq for Mirror {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, &self.from, &self.to) == (&other.name, &other.from, &other.to)
            && (&self.vlans, &self.filter) == (&other.vlans, &other.filter)
            && (self.output, self.max_len) == (other.output, other.max_len)
            && Arc::ptr_eq(&self.stats, &other.stats)
    }
}

impl Eq for Mirror {}

impl Mirror {
    /// It chooses packets of this VLAN that come or leave by this port.
    pub(crate) fn chooses(&self, port: PortNo, vlan: Option<VlanId>, comes: bool) -> bool {
        let ports = if comes { &self.from } else { &self.to };
        let in_vlan = |vlans: &BTreeSet<VlanId>| vlan.is_some_and(|vlan| vlans.contains(&vlan));
        ports.as_ref().is_none_or(|ports| ports.contains(&port)) && self.vlans.as_ref().is_none_or(in_vlan)
    }
}
