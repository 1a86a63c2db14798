//! Where the logical network is kept: a map from keys to bytes that moves from one
//! revision to the next, and a bounded log of those moves.
//!
//! A store knows nothing of resources; what the bytes mean is [`crate::state`]'s. Three
//! kinds: [`RedbStore`] is a file, [`MemoryStore`] lives as long as the process, [`EtcdStore`]
//! is shared by several controllers. The trait asks for no more than an etcd can give: one
//! guarded transaction, one read, one log. Its calls block; they are made from threads that may.

mod etcd;
mod memory;
mod record;
mod redb;
#[cfg(test)]
mod suite;

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

pub use self::{etcd::EtcdStore, memory::MemoryStore, redb::RedbStore};

/// Version of a store: how many commits have been made to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision(u64);

impl Revision {
    /// The empty store.
    pub const ZERO: Self = Self(0);

    /// From its number.
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }

    /// The number itself.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The revision the next commit makes.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A transaction: what to write, and the revision it was thought out at.
///
/// The guard is the revision of the whole store, because what makes a transaction right
/// (references, unique ids) is a property of all of it.
#[derive(Debug, Clone, Default)]
pub struct Txn {
    /// Revision the store must still be at.
    pub based_on: Revision,
    /// New values; `None` deletes.
    pub writes: BTreeMap<String, Option<Vec<u8>>>,
}

/// One revision as the log has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The revision.
    pub revision: Revision,
    /// What changed, in order of keys.
    pub changes: Vec<ValueChange>,
}

/// A changed key with its value since then; `None`: it is gone.
pub type ValueChange = (String, Option<Vec<u8>>);

/// Everything a store holds at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// The revision.
    pub revision: Revision,
    /// The log holds every revision after this one.
    pub compacted: Revision,
    /// The values.
    pub values: BTreeMap<String, Vec<u8>>,
}

/// How much of the log is kept; the older of it goes when either is exceeded.
#[derive(Debug, Clone, Copy)]
pub struct LogLimits {
    /// Revisions.
    pub n_revisions: u64,
    /// Changes in all of them. The newest revision stays whatever its size.
    pub n_changes: u64,
}

impl Default for LogLimits {
    /// Enough for a watcher to miss minutes of busy changes, and some tens of megabytes.
    fn default() -> Self {
        Self { n_revisions: 10_000, n_changes: 100_000 }
    }
}

/// A versioned map with a log.
pub trait Store: Send + Sync {
    /// Reads everything, as of one revision.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    fn read(&self) -> Result<Contents, StoreError>;

    /// Makes the writes, all or none, as the next revision. When this returns `Ok` they
    /// outlive a loss of power.
    ///
    /// # Errors
    /// [`StoreError::Moved`] when the store is no longer at `based_on`: nothing was
    /// written. After any other error the outcome is unknown until the store is opened
    /// again.
    fn commit(&self, txn: Txn) -> Result<Commit, StoreError>;

    /// The commits after `after`, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] when the log no longer reaches that far back.
    fn changes_since(&self, after: Revision) -> Result<Vec<Commit>, StoreError>;

    /// Others commit to it, too: then a commit that comes too late is thought out anew, and one
    /// without an answer is no reason to end.
    fn is_shared(&self) -> bool {
        false
    }

    /// Waits until there is something after a revision, so long at most; false: nothing is known.
    fn wait_beyond(&self, _revision: Revision, _limit: Duration) -> bool {
        false
    }

    /// Tells those who share the store something of a controller, in the place of what it told
    /// before; what the others have told. It need not outlive them.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be reached.
    fn share(&self, _who: &str, _what: Vec<u8>) -> Result<BTreeMap<String, Vec<u8>>, StoreError> {
        Ok(BTreeMap::new())
    }

    /// Takes back what a controller has told.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be reached.
    fn unshare(&self, _who: &str) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Why a store could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file is another process's.
    #[error("the store {0} is in use by another process; stop it, or give this one its own --data-dir")]
    InUse(PathBuf),
    /// The file was written by a newer version.
    #[error(
        "the store {path} has schema {found}, and this version reads schemas up to {supported}; run a newer version"
    )]
    NewerSchema {
        /// The file.
        path: PathBuf,
        /// Schema of the file.
        found: u64,
        /// Newest schema this version can read.
        supported: u64,
    },
    /// The file is not what it should be.
    #[error("the store {path} is damaged ({reason}); restore it from a backup")]
    Corrupted {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// The file or its directory cannot be used.
    #[error("the store {path} cannot be used: {reason}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// The system's words.
        reason: String,
    },
    /// It does not answer.
    #[error("the store, {name}, does not answer ({reason}); it is tried again by itself")]
    Unreachable {
        /// What it is.
        name: String,
        /// Its words.
        reason: String,
    },
    /// More than it takes at once.
    #[error("the change has {len} bytes, and the store takes {max} at once; split it into parts")]
    TooLarge {
        /// Bytes of the change.
        len: usize,
        /// Bytes there may be.
        max: usize,
    },
    /// Somebody else committed first.
    #[error("the store is at revision {at}, not {based_on}; read again and retry")]
    Moved {
        /// Where the store is.
        at: Revision,
        /// Where the transaction thought it was.
        based_on: Revision,
    },
    /// The log no longer holds these revisions.
    #[error("changes up to revision {compacted} are no longer kept")]
    Compacted {
        /// The log holds every revision after this one.
        compacted: Revision,
    },
}

/// The oldest revision of a log of this size has to go.
fn is_over(limits: LogLimits, n_revisions: u64, n_changes: u64) -> bool {
    n_revisions > 1 && (n_revisions > limits.n_revisions || n_changes > limits.n_changes)
}
