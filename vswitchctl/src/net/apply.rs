//! `apply`: makes the logical network look as a file says, in one transaction.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, Read},
};

use clap::Args;
use ferroflow_proto::northbound::{
    Delete, Operation, Precondition, Resource, TransactRequest, TransactResponse, Update, operation::Op,
    precondition::Condition,
};

use crate::{
    client::{Labels, Northbound},
    error::CtlError,
    file::{
        objects::Objects,
        parse::{FILE_MAX, parse},
    },
    name::Noun,
    net::{
        change::{Change, Changed, Outcome},
        effect::EffectView,
        labels::Selector,
        object::labels_of,
    },
    session::Session,
};

/// Make the logical network look as a file says, in one transaction: what it names is created
/// or changed, the rest is left alone.
#[derive(Debug, Args)]
pub struct Apply {
    #[command(flatten)]
    wish: Wish,
    /// Check everything and tell what would change, but change nothing
    #[arg(long)]
    dry_run: bool,
}

/// What the logical network is to look like.
#[derive(Debug, Args)]
pub struct Wish {
    /// The file, or - for the standard input
    #[arg(short, long, value_name = "FILE")]
    file: String,
    /// Also delete what has the labels of --selector and is not in the file
    #[arg(long, requires = "selector")]
    prune: bool,
    #[command(flatten)]
    selector: Selector,
}

/// What a file changes.
#[derive(Debug)]
pub struct Changing {
    /// Revision of the change; that of the store when nothing had to change.
    pub revision: u64,
    /// Objects of the file and around them, as they were.
    pub before: BTreeMap<String, Resource>,
    /// Objects of the file, as they are.
    pub after: Vec<Resource>,
    /// Objects that go, as they were.
    pub pruned: Vec<Resource>,
    /// What it would do, where it was only checked.
    pub effect: Option<EffectView>,
}

impl Apply {
    /// Does it.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let mut nb = session.controller().await?;
        let Some(changing) = self.wish.make(&mut nb, self.dry_run).await? else {
            return self.nothing(session);
        };
        let outcome = Outcome {
            revision: changing.revision,
            dry_run: self.dry_run,
            changes: changes(&changing.before, &changing.after, &changing.pruned),
            receipt: None,
            effect: changing.effect,
        };
        outcome.finish(session, &mut nb).await
    }

    fn nothing(&self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let dry_run = self.dry_run;
        let outcome = Outcome { revision: 0, dry_run, changes: Vec::new(), receipt: None, effect: None };
        session.print(&outcome, |out| writeln!(out, "nothing to do: {} has no objects", self.wish.file))
    }
}

impl Wish {
    /// Makes it so, or only checks that it could be; nothing when the file has no objects.
    ///
    /// # Errors
    /// What is wrong with the file, or why the controller refuses it.
    pub async fn make(&self, nb: &mut Northbound, dry_run: bool) -> Result<Option<Changing>, CtlError> {
        let selector = self.selector.labels();
        if !self.prune && !selector.is_empty() {
            return Err(CtlError::Usage("--selector says what --prune may delete; give both".into()));
        }
        let mut objects = Objects::of(&self.file, parse(&self.file, &self.read()?)?)?;
        resolve(nb, &mut objects).await?;
        let pruned = if self.prune { prunable(nb, &objects, &selector).await? } else { Vec::new() };
        let wanted = objects.into_ordered();
        if self.prune {
            self.check_labels(&wanted, &selector)?;
        }
        if wanted.is_empty() && pruned.is_empty() {
            return Ok(None);
        }
        let before = present(nb, &wanted).await?;
        let answer = nb.transact(transaction(&wanted, &pruned, dry_run)).await?;
        let TransactResponse { revision, resources: after, effect } = answer;
        Ok(Some(Changing { revision, before, after, pruned, effect: effect.map(EffectView::from) }))
    }

    fn read(&self) -> Result<String, CtlError> {
        let text = if self.file == "-" {
            read_text(io::stdin().lock())
        } else {
            File::open(&self.file).and_then(read_text)
        };
        text.map_err(|error| {
            let reason = match error.kind() {
                io::ErrorKind::NotFound => "there is no such file".into(),
                io::ErrorKind::InvalidData => "it is not UTF-8 text".into(),
                _ => error.to_string(),
            };
            CtlError::File { file: self.file.clone(), line: None, reason }
        })
    }

    /// The next prune could not see an object that lacks the labels.
    fn check_labels(&self, wanted: &[Resource], selector: &Labels) -> Result<(), CtlError> {
        let Some(stray) = wanted.iter().find(|resource| !has_labels(resource, selector)) else {
            return Ok(());
        };
        let labels = crate::output::pairs(selector);
        let reason = format!(
            "{} lacks the label {labels}, which --prune needs everywhere; `labels:` at the top gives it to all",
            stray.name
        );
        Err(CtlError::File { file: self.file.clone(), line: None, reason })
    }
}

fn read_text(source: impl Read) -> io::Result<String> {
    let mut text = String::new();
    source.take(FILE_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_MAX {
        return Err(io::Error::other(format!("it is larger than {} MiB", FILE_MAX >> 20)));
    }
    Ok(text)
}

/// Finds the objects that the file names by their ids and does not have.
async fn resolve(nb: &mut Northbound, objects: &mut Objects) -> Result<(), CtlError> {
    let ids: BTreeSet<_> = objects.unresolved().map(|(noun, id)| (noun, id.to_owned())).collect();
    let mut names = BTreeMap::new();
    for (noun, id) in ids {
        let name = nb.resolve(noun, &id).await?;
        names.insert((noun, id), name);
    }
    objects.resolve(&names);
    Ok(())
}

/// The objects that are there now, of those the file is about.
async fn present(nb: &mut Northbound, wanted: &[Resource]) -> Result<BTreeMap<String, Resource>, CtlError> {
    let mut present = BTreeMap::new();
    for resource in wanted {
        let Some(noun) = Noun::of(&resource.name).filter(|noun| noun.parent().is_none()) else { continue };
        match nb.get(&resource.name).await {
            Ok(parent) => present.insert(parent.name.clone(), parent),
            Err(error) if error.is_not_found() => continue,
            Err(error) => return Err(error),
        };
        for below in Noun::ALL.into_iter().filter(|below| below.parents().contains(&noun)) {
            let children = nb.list(below, Some(&resource.name), &Labels::new()).await?;
            present.extend(children.into_iter().map(|child| (child.name.clone(), child)));
        }
    }
    Ok(present)
}

/// What is to be deleted: the objects with the labels that the file does not have,
/// children first.
///
/// # Errors
/// [`CtlError::Usage`] when something without the labels would go with them.
async fn prunable(
    nb: &mut Northbound,
    objects: &Objects,
    selector: &Labels,
) -> Result<Vec<Resource>, CtlError> {
    let all = nb.snapshot().await?;
    let (doomed, kept): (Vec<_>, Vec<_>) = all
        .into_iter()
        .partition(|resource| has_labels(resource, selector) && !objects.contains(&resource.name));
    let doomed_names: BTreeSet<&str> = doomed.iter().map(|resource| resource.name.as_str()).collect();
    if let Some(child) = kept.iter().find(|resource| has_parent_in(&resource.name, &doomed_names)) {
        return Err(CtlError::Usage(format!(
            "pruning would delete {}, which lacks the labels or is in the file, with what it is below",
            child.name
        )));
    }
    let mut doomed = doomed;
    doomed
        .sort_by_cached_key(|resource| (std::cmp::Reverse(Noun::of(&resource.name)), resource.name.clone()));
    Ok(doomed)
}

fn has_parent_in(name: &str, names: &BTreeSet<&str>) -> bool {
    let parent = name.match_indices('/').nth(1).and_then(|(end, _)| name.get(..end));
    parent.is_some_and(|parent| names.contains(parent))
}

fn has_labels(resource: &Resource, selector: &Labels) -> bool {
    let labels = labels_of(resource);
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// Deletes come first, so that an id that moves is free again.
fn transaction(wanted: &[Resource], pruned: &[Resource], validate_only: bool) -> TransactRequest {
    let delete =
        |resource: &Resource| Op::Delete(Delete { name: resource.name.clone(), allow_missing: false });
    let update = |resource: &Resource| {
        Op::Update(Update { resource: Some(resource.clone()), update_mask: None, allow_missing: true })
    };
    let operations = pruned.iter().map(delete).chain(wanted.iter().map(update));
    // What somebody has changed since it was found is not deleted.
    let as_found = |resource: &Resource| Precondition {
        name: resource.name.clone(),
        condition: Some(Condition::UpdateRevision(resource.update_revision)),
    };
    TransactRequest {
        operations: operations.map(|op| Operation { op: Some(op) }).collect(),
        preconditions: pruned.iter().map(as_found).collect(),
        validate_only,
        conversations: Vec::new(),
    }
}

fn changes(before: &BTreeMap<String, Resource>, after: &[Resource], pruned: &[Resource]) -> Vec<Changed> {
    let put = after.iter().map(|resource| Changed {
        name: resource.name.clone(),
        change: Change::between(before.get(&resource.name), resource),
    });
    let deleted =
        pruned.iter().map(|resource| Changed { name: resource.name.clone(), change: Change::Deleted });
    put.chain(deleted).collect()
}
