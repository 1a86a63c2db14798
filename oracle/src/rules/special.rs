//! The actions that few rules have, as far as the world has them.

use super::{Context, Maker, N_TABLES};
use crate::{
    field::{Field, Needs},
    rng::Rng,
    syntax::{Bundle, Ct, Hashed, Multipath, Nat, Part, Step, Tell, Term, Zone},
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
            let (n_links, dst) = (2 + rng.below(2) as u32, Part::new(Field::Reg(1), 0, 4));
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
        Some(match rng.below(16) {
            12 if any => Step::CheckPktLarger(rng.pick(&[60, 80, 1500]), Part::new(Field::Reg(0), 0, 1)),
            13 if any => Step::Learn,
            14 if any => Step::Sample,
            15 if any && context.meets(Needs::Tcp) => Step::FinTimeout,
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
            ct.nat = Some(if commit && rng.one_in(2) { translation(rng, context) } else { Nat::Existing });
        }
        if commit && rng.one_in(2) {
            for _ in 0..1 + rng.below(2) {
                ct.exec.push(noted(rng, context));
            }
        }
        Step::Ct(ct)
    }
}

fn translation(rng: &mut Rng, context: Context) -> Nat {
    let ipv6 = context.meets(Needs::Ipv6);
    let network = if ipv6 { 0xfd << 120 } else { 0x0a00_0000 };
    let (source, address) = (rng.one_in(2), network | u128::from(rng.below(8)));
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
