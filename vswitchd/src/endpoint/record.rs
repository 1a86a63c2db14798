//! Endpoints as they are kept on disk, a file each: written before anything is made and
//! removed after everything is gone, so that whatever a crash leaves behind is known.

use std::{
    collections::BTreeMap,
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
};

use flowtable::types::MacAddr;
use serde::{Deserialize, Serialize};

use super::{EndpointKey, Limits, Prefix, Published, Route, limits};

/// Longest id of a port, and of an interface.
const MAX_PORT_LEN: usize = 63;
/// How much of a container's id its port's is to show.
const CONTAINER_SHOWN: usize = 12;

/// How far an endpoint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Being made: after a crash it is taken away.
    Coming,
    /// Whole.
    Attached,
    /// Being taken away: only the controller may still know of it.
    Leaving,
}

/// One endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Whose.
    pub key: EndpointKey,
    /// How far.
    pub stage: Stage,
    /// Path of its namespace; empty: the runtime moves it into one.
    pub netns: String,
    /// Its switch, `switches/{id}`.
    pub switch: String,
    /// The host's end.
    pub host_interface: String,
    /// Addresses.
    pub addresses: Vec<Prefix>,
    /// MAC address.
    #[serde(with = "super::text")]
    pub mac: MacAddr,
    /// MTU.
    pub mtu: u32,
    /// Routes.
    pub routes: Vec<Route>,
    /// MAC address of the host's end; zero until it is made.
    #[serde(with = "super::text")]
    pub host_mac: MacAddr,
    /// Addresses of the host on the switch, when it is the gateway.
    #[serde(default)]
    pub host_addresses: Vec<Prefix>,
    /// Ports of the host that lead here.
    #[serde(default)]
    pub published: Vec<Published>,
    /// Bounds on what passes.
    #[serde(default)]
    pub limits: Limits,
}

impl Record {
    /// Name of its port.
    pub fn port_name(&self) -> String {
        format!("{}/ports/{}", self.switch, port_id(&self.key))
    }

    /// Names of what the network has for it, its port first.
    pub(super) fn resources(&self) -> Vec<String> {
        let rules = limits::rule_names(&self.switch, &port_id(&self.key));
        let rules = rules.into_iter().filter(|_| self.limits.is_any());
        [self.port_name()].into_iter().chain(rules).collect()
    }

    /// Name of the container's end on the host, when the runtime moves it.
    pub fn loose_interface(&self) -> Option<String> {
        self.netns.is_empty().then(|| format!("vd{:012x}", short_hash(&self.key)))
    }
}

/// Id of an endpoint's switch port: readable, and nobody else's.
pub(super) fn port_id(key: &EndpointKey) -> String {
    let plain = |text: &str| -> String {
        text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
    };
    let container: String = key.container.chars().take(CONTAINER_SHOWN).collect();
    let id = format!("c{}-{}-{:016x}", plain(&container), plain(&key.interface), key.stable_hash());
    debug_assert!(id.len() <= MAX_PORT_LEN);
    id
}

/// Name of the host's end, as long as an interface's may be.
pub(super) fn host_interface(key: &EndpointKey) -> String {
    format!("vc{:012x}", short_hash(key))
}

/// As much of a key's hash as names of interfaces have room for.
pub(super) fn short_hash(key: &EndpointKey) -> u64 {
    key.stable_hash() & 0xffff_ffff_ffff
}

/// All endpoints of this host.
#[derive(Debug)]
pub(super) struct Records {
    /// `None`: nothing outlives the process.
    dir: Option<PathBuf>,
    records: BTreeMap<EndpointKey, Record>,
}

impl Records {
    /// Reads what the last run left.
    ///
    /// # Errors
    /// The directory cannot be made or read.
    pub(super) fn open(dir: Option<&Path>) -> io::Result<Self> {
        let Some(dir) = dir else { return Ok(Self { dir: None, records: BTreeMap::new() }) };
        fs::create_dir_all(dir)?;
        let mut records = BTreeMap::new();
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match fs::read(&path)
                .map_err(|error| error.to_string())
                .and_then(|bytes| serde_json::from_slice::<Record>(&bytes).map_err(|error| error.to_string()))
            {
                Ok(record) => {
                    records.insert(record.key.clone(), record);
                }
                // Replaced by a rename, a file is whole; this one was written by others.
                Err(error) => tracing::error!(path = %path.display(), error, "not an endpoint; left out"),
            }
        }
        Ok(Self { dir: Some(dir.to_owned()), records })
    }

    /// One endpoint.
    pub(super) fn get(&self, key: &EndpointKey) -> Option<&Record> {
        self.records.get(key)
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Record> {
        self.records.values()
    }

    /// Keeps an endpoint as it is now.
    ///
    /// # Errors
    /// The file system's; then the old one is kept.
    pub(super) fn put(&mut self, record: Record) -> io::Result<()> {
        if let Some(path) = self.path(&record.key) {
            let new = path.with_extension("new");
            let mut file = fs::File::create(&new)?;
            file.write_all(&serde_json::to_vec_pretty(&record)?)?;
            file.sync_data()?;
            fs::rename(&new, &path)?;
        }
        self.records.insert(record.key.clone(), record);
        Ok(())
    }

    /// Forgets an endpoint.
    ///
    /// # Errors
    /// The file system's; then it is kept.
    pub(super) fn remove(&mut self, key: &EndpointKey) -> io::Result<()> {
        if let Some(path) = self.path(key) {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.records.remove(key);
        Ok(())
    }

    fn path(&self, key: &EndpointKey) -> Option<PathBuf> {
        self.dir.as_ref().map(|dir| dir.join(format!("{}.json", port_id(key))))
    }
}
