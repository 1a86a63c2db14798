//! What load balancers of switches and of routers have in common: which packets are for a
//! service, and what a new connection gets.

use std::net::IpAddr;

use crate::model::{LoadBalancer, Protocol, Service, Vip};

/// A service of a load balancer.
pub(crate) struct Balanced<'a> {
    pub(crate) object: String,
    pub(crate) balancer: &'a LoadBalancer,
    pub(crate) vip: &'a Vip,
    pub(crate) service: &'a Service,
}

/// A load balancer with its id.
#[derive(Clone, Copy)]
pub(crate) struct NamedBalancer<'a> {
    pub(crate) id: &'a str,
    pub(crate) balancer: &'a LoadBalancer,
}

impl<'a> NamedBalancer<'a> {
    /// Its services.
    pub(crate) fn services(self) -> impl Iterator<Item = Balanced<'a>> {
        let object = format!("load-balancers/{}", self.id);
        let Self { balancer, .. } = self;
        balancer.vips.iter().map(move |(vip, service)| Balanced {
            object: object.clone(),
            balancer,
            vip,
            service,
        })
    }
}

impl Balanced<'_> {
    /// `ip4` or `ip6`.
    pub(crate) fn family(&self) -> &'static str {
        family(self.vip.ip)
    }

    /// Packets to the service's address.
    pub(crate) fn to_address(&self) -> String {
        format!("{}.dst == {}", self.family(), self.vip.ip)
    }

    /// Packets to the service.
    pub(crate) fn to_service(&self) -> String {
        match self.vip.port {
            Some(port) => format!("{} && {}.dst == {port}", self.to_address(), self.protocol()),
            None => self.to_address(),
        }
    }

    /// Name of the protocol.
    pub(crate) fn protocol(&self) -> &'static str {
        self.balancer.protocol.name()
    }

    /// A service of one port goes before its whole address.
    pub(crate) fn priority(&self) -> u16 {
        if self.vip.port.is_some() { 120 } else { 110 }
    }

    /// What a new connection gets, and why.
    pub(crate) fn actions(&self, reject: impl Fn(&str) -> String) -> (String, &'static str) {
        let backends: Vec<_> = self.service.online().map(ToString::to_string).collect();
        if !backends.is_empty() {
            let fields: Vec<_> = self.balancer.hash_fields.iter().map(|field| field.name()).collect();
            let fields = if fields.is_empty() {
                String::new()
            } else {
                format!("; hash_fields=\"{}\"", fields.join(","))
            };
            let actions = format!("ct_lb_mark(backends=\"{}\"{fields});", backends.join(","));
            return (actions, "A new connection to the service gets one of its backends.");
        }
        let why = "The service has no backend that is online.";
        if self.balancer.reject { (reject(self.family()), why) } else { ("drop;".to_owned(), why) }
    }

    /// The service's connections can be reset.
    pub(crate) fn is_tcp(&self) -> bool {
        self.vip.port.is_some() && self.balancer.protocol == Protocol::Tcp
    }
}

/// `ip4` or `ip6`.
pub(crate) fn family(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "ip4" } else { "ip6" }
}
