//! What ports of workloads behind another one's interface want of that.

use super::{Draft, Reason, Record};
use crate::resource::{FieldError, Name};

/// A workload may be behind another one that has an interface of its own.
pub(super) fn check_put(draft: &Draft<'_>, record: &Record) -> Result<(), Reason> {
    let Some(parent) = record.parent_port() else { return Ok(()) };
    let name = &record.name;
    let Some(found) = draft.get(parent) else {
        let (name, field, target) = (name.clone(), "parent".to_owned(), parent.clone());
        return Err(Reason::Dangling { name, field, target });
    };
    if found.is_workload() && found.parent_port().is_none() && parent != name {
        return Ok(());
    }
    let reason = format!("{parent} has no interface of its own; name the port that has");
    Err(Reason::Field { name: name.clone(), error: FieldError::new("parent", reason) })
}

/// Nobody may still be behind a port that goes. Those that the draft writes are judged by
/// themselves.
pub(super) fn check_deleted(draft: &Draft<'_>, name: &Name) -> Result<(), Reason> {
    let is_behind =
        |port: &&Name| !draft.touches(port) && draft.get(port).and_then(Record::parent_port) == Some(name);
    match draft.state().nested_in(name.id()).find(is_behind) {
        Some(by) => Err(Reason::Referenced { name: name.clone(), by: by.clone() }),
        None => Ok(()),
    }
}
