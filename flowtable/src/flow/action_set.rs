//! The order in which an action set is executed, whatever the order it was written in
//! (OpenFlow 1.5 §5.6; where that is silent, Open vSwitch's). Buckets are action sets too.

use super::Action;

/// Where an action stands in a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    PopVlan,
    PopMpls,
    PushMpls,
    PushVlan,
    DecTtl,
    DecMplsTtl,
    /// Fields are set in the order they were written.
    Set,
    Meter,
    Queue,
    // Only the first of the following that is there is executed.
    Group,
    Output,
    Resubmit,
    Ct,
}

impl Place {
    /// Of actions in this place only the last written one counts.
    fn is_single(self) -> bool {
        !matches!(self, Self::Set | Self::Meter)
    }

    /// The action makes the packet go somewhere.
    fn is_way_out(self) -> bool {
        self >= Self::Group
    }
}

fn place(action: &Action) -> Option<Place> {
    Some(match action {
        Action::PopVlan => Place::PopVlan,
        Action::PopMpls(_) => Place::PopMpls,
        Action::PushMpls(_) => Place::PushMpls,
        Action::PushVlan(_) => Place::PushVlan,
        Action::DecTtl | Action::DecTtlOrTell(_) => Place::DecTtl,
        Action::DecMplsTtl => Place::DecMplsTtl,
        Action::SetField { .. } | Action::Move { .. } | Action::SetTunnel(_) | Action::DeleteField(_) => {
            Place::Set
        }
        Action::Meter(_) => Place::Meter,
        Action::SetQueue(_) => Place::Queue,
        Action::Group(_) => Place::Group,
        Action::Output(_)
        | Action::OutputReg(_)
        | Action::OutputTruncated { .. }
        | Action::Enqueue { .. }
        | Action::Controller(_) => Place::Output,
        Action::Resubmit { .. } | Action::ResubmitCt { .. } => Place::Resubmit,
        Action::Ct(_) => Place::Ct,
        Action::GotoTable(_)
        | Action::Clone(_)
        | Action::ClearActions
        | Action::WriteActions(_)
        | Action::WriteMetadata { .. }
        | Action::PopQueue
        | Action::CtClear
        | Action::Push(_)
        | Action::Pop(_)
        | Action::Exit
        | Action::Note(_)
        | Action::Multipath(_)
        | Action::Bundle(_)
        | Action::Learn(_)
        | Action::FinTimeout { .. }
        | Action::CheckPktLarger { .. }
        | Action::Sample(_)
        | Action::Conjunction { .. } => return None,
    })
}

/// The action can be in a set.
pub(crate) fn is_allowed(action: &Action) -> bool {
    place(action).is_some()
}

/// The action decides where the packet of a set goes.
pub(crate) fn is_way_out(action: &Action) -> bool {
    place(action).is_some_and(Place::is_way_out)
}

/// The actions of a set in the order of their execution, given in the order they were
/// written. Without a way out the packet is dropped, so nothing is executed.
pub(crate) fn order<'a>(written: impl DoubleEndedIterator<Item = &'a Action>) -> Vec<&'a Action> {
    let mut placed: Vec<(Place, &Action)> = Vec::new();
    let mut taken = [false; Place::Ct as usize + 1];
    for action in written.rev() {
        let Some(place) = place(action) else { continue };
        if !place.is_single() || !taken[place as usize] {
            taken[place as usize] = true;
            placed.push((place, action));
        }
    }
    let Some(way_out) = placed.iter().map(|(place, _)| *place).filter(|place| place.is_way_out()).min()
    else {
        return Vec::new();
    };
    placed.retain(|(place, _)| *place <= way_out);
    placed.reverse();
    placed.sort_by_key(|(place, _)| *place);
    placed.into_iter().map(|(_, action)| action).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        field::Field,
        types::{GroupId, PortNo, TableId},
    };

    #[test]
    fn a_set_is_executed_in_its_own_order() {
        let set = |value| Action::SetField { field: Field::Reg0, value, mask: 0xff };
        let out = |raw| Action::Output(PortNo::new(raw).unwrap());
        let group = Action::Group(GroupId::new(1).unwrap());
        let resubmit = Action::Resubmit { port: None, table: Some(TableId::FIRST) };
        let written =
            [out(1), set(1), Action::DecTtl, Action::PushVlan(0x8100), set(2), out(2), Action::PopVlan];
        let expected = [Action::PopVlan, Action::PushVlan(0x8100), Action::DecTtl, set(1), set(2), out(2)];
        assert_eq!(order(written.iter()), expected.iter().collect::<Vec<_>>());
        let with = |more: &[Action]| {
            let all: Vec<_> = written.iter().chain(more).cloned().collect();
            order(all.iter()).last().cloned().cloned()
        };
        assert_eq!(with(std::slice::from_ref(&resubmit)), Some(out(2)));
        assert_eq!(with(&[resubmit, group.clone()]), Some(group));
        assert!(order([set(1), Action::DecTtl].iter()).is_empty(), "without a way out nothing happens");
    }
}
