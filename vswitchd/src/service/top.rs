//! Which flows and pairs of ports have most of the traffic, told from time to time to whoever asked.

use std::{collections::BTreeMap, pin::Pin, time::Duration};

use dataplane::{Order, PortId, Talker, Top, TopConfig, TopReport};
use ferroflow_proto::host as pb;
use flowtable::{
    account::FlowId,
    field::Field,
    key::FlowKey,
    text::print_headers,
    types::{BridgeId, PortNo},
};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tonic::Status;

use super::bridges;
use crate::host::{Host, SharedHost};

/// What is usual: answers, packets that are looked at, flows of an answer.
const INTERVAL: u32 = 2_000;
const EVERY: u32 = 16;
const COUNT: u32 = 10;
/// The shortest time between two answers, in milliseconds, and the longest.
const INTERVALS: std::ops::RangeInclusive<u32> = 100..=3_600_000;
/// Flows that an answer can have.
const MAX_COUNT: usize = 1024;
/// For each of which a worker has so many in mind: who is not among the greatest for long does
/// not spoil what is counted of them.
const CAPACITY_EACH: usize = 8;
const MIN_CAPACITY: usize = 1024;

pub(super) type TopStream = Pin<Box<dyn Stream<Item = Result<pb::TopResponse, Status>> + Send>>;

/// Hands one reader what is seen.
pub(super) struct Reader {
    host: SharedHost,
    top: Top,
    interval: Duration,
    count: usize,
}

/// Begins to watch.
pub(super) fn begin(shared: &SharedHost, host: &Host, request: &pb::TopRequest) -> Result<Reader, Status> {
    let or = |value: u32, usual: u32| if value == 0 { usual } else { value };
    let interval = or(request.interval, INTERVAL);
    if !INTERVALS.contains(&interval) {
        return Err(Status::invalid_argument("an interval is 100 to 3600000 milliseconds"));
    }
    let bridges = bridges::some(host, &request.bridge)?;
    let count = (or(request.count, COUNT) as usize).min(MAX_COUNT);
    let config = TopConfig {
        bridge: bridges.first().copied().filter(|_| !request.bridge.is_empty()),
        every: or(request.every, EVERY),
        capacity: (CAPACITY_EACH * count).max(MIN_CAPACITY),
        order: if request.by_packets { Order::Packets } else { Order::Bytes },
    };
    let top = host.dataplane().watch_top(config);
    Ok(Reader { host: shared.clone(), top, interval: Duration::from_millis(interval.into()), count })
}

impl Reader {
    /// Tells until the reader is gone; nobody watches any more then.
    pub(super) async fn run(self, sender: mpsc::Sender<Result<pb::TopResponse, Status>>) {
        let mut tick = tokio::time::interval(self.interval);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tick.tick().await;
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = sender.closed() => return,
            }
            let report = self.top.take(self.count);
            let names = self.host.with(|host| names(host)).await;
            if sender.send(Ok(message(&report, &names))).await.is_err() {
                return;
            }
        }
    }
}

/// Names of bridges, and of their ports.
type Names = BTreeMap<BridgeId, (String, BTreeMap<PortNo, String>)>;

fn names(host: &Host) -> Names {
    let of = |bridge: &crate::host::Bridge| {
        let ports = bridge.ports().iter().map(|(port, info)| (port, info.name.clone())).collect();
        (bridge.id(), (bridge.name().to_owned(), ports))
    };
    host.bridges().iter().map(of).collect()
}

fn message(report: &TopReport, names: &Names) -> pb::TopResponse {
    let bridge = |id: &BridgeId| names.get(id).map(|(name, _)| name.clone()).unwrap_or_default();
    let port = |id: PortId| {
        let known = names.get(&id.bridge).and_then(|(_, ports)| ports.get(&id.port));
        known.cloned().unwrap_or_else(|| id.port.to_string())
    };
    let flow = |talker: &Talker<(BridgeId, FlowId)>| {
        let (id, flow) = talker.key;
        pb::TopFlow {
            bridge: bridge(&id),
            in_port: port(PortId::new(id, flow.in_port)),
            vlan: flow.vlan.get().into(),
            flow: headers(&flow),
            count: Some(count(talker)),
        }
    };
    let pair = |talker: &Talker<(PortId, PortId)>| pb::TopPair {
        bridge: bridge(&talker.key.0.bridge),
        in_port: port(talker.key.0),
        out_port: port(talker.key.1),
        count: Some(count(talker)),
    };
    pb::TopResponse {
        seconds: report.elapsed.as_secs_f64(),
        n_packets: report.total.0,
        n_bytes: report.total.1,
        flows: report.flows.iter().map(flow).collect(),
        pairs: report.pairs.iter().map(pair).collect(),
        most_missed: report.most_missed,
    }
}

fn count<K>(talker: &Talker<K>) -> pb::TopCount {
    let Talker { n_packets, n_bytes, missed, spread, .. } = *talker;
    pb::TopCount { n_packets, n_bytes, missed, spread }
}

/// A flow's headers as rules have them.
fn headers(flow: &FlowId) -> String {
    use std::net::IpAddr;
    let mut key = FlowKey::zero();
    let number = |octets: [u8; 6]| octets.iter().fold(0, |sum, octet| sum << 8 | u128::from(*octet));
    let mut fields = vec![
        (Field::EthSrc, number(flow.macs.0.octets())),
        (Field::EthDst, number(flow.macs.1.octets())),
        (Field::EthType, flow.eth_type.into()),
        (Field::NwProto, flow.protocol.into()),
        (Field::TcpSrc, flow.ports.0.into()),
        (Field::TcpDst, flow.ports.1.into()),
    ];
    match flow.ips {
        Some((IpAddr::V4(src), IpAddr::V4(dst))) => {
            fields.extend([(Field::NwSrc, src.to_bits().into()), (Field::NwDst, dst.to_bits().into())]);
        }
        Some((IpAddr::V6(src), IpAddr::V6(dst))) => {
            fields.extend([(Field::Ipv6Src, src.to_bits()), (Field::Ipv6Dst, dst.to_bits())]);
        }
        _ => {}
    }
    fields.into_iter().for_each(|(field, value)| key.set(field, value));
    print_headers(&key)
}
