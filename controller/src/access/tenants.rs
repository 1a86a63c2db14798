//! Whose a resource is: what the label `tenant` of the switch, router, group or other resource at
//! the root of its name says. What is below belongs to whom the root does, whatever its own
//! labels are.
//!
//! What is another's is, for a tenant, not there: it is in no answer, and who names it is told
//! the same as if it did not exist. Only the ids of roots and ports are one space for all; who
//! wants one that is taken is told that, and not by whom.

use ferroflow_proto::northbound as pb;

use super::Who;
use crate::{
    resource::{Name, limits::MAX_OPERATIONS},
    state::{Draft, Reason, Record, State},
};

/// The label that says whose a resource is.
pub const OWNER: &str = "tenant";

// A transaction looks at the root of each resource it names.
const _: () = assert!(MAX_OPERATIONS <= 10_000);

/// The root of a name.
pub(crate) fn root(name: &Name) -> Name {
    let mut root = name.clone();
    while let Some(parent) = root.parent() {
        root = parent;
    }
    root
}

/// Whose a resource is.
pub fn owner<'a>(get: impl Fn(&Name) -> Option<&'a Record>, name: &Name) -> Option<&'a str> {
    get(&root(name))?.labels.get(OWNER).map(String::as_str)
}

/// Whether somebody is told of a resource that there is.
pub fn sees(who: &Who, state: &State, name: &Name) -> bool {
    match who {
        Who::Master | Who::Admin | Who::ReadOnly => true,
        Who::Tenant(tenant) => owner(|name| state.get(name).map(|record| &**record), name) == Some(tenant),
        Who::Chassis(_) => super::fields::chassis_reads(name.kind()),
        Who::Controller => false,
    }
}

/// What becomes of an operation before it is looked at any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Allowed,
    /// What it names is, to him, not there.
    Absent,
}

/// Whether an operation of somebody may be about this resource.
///
/// # Errors
/// The name is taken by somebody else.
pub fn may_put(who: &Who, draft: &Draft<'_>, name: &Name, makes: bool) -> Result<Verdict, Reason> {
    let Who::Tenant(tenant) = who else { return Ok(Verdict::Allowed) };
    let is_own = owner(|name| draft.get(name), name) == Some(tenant);
    let root = root(name);
    if is_own || draft.get(&root).is_none() {
        return Ok(Verdict::Allowed);
    }
    match (root == *name, makes) {
        (true, true) => Err(Reason::Taken(name.clone())),
        (false, true) => Err(Reason::NoParent { name: name.clone(), parent: root }),
        (_, false) => Ok(Verdict::Absent),
    }
}

/// What a tenant makes is its own without a word.
pub(crate) fn label(who: &Who, resource: &mut pb::Resource) {
    if let Who::Tenant(tenant) = who
        && Name::parse(&resource.name).is_ok_and(|name| name.parent().is_none())
    {
        resource.labels.entry(OWNER.to_owned()).or_insert_with(|| tenant.clone());
    }
}
