//! Addresses as users write them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use flowtable::types::MacAddr;
use ovn_northd_lite::model::{IpNetwork, PortAddresses, PortSecurity};

use super::{Shown, limits::MAX_IPS};

/// A station's own MAC address: neither a group nor nobody's.
pub(super) fn parse_mac(text: &str) -> Result<MacAddr, String> {
    let mac: MacAddr = text.parse().map_err(|_| {
        format!("{} is not a MAC address; write six hexadecimal bytes, 0a:00:00:00:00:01", Shown(text))
    })?;
    if mac.is_multicast() {
        return Err(format!("{mac} is a group address; a port needs one with an even first byte"));
    }
    if mac == MacAddr::ZERO {
        return Err(format!("{mac} is nobody's address; write another"));
    }
    Ok(mac)
}

/// An address a station can have.
pub(super) fn parse_ip(text: &str) -> Result<IpAddr, String> {
    let ip: IpAddr = text.parse().map_err(|_| {
        format!("{} is not an IP address; write one like 10.0.0.5 or 2001:db8::5", Shown(text))
    })?;
    check_station(ip)?;
    Ok(ip)
}

fn check_station(ip: IpAddr) -> Result<(), String> {
    let is_broadcast = ip == IpAddr::V4(Ipv4Addr::BROADCAST);
    if ip.is_multicast() || ip.is_unspecified() || is_broadcast {
        return Err(format!("{ip} cannot be the address of one station; write a unicast address"));
    }
    Ok(())
}

/// `IP/len`, with or without host bits.
pub(super) fn parse_network(text: &str) -> Result<IpNetwork, String> {
    let wrong = || format!("{} is not a network; write one like 10.0.0.0/24 or 2001:db8::/64", Shown(text));
    let (addr, len) = text.split_once('/').ok_or_else(wrong)?;
    let addr: IpAddr = addr.parse().map_err(|_| wrong())?;
    let is_number = !len.is_empty() && len.len() <= 3 && len.bytes().all(|b| b.is_ascii_digit());
    let prefix_len: u8 = if is_number { len.parse().map_err(|_| wrong())? } else { return Err(wrong()) };
    let max = addr_bits(addr);
    if prefix_len > max {
        return Err(format!("{}: the prefix has at most {max} bits", Shown(text)));
    }
    Ok(IpNetwork { addr, prefix_len })
}

/// A network without host bits, or one address.
pub(super) fn parse_prefix_or_ip(text: &str) -> Result<IpNetwork, String> {
    if text.contains('/') {
        return parse_prefix(text);
    }
    let addr = parse_ip(text)?;
    Ok(IpNetwork { addr, prefix_len: addr_bits(addr) })
}

/// A destination: a network without host bits.
pub(super) fn parse_prefix(text: &str) -> Result<IpNetwork, String> {
    let network = parse_network(text)?;
    let base = base_of(network);
    if base != network.addr {
        return Err(format!("{} has host bits set; write {base}/{}", Shown(text), network.prefix_len));
    }
    Ok(network)
}

/// An interface's address with the length of its network.
pub(super) fn parse_interface(text: &str) -> Result<IpNetwork, String> {
    let network = parse_network(text)?;
    check_station(network.addr)?;
    let has_network_address = match network.addr {
        IpAddr::V4(_) => (1..31).contains(&network.prefix_len),
        IpAddr::V6(_) => false,
    };
    if network.prefix_len == 0 {
        return Err(format!("{}: a network needs a prefix length of at least 1", Shown(text)));
    }
    if has_network_address && base_of(network) == network.addr {
        return Err(format!(
            "{} is the network itself; write the port's own address in it, with the same length",
            Shown(text)
        ));
    }
    Ok(network)
}

fn addr_bits(addr: IpAddr) -> u8 {
    if addr.is_ipv4() { 32 } else { 128 }
}

/// The network's first address.
fn base_of(network: IpNetwork) -> IpAddr {
    let host_bits = u32::from(addr_bits(network.addr).saturating_sub(network.prefix_len));
    match network.addr {
        IpAddr::V4(addr) => {
            let mask = u32::MAX.checked_shl(host_bits).unwrap_or(0);
            Ipv4Addr::from_bits(addr.to_bits() & mask).into()
        }
        IpAddr::V6(addr) => {
            let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
            Ipv6Addr::from_bits(addr.to_bits() & mask).into()
        }
    }
}

/// `MAC [IP…]`.
pub(crate) fn parse_port_addresses(text: &str) -> Result<PortAddresses, String> {
    let (mac, words) = split_entry(text)?;
    let ips = words.into_iter().map(parse_ip).collect::<Result<_, _>>()?;
    Ok(PortAddresses { mac, ips })
}

/// `MAC [IP[/len]…]`.
pub(super) fn parse_port_security(text: &str) -> Result<PortSecurity, String> {
    let (mac, words) = split_entry(text)?;
    let parse = |word: &str| {
        if word.contains('/') {
            return parse_network(word);
        }
        let addr = parse_ip(word)?;
        Ok(IpNetwork { addr, prefix_len: addr_bits(addr) })
    };
    let ips = words.into_iter().map(parse).collect::<Result<_, _>>()?;
    Ok(PortSecurity { mac, ips })
}

fn split_entry(text: &str) -> Result<(MacAddr, Vec<&str>), String> {
    let mut words = text.split_ascii_whitespace();
    let mac = parse_mac(words.next().unwrap_or(""))?;
    let words: Vec<&str> = words.take(MAX_IPS + 1).collect();
    if words.len() > MAX_IPS {
        return Err(format!("more than {MAX_IPS} IP addresses; use several entries"));
    }
    Ok((mac, words))
}
