//! Rules of a stranger for packets of another: whatever the tables take, the switch carries out, and
//! forgets no packet.
//!
//! An input is some lines of rules, groups, meters, named sets (`set web type=port 80`), settings of tables
//! (`settings table=1,miss=continue`) and of fragments (`frags drop`), an empty line, and frames: each two
//! bytes of length, in which the upper four bits are the port it comes in by.

use std::sync::{Arc, LazyLock};

use flowtable::{
    build,
    conntrack::{Config, Conntrack, Storage},
    key::{FlowKey, FlowMask, N_WORDS},
    packet::Packet,
    port::PortTable,
    snapshot::Snapshot,
    switch::{Sink, Switch, SwitchConfig},
    table::{Change, GroupChange, MeterChange, SetChange, Tables},
    text,
    types::{Epoch, PortNo, Timestamp},
};

use crate::frames;

/// Rules of one input.
const MAX_LINES: usize = 40;
/// Frames of one input.
const MAX_FRAMES: usize = 8;
/// Connections that the tracker has room for.
const N_CONNECTIONS: usize = 8;
/// Copies that a sink has room for: rules may ask for as many as the switch's limit, and the input is
/// about what they do, not about how long that takes.
const MAX_SENT: usize = 256;

/// Rules through the connection tracker, with translations, labels and choices.
const TRACKED: &[&str] = &[
    "group_id=1,type=select,bucket=weight:1,actions=output:1,bucket=weight:2,actions=output:2",
    "priority=1,actions=push_mpls:0x8847,set_field:5->mpls_label,output:2",
    "priority=2,mpls,actions=pop_mpls:0x0800,output:3",
    "priority=3,ip,actions=ct(table=1,nat)",
    "priority=3,ipv6,actions=ct(table=1,nat)",
    "table=1,priority=3,ct_state=+new,ip,actions=ct(commit,nat(src=10.0.0.9:7-9),exec(move:NXM_OF_IN_PORT[]->NXM_NX_CT_MARK[0..15])),group:1",
    "table=1,priority=3,ct_state=+new,ipv6,actions=ct(commit,zone=3,nat(dst=fd00::9)),group:1",
    "table=1,priority=4,ct_state=+est,actions=ct_clear,resubmit(,2),output:3",
    "table=1,priority=5,ct_state=+rel,actions=IN_PORT",
    "table=1,priority=0,actions=controller(userdata=01.02)",
    "table=2,priority=0,actions=push:NXM_NX_REG0[],pop:NXM_NX_REG1[],multipath(symmetric_l4,1,modulo_n,3,0,NXM_NX_REG0[])",
];

/// Lines and frames.
pub fn rules(data: &[u8]) {
    let end = data.windows(2).position(|pair| pair == b"\n\n").unwrap_or(data.len());
    let (lines, frames) = data.split_at(end);
    let Ok(lines) = std::str::from_utf8(lines) else { return };
    carry_out(&snapshot(lines.lines().take(MAX_LINES)), frames.get(2..).unwrap_or_default());
}

/// A packet from a controller: a line of actions, an empty line, a frame.
pub fn packet_out(data: &[u8]) {
    static SNAPSHOT: LazyLock<Arc<Snapshot>> =
        LazyLock::new(|| snapshot(TRACKED.iter().chain(SENT_OUT).copied()));
    let end = data.windows(2).position(|pair| pair == b"\n\n").unwrap_or(data.len());
    let (line, frame) = data.split_at(end);
    let Ok(line) = std::str::from_utf8(line) else { return };
    let Ok(actions) = text::parse_actions(line, &frames::world().ports) else { return };
    let frame = frame.get(2..).unwrap_or_default();
    let [mut switch, _] = switches();
    let snapshot = with_own_stations(&SNAPSHOT);
    for (n, port) in [PortNo::CONTROLLER, PortNo::ZERO, PortNo::LOCAL].into_iter().enumerate() {
        let now = Timestamp::from_nanos(n as u64 * 1_000_000_000);
        let mut sink = Bounded::default();
        let packet = build::packet(frame, port);
        let done = switch.packet_out(now, &snapshot, (port, actions.clone()), packet, &mut sink);
        let n_held = switch.conntrack().map_or(0, |tracker| tracker.fragments_held().0);
        assert!(done.is_err() || sink.n_in + n_held > sink.n_made, "a buffer went missing");
    }
}

/// Where a packet from a controller may come to besides [`TRACKED`].
const SENT_OUT: &[&str] = &[
    "priority=0,actions=NORMAL",
    "table=3,actions=learn(table=4,hard_timeout=9,NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[],output:NXM_OF_IN_PORT[]),resubmit(,4)",
];

/// Frames alone, through rules that track connections.
pub fn tracked(data: &[u8]) {
    static SNAPSHOT: LazyLock<Arc<Snapshot>> = LazyLock::new(|| snapshot(TRACKED.iter().copied()));
    carry_out(&SNAPSHOT, data);
}

/// The same for a switch alone, which learns by itself where stations are.
fn with_own_stations(snapshot: &Snapshot) -> Arc<Snapshot> {
    let tables = Tables::clone(&snapshot.tables).with_fdb(Arc::default());
    Arc::new(Snapshot { tables: Arc::new(tables), ..snapshot.clone() })
}

/// One with caches, one without.
fn switches() -> [Switch; 2] {
    [64, 0].map(|n| {
        let config = Config { seed: 1, ..Config::default() };
        let conntrack = Conntrack::new(config, Storage::on_heap(N_CONNECTIONS));
        Switch::with_seed(SwitchConfig { n_sessions: n, n_megaflows: n }, 1)
            .with_conntrack(Arc::new(conntrack))
    })
}

fn carry_out(snapshot: &Arc<Snapshot>, mut frames: &[u8]) {
    let mut switches = switches();
    let snapshots = [(); 2].map(|()| with_own_stations(snapshot));
    for n in 0..MAX_FRAMES as u64 {
        let Some((&[high, low], rest)) = frames.split_first_chunk() else { break };
        let (port, len) = (u32::from(high >> 6) + 1, usize::from(high & 0xf) << 8 | usize::from(low));
        let (frame, rest) = rest.split_at(len.min(rest.len()));
        frames = rest;
        let Ok(port) = PortNo::new(port) else { break };
        let now = Timestamp::from_nanos(n * 7_000_000_000);
        let mut sinks = [Bounded::default(), Bounded::default()];
        for ((switch, snapshot), sink) in switches.iter_mut().zip(&snapshots).zip(&mut sinks) {
            let mut batch = vec![build::packet(frame, port)];
            switch.process(now, snapshot, port, &mut batch, sink);
            // Fragments are entered in the books when it is known what becomes of them.
            let n_waiting = switch.conntrack().map_or(0, |tracker| tracker.fragments_held().0 as u64);
            let counters = switch.counters();
            assert_eq!(counters.n_packets + n_waiting, n + 1);
            assert_eq!(
                counters.n_forwarded + counters.n_dropped,
                counters.n_packets,
                "a packet went missing"
            );
            assert_eq!(sink.n_in, sink.n_made + 1, "a buffer went missing");
        }
        // Meters are the tables', which both switches share: they need not see the same.
        if snapshot.tables.meters().next().is_none() {
            assert_eq!(sinks[0].sent, sinks[1].sent, "the caches change what leaves");
        }
    }
    for megaflow in switches[0].megaflows() {
        text::print_megaflow_match(&megaflow.key, &megaflow.mask);
        text::print_program(&megaflow.program);
    }
}

fn read(line: &str, ports: &PortTable, tables: &Tables) -> Option<Change> {
    if let Some(set) = line.strip_prefix("set ") {
        return text::parse_set(set).ok().map(|set| Change::Set(SetChange::Add(set)));
    }
    if let Some(settings) = line.strip_prefix("settings ") {
        let old = |table| tables.settings(table).clone();
        let (table, settings) = text::parse_table_settings(settings, old).ok()?;
        return Some(Change::Table(table, settings));
    }
    if let Some(mode) = line.strip_prefix("frags ") {
        return text::parse_fragment_mode(mode).ok().map(Change::Fragments);
    }
    if line.starts_with("group_id") {
        let group = text::parse_group(line, ports).ok();
        return group.map(|group| Change::Group(GroupChange::Set(group)));
    }
    if line.starts_with("meter") {
        return text::parse_meter(line).ok().map(|meter| Change::Meter(MeterChange::Set(meter)));
    }
    text::parse_flow(line, ports).ok().map(Change::Add)
}

fn snapshot<'a>(lines: impl Iterator<Item = &'a str>) -> Arc<Snapshot> {
    let world = frames::world();
    let mut tables = Tables::default();
    for line in lines {
        let change = read(line, &world.ports, &tables);
        // What the tables do not take is not there.
        if let Some(changed) = change.and_then(|change| tables.transact(vec![change]).ok()) {
            tables = changed;
        }
    }
    let (epoch, tables) = (Epoch::new(2).expect("2 is an epoch"), Arc::new(tables));
    Arc::new(Snapshot { epoch, tables, ..Snapshot::clone(world) })
}

/// A key and a mask as text.
pub fn datapath_text(data: &[u8]) {
    let (mut key, mut mask) = (FlowKey::zero(), FlowMask::empty());
    let mut words = data.chunks_exact(10);
    for word in &mut words {
        let idx = usize::from(word[0]) % N_WORDS;
        let value = word[2..].iter().fold(0, |value: u64, byte| value << 8 | u64::from(*byte));
        let bits = if word[1] & 1 == 0 { u64::MAX } else { value };
        mask.words_mut()[idx] |= bits;
        key.words_mut()[idx] = key.words()[idx] | value & bits;
    }
    text::print_megaflow_match(&key, &mask);
}

/// Takes so many copies and no more.
#[derive(Default)]
struct Bounded {
    n_made: usize,
    n_in: usize,
    sent: Vec<(PortNo, Vec<u8>)>,
}

impl Sink<Vec<u8>> for Bounded {
    fn output(&mut self, port: PortNo, packet: Packet<Vec<u8>>) {
        self.n_in += 1;
        self.sent.push((port, packet.bytes().to_vec()));
    }

    fn copy(&mut self, packet: &Packet<Vec<u8>>) -> Option<Packet<Vec<u8>>> {
        (self.n_made < MAX_SENT).then(|| {
            self.n_made += 1;
            build::packet(packet.bytes(), packet.in_port)
        })
    }

    fn release(&mut self, _: Packet<Vec<u8>>) {
        self.n_in += 1;
    }
}
