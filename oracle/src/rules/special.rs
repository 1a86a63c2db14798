//! The actions that few rules have, as far as the world has them.

use super::{Context, Maker, N_TABLES};
use crate::{
    field::{Field, Needs},
    rng::Rng,
    syntax::{Bundle, Ct, Hashed, Learn, Multipath, Nat, Part, Source, Spec, Step, Tell, Term, Zone},
};

const HASHED: &[Hashed] = &[
    Hashed::EthSrc,
    Hashed::SymmetricL4,
    Hashed::SymmetricL3L4,
    Hashed::SymmetricL3L4Udp,
    Hashed::NwSrc,
    Hashed::NwDst,
];

/// Families of such actions.
#[derive(Clone, Copy)]
enum Special {
    Label,
    Group,
    Choice,
    Meter,
    Punt,
    Odd,
    Tracked,
    Normal,
    Lesson,
}

impl Maker<'_> {
    /// One of the actions that the world's features have.
    pub(super) fn special(self, rng: &mut Rng, context: &mut Context, table: u8) -> Option<Step> {
        let features = self.repertoire.features;
        let is_ip = context.meets(Needs::Ip);
        let makers = [
            (features.labels, Special::Label),
            (self.n_groups > 0, Special::Group),
            (features.choices, Special::Choice),
            (self.n_meters > 0, Special::Meter),
            (features.punts, Special::Punt),
            (features.odds, Special::Odd),
            (features.tracking && is_ip, Special::Tracked),
            (features.tracking && is_ip, Special::Tracked),
            (features.normal, Special::Normal),
            (features.lessons && table + 1 < N_TABLES as u8, Special::Lesson),
        ];
        let makers: Vec<Special> = makers.into_iter().filter(|(on, _)| *on).map(|(_, maker)| maker).collect();
        if makers.is_empty() {
            return None;
        }
        match rng.pick(&makers) {
            Special::Label => self.label(rng, context),
            Special::Group => Some(Step::Group(1 + rng.below(self.n_groups) as u32)),
            Special::Choice => Some(self.choice(rng)),
            Special::Meter => Some(Step::Meter(1 + rng.below(self.n_meters) as u32)),
            Special::Punt => Some(self.punt(rng)),
            Special::Odd => self.odd(rng, *context, table),
            Special::Tracked => Some(self.tracked(rng, *context, table)),
            Special::Normal => Some(Step::Normal),
            Special::Lesson => Some(Step::Learn(self.lesson(rng, *context, table))),
        }
    }

    fn label(self, rng: &mut Rng, context: &mut Context) -> Option<Step> {
        let is_mpls = context.meets(Needs::Mpls);
        Some(match rng.below(6) {
            0 | 1 => {
                let eth_type = rng.pick(&[0x8847, 0x8847, 0x8848]);
                context.relabelled = Some(eth_type);
                Step::PushMpls(eth_type)
            }
            2 | 3 if is_mpls => {
                let eth_type = rng.pick(&[0x0800, 0x0800, 0x86dd, 0x8847, 0x8847, 0x88b5]);
                context.relabelled = Some(eth_type);
                Step::PopMpls(eth_type)
            }
            4 if is_mpls => Step::DecMplsTtl,
            _ if is_mpls => {
                let field = rng.pick(&[Field::MplsLabel, Field::MplsTc, Field::MplsTtl]);
                Step::Set(Term::whole(field, rng.below(4).into()))
            }
            _ => return None,
        })
    }

    fn choice(self, rng: &mut Rng) -> Step {
        let (hashed, basis) = (rng.pick(HASHED), rng.below(3) as u16);
        if rng.one_in(2) {
            let algorithm = rng.pick(&["modulo_n", "hash_threshold", "hrw", "iter_hash"]);
            let dst = rng.pick(&[Part::new(Field::Reg(1), 0, 4), Part::new(Field::EthSrc, 0, 4)]);
            let n_links = 2 + rng.below(2) as u32;
            return Step::Multipath(Multipath { hashed, basis, algorithm, n_links, argument: 0, dst });
        }
        let hashed = (!rng.one_in(3)).then_some(hashed);
        let members = rng.pick(&[vec![1, 2], vec![4, 3, 2], vec![4], vec![3, 9]]);
        let dst = rng.one_in(3).then_some(Part::new(Field::Reg(0), 0, 16));
        Step::Bundle(Bundle { hashed, basis, members, dst })
    }

    pub(super) fn punt(self, rng: &mut Rng) -> Step {
        if rng.one_in(3) {
            return Step::Controller;
        }
        Step::Tell(Tell {
            max_len: rng.pick(&[None, None, Some(20), Some(0), Some(0xffff), Some(1000)]),
            reason: rng.pick(&[None, None, Some("no_match"), Some("invalid_ttl")]),
            id: rng.below(3) as u16,
            userdata: rng.pick(&[vec![], vec![1, 2], vec![0xff]]),
        })
    }

    fn odd(self, rng: &mut Rng, context: Context, table: u8) -> Option<Step> {
        let parts = [
            Part::new(Field::Reg(0), 0, 2),
            Part::new(Field::Reg(1), 0, 16),
            Part::whole(Field::Metadata),
            Part::whole(Field::EthSrc),
            Part::whole(Field::EthDst),
            Part::whole(Field::NwSrc),
            Part::new(Field::NwDst, 0, 3),
            Part::new(Field::Ipv6Dst, 0, 3),
            Part::whole(Field::TcpDst),
            Part::whole(Field::UdpSrc),
        ];
        let parts: Vec<Part> = parts.into_iter().filter(|part| context.meets(part.field.needs())).collect();
        let port = rng.pick(self.repertoire.ports);
        let any = self.repertoire.protocol.is_none();
        if any && context.meets(Needs::Tcp) && rng.one_in(8) {
            return Some(Step::FinTimeout);
        }
        Some(match rng.below(16) {
            12 | 13 => Step::CheckPktLarger(rng.pick(&[60, 80, 1500]), Part::new(Field::Reg(0), 0, 1)),
            14 if any => Step::Sample,
            0..=2 => Step::Push(rng.pick(&parts)),
            3..=5 => Step::Pop(rng.pick(&parts)),
            6 => Step::Truncated { port, max_len: rng.pick(&[14, 20, 64, 1000]) },
            7 => Step::Enqueue { port, queue: 1 },
            8 => rng.pick(&[Step::SetQueue(1), Step::PopQueue]),
            9 => Step::Note(vec![1, 2, 3, 4, 5, 6]),
            10 | 11 if table > 0 => Step::Exit,
            _ => return None,
        })
    }

    pub(super) fn tracked(self, rng: &mut Rng, context: Context, table: u8) -> Step {
        if rng.one_in(6) {
            return Step::CtClear;
        }
        let commit = rng.one_in(2);
        let mut ct = Ct { commit, force: commit && rng.one_in(3), ..Ct::default() };
        ct.zone = match rng.below(6) {
            0 => Zone::Number(1),
            1 => Zone::In(Part::new(Field::Reg(0), 0, 16)),
            _ => Zone::Number(0),
        };
        // How often a packet may come back is not the same in Open vSwitch; and what loops in loops is
        // given up.
        let comes_back = self.repertoire.protocol.is_none() && rng.one_in(8);
        let first = if comes_back { 0 } else { u64::from(table) + 1 };
        let goes_on = first < N_TABLES && !rng.one_in(3);
        ct.table = goes_on.then(|| (first + rng.below(N_TABLES - first)) as u8);
        if self.repertoire.features.nat && !rng.one_in(3) {
            let is_alone = self.repertoire.protocol.is_some();
            ct.nat = Some(if commit && rng.one_in(2) {
                translation(rng, context, is_alone)
            } else {
                Nat::Existing
            });
        }
        if commit && rng.one_in(2) {
            for _ in 0..1 + rng.below(2) {
                ct.exec.push(noted(rng, context));
            }
        }
        Step::Ct(ct)
    }
}

/// Shapes of learned rules: two of one shape never match the same packet unless they are the same rule.
const FIRST_LEARNED: u16 = 3000;

impl Maker<'_> {
    /// A rule for answers, for what comes from the same place, or for what is marked alike.
    fn lesson(self, rng: &mut Rng, context: Context, table: u8) -> Learn {
        let same = |field, n_bits| {
            let part = Part::new(field, 0, n_bits);
            Spec::Match(part, Source::Bits(part))
        };
        let turned = |dst: Field, src: Field| Spec::Match(Part::whole(dst), Source::Bits(Part::whole(src)));
        let typed = |field: Field, value| Spec::Match(Part::whole(field), Source::Value(value));
        let ipv4 = || typed(Field::EthType, 0x0800);
        let mut shapes = vec![
            vec![turned(Field::EthDst, Field::EthSrc)],
            vec![same(Field::VlanTci, 12), turned(Field::EthDst, Field::EthSrc)],
            vec![same(Field::InPort, 16), same(Field::EthSrc, 48)],
            vec![same(Field::Reg(0), 4)],
            vec![typed(Field::Metadata, rng.below(3).into())],
        ];
        let n_everywhere = shapes.len();
        shapes.push(vec![ipv4(), turned(Field::NwSrc, Field::NwDst), turned(Field::NwDst, Field::NwSrc)]);
        shapes.push(vec![typed(Field::EthType, 0x86dd), turned(Field::Ipv6Dst, Field::Ipv6Src)]);
        let tcp = [ipv4(), typed(Field::NwProto, 6), turned(Field::NwDst, Field::NwSrc)];
        shapes.push([&tcp[..], &[turned(Field::TcpDst, Field::TcpSrc)]].concat());
        let is_met = |idx: &usize| match idx {
            5 => context.meets(Needs::Ipv4),
            6 => context.meets(Needs::Ipv6),
            7 => context.meets(Needs::Tcp) && context.meets(Needs::Ipv4),
            _ => *idx < n_everywhere,
        };
        let shape = rng.pick(&(0..shapes.len()).filter(is_met).collect::<Vec<_>>());
        let mut specs = shapes.swap_remove(shape);
        let port = Part::new(Field::InPort, 0, 16);
        let more = [
            Spec::Output(port),
            Spec::Load(Part::new(Field::Reg(1), 0, 16), Source::Bits(port)),
            Spec::Load(Part::new(Field::Reg(1), 4, 8), Source::Value(rng.below(256).into())),
            Spec::Load(Part::whole(Field::EthSrc), Source::Bits(Part::whole(Field::EthDst))),
            Spec::Output(Part::new(Field::Reg(1), 0, 2)),
        ];
        specs.extend((0..1 + rng.below(2)).map(|_| rng.pick(&more)));
        // Limits are kept elsewhere by Open vSwitch.
        let is_limited = self.repertoire.protocol.is_none() && rng.one_in(3);
        let later = u64::from(table) + 1;
        Learn {
            table: (later + rng.below(N_TABLES - later)) as u8,
            priority: FIRST_LEARNED + shape as u16,
            cookie: 20 + rng.below(2),
            limit: if is_limited { 1 + rng.below(3) as u32 } else { 0 },
            result: is_limited.then_some(Part::new(Field::Reg(0), rng.below(4) as u32, 1)),
            specs,
        }
    }
}

/// To somebody, or to an address that nobody has: whoever then talks to itself, does not in Open vSwitch.
fn translation(rng: &mut Rng, context: Context, is_alone: bool) -> Nat {
    let ipv6 = context.meets(Needs::Ipv6);
    let network = if ipv6 { 0xfd << 120 } else { 0x0a00_0000 };
    let (source, address) =
        (rng.one_in(2), network | (u128::from(rng.below(8)) + if is_alone { 8 } else { 0 }));
    // A source without a port of its own keeps its port where it can, and that is not always.
    let port = if source || rng.one_in(2) { Some(1 + rng.below(3) as u16) } else { None };
    Nat::To { source, ipv6, address, port }
}

/// What stays with a connection.
fn noted(rng: &mut Rng, context: Context) -> Step {
    match rng.below(5) {
        0 => Step::Set(Term { field: Field::CtMark, value: rng.below(4).into(), mask: 3 }),
        1 => Step::Set(Term::whole(Field::CtLabel, rng.below(4).into())),
        2 => Step::Load(Part::new(Field::CtLabel, 1, 2), rng.below(4).into()),
        3 if context.meets(Needs::Ipv4) => {
            Step::Move { src: Part::new(Field::NwSrc, 0, 2), dst: Part::new(Field::CtMark, 0, 2) }
        }
        _ => Step::Move { src: Part::new(Field::Reg(0), 0, 8), dst: Part::new(Field::CtMark, 0, 8) },
    }
}
