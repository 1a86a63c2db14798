//! Values of DHCP options: from text, as text, and as bytes of a packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use flowtable::types::MacAddr;

use crate::{expr::lexer::quote, model::IpNetwork};

/// Longest value: the length of an option is one byte (RFC 2132 §2).
const MAX_LEN: usize = 255;

/// What the value of an option can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One IPv4 address.
    Address,
    /// IPv4 addresses.
    Addresses,
    /// IPv6 addresses.
    Addresses6,
    /// A MAC address.
    Mac,
    /// Yes or no.
    Flag,
    /// A number of 8 bits.
    Byte,
    /// A number of 16 bits.
    Short,
    /// A number of 32 bits.
    Word,
    /// Text.
    Text,
    /// Names of domains.
    Domains,
    /// Networks, each with its next hop.
    Routes,
}

/// A value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    /// Addresses.
    Addresses(Vec<IpAddr>),
    /// A MAC address.
    Mac(MacAddr),
    /// A number, and its width in bytes.
    Number(u32, u8),
    /// Text.
    Text(String),
    /// Names of domains.
    Domains(Vec<String>),
    /// Networks, each with its next hop.
    Routes(Vec<(IpNetwork, Ipv4Addr)>),
}

impl Value {
    /// Reads a value; lists may stand in braces and are separated by commas.
    ///
    /// # Errors
    /// Says what the value should look like.
    pub fn parse(kind: Kind, text: &str) -> Result<Self, String> {
        let inner = text.trim();
        let inner = inner.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(inner).trim();
        let wrong = |wanted: &str| format!("`{}` is not {wanted}", text.escape_debug());
        let words = || inner.split(',').map(str::trim).filter(|word| !word.is_empty());
        let value = match kind {
            Kind::Address | Kind::Addresses | Kind::Addresses6 => {
                let v4 = kind != Kind::Addresses6;
                let wanted = if v4 { "an IPv4 address" } else { "an IPv6 address" };
                let parse = |word: &str| word.parse().ok().filter(|ip: &IpAddr| ip.is_ipv4() == v4);
                let ips: Option<Vec<_>> = words().map(parse).collect();
                let ips = ips.filter(|ips| !ips.is_empty()).ok_or_else(|| wrong(wanted))?;
                if kind == Kind::Address && ips.len() > 1 {
                    return Err(wrong("one address"));
                }
                Self::Addresses(ips)
            }
            Kind::Mac => Self::Mac(inner.parse().map_err(|_| wrong("a MAC address"))?),
            Kind::Flag => match inner {
                "1" | "true" | "yes" => Self::Number(1, 1),
                "0" | "false" | "no" => Self::Number(0, 1),
                _ => return Err(wrong("true or false")),
            },
            Kind::Byte => Self::Number(inner.parse::<u8>().map_err(|_| wrong("0 to 255"))?.into(), 1),
            Kind::Short => Self::Number(inner.parse::<u16>().map_err(|_| wrong("0 to 65535"))?.into(), 2),
            Kind::Word => Self::Number(inner.parse().map_err(|_| wrong("0 to 4294967295"))?, 4),
            Kind::Text => Self::Text(plain(text)?),
            Kind::Domains => Self::Domains(domains(&plain(text)?)?),
            Kind::Routes => Self::Routes(routes(words()).ok_or_else(|| {
                wrong("a list of networks with their next hops, 10.1.0.0/16,10.0.0.1,10.2.0.0/16,10.0.0.2")
            })?),
        };
        let len = value.bytes().len();
        if len > MAX_LEN {
            return Err(format!("{len} bytes are too long; keep to {MAX_LEN}"));
        }
        Ok(value)
    }

    /// As the action language writes it.
    pub fn print(&self) -> String {
        let list = |words: Vec<String>| match words.as_slice() {
            [word] => word.clone(),
            words => format!("{{{}}}", words.join(", ")),
        };
        match self {
            Self::Addresses(ips) => list(ips.iter().map(ToString::to_string).collect()),
            Self::Mac(mac) => mac.to_string(),
            Self::Number(number, _) => number.to_string(),
            Self::Text(text) => quote(text),
            Self::Domains(names) => quote(&names.join(",")),
            Self::Routes(routes) => {
                let routes = routes.iter().flat_map(|(to, via)| [to.prefix_text(), via.to_string()]);
                format!("{{{}}}", routes.collect::<Vec<_>>().join(", "))
            }
        }
    }

    /// As it is in a packet.
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Addresses(ips) => ips.iter().flat_map(octets).collect(),
            Self::Mac(mac) => mac.octets().to_vec(),
            Self::Number(number, width) => {
                number.to_be_bytes().get(4 - usize::from(*width).min(4)..).unwrap_or_default().to_vec()
            }
            Self::Text(text) => text.clone().into_bytes(),
            Self::Domains(names) => names.iter().flat_map(|name| domain(name).unwrap_or_default()).collect(),
            Self::Routes(routes) => routes.iter().flat_map(route).collect(),
        }
    }

    /// The first IPv4 address of a list.
    pub fn address(&self) -> Option<Ipv4Addr> {
        match self {
            Self::Addresses(ips) => match ips.first() {
                Some(IpAddr::V4(ip)) => Some(*ip),
                _ => None,
            },
            _ => None,
        }
    }

    /// The number.
    pub fn number(&self) -> Option<u32> {
        match self {
            Self::Number(number, _) => Some(*number),
            _ => None,
        }
    }
}

fn octets(ip: &IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// RFC 3442: length, as many bytes of the network as it needs, next hop.
fn route((to, via): &(IpNetwork, Ipv4Addr)) -> Vec<u8> {
    let mut bytes = vec![to.prefix_len];
    let significant = usize::from(to.prefix_len.div_ceil(8));
    bytes.extend(octets(&to.base()).into_iter().take(significant));
    bytes.extend(via.octets());
    bytes
}

fn routes<'a>(mut words: impl Iterator<Item = &'a str>) -> Option<Vec<(IpNetwork, Ipv4Addr)>> {
    let mut routes = Vec::new();
    while let Some(to) = words.next() {
        let (addr, len) = to.split_once('/').unwrap_or((to, "32"));
        let (addr, prefix_len): (Ipv4Addr, u8) = (addr.trim().parse().ok()?, len.trim().parse().ok()?);
        if prefix_len > 32 {
            return None;
        }
        routes.push((IpNetwork { addr: addr.into(), prefix_len }, words.next()?.parse().ok()?));
    }
    Some(routes).filter(|routes| !routes.is_empty())
}

/// Text without the quotes it may stand in, and without what no client expects there.
fn plain(text: &str) -> Result<String, String> {
    let text = text.trim();
    let inner = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
    if inner.is_empty() || inner.chars().any(char::is_control) {
        return Err(format!("`{}` is not a text of visible characters", text.escape_debug()));
    }
    Ok(inner.to_owned())
}

fn domains(text: &str) -> Result<Vec<String>, String> {
    let names: Vec<_> =
        text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
    match names.iter().find(|name| domain(name).is_none()) {
        Some(name) => Err(format!("`{}` is not the name of a domain", name.escape_debug())),
        None if names.is_empty() => Err("no domain is named".to_owned()),
        None => Ok(names),
    }
}

/// A name as DNS writes it (RFC 1035 §3.1), uncompressed; none if it cannot be one.
pub fn domain(name: &str) -> Option<Vec<u8>> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let mut bytes = Vec::with_capacity(name.len() + 2);
    for label in name.split('.') {
        let is_label = (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        if !is_label {
            return None;
        }
        bytes.push(u8::try_from(label.len()).ok()?);
        bytes.extend(label.bytes());
    }
    bytes.push(0);
    (bytes.len() <= 255).then_some(bytes)
}

impl IpNetwork {
    /// `10.1.0.0/16`, whatever its length.
    pub(crate) fn prefix_text(&self) -> String {
        format!("{}/{}", self.base(), self.prefix_len)
    }
}

/// An IPv6 address's bytes.
pub(super) fn v6_at(bytes: &[u8]) -> Option<Ipv6Addr> {
    <[u8; 16]>::try_from(bytes).ok().map(Ipv6Addr::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_printed_and_written() {
        for (kind, text, printed, bytes) in [
            (Kind::Address, "10.0.0.1", "10.0.0.1", vec![10, 0, 0, 1]),
            (Kind::Addresses, "{10.0.0.1,10.0.0.2}", "{10.0.0.1, 10.0.0.2}", vec![10, 0, 0, 1, 10, 0, 0, 2]),
            (Kind::Flag, "true", "1", vec![1]),
            (Kind::Byte, "64", "64", vec![64]),
            (Kind::Short, "1442", "1442", vec![5, 162]),
            (Kind::Word, "3600", "3600", vec![0, 0, 14, 16]),
            (Kind::Text, "a \"b\\", "\"a \\\"b\\\\\"", b"a \"b\\".to_vec()),
            (Kind::Domains, "\"a.b,c\"", "\"a.b,c\"", vec![1, b'a', 1, b'b', 0, 1, b'c', 0]),
            (
                Kind::Routes,
                "{30.1.0.0/9,10.0.0.4, 0.0.0.0/0,10.0.0.1}",
                "{30.0.0.0/9, 10.0.0.4, 0.0.0.0/0, 10.0.0.1}",
                vec![9, 30, 0, 10, 0, 0, 4, 0, 10, 0, 0, 1],
            ),
        ] {
            let value = Value::parse(kind, text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(value.print(), printed);
            assert_eq!(value.bytes(), bytes, "{text}");
        }
    }

    #[test]
    fn what_is_no_value_is_refused() {
        for (kind, text) in [
            (Kind::Address, "10.0.0.1,10.0.0.2"),
            (Kind::Address, "2001:db8::1"),
            (Kind::Addresses, ""),
            (Kind::Addresses6, "10.0.0.1"),
            (Kind::Flag, "2"),
            (Kind::Byte, "256"),
            (Kind::Short, "65536"),
            (Kind::Word, "-1"),
            (Kind::Text, ""),
            (Kind::Text, "a\nb"),
            (Kind::Domains, "a..b"),
            (Kind::Domains, "a b"),
            (Kind::Routes, "10.0.0.0/33,10.0.0.1"),
            (Kind::Routes, "10.0.0.0/8"),
            (Kind::Mac, "0a"),
        ] {
            assert!(Value::parse(kind, text).is_err(), "{text}");
        }
        assert!(Value::parse(Kind::Text, &"x".repeat(256)).is_err());
        assert_eq!(domain(&format!("{}.b", "a".repeat(64))), None);
        assert_eq!(domain(&["a"; 130].join(".")), None);
    }
}
