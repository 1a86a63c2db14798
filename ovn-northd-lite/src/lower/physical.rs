//! Between ports of the switch and logical ports: who sent, where it goes.

use std::net::IpAddr;

use flowtable::{
    field::Field,
    flow::{Action, ToController},
    types::VlanId,
};

use super::{
    ALLOW_LOOPBACK, CHECK_LOOPBACK, Context, FROM_TUNNEL, Interface, LOCAL_OUTPUT, LOG_EGRESS, LOG_INGRESS,
    LOG_TO_PHYS, PHYS_TO_LOG, Place, REMOTE_OUTPUT, SAVE_INPORT, Tag, gateway,
    logical::ingress_table,
    meters,
    rules::{RuleSet, resubmit, set},
};
use crate::{
    build::stage::{RouterIn, Stage},
    key::{DatapathKey, PortKey},
    punt::{Request, Service},
    southbound::{MulticastGroup, PortBinding, Wire},
};

/// Scratch registers of logical flows, 0 to 9.
pub(super) const SCRATCH: [Field; 3] = [Field::Xxreg0, Field::Xxreg1, Field::Xreg4];

/// What happens to packets no other rule of a table knows.
pub(super) fn defaults(rules: &mut RuleSet) {
    let mut add = |table, actions| rules.physical(table, 0, &[], actions, String::new());
    add(PHYS_TO_LOG, Vec::new());
    add(REMOTE_OUTPUT, vec![Action::GotoTable(LOCAL_OUTPUT)]);
    add(LOCAL_OUTPUT, Vec::new());
    let clear = SCRATCH.into_iter().map(|field| set(field, 0));
    // What ingress knows of the connection is of another zone.
    add(CHECK_LOOPBACK, clear.chain([Action::CtClear, Action::GotoTable(LOG_EGRESS)]).collect());
    add(SAVE_INPORT, vec![Action::GotoTable(LOG_TO_PHYS)]);
    add(LOG_TO_PHYS, Vec::new());
    let forget = vec![set(Field::InPort, 0), Action::GotoTable(LOG_TO_PHYS)];
    let flag = [(Field::Reg10, ALLOW_LOOPBACK, ALLOW_LOOPBACK)];
    rules.physical_masked(SAVE_INPORT, 100, &flag, forget, String::new());
}

/// The rules of one logical port.
pub(super) fn port<'a>(context: &Context<'a>, rules: &mut RuleSet, id: &'a str, binding: &'a PortBinding) {
    let (datapath, key) = (u128::from(binding.datapath.get()), u128::from(binding.key.get()));
    let object = context.port_object(id, binding);
    let to = [(Field::Metadata, datapath), (Field::Reg15, key)];
    let deliver = match context.place(id, binding) {
        Place::Here(interface) => {
            if !receive(context, rules, (id, binding), interface) {
                return rules.physical(LOCAL_OUTPUT, 100, &to, Vec::new(), object);
            }
            if awaits_rarp(context, id, binding) { Vec::new() } else { tagged(binding, interface) }
        }
        Place::Again(table) => {
            let again = gateway::again(context, (id, binding), table);
            return rules.physical(LOCAL_OUTPUT, 100, &to, again, object);
        }
        Place::Patch(peer) => vec![Action::Clone(through_patch(context, peer, FROM_TUNNEL))],
        Place::Pinned(peer) => vec![Action::Clone(through_patch(context, peer, 0))],
        Place::Remote(_) => return,
        Place::Outside(id, network) => {
            let mut by_network = vec![set(Field::Reg15, network.key.get().into())];
            by_network.extend(enter_egress(context, id, network));
            return rules.physical(LOCAL_OUTPUT, 100, &to, by_network, object);
        }
        Place::Bridged(peer) => {
            let mut way = vec![set(Field::EthSrc, gateway::own_mac(&context.local.chassis))];
            way.push(Action::Clone(through_patch(context, peer, FROM_TUNNEL)));
            return rules.physical(LOCAL_OUTPUT, 100, &to, way, object);
        }
        Place::Nowhere => {
            // An explicit drop names the port, and not just the table.
            rules.physical(LOCAL_OUTPUT, 100, &to, Vec::new(), object);
            return;
        }
    };
    rules.physical(LOCAL_OUTPUT, 100, &to, enter_egress(context, id, binding), object.clone());
    rules.physical(LOG_TO_PHYS, 100, &to, deliver, object.clone());
    let back = [
        (Field::Metadata, datapath, u128::MAX),
        (Field::Reg14, key, u128::MAX),
        (Field::Reg15, key, u128::MAX),
        (Field::Reg10, 0, ALLOW_LOOPBACK),
    ];
    rules.physical_masked(CHECK_LOOPBACK, 100, &back, Vec::new(), object);
}

/// The bit of a tag control field that says that there is a tag, and the bits of the VLAN.
const PRESENT: u128 = 0x1000;
const VID: u128 = 0xfff;
/// EtherType of RARP (RFC 903).
const RARP: u128 = 0x8035;
/// The TPID of tags that are put on frames (IEEE 802.1Q), and of those of a provider (802.1ad).
const TPID: u16 = 0x8100;
const SERVICE_TPID: u16 = 0x88a8;

/// What comes by a port of the switch is a logical port's. False when it is another's
/// already.
fn receive(
    context: &Context<'_>,
    rules: &mut RuleSet,
    (id, binding): (&str, &PortBinding),
    (port, tag): Interface,
) -> bool {
    let object = context.port_object(id, binding);
    if let Some(other) = context.holder((port, tag)).filter(|other| *other != id) {
        let frames = match tag {
            Tag::Any | Tag::None => String::new(),
            Tag::One(tag) => format!(" with VLAN {tag}"),
        };
        rules.error(&object, format!("port {port} of the switch{frames} belongs to `{other}` already"));
        return false;
    }
    let in_port = (Field::InPort, port.get().into(), u128::MAX);
    let (priority, tci, mut from) = match tag {
        Tag::Any => (100, None, Vec::new()),
        Tag::None => (110, Some((Field::VlanTci, 0, PRESENT | VID)), Vec::new()),
        Tag::One(tag) => {
            let tci = (Field::VlanTci, PRESENT | u128::from(tag.get()), PRESENT | VID);
            // Workloads behind one interface may talk to each other.
            (110, Some(tci), vec![Action::PopVlan, set(Field::InPort, 0)])
        }
    };
    from.extend([
        set(Field::Metadata, binding.datapath.get().into()),
        set(Field::Reg14, binding.key.get().into()),
    ]);
    from.push(context.port_zone(id, binding));
    from.extend(context.datapath_zones(binding.datapath));
    from.extend(context.queue(id, binding));
    let mut matching: Vec<_> = [in_port].into_iter().chain(tci).collect();
    if awaits_rarp(context, id, binding) {
        rules.physical_masked(PHYS_TO_LOG, priority, &matching, Vec::new(), object.clone());
        matching.push((Field::EthType, RARP, u128::MAX));
        let userdata = Request { service: Service::Activation, continuation: 0, table: 0 }.encode();
        let tell = Action::Controller(Box::new(ToController { userdata, ..ToController::default() }));
        from.extend([Action::Meter(meters::shared(Service::Activation)), tell]);
    }
    from.push(Action::GotoTable(LOG_INGRESS));
    let priority = priority + u16::from(matching.len() > 1 + usize::from(tci.is_some()));
    rules.physical_masked(PHYS_TO_LOG, priority, &matching, from, object);
    true
}

/// The workload has not said yet that it goes on here: only that it may say (OVN:
/// activation-strategy).
fn awaits_rarp(context: &Context<'_>, id: &str, binding: &PortBinding) -> bool {
    binding.awaits_rarp
        && binding.additional.contains(&context.local.chassis)
        && !context.local.activated.contains(id)
}

/// Out of a port, with a tag.
fn tagged(binding: &PortBinding, (port, tag): Interface) -> Vec<Action> {
    let is_service = matches!(binding.wire, Wire::Network { is_service: true, .. });
    let tpid = if is_service { SERVICE_TPID } else { TPID };
    let tag = match tag {
        Tag::Any | Tag::None => None,
        Tag::One(tag) => Some(tag),
    };
    let push = |tag: VlanId| {
        let value = PRESENT | u128::from(tag.get());
        [Action::PushVlan(tpid), Action::SetField { field: Field::VlanTci, value, mask: PRESENT | VID }]
    };
    tag.into_iter().flat_map(push).chain([Action::Output(port)]).collect()
}

/// Out of a patch, into the peer's datapath.
pub(super) fn patch(
    context: &Context<'_>,
    rules: &mut RuleSet,
    binding: &PortBinding,
    peer: &PortBinding,
    object: String,
) {
    let to = [(Field::Metadata, binding.datapath.get().into()), (Field::Reg15, binding.key.get().into())];
    rules.physical(LOG_TO_PHYS, 100, &to, vec![Action::Clone(through_patch(context, peer, 0))], object);
}

/// Towards a port that is here: its zones, and on.
pub(super) fn enter_egress(context: &Context<'_>, id: &str, binding: &PortBinding) -> Vec<Action> {
    let mut actions = vec![context.port_zone(id, binding)];
    actions.extend(context.datapath_zones(binding.datapath));
    actions.push(Action::GotoTable(CHECK_LOOPBACK));
    actions
}

/// Into the ingress of the peer's datapath, as if fresh from a port there. Only these
/// flags are not forgotten: whether it came by a tunnel, unless the patch is on this
/// chassis alone. Then the packet had to come here, and may have to go on elsewhere.
fn through_patch(context: &Context<'_>, peer: &PortBinding, kept: u128) -> Vec<Action> {
    let flags = Action::SetField { field: Field::Reg10, value: 0, mask: Field::Reg10.all_bits() & !kept };
    let mut actions = vec![Action::CtClear, flags, set(Field::InPort, 0)];
    actions.extend(SCRATCH.map(|field| set(field, 0)));
    actions.push(context.port_zone("", peer));
    actions.extend(context.datapath_zones(peer.datapath));
    actions.extend([
        set(Field::Reg15, 0),
        set(Field::Metadata, peer.datapath.get().into()),
        set(Field::Reg14, peer.key.get().into()),
        resubmit(LOG_INGRESS),
    ]);
    actions
}

/// What becomes of a packet that a router makes by itself, out of one of its ports. One of a
/// router that is everywhere stays on this host: every other one makes its own.
pub fn sent_by_router(datapath: DatapathKey, port: PortKey, is_pinned: bool) -> Vec<Action> {
    out_of(datapath, port, if is_pinned { 0 } else { FROM_TUNNEL })
}

/// What becomes of a packet that the host makes for a workload of its own.
pub fn sent_to_workload(datapath: DatapathKey, port: PortKey) -> Vec<Action> {
    out_of(datapath, port, 0)
}

/// What becomes of a packet that a router makes for a next hop, whose MAC address it finds out
/// as for any other packet.
pub fn sent_to_next_hop(
    (datapath, port): (DatapathKey, PortKey),
    next: IpAddr,
    source: IpAddr,
) -> Vec<Action> {
    let (hop, own) = match (next, source) {
        (IpAddr::V6(next), IpAddr::V6(source)) => {
            (set(Field::Xxreg0, next.into()), set(Field::Xxreg1, source.into()))
        }
        (IpAddr::V4(next), IpAddr::V4(source)) => {
            (set(Field::Reg0, u32::from(next).into()), set(Field::Reg5, u32::from(source).into()))
        }
        // Nobody is reached from an address of the other family.
        _ => return Vec::new(),
    };
    let table = ingress_table(Stage::from(RouterIn::ArpResolve).number);
    let place = [set(Field::Metadata, datapath.get().into()), set(Field::Reg15, port.get().into()), hop, own];
    place.into_iter().chain(table.map(resubmit)).collect()
}

fn out_of(datapath: DatapathKey, port: PortKey, flags: u128) -> Vec<Action> {
    vec![
        set(Field::Metadata, datapath.get().into()),
        set(Field::Reg15, port.get().into()),
        set(Field::Reg10, flags),
        resubmit(LOG_TO_PHYS),
    ]
}

/// A group's members here. Patches that are everywhere are not among them: a packet
/// passes them where it came from, and hosts it is copied to must not pass them again.
pub(super) fn group<'a>(
    context: &Context<'a>,
    rules: &mut RuleSet,
    datapath: DatapathKey,
    key: u128,
    group: &'a MulticastGroup,
) {
    let members = members(context, datapath, group);
    let is_here = |place| matches!(place, Place::Here(_) | Place::Pinned(_));
    let here = members.iter().filter(|(id, binding)| is_here(context.place(id, binding)));
    let actions = here.map(|(id, binding)| to_member(context, id, binding)).collect();
    let to = [(Field::Metadata, datapath.get().into()), (Field::Reg15, key)];
    rules.physical(LOCAL_OUTPUT, 100, &to, actions, context.datapath_object(datapath));
}

/// Members of a group that are ports of its datapath.
pub(super) fn members<'a>(
    context: &Context<'a>,
    datapath: DatapathKey,
    group: &'a MulticastGroup,
) -> Vec<(&'a str, &'a PortBinding)> {
    let bindings = group.ports.iter().filter_map(|id| Some((id.as_str(), context.view.bindings.get(id)?)));
    bindings.filter(|(_, binding)| binding.datapath == datapath).collect()
}

/// A copy to one member of a group.
pub(super) fn to_member(context: &Context<'_>, id: &str, member: &PortBinding) -> Action {
    let mut actions = vec![set(Field::Reg15, member.key.get().into()), context.port_zone(id, member)];
    actions.extend(context.datapath_zones(member.datapath));
    actions.push(resubmit(CHECK_LOOPBACK));
    Action::Clone(actions)
}
