//! Where a rule comes from: shown with flows, megaflows, drops and traces.

use ferroflow_proto::host::Origin;
use serde::Serialize;

use crate::output::as_hex;

/// What is shown of an origin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OriginView {
    /// Id of the logical flow; 0: a rule of the physical tables.
    #[serde(serialize_with = "as_hex")]
    pub logical_flow: u64,
    /// Stage or physical table.
    pub stage: String,
    /// Northbound object.
    pub object: String,
}

impl From<Origin> for OriginView {
    fn from(origin: Origin) -> Self {
        Self { logical_flow: origin.logical_flow, stage: origin.stage, object: origin.object }
    }
}

impl OriginView {
    /// `ls_out_acl_eval, logical flow 0x1f, switches/db/acls/no-telnet`, as far as known.
    pub fn text(&self) -> String {
        let flow = match self.logical_flow {
            0 => String::new(),
            id => format!("logical flow {id:#x}"),
        };
        let parts = [self.stage.as_str(), flow.as_str(), self.object.as_str()];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_left_out() {
        let mut origin =
            OriginView { logical_flow: 31, stage: "ls_out_acl_eval".into(), object: "switches/db".into() };
        assert_eq!(origin.text(), "ls_out_acl_eval, logical flow 0x1f, switches/db");
        origin.logical_flow = 0;
        origin.object.clear();
        assert_eq!(origin.text(), "ls_out_acl_eval");
        // The largest id is not rounded by a reader of JSON numbers.
        origin.logical_flow = u64::MAX;
        let json = serde_json::to_value(&origin).unwrap();
        assert_eq!(json["logical_flow"], "0xffffffffffffffff");
    }
}
