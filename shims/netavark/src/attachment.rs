//! What a container gets of a network.

use std::net::IpAddr;

use ferroflow_proto::host::{AttachRequest, Endpoint, EndpointKey, EndpointRoute, PublishedPort};
use serde_json::{Value, json};
use vswitch_shim::is_name;

use crate::{
    options::{Gateway, Options},
    question::{Attachment, PortMapping, Subnet},
    refusal::Refusal,
};

/// Most ports that one mapping leads through.
const MAX_RANGE: u16 = 64;

/// Which endpoint it is.
pub fn key(question: &Attachment) -> EndpointKey {
    EndpointKey {
        network: question.network.name.clone(),
        container: question.container_id.clone(),
        interface: question.network_options.interface_name.clone(),
    }
}

/// What the host's daemon is asked for.
///
/// # Errors
/// An address is of no subnet, or a port cannot be.
pub fn wanted(netns: &str, question: &Attachment, options: &Options) -> Result<AttachRequest, Refusal> {
    let Attachment { network, network_options: interface, .. } = question;
    let is_leased = options.lease.is_some();
    let subnets = if is_leased { Vec::new() } else { subnets(question)? };
    let is_host = options.gateway == Gateway::Host;
    let gateways = subnets.iter().filter_map(|(_, subnet)| Some((subnet.gateway?, subnet.subnet.len())));
    let names = [&question.container_name].into_iter().chain(&interface.aliases);
    let names = names.filter(|name| options.has_names && is_name(name)).cloned().collect();
    Ok(AttachRequest {
        key: Some(key(question)),
        netns: netns.to_owned(),
        switch: options.switch.clone(),
        addresses: subnets.iter().map(|(ip, subnet)| format!("{ip}/{}", subnet.subnet.len())).collect(),
        mac: interface.static_mac.clone(),
        mtu: options.mtu,
        routes: default_routes(options, &subnets)
            .chain(network.routes.iter().map(|route| EndpointRoute {
                destination: route.destination.clone(),
                gateway: route.gateway.to_string(),
            }))
            .collect(),
        labels: [("runtime".to_owned(), "podman".to_owned())].into(),
        host_addresses: gateways
            .filter(|_| is_host)
            .map(|(gateway, len)| format!("{gateway}/{len}"))
            .collect(),
        host_gateway: is_host && is_leased,
        published_ports: published(&question.port_mappings)?,
        lease: options.lease.clone(),
        names,
        ..AttachRequest::default()
    })
}

/// The addresses that podman has chosen, with their subnets.
fn subnets(question: &Attachment) -> Result<Vec<(IpAddr, &Subnet)>, Refusal> {
    let of = |ip: &IpAddr| {
        // podman has one subnet of each family, or names the address by its place.
        let mut subnets = question.network.subnets.iter();
        let found = subnets.find(|subnet| subnet.subnet.contains(*ip));
        let found = found.ok_or_else(|| Refusal::new(format!("{ip} is not in the network's subnets")))?;
        Ok((*ip, found))
    };
    let found: Vec<_> = question.network_options.static_ips.iter().map(of).collect::<Result<_, _>>()?;
    if found.is_empty() {
        return Err(Refusal::new("podman gives no address; the network's ipam driver has to be host-local"));
    }
    Ok(found)
}

/// One of each family that has a way out.
fn default_routes<'a>(
    options: &'a Options,
    subnets: &'a [(IpAddr, &Subnet)],
) -> impl Iterator<Item = EndpointRoute> + 'a {
    [("0.0.0.0/0", true), ("::/0", false)].into_iter().filter_map(move |(destination, is_v4)| {
        let of_subnets = subnets.iter().filter_map(|(_, subnet)| subnet.gateway);
        let is_leased = |set: &ferroflow_proto::host::RangeSet| {
            set.ranges.iter().any(|range| range.first.contains(':') != is_v4)
        };
        let gateway = match &options.gateway {
            Gateway::None => return None,
            // The daemon has them.
            Gateway::Host if options.lease.is_some() => {
                options.lease.iter().flat_map(|lease| &lease.sets).any(is_leased).then(String::new)
            }
            Gateway::Host => of_subnets.into_iter().find(|ip| ip.is_ipv4() == is_v4).map(|ip| ip.to_string()),
            Gateway::Router(named) => {
                let mut gateways = named.iter().copied().chain(of_subnets);
                gateways.find(|ip| ip.is_ipv4() == is_v4).map(|ip| ip.to_string())
            }
        };
        Some(EndpointRoute { destination: destination.to_owned(), gateway: gateway? })
    })
}

fn published(mappings: &[PortMapping]) -> Result<Vec<PublishedPort>, Refusal> {
    let mut published = Vec::new();
    for mapping in mappings {
        let n_ports = mapping.range.max(1);
        if n_ports > MAX_RANGE {
            return Err(Refusal::new(format!("{n_ports} ports at once: at most {MAX_RANGE} are published")));
        }
        let protocols = if mapping.protocol.is_empty() { "tcp" } else { &mapping.protocol };
        for protocol in protocols.split(',') {
            published.extend((0..u32::from(n_ports)).map(|idx| PublishedPort {
                protocol: protocol.to_owned(),
                host_ip: mapping.host_ip.clone(),
                host_port: u32::from(mapping.host_port) + idx,
                port: u32::from(mapping.container_port) + idx,
            }));
        }
    }
    Ok(published)
}

/// What podman is to know of the container's interface.
pub fn answer(question: &Attachment, options: &Options, endpoint: &Endpoint) -> Value {
    let of_subnets = |ip: IpAddr| {
        let subnet = question.network.subnets.iter().find(|subnet| subnet.subnet.contains(ip));
        subnet.and_then(|subnet| subnet.gateway).map(|gateway| gateway.to_string())
    };
    let addresses = endpoint.addresses.iter().enumerate().map(|(idx, address)| {
        let leased = endpoint.gateways.get(idx).filter(|gateway| !gateway.is_empty()).cloned();
        let ip = address.split('/').next().and_then(|ip| ip.parse().ok());
        let gateway = leased.or_else(|| ip.and_then(of_subnets));
        match gateway.filter(|_| options.gateway != Gateway::None) {
            Some(gateway) => json!({ "ipnet": address, "gateway": gateway }),
            None => json!({ "ipnet": address }),
        }
    });
    let name = &question.network_options.interface_name;
    json!({
        "dns_search_domains": [],
        "dns_server_ips": question.network.network_dns_servers,
        "interfaces": { name: { "mac_address": endpoint.mac, "subnets": addresses.collect::<Vec<_>>() } },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::question::read;

    fn question(text: &str) -> Attachment {
        read(text.as_bytes()).unwrap()
    }

    fn podmans(options: &str) -> Attachment {
        question(
            &r#"{"container_id":"0a1b","container_name":"server","port_mappings":[
                {"container_port":80,"host_ip":"","host_port":8080,"protocol":"tcp,udp","range":2}],
                "network":{"name":"web","id":"x","driver":"ferroflow","network_interface":"web0",
                "subnets":[{"subnet":"10.0.1.0/24","gateway":"10.0.1.1"},{"subnet":"fd00::/64","gateway":"fd00::1"}],
                "routes":[{"destination":"10.7.0.0/16","gateway":"10.0.1.9","metric":100}],
                "ipv6_enabled":true,"internal":false,"dns_enabled":false,"options":OPTIONS},
                "network_options":{"interface_name":"eth0","static_ips":["10.0.1.7","fd00::7"],"static_mac":null,
                "aliases":["0a1b","a b"],"options":null}}"#
                .replace("OPTIONS", options),
        )
    }

    fn routes(wanted: &AttachRequest) -> Vec<String> {
        wanted.routes.iter().map(|route| format!("{} {}", route.destination, route.gateway)).collect()
    }

    #[test]
    fn a_container_of_podmans_addresses() {
        let question = podmans(r#"{"switch":"web","gateway":"host"}"#);
        let options = Options::of(&question.network).unwrap();
        let wanted = wanted("/run/netns/x", &question, &options).unwrap();
        assert_eq!(wanted.addresses, ["10.0.1.7/24", "fd00::7/64"]);
        assert_eq!(wanted.host_addresses, ["10.0.1.1/24", "fd00::1/64"]);
        assert_eq!(routes(&wanted), ["0.0.0.0/0 10.0.1.1", "::/0 fd00::1", "10.7.0.0/16 10.0.1.9"]);
        assert_eq!(wanted.names, ["server", "0a1b"]);
        let ports =
            wanted.published_ports.iter().map(|p| format!("{}/{}:{}", p.protocol, p.host_port, p.port));
        assert_eq!(ports.collect::<Vec<_>>(), ["tcp/8080:80", "tcp/8081:81", "udp/8080:80", "udp/8081:81"]);
        let endpoint =
            Endpoint { addresses: wanted.addresses, mac: "02::".to_owned(), ..Endpoint::default() };
        let answer = answer(&question, &options, &endpoint);
        assert_eq!(answer["interfaces"]["eth0"]["subnets"][1]["gateway"], "fd00::1");
        assert_eq!(answer["dns_server_ips"], json!([]));
    }

    #[test]
    fn a_container_of_leased_addresses() {
        let leased = |gateway: &str, internal: bool| {
            let ranges = "10.0.1.0/24=10.0.1.9-10.0.1.99";
            let mut question = podmans(&json!({ "switch": "web", "ranges": ranges }).to_string());
            question.network.options.extend(
                [("gateway".to_owned(), gateway.to_owned())]
                    .into_iter()
                    .filter(|(_, value)| !value.is_empty()),
            );
            question.network.internal = internal;
            question.network.subnets.clear();
            question.network.routes.clear();
            let options = Options::of(&question.network).unwrap();
            wanted("/x", &question, &options).unwrap()
        };
        let by_host = leased("host", false);
        assert_eq!((routes(&by_host), by_host.host_gateway), (vec!["0.0.0.0/0 ".to_owned()], true));
        let by_router = leased("10.0.1.1", false);
        assert_eq!(
            (routes(&by_router), by_router.host_gateway),
            (vec!["0.0.0.0/0 10.0.1.1".to_owned()], false)
        );
        assert!(by_router.addresses.is_empty());
        assert!(routes(&leased("", true)).is_empty());
    }

    #[test]
    fn an_address_of_no_subnet_is_refused() {
        let mut outside = podmans(r#"{"switch":"web"}"#);
        outside.network_options.static_ips = vec!["10.9.9.9".parse().unwrap()];
        let options = Options::of(&outside.network).unwrap();
        assert!(wanted("/x", &outside, &options).is_err());
    }

    #[test]
    fn hostile_questions_are_refused() {
        let whole = br#"{"container_id":"a","network":{},"network_options":{"interface_name":"eth0"}}"#;
        for len in 0..whole.len() {
            assert!(read::<Attachment>(&whole[..len]).is_err());
        }
        assert!(read::<Attachment>(whole).is_ok());
        assert!(read::<Attachment>("[".repeat(10_000).as_bytes()).is_err());
    }
}
