//! What the features need to know about addresses: link-local and solicited-node
//! addresses, networks as text.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use flowtable::types::MacAddr;

use crate::model::{IpNetwork, RouterPort};

impl IpNetwork {
    /// The network's own address: the host's bits are zero.
    pub fn base(&self) -> IpAddr {
        match self.addr {
            IpAddr::V4(ip) => IpAddr::V4((u32::from(ip) & self.v4_mask()).into()),
            IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) & self.v6_mask()).into()),
        }
    }

    /// The address is in the network.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.addr.is_ipv4() == ip.is_ipv4()
            && Self { addr: ip, prefix_len: self.prefix_len }.base() == self.base()
    }

    /// The network as the match language writes it; an address alone when it has no
    /// other member.
    pub(crate) fn text(&self) -> String {
        let width = if self.addr.is_ipv4() { 32 } else { 128 };
        if self.prefix_len >= width {
            self.addr.to_string()
        } else {
            format!("{}/{}", self.base(), self.prefix_len)
        }
    }

    /// The broadcast address of an IPv4 network that has one.
    pub(crate) fn broadcast(&self) -> Option<Ipv4Addr> {
        match self.base() {
            IpAddr::V4(base) if self.prefix_len < 31 => Some((u32::from(base) | !self.v4_mask()).into()),
            _ => None,
        }
    }

    fn v4_mask(&self) -> u32 {
        u32::MAX.checked_shl(32_u32.saturating_sub(self.prefix_len.into())).unwrap_or(0)
    }

    fn v6_mask(&self) -> u128 {
        u128::MAX.checked_shl(128_u32.saturating_sub(self.prefix_len.into())).unwrap_or(0)
    }
}

/// The link-local address that follows from a MAC address (RFC 4291, appendix A).
pub(crate) fn link_local(mac: MacAddr) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.octets();
    let pair = |high, low| u16::from_be_bytes([high, low]);
    Ipv6Addr::new(0xfe80, 0, 0, 0, pair(a ^ 2, b), pair(c, 0xff), pair(0xfe, d), pair(e, f))
}

/// The multicast address that solicitations for an address go to (RFC 4291 §2.7.1).
pub(crate) fn solicited_node(ip: Ipv6Addr) -> Ipv6Addr {
    const PREFIX: u128 = 0xff02_0000_0000_0000_0000_0001_ff00_0000;
    (PREFIX | u128::from(ip) & 0xff_ffff).into()
}

/// Addresses of a router port with their networks: those it was given, and, with IPv6,
/// the link-local one.
pub(crate) fn of_router_port(port: &RouterPort) -> Vec<IpNetwork> {
    let mut networks = port.networks.clone();
    if networks.iter().any(|network| network.addr.is_ipv6()) {
        networks.push(IpNetwork { addr: link_local(port.mac).into(), prefix_len: 64 });
    }
    networks.dedup();
    networks
}

/// Right side of `==` for one or several values.
pub(crate) fn one_of(values: &[String]) -> String {
    match values {
        [value] => value.clone(),
        values => format!("{{{}}}", values.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(addr: &str, prefix_len: u8) -> IpNetwork {
        IpNetwork { addr: addr.parse().unwrap(), prefix_len }
    }

    #[test]
    fn networks_have_bases_members_and_broadcast() {
        assert_eq!(network("10.0.0.5", 24).text(), "10.0.0.0/24");
        assert_eq!(network("10.0.0.5", 32).text(), "10.0.0.5");
        assert_eq!(network("10.0.0.5", 0).text(), "0.0.0.0/0");
        assert_eq!(network("2001:db8::5", 64).text(), "2001:db8::/64");
        assert_eq!(network("::", 0).text(), "::/0");
        assert_eq!(network("10.0.0.5", 24).broadcast().unwrap().to_string(), "10.0.0.255");
        assert_eq!(network("10.0.0.5", 31).broadcast(), None);
        assert!(network("10.0.0.5", 8).contains("10.9.9.9".parse().unwrap()));
        assert!(!network("0.0.0.0", 0).contains("::1".parse().unwrap()));
        assert_eq!(network("10.0.0.5", 200).text(), "10.0.0.5");
    }

    #[test]
    fn derived_addresses_are_as_in_rfc_4291() {
        let mac: MacAddr = "0a:00:00:00:00:01".parse().unwrap();
        assert_eq!(link_local(mac).to_string(), "fe80::800:ff:fe00:1");
        let solicited = solicited_node("2001:db8::12:3456".parse().unwrap());
        assert_eq!(solicited.to_string(), "ff02::1:ff12:3456");
    }
}
