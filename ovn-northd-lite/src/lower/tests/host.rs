//! A chassis with its switch. Each packet takes two ways that must agree: through a slow
//! and obvious walker over the rules, which says what they mean, and as bytes through
//! the real pipeline.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use flowtable::{
    drop::DropReason,
    execute,
    field::Field,
    flow::{Action, Rule},
    key::FlowKey,
    packet::{HEADROOM, Packet},
    parse,
    pipeline::{NoTrace, translate},
    port::{PortInfo, PortRole, PortTable},
    program::TunnelKind,
    set::Sets,
    snapshot::Snapshot,
    table::{Change, GroupChange, MeterChange, SetChange, Tables},
    tunnel,
    types::{Epoch, MacAddr, PortNo, TableId},
    underlay::{NextHop, TunnelPort, Underlay},
};

use super::frame::frame;
use crate::{
    chassis_view, compile,
    fixture::hosts,
    lower::{LocalPorts, Lowered, PHYS_TO_LOG, lower},
    model::Northbound,
    southbound::{PortBinding, Wire},
};

/// Port that leads into tunnels.
pub(super) const TUNNEL: u32 = 100;
/// Port that leads to a network outside.
pub(super) const OUTSIDE: u32 = 98;
/// Port they leave by.
pub(super) const UPLINK: u32 = 99;

/// What happened to a packet.
#[derive(Default)]
pub(super) struct Outcome {
    /// Copies that left, by port.
    pub(super) out: Vec<(u32, FlowKey)>,
    /// Stages and objects of the rules where copies ended.
    pub(super) drops: Vec<String>,
    /// For copies that left by a tunnel: the bytes on the underlay.
    pub(super) tunnelled: Vec<Vec<u8>>,
}

impl Outcome {
    /// Copies that left, but for those to the host's responder.
    pub(super) fn sent(&self) -> Vec<(u32, FlowKey)> {
        self.out.iter().filter(|(port, _)| *port != PortNo::CONTROLLER.get()).copied().collect()
    }
}

/// What rules mean, one action after the other.
struct Walker<'a> {
    rules: &'a [Rule],
    sets: &'a Sets,
    outcome: Outcome,
    n_lookups: usize,
}

impl Walker<'_> {
    fn table(&mut self, table: TableId, key: &mut FlowKey) {
        self.n_lookups += 1;
        assert!(self.n_lookups < 1000, "a loop");
        let candidates = self
            .rules
            .iter()
            .filter(|rule| rule.table == table && rule.matching.matches_with(key, self.sets));
        let Some(rule) = candidates.max_by_key(|rule| rule.priority) else {
            self.outcome.drops.push(format!("no rule in table {table}"));
            return;
        };
        let before = self.outcome.out.len() + self.outcome.drops.len();
        self.list(&rule.actions, key);
        if self.outcome.out.len() + self.outcome.drops.len() == before {
            self.outcome.drops.push(format!("{} {}", rule.origin.stage, rule.origin.object));
        }
    }

    fn list(&mut self, actions: &[Action], key: &mut FlowKey) {
        for action in actions {
            match action {
                Action::Output(port) if key.get(Field::InPort) == u128::from(port.get()) => {
                    self.outcome.drops.push("same port".to_owned());
                }
                Action::Output(port) => self.outcome.out.push((port.get(), *key)),
                Action::SetField { field, value, mask } => {
                    key.set(*field, key.get(*field) & !mask | value & mask);
                }
                Action::Move { src, dst } => {
                    let value = (key.get(src.field) & src.bits()) >> src.start << dst.start;
                    key.set(dst.field, key.get(dst.field) & !dst.bits() | value);
                }
                Action::Resubmit { table: Some(table), .. } | Action::GotoTable(table) => {
                    self.table(*table, key);
                }
                Action::Clone(actions) => self.list(actions, &mut key.clone()),
                Action::CtClear | Action::Meter(_) | Action::SetQueue(_) => {}
                Action::Controller(_) => self.outcome.out.push((PortNo::CONTROLLER.get(), *key)),
                Action::DecTtl => key.set(Field::NwTtl, key.get(Field::NwTtl) - 1),
                other => panic!("{other:?} is not what lowering yields"),
            }
        }
    }
}

/// One chassis.
pub(super) struct Host {
    pub(super) lowered: Lowered,
    ports: BTreeMap<String, PortNo>,
    pub(super) snapshot: Snapshot,
}

impl Host {
    /// With a port for each workload that is bound to it.
    pub(super) fn new(nb: &Northbound, chassis: &str) -> Self {
        Self::with_dead(nb, chassis, &[])
    }

    /// The same, while some chassis are dead.
    pub(super) fn with_dead(nb: &Northbound, chassis: &str, dead: &[&str]) -> Self {
        let host = Self::by(TunnelKind::Geneve, nb, (chassis, dead));
        assert_eq!(host.lowered.errors, []);
        host
    }

    /// The same, where all chassis have this encapsulation alone.
    pub(super) fn by(kind: TunnelKind, nb: &Northbound, (chassis, dead): (&str, &[&str])) -> Self {
        let mut sb = compile(nb, &hosts());
        sb.chassis.values_mut().for_each(|record| record.encap_types = vec![kind]);
        let is_here = |binding: &PortBinding| {
            binding.chassis.as_deref() == Some(chassis) || binding.additional.contains(chassis)
        };
        let here = sb.bindings.iter().filter(|(_, binding)| is_here(binding));
        let ports = here.zip(1..).map(|((id, _), port)| (id.clone(), PortNo::new(port).unwrap())).collect();
        let tunnel = |of| (kind == of).then(|| PortNo::new(TUNNEL).unwrap());
        let (tunnel, vxlan) = (tunnel(TunnelKind::Geneve), tunnel(TunnelKind::Vxlan));
        let outside = sb.bindings.values().filter_map(|binding| match &binding.wire {
            Wire::Network { name, .. } => Some((name.clone(), PortNo::new(OUTSIDE).unwrap())),
            _ => None,
        });
        let networks = outside.collect();
        let down = dead.iter().map(|id| (*id).to_owned()).collect();
        let (chassis_id, activated) = (chassis.to_owned(), Default::default());
        let local = LocalPorts { chassis: chassis_id, ports, tunnel, vxlan, networks, down, activated };
        Self::with(lower(&chassis_view(&sb, chassis), &local), local)
    }

    /// With rules that may be incomplete.
    pub(super) fn with(lowered: Lowered, local: LocalPorts) -> Self {
        let meters = lowered.meters.iter().cloned().map(|meter| Change::Meter(MeterChange::Add(meter)));
        let groups = lowered.groups.iter().cloned().map(|group| Change::Group(GroupChange::Add(group)));
        let sets = lowered.sets.iter().cloned().map(|set| Change::Set(SetChange::Add(set)));
        let changes =
            meters.chain(groups).chain(sets).chain(lowered.rules.iter().cloned().map(Change::Add)).collect();
        let tables = Tables::default().transact(changes).unwrap();
        assert_eq!(tables.len(), lowered.rules.len(), "the tables take each rule, and as many as there are");
        let kind = if local.vxlan.is_some() { TunnelKind::Vxlan } else { TunnelKind::Geneve };
        let mut table = PortTable::default();
        let info = |name: &str, role| PortInfo {
            name: name.to_owned(),
            role,
            up: true,
            mtu: 1500,
            partial_checksums: false,
        };
        let ports: BTreeMap<_, _> = local.ports.into_iter().chain(local.networks).collect();
        for (id, port) in &ports {
            table.insert(*port, info(id, PortRole::Workload));
        }
        table.insert(PortNo::new(UPLINK).unwrap(), info("uplink", PortRole::Uplink));
        table.insert(PortNo::new(TUNNEL).unwrap(), info("tunnel", PortRole::Tunnel));
        let snapshot = Snapshot {
            epoch: Epoch::ZERO.next(),
            tables: Arc::new(tables),
            ports: Arc::new(table),
            underlay: Arc::new(underlay(&local.chassis, kind)),
            ..Snapshot::default()
        };
        Self { lowered, ports, snapshot }
    }

    /// A workload is here.
    pub(super) fn has(&self, id: &str) -> bool {
        self.ports.contains_key(id)
    }

    /// The workload behind a port.
    pub(super) fn name(&self, port: PortNo) -> String {
        self.ports.iter().find(|(_, known)| **known == port).map(|(id, _)| id.clone()).unwrap_or_default()
    }

    pub(super) fn port(&self, id: &str) -> u32 {
        self.ports[id].get()
    }

    /// A workload sends.
    pub(super) fn send(&self, port: &str, mut key: FlowKey) -> Outcome {
        key.set(Field::InPort, self.ports[port].get().into());
        self.receive(key)
    }

    /// The underlay delivers.
    pub(super) fn deliver(&self, bytes: &[u8]) -> Outcome {
        let mut packet = packet(bytes, UPLINK);
        let mut key = FlowKey::zero();
        let network = (&*self.snapshot.underlay, self.snapshot.tables.options());
        tunnel::receive(&mut packet, &mut key, network).unwrap();
        assert_eq!(key.get(Field::InPort), u128::from(TUNNEL));
        assert_eq!(packet.bytes(), frame(&key));
        self.receive(key)
    }

    /// A packet with its metadata, both ways.
    pub(super) fn receive(&self, key: FlowKey) -> Outcome {
        let mut walker = Walker {
            rules: &self.lowered.rules,
            sets: self.snapshot.tables.sets(),
            outcome: Outcome::default(),
            n_lookups: 0,
        };
        walker.table(PHYS_TO_LOG, &mut key.clone());
        let mut outcome = walker.outcome;
        outcome.tunnelled = self.check_bytes(&key, &outcome);
        outcome
    }

    /// The real pipeline makes the same of it: the same copies, byte for byte, and the
    /// same cause when there is none. Answers with the copies that leave by tunnels.
    fn check_bytes(&self, key: &FlowKey, wanted: &Outcome) -> Vec<Vec<u8>> {
        let bytes = frame(key);
        let mut parsed = FlowKey::zero();
        parse::parse(&mut packet(&bytes, 1), &mut parsed).unwrap();
        for field in [
            Field::InPort,
            Field::TunId,
            Field::TunMetadata0,
            Field::TunMetadataPresent,
            Field::TunGbpId,
            Field::TunSrc,
        ] {
            parsed.set(field, key.get(field));
        }
        let program = translate(&self.snapshot, &parsed, &mut NoTrace).program;
        assert_eq!(program.emits.len(), wanted.out.len(), "{:?}", program.drop);
        let mut tunnelled = Vec::new();
        for (emit, (port, out)) in program.emits.iter().zip(&wanted.out) {
            assert!(*port == TUNNEL || emit.port.get() == *port);
            if emit.port == PortNo::CONTROLLER {
                continue;
            }
            let mut copy = packet(&bytes, 1);
            parse::parse(&mut copy, &mut FlowKey::zero()).unwrap();
            execute::apply(&mut copy, emit, 7).unwrap();
            assert!(copy.bytes().ends_with(&frame(out)), "{out:?}");
            if *port == TUNNEL {
                assert_eq!(emit.port.get(), UPLINK);
                tunnelled.push(copy.bytes().to_vec());
            } else {
                assert_eq!(emit.port.get(), *port);
                assert_eq!(copy.bytes(), frame(out));
            }
        }
        if let Some(cause) = program.drop {
            let rule = cause.rule.map(|rule| format!("{} {}", rule.origin.stage, rule.origin.object));
            let last = wanted.drops.last().unwrap();
            match cause.reason {
                DropReason::RuleDrop => assert_eq!(rule.as_ref(), Some(last)),
                DropReason::TableMiss => assert!(last.starts_with("no rule"), "{last}"),
                other => panic!("{other} instead of {last}"),
            }
        }
        tunnelled
    }
}

fn underlay(chassis: &str, kind: TunnelKind) -> Underlay {
    let local = hosts().get(chassis).map_or(IpAddr::from([192, 0, 2, 99]), |host| host.encap_ip);
    let port = PortNo::new(TUNNEL).unwrap();
    let udp_port = if kind == TunnelKind::Vxlan { 4789 } else { 6081 };
    let tunnel = TunnelPort { port, kind, udp_port, local };
    let hop = NextHop {
        port: PortNo::new(UPLINK).unwrap(),
        src_mac: MacAddr::new([2, 0, 0, 0, 0, 1]),
        dst_mac: MacAddr::new([2, 0, 0, 0, 0, 2]),
    };
    let peers: Vec<_> = hosts().values().map(|host| host.encap_ip).filter(|ip| *ip != local).collect();
    Underlay {
        tunnels: vec![tunnel],
        peers: peers.iter().copied().collect(),
        next_hops: peers.into_iter().map(|peer| (peer, hop)).collect(),
    }
}

fn packet(bytes: &[u8], port: u32) -> Packet<Vec<u8>> {
    let mut buf = vec![0; HEADROOM + bytes.len()];
    buf[HEADROOM..].copy_from_slice(bytes);
    Packet::new(buf, HEADROOM, bytes.len(), PortNo::new(port).unwrap())
}
