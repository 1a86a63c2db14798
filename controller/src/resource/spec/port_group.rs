//! Port groups.

use ferroflow_proto::northbound as pb;
use ovn_northd_lite::model::DefaultPolicy;

use super::{default_policy, each};
use crate::resource::{FieldError, Kind, Name, Shown, limits};

/// A port group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortGroupSpec {
    /// Its switch ports.
    pub ports: Vec<Name>,
    /// What becomes of packets of theirs that no ACL decides about.
    pub default_policy: DefaultPolicy,
}

pub(super) fn parse(group: &pb::PortGroup) -> Result<PortGroupSpec, FieldError> {
    let port = |text: &str| match Name::parse(text) {
        Ok(name) if name.kind() == Kind::SwitchPort => Ok(name),
        _ => Err(format!("{} does not name a switch port; write {}", Shown(text), Kind::SwitchPort)),
    };
    let ports = each("ports", &group.ports, limits::MAX_GROUP_PORTS, port)?;
    Ok(PortGroupSpec { ports, default_policy: default_policy(group.default_policy)? })
}
