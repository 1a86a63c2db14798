//! Backends as hosts are told of them that end the connections to those that are taken away:
//! sets whose members are services with one backend each. No flow names them.

use std::{collections::BTreeSet, net::IpAddr};

use crate::model::{LoadBalancer, Protocol, Vip};

/// A backend of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Served {
    /// Protocol, where they have a port.
    pub protocol: Protocol,
    /// The service.
    pub vip: Vip,
    /// The backend.
    pub backend: Vip,
}

/// Name of the set with the backends of a load balancer.
pub(crate) fn set_of(id: &str) -> String {
    format!("%{id}")
}

/// The set of this name has backends.
pub fn is_set(name: &str) -> bool {
    name.starts_with('%')
}

/// Backends as members of a set; `None`: nobody need know them.
pub(crate) fn members(balancer: &LoadBalancer) -> Option<BTreeSet<String>> {
    let protocol = balancer.protocol.name();
    let services = balancer.vips.iter().flat_map(|(vip, service)| {
        service.backends.iter().map(move |backend| format!("{protocol} {vip} {backend}"))
    });
    balancer.flushes.then(|| services.collect())
}

impl Served {
    /// Reads a member of a set; `None` when it is no backend.
    pub fn parse(member: &str) -> Option<Self> {
        let words: Vec<_> = member.split(' ').collect();
        let [protocol, vip, backend] = words[..] else { return None };
        let protocol = Protocol::ALL.into_iter().find(|known| known.name() == protocol)?;
        let (vip, backend) = (endpoint(vip)?, endpoint(backend)?);
        (vip.port.is_some() == backend.port.is_some()).then_some(Self { protocol, vip, backend })
    }
}

/// `10.0.0.1:80`, `[2001:db8::1]:80`, or an address alone.
fn endpoint(text: &str) -> Option<Vip> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(Vip { ip, port: None });
    }
    let socket: std::net::SocketAddr = text.parse().ok()?;
    Some(Vip { ip: socket.ip(), port: Some(socket.port()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Backend, Service};

    #[test]
    fn backends_come_back() {
        let endpoint = |ip: &str, port| Vip { ip: ip.parse().unwrap(), port };
        let backend = |ip: &str, port| Backend { ip: ip.parse().unwrap(), port, online: false };
        let vips = [
            (
                endpoint("10.96.0.1", Some(80)),
                vec![backend("10.0.0.5", Some(8080)), backend("10.0.0.6", Some(80))],
            ),
            (endpoint("2001:db8::1", Some(80)), vec![backend("2001:db8::5", Some(8080))]),
            (endpoint("10.96.0.2", None), vec![backend("10.0.0.5", None)]),
        ];
        let vips = vips.map(|(vip, backends)| (vip, Service { backends }));
        let mut balancer = LoadBalancer { vips: vips.into(), flushes: true, ..LoadBalancer::default() };
        let back: Vec<_> =
            members(&balancer).unwrap().iter().map(|text| Served::parse(text).unwrap()).collect();
        assert_eq!(back.len(), 4);
        for Served { vip, backend, .. } in back {
            let found = balancer.vips[&vip]
                .backends
                .iter()
                .any(|one| (one.ip, one.port) == (backend.ip, backend.port));
            assert!(found, "{vip} {backend}");
        }
        balancer.flushes = false;
        assert_eq!(members(&balancer), None);
        for wrong in
            ["", "tcp", "tcp 10.0.0.1:80", "tcp 10.0.0.1:80 10.0.0.2", "ip 10.0.0.1 10.0.0.2", "tcp a b"]
        {
            assert_eq!(Served::parse(wrong), None, "{wrong}");
        }
    }
}
