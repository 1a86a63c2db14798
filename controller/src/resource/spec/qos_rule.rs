//! Rules about quality of service.

use ferroflow_proto::northbound as pb;
use ovn_northd_lite::model::{Bandwidth, QosRule};

use super::acl::{direction, matching, priority};
use crate::resource::FieldError;

/// Highest code point (RFC 2474 §3).
const MAX_DSCP: u32 = 63;

pub(super) fn parse(rule: &pb::QosRule) -> Result<QosRule, FieldError> {
    let dscp = match rule.dscp {
        Some(dscp) => Some(u8::try_from(dscp).ok().filter(|_| dscp <= MAX_DSCP).ok_or_else(|| {
            FieldError::new("dscp", format!("{dscp} is not a code point; use 0 to {MAX_DSCP}"))
        })?),
        None => None,
    };
    let bandwidth = bandwidth(rule)?;
    if dscp.is_none() && bandwidth.is_none() {
        return Err(FieldError::new("rate_kbps", "the rule does nothing; set rate_kbps or dscp"));
    }
    Ok(QosRule {
        direction: direction(rule.direction)?,
        priority: priority(rule.priority)?,
        matching: matching(&rule.r#match)?,
        dscp,
        bandwidth,
    })
}

fn bandwidth(rule: &pb::QosRule) -> Result<Option<Bandwidth>, FieldError> {
    match (rule.rate_kbps, rule.burst_kbit) {
        (0, 0) => Ok(None),
        (0, _) => Err(FieldError::new("burst_kbit", "a burst goes with a rate; set rate_kbps, too")),
        // As many as in a second.
        (kbps, 0) => Ok(Some(Bandwidth { kbps, burst_kbit: kbps })),
        (kbps, burst_kbit) => Ok(Some(Bandwidth { kbps, burst_kbit })),
    }
}
