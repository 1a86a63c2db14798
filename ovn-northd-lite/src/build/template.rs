//! Services of load balancers that have other addresses, ports or backends on each chassis:
//! their flows name variables, which each host knows for itself. Where an address or port has
//! no value, they match nothing. Where no backend has, it is as if none were online.
//!
//! What is made of each backend of other services (a client that is its own, one that shall
//! come back to the one it had) is not made here: hosts alone know the backends.

use super::{balancer::NamedBalancer, sink::FlowSink, stage::Stage};
use crate::{
    actions::Log,
    model::{LoadBalancer, Protocol, Severity, TemplateBackend, TemplateService},
    punt::{LogEntry, Verdict},
};

/// A service some of which is what variables stand for.
pub(crate) struct Templated<'a> {
    pub(crate) object: String,
    /// Packets that it is for, ending in ` && ` when there is a condition.
    at: String,
    pub(crate) balancer: &'a LoadBalancer,
    pub(crate) service: &'a TemplateService,
}

impl<'a> NamedBalancer<'a> {
    /// Its services with variables, for packets with a condition, which ends in ` && `; empty:
    /// all packets.
    pub(crate) fn templates_at(self, at: &str) -> impl Iterator<Item = Templated<'a>> + use<'a> {
        let (object, at) = (format!("load-balancers/{}", self.id), at.to_owned());
        let Self { balancer, .. } = self;
        balancer.templates.iter().map(move |service| Templated {
            object: object.clone(),
            at: at.clone(),
            balancer,
            service,
        })
    }
}

impl Templated<'_> {
    /// `ip4` or `ip6`.
    fn family(&self) -> &'static str {
        if self.service.is_v4 { "ip4" } else { "ip6" }
    }

    /// Packets to the service's address.
    pub(crate) fn to_address(&self) -> String {
        format!("{}{}.dst == ^{}", self.at, self.family(), self.service.address)
    }

    /// New connections to the service get a backend; `source` is what becomes of their
    /// sources, what `ct_lb_mark` is told. Who is to be told that there is none, is by `reject`,
    /// which is told whether a connection can be reset, and the family.
    pub(crate) fn connect(
        &self,
        (stage, source): (Stage, &str),
        reject: impl Fn(bool, &str) -> String,
        sink: &mut FlowSink,
    ) {
        let Self { balancer, service, object, .. } = self;
        let (port, priority) = match &service.port {
            Some(port) => (format!(" && {}.dst == {port}", balancer.protocol.name()), 120),
            None => (String::new(), 110),
        };
        let matching = format!("ct.new && {}{port}", self.to_address());
        let is_fixed = |backend: &&TemplateBackend| matches!(backend, TemplateBackend::Fixed(_));
        let (fixed, variables): (Vec<_>, Vec<_>) = service.backends.iter().partition(is_fixed);
        let backends: Vec<_> = fixed.iter().chain(&variables).map(ToString::to_string).collect();
        let fields: Vec<_> = balancer.hash_fields.iter().map(|field| field.name()).collect();
        let fields = match fields.is_empty() {
            true => String::new(),
            false => format!("; hash_fields=\"{}\"", fields.join(",")),
        };
        if !backends.is_empty() {
            let actions = format!("ct_lb_mark(backends=\"{}\"{fields}{source});", backends.join(","));
            let why = "A new connection to the service gets one of its backends on this chassis.";
            sink.add(stage, priority, matching.clone(), actions, object, why);
        }
        if !fixed.is_empty() {
            return;
        }
        let (verdict, end) = match balancer.reject {
            true => {
                let can_be_reset = service.port.is_some() && balancer.protocol == Protocol::Tcp;
                (Verdict::Reject, reject(can_be_reset, self.family()))
            }
            false => (Verdict::Drop, "drop;".to_owned()),
        };
        let actions = if balancer.event {
            let name = format!("{object} ^{}", service.address);
            let told = Log { entry: LogEntry { verdict, severity: Severity::Notice, name }, rate: None };
            // `drop;` goes alone: a line in the log and nothing else is a drop too.
            if verdict == Verdict::Drop { told.to_string() } else { format!("{told} {end}") }
        } else {
            end
        };
        // Below the flow that is there when there are backends.
        let why = "The service has no backend on this chassis.";
        sink.add(stage, priority - 1, matching, actions, object, why);
    }
}
