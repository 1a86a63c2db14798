//! Events as they happen, packets from controllers, and where stations are.

use std::{collections::BTreeMap, pin::Pin, sync::Arc};

use dataplane::PortId;
use ferroflow_proto::host::{
    self as pb, EventKind, event::Event as Happened, event_service_server::EventService,
};
use flowtable::{
    fdb::{FdbEntry, FdbFilter},
    flow::Match,
    key::FlowKey,
    port::PortTable,
    switch::{PacketIn, Sampled},
    table::Removed,
    text::{parse_actions, parse_match, print_actions, print_headers},
    types::{BridgeId, MacAddr, PortNo, Timestamp, VlanId},
};
use tokio::sync::mpsc;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Code, Request, Response, Status};

use super::{Service, bridges, dump, lab};
use crate::host::{
    Bridge, Event, Events, Host, PausedId, PortEvent, ResumeError, SentPacket, SharedHost, Told,
};

/// Events that are read at a time, and that wait to be sent to one reader.
const CHUNK: usize = 64;

type EventStream = Pin<Box<dyn Stream<Item = Result<pb::Event, Status>> + Send>>;

#[tonic::async_trait]
impl EventService for Service {
    type MonitorStream = EventStream;

    async fn monitor(&self, request: Request<pb::MonitorRequest>) -> Result<Response<EventStream>, Status> {
        let request = request.into_inner();
        let kinds: Vec<_> = request.kinds().collect();
        if kinds.contains(&EventKind::Unspecified) {
            return Err(Status::invalid_argument("an event is of no kind that this version knows"));
        }
        let bridge = request.bridge.clone();
        let begin = move |host: &mut Host| {
            if !bridge.is_empty() {
                host.bridge(&bridge).map_err(bridges::refusal)?;
            }
            Ok::<_, Status>(Arc::clone(host.events()))
        };
        let events = self.host.with(begin).await?;
        let (sender, receiver) = mpsc::channel(CHUNK);
        let from = request.from.unwrap_or_else(|| *events.count().borrow());
        let pb::MonitorRequest { bridge, kept_only, .. } = request;
        let monitor = Monitor { host: self.host.clone(), events, kinds, bridge, kept_only };
        tokio::spawn(monitor.run(from, sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn send_packet(
        &self,
        request: Request<pb::SendPacketRequest>,
    ) -> Result<Response<pb::SendPacketResponse>, Status> {
        let request = request.into_inner();
        self.host.with(move |host| send_packet(host, request)).await.map(Response::new)
    }

    async fn resume_packet(
        &self,
        request: Request<pb::ResumePacketRequest>,
    ) -> Result<Response<pb::SendPacketResponse>, Status> {
        let request = request.into_inner();
        self.host.with(move |host| resume(host, request)).await.map(Response::new)
    }

    async fn dump_stations(
        &self,
        request: Request<pb::DumpStationsRequest>,
    ) -> Result<Response<pb::DumpStationsResponse>, Status> {
        let bridge = request.into_inner().bridge;
        let dump = move |host: &mut Host| {
            let bridge = host.bridge(&bridge).map_err(bridges::refusal)?;
            Ok::<_, Status>(stations(host, bridge))
        };
        self.host.with(dump).await.map(Response::new)
    }

    async fn set_station(
        &self,
        request: Request<pb::SetStationRequest>,
    ) -> Result<Response<pb::SetStationResponse>, Status> {
        let request = request.into_inner();
        self.host.with(move |host| set_station(host, &request)).await.map(Response::new)
    }

    async fn flush_stations(
        &self,
        request: Request<pb::FlushStationsRequest>,
    ) -> Result<Response<pb::FlushStationsResponse>, Status> {
        let request = request.into_inner();
        self.host
            .with(move |host| {
                let bridge = host.bridge(&request.bridge).map_err(bridges::refusal)?;
                let filter = station_filter(bridge, &request)?;
                let n_removed = bridge.tables().fdb().flush(&filter) as u64;
                host.stations_changed().map_err(|error| Status::internal(error.to_string()))?;
                Ok(Response::new(pb::FlushStationsResponse { n_removed }))
            })
            .await
    }
}

/// Somebody who reads events.
struct Monitor {
    host: SharedHost,
    events: Arc<Events>,
    kinds: Vec<EventKind>,
    /// Only of this one; empty: of all.
    bridge: String,
    kept_only: bool,
}

impl Monitor {
    /// Reads until the reader is gone.
    async fn run(self, mut from: u64, sender: mpsc::Sender<Result<pb::Event, Status>>) {
        let mut count = self.events.count();
        loop {
            let read = self.events.read(from, CHUNK);
            if read.n_lost > 0 {
                let event = Some(Happened::NLost(read.n_lost));
                let lost = pb::Event { index: from, event, ..pb::Event::default() };
                if sender.send(Ok(lost)).await.is_err() {
                    return;
                }
            }
            from = read.next;
            let ports = self.host.with(|host| all_ports(host)).await;
            let nowhere = PortTable::default();
            for told in read.events.iter().filter(|told| self.wants(told)) {
                let ports = ports.get(&told.bridge).map_or(&nowhere, |ports| &**ports);
                if sender.send(Ok(message(told, ports))).await.is_err() {
                    return;
                }
            }
            if !read.events.is_empty() {
                continue;
            }
            if self.kept_only {
                return;
            }
            tokio::select! {
                changed = count.wait_for(|n| *n > from) => if changed.is_err() { return },
                () = sender.closed() => return,
            }
        }
    }

    fn wants(&self, told: &Told) -> bool {
        let is_here = self.bridge.is_empty() || told.bridge.is_empty() || told.bridge == self.bridge;
        let kind = match &told.event {
            Event::PacketIn { .. } => EventKind::PacketIn,
            Event::Removed { .. } => EventKind::FlowRemoved,
            Event::Port(_) => EventKind::Port,
            Event::Sampled(_) => EventKind::Sample,
        };
        is_here && (self.kinds.is_empty() || self.kinds.contains(&kind))
    }
}

/// The ports of all bridges, by the bridges' names.
fn all_ports(host: &Host) -> BTreeMap<String, Arc<PortTable>> {
    host.bridges().iter().map(|bridge| (bridge.name().to_owned(), Arc::clone(bridge.ports()))).collect()
}

fn message(told: &Told, ports: &PortTable) -> pb::Event {
    let event = match &told.event {
        Event::PacketIn { bridge, worker, packet_in: found } => {
            Happened::PacketIn(packet_in((*bridge, *worker), found, ports))
        }
        Event::Removed { removed, stats } => Happened::FlowRemoved(flow_removed(removed, *stats)),
        Event::Port(PortEvent { what, port, name, up, mtu }) => Happened::Port(pb::PortEvent {
            what: what.name().to_owned(),
            port_no: port.get(),
            name: name.clone(),
            up: *up,
            mtu: *mtu,
        }),
        Event::Sampled(sampled) => Happened::Sample(sample(sampled, ports)),
    };
    pb::Event { index: told.index, time: told.time.nanos(), bridge: told.bridge.clone(), event: Some(event) }
}

fn packet_in((bridge, worker): (BridgeId, usize), found: &PacketIn, ports: &PortTable) -> pb::PacketIn {
    let punt = &found.punt;
    let id = found.continuation.map(|id| PausedId { bridge, worker, id }.to_string());
    pb::PacketIn {
        reason: punt.to.reason.name().to_owned(),
        table: punt.table.get().into(),
        cookie: punt.cookie,
        in_port: found.in_port.get(),
        port: port_name(ports, found.in_port),
        controller: punt.to.controller.into(),
        userdata: punt.to.userdata.clone(),
        metadata: punt.metadata.to_string(),
        frame: found.bytes.clone(),
        n_bytes: found.n_bytes as u64,
        flow: headers_of(&found.bytes, found.in_port),
        id: id.unwrap_or_default(),
    }
}

fn flow_removed(removed: &Removed, (n_packets, n_bytes): (u64, u64)) -> pb::FlowRemoved {
    let rule = &removed.rule;
    pb::FlowRemoved {
        reason: removed.reason.name().to_owned(),
        table: rule.table.get().into(),
        priority: rule.priority.get().into(),
        cookie: rule.cookie,
        r#match: rule.matching.to_string(),
        actions: print_actions(&rule.actions),
        n_packets,
        n_bytes,
        age_ns: removed.at.since(rule.life.born).as_nanos() as u64,
    }
}

fn sample(sampled: &Sampled, ports: &PortTable) -> pb::Sample {
    let told = &sampled.sample;
    pb::Sample {
        in_port: sampled.in_port.get(),
        port: port_name(ports, sampled.in_port),
        probability: told.probability.into(),
        collector_set: told.collector_set,
        obs_domain: told.obs_domain,
        obs_point: told.obs_point,
        frame: sampled.bytes.clone(),
        flow: headers_of(&sampled.bytes, sampled.in_port),
    }
}

/// Name of a port; empty when it is not there.
pub(super) fn port_name(ports: &PortTable, port: PortNo) -> String {
    ports.get(port).map(|info| info.name.clone()).unwrap_or_default()
}

/// The headers of a frame as a flow; what cannot be read is left out.
pub(super) fn headers_of(bytes: &[u8], in_port: PortNo) -> String {
    let mut key = FlowKey::zero();
    let mut packet = flowtable::build::packet(bytes, in_port);
    match flowtable::parse::parse(&mut packet, &mut key) {
        Ok(()) => {
            // It is not in the frame.
            key.in_port.set(0);
            print_headers(&key)
        }
        Err(_) => String::new(),
    }
}

fn send_packet(host: &mut Host, request: pb::SendPacketRequest) -> Result<pb::SendPacketResponse, Status> {
    let bridge = bridges::of_port(host, &request.bridge, &request.in_port)?;
    let (bridge, ports) = (bridge.id(), Arc::clone(bridge.ports()));
    let wrong =
        |what: &str, error: &dyn std::fmt::Display| Status::invalid_argument(format!("{what}: {error}"));
    let in_port = match request.in_port.as_str() {
        "" | "CONTROLLER" | "controller" => PortNo::CONTROLLER,
        name => find_port(&ports, name)?,
    };
    let actions = parse_actions(&request.actions, &ports).map_err(|error| wrong("the actions", &error))?;
    let packet = request.packet.unwrap_or_default();
    let frame = lab::frame_given(packet, in_port, &ports, 1)
        .map_err(|error| Status::invalid_argument(error.to_string()))?;
    let sent = host
        .send_packet(PortId::new(bridge, in_port), actions, frame)
        .map_err(|error| Status::new(Code::InvalidArgument, error.to_string()))?;
    Ok(answer(host, sent))
}

fn resume(host: &mut Host, request: pb::ResumePacketRequest) -> Result<pb::SendPacketResponse, Status> {
    let refusal = |error: ResumeError| {
        let code = match error {
            ResumeError::NotAnId(_) => Code::InvalidArgument,
            ResumeError::FrameUnknown(_) | ResumeError::Send(_) => Code::FailedPrecondition,
        };
        Status::new(code, error.to_string())
    };
    let id: PausedId = request.id.parse().map_err(refusal)?;
    let metadata = match request.metadata.as_str() {
        "" => Match::any(),
        text => parse_match(
            text,
            host.bridge_of(id.bridge).map_or(&PortTable::default(), |bridge| bridge.ports()),
        )
        .map_err(|error| Status::invalid_argument(format!("the metadata: {error}")))?,
    };
    let sent = host.resume(id, metadata, request.frame).map_err(refusal)?;
    Ok(answer(host, sent))
}

fn answer(host: &Host, sent: SentPacket) -> pb::SendPacketResponse {
    pb::SendPacketResponse {
        forwarded: sent.forwarded,
        drops: dump::drops_of(host, &sent.drops),
        outputs: sent.sent.into_iter().map(lab::output).collect(),
    }
}

pub(super) fn find_port(ports: &PortTable, text: &str) -> Result<PortNo, Status> {
    let by_number = || PortNo::new(text.parse().ok()?).ok();
    ports.by_name(text).or_else(by_number).ok_or_else(|| {
        Status::not_found(format!(
            "port `{text}`: there is none of this name or number; vswitchctl port list shows those there are"
        ))
    })
}

fn stations(host: &Host, bridge: &Bridge) -> pb::DumpStationsResponse {
    host.dataplane().flush_stats();
    let (fdb, now) = (bridge.tables().fdb(), host.dataplane().now());
    let (config, counters) = (fdb.config(), fdb.counters());
    pb::DumpStationsResponse {
        stations: fdb.dump().iter().map(|entry| station(entry, bridge.ports(), now)).collect(),
        max: config.max_entries as u64,
        max_age_ns: config.max_age.as_nanos() as u64,
        n_learned: counters.n_learned,
        n_moved: counters.n_moved,
        n_expired: counters.n_expired,
        n_evicted: counters.n_evicted,
        n_flushed: counters.n_flushed,
    }
}

fn station(entry: &FdbEntry, ports: &PortTable, now: Timestamp) -> pb::Station {
    pb::Station {
        port_no: entry.port.get(),
        port: port_name(ports, entry.port),
        vlan: entry.vlan.get().into(),
        mac: entry.mac.to_string(),
        age_ns: entry.seen.map(|seen| now.since(seen).as_nanos() as u64),
    }
}

fn set_station(host: &mut Host, request: &pb::SetStationRequest) -> Result<pb::SetStationResponse, Status> {
    let bridge = bridges::of_port(host, &request.bridge, &request.port)?;
    let port = find_port(bridge.ports(), &request.port)?;
    let station = (vlan(request.vlan)?, mac(&request.mac)?);
    let id = bridge.id();
    let set = host.set_station(id, station, port);
    set.map(|()| pb::SetStationResponse {}).map_err(|error| Status::internal(error.to_string()))
}

fn station_filter(bridge: &Bridge, request: &pb::FlushStationsRequest) -> Result<FdbFilter, Status> {
    let port = match request.port.as_str() {
        "" => None,
        name => Some(find_port(bridge.ports(), name)?),
    };
    let mac = (!request.mac.is_empty()).then(|| mac(&request.mac)).transpose()?;
    let vlan = request.vlan.map(vlan).transpose()?;
    Ok(FdbFilter { port, vlan, mac, with_static: request.with_static })
}

fn vlan(raw: u32) -> Result<VlanId, Status> {
    let vlan = u16::try_from(raw).ok().and_then(|raw| VlanId::new(raw).ok());
    vlan.ok_or_else(|| Status::invalid_argument(format!("VLAN {raw}: VLANs are 0 to 4095")))
}

fn mac(text: &str) -> Result<MacAddr, Status> {
    let wrong = |_| {
        let text = text.escape_debug();
        Status::invalid_argument(format!("`{text}` is not a MAC address, like 0a:00:00:00:00:01"))
    };
    text.parse().map_err(wrong)
}
