//! VLAN tags of workloads behind another one's interface that ask for any (OVN: tag_request),
//! chosen inside the transaction that makes or changes a port: the lowest that nobody else behind
//! that interface has. A port keeps what it has as long as it is behind the same one.

use std::collections::{BTreeMap, BTreeSet};

use flowtable::types::VlanId;

use super::{Draft, Reason, Record, Refusal};
use crate::resource::{Access, Attachment, FieldError, Name, Spec};

/// Highest VLAN of a tag (IEEE 802.1Q).
const MAX_TAG: u16 = 4094;

/// Chooses tags for ports of the draft that ask for one.
///
/// # Errors
/// [`Refusal`] names the port that asks where none is left, or that wants one that was chosen for
/// another.
pub(super) fn choose(draft: &mut Draft<'_>) -> Result<(), Refusal> {
    let mut behind: BTreeMap<Name, Vec<(Name, Option<usize>)>> = BTreeMap::new();
    let mut chosen: Vec<(Name, Option<VlanId>, Option<usize>)> = Vec::new();
    for (record, operation) in draft.written() {
        match nested(record) {
            Some((parent, _)) => {
                behind.entry(parent.clone()).or_default().push((record.name.clone(), operation));
            }
            None if record.chosen_tag.is_some() => chosen.push((record.name.clone(), None, operation)),
            None => {}
        }
    }
    for (parent, ports) in &behind {
        chosen.extend(behind_one(draft, parent, ports)?);
    }
    for (port, tag, operation) in chosen {
        draft.set_tag(&port, tag, operation);
    }
    Ok(())
}

/// A port, what it has from now on, and the operation that asks for it.
type Chosen = (Name, Option<VlanId>, Option<usize>);

/// What the ports of the draft behind one interface have from now on.
fn behind_one(
    draft: &Draft<'_>,
    parent: &Name,
    ports: &[(Name, Option<usize>)],
) -> Result<Vec<Chosen>, Refusal> {
    let refuse = |name: &Name, operation, field: &str, reason| {
        let reason = Reason::Field { name: name.clone(), error: FieldError::new(field, reason) };
        Refusal { operation, reason }
    };
    let others = draft.state().nested_in(parent.id()).filter(|port| !draft.touches(port));
    let others: Vec<_> = others.filter_map(|port| draft.get(port)).collect();
    let mut taken: BTreeSet<VlanId> = others.iter().filter_map(|other| tag_of(other)).collect();
    let mut asking = Vec::new();
    for (name, operation) in ports {
        let Some((record, (_, fixed))) = draft.get(name).and_then(|record| Some((record, nested(record)?)))
        else {
            continue;
        };
        let Some(tag) = fixed else {
            asking.push((record, *operation));
            continue;
        };
        if let Some(other) = others.iter().find(|other| other.chosen_tag == Some(tag)) {
            let reason = format!("{tag} was chosen for {}; use another one", other.name);
            return Err(refuse(name, *operation, "tag", reason));
        }
        taken.insert(tag);
    }
    let mut chosen = Vec::new();
    // What ports keep comes before what others are given.
    asking.sort_by_key(|(record, _)| kept(draft, record, parent).is_none());
    for (record, operation) in asking {
        let free = (1..=MAX_TAG).filter_map(|raw| VlanId::new(raw).ok()).find(|tag| !taken.contains(tag));
        let kept = kept(draft, record, parent).filter(|tag| !taken.contains(tag));
        let tag = kept.or(free).ok_or_else(|| {
            let reason = format!("every VLAN behind {parent} is taken; take ports away that are not needed");
            refuse(&record.name, operation, "tag_request", reason)
        })?;
        taken.insert(tag);
        chosen.push((record.name.clone(), Some(tag), operation));
    }
    // Who says its tag by itself has none that was chosen.
    let fixed = ports.iter().filter(|(name, _)| chosen.iter().all(|(port, ..)| port != name));
    let fixed: Vec<_> = fixed.map(|(name, operation)| (name.clone(), None, *operation)).collect();
    chosen.extend(fixed);
    Ok(chosen)
}

/// What a port has that it may keep.
fn kept(draft: &Draft<'_>, record: &Record, parent: &Name) -> Option<VlanId> {
    let before = draft.state().get(&record.name).and_then(|before| nested(before));
    record.chosen_tag.filter(|_| before.is_some_and(|(before, _)| before == parent))
}

/// The port behind whose interface the workload is, and the tag that it wants.
fn nested(record: &Record) -> Option<(&Name, Option<VlanId>)> {
    match &record.spec {
        Spec::SwitchPort(port) => match &port.attachment {
            Attachment::Workload { access: Access::Nested(parent, tag), .. } => Some((parent, *tag)),
            _ => None,
        },
        _ => None,
    }
}

/// The tag that a port has.
fn tag_of(record: &Record) -> Option<VlanId> {
    nested(record).and_then(|(_, fixed)| fixed.or(record.chosen_tag))
}
