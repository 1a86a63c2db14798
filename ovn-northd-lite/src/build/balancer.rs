//! What load balancers of switches and of routers have in common: which packets are for a
//! service, and what a new connection gets.

use std::net::IpAddr;

use super::{sink::FlowSink, stage::Stage};
use crate::{
    actions::CommitAffinity,
    model::{LoadBalancer, Protocol, Service, Vip},
};

/// A service of a load balancer.
pub(crate) struct Balanced<'a> {
    pub(crate) object: String,
    /// Packets that it is for, ending in ` && ` when there is a condition.
    pub(crate) at: String,
    /// What becomes of the sources of its connections: what `ct_lb_mark` is told, or nothing.
    pub(crate) source: &'static str,
    pub(crate) balancer: &'a LoadBalancer,
    pub(crate) vip: &'a Vip,
    pub(crate) service: &'a Service,
}

/// Stages that have to do with clients that come back.
#[derive(Clone, Copy)]
pub(crate) struct Affinity {
    pub(crate) check: Stage,
    pub(crate) connect: Stage,
    pub(crate) learn: Stage,
}

/// A load balancer with its id.
#[derive(Clone, Copy)]
pub(crate) struct NamedBalancer<'a> {
    pub(crate) id: &'a str,
    pub(crate) balancer: &'a LoadBalancer,
}

impl<'a> NamedBalancer<'a> {
    /// Its services, for all packets.
    pub(crate) fn services(self) -> impl Iterator<Item = Balanced<'a>> {
        self.services_at("")
    }

    /// Its services for packets with a condition, which ends in ` && `; empty: all packets.
    pub(crate) fn services_at(self, at: &str) -> impl Iterator<Item = Balanced<'a>> + use<'a> {
        let (object, at) = (format!("load-balancers/{}", self.id), at.to_owned());
        let Self { balancer, .. } = self;
        balancer.vips.iter().map(move |(vip, service)| Balanced {
            object: object.clone(),
            at: at.clone(),
            source: "",
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
        format!("{}{}.dst == {}", self.at, self.family(), self.vip.ip)
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
            let actions = format!("ct_lb_mark(backends=\"{}\"{fields}{});", backends.join(","), self.source);
            return (actions, "A new connection to the service gets one of its backends.");
        }
        let why = "The service has no backend that is online.";
        if self.balancer.reject { (reject(self.family()), why) } else { ("drop;".to_owned(), why) }
    }

    /// Clients that come back get the backend they had, as long as it is online.
    pub(crate) fn keep_clients(&self, sink: &mut FlowSink, stages: Affinity) {
        let Some(timeout) = self.balancer.affinity else { return };
        let (object, new) = (&self.object, format!("ct.new && {}", self.to_service()));
        let (family, address) = (self.family(), if self.vip.ip.is_ipv4() { "reg4" } else { "xxreg1" });
        let port_field = self.vip.port.map(|_| format!("{}.dst", self.protocol()));
        let keep = port_field.as_ref().map(|field| format!("reg1[16..31] = {field}; ")).unwrap_or_default();
        let actions = format!("{address} = {family}.dst; {keep}reg9[6] = chk_lb_aff(); next;");
        let why = "A client of the service may have had a backend a moment ago.";
        sink.add(stages.check, 100, new.clone(), actions, object, why);
        let meant = match self.vip.port {
            Some(port) => format!("{address} == {} && reg1[16..31] == {port}", self.vip.ip),
            None => format!("{address} == {}", self.vip.ip),
        };
        for backend in self.service.online() {
            let port = |field: &str| {
                let equals = backend.port.map(|port| format!(" && {field} == {port}"));
                equals.unwrap_or_default()
            };
            let why = "The client gets the backend that it had a moment ago.";
            let matching =
                format!("reg9[6] == 1 && {address} == {}{} && {new}", backend.ip, port("reg1[0..15]"));
            let actions = format!("ct_lb_mark(backends=\"{backend}\"{});", self.source);
            sink.add(stages.connect, self.priority() + 30, matching, actions, object, why);
            let why = "The client shall come back to the backend that it has got.";
            let translated = port(port_field.as_deref().unwrap_or_default());
            let matching =
                format!("reg9[6] == 0 && ct.new && {meant} && {family}.dst == {}{translated}", backend.ip);
            let backend = Vip { ip: backend.ip, port: backend.port };
            let commit =
                CommitAffinity { vip: *self.vip, backend, protocol: self.balancer.protocol, timeout };
            sink.add(stages.learn, 100, matching, format!("{commit} next;"), object, why);
        }
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
