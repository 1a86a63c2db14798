//! Network policy: access rules, and the sets that they speak of.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use flowtable::types::{MacAddr, Priority};

use super::{IpNetwork, Rate, Samples};

/// An access rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acl {
    /// Where it applies.
    pub direction: AclDirection,
    /// 0 to 3: asked when no ACL of the tiers before has decided.
    pub tier: u8,
    /// 0 to 32767.
    pub priority: Priority,
    /// Which packets, in the match language; see `crate::expr`.
    pub matching: String,
    /// Verdict.
    pub action: AclAction,
    /// Kept with the connections it allows; 0: none.
    pub label: u32,
    /// How the packets it decides about are logged.
    pub log: Option<AclLog>,
    /// Asked when load balancers have chosen a backend: it sees that one's address. Only for
    /// what ports send.
    pub after_lb: bool,
    /// Connections that it has allowed stay allowed, whatever ACLs say later.
    pub persists: bool,
    /// How collectors are told of the packets it decides about.
    pub samples: Samples,
}

/// Where an ACL applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AclDirection {
    /// To what a port of the switch sends.
    FromLport,
    /// To what a port of the switch receives.
    ToLport,
}

/// Verdict of an ACL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AclAction {
    /// Allow; with its replies, on a switch that tracks connections.
    Allow,
    /// Allow, and the replies with it.
    AllowRelated,
    /// Allow this direction, untracked.
    AllowStateless,
    /// Drop.
    Drop,
    /// Drop and tell the sender.
    Reject,
    /// Leave it to the next tier.
    Pass,
}

/// How an ACL logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AclLog {
    /// What the log calls it; empty: its resource name.
    pub name: String,
    /// How much it matters.
    pub severity: Severity,
    /// How many lines a host writes; `None`: its part of what all ACLs may.
    pub rate: Option<Rate>,
    /// Answers and errors of connections that it has allowed are logged too, by its label.
    pub related: bool,
}

/// How much a logged packet matters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Severity {
    /// For whoever looks for a fault.
    Debug = 0,
    /// As expected.
    #[default]
    Info = 1,
    /// Worth a look.
    Notice = 2,
    /// Not as it should be.
    Warning = 3,
    /// Somebody must act.
    Alert = 4,
}

impl Severity {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Debug, Self::Info, Self::Notice, Self::Warning, Self::Alert];

    /// Name in texts.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Alert => "alert",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What becomes of packets that no ACL decides about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum DefaultPolicy {
    /// They pass.
    #[default]
    Allow,
    /// They are dropped, all but ARP and neighbour discovery.
    Drop,
}

/// A list of switch ports with a name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortGroup {
    /// Ids of the ports, each with the id of its switch.
    pub ports: BTreeMap<String, String>,
    /// Its ACLs, which apply to every switch that has a port of it.
    pub acls: BTreeMap<String, Acl>,
    /// What becomes of its ports' packets that no ACL decides about.
    pub default_policy: DefaultPolicy,
}

impl PortGroup {
    /// Ids of the switches that have a port of it.
    pub fn switches(&self) -> BTreeSet<&str> {
        self.ports.values().map(String::as_str).collect()
    }
}

/// A member of an address set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetMember {
    /// A MAC address.
    Mac(MacAddr),
    /// An IP address or network, without host bits.
    Ip(IpNetwork),
}

impl fmt::Display for SetMember {
    /// As the match language writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mac(mac) => mac.fmt(f),
            Self::Ip(network) => f.write_str(&network.text()),
        }
    }
}
