//! Random rules and keys from a small world, so that they meet: for property tests of
//! translation and caches.

use std::{net::Ipv4Addr, sync::Arc};

use proptest::{collection::vec, prelude::*, sample::select};

use crate::{
    conntrack::{Nat, NatKind, NatOrder, NatRange},
    fdb::Station,
    field::{Field, Prerequisites, SubField},
    flow::{
        Action, Bundle, BundleAlgorithm, Ct, CtZone, HashFields, Match, Multipath, MultipathAlgorithm,
        Origin, Rule, RuleLife, Sample, ToController, action_set,
    },
    key::FlowKey,
    port::{Bridging, PortInfo, PortRole, PortTable, VlanMode},
    program::TunnelKind,
    snapshot::Snapshot,
    table::{Change, GroupChange, MeterChange, MissPolicy, SetChange, TableSettings, Tables},
    text::{parse_actions, parse_group, parse_match, parse_meter, parse_set},
    types::{Epoch, GroupId, MacAddr, MeterId, PortNo, Priority, TableId, Timestamp, VlanId},
    underlay::{NextHop, TunnelPort, Underlay},
};

/// Workload ports are 1 to 4; 4 is down.
pub(crate) const N_WORKLOADS: u32 = 4;
/// The uplink.
pub(crate) const UPLINK: u32 = 9;
/// The Geneve tunnel.
pub(crate) const TUNNEL: u32 = 10;
/// Our address on the underlay.
pub(crate) const LOCAL: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The peer whose next hop is known.
pub(crate) const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// Tables that rules are in.
const N_TABLES: u8 = 5;

pub(crate) fn port(raw: u32) -> PortNo {
    PortNo::new(raw).unwrap()
}

pub(crate) fn table(raw: u8) -> TableId {
    TableId::new(raw).unwrap()
}

pub(crate) fn rule(table_id: u8, priority: u16, matching: Match, actions: Vec<Action>) -> Rule {
    Rule {
        table: table(table_id),
        priority: Priority::new(priority).unwrap(),
        matching,
        actions,
        cookie: 0,
        origin: Arc::new(Origin::default()),
        life: RuleLife::default(),
        stats: Arc::default(),
    }
}

/// A snapshot with these rules, each with counters of its own; rules that may not be in a
/// table are left out.
pub(crate) fn snapshot(epoch: u64, rules: &[Rule]) -> Arc<Snapshot> {
    let mut tables = furnished();
    for (idx, rule) in rules.iter().enumerate() {
        let rule = Rule { stats: Arc::default(), cookie: idx as u64, ..rule.clone() };
        if let Ok(next) = tables.transact(vec![Change::Add(rule)]) {
            tables = next;
        }
    }
    let mut ports = PortTable::default();
    for number in 1..=N_WORKLOADS {
        ports.insert(port(number), info(PortRole::Workload, number != 4));
    }
    let vlan = |raw| VlanId::new(raw).unwrap();
    ports.set_bridging(port(2), Bridging { mode: VlanMode::Access(vlan(100)), ..Bridging::default() });
    let trunks = Some([vlan(0), vlan(200)].into());
    ports.set_bridging(
        port(3),
        Bridging { mode: VlanMode::NativeUntagged(vlan(100)), trunks, ..Bridging::default() },
    );
    for (raw, vlan_id, mac) in [(1, 0, 1), (2, 100, 2)] {
        let (vlan, mac) = (vlan(vlan_id), MacAddr::new([2, 0, 0, 0, 0, mac]));
        let station = Station { vlan, mac, port: port(raw), is_announced: false };
        tables.fdb().learn(Timestamp::default(), &station);
    }
    ports.insert(port(UPLINK), info(PortRole::Uplink, true));
    ports.insert(port(TUNNEL), info(PortRole::Tunnel, true));
    let (src_mac, dst_mac) = (MacAddr::new([2, 0, 0, 0, 0, 1]), MacAddr::new([2, 0, 0, 0, 0, 2]));
    let underlay = Underlay {
        tunnels: vec![TunnelPort {
            port: port(TUNNEL),
            kind: TunnelKind::Geneve,
            udp_port: 6081,
            local: LOCAL.into(),
        }],
        peers: [PEER.into()].into(),
        next_hops: [(PEER.into(), NextHop { port: port(UPLINK), src_mac, dst_mac })].into(),
    };
    Arc::new(Snapshot {
        epoch: Epoch::new(epoch).unwrap(),
        tables: Arc::new(tables),
        ports: Arc::new(ports),
        underlay: Arc::new(underlay),
        ..Snapshot::default()
    })
}

/// Tables without rules, with the groups, meters and settings that random rules use.
fn furnished() -> Tables {
    let groups = [
        "group_id=1,type=all,bucket=output:1,bucket=set_field:7->reg1,mod_dl_dst:02:00:00:00:00:03,resubmit(,4),bucket=push_vlan:0x8100,output:2",
        "group_id=2,type=select,bucket=weight:1,actions=output:1,bucket=weight:3,actions=output:2,bucket=weight:2,actions=output:3",
        "group_id=3,type=select,selection_method=hash,fields(ip_src=0.0.0.3,tcp_dst,eth_src),bucket=output:1,bucket=meter:2,output:3,bucket=watch_port:4,actions=output:2",
        "group_id=4,type=indirect,bucket=dec_ttl,resubmit(,3)",
        "group_id=5,type=ff,bucket=watch_port:4,actions=output:4,bucket=watch_group:2,actions=group:2",
        "group_id=6,type=all,bucket=group:5,bucket=actions=drop,bucket=resubmit(,1)",
        "group_id=7,type=ff,bucket=watch_port:4,actions=output:4",
    ];
    let meters = [
        "meter=1 pktps burst bands=type=drop rate=1 burst_size=3",
        "meter=2 pktps burst bands=type=dscp_remark rate=1 burst_size=2 prec_level=1 type=drop rate=5 burst_size=6",
        "meter=3 kbps burst bands=type=drop rate=1 burst_size=4",
    ];
    let ports = PortTable::default();
    let meters = meters.map(|text| Change::Meter(MeterChange::Add(parse_meter(text).unwrap())));
    let groups = groups.map(|text| Change::Group(GroupChange::Add(parse_group(text, &ports).unwrap())));
    let on = TableSettings { miss: MissPolicy::Continue, ..TableSettings::default() };
    let sets = ["hosts type=ipv4 10.0.0.1,10.0.0.4-10.0.0.6", "ports type=port 1,3", "none type=ipv4"];
    let sets = sets.map(|text| Change::Set(SetChange::Add(parse_set(text).unwrap())));
    let changes = meters.into_iter().chain(groups).chain(sets).chain([Change::Table(table(2), on)]);
    Tables::default().transact(changes.collect()).unwrap()
}

fn info(role: PortRole, up: bool) -> PortInfo {
    PortInfo { name: String::new(), role, up, mtu: 1500, partial_checksums: false }
}

/// Keys that frames of the small world have.
pub(crate) fn key() -> impl Strategy<Value = FlowKey> {
    let l2 = (1..=N_WORKLOADS, 0_u8..3, 0_u8..3, select(vec![0_u16, 0, 0, 0, 100, 200]), any::<bool>());
    let l3 = (0_u8..9, 0_u32..8, 0_u32..8, select(vec![1_u8, 2, 64]), select(vec![0_u8, 4, 5]));
    let l4 = (select(vec![6_u8, 6, 6, 17, 132, 1, 47]), 0_u16..4, 0_u16..4, select(vec![0_u8, 0, 0, 1, 3]));
    let rest = (select(vec![0_u16, 1, 2, 0x10]), select(vec![60_u16, 63, 64, 65, 70, 128, 1500]));
    (l2, l3, l4, rest).prop_map(|(l2, l3, l4, (flags, frame_len))| {
        let (in_port, dst, src, vlan, stacked) = l2;
        let (kind, nw_src, nw_dst, ttl, tos) = l3;
        let (proto, tp_src, tp_dst, frag) = l4;
        let mut key = FlowKey::zero();
        key.in_port.set(in_port);
        key.frame_len.set(frame_len);
        (key.eth_dst, key.eth_src) = ([2, 0, 0, 0, 0, dst], [2, 0, 0, 0, 0, src]);
        if vlan != 0 {
            key.vlan_tpid.set(0x8100);
            key.vlan_tci.set(0x1000 | vlan);
            if stacked {
                key.cvlan_tpid.set(0x8100);
                key.cvlan_tci.set(0x1000 | 300);
            }
        }
        match kind {
            0 => key.eth_type.set(0x88b5),
            1 => {
                key.eth_type.set(0x0806);
                key.nw_proto = 1;
            }
            8 => {
                key.eth_type.set(0x8847);
                key.n_mpls = 1 + (nw_src % 3) as u8;
                for (idx, entry) in key.mpls.iter_mut().take(usize::from(key.n_mpls)).enumerate() {
                    let bottom = idx as u8 + 1 == key.n_mpls && nw_dst != 7;
                    entry.set(nw_dst << 12 | u32::from(bottom) << 8 | u32::from(ttl));
                }
            }
            2 | 3 => {
                key.eth_type.set(0x86dd);
                key.ipv6_src.set(0xfd << 120 | u128::from(nw_src));
                key.ipv6_dst.set(0xfd << 120 | u128::from(nw_dst));
            }
            _ => key.eth_type.set(0x0800),
        }
        if matches!(kind, 1 | 4..8) {
            key.nw_src.set(0x0a00_0000 | nw_src);
            key.nw_dst.set(0x0a00_0000 | nw_dst);
        }
        if (2..8).contains(&kind) {
            (key.nw_ttl, key.nw_tos, key.nw_frag) = (ttl, tos, frag);
            key.nw_proto = if kind < 4 && proto == 1 { 17 } else { proto };
            if frag != 3 && proto != 47 {
                (key.tp_src, key.tp_dst) = (tp_src.into(), tp_dst.into());
                key.tcp_flags.set(if proto == 6 { flags } else { 0 });
            }
        }
        key
    })
}

/// Rules of the small world; few of them may not be in a table.
pub(crate) fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let tables = prop_oneof![2 => Just(0), 3 => 0..N_TABLES];
    let actions = |depth| {
        (list(action(depth)), instructions()).prop_map(|(mut actions, instructions)| {
            actions.extend(instructions);
            actions
        })
    };
    let some = vec((tables, 1_u16..4, matching(), actions(2)), 1..24);
    // Most tables have a rule for the rest.
    let rest = vec(prop::option::weighted(0.8, actions(1)), usize::from(N_TABLES));
    // Ways to satisfy clauses, and rules for what satisfies all.
    let part = (1_u32..3, 1_u8..3).prop_map(|(id, clause)| Action::Conjunction { id, clause, n_clauses: 2 });
    let parts = vec((0..2_u8, 1_u16..4, masked(), vec(part, 1..3)), 0..14);
    let whole = vec((0..2_u8, 1_u16..4, 1_u128..3, list(action(1))), 0..3);
    (some, rest, parts, whole).prop_map(|(mut rules, rest, parts, whole)| {
        rules.extend(parts);
        rules.extend(whole.into_iter().map(|(table_id, priority, id, actions)| {
            (table_id, priority, Match::any().with(Field::ConjId, id), actions)
        }));
        for (table_id, actions) in (0..N_TABLES).zip(rest) {
            rules.extend(actions.map(|actions| (table_id, 0, Match::any(), actions)));
        }
        rules
            .into_iter()
            .map(|(table_id, priority, m, actions)| {
                let actions = tidy(table(table_id), actions, 0);
                rule(table_id, priority, require(m, &actions), actions)
            })
            .collect()
    })
}

/// Keeps `goto_table` only where it is allowed.
fn tidy(current: TableId, actions: Vec<Action>, depth: usize) -> Vec<Action> {
    let n = actions.len();
    let allowed = |(idx, action): (usize, Action)| match action {
        Action::GotoTable(to) if depth > 0 || idx + 1 < n || to <= current => None,
        Action::Clone(inner) => Some(Action::Clone(tidy(current, inner, depth + 1))),
        action => Some(action),
    };
    actions.into_iter().enumerate().filter_map(allowed).collect()
}

/// The match with what the actions need, unless it says otherwise already.
fn require(m: Match, actions: &[Action]) -> Match {
    let with =
        |m: Match, field: Field, value: u128| if m.get(field).1 == 0 { m.with(field, value) } else { m };
    actions.iter().fold(m, |m, action| {
        let field = match action {
            Action::SetField { field, .. } => *field,
            Action::Move { src, dst } if src.field.info().prerequisites == Prerequisites::None => dst.field,
            Action::Move { src, .. } => src.field,
            Action::DecTtl | Action::Ct(_) | Action::DecTtlOrTell(_) => Field::NwTtl,
            Action::PopMpls(_) | Action::DecMplsTtl => Field::MplsTtl,
            Action::FinTimeout { .. } => Field::TcpSrc,
            Action::Push(sub) | Action::Pop(sub) => sub.field,
            Action::Clone(actions) | Action::WriteActions(actions) => return require(m, actions),
            _ => return m,
        };
        match field.info().prerequisites {
            Prerequisites::Tcp => with(with(m, Field::EthType, 0x0800), Field::NwProto, 6),
            Prerequisites::Mpls => with(m, Field::EthType, 0x8847),
            Prerequisites::Ipv4 | Prerequisites::Ip => with(m, Field::EthType, 0x0800),
            _ => m,
        }
    })
}

/// Masks most often, else ranges and sets.
fn matching() -> impl Strategy<Value = Match> {
    prop_oneof![9 => masked(), 1 => among()]
}

/// Matches by ranges and sets.
fn among() -> impl Strategy<Value = Match> {
    let texts = vec![
        "ip,nw_src=$hosts",
        "ip,nw_dst=$hosts",
        "ip,nw_src=$none",
        "ip,nw_dst=10.0.0.2-10.0.0.5",
        "ip,nw_src=10.0.0.1-10.0.0.6,nw_dst=$hosts",
        "tcp,tp_dst=1-2",
        "tcp,tp_dst=$ports,tp_src=0-2",
        "udp,nw_dst=$hosts,tp_dst=1-3",
        "ipv6,ipv6_src=fd00::1-fd00::5",
        "dl_vlan=99-150",
        "in_port=2-3",
        "reg0=0x1-0x2",
        "metadata=0x1-0x3,dl_dst=02:00:00:00:00:01-02:00:00:00:00:02",
        "ip,nw_ttl=0-2",
    ];
    select(texts).prop_map(|text| parse_match(text, &PortTable::default()).unwrap())
}

fn masked() -> impl Strategy<Value = Match> {
    let metadata = select(vec![
        Field::InPort,
        Field::Metadata,
        Field::ActsetOutput,
        Field::Reg0,
        Field::Reg1,
        Field::EthDst,
        Field::EthSrc,
    ]);
    let generic =
        (metadata, 0_u128..4, select(vec![1_u128, 3, u128::MAX])).prop_map(|(field, value, mask)| {
            let mask = if matches!(field, Field::InPort | Field::ActsetOutput) { u128::MAX } else { mask };
            let base = if matches!(field, Field::EthDst | Field::EthSrc) { 2 << 40 } else { 0 };
            (field, base | value, mask)
        });
    let connection = select(vec![
        (Field::CtState, 0x20, 0x20),
        (Field::CtState, 0x21, 0x21),
        (Field::CtState, 0x22, 0x22),
        (Field::CtState, 0x08, 0x08),
        (Field::CtMark, 1, 3),
        (Field::CtZone, 1, 0xffff),
        (Field::CtTpDst, 1, 0xffff),
    ]);
    let connection = prop::option::weighted(0.2, connection);
    let l2 = prop::option::weighted(0.15, select(vec![(0, 0x1000), (0x1000, 0x1000), (0x1064, 0x1fff)]));
    let ip = prop::option::weighted(
        0.6,
        (prop::bool::weighted(0.25), l3_field(), prop::option::weighted(0.4, l4_field())),
    );
    (vec(generic, 0..2), connection, l2, ip).prop_map(|(generic, connection, vlan, ip)| {
        let mut m = Match::any();
        for (field, value, mask) in generic {
            m = m.with_masked(field, value, mask);
        }
        if let Some((field, value, mask)) = connection {
            m = m.with_masked(field, value, mask);
        }
        if let Some((value, mask)) = vlan {
            m = m.with_masked(Field::VlanTci, value, mask);
        }
        let Some((ipv6, (dst, value, n_bits), l4)) = ip else { return m };
        let (eth_type, src_field, dst_field) = if ipv6 {
            (0x86dd, Field::Ipv6Src, Field::Ipv6Dst)
        } else {
            (0x0800, Field::NwSrc, Field::NwDst)
        };
        let field = if dst { dst_field } else { src_field };
        let (base, mask) = if ipv6 { (0xfd << 120, u128::MAX) } else { (0x0a00_0000, u128::MAX) };
        m = m.with(Field::EthType, eth_type).with_masked(field, base | value, mask << n_bits);
        if let Some((proto, value, mask)) = l4 {
            let field = if proto == 6 { Field::TcpDst } else { Field::UdpDst };
            m = m.with(Field::NwProto, proto).with_masked(field, value, mask);
            if proto == 6 && mask == 3 {
                m = m.with_masked(Field::TcpFlags, 2, 2);
            }
        }
        m
    })
}

/// (destination, host bits, wildcarded bits).
fn l3_field() -> impl Strategy<Value = (bool, u128, u32)> {
    (any::<bool>(), 0_u128..8, 0_u32..6)
}

/// (protocol, port, mask).
fn l4_field() -> impl Strategy<Value = (u128, u128, u128)> {
    (select(vec![6_u128, 6, 17]), 0_u128..4, select(vec![1_u128, 3, 0xffff]))
}

/// A few actions; most often the packet leaves in the end.
fn list(action: BoxedStrategy<Action>) -> impl Strategy<Value = Vec<Action>> {
    let last = prop::option::weighted(0.6, 1..=N_WORKLOADS);
    (vec(action, 0..5), last).prop_map(|(mut actions, last)| {
        actions.extend(last.map(|raw| Action::Output(port(raw))));
        actions
    })
}

/// Instructions in their order; most often none.
fn instructions() -> impl Strategy<Value = Vec<Action>> {
    let write = action(0).prop_filter("can be in a set", action_set::is_allowed);
    let all = (
        prop::option::weighted(0.1, Just(Action::ClearActions)),
        prop::option::weighted(0.2, vec(write, 1..4).prop_map(Action::WriteActions)),
        prop::option::weighted(0.1, (0_u64..4).prop_map(|value| Action::WriteMetadata { value, mask: 3 })),
        prop::option::weighted(0.4, (1..N_TABLES).prop_map(|raw| Action::GotoTable(table(raw)))),
    );
    prop::option::weighted(0.3, all).prop_map(|all| {
        let Some((clear, write, metadata, goto)) = all else { return Vec::new() };
        clear.into_iter().chain(write).chain(metadata).chain(goto).collect()
    })
}

/// The tracker in all its uses.
fn ct() -> impl Strategy<Value = Action> {
    let zone = prop_oneof![
        3 => (0_u16..2).prop_map(CtZone::Literal),
        1 => Just(CtZone::Field(SubField::new(Field::Reg0, 0, 16).unwrap())),
    ];
    let range = (any::<bool>(), 0_u32..4, prop::option::of((1_u16..3, 1_u16..3)), any::<bool>());
    let nat = range.prop_map(|(is_source, address, ports, is_plain)| {
        let address = Ipv4Addr::from_bits(0x0a00_0000 | address).into();
        let kind = if is_source { NatKind::Source } else { NatKind::Destination };
        let ports = ports.map(|(first, n)| (first, first + n));
        let addresses = Some((address, address));
        let order = NatOrder::Keep;
        match is_plain {
            true => Nat::Existing,
            false => Nat::New(NatRange { kind, addresses, ports, order, persistent: false }),
        }
    });
    let next = prop::option::weighted(0.7, 0..N_TABLES);
    let exec = prop::option::weighted(0.3, (0_u128..4, any::<bool>()));
    (any::<[bool; 2]>(), next, zone, prop::option::weighted(0.4, nat), exec).prop_map(
        |([commit, force], next, zone, nat, exec)| {
            let mark = exec.filter(|_| commit).map(|(value, is_moved)| match is_moved {
                false => Action::SetField { field: Field::CtMark, value, mask: 3 },
                true => Action::Move {
                    src: SubField::new(Field::Reg0, 0, 2).unwrap(),
                    dst: SubField::new(Field::CtMark, 1, 2).unwrap(),
                },
            });
            match (commit, force, next) {
                (false, true, None) => Action::CtClear,
                _ => Action::Ct(Box::new(Ct {
                    commit,
                    force: force && commit,
                    table: next.map(table),
                    zone,
                    nat,
                    exec: mark.into_iter().collect(),
                    timeout: None,
                    alg: None,
                })),
            }
        },
    )
}

fn action(depth: u32) -> BoxedStrategy<Action> {
    let sub = |field, start, n_bits| SubField::new(field, start, n_bits).unwrap();
    let set = |field, value, mask| Action::SetField { field, value, mask };
    let outputs = prop_oneof![
        9 => (1..=N_WORKLOADS).prop_map(|raw| Action::Output(port(raw))),
        1 => select(vec![PortNo::IN_PORT, PortNo::FLOOD, PortNo::ALL, PortNo::CONTROLLER, PortNo::LOCAL, PortNo::TABLE, port(UPLINK)]).prop_map(Action::Output),
        4 => Just(Action::Output(port(TUNNEL))),
        1 => Just(Action::OutputReg(sub(Field::Reg0, 0, 16))),
        1 => (1..=N_WORKLOADS, 14_u32..80)
            .prop_map(|(raw, max_len)| Action::OutputTruncated { port: port(raw), max_len }),
        1 => (1..=N_WORKLOADS, 0_u32..3).prop_map(|(raw, queue)| Action::Enqueue { port: port(raw), queue }),
        3 => Just(Action::Output(PortNo::NORMAL)),
        2 => (0_u16..3, 10_u16..100, any::<bool>(), prop::option::of(1_u32..4)).prop_map(|(controller, max_len, pause, meter)| {
            let meter = meter.map(|raw| MeterId::new(raw).unwrap());
            let max_len = if pause { crate::flow::WHOLE_PACKET } else { max_len };
            Action::Controller(Box::new(ToController { controller, max_len, pause, meter, ..ToController::default() }))
        }),
    ];
    let fields = prop_oneof![
        1 => (0_u128..4).prop_map(move |value| set(Field::Reg0, value, u128::from(u32::MAX))),
        1 => (0_u128..4, 1_u128..4).prop_map(move |(value, mask)| set(Field::Reg1, value & mask, mask)),
        1 => (0_u128..4).prop_map(move |value| set(Field::EthDst, 2 << 40 | value, (1 << 48) - 1)),
        1 => (0_u128..4).prop_map(move |value| set(Field::NwDst, 0x0a00_0000 | value, 0xffff_ffff)),
        1 => (0_u128..4).prop_map(move |value| set(Field::TcpDst, value, 0xffff)),
        1 => (0_u128..4).prop_map(move |value| set(Field::NwTos, value << 2, 0xfc)),
        1 => Just(set(Field::InPort, 0, u128::from(u32::MAX))),
        1 => Just(set(Field::VlanVidOxm, 0x1065, 0x1fff)),
        1 => Just(set(Field::TunDst, LOCAL.to_bits().into(), 0xffff_ffff)),
        5 => Just(set(Field::TunDst, PEER.to_bits().into(), 0xffff_ffff)),
        1 => Just(set(Field::TunMetadata0, 0x1234, 0xffff_ffff)),
        1 => (0_u64..4).prop_map(Action::SetTunnel),
    ];
    let moves = select(vec![
        (sub(Field::NwSrc, 0, 2), sub(Field::Reg0, 0, 2)),
        (sub(Field::Reg0, 0, 2), sub(Field::NwDst, 0, 2)),
        (sub(Field::EthSrc, 0, 48), sub(Field::EthDst, 0, 48)),
        (sub(Field::TcpSrc, 0, 16), sub(Field::TcpDst, 0, 16)),
        (sub(Field::VlanTci, 0, 12), sub(Field::Reg1, 0, 12)),
        (sub(Field::InPort, 0, 16), sub(Field::Reg0, 0, 16)),
    ])
    .prop_map(|(src, dst)| Action::Move { src, dst });
    let steps = prop_oneof![
        4 => (0..N_TABLES).prop_map(|raw| Action::Resubmit { port: None, table: Some(table(raw)) }),
        1 => (1..=N_WORKLOADS).prop_map(|raw| Action::Resubmit { port: Some(port(raw)), table: Some(table(N_TABLES - 1)) }),
        1 => (1..N_TABLES).prop_map(|raw| Action::GotoTable(table(raw))),
    ];
    let others = select(vec![
        Action::DecTtl,
        Action::PopVlan,
        Action::PushVlan(0x8100),
        Action::PushVlan(0x88a8),
        Action::DecTtlOrTell(vec![1, 2]),
        Action::SetQueue(5),
        Action::PopQueue,
        Action::Exit,
        Action::Note(vec![1]),
        Action::DeleteField(Field::TunMetadata0),
        Action::ResubmitCt { port: None, table: Some(table(2)) },
    ]);
    let labels = select(vec![
        Action::PushMpls(0x8847),
        Action::PushMpls(0x8847),
        Action::PopMpls(0x8847),
        Action::PopMpls(0x0800),
        Action::DecMplsTtl,
        set(Field::MplsLabel, 3, 0xf_ffff),
        set(Field::MplsTc, 5, 7),
    ]);
    let stack = select(vec![
        Action::Push(sub(Field::NwSrc, 0, 2)),
        Action::Push(sub(Field::Reg0, 0, 16)),
        Action::Push(sub(Field::InPort, 0, 16)),
        Action::Pop(sub(Field::Reg0, 0, 16)),
        Action::Pop(sub(Field::Reg1, 0, 2)),
        Action::Pop(sub(Field::EthDst, 0, 4)),
    ]);
    let ways = prop_oneof![
        3 => (1_u32..8).prop_map(|raw| Action::Group(GroupId::new(raw).unwrap())),
        2 => (1_u32..4).prop_map(|raw| Action::Meter(MeterId::new(raw).unwrap())),
    ];
    let leaf = prop_oneof![6 => outputs, 4 => fields, 2 => moves, 2 => steps, 2 => others, 3 => ct(), 3 => learning(), 1 => labels, 1 => stack, 1 => spread(), 1 => ways];
    if depth == 0 {
        return leaf.boxed();
    }
    prop_oneof![8 => leaf, 1 => vec(action(depth - 1), 1..4).prop_map(Action::Clone)].boxed()
}

/// What packets teach, and what depends on their length or on chance.
fn learning() -> impl Strategy<Value = Action> {
    let text = select(vec![
        "learn(table=1,idle_timeout=10,priority=3,dl_dst[]=dl_src[],output:in_port[])",
        "learn(table=2,idle_timeout=15,hard_timeout=25,eth_type=0x800,nw_dst[]=nw_dst[],load:nw_src[0..3]->reg0[0..3])",
        "learn(table=3,cookie=0x99,limit=2,result_dst=reg1[0],delete_learned,dl_src[0..7],load:7->reg0[])",
        "learn(table=4,fin_idle_timeout=3,send_flow_rem,eth_type=0x800,nw_proto=6,tcp_src[]=tcp_dst[],output:reg0[0..15])",
        "learn(table=1,reg0[0..1]=reg1[0..1],load:in_port[]->reg1[0..15])",
        "check_pkt_larger(60)->reg0[0]",
        "check_pkt_larger(64)->reg0[1]",
        "check_pkt_larger(100)->reg1[0]",
        "check_pkt_larger(0)->metadata[0]",
    ]);
    let parsed = text.prop_map(|text| parse_actions(text, &PortTable::default()).unwrap().remove(0));
    let sample =
        (select(vec![1_u16, 9000, 40_000, 65_535]), any::<u32>()).prop_map(|(probability, obs_domain)| {
            Action::Sample(Sample { probability, obs_domain, ..Sample::default() })
        });
    let fin = (0_u16..9, 0_u16..9)
        .prop_map(|(idle_timeout, hard_timeout)| Action::FinTimeout { idle_timeout, hard_timeout });
    prop_oneof![5 => parsed, 1 => sample, 1 => fin]
}

/// Choices by a hash.
fn spread() -> impl Strategy<Value = Action> {
    let dst = || SubField::new(Field::Reg0, 0, 16).unwrap();
    let fields = || select(HashFields::ALL).prop_map(|(_, fields)| fields);
    let multipath = (fields(), select(MultipathAlgorithm::ALL), 1_u32..5).prop_map(
        move |(fields, (_, algorithm), n_links)| {
            Action::Multipath(Box::new(Multipath {
                fields,
                basis: 7,
                algorithm,
                n_links,
                argument: 4,
                dst: dst(),
            }))
        },
    );
    let members = vec((1..=N_WORKLOADS).prop_map(port), 0..4);
    let bundle = (fields(), select(BundleAlgorithm::ALL), members, any::<bool>()).prop_map(
        move |(fields, (_, algorithm), members, load)| {
            let dst = load.then(dst);
            Action::Bundle(Box::new(Bundle { fields, basis: 1, algorithm, members, dst }))
        },
    );
    prop_oneof![multipath, bundle]
}
