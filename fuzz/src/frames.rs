//! Frames, tunnelled frames, neighbour discovery: bytes that a stranger chooses.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, LazyLock},
};

use flowtable::{
    build::{self, Host},
    field::Field,
    key::FlowKey,
    packet::Packet,
    parse::parse,
    port::{PortInfo, PortRole, PortTable},
    program::TunnelKind,
    snapshot::Snapshot,
    switch::{Sink, Switch, SwitchConfig},
    table::{Change, Tables},
    text, tunnel,
    types::{MacAddr, PortNo, Timestamp},
    underlay::{NextHop, TunnelPort, Underlay},
};

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

/// Rules that read and write fields of every layer.
const RULES: &[&str] = &[
    "priority=0,actions=move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[],mod_vlan_vid:7,output:2,output:3",
    "priority=1,ip,actions=clone(set_field:10.0.0.9->nw_dst,output:3),dec_ttl,set_field:1->ip_dscp,output:2",
    "priority=1,ipv6,actions=set_field:fd00::9->ipv6_dst,set_field:3->ipv6_label,dec_ttl,output:2",
    "priority=2,tcp,actions=set_field:10.0.0.9->nw_src,set_field:9->tcp_dst,push_vlan:0x88a8,output:2",
    "priority=2,udp6,actions=set_field:9->udp_src,pop_vlan,set_field:fd00::7->ipv6_src,output:2",
    "priority=2,sctp,actions=set_field:9->sctp_src,output:2",
    "priority=2,icmp6,icmp_type=135,icmp_code=0,actions=set_field:fd00::1->nd_target,set_field:02:00:00:00:00:09->nd_sll,output:2",
    "priority=2,icmp6,icmp_type=136,icmp_code=0,actions=set_field:02:00:00:00:00:09->nd_tll,output:2",
    "priority=2,arp,actions=set_field:2->arp_op,move:NXM_OF_ARP_SPA[]->NXM_OF_ARP_TPA[],output:2",
    "priority=2,mpls,actions=set_field:5->mpls_label,set_field:9->mpls_ttl,output:2",
    "priority=3,dl_vlan=5,ip,actions=set_field:10.0.0.1->tun_dst,set_tunnel:5,output:10",
];

static SNAPSHOT: LazyLock<Arc<Snapshot>> = LazyLock::new(snapshot);

/// The ports and tunnels of all targets, with the rules of this one.
pub(crate) fn world() -> &'static Snapshot {
    &SNAPSHOT
}

fn port(number: u32) -> PortNo {
    PortNo::new(number).expect("a small number is a port")
}

fn snapshot() -> Arc<Snapshot> {
    let mut ports = PortTable::default();
    for (number, role) in [
        (1, PortRole::Workload),
        (2, PortRole::Workload),
        (3, PortRole::Workload),
        (9, PortRole::Uplink),
        (10, PortRole::Tunnel),
        (11, PortRole::Tunnel),
        (12, PortRole::Tunnel),
    ] {
        let partial_checksums = number == 3;
        ports.insert(
            port(number),
            PortInfo { name: format!("p{number}"), role, up: true, mtu: 1500, partial_checksums },
        );
    }
    let rules =
        RULES.iter().map(|rule| Change::Add(text::parse_flow(rule, &ports).expect("the rules are right")));
    let tables = Tables::default().transact(rules.collect()).expect("the rules are right");
    let tunnel = |number, kind, udp_port| TunnelPort { port: port(number), kind, udp_port, local: LOCAL };
    let hop = NextHop { port: port(9), src_mac: MacAddr::ZERO, dst_mac: MacAddr::BROADCAST };
    let (tables, ports) = (Arc::new(tables), Arc::new(ports));
    let mut snapshot = Snapshot { tables, ports, ..Snapshot::default() };
    snapshot.underlay = Arc::new(Underlay {
        tunnels: vec![
            tunnel(10, TunnelKind::Geneve, 6081),
            tunnel(11, TunnelKind::Vxlan, 4789),
            tunnel(12, TunnelKind::Gre, 0),
        ],
        peers: [PEER].into(),
        next_hops: [(PEER, hop)].into(),
    });
    Arc::new(snapshot)
}

/// A frame from a guest goes through the whole switch; what the parser says of it agrees with the oracle.
pub fn frame(data: &[u8]) {
    let mut packet = build::packet(data, port(1));
    let mut key = FlowKey::zero();
    let parsed = parse(&mut packet, &mut key);
    let view = oracle::frame::view(data);
    if data.len() <= usize::from(u16::MAX) {
        assert_eq!(parsed.is_ok(), view.is_some(), "one sees an Ethernet header");
    }
    if let (Ok(()), Some(view)) = (parsed, view) {
        let ip = matches!(view.eth_type, 0x0800 | 0x86dd);
        assert_eq!(key.get(Field::EthType), view.eth_type.into());
        assert_eq!(key.get(Field::VlanTci) != 0, !view.tags.is_empty());
        if ip {
            assert_eq!(key.get(Field::NwProto), view.proto.into());
            assert_eq!(key.get(Field::NwFrag), view.frag.into());
        }
        let layout = packet.layout;
        assert!(usize::from(layout.l3_end) <= data.len() && layout.l4 <= layout.l3_end);
        if let Some((_, at)) = view.l4 {
            assert_eq!(usize::from(layout.l4), at);
        }
    }
    for in_port in [1, 3] {
        switched(data, in_port);
    }
}

/// A frame from the underlay.
pub fn tunnel(data: &[u8]) {
    let mut packet = build::packet(data, port(9));
    if tunnel::receive(&mut packet, &mut FlowKey::zero(), (&SNAPSHOT.underlay, SNAPSHOT.tables.options()))
        .is_ok()
    {
        assert!(packet.len() < data.len(), "a header came off");
    }
    switched(data, 9);
}

/// A Geneve header and what follows, from a peer, with everything before it right.
pub fn geneve(data: &[u8]) {
    tunnelled(data, 6081);
}

/// A VXLAN header and what follows, from a peer, with everything before it right.
pub fn vxlan(data: &[u8]) {
    tunnelled(data, 4789);
}

fn tunnelled(data: &[u8], udp_port: u16) {
    let mut to = Host::v4(2);
    to.port = udp_port;
    tunnel(&build::udp(&Host::v4(1), &to, data));
}

/// What a guest's side says by vhost-user, and what lies in its memory.
pub fn vhost_user(data: &[u8]) {
    dataplane::rehearse(data);
}

/// Target and options of a neighbour solicitation, then of an advertisement.
pub fn nd_options(data: &[u8]) {
    for kind in [135, 136] {
        let mut key = FlowKey::zero();
        key.set(Field::EthType, 0x86dd);
        key.set(Field::NwProto, 59);
        key.set(Field::NwTtl, 255);
        // The message takes the place of an empty payload: its checksum may be wrong.
        let mut bytes = build::frame_from_key(&key, 0);
        bytes.extend([kind, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend(data.iter().take(1 << 12));
        let len = (bytes.len() - 54) as u16;
        bytes[18..20].copy_from_slice(&len.to_be_bytes());
        bytes[20] = 58;
        frame(&bytes);
    }
}

fn switched(data: &[u8], in_port: u32) {
    let mut switch = Switch::with_seed(SwitchConfig { n_sessions: 16, n_megaflows: 16 }, 1);
    let mut sink = Counter::default();
    let mut batch = vec![build::packet(data, port(in_port)), build::packet(data, port(in_port))];
    switch.process(Timestamp::from_nanos(0), &SNAPSHOT, port(in_port), &mut batch, &mut sink);
    let counters = switch.counters();
    assert_eq!(counters.n_packets, 2);
    assert_eq!(counters.n_forwarded + counters.n_dropped, 2, "a packet went missing");
    assert_eq!(sink.n_in, sink.n_made, "a buffer went missing");
}

/// Counts buffers.
struct Counter {
    n_made: usize,
    n_in: usize,
}

impl Default for Counter {
    fn default() -> Self {
        // The two of the batch.
        Self { n_made: 2, n_in: 0 }
    }
}

impl Sink<Vec<u8>> for Counter {
    fn output(&mut self, _: PortNo, _: Packet<Vec<u8>>) {
        self.n_in += 1;
    }

    fn copy(&mut self, packet: &Packet<Vec<u8>>) -> Option<Packet<Vec<u8>>> {
        self.n_made += 1;
        Some(build::packet(packet.bytes(), packet.in_port))
    }

    fn release(&mut self, _: Packet<Vec<u8>>) {
        self.n_in += 1;
    }
}
