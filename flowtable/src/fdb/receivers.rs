//! Which ports hear a group's packets, as somebody who listens to reports has found out. They
//! share the stations' cells: a change makes stale what was decided about the group, and
//! little else.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use super::{Dependency, Fdb};
use crate::types::{MacAddr, PortNo, VlanId};

/// A group in a VLAN; `None`: the ports there that hear every group.
type Key = (VlanId, Option<IpAddr>);

/// Ports by group.
#[derive(Debug, Default)]
pub(super) struct Receivers(Mutex<HashMap<Key, Arc<[PortNo]>>>);

impl Fdb {
    /// Says which ports hear a group, or (without one) every group of the VLAN. `None`:
    /// nothing is known of the group.
    pub fn set_receivers(&self, vlan: VlanId, group: Option<IpAddr>, ports: Option<&BTreeSet<PortNo>>) {
        let mut receivers = self.receivers.0.lock().unwrap_or_else(PoisonError::into_inner);
        match ports {
            Some(ports) => receivers.insert((vlan, group), ports.iter().copied().collect()),
            None => receivers.remove(&(vlan, group)),
        };
        self.turn(&(vlan, cell_address(group)));
    }

    /// Forgets who hears what.
    pub fn forget_receivers(&self) {
        let mut receivers = self.receivers.0.lock().unwrap_or_else(PoisonError::into_inner);
        receivers.drain().for_each(|((vlan, group), _)| self.turn(&(vlan, cell_address(group))));
    }

    /// The ports that hear a group, if that is known, and what says so.
    pub(crate) fn receivers(
        &self,
        vlan: VlanId,
        group: Option<IpAddr>,
    ) -> (Option<Arc<[PortNo]>>, Dependency) {
        let receivers = self.receivers.0.lock().unwrap_or_else(PoisonError::into_inner);
        let dependency = self.dependency(&(vlan, cell_address(group)));
        (receivers.get(&(vlan, group)).map(Arc::clone), dependency)
    }
}

/// An address whose cell is the group's.
fn cell_address(group: Option<IpAddr>) -> MacAddr {
    let bits = match group {
        None => 0,
        Some(IpAddr::V4(group)) => group.to_bits().into(),
        Some(IpAddr::V6(group)) => group.to_bits(),
    };
    let [.., a, b, c, d, e, f] = (bits ^ bits >> 64).to_be_bytes();
    MacAddr::new([a | 1, b, c, d, e, f])
}
