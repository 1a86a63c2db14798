//! What workloads are asked by their hosts, to see whether they live.

use ferroflow_proto::northbound as pb;
use ovn_northd_lite::model::{PortCheck, Protocol};

use super::{check_count, load_balancer::check_times};
use crate::resource::{FieldError, address, limits};

/// The checks of a switch port.
pub(super) fn parse(checks: &[pb::PortHealthCheck]) -> Result<Vec<PortCheck>, FieldError> {
    check_count("health_checks", checks.len(), limits::MAX_PORT_CHECKS)?;
    let mut found: Vec<PortCheck> = Vec::new();
    for (i, check) in checks.iter().enumerate() {
        let typed = one(&format!("health_checks[{i}]"), check)?;
        if found.iter().any(|other| other.key() == typed.key()) {
            let (protocol, asked) = typed.key();
            let reason = format!("{protocol} {asked} is there twice; keep one");
            return Err(FieldError::new(format!("health_checks[{i}]"), reason));
        }
        found.push(typed);
    }
    Ok(found)
}

fn one(path: &str, check: &pb::PortHealthCheck) -> Result<PortCheck, FieldError> {
    use pb::port_health_check::Protocol as Wire;
    let wrong = |field: &str, reason: String| FieldError::new(format!("{path}.{field}"), reason);
    let protocol = match Wire::try_from(check.protocol) {
        Ok(Wire::Unspecified) => None,
        Ok(Wire::Tcp) => Some(Protocol::Tcp),
        Ok(Wire::Udp) => Some(Protocol::Udp),
        Err(_) => {
            let reason = format!("{} is not a protocol; say tcp or udp, or nothing for icmp", check.protocol);
            return Err(wrong("protocol", reason));
        }
    };
    let ip = address::parse_ip(&check.ip).map_err(|reason| wrong("ip", reason))?;
    let source = address::parse_ip(&check.source_ip).map_err(|reason| wrong("source_ip", reason))?;
    if source.is_ipv4() != ip.is_ipv4() || source == ip {
        let reason = format!("{source} cannot ask {ip}; use another address of its network");
        return Err(wrong("source_ip", reason));
    }
    let port = u16::try_from(check.port)
        .map_err(|_| wrong("port", format!("{} is out of range; use 1 to {}", check.port, u16::MAX)))?;
    match (protocol, port) {
        (None, 1..) => return Err(wrong("port", "icmp has no ports; leave it out".to_owned())),
        (Some(protocol), 0) => {
            let reason = format!("{} asks a port; use 1 to {}", protocol.name(), u16::MAX);
            return Err(wrong("port", reason));
        }
        (None, 0) | (Some(_), 1..) => {}
    }
    let times = check_times(&format!("{path}.times"), &check.times.unwrap_or_default())?;
    Ok(PortCheck { protocol, ip, port, source, times })
}
