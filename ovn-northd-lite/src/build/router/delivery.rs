//! Out of the router.

use crate::{
    build::{sink::FlowSink, stage::RouterOut, topology::RouterPorts},
    expr::lexer::quote,
};

pub(super) fn router(input: &RouterPorts<'_>, sink: &mut FlowSink) {
    let why = "The packet is for no port of the router that is on.";
    sink.add(RouterOut::Delivery, 0, "1", "drop;", &input.router.object, why);
    for (id, _) in input.enabled_ports() {
        let (object, matching) = (input.port_object(id), format!("outport == {}", quote(id)));
        sink.add(RouterOut::Delivery, 100, matching, "output;", &object, "The packet leaves by this port.");
    }
}
