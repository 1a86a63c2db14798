//! Collectors of sampled packets as hosts are told of them: sets whose members are addresses.
//! No match names them.

use std::{collections::BTreeSet, net::SocketAddr};

use crate::model::SampleCollector;

/// An address where a set of collectors is told: `7 192.0.2.9:4739`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// Number of the set, which actions name.
    pub set: u32,
    /// Address and port.
    pub address: SocketAddr,
}

/// Name of the set with the targets of a collector.
pub(crate) fn set_of(id: &str) -> String {
    format!("~{id}")
}

/// The set of this name has targets.
pub fn is_set(name: &str) -> bool {
    name.starts_with('~')
}

/// Targets as members of a set.
pub(crate) fn members(collector: &SampleCollector) -> BTreeSet<String> {
    collector.targets.iter().map(|address| format!("{} {address}", collector.set)).collect()
}

impl Target {
    /// Reads a member of a set; `None` when it is no target.
    pub fn parse(member: &str) -> Option<Self> {
        let (set, address) = member.split_once(' ')?;
        Some(Self { set: set.parse().ok().filter(|set| *set > 0)?, address: address.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_come_back() {
        let targets: BTreeSet<SocketAddr> =
            ["192.0.2.9:4739".parse().unwrap(), "[2001:db8::9]:4739".parse().unwrap()].into();
        let collector = SampleCollector {
            set: 7,
            probability: 1,
            targets: targets.clone(),
            new_application: 0,
            established_application: 0,
        };
        let members = members(&collector);
        let back = members.iter().map(|member| Target::parse(member).unwrap());
        assert!(back.clone().all(|target| target.set == 7));
        assert_eq!(back.map(|target| target.address).collect::<BTreeSet<_>>(), targets);
        for wrong in ["", "7", "0 192.0.2.9:4739", "x 192.0.2.9:4739", "7 192.0.2.9", "7 192.0.2.9:4739 x"] {
            assert_eq!(Target::parse(wrong), None, "{wrong}");
        }
    }
}
