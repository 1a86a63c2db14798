//! `cni`: puts the plugin where container runtimes look for it, and takes it away again.

use std::{
    collections::BTreeSet,
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::{Value, json};

use super::endpoint;
use crate::{error::CtlError, session::Session};

/// Name of the plugin's program.
const PLUGIN: &str = "vswitch-cni";
/// Where runtimes look for plugins unless told otherwise.
const BIN_DIR: &str = "/opt/cni/bin";
/// Where runtimes look for networks unless told otherwise.
const CONF_DIR: &str = "/etc/cni/net.d";
/// The network's file: runtimes take the first of the directory.
const CONF: &str = "10-ferroflow.conflist";

/// Put the plugin where container runtimes look for it, and take it away again.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Install the plugin, and a network of containers
    Install(Install),
    /// Take both away
    Uninstall(Dirs),
}

/// Directories of the runtimes.
#[derive(Debug, Clone, Args)]
pub struct Dirs {
    /// Directory of plugins
    #[arg(long, value_name = "DIR", default_value = BIN_DIR)]
    bin_dir: PathBuf,
    /// Directory of networks
    #[arg(long, value_name = "DIR", default_value = CONF_DIR)]
    conf_dir: PathBuf,
    /// Name of the network
    #[arg(long, default_value = "ferroflow")]
    name: String,
}

/// A network of containers.
#[derive(Debug, Args)]
pub struct Install {
    #[command(flatten)]
    dirs: Dirs,
    /// Logical switch that the containers are attached to
    #[arg(long, value_name = "SWITCH")]
    switch: String,
    /// Addresses of containers: SUBNET=FIRST-LAST, the same on all hosts: each leases some of
    /// them for itself. With --host-gateway and --gateway, a range no other host has
    #[arg(long, value_name = "SUBNET=FIRST-LAST", required = true, value_parser = range)]
    range: Vec<Range>,
    /// Router of the containers, one for IPv4 and one for IPv6; without one they have no default route
    #[arg(long, value_name = "ADDRESS")]
    gateway: Vec<IpAddr>,
    /// This host is the gateway: what leaves goes by its kernel, and ports of the host can lead
    /// to containers. It has the addresses of --gateway; without, it leases some
    #[arg(long)]
    host_gateway: bool,
    /// Workloads of the switch find containers by their names
    #[arg(long)]
    names: bool,
    /// The plugin's program; without it, the one beside vswitchctl
    #[arg(long, value_name = "PATH")]
    plugin: Option<PathBuf>,
}

/// Addresses that one host's containers have.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Range {
    subnet: String,
    first: IpAddr,
    last: IpAddr,
}

fn range(text: &str) -> Result<Range, String> {
    let wrong = || "write SUBNET=FIRST-LAST, as 10.0.1.0/24=10.0.1.100-10.0.1.149".to_owned();
    let (subnet, addresses) = text.split_once('=').ok_or_else(wrong)?;
    let (first, last) = addresses.split_once('-').ok_or_else(wrong)?;
    let address = |text: &str| text.parse::<IpAddr>().map_err(|_| wrong());
    let (network, len) = subnet.split_once('/').ok_or_else(wrong)?;
    let (network, first, last) = (address(network)?, address(first)?, address(last)?);
    let max = if network.is_ipv4() { 32 } else { 128 };
    let is_len = len.parse::<u8>().is_ok_and(|len| len <= max);
    if !is_len || first > last || network.is_ipv4() != first.is_ipv4() || first.is_ipv4() != last.is_ipv4() {
        return Err(wrong());
    }
    Ok(Range { subnet: subnet.to_owned(), first, last })
}

impl Command {
    /// Does it.
    ///
    /// # Errors
    /// A file cannot be written, or containers are still attached.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        match self {
            Self::Install(install) => install.run(session),
            Self::Uninstall(dirs) => dirs.uninstall(session).await,
        }
    }
}

impl Install {
    fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let plugin = match &self.plugin {
            Some(plugin) => plugin.clone(),
            None => beside_this_program()?,
        };
        let installed = self.dirs.bin_dir.join(PLUGIN);
        let bytes = fs::read(&plugin).map_err(|error| file_error(&plugin, &error))?;
        replace(&installed, &bytes, 0o755)?;
        // Last, and whole: a runtime that sees the network can use it.
        let network = self.dirs.conf_dir.join(CONF);
        let address = session.global.host()?;
        let socket = address.socket().ok_or_else(|| {
            CtlError::Usage("--host has to be the unix socket that the plugin is to use".to_owned())
        })?;
        let text = serde_json::to_vec_pretty(&self.network(socket)).map_err(io::Error::from)?;
        replace(&network, &text, 0o644)?;
        let view = InstalledView { plugin: installed, network };
        session.print(&view, |out| writeln!(out, "{}\n{}", view.plugin.display(), view.network.display()))
    }

    fn network(&self, socket: &Path) -> Value {
        let ranges: Vec<_> = self.range.iter().map(|range| self.ipam_range(range)).collect();
        let is_leased = self.host_gateway && self.gateway.is_empty();
        let by_range = self.range.iter().map(|range| range.first).filter(|_| is_leased);
        let families: BTreeSet<_> =
            self.gateway.iter().copied().chain(by_range).map(|address| address.is_ipv6()).collect();
        let routes: Vec<_> = families
            .into_iter()
            .map(|is_v6| json!({ "dst": if is_v6 { "::/0" } else { "0.0.0.0/0" } }))
            .collect();
        let mut plugin = json!({
            "type": PLUGIN,
            "switch": self.switch,
            "socket": socket,
            "capabilities": { "mac": true, "ips": true, "dns": true, "bandwidth": true },
            "ipam": { "type": "ferroflow", "ranges": ranges, "routes": routes },
        });
        if self.names {
            plugin["names"] = json!(true);
            plugin["capabilities"]["aliases"] = json!(true);
        }
        if self.host_gateway {
            if !is_leased {
                // An address that is named is not one that is leased.
                plugin["ipam"]["type"] = json!("host-local");
            }
            plugin["gateway"] = json!("host");
            plugin["capabilities"]["portMappings"] = json!(true);
        }
        json!({
            // The first is for runtimes that know no second.
            "cniVersion": "1.0.0",
            "cniVersions": ["0.3.1", "0.4.0", "1.0.0", "1.1.0"],
            "name": self.dirs.name,
            "plugins": [plugin],
        })
    }

    fn ipam_range(&self, range: &Range) -> Value {
        let gateway = self.gateway.iter().find(|gateway| gateway.is_ipv4() == range.first.is_ipv4());
        let mut of_ipam =
            json!({ "subnet": range.subnet, "rangeStart": range.first, "rangeEnd": range.last });
        if let (Some(fields), Some(gateway)) = (of_ipam.as_object_mut(), gateway) {
            fields.insert("gateway".to_owned(), json!(gateway));
        }
        json!([of_ipam])
    }
}

impl Dirs {
    async fn uninstall(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        // First: no container is to start any more.
        let network = self.conf_dir.join(CONF);
        let had_network = remove(&network)?;
        let endpoints = endpoint::list(session).await?;
        let n_left = endpoints
            .iter()
            .filter(|endpoint| endpoint.key.as_ref().is_some_and(|key| key.network == self.name))
            .count();
        if n_left > 0 {
            return Err(CtlError::Usage(format!(
                "the network is gone, but {n_left} containers are attached and need the plugin to end; end them (vswitchctl endpoint list) and do this again"
            )));
        }
        endpoint::release(session).await?;
        let plugin = self.bin_dir.join(PLUGIN);
        let had_plugin = remove(&plugin)?;
        let removed = [(had_plugin, plugin), (had_network, network)];
        let removed: Vec<_> = removed.into_iter().filter(|(had, _)| *had).map(|(_, path)| path).collect();
        session.print(&removed, |out| {
            removed.iter().try_for_each(|path| writeln!(out, "removed {}", path.display()))
        })
    }
}

/// What is shown of an installation.
#[derive(Debug, Serialize)]
struct InstalledView {
    plugin: PathBuf,
    network: PathBuf,
}

fn beside_this_program() -> Result<PathBuf, CtlError> {
    let this = std::env::current_exe()?;
    let plugin = this.with_file_name(PLUGIN);
    if plugin.is_file() {
        return Ok(plugin);
    }
    Err(CtlError::Usage(format!("there is no {}; say where the plugin is with --plugin", plugin.display())))
}

/// Makes a file what it is to be, at once.
fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), CtlError> {
    use std::os::unix::fs::PermissionsExt as _;
    let new = path.with_extension("new");
    let written = path
        .parent()
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| fs::write(&new, bytes))
        .and_then(|()| fs::set_permissions(&new, fs::Permissions::from_mode(mode)))
        .and_then(|()| fs::rename(&new, path));
    written.map_err(|error| file_error(path, &error))
}

fn remove(path: &Path) -> Result<bool, CtlError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(file_error(path, &error)),
    }
}

fn file_error(path: &Path, error: &io::Error) -> CtlError {
    CtlError::File { file: path.display().to_string(), line: None, reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_of_one_family_and_not_backwards() {
        assert!(range("10.0.1.0/24=10.0.1.100-10.0.1.149").is_ok());
        assert!(range("fd00::/64=fd00::100-fd00::1ff").is_ok());
        for wrong in [
            "",
            "10.0.1.0/24",
            "10.0.1.0=10.0.1.1-10.0.1.2",
            "10.0.1.0/33=10.0.1.1-10.0.1.2",
            "10.0.1.0/24=10.0.1.2-10.0.1.1",
            "10.0.1.0/24=fd00::1-fd00::2",
            "10.0.1.0/24=10.0.1.1-fd00::2",
        ] {
            assert!(range(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn each_range_has_the_gateway_of_its_family() {
        let install = Install {
            dirs: Dirs { bin_dir: BIN_DIR.into(), conf_dir: CONF_DIR.into(), name: "pods".into() },
            switch: "web".into(),
            range: vec![
                range("10.0.1.0/24=10.0.1.100-10.0.1.149").unwrap(),
                range("fd00::/64=fd00::100-fd00::1ff").unwrap(),
            ],
            gateway: vec!["fd00::1".parse().unwrap(), "10.0.1.1".parse().unwrap()],
            host_gateway: false,
            names: false,
            plugin: None,
        };
        let network = install.network(Path::new("/run/x.sock"));
        assert!(network["plugins"][0].get("gateway").is_none());
        let install = Install { host_gateway: true, ..install };
        let by_host = install.network(Path::new("/run/x.sock"));
        assert_eq!(by_host["plugins"][0]["gateway"], "host");
        assert_eq!(by_host["plugins"][0]["capabilities"]["portMappings"], true);
        let ipam = &network["plugins"][0]["ipam"];
        assert_eq!(ipam["ranges"][0][0]["gateway"], "10.0.1.1");
        assert_eq!(ipam["ranges"][1][0]["gateway"], "fd00::1");
        assert_eq!(ipam["routes"], json!([{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }]));
        assert_eq!(
            (&ipam["type"], &by_host["plugins"][0]["ipam"]["type"]),
            (&json!("ferroflow"), &json!("host-local"))
        );
        let leased =
            Install { gateway: vec![], host_gateway: true, names: true, ..install }.network(Path::new("/x"));
        let plugin = &leased["plugins"][0];
        assert_eq!((&plugin["gateway"], &plugin["names"]), (&json!("host"), &json!(true)));
        assert_eq!(plugin["ipam"]["type"], "ferroflow");
        assert_eq!(plugin["ipam"]["routes"], ipam["routes"]);
    }
}
