//! What `vswitch-libnetwork` takes on its command line.

use std::{path::PathBuf, str::FromStr};

use address_pool::Network;
use clap::{Parser, ValueEnum};

/// Docker's networks on logical switches: a remote network driver and IPAM driver.
#[derive(Debug, Clone, Parser)]
#[command(name = "vswitch-libnetwork", version)]
pub struct Options {
    /// Where Docker looks for the driver; the file's name without `.sock` is the driver's
    #[arg(long, value_name = "PATH", default_value = "/run/docker/plugins/ferroflow.sock")]
    pub socket: PathBuf,
    /// Socket of vswitchd
    #[arg(long, value_name = "PATH", default_value = vswitch_shim::DEFAULT_SOCKET)]
    pub vswitchd: PathBuf,
    /// Directory for networks, endpoints and addresses, which Docker tells only once
    #[arg(long, value_name = "DIR", default_value = "/var/lib/ferroflow/libnetwork")]
    pub state_dir: PathBuf,
    /// Networks are cut from this one when the user names no subnet: NETWORK=LENGTH; repeat
    /// it for more
    #[arg(long, value_name = "NETWORK=LENGTH", default_values = ["10.200.0.0/16=24", "fd46:6572:726f::/48=64"])]
    pub default_pool: Vec<DefaultPool>,
    /// Seconds for which an address that came back is given to nobody else: as long as
    /// traffic to its old owner may still arrive
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub address_rest: u32,
    /// Whose networks these are: this Docker's own, or those of all in its swarm
    #[arg(long, value_enum, value_name = "SCOPE", default_value_t = Scope::Local)]
    pub scope: Scope,
    /// Docker starts this process, as a plugin that it manages
    #[arg(long)]
    pub managed: bool,
    /// Write the driver as a plugin for Docker to manage into a new directory, and end; it gets
    /// the other options. Then: docker plugin create NAME DIR && docker plugin enable NAME
    #[arg(long, value_name = "DIR")]
    pub make_plugin: Option<PathBuf>,
    /// What to log, for example `info` or `vswitch_libnetwork=debug`
    #[arg(long, default_value = "info")]
    pub log: String,
}

/// Whose networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scope {
    /// One Docker's.
    Local,
    /// Those of all Dockers of a swarm.
    Global,
}

impl Scope {
    /// As Docker calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Global => "global",
        }
    }
}

/// What networks are cut from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DefaultPool {
    /// The whole.
    pub network: Network,
    /// Prefix length of a piece.
    pub len: u8,
}

impl FromStr for DefaultPool {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "write NETWORK=LENGTH, as 10.200.0.0/16=24".to_owned();
        let (network, len) = text.split_once('=').ok_or_else(wrong)?;
        let network: Network = network.parse().map_err(|_| wrong())?;
        let len = len.parse().map_err(|_| wrong())?;
        if network.subnets(len).next().is_some() { Ok(Self { network, len }) } else { Err(wrong()) }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn options_are_consistent_and_defaults_are_pools() {
        Options::command().debug_assert();
        let options = Options::try_parse_from(["x"]).unwrap();
        assert_eq!(options.default_pool.len(), 2);
        for wrong in ["", "10.0.0.0/16", "10.0.0.0/16=8", "10.0.0.0/16=33", "10.0.0.1/16=24", "fd00::/48=129"]
        {
            assert!(wrong.parse::<DefaultPool>().is_err(), "{wrong}");
        }
    }
}
