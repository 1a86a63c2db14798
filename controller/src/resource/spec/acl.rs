//! ACLs.

use ferroflow_proto::northbound as pb;
use flowtable::types::Priority;
use ovn_northd_lite::model::{Acl, AclAction, AclDirection, AclLog, Rate, Severity};

use super::sample_collector;
use crate::{
    compile::check_match,
    resource::{FieldError, Shown, limits},
};

/// Highest priority of an ACL, as in OVN.
const MAX_ACL_PRIORITY: u32 = 32_767;
/// Last tier of ACLs, as in OVN.
const MAX_TIER: u8 = 3;

pub(super) fn parse(acl: &pb::Acl) -> Result<Acl, FieldError> {
    use pb::acl::Action;
    let direction = direction(acl.direction)?;
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
    let priority = priority(acl.priority)?;
    let matching = matching(&acl.r#match)?;
    check_label(acl.label, action)?;
    let (label, log) = (acl.label, log(acl)?);
    let (after_lb, persists) = (acl.apply_after_lb, acl.persist_established);
    if after_lb && direction != AclDirection::FromLport {
        let reason = "load balancers work at what ports send; say from-lport, or leave it out";
        return Err(FieldError::new("apply_after_lb", reason));
    }
    if persists && !matches!(action, AclAction::Allow | AclAction::AllowRelated) {
        let reason = "only connections that are allowed can stay so; leave it out";
        return Err(FieldError::new("persist_established", reason));
    }
    if acl.log_related && (log.is_none() || label == 0 || action != AclAction::AllowRelated) {
        let reason = "answers are told by the label of an ACL that logs and is allow-related; set these";
        return Err(FieldError::new("log_related", reason));
    }
    let samples = sample_collector::samples(acl, action)?;
    Ok(Acl { direction, tier, priority, matching, action, label, log, after_lb, persists, samples })
}

pub(super) fn direction(raw: i32) -> Result<AclDirection, FieldError> {
    use pb::acl::Direction;
    match Direction::try_from(raw) {
        Ok(Direction::FromLport) => Ok(AclDirection::FromLport),
        Ok(Direction::ToLport) => Ok(AclDirection::ToLport),
        Ok(Direction::Unspecified) | Err(_) => {
            let reason = format!("{raw} is not a direction; say from-lport or to-lport");
            Err(FieldError::new("direction", reason))
        }
    }
}

pub(super) fn priority(raw: u32) -> Result<Priority, FieldError> {
    let priority = u16::try_from(raw).ok().filter(|_| raw <= MAX_ACL_PRIORITY);
    priority.and_then(|raw| Priority::new(raw).ok()).ok_or_else(|| {
        FieldError::new("priority", format!("{raw} is out of range; use 0 to {MAX_ACL_PRIORITY}"))
    })
}

/// A match that can be read.
pub(super) fn matching(text: &str) -> Result<String, FieldError> {
    let wrong = |reason| FieldError::new("match", reason);
    if text.len() > limits::MAX_MATCH_LEN {
        let reason = format!("{} bytes are too long; keep to {}", text.len(), limits::MAX_MATCH_LEN);
        return Err(wrong(reason));
    }
    check_match(text).map_err(wrong)?;
    Ok(text.to_owned())
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
    let rate = match (acl.log_rate, acl.log_burst) {
        (0, 0) => None,
        (0, _) => return Err(FieldError::new("log_burst", "a burst goes with a rate; set log_rate, too")),
        (pps, burst) => Some(Rate { pps, burst: if burst == 0 { pps } else { burst } }),
    };
    let name = &acl.log_name;
    if name.len() > limits::MAX_LOG_NAME_LEN || name.chars().any(char::is_control) {
        let reason =
            format!("{} is no name for a log; use up to {} bytes", Shown(name), limits::MAX_LOG_NAME_LEN);
        return Err(FieldError::new("log_name", reason));
    }
    Ok(acl.log.then(|| AclLog { name: name.clone(), severity, rate, related: acl.log_related }))
}
