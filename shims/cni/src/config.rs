//! What the runtime says by the configuration on stdin. Fields that are not named here are
//! other plugins' and left alone.

use std::collections::HashMap;

use ferroflow_proto::host::{AddressRange, Lease, PublishedPort, RangeSet, RateLimit};
use serde::Deserialize;
use serde_json::Value;
use vswitch_shim::is_name;

use crate::{
    environment::Environment,
    error::{CniError, ErrorCode},
    result::{CniResult, Dns, Route, Version},
};

/// `ipam.type` of addresses that the host leases.
const OWN_IPAM: &str = "ferroflow";
/// Our own directories of logical names.
const SWITCHES: &str = "switches/";

/// The network's configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// Version that the answer has to have.
    #[serde(default)]
    pub cni_version: String,
    /// Name of the network.
    #[serde(default)]
    pub name: String,
    /// Logical switch that its containers are attached to: `web` or `switches/web`.
    #[serde(default)]
    pub switch: String,
    /// Socket of vswitchd.
    #[serde(default = "default_socket")]
    pub socket: String,
    /// MTU; 0: what tunnels carry.
    #[serde(default)]
    pub mtu: u32,
    /// Who gives addresses.
    pub ipam: Option<Ipam>,
    /// Who has the gateways' addresses.
    #[serde(default)]
    pub gateway: Gateway,
    /// The switch's workloads find containers by their names.
    #[serde(default)]
    pub names: bool,
    /// Resolver settings for the containers.
    pub dns: Option<Dns>,
    /// What earlier plugins, or an earlier ADD, answered.
    pub prev_result: Option<Value>,
    /// What the runtime asks for this container.
    pub runtime_config: Option<RuntimeConfig>,
    /// What an orchestrator asks for.
    pub args: Option<Arguments>,
    /// Of GC: what is to be kept.
    #[serde(rename = "cni.dev/valid-attachments")]
    pub valid_attachments: Option<Vec<Attachment>>,
}

/// The IPAM plugin; the rest of it is the plugin's own, or ours.
#[derive(Debug, Clone, Deserialize)]
pub struct Ipam {
    /// Its name.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Ranges, as host-local has them.
    #[serde(default)]
    ranges: Option<Vec<Vec<Range>>>,
    /// Routes of the containers.
    #[serde(default, deserialize_with = "nullable")]
    pub routes: Vec<Route>,
}

/// A part of a subnet.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Range {
    subnet: String,
    range_start: String,
    range_end: String,
    gateway: String,
}

impl Ipam {
    /// The host leases addresses, and no other program is called.
    pub fn is_own(&self) -> bool {
        self.kind == OWN_IPAM
    }

    /// What the host is to lease from.
    pub fn lease(&self) -> Lease {
        let range = |range: &Range| {
            let Range { subnet, range_start, range_end, gateway } = range.clone();
            AddressRange { subnet, first: range_start, last: range_end, gateway }
        };
        let set = |set: &Vec<Range>| RangeSet { ranges: set.iter().map(range).collect() };
        Lease { sets: self.ranges.iter().flatten().map(set).collect() }
    }
}

/// `null` is nothing.
fn nullable<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Default + Deserialize<'de>,
    D: serde::Deserializer<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Who has the addresses of the containers' gateways.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Gateway {
    /// A router of the logical network, if anybody.
    #[default]
    Router,
    /// The host: what leaves goes by its kernel, which translates it.
    Host,
}

/// A port of the host that leads to the container. Runtimes write all keys, some of them
/// with nothing to say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PortMapping {
    /// Port of the host; 0: none.
    #[serde(alias = "HostPort")]
    pub host_port: u32,
    /// Port of the container.
    #[serde(alias = "ContainerPort")]
    pub container_port: u32,
    /// `tcp` if it is empty.
    #[serde(alias = "Protocol")]
    pub protocol: String,
    /// Address of the host; empty: all.
    #[serde(rename = "hostIP", alias = "hostIp", alias = "HostIP")]
    pub host_ip: String,
}

/// What the runtime asks for one container. containerd writes some keys with capitals, and
/// Go's reader does not mind.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct RuntimeConfig {
    /// MAC address.
    #[serde(alias = "Mac", alias = "MAC")]
    pub mac: Option<String>,
    /// Resolver settings.
    #[serde(alias = "Dns", alias = "DNS")]
    pub dns: Option<RuntimeDns>,
    /// Ports of the host.
    #[serde(rename = "portMappings", alias = "PortMappings")]
    pub port_mappings: Option<Vec<PortMapping>>,
    /// Addresses.
    #[serde(alias = "Ips", alias = "IPs")]
    pub ips: Option<Vec<String>>,
    /// Bounds on what passes.
    #[serde(alias = "Bandwidth")]
    pub bandwidth: Option<Bandwidth>,
    /// Further names of the container, by network.
    #[serde(alias = "Aliases")]
    pub aliases: Option<HashMap<String, Option<Vec<String>>>>,
}

/// Bounds, seen from the container: ingress is what it receives. Bits, and bits per second;
/// 0: no bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Bandwidth {
    /// Rate of what it receives.
    #[serde(alias = "IngressRate")]
    pub ingress_rate: u64,
    /// How much of that at once.
    #[serde(alias = "IngressBurst")]
    pub ingress_burst: u64,
    /// Rate of what it sends.
    #[serde(alias = "EgressRate")]
    pub egress_rate: u64,
    /// How much of that at once.
    #[serde(alias = "EgressBurst")]
    pub egress_burst: u64,
}

/// Resolver settings as runtimes have them.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct RuntimeDns {
    #[serde(alias = "Servers")]
    servers: Option<Vec<String>>,
    #[serde(alias = "Searches")]
    searches: Option<Vec<String>>,
    #[serde(alias = "Options")]
    options: Option<Vec<String>>,
}

/// `args` of the configuration.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Arguments {
    /// Those of the conventions.
    #[serde(default)]
    pub cni: Option<CniArguments>,
}

/// `args.cni`.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct CniArguments {
    /// MAC address.
    pub mac: Option<String>,
    /// Addresses.
    pub ips: Option<Vec<String>>,
}

/// One interface of a container.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Attachment {
    /// Id of the container.
    #[serde(rename = "containerID")]
    pub container: String,
    /// Name of the interface.
    #[serde(rename = "ifname")]
    pub interface: String,
}

fn default_socket() -> String {
    vswitch_shim::DEFAULT_SOCKET.to_owned()
}

impl Config {
    /// Reads it.
    ///
    /// # Errors
    /// It is not JSON, or a field has the wrong type.
    pub fn read(bytes: &[u8]) -> Result<Self, CniError> {
        serde_json::from_slice(bytes).map_err(|error| {
            CniError::new(ErrorCode::Decoding, "the configuration on stdin is not understood", error)
        })
    }

    /// The version to answer with.
    ///
    /// # Errors
    /// It is not one of ours.
    pub fn version(&self) -> Result<Version, CniError> {
        self.cni_version.parse()
    }

    /// The logical switch, as the daemon has it.
    ///
    /// # Errors
    /// None is named.
    pub fn switch(&self) -> Result<String, CniError> {
        let id = self.switch.strip_prefix(SWITCHES).unwrap_or(&self.switch);
        let is_id = !id.is_empty()
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
        if is_id {
            return Ok(format!("{SWITCHES}{id}"));
        }
        Err(CniError::new(
            ErrorCode::InvalidConfig,
            format!("switch `{}`", self.switch.escape_debug()),
            "name the logical switch that containers of this network are attached to, as in \"switch\": \"web\"",
        ))
    }

    /// The MAC address asked for, by whoever has most to say.
    pub fn mac(&self, environment: &Environment) -> Option<String> {
        let by_runtime = self.runtime_config.as_ref().and_then(|config| config.mac.clone());
        let by_args = || self.args.as_ref()?.cni.as_ref()?.mac.clone();
        let by_environment = || environment.argument("MAC").map(str::to_owned);
        by_runtime.or_else(by_args).or_else(by_environment).filter(|mac| !mac.is_empty())
    }

    /// Refuses a network that says nothing of addresses.
    ///
    /// # Errors
    /// It has no IPAM.
    pub fn check_ipam(&self) -> Result<(), CniError> {
        match &self.ipam {
            Some(ipam) if !ipam.kind.is_empty() => Ok(()),
            _ => Err(CniError::new(
                ErrorCode::InvalidConfig,
                "the network has no IPAM plugin",
                "say who gives addresses, as in \"ipam\": {\"type\": \"ferroflow\", \"ranges\": …}",
            )),
        }
    }

    /// The addresses asked for, by whoever has most to say; each once, without the length of
    /// its prefix, for which the ranges are there.
    pub fn addresses(&self, environment: &Environment) -> Vec<String> {
        let by_runtime = self.runtime_config.as_ref().and_then(|config| config.ips.clone());
        let by_args = || self.args.as_ref()?.cni.as_ref()?.ips.clone();
        let by_environment = || Some(environment.argument("IP")?.split(',').map(str::to_owned).collect());
        let is_any = |ips: &Vec<String>| !ips.is_empty();
        let asked = by_runtime.filter(is_any).or_else(|| by_args().filter(is_any)).or_else(by_environment);
        let mut addresses: Vec<String> = Vec::new();
        for text in asked.unwrap_or_default() {
            let address = text.split('/').next().unwrap_or_default().trim().to_owned();
            // podman says the same twice.
            if !address.is_empty() && !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses
    }

    /// Names by which others are to find the container: its own, with the namespace that makes
    /// it the only one, and those that the runtime adds for this network.
    pub fn names(&self, environment: &Environment) -> Vec<String> {
        if !self.names {
            return Vec::new();
        }
        let namespace = environment.argument("K8S_POD_NAMESPACE").filter(|namespace| !namespace.is_empty());
        let own = environment.argument("K8S_POD_NAME").map(|pod| match namespace {
            Some(namespace) => format!("{pod}.{namespace}"),
            None => pod.to_owned(),
        });
        let aliases = self.runtime_config.as_ref().and_then(|config| config.aliases.as_ref());
        let aliases = aliases.and_then(|aliases| aliases.get(&self.name)).cloned().flatten();
        // What no resolver asks for is no name.
        own.into_iter().chain(aliases.unwrap_or_default()).filter(|name| is_name(name)).collect()
    }

    /// Resolver settings: the runtime's, else the configuration's, else those of IPAM.
    pub fn dns(&self, ipam: &Dns) -> Dns {
        let by_runtime = self.runtime_config.as_ref().and_then(|config| config.dns.clone()).map(|dns| Dns {
            nameservers: dns.servers.unwrap_or_default(),
            domain: None,
            search: dns.searches.unwrap_or_default(),
            options: dns.options.unwrap_or_default(),
        });
        by_runtime
            .filter(|dns| !dns.is_empty())
            .or_else(|| self.dns.clone().filter(|dns| !dns.is_empty()))
            .unwrap_or_else(|| ipam.clone())
    }

    /// Bounds on what the container receives, and on what it sends.
    pub fn limits(&self) -> [Option<RateLimit>; 2] {
        let asked = self.runtime_config.as_ref().and_then(|config| config.bandwidth).unwrap_or_default();
        [(asked.ingress_rate, asked.ingress_burst), (asked.egress_rate, asked.egress_burst)]
            .map(|(rate_bps, burst_bits)| (rate_bps != 0).then_some(RateLimit { rate_bps, burst_bits }))
    }

    /// Ports of the host that are to lead to the container.
    ///
    /// # Errors
    /// There are some, but the host is not the gateway.
    pub fn published(&self) -> Result<Vec<PublishedPort>, CniError> {
        let mappings = self.runtime_config.as_ref().and_then(|config| config.port_mappings.as_deref());
        let published: Vec<_> = mappings
            .unwrap_or_default()
            .iter()
            // Kubernetes says so of ports that are only named.
            .filter(|mapping| mapping.host_port != 0)
            .map(|mapping| PublishedPort {
                protocol: if mapping.protocol.is_empty() {
                    "tcp".to_owned()
                } else {
                    mapping.protocol.clone()
                },
                host_ip: mapping.host_ip.clone(),
                host_port: mapping.host_port,
                port: mapping.container_port,
            })
            .collect();
        if published.is_empty() || self.gateway == Gateway::Host {
            return Ok(published);
        }
        Err(CniError::new(
            ErrorCode::InvalidConfig,
            "ports of the host cannot lead to this network",
            "its containers' packets leave by a router; publish there, or have the host be the gateway with \"gateway\": \"host\"",
        ))
    }

    /// What an earlier ADD answered.
    ///
    /// # Errors
    /// It is not a result.
    pub fn previous(&self) -> Result<Option<CniResult>, CniError> {
        let Some(value) = self.prev_result.clone().filter(|value| !value.is_null()) else { return Ok(None) };
        CniResult::read(value, "prevResult").map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_with_capitals_and_nulls_are_understood() {
        let config = Config::read(
            br#"{"cniVersion":"1.0.0","name":"n","switch":"web","runtimeConfig":{
                "dns":{"Servers":["10.0.0.53"],"Searches":null,"Options":null},
                "bandwidth":{"IngressRate":10000000}},"capabilities":{"mac":true},"future":[1]}"#,
        )
        .unwrap();
        let dns = config.dns(&Dns::default());
        assert_eq!(dns.nameservers, ["10.0.0.53"]);
        assert!(dns.search.is_empty());
        let received = RateLimit { rate_bps: 10_000_000, burst_bits: 0 };
        assert_eq!(config.limits(), [Some(received), None]);
        assert_eq!(config.switch().unwrap(), "switches/web");
    }

    #[test]
    fn addresses_are_asked_for_once_each_by_whoever_has_most_to_say() {
        let env = Environment::read([("CNI_ARGS".into(), "IP=10.0.0.7,fd00::7".into())]).unwrap();
        let addresses = |text: &str| Config::read(text.as_bytes()).unwrap().addresses(&env);
        assert_eq!(addresses("{}"), ["10.0.0.7", "fd00::7"]);
        assert_eq!(addresses(r#"{"args":{"cni":{"ips":["10.0.0.8/24"]}}}"#), ["10.0.0.8"]);
        assert_eq!(addresses(r#"{"runtimeConfig":{"ips":["10.0.0.9","10.0.0.9"]}}"#), ["10.0.0.9"]);
        assert_eq!(addresses(r#"{"runtimeConfig":{"ips":[]}}"#), ["10.0.0.7", "fd00::7"]);
    }

    #[test]
    fn names_are_the_containers_own_and_those_of_its_network() {
        let names = |args: &str, is_on: bool| {
            let env = Environment::read([("CNI_ARGS".into(), args.into())]).unwrap();
            let text = r#"{"name":"n","names":ON,"runtimeConfig":{"aliases":{"n":["www","a b"],"m":["x"],"o":null}}}"#;
            let text = text.replace("ON", &is_on.to_string());
            Config::read(text.as_bytes()).unwrap().names(&env)
        };
        assert_eq!(names("K8S_POD_NAME=server", true), ["server", "www"]);
        assert_eq!(names("K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0", true), ["web-0.shop", "www"]);
        assert_eq!(names("", true), ["www"]);
        assert!(names("K8S_POD_NAME=server", false).is_empty());
    }

    #[test]
    fn own_ranges_are_written_as_those_of_host_local() {
        let config = Config::read(
            br#"{"ipam":{"type":"ferroflow","ranges":[[{"subnet":"10.0.1.0/24","rangeStart":"10.0.1.9",
                "gateway":"10.0.1.1"}],[{"subnet":"fd00::/64"}]],"routes":null}}"#,
        )
        .unwrap();
        let ipam = config.ipam.unwrap();
        assert!(ipam.is_own() && ipam.routes.is_empty());
        let lease = ipam.lease();
        assert_eq!((lease.sets.len(), lease.sets[0].ranges[0].first.as_str()), (2, "10.0.1.9"));
    }

    #[test]
    fn ports_are_published_where_the_host_is_the_gateway() {
        let ports = r#""runtimeConfig":{"portMappings":[
            {"hostPort":8080,"containerPort":80,"protocol":"tcp","hostIP":""},
            {"hostPort":0,"containerPort":81},
            {"HostPort":53,"ContainerPort":54,"Protocol":"udp","HostIP":"192.0.2.1"}]}"#;
        let config = |gateway: &str| Config::read(format!("{{{gateway}{ports}}}").as_bytes());
        let published = config(r#""gateway":"host","#).unwrap().published().unwrap();
        let texts: Vec<_> = published
            .iter()
            .map(|p| format!("{}/{}:{}->{}", p.protocol, p.host_ip, p.host_port, p.port))
            .collect();
        assert_eq!(texts, ["tcp/:8080->80", "udp/192.0.2.1:53->54"]);
        assert_eq!(config("").unwrap().published().unwrap_err().code, 7);
        assert_eq!(config(r#""gateway":"left","#).unwrap_err().code, 6);
        let none = Config::read(br#"{"runtimeConfig":{"portMappings":null}}"#).unwrap();
        assert_eq!(none.published(), Ok(vec![]));
    }

    #[test]
    fn the_runtime_has_more_to_say_than_the_environment() {
        let env = Environment::read([("CNI_ARGS".into(), "MAC=02:00:00:00:00:03".into())]).unwrap();
        let mac = |text: &str| Config::read(text.as_bytes()).unwrap().mac(&env);
        assert_eq!(mac("{}").unwrap(), "02:00:00:00:00:03");
        let args = r#""args":{"cni":{"mac":"02:00:00:00:00:02"}}"#;
        assert_eq!(mac(&format!("{{{args}}}")).unwrap(), "02:00:00:00:00:02");
        let runtime = r#""runtimeConfig":{"mac":"02:00:00:00:00:01"}"#;
        assert_eq!(mac(&format!("{{{args},{runtime}}}")).unwrap(), "02:00:00:00:00:01");
    }

    #[test]
    fn a_switch_is_to_be_named_and_no_path() {
        for wrong in ["", "switches/", "switches/a/ports/b", "a b"] {
            let config = Config::read(serde_json::json!({ "switch": wrong }).to_string().as_bytes()).unwrap();
            assert_eq!(config.switch().unwrap_err().code, 7, "{wrong}");
        }
    }

    #[test]
    fn hostile_configurations_are_refused() {
        let whole = br#"{"cniVersion":"1.0.0","name":"n","ipam":{"type":"host-local"},"mtu":1400}"#;
        for len in 0..whole.len() {
            assert_eq!(Config::read(&whole[..len]).unwrap_err().code, 6);
        }
        for wrong in [r#"{"mtu":-1}"#, r#"{"ipam":3}"#, r#"{"cniVersion":1}"#, "[]", "null"] {
            assert_eq!(Config::read(wrong.as_bytes()).unwrap_err().code, 6, "{wrong}");
        }
        assert!(Config::read("[".repeat(10_000).as_bytes()).is_err());
    }
}
