//! Hosts that may be a gateway, and networks outside.

use std::collections::BTreeSet;

use ferroflow_proto::northbound as pb;
use flowtable::types::VlanId;
use ovn_northd_lite::model::{Candidate, Gateway};

use super::{check_count, reference, router::chassis};
use crate::resource::{FieldError, Kind, Shown, check_id, limits};

/// Highest priority of a candidate, as in OVN.
const MAX_PRIORITY: u32 = 32_767;
/// Highest VLAN of a tag (IEEE 802.1Q).
const MAX_TAG: u32 = 4094;

/// The candidates, the best first.
pub(super) fn candidates(list: &[pb::GatewayChassis]) -> Result<Vec<Candidate>, FieldError> {
    check_count("gateway_chassis", list.len(), limits::MAX_CANDIDATES)?;
    let mut seen = BTreeSet::new();
    let mut candidates = Vec::with_capacity(list.len());
    for (i, candidate) in list.iter().enumerate() {
        let wrong =
            |field: &str, reason: String| FieldError::new(format!("gateway_chassis[{i}].{field}"), reason);
        let id = chassis(&candidate.chassis).map_err(|error| wrong("chassis", error.reason))?;
        let id = id.ok_or_else(|| wrong("chassis", "a candidate is a chassis; name it".to_owned()))?;
        if !seen.insert(id.clone()) {
            return Err(wrong("chassis", format!("{} is in the list already", candidate.chassis)));
        }
        let priority = u16::try_from(candidate.priority).ok().filter(|_| candidate.priority <= MAX_PRIORITY);
        let priority = priority.ok_or_else(|| {
            wrong("priority", format!("{} is out of range; use 0 to {MAX_PRIORITY}", candidate.priority))
        })?;
        candidates.push(Candidate { priority, chassis: id });
    }
    Ok(Candidate::ranked(candidates))
}

/// Hosts that may be the gateway: those of a list, or of a group.
pub(super) fn gateway(list: &[pb::GatewayChassis], group: &str) -> Result<Gateway, FieldError> {
    match reference("ha_chassis_group", Kind::HaChassisGroup, group)? {
        None => candidates(list).map(Gateway::Hosts),
        Some(_) if !list.is_empty() => {
            let reason = "the hosts are those of gateway_chassis already; leave one of them out";
            Err(FieldError::new("ha_chassis_group", reason))
        }
        Some(id) => Ok(Gateway::Group(id)),
    }
}

/// Hosts with a name.
pub(super) fn parse_group(group: &pb::HaChassisGroup) -> Result<Vec<Candidate>, FieldError> {
    let hosts = candidates(&group.chassis).map_err(|error| {
        let field = error.field.replacen("gateway_chassis", "chassis", 1);
        FieldError { field, ..error }
    })?;
    if hosts.is_empty() {
        return Err(FieldError::new("chassis", "a group without hosts would be nowhere; name one"));
    }
    Ok(hosts)
}

/// A VLAN tag; 0: none.
pub(super) fn tag(tag: u32) -> Result<Option<VlanId>, FieldError> {
    if tag == 0 {
        return Ok(None);
    }
    let vlan = u16::try_from(tag).ok().filter(|_| tag <= MAX_TAG).and_then(|tag| VlanId::new(tag).ok());
    let wrong = || FieldError::new("tag", format!("{tag} is not a VLAN; use 1 to {MAX_TAG}, or 0 for none"));
    vlan.map(Some).ok_or_else(wrong)
}

/// The name of a network outside.
pub(super) fn network(name: &str) -> Result<String, FieldError> {
    check_id(name).map_err(|_| {
        let reason = format!(
            "{} is not the name of a network; use 1 to 63 of a-z A-Z 0-9 . _ - as hosts do with \
             `port add --network`",
            Shown(name)
        );
        FieldError::new("network_name", reason)
    })?;
    Ok(name.to_owned())
}
