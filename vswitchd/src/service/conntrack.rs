//! The tracked connections: dump, flush, who has most, settings. What reads all of them
//! does so beside the host, which others may use meanwhile.

use std::{collections::BTreeMap, sync::Arc};

use ferroflow_proto::host::{
    self as pb, conntrack_service_server::ConntrackService, conntrack_setting::Setting,
};
use flowtable::{
    conntrack::{self, Conntrack, Filter, N_POLICIES, State},
    text::{parse_connection_filter, print_connection, protocol_name},
    types::Timestamp,
};
use tonic::{Code, Request, Response, Status};

use super::{Service, connection_events::ConnectionEventStream};
use crate::host::{Host, TrackingChange, TrackingError};

/// Connections of one message.
const CHUNK: usize = 1000;
/// Talkers that are listed unless it is said how many.
const DEFAULT_TALKERS: usize = 10;
/// Most that can be asked for.
const MAX_TALKERS: usize = 10_000;

type Chunks = futures::stream::Iter<std::vec::IntoIter<Result<pb::DumpConnectionsResponse, Status>>>;

#[tonic::async_trait]
impl ConntrackService for Service {
    type DumpConnectionsStream = Chunks;
    type MonitorConnectionsStream = ConnectionEventStream;

    async fn monitor_connections(
        &self,
        request: Request<pb::MonitorConnectionsRequest>,
    ) -> Result<Response<ConnectionEventStream>, Status> {
        let request = request.into_inner();
        let kinds: Vec<_> = request.kinds().collect();
        if kinds.contains(&pb::ConnectionEventKind::Unspecified) {
            return Err(Status::invalid_argument("an event is of no kind that this version knows"));
        }
        let filter = filter(&request.filter)?;
        let tracker = self.host.with(|host| Arc::clone(host.dataplane().conntrack())).await;
        Ok(Response::new(self.connection_events.watch(&tracker, &self.host, filter, kinds)))
    }

    async fn dump_connections(
        &self,
        request: Request<pb::DumpConnectionsRequest>,
    ) -> Result<Response<Chunks>, Status> {
        let filter = filter(&request.into_inner().filter)?;
        let chunks = self
            .beside(move |tracker, now| {
                let found = tracker.dump(now, &filter);
                let chunk = |chunk: &[conntrack::Connection]| {
                    Ok(pb::DumpConnectionsResponse { connections: chunk.iter().map(connection).collect() })
                };
                found.chunks(CHUNK).map(chunk).collect::<Vec<_>>()
            })
            .await?;
        Ok(Response::new(futures::stream::iter(chunks)))
    }

    async fn flush_connections(
        &self,
        request: Request<pb::FlushConnectionsRequest>,
    ) -> Result<Response<pb::FlushConnectionsResponse>, Status> {
        let filter = filter(&request.into_inner().filter)?;
        let n_removed = self.beside(move |tracker, now| tracker.flush(now, &filter)).await?;
        Ok(Response::new(pb::FlushConnectionsResponse { n_removed }))
    }

    async fn list_talkers(
        &self,
        request: Request<pb::ListTalkersRequest>,
    ) -> Result<Response<pb::ListTalkersResponse>, Status> {
        let max = match request.into_inner().max {
            0 => DEFAULT_TALKERS,
            max => MAX_TALKERS.min(max as usize),
        };
        let most =
            move |tracker: &Conntrack, now| (tracker.top_talkers(now, max), tracker.top_ports(now, max));
        let (talkers, ports) = self.beside(most).await?;
        let names = self.host.with(|host| names_by_number(host)).await;
        let talkers = talkers.into_iter().map(|talker| pb::Talker {
            zone: talker.zone.into(),
            address: talker.who.to_string(),
            n_connections: talker.n_connections,
            n_unreplied: talker.n_unreplied,
        });
        let ports = ports.into_iter().map(|talker| pb::PortTalker {
            zone: talker.zone.into(),
            port: talker.who.into(),
            name: names.get(&talker.who.into()).cloned().unwrap_or_default(),
            n_connections: talker.n_connections,
            n_unreplied: talker.n_unreplied,
        });
        Ok(Response::new(pb::ListTalkersResponse { talkers: talkers.collect(), ports: ports.collect() }))
    }

    async fn get_conntrack(
        &self,
        _request: Request<pb::GetConntrackRequest>,
    ) -> Result<Response<pb::GetConntrackResponse>, Status> {
        Ok(Response::new(self.host.with(|host| status(host)).await))
    }

    async fn set_conntrack(
        &self,
        request: Request<pb::SetConntrackRequest>,
    ) -> Result<Response<pb::GetConntrackResponse>, Status> {
        let settings = request.into_inner().settings;
        let changes = settings.into_iter().map(change).collect::<Result<Vec<_>, _>>()?;
        self.host
            .with(move |host| {
                host.change_tracking(changes).map_err(|error| refusal(&error))?;
                Ok(Response::new(status(host)))
            })
            .await
    }
}

/// Names of the ports whose numbers are in one bridge only: the tracker serves all bridges.
fn names_by_number(host: &Host) -> BTreeMap<u32, String> {
    let mut names: BTreeMap<u32, Option<String>> = BTreeMap::new();
    for (port, info) in host.bridges().iter().flat_map(|bridge| bridge.ports().iter()) {
        let only = names.entry(port.get()).or_insert_with(|| Some(String::new()));
        *only = only.take().filter(String::is_empty).map(|_| info.name.clone());
    }
    names.into_iter().filter_map(|(port, name)| name.map(|name| (port, name))).collect()
}

impl Service {
    /// Does something with the tracker, on a thread that may take its time.
    async fn beside<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Conntrack, Timestamp) -> T + Send + 'static,
    ) -> Result<T, Status> {
        let (tracker, now) =
            self.host.with(|host| (Arc::clone(host.dataplane().conntrack()), host.dataplane().now())).await;
        let acting = tokio::task::spawn_blocking(move || act(&tracker, now));
        acting.await.map_err(|error| Status::internal(error.to_string()))
    }
}

fn filter(text: &str) -> Result<Filter, Status> {
    parse_connection_filter(text).map_err(|error| Status::invalid_argument(error.to_string()))
}

pub(super) fn connection(found: &conntrack::Connection) -> pb::Connection {
    let tuple = |tuple: &conntrack::Tuple| pb::Tuple {
        proto: protocol_name(tuple),
        src: tuple.address(tuple.src).to_string(),
        dst: tuple.address(tuple.dst).to_string(),
        src_port: tuple.src_port.into(),
        dst_port: tuple.dst_port.into(),
    };
    pb::Connection {
        text: print_connection(found, true),
        original: Some(tuple(&found.original)),
        reply: Some(tuple(&found.reply)),
        zone: found.original.zone.into(),
        mark: found.mark,
        label: format!("{:#x}", found.label),
        state: found.state.name().to_owned(),
        replied: found.has_replied,
        snat: found.snat,
        dnat: found.dnat,
        policy: found.policy.into(),
        in_port: found.in_port.into(),
        expires_in_ns: found.expires_in.as_nanos() as u64,
        helper: found.alg.map(|alg| alg.name().to_owned()).unwrap_or_default(),
        master: found.master.as_ref().map(tuple),
    }
}

pub(super) fn status(host: &Host) -> pb::GetConntrackResponse {
    let (tracker, settings) = (host.dataplane().conntrack(), host.tracking());
    let stats = tracker.stats();
    let mut zones: std::collections::BTreeMap<u16, pb::ConntrackZone> = tracker
        .zones()
        .into_iter()
        .map(|(zone, n)| (zone, pb::ConntrackZone { n_connections: n.into(), ..Default::default() }))
        .collect();
    for (zone, limit) in &settings.zone_limits {
        zones.entry(*zone).or_default().limit = Some(*limit);
    }
    for (zone, policy) in &settings.zone_policies {
        zones.entry(*zone).or_default().policy = (*policy).into();
    }
    let zones = zones.into_iter().map(|(zone, found)| pb::ConntrackZone { zone: zone.into(), ..found });
    let timeouts = (0..N_POLICIES as u8).flat_map(|policy| {
        State::ALL.iter().filter_map(move |state| {
            let (timeout, set) = settings.timeout(policy, *state);
            (policy == 0 || set).then(|| pb::ConntrackTimeout {
                policy: policy.into(),
                state: state.name().to_owned(),
                seconds: timeout.as_secs(),
                set,
            })
        })
    });
    pb::GetConntrackResponse {
        n_connections: stats.n_connections,
        n_slots: stats.n_slots,
        n_created: stats.n_created,
        n_expired: stats.n_expired,
        n_evicted: stats.n_evicted,
        n_removed: stats.n_removed,
        n_invalid: stats.n_invalid,
        n_full: stats.n_full,
        n_limited: stats.n_limited,
        n_nat_exhausted: stats.n_nat_exhausted,
        zones: zones.collect(),
        default_zone_limit: settings.default_zone_limit,
        port_limit: settings.port_limit,
        total_limit: settings.total_limit,
        checks_sequence: settings.checks_sequence,
        picks_up: settings.picks_up,
        checks_checksums: settings.checks_checksums,
        timeouts: timeouts.collect(),
    }
}

fn change(setting: pb::ConntrackSetting) -> Result<TrackingChange, Status> {
    let zone = |raw: u32| {
        u16::try_from(raw)
            .map_err(|_| Status::invalid_argument(format!("zone {raw}: zones are 0 to {}", u16::MAX)))
    };
    let policy = |raw: u32| {
        u8::try_from(raw).map_err(|_| {
            let max = N_POLICIES - 1;
            Status::invalid_argument(format!("policy {raw}: timeout policies are 0 to {max}"))
        })
    };
    let unknown = || Status::invalid_argument("a setting is of no kind that this version knows");
    Ok(match setting.setting.ok_or_else(unknown)? {
        Setting::ZoneLimit(set) => TrackingChange::ZoneLimit(zone(set.zone)?, set.limit),
        Setting::DefaultZoneLimit(set) => TrackingChange::DefaultZoneLimit(set.limit),
        Setting::PortLimit(set) => TrackingChange::PortLimit(set.limit),
        Setting::TotalLimit(set) => TrackingChange::TotalLimit(set.limit),
        Setting::Timeout(set) => TrackingChange::Timeout(policy(set.policy)?, set.state, set.seconds),
        Setting::ResetPolicy(raw) => TrackingChange::ResetPolicy(policy(raw)?),
        Setting::ZonePolicy(set) => TrackingChange::ZonePolicy(zone(set.zone)?, policy(set.policy)?),
        Setting::ChecksSequence(on) => TrackingChange::ChecksSequence(on),
        Setting::PicksUp(on) => TrackingChange::PicksUp(on),
        Setting::ChecksChecksums(on) => TrackingChange::ChecksChecksums(on),
    })
}

fn refusal(error: &TrackingError) -> Status {
    let code = match error {
        TrackingError::Policy(_) | TrackingError::State(_) | TrackingError::Timeout(_) => {
            Code::InvalidArgument
        }
        TrackingError::Save(_) => Code::Internal,
    };
    Status::new(code, error.to_string())
}
