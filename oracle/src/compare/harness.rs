//! The switch's side: it gets the rules as text, and its packets with a number that copies keep.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::{Context, Result, ensure};
use flowtable::{
    conntrack::{Config, Conntrack, Storage},
    flow::{Action, Rule},
    packet::{HEADROOM, Packet},
    port::{PortInfo, PortRole, PortTable},
    program::TunnelKind,
    set::SetName,
    snapshot::Snapshot,
    switch::{PacketIn, Sink, Switch, SwitchConfig},
    table::{Change, GroupChange, MeterChange, Tables},
    text::{self, SetChangeKind},
    types::{Epoch, MacAddr, PortNo, Timestamp},
    underlay::{NextHop, TunnelPort, Underlay},
};

use super::{LOCAL, PEER, judge::Case};
use crate::{
    interpreter::{Port, Ports, Sent},
    outer,
    syntax::Rules,
};

pub(super) const UPLINK: u32 = 9;
pub(super) const TUNNEL: u32 = 10;
/// Connections that there is room for.
const N_CONNECTIONS: usize = 4096;

/// A frame that knows which packet it is a copy of.
#[derive(Debug)]
pub struct Numbered {
    bytes: Vec<u8>,
    number: usize,
}

impl AsRef<[u8]> for Numbered {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl AsMut<[u8]> for Numbered {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

/// The packet number so and so.
pub fn numbered(frame: &[u8], port: PortNo, number: usize) -> Packet<Numbered> {
    let bytes = [&[0; HEADROOM], frame].concat();
    Packet::new(Numbered { bytes, number }, HEADROOM, frame.len(), port)
}

/// What the switch did with a batch.
#[derive(Debug)]
pub struct Observed {
    /// What left, by packet.
    pub sent: Vec<Vec<Sent>>,
    /// What controllers were told, in order.
    pub told: Vec<PacketIn>,
    /// Packets dropped, by reason.
    pub drops: BTreeMap<&'static str, u64>,
}

/// A switch and its tables.
pub struct Harness {
    switch: Switch,
    tables: Tables,
    snapshot: Arc<Snapshot>,
}

impl Harness {
    /// A switch without rules.
    pub fn new(config: SwitchConfig, seed: u64) -> Self {
        let tracker = Config { seed, ..Config::default() };
        let tracker = Conntrack::new(tracker, Storage::on_heap(N_CONNECTIONS));
        let switch = Switch::with_seed(config, seed).with_conntrack(Arc::new(tracker));
        Self { switch, tables: Tables::default(), snapshot: Arc::default() }
    }

    /// Other rules, of which the switch reads the text. Sets stay, and get other members.
    ///
    /// # Errors
    /// It does not take them.
    pub fn change(&mut self, rules: &Rules, ports: &Ports) -> Result<()> {
        let table = port_table(ports)?;
        let mut changes = vec![Change::Clear, Change::Group(GroupChange::DeleteAll)];
        let is_there = |name: &str| SetName::new(name).is_ok_and(|name| self.tables.set(&name).is_some());
        for set in &rules.sets {
            let kind = if is_there(set.name) { SetChangeKind::Replace } else { SetChangeKind::Add };
            changes.push(Change::Set(text::parse_set_change(kind, &set.to_string())?));
        }
        changes.extend(reading(rules, &table)?);
        let tables = std::mem::take(&mut self.tables).transact(changes).with_context(|| rules.to_string())?;
        let (underlay, ports) = (Arc::new(underlay()?), Arc::new(table));
        self.snapshot = Arc::new(Snapshot { underlay, ports, ..(*self.snapshot).clone() });
        self.publish(tables)
    }

    fn publish(&mut self, tables: Tables) -> Result<()> {
        self.tables = tables.clone();
        let (epoch, tables) = (Epoch::new(self.snapshot.epoch.get() + 1)?, Arc::new(tables));
        self.snapshot = Arc::new(Snapshot { epoch, tables, ..(*self.snapshot).clone() });
        Ok(())
    }

    /// What owners of tables do now and then: takes what packets have learned into the tables, and
    /// forgets stations that are silent.
    ///
    /// # Errors
    /// A learned rule is refused.
    fn take_lessons(&mut self, now: Timestamp) -> Result<()> {
        let learned = self.switch.take_learned();
        if !learned.is_empty() {
            let learning = self.tables.learn(&learned, now);
            ensure!(learning.n_refused == 0, "a learned rule is refused: {:?}", learning.refusal);
            if let Some(commit) = learning.commit {
                self.publish(commit.tables)?;
            }
        }
        if !self.tables.fdb().is_empty() {
            self.switch.flush_stats();
            self.tables.fdb().expire(now);
        }
        Ok(())
    }

    /// Lets the switch do a batch.
    ///
    /// # Errors
    /// What it sent makes no sense.
    pub fn process(&mut self, now: Timestamp, case: &Case) -> Result<Observed> {
        let before = drops(&self.switch);
        let port = PortNo::new(case.port)?;
        let frames = case.packets.iter().enumerate();
        let mut packets: Vec<_> =
            frames.map(|(number, packet)| numbered(&packet.frame, port, number)).collect();
        let mut sink = Collector { sent: vec![Vec::new(); case.packets.len()] };
        self.switch.process(now, &self.snapshot, port, &mut packets, &mut sink);
        let mut drops = drops(&self.switch);
        for (reason, n) in before {
            *drops.entry(reason).or_default() -= n;
        }
        drops.retain(|_, n| *n != 0);
        let understood = |sent: Vec<(u32, Vec<u8>)>| sent.into_iter().map(understood).collect();
        let sent = sink.sent.into_iter().map(understood).collect::<Result<_>>()?;
        self.take_lessons(now)?;
        Ok(Observed { sent, told: self.switch.take_packet_ins(), drops })
    }

    /// Packets that a cache answered for.
    pub fn n_cache_hits(&self) -> u64 {
        let counters = self.switch.counters();
        counters.n_session_hits + counters.n_megaflow_hits
    }
}

/// Packets dropped so far, by reason.
fn drops(switch: &Switch) -> BTreeMap<&'static str, u64> {
    let mut drops = BTreeMap::new();
    for row in switch.drops() {
        *drops.entry(row.reason.name()).or_default() += row.n_packets;
    }
    drops
}

/// What the switch sent, without the tunnel header.
fn understood((port, bytes): (u32, Vec<u8>)) -> Result<Sent> {
    if port == UPLINK
        && let Some((outer, inner)) = outer::open(&bytes, LOCAL)?
    {
        return Ok(Sent { port, frame: inner.to_vec(), tunnel: Some(outer) });
    }
    Ok(Sent { port, frame: bytes, tunnel: None })
}

fn port_table(ports: &Ports) -> Result<PortTable> {
    let mut table = PortTable::default();
    for (number, port) in ports {
        let (role, up) = match port {
            Port::Workload { up } => (PortRole::Workload, *up),
            Port::Uplink => (PortRole::Uplink, true),
            Port::Tunnel { .. } => (PortRole::Tunnel, true),
        };
        let name = format!("p{number}");
        table.insert(PortNo::new(*number)?, PortInfo { name, role, up, mtu: 1500, partial_checksums: false });
    }
    Ok(table)
}

fn underlay() -> Result<Underlay> {
    let (src_mac, dst_mac) = (MacAddr::new([2, 0, 0, 0, 0, 1]), MacAddr::new([2, 0, 0, 0, 0, 2]));
    let tunnel = TunnelPort {
        port: PortNo::new(TUNNEL)?,
        kind: TunnelKind::Geneve,
        udp_port: outer::GENEVE_PORT,
        local: LOCAL.into(),
    };
    let hop = NextHop { port: PortNo::new(UPLINK)?, src_mac, dst_mac };
    Ok(Underlay {
        tunnels: vec![tunnel],
        peers: [PEER.into()].into(),
        next_hops: [(PEER.into(), hop)].into(),
    })
}

/// Changes that bring rules into tables, read from their text; each must print as what reads back alike.
///
/// # Errors
/// Names the one that the switch does not understand.
pub fn reading(rules: &Rules, ports: &PortTable) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    for meter in &rules.meters {
        let read = text::parse_meter(&meter.to_string()).with_context(|| meter.to_string())?;
        ensure!(text::parse_meter(&text::print_meter(&read))? == read, "printed differently: {meter}");
        changes.push(Change::Meter(MeterChange::Set(read)));
    }
    // Those that others lead to come first.
    for group in rules.groups.iter().rev() {
        let read = text::parse_group(&group.to_string(), ports).with_context(|| group.to_string())?;
        ensure!(text::parse_group(&text::print_group(&read), ports)? == read, "printed differently: {group}");
        changes.push(Change::Group(GroupChange::Set(read)));
    }
    for flow in &rules.flows {
        let rule = text::parse_flow(&flow.to_string(), ports).with_context(|| flow.to_string())?;
        let parts = |rule: Rule| -> (_, Vec<Action>) { (rule.matching, rule.actions) };
        let back = text::parse_flow(&text::print_flow(&rule), ports)?;
        ensure!(parts(back) == parts(rule.clone()), "printed differently: {flow}");
        changes.push(Change::Add(rule));
    }
    Ok(changes)
}

/// Keeps what leaves, by packet.
#[derive(Default)]
pub struct Collector {
    /// Port and frame, in order.
    pub sent: Vec<Vec<(u32, Vec<u8>)>>,
}

impl Sink<Numbered> for Collector {
    fn output(&mut self, port: PortNo, packet: Packet<Numbered>) {
        if let Some(sent) = self.sent.get_mut(packet.buf().number) {
            sent.push((port.get(), packet.bytes().to_vec()));
        }
    }

    fn copy(&mut self, packet: &Packet<Numbered>) -> Option<Packet<Numbered>> {
        Some(numbered(packet.bytes(), packet.in_port, packet.buf().number))
    }

    fn release(&mut self, _: Packet<Numbered>) {}
}
