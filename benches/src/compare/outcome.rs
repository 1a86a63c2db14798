//! What the turns of a workload say together.

use serde_json::{Value, json};

use crate::{
    measure::tsc_ghz,
    workload::{Setting, Workload, window::Window},
};

/// A turn of each side.
#[derive(Debug, Clone)]
pub struct Pair {
    /// Open vSwitch.
    pub theirs: Window,
    /// We.
    pub ours: Window,
}

impl Pair {
    /// How many times as fast we were.
    pub fn ratio(&self) -> f64 {
        self.theirs.nanos() / self.ours.nanos().max(1e-9)
    }
}

/// How a workload went.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Which.
    pub workload: &'static Workload,
    /// The other side's best setting.
    pub setting: Setting,
    /// The turns; at least one.
    pub pairs: Vec<Pair>,
}

/// The middle of some values, and their ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The middle one.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
}

impl Spread {
    /// Of these values; zero, if there are none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (Some(min), Some(max)) = (values.first(), values.last()) else {
            return Self { median: 0.0, min: 0.0, max: 0.0 };
        };
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            0 => (values[middle - 1] + values[middle]) / 2.0,
            _ => values[middle],
        };
        Self { median, min: *min, max: *max }
    }

    /// The same in another unit.
    #[must_use]
    pub fn times(self, factor: f64) -> Self {
        Self { median: self.median * factor, min: self.min * factor, max: self.max * factor }
    }
}

/// What became of a goal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reached {
    /// Less than the floor.
    Nothing,
    /// The floor.
    Floor,
    /// More.
    Stretch,
}

impl Reached {
    /// As a word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Nothing => "no",
            Self::Floor => "floor",
            Self::Stretch => "stretch",
        }
    }
}

impl Outcome {
    /// How many times as fast we were.
    pub fn ratio(&self) -> Spread {
        Spread::of(self.pairs.iter().map(Pair::ratio))
    }

    /// Cycles per packet of the time stamp counter: theirs, ours.
    pub fn cycles(&self) -> (Spread, Spread) {
        let cycles = |side: fn(&Pair) -> &Window| {
            Spread::of(self.pairs.iter().map(|pair| side(pair).nanos())).times(tsc_ghz())
        };
        (cycles(|pair| &pair.theirs), cycles(|pair| &pair.ours))
    }

    /// The goal.
    pub fn reached(&self) -> Reached {
        let (ratio, goal) = (self.ratio().median, self.workload.goal);
        match () {
            () if ratio >= goal.stretch => Reached::Stretch,
            () if ratio >= goal.floor => Reached::Floor,
            () => Reached::Nothing,
        }
    }

    /// The least part of its core that a side had in a turn.
    pub fn least_share(&self) -> f64 {
        let shares = self.pairs.iter().flat_map(|pair| [pair.theirs.share(), pair.ours.share()]);
        shares.fold(1.0, f64::min)
    }

    /// As JSON.
    pub fn to_json(&self) -> Value {
        let spread = |spread: Spread| json!([spread.min, spread.median, spread.max]);
        let (theirs, ours) = self.cycles();
        let turns = self.pairs.iter().map(|pair| {
            json!({ "theirs": pair.theirs.to_json(), "ours": pair.ours.to_json(), "ratio": pair.ratio() })
        });
        json!({
            "id": self.workload.id,
            "title": self.workload.title,
            "setting": self.setting.name,
            "ratio": spread(self.ratio()),
            "cycles": { "theirs": spread(theirs), "ours": spread(ours) },
            "goal": { "floor": self.workload.goal.floor, "stretch": self.workload.goal.stretch },
            "reached": self.reached().word(),
            "least_share_of_core": self.least_share(),
            "turns": turns.collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::workload::{EMC_DEFAULT, list::find};

    fn window(nanos: u64) -> Window {
        let cpu = Duration::from_nanos(nanos * 1000);
        Window { n_packets: 1000, cpu, wall: cpu, ..Window::default() }
    }

    pub(in crate::compare) fn outcome(ratios: &[u64]) -> Outcome {
        let pairs = ratios.iter().map(|ratio| Pair { theirs: window(100 * ratio), ours: window(100) });
        Outcome { workload: find("P2").unwrap(), setting: EMC_DEFAULT, pairs: pairs.collect() }
    }

    #[test]
    fn the_median_decides() {
        assert_eq!(outcome(&[1, 9, 1]).reached(), Reached::Nothing);
        assert_eq!(outcome(&[1, 2, 9]).reached(), Reached::Floor);
        assert_eq!(outcome(&[4, 3, 1]).reached(), Reached::Stretch);
        assert_eq!(outcome(&[2, 4]).ratio(), Spread { median: 3.0, min: 2.0, max: 4.0 });
        assert_eq!(Spread::of([]).median, 0.0);
    }

    #[test]
    fn a_side_without_its_core_is_seen() {
        let mut outcome = outcome(&[2, 2]);
        assert!((outcome.least_share() - 1.0).abs() < 1e-9);
        outcome.pairs[1].ours.wall *= 2;
        assert!((outcome.least_share() - 0.5).abs() < 1e-9);
    }
}
