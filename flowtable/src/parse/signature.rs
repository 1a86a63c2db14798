//! The short way from bytes to a session. Most frames are whole TCP, UDP or ICMP packets
//! over IPv4, or TCP or UDP over IPv6, with one tag at most and no options; what tells
//! their conversations apart fits into one cache line and can be gathered without filling
//! in a whole flow key.
//!
//! # Invariants
//! Frames with the same signature have the same key but for the TCP flags and the IPv6
//! flow label ([`Signature::covers`]), and for what a tunnel header says.

use zerocopy::{FromBytes, network_endian::U32};

use super::{TAG_PRESENT, ipv4, ipv6, is_tag};
use crate::{
    field::Field,
    key::{FlowKey, FlowMask},
    packet::{FrameBuf, Layout, Packet},
    types::PortNo,
    wire::{Ethernet, Icmp, Ipv4, Ipv6, Tag, Tcp, Udp, ethertype, ip_proto, ipv4_fragment},
};

/// Words of a signature.
pub(crate) const N_WORDS: usize = 8;

/// Fields that a signature says, beside the addresses of its IP version. Ports are named once:
/// those of all protocols share their places in a key.
const SAID: [Field; 12] = [
    Field::InPort,
    Field::EthDst,
    Field::EthSrc,
    Field::VlanTpid,
    Field::VlanTci,
    Field::NwProto,
    Field::NwTos,
    Field::NwTtl,
    Field::UdpSrc,
    Field::UdpDst,
    Field::IcmpType,
    Field::IcmpCode,
];

/// What tells the conversations of a port apart, in this order: MAC addresses, outer tag,
/// input port, protocol, TOS, TTL, IP version, L4 ports (or ICMP type and code), IP addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Signature(pub(crate) [u64; N_WORDS]);

/// The L3 part of a signature.
struct L3 {
    proto: u8,
    tos: u8,
    ttl: u8,
    version: u8,
    /// The L4 header and the byte after its segment, from the start of L3.
    start: usize,
    end: usize,
    addresses: [u64; 4],
}

impl Signature {
    /// They are the same: compared without a branch for each word.
    #[inline(always)]
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).fold(0, |differing, (one, other)| differing | (one ^ other)) == 0
    }

    /// The signature of a frame from a port, and where its headers are. Nothing for the
    /// frames that take the long way ([`super::parse`]).
    #[cfg(test)]
    pub(crate) fn of(frame: &[u8], in_port: PortNo) -> Option<(Self, Layout)> {
        let mut signature = Self::default();
        let plain = signature.take_plain(frame, in_port);
        let layout = plain.or_else(|| signature.take_any(frame, in_port))?;
        Some((signature, layout))
    }

    /// Becomes the signature of a packet, whose headers are then known. False for those that take the long way
    /// ([`super::parse`]).
    // An ordinary frame's layout goes to the packet straight from registers. Where both kinds come together, it would be
    // written to the stack in parts and read back as a whole, for which a processor waits.
    #[inline]
    pub(crate) fn take_packet<B: FrameBuf>(&mut self, packet: &mut Packet<B>) -> bool {
        if let Some(layout) = self.take_plain(packet.bytes(), packet.in_port) {
            packet.layout = layout;
            return true;
        }
        let layout = self.take_any(packet.bytes(), packet.in_port);
        layout.map(|layout| packet.layout = layout).is_some()
    }

    /// Of the most ordinary frames: TCP or UDP over IPv4, without a tag. Everything is at a fixed
    /// place, so that one comparison of lengths is enough.
    #[inline]
    fn take_plain(&mut self, frame: &[u8], in_port: PortNo) -> Option<Layout> {
        const L4: usize = Ethernet::LEN + Ipv4::LEN;
        const PLAIN: u16 = u16::from_be_bytes([8, 0]);
        const FRAGMENT: u16 = ipv4_fragment::OFFSET | ipv4_fragment::MORE;
        let head: &[u8; L4 + Tcp::LEN] = frame.first_chunk()?;
        if frame.len() > usize::from(u16::MAX) {
            return None;
        }
        let half = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        let word = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (total_len, proto) = (usize::from(half(16)), head[23]);
        let header_len = if proto == ip_proto::TCP { usize::from(head[L4 + 12] >> 4) * 4 } else { Udp::LEN };
        let is_plain = half(12) == PLAIN
            && head[14] == 0x45
            && half(20) & FRAGMENT == 0
            && (proto == ip_proto::UDP || proto == ip_proto::TCP && header_len >= Tcp::LEN)
            && total_len >= Ipv4::LEN + header_len
            && total_len <= frame.len() - Ethernet::LEN;
        if !is_plain {
            return None;
        }
        let [a, b, c, d, e, f, g, h, i, j, k, l, ..] = *head;
        let what = u32::from_ne_bytes([proto, head[15], head[22], 4]);
        self.0 = [
            u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
            u64::from(u32::from_ne_bytes([i, j, k, l])) << 32,
            u64::from(in_port.get()) << 32 | u64::from(what),
            u64::from(word(L4)),
            u64::from(word(26)),
            0,
            u64::from(word(30)),
            0,
        ];
        let l3_end = (Ethernet::LEN + total_len) as u16;
        Some(Layout { l3: Ethernet::LEN as u16, l4: L4 as u16, l3_end, l4_proto: proto })
    }

    #[inline(never)]
    fn take_any(&mut self, frame: &[u8], in_port: PortNo) -> Option<Layout> {
        if frame.len() > usize::from(u16::MAX) {
            return None;
        }
        let macs: &[u8; 16] = frame.first_chunk()?;
        let (mut eth_type, mut l3, mut tag) = (u16::from_be_bytes([macs[12], macs[13]]), Ethernet::LEN, 0);
        if is_tag(eth_type) {
            let (tagged, rest) = Tag::ref_from_prefix(frame.get(l3 - 2..)?).ok()?;
            tag = u32::from(eth_type) << 16 | u32::from(tagged.tci.get() | TAG_PRESENT);
            eth_type = u16::from_be_bytes(*rest.first_chunk()?);
            l3 += Tag::LEN;
        }
        let packet = frame.get(l3..)?;
        let ip = match eth_type {
            ethertype::IPV4 => L3::of_ipv4(packet)?,
            ethertype::IPV6 => L3::of_ipv6(packet)?,
            _ => return None,
        };
        let ports = l4_ports(ip.proto, packet.get(ip.start..ip.end)?)?;
        let word = |bytes: [u8; 8]| u64::from_ne_bytes(bytes);
        let [a, b, c, d, e, f, g, h, rest @ ..] = *macs;
        let what = u32::from_ne_bytes([ip.proto, ip.tos, ip.ttl, ip.version]);
        let [src, src_low, dst, dst_low] = ip.addresses;
        self.0 = [
            word([a, b, c, d, e, f, g, h]),
            u64::from(u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]])) << 32 | u64::from(tag),
            u64::from(in_port.get()) << 32 | u64::from(what),
            u64::from(ports),
            src,
            src_low,
            dst,
            dst_low,
        ];
        Some(Layout {
            l3: l3 as u16,
            l4: (l3 + ip.start) as u16,
            l3_end: (l3 + ip.end) as u16,
            l4_proto: ip.proto,
        })
    }

    /// Frames with the same signature agree in all bits of this mask that received frames
    /// can have.
    pub(crate) fn covers(mask: &FlowMask) -> bool {
        let left_out = [Field::TcpFlags, Field::Ipv6Label, Field::FrameLen];
        left_out.iter().all(|field| mask.get(*field) == 0)
    }

    /// The bits of signatures that a mask which they cover looks at: frames whose signatures
    /// agree with this one in them have keys that agree in the mask.
    pub(crate) fn mask_for(&self, mask: &FlowMask) -> [u64; N_WORDS] {
        let fields = mask.fields();
        let mut words = Self::words_of(fields, self.is_ipv4());
        // Which port always; which version, for the addresses of the other one are zero in the
        // key, and elsewhere in its words.
        words[2] |= u64::from(u32::MAX) << 32;
        let addresses = [fields.ipv6_src.get(), fields.ipv6_dst.get()];
        let v4_addresses = fields.nw_src.get() | fields.nw_dst.get();
        if fields.eth_type.get() != 0 || v4_addresses != 0 || addresses != [0; 2] {
            words[2] |= u64::from(u32::from_ne_bytes([0, 0, 0, u8::MAX]));
        }
        words
    }

    /// The fields of a key, or the bits of a mask, in the places of a signature of that IP
    /// version; the version itself is left out.
    pub(crate) fn words_of(fields: &FlowKey, is_ipv4: bool) -> [u64; N_WORDS] {
        let (src, dst) = (fields.ipv6_src.get(), fields.ipv6_dst.get());
        let [src, src_low, dst, dst_low] = if is_ipv4 {
            [fields.nw_src.get().into(), 0, fields.nw_dst.get().into(), 0]
        } else {
            [(src >> 64) as u64, src as u64, (dst >> 64) as u64, dst as u64]
        };
        let what = u32::from_ne_bytes([fields.nw_proto, fields.nw_tos, fields.nw_ttl, 0]);
        let mut macs = [0; 12];
        macs[..6].copy_from_slice(&fields.eth_dst);
        macs[6..].copy_from_slice(&fields.eth_src);
        let [a, b, c, d, e, f, g, h, rest @ ..] = macs;
        let tag = u32::from(fields.vlan_tpid.get()) << 16 | u32::from(fields.vlan_tci.get());
        [
            u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
            u64::from(u32::from_ne_bytes(rest)) << 32 | u64::from(tag),
            u64::from(fields.in_port.get()) << 32 | u64::from(what),
            u64::from(fields.tp_src.get()) << 16 | u64::from(fields.tp_dst.get()),
            src,
            src_low,
            dst,
            dst_low,
        ]
    }

    /// A packet of that IP version, fresh from a port and with a signature, can have this value
    /// under this mask, as far as that does not depend on what its signature says.
    pub(crate) fn can_match(mask: &FlowMask, value: &FlowKey, is_ipv4: bool) -> bool {
        let addresses = if is_ipv4 { [Field::NwSrc, Field::NwDst] } else { [Field::Ipv6Src, Field::Ipv6Dst] };
        let mut said = FlowMask::empty();
        for field in SAID.iter().chain(&addresses) {
            said.add(*field, field.all_bits());
        }
        let mut fixed = FlowKey::zero();
        fixed.eth_type.set(if is_ipv4 { ethertype::IPV4 } else { ethertype::IPV6 });
        // As walks begin: no output is in the action set.
        fixed.actset_output.set(PortNo::UNSET.get());
        let words = mask.words().iter().zip(said.words()).zip(value.words().iter().zip(fixed.words()));
        words.into_iter().all(|((mask, said), (value, fixed))| (value ^ fixed) & mask & !said == 0)
    }

    /// It is of an IPv4 packet.
    #[inline]
    pub(crate) fn is_ipv4(&self) -> bool {
        let [_, _, _, version] = (self.0[2] as u32).to_ne_bytes();
        version == 4
    }

    /// EtherType and protocol, as the hash of a conversation takes them.
    pub(crate) fn kind(&self) -> (u16, u8) {
        let [proto, _, _, version] = (self.0[2] as u32).to_ne_bytes();
        (if version == 4 { ethertype::IPV4 } else { ethertype::IPV6 }, proto)
    }

    /// The congestion bits of the IP header (RFC 3168 §5).
    #[inline]
    pub(crate) fn ecn(&self) -> u8 {
        let [_, tos, _, _] = (self.0[2] as u32).to_ne_bytes();
        tos & 3
    }

    /// TOS (or traffic class) and TTL (or hop limit).
    pub(crate) fn tos_and_ttl(&self) -> (u8, u8) {
        let [_, tos, ttl, _] = (self.0[2] as u32).to_ne_bytes();
        (tos, ttl)
    }

    /// Destination and source, as in the frame.
    pub(crate) fn mac_addrs(&self) -> [u8; 12] {
        let mut addrs = [0; 12];
        let (dst, src) = addrs.split_at_mut(8);
        dst.copy_from_slice(&self.0[0].to_ne_bytes());
        src.copy_from_slice(&((self.0[1] >> 32) as u32).to_ne_bytes());
        addrs
    }

    /// Source and destination of IPv4.
    pub(crate) fn ipv4_addresses(&self) -> (u32, u32) {
        (self.0[4] as u32, self.0[6] as u32)
    }

    /// Source and destination of IPv6.
    pub(crate) fn ipv6_addresses(&self) -> (u128, u128) {
        let address = |high: u64, low: u64| u128::from(high) << 64 | u128::from(low);
        (address(self.0[4], self.0[5]), address(self.0[6], self.0[7]))
    }

    /// Source and destination port.
    pub(crate) fn ports(&self) -> (u16, u16) {
        ((self.0[3] >> 16) as u16, self.0[3] as u16)
    }
}

impl L3 {
    #[inline]
    fn of_ipv4(packet: &[u8]) -> Option<Self> {
        const PLAIN: u8 = 0x45;
        const FRAGMENT: u16 = ipv4_fragment::OFFSET | ipv4_fragment::MORE;
        let (header, _) = Ipv4::ref_from_prefix(packet).ok()?;
        if header.version_ihl != PLAIN || header.fragment.get() & FRAGMENT != 0 {
            return None;
        }
        let (start, end) = ipv4::bounds(header, packet.len())?;
        let Ipv4 { proto, tos, ttl, src, dst, .. } = *header;
        let addresses = [src.get().into(), 0, dst.get().into(), 0];
        Some(Self { proto, tos, ttl, version: 4, start, end, addresses })
    }

    #[inline]
    fn of_ipv6(packet: &[u8]) -> Option<Self> {
        let (header, _) = Ipv6::ref_from_prefix(packet).ok()?;
        if !matches!(header.next, ip_proto::TCP | ip_proto::UDP) {
            return None;
        }
        let end = ipv6::end(header, packet.len())?;
        let (src, dst) = (header.src.get(), header.dst.get());
        let addresses = [(src >> 64) as u64, src as u64, (dst >> 64) as u64, dst as u64];
        let tos = (header.flow.get() >> 20) as u8;
        let (proto, ttl) = (header.next, header.hop_limit);
        Some(Self { proto, tos, ttl, version: 6, start: Ipv6::LEN, end, addresses })
    }
}

/// The ports as one number, or type and code of ICMP in their places; nothing when the
/// parser would not read them.
#[inline]
fn l4_ports(proto: u8, segment: &[u8]) -> Option<u32> {
    let first: [u8; 4] = *segment.first_chunk()?;
    match proto {
        ip_proto::UDP if segment.len() >= Udp::LEN => Some(U32::from_bytes(first).get()),
        ip_proto::TCP => {
            let (tcp, _) = Tcp::ref_from_prefix(segment).ok()?;
            let header_len = usize::from(tcp.control.get() >> 12) * 4;
            let whole = header_len >= Tcp::LEN && header_len <= segment.len();
            whole.then_some(U32::from_bytes(first).get())
        }
        ip_proto::ICMP if segment.len() >= Icmp::LEN => Some(u32::from(first[0]) << 16 | u32::from(first[1])),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{build, testing};

    /// The key that all frames with a signature have.
    fn key_of(signature: &Signature) -> FlowKey {
        let mut key = FlowKey::zero();
        let words = signature.0;
        let macs: Vec<u8> =
            [words[0].to_ne_bytes().as_slice(), &((words[1] >> 32) as u32).to_ne_bytes()].concat();
        key.eth_dst.copy_from_slice(&macs[..6]);
        key.eth_src.copy_from_slice(&macs[6..]);
        key.vlan_tpid.set((words[1] as u32 >> 16) as u16);
        key.vlan_tci.set(words[1] as u16);
        key.in_port.set((words[2] >> 32) as u32);
        let [proto, tos, ttl, version] = (words[2] as u32).to_ne_bytes();
        (key.nw_proto, key.nw_tos, key.nw_ttl) = (proto, tos, ttl);
        let (src, dst) = signature.ports();
        (key.tp_src, key.tp_dst) = (src.into(), dst.into());
        key.eth_type.set(signature.kind().0);
        if version == 4 {
            let (src, dst) = signature.ipv4_addresses();
            (key.nw_src, key.nw_dst) = (src.into(), dst.into());
        } else {
            let (src, dst) = signature.ipv6_addresses();
            (key.ipv6_src, key.ipv6_dst) = (src.into(), dst.into());
        }
        key
    }

    fn check(frame: &[u8]) -> Result<bool, TestCaseError> {
        let Some((signature, layout)) = Signature::of(frame, PortNo::ZERO) else { return Ok(false) };
        let (packet, mut key) = testing::parsed(frame);
        prop_assert_eq!(layout, packet.layout);
        key.tcp_flags.set(0);
        key.ipv6_label.set(0);
        prop_assert_eq!(key_of(&signature), key);
        Ok(true)
    }

    proptest! {
        /// The whole of a parsed key but flags and label follows from the signature, also of
        /// frames that are cut off or damaged.
        #[test]
        fn a_signature_says_all_that_it_covers(
            key in testing::frame_key(),
            len in 0_usize..40,
            cut in 0_usize..200,
            damage in prop::option::of((0_usize..64, any::<u8>())),
        ) {
            let mut frame = build::frame_from_key(&key, len);
            if let Some((at, byte)) = damage && at < frame.len() {
                frame[at] = byte;
            }
            if frame.len() >= Ethernet::LEN {
                check(&frame)?;
                check(&frame[..cut.clamp(Ethernet::LEN, frame.len())])?;
            }
        }
    }

    proptest! {
        /// What agrees in a mask's bits of signatures agrees in the mask.
        #[test]
        fn masks_in_terms_of_signatures_see_as_much(
            (mut a, other) in (testing::frame_key(), testing::frame_key()),
            changed in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
            looked_at in prop::collection::vec((any::<prop::sample::Index>(), any::<u128>()), 0..6),
            is_ip: bool,
        ) {
            let fields = [
                Field::EthSrc, Field::EthDst, Field::VlanTci, Field::EthType, Field::NwSrc, Field::NwDst,
                Field::Ipv6Src, Field::Ipv6Dst, Field::NwProto, Field::NwTos, Field::NwTtl, Field::UdpSrc,
                Field::UdpDst, Field::InPort,
            ];
            if is_ip {
                a.eth_type.set(0x0800);
                a.nw_proto = 17;
                a.nw_frag = 0;
            }
            let mut b = a;
            for field in changed.iter().map(|idx| *idx.get(&fields)) {
                b.set(field, other.get(field));
            }
            let mut mask = FlowMask::empty();
            for (idx, bits) in &looked_at {
                mask.add(*idx.get(&fields), *bits);
            }
            let signed = |key: &FlowKey| {
                let (packet, key) = testing::parsed(&build::frame_from_key(key, 0));
                Some((Signature::of(packet.bytes(), packet.in_port)?.0, key))
            };
            if let (Some((one, a)), Some((two, b))) = (signed(&a), signed(&b)) {
                let agree = one.mask_for(&mask).iter().zip(one.0.iter().zip(two.0)).all(|(mask, (a, b))| (a ^ b) & mask == 0);
                let same = mask.words().iter().zip(a.words().iter().zip(b.words())).all(|(mask, (a, b))| (a ^ b) & mask == 0);
                prop_assert!(same || !agree);
                // Nothing else is looked at but the version, for the sake of addresses.
                prop_assert!(agree || !same || one.kind().0 != two.kind().0 || a.in_port != b.in_port);
            }
        }
    }

    #[test]
    fn ordinary_frames_have_one() {
        let (a, b) = (build::Host::v4(1), build::Host::v4(2));
        let (c, d) = (build::Host::v6(1), build::Host::v6(2));
        let udp = build::udp(&a, &b, b"");
        for frame in [
            udp.clone(),
            build::vlan(&udp, 0x8100, 5),
            build::tcp(&a, &b, 2, b"x"),
            build::tcp(&c, &d, 2, b"x"),
            build::udp(&c, &d, b"xyz"),
        ] {
            assert!(check(&frame).unwrap());
        }
        let twice = build::vlan(&build::vlan(&udp, 0x8100, 5), 0x8100, 6);
        assert!(!check(&twice).unwrap());
        assert!(!check(&build::arp(1, &a, &b)).unwrap());
    }

    #[test]
    fn flags_and_label_are_not_covered() {
        let mut mask = FlowMask::empty();
        mask.add(Field::NwDst, 0xffff);
        assert!(Signature::covers(&mask));
        let mut flags = mask;
        flags.add(Field::TcpFlags, 2);
        assert!(!Signature::covers(&flags));
        mask.add(Field::Ipv6Label, 1);
        assert!(!Signature::covers(&mask));
    }
}
