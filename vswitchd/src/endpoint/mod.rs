//! Endpoints: interfaces of containers, made and taken away for container shims.
//!
//! Each step is written down before it is done (`record`), and taking away is the same
//! whatever was done: so a crash, a call given up or a namespace that went first leave
//! nothing behind. One endpoint is worked on by one call at a time; different ones side by
//! side.
//!
//! - `key`: what tells endpoints apart, and what they are given
//! - `link`: the pair of interfaces
//! - `northbound`: the ports of logical switches
//! - `departed`: what shims leave to do while this daemon is not there

mod departed;
mod key;
mod link;
mod northbound;
mod record;

use std::{
    collections::{BTreeSet, HashMap},
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use flowtable::types::{BridgeId, MacAddr};
use tokio::sync::{Mutex, MutexGuard, RwLock};
use tonic::{Code, Status, transport::Endpoint};

pub use departed::departed_dir;
pub use key::{EndpointKey, Prefix, Route, TextError};
pub use link::{LinkError, Namespace};
pub use record::{Record, Stage};

use crate::host::{PortError, SharedHost};
use link::Wanted;
use northbound::{Northbound, PortWanted};
use record::Records;

/// Calls that may work side by side; more wait for one another.
const N_GATES: usize = 64;
/// How long this host may take to forward for a new port.
const UP_LIMIT: Duration = Duration::from_secs(10);
/// How often what is left to do is tried again.
pub const TEND_INTERVAL: Duration = Duration::from_secs(1);
/// Least MTU of IPv6 (RFC 8200 §5).
const MIN_MTU: u32 = 1280;

/// What a shim asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachWanted {
    /// Whose.
    pub key: EndpointKey,
    /// Path of the namespace.
    pub netns: String,
    /// `switches/{id}`
    pub switch: String,
    /// Addresses.
    pub addresses: Vec<Prefix>,
    /// MAC address; `None`: made from the first address.
    pub mac: Option<MacAddr>,
    /// MTU; `None`: what a tunnel carries.
    pub mtu: Option<u32>,
    /// Routes.
    pub routes: Vec<Route>,
    /// For people and selectors.
    pub labels: HashMap<String, String>,
}

/// The endpoints of this host.
pub struct Endpoints {
    host: SharedHost,
    chassis: String,
    northbound: Option<Northbound>,
    departed: PathBuf,
    records: std::sync::Mutex<Records>,
    gates: [Mutex<()>; N_GATES],
    /// Held by whoever makes endpoints, and alone by who collects garbage.
    collecting: RwLock<()>,
}

impl Endpoints {
    /// Takes over the endpoints of the last run.
    ///
    /// # Errors
    /// The directories cannot be made or read.
    pub fn open(
        host: SharedHost,
        chassis: String,
        controller: Option<&Endpoint>,
        state: Option<&Path>,
        departed: PathBuf,
    ) -> io::Result<Self> {
        Ok(Self {
            host,
            chassis,
            northbound: controller.map(Northbound::new),
            departed,
            records: std::sync::Mutex::new(Records::open(state)?),
            gates: std::array::from_fn(|_| Mutex::new(())),
            collecting: RwLock::new(()),
        })
    }

    /// Makes an endpoint; it is whole when this answers. The same again changes nothing.
    ///
    /// # Errors
    /// Then nothing is left of it.
    pub async fn attach(&self, wanted: AttachWanted) -> Result<Record, Status> {
        wanted.key.check().map_err(invalid)?;
        let northbound = self.northbound.as_ref().ok_or_else(no_network)?;
        let _making = self.collecting.read().await;
        let _gate = self.gate(&wanted.key).await;
        let namespace = Namespace::open(&wanted.netns).map_err(refusal)?;
        let record = self.plan(&wanted).await?;
        if let Some(present) = self.whole(&namespace, &record).await {
            return Ok(present);
        }
        if self.get(&wanted.key).is_some() {
            self.take_away(&wanted.key).await?;
        }
        self.put(record.clone())?;
        let labels = self.labels(&wanted);
        match self.make(northbound, &namespace, record, labels).await {
            Ok(record) => Ok(record),
            Err(status) => {
                tracing::warn!(key = %wanted.key, %status, "an endpoint cannot be attached");
                self.take_away(&wanted.key).await?;
                Err(status)
            }
        }
    }

    /// Takes an endpoint away; there may be none.
    ///
    /// # Errors
    /// The kernel or the file system refuses. The controller need not answer: it is told
    /// when it does.
    pub async fn detach(&self, key: &EndpointKey) -> Result<(), Status> {
        key.check().map_err(invalid)?;
        let _gate = self.gate(key).await;
        self.take_away(key).await
    }

    /// An endpoint is as it was made.
    ///
    /// # Errors
    /// NOT_FOUND without one, FAILED_PRECONDITION with what is different.
    pub async fn check(&self, key: &EndpointKey, netns: &str) -> Result<(), Status> {
        key.check().map_err(invalid)?;
        let _gate = self.gate(key).await;
        let record = self.get(key).filter(|record| record.stage == Stage::Attached);
        let record = record.ok_or_else(|| Status::not_found(format!("there is no {key}")))?;
        let namespace = Namespace::open(netns).map_err(refusal)?;
        link::check(&namespace, &wanted_link(&record)).await.map_err(refusal)?;
        let interface = record.host_interface.clone();
        let trouble = self.host.with(move |host| {
            let port = host.workload_ports().find(|(name, _)| *name == interface);
            match port {
                Some((_, port)) => port.trouble.clone(),
                None => Some(format!("{interface} is not a port of the switch")),
            }
        });
        match trouble.await {
            Some(trouble) => Err(Status::failed_precondition(trouble)),
            None => Ok(()),
        }
    }

    /// Detaches all endpoints of a network but those of these containers' interfaces.
    ///
    /// # Errors
    /// Something cannot be detached; the others are.
    pub async fn keep(
        &self,
        network: &str,
        keep: &BTreeSet<(String, String)>,
    ) -> Result<Vec<EndpointKey>, Status> {
        let _alone = self.collecting.write().await;
        let is_kept = |key: &EndpointKey| keep.contains(&(key.container.clone(), key.interface.clone()));
        let stale = self.keys(|record| record.key.network == network && !is_kept(&record.key));
        let mut failed = None;
        let mut detached = Vec::new();
        for key in stale {
            match self.detach(&key).await {
                Ok(()) => detached.push(key),
                Err(status) => failed = Some(status),
            }
        }
        failed.map_or(Ok(detached), Err)
    }

    /// All endpoints.
    pub fn list(&self) -> Vec<Record> {
        self.records().iter().filter(|record| record.stage == Stage::Attached).cloned().collect()
    }

    /// Why nothing can be attached now, and what to do.
    pub async fn trouble(&self, switch: &str) -> Option<String> {
        let Some(northbound) = &self.northbound else { return Some(no_network().message().to_owned()) };
        if !self.host.with(|host| host.is_connected()).await {
            return Some("this host is not connected to its controller; see: vswitchctl status".to_owned());
        }
        if switch.is_empty() {
            return None;
        }
        northbound.check_switch(switch).await.err().map(|status| match status.code() {
            Code::NotFound => format!("there is no {switch}; make it with: vswitchctl switch add"),
            _ => format!("the controller does not answer: {}", status.message()),
        })
    }

    /// Does what was left to do: by calls that were cut short, by a controller that was not
    /// there, by shims while this daemon was not.
    pub async fn tend(&self) {
        for key in departed::take(&self.departed) {
            if let Err(status) = self.detach(&key).await {
                tracing::error!(%key, %status, "cannot be detached; trying again");
                departed::put_back(&self.departed, &key);
            }
        }
        for key in self.keys(|record| record.stage == Stage::Leaving) {
            if let Err(status) = self.detach(&key).await {
                tracing::debug!(%key, %status, "cannot be taken away yet");
            }
        }
    }

    /// Takes away what a crash left half-made, and what a restart of the machine left
    /// without its namespace.
    pub async fn settle(&self) {
        let is_stale = |record: &Record| {
            record.stage == Stage::Coming
                || (record.stage == Stage::Attached && Namespace::open(&record.netns).is_err())
        };
        for key in self.keys(is_stale) {
            tracing::info!(%key, "left by the last run without its container; taking it away");
            if let Err(status) = self.detach(&key).await {
                tracing::error!(%key, %status, "cannot be taken away");
            }
        }
    }

    /// What a request comes to.
    async fn plan(&self, wanted: &AttachWanted) -> Result<Record, Status> {
        let first = wanted.addresses.first().ok_or_else(|| {
            Status::invalid_argument("no address was given; name an IPAM plugin with `ipam`")
        })?;
        let mac = wanted.mac.unwrap_or_else(|| mac_of(first.address));
        if mac.is_multicast() || mac == MacAddr::ZERO {
            return Err(Status::invalid_argument(format!("{mac} is not the MAC address of an interface")));
        }
        Ok(Record {
            key: wanted.key.clone(),
            stage: Stage::Coming,
            netns: wanted.netns.clone(),
            switch: wanted.switch.clone(),
            host_interface: record::host_interface(&wanted.key),
            addresses: wanted.addresses.clone(),
            mac,
            mtu: self.mtu(wanted.mtu).await?,
            routes: wanted.routes.clone(),
            host_mac: MacAddr::ZERO,
        })
    }

    /// The MTU asked for if a tunnel carries it; without one, what it carries.
    async fn mtu(&self, wanted: Option<u32>) -> Result<u32, Status> {
        let max = self.host.with(|host| host.workload_mtu()).await;
        let mtu = wanted.unwrap_or(max);
        if mtu > max {
            return Err(Status::invalid_argument(format!(
                "MTU {mtu}: tunnels of this host carry {max}; leave it out, or raise the uplink's"
            )));
        }
        if mtu < MIN_MTU {
            return Err(Status::invalid_argument(format!("MTU {mtu}: it is at least {MIN_MTU}")));
        }
        Ok(mtu)
    }

    /// The endpoint as planned, when it is there and whole.
    async fn whole(&self, namespace: &Namespace, planned: &Record) -> Option<Record> {
        let present = self.get(&planned.key)?;
        let as_planned = Record { stage: Stage::Attached, host_mac: present.host_mac, ..planned.clone() };
        let is_whole = present == as_planned && link::check(namespace, &wanted_link(&present)).await.is_ok();
        is_whole.then_some(present)
    }

    /// Does the steps.
    async fn make(
        &self,
        northbound: &Northbound,
        namespace: &Namespace,
        mut record: Record,
        labels: HashMap<String, String>,
    ) -> Result<Record, Status> {
        let name = record.port_name();
        let ips: Vec<_> = record.addresses.iter().map(|prefix| prefix.address.to_string()).collect();
        let port =
            PortWanted { name: name.clone(), addresses: format!("{} {}", record.mac, ips.join(" ")), labels };
        let wanted = wanted_link(&record);
        let (revision, host_mac) = tokio::join!(northbound.make_port(port), link::make(namespace, &wanted));
        let (revision, host_mac) = (revision.map_err(missing_switch)?, host_mac.map_err(refusal)?);
        let (interface, logical_port) = (record.host_interface.clone(), record::port_id(&record.key));
        let attached = self.host.with(move |host| {
            host.add_port(BridgeId::FIRST, &interface, (&logical_port, ""), None).map(drop)
        });
        attached.await.map_err(|error| Status::failed_precondition(error.to_string()))?;
        northbound.wait_up(&record.switch, &name, revision, UP_LIMIT).await?;
        (record.host_mac, record.stage) = (host_mac, Stage::Attached);
        self.put(record.clone())?;
        Ok(record)
    }

    /// Undoes them, whichever were done.
    async fn take_away(&self, key: &EndpointKey) -> Result<(), Status> {
        let Some(mut record) = self.get(key) else { return Ok(()) };
        if record.stage != Stage::Leaving {
            record.stage = Stage::Leaving;
            self.put(record.clone())?;
        }
        let interface = record.host_interface.clone();
        let removed = self.host.with(move |host| match host.remove_port(&interface) {
            Err(PortError::NotFound(_)) => Ok(()),
            removed => removed,
        });
        removed.await.map_err(|error| Status::internal(error.to_string()))?;
        link::remove(&record.host_interface).await.map_err(refusal)?;
        let Some(northbound) = &self.northbound else { return Ok(()) };
        match northbound.delete_port(&record.port_name()).await {
            Ok(()) => self.remove(key),
            Err(status) => {
                tracing::warn!(%key, %status, "the controller is told of its end later");
                Ok(())
            }
        }
    }

    fn labels(&self, wanted: &AttachWanted) -> HashMap<String, String> {
        let mut labels = wanted.labels.clone();
        labels.insert("network".to_owned(), wanted.key.network.clone());
        labels.insert("container".to_owned(), wanted.key.container.clone());
        labels.insert("host".to_owned(), self.chassis.clone());
        labels
    }

    async fn gate(&self, key: &EndpointKey) -> MutexGuard<'_, ()> {
        // In bounds: a remainder of the array's length.
        self.gates[(key.stable_hash() % N_GATES as u64) as usize].lock().await
    }

    fn records(&self) -> std::sync::MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn keys(&self, is_wanted: impl Fn(&Record) -> bool) -> Vec<EndpointKey> {
        self.records().iter().filter(|record| is_wanted(record)).map(|record| record.key.clone()).collect()
    }

    fn get(&self, key: &EndpointKey) -> Option<Record> {
        self.records().get(key).cloned()
    }

    fn put(&self, record: Record) -> Result<(), Status> {
        self.records().put(record).map_err(unsaved)
    }

    fn remove(&self, key: &EndpointKey) -> Result<(), Status> {
        self.records().remove(key).map_err(unsaved)
    }
}

/// To a shim, what is not found is the container: a missing switch is something else.
fn missing_switch(status: Status) -> Status {
    match status.code() {
        Code::NotFound => Status::failed_precondition(status.message()),
        _ => status,
    }
}

fn wanted_link(record: &Record) -> Wanted {
    Wanted {
        interface: record.key.interface.clone(),
        host_interface: record.host_interface.clone(),
        mac: record.mac,
        mtu: record.mtu,
        addresses: record.addresses.clone(),
        routes: record.routes.clone(),
    }
}

/// A locally administered MAC address (IEEE 802 §8.4) that tells the IP address it is made of.
fn mac_of(address: IpAddr) -> MacAddr {
    match address {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            MacAddr::new([0x0a, 0x58, a, b, c, d])
        }
        IpAddr::V6(ip) => {
            let [.., a, b, c, d] = ip.octets();
            MacAddr::new([0x0a, 0x59, a, b, c, d])
        }
    }
}

fn invalid(error: TextError) -> Status {
    Status::invalid_argument(error.to_string())
}

fn unsaved(error: io::Error) -> Status {
    Status::internal(format!("the state directory cannot be written: {error}"))
}

fn no_network() -> Status {
    Status::failed_precondition(
        "this switch has no controller, so there is no network to attach to; start vswitchd with --controller",
    )
}

fn refusal(error: LinkError) -> Status {
    let code = match &error {
        LinkError::NoNamespace { .. } => Code::NotFound,
        LinkError::Exists(_) => Code::AlreadyExists,
        LinkError::Gone(_) | LinkError::Differs(_) => Code::FailedPrecondition,
        LinkError::Netlink { .. } | LinkError::Thread(_) => Code::Internal,
    };
    Status::new(code, error.to_string())
}

/// Texts of values in saved records.
mod text {
    use std::{fmt::Display, str::FromStr};

    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}
