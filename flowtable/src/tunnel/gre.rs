//! The GRE header with an Ethernet frame behind it (RFC 2784 §2, RFC 2890 §2): flags, protocol, and as
//! flags say a checksum, a key, a sequence number.

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    network_endian::{U16, U32},
};

use super::{Decoded, GroupPolicy, TunnelSpec, option_map::Options};
use crate::{checksum, wire::ethertype};

const CHECKSUM: u16 = 0x8000;
const KEY: u16 = 0x2000;
const SEQUENCE: u16 = 0x1000;
/// Length of what each of the three adds.
const WORD: usize = 4;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    flags: U16,
    protocol: U16,
}

/// Nothing when the header is cut off, of another version, carries something other than
/// Ethernet, has flags that mean nothing here, or a wrong checksum. Sequence numbers are
/// passed over: frames need no order (RFC 2890 §2.2).
pub(super) fn decode(payload: &[u8]) -> Option<Decoded> {
    let (header, _) = Header::ref_from_prefix(payload).ok()?;
    let flags = header.flags.get();
    if flags & !(CHECKSUM | KEY | SEQUENCE) != 0 || header.protocol != ethertype::ETHERNET {
        return None;
    }
    let n_words = |mask: u16| (flags & mask).count_ones() as usize;
    let len = size_of::<Header>() + WORD * n_words(CHECKSUM | KEY | SEQUENCE);
    payload.get(..len)?;
    if flags & CHECKSUM != 0 && checksum::of(payload) != 0 {
        return None;
    }
    let has_key = flags & KEY != 0;
    let key_at = size_of::<Header>() + WORD * n_words(CHECKSUM);
    let key = if has_key { U32::read_from_prefix(payload.get(key_at..)?).ok()?.0.get() } else { 0 };
    Some(Decoded {
        len,
        vni: key,
        has_key,
        oam: false,
        has_checksum: flags & CHECKSUM != 0,
        options: Options::NONE,
        policy: GroupPolicy::default(),
    })
}

/// Appends the header. Key 0: there is none, as with Open vSwitch's tunnels.
pub(super) fn encode(spec: &TunnelSpec, out: &mut Vec<u8>) {
    let key = spec.vni.get();
    let flags = if key == 0 { 0 } else { KEY };
    let header = Header { flags: flags.into(), protocol: ethertype::ETHERNET.into() };
    out.extend_from_slice(header.as_bytes());
    if key != 0 {
        out.extend_from_slice(&key.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::{net::IpAddr, sync::Arc};

    use super::*;
    use crate::{
        build::{self, Host},
        drop::DropReason,
        execute::apply,
        key::{FlowKey, TUN_METADATA_LEN},
        offload::Segments,
        packet::{Gso, GsoKind, Offload, Packet},
        program::{Emit, TunnelKind},
        testing::{assert_checksums, parsed},
        tunnel::{OptionMap, TunnelSpec, build_header, receive, tun_flags},
        types::{PortNo, Vni},
        underlay::{NextHop, TunnelPort, Underlay},
    };

    fn tunnel(local: IpAddr) -> TunnelPort {
        TunnelPort { port: PortNo::new(4).unwrap(), kind: TunnelKind::Gre, udp_port: 0, local }
    }

    fn wrap(mut packet: Packet<Vec<u8>>, (from, to): (&Host, &Host), key: u32) -> Packet<Vec<u8>> {
        let spec = TunnelSpec {
            vni: Vni::new(key).unwrap(),
            remote: to.ip,
            tos: 0,
            ttl: 9,
            flags: tun_flags::CHECKSUM,
            policy: GroupPolicy::default(),
            tun_metadata_present: 0,
            tun_metadata: [0; TUN_METADATA_LEN],
        };
        let hop = NextHop { port: PortNo::ZERO, src_mac: from.mac, dst_mac: to.mac };
        let header = build_header((&spec, &OptionMap::default()), &tunnel(from.ip), &hop).unwrap();
        let emit = Emit {
            n_vlan_pops: 0,
            vlan_pushes: Vec::new(),
            edits: Vec::new(),
            tunnel: Some(Arc::new(header)),
            port: PortNo::ZERO,
            extras: None,
            ct: None,
        };
        apply(&mut packet, &emit, 5).unwrap();
        packet
    }

    fn unwrap(outer: &[u8], (from, to): (&Host, &Host)) -> Result<(Vec<u8>, FlowKey), DropReason> {
        let underlay =
            Underlay { tunnels: vec![tunnel(to.ip)], peers: [from.ip].into(), ..Underlay::default() };
        let mut packet = build::packet(outer, PortNo::new(1).unwrap());
        let mut key = FlowKey::zero();
        receive(&mut packet, &mut key, (&underlay, &OptionMap::default()))?;
        assert_eq!(packet.in_port.get(), 4);
        Ok((packet.bytes().to_vec(), key))
    }

    fn ends() -> [(Host, Host); 2] {
        [(Host::v4(1), Host::v4(2)), (Host::v6(1), Host::v6(2))]
    }

    /// The header and what is behind it.
    fn header_at(from: &Host) -> usize {
        if from.ip.is_ipv4() { 34 } else { 54 }
    }

    #[test]
    fn what_goes_in_comes_out_with_and_without_a_key() {
        let frame = build::tcp(&Host::v4(3), &Host::v6(4), 0x10, b"inside");
        for (from, to) in &ends() {
            for key in [0, 1, 0xab_cdef] {
                let outer = wrap(parsed(&frame).0, (from, to), key);
                assert_checksums(outer.bytes());
                let at = header_at(from);
                let flags = if key == 0 { 0 } else { 0x20 };
                assert_eq!(outer.bytes()[at..at + 4], [flags, 0, 0x65, 0x58]);
                assert_eq!(outer.len(), at + if key == 0 { 4 } else { 8 } + frame.len());
                let (inner, seen) = unwrap(outer.bytes(), (from, to)).unwrap();
                assert_eq!(inner, frame);
                let has_key = seen.tun_flags.get() & tun_flags::KEY != 0;
                assert_eq!((seen.tun_id.get(), has_key, seen.tun_ttl), (key.into(), key != 0, 9));
                let stranger = Host { ip: to.ip, ..*to };
                assert_eq!(
                    unwrap(outer.bytes(), (&stranger, to)).unwrap_err(),
                    DropReason::TunnelUnknownPeer
                );
            }
        }
    }

    #[test]
    fn headers_are_checked() {
        let frame = build::udp(&Host::v4(3), &Host::v4(4), b"abc");
        let (from, to) = &ends()[1];
        let at = header_at(from);
        // Behind the addresses of IPv6, which has no checksum of its own.
        let with = |header: &[u8]| {
            let mut outer = wrap(parsed(&frame).0, (from, to), 0).bytes()[..at].to_vec();
            outer.extend_from_slice(header);
            outer.extend_from_slice(&frame);
            let len = (outer.len() - 54) as u16;
            outer[18..20].copy_from_slice(&len.to_be_bytes());
            unwrap(&outer, (from, to)).map(|(_, key)| (key.tun_id.get(), key.tun_flags.get()))
        };
        assert_eq!(with(&[0, 0, 0x65, 0x58]), Ok((0, 0)));
        assert_eq!(
            with(&[0x30, 0, 0x65, 0x58, 0xff, 0, 0, 1, 0, 0, 0, 9]),
            Ok((0xff00_0001, tun_flags::KEY))
        );
        for (what, header) in [
            ("a routing header", vec![0x40, 0, 0x65, 0x58, 0, 0, 0, 0]),
            ("version 1", vec![0x20, 1, 0x65, 0x58, 0, 0, 0, 0]),
            ("IPv4 inside", vec![0, 0, 0x08, 0x00]),
            ("reserved bits", vec![0x04, 0, 0x65, 0x58]),
            ("a wrong checksum", vec![0x80, 0, 0x65, 0x58, 0x12, 0x34, 0, 0]),
        ] {
            assert_eq!(with(&header), Err(DropReason::TunnelMalformed), "{what}");
        }
        let mut summed = vec![0x80, 0, 0x65, 0x58, 0, 0, 0, 0];
        let sum = checksum::of(&[&summed[..], &frame].concat());
        summed[4..6].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(with(&summed), Ok((0, tun_flags::CHECKSUM)));
        // Cut off anywhere, it does no harm.
        let whole = wrap(parsed(&frame).0, (from, to), 7);
        for len in 0..whole.len() {
            assert!(unwrap(&whole.bytes()[..len], (from, to)).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn what_is_cut_behind_the_header_is_whole() {
        let payload: Vec<u8> = (0..3000_u32).map(|byte| byte as u8).collect();
        for (from, to) in &ends() {
            let (mut packet, _) = parsed(&build::tcp(&Host::v4(3), &Host::v4(4), 0x10, &payload));
            let l4 = packet.layout.l4;
            let segment_len = 1000.try_into().unwrap();
            let gso = Gso { kind: GsoKind::Tcp, segment_len, inner: Default::default() };
            packet.offload = Offload { csum_partial: true, csum_start: l4, csum_offset: 16, gso: Some(gso) };
            let outer = wrap(packet, (from, to), 7);
            let mut segments = Segments::of(&outer).unwrap();
            let (mut room, mut got) = (vec![0; 2000], Vec::new());
            while let Some(len) = segments.write_next(&mut room) {
                assert_checksums(&room[..len]);
                let (inner, _) = unwrap(&room[..len], (from, to)).unwrap();
                assert_checksums(&inner);
                got.extend_from_slice(&inner[usize::from(l4) + 20..]);
            }
            assert_eq!(got, payload);
        }
    }
}
