//! Hosts.

use std::net::IpAddr;

use ferroflow_proto::northbound as pb;
use flowtable::program::TunnelKind;

use crate::resource::{FieldError, address, limits};

/// A host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChassisSpec {
    /// Its name in the operator's world.
    pub hostname: String,
    /// Where it takes tunnelled packets.
    pub encap_ip: IpAddr,
    /// How others may send to it, the way it likes best first; none: by Geneve.
    pub encap_types: Vec<TunnelKind>,
}

pub(super) fn parse(chassis: &pb::Chassis) -> Result<ChassisSpec, FieldError> {
    let encap_ip =
        address::parse_ip(&chassis.encap_ip).map_err(|reason| FieldError::new("encap_ip", reason))?;
    let hostname = chassis.hostname.clone();
    if hostname.len() > limits::MAX_HOSTNAME_LEN {
        let reason = format!("{} bytes are too long; keep to {}", hostname.len(), limits::MAX_HOSTNAME_LEN);
        return Err(FieldError::new("hostname", reason));
    }
    let encap_types = encap_types(&chassis.encap_types)?;
    Ok(ChassisSpec { hostname, encap_ip, encap_types })
}

fn encap_types(names: &[String]) -> Result<Vec<TunnelKind>, FieldError> {
    let mut kinds = Vec::new();
    for name in names {
        let wrong = |reason: &str| FieldError::new("encap_types", format!("`{name}` {reason}"));
        let known = TunnelKind::of_name(name).filter(|kind| TunnelKind::OF_NETWORKS.contains(kind));
        let kind = known.ok_or_else(|| wrong("is unknown; use geneve or vxlan"))?;
        if kinds.contains(&kind) {
            return Err(wrong("is there twice"));
        }
        kinds.push(kind);
    }
    Ok(kinds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encapsulations_are_known_and_there_once() {
        let parse = |names: &[&str]| {
            let encap_types = names.iter().map(|name| (*name).to_owned()).collect();
            let encap_ip = "192.0.2.1".to_owned();
            super::parse(&pb::Chassis { encap_ip, encap_types, ..pb::Chassis::default() })
        };
        assert_eq!(parse(&[]).unwrap().encap_types, []);
        let both = [TunnelKind::Vxlan, TunnelKind::Geneve];
        assert_eq!(parse(&["vxlan", "geneve"]).unwrap().encap_types, both);
        for wrong in [&["gre"] as &[&str], &["VXLAN"], &[""], &["vxlan", "vxlan"]] {
            assert_eq!(parse(wrong).unwrap_err().field, "encap_types");
        }
    }
}
