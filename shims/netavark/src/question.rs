//! What podman asks. Fields that are not named here are not for this plugin.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Deserializer, de::DeserializeOwned};

use crate::refusal::Refusal;

/// A network.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Network {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// It has no way out.
    #[serde(default)]
    pub internal: bool,
    /// What the user has written with `-o`.
    #[serde(default, deserialize_with = "nullable")]
    pub options: BTreeMap<String, String>,
    /// Where podman takes addresses from; none: the host leases them.
    #[serde(default, deserialize_with = "nullable")]
    pub subnets: Vec<Subnet>,
    /// Routes besides the default.
    #[serde(default, deserialize_with = "nullable")]
    pub routes: Vec<Route>,
    /// Resolvers of its containers.
    #[serde(default, deserialize_with = "nullable")]
    pub network_dns_servers: Vec<IpAddr>,
}

/// A subnet.
#[derive(Debug, Clone, Deserialize)]
pub struct Subnet {
    /// `10.0.1.0/24`
    pub subnet: address_pool::Network,
    /// Its gateway.
    pub gateway: Option<IpAddr>,
}

/// A route.
#[derive(Debug, Clone, Deserialize)]
pub struct Route {
    /// Where to.
    pub destination: String,
    /// By which router.
    pub gateway: IpAddr,
}

/// A container, and the network it is to be in.
#[derive(Debug, Clone, Deserialize)]
pub struct Attachment {
    /// podman's id of the container.
    pub container_id: String,
    /// Its name.
    #[serde(default)]
    pub container_name: String,
    /// Ports of the host that lead to it.
    #[serde(default, deserialize_with = "nullable")]
    pub port_mappings: Vec<PortMapping>,
    /// The network.
    pub network: Network,
    /// What is said of the container in it.
    pub network_options: Interface,
}

/// The container's interface.
#[derive(Debug, Clone, Deserialize)]
pub struct Interface {
    /// Its name.
    pub interface_name: String,
    /// Its addresses, which podman has chosen.
    #[serde(default, deserialize_with = "nullable")]
    pub static_ips: Vec<IpAddr>,
    /// The MAC address that is asked for.
    #[serde(default, deserialize_with = "nullable")]
    pub static_mac: String,
    /// Further names.
    #[serde(default, deserialize_with = "nullable")]
    pub aliases: Vec<String>,
}

/// Ports of the host, one after the other.
#[derive(Debug, Clone, Deserialize)]
pub struct PortMapping {
    /// First port of the container.
    pub container_port: u16,
    /// First port of the host.
    pub host_port: u16,
    /// Address of the host; empty: all.
    #[serde(default)]
    pub host_ip: String,
    /// `tcp`, or `tcp,udp`.
    #[serde(default)]
    pub protocol: String,
    /// How many; 0 is one.
    #[serde(default)]
    pub range: u16,
}

/// Reads a question.
///
/// # Errors
/// It is not JSON, or a field has the wrong type.
pub fn read<T: DeserializeOwned>(stdin: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(stdin)
        .map_err(|error| Refusal::new(format!("the question on stdin is not understood: {error}")))
}

/// `null` is nothing.
fn nullable<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Default + Deserialize<'de>,
    D: Deserializer<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
