//! Load balancers at gateway ports that translate without a memory: requests and answers may pass
//! different gateways. The backend follows from what the packet is, so all packets of a connection
//! that one gateway sees get the same one; and what a backend sends from the port of the service has
//! the service's address outside, whoever it is for.

use crate::{
    build::{
        balancer::Balanced,
        sink::FlowSink,
        stage::{RouterIn, RouterOut},
        topology::RouterPorts,
    },
    expr::lexer::quote,
    model::Backend,
};

/// Requests to a service, from outside.
pub(super) fn requests(service: &Balanced<'_>, reject: impl Fn(&str) -> String, sink: &mut FlowSink) {
    let (object, matching) = (&service.object, service.to_service());
    let backends: Vec<_> = service.service.online().collect();
    let why = "A request to the service goes to one of its backends.";
    let (stage, priority) = (RouterIn::Dnat, service.priority());
    match backends.as_slice() {
        [] => {
            let (actions, why) = service.actions(reject);
            sink.add(stage, priority, matching, actions, object, why);
        }
        [only] => sink.add(stage, priority, matching, to_backend(service, only), object, why),
        several => {
            let members: Vec<_> = (1..=several.len()).map(|n| n.to_string()).collect();
            let fields: Vec<_> = service.balancer.hash_fields.iter().map(|field| field.name()).collect();
            let members = match fields.as_slice() {
                [] => members.join(", "),
                _ => format!("values=({}); hash_fields=\"{}\"", members.join(", "), fields.join(",")),
            };
            let choose = format!("reg1[0..15] = select({members});");
            sink.add(stage, priority, matching.clone(), choose, object, "What the packet is decides.");
            for (n, backend) in (1..).zip(several) {
                let chosen = format!("reg1[0..15] == {n} && {matching}");
                let actions = to_backend(service, backend);
                sink.add(RouterIn::LbAffLearn, priority, chosen, actions, object, why);
            }
        }
    }
}

/// Answers of a service's backends, those that are offline included: by any gateway port.
pub(super) fn answers(ports: &RouterPorts<'_>, service: &Balanced<'_>, sink: &mut FlowSink) {
    let (object, family) = (&service.object, service.family());
    let why = "What the backend of a service sends comes from the service's address.";
    for (id, _) in ports.gateway_ports() {
        for backend in &service.service.backends {
            let from = format!("outport == {} && {family}.src == {}", quote(id), backend.ip);
            let (from, port) = match (backend.port, service.vip.port) {
                (Some(port), Some(outside)) => {
                    let protocol = service.protocol();
                    (format!("{from} && {protocol}.src == {port}"), format!("{protocol}.src = {outside}; "))
                }
                _ => (from, String::new()),
            };
            let actions = format!("{family}.src = {}; {port}next;", service.vip.ip);
            sink.add(RouterOut::UnDnat, service.priority(), from, actions, object, why);
        }
    }
}

fn to_backend(service: &Balanced<'_>, backend: &Backend) -> String {
    let port = backend.port.map(|port| format!("{}.dst = {port}; ", service.protocol()));
    format!("{}.dst = {}; {}next;", service.family(), backend.ip, port.unwrap_or_default())
}
