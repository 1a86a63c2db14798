//! The action set of a packet: written by rules on the way, executed at its end
//! (OpenFlow 1.5 §5.6).

use std::{slice, sync::Arc, vec};

use super::{
    Tracer,
    walk::{Abort, Frame, Walk},
};
use crate::{
    drop::DropReason,
    field::Field,
    flow::{Action, Rule, action_set},
    types::PortNo,
};

/// Actions that a set may have been given.
const MAX_WRITTEN: usize = 16_384;

/// What has been written, in that order, by which rules.
pub(super) type ActionSet<'a> = Vec<(&'a Action, &'a Arc<Rule>)>;

/// A list of actions, from a rule or put in order.
pub(super) enum List<'a> {
    Rule(slice::Iter<'a, Action>),
    Set(vec::IntoIter<&'a Action>),
}

impl<'a> List<'a> {
    pub(super) fn empty() -> Self {
        Self::Rule([].iter())
    }

    pub(super) fn next(&mut self) -> Option<&'a Action> {
        match self {
            Self::Rule(actions) => actions.next(),
            Self::Set(actions) => actions.next(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Rule(actions) => actions.len() == 0,
            Self::Set(actions) => actions.len() == 0,
        }
    }

    /// What is left.
    pub(super) fn rest(&self) -> Vec<Action> {
        match self {
            Self::Rule(actions) => actions.as_slice().to_vec(),
            Self::Set(actions) => actions.as_slice().iter().copied().cloned().collect(),
        }
    }
}

impl<'a, T: Tracer> Walk<'a, T> {
    pub(super) fn write_actions(&mut self, actions: &'a [Action]) -> Result<(), Abort> {
        let Some(rule) = self.frames.last().map(|frame| frame.rule) else { return Ok(()) };
        if self.action_set.len() + actions.len() > MAX_WRITTEN {
            return Err(Abort(DropReason::ActionSetFull));
        }
        self.action_set.extend(actions.iter().map(|action| (action, rule)));
        self.write_actset_output();
        Ok(())
    }

    pub(super) fn clear_actions(&mut self) {
        self.action_set.clear();
        self.write_actset_output();
    }

    /// The set makes the packet go somewhere at the end.
    pub(super) fn has_way_out(&self) -> bool {
        self.action_set.iter().any(|(action, _)| action_set::is_way_out(action))
    }

    /// Begins with what the set says, if there is something to do.
    pub(super) fn begin_action_set(&mut self) -> bool {
        let set = std::mem::take(&mut self.action_set);
        let ordered = action_set::order(set.iter().map(|(action, _)| *action));
        let last = ordered.last().copied();
        let writer =
            set.iter().rev().find(|(action, _)| last.is_some_and(|last| std::ptr::eq(last, *action)));
        let Some((_, rule)) = writer else { return false };
        self.note(format_args!("the action set"));
        self.frames.push(Frame { actions: List::Set(ordered.into_iter()), ..Frame::of(rule, self.n_ends) });
        true
    }

    /// The field says where the set sends the packet, unless a group decides that.
    pub(super) fn write_actset_output(&mut self) {
        let has_group = self.action_set.iter().any(|(action, _)| matches!(action, Action::Group(_)));
        let output = self.action_set.iter().rev().find_map(|(action, _)| match action {
            Action::Output(port) => Some(*port),
            _ => None,
        });
        let port = output.filter(|_| !has_group).unwrap_or(PortNo::UNSET);
        self.key.write(Field::ActsetOutput, port.get().into());
    }
}
