//! The embedded store: one redb file. A commit returns after the file is synced.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use redb::{
    Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, StorageError, TableDefinition,
};

use super::{Commit, Contents, LogLimits, Revision, Store, StoreError, Txn, is_over, record};

/// Version of the layout below.
const SCHEMA: u64 = 1;
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const VALUES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("values");
/// Revision → its commit.
const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");

// Keys of META.
const META_SCHEMA: &str = "schema";
const META_REVISION: &str = "revision";
const META_COMPACTED: &str = "compacted";
const META_LOG_CHANGES: &str = "log_changes";

/// A [`Store`] in a file.
#[derive(Debug)]
pub struct RedbStore {
    path: PathBuf,
    limits: LogLimits,
    database: Database,
}

impl RedbStore {
    /// Opens the file, or makes it with its directory, and checks it.
    ///
    /// # Errors
    /// [`StoreError`] says why the file cannot be used; it is left as it was found.
    ///
    /// # Cost
    /// Reads the whole file once: a damaged page is found here and not in mid-service.
    pub fn open(path: &Path, limits: LogLimits) -> Result<Self, StoreError> {
        let unusable =
            |error: io::Error| StoreError::Unusable { path: path.to_owned(), reason: error.to_string() };
        let directory = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(directory).map_err(unusable)?;
        let mut database = Database::create(path).map_err(|error| database_error(path, error))?;
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(unusable)?;
        database.check_integrity().map_err(|error| database_error(path, error))?;
        let store = Self { path: path.to_owned(), limits, database };
        store.check_schema()?;
        Ok(store)
    }

    /// Writes the schema into a new file, or compares it.
    fn check_schema(&self) -> Result<(), StoreError> {
        let found = self.attempt(|| {
            let txn = self.begin_write()?;
            let mut meta = txn.open_table(META)?;
            let present = meta.get(META_SCHEMA)?.map(|value| value.value());
            let Some(found) = present else {
                meta.insert(META_SCHEMA, SCHEMA)?;
                drop(meta);
                txn.open_table(VALUES)?;
                txn.open_table(LOG)?;
                txn.commit()?;
                return Ok(SCHEMA);
            };
            drop(meta);
            txn.abort()?;
            Ok(found)
        })?;
        if found > SCHEMA {
            return Err(StoreError::NewerSchema { path: self.path.clone(), found, supported: SCHEMA });
        }
        Ok(())
    }

    fn begin_write(&self) -> Result<redb::WriteTransaction, Failure> {
        let mut txn = self.database.begin_write()?;
        txn.set_durability(Durability::Immediate)?;
        Ok(txn)
    }

    fn attempt<T>(&self, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, StoreError> {
        work().map_err(|failure| match failure {
            Failure::Known(error) => error,
            Failure::Redb(error) => redb_error(&self.path, error),
            Failure::Decode(error) => {
                StoreError::Corrupted { path: self.path.clone(), reason: error.to_string() }
            }
        })
    }
}

impl Store for RedbStore {
    fn read(&self) -> Result<Contents, StoreError> {
        self.attempt(|| {
            let txn = self.database.begin_read()?;
            let meta = txn.open_table(META)?;
            let mut contents = Contents {
                revision: number(&meta, META_REVISION)?,
                compacted: number(&meta, META_COMPACTED)?,
                values: Default::default(),
            };
            for row in txn.open_table(VALUES)?.iter()? {
                let (key, value) = row?;
                contents.values.insert(key.value().to_owned(), value.value().to_vec());
            }
            Ok(contents)
        })
    }

    fn commit(&self, guarded: Txn) -> Result<Commit, StoreError> {
        self.attempt(|| {
            let txn = self.begin_write()?;
            let mut meta = txn.open_table(META)?;
            let at = number(&meta, META_REVISION)?;
            if at != guarded.based_on {
                return Err(StoreError::Moved { at, based_on: guarded.based_on }.into());
            }
            let revision = at.next();
            let mut values = txn.open_table(VALUES)?;
            let mut changes = Vec::with_capacity(guarded.writes.len());
            for (key, value) in guarded.writes {
                changes.extend(write(&mut values, key, value)?);
            }
            let commit = Commit { revision, changes };
            let mut log = txn.open_table(LOG)?;
            log.insert(revision.get(), record::encode(&commit).as_slice())?;
            meta.insert(META_REVISION, revision.get())?;
            compact(&mut meta, &mut log, self.limits, &commit)?;
            drop((meta, values, log));
            txn.commit()?;
            Ok(commit)
        })
    }

    fn changes_since(&self, after: Revision) -> Result<Vec<Commit>, StoreError> {
        self.attempt(|| {
            let txn = self.database.begin_read()?;
            let compacted = number(&txn.open_table(META)?, META_COMPACTED)?;
            if after < compacted {
                return Err(StoreError::Compacted { compacted }.into());
            }
            let mut commits = Vec::new();
            for row in txn.open_table(LOG)?.range(after.next().get()..)? {
                let (revision, value) = row?;
                commits.push(record::decode(Revision::new(revision.value()), value.value())?);
            }
            Ok(commits)
        })
    }
}

fn number(meta: &impl ReadableTable<&'static str, u64>, key: &'static str) -> Result<Revision, Failure> {
    Ok(Revision::new(meta.get(key)?.map_or(0, |value| value.value())))
}

/// Makes one write; `None` when there was nothing to delete.
fn write(
    values: &mut redb::Table<'_, &'static str, &'static [u8]>,
    key: String,
    value: Option<Vec<u8>>,
) -> Result<Option<(String, Option<Vec<u8>>)>, Failure> {
    let before = match &value {
        Some(value) => values.insert(key.as_str(), value.as_slice())?,
        None => values.remove(key.as_str())?,
    };
    let is_change = before.is_some() || value.is_some();
    drop(before);
    Ok(is_change.then_some((key, value)))
}

/// Counts the newest commit and drops the oldest ones beyond the limits.
fn compact(
    meta: &mut redb::Table<'_, &'static str, u64>,
    log: &mut redb::Table<'_, u64, &'static [u8]>,
    limits: LogLimits,
    newest: &Commit,
) -> Result<(), Failure> {
    let mut compacted = number(meta, META_COMPACTED)?.get();
    let mut n_changes = number(meta, META_LOG_CHANGES)?.get().saturating_add(newest.changes.len() as u64);
    while is_over(limits, newest.revision.get().saturating_sub(compacted), n_changes) {
        let Some((oldest, bytes)) = log.pop_first()? else { break };
        compacted = oldest.value();
        let commit = record::decode(Revision::new(compacted), bytes.value())?;
        n_changes = n_changes.saturating_sub(commit.changes.len() as u64);
    }
    meta.insert(META_COMPACTED, compacted)?;
    meta.insert(META_LOG_CHANGES, n_changes)?;
    Ok(())
}

/// What can go wrong inside a transaction, before it is put into words.
enum Failure {
    Known(StoreError),
    Redb(redb::Error),
    Decode(prost::DecodeError),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Known(error)
    }
}

impl From<prost::DecodeError> for Failure {
    fn from(error: prost::DecodeError) -> Self {
        Self::Decode(error)
    }
}

macro_rules! redb_failures {
    ($($error:ty),*) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::Redb(error.into())
            }
        })*
    };
}
redb_failures!(
    redb::TransactionError,
    redb::TableError,
    StorageError,
    redb::CommitError,
    redb::SetDurabilityError
);

fn database_error(path: &Path, error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::InUse(path.to_owned()),
        DatabaseError::UpgradeRequired(version) => StoreError::Corrupted {
            path: path.to_owned(),
            reason: format!("its file format {version} is not one this version writes"),
        },
        DatabaseError::RepairAborted => {
            StoreError::Corrupted { path: path.to_owned(), reason: "it cannot be repaired".to_owned() }
        }
        other => redb_error(path, other.into()),
    }
}

fn redb_error(path: &Path, error: redb::Error) -> StoreError {
    let path = path.to_owned();
    match error {
        redb::Error::Corrupted(reason) => StoreError::Corrupted { path, reason },
        redb::Error::Io(error)
            if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
        {
            StoreError::Corrupted { path, reason: error.to_string() }
        }
        redb::Error::TableTypeMismatch { table, .. } | redb::Error::TableIsMultimap(table) => {
            StoreError::Corrupted { path, reason: format!("table `{table}` has another type") }
        }
        redb::Error::TableDoesNotExist(table) => {
            StoreError::Corrupted { path, reason: format!("table `{table}` is missing") }
        }
        other => StoreError::Unusable { path, reason: other.to_string() },
    }
}
