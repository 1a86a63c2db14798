//! The questions of Docker, as it writes them. Fields that are not named here are of no use
//! to this driver, and lists and maps may be `null`.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Options: of the network, the endpoint or the pool.
pub type Map = BTreeMap<String, Value>;

/// `NetworkDriver.CreateNetwork`.
#[derive(Debug, Clone, Deserialize)]
pub struct CreateNetwork {
    /// 64 digits.
    #[serde(rename = "NetworkID")]
    pub network: String,
    /// What the user wrote, and Docker's own.
    #[serde(rename = "Options", default, deserialize_with = "nullable")]
    pub options: Map,
    /// Subnets of IPv4.
    #[serde(rename = "IPv4Data", default, deserialize_with = "nullable")]
    pub ipv4: Vec<Subnet>,
    /// Subnets of IPv6.
    #[serde(rename = "IPv6Data", default, deserialize_with = "nullable")]
    pub ipv6: Vec<Subnet>,
}

/// `NetworkDriver.AllocateNetwork`.
#[derive(Debug, Clone, Deserialize)]
pub struct AllocateNetwork {
    /// Which.
    #[serde(rename = "NetworkID")]
    pub network: String,
    /// What the user wrote.
    #[serde(rename = "Options", default, deserialize_with = "nullable")]
    pub options: BTreeMap<String, String>,
}

/// A subnet of a network.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Subnet {
    /// `10.0.0.0/24`
    pub pool: String,
    /// `10.0.0.1/24`, or empty.
    pub gateway: String,
}

/// A call about a network: `DeleteNetwork`, `FreeNetwork`.
#[derive(Debug, Clone, Deserialize)]
pub struct NetworkCall {
    /// Which.
    #[serde(rename = "NetworkID")]
    pub network: String,
}

/// `NetworkDriver.CreateEndpoint`.
#[derive(Debug, Clone, Deserialize)]
pub struct CreateEndpoint {
    /// Which network.
    #[serde(rename = "NetworkID")]
    pub network: String,
    /// 64 digits.
    #[serde(rename = "EndpointID")]
    pub endpoint: String,
    /// What IPAM gave.
    #[serde(rename = "Interface", default, deserialize_with = "nullable")]
    pub interface: Interface,
}

/// Addresses of an endpoint.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Interface {
    /// `10.0.0.2/24`
    #[serde(rename = "Address")]
    pub address: String,
    /// `fd00::2/64`
    #[serde(rename = "AddressIPv6")]
    pub address_ipv6: String,
    /// `02:42:0a:00:00:02`
    #[serde(rename = "MacAddress")]
    pub mac: String,
}

/// A call about an endpoint: `Join`, `Leave`, `DeleteEndpoint` and others.
#[derive(Debug, Clone, Deserialize)]
pub struct EndpointCall {
    /// Which network.
    #[serde(rename = "NetworkID")]
    pub network: String,
    /// Which endpoint.
    #[serde(rename = "EndpointID")]
    pub endpoint: String,
    /// What is to be published, among others.
    #[serde(rename = "Options", default, deserialize_with = "nullable")]
    pub options: Map,
}

/// `IpamDriver.RequestPool`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RequestPool {
    /// One of those that the driver named.
    pub address_space: String,
    /// `10.0.0.0/24`, or empty: the driver chooses.
    pub pool: String,
    /// The part to give from, or empty.
    pub sub_pool: String,
    /// What the user wrote.
    #[serde(deserialize_with = "nullable")]
    pub options: Map,
    /// IPv6 is meant.
    #[serde(rename = "V6")]
    pub is_v6: bool,
}

/// `IpamDriver.RequestAddress`, `ReleaseAddress` and `ReleasePool`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AddressCall {
    /// Which pool.
    #[serde(rename = "PoolID")]
    pub pool: String,
    /// `10.0.0.2`, or empty: the driver chooses.
    pub address: String,
    /// What for.
    #[serde(deserialize_with = "nullable")]
    pub options: Map,
}

/// `null` is what is there when nothing is.
fn nullable<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Default + Deserialize<'de>,
    D: Deserializer<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_and_what_is_missing_are_nothing() {
        let call: AddressCall =
            serde_json::from_str(r#"{"PoolID":"p","Address":"10.77.0.2","Options":null}"#).unwrap();
        assert_eq!((call.address.as_str(), call.options.len()), ("10.77.0.2", 0));
        let network: CreateNetwork =
            serde_json::from_str(r#"{"NetworkID":"n","Options":null,"IPv4Data":null,"New":1}"#).unwrap();
        assert!(network.ipv4.is_empty() && network.ipv6.is_empty());
        let endpoint: CreateEndpoint =
            serde_json::from_str(r#"{"NetworkID":"n","EndpointID":"e","Interface":null,"Options":{}}"#)
                .unwrap();
        assert!(endpoint.interface.address.is_empty());
        assert!(serde_json::from_str::<CreateEndpoint>(r#"{"NetworkID":"n"}"#).is_err());
    }
}
