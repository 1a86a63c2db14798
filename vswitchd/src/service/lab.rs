//! The lab's service: ports, frames and clock of a host that is a lab. Any other host
//! refuses.

use std::{sync::Arc, time::Duration};

use ferroflow_proto::host::{self as pb, injected_packet::Packet as Given, lab_service_server::LabService};
use flowtable::{
    build::{frame_from_key, packet},
    field::Field,
    key::FlowKey,
    parse::parse,
    port::PortTable,
    text::{TextError, parse_key},
    types::{BridgeId, PortNo},
};
use tonic::{Code, Request, Response, Status};

use super::{
    Service, bridges, check_interface, check_logical_port, check_network, dump, port_number, refusal,
};
use crate::{
    host::{Host, LabError, NewLabPort, Sent},
    lab::Arrived,
};

/// Largest MTU of a port: no frame of the lab is longer.
const MAX_MTU: u32 = 3800;

/// A packet cannot be injected.
#[derive(Debug, thiserror::Error)]
pub(super) enum PacketError {
    #[error("{0}")]
    Lab(#[from] LabError),
    #[error("packet {index}: give the bytes of a frame, or a flow: udp,nw_src=10.0.0.1,nw_dst=10.0.0.2")]
    Missing { index: usize },
    #[error("packet {index}: {error}")]
    Flow { index: usize, error: TextError },
    #[error(
        "packet {index}: no frame has just these headers: {} would differ; a frame needs dl_type or a word like `udp`, and has no registers, metadata or tunnel fields",
        .field
    )]
    Impossible { index: usize, field: &'static str },
}

#[tonic::async_trait]
impl LabService for Service {
    async fn add_lab_port(
        &self,
        request: Request<pb::AddLabPortRequest>,
    ) -> Result<Response<pb::AddLabPortResponse>, Status> {
        let pb::AddLabPortRequest { name, port_no, mtu, bridge, logical_port, network } =
            request.into_inner();
        check_interface(&name)?;
        check_logical_port(&logical_port)?;
        check_network(&network)?;
        let number = port_number(port_no)?;
        if mtu > MAX_MTU {
            return Err(Status::invalid_argument(format!("mtu {mtu}: at most {MAX_MTU}")));
        }
        let mtu = (mtu > 0).then_some(mtu);
        let new = NewLabPort { name, number, mtu, logical_port, network };
        self.host
            .with(move |host| {
                let bridge = host.bridge(&bridge).map_err(bridges::refusal)?.id();
                host.add_lab_port(bridge, &new).map_err(lab_refusal)?;
                let port = dump::ports(host).into_iter().find(|found| found.name == new.name);
                Ok(Response::new(pb::AddLabPortResponse { port }))
            })
            .await
    }

    async fn inject(
        &self,
        request: Request<pb::InjectRequest>,
    ) -> Result<Response<pb::InjectResponse>, Status> {
        let request = request.into_inner();
        let turn = self.fabric.begin(self.host.clone()).await;
        let injected = self.host.with(move |host| inject(host, request)).await;
        let elsewhere = turn.end().await;
        let mut answer = injected.map_err(|error| match error {
            PacketError::Lab(error) => lab_refusal(error),
            wrong => Status::invalid_argument(wrong.to_string()),
        })?;
        for Arrived { chassis, sent, drops } in elsewhere {
            let named = |frame: Sent| pb::OutputFrame { chassis: chassis.clone(), ..output(frame) };
            answer.outputs.extend(sent.into_iter().map(named));
            let named = |drop: pb::Drop| pb::Drop { chassis: chassis.clone(), ..drop };
            answer.drops.extend(drops.into_iter().map(named));
        }
        Ok(Response::new(answer))
    }

    async fn read_output(
        &self,
        request: Request<pb::ReadOutputRequest>,
    ) -> Result<Response<pb::ReadOutputResponse>, Status> {
        let pb::ReadOutputRequest { port, from, bridge } = request.into_inner();
        let read = move |host: &mut Host| {
            let (name, _) = host.lab_port(&port, named(host, &bridge)?)?;
            host.sent(name, from)
        };
        let (sent, next, n_forgotten) = self.host.with(read).await.map_err(lab_refusal)?;
        let frames = sent.into_iter().map(output).collect();
        Ok(Response::new(pb::ReadOutputResponse { frames, next, n_forgotten }))
    }

    async fn set_clock(
        &self,
        request: Request<pb::SetClockRequest>,
    ) -> Result<Response<pb::SetClockResponse>, Status> {
        let pb::SetClockRequest { stopped, advance } = request.into_inner();
        let advance = Duration::from_nanos(advance);
        let set = move |host: &mut Host| host.set_clock(stopped, Duration::ZERO);
        self.host.with(set).await.map_err(lab_refusal)?;
        self.fabric.advance(&self.host, advance).await.map_err(lab_refusal)?;
        let (now, stopped) =
            self.host.with(|host| host.set_clock(None, Duration::ZERO)).await.map_err(lab_refusal)?;
        Ok(Response::new(pb::SetClockResponse { now: now.nanos(), stopped }))
    }
}

fn inject(host: &mut Host, request: pb::InjectRequest) -> Result<pb::InjectResponse, PacketError> {
    let (name, port) = host.lab_port(&request.port, named(host, &request.bridge)?)?;
    let ports = host.bridge_of(port.bridge).map(|bridge| Arc::clone(bridge.ports())).unwrap_or_default();
    let in_port = port.port;
    let mut frames = Vec::with_capacity(request.packets.len());
    for (index, packet) in request.packets.into_iter().enumerate() {
        frames.push(frame_given(packet, in_port, &ports, index + 1)?);
    }
    let injected = host.inject((name, port), frames)?;
    Ok(pb::InjectResponse {
        n_forwarded: injected.n_forwarded,
        n_dropped: injected.n_dropped,
        drops: dump::drops_of(host, &injected.drops),
        // What goes on to another host is told where it gets.
        outputs: injected.sent.into_iter().filter(|sent| !host.is_shared(&sent.port)).map(output).collect(),
    })
}

/// The bridge of this name, if one is named.
fn named(host: &Host, bridge: &str) -> Result<Option<BridgeId>, LabError> {
    if bridge.is_empty() { Ok(None) } else { Ok(Some(host.bridge(bridge)?.id())) }
}

/// The frame that is given or described.
pub(super) fn frame_given(
    packet: pb::InjectedPacket,
    in_port: PortNo,
    ports: &PortTable,
    index: usize,
) -> Result<Vec<u8>, PacketError> {
    match packet.packet {
        Some(Given::Frame(bytes)) => Ok(bytes),
        Some(Given::Flow(text)) => frame_of(&text, in_port, ports, index),
        None => Err(PacketError::Missing { index }),
    }
}

/// The shortest frame with just the headers that a flow describes.
fn frame_of(text: &str, in_port: PortNo, ports: &PortTable, index: usize) -> Result<Vec<u8>, PacketError> {
    let mut wanted = parse_key(text, ports).map_err(|error| PacketError::Flow { index, error })?;
    if wanted.in_port.get() == 0 {
        wanted.in_port.set(in_port.get());
    }
    let frame = frame_from_key(&wanted, 0);
    let mut received = FlowKey::zero();
    // What cannot be parsed differs in some field.
    let _ = parse(&mut packet(&frame, in_port), &mut received);
    received.in_port.set(in_port.get());
    match Field::ALL.iter().find(|field| received.get(**field) != wanted.get(**field)) {
        Some(field) => Err(PacketError::Impossible { index, field: field.info().name }),
        None => Ok(frame),
    }
}

pub(super) fn output(sent: Sent) -> pb::OutputFrame {
    let Sent { port, index, time, frame } = sent;
    pb::OutputFrame { port, index, time: time.nanos(), frame, chassis: String::new() }
}

fn lab_refusal(error: LabError) -> Status {
    let code = match error {
        LabError::Port(error) => return refusal(error),
        LabError::Bridge(error) => return bridges::refusal(error),
        LabError::NotALab | LabError::IsPatch(_) => Code::FailedPrecondition,
        LabError::NoPort(_) => Code::NotFound,
        LabError::Inject(_) | LabError::WhichBridge(_) => Code::InvalidArgument,
    };
    Status::new(code, error.to_string())
}
