//! The last known network as a journal: one full update, then what changed since. Saving
//! a change costs its size; when the changes outgrow the whole, the whole is written anew.
//!
//! A record is its length, the CRC-32C of its bytes, and the bytes: a protobuf update.
//! Records outlive the process that wrote them, killed at any point; a power failure can
//! take the last ones, after which the controller sends everything again.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::PathBuf,
};

use ferroflow_proto::chassis::SyncResponse;
use flowtable::crc32c;
use prost::Message as _;

use super::{StateError, replace};

/// Length and checksum in front of a record.
const HEADER_LEN: usize = 8;
/// Changes may be this many times as long as the whole.
const MAX_GROWTH: u64 = 2;
/// Below this, a journal is never written anew for its length.
const MIN_LONG: u64 = 1 << 20;

/// The journal.
#[derive(Debug)]
pub struct ViewJournal {
    path: PathBuf,
    /// Open to append to, once the whole has been written by this process.
    file: Option<File>,
    whole_len: u64,
    len: u64,
}

impl ViewJournal {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, file: None, whole_len: 0, len: 0 }
    }

    /// All updates that are whole, in order. None is a journal's first day.
    pub fn read(&self) -> Vec<SyncResponse> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "the last known network cannot be read");
                return Vec::new();
            }
        };
        let (updates, n_left) = journal_records(&bytes);
        if n_left != 0 {
            tracing::warn!(path = %self.path.display(), n_bytes = n_left, "the end of the journal is damaged and left out");
        }
        updates
    }

    /// The changes have outgrown the whole, or no whole has been written yet.
    pub fn is_long(&self) -> bool {
        self.file.is_none() || self.len > MIN_LONG.max(self.whole_len * MAX_GROWTH)
    }

    /// Starts anew with the whole.
    ///
    /// # Errors
    /// The file system's; the journal is then as it was.
    pub fn replace(&mut self, whole: &SyncResponse) -> Result<(), StateError> {
        let bytes = framed(whole);
        let fresh = self.path.with_extension("new");
        let written = replace(&fresh, &self.path, &bytes)
            .and_then(|()| OpenOptions::new().append(true).open(&self.path));
        self.file = Some(written.map_err(|source| self.failed(source))?);
        self.whole_len = bytes.len() as u64;
        self.len = self.whole_len;
        Ok(())
    }

    /// Adds a change.
    ///
    /// # Errors
    /// The file system's; the next change then has to replace the whole.
    pub fn append(&mut self, update: &SyncResponse) -> Result<(), StateError> {
        let bytes = framed(update);
        let Some(file) = &mut self.file else { return Err(self.failed(io::ErrorKind::NotFound.into())) };
        if let Err(source) = file.write_all(&bytes) {
            // What follows a torn record would never be read.
            self.file = None;
            return Err(self.failed(source));
        }
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn failed(&self, source: io::Error) -> StateError {
        StateError { action: "write", path: self.path.clone(), source }
    }
}

fn framed(update: &SyncResponse) -> Vec<u8> {
    let body = update.encode_to_vec();
    let mut bytes = Vec::with_capacity(HEADER_LEN + body.len());
    bytes.extend((body.len() as u32).to_le_bytes());
    bytes.extend(crc32c::of([body.as_slice()]).to_le_bytes());
    bytes.extend(body);
    bytes
}

/// The updates of a journal's bytes that are whole, in order, and how many bytes behind them are not.
pub fn journal_records(bytes: &[u8]) -> (Vec<SyncResponse>, usize) {
    let mut rest = bytes;
    let mut updates = Vec::new();
    while let Some((update, after)) = record(rest) {
        updates.push(update);
        rest = after;
    }
    (updates, rest.len())
}

/// The first record and what follows it; `None` when it is not whole.
fn record(bytes: &[u8]) -> Option<(SyncResponse, &[u8])> {
    let (len, rest) = bytes.split_first_chunk()?;
    let (sum, rest) = rest.split_first_chunk()?;
    let (body, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
    let is_whole = crc32c::of([body]) == u32::from_le_bytes(*sum);
    let update = is_whole.then(|| SyncResponse::decode(body).ok())??;
    Some((update, rest))
}

#[cfg(test)]
mod tests {
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
        let flow = ferroflow_proto::chassis::LogicalFlow {
            actions: "x".repeat(MIN_LONG as usize),
            ..Default::default()
        };
        journal.append(&SyncResponse { logical_flows: vec![flow], ..update(2) }).unwrap();
        assert!(journal.is_long());
        journal.replace(&update(2)).unwrap();
        assert!(!journal.is_long());
    }
}
