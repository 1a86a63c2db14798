//! Every field the switch knows, declared once.
//!
//! The table below yields the [`Field`] enum, its place in the [`FlowKey`], its names,
//! its width, what must hold before it has a meaning (prerequisites), and whether
//! actions may write it. Parser and printer of flow text, the classifier, un-wildcarding
//! and the documentation all derive from here. Names and meaning are those of
//! ovs-fields(7).

use std::fmt;

use crate::key::{FlowKey, low_bits};

/// What a packet must be before a field has a meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prerequisites {
    /// Nothing: the field is always there.
    None,
    /// An outer VLAN tag.
    Vlan,
    /// An MPLS label stack.
    Mpls,
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
    /// IPv4 or IPv6.
    Ip,
    /// ARP or RARP.
    Arp,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
    /// ICMP over IPv4.
    Icmp,
    /// ICMPv6.
    Icmpv6,
    /// ND neighbour solicitation or advertisement.
    Nd,
    /// ND neighbour solicitation.
    NdSolicit,
    /// ND neighbour advertisement.
    NdAdvert,
}

impl Prerequisites {
    /// Fields that a read of the dependent field must un-wildcard as well: without
    /// them the shared storage could mean something else.
    pub fn fields(self) -> &'static [Field] {
        match self {
            Self::None => &[],
            Self::Vlan => &[Field::VlanTci],
            Self::Mpls | Self::Ipv4 | Self::Ipv6 | Self::Ip | Self::Arp => &[Field::EthType],
            Self::Tcp | Self::Udp | Self::Sctp | Self::Icmp | Self::Icmpv6 => {
                &[Field::EthType, Field::NwProto, Field::NwFrag]
            }
            Self::Nd | Self::NdSolicit | Self::NdAdvert => {
                &[Field::EthType, Field::NwProto, Field::NwFrag, Field::Icmpv6Type, Field::Icmpv6Code]
            }
        }
    }
}

/// How a field's value is written in flow text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Decimal number, or hexadecimal with `0x`.
    Decimal,
    /// Hexadecimal number.
    Hex,
    /// MAC address.
    Mac,
    /// IPv4 address.
    Ipv4,
    /// IPv6 address.
    Ipv6,
    /// Port number or name.
    Port,
    /// `no`, `yes`, `first`, `later`, `not_later`.
    Frag,
    /// Flags with `+` and `-`, see the field's list.
    CtState,
    /// TCP flags with `+` and `-`.
    TcpFlags,
    /// Tunnel flags with `+` and `-`.
    TunFlags,
    /// Packet type, `(ns,type)`.
    PacketType,
}

/// All there is to know about a field.
#[derive(Debug, Clone, Copy)]
pub struct FieldInfo {
    /// Canonical name, as printed.
    pub name: &'static str,
    /// Other accepted names.
    pub aliases: &'static [&'static str],
    /// Byte offset within [`FlowKey`].
    pub offset: usize,
    /// Bytes of storage.
    pub len: usize,
    /// Bits to the right of the field within its storage.
    pub shift: u32,
    /// Width in bits.
    pub n_bits: u32,
    /// Text form.
    pub format: Format,
    /// What must hold for the field to have a meaning.
    pub prerequisites: Prerequisites,
    /// Actions may write it.
    pub writable: bool,
    /// A part of it can be matched.
    pub maskable: bool,
}

/// Declares the fields: variant, names, place, width, format, prerequisites, rights.
macro_rules! fields {
    ($($(#[$doc:meta])* $variant:ident = $name:literal $(| $alias:literal)* :
        $($member:ident).+ $([$idx:expr; $each:expr])? , $shift:expr, $bits:expr, $format:ident, $pre:ident, $rights:ident;)*) => {
        /// A field of the [`FlowKey`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Field { $($(#[$doc])* $variant,)* }

        impl Field {
            /// All fields in the order of declaration.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            const INFO: &[FieldInfo] = &[$(FieldInfo {
                name: $name,
                aliases: &[$($alias,)*],
                offset: std::mem::offset_of!(FlowKey, $($member).+) $(+ $idx * $each)?,
                len: max_len(storage_len!($shift, $bits), 0 $(+ $each)?),
                shift: $shift,
                n_bits: $bits,
                format: Format::$format,
                prerequisites: Prerequisites::$pre,
                writable: rights!($rights).0,
                maskable: rights!($rights).1,
            },)*];
        }
    };
}

const fn max_len(a: usize, b: usize) -> usize {
    if a > b { a } else { b }
}

/// Bytes that hold `bits` after `shift`, rounded up to the size of the member.
macro_rules! storage_len {
    ($shift:expr, $bits:expr) => {
        match ($shift + $bits) as usize {
            1..=8 => 1,
            9..=16 => 2,
            17..=32 => 4,
            33..=48 => 6,
            49..=64 => 8,
            _ => 16,
        }
    };
}

/// (writable, maskable): `rw` both, `ro` maskable, `xw` writable, `xo` neither.
macro_rules! rights {
    (rw) => {
        (true, true)
    };
    (ro) => {
        (false, true)
    };
    (xw) => {
        (true, false)
    };
    (xo) => {
        (false, false)
    };
}

fields! {
    /// Input port.
    InPort = "in_port" | "in_port_oxm": in_port, 0, 32, Port, None, xw;
    /// Recirculation the packet continues from.
    RecircId = "recirc_id": recirc_id, 0, 32, Hex, None, xo;
    /// Hash for select groups.
    DpHash = "dp_hash": dp_hash, 0, 32, Hex, None, ro;
    /// Mark outside the switch.
    PktMark = "pkt_mark": pkt_mark, 0, 32, Hex, None, rw;
    /// Queue priority.
    SkbPriority = "skb_priority": skb_priority, 0, 32, Hex, None, xo;
    /// Packet type.
    PacketType = "packet_type": packet_type, 0, 32, PacketType, None, xo;
    /// Conjunction that matched.
    ConjId = "conj_id": conj_id, 0, 32, Decimal, None, xo;
    /// Output port of the action set.
    ActsetOutput = "actset_output": actset_output, 0, 32, Port, None, xo;

    /// Destination MAC address.
    EthDst = "dl_dst" | "eth_dst": eth_dst, 0, 48, Mac, None, rw;
    /// Source MAC address.
    EthSrc = "dl_src" | "eth_src": eth_src, 0, 48, Mac, None, rw;
    /// EtherType.
    EthType = "dl_type" | "eth_type": eth_type, 0, 16, Hex, None, xo;
    /// Outer VLAN tag with its CFI bit; 0: none.
    VlanTci = "vlan_tci": vlan_tci, 0, 16, Hex, None, rw;
    /// Outer VLAN id.
    VlanVid = "dl_vlan": vlan_tci, 0, 12, Decimal, Vlan, rw;
    /// Outer VLAN priority.
    VlanPcp = "dl_vlan_pcp" | "vlan_pcp": vlan_tci, 13, 3, Decimal, Vlan, rw;
    /// Outer VLAN id with the "present" bit of OpenFlow 1.2 and later.
    VlanVidOxm = "vlan_vid": vlan_tci, 0, 13, Hex, None, rw;
    /// TPID of the outer tag.
    VlanTpid = "vlan_tpid": vlan_tpid, 0, 16, Hex, Vlan, xo;
    /// Inner VLAN tag.
    CvlanTci = "cvlan_tci": cvlan_tci, 0, 16, Hex, None, ro;
    /// TPID of the inner tag.
    CvlanTpid = "cvlan_tpid": cvlan_tpid, 0, 16, Hex, None, xo;
    /// Number of MPLS labels.
    MplsDepth = "mpls_depth": n_mpls, 0, 8, Decimal, None, xo;
    /// Outermost MPLS label.
    MplsLabel = "mpls_label": mpls[0; 4], 12, 20, Decimal, Mpls, xw;
    /// Traffic class of the outermost label.
    MplsTc = "mpls_tc": mpls[0; 4], 9, 3, Decimal, Mpls, xw;
    /// Bottom-of-stack bit of the outermost label.
    MplsBos = "mpls_bos": mpls[0; 4], 8, 1, Decimal, Mpls, xo;
    /// TTL of the outermost label.
    MplsTtl = "mpls_ttl": mpls[0; 4], 0, 8, Decimal, Mpls, xw;
    /// Second label stack entry.
    MplsLse1 = "mpls_lse1": mpls[1; 4], 0, 32, Hex, Mpls, xo;
    /// Third label stack entry.
    MplsLse2 = "mpls_lse2": mpls[2; 4], 0, 32, Hex, Mpls, xo;

    /// IPv4 source.
    NwSrc = "nw_src" | "ip_src": nw_src, 0, 32, Ipv4, Ipv4, rw;
    /// IPv4 destination.
    NwDst = "nw_dst" | "ip_dst": nw_dst, 0, 32, Ipv4, Ipv4, rw;
    /// IPv6 source.
    Ipv6Src = "ipv6_src": ipv6_src, 0, 128, Ipv6, Ipv6, rw;
    /// IPv6 destination.
    Ipv6Dst = "ipv6_dst": ipv6_dst, 0, 128, Ipv6, Ipv6, rw;
    /// IPv6 flow label.
    Ipv6Label = "ipv6_label": ipv6_label, 0, 20, Hex, Ipv6, rw;
    /// IP protocol.
    NwProto = "nw_proto" | "ip_proto": nw_proto, 0, 8, Decimal, Ip, xo;
    /// DSCP in the place it has in the TOS byte (low bits zero).
    NwTos = "nw_tos": nw_tos, 0, 8, Decimal, Ip, xw;
    /// DSCP.
    IpDscp = "ip_dscp": nw_tos, 2, 6, Decimal, Ip, xw;
    /// ECN.
    NwEcn = "nw_ecn" | "ip_ecn": nw_tos, 0, 2, Decimal, Ip, xw;
    /// TTL or hop limit.
    NwTtl = "nw_ttl": nw_ttl, 0, 8, Decimal, Ip, xw;
    /// Fragment bits.
    NwFrag = "ip_frag" | "nw_frag": nw_frag, 0, 2, Frag, Ip, ro;

    /// ARP operation.
    ArpOp = "arp_op": nw_proto, 0, 8, Decimal, Arp, xw;
    /// ARP sender protocol address.
    ArpSpa = "arp_spa": nw_src, 0, 32, Ipv4, Arp, rw;
    /// ARP target protocol address.
    ArpTpa = "arp_tpa": nw_dst, 0, 32, Ipv4, Arp, rw;
    /// ARP sender hardware address.
    ArpSha = "arp_sha": arp_sha, 0, 48, Mac, Arp, rw;
    /// ARP target hardware address.
    ArpTha = "arp_tha": arp_tha, 0, 48, Mac, Arp, rw;

    /// TCP source port.
    TcpSrc = "tcp_src": tp_src, 0, 16, Decimal, Tcp, rw;
    /// TCP destination port.
    TcpDst = "tcp_dst": tp_dst, 0, 16, Decimal, Tcp, rw;
    /// TCP flags.
    TcpFlags = "tcp_flags": tcp_flags, 0, 12, TcpFlags, Tcp, ro;
    /// UDP source port.
    UdpSrc = "udp_src": tp_src, 0, 16, Decimal, Udp, rw;
    /// UDP destination port.
    UdpDst = "udp_dst": tp_dst, 0, 16, Decimal, Udp, rw;
    /// SCTP source port.
    SctpSrc = "sctp_src": tp_src, 0, 16, Decimal, Sctp, rw;
    /// SCTP destination port.
    SctpDst = "sctp_dst": tp_dst, 0, 16, Decimal, Sctp, rw;
    /// ICMP type.
    IcmpType = "icmp_type": tp_src, 0, 16, Decimal, Icmp, xw;
    /// ICMP code.
    IcmpCode = "icmp_code": tp_dst, 0, 16, Decimal, Icmp, xw;
    /// ICMPv6 type.
    Icmpv6Type = "icmpv6_type": tp_src, 0, 16, Decimal, Icmpv6, xw;
    /// ICMPv6 code.
    Icmpv6Code = "icmpv6_code": tp_dst, 0, 16, Decimal, Icmpv6, xw;
    /// ND target.
    NdTarget = "nd_target": nd_target, 0, 128, Ipv6, Nd, rw;
    /// ND source link-layer address.
    NdSll = "nd_sll": arp_sha, 0, 48, Mac, NdSolicit, rw;
    /// ND target link-layer address.
    NdTll = "nd_tll": arp_tha, 0, 48, Mac, NdAdvert, rw;
    /// ND reserved bits.
    NdReserved = "nd_reserved": nd_reserved, 0, 32, Hex, Nd, xw;
    /// Type of the first ND link-layer address option.
    NdOptionsType = "nd_options_type": nd_options_type, 0, 8, Decimal, Nd, xw;

    /// Bytes of the frame.
    FrameLen = "frame_len": frame_len, 0, 16, Decimal, None, ro;

    /// Connection state.
    CtState = "ct_state": ct_state, 0, 16, CtState, None, ro;
    /// Connection zone.
    CtZone = "ct_zone": ct_zone, 0, 16, Hex, None, xo;
    /// Connection mark.
    CtMark = "ct_mark": ct_mark, 0, 32, Hex, None, rw;
    /// Connection label.
    CtLabel = "ct_label": ct_label, 0, 128, Hex, None, rw;
    /// Original direction: protocol.
    CtNwProto = "ct_nw_proto": ct_nw_proto, 0, 8, Decimal, None, xo;
    /// Original direction: IPv4 source.
    CtNwSrc = "ct_nw_src": ct_nw_src, 0, 32, Ipv4, Ipv4, ro;
    /// Original direction: IPv4 destination.
    CtNwDst = "ct_nw_dst": ct_nw_dst, 0, 32, Ipv4, Ipv4, ro;
    /// Original direction: IPv6 source.
    CtIpv6Src = "ct_ipv6_src": ct_ipv6_src, 0, 128, Ipv6, Ipv6, ro;
    /// Original direction: IPv6 destination.
    CtIpv6Dst = "ct_ipv6_dst": ct_ipv6_dst, 0, 128, Ipv6, Ipv6, ro;
    /// Original direction: source port.
    CtTpSrc = "ct_tp_src": ct_tp_src, 0, 16, Decimal, None, ro;
    /// Original direction: destination port.
    CtTpDst = "ct_tp_dst": ct_tp_dst, 0, 16, Decimal, None, ro;

    /// Tunnel key.
    TunId = "tun_id" | "tunnel_id": tun_id, 0, 64, Hex, None, rw;
    /// Outer source, IPv4.
    TunSrc = "tun_src": tun_src, 0, 32, Ipv4, None, rw;
    /// Outer destination, IPv4.
    TunDst = "tun_dst": tun_dst, 0, 32, Ipv4, None, rw;
    /// Outer source, IPv6.
    TunIpv6Src = "tun_ipv6_src": tun_ipv6_src, 0, 128, Ipv6, None, rw;
    /// Outer destination, IPv6.
    TunIpv6Dst = "tun_ipv6_dst": tun_ipv6_dst, 0, 128, Ipv6, None, rw;
    /// Outer DSCP and ECN.
    TunTos = "tun_tos": tun_tos, 0, 8, Hex, None, xw;
    /// Outer TTL.
    TunTtl = "tun_ttl": tun_ttl, 0, 8, Decimal, None, xw;
    /// Tunnel flags.
    TunFlags = "tun_flags": tun_flags, 0, 16, TunFlags, None, rw;
    /// VXLAN group policy id.
    TunGbpId = "tun_gbp_id": tun_gbp_id, 0, 16, Decimal, None, rw;
    /// VXLAN group policy flags.
    TunGbpFlags = "tun_gbp_flags": tun_gbp_flags, 0, 8, Hex, None, rw;

    /// Pipeline metadata.
    Metadata = "metadata": metadata, 0, 64, Hex, None, rw;
    /// Register 0.
    Reg0 = "reg0": regs[0; 4], 0, 32, Hex, None, rw;
    /// Register 1.
    Reg1 = "reg1": regs[1; 4], 0, 32, Hex, None, rw;
    /// Register 2.
    Reg2 = "reg2": regs[2; 4], 0, 32, Hex, None, rw;
    /// Register 3.
    Reg3 = "reg3": regs[3; 4], 0, 32, Hex, None, rw;
    /// Register 4.
    Reg4 = "reg4": regs[4; 4], 0, 32, Hex, None, rw;
    /// Register 5.
    Reg5 = "reg5": regs[5; 4], 0, 32, Hex, None, rw;
    /// Register 6.
    Reg6 = "reg6": regs[6; 4], 0, 32, Hex, None, rw;
    /// Register 7.
    Reg7 = "reg7": regs[7; 4], 0, 32, Hex, None, rw;
    /// Register 8.
    Reg8 = "reg8": regs[8; 4], 0, 32, Hex, None, rw;
    /// Register 9.
    Reg9 = "reg9": regs[9; 4], 0, 32, Hex, None, rw;
    /// Register 10.
    Reg10 = "reg10": regs[10; 4], 0, 32, Hex, None, rw;
    /// Register 11.
    Reg11 = "reg11": regs[11; 4], 0, 32, Hex, None, rw;
    /// Register 12.
    Reg12 = "reg12": regs[12; 4], 0, 32, Hex, None, rw;
    /// Register 13.
    Reg13 = "reg13": regs[13; 4], 0, 32, Hex, None, rw;
    /// Register 14.
    Reg14 = "reg14": regs[14; 4], 0, 32, Hex, None, rw;
    /// Register 15.
    Reg15 = "reg15": regs[15; 4], 0, 32, Hex, None, rw;
    /// Register 16.
    Reg16 = "reg16": regs[16; 4], 0, 32, Hex, None, rw;
    /// Register 17.
    Reg17 = "reg17": regs[17; 4], 0, 32, Hex, None, rw;
    /// Register 18.
    Reg18 = "reg18": regs[18; 4], 0, 32, Hex, None, rw;
    /// Register 19.
    Reg19 = "reg19": regs[19; 4], 0, 32, Hex, None, rw;
    /// Register 20.
    Reg20 = "reg20": regs[20; 4], 0, 32, Hex, None, rw;
    /// Register 21.
    Reg21 = "reg21": regs[21; 4], 0, 32, Hex, None, rw;
    /// Register 22.
    Reg22 = "reg22": regs[22; 4], 0, 32, Hex, None, rw;
    /// Register 23.
    Reg23 = "reg23": regs[23; 4], 0, 32, Hex, None, rw;
    /// Register 24.
    Reg24 = "reg24": regs[24; 4], 0, 32, Hex, None, rw;
    /// Register 25.
    Reg25 = "reg25": regs[25; 4], 0, 32, Hex, None, rw;
    /// Register 26.
    Reg26 = "reg26": regs[26; 4], 0, 32, Hex, None, rw;
    /// Register 27.
    Reg27 = "reg27": regs[27; 4], 0, 32, Hex, None, rw;
    /// Register 28.
    Reg28 = "reg28": regs[28; 4], 0, 32, Hex, None, rw;
    /// Register 29.
    Reg29 = "reg29": regs[29; 4], 0, 32, Hex, None, rw;
    /// Register 30.
    Reg30 = "reg30": regs[30; 4], 0, 32, Hex, None, rw;
    /// Register 31.
    Reg31 = "reg31": regs[31; 4], 0, 32, Hex, None, rw;
    /// Registers 0 and 1.
    Xreg0 = "xreg0": regs[0; 4], 0, 64, Hex, None, rw;
    /// Registers 2 and 3.
    Xreg1 = "xreg1": regs[2; 4], 0, 64, Hex, None, rw;
    /// Registers 4 and 5.
    Xreg2 = "xreg2": regs[4; 4], 0, 64, Hex, None, rw;
    /// Registers 6 and 7.
    Xreg3 = "xreg3": regs[6; 4], 0, 64, Hex, None, rw;
    /// Registers 8 and 9.
    Xreg4 = "xreg4": regs[8; 4], 0, 64, Hex, None, rw;
    /// Registers 10 and 11.
    Xreg5 = "xreg5": regs[10; 4], 0, 64, Hex, None, rw;
    /// Registers 12 and 13.
    Xreg6 = "xreg6": regs[12; 4], 0, 64, Hex, None, rw;
    /// Registers 14 and 15.
    Xreg7 = "xreg7": regs[14; 4], 0, 64, Hex, None, rw;
    /// Registers 16 and 17.
    Xreg8 = "xreg8": regs[16; 4], 0, 64, Hex, None, rw;
    /// Registers 18 and 19.
    Xreg9 = "xreg9": regs[18; 4], 0, 64, Hex, None, rw;
    /// Registers 20 and 21.
    Xreg10 = "xreg10": regs[20; 4], 0, 64, Hex, None, rw;
    /// Registers 22 and 23.
    Xreg11 = "xreg11": regs[22; 4], 0, 64, Hex, None, rw;
    /// Registers 24 and 25.
    Xreg12 = "xreg12": regs[24; 4], 0, 64, Hex, None, rw;
    /// Registers 26 and 27.
    Xreg13 = "xreg13": regs[26; 4], 0, 64, Hex, None, rw;
    /// Registers 28 and 29.
    Xreg14 = "xreg14": regs[28; 4], 0, 64, Hex, None, rw;
    /// Registers 30 and 31.
    Xreg15 = "xreg15": regs[30; 4], 0, 64, Hex, None, rw;
    /// Registers 0 to 3.
    Xxreg0 = "xxreg0": regs[0; 4], 0, 128, Hex, None, rw;
    /// Registers 4 to 7.
    Xxreg1 = "xxreg1": regs[4; 4], 0, 128, Hex, None, rw;
    /// Registers 8 to 11.
    Xxreg2 = "xxreg2": regs[8; 4], 0, 128, Hex, None, rw;
    /// Registers 12 to 15.
    Xxreg3 = "xxreg3": regs[12; 4], 0, 128, Hex, None, rw;
    /// Registers 16 to 19.
    Xxreg4 = "xxreg4": regs[16; 4], 0, 128, Hex, None, rw;
    /// Registers 20 to 23.
    Xxreg5 = "xxreg5": regs[20; 4], 0, 128, Hex, None, rw;
    /// Registers 24 to 27.
    Xxreg6 = "xxreg6": regs[24; 4], 0, 128, Hex, None, rw;
    /// Registers 28 to 31.
    Xxreg7 = "xxreg7": regs[28; 4], 0, 128, Hex, None, rw;
    /// Which Geneve option fields are present.
    TunMetadataPresent = "tun_metadata_present": tun_metadata_present, 0, 64, Hex, None, rw;
    /// Geneve option field 0.
    TunMetadata0 = "tun_metadata0": tun_metadata[0; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 1.
    TunMetadata1 = "tun_metadata1": tun_metadata[1; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 2.
    TunMetadata2 = "tun_metadata2": tun_metadata[2; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 3.
    TunMetadata3 = "tun_metadata3": tun_metadata[3; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 4.
    TunMetadata4 = "tun_metadata4": tun_metadata[4; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 5.
    TunMetadata5 = "tun_metadata5": tun_metadata[5; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 6.
    TunMetadata6 = "tun_metadata6": tun_metadata[6; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 7.
    TunMetadata7 = "tun_metadata7": tun_metadata[7; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 8.
    TunMetadata8 = "tun_metadata8": tun_metadata[8; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 9.
    TunMetadata9 = "tun_metadata9": tun_metadata[9; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 10.
    TunMetadata10 = "tun_metadata10": tun_metadata[10; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 11.
    TunMetadata11 = "tun_metadata11": tun_metadata[11; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 12.
    TunMetadata12 = "tun_metadata12": tun_metadata[12; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 13.
    TunMetadata13 = "tun_metadata13": tun_metadata[13; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 14.
    TunMetadata14 = "tun_metadata14": tun_metadata[14; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 15.
    TunMetadata15 = "tun_metadata15": tun_metadata[15; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 16.
    TunMetadata16 = "tun_metadata16": tun_metadata[16; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 17.
    TunMetadata17 = "tun_metadata17": tun_metadata[17; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 18.
    TunMetadata18 = "tun_metadata18": tun_metadata[18; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 19.
    TunMetadata19 = "tun_metadata19": tun_metadata[19; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 20.
    TunMetadata20 = "tun_metadata20": tun_metadata[20; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 21.
    TunMetadata21 = "tun_metadata21": tun_metadata[21; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 22.
    TunMetadata22 = "tun_metadata22": tun_metadata[22; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 23.
    TunMetadata23 = "tun_metadata23": tun_metadata[23; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 24.
    TunMetadata24 = "tun_metadata24": tun_metadata[24; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 25.
    TunMetadata25 = "tun_metadata25": tun_metadata[25; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 26.
    TunMetadata26 = "tun_metadata26": tun_metadata[26; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 27.
    TunMetadata27 = "tun_metadata27": tun_metadata[27; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 28.
    TunMetadata28 = "tun_metadata28": tun_metadata[28; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 29.
    TunMetadata29 = "tun_metadata29": tun_metadata[29; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 30.
    TunMetadata30 = "tun_metadata30": tun_metadata[30; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 31.
    TunMetadata31 = "tun_metadata31": tun_metadata[31; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 32.
    TunMetadata32 = "tun_metadata32": tun_metadata[32; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 33.
    TunMetadata33 = "tun_metadata33": tun_metadata[33; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 34.
    TunMetadata34 = "tun_metadata34": tun_metadata[34; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 35.
    TunMetadata35 = "tun_metadata35": tun_metadata[35; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 36.
    TunMetadata36 = "tun_metadata36": tun_metadata[36; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 37.
    TunMetadata37 = "tun_metadata37": tun_metadata[37; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 38.
    TunMetadata38 = "tun_metadata38": tun_metadata[38; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 39.
    TunMetadata39 = "tun_metadata39": tun_metadata[39; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 40.
    TunMetadata40 = "tun_metadata40": tun_metadata[40; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 41.
    TunMetadata41 = "tun_metadata41": tun_metadata[41; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 42.
    TunMetadata42 = "tun_metadata42": tun_metadata[42; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 43.
    TunMetadata43 = "tun_metadata43": tun_metadata[43; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 44.
    TunMetadata44 = "tun_metadata44": tun_metadata[44; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 45.
    TunMetadata45 = "tun_metadata45": tun_metadata[45; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 46.
    TunMetadata46 = "tun_metadata46": tun_metadata[46; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 47.
    TunMetadata47 = "tun_metadata47": tun_metadata[47; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 48.
    TunMetadata48 = "tun_metadata48": tun_metadata[48; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 49.
    TunMetadata49 = "tun_metadata49": tun_metadata[49; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 50.
    TunMetadata50 = "tun_metadata50": tun_metadata[50; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 51.
    TunMetadata51 = "tun_metadata51": tun_metadata[51; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 52.
    TunMetadata52 = "tun_metadata52": tun_metadata[52; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 53.
    TunMetadata53 = "tun_metadata53": tun_metadata[53; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 54.
    TunMetadata54 = "tun_metadata54": tun_metadata[54; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 55.
    TunMetadata55 = "tun_metadata55": tun_metadata[55; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 56.
    TunMetadata56 = "tun_metadata56": tun_metadata[56; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 57.
    TunMetadata57 = "tun_metadata57": tun_metadata[57; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 58.
    TunMetadata58 = "tun_metadata58": tun_metadata[58; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 59.
    TunMetadata59 = "tun_metadata59": tun_metadata[59; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 60.
    TunMetadata60 = "tun_metadata60": tun_metadata[60; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 61.
    TunMetadata61 = "tun_metadata61": tun_metadata[61; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 62.
    TunMetadata62 = "tun_metadata62": tun_metadata[62; 4], 0, 32, Hex, None, rw;
    /// Geneve option field 63.
    TunMetadata63 = "tun_metadata63": tun_metadata[63; 4], 0, 32, Hex, None, rw;
}

impl Field {
    /// What there is to know about the field.
    pub const fn info(self) -> &'static FieldInfo {
        &Self::INFO[self as usize]
    }

    /// The field with this name or alias.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|field| field.info().name == name || field.info().aliases.contains(&name))
    }

    /// Both are the same bits of the key, under different prerequisites.
    pub fn shares_place(self, other: Self) -> bool {
        let place = |field: Self| (field.info().offset, field.info().shift, field.info().n_bits);
        place(self) == place(other)
    }

    /// General register `idx`, 0 to 31.
    pub fn reg(idx: usize) -> Option<Self> {
        Self::at(Self::Reg0, idx, 32)
    }

    /// Geneve option fields.
    pub const TUN_METADATA: std::ops::RangeInclusive<Self> = Self::TunMetadata0..=Self::TunMetadata63;

    /// Geneve option field `idx`, 0 to 63.
    pub fn tun_metadata(idx: usize) -> Option<Self> {
        Self::at(Self::TunMetadata0, idx, 64)
    }

    /// A bit of every width.
    pub fn all_bits(self) -> u128 {
        low_bits(self.info().n_bits)
    }

    fn at(first: Self, idx: usize, n: usize) -> Option<Self> {
        (idx < n).then(|| Self::ALL[first as usize + idx])
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.info().name)
    }
}

/// Some adjacent bits of a field: `reg0[3..8]`. Bit 0 is the least significant one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SubField {
    /// The field.
    pub field: Field,
    /// First bit.
    pub start: u32,
    /// Number of bits, at least one.
    pub n_bits: u32,
}

impl SubField {
    /// Checks that the bits are within the field.
    pub fn new(field: Field, start: u32, n_bits: u32) -> Option<Self> {
        let end = start.checked_add(n_bits)?;
        (n_bits > 0 && end <= field.info().n_bits).then_some(Self { field, start, n_bits })
    }

    /// All bits of a field.
    pub fn whole(field: Field) -> Self {
        Self { field, start: 0, n_bits: field.info().n_bits }
    }

    /// The sub-field's bits in place.
    pub fn bits(self) -> u128 {
        low_bits(self.n_bits) << self.start
    }
}

impl fmt::Display for SubField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, start, n_bits } = *self;
        if (field, start, n_bits) == (Field::InPort, 0, 32) {
            // `in_port[]` has 16 bits.
            write!(f, "in_port_oxm[]")
        } else if start == 0 && n_bits == field.info().n_bits {
            write!(f, "{field}[]")
        } else if n_bits == 1 {
            write!(f, "{field}[{start}]")
        } else {
            write!(f, "{field}[{start}..{}]", start + n_bits - 1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_keeps_what_is_written_and_leaves_its_neighbours() {
        for field in Field::ALL {
            let mut key = FlowKey::zero();
            key.set(*field, u128::MAX);
            assert_eq!(key.get(*field), field.all_bits(), "{field}");
            let ones: u32 = key.words().iter().map(|word| word.count_ones()).sum();
            assert_eq!(ones, field.info().n_bits, "{field}");
        }
    }

    #[test]
    fn parts_of_a_label_are_where_rfc_3032_puts_them() {
        let mut key = FlowKey::zero();
        key.mpls[0].set(0x1234_5b40);
        assert_eq!(key.get(Field::MplsLabel), 0x12345);
        assert_eq!(key.get(Field::MplsTc), 5);
        assert_eq!(key.get(Field::MplsBos), 1);
        assert_eq!(key.get(Field::MplsTtl), 0x40);
    }

    #[test]
    fn names_are_unique_and_found() {
        let mut names: Vec<_> =
            Field::ALL.iter().flat_map(|f| f.info().aliases.iter().copied().chain([f.info().name])).collect();
        for field in Field::ALL {
            assert_eq!(Field::by_name(field.info().name), Some(*field));
        }
        let n = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), n);
    }

    #[test]
    fn sub_fields_stay_within_their_field() {
        assert_eq!(SubField::new(Field::Reg0, 3, 6).unwrap().to_string(), "reg0[3..8]");
        assert!(SubField::new(Field::Reg0, 3, 30).is_none());
        assert!(SubField::new(Field::Reg0, 3, 0).is_none());
        assert!(SubField::new(Field::Reg0, u32::MAX, 1).is_none());
    }
}
