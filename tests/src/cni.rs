//! A container runtime reduced to what the network sees of it: it calls plugins as the Container Network
//! Interface says, for containers that are nothing but a network namespace.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::command::{self, describe};
use crate::daemon::find_program;
use crate::fabric::{Fabric, HOSTS, Plan};
use crate::netns::Netns;
use crate::scenario;

/// Where Debian keeps the plugins of others.
const DEBIAN_PLUGINS: &str = "/usr/lib/cni";
/// How long a plugin may take.
const LIMIT: Duration = Duration::from_secs(40);
/// First address of a host's range, of /24; each host has as many as [`RANGE_LEN`].
const FIRST_HOST_ADDRESS: usize = 100;
/// Addresses of a host's range.
const RANGE_LEN: usize = 50;

/// What a plugin answered.
pub type Answer = Result<Value, Value>;

/// A runtime on one host of a fabric.
#[derive(Debug)]
pub struct Runtime {
    socket: PathBuf,
    dir: PathBuf,
    plugin: PathBuf,
    host_idx: usize,
    is_gateway: bool,
}

/// A container: a namespace and an id.
#[derive(Debug)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// Its namespace.
    pub netns: Netns,
}

impl Container {
    /// Makes one.
    ///
    /// # Errors
    /// When the namespace cannot be made.
    pub fn create(fabric: &Fabric, id: &str) -> Result<Self> {
        Self::with_prefix(&fabric.plan().prefix, id)
    }

    /// Makes one whose namespace has a name that begins so.
    ///
    /// # Errors
    /// When the namespace cannot be made.
    pub fn with_prefix(prefix: &str, id: &str) -> Result<Self> {
        let netns = Netns::create(&format!("{prefix}-{id}"))?;
        Ok(Self { id: id.to_owned(), netns })
    }

    /// Path of its namespace.
    pub fn path(&self) -> String {
        format!("/run/netns/{}", self.netns.name())
    }
}

impl Runtime {
    /// The runtime of a host.
    ///
    /// # Errors
    /// When the plugin was not built, or there is no folder for its state.
    pub fn on(fabric: &Fabric, host_idx: usize) -> Result<Self> {
        Self::of_host(fabric.plan(), HOSTS[host_idx].name, host_idx)
    }

    /// The runtime of a host that has this name, and is one of several.
    ///
    /// # Errors
    /// As [`Self::on`].
    pub fn of_host(plan: &Plan, name: &str, host_idx: usize) -> Result<Self> {
        let dir = plan.dir.join(format!("{name}-runtime"));
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let socket = plan.dir.join(format!("{name}.sock"));
        let plugin = find_program(&scenario::target_dir()?, "vswitch-cni")?;
        Ok(Self { socket, dir, plugin, host_idx, is_gateway: false })
    }

    /// The host is the containers' gateway, for IPv4 and IPv6.
    pub fn with_host_as_gateway(self) -> Self {
        Self { is_gateway: true, ..self }
    }

    /// Where the plugin is.
    pub fn plugin_dir(&self) -> &Path {
        self.plugin.parent().unwrap_or(Path::new("/"))
    }

    /// The network's configuration in a version of the specification.
    pub fn config(&self, version: &str) -> Value {
        let first = FIRST_HOST_ADDRESS + self.host_idx * RANGE_LEN;
        let last = first + RANGE_LEN - 1;
        let gateway = if self.is_gateway { format!("10.0.1.{first}") } else { "10.0.1.1".to_owned() };
        let v4 = json!({
            "subnet": "10.0.1.0/24",
            "rangeStart": format!("10.0.1.{first}"), "rangeEnd": format!("10.0.1.{last}"), "gateway": gateway,
        });
        let mut config = json!({
            "cniVersion": version,
            "name": "pods",
            "type": "vswitch-cni",
            "switch": "web",
            "socket": self.socket,
            "ipam": {
                "type": "host-local",
                "dataDir": self.addresses_dir(),
                "ranges": [[v4]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        });
        if self.is_gateway {
            config["gateway"] = "host".into();
            config["capabilities"] = json!({ "portMappings": true });
            let v6 = json!({
                "subnet": "fd01::/64",
                "rangeStart": format!("fd01::{first}"), "rangeEnd": format!("fd01::{last}"),
                "gateway": format!("fd01::{first}"),
            });
            config["ipam"]["ranges"] = json!([[config["ipam"]["ranges"][0][0]], [v6]]);
            config["ipam"]["routes"] = json!([{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }]);
        }
        config
    }

    /// A network of a switch, with addresses of one range that hosts lease, and a router if there is one.
    pub fn leased(&self, name: &str, switch: &str, (subnet, range): (&str, &str), router: &str) -> Value {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let mut config = self.config("1.0.0");
        config["name"] = name.into();
        config["switch"] = switch.into();
        let mut range = json!({ "subnet": subnet, "rangeStart": first, "rangeEnd": last });
        let mut routes = json!([]);
        if !router.is_empty() {
            range["gateway"] = router.into();
            routes = json!([{ "dst": "0.0.0.0/0" }]);
        }
        config["ipam"] = json!({ "type": "ferroflow", "ranges": [[range]], "routes": routes });
        config
    }

    /// ADD in a network, which has to succeed. Gives the address.
    ///
    /// # Errors
    /// When it does not.
    pub fn attach(&self, container: &Container, network: &Value) -> Result<String> {
        match self.call("ADD", &container.id, &container.path(), network)? {
            Ok(result) => address(&result),
            Err(error) => bail!("ADD of {} failed: {error}", container.id),
        }
    }

    /// DEL in a network, which has to succeed.
    ///
    /// # Errors
    /// When it does not.
    pub fn detach(&self, container: &Container, network: &Value) -> Result<()> {
        match self.call("DEL", &container.id, "", network)? {
            Ok(_) => Ok(()),
            Err(error) => bail!("DEL of {} failed: {error}", container.id),
        }
    }

    /// Where host-local keeps what it gives.
    pub fn addresses_dir(&self) -> PathBuf {
        self.dir.join("addresses")
    }

    /// Addresses that are taken.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn taken_addresses(&self) -> Result<Vec<String>> {
        let Ok(entries) = fs::read_dir(self.addresses_dir().join("pods")) else { return Ok(Vec::new()) };
        let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let names: Result<Vec<String>> = names.collect();
        Ok(names?.into_iter().filter(|name| name.starts_with("10.") || name.starts_with("fd")).collect())
    }

    /// Calls the plugin for a container's `eth0`.
    ///
    /// # Errors
    /// When it cannot be called, or answers what is not JSON; its own errors are answers.
    pub fn call(&self, verb: &str, id: &str, netns: &str, config: &Value) -> Result<Answer> {
        let mut command = self.command(verb, id, netns, config)?;
        let finished = command::run(&mut command, LIMIT)?;
        let text = finished.stdout.trim();
        let answer = match text {
            "" => Value::Null,
            text => serde_json::from_str(text)
                .with_context(|| format!("{} answers `{text}` {}", describe(&command), finished.stderr))?,
        };
        Ok(if finished.status.success() { Ok(answer) } else { Err(answer) })
    }

    /// The command that calls the plugin.
    ///
    /// # Errors
    /// When the configuration cannot be written.
    pub fn command(&self, verb: &str, id: &str, netns: &str, config: &Value) -> Result<Command> {
        let stdin = self.dir.join(format!("{id}-{verb}.json"));
        fs::write(&stdin, config.to_string()).with_context(|| format!("cannot write {}", stdin.display()))?;
        let plugins = self.plugin_dir().display();
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$0\" < \"$1\""]).arg(&self.plugin).arg(&stdin);
        command.env("CNI_COMMAND", verb).env("CNI_CONTAINERID", id).env("CNI_NETNS", netns);
        command.env("CNI_IFNAME", "eth0").env("CNI_PATH", format!("{plugins}:{DEBIAN_PLUGINS}"));
        command.env("CNI_ARGS", format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME={id}"));
        Ok(command)
    }

    /// ADD, which has to succeed.
    ///
    /// # Errors
    /// When it does not.
    pub fn add(&self, container: &Container, version: &str) -> Result<Value> {
        match self.call("ADD", &container.id, &container.path(), &self.config(version))? {
            Ok(result) => Ok(result),
            Err(error) => bail!("ADD of {} failed: {error}", container.id),
        }
    }

    /// DEL, which has to succeed; `netns` may be empty.
    ///
    /// # Errors
    /// When it does not.
    pub fn del(&self, id: &str, netns: &str, version: &str) -> Result<()> {
        match self.call("DEL", id, netns, &self.config(version))? {
            Ok(_) => Ok(()),
            Err(error) => bail!("DEL of {id} failed: {error}"),
        }
    }
}

/// The address that ADD answered, without its prefix length.
///
/// # Errors
/// When there is none.
pub fn address(result: &Value) -> Result<String> {
    let address = result["ips"][0]["address"].as_str().context("no address in the result")?;
    Ok(address.split('/').next().unwrap_or(address).to_owned())
}

/// Interfaces that the daemon of a host has made for containers.
///
/// # Errors
/// When they cannot be listed.
pub fn host_ends(fabric: &Fabric, host_idx: usize) -> Result<Vec<String>> {
    let links = fabric.host_netns(host_idx).ip(&["-o", "link", "show", "type", "veth"])?;
    let names = links.lines().filter_map(|line| line.split(": ").nth(1));
    // Either end of a gateway is on the host; the name has its peer's behind it.
    let names = names.filter(|name| name.starts_with("vc") || name.starts_with("vh"));
    Ok(names.map(str::to_owned).collect())
}
