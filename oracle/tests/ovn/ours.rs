//! What becomes of packets here: of those that begin connections in the switch, with its tracker, of others
//! by its trace. Those are packets whose connections would have to be there before them, and pings that
//! routers answer: ovn-trace takes the answer for one more packet of the same kind.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use flowtable::{
    build::{self, Host},
    conntrack::{Config, Conntrack, Storage},
    field::Field,
    key::{FlowKey, ct_state},
    packet::Packet,
    parse::parse,
    pipeline::Translation,
    port::{PortInfo, PortRole, PortTable},
    snapshot::Snapshot,
    switch::{Sink, Switch, SwitchConfig},
    table::{Change, GroupChange, MeterChange, SetChange, Tables},
    trace::{StepEvent, Trace, TraceOptions, leaving, trace_with},
    types::{Epoch, MacAddr, PortNo, Timestamp},
};
use ovn_northd_lite::{
    LocalPorts, compile, lower,
    punt::{Request, Service},
};

use crate::{
    Left, Verdict, model,
    packet::{Headers, Probe, SRC_PORT, Speech},
    world::{self, World},
};

/// Lookups of connections on a packet's way, at most.
const MAX_LOOKUPS: usize = 12;
/// Passes of one packet, and its connections, at most.
const N_PASSES: usize = 1 << 8;

/// The switch of the one host.
pub(crate) struct Ours {
    snapshot: Arc<Snapshot>,
    names: BTreeMap<PortNo, String>,
    /// Nothing changes addresses: the switch's trace has to say the same as the switch.
    is_plain: bool,
}

impl Ours {
    pub(crate) fn new(world: &World) -> Self {
        let nb = model::network(world);
        let number = |port: &world::Port| PortNo::new(port.number.into()).unwrap();
        let ports: BTreeMap<_, _> = world.ports.iter().map(|port| (port.id(), number(port))).collect();
        let chassis = model::HOST.to_owned();
        let local = LocalPorts { chassis, ports: ports.clone(), ..LocalPorts::default() };
        let lowered = lower(&compile(&nb, &BTreeMap::new()), &local);
        assert_eq!(lowered.errors, []);
        let meters = lowered.meters.into_iter().map(|meter| Change::Meter(MeterChange::Add(meter)));
        let sets = lowered.sets.into_iter().map(|set| Change::Set(SetChange::Add(set)));
        let groups = lowered.groups.into_iter().map(|group| Change::Group(GroupChange::Add(group)));
        let rules = lowered.rules.into_iter().map(Change::Add);
        let changes = meters.chain(sets).chain(groups).chain(rules).collect();
        let mut table = PortTable::default();
        for (name, port) in &ports {
            let (name, role) = (name.clone(), PortRole::Workload);
            table.insert(*port, PortInfo { name, role, up: true, mtu: 1500, partial_checksums: false });
        }
        let snapshot = Snapshot {
            epoch: Epoch::ZERO.next(),
            tables: Arc::new(Tables::default().transact(changes).unwrap()),
            ports: Arc::new(table),
            ..Snapshot::default()
        };
        Self {
            snapshot: Arc::new(snapshot),
            names: ports.into_iter().map(|(name, port)| (port, name)).collect(),
            is_plain: !world.translates(),
        }
    }

    /// What becomes of a packet, and the rules that it met.
    pub(crate) fn send(&self, probe: &Probe) -> (String, Verdict) {
        if probe.is_established || probe.is_for_router {
            return self.trace(probe);
        }
        let (steps, sent) = self.switch(probe);
        if self.is_plain {
            let (_, traced) = self.trace(probe);
            assert!(sent == traced, "{probe:?}\nswitch: {sent:?}\ntrace: {traced:?}\n{steps}");
        }
        (steps, sent)
    }

    /// By a switch that has seen no packet before.
    fn switch(&self, probe: &Probe) -> (String, Verdict) {
        let port = PortNo::new(probe.from as u32 + 1).unwrap();
        let tracker = Conntrack::new(Config { seed: 0, ..Config::default() }, Storage::on_heap(N_PASSES));
        let caches = SwitchConfig { n_sessions: 0, n_megaflows: N_PASSES };
        let mut switch = Switch::with_seed(caches, 0).with_conntrack(Arc::new(tracker));
        let (mut sent, mut batch) = (Sent::default(), vec![build::packet(&frame(probe), port)]);
        switch.process(Timestamp::default(), &self.snapshot, port, &mut batch, &mut sent);
        let mut passes = switch.megaflows();
        passes.sort_by_key(|pass| pass.key.recirc_id.get());
        let rules = passes.iter().flat_map(|pass| &pass.rules);
        let steps: String =
            rules.map(|rule| format!("{} {} {rule}\n", rule.origin.stage, rule.origin.object)).collect();
        let asked = switch.take_packet_ins();
        let asked = asked.iter().filter_map(|asked| Request::decode(&asked.punt.to.userdata));
        let mut verdict = judge(asked, &steps);
        verdict.left = sent.0.iter().map(|(port, frame)| self.left(*port, frame)).collect();
        (steps, verdict)
    }

    fn trace(&self, probe: &Probe) -> (String, Verdict) {
        let first = key(&frame(probe), PortNo::new(probe.from as u32 + 1).unwrap());
        let state = if probe.is_established { ct_state::EST } else { ct_state::NEW };
        let ct_next = vec![ct_state::TRK | state; MAX_LOOKUPS];
        let traced = trace_with(&self.snapshot, &first, &TraceOptions { why: false, ct_next });
        let later = traced.passes.iter().filter_map(|pass| pass.outcome.as_ref().ok());
        let later = later.map(|pass| (&pass.key, &pass.translation));
        let all: Vec<(&FlowKey, &Translation)> =
            [(&first, &traced.translation)].into_iter().chain(later).collect();
        let emits =
            || all.iter().flat_map(|(key, passed)| passed.program.emits.iter().map(|emit| (*key, emit)));
        let punts = emits().filter_map(|(_, emit)| emit.extras.as_ref()?.punt.as_ref());
        let steps = steps(&traced);
        let mut verdict = judge(punts.filter_map(|punt| Request::decode(&punt.to.userdata)), &steps);
        let leaves = emits().filter(|(_, emit)| emit.ct.is_none() && self.names.contains_key(&emit.port));
        verdict.left = leaves.map(|(key, emit)| self.left(emit.port, &leaving(key, emit).unwrap())).collect();
        (steps, verdict)
    }

    fn left(&self, port: PortNo, frame: &[u8]) -> Left {
        let port_name = self.names[&port].clone();
        Left { port: port_name, headers: headers(&key(frame, port)) }
    }
}

/// What hosts are asked for, behind these steps.
fn judge(asked: impl Iterator<Item = Request>, steps: &str) -> Verdict {
    let mut verdict = Verdict::default();
    // Routers here say by ICMP that they have no route, where OVN's say nothing.
    let is_lost = steps.lines().next_back().is_some_and(|step| step.starts_with("lr_in_ip_routing "));
    for request in asked {
        verdict.is_refused |= match request.service {
            Service::Reject | Service::TcpReset => true,
            Service::Icmp4 | Service::Icmp6 => !is_lost,
            _ => false,
        };
        verdict.asks |= matches!(request.service, Service::Arp | Service::Solicitation);
    }
    verdict
}

fn frame(probe: &Probe) -> Vec<u8> {
    let end = |mac: &str, ip: &str, port| Host { mac: model::mac_of(mac), ip: ip.parse().unwrap(), port };
    let from = end(&probe.eth_src, &probe.src, SRC_PORT);
    let to = |port| end(&probe.eth_dst, &probe.dst, port);
    match probe.speech {
        Speech::Tcp(port) => build::tcp(&from, &to(port), 2, &[]),
        Speech::Udp(port) => build::udp(&from, &to(port), b"?"),
        Speech::Ping => build::icmp_echo(&from, &to(0), false, 1, 1, b"?"),
    }
}

fn key(frame: &[u8], port: PortNo) -> FlowKey {
    let (mut packet, mut key) = (build::packet(frame, port), FlowKey::zero());
    parse(&mut packet, &mut key).unwrap();
    key
}

fn headers(key: &FlowKey) -> Headers {
    let mac = |field| {
        let [.., a, b, c, d, e, f] = key.get(field).to_be_bytes();
        MacAddr::new([a, b, c, d, e, f]).to_string()
    };
    let is_v4 = key.get(Field::EthType) == 0x800;
    let ip = |v4, v6| match is_v4 {
        true => Ipv4Addr::from(key.get(v4) as u32).into(),
        false => Ipv6Addr::from(key.get(v6)).into(),
    };
    let has_ports = [6, 17].contains(&key.get(Field::NwProto));
    let port = |field| if has_ports { key.get(field) as u16 } else { 0 };
    Headers {
        eth_src: mac(Field::EthSrc),
        eth_dst: mac(Field::EthDst),
        src: ip(Field::NwSrc, Field::Ipv6Src),
        dst: ip(Field::NwDst, Field::Ipv6Dst),
        ttl: key.get(Field::NwTtl) as u8,
        ports: [port(Field::TcpSrc), port(Field::TcpDst)],
    }
}

fn steps(traced: &Trace) -> String {
    let later = traced.passes.iter().filter_map(|pass| pass.outcome.as_ref().ok());
    let later = later.flat_map(|passed| &passed.steps);
    let lines = traced.steps.iter().chain(later).filter_map(|step| match &step.event {
        StepEvent::Hit(rule) => Some(format!("{} {} {rule}\n", rule.origin.stage, rule.origin.object)),
        StepEvent::Miss(table) => Some(format!("miss in table {table}\n")),
        StepEvent::Lost(..) | StepEvent::Note(_) => None,
    });
    lines.collect()
}

/// What left, and by which port.
#[derive(Default)]
struct Sent(Vec<(PortNo, Vec<u8>)>);

impl Sink<Vec<u8>> for Sent {
    fn output(&mut self, port: PortNo, packet: Packet<Vec<u8>>) {
        self.0.push((port, packet.bytes().to_vec()));
    }

    fn copy(&mut self, packet: &Packet<Vec<u8>>) -> Option<Packet<Vec<u8>>> {
        let mut copy = build::packet(packet.bytes(), packet.in_port);
        (copy.layout, copy.offload) = (packet.layout, packet.offload);
        Some(copy)
    }

    fn release(&mut self, _: Packet<Vec<u8>>) {}
}
