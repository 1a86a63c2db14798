//! `TracePacket`: a packet's walk through the hosts that it comes to, each asked in turn.

use std::{collections::VecDeque, net::IpAddr};

use ferroflow_proto::{host, northbound as pb};
use tonic::Status;

use crate::{
    controller::Controller,
    resource::{Kind, Name, Spec},
    state::{Reason, Refusal},
};

/// Hosts that one packet is traced through.
const MAX_HOSTS: usize = 64;
/// Times that a copy goes from host to host: to a gateway, and from there to a workload; the rest
/// is a circle.
const MAX_DEPTH: usize = 8;

/// A copy on its way to a host.
struct Copy {
    chassis: String,
    from: String,
    question: host::TraceRequest,
    depth: usize,
}

/// Traces a packet.
pub(super) async fn trace(
    controller: &Controller,
    request: pb::TracePacketRequest,
) -> Result<pb::TracePacketResponse, Status> {
    let name = Name::parse(&request.port).map_err(|error| Refusal::from(Reason::from(error)))?;
    let chassis = place(controller, &name)?;
    let question = host::TraceRequest {
        packet: Some(match request.packet {
            Some(pb::trace_packet_request::Packet::Flow(flow)) => host::trace_request::Packet::Flow(flow),
            Some(pb::trace_packet_request::Packet::Frame(frame)) => host::trace_request::Packet::Frame(frame),
            None => return Err(Refusal::from(Reason::Empty("flow or frame")).into()),
        }),
        in_port: name.id().to_owned(),
        why: request.why,
        ct_next: request.ct_next,
        ..host::TraceRequest::default()
    };
    let mut answer = pb::TracePacketResponse::default();
    let mut queue = VecDeque::from([Copy { chassis, from: String::new(), question, depth: 1 }]);
    while let Some(copy) = queue.pop_front() {
        if answer.hosts.len() == MAX_HOSTS || copy.depth > MAX_DEPTH {
            answer.n_omitted += 1;
            continue;
        }
        let Copy { chassis, from, question, depth } = copy;
        let traced = controller.assistants.trace(&chassis, question).await;
        if let (Err(error), true) = (&traced, answer.hosts.is_empty()) {
            return Err(Status::failed_precondition(format!("chassis/{chassis}: {error}")));
        }
        for tunnelled in traced.iter().flat_map(|traced| &traced.tunnelled) {
            match next(controller, tunnelled, request.why) {
                Some((next, question)) => {
                    let from = chassis.clone();
                    queue.push_back(Copy { chassis: next, from, question, depth: depth + 1 });
                }
                None => answer.hosts.push(pb::TracedHost {
                    from: full(&chassis),
                    error: format!("no host has the address {}", tunnelled.peer),
                    ..pb::TracedHost::default()
                }),
            }
        }
        let error = traced.as_ref().err().map(ToString::to_string).unwrap_or_default();
        let host = pb::TracedHost { chassis: full(&chassis), from: full(&from), trace: traced.ok(), error };
        answer.hosts.push(host);
    }
    Ok(answer)
}

fn full(chassis: &str) -> String {
    if chassis.is_empty() { String::new() } else { format!("chassis/{chassis}") }
}

/// The chassis that a switch port is on.
fn place(controller: &Controller, name: &Name) -> Result<String, Status> {
    if name.kind() != Kind::SwitchPort {
        let message = format!("{name} is no switch port; write switches/SWITCH/ports/PORT");
        return Err(Status::invalid_argument(message));
    }
    let state = controller.state();
    let record = state.get(name).ok_or_else(|| Refusal::from(Reason::NotFound(name.clone())))?;
    let binding = record.binding.as_ref().map(|binding| binding.chassis.clone());
    binding.ok_or_else(|| {
        let hint = "a packet comes in where its workload is: vswitchctl port add INTERFACE --logical-port";
        Status::failed_precondition(format!("{name} is on no host; {hint}"))
    })
}

/// Who gets a copy, and what is asked there.
fn next(
    controller: &Controller,
    copy: &host::TunnelledCopy,
    why: bool,
) -> Option<(String, host::TraceRequest)> {
    let peer: IpAddr = copy.peer.parse().ok()?;
    let state = controller.state();
    let found = state.iter().find(|record| match &record.spec {
        Spec::Chassis(spec) => spec.encap_ip == peer,
        _ => false,
    })?;
    let packet = Some(host::trace_request::Packet::Frame(copy.frame.clone()));
    let question = host::TraceRequest { packet, why, from_underlay: true, ..Default::default() };
    Some((found.name.id().to_owned(), question))
}
