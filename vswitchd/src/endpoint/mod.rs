//! Endpoints: interfaces of containers, made and taken away for container shims.
//!
//! Each step is written down before it is done (`record`), and taking away is the same
//! whatever was done: so a crash, a call given up or a namespace that went first leave
//! nothing behind. One endpoint is worked on by one call at a time; different ones side by
//! side.
//!
//! - `key`: what tells endpoints apart, and what they are given
//! - `link`: the pair of interfaces
//! - `lease`: addresses that were leased ahead of time
//! - `plan`: what a shim asks for, and what it comes to
//! - `northbound`: the ports of logical switches
//! - `gateway`, `nat`, `nft`, `published`: the host as their gateway, and its ports that lead to them
//! - `limits`: bounds on what they send and receive
//! - `names`: names by which others find them
//! - `kept`: values that outlive the process
//! - `departed`: what shims leave to do while this daemon is not there
//! - `tending`: what is left to do, by a crash or by others that did not answer
//! - `switches`: switches of runtimes' networks that name none
//! - `together`: what many ask of the switch at a time

mod departed;
mod gateway;
mod kept;
mod key;
mod lease;
mod limits;
mod link;
mod names;
mod nat;
mod nft;
mod northbound;
mod plan;
mod published;
mod record;
mod switches;
mod tending;
mod together;

use std::{
    collections::{BTreeSet, HashMap},
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicUsize},
    time::Duration,
};

use credentials::Dial;
use tokio::sync::{Mutex, MutexGuard, RwLock};
use tonic::{Code, Status};

pub use departed::departed_dir;
pub use key::{EndpointKey, Prefix, Route, TextError};
pub use lease::Ranges;
pub use limits::{Limit, Limits};
pub use link::{LinkError, Namespace};
pub use nft::{Translator, serve as serve_nft};
pub use plan::AttachWanted;
pub use published::{Published, Transport};
pub use record::{Leased, Record, Stage};

use crate::host::{Host, PortError, SharedHost};
use kept::Files;
use lease::{Demand, Pool, Slot};
use link::Wanted;
use northbound::{Northbound, PortWanted};
use plan::mac_of;
use together::Together;

/// Calls that may work side by side; more wait for one another.
const N_GATES: usize = 64;
/// How long this host may take to forward for a new port.
const UP_LIMIT: Duration = Duration::from_secs(10);
/// How often what is left to do is tried again.
pub const TEND_INTERVAL: Duration = Duration::from_secs(1);
/// Where leased addresses are kept, beside the endpoints.
const LEASES_DIR: &str = "leases";
/// Where names are kept that the network was told, beside the endpoints.
const NAMES_DIR: &str = "names";

/// The endpoints of this host.
pub struct Endpoints {
    host: SharedHost,
    chassis: String,
    northbound: Option<Northbound>,
    departed: PathBuf,
    records: std::sync::Mutex<Files<Record>>,
    /// Locked behind `records`, where both are.
    slots: std::sync::Mutex<Files<Slot>>,
    /// Names that the network knows of this host's containers.
    lists: std::sync::Mutex<Files<names::List>>,
    /// Held by who tells names.
    naming: Mutex<()>,
    /// Where leased addresses come from, by their number.
    pools: Mutex<HashMap<String, Pool>>,
    /// Held by who leases and gives back.
    leasing: Mutex<()>,
    /// Containers that wait for leased addresses.
    waiting: AtomicUsize,
    demand: Demand,
    /// Leased ports that this host knows nothing of were given back.
    has_looked_for_lost: AtomicBool,
    gates: [Mutex<()>; N_GATES],
    /// Interfaces with their ports, and interfaces, that are to be attached and detached.
    attaching: Together<(String, String), Result<(), PortError>>,
    detaching: Together<String, Result<(), PortError>>,
    /// Held, behind a gate, by who changes what the host does as a gateway.
    gateways: Mutex<()>,
    /// Changes the host's tables; a lab has none.
    translator: Option<Translator>,
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
        controller: Option<&Dial>,
        state: Option<&Path>,
        departed: PathBuf,
        translator: Option<Translator>,
    ) -> io::Result<Self> {
        let beside = |name: &str| state.map(|dir| dir.join(name));
        Ok(Self {
            host,
            chassis,
            northbound: controller.map(Northbound::new),
            departed,
            records: std::sync::Mutex::new(Files::open(state)?),
            slots: std::sync::Mutex::new(Files::open(beside(LEASES_DIR).as_deref())?),
            lists: std::sync::Mutex::new(Files::open(beside(NAMES_DIR).as_deref())?),
            naming: Mutex::new(()),
            pools: Mutex::new(HashMap::new()),
            leasing: Mutex::new(()),
            waiting: AtomicUsize::new(0),
            demand: Demand::default(),
            has_looked_for_lost: AtomicBool::new(false),
            gates: std::array::from_fn(|_| Mutex::new(())),
            attaching: Together::default(),
            detaching: Together::default(),
            gateways: Mutex::new(()),
            translator,
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
        let namespace = namespace(&wanted.netns).map_err(refusal)?;
        let planned = match &wanted.lease {
            Some(_) => self.leased_before(&wanted).await?,
            None => Some(self.plan_named(&wanted).await?),
        };
        if let Some(planned) = &planned
            && let Some(present) = self.whole(namespace.as_ref(), planned).await
        {
            return Ok(present);
        }
        if self.get(&wanted.key).is_some() {
            self.take_away_whole(&wanted.key).await?;
        }
        let record = match (&wanted.lease, planned) {
            (None, Some(planned)) => self.put_coming(planned)?,
            (lease, _) => {
                let ranges = lease.as_ref().ok_or_else(|| Status::internal("no addresses"))?;
                self.reserve(northbound, &wanted, ranges).await?
            }
        };
        let labels = self.labels(&wanted.key, wanted.labels.clone());
        let made = async {
            let record = self.open_gateway(northbound, &wanted, record).await?;
            self.make(northbound, namespace.as_ref(), record, labels).await
        };
        match made.await {
            Ok(record) => {
                self.name(&record).await;
                Ok(record)
            }
            Err(status) => {
                tracing::warn!(key = %wanted.key, %status, "an endpoint cannot be attached");
                self.take_away_whole(&wanted.key).await?;
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
        self.take_away_whole(key).await
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
        let namespace = namespace(netns).map_err(refusal)?;
        link::check(namespace.as_ref(), &wanted_link(&record)).await.map_err(refusal)?;
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
        let is_kept = |key: &EndpointKey| {
            // The host's own goes with the last of the others.
            gateway::is_host(key) || keep.contains(&(key.container.clone(), key.interface.clone()))
        };
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

    /// The endpoint as planned, when it is there and whole.
    async fn whole(&self, namespace: Option<&Namespace>, planned: &Record) -> Option<Record> {
        let present = self.get(&planned.key)?;
        let as_planned = Record { stage: Stage::Attached, host_mac: present.host_mac, ..planned.clone() };
        let is_whole = present == as_planned && link::check(namespace, &wanted_link(&present)).await.is_ok();
        is_whole.then_some(present)
    }

    /// Does the steps.
    async fn make(
        &self,
        northbound: &Northbound,
        namespace: Option<&Namespace>,
        mut record: Record,
        labels: HashMap<String, String>,
    ) -> Result<Record, Status> {
        let name = record.port_name();
        let wanted = wanted_link(&record);
        let network = self.make_in_network(northbound, &record, labels);
        let (revision, host_mac) = tokio::join!(network, link::make(namespace, &wanted));
        let (revision, host_mac) = (revision.map_err(missing_switch)?, host_mac.map_err(refusal)?);
        let port = (record.host_interface.clone(), record.port_id());
        let attached = self.attaching.ask(&self.host, port, Host::add_workloads).await;
        attached.ok_or_else(unanswered)?.map_err(|error| Status::failed_precondition(error.to_string()))?;
        if let Some(revision) = revision {
            northbound.wait_up(&record.switch, &name, revision, UP_LIMIT).await?;
        }
        (record.host_mac, record.stage) = (host_mac, Stage::Attached);
        self.put(record.clone())?;
        Ok(record)
    }

    /// Makes what the network has for an endpoint. A leased port is there, and all know of it.
    async fn make_in_network(
        &self,
        northbound: &Northbound,
        record: &Record,
        labels: HashMap<String, String>,
    ) -> Result<Option<u64>, Status> {
        let mut rules = record.limits.rules(&record.switch, &record.port_id());
        for rule in &mut rules {
            rule.labels.insert("host".to_owned(), self.chassis.clone());
        }
        if record.lease.is_some() {
            return if rules.is_empty() { Ok(None) } else { northbound.put(rules).await.map(|_| None) };
        }
        let ips: Vec<_> = record.addresses.iter().map(|prefix| prefix.address.to_string()).collect();
        let port = PortWanted {
            name: record.port_name(),
            addresses: format!("{} {}", record.mac, ips.join(" ")),
            is_gateway: gateway::is_host(&record.key),
            labels,
            rules,
        };
        northbound.make_port(port).await.map(Some)
    }

    /// Takes an endpoint away, and what the host did for it.
    async fn take_away_whole(&self, key: &EndpointKey) -> Result<(), Status> {
        let Some(record) = self.get(key) else { return Ok(()) };
        self.take_away(key).await?;
        self.close_gateway(&record).await
    }

    /// Undoes the steps, whichever were done.
    async fn take_away(&self, key: &EndpointKey) -> Result<(), Status> {
        let Some(mut record) = self.get(key) else { return Ok(()) };
        if record.stage != Stage::Leaving {
            record.stage = Stage::Leaving;
            self.put(record.clone())?;
        }
        let removing = self.detaching.ask(&self.host, record.host_interface.clone(), Host::remove_workloads);
        match removing.await.ok_or_else(unanswered)? {
            Ok(()) | Err(PortError::NotFound(_)) => {}
            Err(error) => return Err(Status::internal(error.to_string())),
        }
        link::remove(&record.host_interface).await.map_err(refusal)?;
        let Some(northbound) = &self.northbound else { return Ok(()) };
        let resources = record.resources();
        if let (Some(lease), true) = (&record.lease, resources.is_empty()) {
            // Nobody has to be told.
            self.rest(&lease.port)?;
            return self.remove(key);
        }
        match northbound.delete(resources).await {
            Ok(()) => {
                record.lease.iter().try_for_each(|lease| self.rest(&lease.port))?;
                self.remove(key)
            }
            Err(status) => {
                tracing::warn!(%key, %status, "the controller is told of its end later");
                Ok(())
            }
        }
    }

    fn labels(&self, key: &EndpointKey, mut labels: HashMap<String, String>) -> HashMap<String, String> {
        labels.insert("network".to_owned(), key.network.clone());
        labels.insert("container".to_owned(), key.container.clone());
        labels.insert("host".to_owned(), self.chassis.clone());
        labels
    }

    async fn gate(&self, key: &EndpointKey) -> MutexGuard<'_, ()> {
        // In bounds: a remainder of the array's length.
        self.gates[(key.stable_hash() % N_GATES as u64) as usize].lock().await
    }

    fn records(&self) -> std::sync::MutexGuard<'_, Files<Record>> {
        self.records.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn slots(&self) -> std::sync::MutexGuard<'_, Files<Slot>> {
        self.slots.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
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

/// The namespace to make the container's end in, when there is one.
fn namespace(path: &str) -> Result<Option<Namespace>, LinkError> {
    if path.is_empty() { Ok(None) } else { Namespace::open(path).map(Some) }
}

fn wanted_link(record: &Record) -> Wanted {
    Wanted {
        interface: record.loose_interface().unwrap_or_else(|| record.key.interface.clone()),
        host_interface: record.host_interface.clone(),
        mac: record.mac,
        mtu: record.mtu,
        addresses: record.addresses.clone(),
        routes: record.routes.clone(),
    }
}

fn invalid(error: TextError) -> Status {
    Status::invalid_argument(error.to_string())
}

fn unsaved(error: io::Error) -> Status {
    Status::internal(format!("the state directory cannot be written: {error}"))
}

fn unanswered() -> Status {
    Status::internal("the switch has not answered")
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
