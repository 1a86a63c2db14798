//! Frames that are for the router.

use crate::{
    build::{sink::FlowSink, stage::RouterIn, topology::RouterPorts},
    expr::lexer::quote,
};

pub(super) fn router(input: &RouterPorts<'_>, sink: &mut FlowSink) {
    let object = &input.router.object;
    let stage = RouterIn::Admission;
    sink.add(stage, 0, "1", "drop;", object, "The frame is for none of the router's ports.");
    if !input.router.enabled {
        sink.add(stage, 110, "1", "drop;", object, "The router is disabled.");
        return;
    }
    sink.add(stage, 100, "vlan.present", "drop;", object, "The network has no VLANs.");
    let why = "A group address cannot be a source (IEEE 802.3 §3.2.3).";
    sink.add(stage, 100, "eth.src[40]", "drop;", object, why);
    for (id, port) in input.ports {
        let object = input.port_object(id);
        let inport = format!("inport == {}", quote(id));
        if !port.enabled {
            sink.add(stage, 110, inport, "drop;", &object, "The port is disabled.");
            continue;
        }
        let matching = format!("{inport} && eth.dst == {}", port.mac);
        sink.add(stage, 50, matching, "next;", &object, "The frame is for the port.");
        let matching = format!("{inport} && eth.mcast");
        sink.add(stage, 50, matching, "next;", &object, "The frame is for everybody.");
    }
}
