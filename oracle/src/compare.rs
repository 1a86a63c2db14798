//! The switch against the interpreter: random rules, random packets, and caches that fill and age while
//! the rules change beneath them.
//!
//! A *triple* is a rule set, a packet, and what the caches hold when it comes. For each the switch must
//! send the same frames out of the same ports in the same order, or drop for the same reason.

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc};

use anyhow::{Context, Result, bail, ensure};
use flowtable::{
    build,
    packet::Packet,
    port::{PortInfo, PortRole, PortTable},
    program::TunnelKind,
    snapshot::Snapshot,
    switch::{Sink, Switch, SwitchConfig},
    table::{Change, Tables},
    text,
    types::{Epoch, MacAddr, PortNo, Timestamp},
    underlay::{NextHop, TunnelPort, Underlay},
};

use crate::{
    interpreter::{Outcome, Port, Ports, Sent, interpret},
    outer,
    rng::Rng,
    rules::{Repertoire, rules},
    syntax::Flow,
    traffic::{Arrival, arrival},
};

/// Our address on the underlay.
const LOCAL: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The peer whose next hop is known.
const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// An address nobody has.
const NOBODY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);
const UPLINK: u32 = 9;
const TUNNEL: u32 = 10;

const REPERTOIRE: Repertoire = Repertoire {
    ports: &[1, 2, 3, 4, UPLINK],
    tunnel: Some((TUNNEL, &[PEER.to_bits(), PEER.to_bits(), PEER.to_bits(), NOBODY.to_bits()])),
    loops: true,
    protocol: None,
};

/// Packets for each rule set.
const PER_RULES: usize = 1024;
/// Different packets among them: the rest are met by caches that know them.
const N_ARRIVALS: usize = 96;
/// Packets of a batch.
const BATCH: usize = 32;

/// What has been compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Rule sets, changed ones included.
    pub n_rule_sets: u64,
    /// Triples.
    pub n_triples: u64,
    /// Copies that left.
    pub n_copies: u64,
    /// Packets of which none left.
    pub n_drops: u64,
    /// Packets that a cache answered for.
    pub n_cache_hits: u64,
}

/// Compares until at least `n_triples` are done; every rule set follows from `seed` and its number.
///
/// # Errors
/// The first difference, with the rules, the packet and the seed that brings it back.
pub fn soak(seed: u64, n_triples: u64, progress: impl FnMut(&Tally)) -> Result<Tally> {
    soak_against(seed, n_triples, &|_| {}, progress)
}

/// Like [`soak`], with rules for the switch that `spoil` has changed: to see that a difference is noticed.
///
/// # Errors
/// The first difference.
pub fn soak_against(
    seed: u64,
    n_triples: u64,
    spoil: &dyn Fn(&mut Flow),
    mut progress: impl FnMut(&Tally),
) -> Result<Tally> {
    let mut tally = Tally::default();
    let mut seed = seed;
    while tally.n_triples < n_triples {
        world(seed, spoil, &mut tally).with_context(|| {
            format!("seed {seed}: `cargo xtask soak --triples 1 --seed {seed}` shows this again")
        })?;
        seed = seed.wrapping_add(1);
        progress(&tally);
    }
    Ok(tally)
}

/// One switch, its rules before and after a change, and its packets.
fn world(seed: u64, spoil: &dyn Fn(&mut Flow), tally: &mut Tally) -> Result<()> {
    let mut rng = Rng::new(seed);
    let mut flows = rules(&mut rng, &REPERTOIRE);
    // Odd sizes, so that entries have to make room for others.
    let size = rng.pick(&[0, 7, 1 << 10, 1 << 10]);
    let config = SwitchConfig { n_sessions: rng.pick(&[0, 16, 1 << 10]), n_megaflows: size };
    let mut switch = Switch::with_seed(config, seed);
    let arrivals: Vec<Arrival> = (0..N_ARRIVALS).map(|_| arrival(&mut rng)).collect();
    let mut now = 0;
    for epoch in 1..=2 {
        let mut theirs = flows.clone();
        theirs.iter_mut().for_each(spoil);
        let snapshot = snapshot(epoch, &theirs)?;
        tally.n_rule_sets += 1;
        let mut known = BTreeMap::new();
        for _ in 0..PER_RULES / BATCH / 2 {
            let (in_port, batch) = batch(&mut rng, &arrivals);
            now += rng.below(2_000_000_000);
            let expected: Vec<&Outcome> = {
                for idx in &batch {
                    known
                        .entry(*idx)
                        .or_insert_with(|| interpret(&flows, &ports(), in_port, &arrivals[*idx].frame));
                }
                batch.iter().map(|idx| &known[idx]).collect()
            };
            let frames: Vec<&[u8]> = batch.iter().map(|idx| arrivals[*idx].frame.as_slice()).collect();
            let at = Timestamp::from_nanos(now);
            check(&mut switch, at, &snapshot, in_port, &frames, &expected)
                .with_context(|| print_rules(&flows))?;
            tally.n_triples += batch.len() as u64;
            tally.n_copies += expected.iter().map(|outcome| outcome.sent.len() as u64).sum::<u64>();
            tally.n_drops += expected.iter().filter(|outcome| outcome.dropped.is_some()).count() as u64;
        }
        change(&mut rng, &mut flows);
    }
    let counters = switch.counters();
    tally.n_cache_hits += counters.n_session_hits + counters.n_megaflow_hits;
    Ok(())
}

/// Packets of one port.
fn batch(rng: &mut Rng, arrivals: &[Arrival]) -> (u32, Vec<usize>) {
    let in_port = arrivals[rng.index(arrivals.len())].port;
    let own: Vec<usize> = (0..arrivals.len()).filter(|idx| arrivals[*idx].port == in_port).collect();
    (in_port, (0..BATCH).map(|_| rng.pick(&own)).collect())
}

/// Takes some rules away and brings others.
fn change(rng: &mut Rng, flows: &mut Vec<Flow>) {
    for _ in 0..1 + rng.below(4) {
        if !flows.is_empty() {
            flows.remove(rng.index(flows.len()));
        }
    }
    let taken: Vec<(u8, u16)> = flows.iter().map(|flow| (flow.table, flow.priority)).collect();
    let fresh = rules(rng, &REPERTOIRE).into_iter().take(3);
    flows.extend(fresh.filter(|flow| !taken.contains(&(flow.table, flow.priority))));
}

/// Lets the switch do a batch, and compares.
fn check(
    switch: &mut Switch,
    now: Timestamp,
    snapshot: &Arc<Snapshot>,
    in_port: u32,
    frames: &[&[u8]],
    expected: &[&Outcome],
) -> Result<()> {
    let before = drops(switch);
    let port = PortNo::new(in_port)?;
    let mut packets: Vec<_> = frames.iter().map(|frame| build::packet(frame, port)).collect();
    let mut sink = Collector::default();
    switch.process(now, snapshot, port, &mut packets, &mut sink);
    let mut sent = sink.sent.into_iter();
    for (frame, outcome) in frames.iter().zip(expected) {
        for wanted in &outcome.sent {
            let got = sent.next().map(|(port, bytes)| understood(port, bytes)).transpose()?;
            if got.as_ref() != Some(wanted) {
                let got = got.map_or("nothing".to_owned(), |sent| show(&sent));
                bail!("of {}\nport {in_port} {}\nthe switch sent {got}", show(wanted), hex(frame));
            }
        }
    }
    if let Some((port, bytes)) = sent.next() {
        let frames: Vec<String> = frames.iter().map(|frame| hex(frame)).collect();
        bail!("of port {in_port}, one of {frames:?}: the switch sent port {port} {} as well", hex(&bytes));
    }
    let mut wanted = before;
    for reason in expected.iter().filter_map(|outcome| outcome.dropped) {
        *wanted.entry(reason).or_default() += 1;
    }
    let got = drops(switch);
    if got != wanted {
        let each: Vec<_> =
            frames.iter().zip(expected).map(|(frame, outcome)| (hex(frame), outcome.dropped)).collect();
        bail!("drops are {got:?}, not {wanted:?}: port {in_port} {each:?}");
    }
    Ok(())
}

/// Packets dropped so far, by reason.
fn drops(switch: &Switch) -> BTreeMap<&'static str, u64> {
    let mut drops = BTreeMap::new();
    for row in switch.drops() {
        *drops.entry(row.reason.name()).or_default() += row.n_packets;
    }
    drops.retain(|_, n| *n != 0);
    drops
}

/// What the switch sent, without the tunnel header.
fn understood(port: u32, bytes: Vec<u8>) -> Result<Sent> {
    if port == UPLINK
        && let Some((outer, inner)) = outer::open(&bytes, LOCAL)?
    {
        return Ok(Sent { port, frame: inner.to_vec(), tunnel: Some(outer) });
    }
    Ok(Sent { port, frame: bytes, tunnel: None })
}

fn show(sent: &Sent) -> String {
    format!("port {} {} {:?}", sent.port, hex(&sent.frame), sent.tunnel)
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Rules as text, one a line.
pub fn print_rules(flows: &[Flow]) -> String {
    flows.iter().map(|flow| format!("{flow}\n")).collect()
}

/// The ports as the interpreter has them.
fn ports() -> Ports {
    let mut ports: Ports = (1..=4).map(|port| (port, Port::Workload { up: port != 4 })).collect();
    ports.insert(UPLINK, Port::Uplink);
    ports.insert(TUNNEL, Port::Tunnel { peer: PEER.to_bits(), uplink: UPLINK });
    ports
}

/// The same world as the switch has it, with rules read from their text.
fn snapshot(epoch: u64, flows: &[Flow]) -> Result<Arc<Snapshot>> {
    let mut table = PortTable::default();
    for (number, port) in ports() {
        let (role, up) = match port {
            Port::Workload { up } => (PortRole::Workload, up),
            Port::Uplink => (PortRole::Uplink, true),
            Port::Tunnel { .. } => (PortRole::Tunnel, true),
        };
        let name = format!("p{number}");
        table.insert(PortNo::new(number)?, PortInfo { name, role, up, mtu: 1500, partial_checksums: false });
    }
    let tables = tables(flows, &table)?;
    let (src_mac, dst_mac) = (MacAddr::new([2, 0, 0, 0, 0, 1]), MacAddr::new([2, 0, 0, 0, 0, 2]));
    let tunnel = TunnelPort {
        port: PortNo::new(TUNNEL)?,
        kind: TunnelKind::Geneve,
        udp_port: outer::GENEVE_PORT,
        local: LOCAL.into(),
    };
    let hop = NextHop { port: PortNo::new(UPLINK)?, src_mac, dst_mac };
    let underlay = Underlay {
        tunnels: vec![tunnel],
        peers: [PEER.into()].into(),
        next_hops: [(PEER.into(), hop)].into(),
    };
    let (epoch, tables, ports) = (Epoch::new(epoch)?, Arc::new(tables), Arc::new(table));
    let mut snapshot = Snapshot { epoch, tables, ports, ..Snapshot::default() };
    snapshot.underlay = Arc::new(underlay);
    Ok(Arc::new(snapshot))
}

/// Tables with the rules; each must be one that the switch takes.
///
/// # Errors
/// Names the rule that it does not take.
pub fn tables(flows: &[Flow], ports: &PortTable) -> Result<Tables> {
    let mut changes = Vec::new();
    for flow in flows {
        let rule = text::parse_flow(&flow.to_string(), ports).with_context(|| flow.to_string())?;
        ensure!(
            text::parse_flow(&text::print_flow(&rule), ports)?.matching == rule.matching,
            "printed differently: {flow}"
        );
        changes.push(Change::Add(rule));
    }
    Ok(Tables::default().transact(changes)?)
}

/// Keeps what leaves.
#[derive(Default)]
pub struct Collector {
    /// Port and frame, in order.
    pub sent: Vec<(u32, Vec<u8>)>,
}

impl Sink<Vec<u8>> for Collector {
    fn output(&mut self, port: PortNo, packet: Packet<Vec<u8>>) {
        self.sent.push((port.get(), packet.bytes().to_vec()));
    }

    fn copy(&mut self, packet: &Packet<Vec<u8>>) -> Option<Packet<Vec<u8>>> {
        Some(build::packet(packet.bytes(), packet.in_port))
    }

    fn release(&mut self, _: Packet<Vec<u8>>) {}
}
