//! Load balancers, and which of them a switch or router uses.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use ferroflow_proto::northbound as pb;
use ovn_northd_lite::model::{Backend, HashField, LoadBalancer, Protocol, Service, Vip};

use super::{check_count, each};
use crate::resource::{FieldError, Kind, Name, Shown, address, limits};

pub(super) fn parse(balancer: &pb::LoadBalancer) -> Result<LoadBalancer, FieldError> {
    check_count("vips", balancer.vips.len(), limits::MAX_VIPS)?;
    let mut vips = BTreeMap::new();
    for (i, vip) in balancer.vips.iter().enumerate() {
        let path = format!("vips[{i}]");
        let (ip, port) =
            endpoint(&vip.address).map_err(|reason| FieldError::new(format!("{path}.address"), reason))?;
        let service = service(&path, (ip, port), &vip.backends)?;
        if vips.insert(Vip { ip, port }, service).is_some() {
            let reason =
                format!("{} is there twice; give it all its backends in one place", Shown(&vip.address));
            return Err(FieldError::new(format!("{path}.address"), reason));
        }
    }
    Ok(LoadBalancer {
        vips,
        protocol: protocol(balancer.protocol)?,
        hash_fields: balancer.hash_fields.iter().map(|field| hash_field(*field)).collect::<Result<_, _>>()?,
        reject: balancer.reject,
    })
}

fn service(path: &str, vip: (IpAddr, Option<u16>), backends: &[pb::Backend]) -> Result<Service, FieldError> {
    check_count(&format!("{path}.backends"), backends.len(), limits::MAX_BACKENDS)?;
    let parse = |(i, backend): (usize, &pb::Backend)| {
        let wrong = |reason| FieldError::new(format!("{path}.backends[{i}].address"), reason);
        let (ip, port) = endpoint(&backend.address).map_err(wrong)?;
        if ip.is_ipv4() != vip.0.is_ipv4() {
            return Err(wrong(format!("{ip} is not of the service's family; use one family")));
        }
        if port.is_some() != vip.1.is_some() {
            let reason =
                format!("{}: a backend has a port just where its service has one", Shown(&backend.address));
            return Err(wrong(reason));
        }
        Ok(Backend { ip, port, online: !backend.offline })
    };
    Ok(Service { backends: backends.iter().enumerate().map(parse).collect::<Result<_, _>>()? })
}

/// `IP:port`, `[IP]:port` or `IP`.
fn endpoint(text: &str) -> Result<(IpAddr, Option<u16>), String> {
    if let Ok(socket) = text.parse::<SocketAddr>() {
        let ip = address::parse_ip(&socket.ip().to_string())?;
        return match socket.port() {
            0 => Err(format!("{}: port 0 is nobody's; use 1 to 65535", Shown(text))),
            port => Ok((ip, Some(port))),
        };
    }
    let wrong = |_| {
        format!(
            "{} is not an address; write 192.0.2.10:80, [2001:db8::1]:80 or an address alone",
            Shown(text)
        )
    };
    address::parse_ip(text).map_err(wrong).map(|ip| (ip, None))
}

fn protocol(raw: i32) -> Result<Protocol, FieldError> {
    use pb::load_balancer::Protocol as Wire;
    match Wire::try_from(raw) {
        Ok(Wire::Unspecified) => Ok(Protocol::Tcp),
        Ok(Wire::Udp) => Ok(Protocol::Udp),
        Ok(Wire::Sctp) => Ok(Protocol::Sctp),
        Err(_) => Err(FieldError::new("protocol", format!("{raw} is not a protocol; say tcp, udp or sctp"))),
    }
}

fn hash_field(raw: i32) -> Result<HashField, FieldError> {
    use pb::load_balancer::HashField as Wire;
    match Wire::try_from(raw) {
        Ok(Wire::IpSrc) => Ok(HashField::IpSrc),
        Ok(Wire::IpDst) => Ok(HashField::IpDst),
        Ok(Wire::TpSrc) => Ok(HashField::TpSrc),
        Ok(Wire::TpDst) => Ok(HashField::TpDst),
        Ok(Wire::Unspecified) | Err(_) => {
            let reason = format!("{raw} is not a field; say ip_src, ip_dst, tp_src or tp_dst");
            Err(FieldError::new("hash_fields", reason))
        }
    }
}

/// Ids of the load balancers that a switch or router names.
pub(super) fn load_balancers(names: &[String]) -> Result<BTreeSet<String>, FieldError> {
    let id = |text: &str| match Name::parse(text) {
        Ok(name) if name.kind() == Kind::LoadBalancer => Ok(name.id().to_owned()),
        _ => Err(format!("{} does not name a load balancer; write {}", Shown(text), Kind::LoadBalancer)),
    };
    Ok(each("load_balancers", names, limits::MAX_LOAD_BALANCERS, id)?.into_iter().collect())
}
