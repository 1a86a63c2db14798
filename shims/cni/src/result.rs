//! Results, in the versions that runtimes ask for.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{CniError, ErrorCode};

/// A version of the specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 0.3.1
    V0_3_1,
    /// 0.4.0, the first with CHECK.
    V0_4_0,
    /// 1.0.0, the first whose addresses do not say their family.
    V1_0_0,
    /// 1.1.0, the first with GC and STATUS.
    V1_1_0,
}

impl Version {
    /// All of them, the oldest first.
    pub const ALL: [Self; 4] = [Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];

    /// As written.
    pub fn text(self) -> &'static str {
        match self {
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl FromStr for Version {
    type Err = CniError;

    fn from_str(text: &str) -> Result<Self, CniError> {
        Self::ALL.into_iter().find(|version| version.text() == text).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|version| version.text()).collect();
            CniError::new(
                ErrorCode::IncompatibleVersion,
                format!("cniVersion `{}` is not supported", text.escape_debug()),
                format!("supported are {}", known.join(", ")),
            )
        })
    }
}

/// What ADD made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CniResult {
    /// Version of this text.
    #[serde(default)]
    pub cni_version: String,
    /// Interfaces, the host's first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<Interface>,
    /// Addresses.
    #[serde(default)]
    pub ips: Vec<Ip>,
    /// Routes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    /// Resolver settings.
    #[serde(default, skip_serializing_if = "Dns::is_empty")]
    pub dns: Dns,
}

/// An interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its MAC address.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mac: String,
    /// Its MTU, since 1.1.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Path of its network namespace; empty: the host's.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sandbox: String,
}

/// An address.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ip {
    /// `4` or `6`, before 1.0.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// With its prefix length.
    pub address: String,
    /// Router of its network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// Which of the interfaces has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<usize>,
}

/// A route.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Where to.
    pub dst: String,
    /// By which router; none: that of the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gw: Option<String>,
}

/// Resolver settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dns {
    /// Servers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    /// Domain of short names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Domains to search.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// Options of the resolver.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

impl Dns {
    /// Nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl CniResult {
    /// Reads one that another made.
    ///
    /// # Errors
    /// It is none.
    pub fn read(value: Value, whose: &str) -> Result<Self, CniError> {
        serde_json::from_value(value).map_err(|error| {
            CniError::new(
                ErrorCode::Decoding,
                format!("{whose} is not a result of version 0.3.1 or later"),
                error,
            )
        })
    }

    /// As a runtime of this version wants it.
    pub fn in_version(mut self, version: Version) -> Self {
        self.cni_version = version.text().to_owned();
        for ip in &mut self.ips {
            let family = if ip.address.contains(':') { "6" } else { "4" };
            ip.version = (version < Version::V1_0_0).then(|| family.to_owned());
        }
        for interface in &mut self.interfaces {
            interface.mtu = interface.mtu.filter(|_| version >= Version::V1_1_0);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result() -> CniResult {
        CniResult {
            interfaces: vec![Interface { name: "eth0".into(), mtu: Some(1400), ..Interface::default() }],
            ips: vec![
                Ip { address: "10.0.0.5/24".into(), interface: Some(0), ..Ip::default() },
                Ip { address: "fd00::5/64".into(), interface: Some(0), ..Ip::default() },
            ],
            ..CniResult::default()
        }
    }

    #[test]
    fn each_version_has_its_fields() {
        for version in Version::ALL {
            let value = serde_json::to_value(result().in_version(version)).unwrap();
            assert_eq!(value["cniVersion"], version.text());
            let is_old = version < Version::V1_0_0;
            assert_eq!(value["ips"][0].get("version").is_some(), is_old);
            assert_eq!(value["ips"][1].get("version").map(|family| family == "6"), is_old.then_some(true));
            assert_eq!(value["interfaces"][0].get("mtu").is_some(), version == Version::V1_1_0);
            assert!(value.get("dns").is_none());
            let read = CniResult::read(value, "it").unwrap();
            assert_eq!(read.in_version(version), result().in_version(version));
        }
    }

    #[test]
    fn other_versions_are_refused_with_those_that_are_known() {
        for wrong in ["", "0.2.0", "1.2.0", "2.0.0", "1.0"] {
            let error = wrong.parse::<Version>().unwrap_err();
            assert_eq!(error.code, 1);
            assert!(error.details.contains("0.3.1"), "{error}");
        }
    }
}
