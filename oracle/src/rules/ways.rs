//! Groups, meters, action sets.

use super::{Context, Maker, N_TABLES, Repertoire};
use crate::{
    field::{Field, Needs},
    rng::Rng,
    syntax::{Band, Bucket, Group, GroupKind, Meter, Selection, Step},
};

/// A few groups; each leads only to those behind it.
pub(super) fn groups(rng: &mut Rng, repertoire: &Repertoire) -> Vec<Group> {
    if !repertoire.features.groups {
        return Vec::new();
    }
    let n = 1 + rng.below(4) as u32;
    let maker = Maker { repertoire, n_groups: 0, n_meters: 0 };
    (1..=n).map(|id| maker.group(rng, id, n)).collect()
}

/// A few meters.
pub(super) fn meters(rng: &mut Rng, repertoire: &Repertoire) -> Vec<Meter> {
    let Some(tight) = repertoire.features.meters else { return Vec::new() };
    // Open vSwitch's own datapath only drops.
    let levels: &[u8] = if repertoire.protocol.is_some() { &[0] } else { &[0, 0, 1, 2] };
    (1..=1 + rng.below(3) as u32).map(|id| meter(rng, id, tight, levels)).collect()
}

fn meter(rng: &mut Rng, id: u32, tight: bool, levels: &[u8]) -> Meter {
    let packets = rng.one_in(2);
    if !tight {
        return Meter { id, packets, bands: vec![Band { levels: 0, rate: 4_000_000_000, burst: 0 }] };
    }
    let band = |rng: &mut Rng| Band {
        levels: rng.pick(levels),
        rate: rng.pick(&[1, 10, 100, 1000]),
        burst: rng.pick(&[1, 3, 20]),
    };
    Meter { id, packets, bands: (0..1 + rng.below(2)).map(|_| band(rng)).collect() }
}

impl Maker<'_> {
    fn group(self, rng: &mut Rng, id: u32, n_groups: u32) -> Group {
        let choices = self.repertoire.features.choices;
        let kind = match rng.below(5) {
            0 | 1 => GroupKind::All,
            2 => GroupKind::Indirect,
            3 if choices => GroupKind::Select(rng.pick(&[
                Selection::Default,
                Selection::DpHash { symmetric: true },
                Selection::DpHash { symmetric: false },
                Selection::Fields(vec![Field::EthSrc]),
                Selection::Fields(vec![Field::NwSrc, Field::NwDst]),
            ])),
            _ => GroupKind::FastFailover,
        };
        let n_buckets = if kind == GroupKind::Indirect { 1 } else { 1 + rng.below(3) };
        let watches = match kind {
            GroupKind::FastFailover => true,
            GroupKind::Select(_) => rng.one_in(2),
            GroupKind::All | GroupKind::Indirect => false,
        };
        let buckets = (0..n_buckets).map(|_| self.bucket(rng, watches, (id, n_groups))).collect();
        Group { id, kind, buckets }
    }

    fn bucket(self, rng: &mut Rng, watches: bool, (id, n_groups): (u32, u32)) -> Bucket {
        // Whatever a packet lacks is left out; buckets need not know what comes.
        let kinds = [Needs::Nothing, Needs::Nothing, Needs::Ipv4, Needs::Ipv6];
        let context = match rng.pick(&kinds) {
            Needs::Ipv4 => Context { kind: Some(crate::syntax::Kind::Ip), ..Context::default() },
            Needs::Ipv6 => Context { kind: Some(crate::syntax::Kind::Ipv6), ..Context::default() },
            _ => Context::default(),
        };
        let mut steps = self.action_set(rng, context, 0);
        if id < n_groups && rng.one_in(3) {
            steps.push(Step::Group(id + 1 + rng.below((n_groups - id).into()) as u32));
        }
        let (mut watch_port, mut watch_group) = (None, None);
        if watches {
            // Open vSwitch's ports are all up; some are not there.
            let n_watched = if self.repertoire.protocol.is_some() { 8 } else { 5 };
            watch_port = Some(1 + rng.below(n_watched) as u32);
            if id < n_groups && rng.one_in(2) {
                watch_group = Some(id + 1);
                watch_port = watch_port.filter(|_| rng.one_in(2));
            }
        }
        Bucket { weight: rng.pick(&[1, 1, 2, 5, 0]), watch_port, watch_group, steps }
    }

    /// Actions that can be in a set, most often with a way out.
    pub(super) fn action_set(self, rng: &mut Rng, mut context: Context, table: u8) -> Vec<Step> {
        let mut steps = Vec::new();
        for _ in 0..rng.below(4) {
            let features = self.repertoire.features;
            steps.push(match rng.below(8) {
                0 if self.repertoire.protocol.is_none() => {
                    context.tagged = true;
                    Step::PushVlan(0x8100)
                }
                1 if self.repertoire.protocol.is_none() => {
                    context.tagged = false;
                    Step::PopVlan
                }
                2 if context.meets(Needs::Ip) => Step::DecTtl,
                3 if features.labels && self.repertoire.protocol.is_none() => {
                    context.relabelled = Some(0x8847);
                    Step::PushMpls(0x8847)
                }
                4 if self.n_meters > 0 => Step::Meter(1 + rng.below(self.n_meters) as u32),
                5 if features.odds => Step::SetQueue(2),
                _ => self.set(rng, context),
            });
        }
        if !rng.one_in(5) {
            let output = self.output(rng);
            // Open vSwitch has no ports by field in action sets.
            let is_taken = self.repertoire.protocol.is_none() || !matches!(output, Step::OutputReg(_));
            steps.push(if is_taken { output } else { Step::InPort });
        }
        match rng.below(10) {
            0 if self.n_groups > 0 => steps.push(Step::Group(1 + rng.below(self.n_groups) as u32)),
            1 if self.repertoire.features.punts => steps.push(self.punt(rng)),
            // What is written in there Open vSwitch forgets.
            2 if u64::from(table) + 1 < N_TABLES
                && !self.repertoire.features.tracking
                && self.repertoire.protocol.is_none() =>
            {
                steps.push(Step::Resubmit { port: None, table: N_TABLES as u8 - 1, ct: false });
            }
            _ => {}
        }
        if steps.is_empty() {
            steps.push(Step::Output(rng.pick(self.repertoire.ports)));
        }
        steps
    }
}
