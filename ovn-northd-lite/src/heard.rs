//! Who hosts have heard of behind the ports of routers, as the other hosts are told: sets
//! whose members are neighbours, so that a new neighbour is one member and no flow.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use flowtable::types::MacAddr;

/// Name of the set with the neighbours of a router port.
pub fn set_of(port: &str) -> String {
    format!("%{port}")
}

/// Id of the router port whose neighbours a set of this name has.
pub fn port_of(name: &str) -> Option<&str> {
    name.strip_prefix('%')
}

/// Neighbours as members of a set.
pub(crate) fn members(neighbours: &BTreeMap<IpAddr, MacAddr>) -> BTreeSet<String> {
    neighbours.iter().map(|(ip, mac)| format!("{ip} {mac}")).collect()
}

/// Reads a member of a set; `None` when it is no neighbour.
pub fn parse(member: &str) -> Option<(IpAddr, MacAddr)> {
    let (ip, mac) = member.split_once(' ')?;
    Some((ip.parse().ok()?, mac.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_come_back() {
        let mac = MacAddr::new([0x0a, 0, 0, 0, 0, 7]);
        let neighbours: BTreeMap<IpAddr, _> =
            ["203.0.113.9", "2001:db8::9"].map(|ip| (ip.parse().unwrap(), mac)).into();
        let members = members(&neighbours);
        assert_eq!(
            members.iter().map(|member| parse(member).unwrap()).collect::<BTreeMap<_, _>>(),
            neighbours
        );
        assert_eq!(port_of(&set_of("r-out")), Some("r-out"));
        assert_eq!(port_of("#r-out"), None);
        for wrong in ["", "10.0.0.1", "10.0.0.1 ", "x 0a:00:00:00:00:07", "10.0.0.1 0a:00:00:00:00:07 x"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
