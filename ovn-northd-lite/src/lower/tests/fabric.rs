//! Two chassis with real switches, connection trackers included, and the wire between
//! them.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use flowtable::{
    build::{self, Host as End, packet},
    checksum::pseudo_ipv4,
    conntrack::Filter,
    drop::DropReason,
    field::Field,
    key::FlowKey,
    packet::Packet,
    parse::parse,
    snapshot::Snapshot,
    stats::DropCount,
    switch::{PacketIn, Sink, Switch, SwitchConfig},
    table::Commit,
    types::{PortNo, Timestamp},
};

use super::host::{Host, OUTSIDE, UPLINK};
use crate::{model::Northbound, punt::Request};

/// A frame that left by a port.
pub(super) type Sent = (String, Vec<u8>);

pub(super) struct Fabric {
    chassis: BTreeMap<&'static str, Chassis>,
    now: u64,
}

struct Chassis {
    host: Host,
    snapshot: Arc<Snapshot>,
    switch: Switch,
    n_received: u64,
}

impl Chassis {
    /// Other tables are in force.
    fn take(&mut self, commit: Commit) {
        let snapshot = Arc::make_mut(&mut self.snapshot);
        snapshot.tables = Arc::new(commit.tables);
        snapshot.epoch = snapshot.epoch.next();
    }
}

#[derive(Default)]
struct Collect(Vec<(PortNo, Vec<u8>)>);

impl Sink<Vec<u8>> for Collect {
    fn output(&mut self, port: PortNo, packet: Packet<Vec<u8>>) {
        self.0.push((port, packet.bytes().to_vec()));
    }

    fn copy(&mut self, packet: &Packet<Vec<u8>>) -> Option<Packet<Vec<u8>>> {
        let mut copy = flowtable::build::packet(packet.bytes(), packet.in_port);
        (copy.layout, copy.offload) = (packet.layout, packet.offload);
        Some(copy)
    }

    fn release(&mut self, _: Packet<Vec<u8>>) {}
}

impl Fabric {
    pub(super) fn new(nb: &Northbound) -> Self {
        Self::with_dead(nb, &[])
    }

    /// The same, while some chassis are taken for dead by the others.
    pub(super) fn with_dead(nb: &Northbound, dead: &[&str]) -> Self {
        let chassis = ["h1", "h2"].map(|id| {
            let host = Host::with_dead(nb, id, dead);
            let snapshot = Arc::new(host.snapshot.clone());
            let switch = Switch::with_seed(SwitchConfig::default(), 7);
            (id, Chassis { host, snapshot, switch, n_received: 0 })
        });
        Self { chassis: chassis.into(), now: 1_000_000_000 }
    }

    /// The network has changed; connections and caches stay.
    pub(super) fn change(&mut self, nb: &Northbound) {
        for (id, chassis) in &mut self.chassis {
            let epoch = chassis.snapshot.epoch.next();
            chassis.host = Host::new(nb, id);
            chassis.snapshot = Arc::new(Snapshot { epoch, ..chassis.host.snapshot.clone() });
        }
    }

    /// A workload sends; what arrives, wherever.
    pub(super) fn send(&mut self, from: &str, frame: &[u8]) -> Vec<Sent> {
        self.now += 1_000_000;
        let id = *self.chassis.iter().find(|(_, chassis)| chassis.host.has(from)).unwrap().0;
        let port = PortNo::new(self.chassis[id].host.port(from)).unwrap();
        self.receive(id, port, frame)
    }

    /// The network outside delivers a frame to a host.
    pub(super) fn deliver(&mut self, id: &'static str, frame: &[u8]) -> Vec<Sent> {
        self.now += 1_000_000;
        self.receive(id, PortNo::new(OUTSIDE).unwrap(), frame)
    }

    fn receive(&mut self, id: &'static str, port: PortNo, frame: &[u8]) -> Vec<Sent> {
        let chassis = self.chassis.get_mut(id).unwrap();
        let (mut batch, mut sink) = (vec![packet(frame, port)], Collect::default());
        chassis.n_received += 1;
        let now = Timestamp::from_nanos(self.now);
        chassis.switch.process(now, &chassis.snapshot, port, &mut batch, &mut sink);
        let learned = chassis.switch.take_learned();
        if let Some(commit) = chassis.snapshot.tables.learn(&learned, now).commit {
            chassis.take(commit);
        }
        let mut sent = Vec::new();
        for (port, frame) in sink.0 {
            if port.get() == UPLINK {
                let other = if id == "h1" { "h2" } else { "h1" };
                sent.extend(self.receive(other, port, &frame));
            } else {
                sent.push((self.chassis[id].host.name(port), frame));
            }
        }
        sent
    }

    /// Time goes on; learned rules whose time has come go.
    pub(super) fn pass(&mut self, seconds: u64) {
        self.now += seconds * 1_000_000_000;
        for chassis in self.chassis.values_mut() {
            chassis.switch.flush_stats();
            if let Some(commit) = chassis.snapshot.tables.expire(Timestamp::from_nanos(self.now)) {
                chassis.take(commit);
            }
        }
    }

    /// Connections that a host remembers, as sources and destinations of who began them, by zone.
    pub(super) fn connections(&self, id: &str) -> BTreeMap<u16, Vec<(IpAddr, IpAddr)>> {
        let mut zones: BTreeMap<u16, Vec<_>> = BTreeMap::new();
        let Some(tracker) = self.chassis[id].switch.conntrack() else { return zones };
        for found in tracker.dump(Timestamp::from_nanos(self.now), &Filter::default()) {
            let ip = |bits| found.original.address(bits);
            let pair = (ip(found.original.src), ip(found.original.dst));
            zones.entry(found.original.zone).or_default().push(pair);
        }
        zones
    }

    /// Frames that a host has received.
    pub(super) fn n_received(&self, id: &str) -> u64 {
        self.chassis[id].n_received
    }

    /// What the hosts' responders are asked.
    pub(super) fn requests(&mut self) -> Vec<(Request, PacketIn)> {
        let ins = self.chassis.values_mut().flat_map(|chassis| chassis.switch.take_packet_ins());
        ins.map(|found| (Request::decode(&found.punt.to.userdata).unwrap(), found)).collect()
    }

    /// Drops with a rule, by stage and object.
    pub(super) fn drops(&self) -> BTreeMap<String, u64> {
        let all = self.chassis.values().flat_map(|chassis| chassis.switch.drops());
        let named = |drop: DropCount| match (drop.reason, drop.rule) {
            (DropReason::RuleDrop, Some(rule)) => {
                (format!("{} {}", rule.origin.stage, rule.origin.object), drop.n_packets)
            }
            (reason, _) => (reason.to_string(), drop.n_packets),
        };
        let mut drops = BTreeMap::new();
        all.map(named).for_each(|(name, n)| *drops.entry(name).or_default() += n);
        drops
    }

    /// Every packet received was forwarded or has a named drop.
    pub(super) fn check_conservation(&self) {
        for (id, chassis) in &self.chassis {
            let counters = chassis.switch.counters();
            let named: u64 = chassis.switch.drops().iter().map(|drop| drop.n_packets).sum();
            assert_eq!(counters.n_packets, chassis.n_received, "{id}");
            assert_eq!(
                counters.n_packets,
                counters.n_forwarded + named,
                "{id}: {:?}",
                chassis.switch.drops()
            );
        }
    }
}

/// The key of a frame.
pub(super) fn key(frame: &[u8]) -> FlowKey {
    let mut key = FlowKey::zero();
    parse(&mut packet(frame, PortNo::new(1).unwrap()), &mut key).unwrap();
    key
}

/// Some fields of a frame.
pub(super) fn fields(frame: &[u8], fields: &[Field]) -> Vec<u128> {
    fields.iter().map(|field| key(frame).get(*field)).collect()
}

/// A TCP segment over IPv4 with these numbers.
pub(super) fn tcp(from: &End, to: &End, flags: u16, (seq, ack): (u32, u32), payload: &[u8]) -> Vec<u8> {
    const TCP: usize = 34;
    let mut frame = build::tcp(from, to, flags, payload);
    frame[TCP + 4..TCP + 8].copy_from_slice(&seq.to_be_bytes());
    frame[TCP + 8..TCP + 12].copy_from_slice(&ack.to_be_bytes());
    frame[TCP + 14..TCP + 18].copy_from_slice(&[0xff, 0xff, 0, 0]);
    let key = key(&frame);
    let pseudo = pseudo_ipv4(key.nw_src.get(), key.nw_dst.get(), 6, frame.len() - TCP);
    let sum = pseudo.bytes(&frame[TCP..]).checksum().to_be_bytes();
    frame[TCP + 16..TCP + 18].copy_from_slice(&sum);
    frame
}
