//! Who wants to hear which group: how switches find out, and who asks.

use std::net::{Ipv4Addr, Ipv6Addr};

use flowtable::types::MacAddr;

/// How a switch listens to what its workloads say about groups. Without it, what is sent to a
/// group goes to all of its ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snooping {
    /// Groups that nobody has asked for go to all ports.
    pub floods_unknown: bool,
    /// Groups that one host remembers at most.
    pub max_groups: u32,
    /// Seconds after which somebody is forgotten who does not say any more what he hears.
    pub max_age: u16,
    /// Hosts ask.
    pub querier: Option<Querier>,
}

impl Default for Snooping {
    fn default() -> Self {
        Self { floods_unknown: false, max_groups: 2048, max_age: 300, querier: None }
    }
}

/// How hosts ask their own workloads what they want to hear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Querier {
    /// Seconds between two questions.
    pub interval: u16,
    /// Seconds that answers may take.
    pub max_response: u8,
    /// MAC address that asks.
    pub mac: MacAddr,
    /// IPv4 address that asks; `None`: it has none.
    pub v4: Option<Ipv4Addr>,
    /// Link-local IPv6 address that asks; `None`: the one that follows from the MAC address.
    pub v6: Option<Ipv6Addr>,
}
