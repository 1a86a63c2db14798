//! Switches.

use std::collections::BTreeSet;

use ferroflow_proto::northbound as pb;
use ovn_northd_lite::model::DefaultPolicy;

use super::{default_policy, load_balancer::load_balancers};
use crate::resource::FieldError;

/// A switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwitchSpec {
    /// What becomes of packets that no ACL decides about.
    pub default_policy: DefaultPolicy,
    /// Ids of its load balancers.
    pub load_balancers: BTreeSet<String>,
}

pub(super) fn parse(switch: &pb::LogicalSwitch) -> Result<SwitchSpec, FieldError> {
    Ok(SwitchSpec {
        default_policy: default_policy(switch.default_policy)?,
        load_balancers: load_balancers(&switch.load_balancers)?,
    })
}
