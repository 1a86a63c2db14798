//! The rules of a bridge that are written by hand, as a journal: all of them as a text, then
//! a text for each change since. Saving a change costs its size, however many rules there
//! are; its owner writes the whole anew when the changes are many more than the rules.

use std::path::PathBuf;

use super::{
    StateError,
    records::{RecordFile, records},
};

/// The journal.
#[derive(Debug)]
pub struct RuleJournal(RecordFile);

impl RuleJournal {
    /// Opens a journal, and reads the texts that are whole: that of the whole first. None is a
    /// journal's first day. What is damaged behind them is cut off and told of.
    pub(super) fn open(path: PathBuf) -> (Self, Vec<String>) {
        let mut file = RecordFile::new(path);
        let bytes = file.read().unwrap_or_else(|error| {
            tracing::warn!(path = %file.path().display(), %error, "the rules of the last run cannot be read");
            Vec::new()
        });
        let (bodies, n_left) = records(&bytes);
        if n_left != 0 {
            let path = file.path().display();
            tracing::warn!(%path, n_bytes = n_left, "the end of the journal of rules is damaged and left out");
        }
        let texts = bodies.into_iter().map(|body| String::from_utf8_lossy(body).into_owned()).collect();
        if let Err(error) = file.resume(&bytes) {
            // It is written anew with the next change.
            tracing::warn!(path = %file.path().display(), %error, "the journal of rules cannot be continued");
        }
        (Self(file), texts)
    }

    /// It can be appended to.
    pub fn is_open(&self) -> bool {
        self.0.is_open()
    }

    /// Puts the file aside, which nobody understands: the journal begins anew.
    pub fn set_aside(&mut self) {
        let path = self.0.path().to_owned();
        let moved = std::fs::rename(&path, path.with_extension("damaged")).is_ok();
        tracing::warn!(path = %path.display(), moved, "the journal of rules is put aside");
        self.0 = RecordFile::new(path);
    }

    /// Starts anew with the whole.
    ///
    /// # Errors
    /// The file system's; the journal is then as it was.
    pub fn replace(&mut self, whole: &str) -> Result<(), StateError> {
        // A record has at least one byte.
        let whole = if whole.is_empty() { "\n" } else { whole };
        self.0.replace(whole.as_bytes()).map_err(|source| self.failed(source))
    }

    /// Adds a change, durably; one that changes nothing is not written.
    ///
    /// # Errors
    /// The file system's; the next change then has to replace the whole.
    pub fn append(&mut self, change: &str) -> Result<(), StateError> {
        if change.is_empty() {
            return Ok(());
        }
        self.0.append(change.as_bytes(), true).map_err(|source| self.failed(source))
    }

    fn failed(&self, source: std::io::Error) -> StateError {
        StateError { action: "write", path: self.0.path().to_owned(), source }
    }
}
