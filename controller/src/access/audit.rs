//! The audit log: who has written what, and who was not let.
//!
//! An object a line, in a file that begins anew when it is full, and as events of the target
//! `audit`. A line is written when the outcome is known; when it cannot be, the write stands,
//! and the daemon's log says so once until it works again.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::json;

use crate::{state::Change, store::Revision};

/// Resources that a line names; of others it says how many there are.
const MAX_NAMES: usize = 100;
/// Full files that are kept, beside the one that is written.
const N_KEPT: u32 = 8;

/// Who writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Author {
    /// Role and name, or how he is known else.
    pub who: String,
    /// Where he calls from.
    pub address: String,
    /// What he calls.
    pub method: &'static str,
}

impl Author {
    /// A chassis, by what it says.
    pub fn chassis(id: &str, method: &'static str) -> Self {
        Self { who: format!("chassis/{id}"), address: String::new(), method }
    }

    /// The controller.
    pub fn controller(method: &'static str) -> Self {
        Self { who: "controller".to_owned(), address: String::new(), method }
    }
}

/// Where writes are put down.
#[derive(Debug, Default)]
pub struct Audit {
    file: Option<Mutex<Rotating>>,
}

#[derive(Debug)]
struct Rotating {
    path: PathBuf,
    max_len: u64,
    file: File,
    len: u64,
    is_failing: bool,
}

impl Audit {
    /// Into a file that is begun anew when it has so many bytes.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(path: &Path, max_len: u64) -> io::Result<Self> {
        let file = open(path)?;
        let len = file.metadata()?.len();
        let rotating = Rotating { path: path.to_owned(), max_len, file, len, is_failing: false };
        Ok(Self { file: Some(Mutex::new(rotating)) })
    }

    /// A write was made.
    pub fn written(&self, author: &Author, revision: Revision, changes: &[Change]) {
        let verb = |change: &Change| match (&change.before, &change.after) {
            (None, _) => "create",
            (Some(_), Some(_)) => "update",
            (Some(_), None) => "delete",
        };
        let names: Vec<_> = changes
            .iter()
            .take(MAX_NAMES)
            .map(|change| format!("{} {}", verb(change), change.name))
            .collect();
        let Author { who, address, method } = author;
        tracing::info!(target: "audit", who, address, method, revision = revision.get(), ?names, n = changes.len(), "written");
        self.put(json!({
            "time_unix_ms": now(), "who": who, "address": address, "method": method, "outcome": "written",
            "revision": revision.get(), "changes": names, "n_changes": changes.len(),
        }));
    }

    /// A write was refused, or nobody knows whether it was made.
    pub fn refused(&self, author: &Author, asked: &[String], reason: &str) {
        let Author { who, address, method } = author;
        let names: Vec<_> = asked.iter().take(MAX_NAMES).collect();
        tracing::info!(target: "audit", who, address, method, reason, ?names, "refused");
        self.put(json!({
            "time_unix_ms": now(), "who": who, "address": address, "method": method, "outcome": "refused",
            "reason": reason, "changes": names, "n_changes": asked.len(),
        }));
    }

    fn put(&self, line: serde_json::Value) {
        let Some(file) = &self.file else { return };
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        let result = file.put(&format!("{line}\n"));
        match result {
            Ok(()) => file.is_failing = false,
            Err(error) if !file.is_failing => {
                file.is_failing = true;
                tracing::error!(path = %file.path.display(), %error, "the audit log cannot be written");
            }
            Err(_) => {}
        }
    }
}

impl Rotating {
    fn put(&mut self, line: &str) -> io::Result<()> {
        if self.len > 0 && self.len.saturating_add(line.len() as u64) > self.max_len {
            self.rotate()?;
        }
        self.file.write_all(line.as_bytes())?;
        self.len += line.len() as u64;
        Ok(())
    }

    /// `log.1` is the newest full one.
    fn rotate(&mut self) -> io::Result<()> {
        let numbered = |n: u32| {
            let mut path = self.path.clone().into_os_string();
            path.push(format!(".{n}"));
            PathBuf::from(path)
        };
        for n in (1..N_KEPT).rev() {
            match fs::rename(numbered(n), numbered(n + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&self.path, numbered(1))?;
        self.file = open(&self.path)?;
        self.len = 0;
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn a_full_file_makes_way_and_lines_stay_whole() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("audit.log");
        let audit = Audit::open(&path, 600).unwrap();
        let author = Author { who: "tenant/\"acme\n".to_owned(), address: String::new(), method: "Transact" };
        for n in 0..60 {
            audit.refused(&author, &[format!("switches/s{n}")], "no");
        }
        drop(audit);
        let mut n_lines = 0;
        let files: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(files.len() as u32, N_KEPT + 1);
        for file in files {
            let text = fs::read_to_string(&file).unwrap();
            assert!(text.len() <= 600, "{}", text.len());
            for line in text.lines() {
                let line: serde_json::Value = serde_json::from_str(line).unwrap();
                assert_eq!(line["who"], "tenant/\"acme\n");
                n_lines += 1;
            }
        }
        assert!(n_lines >= 9, "{n_lines}");
        let newest = fs::read_to_string(&path).unwrap();
        assert!(newest.lines().last().unwrap().contains("switches/s59"));
    }
}
