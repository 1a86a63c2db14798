//! Options of DHCPv6 (RFC 8415 and others), by OVN's names, and what a host is told of an
//! offer.

use std::{collections::BTreeMap, net::Ipv6Addr};

use flowtable::types::MacAddr;

use super::{
    Kind, MAX_OPTIONS_LEN, OptionError, Value,
    value::{
        Kind::{Addresses6, Domains, Flag, Mac, Text, Word},
        v6_at,
    },
};

/// An option of DHCPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OptionV6(u16);

/// Name, number in packets, what it can be. Numbers from 0xff00 are settings of the
/// server, not options of packets.
const TABLE: &[(&str, u16, Kind)] = &[
    ("dns_server", 23, Addresses6),
    ("domain_search", 24, Domains),
    ("sntp_server", 31, Addresses6),
    ("information_refresh_time", 32, Word),
    ("bootfile_name", 59, Text),
    ("server_id", 0xff00, Mac),
    ("dhcpv6_stateless", 0xff01, Flag),
    ("lease_time", 0xff02, Word),
];

/// Numbers of settings.
const FIRST_SETTING: u16 = 0xff00;
/// How long an address is the client's if nothing is said.
const LEASE_TIME: u32 = 86_400;

impl OptionV6 {
    /// MAC address of the server's identifier.
    pub const SERVER_ID: Self = Self(0xff00);
    /// No addresses are given.
    pub const STATELESS: Self = Self(0xff01);
    /// How long an address is the client's.
    pub const LEASE_TIME: Self = Self(0xff02);

    /// The option of a name.
    ///
    /// # Errors
    /// [`OptionError::Unknown`].
    pub fn named(name: &str) -> Result<Self, OptionError> {
        super::number_of(name, TABLE).map(Self)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        super::name_of(self.0, TABLE)
    }

    /// Reads a value of the option.
    ///
    /// # Errors
    /// [`OptionError::Value`].
    pub fn parse(self, text: &str) -> Result<Value, OptionError> {
        let kind = TABLE.iter().find(|(_, code, _)| *code == self.0).map_or(Text, |(.., kind)| *kind);
        let wrong = |reason| OptionError::Value { name: self.name().to_owned(), reason };
        Value::parse(kind, text).map_err(wrong)
    }

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|(_, code, _)| Self(*code))
    }
}

/// What a host's responder offers one client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferV6 {
    /// The client's address; `None`: only options are given.
    pub ip: Option<Ipv6Addr>,
    /// The server's.
    pub server: MacAddr,
    /// Seconds for which the address is the client's.
    pub lease_time: u32,
    /// The options, as bytes, by their numbers.
    pub options: BTreeMap<u16, Vec<u8>>,
}

impl OfferV6 {
    /// An offer with these options.
    ///
    /// # Errors
    /// [`OptionError::TooLong`].
    pub fn new(
        ip: Option<Ipv6Addr>,
        server: MacAddr,
        options: &BTreeMap<OptionV6, Value>,
    ) -> Result<Self, OptionError> {
        let lease_time = options.get(&OptionV6::LEASE_TIME).and_then(Value::number).unwrap_or(LEASE_TIME);
        let in_packets = options.iter().filter(|(option, _)| option.0 < FIRST_SETTING);
        let options: BTreeMap<_, _> = in_packets.map(|(option, value)| (option.0, value.bytes())).collect();
        let len = options.values().map(|value| 4 + value.len()).sum();
        if len > MAX_OPTIONS_LEN {
            return Err(OptionError::TooLong { len });
        }
        Ok(Self { ip, server, lease_time, options })
    }

    /// As bytes for the responder.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.ip.unwrap_or(Ipv6Addr::UNSPECIFIED).octets().to_vec();
        bytes.extend(self.server.octets());
        bytes.extend(self.lease_time.to_be_bytes());
        for (code, value) in &self.options {
            bytes.extend(code.to_be_bytes());
            bytes.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
            bytes.extend(value);
        }
        bytes
    }

    /// From bytes; `None` when they are none.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (ip, rest) = bytes.split_at_checked(16)?;
        let (server, rest) = rest.split_first_chunk::<6>()?;
        let (lease_time, mut rest) = rest.split_first_chunk::<4>()?;
        let mut options = BTreeMap::new();
        while let Some(([a, b, c, d], more)) = rest.split_first_chunk::<4>() {
            let (value, more) = more.split_at_checked(usize::from(u16::from_be_bytes([*c, *d])))?;
            options.insert(u16::from_be_bytes([*a, *b]), value.to_vec());
            rest = more;
        }
        let ip = v6_at(ip).filter(|ip| !ip.is_unspecified());
        let (server, lease_time) = (MacAddr::new(*server), u32::from_be_bytes(*lease_time));
        rest.is_empty().then_some(Self { ip, server, lease_time, options })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back() {
        for option in OptionV6::all() {
            assert_eq!(OptionV6::named(option.name()), Ok(option));
        }
        assert!(OptionV6::named("router").is_err());
    }

    #[test]
    fn offers_come_back_and_pieces_do_not() {
        let options = [("dns_server", "2001:db8::53"), ("lease_time", "60")];
        let options = options.map(|(name, text)| {
            let option = OptionV6::named(name).unwrap();
            (option, option.parse(text).unwrap())
        });
        let server = MacAddr::new([2, 0, 0, 0, 0, 1]);
        for ip in [None, Some("2001:db8::5".parse().unwrap())] {
            let offer = OfferV6::new(ip, server, &options.clone().into()).unwrap();
            assert_eq!((offer.lease_time, offer.options.len()), (60, 1));
            let bytes = offer.encode();
            assert_eq!(OfferV6::decode(&bytes), Some(offer.clone()));
            for len in 0..bytes.len() {
                assert_ne!(OfferV6::decode(&bytes[..len]), Some(offer.clone()), "{len}");
            }
        }
    }
}
