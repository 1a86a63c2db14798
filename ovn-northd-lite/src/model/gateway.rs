//! Where a network meets what is outside: hosts that may be a gateway, and how ports are
//! attached that are no plain interface.

use std::{collections::BTreeMap, net::IpAddr};

use flowtable::types::VlanId;

/// A host that may be a gateway.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Candidate {
    /// How much it is preferred to others; the highest is.
    pub priority: u16,
    /// Id of the chassis.
    pub chassis: String,
}

impl Candidate {
    /// The best first, each chassis once.
    pub fn ranked(mut list: Vec<Self>) -> Vec<Self> {
        list.sort_by(|a, b| b.priority.cmp(&a.priority).then_with(|| a.chassis.cmp(&b.chassis)));
        let mut seen = std::collections::BTreeSet::new();
        list.retain(|candidate| seen.insert(candidate.chassis.clone()));
        list
    }
}

/// Hosts that may have something that one host has at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gateway {
    /// These, the best first; none: it is on every host.
    Hosts(Vec<Candidate>),
    /// Those of the group with this id.
    Group(String),
}

/// Hosts that may be a gateway by the ids of their groups, the best first.
pub type Groups = BTreeMap<String, Vec<Candidate>>;

impl Gateway {
    /// It is on every host.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Hosts(hosts) if hosts.is_empty())
    }

    /// The hosts, the best first. A group that nobody is in, or that there is not, is on a
    /// host that there is not: nothing is on every host by mistake.
    pub fn hosts(&self, groups: &Groups) -> Vec<Candidate> {
        match self {
            Self::Hosts(hosts) => hosts.clone(),
            Self::Group(id) => match groups.get(id) {
                Some(hosts) if !hosts.is_empty() => hosts.clone(),
                Some(_) | None => vec![Candidate { priority: 0, chassis: String::new() }],
            },
        }
    }
}

impl Default for Gateway {
    fn default() -> Self {
        Self::Hosts(Vec::new())
    }
}

impl From<Vec<Candidate>> for Gateway {
    fn from(hosts: Vec<Candidate>) -> Self {
        Self::Hosts(hosts)
    }
}

/// How a workload is attached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Access {
    /// By an interface of its own on one chassis.
    #[default]
    Interface,
    /// Behind the interface of another workload, in frames with a VLAN tag.
    Nested {
        /// Id of that workload's port.
        parent: String,
        /// The tag.
        tag: VlanId,
    },
    /// By an interface of its own on each chassis that has one, which serves that chassis
    /// alone.
    EachChassis,
    /// By the network outside that its switch is connected to. One of these hosts answers it
    /// for the switch.
    External(Gateway),
    /// It is an address that one of some workloads of the switch has at a time: whoever said so
    /// last, with that workload's MAC address.
    Virtual {
        /// The address.
        ip: IpAddr,
        /// Ids of the ports of those workloads.
        parents: Vec<String>,
    },
}

impl Access {
    /// Frames are sent to the port itself.
    pub(crate) fn has_frames(&self) -> bool {
        !matches!(self, Self::Virtual { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_candidate_is_first_and_nobody_stands_twice() {
        let candidate = |chassis: &str, priority| Candidate { chassis: chassis.to_owned(), priority };
        let list = vec![candidate("b", 5), candidate("c", 9), candidate("a", 5), candidate("b", 1)];
        let ids: Vec<_> =
            Candidate::ranked(list).into_iter().map(|one| (one.chassis, one.priority)).collect();
        assert_eq!(ids, [("c".to_owned(), 9), ("a".to_owned(), 5), ("b".to_owned(), 5)]);
    }
}
