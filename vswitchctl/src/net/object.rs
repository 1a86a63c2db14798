//! Add, set, list, show and delete: the same for each kind of object.

use clap::Args;
use ferroflow_proto::northbound::{
    Create, Delete, Operation, Precondition, Resource, TransactRequest, Update, operation::Op,
    precondition::Condition, resource,
};
use serde::Serialize;
use tonic::Code;

use crate::{
    address::Daemon,
    client::{Labels, Northbound},
    error::CtlError,
    name::Noun,
    net::{
        change::{Change, Outcome},
        labels::Selector,
    },
    output::Tabular,
    session::Session,
};

/// How often a change is tried when others change the same object at the same time.
const TRIES: usize = 5;

/// What a user sets of an object, and its way from and to the API.
pub trait Spec: Sized {
    /// Kind of the object.
    const NOUN: Noun;
    /// What is shown of it.
    type View: Serialize + Tabular;

    /// Reads what the API says of it.
    ///
    /// # Errors
    /// [`CtlError::Newer`] when this version does not know something of it.
    fn read(resource: &Resource) -> Result<Self, CtlError>;

    /// Reads all that is shown of it.
    ///
    /// # Errors
    /// As [`Spec::read`].
    fn view(resource: &Resource) -> Result<Self::View, CtlError>;

    /// The part that is not labels, for the API.
    fn spec(&self) -> resource::Spec;

    /// Its labels.
    fn labels(&self) -> &Labels;

    /// For the API, under a full name.
    fn write(&self, name: String) -> Resource {
        let labels = self.labels().clone().into_iter().collect();
        Resource { name, labels, spec: Some(self.spec()), ..Default::default() }
    }
}

/// Labels as this program keeps them: in order.
pub fn labels_of(resource: &Resource) -> Labels {
    resource.labels.clone().into_iter().collect()
}

/// The error for a resource that is not of the kind it was asked for as.
pub fn wrong_kind(resource: &Resource, noun: Noun) -> CtlError {
    let what = format!("{:?} as a {} that is none", resource.name, noun.word());
    CtlError::Newer { daemon: Daemon::Controller, what }
}

/// The error for a value of an enumeration that has been added since.
pub fn unknown_value(resource: &Resource, field: &str, value: i32) -> CtlError {
    let what = format!("{} with {field} {value}", resource.name);
    CtlError::Newer { daemon: Daemon::Controller, what }
}

/// An object to delete.
#[derive(Debug, Clone, Args)]
pub struct Del {
    /// Its name; what is below it goes with it
    name: String,
    /// Succeed when there is none
    #[arg(long)]
    if_exists: bool,
}

/// An object to show.
#[derive(Debug, Clone, Args)]
pub struct Show {
    /// Its name
    pub name: String,
}

/// Objects to list, for those that have no parent.
#[derive(Debug, Clone, Args)]
pub struct List {
    #[command(flatten)]
    selector: Selector,
}

/// Objects to list, for those that have a parent.
#[derive(Debug, Clone, Args)]
pub struct ListBelow {
    /// Only those of this switch or router
    parent: Option<String>,
    #[command(flatten)]
    selector: Selector,
}

/// Creates an object.
///
/// # Errors
/// Those of the calls; when there is such an object, unless that `may_exist`.
pub async fn add<S: Spec>(
    session: &mut Session<'_>,
    name: String,
    spec: &S,
    may_exist: bool,
) -> Result<(), CtlError> {
    let mut nb = session.controller().await?;
    let create = Op::Create(Create { resource: Some(spec.write(name.clone())) });
    let outcome = match nb.transact(transaction(create)).await {
        Ok(answer) => Outcome::of(name, Change::Created, answer.revision),
        Err(error) if may_exist && error.code() == Some(Code::AlreadyExists) => {
            let present = nb.get(&name).await?;
            Outcome::of(name, Change::Unchanged, present.update_revision)
        }
        Err(error) => return Err(error),
    };
    outcome.finish(session, &mut nb).await
}

/// Changes the fields `mask` of an object to what `patch` makes of them. When somebody
/// else changes the object meanwhile, the patch is made anew on top of that.
///
/// # Errors
/// Those of the calls, and of `patch`.
pub async fn set<S: Spec>(
    session: &mut Session<'_>,
    text: &str,
    mask: &[&str],
    mut patch: impl FnMut(&mut S) -> Result<(), CtlError>,
) -> Result<(), CtlError> {
    if mask.is_empty() {
        return Err(CtlError::Usage("nothing to set: give at least one option".into()));
    }
    let mut nb = session.controller().await?;
    let mut before = nb.find(S::NOUN, text).await?;
    for _ in 0..TRIES {
        let mut spec = S::read(&before)?;
        patch(&mut spec)?;
        match nb.transact(update(&before, &spec, mask)).await {
            Ok(answer) => {
                let after = answer.resources.first().unwrap_or(&before);
                let change = Change::between(Some(&before), after);
                return Outcome::of(before.name, change, answer.revision).finish(session, &mut nb).await;
            }
            Err(error) if error.code() == Some(Code::FailedPrecondition) => {
                let now = nb.get(&before.name).await?;
                if now.update_revision == before.update_revision {
                    return Err(error);
                }
                before = now;
            }
            Err(error) => return Err(error),
        }
    }
    Err(CtlError::Refused {
        daemon: Daemon::Controller,
        code: Code::Aborted,
        message: format!("others keep changing {}; try again", before.name),
    })
}

fn update<S: Spec>(before: &Resource, spec: &S, mask: &[&str]) -> TransactRequest {
    let paths = mask.iter().map(|&path| path.to_owned()).collect();
    let update = Op::Update(Update {
        resource: Some(spec.write(before.name.clone())),
        update_mask: Some(prost_types::FieldMask { paths }),
        allow_missing: false,
    });
    let unchanged = Precondition {
        name: before.name.clone(),
        condition: Some(Condition::UpdateRevision(before.update_revision)),
    };
    TransactRequest { preconditions: vec![unchanged], ..transaction(update) }
}

fn transaction(op: Op) -> TransactRequest {
    TransactRequest { operations: vec![Operation { op: Some(op) }], ..Default::default() }
}

impl Del {
    /// Deletes the object.
    ///
    /// # Errors
    /// Those of the calls.
    pub async fn run(&self, session: &mut Session<'_>, noun: Noun) -> Result<(), CtlError> {
        let mut nb = session.controller().await?;
        let name = match nb.resolve(noun, &self.name).await {
            Err(error) if self.if_exists && error.is_not_found() => return self.absent(session),
            result => result?,
        };
        let delete = Op::Delete(Delete { name: name.clone(), allow_missing: false });
        match nb.transact(transaction(delete)).await {
            Ok(answer) => Outcome::of(name, Change::Deleted, answer.revision).finish(session, &mut nb).await,
            Err(error) if self.if_exists && error.is_not_found() => self.absent(session),
            Err(error) if error.is_not_found() => Err(nb.find(noun, &self.name).await.err().unwrap_or(error)),
            Err(error) => Err(error),
        }
    }

    fn absent(&self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let outcome = Outcome::of(self.name.clone(), Change::Absent, 0);
        session.print(&outcome, |out| writeln!(out, "{} absent", self.name))
    }
}

impl List {
    /// Lists the objects.
    ///
    /// # Errors
    /// Those of the calls.
    pub async fn run<S: Spec>(&self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let mut nb = session.controller().await?;
        let views = views::<S>(&mut nb, None, &self.selector.labels()).await?;
        session.print_rows(&views)
    }
}

impl ListBelow {
    /// The views of the objects.
    ///
    /// # Errors
    /// Those of the calls.
    pub async fn views<S: Spec>(&self, session: &Session<'_>) -> Result<Vec<S::View>, CtlError> {
        let mut nb = session.controller().await?;
        let parent = match (&self.parent, S::NOUN.parent()) {
            // Reading the parent tells a misspelt one from an empty one.
            (Some(text), Some(noun)) => Some(nb.find(noun, text).await?.name),
            _ => None,
        };
        views::<S>(&mut nb, parent.as_deref(), &self.selector.labels()).await
    }

    /// Lists the objects.
    ///
    /// # Errors
    /// Those of the calls.
    pub async fn run<S: Spec>(&self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let views = self.views::<S>(session).await?;
        session.print_rows(&views)
    }
}

/// Reads the views of all objects of a kind.
///
/// # Errors
/// Those of the calls, and of [`Spec::view`].
pub async fn views<S: Spec>(
    nb: &mut Northbound,
    parent: Option<&str>,
    labels: &Labels,
) -> Result<Vec<S::View>, CtlError> {
    nb.list(S::NOUN, parent, labels).await?.iter().map(S::view).collect()
}
