//! Transactions: from the request to one write.

use ferroflow_proto::northbound::{self as pb, operation::Op, precondition::Condition};

use crate::{
    controller::{Controller, Written},
    resource::{
        Kind, Name,
        limits::{MAX_OPERATIONS, MAX_PRECONDITIONS},
    },
    state::{Draft, Reason, Refusal},
};

/// Applies a transaction, or tells why not.
pub(super) fn transact(controller: &Controller, request: pb::TransactRequest) -> Result<Written, Refusal> {
    let pb::TransactRequest { operations, preconditions, validate_only, .. } = request;
    check_count("operations", operations.len(), MAX_OPERATIONS)?;
    check_count("preconditions", preconditions.len(), MAX_PRECONDITIONS)?;
    controller.write(validate_only, |draft| {
        for (index, precondition) in preconditions.into_iter().enumerate() {
            check_precondition(draft, index, precondition)?;
        }
        for (index, operation) in operations.into_iter().enumerate() {
            apply(controller, draft, index, operation)
                .map_err(|reason| Refusal { operation: Some(index), reason })?;
        }
        Ok(())
    })
}

fn check_count(what: &'static str, n: usize, max: usize) -> Result<(), Reason> {
    if n > max { Err(Reason::TooMany { what, n, max }) } else { Ok(()) }
}

fn check_precondition(draft: &Draft<'_>, index: usize, precondition: pb::Precondition) -> Result<(), Reason> {
    let name = Name::parse(&precondition.name)?;
    let found = draft.get(&name).map(|record| record.update_revision.get());
    let found = match (precondition.condition, found) {
        (None, _) => return Err(Reason::EmptyPrecondition(index)),
        (Some(Condition::Exists(true)), None) | (Some(Condition::UpdateRevision(_)), None) => {
            "does not exist".to_owned()
        }
        (Some(Condition::Exists(false)), Some(_)) => "exists".to_owned(),
        (Some(Condition::UpdateRevision(expected)), Some(found)) if expected != found => {
            format!("was last changed by revision {found}, not {expected}")
        }
        (Some(Condition::Exists(_) | Condition::UpdateRevision(_)), _) => return Ok(()),
    };
    Err(Reason::Precondition { index, name, found })
}

fn apply(
    controller: &Controller,
    draft: &mut Draft<'_>,
    index: usize,
    operation: pb::Operation,
) -> Result<(), Reason> {
    match operation.op {
        Some(Op::Create(pb::Create { resource })) => {
            draft.create(index, resource.ok_or(Reason::Empty("resource"))?)
        }
        Some(Op::Update(pb::Update { resource, update_mask, allow_missing })) => {
            let paths = update_mask.map(|mask| mask.paths).unwrap_or_default();
            draft.update(index, resource.ok_or(Reason::Empty("resource"))?, &paths, allow_missing)
        }
        Some(Op::Delete(pb::Delete { name, allow_missing })) => {
            if let Ok(name) = Name::parse(&name)
                && name.kind() == Kind::Chassis
                && controller.chassis_status(name.id()).connected
            {
                return Err(Reason::Connected(name));
            }
            draft.delete(index, &name, allow_missing)
        }
        None => Err(Reason::Empty("create, update or delete")),
    }
}
