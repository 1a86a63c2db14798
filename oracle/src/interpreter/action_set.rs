//! The action set (OpenFlow 1.5 §5.6; ovs-actions(7), "Action Sets"): written on the way, executed at
//! its end, in an order of its own.

use super::walk::{Stop, Walk, Way};
use crate::{state::Author, syntax::Step};

/// Steps in the order of ovs-actions(7); nothing for those that cannot be in a set.
fn rank(step: &Step) -> Option<u8> {
    Some(match step {
        Step::PopVlan => 0,
        Step::PopMpls(_) => 1,
        Step::PushMpls(_) => 2,
        Step::PushVlan(_) => 3,
        Step::DecTtl | Step::DecTtlOrTell(_) => 4,
        Step::DecMplsTtl => 5,
        _ if is_setting(step) => SETTING,
        Step::Meter(_) => METER,
        Step::SetQueue(_) => 8,
        Step::Group(_) => GROUP,
        Step::Output(_)
        | Step::InPort
        | Step::Flood
        | Step::Normal
        | Step::OutputReg(_)
        | Step::Truncated { .. }
        | Step::Enqueue { .. }
        | Step::Controller
        | Step::Tell(_) => OUTPUT,
        Step::Resubmit { .. } => RESUBMIT,
        Step::Ct(_) => CT,
        _ => return None,
    })
}

const SETTING: u8 = 6;
const METER: u8 = 7;
const GROUP: u8 = 9;
const OUTPUT: u8 = 10;
const RESUBMIT: u8 = 11;
const CT: u8 = 12;

/// Of these all are executed, in the order in which they were written.
fn is_setting(step: &Step) -> bool {
    matches!(
        step,
        Step::Set(_)
            | Step::Load(..)
            | Step::Move { .. }
            | Step::SetTunnel(_)
            | Step::DeleteField(_)
            | Step::ModVlanVid(_)
            | Step::SetVlanVid(_)
            | Step::ModVlanPcp(_)
    )
}

/// A set in the order of its execution: of most kinds the last one written; of what sends the packet
/// somewhere the first kind only. A set that sends it nowhere does nothing.
pub(super) fn ordered<T: Clone>(written: &[(Step, T)]) -> Vec<(Step, T)> {
    let of_rank = |wanted: u8| written.iter().filter(move |(step, _)| rank(step) == Some(wanted));
    let mut set = Vec::new();
    for rank in 0..GROUP {
        match rank {
            SETTING | METER => set.extend(of_rank(rank).cloned()),
            _ => set.extend(of_rank(rank).last().cloned()),
        }
    }
    match (GROUP..=CT).find_map(|rank| of_rank(rank).last()) {
        Some(way_out) => {
            set.push(way_out.clone());
            set
        }
        None => Vec::new(),
    }
}

impl Walk<'_> {
    pub(super) fn write_actions(&mut self, steps: &[Step]) {
        steps.iter().for_each(|step| self.met.step(step));
        let author = self.author;
        self.state.action_set.extend(steps.iter().map(|step| (step.clone(), author)));
        self.state.note_action_set();
    }

    pub(super) fn has_way_out(&self) -> bool {
        self.state.action_set.iter().any(|(step, _)| rank(step).is_some_and(|rank| rank >= GROUP))
    }

    /// Executes the set; and what that has written into it, until nothing is left.
    pub(super) fn execute_action_sets(&mut self) -> Way {
        loop {
            let written = std::mem::take(&mut self.state.action_set);
            let set: Vec<(Step, Author)> = ordered(&written);
            let Some((_, author)) = set.last() else { return Ok(()) };
            self.author = *author;
            let n_ends = self.n_ends;
            let steps: Vec<Step> = set.iter().map(|(step, _)| step.clone()).collect();
            if let Err(stop @ (Stop::Abort(..) | Stop::Behind | Stop::Over)) = self.list(&steps, 0) {
                return Err(stop);
            }
            if self.n_ends == n_ends && !self.has_way_out() {
                self.end("rule-drop");
            }
        }
    }
}
