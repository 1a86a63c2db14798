//! Between chassis: which ports are elsewhere, and what tunnels carry.
//!
//! The tunnel key is the datapath's. Of Geneve, the option's value has the logical input
//! port in bits 16 to 30 and the output port or group in bits 0 to 15, as in OVN. VXLAN has
//! no options: the output port or group is the id of its group policy, so that keys have no
//! other bounds than with Geneve, and the input port is not told. A packet that arrives has
//! been through ingress already and goes on with the output.
//!
//! A packet to another chassis goes the way which that chassis likes best of those that this
//! one has.

use std::{collections::BTreeSet, net::IpAddr};

use flowtable::{
    field::{Field, SubField},
    flow::Action,
    program::TunnelKind,
    types::PortNo,
};

use super::{
    Context, FROM_TUNNEL, LOCAL_OUTPUT, LocalPorts, PHYS_TO_LOG, Place, REMOTE_OUTPUT, chassis_of,
    physical::{members, to_member},
    rules::{RuleSet, set},
};
use crate::{
    key::DatapathKey,
    southbound::{ChassisRecord, MulticastGroup, PortBinding},
    view::hosts_of,
};

/// The output port in the option.
const OPTION_OUTPORT: SubField = SubField { field: Field::TunMetadata0, start: 0, n_bits: 16 };
/// The input port in the option.
const OPTION_INPORT: SubField = SubField { field: Field::TunMetadata0, start: 16, n_bits: 15 };
const INPORT: SubField = SubField { field: Field::Reg14, start: 0, n_bits: 15 };
const OUTPORT: SubField = SubField { field: Field::Reg15, start: 0, n_bits: 16 };
/// The output port in VXLAN's group policy.
const POLICY_OUTPORT: SubField = SubField { field: Field::TunGbpId, start: 0, n_bits: 16 };

/// Port of the switch that leads into tunnels to another chassis, and how they encapsulate.
/// `None`: the two have no encapsulation in common.
pub fn tunnel_to(chassis: &ChassisRecord, local: &LocalPorts) -> Option<(TunnelKind, PortNo)> {
    chassis.encap_types().iter().find_map(|kind| Some((*kind, tunnel_of(*kind, local)?)))
}

impl LocalPorts {
    /// The ports that lead into tunnels.
    pub(super) fn tunnels(&self) -> [Option<PortNo>; 2] {
        [self.tunnel, self.vxlan]
    }
}

fn tunnel_of(kind: TunnelKind, local: &LocalPorts) -> Option<PortNo> {
    match kind {
        TunnelKind::Geneve => local.tunnel,
        TunnelKind::Vxlan => local.vxlan,
        // It cannot say which port a packet is for.
        TunnelKind::Gre => None,
    }
}

/// What came by a tunnel never leaves by one.
pub(super) fn defaults(rules: &mut RuleSet) {
    let flag = [(Field::Reg10, FROM_TUNNEL, FROM_TUNNEL)];
    let stay = vec![Action::GotoTable(LOCAL_OUTPUT)];
    rules.physical_masked(REMOTE_OUTPUT, 200, &flag, stay, String::new());
}

/// Packets of a datapath that arrive by tunnels.
pub(super) fn receive(context: &Context<'_>, rules: &mut RuleSet, datapath: DatapathKey) {
    for kind in TunnelKind::OF_NETWORKS {
        receive_by(context, rules, datapath, kind);
    }
}

fn receive_by(context: &Context<'_>, rules: &mut RuleSet, datapath: DatapathKey, kind: TunnelKind) {
    let Some(tunnel) = tunnel_of(kind, context.local) else { return };
    let key = u128::from(datapath.get());
    let matching = [(Field::InPort, tunnel.get().into()), (Field::TunId, key)];
    let mut actions = vec![set(Field::Metadata, key), set(Field::Reg14, 0)];
    let outport = match kind {
        TunnelKind::Geneve => {
            actions.push(Action::Move { src: OPTION_INPORT, dst: INPORT });
            OPTION_OUTPORT
        }
        TunnelKind::Vxlan => POLICY_OUTPORT,
        TunnelKind::Gre => return,
    };
    actions.extend([
        set(Field::Reg15, 0),
        Action::Move { src: outport, dst: OUTPORT },
        Action::SetField { field: Field::Reg10, value: FROM_TUNNEL, mask: FROM_TUNNEL },
        Action::GotoTable(LOCAL_OUTPUT),
    ]);
    rules.physical(PHYS_TO_LOG, 100, &matching, actions, context.datapath_object(datapath));
}

/// A port on another chassis; while its workload moves, on several.
pub(super) fn port<'a>(context: &Context<'a>, rules: &mut RuleSet, id: &str, binding: &'a PortBinding) {
    let place = context.place(id, binding);
    if !binding.additional.is_empty() {
        return moving(context, rules, (id, binding), place);
    }
    let Place::Remote(chassis) = place else { return };
    let object = context.port_object(id, binding);
    let (datapath, key) = (binding.datapath, u128::from(binding.key.get()));
    let actions = send(context, rules, datapath, key, chassis).unwrap_or_default();
    let to = [(Field::Metadata, datapath.get().into()), (Field::Reg15, key)];
    rules.physical(REMOTE_OUTPUT, 100, &to, actions, object.clone());
    // Reached only by a packet that came by a tunnel: the sender has an old view.
    rules.physical(LOCAL_OUTPUT, 100, &to, Vec::new(), object);
}

/// A port whose workload moves: what is sent to it goes to all chassis that have an interface of
/// it. Who has none leaves to them what comes by the network outside, which they hear too.
fn moving<'a>(
    context: &Context<'a>,
    rules: &mut RuleSet,
    (id, binding): (&str, &'a PortBinding),
    place: Place<'a>,
) {
    if !matches!(place, Place::Here(_) | Place::Remote(_)) {
        return;
    }
    let object = context.port_object(id, binding);
    let (datapath, key) = (binding.datapath, u128::from(binding.key.get()));
    let to = [(Field::Metadata, datapath.get().into()), (Field::Reg15, key)];
    let others = hosts_of(binding).filter(|chassis| *chassis != context.local.chassis);
    let copies = others.filter_map(|chassis| send(context, rules, datapath, key, chassis));
    let mut actions: Vec<_> = copies.map(Action::Clone).collect();
    if matches!(place, Place::Here(_)) {
        actions.push(Action::GotoTable(LOCAL_OUTPUT));
    } else {
        rules.physical(LOCAL_OUTPUT, 100, &to, Vec::new(), object.clone());
        let network = context.index.outside.get(&datapath).and_then(|id| context.view.bindings.get(id));
        if let Some(network) = network {
            let [datapath, port] = to;
            let from = [datapath, port, (Field::Reg14, network.key.get().into())];
            rules.physical(REMOTE_OUTPUT, 110, &from, Vec::new(), object.clone());
        }
    }
    rules.physical(REMOTE_OUTPUT, 100, &to, actions, object);
}

/// A group: one copy for each other chassis with members, one through each patch, and
/// then the members here.
pub(super) fn group<'a>(
    context: &Context<'a>,
    rules: &mut RuleSet,
    datapath: DatapathKey,
    key: u128,
    group: &'a MulticastGroup,
) {
    let mut chassis = BTreeSet::new();
    let mut actions = Vec::new();
    let has_network = context.index.outside.contains_key(&datapath);
    for (id, binding) in members(context, datapath, group) {
        match context.place(id, binding) {
            // The network outside carries what is for everybody.
            Place::Remote(_) | Place::Here(_) if !binding.additional.is_empty() => {
                let others = hosts_of(binding).filter(|chassis| *chassis != context.local.chassis);
                chassis.extend(others.filter(|_| !has_network));
            }
            Place::Remote(other) => {
                chassis.insert(other);
            }
            Place::Patch(_) => actions.push(to_member(context, id, binding)),
            // A port of a router that is on another chassis: that one passes it on.
            Place::Nowhere if !binding.gateway.is_empty() => {
                let gateway = chassis_of(context.view, context.local, binding);
                chassis.extend(gateway.filter(|gateway| *gateway != context.local.chassis));
            }
            Place::Here(_)
            | Place::Pinned(_)
            | Place::Again(_)
            | Place::Outside(..)
            | Place::Bridged(_)
            | Place::Nowhere => {}
        }
    }
    let copies = chassis.into_iter().filter_map(|chassis| send(context, rules, datapath, key, chassis));
    let copies: Vec<_> = copies.map(Action::Clone).collect();
    let actions = copies.into_iter().chain(actions).chain([Action::GotoTable(LOCAL_OUTPUT)]).collect();
    let to = [(Field::Metadata, datapath.get().into()), (Field::Reg15, key)];
    rules.physical(REMOTE_OUTPUT, 100, &to, actions, context.datapath_object(datapath));
}

/// Into the tunnel to another chassis.
fn send(
    context: &Context<'_>,
    rules: &mut RuleSet,
    datapath: DatapathKey,
    outport: u128,
    chassis: &str,
) -> Option<Vec<Action>> {
    let object = format!("chassis/{chassis}");
    let Some(record) = context.view.chassis.get(chassis) else {
        rules.error(object, "its address is not known");
        return None;
    };
    let Some((kind, tunnel)) = tunnel_to(record, context.local) else {
        rules.error(object, no_way(record, context.local));
        return None;
    };
    let remote = match record.encap_ip {
        IpAddr::V4(ip) => set(Field::TunDst, u32::from(ip).into()),
        IpAddr::V6(ip) => set(Field::TunIpv6Dst, ip.into()),
    };
    let mut actions = vec![set(Field::TunId, datapath.get().into()), remote];
    match kind {
        TunnelKind::Geneve => actions
            .extend([set(Field::TunMetadata0, outport), Action::Move { src: INPORT, dst: OPTION_INPORT }]),
        TunnelKind::Vxlan => actions.push(set(Field::TunGbpId, outport)),
        TunnelKind::Gre => return None,
    }
    actions.push(Action::Output(tunnel));
    Some(actions)
}

/// Why there is no tunnel to a chassis.
fn no_way(record: &ChassisRecord, local: &LocalPorts) -> String {
    if local.tunnel.is_none() && local.vxlan.is_none() {
        return "this chassis has no tunnel port to reach it".to_owned();
    }
    let names: Vec<_> = record.encap_types().iter().map(|kind| kind.name()).collect();
    let names = names.join(",");
    format!("it is reached by {names}, which this chassis does not have; give them an --encap-type in common")
}
