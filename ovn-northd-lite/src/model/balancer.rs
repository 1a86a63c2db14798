//! Load balancers: addresses that stand for several workloads.

use std::{collections::BTreeMap, fmt, net::IpAddr};

/// Addresses and ports that stand for backends. New connections are spread over the
/// backends that are online; a connection stays with its backend.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadBalancer {
    /// Its services.
    pub vips: BTreeMap<Vip, Service>,
    /// Protocol of the services that have a port.
    pub protocol: Protocol,
    /// What decides about the backend of a connection; empty: addresses, protocol and
    /// ports. `IpSrc` alone keeps each client at one backend.
    pub hash_fields: Vec<HashField>,
    /// Clients of a service without backends are told, instead of waiting in vain.
    pub reject: bool,
    /// Seconds within which a client that comes back gets the backend it had; `None`: it gets
    /// any.
    pub affinity: Option<u16>,
    /// How backends are asked whether they serve.
    pub health_check: Option<HealthCheck>,
    /// Where backends are asked, by their address. Others are not.
    pub probe_points: BTreeMap<IpAddr, ProbePoint>,
    /// Routers leave the sources of its connections alone, whatever they translate.
    pub skip_snat: bool,
    /// For which of its addresses routers answer questions.
    pub responder: Responder,
    /// Other routers have a route to its addresses by the routers that have it.
    pub add_route: bool,
    /// Hosts tell of new connections to a service without backends.
    pub event: bool,
    /// Its services that have other addresses, ports or backends on each chassis.
    pub templates: Vec<TemplateService>,
    /// Addresses that clients become that are their own backend, one of a family at most.
    pub hairpin_sources: Vec<IpAddr>,
    /// Connections to backends that are taken away end.
    pub flushes: bool,
    /// At gateway ports it translates without a memory.
    pub stateless: bool,
}

/// A service some of which is what a variable stands for on the chassis of the client.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TemplateService {
    /// Its addresses and backends are IPv4.
    pub is_v4: bool,
    /// Id of the variable that has its addresses.
    pub address: String,
    /// Its port; `None`: everything that is sent to the address.
    pub port: Option<TemplatePort>,
    /// Backends, and variables that have such.
    pub backends: Vec<TemplateBackend>,
}

/// Port of a [`TemplateService`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum TemplatePort {
    /// This one.
    Number(u16),
    /// Those that the variable with this id has.
    Variable(String),
}

/// Backends of a [`TemplateService`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum TemplateBackend {
    /// This one.
    Fixed(Vip),
    /// Those that the variable with this id has.
    Variable(String),
}

/// For which addresses of a load balancer its routers answer questions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Responder {
    /// Those in the network of the port that they came by.
    #[default]
    Reachable,
    /// All of them.
    All,
    /// None.
    None,
}

/// How backends are asked whether they serve: by their own hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HealthCheck {
    /// Seconds between two questions.
    pub interval: u16,
    /// Seconds that an answer may take.
    pub timeout: u16,
    /// So many in a row that are answered bring a backend online.
    pub n_successes: u16,
    /// So many in a row that are not take it offline.
    pub n_failures: u16,
}

/// What a workload is asked by its own host, to see whether it lives.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortCheck {
    /// By what; `None`: an echo of ICMP.
    pub protocol: Option<Protocol>,
    /// Address that is asked.
    pub ip: IpAddr,
    /// Port that is asked; 0: there are none.
    pub port: u16,
    /// Address that it is asked from. Nobody else has it.
    pub source: IpAddr,
    /// How often, and what is made of the answers.
    pub times: HealthCheck,
}

/// Where a backend is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbePoint {
    /// Id of the switch of its port.
    pub switch: String,
    /// Id of its port.
    pub port: String,
    /// Address that it is asked from. Nobody else has it.
    pub source: IpAddr,
}

/// Transport protocols that have ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// Address of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vip {
    /// Address.
    pub ip: IpAddr,
    /// Port; `None`: everything that is sent to the address.
    pub port: Option<u16>,
}

/// Who serves an address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Service {
    /// Its backends.
    pub backends: Vec<Backend>,
}

/// One of several that serve an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Backend {
    /// Address, of the service's family.
    pub ip: IpAddr,
    /// Port; there is one just where the service has one.
    pub port: Option<u16>,
    /// It gets new connections.
    pub online: bool,
}

/// A field that may decide about the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HashField {
    /// Source address.
    IpSrc,
    /// Destination address.
    IpDst,
    /// Source port.
    TpSrc,
    /// Destination port.
    TpDst,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// Name in the match language.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl HashField {
    /// All of them.
    pub const ALL: &[Self] = &[Self::IpSrc, Self::IpDst, Self::TpSrc, Self::TpDst];

    /// Name in texts.
    pub const fn name(self) -> &'static str {
        match self {
            Self::IpSrc => "ip_src",
            Self::IpDst => "ip_dst",
            Self::TpSrc => "tp_src",
            Self::TpDst => "tp_dst",
        }
    }
}

impl PortCheck {
    /// The protocol and what is asked, as texts.
    pub fn key(&self) -> (String, String) {
        check_key(self.protocol, self.ip, self.port)
    }
}

/// The protocol and what is asked of a port's own check, as texts.
pub fn check_key(protocol: Option<Protocol>, ip: IpAddr, port: u16) -> (String, String) {
    let port = Some(port).filter(|_| protocol.is_some());
    (protocol.map_or("icmp", Protocol::name).to_owned(), Vip { ip, port }.to_string())
}

impl LoadBalancer {
    /// Where a backend is asked whether it serves, and how; `None`: it is not asked.
    pub fn probed(&self, backend: &Backend) -> Option<(&ProbePoint, HealthCheck)> {
        backend.port?;
        Some((self.probe_points.get(&backend.ip)?, self.health_check?))
    }
}

impl Service {
    /// Backends that get new connections.
    pub fn online(&self) -> impl Iterator<Item = &Backend> {
        self.backends.iter().filter(|backend| backend.online)
    }
}

impl TemplateService {
    /// Ids of the variables that it needs.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        let port = self.port.iter().filter_map(|port| match port {
            TemplatePort::Number(_) => None,
            TemplatePort::Variable(id) => Some(id.as_str()),
        });
        let backends = self.backends.iter().filter_map(|backend| match backend {
            TemplateBackend::Fixed(_) => None,
            TemplateBackend::Variable(id) => Some(id.as_str()),
        });
        std::iter::once(self.address.as_str()).chain(port).chain(backends)
    }
}

impl fmt::Display for TemplatePort {
    /// As the match language writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(port) => write!(f, "{port}"),
            Self::Variable(id) => write!(f, "^{id}"),
        }
    }
}

impl fmt::Display for TemplateBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(backend) => backend.fmt(f),
            Self::Variable(id) => write!(f, "^{id}"),
        }
    }
}

impl fmt::Display for Vip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        endpoint(f, self.ip, self.port)
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        endpoint(f, self.ip, self.port)
    }
}

fn endpoint(f: &mut fmt::Formatter<'_>, ip: IpAddr, port: Option<u16>) -> fmt::Result {
    match (ip, port) {
        (ip, None) => write!(f, "{ip}"),
        (IpAddr::V4(ip), Some(port)) => write!(f, "{ip}:{port}"),
        (IpAddr::V6(ip), Some(port)) => write!(f, "[{ip}]:{port}"),
    }
}
