//! What packets teach: rules, by `learn`, and where stations are, by `NORMAL` (ovs-actions(7); IEEE
//! 802.1Q §8.7 and §8.8). A rule is there for the packets of the next batch, a station at once.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Port,
    memory::Memory,
    walk::{Walk, Way},
};
use crate::{
    field::Field,
    state::State,
    syntax::{Flow, Learn, Matching, Part, Rules, Source, Spec, Step, Term, ones},
};

/// A station that is silent for so long is forgotten.
const MAX_AGE: u64 = 300_000_000_000;
/// After a gratuitous ARP a station is not believed to be elsewhere for so long.
const HOLD: u64 = 5_000_000_000;
const GROUP: u128 = 1 << 40;
const BROADCAST: u128 = 0xffff_ffff_ffff;

/// A packet of a station.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sighting {
    /// VLAN and address.
    place: (u128, u128),
    port: u128,
    is_announced: bool,
}

/// What is known of a station.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Station {
    port: u128,
    seen: u64,
    announced: Option<u64>,
}

/// Stations by VLAN and address.
pub(super) type Stations = BTreeMap<(u128, u128), Station>;

impl Memory {
    /// A batch is over: what it has taught holds from now on.
    pub fn end_batch(&mut self, rules: &Rules, now: u64) {
        let mut is_news = false;
        for (flow, limit) in std::mem::take(&mut self.lessons) {
            let is_same = |old: &&mut Flow| {
                (old.table, old.priority) == (flow.table, flow.priority) && old.matching == flow.matching
            };
            let fits = limit == 0 || self.n_of(rules, flow.table, flow.cookie) < limit;
            let learned = Arc::make_mut(&mut self.learned);
            match learned.iter_mut().find(is_same) {
                Some(old) if *old == flow => {}
                Some(old) => {
                    *old = flow;
                    is_news = true;
                }
                None if fits => {
                    learned.push(flow);
                    is_news = true;
                }
                None => {}
            }
        }
        let n_before = self.stations.len();
        self.stations.retain(|_, station| now - station.seen < MAX_AGE);
        if is_news || self.stations.len() != n_before {
            self.version += 1;
        }
    }

    /// Rules of a table with a cookie.
    fn n_of(&self, rules: &Rules, table: u8, cookie: u64) -> usize {
        let all = rules.flows.iter().chain(&*self.learned);
        all.filter(|flow| (flow.table, flow.cookie) == (table, cookie)).count()
    }

    /// Of two rules that differ only in what they do, the later one stays.
    pub(super) fn queue(&mut self, flow: Flow, limit: usize) {
        let is_same = |(old, _): &&mut (Flow, usize)| {
            (old.table, old.priority) == (flow.table, flow.priority) && old.matching == flow.matching
        };
        match self.lessons.iter_mut().find(is_same) {
            Some(old) => *old = (flow, limit),
            None => self.lessons.push((flow, limit)),
        }
    }

    pub(super) fn see_station(&mut self, now: u64, sighting: &Sighting) {
        let Sighting { place, port, is_announced } = *sighting;
        let old = self.stations.get(&place).copied();
        let is_held = |old: Station| old.announced.is_some_and(|at| now - at < HOLD);
        if old.is_some_and(|old| old.port != port && is_held(old) && !is_announced) {
            return;
        }
        let announced = if is_announced { Some(now) } else { old.and_then(|old| old.announced) };
        if old.is_none_or(|old| old.port != port) {
            self.version += 1;
        }
        self.stations.insert(place, Station { port, seen: now, announced });
    }
}

impl Walk<'_> {
    /// Makes a rule; none, when the packet lacks a header that it speaks of.
    pub(super) fn learn(&mut self, learn: &Learn) -> Way {
        let Some((matching, steps)) = self.lesson(learn)? else { return Ok(()) };
        self.is_teaching = true;
        let Learn { table, priority, cookie, limit, .. } = *learn;
        let flow = Flow { table, priority, cookie, matching, steps };
        let limit = limit as usize;
        let is_known = self
            .memory
            .learned
            .iter()
            .any(|old| (old.table, old.priority) == (table, priority) && old.matching == flow.matching);
        let fits = is_known || limit == 0 || self.memory.n_of(self.world.rules, table, cookie) < limit;
        if let Some(part) = learn.result {
            self.state.write_part(part, fits.into());
        }
        // Of the lessons of a packet the last one stays.
        let own = (self.pass.id, table, priority, flow.matching.clone());
        if self.rehearsal().is_some() {
            return Ok(());
        }
        if fits && (!self.memory.learned.contains(&flow) || self.own_lessons.contains(&own)) {
            self.rehearse(|rehearsal| rehearsal.lessons.push((flow.clone(), limit)));
            self.memory.queue(flow, limit);
            self.own_lessons.push(own);
        }
        Ok(())
    }

    fn lesson(&mut self, learn: &Learn) -> Result<Option<(Matching, Vec<Step>)>, super::walk::Stop> {
        let (mut matching, mut steps) = (Matching::default(), Vec::new());
        for spec in &learn.specs {
            let (Spec::Match(_, source) | Spec::Load(_, source)) = spec else {
                let Spec::Output(part) = spec else { continue };
                let Some(port) = self.taught(Source::Bits(*part))? else { return Ok(None) };
                if matches!(port, 1..0xff00 | 0xfff8 | 0xfffb | 0xfffc | 0xfffe) {
                    steps.push(Step::Output(port as u32));
                }
                continue;
            };
            let Some(value) = self.taught(*source)? else { return Ok(None) };
            match spec {
                Spec::Match(Part { field, start, n_bits }, _) => {
                    let mask = ones(*n_bits) << start;
                    matching.terms.push(Term { field: *field, value: value << start & mask, mask });
                }
                Spec::Load(part, _) => steps.push(Step::Load(*part, value & ones(part.n_bits))),
                Spec::Output(_) => {}
            }
        }
        Ok(Some((matching, steps)))
    }

    fn taught(&self, source: Source) -> Result<Option<u128>, super::walk::Stop> {
        match source {
            Source::Value(value) => Ok(Some(value)),
            Source::Bits(part) => {
                self.see(part.field)?;
                Ok(self.state.has(part.field.needs()).then(|| self.state.read(part)))
            }
        }
    }

    /// Forwards as a bridge does.
    pub(super) fn normal(&mut self) -> Way {
        self.is_teaching = true;
        let (dst, in_port) = (self.state.get(Field::EthDst), self.state.get(Field::InPort));
        if is_reserved(dst) {
            self.end("reserved-address");
            return Ok(());
        }
        let vlan = self.state.get(Field::VlanTci) & 0xfff;
        if let Some(rehearsal) = self.rehearsal() {
            let answer = rehearsal.answers.get(self.pass.n_answers).copied().flatten();
            self.pass.n_answers += 1;
            return self.forward(dst, answer);
        }
        let src = self.state.get(Field::EthSrc);
        let is_workload = u32::try_from(in_port)
            .is_ok_and(|port| matches!(self.world.ports.get(&port), Some(Port::Workload { .. })));
        if is_workload && src & GROUP == 0 && src != 0 {
            let is_announced =
                dst == BROADCAST && !self.state.labels.is_opaque && is_gratuitous_arp(&self.state);
            let sighting = Sighting { place: (vlan, src), port: in_port, is_announced };
            self.memory.see_station(self.now, &sighting);
            self.rehearse(|rehearsal| rehearsal.sightings.push(sighting));
            self.own_stations.insert((self.pass.id, vlan, src), in_port);
        }
        let own = self.own_stations.get(&(self.pass.id, vlan, dst)).copied();
        let known = own.or_else(|| Some(self.memory.stations.get(&(vlan, dst))?.port));
        self.rehearse(|rehearsal| rehearsal.answers.push(known));
        self.forward(dst, known)
    }

    /// To where the destination is, or everywhere.
    fn forward(&mut self, dst: u128, known: Option<u128>) -> Way {
        let in_port = self.state.get(Field::InPort);
        match known.filter(|_| dst & GROUP == 0) {
            Some(port) if port == in_port => {
                self.end("same-port");
                Ok(())
            }
            Some(port) => self.output(port, false),
            None => self.flood(),
        }
    }
}

/// An answer that was not asked for, or a question about its own address (RFC 5227 §3).
fn is_gratuitous_arp(state: &State) -> bool {
    state.get(Field::EthType) == 0x0806
        && (state.get(Field::ArpOp) == 2 || state.get(Field::ArpSpa) == state.get(Field::ArpTpa))
}

/// Addresses that bridges keep to themselves (IEEE 802.1Q §8.6.3).
fn is_reserved(dst: u128) -> bool {
    dst & !0xf == 0x0180_c200_0000
}
