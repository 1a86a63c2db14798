//! What an object is to the commands: a kind says in one [`Object`] what a user sets of
//! it, what the controller adds, and how both are shown. The commands themselves are in
//! `command.rs`.

use std::fmt::Debug;

use clap::Args;
use ferroflow_proto::northbound::{
    Create, Operation, Precondition, Resource, TransactRequest, Update, operation::Op,
    precondition::Condition, resource,
};
use serde::{Serialize, de::DeserializeOwned};
use tonic::Code;

use crate::{
    address::Daemon,
    client::{Labels, Northbound},
    error::CtlError,
    name::Noun,
    net::{
        change::{Change, Outcome},
        command::About,
        labels::LabelChanges,
    },
    output::{Tabular, pairs, parent_id, short},
    session::Session,
};

/// How often a change is tried when others change the same object at the same time.
const TRIES: usize = 5;

/// A kind of object: what a user sets of it (also its form in files) and the rest that
/// the commands have to know.
pub trait Object: Debug + Clone + PartialEq + Serialize + DeserializeOwned {
    /// Kind of the object.
    const NOUN: Noun;
    /// Help of its commands.
    const ABOUT: About;
    /// Headings of its table: the name's, those of [`Object::cells`], and that of labels.
    const HEADINGS: &'static [&'static str];
    /// Options of `add`.
    type New: Options;
    /// Options of `set`.
    type Changes: Options;
    /// What only the controller says of it.
    type Status: Debug + Clone + Serialize;

    /// Reads what the API says of it.
    ///
    /// # Errors
    /// [`CtlError::Newer`] when this version does not know something of it.
    fn read(resource: &Resource) -> Result<(Self, Self::Status), CtlError>;

    /// The part that is not labels, for the API.
    fn spec(&self) -> resource::Spec;

    /// Its labels.
    fn labels(&self) -> &Labels;

    /// Its labels, to change.
    fn labels_mut(&mut self) -> &mut Labels;

    /// Makes one with a full name from the options of `add`.
    ///
    /// # Errors
    /// [`CtlError::Usage`] when the options make no sense together.
    fn make(new: Self::New, labels: Labels, name: &str) -> Result<Self, CtlError>;

    /// Makes the changes that the options of `set` say.
    ///
    /// # Errors
    /// As [`Object::make`].
    fn change(changes: &Self::Changes, name: &str, patch: &mut Patch<'_, Self>) -> Result<(), CtlError>;

    /// Its row of a table between name and labels.
    fn cells(&self, status: &Self::Status) -> Vec<String>;

    /// What `show` prints of it, a line each, besides name, labels and revisions.
    fn fields(&self, status: &Self::Status) -> Vec<(&'static str, String)>;

    /// Brings a list into the order in which it is shown.
    fn arrange(_views: &mut [View<Self>]) {}

    /// For the API, under a full name.
    fn write(&self, name: String) -> Resource {
        let labels = self.labels().clone().into_iter().collect();
        Resource { name, labels, spec: Some(self.spec()), ..Default::default() }
    }
}

/// Options of a command.
pub trait Options: Args + Debug {
    /// Options that name other objects; they are replaced by full names.
    fn references(&mut self) -> Vec<(Noun, &mut String)> {
        Vec::new()
    }
}

/// Something that can be listed.
pub trait Shown: Sized {
    /// Kind of the object.
    const NOUN: Noun;
    /// What is shown of it.
    type View: Serialize + Tabular;

    /// Reads all that is shown of it.
    ///
    /// # Errors
    /// [`CtlError::Newer`] when this version does not know something of it.
    fn view(resource: &Resource) -> Result<Self::View, CtlError>;

    /// Brings a list into the order in which it is shown.
    fn arrange(_views: &mut [Self::View]) {}
}

impl<S: Object> Shown for S {
    const NOUN: Noun = <S as Object>::NOUN;
    type View = View<S>;

    fn view(resource: &Resource) -> Result<View<S>, CtlError> {
        let (spec, status) = S::read(resource)?;
        let Resource { name, create_revision, update_revision, .. } = resource;
        let (create_revision, update_revision) = (*create_revision, *update_revision);
        Ok(View { name: name.clone(), spec, status, create_revision, update_revision })
    }

    fn arrange(views: &mut [View<S>]) {
        <S as Object>::arrange(views);
    }
}

/// What is shown of an object.
#[derive(Debug, Clone, Serialize)]
#[serde(bound = "")]
pub struct View<S: Object> {
    /// Its full name.
    pub name: String,
    /// What a user sets.
    #[serde(flatten)]
    pub spec: S,
    /// What only the controller says.
    #[serde(flatten)]
    pub status: S::Status,
    create_revision: u64,
    update_revision: u64,
}

impl<S: Object> View<S> {
    /// What `show` prints, a line each.
    pub fn fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = vec![("name", self.name.clone()), ("labels", pairs(self.spec.labels()))];
        fields.extend(self.spec.fields(&self.status));
        fields.push(("created", format!("revision {}", self.create_revision)));
        fields.push(("changed", format!("revision {}", self.update_revision)));
        fields
    }
}

impl<S: Object> Tabular for View<S> {
    const HEADINGS: &'static [&'static str] = S::HEADINGS;

    fn cells(&self) -> Vec<String> {
        let mark = if self.name.starts_with("port-groups/") { "@" } else { "" };
        let parent = <S as Object>::NOUN.parent().map(|_| format!("{mark}{}", parent_id(&self.name)));
        let mut cells: Vec<_> = parent.into_iter().chain([short(&self.name).to_owned()]).collect();
        cells.extend(self.spec.cells(&self.status));
        cells.push(pairs(self.spec.labels()));
        cells
    }
}

/// A state of the controller's side that has nothing to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct NoStatus {}

/// The key that a datapath or port has in tunnels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct TunnelKey {
    /// The key.
    pub tunnel_key: u32,
}

/// No key is asked for, or no bound is said.
pub fn is_any_key(key: &u32) -> bool {
    *key == 0
}

/// The key that an object is to have, if one is asked for.
pub fn requested_key(key: u32) -> Option<(&'static str, String)> {
    (key > 0).then(|| ("requested key", key.to_string()))
}

/// How many connections are remembered, if that is bounded.
pub fn limited(n: u32) -> Option<(&'static str, String)> {
    (n > 0).then(|| ("connections", n.to_string()))
}

/// Changes of an object, and which fields they are of.
#[derive(Debug)]
pub struct Patch<'a, S> {
    /// `None`: only the fields are asked for.
    spec: Option<&'a mut S>,
    mask: Vec<&'static str>,
}

impl<S> Patch<'_, S> {
    /// Changes a field when there is a value for it.
    pub fn set<T: Clone>(
        &mut self,
        field: &'static str,
        value: Option<&T>,
        place: impl FnOnce(&mut S) -> &mut T,
    ) {
        let Some(value) = value else { return };
        self.mask.push(field);
        if let Some(spec) = &mut self.spec {
            place(spec).clone_from(value);
        }
    }

    /// Changes a list when there are values for it, or empties it.
    pub fn list<T: Clone>(
        &mut self,
        field: &'static str,
        values: &Vec<T>,
        empty: bool,
        place: impl FnOnce(&mut S) -> &mut Vec<T>,
    ) {
        self.set(field, (!values.is_empty() || empty).then_some(values), place);
    }

    /// Changes a list by new and gone values, when there are any.
    pub fn edit<T: Clone + PartialEq>(
        &mut self,
        field: &'static str,
        (added, removed): (&[T], &[T]),
        place: impl FnOnce(&mut S) -> &mut Vec<T>,
    ) {
        if added.is_empty() && removed.is_empty() {
            return;
        }
        if !self.mask.contains(&field) {
            self.mask.push(field);
        }
        let Some(spec) = &mut self.spec else { return };
        let list = place(spec);
        list.retain(|value| !removed.contains(value));
        for value in added {
            if !list.contains(value) {
                list.push(value.clone());
            }
        }
    }

    /// Changes a field in place when something about it is given.
    pub fn change(&mut self, field: &'static str, is_given: bool, change: impl FnOnce(&mut S)) {
        if !is_given {
            return;
        }
        self.mask.push(field);
        if let Some(spec) = &mut self.spec {
            change(spec);
        }
    }

    /// Turns something on or off when either is wanted.
    pub fn switch(
        &mut self,
        field: &'static str,
        (on, off): (bool, bool),
        place: impl FnOnce(&mut S) -> &mut bool,
    ) {
        self.set(field, (on || off).then_some(&on), place);
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

/// Objects are enabled unless said otherwise.
pub(crate) fn enabled() -> bool {
    true
}

/// Creates an object.
///
/// # Errors
/// Those of the calls; when there is such an object, unless that `may_exist`.
pub async fn add<S: Object>(
    session: &mut Session<'_>,
    name: String,
    spec: &S,
    may_exist: bool,
) -> Result<(), CtlError> {
    let mut nb = session.controller().await?;
    let create = Op::Create(Create { resource: Some(spec.write(name.clone())) });
    let outcome = match nb.transact(transaction(create)).await {
        Ok(answer) => Outcome::of(name, Change::Created, answer.revision),
        // The id or an address of it may be taken by another, too.
        Err(error) if error.code() == Some(Code::AlreadyExists) => match nb.get(&name).await {
            Ok(present) if may_exist => Outcome::of(name, Change::Unchanged, present.update_revision),
            Ok(_) => return Err(CtlError::Exists { name, command: <S as Object>::NOUN.command() }),
            Err(_) => return Err(error),
        },
        Err(error) => return Err(error),
    };
    outcome.finish(session, &mut nb).await
}

/// Changes an object as the options say. When somebody else changes it meanwhile, the
/// change is made anew on top of that.
///
/// # Errors
/// Those of the calls, and of [`Object::change`].
pub async fn set<S: Object>(
    session: &mut Session<'_>,
    text: &str,
    changes: &S::Changes,
    labels: &LabelChanges,
) -> Result<(), CtlError> {
    let noun = <S as Object>::NOUN;
    if patch::<S>(changes, labels, text, None)?.is_empty() {
        return Err(CtlError::Usage("nothing to set: give at least one option".into()));
    }
    let mut nb = session.controller().await?;
    let mut before = nb.find(noun, text).await?;
    for _ in 0..TRIES {
        let (mut spec, _) = S::read(&before)?;
        let mask = patch(changes, labels, &before.name, Some(&mut spec))?;
        match nb.transact(update(&before, &spec, &mask)).await {
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

/// Makes the changes and tells which fields they are of.
fn patch<S: Object>(
    changes: &S::Changes,
    labels: &LabelChanges,
    name: &str,
    spec: Option<&mut S>,
) -> Result<Vec<&'static str>, CtlError> {
    let mut patch = Patch { spec, mask: Vec::new() };
    if !labels.is_empty() {
        patch.mask.push("labels");
        if let Some(spec) = &mut patch.spec {
            labels.apply(spec.labels_mut());
        }
    }
    S::change(changes, name, &mut patch)?;
    Ok(patch.mask)
}

fn update<S: Object>(before: &Resource, spec: &S, mask: &[&str]) -> TransactRequest {
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

/// A transaction of one operation.
pub fn transaction(op: Op) -> TransactRequest {
    TransactRequest { operations: vec![Operation { op: Some(op) }], ..Default::default() }
}

/// Reads the views of all objects of a kind.
///
/// # Errors
/// Those of the calls, and of [`Shown::view`].
pub async fn views<S: Shown>(
    nb: &mut Northbound,
    parent: Option<&str>,
    labels: &Labels,
) -> Result<Vec<S::View>, CtlError> {
    let mut views: Vec<_> =
        nb.list(S::NOUN, parent, labels).await?.iter().map(S::view).collect::<Result<_, _>>()?;
    S::arrange(&mut views);
    Ok(views)
}
