//! What load balancers of switches and of routers have in common: which packets are for a
//! service, and what a new connection gets.

use std::{collections::BTreeSet, net::IpAddr};

use super::{sink::FlowSink, stage::Stage};
use crate::{
    actions::{CommitAffinity, Log},
    model::{LoadBalancer, LogicalRouter, LogicalSwitch, Northbound, Protocol, Service, Severity, Vip},
    punt::{LogEntry, Verdict},
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

/// The load balancers that somebody uses, as they are named: by themselves, and by groups,
/// whose members are not looked at until one of them matters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Used {
    pub(crate) ids: BTreeSet<String>,
    pub(crate) groups: BTreeSet<String>,
}

impl Used {
    pub(crate) fn by_switch(&mut self, switch: &LogicalSwitch) {
        self.ids.extend(switch.load_balancers.iter().cloned());
        self.groups.extend(switch.balancer_groups.iter().cloned());
    }

    pub(crate) fn by_router(&mut self, router: &LogicalRouter) {
        self.ids.extend(router.load_balancers.iter().cloned());
        self.groups.extend(router.balancer_groups.iter().cloned());
    }

    /// It is one of them, and there.
    pub(crate) fn has(&self, nb: &Northbound, id: &str) -> bool {
        nb.load_balancers.contains_key(id)
            && (self.ids.contains(id) || is_in_group(nb, self.groups.iter(), id))
    }

    /// Those that there are.
    pub(crate) fn all<'a>(&'a self, nb: &'a Northbound) -> BTreeSet<&'a String> {
        self.named(nb).filter(|id| nb.load_balancers.contains_key(*id)).collect()
    }

    /// There is none.
    pub(crate) fn is_empty(&self, nb: &Northbound) -> bool {
        !self.named(nb).any(|id| nb.load_balancers.contains_key(id))
    }

    fn named<'a>(&'a self, nb: &'a Northbound) -> impl Iterator<Item = &'a String> {
        let groups = self.groups.iter().filter_map(|group| nb.balancer_groups.get(group));
        self.ids.iter().chain(groups.flatten())
    }
}

/// A router uses a load balancer that there is.
pub(crate) fn is_of_router(nb: &Northbound, router: &LogicalRouter, id: &str) -> bool {
    nb.load_balancers.contains_key(id)
        && (router.load_balancers.contains(id) || is_in_group(nb, router.balancer_groups.iter(), id))
}

fn is_in_group<'a>(nb: &Northbound, mut groups: impl Iterator<Item = &'a String>, id: &str) -> bool {
    groups.any(|group| nb.balancer_groups.get(group).is_some_and(|members| members.contains(id)))
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

    /// Packets whose connection began towards the service.
    pub(crate) fn was_for_service(&self) -> String {
        let address = if self.vip.ip.is_ipv4() { "ct_nw_dst" } else { "ct_ip6_dst" };
        match self.vip.port {
            Some(port) => format!("{address} == {} && ct_tp_dst == {port}", self.vip.ip),
            None => format!("{address} == {}", self.vip.ip),
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
        let (verdict, end) = match self.balancer.reject {
            true => (Verdict::Reject, reject(self.family())),
            false => (Verdict::Drop, "drop;".to_owned()),
        };
        if !self.balancer.event {
            return (end, why);
        }
        let name = format!("{} {}", self.object, self.vip);
        let told = Log { entry: LogEntry { verdict, severity: Severity::Notice, name }, rate: None };
        // `drop;` goes alone: a line in the log and nothing else is a drop too.
        let end = if verdict == Verdict::Drop { String::new() } else { format!(" {end}") };
        (format!("{told}{end}"), why)
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

    /// What a client becomes that is its own backend.
    pub(crate) fn hairpin_source(&self) -> IpAddr {
        let mut own = self.balancer.hairpin_sources.iter();
        *own.find(|ip| ip.is_ipv4() == self.vip.ip.is_ipv4()).unwrap_or(&self.vip.ip)
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
