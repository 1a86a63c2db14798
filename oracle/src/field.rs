//! The fields that the oracle knows, with their widths and what they need, after ovs-fields(7).

use crate::frame::{L4, Net, View};

/// A field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Field {
    InPort,
    EthDst,
    EthSrc,
    EthType,
    VlanTci,
    VlanVid,
    VlanPcp,
    MplsLabel,
    MplsTc,
    MplsTtl,
    MplsBos,
    NwSrc,
    NwDst,
    Ipv6Src,
    Ipv6Dst,
    Ipv6Label,
    NwProto,
    IpDscp,
    NwEcn,
    NwTtl,
    /// Bit 0: a fragment; bit 1: not the first one.
    Frag,
    ArpOp,
    ArpSpa,
    ArpTpa,
    ArpSha,
    ArpTha,
    TcpSrc,
    TcpDst,
    TcpFlags,
    UdpSrc,
    UdpDst,
    SctpSrc,
    SctpDst,
    IcmpType,
    IcmpCode,
    Icmpv6Type,
    Icmpv6Code,
    NdTarget,
    NdSll,
    NdTll,
    TunId,
    TunDst,
    TunMetadata0,
    /// Bits: see ovs-fields(7), `ct_state`.
    CtState,
    CtZone,
    CtMark,
    CtLabel,
    CtNwProto,
    CtNwSrc,
    CtNwDst,
    CtIpv6Src,
    CtIpv6Dst,
    CtTpSrc,
    CtTpDst,
    ConjId,
    ActsetOutput,
    PktMark,
    Metadata,
    Reg(u8),
    Xreg(u8),
    Xxreg(u8),
}

/// How values are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Form {
    Number,
    Hex,
    Mac,
    Ipv4,
    Ipv6,
    /// Names of `ip_frag`.
    Frag,
    /// `+new-est`.
    CtState,
}

/// What a packet must be to have a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Needs {
    Nothing,
    Vlan,
    Mpls,
    Arp,
    Ipv4,
    Ipv6,
    Ip,
    Tcp,
    Udp,
    Sctp,
    Icmp,
    Icmpv6,
    NdSolicit,
    NdAdvert,
    Nd,
}

impl Field {
    /// Width in bits.
    pub fn n_bits(self) -> u32 {
        self.info().1
    }

    /// How its values are written.
    pub fn form(self) -> Form {
        self.info().2
    }

    /// What a packet must be to have it.
    pub fn needs(self) -> Needs {
        self.info().3
    }

    /// Its name in flow text.
    pub fn name(self) -> String {
        match self {
            Self::Reg(idx) => format!("reg{idx}"),
            Self::Xreg(idx) => format!("xreg{idx}"),
            Self::Xxreg(idx) => format!("xxreg{idx}"),
            field => field.info().0.to_owned(),
        }
    }

    #[rustfmt::skip]
    fn info(self) -> (&'static str, u32, Form, Needs) {
        use Form::{CtState, Frag, Hex, Ipv4, Ipv6, Mac, Number};
        match self {
            Self::InPort => ("in_port", 16, Number, Needs::Nothing),
            Self::EthDst => ("dl_dst", 48, Mac, Needs::Nothing),
            Self::EthSrc => ("dl_src", 48, Mac, Needs::Nothing),
            Self::EthType => ("dl_type", 16, Hex, Needs::Nothing),
            Self::VlanTci => ("vlan_tci", 16, Hex, Needs::Nothing),
            Self::VlanVid => ("dl_vlan", 12, Number, Needs::Vlan),
            Self::VlanPcp => ("dl_vlan_pcp", 3, Number, Needs::Vlan),
            Self::MplsLabel => ("mpls_label", 20, Number, Needs::Mpls),
            Self::MplsTc => ("mpls_tc", 3, Number, Needs::Mpls),
            Self::MplsTtl => ("mpls_ttl", 8, Number, Needs::Mpls),
            Self::MplsBos => ("mpls_bos", 1, Number, Needs::Mpls),
            Self::NwSrc => ("nw_src", 32, Ipv4, Needs::Ipv4),
            Self::NwDst => ("nw_dst", 32, Ipv4, Needs::Ipv4),
            Self::Ipv6Src => ("ipv6_src", 128, Ipv6, Needs::Ipv6),
            Self::Ipv6Dst => ("ipv6_dst", 128, Ipv6, Needs::Ipv6),
            Self::Ipv6Label => ("ipv6_label", 20, Hex, Needs::Ipv6),
            Self::NwProto => ("nw_proto", 8, Number, Needs::Ip),
            Self::IpDscp => ("ip_dscp", 6, Number, Needs::Ip),
            Self::NwEcn => ("nw_ecn", 2, Number, Needs::Ip),
            Self::NwTtl => ("nw_ttl", 8, Number, Needs::Ip),
            Self::Frag => ("ip_frag", 2, Frag, Needs::Ip),
            Self::ArpOp => ("arp_op", 16, Number, Needs::Arp),
            Self::ArpSpa => ("arp_spa", 32, Ipv4, Needs::Arp),
            Self::ArpTpa => ("arp_tpa", 32, Ipv4, Needs::Arp),
            Self::ArpSha => ("arp_sha", 48, Mac, Needs::Arp),
            Self::ArpTha => ("arp_tha", 48, Mac, Needs::Arp),
            Self::TcpSrc => ("tcp_src", 16, Hex, Needs::Tcp),
            Self::TcpDst => ("tcp_dst", 16, Hex, Needs::Tcp),
            Self::TcpFlags => ("tcp_flags", 12, Hex, Needs::Tcp),
            Self::UdpSrc => ("udp_src", 16, Hex, Needs::Udp),
            Self::UdpDst => ("udp_dst", 16, Hex, Needs::Udp),
            Self::SctpSrc => ("sctp_src", 16, Hex, Needs::Sctp),
            Self::SctpDst => ("sctp_dst", 16, Hex, Needs::Sctp),
            Self::IcmpType => ("icmp_type", 8, Number, Needs::Icmp),
            Self::IcmpCode => ("icmp_code", 8, Number, Needs::Icmp),
            Self::Icmpv6Type => ("icmpv6_type", 8, Number, Needs::Icmpv6),
            Self::Icmpv6Code => ("icmpv6_code", 8, Number, Needs::Icmpv6),
            Self::NdTarget => ("nd_target", 128, Ipv6, Needs::Nd),
            Self::NdSll => ("nd_sll", 48, Mac, Needs::NdSolicit),
            Self::NdTll => ("nd_tll", 48, Mac, Needs::NdAdvert),
            Self::TunId => ("tun_id", 64, Hex, Needs::Nothing),
            Self::TunDst => ("tun_dst", 32, Ipv4, Needs::Nothing),
            Self::TunMetadata0 => ("tun_metadata0", 32, Hex, Needs::Nothing),
            Self::CtState => ("ct_state", 8, CtState, Needs::Nothing),
            Self::CtZone => ("ct_zone", 16, Hex, Needs::Nothing),
            Self::CtMark => ("ct_mark", 32, Hex, Needs::Nothing),
            Self::CtLabel => ("ct_label", 128, Hex, Needs::Nothing),
            Self::CtNwProto => ("ct_nw_proto", 8, Number, Needs::Nothing),
            Self::CtNwSrc => ("ct_nw_src", 32, Ipv4, Needs::Ipv4),
            Self::CtNwDst => ("ct_nw_dst", 32, Ipv4, Needs::Ipv4),
            Self::CtIpv6Src => ("ct_ipv6_src", 128, Ipv6, Needs::Ipv6),
            Self::CtIpv6Dst => ("ct_ipv6_dst", 128, Ipv6, Needs::Ipv6),
            Self::CtTpSrc => ("ct_tp_src", 16, Number, Needs::Nothing),
            Self::CtTpDst => ("ct_tp_dst", 16, Number, Needs::Nothing),
            Self::ConjId => ("conj_id", 32, Number, Needs::Nothing),
            Self::ActsetOutput => ("actset_output", 32, Number, Needs::Nothing),
            Self::PktMark => ("pkt_mark", 32, Hex, Needs::Nothing),
            Self::Metadata => ("metadata", 64, Hex, Needs::Nothing),
            Self::Reg(_) => ("reg", 32, Hex, Needs::Nothing),
            Self::Xreg(_) => ("xreg", 64, Hex, Needs::Nothing),
            Self::Xxreg(_) => ("xxreg", 128, Hex, Needs::Nothing),
        }
    }
}

impl Field {
    /// What conntrack says, which `ct_clear` forgets.
    pub const CT: [Self; 11] = [
        Self::CtState,
        Self::CtZone,
        Self::CtMark,
        Self::CtLabel,
        Self::CtNwProto,
        Self::CtNwSrc,
        Self::CtNwDst,
        Self::CtIpv6Src,
        Self::CtIpv6Dst,
        Self::CtTpSrc,
        Self::CtTpDst,
    ];

    /// It is not in frames, so it stays when a frame is read anew.
    pub fn is_beside(self) -> bool {
        self.needs() == Needs::Nothing
            && !matches!(self, Self::EthDst | Self::EthSrc | Self::EthType | Self::VlanTci)
            || Self::CT.contains(&self)
    }
}

impl Needs {
    /// A packet that is like this has the field. Later fragments have no L4 (ovs-fields(7), `ip_frag`).
    pub fn met_by(self, view: &View) -> bool {
        let ip4 = view.eth_type == 0x0800;
        let ip6 = view.eth_type == 0x86dd;
        let first = view.frag & 2 == 0;
        let l4 = |proto| (ip4 || ip6) && view.proto == proto && first;
        let nd = |kinds: &[u8]| {
            ip6 && l4(58) && view.icmp.is_some_and(|(kind, code)| kinds.contains(&kind) && code == 0)
        };
        match self {
            Self::Nothing => true,
            Self::Vlan => !view.tags.is_empty(),
            Self::Mpls => matches!(view.eth_type, 0x8847 | 0x8848),
            Self::Arp => matches!(view.eth_type, 0x0806 | 0x8035),
            Self::Ipv4 => ip4,
            Self::Ipv6 => ip6,
            Self::Ip => ip4 || ip6,
            Self::Tcp => l4(6),
            Self::Udp => l4(17),
            Self::Sctp => l4(132),
            Self::Icmp => ip4 && l4(1),
            Self::Icmpv6 => ip6 && l4(58),
            Self::NdSolicit => nd(&[135]),
            Self::NdAdvert => nd(&[136]),
            Self::Nd => nd(&[135, 136]),
        }
    }
}

/// Where a field is in the frame: some bytes, and within them some bits.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// First byte.
    pub at: usize,
    /// Number of bytes.
    pub len: usize,
    /// Bits to the right of the field.
    pub shift: u32,
}

/// Where the frame has the field, if it has it at all.
pub fn place(field: Field, view: &View, bytes: &[u8]) -> Option<Place> {
    let at =
        |base: usize, offset: usize, len: usize, shift: u32| Some(Place { at: base + offset, len, shift });
    let arp = || (view.net == Net::Arp).then_some(view.l3);
    let ip4 = || matches!(view.net, Net::Ipv4).then_some(view.l3);
    let ip6 = || matches!(view.net, Net::Ipv6).then_some(view.l3);
    let mpls = || (view.net == Net::Mpls).then_some(view.l3);
    let l4 = |kind| view.l4.filter(|(found, _)| *found == kind).map(|(_, at)| at);
    match field {
        Field::EthDst => at(0, 0, 6, 0),
        Field::EthSrc => at(0, 6, 6, 0),
        Field::VlanVid => at(*view.tags.first()?, 2, 2, 0),
        Field::VlanPcp => at(*view.tags.first()?, 2, 2, 13),
        Field::MplsLabel => at(mpls()?, 0, 4, 12),
        Field::MplsTc => at(mpls()?, 0, 4, 9),
        Field::MplsBos => at(mpls()?, 0, 4, 8),
        Field::MplsTtl => at(mpls()?, 0, 4, 0),
        Field::NwSrc => at(ip4()?, 12, 4, 0),
        Field::NwDst => at(ip4()?, 16, 4, 0),
        Field::Ipv6Src => at(ip6()?, 8, 16, 0),
        Field::Ipv6Dst => at(ip6()?, 24, 16, 0),
        Field::Ipv6Label => at(ip6()?, 0, 4, 0),
        Field::IpDscp if view.net == Net::Ipv6 => at(view.l3, 0, 4, 22),
        Field::NwEcn if view.net == Net::Ipv6 => at(view.l3, 0, 4, 20),
        Field::NwTtl if view.net == Net::Ipv6 => at(view.l3, 7, 1, 0),
        Field::IpDscp => at(ip4()?, 1, 1, 2),
        Field::NwEcn => at(ip4()?, 1, 1, 0),
        Field::NwTtl => at(ip4()?, 8, 1, 0),
        Field::ArpOp => at(arp()?, 6, 2, 0),
        Field::ArpSha => at(arp()?, 8, 6, 0),
        Field::ArpSpa => at(arp()?, 14, 4, 0),
        Field::ArpTha => at(arp()?, 18, 6, 0),
        Field::ArpTpa => at(arp()?, 24, 4, 0),
        Field::TcpSrc => at(l4(L4::Tcp)?, 0, 2, 0),
        Field::TcpDst => at(l4(L4::Tcp)?, 2, 2, 0),
        Field::TcpFlags => at(l4(L4::Tcp)?, 12, 2, 0),
        Field::UdpSrc => at(l4(L4::Udp)?, 0, 2, 0),
        Field::UdpDst => at(l4(L4::Udp)?, 2, 2, 0),
        Field::SctpSrc => at(l4(L4::Sctp)?, 0, 2, 0),
        Field::SctpDst => at(l4(L4::Sctp)?, 2, 2, 0),
        Field::IcmpType => at(l4(L4::Icmp)?, 0, 1, 0),
        Field::IcmpCode => at(l4(L4::Icmp)?, 1, 1, 0),
        Field::Icmpv6Type => at(l4(L4::Icmpv6)?, 0, 1, 0),
        Field::Icmpv6Code => at(l4(L4::Icmpv6)?, 1, 1, 0),
        Field::NdTarget => at(view.nd(bytes)?.target, 0, 16, 0),
        Field::NdSll => at(view.nd(bytes)?.source_link?, 2, 6, 0),
        Field::NdTll => at(view.nd(bytes)?.target_link?, 2, 6, 0),
        _ => None,
    }
}
