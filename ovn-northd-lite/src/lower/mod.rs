//! From a chassis's view to the rules of its switch.
//!
//! | table | content |
//! |---|---|
//! | 0 | which logical port, or which key of a tunnel, a packet came by |
//! | 7 | packets that the responder made: what the flow they are for says |
//! | 8… | logical ingress, a table per stage |
//! | 54 | output ports on other chassis: into the tunnel |
//! | 56 | output ports here; groups to their members |
//! | 57 | nothing goes back to where it came from, unless allowed |
//! | 62… | logical egress, a table per stage |
//! | 88 | packets that may go back lose their input port |
//! | 89 | out of a port, or through a patch into the next datapath's ingress |
//! | 90 | MAC address of a neighbour, or none |
//! | 91 | whether a neighbour is known with just this MAC address |
//! | 95 | ports that stations were seen behind, learned |
//! | 102 | backends that clients of load balancers had, learned |
//!
//! Numbers are OVN's. `metadata` is the datapath's key, `reg14` and `reg15` those of the
//! logical input and output port, `reg10` the flags. Only a patch leads backwards, within
//! a clone; everything else goes forward.
//!
//! # Invariants
//! - A packet that came by a tunnel never leaves by one: its flag survives patches, and
//!   table 54 looks at it first.
//! - What cannot be lowered never widens what passes. A flow that names an unknown port
//!   in its match has no rule, one that names it in its actions drops; a flow that drops
//!   and whose match cannot be read drops all of its stage at its priority.
//! - The tables take every rule: one flow that is wrong cannot keep the others out.

mod audit;
mod change;
mod gateway;
mod held;
mod incremental;
mod index;
mod logical;
mod memory;
pub(crate) mod meters;
mod neighbours;
mod physical;
mod rules;
mod sets;
mod stale;
mod tunnel;
mod unit;
pub(crate) mod zones;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use flowtable::{
    flow::Rule,
    group::Group,
    meter::MeterConfig,
    set::NamedSet,
    types::{PortNo, TableId, VlanId},
};

pub use audit::{Audit, Drift};
pub use change::LoweredDelta;
pub use gateway::{chassis_of, is_resident};
pub use incremental::Lowering;
pub use neighbours::{Learned, neighbour_rules};
pub use physical::{sent_by_router, sent_to_next_hop, sent_to_workload};
pub use tunnel::tunnel_to;
pub use zones::RESERVED as RESERVED_ZONES;

use crate::{
    delta::diff,
    expr::{self, Constant},
    key::{DatapathKey, PortKey},
    southbound::{MulticastGroup, PortBinding, Southbound, Wire},
};
use index::Index;
use memory::Memory;

/// Which logical ports are on this chassis, and by which ports of the switch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LocalPorts {
    /// Id of the chassis.
    pub chassis: String,
    /// Ports of the switch by logical port.
    pub ports: BTreeMap<String, PortNo>,
    /// Port of the switch that leads into Geneve tunnels.
    pub tunnel: Option<PortNo>,
    /// Port of the switch that leads into VXLAN tunnels.
    pub vxlan: Option<PortNo>,
    /// Ports of the switch by the network they lead to.
    pub networks: BTreeMap<String, PortNo>,
    /// Ids of chassis that do not live, as far as this one can see.
    pub down: BTreeSet<String>,
    /// Logical ports whose workloads have said by RARP that they go on here.
    pub activated: BTreeSet<String>,
}

/// What a view became.
#[derive(Debug, Clone, Default)]
pub struct Lowered {
    /// Rules, in order of table, falling priority and match.
    pub rules: Vec<Rule>,
    /// Sets that the rules name, in order of their names.
    pub sets: Vec<NamedSet>,
    /// Groups that the rules name, in order of their numbers.
    pub groups: Vec<Group>,
    /// Meters that the rules name, in order of their numbers.
    pub meters: Vec<MeterConfig>,
    /// What could not be realised.
    pub errors: Vec<LowerError>,
}

/// Something could not be realised on this chassis.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("{object}: {reason}")]
pub struct LowerError {
    /// Northbound resource, or the chassis.
    pub object: String,
    /// What is wrong.
    pub reason: String,
}

/// Tables of the switch.
const PHYS_TO_LOG: TableId = table(0);
/// Takes the packets that the host's responder makes.
pub const CONTINUATION: TableId = table(7);
const LOG_INGRESS: TableId = table(8);
const REMOTE_OUTPUT: TableId = table(54);
const LOCAL_OUTPUT: TableId = table(56);
const CHECK_LOOPBACK: TableId = table(57);
const LOG_EGRESS: TableId = table(62);
const SAVE_INPORT: TableId = table(88);
const LOG_TO_PHYS: TableId = table(89);
pub(crate) const GET_NEIGHBOUR: TableId = table(90);
pub(crate) const LOOKUP_NEIGHBOUR: TableId = table(91);
pub(crate) const STATIONS: TableId = table(95);
pub(crate) const LB_AFFINITY: TableId = table(102);

/// Stages that fit between the tables above.
const N_INGRESS_STAGES: u8 = REMOTE_OUTPUT.get() - LOG_INGRESS.get();
const N_EGRESS_STAGES: u8 = SAVE_INPORT.get() - LOG_EGRESS.get();

/// Flags in `reg10`, as in OVN.
const ALLOW_LOOPBACK: u128 = 1;
const LOCAL: u128 = 1 << 4;
const FROM_TUNNEL: u128 = 1 << 16;
const REDIRECTED: u128 = 1 << 26;

const fn table(raw: u8) -> TableId {
    match TableId::new(raw) {
        Ok(table) => table,
        Err(_) => panic!("not a table"),
    }
}

/// Lowers a chassis's view. Pure and deterministic.
pub fn lower(view: &Southbound, local: &LocalPorts) -> Lowered {
    let mut lowering = Lowering::default();
    drop(lowering.update(diff(&Southbound::default(), view), local.clone()));
    lowering.lowered()
}

/// What all units look things up in.
struct Context<'a> {
    view: &'a Southbound,
    local: &'a LocalPorts,
    index: &'a Index,
    memory: RefCell<&'a mut Memory>,
}

/// Frames of a port of the switch, by their tag.
type Interface = (PortNo, Tag);

/// Tags of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Tag {
    /// Whatever they have.
    Any,
    /// None.
    None,
    /// This one.
    One(VlanId),
}

/// How a packet gets to a logical port from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place<'a> {
    /// By a port of this switch, in frames with this tag.
    Here(Interface),
    /// Through a patch, to the peer.
    Patch(&'a PortBinding),
    /// The same, of a router that is on this chassis alone.
    Pinned(&'a PortBinding),
    /// Here, once it is routed again from this table on.
    Again(TableId),
    /// On another chassis.
    Remote(&'a str),
    /// On another chassis, by the network outside that this port leads to.
    Outside(&'a str, &'a PortBinding),
    /// A gateway on another chassis, by the switch that this port is of.
    Bridged(&'a PortBinding),
    /// Not now.
    Nowhere,
}

impl<'a> Context<'a> {
    /// Ports of a datapath.
    fn ports(&self, datapath: DatapathKey) -> impl Iterator<Item = (&'a str, &'a PortBinding)> + use<'a> {
        let view = self.view;
        self.index.ports(datapath).filter_map(move |id| Some((id.as_str(), view.bindings.get(id)?)))
    }

    /// The logical port that frames of a port of the switch are for.
    fn holder(&self, interface: Interface) -> Option<&'a str> {
        self.index.holders.get(&interface)?.first().map(|(_, id)| id.as_str())
    }

    /// Members of a set.
    fn set(&self, name: expr::SetName<'_>) -> Option<Vec<Constant>> {
        let members = self.view.sets.get(&name.to_string())?;
        Some(match name {
            expr::SetName::Addresses(_) => members.iter().filter_map(|text| expr::constant(text)).collect(),
            expr::SetName::Ports(_) => members.iter().cloned().map(Constant::Port).collect(),
            // With one that cannot be compared, it would be another set.
            expr::SetName::Variable(_) => {
                members.iter().map(|text| expr::constant(text)).collect::<Option<_>>()?
            }
        })
    }

    /// Key of a port or group.
    fn key(&self, datapath: DatapathKey, name: &str) -> Option<u16> {
        key_of(self.view, datapath, name)
    }

    fn place(&self, id: &str, binding: &'a PortBinding) -> Place<'a> {
        if binding.wire == Wire::External {
            let network = self.index.outside.get(&binding.datapath);
            let network = network.and_then(|id| self.view.bindings.get_key_value(id));
            return network.map_or(Place::Nowhere, |(id, network)| Place::Outside(id, network));
        }
        let chassis = chassis_of(self.view, self.local, binding);
        let is_additional = binding.additional.contains(&self.local.chassis);
        if let Some(elsewhere) = chassis.filter(|chassis| *chassis != self.local.chassis && !is_additional) {
            return self.place_elsewhere(binding, elsewhere);
        }
        let is_redirect = matches!(binding.wire, Wire::Redirect { .. });
        if let Some(peer) = binding.peer.as_ref().filter(|_| !is_redirect) {
            let way = if chassis.is_some() { Place::Pinned } else { Place::Patch };
            return self.view.bindings.get(peer).map_or(Place::Nowhere, way);
        }
        let place = match &binding.wire {
            Wire::Redirect { stage } => logical::ingress_table(*stage).map(Place::Again),
            _ => gateway::interface(self.view, self.local, id, binding).map(Place::Here),
        };
        place.unwrap_or(Place::Nowhere)
    }

    /// The way to what another chassis has.
    fn place_elsewhere(&self, binding: &'a PortBinding, chassis: &'a str) -> Place<'a> {
        if let (Wire::Redirect { .. }, Some(peer)) = (&binding.wire, &binding.peer) {
            return self.view.bindings.get(peer).map_or(Place::Nowhere, Place::Bridged);
        }
        let outside = self.index.outside.get(&binding.datapath);
        match (outside.and_then(|id| self.view.bindings.get_key_value(id)), &binding.wire) {
            // A router's side of a gateway port: packets are sent to its gateway instead.
            (_, Wire::Own) if binding.peer.is_some() && self.is_router(binding.datapath) => Place::Nowhere,
            (_, Wire::EachChassis) => Place::Nowhere,
            // Who is outside knows one of its places.
            _ if !binding.additional.is_empty() => Place::Remote(chassis),
            (Some((id, network)), _) => Place::Outside(id, network),
            (None, _) => Place::Remote(chassis),
        }
    }

    fn is_router(&self, datapath: DatapathKey) -> bool {
        self.view.datapaths.get(&datapath).is_some_and(|datapath| datapath.is_router)
    }

    /// Northbound name of a datapath.
    fn datapath_object(&self, datapath: DatapathKey) -> String {
        self.view.datapaths.get(&datapath).map(|datapath| datapath.name.clone()).unwrap_or_default()
    }

    /// Northbound name of a port.
    fn port_object(&self, id: &str, binding: &PortBinding) -> String {
        format!("{}/ports/{id}", self.datapath_object(binding.datapath))
    }
}

/// Groups of a datapath.
fn groups_of(
    view: &Southbound,
    datapath: DatapathKey,
) -> impl Iterator<Item = (PortKey, &MulticastGroup)> + use<'_> {
    let first = PortKey::new(1).ok().map(|key| (datapath, key));
    let groups = first.into_iter().flat_map(|first| view.groups.range(first..));
    groups.take_while(move |((of, _), _)| *of == datapath).map(|((_, key), group)| (*key, group))
}

/// Key of a port or group of a datapath.
fn key_of(view: &Southbound, datapath: DatapathKey, name: &str) -> Option<u16> {
    let group = groups_of(view, datapath).find(|(_, group)| group.name == name).map(|(key, _)| key);
    let port = || view.bindings.get(name).filter(|binding| binding.datapath == datapath);
    group.or_else(|| port().map(|binding| binding.key)).map(PortKey::get)
}

#[cfg(test)]
mod tests;
