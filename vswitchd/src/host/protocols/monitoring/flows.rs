//! What collectors of NetFlow and IPFIX are told of a bridge.

use std::time::Duration;

use bridge_protocols::{
    flows::{Count, FlowCache},
    ipfix::{self, Observation, Observed},
    netflow,
};
use flowtable::{
    account::{Counted, FlowId},
    field::Field,
    flow::{Sample, SampleDirection},
    key::FlowKey,
    packet::{HEADROOM, Packet},
    parse::parse,
    switch::Sampled,
    types::Timestamp,
};

use super::{
    super::settings::{IpfixSetSettings, NetflowSettings},
    sender::Sender,
};

/// Which of an exporter's ways to choose packets it was: there is one.
const SELECTOR: u16 = 1;

/// Who tells collectors of NetFlow.
#[derive(Debug)]
pub(super) struct Netflow {
    sender: Sender,
    exporter: netflow::Exporter,
    cache: FlowCache<FlowId>,
}

impl Netflow {
    pub(super) fn new(settings: &NetflowSettings) -> Self {
        Self {
            sender: Sender::new(&settings.targets, settings.source),
            exporter: netflow::Exporter::new((settings.engine_type, settings.engine_id)),
            cache: FlowCache::new(settings.limits()),
        }
    }

    /// Takes in what was counted of a flow since `from`.
    pub(super) fn add(&mut self, from: Timestamp, counted: &Counted) {
        if counted.flow.is_ipv4() {
            self.cache.add(counted.flow, &count_of(from, counted));
        }
    }

    /// Tells of flows that it is time for; `is_last`: of all.
    pub(super) fn tell(&mut self, now: Timestamp, since_1970: Duration, is_last: bool) {
        let flows = if is_last { self.cache.end() } else { self.cache.take(now) };
        self.sender.send(&self.exporter.write(now, since_1970, &flows));
    }

    /// Flows that are gathered, and datagrams that were lost here.
    pub(super) fn counters(&self) -> (u64, u64) {
        (self.cache.len() as u64, self.sender.n_lost())
    }
}

/// Who tells collectors of IPFIX: all ports', or those of a set that rules sample for.
#[derive(Debug)]
pub(super) struct Ipfix {
    sender: Sender,
    exporter: ipfix::Exporter,
    cache: FlowCache<Observed>,
}

impl Ipfix {
    pub(super) fn new(settings: &IpfixSetSettings) -> Self {
        Self {
            sender: Sender::new(&settings.targets, settings.source),
            exporter: ipfix::Exporter::new(Duration::from_secs(settings.template_interval)),
            cache: FlowCache::new(settings.limits()),
        }
    }

    /// Says with which probability packets are chosen.
    pub(super) fn set_probability(&mut self, probability: f64) {
        self.exporter.set_selector(SELECTOR, probability);
    }

    /// Takes in what was counted of a flow since `from`.
    pub(super) fn add(&mut self, from: Timestamp, counted: &Counted, (domain, point): (u32, u32)) {
        let observation = Observation { domain, point, selector: SELECTOR, ..Observation::default() };
        let observed = Observed { flow: counted.flow, observation };
        self.cache.add(observed, &count_of(from, counted));
    }

    /// Takes in a packet.
    pub(super) fn show(&mut self, now: Timestamp, sampled: &Sampled) {
        let Some(key) = key_of(sampled) else { return };
        let Sample { obs_domain, obs_point, sampling_port, direction, probability, .. } = sampled.sample;
        // Each rule has a probability of its own.
        let selector = if probability == u16::MAX { 0 } else { probability };
        self.exporter.set_selector(selector, f64::from(probability) / f64::from(u16::MAX));
        let observation = Observation {
            domain: obs_domain,
            point: obs_point,
            selector,
            is_egress: direction == SampleDirection::Egress,
            out_port: sampling_port
                .filter(|_| direction == SampleDirection::Egress)
                .map_or(0, |port| port.get()),
        };
        let count = Count {
            n_packets: 1,
            n_bytes: sampled.bytes.len() as u64,
            tcp_flags: key.get(Field::TcpFlags) as u16,
            first: now,
            last: now,
            ..Count::default()
        };
        self.cache.add(Observed { flow: FlowId::of(&key), observation }, &count);
    }

    /// Tells of flows that it is time for; `is_last`: of all.
    pub(super) fn tell(&mut self, now: Timestamp, since_1970: Duration, is_last: bool) {
        let flows = if is_last { self.cache.end() } else { self.cache.take(now) };
        self.sender.send(&self.exporter.write(now, since_1970, &flows));
    }

    /// Flows that are gathered, and datagrams that were lost here.
    pub(super) fn counters(&self) -> (u64, u64) {
        (self.cache.len() as u64, self.sender.n_lost())
    }
}

/// What was counted of a flow since `from`, when its counters were read before.
fn count_of(from: Timestamp, counted: &Counted) -> Count {
    let Counted { n_packets, n_bytes, way, used, .. } = *counted;
    // One packet came when the last one did; otherwise the first one came after the last look.
    let first = if n_packets == 1 { used } else { from.min(used) };
    Count { n_packets, n_bytes, tcp_flags: 0, way, first, last: used }
}

/// The headers of a packet.
fn key_of(sampled: &Sampled) -> Option<FlowKey> {
    let mut key = FlowKey::zero();
    let buf = [&[0; HEADROOM][..], &sampled.bytes].concat();
    parse(&mut Packet::new(buf, HEADROOM, sampled.bytes.len(), sampled.in_port), &mut key).ok()?;
    key.set(Field::InPort, sampled.in_port.get().into());
    Some(key)
}
