//! Every name of the match language, declared once: fields with their place in the flow
//! key and what a packet must be for them to have a meaning, and predicates with what
//! they stand for. Names and meaning are those of ovn-sb(5), `Logical_Flow`;
//! `nd.options_type` and `nd.flags` are ours, for the answer to a neighbour solicitation.

use std::{collections::HashMap, sync::LazyLock};

use flowtable::field::Field;

use super::{ast::Expr, parser, spelling::nearest};

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Some bits of a field. Constants have at most `max_bits` bits, which is less than
    /// `n_bits` where the key keeps a byte in two.
    Number { field: Field, start: u32, n_bits: u32, max_bits: u32 },
    /// A logical port by its name.
    Port(Field),
    /// Another expression.
    Predicate(&'static str),
}

/// A name of the language.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Symbol {
    /// The name.
    pub(crate) name: &'static str,
    /// What it stands for.
    pub(crate) kind: Kind,
    /// Expression that must hold too; empty: none.
    needs: &'static str,
}

/// All names.
static SYMBOLS: &[Symbol] = &[
    port("inport", Field::Reg14),
    port("outport", Field::Reg15),
    part("flags.loopback", Field::Reg10, 0, 1, ""),
    part("flags.force_snat_for_dnat", Field::Reg10, 2, 1, ""),
    part("flags.force_snat_for_lb", Field::Reg10, 3, 1, ""),
    part("flags.local", Field::Reg10, 4, 1, ""),
    part("flags.skip_snat_for_lb", Field::Reg10, 9, 1, ""),
    part("flags.unsnat_new", Field::Reg10, 13, 1, ""),
    part("flags.from_tunnel", Field::Reg10, 16, 1, ""),
    part("flags.from_ctrl", Field::Reg10, 19, 1, ""),
    part("flags.redirected", Field::Reg10, 26, 1, ""),
    number("reg0", Field::Reg0, 32, ""),
    number("reg1", Field::Reg1, 32, ""),
    number("reg2", Field::Reg2, 32, ""),
    number("reg3", Field::Reg3, 32, ""),
    number("reg4", Field::Reg4, 32, ""),
    number("reg5", Field::Reg5, 32, ""),
    number("reg6", Field::Reg6, 32, ""),
    number("reg7", Field::Reg7, 32, ""),
    number("reg8", Field::Reg8, 32, ""),
    number("reg9", Field::Reg9, 32, ""),
    number("xreg0", Field::Xreg0, 64, ""),
    number("xreg1", Field::Xreg1, 64, ""),
    number("xreg2", Field::Xreg2, 64, ""),
    number("xreg3", Field::Xreg3, 64, ""),
    number("xreg4", Field::Xreg4, 64, ""),
    number("xxreg0", Field::Xxreg0, 128, ""),
    number("xxreg1", Field::Xxreg1, 128, ""),
    number("pkt.mark", Field::PktMark, 32, ""),
    number("eth.src", Field::EthSrc, 48, ""),
    number("eth.dst", Field::EthDst, 48, ""),
    number("eth.type", Field::EthType, 16, ""),
    means("eth.bcast", "eth.dst == ff:ff:ff:ff:ff:ff"),
    means("eth.mcast", "eth.dst[40]"),
    means("eth.mcastv6", "eth.dst[32..47] == 0x3333"),
    number("vlan.tci", Field::VlanTci, 16, ""),
    means("vlan.present", "vlan.tci[12]"),
    part("vlan.pcp", Field::VlanTci, 13, 3, "vlan.present"),
    part("vlan.vid", Field::VlanTci, 0, 12, "vlan.present"),
    means("ip4", "eth.type == 0x800"),
    means("ip6", "eth.type == 0x86dd"),
    means("ip", "ip4 || ip6"),
    number("ip.proto", Field::NwProto, 8, "ip"),
    number("ip.dscp", Field::IpDscp, 6, "ip"),
    number("ip.ecn", Field::NwEcn, 2, "ip"),
    number("ip.ttl", Field::NwTtl, 8, "ip"),
    number("ip.frag", Field::NwFrag, 2, "ip"),
    means("ip.is_frag", "ip.frag[0]"),
    means("ip.later_frag", "ip.frag[1]"),
    means("ip.first_frag", "ip.is_frag && !ip.later_frag"),
    number("ip4.src", Field::NwSrc, 32, "ip4"),
    number("ip4.dst", Field::NwDst, 32, "ip4"),
    means("ip4.src_mcast", "ip4.src[28..31] == 0xe"),
    means("ip4.mcast", "ip4.dst[28..31] == 0xe"),
    number("ip6.src", Field::Ipv6Src, 128, "ip6"),
    number("ip6.dst", Field::Ipv6Dst, 128, "ip6"),
    number("ip6.label", Field::Ipv6Label, 20, "ip6"),
    means("ip6.mcast", "ip6.dst[120..127] == 0xff"),
    means("ip6.mcast_all_nodes", "ip6.dst == ff02::1"),
    means("ip6.mcast_sol_nodes", "ip6.dst == ff02::1:ff00:0/104"),
    means("icmp4", "ip4 && ip.proto == 1"),
    byte("icmp4.type", Field::IcmpType, "icmp4"),
    byte("icmp4.code", Field::IcmpCode, "icmp4"),
    means("icmp6", "ip6 && ip.proto == 58"),
    byte("icmp6.type", Field::Icmpv6Type, "icmp6"),
    byte("icmp6.code", Field::Icmpv6Code, "icmp6"),
    means("icmp", "icmp4 || icmp6"),
    means("igmp", "ip4 && ip.proto == 2"),
    means("arp", "eth.type == 0x806"),
    means("rarp", "eth.type == 0x8035"),
    number("arp.op", Field::ArpOp, 8, "arp"),
    number("arp.spa", Field::ArpSpa, 32, "arp"),
    number("arp.tpa", Field::ArpTpa, 32, "arp"),
    number("arp.sha", Field::ArpSha, 48, "arp"),
    number("arp.tha", Field::ArpTha, 48, "arp"),
    means("nd", "icmp6.type == {135, 136} && icmp6.code == 0 && ip.ttl == 255"),
    means("nd_ns", "icmp6.type == 135 && icmp6.code == 0 && ip.ttl == 255"),
    means("nd_na", "icmp6.type == 136 && icmp6.code == 0 && ip.ttl == 255"),
    means("nd_rs", "icmp6.type == 133 && icmp6.code == 0 && ip.ttl == 255"),
    means("nd_ra", "icmp6.type == 134 && icmp6.code == 0 && ip.ttl == 255"),
    number("nd.target", Field::NdTarget, 128, "nd"),
    number("nd.sll", Field::NdSll, 48, "nd_ns"),
    number("nd.tll", Field::NdTll, 48, "nd_na"),
    number("nd.options_type", Field::NdOptionsType, 8, "nd"),
    number("nd.flags", Field::NdReserved, 32, "nd"),
    means("mldv1", "icmp6.type == {130, 131, 132}"),
    means("mldv2", "ip6.dst == ff02::16 && icmp6.type == 143"),
    means("tcp", "ip && ip.proto == 6"),
    number("tcp.src", Field::TcpSrc, 16, "tcp"),
    number("tcp.dst", Field::TcpDst, 16, "tcp"),
    number("tcp.flags", Field::TcpFlags, 12, "tcp"),
    means("udp", "ip && ip.proto == 17"),
    number("udp.src", Field::UdpSrc, 16, "udp"),
    number("udp.dst", Field::UdpDst, 16, "udp"),
    means("sctp", "ip && ip.proto == 132"),
    number("sctp.src", Field::SctpSrc, 16, "sctp"),
    number("sctp.dst", Field::SctpDst, 16, "sctp"),
    part("ct.trk", Field::CtState, 5, 1, ""),
    part("ct.new", Field::CtState, 0, 1, "ct.trk"),
    part("ct.est", Field::CtState, 1, 1, "ct.trk"),
    part("ct.rel", Field::CtState, 2, 1, "ct.trk"),
    part("ct.rpl", Field::CtState, 3, 1, "ct.trk"),
    part("ct.inv", Field::CtState, 4, 1, "ct.trk"),
    part("ct.snat", Field::CtState, 6, 1, "ct.trk"),
    part("ct.dnat", Field::CtState, 7, 1, "ct.trk"),
    number("ct_mark", Field::CtMark, 32, ""),
    part("ct_mark.blocked", Field::CtMark, 0, 1, ""),
    part("ct_mark.natted", Field::CtMark, 1, 1, ""),
    part("ct_mark.skip_snat", Field::CtMark, 2, 1, ""),
    part("ct_mark.force_snat", Field::CtMark, 3, 1, ""),
    part("ct_mark.allow_established", Field::CtMark, 5, 1, ""),
    part("ct_mark.ecmp_reply_port", Field::CtMark, 16, 16, ""),
    number("ct_label", Field::CtLabel, 128, ""),
    part("ct_label.ecmp_reply_eth", Field::CtLabel, 32, 48, ""),
    part("ct_label.label", Field::CtLabel, 96, 32, ""),
    number("ct_state", Field::CtState, 16, ""),
    // Whom the connection's first packet was for.
    number("ct_nw_dst", Field::CtNwDst, 32, "ip4"),
    number("ct_ip6_dst", Field::CtIpv6Dst, 128, "ip6"),
    number("ct_tp_dst", Field::CtTpDst, 16, ""),
];

const fn number(name: &'static str, field: Field, n_bits: u32, needs: &'static str) -> Symbol {
    part(name, field, 0, n_bits, needs)
}

const fn part(name: &'static str, field: Field, start: u32, n_bits: u32, needs: &'static str) -> Symbol {
    Symbol { name, kind: Kind::Number { field, start, n_bits, max_bits: n_bits }, needs }
}

const fn byte(name: &'static str, field: Field, needs: &'static str) -> Symbol {
    Symbol { name, kind: Kind::Number { field, start: 0, n_bits: 16, max_bits: 8 }, needs }
}

const fn port(name: &'static str, field: Field) -> Symbol {
    Symbol { name, kind: Kind::Port(field), needs: "" }
}

const fn means(name: &'static str, text: &'static str) -> Symbol {
    Symbol { name, kind: Kind::Predicate(text), needs: "" }
}

impl Symbol {
    /// What a predicate stands for.
    pub(crate) fn meaning(&self) -> Option<&'static Expr> {
        match self.kind {
            Kind::Predicate(text) => EXPANSIONS.get(text),
            Kind::Number { .. } | Kind::Port(_) => None,
        }
    }

    /// What must hold for the symbol to have a meaning.
    pub(crate) fn prerequisite(&self) -> Option<&'static Expr> {
        EXPANSIONS.get(self.needs)
    }
}

/// The symbol with a name.
pub(crate) fn find(name: &str) -> Option<&'static Symbol> {
    static BY_NAME: LazyLock<HashMap<&str, &Symbol>> =
        LazyLock::new(|| SYMBOLS.iter().map(|symbol| (symbol.name, symbol)).collect());
    BY_NAME.get(name).copied()
}

/// ", did you mean `x`?" or nothing.
pub(crate) fn suggestion(name: &str) -> String {
    nearest(name, SYMBOLS.iter().map(|symbol| symbol.name))
        .map_or_else(String::new, |near| format!("; did you mean `{near}`?"))
}

/// The parsed texts of the table above.
static EXPANSIONS: LazyLock<HashMap<&str, Expr>> = LazyLock::new(|| {
    let texts = SYMBOLS.iter().map(|symbol| match symbol.kind {
        Kind::Predicate(text) => text,
        Kind::Number { .. } | Kind::Port(_) => symbol.needs,
    });
    texts
        .filter(|text| !text.is_empty())
        .map(|text| (text, parser::parse(text).expect("the table's texts are parsed by its test")))
        .collect()
});

/// All symbols, for tests.
#[cfg(test)]
pub(crate) fn all() -> &'static [Symbol] {
    SYMBOLS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_symbol_is_well_formed_and_unique() {
        for symbol in SYMBOLS {
            assert!(std::ptr::eq(find(symbol.name).unwrap(), symbol), "{} is declared twice", symbol.name);
            if let Kind::Number { field, start, n_bits, max_bits } = symbol.kind {
                assert!(start + n_bits <= field.info().n_bits && max_bits <= n_bits, "{}", symbol.name);
            }
            assert_eq!(symbol.prerequisite().is_some(), !symbol.needs.is_empty(), "{}", symbol.name);
            assert_eq!(symbol.meaning().is_some(), matches!(symbol.kind, Kind::Predicate(_)));
        }
    }
}
