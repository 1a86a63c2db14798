//! ACLs.

use ferroflow_proto::northbound as pb;
use flowtable::types::Priority;
use ovn_northd_lite::model::{Acl, AclAction, AclDirection};

use crate::{
    compile::check_match,
    resource::{FieldError, limits},
};

/// Highest priority of an ACL, as in OVN.
const MAX_ACL_PRIORITY: u32 = 32_767;

pub(super) fn parse(acl: &pb::Acl) -> Result<Acl, FieldError> {
    use pb::acl::{Action, Direction};
    let direction = match Direction::try_from(acl.direction) {
        Ok(Direction::FromLport) => AclDirection::FromLport,
        Ok(Direction::ToLport) => AclDirection::ToLport,
        Ok(Direction::Unspecified) | Err(_) => {
            let reason = format!("{} is not a direction; say from-lport or to-lport", acl.direction);
            return Err(FieldError::new("direction", reason));
        }
    };
    let needs_tracking = |action: &str| {
        let reason = format!(
            "{action} needs connection tracking, which this version lacks; use allow-stateless or drop"
        );
        Err(FieldError::new("action", reason))
    };
    let action = match Action::try_from(acl.action) {
        Ok(Action::Allow) => AclAction::Allow,
        Ok(Action::AllowStateless) => AclAction::AllowStateless,
        Ok(Action::Drop) => AclAction::Drop,
        Ok(Action::AllowRelated) => return needs_tracking("allow-related"),
        Ok(Action::Reject) => return needs_tracking("reject"),
        Ok(Action::Unspecified) | Err(_) => {
            let reason = format!("{} is not an action; say allow, allow-stateless or drop", acl.action);
            return Err(FieldError::new("action", reason));
        }
    };
    let priority = u16::try_from(acl.priority)
        .ok()
        .filter(|_| acl.priority <= MAX_ACL_PRIORITY)
        .and_then(|raw| Priority::new(raw).ok())
        .ok_or_else(|| {
            let reason = format!("{} is out of range; use 0 to {MAX_ACL_PRIORITY}", acl.priority);
            FieldError::new("priority", reason)
        })?;
    let wrong_match = |reason| FieldError::new("match", reason);
    if acl.r#match.len() > limits::MAX_MATCH_LEN {
        let reason = format!("{} bytes are too long; keep to {}", acl.r#match.len(), limits::MAX_MATCH_LEN);
        return Err(wrong_match(reason));
    }
    check_match(&acl.r#match).map_err(wrong_match)?;
    Ok(Acl { direction, priority, matching: acl.r#match.clone(), action })
}

