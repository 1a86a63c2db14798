//! What outlives the process: attached ports, and the last network the controller sent
//! or the rules written by hand; so that a restarted host forwards before (and
//! without) a controller.
//!
//! The list of ports is replaced as a whole by a rename, and beside it is a journal of those of
//! containers (`ports.rs`); the network is a journal of
//! updates (`journal.rs`), and so are rules written by hand (`rule_journal.rs`). What cannot be read is set aside or cut off and told of.

mod journal;
mod ports;
mod records;
pub(crate) mod replaced;
mod rule_journal;

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

const VIEW: &str = "view.journal";
const BRIDGES: &str = "bridges.json";
/// Rules of the first bridge, as earlier versions have saved them.
const RULES: &str = "rules.txt";
const TRACKING: &str = "conntrack.json";
const ZONES: &str = "zones.txt";

pub use journal::{ViewJournal, journal_records};
pub use ports::{PortNote, PortsFile};
pub use rule_journal::RuleJournal;

use crate::host::{FIRST_NAME, PortKind, PortSettings, SavedBridge, TrackingSettings};

/// A port to attach again after a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedPort {
    /// Name of its bridge; empty: the first one.
    #[serde(default)]
    pub bridge: String,
    /// Its number, kept so that dumps and counters stay comparable.
    pub port: u32,
    /// Of one end of a link: name of the other one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// Host interface.
    pub interface: String,
    /// Switch port it is for; empty: none.
    pub logical_port: String,
    /// Network outside that it leads to; empty: none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub network: String,
    /// Of a lab's port: its MTU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// How its interface is attached.
    #[serde(default, skip_serializing_if = "PortKind::is_auto")]
    pub kind: PortKind,
    /// How it takes part in forwarding.
    #[serde(default)]
    pub settings: PortSettings,
}

/// The state directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}: {source}; --state-dir names another directory")]
pub struct StateError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// The state directory.
#[derive(Debug)]
pub struct StateDir {
    /// `None`: nothing is kept.
    dir: Option<PathBuf>,
}

impl StateDir {
    /// Opens the directory, making it when there is none.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn open(dir: &Path) -> Result<Self, StateError> {
        fs::create_dir_all(dir).map_err(|source| StateError {
            action: "make the directory",
            path: dir.to_owned(),
            source,
        })?;
        Ok(Self { dir: Some(dir.to_owned()) })
    }

    /// Keeps nothing.
    pub fn none() -> Self {
        Self { dir: None }
    }

    /// Ports of the last run.
    pub fn ports(&self) -> Vec<SavedPort> {
        let whole = |bytes: &[u8]| match serde_json::from_slice(bytes) {
            Ok(ports) => Ok((ports, bytes.to_vec())),
            Err(error) => Err(error.to_string()),
        };
        let (ports, bytes) = self.read(ports::WHOLE, whole).unwrap_or_default();
        self.dir.as_ref().map_or_else(Vec::new, |dir| ports::read_on(dir, ports, &bytes))
    }

    /// What ports are saved by.
    pub fn ports_file(&self) -> PortsFile {
        PortsFile::new(self.dir.as_deref())
    }

    /// The journal of the last network.
    pub fn view_journal(&self) -> Option<ViewJournal> {
        self.dir.as_ref().map(|dir| ViewJournal::new(dir.join(VIEW)))
    }

    /// The bridges of the last run, each with its number.
    pub fn bridges(&self) -> Vec<(u16, SavedBridge)> {
        self.read(BRIDGES, |bytes| serde_json::from_slice(bytes).map_err(|error| error.to_string()))
            .unwrap_or_default()
    }

    /// Saves the bridges.
    ///
    /// # Errors
    /// The file system's.
    pub fn save_bridges(&self, bridges: &[(u16, SavedBridge)]) -> Result<(), StateError> {
        self.replace(BRIDGES, serde_json::to_vec_pretty(bridges).map_err(io::Error::other))
    }

    /// The journal of a bridge's rules that are written by hand, and what it has of the last
    /// run: all as they were at some time, and each change since. `None`: nothing is kept.
    pub fn rules(&self, bridge: &str) -> Option<(RuleJournal, Vec<String>)> {
        let dir = self.dir.as_ref()?;
        let (journal, mut texts) = RuleJournal::open(dir.join(rules_of(bridge)));
        if texts.is_empty() && bridge == FIRST_NAME {
            texts.extend(
                self.read(RULES, |bytes| {
                    String::from_utf8(bytes.to_vec()).map_err(|error| error.to_string())
                }),
            );
        }
        Some((journal, texts))
    }

    /// Forgets the rules of a bridge that is gone.
    pub fn forget_rules(&self, bridge: &str) {
        let Some(dir) = &self.dir else { return };
        // There may have been none.
        let _ = fs::remove_file(dir.join(rules_of(bridge)));
        if bridge == FIRST_NAME {
            let _ = fs::remove_file(dir.join(RULES));
        }
    }

    /// How connections were tracked in the last run.
    pub fn tracking(&self) -> Option<TrackingSettings> {
        self.read(TRACKING, |bytes| serde_json::from_slice(bytes).map_err(|error| error.to_string()))
    }

    /// Saves how connections are tracked.
    ///
    /// # Errors
    /// The file system's.
    pub fn save_tracking(&self, settings: &TrackingSettings) -> Result<(), StateError> {
        self.replace(TRACKING, serde_json::to_vec_pretty(settings).map_err(io::Error::other))
    }

    /// The zones that connections were tracked in, a line each.
    pub fn zones(&self) -> Option<String> {
        self.read(ZONES, |bytes| String::from_utf8(bytes.to_vec()).map_err(|error| error.to_string()))
    }

    /// Saves the zones that connections are tracked in. They outlive the process; with the
    /// power the connections are gone, too, so that nothing waits for the disk.
    ///
    /// # Errors
    /// The file system's.
    pub fn save_zones(&self, zones: &str) -> Result<(), StateError> {
        let Some(dir) = &self.dir else { return Ok(()) };
        let path = dir.join(ZONES);
        let written = replaced::replace(&path, zones.as_bytes(), false);
        written.map_err(|source| StateError { action: "write", path, source })
    }

    fn read<T>(&self, name: &str, parse: impl Fn(&[u8]) -> Result<T, String>) -> Option<T> {
        let path = self.dir.as_ref()?.join(name);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "state of the last run cannot be read");
                return None;
            }
        };
        parse(&bytes)
            .inspect_err(|reason| {
                let aside = path.with_extension("damaged");
                let moved = fs::rename(&path, &aside).is_ok();
                tracing::warn!(path = %path.display(), reason, moved, "damaged state of the last run is not used");
            })
            .ok()
    }

    fn replace(&self, name: &str, bytes: io::Result<Vec<u8>>) -> Result<(), StateError> {
        let Some(dir) = &self.dir else { return Ok(()) };
        let (path, fresh) = (dir.join(name), dir.join(format!("{name}.new")));
        bytes.and_then(|bytes| replace(&fresh, &path, &bytes)).map_err(|source| StateError {
            action: "write",
            path,
            source,
        })
    }
}

/// File of a bridge's rules.
fn rules_of(bridge: &str) -> String {
    format!("rules-{bridge}.journal")
}

/// Replaces a file as a whole, durably.
fn replace(fresh: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::File::create(fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(fresh, path)?;
    // The name is as durable as the bytes.
    path.parent().map_or(Ok(()), |dir| fs::File::open(dir)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_come_back_and_damage_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let mut file = state.ports_file();
        assert!(state.ports().is_empty());
        let port = SavedPort {
            bridge: "br0".to_owned(),
            peer: None,
            port: 3,
            interface: "veth0".to_owned(),
            logical_port: "web-1".to_owned(),
            network: String::new(),
            mtu: None,
            kind: PortKind::Tap,
            settings: PortSettings::default(),
        };
        file.replace(std::slice::from_ref(&port)).unwrap();
        assert_eq!(state.ports(), [port]);

        fs::write(dir.path().join(ports::WHOLE), b"[{\"port\":").unwrap();
        assert!(state.ports().is_empty());
        assert!(dir.path().join("ports.damaged").exists());
    }

    #[test]
    fn without_a_directory_nothing_is_kept() {
        let state = StateDir::none();
        assert!(state.rules("br0").is_none() && state.ports().is_empty());
    }
}
