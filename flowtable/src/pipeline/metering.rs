//! Meters on a walk. Whether a packet passes is known only when it is there, so the walk
//! goes on as if it did, and notes which copies depend on it.

use std::sync::Arc;

use super::{
    Tracer,
    walk::{Abort, Walk},
};
use crate::{drop::DropReason, program::MeterStep, types::MeterId};

/// Meters that one packet may come to.
pub const MAX_METERS: usize = 256;
/// Not known yet.
pub(super) const OPEN: usize = usize::MAX;

impl<T: Tracer> Walk<'_, T> {
    /// From here on the packet depends on a meter.
    pub(super) fn meter(&mut self, id: MeterId) -> Result<(), Abort> {
        let Some(rule) = self.frames.last().map(|frame| frame.rule) else { return Ok(()) };
        let Some(meter) = self.snapshot.tables.meter(id) else {
            return Err(Abort(DropReason::NoSuchMeter));
        };
        if self.meters.len() >= MAX_METERS {
            return Err(Abort(DropReason::TooManyMeters));
        }
        self.note(format_args!("meter {id}"));
        let first = self.emits.len();
        let (meter, rule) = (Arc::clone(meter), Arc::clone(rule));
        self.meters.push(MeterStep { meter, rule, emits: first..OPEN, n_within: 0 });
        Ok(())
    }

    /// The last emit depends on one more meter, which nothing else depends on.
    pub(super) fn meter_last(&mut self, id: MeterId) -> Result<(), Abort> {
        self.meter(id)?;
        if let Some(step) = self.meters.last_mut() {
            step.emits = self.emits.len().saturating_sub(1)..self.emits.len();
        }
        Ok(())
    }

    /// What began with meter number `first` is over: later copies do not depend on it.
    pub(super) fn close_meters(&mut self, first: usize) {
        let (n_emits, n_meters) = (self.emits.len(), self.meters.len());
        for (idx, step) in self.meters.iter_mut().enumerate().skip(first) {
            if step.emits.end == OPEN {
                step.emits.end = n_emits;
                step.n_within = n_meters - idx - 1;
            }
        }
    }
}
