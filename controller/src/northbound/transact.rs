//! Transactions: from the request to one write.

use ferroflow_proto::northbound::{self as pb, operation::Op, precondition::Condition};

use crate::{
    access::{self, Author, Caller, Verdict},
    controller::{Controller, Written},
    resource::{
        Kind, Name,
        limits::{MAX_ID_LEN, MAX_OPERATIONS, MAX_PRECONDITIONS},
    },
    state::{Draft, Reason, Refusal},
};

/// How often others may have written something meanwhile when there is nothing to be written.
const MAX_TRIES: usize = 32;

/// Applies a transaction, or tells why not.
pub(super) fn transact(
    controller: &Controller,
    (caller, method): (&Caller, &'static str),
    request: pb::TransactRequest,
) -> Result<Written, Refusal> {
    let (author, validate_only) = (caller.author(method), request.validate_only);
    let asked: Vec<String> = request.operations.iter().map(asked).collect();
    let done =
        attempt(controller, caller, &author, request).map_err(|refusal| silent(controller, caller, refusal));
    if let (Err(refusal), false) = (&done, validate_only) {
        controller.access.audit.refused(&author, &asked, &refusal.to_string());
    }
    done
}

/// An operation in the audit log.
fn asked(operation: &pb::Operation) -> String {
    let of = |resource: &Option<pb::Resource>| {
        resource.as_ref().map(|resource| resource.name.clone()).unwrap_or_default()
    };
    let (verb, name) = match &operation.op {
        Some(Op::Create(create)) => ("create", of(&create.resource)),
        Some(Op::Update(update)) => ("update", of(&update.resource)),
        Some(Op::Delete(delete)) => ("delete", delete.name.clone()),
        None => ("", String::new()),
    };
    format!("{verb} {}", name.chars().take(2 * MAX_ID_LEN).collect::<String>())
}

/// A refusal that names nothing of others to a tenant.
fn silent(controller: &Controller, caller: &Caller, refusal: Refusal) -> Refusal {
    if caller.tenant().is_none() {
        return refusal;
    }
    let is_hidden = |name: &Name| !access::sees(&caller.who, &controller.state(), name);
    let reason = match refusal.reason {
        Reason::PortIdTaken { name, other } if is_hidden(&other) => Reason::Taken(name),
        Reason::PeerTaken { name, other, .. } | Reason::AddressTaken { name, other, .. }
            if is_hidden(&other) =>
        {
            Reason::Denied(format!("{name}: what it asks for is another's"))
        }
        Reason::Referenced { name, by } if is_hidden(&by) => {
            Reason::Denied(format!("{name} cannot go: an administrator's resource refers to it"))
        }
        reason => reason,
    };
    Refusal { reason, ..refusal }
}

fn attempt(
    controller: &Controller,
    caller: &Caller,
    author: &Author,
    request: pb::TransactRequest,
) -> Result<Written, Refusal> {
    let pb::TransactRequest { operations, preconditions, validate_only, .. } = request;
    check_count("operations", operations.len(), MAX_OPERATIONS)?;
    check_count("preconditions", preconditions.len(), MAX_PRECONDITIONS)?;
    let work = |draft: &mut Draft<'_>| {
        for (index, precondition) in preconditions.iter().enumerate() {
            check_precondition(caller, draft, index, precondition)?;
        }
        for (index, operation) in operations.iter().enumerate() {
            apply(controller, caller, draft, index, operation.clone())
                .map_err(|reason| Refusal { operation: Some(index), reason })?;
        }
        Ok(access::check_written(&caller.who, &controller.access.quotas, draft)?)
    };
    for _ in 0..MAX_TRIES {
        let written = controller.write(author, validate_only, work)?;
        // What is as it was asked for here may have been changed by what others have written since.
        if written.is_made || validate_only || controller.is_newest(written.revision)? {
            return Ok(written);
        }
    }
    Err(Reason::Moved { at: controller.state().revision() }.into())
}

fn check_count(what: &'static str, n: usize, max: usize) -> Result<(), Reason> {
    if n > max { Err(Reason::TooMany { what, n, max }) } else { Ok(()) }
}

fn check_precondition(
    caller: &Caller,
    draft: &Draft<'_>,
    index: usize,
    precondition: &pb::Precondition,
) -> Result<(), Reason> {
    let name = Name::parse(&precondition.name)?;
    let is_seen = access::may_put(&caller.who, draft, &name, false)? == Verdict::Allowed;
    let found = draft.get(&name).filter(|_| is_seen).map(|record| record.update_revision.get());
    let found = match (&precondition.condition, found) {
        (None, _) => return Err(Reason::EmptyPrecondition(index)),
        (Some(Condition::Exists(true)), None) | (Some(Condition::UpdateRevision(_)), None) => {
            "does not exist".to_owned()
        }
        (Some(Condition::Exists(false)), Some(_)) => "exists".to_owned(),
        (Some(Condition::UpdateRevision(expected)), Some(found)) if *expected != found => {
            format!("was last changed by revision {found}, not {expected}")
        }
        (Some(Condition::Exists(_) | Condition::UpdateRevision(_)), _) => return Ok(()),
    };
    Err(Reason::Precondition { index, name, found })
}

fn apply(
    controller: &Controller,
    caller: &Caller,
    draft: &mut Draft<'_>,
    index: usize,
    mut operation: pb::Operation,
) -> Result<(), Reason> {
    if let Some(op) = &mut operation.op
        && admit(caller, draft, op)? == Verdict::Absent
    {
        return match op {
            Op::Delete(pb::Delete { allow_missing: true, .. }) => Ok(()),
            Op::Delete(pb::Delete { name, .. }) => Err(Reason::NotFound(Name::parse(name)?)),
            Op::Create(pb::Create { resource }) | Op::Update(pb::Update { resource, .. }) => {
                let name = resource.as_ref().map(|resource| resource.name.as_str()).unwrap_or_default();
                Err(Reason::NotFound(Name::parse(name)?))
            }
        };
    }
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

/// Whether an operation of somebody may be about what it names; what he makes is labelled.
fn admit(caller: &Caller, draft: &Draft<'_>, op: &mut Op) -> Result<Verdict, Reason> {
    if caller.tenant().is_none() {
        return Ok(Verdict::Allowed);
    }
    let (name, makes) = match op {
        Op::Create(pb::Create { resource: Some(resource) }) => {
            access::label(&caller.who, resource);
            (&resource.name, true)
        }
        Op::Update(pb::Update { resource: Some(resource), update_mask, allow_missing }) => {
            if update_mask.as_ref().is_none_or(|mask| mask.paths.is_empty()) {
                access::label(&caller.who, resource);
            }
            (&resource.name, *allow_missing)
        }
        Op::Delete(pb::Delete { name, .. }) => (&*name, false),
        Op::Create(_) | Op::Update(_) => return Ok(Verdict::Allowed),
    };
    access::may_put(&caller.who, draft, &Name::parse(name)?, makes)
}
