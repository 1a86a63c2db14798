//! How a port takes part in forwarding, as its owner has set it and as the protocols between
//! bridges have found out.

use std::collections::BTreeSet;

use crate::types::VlanId;

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
    /// All frames are in this VLAN, whatever tags they have: those are the customer's, and
    /// stay (IEEE 802.1ad).
    Tunnel(VlanId),
}

/// When frames that leave without a VLAN have a tag all the same, for their priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PriorityTags {
    /// Never.
    #[default]
    No,
    /// When their priority is not 0.
    IfNonzero,
    /// Always.
    Always,
}

/// What may pass a port, as the spanning tree has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TreeState {
    /// Nothing.
    Discarding,
    /// Nothing, but where stations are is learned.
    Learning,
    /// Everything.
    #[default]
    Forwarding,
}

/// How a port takes part in forwarding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridging {
    /// Tags.
    pub mode: VlanMode,
    /// VLANs of a trunk besides its native one, and customers' VLANs of a tunnel; `None`: all.
    pub trunks: Option<BTreeSet<VlanId>>,
    /// Tags for priorities.
    pub priority_tags: PriorityTags,
    /// It gets flooded frames.
    pub floods: bool,
    /// It takes packets; otherwise they are dropped before the tables.
    pub receives: bool,
    /// Its packets go to controllers when a table has no rule for them and says so.
    pub packet_ins: bool,
    /// `NORMAL` sends nothing from one protected port to another.
    pub protected: bool,
    /// What may pass.
    pub tree: TreeState,
    /// The host itself listens on it at these of the addresses that bridges keep for
    /// themselves, 01:80:c2:00:00:00 to 0f: a bit for each.
    pub listens: u16,
    /// The host is an end of what watches over the link (IEEE 802.1ag): of this level, and takes
    /// what is of it or below.
    pub fault_level: Option<u8>,
    /// It gets what hosts say that they want to hear, as ports of routers do.
    pub hears_reports: bool,
    /// The host has a session of bidirectional forwarding detection (RFC 5881) by it.
    pub has_bfd: bool,
}

impl Default for Bridging {
    fn default() -> Self {
        Self::USUAL
    }
}

impl Bridging {
    /// A trunk that takes, sends and floods everything.
    pub(super) const USUAL: Self = Self {
        mode: VlanMode::Trunk,
        trunks: None,
        priority_tags: PriorityTags::No,
        floods: true,
        receives: true,
        packet_ins: true,
        protected: false,
        tree: TreeState::Forwarding,
        listens: 0,
        fault_level: None,
        hears_reports: false,
        has_bfd: false,
    };

    /// Something is to be done with its packets before the tables.
    pub(super) fn is_guarded(&self) -> bool {
        !self.receives || self.listens_at_all() || self.tree != TreeState::Forwarding
    }

    /// Some of its frames are for the host itself.
    pub(crate) fn listens_at_all(&self) -> bool {
        self.listens != 0 || self.fault_level.is_some() || self.has_bfd
    }

    /// Tags of received frames are the customer's.
    pub fn is_tunnel(&self) -> bool {
        matches!(self.mode, VlanMode::Tunnel(_))
    }

    /// The VLAN that a received frame with this id in its tag is in; 0: no tag, or none of
    /// importance. `None`: the port does not take it.
    pub fn vlan_in(&self, vid: VlanId) -> Option<VlanId> {
        let vlan = match self.mode {
            VlanMode::Access(vlan) => return (vid.get() == 0).then_some(vlan),
            VlanMode::Tunnel(vlan) => return self.takes_customer(vid).then_some(vlan),
            VlanMode::NativeTagged(native) | VlanMode::NativeUntagged(native) if vid.get() == 0 => native,
            _ => vid,
        };
        self.has(vlan).then_some(vlan)
    }

    /// The id in the tag of a frame of this VLAN that leaves; 0: no tag. `None`: the port is
    /// not in that VLAN.
    pub fn vid_out(&self, vlan: VlanId) -> Option<VlanId> {
        let untagged = match self.mode {
            VlanMode::Access(own) | VlanMode::NativeUntagged(own) | VlanMode::Tunnel(own) => vlan == own,
            VlanMode::Trunk | VlanMode::NativeTagged(_) => false,
        };
        self.has(vlan).then_some(if untagged { VlanId::NONE } else { vlan })
    }

    /// Of a tunnel: it takes frames with this id in the customer's tag; 0: none.
    pub fn takes_customer(&self, vid: VlanId) -> bool {
        vid == VlanId::NONE || self.trunks.as_ref().is_none_or(|vids| vids.contains(&vid))
    }

    fn has(&self, vlan: VlanId) -> bool {
        match self.mode {
            VlanMode::Access(own) | VlanMode::Tunnel(own) => own == vlan,
            VlanMode::NativeTagged(native) | VlanMode::NativeUntagged(native) if native == vlan => true,
            _ => self.trunks.as_ref().is_none_or(|trunks| trunks.contains(&vlan)),
        }
    }
}
