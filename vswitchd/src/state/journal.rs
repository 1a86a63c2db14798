//! The last known network as a journal: one full update, then what changed since. Saving
//! a change costs its size; when the changes outgrow the whole, the whole is written anew.
//!
//! A record (`records.rs`) is a protobuf update. Records outlive the process that wrote them, killed at any point; a power failure can
//! take the last ones, after which the controller sends everything again.

use std::path::PathBuf;

use ferroflow_proto::chassis::SyncResponse;
use prost::Message as _;

use super::{
    StateError,
    records::{RecordFile, records},
};

/// The journal.
#[derive(Debug)]
pub struct ViewJournal(RecordFile);

impl ViewJournal {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(RecordFile::new(path))
    }

    /// All updates that are whole, in order. None is a journal's first day.
    pub fn read(&self) -> Vec<SyncResponse> {
        let path = self.0.path().display();
        let bytes = self.0.read().unwrap_or_else(|error| {
            tracing::warn!(%path, %error, "the last known network cannot be read");
            Vec::new()
        });
        let (updates, n_left) = journal_records(&bytes);
        if n_left != 0 {
            tracing::warn!(%path, n_bytes = n_left, "the end of the journal is damaged and left out");
        }
        updates
    }

    /// The changes have outgrown the whole, or no whole has been written yet.
    pub fn is_long(&self) -> bool {
        self.0.is_long()
    }

    /// Starts anew with the whole.
    ///
    /// # Errors
    /// The file system's; the journal is then as it was.
    pub fn replace(&mut self, whole: &SyncResponse) -> Result<(), StateError> {
        self.0.replace(&whole.encode_to_vec()).map_err(|source| self.failed(source))
    }

    /// Adds a change.
    ///
    /// # Errors
    /// The file system's; the next change then has to replace the whole.
    pub fn append(&mut self, update: &SyncResponse) -> Result<(), StateError> {
        self.0.append(&update.encode_to_vec(), false).map_err(|source| self.failed(source))
    }

    fn failed(&self, source: std::io::Error) -> StateError {
        StateError { action: "write", path: self.0.path().to_owned(), source }
    }
}

/// The updates of a journal's bytes that are whole, in order, and how many bytes behind them are not.
pub fn journal_records(bytes: &[u8]) -> (Vec<SyncResponse>, usize) {
    let (bodies, mut n_left) = records(bytes);
    let mut updates = Vec::with_capacity(bodies.len());
    for (idx, body) in bodies.iter().enumerate() {
        match SyncResponse::decode(*body) {
            Ok(update) => updates.push(update),
            Err(_) => {
                // What follows a record that is none was made for a state that is not there.
                n_left += bodies[idx..].iter().map(|body| body.len()).sum::<usize>();
                break;
            }
        }
    }
    (updates, n_left)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn update(revision: u64) -> SyncResponse {
        SyncResponse { revision, ..SyncResponse::default() }
    }

    #[test]
    fn a_journal_cut_anywhere_yields_the_updates_before_the_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("view.journal");
        let mut journal = ViewJournal::new(path.clone());
        assert!(journal.read().is_empty() && journal.is_long());
        journal.replace(&update(1)).unwrap();
        journal.append(&update(2)).unwrap();
        journal.append(&update(300)).unwrap();
        let revisions =
            |journal: &ViewJournal| -> Vec<u64> { journal.read().iter().map(|u| u.revision).collect() };
        assert_eq!(revisions(&journal), [1, 2, 300]);

        let whole = fs::read(&path).unwrap();
        for len in 0..whole.len() {
            fs::write(&path, &whole[..len]).unwrap();
            let n = revisions(&journal).len();
            assert!(n < 3 && [1, 2, 300].starts_with(&revisions(&journal)), "{len}");
            let mut flipped = whole.clone();
            flipped[len] ^= 0x10;
            fs::write(&path, flipped).unwrap();
            assert!([1, 2, 300].starts_with(&revisions(&journal)) && revisions(&journal).len() < 3, "{len}");
        }
    }

    #[test]
    fn many_changes_make_it_long() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = ViewJournal::new(dir.path().join("view.journal"));
        journal.replace(&update(1)).unwrap();
        assert!(!journal.is_long());
        let flow =
            ferroflow_proto::chassis::LogicalFlow { actions: "x".repeat(1 << 20), ..Default::default() };
        journal.append(&SyncResponse { logical_flows: vec![flow], ..update(2) }).unwrap();
        assert!(journal.is_long());
        journal.replace(&update(2)).unwrap();
        assert!(!journal.is_long());
    }
}
