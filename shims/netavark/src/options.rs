//! What the user has written of a network with `-o`.

use std::{net::IpAddr, path::PathBuf};

use ferroflow_proto::host::{AddressRange, Lease, RangeSet};

use crate::{question::Network, refusal::Refusal};

/// The options, for who has written another.
const KNOWN: &str = "switch, gateway, ranges, names, mtu and socket";

/// The way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gateway {
    /// There is none.
    None,
    /// Routers of the logical network: these, or those that the subnets name.
    Router(Vec<IpAddr>),
    /// This host.
    Host,
}

/// A network's options.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// `switches/{id}`
    pub switch: String,
    /// The way out.
    pub gateway: Gateway,
    /// Where the host leases addresses from; `None`: podman gives them.
    pub lease: Option<Lease>,
    /// The switch's workloads find containers by their names.
    pub has_names: bool,
    /// MTU; 0: what tunnels carry.
    pub mtu: u32,
    /// Socket of vswitchd.
    pub socket: PathBuf,
}

impl Options {
    /// Those of a network.
    ///
    /// # Errors
    /// What is wrong, and how it is written.
    pub fn of(network: &Network) -> Result<Self, Refusal> {
        let known = ["switch", "gateway", "ranges", "names", "mtu", "socket"];
        if let Some(unknown) = network.options.keys().find(|name| !known.contains(&name.as_str())) {
            return Err(Refusal::new(format!("-o {}: this plugin knows {KNOWN}", unknown.escape_debug())));
        }
        let get = |name: &str| network.options.get(name).map(String::as_str);
        let gateway = gateway(network, get("gateway"))?;
        let routers = match &gateway {
            Gateway::Router(routers) => routers.as_slice(),
            Gateway::None | Gateway::Host => &[],
        };
        Ok(Self {
            switch: switch(get("switch").unwrap_or_default())?,
            lease: lease(network, get("ranges"), routers)?,
            gateway,
            has_names: flag("names", get("names"))?,
            mtu: get("mtu").map_or(Ok(0), mtu)?,
            socket: get("socket").unwrap_or(vswitch_shim::DEFAULT_SOCKET).into(),
        })
    }
}

fn switch(text: &str) -> Result<String, Refusal> {
    let id = text.strip_prefix("switches/").unwrap_or(text);
    let is_id =
        !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if is_id {
        return Ok(format!("switches/{id}"));
    }
    Err(Refusal::new(format!("-o switch={}: name a logical switch, as -o switch=web", text.escape_debug())))
}

fn gateway(network: &Network, text: Option<&str>) -> Result<Gateway, Refusal> {
    match (network.internal, text) {
        (true, None) => Ok(Gateway::None),
        (true, Some(_)) => Err(Refusal::new("-o gateway: an internal network has no way out; leave one out")),
        (false, None | Some("router")) => Ok(Gateway::Router(Vec::new())),
        (false, Some("host")) => Ok(Gateway::Host),
        (false, Some(text)) => {
            let addresses: Result<_, _> = text.split([',', ' ']).map(str::parse).collect();
            let addresses = addresses.map_err(|_| {
                Refusal::new(format!(
                    "-o gateway={}: write router, host, or addresses of routers",
                    text.escape_debug()
                ))
            })?;
            if network.subnets.is_empty() {
                return Ok(Gateway::Router(addresses));
            }
            Err(Refusal::new("-o gateway: of a subnet it is said with --gateway"))
        }
    }
}

/// Each range is for one address of a container.
fn lease(network: &Network, ranges: Option<&str>, routers: &[IpAddr]) -> Result<Option<Lease>, Refusal> {
    match (ranges, network.subnets.is_empty()) {
        (None, false) => Ok(None),
        (Some(ranges), true) => {
            let sets: Result<_, _> = ranges.split([',', ' ']).map(|text| range(text, routers)).collect();
            Ok(Some(Lease { sets: sets? }))
        }
        (None, true) => Err(Refusal::new(
            "no addresses: use --subnet and, for each host, --ip-range; or, for the same on all hosts, \
             --ipam-driver none -o ranges=SUBNET=FIRST-LAST",
        )),
        (Some(_), false) => {
            Err(Refusal::new("-o ranges: this host leases them, so podman has none; use --ipam-driver none"))
        }
    }
}

fn range(text: &str, routers: &[IpAddr]) -> Result<RangeSet, Refusal> {
    let wrong = || {
        Refusal::new(format!(
            "-o ranges={}: write SUBNET=FIRST-LAST, as 10.0.1.0/24=10.0.1.100-10.0.1.199",
            text.escape_debug()
        ))
    };
    let (subnet, addresses) = text.split_once('=').ok_or_else(wrong)?;
    let (first, last) = addresses.split_once('-').ok_or_else(wrong)?;
    let address = |text: &str| text.parse::<IpAddr>().map_err(|_| wrong());
    let (first, last) = (address(first)?, address(last)?);
    let gateway = routers.iter().find(|router| router.is_ipv4() == first.is_ipv4());
    let range = AddressRange {
        subnet: subnet.to_owned(),
        first: first.to_string(),
        last: last.to_string(),
        gateway: gateway.map(ToString::to_string).unwrap_or_default(),
    };
    Ok(RangeSet { ranges: vec![range] })
}

fn flag(name: &str, text: Option<&str>) -> Result<bool, Refusal> {
    match text {
        None | Some("true") => Ok(true),
        Some("false") => Ok(false),
        Some(text) => Err(Refusal::new(format!("-o {name}={}: write true or false", text.escape_debug()))),
    }
}

fn mtu(text: &str) -> Result<u32, Refusal> {
    text.parse().map_err(|_| Refusal::new(format!("-o mtu={}: write a number of bytes", text.escape_debug())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::question::Subnet;

    fn network(options: &[(&str, &str)], subnet: Option<&str>) -> Network {
        let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let subnet = subnet.map(|subnet| Subnet { subnet: subnet.parse().unwrap(), gateway: None });
        Network { options, subnets: subnet.into_iter().collect(), ..Network::default() }
    }

    #[test]
    fn podman_gives_addresses_or_the_host_leases_them() {
        let plain = Options::of(&network(&[("switch", "web")], Some("10.0.1.0/24"))).unwrap();
        assert_eq!((plain.switch.as_str(), plain.lease, plain.has_names), ("switches/web", None, true));
        let ranges = "10.0.1.0/24=10.0.1.9-10.0.1.99,fd00::/64=fd00::9-fd00::99";
        let options = [("switch", "web"), ("ranges", ranges), ("gateway", "10.0.1.1"), ("names", "false")];
        let leased = Options::of(&network(&options, None)).unwrap();
        assert!(!leased.has_names);
        let sets = leased.lease.unwrap().sets;
        let gateways: Vec<_> = sets.iter().map(|set| set.ranges[0].gateway.as_str()).collect();
        assert_eq!(gateways, ["10.0.1.1", ""]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let subnet = Some("10.0.1.0/24");
        for (options, subnet, word) in [
            (&[][..], subnet, "switch"),
            (&[("switch", "a/b")], subnet, "a/b"),
            (&[("swich", "web")], subnet, "swich"),
            (&[("switch", "web")], None, "--subnet"),
            (&[("switch", "web"), ("ranges", "10.0.1.0/24")], None, "FIRST-LAST"),
            (&[("switch", "web"), ("ranges", "10.0.1.0/24=x-y")], None, "FIRST-LAST"),
            (&[("switch", "web"), ("ranges", "10.0.1.0/24=10.0.1.1-10.0.1.2")], subnet, "--ipam-driver none"),
            (&[("switch", "web"), ("gateway", "10.0.1.1")], subnet, "--gateway"),
            (&[("switch", "web"), ("gateway", "left")], subnet, "router, host"),
            (&[("switch", "web"), ("names", "maybe")], subnet, "true or false"),
            (&[("switch", "web"), ("mtu", "big")], subnet, "big"),
        ] {
            let text = Options::of(&network(options, subnet)).unwrap_err().to_string();
            assert!(text.contains(word), "{text}");
        }
        let internal = Network { internal: true, ..network(&[("switch", "web")], subnet) };
        assert_eq!(Options::of(&internal).unwrap().gateway, Gateway::None);
        let both = network(&[("switch", "web"), ("gateway", "host")], subnet);
        let both = Network { internal: true, ..both };
        assert!(Options::of(&both).is_err());
    }
}
