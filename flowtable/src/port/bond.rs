//! Ports that are several: which of them a packet leaves by, and which take one that comes.
//! Who is used and who is active is found out elsewhere.

use std::{collections::BTreeSet, sync::Arc};

use crate::{flow::RuleStats, types::PortNo};

/// Slots that packets are hashed to.
pub const N_SLOTS: usize = 256;

/// How a bond uses its members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BondMode {
    /// One at a time.
    ActiveBackup,
    /// All, by source address and VLAN; the neighbours need not know.
    BalanceSlb,
    /// All, by addresses and ports; the neighbour knows.
    BalanceTcp,
}

/// What becomes of a packet that comes by a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Admission {
    /// It is taken.
    Taken,
    /// It is dropped.
    Dropped,
    /// It is dropped if its source is known to be elsewhere: then it is our own, and came
    /// back by the neighbour.
    UnlessOwn,
}

/// Some ports that are one.
#[derive(Debug, Clone)]
pub struct Bond {
    /// How it uses them.
    pub mode: BondMode,
    /// Its ports.
    pub members: Vec<PortNo>,
    /// Those that are used.
    pub enabled: BTreeSet<PortNo>,
    /// The one that is used where only one can be.
    pub active: Option<PortNo>,
    /// The neighbour knows of the bond, by LACP.
    pub negotiated: bool,
    /// By which member each slot's packets leave: [`N_SLOTS`].
    pub slots: Vec<Option<PortNo>>,
    /// What counts each slot's packets: [`N_SLOTS`].
    pub loads: Arc<[Arc<RuleStats>]>,
}

/// But for what has been counted.
impl PartialEq for Bond {
    fn eq(&self, other: &Self) -> bool {
        (self.mode, &self.members, &self.enabled) == (other.mode, &other.members, &other.enabled)
            && (self.active, self.negotiated) == (other.active, other.negotiated)
            && self.slots == other.slots
            && Arc::ptr_eq(&self.loads, &other.loads)
    }
}

impl Eq for Bond {}

impl Bond {
    /// What becomes of a packet that comes by a member; `to_many`: it is for more than one
    /// station.
    pub fn admits(&self, member: PortNo, to_many: bool) -> Admission {
        let taken = |is_taken| if is_taken { Admission::Taken } else { Admission::Dropped };
        if self.negotiated {
            return taken(self.enabled.contains(&member));
        }
        let is_active = self.active == Some(member);
        match self.mode {
            // The neighbours, which know nothing of the bond, send such to each member.
            _ if to_many && !is_active => Admission::Dropped,
            BondMode::BalanceSlb => Admission::UnlessOwn,
            BondMode::ActiveBackup | BondMode::BalanceTcp => taken(is_active),
        }
    }

    /// The member by which packets of this hash leave, and what counts them.
    pub(crate) fn choose(&self, hash: u64) -> Option<(PortNo, &Arc<RuleStats>)> {
        let slot = (hash % N_SLOTS as u64) as usize;
        Some(((*self.slots.get(slot)?)?, self.loads.get(slot)?))
    }
}
