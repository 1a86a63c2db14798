//! ACLs.

use ferroflow_proto::northbound as pb;
use flowtable::types::Priority;
use ovn_northd_lite::model::{Acl, AclAction, AclDirection, AclLog, Severity};

use crate::{
    compile::check_match,
    resource::{FieldError, Shown, limits},
};

/// Highest priority of an ACL, as in OVN.
const MAX_ACL_PRIORITY: u32 = 32_767;
/// Last tier of ACLs, as in OVN.
const MAX_TIER: u8 = 3;

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
    let action = match Action::try_from(acl.action) {
        Ok(Action::Allow) => AclAction::Allow,
        Ok(Action::AllowRelated) => AclAction::AllowRelated,
        Ok(Action::AllowStateless) => AclAction::AllowStateless,
        Ok(Action::Drop) => AclAction::Drop,
        Ok(Action::Reject) => AclAction::Reject,
        Ok(Action::Pass) => AclAction::Pass,
        Ok(Action::Unspecified) | Err(_) => {
            let reason = format!(
                "{} is not an action; say allow, allow-related, allow-stateless, drop, reject or pass",
                acl.action
            );
            return Err(FieldError::new("action", reason));
        }
    };
    let tier = u8::try_from(acl.tier).ok().filter(|tier| *tier <= MAX_TIER).ok_or_else(|| {
        FieldError::new("tier", format!("{} is out of range; use 0 to {MAX_TIER}", acl.tier))
    })?;
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
    check_label(acl.label, action)?;
    let matching = acl.r#match.clone();
    Ok(Acl { direction, tier, priority, matching, action, label: acl.label, log: log(acl)? })
}

fn check_label(label: u32, action: AclAction) -> Result<(), FieldError> {
    match action {
        AclAction::Allow | AclAction::AllowRelated => Ok(()),
        _ if label == 0 => Ok(()),
        _ => {
            let reason = "only connections that are allowed are remembered with a label; leave it 0";
            Err(FieldError::new("label", reason))
        }
    }
}

fn log(acl: &pb::Acl) -> Result<Option<AclLog>, FieldError> {
    use pb::acl::Severity as Wire;
    let severity = match Wire::try_from(acl.severity) {
        Ok(Wire::Debug) => Severity::Debug,
        Ok(Wire::Unspecified | Wire::Info) => Severity::Info,
        Ok(Wire::Notice) => Severity::Notice,
        Ok(Wire::Warning) => Severity::Warning,
        Ok(Wire::Alert) => Severity::Alert,
        Err(_) => {
            let reason = format!("{} is not a severity; say debug to alert", acl.severity);
            return Err(FieldError::new("severity", reason));
        }
    };
    let name = &acl.log_name;
    if name.len() > limits::MAX_LOG_NAME_LEN || name.chars().any(char::is_control) {
        let reason =
            format!("{} is no name for a log; use up to {} bytes", Shown(name), limits::MAX_LOG_NAME_LEN);
        return Err(FieldError::new("log_name", reason));
    }
    Ok(acl.log.then(|| AclLog { name: name.clone(), severity }))
}
