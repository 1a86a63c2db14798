//! Load balancers, and which of them a switch or router uses.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use ferroflow_proto::northbound as pb;
use ovn_northd_lite::{
    model::{
        Backend, HashField, HealthCheck, LoadBalancer, ProbePoint, Protocol, Responder, Service,
        TemplateBackend, TemplatePort, TemplateService, Vip,
    },
    template,
};

use super::{check_count, each};
use crate::resource::{FieldError, Kind, Name, Shown, address, limits};

/// Most seconds between two questions to a backend, or for an answer.
const MAX_CHECK_TIME: u16 = 3600;
/// Most answers in a row that may be asked for.
const MAX_CHECK_COUNT: u16 = 1000;

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
        hash_fields: hash_fields("hash_fields", &balancer.hash_fields)?,
        reject: balancer.reject,
        affinity: affinity(balancer.affinity_timeout)?,
        health_check: balancer
            .health_check
            .as_ref()
            .map(|check| health_check(balancer, check))
            .transpose()?,
        probe_points: probe_points(&balancer.probe_points)?,
        skip_snat: balancer.skip_snat,
        responder: responder(balancer.neighbor_responder)?,
        add_route: balancer.add_route,
        event: balancer.event,
        templates: templates(balancer)?,
        hairpin_sources: hairpin_sources(balancer)?,
        flushes: balancer.ct_flush,
        stateless: stateless(balancer)?,
    })
}

/// What clients become that are their own backend.
fn hairpin_sources(balancer: &pb::LoadBalancer) -> Result<Vec<IpAddr>, FieldError> {
    let field = "hairpin_snat_ips";
    let ips = each(field, &balancer.hairpin_snat_ips, 2, address::parse_ip)?;
    match ips.as_slice() {
        [one, other] if one.is_ipv4() == other.is_ipv4() => {
            Err(FieldError::new(field, "there are two addresses of a family; keep one"))
        }
        _ => Ok(ips),
    }
}

/// It may translate without a memory.
fn stateless(balancer: &pb::LoadBalancer) -> Result<bool, FieldError> {
    let needs_memory = balancer.affinity_timeout > 0 || !balancer.templates.is_empty();
    if balancer.use_stateless_nat && needs_memory {
        let reason = "`affinity_timeout` and `templates` need a memory of connections; keep them in a load \
                      balancer of their own";
        return Err(FieldError::new("use_stateless_nat", reason));
    }
    Ok(balancer.use_stateless_nat)
}

fn affinity(timeout: u32) -> Result<Option<u16>, FieldError> {
    let timeout = u16::try_from(timeout).map_err(|_| {
        FieldError::new("affinity_timeout", format!("{timeout} is out of range; use up to {}", u16::MAX))
    })?;
    Ok(Some(timeout).filter(|timeout| *timeout > 0))
}

fn health_check(balancer: &pb::LoadBalancer, check: &pb::HealthCheck) -> Result<HealthCheck, FieldError> {
    if protocol(balancer.protocol)? == Protocol::Sctp {
        let reason = "backends are asked by tcp and udp; leave it out";
        return Err(FieldError::new("health_check", reason));
    }
    check_times("health_check", check)
}

/// How often somebody is asked, and what counts.
pub(super) fn check_times(path: &str, check: &pb::HealthCheck) -> Result<HealthCheck, FieldError> {
    let wrong = |field: &str, reason: String| FieldError::new(format!("{path}{field}"), reason);
    let bounded = |field, value: u32, usual: u16, most: u16| match u16::try_from(value) {
        Ok(0) => Ok(usual),
        Ok(value) if value <= most => Ok(value),
        Ok(_) | Err(_) => Err(wrong(field, format!("{value} is out of range; use up to {most}"))),
    };
    Ok(HealthCheck {
        interval: bounded(".interval", check.interval, 5, MAX_CHECK_TIME)?,
        timeout: bounded(".timeout", check.timeout, 20, MAX_CHECK_TIME)?,
        n_successes: bounded(".success_count", check.success_count, 3, MAX_CHECK_COUNT)?,
        n_failures: bounded(".failure_count", check.failure_count, 3, MAX_CHECK_COUNT)?,
    })
}

fn probe_points(points: &[pb::ProbePoint]) -> Result<BTreeMap<IpAddr, ProbePoint>, FieldError> {
    check_count("probe_points", points.len(), limits::MAX_BACKENDS)?;
    let mut found = BTreeMap::new();
    for (i, point) in points.iter().enumerate() {
        let wrong = |field: &str, reason| FieldError::new(format!("probe_points[{i}].{field}"), reason);
        let ip = address::parse_ip(&point.backend_ip).map_err(|reason| wrong("backend_ip", reason))?;
        let source = address::parse_ip(&point.source_ip).map_err(|reason| wrong("source_ip", reason))?;
        if source.is_ipv4() != ip.is_ipv4() || source == ip {
            let reason = format!("{source} cannot ask {ip}; use another address of the backend's network");
            return Err(wrong("source_ip", reason));
        }
        let port = Name::parse(&point.logical_port).ok().filter(|name| name.kind() == Kind::SwitchPort);
        let Some((switch, port)) = port.and_then(|port| Some((port.parent()?.id().to_owned(), port))) else {
            let port = Shown(&point.logical_port);
            let reason = format!("{port} does not name a switch port; write {}", Kind::SwitchPort);
            return Err(wrong("logical_port", reason));
        };
        let point = ProbePoint { switch, port: port.id().to_owned(), source };
        if found.insert(ip, point).is_some() {
            return Err(wrong("backend_ip", format!("{ip} is there twice; keep one")));
        }
    }
    Ok(found)
}

/// Services some of which is what variables have.
fn templates(balancer: &pb::LoadBalancer) -> Result<Vec<TemplateService>, FieldError> {
    check_count("templates", balancer.templates.len(), limits::MAX_VIPS)?;
    if !balancer.templates.is_empty() && balancer.affinity_timeout > 0 {
        let reason = "clients of templates do not come back to their backend; clear it, or keep templates in \
                      a load balancer of their own";
        return Err(FieldError::new("affinity_timeout", reason));
    }
    let each = balancer.templates.iter().enumerate();
    let mut services =
        each.map(|(i, service)| template_service(i, service)).collect::<Result<Vec<_>, _>>()?;
    services.sort();
    let place = |service: &TemplateService| (service.is_v4, service.address.clone(), service.port.clone());
    if let Some(pair) = services.windows(2).find(|pair| place(&pair[0]) == place(&pair[1])) {
        let reason = format!("^{} is there twice; give it all its backends in one place", pair[0].address);
        return Err(FieldError::new("templates", reason));
    }
    Ok(services)
}

fn template_service(i: usize, wire: &pb::TemplateService) -> Result<TemplateService, FieldError> {
    let field = |field: &str| format!("templates[{i}].{field}");
    let address = template::variable(&wire.address).ok_or_else(|| {
        let reason = format!("{} is not a variable; write ^NAME", Shown(&wire.address));
        FieldError::new(field("address"), reason)
    })?;
    let port = match wire.port.as_str() {
        "" => None,
        text => Some(match (template::variable(text), text.parse::<u16>()) {
            (Some(id), _) => TemplatePort::Variable(id.to_owned()),
            (None, Ok(port)) if port > 0 => TemplatePort::Number(port),
            _ => {
                let reason = format!("{} is not a port; write 1 to 65535, or ^NAME", Shown(text));
                return Err(FieldError::new(field("port"), reason));
            }
        }),
    };
    check_count(&field("backends"), wire.backends.len(), limits::MAX_BACKENDS)?;
    let backend = |(n, text): (usize, &String)| {
        let wrong = |reason| FieldError::new(format!("templates[{i}].backends[{n}]"), reason);
        if let Some(id) = template::variable(text) {
            return Ok(TemplateBackend::Variable(id.to_owned()));
        }
        let (ip, own_port) = endpoint(text).map_err(wrong)?;
        if ip.is_ipv4() == wire.ipv6 {
            return Err(wrong(format!("{ip} is not of the service's family; see `ipv6`")));
        }
        if own_port.is_some() != port.is_some() {
            let reason = format!("{}: a backend has a port just where its service has one", Shown(text));
            return Err(wrong(reason));
        }
        Ok(TemplateBackend::Fixed(Vip { ip, port: own_port }))
    };
    let backends = wire.backends.iter().enumerate().map(backend).collect::<Result<_, _>>()?;
    Ok(TemplateService { is_v4: !wire.ipv6, address: address.to_owned(), port, backends })
}

/// A backend of a service, as it is written everywhere; `None`: these are no addresses.
pub(crate) fn backend_key(vip: &str, backend: &str) -> Option<(String, String)> {
    let text = |text| {
        let (ip, port) = endpoint(text).ok()?;
        Some(Vip { ip, port }.to_string())
    };
    Some((text(vip)?, text(backend)?))
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

fn responder(raw: i32) -> Result<Responder, FieldError> {
    use pb::load_balancer::NeighborResponder as Wire;
    match Wire::try_from(raw) {
        Ok(Wire::Unspecified) => Ok(Responder::Reachable),
        Ok(Wire::All) => Ok(Responder::All),
        Ok(Wire::None) => Ok(Responder::None),
        Err(_) => {
            let reason = format!("{raw} is not one; say all or none, or leave it out");
            Err(FieldError::new("neighbor_responder", reason))
        }
    }
}

/// Fields that decide among several.
pub(super) fn hash_fields(field: &str, raw: &[i32]) -> Result<Vec<HashField>, FieldError> {
    use pb::load_balancer::HashField as Wire;
    let one = |raw: &i32| match Wire::try_from(*raw) {
        Ok(Wire::IpSrc) => Ok(HashField::IpSrc),
        Ok(Wire::IpDst) => Ok(HashField::IpDst),
        Ok(Wire::TpSrc) => Ok(HashField::TpSrc),
        Ok(Wire::TpDst) => Ok(HashField::TpDst),
        Ok(Wire::Unspecified) | Err(_) => {
            let reason = format!("{raw} is not a field; say ip_src, ip_dst, tp_src or tp_dst");
            Err(FieldError::new(field, reason))
        }
    };
    check_count(field, raw.len(), limits::MAX_HASH_FIELDS)?;
    raw.iter().map(one).collect()
}

/// Load balancers with a name.
pub(super) fn parse_group(group: &pb::LoadBalancerGroup) -> Result<Vec<Name>, FieldError> {
    let name = |text: &str| match Name::parse(text) {
        Ok(name) if name.kind() == Kind::LoadBalancer => Ok(name),
        _ => Err(format!("{} does not name a load balancer; write {}", Shown(text), Kind::LoadBalancer)),
    };
    each("load_balancers", &group.load_balancers, limits::MAX_GROUP_BALANCERS, name)
}

/// Ids of the groups of load balancers that a switch or router names.
pub(super) fn balancer_groups(names: &[String]) -> Result<BTreeSet<String>, FieldError> {
    let id = |text: &str| match Name::parse(text) {
        Ok(name) if name.kind() == Kind::LoadBalancerGroup => Ok(name.id().to_owned()),
        _ => Err(format!("{} does not name a group; write {}", Shown(text), Kind::LoadBalancerGroup)),
    };
    Ok(each("load_balancer_groups", names, limits::MAX_BALANCER_GROUPS, id)?.into_iter().collect())
}

/// Ids of the load balancers that a switch or router names.
pub(super) fn load_balancers(names: &[String]) -> Result<BTreeSet<String>, FieldError> {
    let id = |text: &str| match Name::parse(text) {
        Ok(name) if name.kind() == Kind::LoadBalancer => Ok(name.id().to_owned()),
        _ => Err(format!("{} does not name a load balancer; write {}", Shown(text), Kind::LoadBalancer)),
    };
    Ok(each("load_balancers", names, limits::MAX_LOAD_BALANCERS, id)?.into_iter().collect())
}
