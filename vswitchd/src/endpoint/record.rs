//! Endpoints as they are kept on disk: written before anything is made and removed after
//! everything is gone, so that whatever a crash leaves behind is known.

use std::{collections::BTreeSet, net::IpAddr};

use flowtable::types::MacAddr;
use serde::{Deserialize, Serialize};

use super::{EndpointKey, Limits, Prefix, Published, Route, kept::Kept, limits};

/// Longest id of a port, and of an interface.
const MAX_PORT_LEN: usize = 63;
/// How much of a container's id its port's is to show.
const CONTAINER_SHOWN: usize = 12;

/// How far an endpoint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Being made: after a crash it is taken away.
    Coming,
    /// Whole.
    Attached,
    /// Being taken away: only the controller may still know of it.
    Leaving,
}

/// One endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Whose.
    pub key: EndpointKey,
    /// How far.
    pub stage: Stage,
    /// Path of its namespace; empty: the runtime moves it into one.
    pub netns: String,
    /// Its switch, `switches/{id}`.
    pub switch: String,
    /// The host's end.
    pub host_interface: String,
    /// Addresses.
    pub addresses: Vec<Prefix>,
    /// MAC address.
    #[serde(with = "super::text")]
    pub mac: MacAddr,
    /// MTU.
    pub mtu: u32,
    /// Routes.
    pub routes: Vec<Route>,
    /// MAC address of the host's end; zero until it is made.
    #[serde(with = "super::text")]
    pub host_mac: MacAddr,
    /// Addresses of the host on the switch, when it is the gateway.
    #[serde(default)]
    pub host_addresses: Vec<Prefix>,
    /// Ports of the host that lead here.
    #[serde(default)]
    pub published: Vec<Published>,
    /// Bounds on what passes.
    #[serde(default)]
    pub limits: Limits,
    /// The leased port that it has.
    #[serde(default)]
    pub lease: Option<Leased>,
    /// The host is its gateway, with addresses that it leases for itself.
    #[serde(default)]
    pub is_gateway_leased: bool,
    /// Names by which others find it.
    #[serde(default)]
    pub names: BTreeSet<String>,
}

/// A leased port, whose addresses an endpoint has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leased {
    /// Id of the port.
    pub port: String,
    /// Gateways of the addresses: of their ranges, or the host.
    pub gateways: Vec<Option<IpAddr>>,
}

impl Record {
    /// Name of its port.
    pub fn port_name(&self) -> String {
        format!("{}/ports/{}", self.switch, self.port_id())
    }

    /// The host is its gateway.
    pub(super) fn is_by_host(&self) -> bool {
        self.is_gateway_leased || !self.host_addresses.is_empty()
    }

    /// Id of its port: a leased one, or its own.
    pub(super) fn port_id(&self) -> String {
        self.lease.as_ref().map_or_else(|| port_id(&self.key), |lease| lease.port.clone())
    }

    /// Names of what the network has for it alone: not of a leased port.
    pub(super) fn resources(&self) -> Vec<String> {
        let port = self.lease.is_none().then(|| self.port_name());
        let rules = limits::rule_names(&self.switch, &self.port_id());
        let rules = rules.into_iter().filter(|_| self.limits.is_any());
        port.into_iter().chain(rules).collect()
    }

    /// Name of the container's end on the host, when the runtime moves it.
    pub fn loose_interface(&self) -> Option<String> {
        self.netns.is_empty().then(|| format!("vd{:012x}", short_hash(&self.key)))
    }
}

/// Id of an endpoint's switch port: readable, and nobody else's.
pub(super) fn port_id(key: &EndpointKey) -> String {
    let plain = |text: &str| -> String {
        text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
    };
    let container: String = key.container.chars().take(CONTAINER_SHOWN).collect();
    let id = format!("c{}-{}-{:016x}", plain(&container), plain(&key.interface), key.stable_hash());
    debug_assert!(id.len() <= MAX_PORT_LEN);
    id
}

/// What names of hosts' ends begin with.
const HOST_ENDS: &str = "vc";

/// Name of the host's end, as long as an interface's may be.
pub(super) fn host_interface(key: &EndpointKey) -> String {
    format!("{HOST_ENDS}{:012x}", short_hash(key))
}

/// It can be the name of a host's end.
pub(super) fn is_host_interface(name: &str) -> bool {
    let digits = name.strip_prefix(HOST_ENDS).unwrap_or_default();
    digits.len() == 12 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// As much of a key's hash as names of interfaces have room for.
pub(super) fn short_hash(key: &EndpointKey) -> u64 {
    key.stable_hash() & 0xffff_ffff_ffff
}

impl Kept for Record {
    type Key = EndpointKey;

    fn key(&self) -> &EndpointKey {
        &self.key
    }

    fn file(key: &EndpointKey) -> String {
        port_id(key)
    }

    /// The network has something for it that has to be taken back. What else it is made of goes with the
    /// power.
    fn outlives_power(&self) -> bool {
        !self.resources().is_empty()
    }
}
