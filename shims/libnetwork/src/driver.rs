//! The driver: all its methods by their names, over the state that they share.

use std::{
    cell::RefCell,
    io,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use vswitch_shim::Daemon;

use crate::{
    cli::{DefaultPool, Options, Scope},
    ipam::{GLOBAL_SPACE, PoolRecord},
    network::{EndpointRecord, NetworkRecord},
    refusal::Refusal,
    saved::Saved,
};

/// The driver. It is used from one thread, and nothing of it is borrowed while it waits.
#[derive(Debug)]
pub struct Driver {
    pub(crate) networks: RefCell<Saved<NetworkRecord>>,
    pub(crate) endpoints: RefCell<Saved<EndpointRecord>>,
    pub(crate) pools: RefCell<Saved<PoolRecord>>,
    pub(crate) default_pools: Vec<DefaultPool>,
    /// How long an address rests.
    pub(crate) rest: Duration,
    /// Socket of vswitchd.
    pub(crate) vswitchd: PathBuf,
    pub(crate) scope: Scope,
    /// Docker starts it, and does not say when it has started itself.
    is_managed: bool,
}

impl Driver {
    /// Takes over what the last run left.
    ///
    /// # Errors
    /// The state directory cannot be made or read.
    pub fn open(options: &Options) -> io::Result<Self> {
        let dir = &options.state_dir;
        Ok(Self {
            networks: RefCell::new(Saved::open(&dir.join("networks"))?),
            endpoints: RefCell::new(Saved::open(&dir.join("endpoints"))?),
            pools: RefCell::new(Saved::open(&dir.join("pools"))?),
            default_pools: options.default_pool.clone(),
            rest: Duration::from_secs(options.address_rest.into()),
            vswitchd: options.vswitchd.clone(),
            scope: options.scope,
            is_managed: options.managed,
        })
    }

    /// Does what Docker asks.
    ///
    /// # Errors
    /// Why not.
    pub async fn call(&self, method: &str, body: &[u8]) -> Result<Value, Refusal> {
        tracing::debug!(method, body = %String::from_utf8_lossy(body), "asked");
        let done = |()| json!({});
        match method {
            "Plugin.Activate" => {
                // Docker has started: it says again what it knows, and what it does not
                // say again is gone.
                self.doubt_pools()?;
                Ok(json!({ "Implements": ["NetworkDriver", "IpamDriver"] }))
            }
            "NetworkDriver.GetCapabilities" => {
                Ok(json!({ "Scope": self.scope.name(), "ConnectivityScope": "global" }))
            }
            "NetworkDriver.CreateNetwork" => self.create_network(read(body)?).await.map(done),
            "NetworkDriver.DeleteNetwork" => self.delete_network(read(body)?).await.map(done),
            "NetworkDriver.CreateEndpoint" => self.create_endpoint(read(body)?).await,
            "NetworkDriver.EndpointOperInfo" => Ok(self.endpoint_info(&read(body)?)),
            "NetworkDriver.DeleteEndpoint" => self.delete_endpoint(read(body)?).await.map(done),
            "NetworkDriver.Join" => self.join(&read(body)?),
            "NetworkDriver.ProgramExternalConnectivity" => self.publish(&read(body)?).map(done),
            "NetworkDriver.Leave" => self.leave(&read(body)?).map(done),
            "NetworkDriver.AllocateNetwork" => self.allocate_network(read(body)?).await,
            "NetworkDriver.FreeNetwork" => self.free_network(read(body)?).await.map(done),
            // Of other hosts, which the controller knows by itself.
            "NetworkDriver.RevokeExternalConnectivity"
            | "NetworkDriver.DiscoverNew"
            | "NetworkDriver.DiscoverDelete" => Ok(json!({})),
            "IpamDriver.GetCapabilities" => {
                if self.is_managed {
                    // The first that it asks when it starts.
                    self.doubt_pools()?;
                }
                Ok(json!({ "RequiresMACAddress": false, "RequiresRequestReplay": true }))
            }
            "IpamDriver.GetDefaultAddressSpaces" => Ok(json!({
                "LocalDefaultAddressSpace": "ferroflow-local",
                "GlobalDefaultAddressSpace": GLOBAL_SPACE,
            })),
            "IpamDriver.RequestPool" => self.request_pool(&read(body)?),
            "IpamDriver.ReleasePool" => self.release_pool(&read(body)?).map(done),
            "IpamDriver.RequestAddress" => self.request_address(&read(body)?),
            "IpamDriver.ReleaseAddress" => self.release_address(&read(body)?).map(done),
            unknown => Err(Refusal::unknown_method(unknown)),
        }
    }

    /// The host's daemon.
    pub(crate) async fn daemon(&self, what: &str) -> Result<Daemon, Refusal> {
        Daemon::connect(&self.vswitchd).await.map_err(|status| Refusal::daemon(what, &status))
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body)
        .map_err(|error| Refusal::new(format!("Docker's question is not understood: {error}")))
}

/// Time as it is kept in files.
pub(crate) fn now() -> Duration {
    // Before 1970 every address has rested.
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;
