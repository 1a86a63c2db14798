//! What a port says is left to do is done right, or refused.

use std::{net::IpAddr, num::NonZeroU16, sync::Arc};

use proptest::prelude::*;

use super::{datagrams::drop_outer_checksum, *};
use crate::{
    build::{self, Host},
    drop::DropReason,
    execute,
    key::FlowKey,
    packet::{Gso, GsoKind, HEADROOM, Layout},
    parse::parse,
    program::{Emit, LabelEdit, TunnelKind, VlanTag},
    testing::{assert_checksums, parsed},
    tunnel::{self, OptionMap, TunnelSpec, tun_flags},
    types::{MacAddr, PortNo, Vni},
    underlay::{NextHop, TunnelPort, Underlay},
};

const FROM: u8 = 1;
const TO: u8 = 2;

fn hosts(ipv6: bool) -> (Host, Host) {
    if ipv6 { (Host::v6(FROM), Host::v6(TO)) } else { (Host::v4(FROM), Host::v4(TO)) }
}

/// A copy that leaves as it is.
fn plain() -> Emit {
    Emit {
        n_vlan_pops: 0,
        vlan_pushes: Vec::new(),
        edits: Vec::new(),
        tunnel: None,
        port: PortNo::ZERO,
        extras: None,
        ct: None,
    }
}

fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + at / 251) as u8).collect()
}

/// A large packet as the host's stack hands it over.
fn large(kind: GsoKind, ipv6: bool, payload_len: usize, segment_len: u16) -> Packet<Vec<u8>> {
    let (from, to) = hosts(ipv6);
    let frame = match kind {
        // Everything that only one of the pieces may say: CWR, PSH, FIN; ACK is for all.
        GsoKind::Tcp => build::tcp(&from, &to, 0x99, &payload(payload_len)),
        GsoKind::Udp => build::udp(&from, &to, &payload(payload_len)),
    };
    let (mut packet, _) = parsed(&frame);
    let headers = Headers::of(packet.bytes(), &packet.layout);
    let (at, sum) = (headers.checksum_offset().unwrap(), headers.pseudo(packet.bytes()).unwrap().fold());
    let l4 = packet.layout.l4;
    packet.bytes_mut()[usize::from(l4) + at..][..2].copy_from_slice(&sum.to_be_bytes());
    let segment_len = NonZeroU16::new(segment_len).unwrap();
    packet.offload = Offload {
        csum_partial: true,
        csum_start: l4,
        csum_offset: at as u16,
        gso: Some(Gso { kind, segment_len, inner: Layout::default() }),
    };
    assert_eq!(check(&mut packet), Ok(()));
    packet
}

fn cut(packet: &Packet<Vec<u8>>) -> Vec<Vec<u8>> {
    let mut segments = Segments::of(packet).unwrap();
    let (mut frames, n) = (Vec::new(), segments.n_left());
    let mut room = vec![0xa5; 4096];
    while let Some(len) = segments.write_next(&mut room) {
        frames.push(room[..len].to_vec());
    }
    assert_eq!((frames.len(), segments.n_left()), (n, 0));
    frames
}

fn tcp_numbers(frame: &[u8], l4: usize) -> (u32, u8) {
    (u32::from_be_bytes(frame[l4 + 4..l4 + 8].try_into().unwrap()), frame[l4 + 13])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn pieces_are_whole_packets_that_make_up_the_large_one(
        udp: bool, ipv6: bool, len in 2_usize..9000, segment_len in 40_u16..2000,
    ) {
        let kind = if udp { GsoKind::Udp } else { GsoKind::Tcp };
        let packet = large(kind, ipv6, len, segment_len);
        prop_assume!(packet.offload.gso.is_some());
        let (first_number, _) = tcp_numbers(packet.bytes(), packet.layout.l4.into());
        let pieces = cut(&packet);
        prop_assert_eq!(pieces.iter().map(Vec::len).max(), Some(packet.wire_len()));
        let header_len = packet.len() - len;
        let mut all = Vec::new();
        for (idx, piece) in pieces.iter().enumerate() {
            assert_checksums(piece);
            let (seen, key) = parsed(piece);
            prop_assert_eq!(usize::from(seen.layout.l3_end), piece.len());
            prop_assert_eq!(seen.layout.l4_proto, packet.layout.l4_proto);
            prop_assert_eq!(key.ipv6_dst, parsed(&pieces[0]).1.ipv6_dst);
            let is_last = idx + 1 == pieces.len();
            prop_assert!(is_last || piece.len() - header_len == usize::from(segment_len));
            if !udp {
                let (number, flags) = tcp_numbers(piece, seen.layout.l4.into());
                prop_assert_eq!(number, first_number.wrapping_add(all.len() as u32));
                let expected = 0x10 | if is_last { 0x09 } else { 0 } | if idx == 0 { 0x80 } else { 0 };
                prop_assert_eq!(flags, expected);
            }
            all.extend_from_slice(&piece[header_len..]);
        }
        prop_assert_eq!(all, payload(len));
    }

    /// Pieces of a tunnelled packet are the tunnelled pieces.
    #[test]
    fn cutting_and_encapsulating_can_change_places(
        udp: bool, ipv6: bool, vxlan: bool, outer_ipv6: bool, outer_checksum: bool,
        len in 1500_usize..9000, segment_len in 100_u16..1400,
    ) {
        let kind = if udp { GsoKind::Udp } else { GsoKind::Tcp };
        let (emit, underlay) = tunnelled(vxlan, outer_ipv6, outer_checksum);
        let packet = large(kind, ipv6, len, segment_len);
        let expected: Vec<_> = cut(&packet).iter().map(|piece| {
            let (mut piece, _) = parsed(piece);
            execute::apply(&mut piece, &emit, 7).unwrap();
            piece.bytes().to_vec()
        }).collect();
        let mut whole = packet;
        execute::apply(&mut whole, &emit, 7).unwrap();
        prop_assert_eq!(whole.wire_len(), expected[0].len());
        let pieces = cut(&whole);
        prop_assert_eq!(&pieces, &expected);
        let mut arrived = build::packet(&pieces[0], PortNo::ZERO);
        prop_assert_eq!(tunnel::receive(&mut arrived, &mut FlowKey::zero(), (&underlay, &OptionMap::default())), Ok(()));
        assert_checksums(arrived.bytes());
    }

    /// Nothing that a port may say leads to more than a refusal.
    #[test]
    fn hostile_records_do_no_harm(
        bytes in proptest::collection::vec(any::<u8>(), 14..200), tcp: bool, damage: Option<(usize, u8)>,
        partial: bool, start: u16, offset: u16, gso in proptest::option::of((any::<bool>(), 1_u16..)),
        near: bool,
    ) {
        let mut frame = if tcp { large(GsoKind::Tcp, false, 100, 90).bytes().to_vec() } else { bytes };
        if let Some((at, byte)) = damage {
            let at = at % frame.len();
            frame[at] = byte;
        }
        let mut packet = build::packet(&frame, PortNo::ZERO);
        let _ = parse(&mut packet, &mut FlowKey::zero());
        let (csum_start, csum_offset) = if near { (packet.layout.l4, 16) } else { (start, offset) };
        let gso = gso.map(|(udp, segment_len)| Gso {
            kind: if udp { GsoKind::Udp } else { GsoKind::Tcp },
            segment_len: NonZeroU16::new(segment_len).unwrap(),
            inner: Layout::default(),
        });
        packet.offload = Offload { csum_partial: partial, csum_start, csum_offset, gso };
        prop_assert!(packet.wire_len() <= packet.len());
        if check(&mut packet).is_ok() && packet.offload.gso.is_some() {
            let n = cut(&packet).len();
            prop_assert!((2..=1024).contains(&n));
        }
        complete(&mut packet);
        prop_assert!(packet.offload.is_none() || !packet.offload.csum_partial);
    }
}

fn tunnelled(vxlan: bool, ipv6: bool, checksum: bool) -> (Emit, Underlay) {
    let (local, remote) = hosts(ipv6);
    let kind = if vxlan { TunnelKind::Vxlan } else { TunnelKind::Geneve };
    let tunnel = TunnelPort { port: PortNo::new(2).unwrap(), kind, udp_port: 6081, local: local.ip };
    let hop = NextHop { port: PortNo::new(1).unwrap(), src_mac: MacAddr::ZERO, dst_mac: MacAddr::ZERO };
    let spec = TunnelSpec {
        vni: Vni::new(77).unwrap(),
        remote: remote.ip,
        tos: 0,
        ttl: 0,
        flags: if checksum { tun_flags::CHECKSUM } else { 0 },
        policy: Default::default(),
        tun_metadata_present: tunnel::OVN_OPTION.bit(),
        tun_metadata: [0; crate::key::TUN_METADATA_LEN],
    };
    let header = tunnel::build_header((&spec, &OptionMap::default()), &tunnel, &hop).unwrap();
    let emit = Emit { port: hop.port, tunnel: Some(Arc::new(header)), ..plain() };
    // At the other end it is the other way around.
    let there = TunnelPort { local: remote.ip, ..tunnel };
    let peers: std::collections::BTreeSet<IpAddr> = [local.ip].into();
    (emit, Underlay { tunnels: vec![there], peers, ..Underlay::default() })
}

#[test]
fn tags_and_labels_are_on_each_piece() {
    let mut packet = large(GsoKind::Tcp, false, 3000, 1000);
    let extras = crate::program::Extras {
        labels: Some(LabelEdit { n_pops: 0, pushes: vec![0x1_0140], eth_type: 0x8847 }),
        ..Default::default()
    };
    let emit = Emit {
        vlan_pushes: vec![VlanTag { tpid: 0x8100, tci: 5 }],
        extras: Some(Box::new(extras)),
        ..plain()
    };
    let expected: Vec<_> = cut(&packet)
        .iter()
        .map(|piece| {
            let (mut piece, _) = parsed(piece);
            execute::apply(&mut piece, &emit, 0).unwrap();
            piece.bytes().to_vec()
        })
        .collect();
    execute::apply(&mut packet, &emit, 0).unwrap();
    assert_eq!(cut(&packet), expected);
    // And it goes on being one, when the labels come off again.
    let extras = crate::program::Extras {
        labels: Some(LabelEdit { n_pops: 1, pushes: vec![], eth_type: 0x0800 }),
        ..Default::default()
    };
    let back = Emit { n_vlan_pops: 1, extras: Some(Box::new(extras)), ..plain() };
    parse(&mut packet, &mut FlowKey::zero()).unwrap();
    assert_eq!(check(&mut packet), Ok(()));
    execute::apply(&mut packet, &back, 0).unwrap();
    assert_eq!(cut(&packet), cut(&large(GsoKind::Tcp, false, 3000, 1000)));
}

#[test]
fn what_cannot_be_cut_is_refused() {
    let refusal = |change: &dyn Fn(&mut Packet<Vec<u8>>)| {
        let mut packet = large(GsoKind::Tcp, false, 3000, 1000);
        change(&mut packet);
        check(&mut packet)
    };
    assert_eq!(refusal(&|_| {}), Ok(()));
    let of = |kind, len| Gso { kind, segment_len: NonZeroU16::new(len).unwrap(), inner: Layout::default() };
    assert_eq!(
        refusal(&|packet| packet.offload.gso = Some(of(GsoKind::Udp, 1000))),
        Err(DropReason::Malformed)
    );
    assert_eq!(refusal(&|packet| packet.offload.gso = Some(of(GsoKind::Tcp, 1))), Err(DropReason::Malformed));
    assert_eq!(refusal(&|packet| packet.offload.csum_partial = false), Err(DropReason::Malformed));
    assert_eq!(refusal(&|packet| packet.offload.csum_start += 2), Err(DropReason::Malformed));
}

#[test]
fn a_packet_of_one_segment_is_an_ordinary_one() {
    let packet = large(GsoKind::Tcp, false, 1000, 1000);
    assert_eq!((packet.offload.gso, packet.offload.csum_partial), (None, true));
}

#[test]
fn partial_checksums_elsewhere_are_completed() {
    // A datagram in a tunnel of the workload's own: the inner checksum is the partial one.
    let (from, to) = hosts(false);
    let inner = build::udp(&from, &to, b"inside");
    let outer = build::udp(&from, &to, &inner);
    let at = outer.len() - inner.len();
    let mut frame = outer.clone();
    let (packet, _) = parsed(&inner);
    let pseudo = Headers::of(&inner, &packet.layout).pseudo(&inner).unwrap().fold();
    let l4 = at + usize::from(packet.layout.l4);
    frame[l4 + 6..l4 + 8].copy_from_slice(&pseudo.to_be_bytes());
    let (mut packet, _) = parsed(&frame);
    packet.offload = Offload { csum_partial: true, csum_start: l4 as u16, csum_offset: 6, gso: None };
    assert_eq!(check(&mut packet), Ok(()));
    assert!(packet.offload.is_none());
    assert_eq!(packet.bytes(), outer);
}

#[test]
fn a_partial_sctp_checksum_is_computed() {
    let mut key = FlowKey::zero();
    key.eth_type.set(0x0800);
    key.nw_proto = ip_proto::SCTP;
    let frame = build::frame_from_key(&key, 33);
    let mut missing = frame.clone();
    missing[34 + 8..34 + 12].fill(0);
    let mut packet =
        Packet::new([vec![0; HEADROOM], missing.clone()].concat(), HEADROOM, missing.len(), PortNo::ZERO);
    parse(&mut packet, &mut FlowKey::zero()).unwrap();
    packet.offload = Offload { csum_partial: true, csum_start: 34, csum_offset: 8, gso: None };
    assert_eq!(check(&mut packet), Ok(()));
    assert_eq!(packet.bytes(), frame);
}

/// A tunnelled packet that is to be cut, and the other end of the tunnel.
fn encapsulated(
    (ipv6, vxlan, over_ipv6): (bool, bool, bool),
    len: usize,
    segment_len: u16,
) -> (Packet<Vec<u8>>, Underlay) {
    let (emit, underlay) = tunnelled(vxlan, over_ipv6, false);
    let mut packet = large(GsoKind::Tcp, ipv6, len, segment_len);
    let l4 = usize::from(packet.layout.l4);
    // Nothing that would keep segments apart.
    packet.bytes_mut()[l4 + 13] = 0x18;
    execute::apply(&mut packet, &emit, 7).unwrap();
    (packet, underlay)
}

fn trains(packet: &Packet<Vec<u8>>) -> Vec<(Vec<u8>, Written)> {
    let mut train = Train::of(packet).unwrap();
    let (mut room, mut all) = (vec![0xa5; 1 << 17], Vec::new());
    while let Some(written) = train.write_next(&mut room) {
        all.push((room[..written.len].to_vec(), written));
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// What the kernel's own tunnels leave undone of a packet is done, or known, afterwards.
    #[test]
    fn what_is_undone_within_a_tunnel_is_settled(ipv6: bool, vxlan: bool, over_ipv6: bool, large: bool, len in 3000_usize..60_000, segment_len in 500_u16..1400) {
        let (packet, _) = encapsulated((ipv6, vxlan, over_ipv6), len, segment_len);
        let gso = packet.offload.gso.unwrap();
        // As a record of the kernel's says it, with an outer checksum besides.
        let told = Gso { inner: Layout::default(), ..gso };
        let undone = Offload { gso: large.then_some(told), ..packet.offload };
        let mut frame = packet.bytes().to_vec();
        let checksum_at = if over_ipv6 { 60 } else { 40 };
        frame[checksum_at..checksum_at + 2].copy_from_slice(&[0x12, 0x34]);
        let mut received = Packet::new(frame, 0, packet.len(), PortNo::ZERO);
        received.layout = packet.layout;
        received.offload = settle_received(received.bytes_mut(), &undone);
        if large {
            prop_assert_eq!(received.offload, packet.offload);
            prop_assert_eq!(cut(&received), cut(&packet));
        } else {
            prop_assert!(received.offload.is_none());
            // That of the outer header is only begun over IPv6: nobody on the way has computed it.
            assert_checksums(&received.bytes()[usize::from(gso.inner.l3) - 14..]);
        }
    }

    /// What goes on whole is, at the other end, what would have been sent frame by frame.
    #[test]
    fn what_goes_on_whole_arrives_whole(ipv6: bool, vxlan: bool, over_ipv6: bool, checksum: bool, len in 3000_usize..65_000, segment_len in 500_u16..1400) {
        let (emit, underlay) = tunnelled(vxlan, over_ipv6, checksum);
        let mut packet = large(GsoKind::Tcp, ipv6, len, segment_len);
        execute::apply(&mut packet, &emit, 7).unwrap();
        let mut room = [0; MAX_HEADERS_LEN];
        let Some(whole) = Whole::of(&packet, &mut room) else {
            prop_assert!(packet.len() > usize::from(u16::MAX));
            return Ok(());
        };
        prop_assert_eq!((whole.outer, whole.has_checksum), (packet.layout, checksum || over_ipv6));
        let frame = [whole.headers, whole.payload].concat();
        let (ip, udp) = if over_ipv6 { (frame.len() - 14 - 40, 54) } else { (frame.len() - 14, 34) };
        let lengths = if over_ipv6 { [18, 58] } else { [16, 38] };
        for (at, len) in lengths.into_iter().zip([ip, frame.len() - udp]) {
            prop_assert_eq!(&frame[at..at + 2], &(len as u16).to_be_bytes()[..]);
        }
        let gso = packet.offload.gso.map(|gso| Gso { inner: Layout::default(), ..gso });
        let mut arrived = Packet::new([vec![0; HEADROOM], frame].concat(), HEADROOM, packet.len(), PortNo::ZERO);
        arrived.offload = settle_received(arrived.bytes_mut(), &Offload { gso, ..packet.offload });
        let mut key = FlowKey::zero();
        prop_assert_eq!(tunnel::receive(&mut arrived, &mut key, (&underlay, &OptionMap::default())), Ok(()));
        prop_assert_eq!(check(&mut arrived), Ok(()));
        prop_assert_eq!(cut(&arrived), cut(&large(GsoKind::Tcp, ipv6, len, segment_len)));
    }

    #[test]
    fn settling_never_panics(mut frame in proptest::collection::vec(any::<u8>(), 0..200), csum_start: u16, csum_offset: u16, gso: bool) {
        let gso = gso.then_some(Gso { kind: GsoKind::Tcp, segment_len: NonZeroU16::MIN, inner: Layout::default() });
        let undone = Offload { csum_partial: true, csum_start, csum_offset, gso };
        settle_received(&mut frame, &undone);
    }

    /// What a device makes of a train is what would have been sent frame by frame.
    #[test]
    fn a_train_taken_apart_is_the_pieces(ipv6: bool, vxlan: bool, over_ipv6: bool, len in 3000_usize..63_000, segment_len in 500_u16..1400) {
        let (packet, _) = encapsulated((ipv6, vxlan, over_ipv6), len, segment_len);
        let mut expected = cut(&packet);
        let mut found = Vec::new();
        for (frame, written) in trains(&packet) {
            let (offload, layout) = train_offload(&written);
            let n = frame.len();
            let mut train = Packet::new(frame, 0, n, PortNo::ZERO);
            (train.offload, train.layout) = (offload, layout);
            prop_assert_eq!(check(&mut train), Ok(()));
            let datagrams = if written.n_datagrams > 1 {
                cut(&train)
            } else {
                complete(&mut train);
                vec![train.bytes().to_vec()]
            };
            prop_assert_eq!(datagrams.len() as u64, written.n_datagrams);
            found.extend(datagrams);
        }
        for datagram in &mut found {
            assert_checksums(datagram);
            drop_outer_checksum(datagram);
        }
        expected.iter_mut().for_each(|piece| drop_outer_checksum(piece));
        prop_assert_eq!(found.len(), expected.len());
        for (datagram, piece) in found.iter().zip(&expected) {
            // The device gives each an identification of its own, and a checksum for it.
            let own = if over_ipv6 { 18..18 } else { 18..26 };
            prop_assert_eq!(&datagram[..own.start], &piece[..own.start]);
            prop_assert_eq!(&datagram[own.end..], &piece[own.end..]);
        }
    }

    /// A train that is received is the packet it was made of, and cut again it is the same pieces.
    #[test]
    fn a_received_train_is_one_packet_again(ipv6: bool, vxlan: bool, over_ipv6: bool, len in 3000_usize..60_000, segment_len in 500_u16..1400) {
        let (packet, underlay) = encapsulated((ipv6, vxlan, over_ipv6), len, segment_len);
        let mut payloads = Vec::new();
        for (frame, written) in trains(&packet) {
            let each = written.each.map_or(frame.len(), |each| each.get().into());
            let mut datagrams = Datagrams::of(&frame, each, 0).unwrap();
            let mut room = vec![0; HEADROOM + (1 << 16)];
            let taken = datagrams.write_next(&mut room[HEADROOM..]).unwrap();
            prop_assert_eq!((datagrams.longest(), datagrams.write_next(&mut [0; 100])), (0, None));
            let mut arrived = Packet::new(room, HEADROOM, taken.len, PortNo::ZERO);
            arrived.offload = taken.offload;
            let mut key = FlowKey::zero();
            prop_assert_eq!(tunnel::receive(&mut arrived, &mut key, (&underlay, &OptionMap::default())), Ok(()));
            if !arrived.offload.is_none() {
                prop_assert_eq!(check(&mut arrived), Ok(()));
            }
            let pieces = if arrived.offload.gso.is_some() { cut(&arrived) } else { vec![arrived.bytes().to_vec()] };
            prop_assert_eq!(pieces.len() as u64, written.n_datagrams);
            for piece in pieces {
                assert_checksums(&piece);
                let (seen, _) = parsed(&piece);
                payloads.extend_from_slice(&piece[usize::from(seen.layout.l4) + 20..]);
            }
        }
        prop_assert_eq!(payloads, payload(len));
    }

    /// Whatever is wrong with a datagram, it is not lost and not mixed with others: each comes
    /// out as it went in.
    #[test]
    fn damaged_datagrams_stay_by_themselves(
        n in 2_usize..8, damage in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..4), cut_at: Option<usize>,
    ) {
        let (packet, _) = encapsulated((false, false, false), n * 600, 600);
        let (mut frame, written) = trains(&packet).remove(0);
        let each = usize::from(written.each.unwrap().get());
        for (at, byte) in damage {
            let at = 42 + at % (frame.len() - 42);
            frame[at] = byte;
        }
        if let Some(cut_at) = cut_at {
            frame.truncate(cut_at % frame.len());
        }
        let Some(mut datagrams) = Datagrams::of(&frame, each, 0) else { return Ok(()) };
        let mut expected = frame[42..].chunks(each).map(<[u8]>::to_vec).collect::<std::collections::VecDeque<_>>();
        let mut room = vec![0; 1 << 16];
        while datagrams.longest() > 0 {
            let taken = datagrams.write_next(&mut room).unwrap();
            let mut packet = Packet::new(room[..taken.len].to_vec(), 0, taken.len, PortNo::ZERO);
            packet.offload = taken.offload;
            if taken.offload.is_none() {
                prop_assert_eq!(&packet.bytes()[42..], &expected.pop_front().unwrap()[..]);
                continue;
            }
            parse(&mut packet, &mut FlowKey::zero()).unwrap();
            for mut piece in cut(&packet) {
                let mut original = expected.pop_front().unwrap();
                // PSH is on the last of several alone.
                for bytes in [&mut piece[42..], &mut original[..]] {
                    prop_assert_eq!(bytes[16 + 34 + 12] >> 4, 5);
                    bytes[16 + 14 + 4..16 + 14 + 6].fill(0);
                    bytes[16 + 14 + 10..16 + 14 + 12].fill(0);
                }
                prop_assert_eq!(&piece[42..], &original[..]);
            }
        }
        prop_assert!(expected.is_empty());
    }
}
