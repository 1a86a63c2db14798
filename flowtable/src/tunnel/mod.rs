//! Tunnels over UDP, and GRE: what comes in is checked and unwrapped here ([`receive`]), and the
//! header of what goes out is built here once per flow ([`build_header`]);
//! [`crate::execute`] puts it in front of packets.
//!
//! Only configured peers may send. The outer header is checked in full (lengths, IPv4 and
//! UDP checksums, no fragments), since whatever passes is as good as a packet from a port.

mod ecn;
mod geneve;
mod gre;
mod option_map;
mod outer;
mod plain;
#[cfg(test)]
mod tests;
mod vxlan;

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use zerocopy::IntoBytes;

pub use option_map::{GeneveOption, MAX_OPTIONS, OVN_OPTION, OptionChange, OptionError, OptionMap};

pub(crate) use plain::KnownPeers;

use self::{option_map::Options, outer::Outer, plain::Plain};
use crate::{
    cache::TunnelWords,
    checksum,
    drop::DropReason,
    execute::edit_fields,
    field::Field,
    headers::Headers,
    key::{FlowKey, FlowMask, TUN_METADATA_LEN},
    packet::{FrameBuf, Gso, Layout, Offload, Packet},
    parse::parse,
    program::{FieldEdit, TunnelHeader, TunnelKind},
    types::Vni,
    underlay::{NextHop, TunnelPort, Underlay},
    wire::{Ethernet, Ipv4, Ipv6, Udp, ethertype, ip_proto, ipv4_fragment},
};

/// Bits of `tun_flags` in a flow key.
pub mod tun_flags {
    /// The packet is for the tunnel endpoint's management (Geneve's O bit).
    pub const OAM: u16 = 0x1;
    /// The outer IPv4 header said "don't fragment".
    pub const DONT_FRAGMENT: u16 = 0x2;
    /// The outer UDP checksum is present, or shall be.
    pub const CHECKSUM: u16 = 0x4;
    /// The tunnel key is present.
    pub const KEY: u16 = 0x8;
}

/// Hop limit of outer headers when none is asked for.
const DEFAULT_TTL: u8 = 64;

/// What a tunnel header says of its payload.
struct Decoded {
    /// Bytes of the tunnel header.
    len: usize,
    /// Network identifier; of GRE the key, which has 32 bits.
    vni: u32,
    has_key: bool,
    oam: bool,
    /// The tunnel header itself had one, which was right.
    has_checksum: bool,
    options: Options,
    policy: GroupPolicy,
}

impl Decoded {
    fn of(kind: TunnelKind, payload: &[u8], options: &OptionMap) -> Option<Self> {
        match kind {
            TunnelKind::Geneve => geneve::decode(payload, options),
            TunnelKind::Vxlan => vxlan::decode(payload),
            TunnelKind::Gre => gre::decode(payload),
        }
    }
}

/// Group policy of a VXLAN packet; none is all zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GroupPolicy {
    /// 0x40: do not learn; 0x08: the policy has been applied.
    pub flags: u8,
    /// The sender's group.
    pub id: u16,
}

/// What the outer headers of a packet said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrival {
    src: IpAddr,
    dst: IpAddr,
    tos: u8,
    ttl: u8,
    flags: u16,
    vni: u32,
    options: Options,
    policy: GroupPolicy,
}

/// Unwraps a packet that came in by an uplink and parses what was inside: afterwards the
/// packet starts at the inner Ethernet header, its input port is the tunnel port, and
/// `key` holds the inner headers and, in its `tun_*` fields, the outer ones.
///
/// A mark of congestion on the outer header moves to the inner one (RFC 6040 §4.2).
///
/// # Errors
/// - [`DropReason::TunnelNotForUs`]: not UDP to the address and port of a tunnel, nor GRE to the
///   address of one.
/// - [`DropReason::TunnelUnknownPeer`]: the outer source is not a configured peer.
/// - [`DropReason::TunnelMalformed`]: lengths or checksums disagree, the outer packet is
///   a fragment, the tunnel header is of another version or payload, a critical option
///   is unknown, or congestion cannot be signalled to the inner sender.
/// - [`DropReason::Malformed`]: the inner frame has no Ethernet header.
pub fn receive<B: FrameBuf>(
    packet: &mut Packet<B>,
    key: &mut FlowKey,
    network: (&Underlay, &OptionMap),
) -> Result<(), DropReason> {
    let arrival = unwrap(packet, network)?;
    parse_inner(packet, key, &arrival)
}

/// The first half of [`receive`]: takes the outer headers off.
pub(crate) fn unwrap<B: FrameBuf>(
    packet: &mut Packet<B>,
    (underlay, options): (&Underlay, &OptionMap),
) -> Result<Arrival, DropReason> {
    let frame = packet.bytes();
    let outer = Outer::decode(frame)?;
    let tunnel = outer.tunnel(underlay)?;
    if !underlay.peers.contains(&outer.src) {
        return Err(DropReason::TunnelUnknownPeer);
    }
    let payload = outer.payload(frame, tunnel.kind)?;
    let decoded = Decoded::of(tunnel.kind, payload, options).ok_or(DropReason::TunnelMalformed)?;
    let inner_len = payload.len() - decoded.len;
    if !pull_outer(packet, outer.payload_at + decoded.len) {
        return Err(DropReason::TunnelMalformed);
    }
    packet.truncate(inner_len);
    packet.in_port = tunnel.port;
    Ok(Arrival::new(&outer, &decoded))
}

/// Takes the outer headers off. What is left to do on the packet is on what was inside; anything
/// else has been done by who received it.
#[inline]
fn pull_outer<B: FrameBuf>(packet: &mut Packet<B>, len: usize) -> bool {
    let is_pulled = packet.pull_front(len);
    if !packet.offload.is_none() {
        let inner = packet.offload.gso.filter(|gso| usize::from(gso.inner.l3) >= len);
        packet.offload = match inner {
            None => Offload::default(),
            Some(gso) => Offload {
                csum_start: packet.offload.csum_start.saturating_sub(len as u16),
                gso: Some(Gso { inner: Layout::default(), ..gso }),
                ..packet.offload
            },
        };
    }
    is_pulled
}

/// As [`unwrap`], quickly for packets from peers that were heard before.
#[inline]
pub(crate) fn unwrap_known<B: FrameBuf>(
    packet: &mut Packet<B>,
    (underlay, options): (&Arc<Underlay>, &OptionMap),
    peers: &mut KnownPeers,
) -> Result<Arrival, DropReason> {
    let frame = packet.bytes();
    let Some(plain) = Plain::decode(frame) else { return unwrap(packet, (underlay, options)) };
    let Some((port, kind)) = peers.tunnel(&plain, underlay) else {
        return unwrap(packet, (underlay, options));
    };
    let payload = frame.get(Plain::PAYLOAD..plain.end).unwrap_or_default();
    let decoded = Decoded::of(kind, payload, options).ok_or(DropReason::TunnelMalformed)?;
    let inner_len = payload.len() - decoded.len;
    if !pull_outer(packet, Plain::PAYLOAD + decoded.len) {
        return Err(DropReason::TunnelMalformed);
    }
    packet.truncate(inner_len);
    packet.in_port = port;
    let flag = |set, flag| if set { flag } else { 0 };
    Ok(Arrival {
        src: IpAddr::V4(plain.src),
        dst: IpAddr::V4(plain.dst),
        tos: plain.tos,
        ttl: plain.ttl,
        flags: tun_flags::KEY
            | flag(decoded.oam, tun_flags::OAM)
            | flag(plain.dont_fragment, tun_flags::DONT_FRAGMENT),
        vni: decoded.vni,
        options: decoded.options,
        policy: decoded.policy,
    })
}

/// The second half of [`receive`]: parses what was inside.
pub(crate) fn parse_inner<B: FrameBuf>(
    packet: &mut Packet<B>,
    key: &mut FlowKey,
    arrival: &Arrival,
) -> Result<(), DropReason> {
    parse(packet, key)?;
    take_ecn(packet, key, arrival.tos)?;
    arrival.describe(key);
    Ok(())
}

/// Moves the outer congestion mark to the inner header.
fn take_ecn<B: FrameBuf>(packet: &mut Packet<B>, key: &mut FlowKey, outer_tos: u8) -> Result<(), DropReason> {
    let Some(inner) = Headers::of(packet.bytes(), &packet.layout).ecn(packet.bytes()) else { return Ok(()) };
    let ecn = ecn::decapsulate(inner, outer_tos & 3).ok_or(DropReason::TunnelMalformed)?;
    if ecn != inner {
        let edit = FieldEdit { field: Field::NwEcn, value: ecn.into(), mask: 3 };
        edit_fields(packet, &[edit], 0)?;
        key.nw_tos = key.nw_tos & !3 | ecn;
    }
    Ok(())
}

impl Arrival {
    /// Nothing in particular: what is there before the first packet.
    pub(crate) const NONE: Self = Self {
        src: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        dst: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        tos: 0,
        ttl: 0,
        flags: 0,
        vni: 0,
        options: Options::NONE,
        policy: GroupPolicy { flags: 0, id: 0 },
    };

    fn new(outer: &Outer, decoded: &Decoded) -> Self {
        let flag = |set, flag| if set { flag } else { 0 };
        let flags = flag(decoded.has_key, tun_flags::KEY)
            | flag(decoded.oam, tun_flags::OAM)
            | flag(outer.dont_fragment, tun_flags::DONT_FRAGMENT)
            | flag(outer.has_checksum() || decoded.has_checksum, tun_flags::CHECKSUM);
        let (src, dst) = (outer.src, outer.dst);
        let Decoded { vni, options, policy, .. } = *decoded;
        Self { src, dst, tos: outer.tos, ttl: outer.ttl, flags, vni, options, policy }
    }

    /// The inner packet may have to be marked, or refused, for congestion on the way.
    pub(crate) fn marks_congestion(&self) -> bool {
        self.tos & 3 != 0
    }

    /// Fills in the tunnel fields of a key.
    pub(crate) fn describe(&self, key: &mut FlowKey) {
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                key.tun_src.set(src.to_bits());
                key.tun_dst.set(dst.to_bits());
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                key.tun_ipv6_src.set(src.to_bits());
                key.tun_ipv6_dst.set(dst.to_bits());
            }
            _ => {}
        }
        key.tun_tos = self.tos;
        key.tun_ttl = self.ttl;
        key.tun_id.set(self.vni.into());
        key.tun_flags.set(self.flags);
        key.tun_gbp_flags = self.policy.flags;
        key.tun_gbp_id.set(self.policy.id);
        key.tun_metadata_present.set(self.options.bits());
        let (fields, _) = key.tun_metadata.as_chunks_mut();
        self.options.describe(fields);
    }

    /// The bits of [`Arrival::words`] that a mask looks at.
    pub(crate) fn mask_words(mask: &FlowMask) -> TunnelWords {
        let fields = mask.fields();
        let outer = u64::from(fields.tun_src.get()) << 32 | u64::from(fields.tun_dst.get());
        let first = fields.tun_metadata.first_chunk().map_or(0, |bits| u64::from_ne_bytes(*bits));
        [fields.tun_id.get(), outer, fields.tun_metadata_present.get(), first]
    }

    /// What is compared of it where packets are found by their signatures.
    pub(crate) fn words(&self) -> TunnelWords {
        let outer = match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => u64::from(src.to_bits()) << 32 | u64::from(dst.to_bits()),
            _ => 0,
        };
        [self.vni.into(), outer, self.options.bits(), self.options.first_fields()]
    }
}

/// What an outer header shall say, in the terms of a flow key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TunnelSpec {
    /// Network identifier.
    pub vni: Vni,
    /// Peer.
    pub remote: IpAddr,
    /// DSCP; the ECN bits hold for packets that are not IP, others bring their own.
    pub tos: u8,
    /// Hop limit; 0: the usual 64.
    pub ttl: u8,
    /// [`tun_flags`]: `OAM` (Geneve) and `CHECKSUM` (UDP over IPv4; over IPv6 there always is
    /// one). The others are ignored: a tunnel always has a key (GRE: unless it is 0) and never lets
    /// others fragment.
    pub flags: u16,
    /// What a VXLAN header shall say of the sender's group.
    pub policy: GroupPolicy,
    /// Which of the Geneve option fields shall be sent. Those of no option have no form on the
    /// wire.
    pub tun_metadata_present: u64,
    /// Values of the Geneve option fields.
    pub tun_metadata: [u8; TUN_METADATA_LEN],
}

impl TunnelSpec {
    /// Reads it from a key's `tun_*` fields. Nothing when there is no destination, or
    /// the tunnel id does not fit into a VNI.
    pub fn from_key(key: &FlowKey) -> Option<Self> {
        let remote: IpAddr = match (key.tun_dst.get(), key.tun_ipv6_dst.get()) {
            (0, 0) => return None,
            (0, dst) => IpAddr::V6(dst.into()),
            (dst, _) => IpAddr::V4(dst.into()),
        };
        Some(Self {
            vni: Vni::new(u32::try_from(key.tun_id.get()).ok()?).ok()?,
            remote,
            tos: key.tun_tos,
            ttl: key.tun_ttl,
            flags: key.tun_flags.get(),
            policy: GroupPolicy { flags: key.tun_gbp_flags, id: key.tun_gbp_id.get() },
            tun_metadata_present: key.tun_metadata_present.get(),
            tun_metadata: key.tun_metadata,
        })
    }
}

/// Builds the outer header for packets to `spec.remote` by `tunnel`, complete but for
/// what depends on the packet: lengths, UDP source port, ECN, checksums. The IPv4 checksum is
/// that of a packet of length 0, so that what the packet adds is added to it. A UDP checksum
/// that shall be computed has 0xffff in its place. Nothing when the peer's address is not
/// of the same family as ours.
pub fn build_header(
    (spec, options): (&TunnelSpec, &OptionMap),
    tunnel: &TunnelPort,
    hop: &NextHop,
) -> Option<TunnelHeader> {
    let ttl = if spec.ttl == 0 { DEFAULT_TTL } else { spec.ttl };
    let proto = tunnel.kind.ip_proto();
    let (eth_type, ip, has_checksum) = match (tunnel.local, spec.remote) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let mut ip = Ipv4 {
                version_ihl: 0x45,
                tos: spec.tos,
                total_len: 0.into(),
                id: 0.into(),
                fragment: ipv4_fragment::DONT.into(),
                ttl,
                proto,
                checksum: 0.into(),
                src: src.to_bits().into(),
                dst: dst.to_bits().into(),
            };
            ip.checksum.set(checksum::of(ip.as_bytes()));
            (ethertype::IPV4, ip.as_bytes().to_vec(), spec.flags & tun_flags::CHECKSUM != 0)
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let ip = Ipv6 {
                flow: (6 << 28 | u32::from(spec.tos) << 20).into(),
                payload_len: 0.into(),
                next: proto,
                hop_limit: ttl,
                src: src.to_bits().into(),
                dst: dst.to_bits().into(),
            };
            (ethertype::IPV6, ip.as_bytes().to_vec(), true)
        }
        _ => return None,
    };
    let ethernet =
        Ethernet { dst: hop.dst_mac.octets(), src: hop.src_mac.octets(), eth_type: eth_type.into() };
    let udp = Udp {
        src: 0.into(),
        dst: tunnel.udp_port.into(),
        len: 0.into(),
        checksum: if has_checksum { 0xffff } else { 0 }.into(),
    };
    let mut bytes = [ethernet.as_bytes(), &ip].concat();
    if proto == ip_proto::UDP {
        bytes.extend_from_slice(udp.as_bytes());
    }
    match tunnel.kind {
        TunnelKind::Geneve => geneve::encode(spec, options, &mut bytes),
        TunnelKind::Vxlan => vxlan::encode(spec, &mut bytes),
        TunnelKind::Gre => gre::encode(spec, &mut bytes),
    }
    Some(TunnelHeader {
        kind: tunnel.kind,
        vni: spec.vni,
        remote: spec.remote,
        bytes,
        tunnel_port: tunnel.port,
    })
}
