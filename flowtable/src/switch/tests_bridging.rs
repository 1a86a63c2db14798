//! Tests of what `NORMAL` does with bonds, spanning trees, mirrors, groups and customers' tags;
//! through the caches.

use std::{
    collections::{BTreeSet, HashMap},
    sync::atomic::{AtomicU64, Ordering},
};

use proptest::{collection::vec, prelude::*, sample::select};

use super::{
    tests::{NO_CACHES, send},
    *,
};
use crate::{
    account::{Accounts, FlowId},
    build::{self, Host},
    drop::DropReason,
    flow::{Match, PuntReason, Sample},
    key::FlowKey,
    pipeline::{
        NoTrace,
        random::{self, port},
        translate,
    },
    port::{
        Bond, BondMode, Bridging, Mirror, MirrorOutput, N_SLOTS, PortInfo, PortRole, PortTable, PriorityTags,
        Snooping, TreeState, VlanMode,
    },
    table::{Change, MeterChange, Tables},
    text::{parse_flow, parse_match, parse_meter},
    types::{Epoch, VlanId},
};

const BOND: u32 = 6;

fn vlan(raw: u16) -> VlanId {
    VlanId::new(raw).unwrap()
}

/// Four ports, all up, and a learning switch.
fn snapshot(furnish: impl FnOnce(&mut PortTable)) -> Arc<Snapshot> {
    let mut ports = PortTable::default();
    for raw in 1..=4 {
        ports.insert(port(raw), info());
    }
    furnish(&mut ports);
    let rule = parse_flow("actions=NORMAL", &ports).unwrap();
    let tables = Tables::default().transact(vec![Change::Add(rule)]).unwrap();
    // A switch may see several.
    static EPOCHS: AtomicU64 = AtomicU64::new(1);
    let epoch = Epoch::new(EPOCHS.fetch_add(1, Ordering::Relaxed)).unwrap();
    Arc::new(Snapshot { epoch, tables: Arc::new(tables), ports: Arc::new(ports), ..Snapshot::default() })
}

fn info() -> PortInfo {
    PortInfo { name: String::new(), role: PortRole::Workload, up: true, mtu: 1500, partial_checksums: false }
}

fn set(ports: &mut PortTable, raw: u32, change: impl FnOnce(&mut Bridging)) {
    let mut bridging = ports.bridging(port(raw)).clone();
    change(&mut bridging);
    ports.set_bridging(port(raw), bridging);
}

/// A bond of ports 3 and 4.
fn bond(mode: BondMode, enabled: &[u32], negotiated: bool) -> Bond {
    let enabled: BTreeSet<_> = enabled.iter().map(|raw| port(*raw)).collect();
    let ring: Vec<_> = enabled.iter().copied().collect();
    Bond {
        mode,
        members: vec![port(3), port(4)],
        active: ring.first().copied(),
        slots: (0..N_SLOTS).map(|slot| ring.get(slot % ring.len().max(1)).copied()).collect(),
        loads: (0..N_SLOTS).map(|_| Arc::default()).collect(),
        enabled,
        negotiated,
    }
}

fn with_bond(bond: Bond) -> Arc<Snapshot> {
    snapshot(|ports| {
        ports.insert(port(BOND), info());
        ports.set_bond(port(BOND), bond);
    })
}

fn mirror(output: MirrorOutput) -> Mirror {
    Mirror {
        name: "m".to_owned(),
        from: None,
        to: None,
        vlans: None,
        filter: Match::any(),
        output,
        max_len: None,
        stats: Arc::default(),
    }
}

fn udp(src: u8, dst: u8) -> Vec<u8> {
    udp_to(src, dst, 2000)
}

fn udp_to(src: u8, dst: u8, tp_dst: u16) -> Vec<u8> {
    let mut frame = build::udp(&Host::v4(src), &Host::v4(dst), b"12345678");
    frame[36..38].copy_from_slice(&tp_dst.to_be_bytes());
    frame
}

/// By which ports frames leave.
fn out(switch: &mut Switch, snapshot: &Arc<Snapshot>, raw: u32, frame: &[u8]) -> Vec<u32> {
    let sink = send(switch, snapshot, raw, &[frame.to_vec()]);
    let mut ports: Vec<_> = sink.out.iter().map(|(port, _)| port.get()).collect();
    ports.sort_unstable();
    ports
}

fn switch() -> Switch {
    Switch::with_seed(SwitchConfig { n_sessions: 64, n_megaflows: 64 }, 1)
}

fn reasons(switch: &mut Switch) -> Vec<DropReason> {
    switch.drops().iter().map(|drop| drop.reason).collect()
}

fn to(frame: &[u8], address: [u8; 6]) -> Vec<u8> {
    [&address, &frame[6..]].concat()
}

#[test]
fn a_blocked_port_takes_and_sends_nothing_but_what_bridges_say() {
    let blocked = snapshot(|ports| set(ports, 2, |bridging| bridging.tree = TreeState::Discarding));
    let switch = &mut switch();
    assert_eq!(out(switch, &blocked, 2, &udp(1, 2)), []);
    assert_eq!(reasons(switch), [DropReason::PortBlocked]);
    assert!(blocked.tables.fdb().is_empty());
    assert_eq!(out(switch, &blocked, 1, &udp(3, 4)), [3, 4]);
    let learning = snapshot(|ports| set(ports, 2, |bridging| bridging.tree = TreeState::Learning));
    assert_eq!(out(switch, &learning, 2, &udp(1, 2)), []);
    assert_eq!(learning.tables.fdb().dump()[0].port, port(2));
    // Somebody who knows the way is not let through either.
    assert_eq!(out(switch, &learning, 1, &udp(2, 1)), []);
    let bpdu = to(&udp(1, 2), [1, 0x80, 0xc2, 0, 0, 0]);
    let listening = snapshot(|ports| {
        set(ports, 2, |bridging| (bridging.tree, bridging.listens) = (TreeState::Discarding, 1));
    });
    assert_eq!(out(switch, &listening, 2, &bpdu), []);
    let packet_ins = switch.take_packet_ins();
    assert_eq!(packet_ins.len(), 1);
    assert_eq!((packet_ins[0].in_port, packet_ins[0].punt.to.reason), (port(2), PuntReason::Protocol));
    assert_eq!(packet_ins[0].bytes, bpdu);
    // Another bridge's protocol, that nobody listens to, is blocked as all else is.
    assert_eq!(out(switch, &listening, 2, &to(&udp(1, 2), [1, 0x80, 0xc2, 0, 0, 2])), []);
    assert!(switch.take_packet_ins().is_empty());
}

#[test]
fn a_bond_is_one_port_whose_members_share_the_flows() {
    let snapshot = with_bond(bond(BondMode::BalanceTcp, &[3, 4], true));
    let switch = &mut switch();
    // Flooded, it leaves by one of them.
    let mut used = BTreeSet::new();
    for src in 10..40 {
        let by = out(switch, &snapshot, 1, &udp(src, 2));
        assert!(by.len() == 2 && by[0] == 2 && by[1] > 2, "{by:?}");
        assert_eq!(out(switch, &snapshot, 1, &udp(src, 2)), by, "a flow stays where it is");
        used.insert(by[1]);
    }
    assert_eq!(used, [3, 4].into());
    // What comes by either is at the bond, and does not go back by the other.
    assert_eq!(out(switch, &snapshot, 4, &udp(2, 9)), [1, 2]);
    assert_eq!(snapshot.tables.fdb().dump().iter().find(|e| e.mac == mac(2)).unwrap().port, port(BOND));
    assert_eq!(out(switch, &snapshot, 3, &udp(9, 2)), []);
    assert!(reasons(switch).contains(&DropReason::SamePort));
    // The counters of the slots have seen every packet to the bond once.
    switch.flush_stats();
    let n: u64 = snapshot.ports.bond(port(BOND)).unwrap().loads.iter().map(|load| load.get().0).sum();
    assert_eq!(n, 60);
}

fn mac(last: u8) -> crate::types::MacAddr {
    crate::types::MacAddr::new([0x0a, 0, 0, 0, 0, last])
}

#[test]
fn only_the_active_member_is_used_where_the_neighbour_knows_nothing() {
    let snapshot = with_bond(bond(BondMode::ActiveBackup, &[3, 4], false));
    let switch = &mut switch();
    assert_eq!(out(switch, &snapshot, 1, &udp(1, 2)), [2, 3]);
    assert_eq!(out(switch, &snapshot, 4, &udp(2, 1)), []);
    assert_eq!(reasons(switch), [DropReason::BondStandby]);
    assert_eq!(out(switch, &snapshot, 3, &udp(2, 1)), [1]);
    let down = with_bond(bond(BondMode::ActiveBackup, &[], false));
    let rule = parse_flow("in_port=1,actions=output:6", &down.ports).unwrap();
    let tables = Tables::default().transact(vec![Change::Add(rule)]).unwrap();
    let down = Arc::new(Snapshot { tables: Arc::new(tables), ..(*down).clone() });
    assert_eq!(out(&mut Switch::with_seed(NO_CACHES, 1), &down, 1, &udp(1, 2)), []);
}

#[test]
fn what_a_neighbour_sends_back_by_another_member_is_dropped() {
    let snapshot = with_bond(bond(BondMode::BalanceSlb, &[3, 4], false));
    let switch = &mut switch();
    out(switch, &snapshot, 1, &udp(1, 9));
    // Our own, come back.
    assert_eq!(out(switch, &snapshot, 4, &udp(1, 2)), []);
    assert_eq!(reasons(switch), [DropReason::BondStandby]);
    // Another's is taken by any member, but not what is for all.
    assert_eq!(out(switch, &snapshot, 4, &udp(2, 1)), [1]);
    assert_eq!(out(switch, &snapshot, 4, &to(&udp(2, 1), [0xff; 6])), []);
    assert_eq!(out(switch, &snapshot, 3, &to(&udp(2, 1), [0xff; 6])), [1, 2]);
}

#[test]
fn a_mirror_has_one_copy_of_each_packet_it_chooses() {
    let all = |output, max_len| Mirror { max_len, ..mirror(output) };
    let to_port = snapshot(|ports| {
        ports.set_mirrors(vec![Arc::new(all(MirrorOutput::Port(port(4)), Some(20)))]);
    });
    let switch = &mut switch();
    let sink = send(switch, &to_port, 1, &[udp(1, 2)]);
    let sent: Vec<_> = sink.out.iter().map(|(port, frame)| (port.get(), frame.len())).collect();
    let whole = udp(1, 2).len();
    assert_eq!(sent, [(4, 20), (2, whole), (3, whole)]);
    // The port takes nothing, and what is copied is counted.
    assert_eq!(out(switch, &to_port, 4, &udp(3, 1)), []);
    assert_eq!(reasons(switch), [DropReason::MirrorPort]);
    switch.flush_stats();
    assert_eq!(to_port.ports.mirrors()[0].stats.get().0, 1);

    let chosen = snapshot(|ports| {
        let filter = parse_match("udp,tp_dst=2000", ports).unwrap();
        let to = Some([port(2)].into());
        let output = MirrorOutput::Port(port(4));
        let by_leaving = Mirror { from: Some([].into()), to, filter, ..mirror(output) };
        ports.set_mirrors(vec![Arc::new(by_leaving)]);
    });
    assert_eq!(out(switch, &chosen, 1, &udp(1, 9)), [2, 3, 4]);
    assert_eq!(out(switch, &chosen, 2, &udp(9, 1)), [1], "it comes by that port, and does not leave by it");
    let other = udp_to(1, 9, 2001);
    assert_eq!(out(switch, &chosen, 1, &other), [2], "the filter is for another port");
}

/// A mirror of port 1 to port 4, with these rules.
fn looked_at(rules: &[&str]) -> Arc<Snapshot> {
    let snapshot = snapshot(|ports| {
        let of_one = Mirror { from: Some([port(1)].into()), ..mirror(MirrorOutput::Port(port(4))) };
        ports.set_mirrors(vec![Arc::new(of_one)]);
    });
    let meter = parse_meter("meter=1,kbps,bands=type=drop,rate=1").unwrap();
    let add = |rule: &&str| Change::Add(parse_flow(rule, &snapshot.ports).unwrap());
    let changes = [Change::Meter(MeterChange::Add(meter))].into_iter().chain(rules.iter().map(add));
    let tables = Tables::default().transact(changes.collect()).unwrap();
    Arc::new(Snapshot { tables: Arc::new(tables), ..(*snapshot).clone() })
}

#[test]
fn what_is_dropped_has_its_name_whoever_looks_at_it() {
    for (rules, reason) in [
        (&["udp,actions=drop"][..], DropReason::RuleDrop),
        (&[], DropReason::TableMiss),
        // Behind the connection tracker as well, and when what would have left cannot.
        (&["ct_state=-trk,udp,actions=ct(table=1)", "table=1,actions=drop"], DropReason::RuleDrop),
        (&["actions=output:3000"], DropReason::NoSuchPort),
        (&["actions=meter:1,output:2"], DropReason::Metered),
        (&["actions=meter:1,output:3000"], DropReason::NoSuchPort),
    ] {
        let snapshot = looked_at(rules);
        for mut switch in [switch(), Switch::with_seed(NO_CACHES, 1)] {
            let frames = vec![udp(1, 2); 30];
            // As first packets, and as known ones.
            let copies: usize = (0..2)
                .map(|_| {
                    let sink = send(&mut switch, &snapshot, 1, &frames);
                    sink.out.iter().filter(|(to, frame)| *to == port(4) && *frame == frames[0]).count()
                })
                .sum();
            assert_eq!(copies, 60, "{rules:?}: whoever looks sees all of them");
            let counters = switch.port_counters(port(1));
            assert_eq!(counters.rx_packets, counters.rx_forwarded + counters.rx_dropped, "{rules:?}");
            assert!(reasons(&mut switch).contains(&reason), "{rules:?}: {:?}", switch.drops());
            assert!(counters.rx_dropped > 50, "{rules:?}: {counters:?}");
        }
    }
    // What leaves is forwarded once, however many look.
    let snapshot = looked_at(&["actions=output:2"]);
    let mut switch = switch();
    send(&mut switch, &snapshot, 1, &[udp(1, 2), udp(1, 2)]);
    assert_eq!((switch.port_counters(port(1)).rx_forwarded, switch.drops().len()), (2, 0));
}

#[test]
fn a_copy_that_cannot_leave_is_not_why_the_packet_does_not() {
    let snapshot = snapshot(|ports| {
        ports.set_mirrors(vec![Arc::new(mirror(MirrorOutput::Port(port(4))))]);
        ports.insert(port(4), PortInfo { up: false, ..info() });
    });
    let rule = parse_flow("udp,actions=drop", &snapshot.ports).unwrap();
    let tables = Tables::default().transact(vec![Change::Add(rule)]).unwrap();
    let snapshot = Arc::new(Snapshot { tables: Arc::new(tables), ..(*snapshot).clone() });
    let mut switch = switch();
    assert_eq!(out(&mut switch, &snapshot, 1, &udp(1, 2)), []);
    assert_eq!(reasons(&mut switch), [DropReason::RuleDrop]);
}

#[test]
fn a_mirrors_vlan_has_copies_with_its_tag() {
    let remote = snapshot(|ports| {
        set(ports, 1, |bridging| bridging.mode = VlanMode::Access(vlan(10)));
        set(ports, 2, |bridging| bridging.mode = VlanMode::Access(vlan(20)));
        set(ports, 3, |bridging| bridging.trunks = Some([vlan(99)].into()));
        set(ports, 4, |bridging| bridging.mode = VlanMode::Access(vlan(20)));
        let of_vlan = Mirror { vlans: Some([vlan(20)].into()), ..mirror(MirrorOutput::Vlan(vlan(99))) };
        ports.set_mirrors(vec![Arc::new(of_vlan)]);
    });
    let switch = &mut switch();
    let sink = send(switch, &remote, 2, &[udp(1, 2)]);
    let sent: Vec<_> = sink.out.iter().map(|(port, frame)| (port.get(), frame[12..16].to_vec())).collect();
    assert_eq!(sent[0], (3, vec![0x81, 0, 0, 99]));
    assert_eq!(sent.iter().map(|(port, _)| *port).collect::<Vec<_>>(), [3, 4]);
    assert_eq!(out(switch, &remote, 1, &udp(5, 6)), [], "VLAN 10 is not chosen");
}

#[test]
fn groups_are_for_those_that_have_asked() {
    let of = |floods_unknown| snapshot(|ports| ports.set_snooping(Some(Snooping { floods_unknown })));
    let frame = {
        let mut frame = udp(1, 2);
        frame[..6].copy_from_slice(&[1, 0, 0x5e, 1, 2, 3]);
        frame[30..34].copy_from_slice(&[239, 1, 2, 3]);
        frame
    };
    let group = Some("239.1.2.3".parse().unwrap());
    let (switch, listening) = (&mut switch(), of(true));
    let fdb = listening.tables.fdb();
    assert_eq!(out(switch, &listening, 1, &frame), [2, 3, 4]);
    assert_eq!(out(switch, &listening, 1, &frame), [2, 3, 4]);
    // A change makes stale what was decided about the group.
    fdb.set_receivers(VlanId::NONE, group, Some(&[port(1), port(3)].into()));
    assert_eq!(out(switch, &listening, 1, &frame), [3]);
    fdb.set_receivers(VlanId::NONE, None, Some(&[port(2)].into()));
    assert_eq!(out(switch, &listening, 1, &frame), [2, 3]);
    fdb.set_receivers(VlanId::NONE, group, None);
    assert_eq!(out(switch, &listening, 1, &frame), [2, 3, 4]);
    let strict = of(false);
    assert_eq!(out(switch, &strict, 1, &frame), []);
    assert_eq!(reasons(switch), [DropReason::GroupUnknown]);
    // For all: the link's own groups, and broadcasts.
    let mut link = frame.clone();
    link[30..34].copy_from_slice(&[224, 0, 0, 251]);
    assert_eq!(out(switch, &strict, 1, &link), [2, 3, 4]);
    assert_eq!(out(switch, &strict, 1, &to(&udp(1, 2), [0xff; 6])), [2, 3, 4]);
    strict.tables.fdb().set_receivers(VlanId::NONE, None, Some(&[port(4)].into()));
    // A report goes to routers and the host, a query to all and the host.
    let mut igmp = frame;
    igmp[23] = 2;
    igmp[34] = 0x16;
    assert_eq!(out(switch, &strict, 1, &igmp), [4]);
    igmp[34] = 0x11;
    assert_eq!(out(switch, &strict, 1, &igmp), [2, 3, 4]);
    assert_eq!(switch.take_packet_ins().len(), 2);
}

#[test]
fn customers_tags_stay_below_the_bridges() {
    let snapshot = snapshot(|ports| {
        set(ports, 1, |bridging| bridging.mode = VlanMode::Tunnel(vlan(100)));
        set(ports, 2, |bridging| bridging.mode = VlanMode::Trunk);
        set(ports, 3, |bridging| {
            (bridging.mode, bridging.trunks) = (VlanMode::Tunnel(vlan(100)), Some([vlan(5)].into()));
        });
        set(ports, 4, |bridging| bridging.mode = VlanMode::Access(vlan(7)));
    });
    let untagged = udp(1, 2);
    let tagged = |tag: &[u8]| [&untagged[..12], tag, &untagged[12..]].concat();
    let switch = &mut switch();
    let sent = |switch: &mut Switch, raw, frame: Vec<u8>| {
        let sink = send(switch, &snapshot, raw, &[frame]);
        sink.out.into_iter().map(|(port, frame)| (port.get(), frame)).collect::<Vec<_>>()
    };
    let (five, six) = (tagged(&[0x81, 0, 0, 5]), tagged(&[0x81, 0, 0, 6]));
    let both = tagged(&[0x88, 0xa8, 0, 100, 0x81, 0, 0, 5]);
    assert_eq!(sent(switch, 1, five.clone()), [(2, both.clone()), (3, five.clone())]);
    assert_eq!(sent(switch, 1, six.clone()).len(), 1, "port 3 takes only customer VLAN 5");
    assert_eq!(sent(switch, 1, untagged.clone())[0], (2, tagged(&[0x88, 0xa8, 0, 100])));
    assert_eq!(sent(switch, 3, six), []);
    // The station is elsewhere now; its frames come back as they were.
    snapshot.tables.fdb().flush(&crate::fdb::FdbFilter::default());
    assert_eq!(sent(switch, 2, both), [(1, five.clone()), (3, five)]);
}

#[test]
fn priorities_stay_where_ports_want_them() {
    let tagged = |tci: [u8; 2]| {
        let untagged = udp(1, 2);
        [&untagged[..12], &[0x81, 0], &tci, &untagged[12..]].concat()
    };
    for (priority_tags, zero, five) in [
        (PriorityTags::No, udp(1, 2), udp(1, 2)),
        (PriorityTags::IfNonzero, udp(1, 2), tagged([0xa0, 0])),
        (PriorityTags::Always, tagged([0, 0]), tagged([0xa0, 0])),
    ] {
        let snapshot = snapshot(|ports| {
            set(ports, 2, |bridging| {
                (bridging.mode, bridging.priority_tags) = (VlanMode::Access(vlan(9)), priority_tags);
            });
            set(ports, 3, |bridging| bridging.mode = VlanMode::Access(vlan(9)));
            set(ports, 4, |bridging| bridging.floods = false);
        });
        for (frame, expected) in [(tagged([0, 9]), &zero), (tagged([0xa0, 9]), &five)] {
            let sink = send(&mut switch(), &snapshot, 1, &[frame]);
            assert_eq!(&sink.out[0].1, expected, "{priority_tags:?}");
        }
        // Without a tag before.
        let sink = send(&mut switch(), &snapshot, 3, &[udp(1, 2)]);
        let sent = sink.out.iter().find(|(by, _)| *by == port(2)).map(|(_, frame)| frame);
        assert_eq!(sent, Some(&zero), "{priority_tags:?}");
    }
}

/// Any way in which ports can take part.
fn port_table() -> impl Strategy<Value = PortTable> {
    let mode = select(vec![
        VlanMode::Trunk,
        VlanMode::Trunk,
        VlanMode::Access(vlan(100)),
        VlanMode::NativeTagged(vlan(100)),
        VlanMode::NativeUntagged(vlan(100)),
        VlanMode::Tunnel(vlan(200)),
    ]);
    let states =
        vec![TreeState::Forwarding, TreeState::Forwarding, TreeState::Learning, TreeState::Discarding];
    let tags = select(vec![PriorityTags::No, PriorityTags::IfNonzero, PriorityTags::Always]);
    let trunks = select(vec![None, Some([vlan(0), vlan(100)].into()), Some([vlan(200)].into())]);
    let port = (mode, trunks, tags, select(states), select(vec![0_u16, 0, 5]), any::<bool>());
    let modes = vec![BondMode::ActiveBackup, BondMode::BalanceSlb, BondMode::BalanceTcp];
    let bonds =
        proptest::option::of((select(modes), select(vec![vec![3_u32, 4], vec![4], vec![]]), any::<bool>()));
    let filters = select(vec!["", "udp", "tcp,tp_dst=1", "ip,nw_src=10.0.0.2/31"]);
    let outputs = select(vec![MirrorOutput::Port(random::port(2)), MirrorOutput::Vlan(vlan(200))]);
    let mirrors = vec((outputs, filters, any::<[bool; 3]>()), 0..3);
    let snooping = select(vec![None, Some(true), Some(false)]);
    let sampling = select(vec![None, Some(Sample { probability: 9000, ..Sample::default() })]);
    let bridge = (snooping, sampling, any::<[bool; 4]>());
    (vec(port, 4), bonds, mirrors, bridge).prop_map(
        |(settings, with_bond, mirrors, (snooping, sampling, flags))| {
            let [accounted, only_ipv4, has_bfd, has_faults] = flags;
            let mut ports = PortTable::default();
            for (raw, (mode, trunks, priority_tags, tree, listens, protected)) in (1..).zip(settings) {
                ports.insert(random::port(raw), info());
                let bridging =
                    Bridging { mode, trunks, priority_tags, tree, listens, protected, ..Bridging::default() };
                let fault_level = (has_faults && raw < 3).then_some(4);
                let bridging = Bridging { has_bfd: has_bfd && raw != 2, fault_level, ..bridging };
                ports.set_bridging(random::port(raw), bridging);
            }
            if let Some((mode, enabled, negotiated)) = with_bond {
                ports.insert(random::port(BOND), info());
                ports.set_bond(random::port(BOND), bond(mode, &enabled, negotiated));
            }
            let mirrors = mirrors.into_iter().map(|(output, filter, [from, to, vlans])| {
                let only = |is_only: bool, raw| is_only.then(|| [random::port(raw)].into());
                let filter = parse_match(filter, &ports).unwrap();
                let vlans = vlans.then(|| [vlan(100)].into());
                Arc::new(Mirror { from: only(from, 1), to: only(to, 3), vlans, filter, ..mirror(output) })
            });
            let mirrors = mirrors.collect();
            ports.set_mirrors(mirrors);
            ports.set_sampling(sampling.into_iter().collect());
            ports.set_accounts(accounted.then(|| Arc::new(Accounts::new(40, only_ipv4))));
            ports.set_snooping(snooping.map(|floods_unknown| Snooping { floods_unknown }));
            ports
        },
    )
}

/// Keys of the small world, some of them to groups.
fn key() -> impl Strategy<Value = FlowKey> {
    (random::key(), 0..8_u8, any::<[bool; 2]>()).prop_map(|(mut key, kind, [one, other])| {
        let is_v4 = key.eth_type.get() == 0x0800;
        match kind {
            0 => key.eth_dst = [1, 0x80, 0xc2, 0, 0, if one { 0 } else { 2 }],
            1 => key.eth_dst = [0xff; 6],
            // Continuity checks, and packets of BFD.
            4 if !is_v4 => {
                key.eth_dst = [1, 0x80, 0xc2, 0, 0, if one { 0x34 } else { 0x35 }];
                key.eth_type.set(if other { 0x8902 } else { 0x8903 });
            }
            4 if key.nw_proto == 17 && key.nw_frag == 0 => {
                key.tp_dst = 3784.into();
                key.nw_ttl = if one { 255 } else { 254 };
            }
            2 | 3 if is_v4 => {
                key.eth_dst = [1, 0, 0x5e, 1, 2, 3];
                key.nw_dst.set(if one { 0xef01_0203 } else { 0xe000_0001 });
                if other && key.nw_frag == 0 {
                    key.nw_proto = 2;
                    key.tcp_flags.set(0);
                    (key.tp_src, key.tp_dst) = (if one { 0x11 } else { 0x16 }.into(), 0.into());
                }
            }
            _ => {}
        }
        key
    })
}

/// Which frames leave by which ports.
type Sent = Vec<(u32, Vec<u8>)>;

fn observe(config: SwitchConfig, ports: &PortTable, keys: &[FlowKey]) -> (Vec<Sent>, Vec<String>) {
    let snapshot = snapshot(|table| *table = ports.clone());
    let hears = [port(1), port(3), port(BOND)].into();
    snapshot.tables.fdb().set_receivers(vlan(100), Some("239.1.2.3".parse().unwrap()), Some(&hears));
    snapshot.tables.fdb().set_receivers(vlan(0), None, Some(&[port(2)].into()));
    let mut switch = Switch::with_seed(config, 1);
    let sent = keys.iter().map(|key| {
        let frame = build::frame_from_key(key, 0);
        let sink = send(&mut switch, &snapshot, key.in_port.get(), &[frame]);
        sink.out.into_iter().map(|(port, frame)| (port.get(), frame)).collect()
    });
    let sent = sent.collect();
    let mut drops: Vec<_> = switch
        .drops()
        .iter()
        .map(|drop| format!("{} {} {}", drop.in_port, drop.reason, drop.n_packets))
        .collect();
    drops.sort();
    (sent, drops)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// However ports take part: what caches answer is what the pipeline answers.
    #[test]
    fn caches_change_nothing(ports in port_table(), keys in vec(key(), 1..30)) {
        let plain = observe(NO_CACHES, &ports, &keys);
        for (n_sessions, n_megaflows) in [(64, 64), (0, 8)] {
            prop_assert_eq!(&observe(SwitchConfig { n_sessions, n_megaflows }, &ports, &keys), &plain);
        }
    }

    /// However ports take part: what is not in the mask does not matter.
    #[test]
    fn the_mask_has_all_that_ports_decide_by(ports in port_table(), key in key(), others in vec(key(), 6), seed: u64) {
        let snapshot = snapshot(|table| *table = ports);
        let translation = translate(&snapshot, &key, &mut NoTrace);
        for (idx, other) in (0_u64..).zip(&others) {
            let other = crate::pipeline::within(&key, &translation.mask, other, seed ^ idx);
            let again = translate(&snapshot, &other, &mut NoTrace);
            prop_assert!(crate::pipeline::same(&translation, &again), "{:?}\n{:?}\n{:?}", other, translation, again);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever comes, and whatever caches there are: each packet is counted once, as one of its
    /// flow, and none is when the type is of no interest.
    #[test]
    fn each_packet_is_accounted_for_once(keys in vec(key(), 1..40), n_caches in 0..3_usize, only_ipv4: bool) {
        let accounts = Arc::new(Accounts::new(1000, only_ipv4));
        let snapshot = snapshot(|table| table.set_accounts(Some(Arc::clone(&accounts))));
        let (n_sessions, n_megaflows) = [(64, 64), (0, 4), (0, 0)][n_caches];
        let mut switch = Switch::with_seed(SwitchConfig { n_sessions, n_megaflows }, 1);
        let (mut exact, mut told) = (HashMap::new(), HashMap::new());
        for (idx, key) in keys.iter().enumerate() {
            let frame = build::frame_from_key(key, 0);
            let mut packet = build::packet(&frame, port(key.in_port.get()));
            let mut seen = FlowKey::zero();
            let is_read = crate::parse::parse(&mut packet, &mut seen).is_ok();
            seen.in_port = key.in_port;
            if is_read && (!only_ipv4 || seen.eth_type.get() == 0x0800) {
                let count: &mut (u64, u64) = exact.entry(FlowId::of(&seen)).or_default();
                *count = (count.0 + 1, count.1 + frame.len() as u64);
            }
            send(&mut switch, &snapshot, key.in_port.get(), &[frame]);
            if idx % 7 == 0 {
                switch.flush_stats();
            }
            for one in accounts.take() {
                let count: &mut (u64, u64) = told.entry(one.flow).or_default();
                *count = (count.0 + one.n_packets, count.1 + one.n_bytes);
            }
        }
        switch.flush_stats();
        for one in accounts.take() {
            let count: &mut (u64, u64) = told.entry(one.flow).or_default();
            *count = (count.0 + one.n_packets, count.1 + one.n_bytes);
        }
        prop_assert_eq!(told, exact);
    }
}
