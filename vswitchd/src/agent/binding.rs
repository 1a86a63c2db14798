//! Bindings of ports, from the controller's words.

use ferroflow_proto::chassis::{self as pb, port_binding::Wire as Encoded};
use flowtable::types::VlanId;
use ovn_northd_lite::southbound::{
    Announced, Candidate, HealthCheck, PortBinding, Probe, Protocol, Session, Shaping, Vip, Wire,
};

use super::decode::{UpdateError, advertises, datapath_key, port_key};

/// A binding with its id.
///
/// # Errors
/// Names what is wrong.
pub(super) fn port_binding(binding: pb::PortBinding) -> Result<(String, PortBinding), UpdateError> {
    let some = |text: String| (!text.is_empty()).then_some(text);
    let name = binding.name;
    let candidate = |candidate: pb::Candidate| match u16::try_from(candidate.priority) {
        Ok(priority) => Ok(Candidate { chassis: candidate.chassis, priority }),
        Err(_) => Err(wrong(&name, "priority", candidate.priority.to_string())),
    };
    let typed = PortBinding {
        datapath: datapath_key(binding.datapath, &name)?,
        key: port_key(binding.key, &name)?,
        peer: some(binding.peer),
        chassis: some(binding.chassis),
        advertises: binding.advertises.and_then(advertises),
        gateway: binding.gateway.into_iter().map(candidate).collect::<Result<_, _>>()?,
        open_for: binding.open_for.into_iter().collect(),
        announced: binding
            .announced
            .into_iter()
            .map(|one| announced(&name, one))
            .collect::<Result<_, _>>()?,
        probes: binding.probes.into_iter().map(|one| probe(&name, one)).collect::<Result<_, _>>()?,
        sessions: binding.sessions.into_iter().map(|one| session(&name, one)).collect::<Result<_, _>>()?,
        shaping: binding.shaping.map(|shaping| Shaping {
            min: Some(shaping.min_rate).filter(|rate| *rate > 0),
            max: Some(shaping.max_rate).filter(|rate| *rate > 0),
            burst: Some(shaping.burst).filter(|bits| *bits > 0),
        }),
        additional: binding.additional_chassis.into_iter().collect(),
        awaits_rarp: binding.awaits_rarp,
        tracked: binding.tracked,
        max_connections: Some(binding.ct_zone_limit).filter(|n| *n > 0),
        wire: binding.wire.map_or(Ok(Wire::Own), |encoded| wire(&name, encoded))?,
    };
    Ok((name, typed))
}

fn wire(port: &str, wire: Encoded) -> Result<Wire, UpdateError> {
    Ok(match wire {
        Encoded::Network(pb::NetworkWire { name, tag, is_service }) => {
            let tag = if tag == 0 { None } else { Some(vlan(port, tag)?) };
            Wire::Network { name, tag, is_service }
        }
        Encoded::RedirectStage(stage) => {
            let stage = u8::try_from(stage).map_err(|_| wrong(port, "redirect_stage", stage.to_string()))?;
            Wire::Redirect { stage }
        }
        Encoded::Nested(pb::NestedWire { parent, tag }) => Wire::Nested { parent, tag: vlan(port, tag)? },
        Encoded::EachChassis(true) => Wire::EachChassis,
        Encoded::External(true) => Wire::External,
        Encoded::EachChassis(false) | Encoded::External(false) => Wire::Own,
    })
}

fn announced(port: &str, announced: pb::Announced) -> Result<Announced, UpdateError> {
    let ip = match announced.ip.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|_| wrong(port, "announced ip", text.to_owned()))?),
    };
    let mac = announced.mac.parse().map_err(|_| wrong(port, "announced mac", announced.mac.clone()))?;
    Ok(Announced { mac, ip, port: announced.port })
}

fn probe(port: &str, wire: pb::Probe) -> Result<Probe, UpdateError> {
    let protocol = Protocol::ALL.into_iter().find(|protocol| protocol.name() == wire.protocol);
    if protocol.is_none() && wire.protocol != "icmp" {
        return Err(wrong(port, "protocol of a probe", wire.protocol));
    }
    let short = |what, n: u32| u16::try_from(n).map_err(|_| wrong(port, what, n.to_string()));
    let address = |what, text: &str| text.parse().map_err(|_| wrong(port, what, text.to_owned()));
    let (ip, number) =
        (address("probed address", &wire.backend_ip)?, short("probed port", wire.backend_port)?);
    let vip_port = Some(short("port of a service", wire.vip_port)?).filter(|port| *port > 0);
    Ok(Probe {
        protocol,
        vip: Vip { ip: address("address of a service", &wire.vip_ip)?, port: vip_port },
        backend: (ip, number),
        mac: wire.mac.parse().map_err(|_| wrong(port, "probed MAC address", wire.mac.clone()))?,
        source: address("source of a probe", &wire.source)?,
        check: HealthCheck {
            interval: short("interval of a probe", wire.interval)?,
            timeout: short("timeout of a probe", wire.timeout)?,
            n_successes: short("number of successes", wire.n_successes)?,
            n_failures: short("number of failures", wire.n_failures)?,
        },
        balancer: wire.load_balancer,
    })
}

fn session(port: &str, wire: pb::Session) -> Result<Session, UpdateError> {
    let address = |what, text: &str| text.parse().map_err(|_| wrong(port, what, text.to_owned()));
    let multiplier = u8::try_from(wire.detect_multiplier).ok().filter(|multiplier| *multiplier > 0);
    let multiplier = multiplier
        .ok_or_else(|| wrong(port, "multiplier of a session", wire.detect_multiplier.to_string()))?;
    Ok(Session {
        peer: address("peer of a session", &wire.peer)?,
        source: address("source of a session", &wire.source)?,
        mac: wire.mac.parse().map_err(|_| wrong(port, "MAC address of a session", wire.mac.clone()))?,
        min_tx: wire.min_tx,
        min_rx: wire.min_rx,
        multiplier,
    })
}

fn vlan(port: &str, tag: u32) -> Result<VlanId, UpdateError> {
    let id = u16::try_from(tag).ok().and_then(|tag| VlanId::new(tag).ok());
    id.ok_or_else(|| wrong(port, "VLAN tag", tag.to_string()))
}

fn wrong(port: &str, what: &'static str, value: String) -> UpdateError {
    UpdateError::Binding { port: port.to_owned(), what, value }
}
