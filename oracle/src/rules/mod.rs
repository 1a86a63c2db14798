//! Random rule sets of a small world. Each rule is one that a switch must take: what it matches and
//! writes is there in the packets it is for.

use crate::{
    field::{Field, Needs},
    ovs::Protocol,
    rng::Rng,
    syntax::{Flow, Kind, Matching, Part, Step, Term, ones},
};

/// Tables that rules are in.
pub const N_TABLES: u64 = 5;

/// What rules may make use of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repertoire {
    /// Ports that can be sent to, more often than others.
    pub ports: &'static [u32],
    /// The tunnel port, where there is one.
    pub tunnel: Option<(u32, &'static [u32])>,
    /// Loops that end at the switch's limits.
    pub loops: bool,
    /// Rules can be handed over in this protocol; nothing: as text, which has all actions.
    pub protocol: Option<Protocol>,
}

/// A rule set.
pub fn rules(rng: &mut Rng, repertoire: &Repertoire) -> Vec<Flow> {
    let n = 2 + rng.index(30);
    let mut flows: Vec<Flow> = (0..n).map(|idx| flow(rng, repertoire, idx)).collect();
    for table in 0..N_TABLES {
        if !rng.one_in(5) {
            let context = Context { kind: None, tagged: false };
            let steps = steps(rng, repertoire, context, table as u8, 1);
            flows.push(Flow { table: table as u8, priority: 0, matching: Matching::default(), steps });
        }
    }
    flows
}

fn flow(rng: &mut Rng, repertoire: &Repertoire, idx: usize) -> Flow {
    let table = if rng.one_in(3) { 0 } else { rng.below(N_TABLES) as u8 };
    let matching = matching(rng);
    let tagged = matching.terms.iter().any(|term| {
        matches!(term.field, Field::VlanVid | Field::VlanPcp)
            || term.field == Field::VlanTci && term.value & term.mask & 0x1000 != 0
    });
    let context = Context { kind: matching.kind, tagged };
    let steps = steps(rng, repertoire, context, table, 2);
    // Unique within the table, and in no order.
    let priority = 1 + (rng.below(16) * 64) as u16 + idx as u16;
    Flow { table, priority, matching, steps }
}

/// What is known of the packets of a rule.
#[derive(Debug, Clone, Copy)]
struct Context {
    kind: Option<Kind>,
    tagged: bool,
}

impl Context {
    fn meets(self, needs: Needs) -> bool {
        let (eth_type, proto) = self.kind.map_or((0, None), |kind| (kind.meaning().1, kind.meaning().2));
        let ip = matches!(eth_type, 0x0800 | 0x86dd);
        match needs {
            Needs::Nothing => true,
            Needs::Vlan => self.tagged,
            Needs::Mpls => eth_type == 0x8847,
            Needs::Arp => eth_type == 0x0806,
            Needs::Ipv4 => eth_type == 0x0800,
            Needs::Ipv6 => eth_type == 0x86dd,
            Needs::Ip => ip,
            Needs::Tcp => ip && proto == Some(6),
            Needs::Udp => ip && proto == Some(17),
            Needs::Sctp => ip && proto == Some(132),
            Needs::Icmp => eth_type == 0x0800 && proto == Some(1),
            Needs::Icmpv6 => eth_type == 0x86dd && proto == Some(58),
            // ICMPv6's type is not part of the context.
            Needs::NdSolicit | Needs::NdAdvert | Needs::Nd => false,
        }
    }
}

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

fn matching(rng: &mut Rng) -> Matching {
    let kind = if rng.one_in(3) { None } else { Some(rng.pick(KINDS)) };
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
    let context = Context { kind, tagged: false };
    if kind == Some(Kind::Icmp6) && rng.one_in(2) {
        let source = rng.one_in(2);
        let nd = if source { Field::NdSll } else { Field::NdTll };
        terms.push(whole(Field::Icmpv6Type, if source { 135 } else { 136 }));
        terms.push(whole(Field::Icmpv6Code, 0));
        if rng.one_in(2) {
            terms.push(value(rng, Field::NdTarget, true));
        }
        if rng.one_in(3) {
            terms.push(value(rng, nd, true));
        }
        return Matching { kind, terms };
    }
    for _ in 0..rng.below(3) {
        let choice: Vec<Field> =
            MATCHED.iter().copied().filter(|field| context.meets(field.needs())).collect();
        let field = rng.pick(&choice);
        if !terms.iter().any(|term| term.field == field) {
            terms.push(value(rng, field, true));
        }
    }
    Matching { kind, terms }
}

const MATCHED: &[Field] = &[
    Field::InPort,
    Field::EthDst,
    Field::EthSrc,
    Field::Reg(0),
    Field::Reg(1),
    Field::Metadata,
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
];

const WRITTEN: &[Field] = &[
    Field::EthDst,
    Field::EthSrc,
    Field::Reg(0),
    Field::Reg(0),
    Field::Reg(1),
    Field::Xreg(0),
    Field::Xxreg(0),
    Field::Metadata,
    Field::PktMark,
    Field::VlanVid,
    Field::VlanPcp,
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
    Field::TcpSrc,
    Field::TcpDst,
    Field::UdpSrc,
    Field::UdpDst,
    Field::SctpSrc,
    Field::SctpDst,
    Field::IcmpType,
    Field::IcmpCode,
];

fn whole(field: Field, value: u128) -> Term {
    Term { field, value, mask: ones(field.n_bits()) }
}

/// Some value that packets are likely to have; with a mask where that is allowed.
fn value(rng: &mut Rng, field: Field, matched: bool) -> Term {
    let all = ones(field.n_bits());
    let low = u128::from(rng.below(8));
    let few = low % 4;
    let value = match field {
        Field::InPort => 1 + low % 4,
        Field::EthDst | Field::EthSrc | Field::ArpSha | Field::ArpTha | Field::NdSll | Field::NdTll => {
            2 << 40 | few
        }
        Field::NwSrc | Field::NwDst | Field::ArpSpa | Field::ArpTpa => 0x0a00_0000 | low,
        Field::Ipv6Src | Field::Ipv6Dst | Field::NdTarget => 0xfd << 120 | low,
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
        Field::NwSrc | Field::NwDst | Field::ArpSpa | Field::ArpTpa | Field::Ipv6Src | Field::Ipv6Dst => {
            &[all, all, all & !1, all & !3, all & !7, 0x5]
        }
        Field::TcpSrc | Field::TcpDst | Field::UdpSrc | Field::UdpDst | Field::SctpSrc | Field::SctpDst => {
            &[all, all, all & !1, 3, 1]
        }
        Field::TcpFlags if matched => &[all, 2, 0x12],
        Field::Reg(_) | Field::Metadata | Field::PktMark | Field::NdTarget => &[all, all, 1, 3],
        _ => &[all],
    };
    let mask = rng.pick(masks) & all;
    Term { field, value: value & mask, mask }
}

/// A few actions; most often the packet leaves in the end.
fn steps(rng: &mut Rng, repertoire: &Repertoire, mut context: Context, table: u8, nesting: u32) -> Vec<Step> {
    let mut steps = Vec::new();
    for _ in 0..rng.below(5) {
        steps.push(step(rng, repertoire, &mut context, table, nesting));
    }
    if let Some((port, _)) = repertoire.tunnel
        && rng.one_in(6)
    {
        for _ in 0..4 {
            steps.push(tunnel(rng, repertoire));
        }
        steps.push(Step::Output(port));
    }
    if !rng.one_in(4) {
        steps.push(Step::Output(rng.pick(repertoire.ports)));
    }
    let goto = nesting > 0 && repertoire.protocol != Some(Protocol::OpenFlow10);
    if goto && rng.one_in(8) && u64::from(table) + 1 < N_TABLES {
        steps.push(Step::Goto(table + 1 + rng.below(N_TABLES - 1 - u64::from(table)) as u8));
    }
    steps
}

fn step(rng: &mut Rng, repertoire: &Repertoire, context: &mut Context, table: u8, nesting: u32) -> Step {
    match rng.below(20) {
        0..=3 => output(rng, repertoire),
        4..=8 => {
            // OpenFlow 1.0 says these by `mod_vlan_vid` and its like, which can also make a tag.
            let allowed = |field| match repertoire.protocol {
                None => true,
                Some(Protocol::OpenFlow10) => !matches!(field, Field::VlanVid | Field::VlanPcp),
                Some(Protocol::OpenFlow13) => field != Field::VlanVid,
            };
            let has = |field: &Field| context.meets(field.needs()) && allowed(*field);
            let choice: Vec<Field> = WRITTEN.iter().copied().filter(has).collect();
            let field = rng.pick(&choice);
            let term = value(rng, field, false);
            // OpenFlow 1.0's own actions for header fields lose a mask.
            let registers = matches!(field, Field::Reg(_) | Field::Metadata | Field::PktMark);
            let whole_only = repertoire.protocol == Some(Protocol::OpenFlow10) && !registers;
            Step::Set(if whole_only { whole(field, term.value) } else { term })
        }
        9 | 10 => moved(rng, *context),
        11..=14 => {
            let first = u64::from(table) + 1;
            let back = repertoire.loops && rng.one_in(24) || first >= N_TABLES;
            if back && !repertoire.loops {
                return output(rng, repertoire);
            }
            let to = if back { rng.below(N_TABLES) } else { first + rng.below(N_TABLES - first) } as u8;
            let port = rng.one_in(6).then(|| rng.pick(repertoire.ports));
            Step::Resubmit { port, table: to }
        }
        15 if context.meets(Needs::Ip) => Step::DecTtl,
        16 if repertoire.protocol != Some(Protocol::OpenFlow10) => {
            context.tagged = true;
            Step::PushVlan(rng.pick(&[0x8100, 0x88a8]))
        }
        17 if context.tagged || repertoire.protocol != Some(Protocol::OpenFlow13) => {
            context.tagged = false;
            Step::PopVlan
        }
        18 => {
            let (tagged, vid) = (context.tagged, 100 + rng.below(3) as u16);
            context.tagged = true;
            match repertoire.protocol {
                Some(Protocol::OpenFlow13) if tagged => Step::SetVlanVid(vid),
                Some(Protocol::OpenFlow13) => Step::PushVlan(0x8100),
                _ if rng.one_in(2) => Step::ModVlanPcp(rng.below(8) as u8),
                None if tagged && rng.one_in(2) => Step::SetVlanVid(vid),
                _ => Step::ModVlanVid(vid),
            }
        }
        19 if nesting > 0 => {
            let mut inner = steps(rng, repertoire, *context, table, 0);
            inner.retain(|step| !matches!(step, Step::Goto(_)));
            if inner.is_empty() {
                inner.push(output(rng, repertoire));
            }
            Step::Clone(inner)
        }
        _ => tunnel(rng, repertoire),
    }
}

fn output(rng: &mut Rng, repertoire: &Repertoire) -> Step {
    match rng.below(10) {
        0 => Step::InPort,
        1 => Step::Flood,
        2 => Step::OutputReg(Part { field: Field::Reg(0), start: 0, n_bits: 16 }),
        3 => Step::Output(1 + rng.below(12) as u32),
        _ => Step::Output(rng.pick(repertoire.ports)),
    }
}

fn tunnel(rng: &mut Rng, repertoire: &Repertoire) -> Step {
    let Some((port, peers)) = repertoire.tunnel else {
        return Step::Set(whole(Field::InPort, 0));
    };
    match rng.below(5) {
        0 => Step::Set(whole(Field::InPort, 0)),
        1 => Step::SetTunnel(rng.pick(&[0, 5, 0xff_ffff, 0x100_0000])),
        2 => Step::Set(whole(Field::TunMetadata0, rng.below(0x1_0000).into())),
        3 => Step::Output(port),
        _ => Step::Set(whole(Field::TunDst, rng.pick(peers).into())),
    }
}

fn moved(rng: &mut Rng, context: Context) -> Step {
    let part = |field, start, n_bits| Part { field, start, n_bits };
    let all: [(Part, Part); 12] = [
        (part(Field::Reg(0), 0, 2), part(Field::Reg(1), 0, 2)),
        (part(Field::Reg(1), 0, 2), part(Field::Metadata, 1, 2)),
        (part(Field::InPort, 0, 16), part(Field::Reg(0), 0, 16)),
        (part(Field::VlanTci, 0, 12), part(Field::Reg(1), 0, 12)),
        (Part::whole(Field::EthSrc), Part::whole(Field::EthDst)),
        (part(Field::NwSrc, 0, 2), part(Field::Reg(0), 0, 2)),
        (part(Field::Reg(0), 0, 2), part(Field::NwDst, 0, 2)),
        (Part::whole(Field::NwSrc), Part::whole(Field::NwDst)),
        (part(Field::Ipv6Src, 0, 3), part(Field::Reg(0), 0, 3)),
        (part(Field::Reg(1), 0, 2), part(Field::Ipv6Dst, 0, 2)),
        (Part::whole(Field::TcpSrc), Part::whole(Field::TcpDst)),
        (part(Field::ArpSpa, 0, 32), part(Field::ArpTpa, 0, 32)),
    ];
    let choice: Vec<_> = all
        .into_iter()
        .filter(|(src, dst)| context.meets(src.field.needs()) && context.meets(dst.field.needs()))
        .collect();
    let (src, dst) = rng.pick(&choice);
    Step::Move { src, dst }
}
