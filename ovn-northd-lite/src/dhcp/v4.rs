//! Options of DHCPv4 (RFC 2132 and others), by OVN's names, and what a host is told of an
//! offer.

use std::{collections::BTreeMap, net::Ipv4Addr};

use super::{
    Kind, MAX_OPTIONS_LEN, OptionError, Value,
    value::Kind::{Address, Addresses, Byte, Domains, Flag, Routes, Short, Text, Word},
};

/// An option of DHCPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OptionV4(u8);

/// Name, number in packets, what it can be. The last two are no options of packets but
/// fields before them, with numbers that no packet's option has for us.
const TABLE: &[(&str, u8, Kind)] = &[
    ("netmask", 1, Address),
    ("time_offset", 2, Word),
    ("router", 3, Addresses),
    ("time_server", 4, Addresses),
    ("dns_server", 6, Addresses),
    ("log_server", 7, Addresses),
    ("lpr_server", 9, Addresses),
    ("hostname", 12, Text),
    ("domain_name", 15, Text),
    ("swap_server", 16, Address),
    ("root_path", 17, Text),
    ("ip_forward_enable", 19, Flag),
    ("policy_filter", 21, Addresses),
    ("default_ttl", 23, Byte),
    ("mtu", 26, Short),
    ("broadcast_address", 28, Address),
    ("router_discovery", 31, Flag),
    ("router_solicitation", 32, Address),
    ("arp_cache_timeout", 35, Word),
    ("ethernet_encap", 36, Flag),
    ("tcp_ttl", 37, Byte),
    ("tcp_keepalive_interval", 38, Word),
    ("nis_domain", 40, Text),
    ("nis_server", 41, Addresses),
    ("ntp_server", 42, Addresses),
    ("netbios_name_server", 44, Addresses),
    ("netbios_node_type", 46, Byte),
    ("lease_time", 51, Word),
    ("server_id", 54, Address),
    ("T1", 58, Word),
    ("T2", 59, Word),
    ("tftp_server", 66, Text),
    ("bootfile_name", 67, Text),
    ("posix_timezone", 100, Text),
    ("tzdb_timezone", 101, Text),
    ("domain_search_list", 119, Domains),
    ("classless_static_route", 121, Routes),
    ("tftp_server_address", 150, Addresses),
    ("path_prefix", 210, Text),
    ("ms_classless_static_route", 249, Routes),
    ("wpad", 252, Text),
    ("next_server", 253, Address),
    ("bootfile_name_alt", 254, Text),
];

impl OptionV4 {
    /// The client's network's mask.
    pub const NETMASK: Self = Self(1);
    /// The client's name.
    pub const HOSTNAME: Self = Self(12);
    /// How long an address is the client's.
    pub const LEASE_TIME: Self = Self(51);
    /// The server's address.
    pub const SERVER_ID: Self = Self(54);
    /// When to renew.
    pub const T1: Self = Self(58);
    /// When to ask anybody.
    pub const T2: Self = Self(59);
    /// A file to boot from.
    pub const BOOTFILE: Self = Self(67);
    /// Where to boot from: the field `siaddr` (RFC 2131 §2).
    pub const NEXT_SERVER: Self = Self(253);
    /// A file to boot from for boot loaders that say who they are (option 175).
    pub const BOOTFILE_ALT: Self = Self(254);

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

    /// Its number.
    pub fn code(self) -> u8 {
        self.0
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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OfferV4 {
    /// The client's address.
    pub ip: Option<Ipv4Addr>,
    /// The options, as bytes, by their numbers.
    pub options: BTreeMap<u8, Vec<u8>>,
}

impl OfferV4 {
    /// An offer with these options.
    ///
    /// # Errors
    /// [`OptionError::TooLong`].
    pub fn new(ip: Ipv4Addr, options: &BTreeMap<OptionV4, Value>) -> Result<Self, OptionError> {
        let options: BTreeMap<_, _> =
            options.iter().map(|(option, value)| (option.0, value.bytes())).collect();
        let len = options.values().map(|value| 2 + value.len()).sum();
        if len > MAX_OPTIONS_LEN {
            return Err(OptionError::TooLong { len });
        }
        Ok(Self { ip: Some(ip), options })
    }

    /// An option's value.
    pub fn option(&self, option: OptionV4) -> Option<&[u8]> {
        self.options.get(&option.0).map(Vec::as_slice)
    }

    /// As bytes for the responder.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.ip.unwrap_or(Ipv4Addr::UNSPECIFIED).octets().to_vec();
        for (code, value) in &self.options {
            bytes.push(*code);
            bytes.push(u8::try_from(value.len()).unwrap_or(u8::MAX));
            bytes.extend(value.iter().take(usize::from(u8::MAX)));
        }
        bytes
    }

    /// From bytes; `None` when they are none.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (ip, mut rest) = bytes.split_first_chunk::<4>()?;
        let mut options = BTreeMap::new();
        while let Some(([code, len], more)) = rest.split_first_chunk::<2>() {
            let (value, more) = more.split_at_checked(usize::from(*len))?;
            options.insert(*code, value.to_vec());
            rest = more;
        }
        rest.is_empty().then(|| Self { ip: Some(Ipv4Addr::from(*ip)), options })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_names_lead_back() {
        assert!(TABLE.is_sorted_by(|a, b| a.1 < b.1));
        for option in OptionV4::all() {
            assert_eq!(OptionV4::named(option.name()), Ok(option));
        }
        let error = OptionV4::named("dns_sever").unwrap_err().to_string();
        assert_eq!(error, "there is no DHCP option `dns_sever`; did you mean `dns_server`?");
    }

    #[test]
    fn offers_come_back_and_pieces_do_not() {
        let options = [("router", "10.0.0.1"), ("hostname", "a"), ("mtu", "1442")];
        let options = options.map(|(name, text)| {
            let option = OptionV4::named(name).unwrap();
            (option, option.parse(text).unwrap())
        });
        let offer = OfferV4::new([10, 0, 0, 5].into(), &options.into()).unwrap();
        let bytes = offer.encode();
        assert_eq!(OfferV4::decode(&bytes), Some(offer.clone()));
        for len in 0..bytes.len() {
            assert_ne!(OfferV4::decode(&bytes[..len]), Some(offer.clone()), "{len}");
        }
    }
}
