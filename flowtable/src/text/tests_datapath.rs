//! Cache entries in the syntax of datapath dumps.

use std::net::IpAddr;

use super::{tests::ports, *};
use crate::{
    drop::DropReason,
    flow::ToController,
    key::FlowMask,
    meter::Meter,
    program::{
        DropCause, Emit, Extras, FieldEdit, LabelEdit, MeterStep, Program, Punt, TunnelHeader, TunnelKind,
        VlanTag,
    },
    types::Vni,
};

#[test]
fn metered_programs_print_what_depends_on_a_meter() {
    let meter = |text: &str| Arc::new(Meter::new(parse_meter(text).unwrap(), None, Default::default()));
    let rule = Arc::new(parse_flow("actions=drop", &ports()).unwrap());
    let step = |id: u32, emits, n_within| MeterStep {
        meter: meter(&format!("meter={id},bands=type=drop,rate=1")),
        rule: Arc::clone(&rule),
        emits,
        n_within,
    };
    let emit = |number| Emit {
        n_vlan_pops: 0,
        vlan_pushes: vec![],
        edits: vec![],
        tunnel: None,
        port: PortNo::new(number).unwrap(),
        extras: None,
        ct: None,
    };
    let program = Program {
        emits: vec![emit(1), emit(2), emit(3)],
        meters: vec![step(1, 1..2, 0), step(2, 2..2, 0), step(3, 2..3, 0), step(4, 3..3, 0)],
        drop: None,
        ..Program::default()
    };
    assert_eq!(print_program(&program), "1,clone(meter(1),2),clone(meter(2)),meter(3),3,clone(meter(4))");
    let dropped = Program { emits: vec![], ..program };
    assert!(print_program(&dropped).starts_with("meter(1),"));
}

fn megaflow(text: &str, key: &str) -> String {
    let (_, mask) = parse_match(text, &ports()).unwrap().expand();
    print_megaflow_match(&parse_key(key, &ports()).unwrap(), &mask)
}

#[test]
fn megaflows_print_like_datapath_dumps() {
    assert_eq!(print_megaflow_match(&FlowKey::zero(), &FlowMask::empty()), "");
    assert_eq!(
        megaflow(
            "in_port=2,dl_dst=0a:00:00:00:00:01,ip,nw_dst=10.0.0.0/8,ip_frag=no",
            "in_port=2,dl_dst=0a:00:00:00:00:01,ip,nw_dst=10.1.2.3",
        ),
        "in_port(2),eth(dst=0a:00:00:00:00:01),eth_type(0x0800),ipv4(dst=10.0.0.0/255.0.0.0,frag=no)"
    );
    assert_eq!(
        megaflow(
            "in_port=1,tun_id=5,tun_metadata0=1,ct_state=+est-new,ct_zone=3,dl_vlan=9,tcp6,\
             ipv6_src=fd00::/64,nw_ttl=1,tp_dst=80,tcp_flags=+syn",
            "in_port=1,tun_id=5,tun_metadata0=0x20003,ct_state=+est,ct_zone=3,dl_vlan=9,tcp6,\
             ipv6_src=fd00::1,tp_dst=80,tcp_flags=+syn",
        ),
        "ct_state(-new+est),ct_zone(0x3),tunnel(tun_id=0x5,tun_metadata0=0x20003),in_port(1),eth_type(0x8100),\
         vlan(vid=9),encap(eth_type(0x86dd),ipv6(src=fd00::/ffff:ffff:ffff:ffff::,proto=6,hlimit=64),tcp(dst=80),\
         tcp_flags(+syn))"
    );
    assert_eq!(
        megaflow("arp,arp_op=1,arp_tpa=10.0.0.1", "arp,arp_op=1,arp_tpa=10.0.0.1"),
        "eth_type(0x0806),arp(tip=10.0.0.1,op=1)"
    );
}

#[test]
fn programs_print_like_datapath_actions() {
    let edit = |field: Field, value| FieldEdit { field, value, mask: field.all_bits() };
    let port = |number| PortNo::new(number).unwrap();
    let plain = |number| Emit {
        n_vlan_pops: 0,
        vlan_pushes: vec![],
        edits: vec![],
        tunnel: None,
        port: port(number),
        extras: None,
        ct: None,
    };
    let routed = Emit {
        edits: vec![edit(Field::EthDst, 0x0a00_0000_0001), edit(Field::NwTtl, 63), edit(Field::UdpDst, 53)],
        ..plain(3)
    };
    let tagged =
        Emit { n_vlan_pops: 1, vlan_pushes: vec![VlanTag { tpid: 0x8100, tci: 0x7005 }], ..plain(4) };
    let header = TunnelHeader {
        kind: TunnelKind::Geneve,
        vni: Vni::new(0x7b).unwrap(),
        remote: IpAddr::from([192, 0, 2, 2]),
        bytes: vec![0; 58],
        tunnel_port: port(9),
    };
    let tunnelled = Emit { tunnel: Some(Arc::new(header)), ..plain(1) };
    let print = |emits: Vec<Emit>| print_program(&Program { emits, ..Program::default() });

    assert_eq!(
        print(vec![routed.clone()]),
        "set(eth(dst=0a:00:00:00:00:01)),set(ip(ttl=63)),set(udp(dst=53)),3"
    );
    assert_eq!(
        print(vec![plain(2), tagged, plain(5)]),
        "2,clone(pop_vlan,push_vlan(tpid=0x8100,vid=5,pcp=3),4),5"
    );
    assert_eq!(
        print(vec![tunnelled]),
        "tnl_push(tnl_port(9),geneve(vni=0x7b,dst=192.0.2.2,size=58),out_port(1))"
    );
    let labels = Some(LabelEdit { n_pops: 1, pushes: vec![0x1_0340], eth_type: 0x8847 });
    let extras =
        Some(Box::new(Extras { labels, max_len: Some(64), queue: Some(2), punt: None, is_mirrored: false }));
    assert_eq!(
        print(vec![Emit { extras, ..plain(7) }]),
        "pop_mpls(eth_type=0x8847),push_mpls(label=16,tc=1,ttl=64,bos=1,eth_type=0x8847),trunc(64),queue(2),7"
    );
    let punt = Punt {
        to: ToController { controller: 3, ..ToController::default() },
        table: TableId::FIRST,
        cookie: 0,
        metadata: Match::any(),
        next: None,
    };
    let extras = Some(Box::new(Extras { punt: Some(Arc::new(punt)), ..Extras::default() }));
    assert_eq!(
        print(vec![Emit { extras, ..plain(0xfffd) }]),
        "userspace(controller(reason=action,id=3,max_len=65535))"
    );
    let nat = Emit { edits: vec![edit(Field::NwDst, 0x0a00_0001), edit(Field::NwTtl, 63)], ..plain(3) };
    assert_eq!(print(vec![nat]), "set(ipv4(dst=10.0.0.1,ttl=63)),3");
    let cause = DropCause { reason: DropReason::TtlExpired, rule: None };
    assert_eq!(print_program(&Program { drop: Some(cause), ..Program::default() }), "drop(ttl-expired)");
    assert_eq!(print(vec![]), "drop");
}
