//! What the runtime says by the configuration on stdin. Fields that are not named here are
//! other plugins' and left alone.

use serde::Deserialize;
use serde_json::Value;

use crate::{
    environment::Environment,
    error::{CniError, ErrorCode},
    result::{CniResult, Dns, Version},
};

/// Where vswitchd listens unless said otherwise.
pub const DEFAULT_SOCKET: &str = "/run/ferroflow/vswitchd.sock";
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

/// The IPAM plugin; the rest of it is the plugin's own.
#[derive(Debug, Clone, Deserialize)]
pub struct Ipam {
    /// Its name.
    #[serde(rename = "type", default)]
    pub kind: String,
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
    DEFAULT_SOCKET.to_owned()
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
        assert_eq!(config.switch().unwrap(), "switches/web");
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
