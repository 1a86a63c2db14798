//! The turns: one side runs, the other waits, again and again.

use std::{path::PathBuf, time::Duration};

use anyhow::Result;
use ferroflow_tests::say;

use super::{
    ours::Ours,
    outcome::{Outcome, Pair},
};
use crate::{
    peer::{package::Install, subject::Subject},
    workload::{Measured, Setting, Workload, window::Window},
};

/// A side that had less of its core than this is measured again…
const FULL_SHARE: f64 = 0.95;
/// …so often; then the best of these counts, by the time it had.
const N_TRIES: usize = 3;
/// Time of a trial of a setting.
const TRIAL: Duration = Duration::from_millis(400);

/// How to measure.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The programs of the other side.
    pub install: Install,
    /// Our program.
    pub program: PathBuf,
    /// Where packets are switched.
    pub core: usize,
    /// Turns of each side.
    pub n_pairs: usize,
    /// Time of a turn.
    pub duration: Duration,
}

impl Plan {
    /// Measures a workload.
    ///
    /// # Errors
    /// When a side does not work.
    pub fn compare(&self, workload: &'static Workload) -> Result<Outcome> {
        let mut theirs = Subject::start(&self.install, self.core, workload)?;
        let setting = best_setting(&mut theirs, workload)?;
        theirs.pause()?;
        let mut ours = Ours::start(&self.program, self.core, &[workload.id])?;
        let mut pairs = Vec::new();
        for _ in 0..self.n_pairs {
            theirs.go_on()?;
            let other = self.full_window(|| theirs.measure(self.duration))?;
            theirs.pause()?;
            let own = self.full_window(|| ours.measure(self.duration))?;
            pairs.push(Pair { theirs: other, ours: own });
        }
        Ok(Outcome { workload, setting, pairs })
    }

    /// Generator and sink alone, on our side.
    ///
    /// # Errors
    /// When it does not work.
    pub fn harness(&self) -> Result<Window> {
        let mut ours = Ours::start(&self.program, self.core, &["P1", "--harness"])?;
        self.full_window(|| ours.measure(self.duration))
    }

    /// The first window of a side that had its core, or that which had most of it.
    fn full_window(&self, mut measure: impl FnMut() -> Result<Window>) -> Result<Window> {
        let mut best = measure()?;
        for _ in 1..N_TRIES {
            if best.share() >= FULL_SHARE {
                break;
            }
            let next = measure()?;
            if next.share() > best.share() {
                best = next;
            }
        }
        Ok(best)
    }
}

/// The setting that makes the other side fastest.
fn best_setting(theirs: &mut Subject, workload: &Workload) -> Result<Setting> {
    let [only] = workload.settings else {
        let mut best = None;
        for setting in workload.settings {
            theirs.set(setting)?;
            let window = theirs.measure(TRIAL)?;
            say(&format!("            {:<10} {:6.2} Mpps", setting.name, window.mpps()));
            if best.is_none_or(|(_, mpps)| window.mpps() > mpps) {
                best = Some((*setting, window.mpps()));
            }
        }
        let (setting, _) = best.unwrap_or((crate::workload::EMC_DEFAULT, 0.0));
        theirs.set(&setting)?;
        return Ok(setting);
    };
    if workload.measured == Measured::Rate {
        theirs.set(only)?;
    }
    Ok(*only)
}
