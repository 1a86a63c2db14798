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
}

/// Transport protocols that have ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
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

impl Service {
    /// Backends that get new connections.
    pub fn online(&self) -> impl Iterator<Item = &Backend> {
        self.backends.iter().filter(|backend| backend.online)
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
