//! Rule sets for the benches.

use std::{net::Ipv4Addr, sync::Arc};

use flowtable::{
    field::{Field, SubField},
    flow::{Action, Ct, CtZone, Match, Origin, Rule},
    key::ct_state,
    port::{PortInfo, PortRole, PortTable},
    program::TunnelKind,
    snapshot::Snapshot,
    table::{Change, Tables},
    types::{Epoch, MacAddr, PortNo, Priority, TableId},
    underlay::{NextHop, TunnelPort, Underlay},
};

/// Port that traffic comes in by.
pub const IN: u32 = 1;
/// Port that it leaves by.
pub const OUT: u32 = 2;
/// The uplink.
pub const UPLINK: u32 = 3;
/// The tunnel.
pub const TUNNEL: u32 = 4;
/// This host on the underlay.
pub const LOCAL: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The other host.
pub const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

/// A port number of the benches.
pub fn port(raw: u32) -> PortNo {
    PortNo::new(raw).expect("bench ports are small")
}

/// A rule.
pub fn rule(table: u8, priority: u16, matching: Match, actions: Vec<Action>) -> Rule {
    Rule {
        table: TableId::new(table).expect("bench tables are small"),
        priority: Priority::new(priority).expect("any number is a priority"),
        matching,
        actions,
        cookie: 0,
        origin: Arc::new(Origin::default()),
        life: Default::default(),
        stats: Arc::default(),
    }
}

/// Send out.
pub fn output() -> Vec<Action> {
    vec![Action::Output(port(OUT))]
}

/// Go on in a table.
pub fn resubmit(table: u8) -> Action {
    Action::Resubmit { port: None, table: TableId::new(table).ok() }
}

/// Every packet of the same way.
pub fn one_rule() -> Vec<Rule> {
    vec![rule(0, 1, Match::any(), output())]
}

/// One mask: the IPv4 destination is looked at whole.
pub fn one_mask() -> Vec<Rule> {
    let looked = SubField::whole(Field::NwDst);
    let copy = Action::Move { src: looked, dst: SubField::whole(Field::Reg0) };
    let mut actions = vec![copy];
    actions.extend(output());
    vec![rule(0, 2, ipv4(), actions)]
}

/// Sixteen masks, by the last bits of the source port: the rule for `k` looks at `k` more
/// bits of the destination.
pub fn masks() -> Vec<Rule> {
    let udp = ipv4().with(Field::NwProto, 17);
    (0..16)
        .map(|k| {
            let looked = SubField::new(Field::NwDst, 0, 12 + k).expect("at most 27 of 32 bits");
            let copied = SubField::new(Field::Reg0, 0, 12 + k).expect("at most 27 of 32 bits");
            let mut actions = vec![Action::Move { src: looked, dst: copied }];
            actions.extend(output());
            rule(0, 1, udp.clone().with_masked(Field::UdpSrc, k.into(), 15), actions)
        })
        .collect()
}

/// A chain of tables; each has `n_rules` rules for some destinations and goes on with the
/// rest.
pub fn tables(n_tables: u8, n_rules: u32) -> Vec<Rule> {
    let mut rules = Vec::new();
    for table in 0..n_tables {
        for n in 0..n_rules {
            let address = u128::from(0xc0a8_0000 | u32::from(table) << 8 | n);
            rules.push(rule(table, 10, ipv4().with(Field::NwDst, address), vec![]));
        }
        let last = table + 1 == n_tables;
        rules.push(rule(table, 1, Match::any(), if last { output() } else { vec![resubmit(table + 1)] }));
    }
    rules
}

/// An allowed TCP port, an allowed network, an allowed host; everything else is dropped.
pub fn acl() -> Vec<Rule> {
    let tcp = ipv4().with(Field::NwProto, 6);
    vec![
        rule(0, 30, tcp.with(Field::TcpDst, 443), output()),
        rule(0, 20, ipv4().with_masked(Field::NwSrc, 0x0a01_0000, 0xffff_0000), output()),
        rule(0, 10, ipv4().with(Field::NwDst, 0x0a02_0304), output()),
    ]
}

/// Everything goes through the tunnel to `remote`, as OVN sends it.
pub fn encap(remote: Ipv4Addr) -> Vec<Rule> {
    let set = |field: Field, value| Action::SetField { field, value, mask: field.all_bits() };
    let looked = SubField::whole(Field::NwDst);
    vec![rule(
        0,
        1,
        ipv4(),
        vec![
            Action::Move { src: looked, dst: SubField::whole(Field::Reg0) },
            Action::SetTunnel(77),
            set(Field::TunMetadata0, 0x0001_0002),
            set(Field::TunDst, remote.to_bits().into()),
            Action::Output(port(TUNNEL)),
        ],
    )]
}

/// What comes out of the tunnel goes to its port.
pub fn decap() -> Vec<Rule> {
    let looked = SubField::whole(Field::NwDst);
    let mut actions = vec![Action::Move { src: looked, dst: SubField::whole(Field::Reg0) }];
    actions.extend(output());
    let key = ipv4().with(Field::TunId, 77).with(Field::TunMetadata0, 0x0001_0002);
    vec![rule(0, 1, key, actions)]
}

/// A stateful firewall: whatever comes in may begin conversations (the rules that Open
/// vSwitch was measured with).
pub fn stateful() -> Vec<Rule> {
    let tracked = Ct { zone: CtZone::Literal(1), table: TableId::new(1).ok(), ..Ct::default() };
    let commit = Ct { zone: CtZone::Literal(1), commit: true, ..Ct::default() };
    let state = |bits: u16| {
        let bits = u128::from(bits | ct_state::TRK);
        ipv4().with(Field::InPort, IN.into()).with_masked(Field::CtState, bits, bits)
    };
    let untracked = ipv4().with(Field::InPort, IN.into());
    let untracked = untracked.with_masked(Field::CtState, 0, ct_state::TRK.into());
    let mut new = vec![Action::Ct(Box::new(commit))];
    new.extend(output());
    vec![
        rule(0, 10, untracked, vec![Action::Ct(Box::new(tracked))]),
        rule(1, 10, state(ct_state::NEW), new),
        rule(1, 10, state(ct_state::EST), output()),
        rule(1, 1, Match::any(), vec![]),
    ]
}

/// The same, but nothing leaves that nobody has answered.
pub fn guarded() -> Vec<Rule> {
    let mut rules = stateful();
    rules[1].actions.truncate(1);
    rules
}

fn ipv4() -> Match {
    Match::any().with(Field::EthType, 0x0800)
}

/// A snapshot of a host at `local` with these rules and a Geneve tunnel; `remote` is its only
/// peer.
pub fn snapshot(rules: Vec<Rule>, local: Ipv4Addr, remote: Ipv4Addr) -> Arc<Snapshot> {
    snapshot_with(rules, TunnelKind::Geneve, local, remote)
}

/// The same with a tunnel of this kind.
pub fn snapshot_with(rules: Vec<Rule>, kind: TunnelKind, local: Ipv4Addr, remote: Ipv4Addr) -> Arc<Snapshot> {
    let changes = rules.into_iter().map(Change::Add).collect();
    let tables = Tables::default().transact(changes).expect("the benches' rules are allowed");
    let mut ports = PortTable::default();
    let roles = [PortRole::Workload, PortRole::Workload, PortRole::Uplink, PortRole::Tunnel];
    for (number, role) in [IN, OUT, UPLINK, TUNNEL].into_iter().zip(roles) {
        let name = format!("bench{number}");
        ports.insert(port(number), PortInfo { name, role, up: true, mtu: 1500, partial_checksums: false });
    }
    let (src_mac, dst_mac) = (MacAddr::new([2, 0, 0, 0, 0, 1]), MacAddr::new([2, 0, 0, 0, 0, 2]));
    let udp_port = match kind {
        TunnelKind::Geneve => 6081,
        TunnelKind::Vxlan => 4789,
        TunnelKind::Gre => 0,
    };
    let tunnel = TunnelPort { port: port(TUNNEL), kind, udp_port, local: local.into() };
    let underlay = Underlay {
        tunnels: vec![tunnel],
        peers: [remote.into()].into(),
        next_hops: [(remote.into(), NextHop { port: port(UPLINK), src_mac, dst_mac })].into(),
    };
    Arc::new(Snapshot {
        epoch: Epoch::ZERO.next(),
        tables: Arc::new(tables),
        ports: Arc::new(ports),
        underlay: Arc::new(underlay),
        ..Snapshot::default()
    })
}
