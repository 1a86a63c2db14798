//! `sample`: copies of some packets for collectors. Which packets is decided when they are
//! there, so that caches do not decide it.

use super::{
    MAX_EMITS, Tracer,
    metering::OPEN,
    walk::{Abort, Walk},
};
use crate::{drop::DropReason, flow::Sample, program::SampleStep, types::PortNo};

impl<T: Tracer> Walk<'_, T> {
    /// Shows the packet as it is now to a collector. It goes on as if nothing had been.
    pub(super) fn sample(&mut self, sample: &Sample) -> Result<(), Abort> {
        if self.samples.len() >= MAX_EMITS {
            return Err(Abort(DropReason::TooManyOutputs));
        }
        self.note(format_args!("sampled {} times of 65535", sample.probability));
        let emit = self.copy_for(PortNo::ZERO, None);
        let open = self.meters.iter().enumerate().filter(|(_, step)| step.emits.end == OPEN);
        let guards = open.map(|(idx, _)| idx).collect();
        self.samples.push(SampleStep { sample: *sample, emit, guards });
        Ok(())
    }
}
