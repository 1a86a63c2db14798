//! Name spaces of tracked connections, and the registers that say which one a packet is
//! in. The numbers mean something on one chassis only.
//!
//! A zone's number is a hash of what it is for, so that it is the same after each
//! restart; of two with the same hash the later one by key takes the next free number.

use std::collections::BTreeMap;

use flowtable::{
    field::{Field, SubField},
    flow::{Action, CtZone},
};

use crate::{
    key::{DatapathKey, PortKey, hash32},
    southbound::{PortBinding, Southbound},
};

/// Register with the zone of the port a packet is from, or for.
pub(crate) const PORT: Field = Field::Reg13;
/// Register with the datapath's zone for translated destinations.
pub(crate) const DNAT: Field = Field::Reg11;
/// Register with the datapath's zone for translated sources.
pub(crate) const SNAT: Field = Field::Reg12;

/// The zone whose number a register has.
pub(crate) const fn from_register(register: Field) -> CtZone {
    CtZone::Field(SubField { field: register, start: 0, n_bits: 16 })
}

/// What has a zone of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Owner {
    Dnat(DatapathKey),
    Snat(DatapathKey),
    Port(DatapathKey, PortKey),
}

/// The zones of a chassis's view.
pub(super) struct Zones(BTreeMap<Owner, u16>);

impl Zones {
    pub(super) fn of(view: &Southbound) -> Self {
        let datapaths = view.datapaths.keys().flat_map(|key| [Owner::Dnat(*key), Owner::Snat(*key)]);
        let workloads = view.bindings.values().filter(|binding| binding.peer.is_none());
        let ports = workloads.map(|binding| Owner::Port(binding.datapath, binding.key));
        let mut owners: Vec<_> = datapaths.chain(ports).collect();
        owners.sort_unstable();
        let mut taken = BTreeMap::new();
        let mut zones = BTreeMap::new();
        for owner in owners {
            // Zone 0 is everybody's.
            let mut zone = owner.hash().max(1);
            while taken.contains_key(&zone) && taken.len() < usize::from(u16::MAX) {
                zone = zone.wrapping_add(1).max(1);
            }
            taken.insert(zone, owner);
            zones.insert(owner, zone);
        }
        Self(zones)
    }

    /// A packet comes from a port, or goes to one.
    pub(super) fn of_port(&self, binding: &PortBinding) -> Action {
        let zone = self.0.get(&Owner::Port(binding.datapath, binding.key));
        set(PORT, zone.copied().unwrap_or(0))
    }

    /// A packet enters a datapath.
    pub(super) fn of_datapath(&self, datapath: DatapathKey) -> [Action; 2] {
        let zone = |owner| self.0.get(&owner).copied().unwrap_or(0);
        [set(DNAT, zone(Owner::Dnat(datapath))), set(SNAT, zone(Owner::Snat(datapath)))]
    }
}

impl Owner {
    fn hash(self) -> u16 {
        let (kind, datapath, port) = match self {
            Self::Dnat(datapath) => (0, datapath, 0),
            Self::Snat(datapath) => (1, datapath, 0),
            Self::Port(datapath, port) => (2, datapath, port.get()),
        };
        let [_, a, b, c] = datapath.get().to_be_bytes();
        let [d, e] = port.to_be_bytes();
        let hash = hash32(&[kind, a, b, c, d, e]);
        (hash ^ hash >> 16) as u16
    }
}

fn set(register: Field, zone: u16) -> Action {
    Action::SetField { field: register, value: zone.into(), mask: 0xffff }
}
