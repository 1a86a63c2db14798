//! `backup` and `restore`: the whole logical network as it is at one revision, in a file, and the network
//! as such a file says, in one transaction.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use clap::Args;
use ferroflow_proto::northbound::{
    Delete, Operation, Precondition, Resource, TransactRequest, Update, operation::Op,
    precondition::Condition,
};
use serde::{Deserialize, Serialize};

use crate::{
    error::CtlError,
    file::{
        Document,
        objects::{Objects, document},
    },
    name::Noun,
    session::Session,
};

/// Version of the files that are written; newer ones are refused.
const SCHEMA: u32 = 1;
/// Bytes of a backup: far more than one transaction takes.
const MAX_LEN: u64 = 256 << 20;

/// Write the whole logical network to a file, to be restored from. Hosts register themselves, and
/// are no part of it
#[derive(Debug, Args)]
pub struct Backup {
    /// The file; one that is there is replaced
    file: PathBuf,
}

/// Make the logical network what a backup says, all of it or nothing
#[derive(Debug, Args)]
pub struct Restore {
    /// The file
    file: PathBuf,
    /// Also where there is a network: what is not in the backup is deleted
    #[arg(long)]
    replace: bool,
    /// Check everything and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// What a file begins with, whatever its version.
#[derive(Debug, Deserialize)]
struct Version {
    ferroflow_backup: u32,
}

/// A file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    /// Version of this form.
    ferroflow_backup: u32,
    /// When it was written, in seconds since 1970.
    taken_unix: u64,
    /// How many objects there are: a file that was cut off has fewer.
    objects: usize,
    network: Document,
}

/// What was done.
#[derive(Debug, Serialize)]
struct Done {
    file: String,
    objects: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    deleted: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<u64>,
}

impl Backup {
    /// Does it.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let resources = session.controller().await?.snapshot().await?;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (objects, network) = (resources.len(), document(&resources)?);
        let contents = Contents { ferroflow_backup: SCHEMA, taken_unix: since.as_secs(), objects, network };
        let text = serde_norway::to_string(&contents).map_err(|error| trouble(&self.file, error))?;
        // What cannot be restored is no backup.
        read(&self.file, &text)?;
        write(&self.file, &text).map_err(|error| trouble(&self.file, error))?;
        let file = self.file.display().to_string();
        let done = Done { file, objects, deleted: None, revision: None };
        session.print(&done, |out| writeln!(out, "{objects} objects in {}", done.file))
    }
}

impl Restore {
    /// Does it.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let mut text = String::new();
        let file = File::open(&self.file).map_err(|error| trouble(&self.file, error))?;
        file.take(MAX_LEN).read_to_string(&mut text).map_err(|error| trouble(&self.file, error))?;
        let wanted = read(&self.file, &text)?;
        let mut nb = session.controller().await?;
        let present = nb.snapshot().await?;
        if !present.is_empty() && !self.replace {
            return Err(CtlError::Usage(format!(
                "there is a network of {} objects; say --replace to make it what {} says",
                present.len(),
                self.file.display()
            )));
        }
        let request = transaction(&wanted, present, self.dry_run);
        let deleted = request.preconditions.len();
        let revision = nb.transact(request).await?.revision;
        let file = self.file.display().to_string();
        let done = Done { file, objects: wanted.len(), deleted: Some(deleted), revision: Some(revision) };
        let verb = if self.dry_run { "can be" } else { "are" };
        session.print(&done, |out| {
            writeln!(
                out,
                "{} objects {verb} restored, and {deleted} deleted; revision {revision}",
                wanted.len()
            )
        })
    }
}

/// The objects of a backup, parents first.
fn read(file: &Path, text: &str) -> Result<Vec<Resource>, CtlError> {
    let version: Version = serde_norway::from_str(text)
        .map_err(|_| trouble(file, "it is no backup; make one with vswitchctl backup FILE"))?;
    if version.ferroflow_backup > SCHEMA {
        let found = version.ferroflow_backup;
        let reason =
            format!("it has schema {found}, and this version reads up to {SCHEMA}; use a newer vswitchctl");
        return Err(trouble(file, reason));
    }
    let contents: Contents = serde_norway::from_str(text).map_err(|error| trouble(file, error))?;
    let name = file.display().to_string();
    let objects = Objects::of(&name, vec![contents.network])?;
    if let Some((_, id)) = objects.unresolved().next() {
        return Err(trouble(file, format!("it refers to {id}, which it does not have; take another backup")));
    }
    let wanted = objects.into_ordered();
    if wanted.len() != contents.objects {
        let (found, all) = (wanted.len(), contents.objects);
        return Err(trouble(file, format!("it has {found} objects of {all}; take another backup")));
    }
    Ok(wanted)
}

/// Deletes come first, so that an id that moves is free again.
fn transaction(wanted: &[Resource], present: Vec<Resource>, validate_only: bool) -> TransactRequest {
    let names: BTreeSet<_> = wanted.iter().map(|resource| resource.name.as_str()).collect();
    let mut doomed: Vec<_> =
        present.into_iter().filter(|resource| !names.contains(resource.name.as_str())).collect();
    doomed
        .sort_by_cached_key(|resource| (std::cmp::Reverse(Noun::of(&resource.name)), resource.name.clone()));
    let delete =
        |resource: &Resource| Op::Delete(Delete { name: resource.name.clone(), allow_missing: true });
    let update = |resource: &Resource| {
        Op::Update(Update { resource: Some(resource.clone()), update_mask: None, allow_missing: true })
    };
    let operations = doomed.iter().map(delete).chain(wanted.iter().map(update));
    let as_found = |resource: &Resource| Precondition {
        name: resource.name.clone(),
        condition: Some(Condition::UpdateRevision(resource.update_revision)),
    };
    TransactRequest {
        operations: operations.map(|op| Operation { op: Some(op) }).collect(),
        preconditions: doomed.iter().map(as_found).collect(),
        validate_only,
        conversations: Vec::new(),
    }
}

/// The file is the old one or the new one, whatever happens meanwhile.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

fn trouble(file: &Path, reason: impl ToString) -> CtlError {
    CtlError::File { file: file.display().to_string(), line: None, reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use ferroflow_proto::northbound::{LogicalSwitch, resource::Spec};

    use super::*;

    fn switch(name: &str) -> Resource {
        let spec = Some(Spec::LogicalSwitch(LogicalSwitch::default()));
        Resource { name: name.to_owned(), spec, ..Resource::default() }
    }

    fn backup(resources: &[Resource], schema: u32) -> String {
        let (objects, network) = (resources.len(), document(resources).unwrap());
        let contents = Contents { ferroflow_backup: schema, taken_unix: 0, objects, network };
        serde_norway::to_string(&contents).unwrap()
    }

    #[test]
    fn a_backup_reads_as_what_was_written() {
        let file = Path::new("x");
        let text = backup(&[switch("switches/a"), switch("switches/b")], SCHEMA);
        let names: Vec<_> = read(file, &text).unwrap().into_iter().map(|resource| resource.name).collect();
        assert_eq!(names, ["switches/a", "switches/b"]);
    }

    #[test]
    fn newer_other_and_cut_off_files_are_refused_in_words() {
        let file = Path::new("x");
        let refused = |text: &str| read(file, text).unwrap_err().to_string();
        let newer = refused("ferroflow_backup: 2\nwhatever: [1]\n");
        assert!(newer.contains("schema 2"), "{newer}");
        assert!(refused("switches: {}").contains("no backup"));
        assert!(refused("").contains("no backup"));
        let text = backup(&[switch("switches/a")], SCHEMA).replace("objects: 1", "objects: 2");
        assert!(refused(&text).contains("1 objects of 2"));
    }

    #[test]
    fn what_is_not_in_the_backup_goes_if_nobody_has_changed_it() {
        let present = vec![switch("switches/a"), Resource { update_revision: 7, ..switch("switches/old") }];
        let request = transaction(&[switch("switches/a")], present, false);
        assert_eq!(request.operations.len(), 2);
        assert!(
            matches!(&request.operations[0].op, Some(Op::Delete(delete)) if delete.name == "switches/old")
        );
        assert_eq!(request.preconditions.len(), 1);
        assert_eq!(request.preconditions[0].condition, Some(Condition::UpdateRevision(7)));
    }
}
