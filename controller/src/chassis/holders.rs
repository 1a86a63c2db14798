//! Virtual ports: which of their parents has the address, by what the parents' hosts say.

use ferroflow_proto::chassis as pb;

use crate::{
    access::Author,
    controller::Controller,
    resource::{Access, Attachment, Name, Spec, SwitchPortSpec},
    state::{Holder, Refusal, State},
};

/// Writes who has which address, where that is new. What is about no virtual port, or by a
/// host that does not have the workload, is left out.
pub(super) fn settle(controller: &Controller, chassis: &str, said: &pb::Holders) -> Result<(), Refusal> {
    if changes(&controller.state(), chassis, said).is_empty() {
        return Ok(());
    }
    controller.write(&Author::chassis(chassis, "holders"), false, |draft| {
        for (port, holder) in changes(draft.state(), chassis, said) {
            draft.set_holder(&port, holder);
        }
        Ok(())
    })?;
    Ok(())
}

fn changes(state: &State, chassis: &str, said: &pb::Holders) -> Vec<(Name, Holder)> {
    let change = |said: &pb::Holder| {
        let record = state.port(&said.virtual_port)?;
        let Spec::SwitchPort(SwitchPortSpec {
            attachment: Attachment::Workload { access: Access::Virtual(_, parents), .. },
            ..
        }) = &record.spec
        else {
            return None;
        };
        let parent = parents.iter().find(|parent| parent.id() == said.parent)?;
        let is_here = state.get(parent)?.binding.as_ref().is_some_and(|binding| binding.chassis == chassis);
        let holder = Holder { parent: said.parent.clone(), mac: said.mac.parse().ok()? };
        (is_here && record.holder.as_ref() != Some(&holder)).then(|| (record.name.clone(), holder))
    };
    said.holders.iter().filter_map(change).collect()
}
