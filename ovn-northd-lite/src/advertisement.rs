//! Router advertisements (RFC 4861 §4.2): as arguments of `put_nd_ra_opts`, and as the
//! message that a host sends.

use std::net::{IpAddr, Ipv6Addr};

use flowtable::types::MacAddr;

use crate::{
    dhcp::domain,
    expr::lexer::quote,
    model::{AddressMode, IpNetwork, Preference, RouterAdvertisement},
};

/// What routers say of the hop limit (RFC 1700).
const HOP_LIMIT: u8 = 64;
/// How long the prefix is on the link, and addresses made of it are preferred: forever, and
/// a week less than that is nobody's gain. A network that goes is announced no longer.
const PREFIX_LIFETIME: u32 = u32::MAX;

/// An advertisement of one router port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advertised {
    /// What the port is to say. Its interval is not said.
    pub ra: RouterAdvertisement,
    /// The port's networks.
    pub prefixes: Vec<IpNetwork>,
    /// The port's MAC address.
    pub mac: MacAddr,
}

impl Advertised {
    /// The arguments of the action, by their names.
    pub(crate) fn arguments(&self) -> Vec<(&'static str, String)> {
        let ra = &self.ra;
        let list = |words: Vec<String>| match words.as_slice() {
            [word] => word.clone(),
            words => format!("{{{}}}", words.join(", ")),
        };
        let mut arguments = vec![("addr_mode", quote(ra.mode.name()))];
        arguments.extend(ra.mtu.map(|mtu| ("mtu", mtu.to_string())));
        arguments.extend(self.prefixes.iter().map(|prefix| ("prefix", prefix.prefix_text())));
        arguments.push(("slla", self.mac.to_string()));
        if !ra.rdnss.is_empty() {
            arguments.push(("rdnss", list(ra.rdnss.iter().map(ToString::to_string).collect())));
        }
        if !ra.dnssl.is_empty() {
            arguments.push(("dnssl", quote(&ra.dnssl.join(","))));
        }
        if !ra.routes.is_empty() {
            let route = |(to, preference): &(IpNetwork, Preference)| {
                format!("{}-{}", preference.name(), to.prefix_text())
            };
            let routes: Vec<_> = ra.routes.iter().map(route).collect();
            arguments.push(("route_info", quote(&routes.join(","))));
        }
        arguments.push(("router_preference", quote(ra.preference.name())));
        arguments.push(("lifetime", ra.lifetime.to_string()));
        arguments
    }

    /// From the arguments of the action.
    ///
    /// # Errors
    /// Names the argument that is wrong.
    pub(crate) fn parse(arguments: &[(String, String)]) -> Result<Self, String> {
        let mut found = Self {
            ra: RouterAdvertisement {
                mode: AddressMode::Slaac,
                mtu: None,
                rdnss: Vec::new(),
                dnssl: Vec::new(),
                routes: Vec::new(),
                preference: Preference::Medium,
                lifetime: 0,
                interval: None,
            },
            prefixes: Vec::new(),
            mac: MacAddr::ZERO,
        };
        for (name, text) in arguments {
            let wrong = || format!("`{}` is no {name} of an advertisement", text.escape_debug());
            found.set(name, text.trim_matches('"')).ok_or_else(wrong)?;
        }
        Ok(found)
    }

    fn set(&mut self, name: &str, text: &str) -> Option<()> {
        let words = || text.trim_matches(['{', '}']).split(',').map(str::trim);
        match name {
            "addr_mode" => self.ra.mode = named(&AddressMode::ALL, text)?,
            "mtu" => self.ra.mtu = Some(text.parse().ok()?),
            "prefix" => self.prefixes.push(v6_network(text)?),
            "slla" => self.mac = text.parse().ok()?,
            "rdnss" => self.ra.rdnss = words().map(|word| word.parse().ok()).collect::<Option<_>>()?,
            "dnssl" => {
                let is_name = |word: &&str| domain(word).is_some();
                if !words().all(|word| is_name(&word)) {
                    return None;
                }
                self.ra.dnssl = words().map(str::to_owned).collect();
            }
            "route_info" => self.ra.routes = words().map(route).collect::<Option<_>>()?,
            "router_preference" => self.ra.preference = named(&Preference::ALL, text)?,
            "lifetime" => self.ra.lifetime = text.parse().ok()?,
            _ => return None,
        }
        Some(())
    }

    /// The ICMPv6 message, without its checksum.
    pub fn message(&self) -> Vec<u8> {
        let ra = &self.ra;
        let flags = match ra.mode {
            AddressMode::Slaac => 0,
            AddressMode::Stateful => 0x80,
            AddressMode::Stateless => 0x40,
        };
        let mut message = vec![134, 0, 0, 0, HOP_LIMIT, flags | ra.preference.bits() << 3];
        message.extend(ra.lifetime.to_be_bytes());
        message.extend([0; 8]);
        message.extend([1, 1]);
        message.extend(self.mac.octets());
        if let Some(mtu) = ra.mtu {
            message.extend([5, 1, 0, 0]);
            message.extend(mtu.to_be_bytes());
        }
        for prefix in &self.prefixes {
            // On the link; addresses are made of it unless DHCPv6 gives them.
            let autonomous = if ra.mode == AddressMode::Stateful { 0 } else { 0x40 };
            message.extend([3, 4, prefix.prefix_len, 0x80 | autonomous]);
            message.extend(PREFIX_LIFETIME.to_be_bytes());
            message.extend(PREFIX_LIFETIME.to_be_bytes());
            message.extend([0; 4]);
            message.extend(v6(prefix).octets());
        }
        for (to, preference) in &ra.routes {
            message.extend([24, 3, to.prefix_len, preference.bits() << 3]);
            message.extend(u32::from(ra.lifetime).to_be_bytes());
            message.extend(v6(to).octets());
        }
        self.resolvers(&mut message);
        message
    }

    /// RFC 8106. They hold for three times the longest pause between advertisements, as the
    /// router's own lifetime does by default.
    fn resolvers(&self, message: &mut Vec<u8>) {
        let lifetime = u32::from(self.ra.lifetime).max(1800).to_be_bytes();
        if !self.ra.rdnss.is_empty() {
            let len = 1 + 2 * self.ra.rdnss.len();
            message.extend([25, u8::try_from(len).unwrap_or(u8::MAX), 0, 0]);
            message.extend(lifetime);
            message.extend(self.ra.rdnss.iter().flat_map(|ip| ip.octets()));
        }
        if !self.ra.dnssl.is_empty() {
            let mut names: Vec<u8> =
                self.ra.dnssl.iter().flat_map(|name| domain(name).unwrap_or_default()).collect();
            names.resize(names.len().next_multiple_of(8), 0);
            message.extend([31, u8::try_from(1 + names.len() / 8).unwrap_or(u8::MAX), 0, 0]);
            message.extend(lifetime);
            message.extend(names);
        }
    }
}

fn named<T: Copy>(all: &[(T, &str)], text: &str) -> Option<T> {
    all.iter().find(|(_, name)| *name == text).map(|(value, _)| *value)
}

fn route(word: &str) -> Option<(IpNetwork, Preference)> {
    let (preference, network) = word.split_once('-')?;
    Some((v6_network(network)?, named(&Preference::ALL, preference)?))
}

fn v6_network(text: &str) -> Option<IpNetwork> {
    let (addr, len) = text.split_once('/')?;
    let (addr, prefix_len): (Ipv6Addr, u8) = (addr.parse().ok()?, len.parse().ok()?);
    (prefix_len <= 128).then(|| IpNetwork { addr: addr.into(), prefix_len })
}

fn v6(network: &IpNetwork) -> Ipv6Addr {
    match network.base() {
        IpAddr::V6(ip) => ip,
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_has_the_options_of_its_rfcs() {
        let network = |text: &str| v6_network(text).unwrap();
        let advertised = Advertised {
            ra: RouterAdvertisement {
                mode: AddressMode::Stateless,
                mtu: Some(1442),
                rdnss: vec!["2001:db8::53".parse().unwrap()],
                dnssl: vec!["a.example".to_owned()],
                routes: vec![(network("2001:db8:7::/48"), Preference::Low)],
                preference: Preference::High,
                lifetime: 600,
                interval: None,
            },
            prefixes: vec![network("2001:db8::/64")],
            mac: MacAddr::new([2, 0, 0, 0, 0, 1]),
        };
        let message = advertised.message();
        assert_eq!(message.len() % 8, 0);
        assert_eq!(message[..8], [134, 0, 0, 0, 64, 0x48, 2, 88]);
        // Walked by their lengths, the options end where the message does.
        let (mut kinds, mut rest) = (Vec::new(), &message[16..]);
        while let [kind, len, ..] = rest {
            kinds.push(*kind);
            rest = &rest[usize::from(*len) * 8..];
        }
        assert_eq!(kinds, [1, 5, 3, 24, 25, 31]);
        let arguments: Vec<_> =
            advertised.arguments().into_iter().map(|(name, text)| (name.to_owned(), text)).collect();
        assert_eq!(Advertised::parse(&arguments), Ok(advertised));
        assert!(Advertised::parse(&[("mtu".to_owned(), "x".to_owned())]).is_err());
    }
}
