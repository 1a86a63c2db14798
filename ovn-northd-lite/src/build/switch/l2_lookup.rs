//! The output port: by destination MAC address, or a group.

use std::net::IpAddr;

use crate::{
    build::{
        FLOOD, FLOOD_KEY, FLOOD_L2, FLOOD_L2_KEY, UNKNOWN, UNKNOWN_KEY,
        address::{of_router_port, one_of},
        sink::FlowSink,
        stage::SwitchIn,
        topology::{RouterSide, SwitchPortInput, SwitchTraits},
    },
    expr::lexer::quote,
    model::{Access, SwitchPortKind},
};

pub(super) fn switch(switch: &SwitchTraits, sink: &mut FlowSink) {
    let object = &switch.object;
    let flood = format!("outport = {}; output;", quote(FLOOD));
    sink.add(SwitchIn::L2Lkup, 70, "eth.mcast", flood, object, "Group addresses are for all ports.");
    if let Some(key) = FLOOD_L2_KEY.filter(|_| !switch.options.asks_routers) {
        let question = "eth.mcast && (arp.op == 1 || nd_ns)";
        let actions = format!("outport = {}; output;", quote(FLOOD_L2));
        let why = "No router has the address that is asked for.";
        sink.add(SwitchIn::L2Lkup, 75, question, actions, object, why);
        sink.group(key, FLOOD_L2);
    }
    // Else stations are asked for, see `fdb`.
    if !switch.has_stations {
        sink.add(SwitchIn::L2Lkup, 0, "1", "next;", object, "Nobody is known to have the address.");
    }
    let (actions, why) = if switch.takes_unknown {
        (format!("outport = {}; output;", quote(UNKNOWN)), "Some ports take frames to unknown addresses.")
    } else {
        ("drop;".to_owned(), "No port has the destination address, and none takes unknown ones.")
    };
    sink.add(SwitchIn::L2Unknown, 0, "1", actions, object, why);
    if let Some(key) = FLOOD_KEY {
        sink.group(key, FLOOD);
    }
}

pub(super) fn port(input: &SwitchPortInput<'_>, sink: &mut FlowSink) {
    let SwitchPortInput { id, port, object, side, .. } = input;
    // Frames for everybody reach others by the network outside, or by whose address they have.
    let has_own_way = !matches!(
        port.kind,
        SwitchPortKind::Workload { access: Access::External(_) | Access::Virtual { .. }, .. }
    );
    if port.enabled {
        if let Some(side) = side.as_ref().filter(|side| side.is_enabled()) {
            router_questions(sink, object, id, side);
        }
        let is_unknown = port.kind.takes_unknown();
        let groups = FLOOD_KEY.map(|key| (key, FLOOD));
        let groups = groups.into_iter().chain(UNKNOWN_KEY.filter(|_| is_unknown).map(|key| (key, UNKNOWN)));
        let is_router = matches!(port.kind, SwitchPortKind::Router { .. });
        let is_asked = !input.switch.options.asks_routers && !is_router;
        let groups = groups.chain(FLOOD_L2_KEY.filter(|_| is_asked).map(|key| (key, FLOOD_L2)));
        let is_taken = |name: &str| name == UNKNOWN || port.options.takes_groups;
        groups
            .filter(|(_, name)| has_own_way && is_taken(name))
            .for_each(|(key, name)| sink.join(key, name, id));
    }
    let macs: Vec<_> = match &port.kind {
        // Whoever was seen with them has them, see `fdb`.
        kind if kind.is_looked_up(&port.options) => Vec::new(),
        SwitchPortKind::Workload { addresses, access, .. } => {
            let own = addresses.iter().filter(|_| access.has_frames());
            own.map(|address| address.mac).collect()
        }
        SwitchPortKind::Router { .. } => side.iter().map(|side| side.port.mac).collect(),
        SwitchPortKind::Switch { .. } | SwitchPortKind::Network { .. } => Vec::new(),
    };
    for mac in macs {
        let (actions, why) = if port.enabled && port.options.clones_to_unknown && input.switch.takes_unknown {
            let actions = format!(
                "clone {{ outport = {}; output; }}; outport = {}; output;",
                quote(UNKNOWN),
                quote(id)
            );
            (actions, "The port has the address, and those that take unknown ones get it too.")
        } else if port.enabled {
            (format!("outport = {}; output;", quote(id)), "The port has the address.")
        } else {
            ("drop;".to_owned(), "The port that has the address is disabled.")
        };
        sink.add(SwitchIn::L2Lkup, 50, format!("eth.dst == {mac}"), actions, object, why);
    }
}

/// Questions about a router's addresses go to it alone.
fn router_questions(sink: &mut FlowSink, object: &str, id: &str, side: &RouterSide<'_>) {
    let addresses = of_router_port(side.port);
    let texts = |v4: bool| {
        let family = addresses.iter().filter(|network| network.addr.is_ipv4() == v4);
        family.map(|network| IpAddr::to_string(&network.addr)).collect::<Vec<_>>()
    };
    let actions = format!("outport = {}; output;", quote(id));
    let why = "Only the router can answer for its addresses.";
    let (v4, v6) = (texts(true), texts(false));
    if !v4.is_empty() {
        let matching = format!("arp.op == 1 && arp.tpa == {}", one_of(&v4));
        sink.add(SwitchIn::L2Lkup, 80, matching, actions.clone(), object, why);
    }
    if !v6.is_empty() {
        let matching = format!("nd_ns && nd.target == {}", one_of(&v6));
        sink.add(SwitchIn::L2Lkup, 80, matching, actions, object, why);
    }
}
