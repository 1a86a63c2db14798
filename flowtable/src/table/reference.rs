//! What actions refer to: groups, meters, ports.

use crate::{
    flow::Action,
    types::{GroupId, MeterId, PortNo},
};

/// Something that actions can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reference {
    Group(GroupId),
    Meter(MeterId),
    Port(PortNo),
}

/// Shows all references of a list of actions, nested ones included, until `visit` fails.
pub(super) fn each_reference<E>(
    actions: &[Action],
    visit: &mut impl FnMut(Reference) -> Result<(), E>,
) -> Result<(), E> {
    for action in actions {
        match action {
            Action::Group(id) => visit(Reference::Group(*id))?,
            Action::Meter(id) => visit(Reference::Meter(*id))?,
            Action::Output(port) | Action::OutputTruncated { port, .. } | Action::Enqueue { port, .. } => {
                visit(Reference::Port(*port))?
            }
            Action::Controller(to) => {
                visit(Reference::Port(PortNo::CONTROLLER))?;
                to.meter.map_or(Ok(()), |meter| visit(Reference::Meter(meter)))?;
            }
            Action::Bundle(bundle) => {
                bundle.members.iter().try_for_each(|port| visit(Reference::Port(*port)))?;
            }
            Action::Clone(inner) | Action::WriteActions(inner) => each_reference(inner, visit)?,
            Action::OutputReg(_)
            | Action::SetField { .. }
            | Action::Move { .. }
            | Action::Resubmit { .. }
            | Action::GotoTable(_)
            | Action::DecTtl
            | Action::PushVlan(_)
            | Action::PopVlan
            | Action::SetTunnel(_)
            | Action::ClearActions
            | Action::WriteMetadata { .. }
            | Action::SetQueue(_)
            | Action::PopQueue
            | Action::DecTtlOrTell(_)
            | Action::PushMpls(_)
            | Action::PopMpls(_)
            | Action::DecMplsTtl
            | Action::Push(_)
            | Action::Pop(_)
            | Action::DeleteField(_)
            | Action::ResubmitCt { .. }
            | Action::Exit
            | Action::Note(_)
            | Action::Multipath(_)
            | Action::Conjunction { .. }
            | Action::Ct(_)
            | Action::Learn(_)
            | Action::FinTimeout { .. }
            | Action::CheckPktLarger { .. }
            | Action::Sample(_)
            | Action::CtClear => {}
        }
    }
    Ok(())
}

/// The actions name it.
pub(super) fn refers_to(actions: &[Action], wanted: Reference) -> bool {
    each_reference(actions, &mut |found| if found == wanted { Err(()) } else { Ok(()) }).is_err()
}
