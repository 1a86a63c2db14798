//! Name spaces of tracked connections, and the registers that say which one a packet is
//! in. The numbers mean something on one chassis only; they are kept when it starts again
//! (see [`crate::Lowering::zones`]), so that its connections are still whose they were.

use std::{fmt, ops::RangeInclusive, str::FromStr};

use flowtable::{
    field::{Field, SubField},
    flow::{Action, CtZone},
};

use super::{Context, chassis_of, gateway};
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

/// Zones that are given to nobody who does not ask for one of them.
pub const RESERVED: [RangeInclusive<u16>; 2] = [0..=1023, 64_000..=u16::MAX];

/// What has a zone of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Owner {
    Dnat(DatapathKey),
    Snat(DatapathKey),
    Port(DatapathKey, PortKey),
}

impl Context<'_> {
    /// A packet comes from a port, or goes to one. Only workloads that are here have zones, and
    /// links to routers where connections are tracked.
    pub(super) fn port_zone(&self, id: &str, binding: &PortBinding) -> Action {
        set(PORT, self.port_number(id, binding))
    }

    /// The number of a port's zone; 0: it has none.
    fn port_number(&self, id: &str, binding: &PortBinding) -> u16 {
        let is_here = match &binding.peer {
            None => {
                self.local.ports.contains_key(id)
                    || gateway::interface(self.view, self.local, id, binding).is_some()
            }
            Some(_) => {
                binding.tracked
                    && chassis_of(self.view, self.local, binding) == Some(self.local.chassis.as_str())
            }
        };
        if is_here { self.zone(Owner::Port(binding.datapath, binding.key)) } else { 0 }
    }

    /// The queue that a port's workload sends by, which has the number of the port's zone.
    pub(super) fn queue(&self, id: &str, binding: &PortBinding) -> Option<Action> {
        binding.shaping?;
        let queue = Some(self.port_number(id, binding)).filter(|queue| *queue > 0);
        queue.map(|queue| Action::SetQueue(queue.into()))
    }

    /// A packet enters a datapath.
    pub(super) fn datapath_zones(&self, datapath: DatapathKey) -> [Action; 2] {
        [set(DNAT, self.zone(Owner::Dnat(datapath))), set(SNAT, self.zone(Owner::Snat(datapath)))]
    }

    fn zone(&self, owner: Owner) -> u16 {
        if let Some(zone) = owner.asked(self.view) {
            return zone;
        }
        // Zone 0 is everybody's.
        let zone = self.memory.borrow_mut().zones.get(&owner, owner.hash().into());
        zone.and_then(|zone| u16::try_from(zone).ok()).unwrap_or(0)
    }
}

impl Owner {
    /// All ports of a datapath, as a range.
    pub(super) fn ports_of(datapath: DatapathKey) -> Option<RangeInclusive<Self>> {
        let port = |key: u16| Some(Self::Port(datapath, PortKey::new(key).ok()?));
        Some(port(1)?..=port(u16::MAX)?)
    }

    /// The zone that it asks for.
    pub(super) fn asked(self, view: &Southbound) -> Option<u16> {
        match self {
            Self::Snat(datapath) => view.datapaths.get(&datapath)?.snat_zone,
            Self::Dnat(_) | Self::Port(..) => None,
        }
    }

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

/// As in the list of zones that outlives the process.
impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dnat(datapath) => write!(f, "dnat {datapath}"),
            Self::Snat(datapath) => write!(f, "snat {datapath}"),
            Self::Port(datapath, port) => write!(f, "port {datapath} {port}"),
        }
    }
}

impl FromStr for Owner {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let words: Vec<_> = text.split(' ').collect();
        let datapath = |text: &str| text.parse().ok().and_then(|raw| DatapathKey::new(raw).ok()).ok_or(());
        let port = |text: &str| text.parse().ok().and_then(|raw| PortKey::new(raw).ok()).ok_or(());
        match words[..] {
            ["dnat", of] => Ok(Self::Dnat(datapath(of)?)),
            ["snat", of] => Ok(Self::Snat(datapath(of)?)),
            ["port", of, key] => Ok(Self::Port(datapath(of)?, port(key)?)),
            _ => Err(()),
        }
    }
}

fn set(register: Field, zone: u16) -> Action {
    Action::SetField { field: register, value: zone.into(), mask: 0xffff }
}
