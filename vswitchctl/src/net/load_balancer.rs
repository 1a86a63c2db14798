//! `load-balancer`: addresses that stand for backends.

use std::str::FromStr;

use clap::{Args, ValueEnum};
use ferroflow_proto::northbound::{self as pb, LoadBalancer, Resource, load_balancer, resource};
use serde::{Deserialize, Serialize};

use crate::{
    client::Labels,
    error::CtlError,
    file::section,
    name::{Noun, Reference},
    net::{
        command::About,
        health_check::{HealthCheck, ProbePoint},
        object::{Object, Options, Patch, labels_of, unknown_value, wrong_kind},
        responder::Responder,
        template_service::{TemplateOptions, TemplateService},
    },
    output::yes,
};

/// Options of a new load balancer.
#[derive(Debug, Args)]
pub struct NewLoadBalancer {
    /// A service, ADDRESS=BACKEND,BACKEND; a - before a backend: it is offline; may be repeated
    #[arg(long = "vip", value_name = "VIP")]
    vips: Vec<Vip>,
    /// Protocol of the services that have a port
    #[arg(long, value_enum, default_value = "tcp")]
    protocol: Protocol,
    /// What decides about the backend, if not all of the connection; may be repeated
    #[arg(long = "hash", value_enum, value_name = "FIELD")]
    hash_fields: Vec<HashField>,
    /// Tell clients of a service without backends
    #[arg(long)]
    reject: bool,
    /// Seconds within which a client that comes back gets the backend it had; 0: it gets any
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    affinity: u16,
    /// Ask backends whether they serve: seconds between questions and for an answer, and how many
    /// answers or failures in a row count, 5/20/3/3
    #[arg(long, value_name = "INTERVAL/TIMEOUT/SUCCESSES/FAILURES")]
    check: Option<HealthCheck>,
    /// A backend to ask, its port, and an address to ask from that nobody has; may be repeated
    #[arg(long = "probe", value_name = "BACKEND=PORT@SOURCE")]
    probes: Vec<ProbePoint>,
    /// Let routers leave the sources of its connections alone
    #[arg(long)]
    skip_snat: bool,
    /// For which of its addresses routers answer ARP and ND
    #[arg(long, value_enum, value_name = "WHICH")]
    neighbor_responder: Option<Responder>,
    #[command(flatten)]
    told: ToldOptions,
    #[command(flatten)]
    variable: TemplateOptions,
}

/// Changes of a load balancer.
#[derive(Debug, Args)]
pub struct LoadBalancerChanges {
    /// The services instead of those before, ADDRESS=BACKEND,BACKEND; may be repeated
    #[arg(long = "vip", value_name = "VIP")]
    vips: Vec<Vip>,
    /// No services
    #[arg(long, conflicts_with = "vips")]
    no_vips: bool,
    /// Protocol of the services that have a port
    #[arg(long, value_enum)]
    protocol: Option<Protocol>,
    /// What decides about the backend; may be repeated
    #[arg(long = "hash", value_enum, value_name = "FIELD")]
    hash_fields: Vec<HashField>,
    /// Let all of the connection decide
    #[arg(long, conflicts_with = "hash_fields")]
    no_hash: bool,
    /// Tell clients of a service without backends
    #[arg(long)]
    reject: bool,
    /// Drop what clients of a service without backends send
    #[arg(long, conflicts_with = "reject")]
    no_reject: bool,
    /// Seconds within which a client that comes back gets the backend it had; 0: it gets any
    #[arg(long, value_name = "SECONDS")]
    affinity: Option<u16>,
    /// Ask backends whether they serve: seconds between questions and for an answer, and how many
    /// answers or failures in a row count, 5/20/3/3
    #[arg(long, value_name = "INTERVAL/TIMEOUT/SUCCESSES/FAILURES")]
    check: Option<HealthCheck>,
    /// Ask nobody
    #[arg(long, conflicts_with = "check")]
    no_check: bool,
    /// The backends to ask instead of those before, BACKEND=PORT@SOURCE; may be repeated
    #[arg(long = "probe", value_name = "BACKEND=PORT@SOURCE")]
    probes: Vec<ProbePoint>,
    /// No backend is to be asked
    #[arg(long, conflicts_with = "probes")]
    no_probes: bool,
    /// Let routers leave the sources of its connections alone
    #[arg(long)]
    skip_snat: bool,
    /// Let routers treat the sources of its connections as others
    #[arg(long, conflicts_with = "skip_snat")]
    no_skip_snat: bool,
    /// For which of its addresses routers answer ARP and ND
    #[arg(long, value_enum, value_name = "WHICH")]
    neighbor_responder: Option<Responder>,
    #[command(flatten)]
    told: ToldOptions,
    #[command(flatten)]
    variable: TemplateOptions,
    /// No services that differ by chassis
    #[arg(long, conflicts_with = "templates")]
    no_templates: bool,
}

/// Who is told of a load balancer.
#[derive(Debug, Args)]
pub struct ToldOptions {
    /// Whether other routers have routes to its addresses by its routers: true or false
    #[arg(long, value_name = "YES", num_args = 0..=1, default_missing_value = "true")]
    add_route: Option<bool>,
    /// Whether hosts log new connections to a service without backends: true or false
    #[arg(long, value_name = "YES", num_args = 0..=1, default_missing_value = "true")]
    event: Option<bool>,
    /// Whether connections to a backend that is taken away end: true or false
    #[arg(long, value_name = "YES", num_args = 0..=1, default_missing_value = "true")]
    ct_flush: Option<bool>,
    /// Whether it translates at gateway ports without a memory, so that answers may leave by another
    /// gateway: true or false
    #[arg(long, value_name = "YES", num_args = 0..=1, default_missing_value = "true")]
    stateless: Option<bool>,
    /// The address that a client becomes which is its own backend, "" for that of the service; may
    /// be repeated, for both families
    #[arg(long, value_name = "IP")]
    hairpin_snat: Vec<String>,
}

impl Options for NewLoadBalancer {
    fn references(&mut self) -> Vec<(Noun, &mut String)> {
        self.probes.iter_mut().map(|probe| (Noun::SwitchPort, &mut probe.port)).collect()
    }
}

impl Options for LoadBalancerChanges {
    fn references(&mut self) -> Vec<(Noun, &mut String)> {
        self.probes.iter_mut().map(|probe| (Noun::SwitchPort, &mut probe.port)).collect()
    }
}

/// Transport protocols.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP
    #[default]
    Tcp,
    /// UDP
    Udp,
    /// SCTP
    Sctp,
}

/// A field that decides about the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HashField {
    /// Source address: each client stays at one backend
    IpSrc,
    /// Destination address
    IpDst,
    /// Source port
    TpSrc,
    /// Destination port
    TpDst,
}

/// A service; its form in files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vip {
    /// Address with a port, or an address alone.
    pub address: String,
    /// Backends, those that are offline with a `-` before.
    #[serde(default)]
    pub backends: Vec<String>,
}

impl FromStr for Vip {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, backends) = text.split_once('=').ok_or("a service is ADDRESS=BACKEND,BACKEND")?;
        let backends = backends.split(',').filter(|backend| !backend.is_empty());
        Ok(Self { address: address.into(), backends: backends.map(str::to_owned).collect() })
    }
}

impl Vip {
    fn read(vip: &pb::Vip) -> Self {
        let backend = |backend: &pb::Backend| match backend.offline {
            true => format!("-{}", backend.address),
            false => backend.address.clone(),
        };
        Self { address: vip.address.clone(), backends: vip.backends.iter().map(backend).collect() }
    }

    fn write(&self) -> pb::Vip {
        let backend = |text: &String| {
            let offline = text.starts_with('-');
            let address = text.trim_start_matches('-').to_owned();
            pb::Backend { address, offline, ..Default::default() }
        };
        pb::Vip { address: self.address.clone(), backends: self.backends.iter().map(backend).collect() }
    }

    fn text(&self) -> String {
        format!("{}={}", self.address, self.backends.join(","))
    }
}

impl Protocol {
    fn read(resource: &Resource, value: i32) -> Result<Self, CtlError> {
        match load_balancer::Protocol::try_from(value) {
            Ok(load_balancer::Protocol::Unspecified) => Ok(Self::Tcp),
            Ok(load_balancer::Protocol::Udp) => Ok(Self::Udp),
            Ok(load_balancer::Protocol::Sctp) => Ok(Self::Sctp),
            Err(_) => Err(unknown_value(resource, "protocol", value)),
        }
    }

    fn write(self) -> load_balancer::Protocol {
        match self {
            Self::Tcp => load_balancer::Protocol::Unspecified,
            Self::Udp => load_balancer::Protocol::Udp,
            Self::Sctp => load_balancer::Protocol::Sctp,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl HashField {
    /// # Errors
    /// [`CtlError`] when the value is not one that is known here.
    pub fn read(resource: &Resource, value: i32) -> Result<Self, CtlError> {
        use load_balancer::HashField as Wire;
        match Wire::try_from(value) {
            Ok(Wire::IpSrc) => Ok(Self::IpSrc),
            Ok(Wire::IpDst) => Ok(Self::IpDst),
            Ok(Wire::TpSrc) => Ok(Self::TpSrc),
            Ok(Wire::TpDst) => Ok(Self::TpDst),
            Ok(Wire::Unspecified) | Err(_) => Err(unknown_value(resource, "hash field", value)),
        }
    }

    /// As the API has it.
    pub fn write(self) -> i32 {
        use load_balancer::HashField as Wire;
        match self {
            Self::IpSrc => Wire::IpSrc,
            Self::IpDst => Wire::IpDst,
            Self::TpSrc => Wire::TpSrc,
            Self::TpDst => Wire::TpDst,
        }
        .into()
    }

    /// As it is typed.
    pub fn word(self) -> &'static str {
        match self {
            Self::IpSrc => "ip-src",
            Self::IpDst => "ip-dst",
            Self::TpSrc => "tp-src",
            Self::TpDst => "tp-dst",
        }
    }
}

/// Full names of load balancers that are typed by id or in full.
///
/// # Errors
/// [`CtlError::Usage`] when a name can be none.
pub fn full_names(names: &[String]) -> Result<Vec<String>, CtlError> {
    let full = |text: &String| {
        Noun::LoadBalancer.refer(text).map(|reference| match reference {
            Reference::Full(name) => name,
            Reference::Id(id) => Noun::LoadBalancer.top(&id),
        })
    };
    names.iter().map(full).collect()
}

/// What a user sets of a load balancer; its form in files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoadBalancerSpec {
    /// Free key-value pairs.
    #[serde(default, with = "section")]
    pub labels: Labels,
    /// Services.
    #[serde(default)]
    pub vips: Vec<Vip>,
    /// Protocol of the services that have a port.
    #[serde(default)]
    pub protocol: Protocol,
    /// What decides about the backend; none: all of the connection.
    #[serde(default)]
    pub hash_fields: Vec<HashField>,
    /// Clients of a service without backends are told.
    #[serde(default)]
    pub reject: bool,
    /// Seconds within which a client that comes back gets the backend it had; 0: it gets any.
    #[serde(default)]
    pub affinity_timeout: u32,
    /// How backends are asked whether they serve.
    #[serde(default)]
    pub health_check: Option<HealthCheck>,
    /// Where they are asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub probe_points: Vec<ProbePoint>,
    /// Routers leave the sources of its connections alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub skip_snat: bool,
    /// For which of its addresses routers answer ARP and ND.
    #[serde(default, skip_serializing_if = "Responder::is_usual")]
    pub neighbor_responder: Responder,
    /// Other routers have routes to its addresses.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub add_route: bool,
    /// Hosts log new connections to a service without backends.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub event: bool,
    /// Services that differ by chassis.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub templates: Vec<TemplateService>,
    /// Addresses that clients become that are their own backend.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hairpin_snat_ips: Vec<String>,
    /// Connections to backends that are taken away end.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ct_flush: bool,
    /// At gateway ports it translates without a memory.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub use_stateless_nat: bool,
}

/// The addresses that are given; the empty text is none.
fn given_ips(texts: &[String]) -> Vec<String> {
    texts.iter().filter(|text| !text.is_empty()).cloned().collect()
}

/// What hosts have found out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Known {
    /// Backends that were asked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub health: Vec<BackendHealth>,
}

/// Whether a backend serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BackendHealth {
    vip: String,
    backend: String,
    online: bool,
}

/// Whether somebody who is asked serves; `None`: nobody knows.
///
/// # Errors
/// [`CtlError`] when the value is not one that is known here.
pub fn online(resource: &Resource, health: i32) -> Result<Option<bool>, CtlError> {
    use pb::backend::Health;
    match Health::try_from(health) {
        Ok(Health::Unspecified) => Ok(None),
        Ok(Health::Online) => Ok(Some(true)),
        Ok(Health::Offline) => Ok(Some(false)),
        Err(_) => Err(unknown_value(resource, "health", health)),
    }
}

impl Known {
    fn read(resource: &Resource, balancer: &LoadBalancer) -> Result<Self, CtlError> {
        let mut health = Vec::new();
        for vip in &balancer.vips {
            for backend in &vip.backends {
                let Some(online) = online(resource, backend.health)? else { continue };
                let (vip, backend) = (vip.address.clone(), backend.address.clone());
                health.push(BackendHealth { vip, backend, online });
            }
        }
        Ok(Self { health })
    }
}

impl Object for LoadBalancerSpec {
    const NOUN: Noun = Noun::LoadBalancer;
    const ABOUT: About = About {
        add: "Make a load balancer",
        set: "Change a load balancer",
        list: "List load balancers",
        show: "Show a load balancer",
        del: "Delete a load balancer that nobody uses",
    };
    const HEADINGS: &'static [&'static str] = &["LOAD BALANCER", "PROTOCOL", "VIPS", "BACKENDS", "LABELS"];
    type New = NewLoadBalancer;
    type Changes = LoadBalancerChanges;
    type Status = Known;

    fn read(resource: &Resource) -> Result<(Self, Known), CtlError> {
        let Some(resource::Spec::LoadBalancer(balancer)) = &resource.spec else {
            return Err(wrong_kind(resource, Self::NOUN));
        };
        let fields = balancer.hash_fields.iter().map(|field| HashField::read(resource, *field));
        let spec = Self {
            labels: labels_of(resource),
            vips: balancer.vips.iter().map(Vip::read).collect(),
            protocol: Protocol::read(resource, balancer.protocol)?,
            hash_fields: fields.collect::<Result<_, _>>()?,
            reject: balancer.reject,
            affinity_timeout: balancer.affinity_timeout,
            health_check: balancer.health_check.as_ref().map(HealthCheck::read),
            probe_points: balancer.probe_points.iter().map(ProbePoint::read).collect(),
            skip_snat: balancer.skip_snat,
            neighbor_responder: Responder::read(resource, balancer.neighbor_responder)?,
            add_route: balancer.add_route,
            event: balancer.event,
            templates: balancer.templates.iter().map(TemplateService::read).collect(),
            hairpin_snat_ips: balancer.hairpin_snat_ips.clone(),
            ct_flush: balancer.ct_flush,
            use_stateless_nat: balancer.use_stateless_nat,
        };
        Ok((spec, Known::read(resource, balancer)?))
    }

    fn spec(&self) -> resource::Spec {
        resource::Spec::LoadBalancer(LoadBalancer {
            protocol: self.protocol.write().into(),
            vips: self.vips.iter().map(Vip::write).collect(),
            hash_fields: self.hash_fields.iter().map(|field| field.write()).collect(),
            reject: self.reject,
            affinity_timeout: self.affinity_timeout,
            health_check: self.health_check.as_ref().map(HealthCheck::write),
            probe_points: self.probe_points.iter().map(ProbePoint::write).collect(),
            skip_snat: self.skip_snat,
            neighbor_responder: self.neighbor_responder.write(),
            add_route: self.add_route,
            event: self.event,
            templates: self.templates.iter().map(TemplateService::write).collect(),
            hairpin_snat_ips: self.hairpin_snat_ips.clone(),
            ct_flush: self.ct_flush,
            use_stateless_nat: self.use_stateless_nat,
        })
    }

    fn labels(&self) -> &Labels {
        &self.labels
    }

    fn labels_mut(&mut self) -> &mut Labels {
        &mut self.labels
    }

    fn make(new: NewLoadBalancer, labels: Labels, _name: &str) -> Result<Self, CtlError> {
        let NewLoadBalancer { vips, protocol, hash_fields, reject, affinity, check, probes, .. } = new;
        let affinity_timeout = affinity.into();
        Ok(Self {
            labels,
            vips,
            protocol,
            hash_fields,
            reject,
            affinity_timeout,
            health_check: check,
            probe_points: probes,
            skip_snat: new.skip_snat,
            neighbor_responder: new.neighbor_responder.unwrap_or_default(),
            add_route: new.told.add_route.unwrap_or_default(),
            event: new.told.event.unwrap_or_default(),
            templates: new.variable.templates,
            hairpin_snat_ips: given_ips(&new.told.hairpin_snat),
            ct_flush: new.told.ct_flush.unwrap_or_default(),
            use_stateless_nat: new.told.stateless.unwrap_or_default(),
        })
    }

    fn change(given: &LoadBalancerChanges, _name: &str, patch: &mut Patch<'_, Self>) -> Result<(), CtlError> {
        patch.list("vips", &given.vips, given.no_vips, |balancer| &mut balancer.vips);
        patch.set("protocol", given.protocol.as_ref(), |balancer| &mut balancer.protocol);
        patch.list("hash_fields", &given.hash_fields, given.no_hash, |balancer| &mut balancer.hash_fields);
        patch.switch("reject", (given.reject, given.no_reject), |balancer| &mut balancer.reject);
        let affinity = given.affinity.map(u32::from);
        patch.set("affinity_timeout", affinity.as_ref(), |balancer| &mut balancer.affinity_timeout);
        let check = (given.check.is_some() || given.no_check).then_some(given.check);
        patch.set("health_check", check.as_ref(), |balancer| &mut balancer.health_check);
        let probes = &given.probes;
        patch.list("probe_points", probes, given.no_probes, |balancer| &mut balancer.probe_points);
        patch.switch("skip_snat", (given.skip_snat, given.no_skip_snat), |balancer| &mut balancer.skip_snat);
        let responder = given.neighbor_responder.as_ref();
        patch.set("neighbor_responder", responder, |balancer| &mut balancer.neighbor_responder);
        patch.set("add_route", given.told.add_route.as_ref(), |balancer| &mut balancer.add_route);
        patch.set("event", given.told.event.as_ref(), |balancer| &mut balancer.event);
        patch.set("ct_flush", given.told.ct_flush.as_ref(), |balancer| &mut balancer.ct_flush);
        let stateless = given.told.stateless.as_ref();
        patch.set("use_stateless_nat", stateless, |balancer| &mut balancer.use_stateless_nat);
        let (own, is_given) = (given_ips(&given.told.hairpin_snat), !given.told.hairpin_snat.is_empty());
        patch.list("hairpin_snat_ips", &own, is_given && own.is_empty(), |balancer| {
            &mut balancer.hairpin_snat_ips
        });
        let templates = &given.variable.templates;
        patch.list("templates", templates, given.no_templates, |balancer| &mut balancer.templates);
        Ok(())
    }

    fn cells(&self, _status: &Known) -> Vec<String> {
        let n_backends: usize = self.vips.iter().map(|vip| vip.backends.len()).sum();
        vec![self.protocol.word().into(), self.vips.len().to_string(), n_backends.to_string()]
    }

    fn fields(&self, status: &Known) -> Vec<(&'static str, String)> {
        let hash: Vec<_> = self.hash_fields.iter().map(|field| field.word()).collect();
        let affinity = match self.affinity_timeout {
            0 => String::new(),
            seconds => format!("{seconds} s"),
        };
        let own = [
            ("protocol", self.protocol.word().to_owned()),
            ("hash", hash.join(" ")),
            ("reject", yes(self.reject)),
            ("affinity", affinity),
            ("skip SNAT", yes(self.skip_snat)),
            ("answered for", self.neighbor_responder.word().to_owned()),
            ("adds routes", yes(self.add_route)),
            ("logs what it cannot serve", yes(self.event)),
        ];
        let hairpin =
            (!self.hairpin_snat_ips.is_empty()).then(|| ("hairpin SNAT", self.hairpin_snat_ips.join(" ")));
        let flush = self.ct_flush.then(|| ("ends connections", "of backends that go".to_owned()));
        let stateless = self.use_stateless_nat.then(|| ("remembers", "nothing at gateways".to_owned()));
        let check = self.health_check.map(|check| ("check", check.to_string()));
        let check = hairpin.into_iter().chain(flush).chain(stateless).chain(check);
        let probes = self.probe_points.iter().map(|point| ("probe", point.to_string()));
        let health = status.health.iter().map(|BackendHealth { vip, backend, online }| {
            ("health", format!("{vip} {backend} {}", if *online { "online" } else { "offline" }))
        });
        let vips = self.vips.iter().map(|vip| ("vip", vip.text()));
        let templates = self.templates.iter().map(|service| ("template", service.text()));
        own.into_iter().chain(vips).chain(templates).chain(check).chain(probes).chain(health).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_written_as_they_are_read() {
        for text in ["192.0.2.1:80=10.0.0.5:8080,-10.0.0.6:8080", "[2001:db8::1]:80=", "192.0.2.1=10.0.0.5"] {
            let vip: Vip = text.parse().unwrap();
            assert_eq!(Vip::read(&vip.write()).text(), text);
        }
        assert!("192.0.2.1:80".parse::<Vip>().is_err());
    }
}
