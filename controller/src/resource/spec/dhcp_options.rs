//! What DHCP clients are told.

use std::{collections::BTreeMap, net::IpAddr};

use ferroflow_proto::northbound as pb;
use flowtable::types::MacAddr;
use ovn_northd_lite::{
    dhcp::{OfferV4, OfferV6, OptionV4, OptionV6, Value},
    model::{DhcpOptions, DhcpV4, DhcpV6, IpNetwork},
};

use crate::resource::{FieldError, address};

/// Option that is the server's MAC address, and of no packet.
const SERVER_MAC: &str = "server_mac";
/// MAC address of a server that was given none: locally administered, nobody's.
const NOBODYS: MacAddr = MacAddr::new([0x0a, 0x5e, 0xf0, 0xff, 0xff, 0x43]);
/// How long an address is the client's if nothing is said.
const LEASE_TIME: &str = "3600";

pub(super) fn parse(dhcp: &pb::DhcpOptions) -> Result<DhcpOptions, FieldError> {
    let network = address::parse_prefix(&dhcp.cidr).map_err(|reason| FieldError::new("cidr", reason))?;
    // In order, so that of several mistakes always the same one is told.
    let mut options: BTreeMap<&str, &str> =
        dhcp.options.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let server_mac = match options.remove(SERVER_MAC) {
        Some(text) => Some(address::parse_mac(text).map_err(|reason| wrong(SERVER_MAC, reason))?),
        None => None,
    };
    if network.addr.is_ipv4() { v4(network, server_mac, &options) } else { v6(network, server_mac, &options) }
}

fn wrong(option: &str, reason: impl ToString) -> FieldError {
    let option: String = option.escape_debug().take(40).collect();
    FieldError::new(format!("options[{option}]"), reason.to_string())
}

fn v4(
    network: IpNetwork,
    server_mac: Option<MacAddr>,
    texts: &BTreeMap<&str, &str>,
) -> Result<DhcpOptions, FieldError> {
    let mut options = BTreeMap::new();
    let by_default = std::iter::once((&"lease_time", &LEASE_TIME));
    for (name, text) in by_default.chain(texts) {
        let option = OptionV4::named(name).map_err(|error| wrong(name, error))?;
        options.insert(option, option.parse(text).map_err(|error| wrong(name, error))?);
    }
    let server_ip = options.get(&OptionV4::SERVER_ID).and_then(Value::address);
    let server_ip =
        server_ip.ok_or_else(|| wrong("server_id", "DHCPv4 needs it; write the router's address"))?;
    let mask = mask(network);
    options
        .insert(OptionV4::NETMASK, OptionV4::NETMASK.parse(&mask).map_err(|error| wrong("netmask", error))?);
    OfferV4::new(server_ip, &options).map_err(|error| FieldError::new("options", error.to_string()))?;
    Ok(DhcpOptions::V4(DhcpV4 { network, server_ip, server_mac: server_mac.unwrap_or(NOBODYS), options }))
}

/// The mask of an IPv4 network.
fn mask(network: IpNetwork) -> String {
    let ones = IpNetwork { addr: IpAddr::V4(u32::MAX.into()), prefix_len: network.prefix_len };
    ones.base().to_string()
}

fn v6(
    network: IpNetwork,
    server_mac: Option<MacAddr>,
    texts: &BTreeMap<&str, &str>,
) -> Result<DhcpOptions, FieldError> {
    let mut options = BTreeMap::new();
    for (name, text) in texts {
        let option = OptionV6::named(name).map_err(|error| wrong(name, error))?;
        options.insert(option, option.parse(text).map_err(|error| wrong(name, error))?);
    }
    let named = match options.remove(&OptionV6::SERVER_ID) {
        Some(Value::Mac(mac)) => Some(mac),
        _ => None,
    };
    let server_mac = named.or(server_mac).unwrap_or(NOBODYS);
    let stateless = options.remove(&OptionV6::STATELESS).and_then(|value| value.number());
    OfferV6::new(None, server_mac, &options)
        .map_err(|error| FieldError::new("options", error.to_string()))?;
    Ok(DhcpOptions::V6(DhcpV6 { network, server_mac, is_stateless: stateless == Some(1), options }))
}
