//! Which packets of a batch are on journeys.

use super::{Journeys, N_RESTS, WORTH_ONE_IN};
use crate::{
    cache::{Handle, bits},
    switch::{Lookup, Moment, Switch},
    types::PortNo,
};

/// Packets of a port after which it is judged whether looking was worth it.
const JUDGE_AFTER: u32 = 1024;

/// How a port's packets are seen to fare.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Judged {
    /// Packets of it have been noted.
    has_any: bool,
    /// Packets looked for, and found.
    n_asked: u32,
    n_found: u32,
    /// Batches in which nobody looks.
    n_rests: u32,
}

impl Journeys {
    /// Packets of a port have been noted.
    pub(super) fn note_port(&mut self, port: PortNo) {
        let idx = port.get() as usize;
        if self.ports.len() <= idx {
            self.ports.resize(idx + 1, Judged::default());
        }
        self.ports[idx].has_any = true;
    }

    /// A batch of a port begins; answers whether looking for journeys is worth it.
    fn is_worth(&mut self, port: PortNo) -> bool {
        let Some(judged) = self.ports.get_mut(port.get() as usize).filter(|judged| judged.has_any) else {
            return false;
        };
        if judged.n_rests > 0 {
            judged.n_rests -= 1;
            return false;
        }
        if judged.n_asked >= JUDGE_AFTER {
            let is_waste = judged.n_found * WORTH_ONE_IN < judged.n_asked;
            (judged.n_asked, judged.n_found) = (0, 0);
            judged.n_rests = if is_waste { N_RESTS } else { 0 };
        }
        true
    }

    fn judge(&mut self, port: PortNo, n_asked: u32, n_found: u32) {
        if let Some(judged) = self.ports.get_mut(port.get() as usize) {
            judged.n_asked += n_asked;
            judged.n_found += n_found;
        }
    }
}

impl Switch {
    /// Before anything else is looked up: the packets of a batch that are on journeys, unless they have come
    /// through tunnels, of which their signatures say nothing.
    pub(in crate::switch) fn find_journeys(&mut self, moment: &Moment<'_>, n: usize) {
        let lanes = &mut *self.lanes;
        (lanes.riding, lanes.n_journey_changes) = (0, self.journeys.n_changes);
        self.journeys.n_batches += 1;
        lanes.seeks = self.conntrack.is_some() && self.journeys.is_worth(moment.in_port);
        if lanes.seeks && !moment.is_uplink() {
            let may = |idx: &usize| lanes.has_signature[*idx] && lanes.lookups[*idx] == Lookup::Unknown;
            let select = (0..n).filter(may).fold(0, |select, idx| select | 1 << idx);
            self.seek(moment, select, |_, _| true);
        }
    }

    /// The same for packets from tunnels, whose entries have been found.
    pub(in crate::switch) fn find_tunnelled_journeys(&mut self, moment: &Moment<'_>, n: usize) {
        let lanes = &*self.lanes;
        if lanes.seeks && moment.is_uplink() {
            let may = |idx: &usize| {
                lanes.current[*idx] && matches!(lanes.lookups[*idx], Lookup::Signed(_) | Lookup::Session(_))
            };
            let select = (0..n).filter(may).fold(0, |select, idx| select | 1 << idx);
            self.seek(moment, select, |lookup, from| lookup.handle() == Some(from));
        }
    }

    /// In steps of one memory access each for all of them. `suits`: the entry that was found is the one that
    /// the journey begins with.
    #[inline(always)]
    fn seek(&mut self, moment: &Moment<'_>, select: u32, suits: impl Fn(Lookup, Handle) -> bool) {
        let lanes = &mut *self.lanes;
        for idx in bits(select) {
            lanes.journeys[idx] = self.journeys.fetch(&lanes.signatures[idx]);
        }
        bits(select).for_each(|idx| self.journeys.fetch_likely(lanes.journeys[idx]));
        let Some(tracker) = self.conntrack.as_deref() else { return };
        for idx in bits(select) {
            let lookup = lanes.lookups[idx];
            let found =
                self.journeys.find(lanes.journeys[idx], &lanes.signatures[idx], |from| suits(lookup, from));
            let Some((at, journey)) = found else { continue };
            journey.way.said.iter().zip(journey.slots).for_each(|(_, slot)| tracker.fetch_slot(slot));
            if lookup == Lookup::Unknown {
                lanes.lookups[idx] = Lookup::Signed(journey.way.from.0);
                (lanes.current[idx], lanes.needs_key[idx]) = (true, false);
            }
            lanes.journeys[idx] = at;
            lanes.riding |= 1 << idx;
        }
        self.journeys.judge(moment.in_port, select.count_ones(), lanes.riding.count_ones());
    }
}
