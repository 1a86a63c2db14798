//! Next hops that say that they live: their packets are for the host that has the port. Of
//! what leads to those that do not, see `build/liveness.rs`.

use crate::{
    build::{balancer::family, liveness::sessions, sink::FlowSink, stage::RouterIn, topology::RouterPorts},
    expr::lexer::quote,
    punt::BFD_UDP_PORT,
};

pub(super) fn router(input: &RouterPorts<'_>, sink: &mut FlowSink) {
    for (id, port) in input.enabled_ports() {
        let object = input.port_object(id);
        for session in sessions(port) {
            let family = family(session.peer);
            // RFC 5881 §5: nobody further away can send with this TTL.
            let matching = format!(
                "inport == {} && {family}.src == {} && {family}.dst == {} && udp.dst == {BFD_UDP_PORT} && \
                 ip.ttl == 255",
                quote(id),
                session.peer,
                session.source
            );
            let why = "A next hop says that it lives.";
            sink.add(RouterIn::IpInput, 110, matching, "handle_bfd_msg();", &object, why);
        }
    }
}
