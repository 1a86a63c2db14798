//! Records as the store has them, typed again: all of them when the controller starts, on as
//! many threads as there are processors, since what each becomes depends on it alone.

use std::{num::NonZero, sync::Arc, thread};

use super::{Change, LoadError, Record, Revised, keys::COUNTERS};
use crate::{resource::Name, store::Commit};

/// With fewer records for each, a thread is not worth it.
const LEAST_FOR_A_THREAD: usize = 1000;
/// More do not help: the memory is shared.
const MAX_THREADS: usize = 8;

/// Decodes records, in their order.
///
/// # Errors
/// [`LoadError`] of the first that makes no sense.
pub(super) fn decode_all(values: &[(&String, &Vec<u8>)]) -> Result<Vec<Arc<Record>>, LoadError> {
    let n_useful = values.len() / LEAST_FOR_A_THREAD;
    let n_threads = thread::available_parallelism().map_or(1, NonZero::get).min(MAX_THREADS).min(n_useful);
    if n_threads < 2 {
        return values.iter().map(|(key, value)| decode(key, value)).collect();
    }
    let parts = thread::scope(|scope| {
        let parts = values.chunks(values.len().div_ceil(n_threads)).map(|part| {
            scope.spawn(move || part.iter().map(|(key, value)| decode(key, value)).collect::<Vec<_>>())
        });
        // All of them begin before the first is waited for.
        let parts: Vec<_> = parts.collect();
        parts.into_iter().map(thread::ScopedJoinHandle::join).collect::<Vec<_>>()
    });
    let mut records = Vec::with_capacity(values.len());
    for part in parts {
        let part = part.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        for record in part {
            records.push(record?);
        }
    }
    Ok(records)
}

/// Decodes the changes of a revision. `known` finds a record that has just these bytes: most
/// changes are the last ones of what they are about.
///
/// # Errors
/// [`LoadError`].
pub(super) fn decode_commit(
    commit: Commit,
    known: impl Fn(&str, &[u8]) -> Option<Arc<Record>>,
) -> Result<Revised, LoadError> {
    let mut changes = Vec::with_capacity(commit.changes.len());
    for (key, value) in commit.changes.into_iter().filter(|(key, _)| !key.starts_with(COUNTERS)) {
        if let Some(after) = value.as_ref().and_then(|value| known(&key, value)) {
            changes.push(Change { name: after.name.clone(), before: None, after: Some(after) });
            continue;
        }
        let name = Name::parse(&key)
            .map_err(|error| LoadError::Record { key: key.clone(), reason: error.to_string() })?;
        let after = value.map(|value| decode(&key, &value)).transpose()?;
        changes.push(Change { name, before: None, after });
    }
    Ok(Revised { revision: commit.revision, changes })
}

fn decode(key: &str, value: &[u8]) -> Result<Arc<Record>, LoadError> {
    let record =
        Record::decode(key, value).map_err(|reason| LoadError::Record { key: key.to_owned(), reason })?;
    Ok(Arc::new(record))
}
