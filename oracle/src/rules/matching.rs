//! Which packets rules are for.

use super::{Context, Features};
use crate::{
    field::Field,
    rng::Rng,
    syntax::{Kind, Matching, Member, NamedSet, Term, Values, kind_of, ones},
};

const KINDS: &[Kind] = &[
    Kind::Ip,
    Kind::Ip,
    Kind::Tcp,
    Kind::Tcp,
    Kind::Udp,
    Kind::Sctp,
    Kind::Icmp,
    Kind::Ipv6,
    Kind::Tcp6,
    Kind::Udp6,
    Kind::Sctp6,
    Kind::Icmp6,
    Kind::Icmp6,
    Kind::Arp,
    Kind::Mpls,
];

pub(super) fn matching(rng: &mut Rng, features: &Features) -> Matching {
    let kind = match features.theme {
        Some(theme) if rng.one_in(2) => Some(theme),
        _ => (!rng.one_in(3)).then(|| rng.pick(KINDS)),
    };
    let mut terms: Vec<Term> = Vec::new();
    if rng.one_in(6) {
        terms.push(rng.pick(&[
            Term { field: Field::VlanTci, value: 0, mask: 0x1000 },
            Term { field: Field::VlanTci, value: 0x1000, mask: 0x1000 },
            Term { field: Field::VlanTci, value: 0, mask: 0xffff },
            Term { field: Field::VlanTci, value: 0x1064, mask: 0x1fff },
            Term { field: Field::VlanVid, value: 100, mask: 0xfff },
            Term { field: Field::VlanVid, value: 101, mask: 0xfff },
            Term { field: Field::VlanPcp, value: 1, mask: 7 },
        ]));
    }
    let context = Context { kind, ..Context::default() };
    if kind == Some(Kind::Icmp6) && rng.one_in(2) {
        let source = rng.one_in(2);
        let nd = if source { Field::NdSll } else { Field::NdTll };
        terms.push(Term::whole(Field::Icmpv6Type, if source { 135 } else { 136 }));
        terms.push(Term::whole(Field::Icmpv6Code, 0));
        if rng.one_in(2) {
            terms.push(value(rng, Field::NdTarget, true));
        }
        if rng.one_in(3) {
            terms.push(value(rng, nd, true));
        }
        return Matching { kind, terms, ..Matching::default() };
    }
    for _ in 0..rng.below(3) {
        let tracked = if features.tracking && !rng.one_in(3) { TRACKED } else { &[] };
        let more = if features.sets && features.set_is_matched { &[Field::ActsetOutput][..] } else { &[] };
        let fields = if tracked.is_empty() { MATCHED } else { tracked };
        let choice = fields.iter().chain(more).copied();
        let is_tuple = |field: Field| {
            field.name().starts_with("ct_nw")
                || field.name().starts_with("ct_ipv6")
                || field.name().starts_with("ct_tp")
        };
        let choice = choice.filter(|field| features.tuples || !is_tuple(*field));
        let choice: Vec<Field> = choice.filter(|field| suits(*field, context)).collect();
        let field = rng.pick(&choice);
        let is_reg = |field: Field| matches!(field, Field::Reg(_) | Field::Xreg(_));
        if !terms.iter().any(|term| term.field == field || is_reg(field) && is_reg(term.field)) {
            terms.push(value(rng, field, true));
        }
    }
    let members = members(rng, features, context, &terms);
    Matching { kind, terms, members }
}

/// Values by range or set for a field of which nothing else is said.
fn members(rng: &mut Rng, features: &Features, context: Context, terms: &[Term]) -> Vec<Member> {
    if !features.values || !rng.one_in(2) {
        return Vec::new();
    }
    let is_free = |field: &Field| !terms.iter().any(|term| shares(term.field, *field));
    let choice: Vec<Field> =
        ORDERED.iter().copied().filter(|field| suits(*field, context)).filter(is_free).collect();
    let first = rng.pick(&choice);
    let mut fields = vec![first];
    let second = rng.pick(&choice);
    if rng.one_in(3) && !shares(first, second) {
        fields.push(second);
    }
    fields.into_iter().map(|field| Member { field, values: values(rng, field) }).collect()
}

/// Registers overlap; so does what matches of a MAC address or an IP address with itself only.
fn shares(one: Field, other: Field) -> bool {
    let is_reg = |field: Field| matches!(field, Field::Reg(_) | Field::Xreg(_) | Field::Xxreg(_));
    one == other || is_reg(one) && is_reg(other)
}

fn values(rng: &mut Rng, field: Field) -> Values {
    let named = kind_of(field).and_then(|kind| SETS.iter().find(|(_, known, _)| *known == kind));
    match named {
        Some((name, ..)) if rng.one_in(2) => Values::Set(name),
        _ => {
            let (first, last) = range(rng, field);
            Values::Range(first, last)
        }
    }
}

/// Some values that packets are likely to have, and some next to them.
fn range(rng: &mut Rng, field: Field) -> (u128, u128) {
    let (a, b) = (plain(rng, field), plain(rng, field));
    let more = u128::from(rng.pick(&[0_u64, 0, 1, 3, 1000])).min(ones(field.n_bits()) - a.max(b));
    (a.min(b), a.max(b) + more)
}

fn plain(rng: &mut Rng, field: Field) -> u128 {
    value(rng, field, false).value
}

/// Names of sets, what they hold, and a field that has such values.
const SETS: &[(&str, &str, Field)] = &[
    ("hosts", "ipv4", Field::NwDst),
    ("hosts6", "ipv6", Field::Ipv6Dst),
    ("machines", "mac", Field::EthDst),
    ("services", "port", Field::UdpDst),
    ("few", "number", Field::NwTtl),
];

/// Named sets with some members; all there may be, so that rules can speak of each. Some are empty.
pub(super) fn sets(rng: &mut Rng, features: &Features) -> Vec<NamedSet> {
    if !features.values {
        return Vec::new();
    }
    let one = |(name, kind, field): &(&'static str, &'static str, Field)| {
        let mut members: Vec<_> = (0..rng.below(5)).map(|_| range(rng, *field)).collect();
        members.sort_unstable();
        members.dedup();
        NamedSet { name, kind, field: *field, members }
    };
    SETS.iter().map(one).collect()
}

/// Fields whose values have an order.
const ORDERED: &[Field] = &[
    Field::InPort,
    Field::EthDst,
    Field::EthSrc,
    Field::Reg(0),
    Field::Reg(1),
    Field::Metadata,
    Field::Xreg(0),
    Field::TunId,
    Field::PktMark,
    Field::NwSrc,
    Field::NwSrc,
    Field::NwDst,
    Field::NwDst,
    Field::Ipv6Src,
    Field::Ipv6Dst,
    Field::NwTtl,
    Field::IpDscp,
    Field::ArpSpa,
    Field::ArpTpa,
    Field::ArpSha,
    Field::MplsLabel,
    Field::MplsTtl,
    Field::TcpSrc,
    Field::TcpDst,
    Field::TcpDst,
    Field::UdpSrc,
    Field::UdpDst,
    Field::SctpDst,
    Field::IcmpType,
];

/// The packets have the field, and the keyword has not said it already.
fn suits(field: Field, context: Context) -> bool {
    let names_proto = context.kind.is_some_and(|kind| kind.meaning().2.is_some());
    context.meets(field.needs()) && !(field == Field::NwProto && names_proto)
}

/// A way to satisfy a clause: one field, for packets of a kind.
pub(super) fn clause(rng: &mut Rng, kind: Option<Kind>) -> Matching {
    let context = Context { kind, ..Context::default() };
    let fields = MATCHED.iter().copied().filter(|field| suits(*field, context));
    let field = rng.pick(&fields.collect::<Vec<_>>());
    Matching { kind, terms: vec![value(rng, field, true)], ..Matching::default() }
}

const MATCHED: &[Field] = &[
    Field::InPort,
    Field::InPort,
    Field::InPort,
    Field::EthDst,
    Field::EthSrc,
    Field::Reg(0),
    Field::Reg(1),
    Field::Metadata,
    Field::Xreg(0),
    Field::TunId,
    Field::TunDst,
    Field::Frag,
    Field::PktMark,
    Field::NwSrc,
    Field::NwDst,
    Field::NwSrc,
    Field::NwDst,
    Field::Ipv6Src,
    Field::Ipv6Dst,
    Field::Ipv6Label,
    Field::IpDscp,
    Field::NwEcn,
    Field::NwTtl,
    Field::ArpOp,
    Field::ArpSpa,
    Field::ArpTpa,
    Field::ArpSha,
    Field::ArpTha,
    Field::MplsLabel,
    Field::MplsTc,
    Field::MplsBos,
    Field::MplsTtl,
    Field::TcpSrc,
    Field::TcpDst,
    Field::TcpDst,
    Field::TcpFlags,
    Field::UdpSrc,
    Field::UdpDst,
    Field::SctpSrc,
    Field::SctpDst,
    Field::IcmpType,
    Field::IcmpCode,
    Field::Icmpv6Type,
    Field::NwProto,
];

/// What the connection tracker says.
const TRACKED: &[Field] = &[
    Field::CtState,
    Field::CtState,
    Field::CtState,
    Field::CtState,
    Field::CtMark,
    Field::CtLabel,
    Field::CtZone,
    Field::CtNwProto,
    Field::CtNwSrc,
    Field::CtNwDst,
    Field::CtIpv6Src,
    Field::CtIpv6Dst,
    Field::CtTpSrc,
    Field::CtTpDst,
    Field::NwSrc,
    Field::NwDst,
    Field::InPort,
];

/// Some value that packets are likely to have; with a mask where that is allowed.
pub(super) fn value(rng: &mut Rng, field: Field, matched: bool) -> Term {
    let all = ones(field.n_bits());
    let low = u128::from(rng.below(8));
    let few = low % 4;
    let value = match field {
        Field::InPort => 1 + low % 4,
        Field::EthDst | Field::EthSrc | Field::ArpSha | Field::ArpTha | Field::NdSll | Field::NdTll => {
            2 << 40 | few
        }
        Field::NwSrc | Field::NwDst | Field::ArpSpa | Field::ArpTpa | Field::CtNwSrc | Field::CtNwDst => {
            0x0a00_0000 | low
        }
        Field::Ipv6Src | Field::Ipv6Dst | Field::NdTarget | Field::CtIpv6Src | Field::CtIpv6Dst => {
            0xfd << 120 | low
        }
        Field::MplsTtl => rng.pick(&[64, 2, 1, 63]),
        Field::NwProto | Field::CtNwProto => rng.pick(&[6, 17, 1, 132, 47]),
        Field::Frag => rng.pick(&[0, 1, 3]),
        Field::CtState => rng.pick(&[1, 2, 9, 10, 4, 16, 0x20, 0x21, 0x22, 0x2a, 0x41, 0x82, 0x62]),
        Field::TunId => 5,
        Field::TunDst => 0xc000_0202,
        Field::ActsetOutput => rng.pick(&[1, 2, 3, 0xfff7]),
        Field::ConjId => 1 + low % 2,
        Field::NwTtl => rng.pick(&[64, 2, 1, 63]),
        Field::IpDscp => rng.pick(&[0, 1, 11]),
        Field::TcpFlags => rng.pick(&[2, 0x10, 0x12]),
        Field::IcmpType => rng.pick(&[0, 8, 3]),
        Field::Icmpv6Type => 128,
        Field::VlanVid => 100 + low % 3,
        Field::ArpOp => 1 + low % 2,
        Field::Xreg(_) => few << 32 | few,
        Field::Xxreg(_) => few << 96 | few << 64,
        _ => low % 4,
    };
    let masks: &[u128] = match field {
        Field::EthDst | Field::EthSrc | Field::ArpSha | Field::ArpTha => &[all, all, 1, all & !3, 1 << 40],
        Field::NwSrc
        | Field::NwDst
        | Field::ArpSpa
        | Field::ArpTpa
        | Field::Ipv6Src
        | Field::Ipv6Dst
        | Field::CtNwSrc
        | Field::CtNwDst
        | Field::CtIpv6Src
        | Field::CtIpv6Dst => &[all, all, all & !1, all & !3, all & !7, 0x5],
        Field::TcpSrc | Field::TcpDst | Field::UdpSrc | Field::UdpDst | Field::SctpSrc | Field::SctpDst => {
            &[all, all, all & !1, 3, 1]
        }
        Field::CtMark | Field::CtLabel => &[all, 1, 3, 0xff],
        Field::Frag if value == 0 => &[1, 2, 3],
        Field::Frag => &[1, 3],
        Field::CtState => &[0x20, 0x23, 0x2b, 0x30, 0x33, 0x3b, 0xe0, 0x24, 1, 2],
        Field::TcpFlags if matched => &[all, 2, 0x12],
        Field::Reg(_) | Field::Metadata | Field::PktMark | Field::NdTarget => &[all, all, 1, 3],
        _ => &[all],
    };
    let mask = rng.pick(masks) & all;
    Term { field, value: value & mask, mask }
}
