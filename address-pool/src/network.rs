//! Networks by their prefix, and spans of addresses.

use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Serialize};

/// A network: an address whose bits behind the prefix are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    address: IpAddr,
    len: u8,
}

/// A text is not a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a network; write ADDRESS/LENGTH, as 10.0.0.0/24", .0.escape_debug())]
pub struct NetworkError(String);

impl Network {
    /// The network that an address is in; `None`: no address has so many bits.
    pub fn of(address: IpAddr, len: u8) -> Option<Self> {
        let n_bits = bits(address);
        (len <= n_bits).then(|| {
            let address = of_number(number(address) & !low_bits(n_bits - len), address);
            Self { address, len }
        })
    }

    /// Its first address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Length of its prefix.
    #[allow(clippy::len_without_is_empty)] // a prefix of no bits is a network like any other
    pub fn len(&self) -> u8 {
        self.len
    }

    /// An address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        Self::of(address, self.len).as_ref() == Some(self) && address.is_ipv4() == self.address.is_ipv4()
    }

    /// All of another network is in it.
    pub fn contains_network(&self, other: &Self) -> bool {
        other.len >= self.len && self.contains(other.address)
    }

    /// They have addresses in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains_network(other) || other.contains_network(self)
    }

    /// All its addresses.
    pub fn whole(&self) -> Span {
        let last = number(self.address) | low_bits(bits(self.address) - self.len);
        Span { first: self.address, last: of_number(last, self.address) }
    }

    /// Addresses that interfaces may have: all but that of the network itself (of IPv6 the
    /// routers' anycast address, RFC 4291 §2.6.1) and, of IPv4, that of all of them (RFC 919).
    pub fn hosts(&self) -> Span {
        let n_host_bits = bits(self.address) - self.len;
        let Span { first, last } = self.whole();
        let (first, last) = (number(first), number(last));
        // Links of two have nothing to leave out (RFC 3021, RFC 6164).
        let (first, last) = match (self.address.is_ipv4(), n_host_bits) {
            (_, 0 | 1) => (first, last),
            (true, _) => (first + 1, last - 1),
            (false, _) => (first + 1, last),
        };
        Span { first: of_number(first, self.address), last: of_number(last, self.address) }
    }

    /// The networks of this length in it, in order; none when it is smaller itself.
    pub fn subnets(self, len: u8) -> impl Iterator<Item = Self> {
        let n_bits = bits(self.address);
        let is_possible = (self.len..=n_bits).contains(&len);
        // At most as many as can be counted; nobody goes through more.
        let n_subnets =
            if is_possible { 1_u128.checked_shl((len - self.len).into()).unwrap_or(u128::MAX) } else { 0 };
        let first = number(self.address);
        (0..n_subnets).map(move |idx| Self {
            address: of_number(first | idx.checked_shl((n_bits - len).into()).unwrap_or(0), self.address),
            len,
        })
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let wrong = || NetworkError(text.chars().take(100).collect());
        let (address, len) = text.split_once('/').ok_or_else(wrong)?;
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let network = Self::of(address, len.parse().map_err(|_| wrong())?).ok_or_else(wrong)?;
        // With other bits it is an address in a network, which is something else.
        if network.address == address { Ok(network) } else { Err(wrong()) }
    }
}

impl TryFrom<String> for Network {
    type Error = NetworkError;

    fn try_from(text: String) -> Result<Self, NetworkError> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.len)
    }
}

/// Addresses from one to another, both among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Span {
    /// The first.
    pub first: IpAddr,
    /// The last, of the same family and not less.
    pub last: IpAddr,
}

impl Span {
    /// A span; `None`: they are of two families, or backwards.
    pub fn new(first: IpAddr, last: IpAddr) -> Option<Self> {
        (first.is_ipv4() == last.is_ipv4() && first <= last).then_some(Self { first, last })
    }

    /// An address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.first.is_ipv4() && (self.first..=self.last).contains(&address)
    }

    /// The address behind one of the span's; `None`: that was its last.
    pub fn after(&self, address: IpAddr) -> Option<IpAddr> {
        (address < self.last).then(|| of_number(number(address) + 1, address))
    }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The `n` lowest bits.
fn low_bits(n: u8) -> u128 {
    1_u128.checked_shl(n.into()).map_or(u128::MAX, |bit| bit - 1)
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(ip) => u32::from(ip).into(),
        IpAddr::V6(ip) => ip.into(),
    }
}

/// An address by its number, of the family of another.
fn of_number(number: u128, family: IpAddr) -> IpAddr {
    match family {
        IpAddr::V4(_) => IpAddr::V4((number as u32).into()),
        IpAddr::V6(_) => IpAddr::V6(number.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    #[test]
    fn networks_are_read_as_printed() {
        for text in ["10.0.0.0/24", "0.0.0.0/0", "10.0.0.1/32", "::/0", "fd00::/64", "fd00::1/128"] {
            assert_eq!(network(text).to_string(), text);
        }
        for wrong in ["", "10.0.0.0", "10.0.0.1/24", "10.0.0.0/33", "fd00::/129", "fd00::1/64", "x/1", "/"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn interfaces_have_what_is_neither_the_network_nor_everybody() {
        for (text, first, last) in [
            ("10.0.0.0/24", "10.0.0.1", "10.0.0.254"),
            ("10.0.0.4/30", "10.0.0.5", "10.0.0.6"),
            ("10.0.0.4/31", "10.0.0.4", "10.0.0.5"),
            ("10.0.0.4/32", "10.0.0.4", "10.0.0.4"),
            ("fd00::/64", "fd00::1", "fd00::ffff:ffff:ffff:ffff"),
            ("::/0", "::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ] {
            let hosts = network(text).hosts();
            assert_eq!((hosts.first.to_string().as_str(), hosts.last.to_string().as_str()), (first, last));
        }
    }

    #[test]
    fn subnets_are_in_order_and_within() {
        let of = |text: &str, len| network(text).subnets(len).map(|n| n.to_string()).collect::<Vec<_>>();
        assert_eq!(of("10.0.0.0/22", 24), ["10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/24", "10.0.3.0/24"]);
        assert_eq!(of("10.0.0.0/24", 24), ["10.0.0.0/24"]);
        assert_eq!(of("10.0.0.0/24", 23), [] as [&str; 0]);
        assert_eq!(of("10.0.0.0/24", 33), [] as [&str; 0]);
        assert_eq!(network("::/0").subnets(128).nth(3).unwrap().to_string(), "::3/128");
    }

    #[test]
    fn families_have_nothing_in_common() {
        assert!(!network("0.0.0.0/0").contains("::1".parse().unwrap()));
        assert!(!network("::/0").overlaps(&network("0.0.0.0/0")));
        assert!(network("10.0.0.0/8").overlaps(&network("10.1.0.0/16")));
        assert!(network("10.1.0.0/16").overlaps(&network("10.0.0.0/8")));
        assert!(!network("10.1.0.0/16").overlaps(&network("10.2.0.0/16")));
        assert!(Span::new("10.0.0.1".parse().unwrap(), "::1".parse().unwrap()).is_none());
    }
}
