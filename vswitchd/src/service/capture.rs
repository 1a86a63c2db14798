//! Captures: what the workers show, handed to whoever asked for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use dataplane::{Capture, CaptureFilter, CapturePoint, Captured, PortId};
use ferroflow_proto::host::{self as pb, capture_service_server::CaptureService};
use flowtable::{
    flow::Match,
    port::PortTable,
    text::parse_match,
    types::{BridgeId, PortNo},
};
use tokio::sync::mpsc;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status};

use super::{Service, bridges, dump, events, top};
use crate::host::{Bridge, Host, SharedHost};

/// Packets of one message.
const CHUNK: usize = 256;
/// Messages that wait to be sent to one reader.
const MAX_WAITING: usize = 4;
/// How often the workers are asked while nothing comes.
const INTERVAL: Duration = Duration::from_millis(10);

type CaptureStream = Pin<Box<dyn Stream<Item = Result<pb::CaptureResponse, Status>> + Send>>;

#[tonic::async_trait]
impl CaptureService for Service {
    type CaptureStream = CaptureStream;
    type TopStream = top::TopStream;

    async fn top(&self, request: Request<pb::TopRequest>) -> Result<Response<top::TopStream>, Status> {
        let (request, shared) = (request.into_inner(), self.host.clone());
        let reader = self.host.with(move |host| top::begin(&shared, host, &request)).await?;
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        tokio::spawn(reader.run(sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn capture(&self, request: Request<pb::CaptureRequest>) -> Result<Response<CaptureStream>, Status> {
        let request = request.into_inner();
        let describe = request.describe;
        let (capture, started) = self.host.with(move |host| begin(host, &request)).await?;
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        let reader = Reader { host: self.host.clone(), capture, started, describe };
        tokio::spawn(reader.run(sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// Starts a capture; with it, the time since 1970 of the clock's start.
fn begin(host: &Host, request: &pb::CaptureRequest) -> Result<(Capture, Duration), Status> {
    let bridges = bridges::some(host, &request.bridge)?;
    let mut ports = BTreeSet::new();
    for name in &request.ports {
        ports.insert(find_port(host, &bridges, name)?);
    }
    let points: BTreeSet<_> =
        request.points().map(point).collect::<Option<_>>().ok_or_else(|| {
            Status::invalid_argument("a place to capture at is none that this version knows")
        })?;
    let filter = CaptureFilter {
        points: if points.is_empty() { CapturePoint::ALL.into() } else { points },
        bridge: (!request.bridge.is_empty()).then(|| bridges.first().copied()).flatten(),
        ports,
        matching: matching(host, &bridges, &request.r#match)?,
        max_len: if request.max_len == 0 { usize::MAX } else { request.max_len as usize },
    };
    let dataplane = host.dataplane();
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let started = match host.lab() {
        Ok(_) => Duration::ZERO,
        Err(_) => since_1970.saturating_sub(Duration::from_nanos(dataplane.now().nanos())),
    };
    Ok((dataplane.capture(filter), started))
}

fn point(point: pb::CapturePoint) -> Option<CapturePoint> {
    match point {
        pb::CapturePoint::Unspecified => None,
        pb::CapturePoint::Received => Some(CapturePoint::Received),
        pb::CapturePoint::Sent => Some(CapturePoint::Sent),
        pb::CapturePoint::Dropped => Some(CapturePoint::Dropped),
    }
}

fn matching(host: &Host, bridges: &[BridgeId], text: &str) -> Result<Match, Status> {
    let nowhere = PortTable::default();
    let ports =
        bridges.first().and_then(|id| host.bridge_of(*id)).map_or(&nowhere, |bridge| &**bridge.ports());
    let matching = parse_match(text, ports).map_err(|error| Status::invalid_argument(error.to_string()))?;
    if matching.memberships().is_empty() {
        return Ok(matching);
    }
    Err(Status::invalid_argument("a capture knows no ranges and named sets; give values and masks"))
}

fn find_port(host: &Host, bridges: &[BridgeId], name: &str) -> Result<PortId, Status> {
    let mut workloads = host.workload_ports();
    if let Some((_, port)) = workloads.find(|(_, port)| !name.is_empty() && port.logical_port == name) {
        return Ok(port.id());
    }
    let of =
        |bridge: &Bridge| events::find_port(bridge.ports(), name).map(|port| PortId::new(bridge.id(), port));
    let mut found = bridges.iter().filter_map(|id| host.bridge_of(*id)).map(of);
    let first = found.next().unwrap_or_else(|| Err(Status::not_found("there is no bridge")));
    first.or_else(|error| found.find_map(Result::ok).ok_or(error))
}

/// Names of bridges and ports.
type Names = BTreeMap<BridgeId, (String, Arc<PortTable>)>;

/// Hands one reader what is captured for him.
struct Reader {
    host: SharedHost,
    capture: Capture,
    started: Duration,
    describe: bool,
}

impl Reader {
    /// Reads until the reader is gone; the capture ends with it.
    async fn run(self, sender: mpsc::Sender<Result<pb::CaptureResponse, Status>>) {
        loop {
            let (captured, n_lost) = self.capture.take(CHUNK);
            if captured.is_empty() && n_lost == 0 {
                tokio::select! {
                    () = tokio::time::sleep(INTERVAL) => continue,
                    () = sender.closed() => return,
                }
            }
            let names = self.host.with(|host| names(host)).await;
            let packets = captured.iter().map(|captured| self.message(captured, &names)).collect();
            if sender.send(Ok(pb::CaptureResponse { packets, n_lost })).await.is_err() {
                return;
            }
        }
    }

    fn message(&self, captured: &Captured, names: &Names) -> pb::CapturedPacket {
        let PortId { bridge, port } = captured.port;
        let (bridge, ports) = names.get(&bridge).map_or(("", None), |(name, ports)| (name, Some(ports)));
        let known = ports.and_then(|ports| ports.get(port)).map(|port| port.name.clone());
        let is_whole = captured.bytes.len() == captured.len;
        pb::CapturedPacket {
            point: match captured.point {
                CapturePoint::Received => pb::CapturePoint::Received,
                CapturePoint::Sent => pb::CapturePoint::Sent,
                CapturePoint::Dropped => pb::CapturePoint::Dropped,
            }
            .into(),
            time: (self.started.as_nanos() as u64).saturating_add(captured.time.nanos()),
            port: known.unwrap_or_else(|| port.to_string()),
            port_no: port.get(),
            bridge: bridge.to_owned(),
            frame: captured.bytes.to_vec(),
            n_bytes: captured.len as u64,
            reason: captured.reason.map(|reason| reason.name().to_owned()).unwrap_or_default(),
            origin: captured.rule.as_ref().map(|rule| dump::origin(&rule.origin)),
            flow: match self.describe && is_whole {
                true => events::headers_of(&captured.bytes, PortNo::ZERO),
                false => String::new(),
            },
        }
    }
}

fn names(host: &Host) -> Names {
    let of = |bridge: &Bridge| (bridge.id(), (bridge.name().to_owned(), Arc::clone(bridge.ports())));
    host.bridges().iter().map(of).collect()
}
