//! Names besides those of the fields: protocols, reserved ports, NXM and OXM names, and
//! what Open vSwitch knows that this switch does not have yet.

use super::{TextError, cursor::Piece};
use crate::{
    field::{Field, SubField},
    port::PortTable,
    types::PortNo,
};

/// Shorthand for an EtherType and perhaps an IP protocol. Of several with the same
/// meaning the first is the one that is printed.
pub(super) const PROTOCOLS: &[(&str, u16, Option<u8>)] = &[
    ("ip", 0x0800, None),
    ("icmp", 0x0800, Some(1)),
    ("tcp", 0x0800, Some(6)),
    ("udp", 0x0800, Some(17)),
    ("sctp", 0x0800, Some(132)),
    ("ipv6", 0x86dd, None),
    ("icmp6", 0x86dd, Some(58)),
    ("tcp6", 0x86dd, Some(6)),
    ("udp6", 0x86dd, Some(17)),
    ("sctp6", 0x86dd, Some(132)),
    ("arp", 0x0806, None),
    ("rarp", 0x8035, None),
    ("mpls", 0x8847, None),
    ("mplsm", 0x8848, None),
    ("ipv4", 0x0800, None),
    ("ip4", 0x0800, None),
    ("ip6", 0x86dd, None),
    ("icmp4", 0x0800, Some(1)),
    ("icmpv6", 0x86dd, Some(58)),
    ("igmp", 0x0800, Some(2)),
];

/// Ports with a meaning of their own.
pub(super) const RESERVED_PORTS: &[(&str, PortNo)] = &[
    ("IN_PORT", PortNo::IN_PORT),
    ("TABLE", PortNo::TABLE),
    ("NORMAL", PortNo::NORMAL),
    ("FLOOD", PortNo::FLOOD),
    ("ALL", PortNo::ALL),
    ("CONTROLLER", PortNo::CONTROLLER),
    ("LOCAL", PortNo::LOCAL),
    ("NONE", PortNo::NONE),
    ("UNSET", PortNo::UNSET),
    ("ANY", PortNo::NONE),
];

/// Starts of names of fields that Open vSwitch has and this switch does not.
pub(super) const UNSUPPORTED_FIELDS: &[&str] = &["nsh_", "tun_erspan_", "tun_gtpu_", "encap_eth_"];

/// Names of fields in flow text that stand for several, by protocol.
pub(super) const BY_PROTOCOL: &[&str] = &["tp_src", "tp_dst"];

/// NXM and OXM names, as dumps have them in `load` and `move`. Numbered ones are apart.
const NXM: &[(&str, Field)] = &[
    ("NXM_OF_IN_PORT", Field::InPort),
    ("OXM_OF_IN_PORT", Field::InPort),
    ("NXM_OF_ETH_DST", Field::EthDst),
    ("OXM_OF_ETH_DST", Field::EthDst),
    ("NXM_OF_ETH_SRC", Field::EthSrc),
    ("OXM_OF_ETH_SRC", Field::EthSrc),
    ("NXM_OF_ETH_TYPE", Field::EthType),
    ("OXM_OF_ETH_TYPE", Field::EthType),
    ("NXM_OF_VLAN_TCI", Field::VlanTci),
    ("OXM_OF_VLAN_VID", Field::VlanVidOxm),
    ("OXM_OF_VLAN_PCP", Field::VlanPcp),
    ("OXM_OF_MPLS_LABEL", Field::MplsLabel),
    ("OXM_OF_MPLS_TC", Field::MplsTc),
    ("OXM_OF_MPLS_BOS", Field::MplsBos),
    ("NXM_NX_MPLS_TTL", Field::MplsTtl),
    ("NXM_OF_IP_SRC", Field::NwSrc),
    ("OXM_OF_IPV4_SRC", Field::NwSrc),
    ("NXM_OF_IP_DST", Field::NwDst),
    ("OXM_OF_IPV4_DST", Field::NwDst),
    ("NXM_NX_IPV6_SRC", Field::Ipv6Src),
    ("OXM_OF_IPV6_SRC", Field::Ipv6Src),
    ("NXM_NX_IPV6_DST", Field::Ipv6Dst),
    ("OXM_OF_IPV6_DST", Field::Ipv6Dst),
    ("NXM_NX_IPV6_LABEL", Field::Ipv6Label),
    ("OXM_OF_IPV6_FLABEL", Field::Ipv6Label),
    ("NXM_OF_IP_PROTO", Field::NwProto),
    ("OXM_OF_IP_PROTO", Field::NwProto),
    ("NXM_OF_IP_TOS", Field::NwTos),
    ("OXM_OF_IP_DSCP", Field::IpDscp),
    ("NXM_NX_IP_ECN", Field::NwEcn),
    ("OXM_OF_IP_ECN", Field::NwEcn),
    ("NXM_NX_IP_TTL", Field::NwTtl),
    ("NXM_NX_IP_FRAG", Field::NwFrag),
    ("NXM_OF_ARP_OP", Field::ArpOp),
    ("OXM_OF_ARP_OP", Field::ArpOp),
    ("NXM_OF_ARP_SPA", Field::ArpSpa),
    ("OXM_OF_ARP_SPA", Field::ArpSpa),
    ("NXM_OF_ARP_TPA", Field::ArpTpa),
    ("OXM_OF_ARP_TPA", Field::ArpTpa),
    ("NXM_NX_ARP_SHA", Field::ArpSha),
    ("OXM_OF_ARP_SHA", Field::ArpSha),
    ("NXM_NX_ARP_THA", Field::ArpTha),
    ("OXM_OF_ARP_THA", Field::ArpTha),
    ("NXM_OF_TCP_SRC", Field::TcpSrc),
    ("OXM_OF_TCP_SRC", Field::TcpSrc),
    ("NXM_OF_TCP_DST", Field::TcpDst),
    ("OXM_OF_TCP_DST", Field::TcpDst),
    ("NXM_NX_TCP_FLAGS", Field::TcpFlags),
    ("OXM_OF_TCP_FLAGS", Field::TcpFlags),
    ("NXM_OF_UDP_SRC", Field::UdpSrc),
    ("OXM_OF_UDP_SRC", Field::UdpSrc),
    ("NXM_OF_UDP_DST", Field::UdpDst),
    ("OXM_OF_UDP_DST", Field::UdpDst),
    ("OXM_OF_SCTP_SRC", Field::SctpSrc),
    ("OXM_OF_SCTP_DST", Field::SctpDst),
    ("NXM_OF_ICMP_TYPE", Field::IcmpType),
    ("OXM_OF_ICMPV4_TYPE", Field::IcmpType),
    ("NXM_OF_ICMP_CODE", Field::IcmpCode),
    ("OXM_OF_ICMPV4_CODE", Field::IcmpCode),
    ("NXM_NX_ICMPV6_TYPE", Field::Icmpv6Type),
    ("OXM_OF_ICMPV6_TYPE", Field::Icmpv6Type),
    ("NXM_NX_ICMPV6_CODE", Field::Icmpv6Code),
    ("OXM_OF_ICMPV6_CODE", Field::Icmpv6Code),
    ("NXM_NX_ND_TARGET", Field::NdTarget),
    ("OXM_OF_IPV6_ND_TARGET", Field::NdTarget),
    ("NXM_NX_ND_SLL", Field::NdSll),
    ("OXM_OF_IPV6_ND_SLL", Field::NdSll),
    ("NXM_NX_ND_TLL", Field::NdTll),
    ("OXM_OF_IPV6_ND_TLL", Field::NdTll),
    ("ERICOXM_OF_ICMPV6_ND_RESERVED", Field::NdReserved),
    ("ERICOXM_OF_ICMPV6_ND_OPTIONS_TYPE", Field::NdOptionsType),
    ("NXM_NX_CT_STATE", Field::CtState),
    ("NXM_NX_CT_ZONE", Field::CtZone),
    ("NXM_NX_CT_MARK", Field::CtMark),
    ("NXM_NX_CT_LABEL", Field::CtLabel),
    ("NXM_NX_CT_NW_PROTO", Field::CtNwProto),
    ("NXM_NX_CT_NW_SRC", Field::CtNwSrc),
    ("NXM_NX_CT_NW_DST", Field::CtNwDst),
    ("NXM_NX_CT_IPV6_SRC", Field::CtIpv6Src),
    ("NXM_NX_CT_IPV6_DST", Field::CtIpv6Dst),
    ("NXM_NX_CT_TP_SRC", Field::CtTpSrc),
    ("NXM_NX_CT_TP_DST", Field::CtTpDst),
    ("NXM_NX_TUN_ID", Field::TunId),
    ("OXM_OF_TUNNEL_ID", Field::TunId),
    ("NXM_NX_TUN_IPV4_SRC", Field::TunSrc),
    ("NXM_NX_TUN_IPV4_DST", Field::TunDst),
    ("NXM_NX_TUN_IPV6_SRC", Field::TunIpv6Src),
    ("NXM_NX_TUN_IPV6_DST", Field::TunIpv6Dst),
    ("NXM_NX_TUN_FLAGS", Field::TunFlags),
    ("NXM_NX_TUN_GBP_ID", Field::TunGbpId),
    ("NXM_NX_TUN_GBP_FLAGS", Field::TunGbpFlags),
    ("NXM_NX_PKT_MARK", Field::PktMark),
    ("NXM_NX_DP_HASH", Field::DpHash),
    ("NXM_NX_RECIRC_ID", Field::RecircId),
    ("NXM_NX_CONJ_ID", Field::ConjId),
    ("OXM_OF_METADATA", Field::Metadata),
    ("OXM_OF_ACTSET_OUTPUT", Field::ActsetOutput),
    ("OXM_OF_PACKET_TYPE", Field::PacketType),
];

/// NXM and OXM names with a number behind them, and the fields' own.
const NUMBERED_NXM: &[(&str, &str)] = &[
    ("NXM_NX_REG", "reg"),
    ("NXM_NX_XREG", "xreg"),
    ("OXM_OF_PKT_REG", "xreg"),
    ("NXM_NX_XXREG", "xxreg"),
    ("NXM_NX_TUN_METADATA", "tun_metadata"),
];

/// The field of this name, alias, NXM or OXM name.
pub(super) fn field(name: Piece<'_>) -> Result<Field, TextError> {
    let text = name.text;
    let numbered = || {
        NUMBERED_NXM.iter().find_map(|(nxm, own)| {
            let number = text.strip_prefix(nxm)?;
            Field::by_name(&format!("{own}{number}"))
        })
    };
    let known = Field::by_name(text)
        .or_else(|| NXM.iter().find(|(nxm, _)| *nxm == text).map(|(_, field)| *field))
        .or_else(numbered);
    known.ok_or_else(|| {
        if UNSUPPORTED_FIELDS.iter().any(|start| text.starts_with(start)) {
            name.error(format!("the field `{text}` is not supported yet"))
        } else {
            name.misspelt(format!("there is no field `{text}`"), field_names())
        }
    })
}

/// Names and aliases of all fields.
pub(super) fn field_names() -> impl Iterator<Item = &'static str> {
    let names =
        |field: &Field| std::iter::once(field.info().name).chain(field.info().aliases.iter().copied());
    Field::ALL.iter().flat_map(names)
}

/// A sub-field: `reg0`, `reg0[]`, `reg0[3]`, `reg0[3..8]`.
pub(super) fn sub_field(text: Piece<'_>) -> Result<SubField, TextError> {
    let text = text.trim();
    let Some((name, bits)) = text.split_once("[") else { return whole(text) };
    let field = field(name)?;
    let Some((bits, behind)) = bits.split_once("]") else { return Err(bits.error("`[` without `]`")) };
    if !behind.text.is_empty() {
        return Err(behind.error("unexpected text behind `]`"));
    }
    if bits.text.is_empty() {
        return whole(name);
    }
    let bit = |piece: Piece<'_>| {
        let wrong = || piece.error(format!("`{}` is not the number of a bit", piece.text));
        piece.text.trim().parse::<u32>().map_err(|_| wrong())
    };
    let (first, last) = match bits.split_once("..") {
        Some((first, last)) => (bit(first)?, bit(last)?),
        None => (bit(bits)?, bit(bits)?),
    };
    let n_bits = last.checked_sub(first).and_then(|n| n.checked_add(1));
    n_bits.and_then(|n_bits| SubField::new(field, first, n_bits)).ok_or_else(|| {
        let width = field.info().n_bits;
        bits.error(format!("`{field}` has bits 0 to {}, and the first comes first", width - 1))
    })
}

/// All of a field. Port numbers have 16 bits in Open vSwitch's own field, and 32 in
/// OpenFlow's (`in_port_oxm`).
fn whole(name: Piece<'_>) -> Result<SubField, TextError> {
    let field = field(name)?;
    let is_narrow = matches!(name.text, "in_port" | "NXM_OF_IN_PORT");
    let narrow = SubField::new(field, 0, 16).filter(|_| is_narrow);
    Ok(narrow.unwrap_or(SubField::whole(field)))
}

/// A port by number, reserved name or name.
pub(super) fn port(text: Piece<'_>, ports: &PortTable) -> Result<PortNo, TextError> {
    let text = text.trim();
    if let Some(name) = text.unquoted() {
        return ports.by_name(name.text).ok_or_else(|| no_such_port(name, ports));
    }
    if text.text.starts_with(|c: char| c.is_ascii_digit())
        && let Ok(number) = super::value::number(text)
    {
        return port_number(number).ok_or_else(|| text.error(format!("{number} is not a port number")));
    }
    let reserved = RESERVED_PORTS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text.text));
    reserved
        .map(|(_, port)| *port)
        .or_else(|| ports.by_name(text.text))
        .ok_or_else(|| no_such_port(text, ports))
}

/// A port number, also in the 32 bits of OpenFlow 1.1 and later, whose reserved ports
/// start at `0xffffff00`.
fn port_number(number: u128) -> Option<PortNo> {
    let number = u32::try_from(number).ok()?;
    PortNo::new(if number >= 0xffff_ff00 { number & 0xffff } else { number }).ok()
}

fn no_such_port(name: Piece<'_>, ports: &PortTable) -> TextError {
    let reserved = RESERVED_PORTS.iter().map(|(name, _)| *name);
    let names = ports.iter().map(|(_, info)| info.name.as_str());
    name.misspelt(format!("there is no port `{}`", name.text), reserved.chain(names))
}

/// A port as it is printed.
pub(super) fn print_port(port: u128) -> String {
    let reserved = RESERVED_PORTS.iter().find(|(_, reserved)| u128::from(reserved.get()) == port);
    reserved.map_or_else(|| port.to_string(), |(name, _)| (*name).to_owned())
}
