//! What tells endpoints apart, and what they are given: addresses and routes, with their
//! texts.

use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Serialize};

/// Longest name of a network and id of a container.
const MAX_NAME_LEN: usize = 253;
/// Longest interface name (IFNAMSIZ without its final zero).
const MAX_INTERFACE_LEN: usize = 15;

/// An interface of a container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointKey {
    /// Name of the runtime's network.
    pub network: String,
    /// Id of the container.
    pub container: String,
    /// Name of the interface in it.
    pub interface: String,
}

/// A text is not what it has to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} `{}`: {expected}", text.escape_debug())]
pub struct TextError {
    what: &'static str,
    text: String,
    expected: &'static str,
}

fn wrong(what: &'static str, text: &str, expected: &'static str) -> TextError {
    let text = text.chars().take(MAX_NAME_LEN).collect();
    TextError { what, text, expected }
}

impl EndpointKey {
    /// Refuses what cannot be.
    ///
    /// # Errors
    /// Which part is wrong.
    pub fn check(&self) -> Result<(), TextError> {
        let Self { network, container, interface } = self;
        if !is_name(network) {
            return Err(wrong(
                "network",
                network,
                "it is made of a-z A-Z 0-9 . _ - and starts with a letter or digit",
            ));
        }
        if !is_name(container) {
            return Err(wrong(
                "container id",
                container,
                "it is made of a-z A-Z 0-9 . _ - and starts with a letter or digit",
            ));
        }
        let is_interface = (1..=MAX_INTERFACE_LEN).contains(&interface.len())
            && !matches!(interface.as_str(), "." | "..")
            && interface.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':'));
        if is_interface {
            return Ok(());
        }
        Err(wrong("interface", interface, "it is 1 to 15 characters without spaces, / and :"))
    }

    /// A number for this key, the same in each version: names on the host are made of it.
    pub fn stable_hash(&self) -> u64 {
        let Self { network, container, interface } = self;
        stable_hash(network.bytes().chain([0]).chain(container.bytes()).chain([0]).chain(interface.bytes()))
    }
}

/// FNV-1a, 64 bits: the same in each version and on each host.
pub(super) fn stable_hash(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

impl fmt::Display for EndpointKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of container {} in network {}", self.interface, self.container, self.network)
    }
}

/// As the CNI specification has container ids and network names.
fn is_name(text: &str) -> bool {
    text.len() <= MAX_NAME_LEN
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

/// An address with the length of its network's prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix {
    /// The address.
    pub address: IpAddr,
    /// Leading bits that are the network's.
    pub len: u8,
}

impl FromStr for Prefix {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, TextError> {
        let wrong = || wrong("address", text, "write ADDRESS/LENGTH, as 10.0.0.5/24");
        let (address, len) = text.split_once('/').ok_or_else(wrong)?;
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let max = if address.is_ipv4() { 32 } else { 128 };
        let len: u8 = len.parse().map_err(|_| wrong())?;
        if len > max {
            return Err(wrong());
        }
        Ok(Self { address, len })
    }
}

impl TryFrom<String> for Prefix {
    type Error = TextError;

    fn try_from(text: String) -> Result<Self, TextError> {
        text.parse()
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> Self {
        prefix.to_string()
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.len)
    }
}

/// A route of the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Where to.
    pub destination: Prefix,
    /// By which router; `None`: on the link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.gateway {
            Some(gateway) => write!(f, "{} via {gateway}", self.destination),
            None => write!(f, "{} on the link", self.destination),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(network: &str, container: &str, interface: &str) -> EndpointKey {
        EndpointKey { network: network.into(), container: container.into(), interface: interface.into() }
    }

    #[test]
    fn keys_are_what_cni_allows() {
        assert_eq!(key("pods", "0a1b", "eth0").check(), Ok(()));
        assert_eq!(key("pods", "0a1b", "fifteen-charact").check(), Ok(()));
        for wrong in [
            key("", "0a1b", "eth0"),
            key("pods", "../x", "eth0"),
            key("pods", "-x", "eth0"),
            key("pods", "0a1b", ""),
            key("pods", "0a1b", "."),
            key("pods", "0a1b", "a/b"),
            key("pods", "0a1b", "a b"),
            key("pods", "0a1b", "sixteen-characte"),
        ] {
            assert!(wrong.check().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_hash_is_the_same_for_ever_and_parts_do_not_flow_together() {
        assert_eq!(key("a", "b", "c").stable_hash(), 0x3fae_46fc_8499_a3af);
        assert_ne!(key("ab", "c", "d").stable_hash(), key("a", "bc", "d").stable_hash());
    }

    #[test]
    fn prefixes_are_read_as_printed() {
        for text in ["10.0.0.5/24", "fd00::5/64", "0.0.0.0/0"] {
            assert_eq!(text.parse::<Prefix>().unwrap().to_string(), text);
        }
        for wrong in ["", "10.0.0.5", "10.0.0.5/33", "fd00::/129", "10.0.0.5/-1", "x/1"] {
            assert!(wrong.parse::<Prefix>().is_err(), "{wrong}");
        }
    }
}
