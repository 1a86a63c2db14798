//! Who has what several chassis may have: the best of the candidates that live, as far as
//! this chassis can see. And what follows from that: packets for a gateway that is here,
//! floating addresses that are on their workloads' chassis, ports that each chassis has
//! for itself.

use std::collections::BTreeMap;

use flowtable::{
    field::Field,
    flow::{Action, ToController},
    types::{PortNo, TableId},
};

use super::{
    CHECK_LOOPBACK, Context, Interface, LOCAL, LOCAL_OUTPUT, LocalPorts, PHYS_TO_LOG, Place, REDIRECTED,
    REMOTE_OUTPUT, Tag, meters,
    physical::{SCRATCH, enter_egress},
    rules::{RuleSet, resubmit, set},
};
use crate::{
    key::hash32,
    punt::{BFD_UDP_PORT, Request, Service},
    southbound::{PortBinding, Southbound, Wire},
};

/// Bits of `reg9` that have the key of the gateway a packet was sent to.
const ARRIVED_FOR_SHIFT: u32 = 16;

/// Id of the chassis that has a port now: the one it is bound to, or the best candidate
/// that lives. When none seems to, the best one is tried.
pub fn chassis_of<'a>(view: &Southbound, local: &LocalPorts, binding: &'a PortBinding) -> Option<&'a str> {
    if binding.chassis.is_some() {
        return binding.chassis.as_deref();
    }
    let is_known = |id: &str| id == local.chassis || view.chassis.contains_key(id);
    let known =
        || binding.gateway.iter().map(|candidate| candidate.chassis.as_str()).filter(|id| is_known(id));
    known().find(|id| *id == local.chassis || !local.down.contains(*id)).or_else(|| known().next())
}

/// A port is on this chassis.
pub fn is_resident(view: &Southbound, local: &LocalPorts, port: &str) -> bool {
    let Some(binding) = view.bindings.get(port) else { return false };
    match binding.wire {
        Wire::EachChassis => local.ports.contains_key(port),
        _ => chassis_of(view, local, binding) == Some(local.chassis.as_str()),
    }
}

/// The port of the switch that a port without a peer has frames by, if it is here.
pub(super) fn interface(
    view: &Southbound,
    local: &LocalPorts,
    id: &str,
    binding: &PortBinding,
) -> Option<Interface> {
    let chassis = chassis_of(view, local, binding);
    let is_additional = binding.additional.contains(&local.chassis);
    let is_elsewhere = chassis.is_some_and(|chassis| chassis != local.chassis) && !is_additional;
    if binding.peer.is_some() || is_elsewhere {
        return None;
    }
    let own = |id: &str| local.ports.get(id).copied();
    match &binding.wire {
        Wire::Own | Wire::Nested { .. } if chassis.is_none() => None,
        Wire::Own | Wire::EachChassis => Some((own(id)?, Tag::Any)),
        Wire::Nested { parent, tag } => Some((own(parent)?, Tag::One(*tag))),
        Wire::Network { name, tag, .. } => {
            Some((*local.networks.get(name)?, tag.map_or(Tag::None, Tag::One)))
        }
        Wire::Redirect { .. } | Wire::External => None,
    }
}

/// Ports that what a port becomes depends on being here, and whether they are.
pub(super) fn asked(context: &Context<'_>, binding: &PortBinding) -> BTreeMap<String, bool> {
    let ids = binding.open_for.iter();
    ids.map(|id| (id.clone(), is_resident(context.view, context.local, id))).collect()
}

/// MAC address of this chassis where it sends for a router whose address another one has: networks
/// outside must not take this one for that. Locally administered, by the id of the chassis.
pub(super) fn own_mac(chassis: &str) -> u128 {
    0x0aff_0000_0000 | u128::from(hash32(chassis.as_bytes()))
}

/// What belongs to no datapath: with tunnels, when there is something that several chassis
/// may have, and with patches that some workloads take on their own chassis.
pub(super) fn common(
    (tunnels, has_shared, has_open): ([Option<PortNo>; 2], bool, bool),
    rules: &mut RuleSet,
) {
    for tunnel in tunnels.into_iter().flatten().filter(|_| has_shared) {
        liveness(tunnel, rules);
    }
    if has_open {
        let flag = [(Field::Reg10, LOCAL, LOCAL)];
        let stay = vec![Action::GotoTable(LOCAL_OUTPUT)];
        rules.physical_masked(REMOTE_OUTPUT, 210, &flag, stay, String::new());
    }
}

/// A port that is not wherever its workload is.
pub(super) fn port<'a>(context: &Context<'a>, rules: &mut RuleSet, id: &str, binding: &'a PortBinding) {
    match &binding.wire {
        Wire::Own if !binding.open_for.is_empty() => open(context, rules, id, binding),
        Wire::EachChassis => keep_here(context, rules, id, binding),
        Wire::Network { name, .. } => missing(context, rules, (id, binding), name),
        _ => {}
    }
}

/// Other chassis say that they live, within tunnels and outside of all datapaths (RFC 5881).
fn liveness(tunnel: PortNo, rules: &mut RuleSet) {
    let userdata = Request { service: Service::Bfd, continuation: 0, table: 0 }.encode();
    let tell = Action::Controller(Box::new(ToController { userdata, ..ToController::default() }));
    let actions = vec![Action::Meter(meters::shared(Service::Bfd)), tell];
    for eth_type in [0x800, 0x86dd] {
        let matching = [
            (Field::InPort, tunnel.get().into()),
            (Field::TunId, 0),
            (Field::EthType, eth_type),
            (Field::NwProto, 17),
            (Field::UdpDst, BFD_UDP_PORT.into()),
        ];
        rules.physical(PHYS_TO_LOG, 200, &matching, actions.clone(), String::new());
    }
}

/// Routes a packet again that another chassis has sent to the gateway here. It is not of
/// that chassis's tunnel any more: it had to come here.
pub(super) fn again(
    context: &Context<'_>,
    (id, binding): (&str, &PortBinding),
    table: TableId,
) -> Vec<Action> {
    let flags = Action::SetField { field: Field::Reg10, value: REDIRECTED, mask: Field::Reg10.all_bits() };
    let mut actions = vec![Action::CtClear, flags, set(Field::InPort, 0)];
    actions.extend(SCRATCH.map(|field| set(field, 0)));
    let arrived_for = u128::from(binding.key.get()) << ARRIVED_FOR_SHIFT;
    let mask = 0xffff << ARRIVED_FOR_SHIFT;
    actions.push(Action::SetField { field: Field::Reg9, value: arrived_for, mask });
    actions.push(context.port_zone(id, binding));
    actions.extend(context.datapath_zones(binding.datapath));
    actions.push(resubmit(table));
    actions
}

/// A patch that some workload's packets take on the workload's own chassis, while the
/// gateway is another.
fn open<'a>(context: &Context<'a>, rules: &mut RuleSet, id: &str, binding: &'a PortBinding) {
    let is_elsewhere = !matches!(context.place(id, binding), Place::Pinned(_) | Place::Patch(_));
    let peer = binding.peer.as_ref().and_then(|peer| context.view.bindings.get(peer));
    let mut needed = binding.open_for.iter();
    let is_needed = needed.any(|port| is_resident(context.view, context.local, port));
    if let Some(peer) = peer.filter(|_| is_elsewhere && is_needed) {
        let object = context.port_object(id, binding);
        let (datapath, key) = (u128::from(binding.datapath.get()), u128::from(binding.key.get()));
        let to = [
            (Field::Metadata, datapath, u128::MAX),
            (Field::Reg15, key, u128::MAX),
            (Field::Reg10, LOCAL, LOCAL),
        ];
        let way = enter_egress(context, id, binding);
        rules.physical_masked(LOCAL_OUTPUT, 110, &to, way, object.clone());
        super::physical::patch(context, rules, binding, peer, object);
    }
}

/// What a port sends that each chassis has for itself does not leave the chassis.
fn keep_here(context: &Context<'_>, rules: &mut RuleSet, id: &str, binding: &PortBinding) {
    let object = context.port_object(id, binding);
    let from = [(Field::Metadata, binding.datapath.get().into()), (Field::Reg14, binding.key.get().into())];
    let stay = vec![Action::GotoTable(LOCAL_OUTPUT)];
    rules.physical(REMOTE_OUTPUT, 150, &from, stay, object.clone());
    for (_, other) in context.ports(binding.datapath) {
        if matches!(other.wire, Wire::Network { .. }) {
            let [datapath, sender] = from;
            let way = [datapath, sender, (Field::Reg15, other.key.get().into())];
            rules.physical(CHECK_LOOPBACK, 120, &way, Vec::new(), object.clone());
        }
    }
}

/// A workload that is here needs the network of its switch to be here, too.
fn missing(context: &Context<'_>, rules: &mut RuleSet, (id, port): (&str, &PortBinding), network: &str) {
    if context.local.networks.contains_key(network) {
        return;
    }
    let is_workload_here = |(_, binding): &(&str, &PortBinding)| {
        binding.peer.is_none() && binding.chassis.as_deref() == Some(context.local.chassis.as_str())
    };
    let is_gateway_here = |(id, binding): &(&str, &PortBinding)| {
        !binding.gateway.is_empty() && is_resident(context.view, context.local, id)
    };
    let mut ports = context.ports(port.datapath);
    let is_needed = if port.gateway.is_empty() {
        ports.any(|port| is_workload_here(&port) || is_gateway_here(&port))
    } else {
        is_gateway_here(&(id, port))
    };
    if is_needed {
        let reason = format!(
            "this host has no interface to the network `{network}`; attach one: \
             vswitchctl port add INTERFACE --network {network}"
        );
        rules.error(context.port_object(id, port), reason);
    }
}
