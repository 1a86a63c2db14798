//! What a switch gives its ports addresses from: options of `switch`, and its form in files.

use clap::Args;
use ferroflow_proto::northbound as pb;
use serde::{Deserialize, Serialize};

/// Options about addresses that a switch gives.
#[derive(Debug, Args)]
pub struct AddressOptions {
    /// Give ports that ask for `dynamic` addresses some of this network
    #[arg(long, value_name = "NETWORK")]
    subnet: Option<String>,
    /// Addresses not to give, 10.0.0.9 or 10.0.0.10..10.0.0.20; may be repeated
    #[arg(long = "exclude", value_name = "IPS")]
    exclude_ips: Vec<String>,
    /// Give them IPv6 addresses of this network of 64 bits
    #[arg(long, value_name = "NETWORK")]
    ipv6_prefix: Option<String>,
    /// First half of the MAC addresses to give
    #[arg(long, value_name = "BYTES")]
    mac_prefix: Option<String>,
}

/// What a switch gives its ports addresses from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddressManagement {
    /// IPv4 network.
    #[serde(default)]
    pub subnet: String,
    /// Addresses not to give.
    #[serde(default)]
    pub exclude_ips: Vec<String>,
    /// IPv6 network of 64 bits.
    #[serde(default)]
    pub ipv6_prefix: String,
    /// First half of MAC addresses.
    #[serde(default)]
    pub mac_prefix: String,
}

impl AddressOptions {
    /// Something is said.
    pub fn is_given(&self) -> bool {
        let texts = [&self.subnet, &self.ipv6_prefix, &self.mac_prefix];
        texts.iter().any(|text| text.is_some()) || !self.exclude_ips.is_empty()
    }

    /// Makes the changes.
    pub fn apply(&self, to: &mut Option<AddressManagement>) {
        if !self.is_given() {
            return;
        }
        let to = to.get_or_insert_default();
        for (field, text) in [
            (&mut to.subnet, &self.subnet),
            (&mut to.ipv6_prefix, &self.ipv6_prefix),
            (&mut to.mac_prefix, &self.mac_prefix),
        ] {
            if let Some(text) = text {
                field.clone_from(text);
            }
        }
        if !self.exclude_ips.is_empty() {
            to.exclude_ips.clone_from(&self.exclude_ips);
        }
    }
}

impl AddressManagement {
    /// From the API.
    pub fn read(wire: &pb::AddressManagement) -> Self {
        let pb::AddressManagement { subnet, exclude_ips, ipv6_prefix, mac_prefix } = wire.clone();
        Self { subnet, exclude_ips, ipv6_prefix, mac_prefix }
    }

    /// For the API.
    pub fn write(&self) -> pb::AddressManagement {
        let Self { subnet, exclude_ips, ipv6_prefix, mac_prefix } = self.clone();
        pb::AddressManagement { subnet, exclude_ips, ipv6_prefix, mac_prefix }
    }

    /// What `show` prints.
    pub fn fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = vec![("subnet", self.subnet.clone()), ("IPv6 prefix", self.ipv6_prefix.clone())];
        fields.extend(self.exclude_ips.iter().map(|ips| ("not given", ips.clone())));
        fields.push(("MAC prefix", self.mac_prefix.clone()));
        fields.retain(|(_, text)| !text.is_empty());
        fields
    }
}
