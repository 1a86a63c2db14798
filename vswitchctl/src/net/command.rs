//! The commands that each kind of object has: `add`, `set`, `list`, `show` and `del`.
//! What is different about a kind is in its [`Object`]; its positional arguments and help
//! follow from its [`Noun`].

use std::{
    io::{self, Write},
    marker::PhantomData,
};

use clap::{
    Arg, ArgMatches, Args, FromArgMatches, Subcommand,
    error::{Error, ErrorKind},
};
use ferroflow_proto::northbound::{Delete, Resource, operation::Op};
use serde::Serialize;
use serde_norway::Value;

use crate::{
    client::{Labels, Northbound},
    error::CtlError,
    name::Noun,
    net::{
        by_noun,
        change::{Change, Outcome},
        labels::{LabelChanges, NewLabels, Selector},
        object::{self, Object, Options, Shown, View, transaction},
    },
    output::{Table, write_fields},
    session::Session,
};

/// Help of a kind's commands.
#[derive(Debug, Clone, Copy)]
pub struct About {
    /// Of `add`.
    pub add: &'static str,
    /// Of `set`.
    pub set: &'static str,
    /// Of `list`.
    pub list: &'static str,
    /// Of `show`.
    pub show: &'static str,
    /// Of `del`.
    pub del: &'static str,
}

/// A command about objects of one kind.
#[derive(Debug)]
pub struct Command<S: Object>(Verb<S>);

#[derive(Debug, Subcommand)]
enum Verb<S: Object> {
    Add(Add<S>),
    Set(Set<S>),
    List(List<S>),
    Show(Show),
    Del(Del),
}

/// An object to make.
#[derive(Debug, Args)]
struct Add<S: Object> {
    #[command(flatten)]
    name: NewName<S>,
    #[command(flatten)]
    new: S::New,
    #[command(flatten)]
    labels: NewLabels,
    /// Succeed, and leave it as it is, when there is one
    #[arg(long)]
    may_exist: bool,
}

/// An object to change.
#[derive(Debug, Args)]
struct Set<S: Object> {
    /// Its name
    name: String,
    #[command(flatten)]
    changes: S::Changes,
    #[command(flatten)]
    labels: LabelChanges,
}

/// An object to show.
#[derive(Debug, Clone, Args)]
pub struct Show {
    /// Its name
    pub name: String,
}

/// Objects to list.
#[derive(Debug, Clone, Args)]
pub struct List<S: Shown> {
    #[command(flatten)]
    parent: Parent<S>,
    #[command(flatten)]
    selector: Selector,
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

impl<S: Object> Command<S> {
    /// Whether it changes anything.
    pub fn writes(&self) -> bool {
        matches!(self.0, Verb::Add(_) | Verb::Set(_) | Verb::Del(_))
    }

    /// Does it.
    ///
    /// # Errors
    /// What kept it from being done.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        match self.0 {
            Verb::Add(add) => add.run(session).await,
            Verb::Set(set) => set.run(session).await,
            Verb::List(list) => list.run(session).await,
            Verb::Show(show) => run_show::<S>(session, &show.name).await,
            Verb::Del(del) => del.run(session, S::NOUN).await,
        }
    }
}

impl<S: Object> Add<S> {
    async fn run(mut self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let name = self.name.full()?;
        resolve(session, &mut self.new).await?;
        let spec = S::make(self.new, self.labels.labels(), &name)?;
        object::add(session, name, &spec, self.may_exist).await
    }
}

impl<S: Object> Set<S> {
    async fn run(mut self, session: &mut Session<'_>) -> Result<(), CtlError> {
        resolve(session, &mut self.changes).await?;
        object::set::<S>(session, &self.name, &self.changes, &self.labels).await
    }
}

/// Names in full what the options refer to.
async fn resolve(session: &Session<'_>, options: &mut impl Options) -> Result<(), CtlError> {
    for (noun, text) in options.references() {
        *text = session.controller().await?.resolve(noun, text).await?;
    }
    Ok(())
}

impl<S: Shown> List<S> {
    /// Lists the objects.
    ///
    /// # Errors
    /// Those of the calls.
    pub async fn run(&self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let mut nb = session.controller().await?;
        let parent = match &self.parent.text {
            // Reading the parent tells a misspelt one from an empty one.
            Some(text) => match S::NOUN.parent_typed(text) {
                Some(noun) => Some(nb.find(noun, text).await?.name),
                None => None,
            },
            None => None,
        };
        let views = object::views::<S>(&mut nb, parent.as_deref(), &self.selector.labels()).await?;
        session.print_rows(&views)
    }
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

/// An object with what is below it.
#[derive(Serialize)]
#[serde(bound = "")]
struct Whole<S: Object> {
    #[serde(flatten)]
    view: View<S>,
    #[serde(flatten)]
    below: Below,
}

/// Objects of each kind that is below another, as programs and as people read them.
#[derive(Default, Serialize)]
struct Below {
    #[serde(flatten)]
    values: indexed::Values,
    #[serde(skip)]
    tables: Vec<Table>,
}

/// A map in the order in which it was made.
mod indexed {
    use serde::{Serialize, Serializer};
    use serde_norway::Value;

    #[derive(Default)]
    pub(super) struct Values(pub(super) Vec<(&'static str, Value)>);

    impl Serialize for Values {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
        }
    }
}

impl Below {
    async fn read(nb: &mut Northbound, parent: &Resource, noun: Noun) -> Result<Self, CtlError> {
        let mut below = Self::default();
        for child in Noun::ALL.into_iter().filter(|child| child.parents().contains(&noun)) {
            by_noun!(child, C => {
                let views = object::views::<C>(nb, Some(&parent.name), &Labels::new()).await?;
                below.push(child, serde_norway::to_value(&views), Table::of(&views), views.is_empty())?;
            }, else => {});
        }
        Ok(below)
    }

    fn push(
        &mut self,
        noun: Noun,
        value: Result<Value, serde_norway::Error>,
        table: Table,
        is_empty: bool,
    ) -> Result<(), CtlError> {
        let value = value.map_err(|error| CtlError::Output(io::Error::other(error)))?;
        self.values.0.push((noun.collection(), value));
        if !is_empty {
            self.tables.push(table);
        }
        Ok(())
    }
}

async fn run_show<S: Object>(session: &mut Session<'_>, text: &str) -> Result<(), CtlError> {
    let mut nb = session.controller().await?;
    let resource = nb.find(S::NOUN, text).await?;
    let view = <S as Shown>::view(&resource)?;
    let below = Below::read(&mut nb, &resource, S::NOUN).await?;
    let whole = Whole { view, below };
    session.print(&whole, |out| whole.write(out))
}

impl<S: Object> Whole<S> {
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        write_fields(out, &self.view.fields())?;
        for table in &self.below.tables {
            writeln!(out)?;
            table.write(out)?;
        }
        Ok(())
    }
}

impl<S: Object> FromArgMatches for Command<S> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        Verb::from_arg_matches(matches).map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        self.0.update_from_arg_matches(matches)
    }
}

impl<S: Object> Subcommand for Command<S> {
    fn augment_subcommands(command: clap::Command) -> clap::Command {
        let About { add, set, list, show, del } = S::ABOUT;
        let abouts = [("add", add), ("set", set), ("list", list), ("show", show), ("del", del)];
        abouts.into_iter().fold(Verb::<S>::augment_subcommands(command), |command, (verb, about)| {
            command.mut_subcommand(verb, |verb| verb.about(about))
        })
    }

    fn augment_subcommands_for_update(command: clap::Command) -> clap::Command {
        Self::augment_subcommands(command)
    }

    fn has_subcommand(name: &str) -> bool {
        Verb::<S>::has_subcommand(name)
    }
}

/// The name of an object to make: `PARENT ID` or `PARENT/ID`, or `ID` of what has no parent.
#[derive(Debug)]
struct NewName<S> {
    text: String,
    id: Option<String>,
    object: PhantomData<S>,
}

impl<S: Object> NewName<S> {
    fn full(&self) -> Result<String, CtlError> {
        S::NOUN.new_name(&self.text, self.id.as_deref())
    }

    /// Names of the arguments.
    fn args() -> (&'static str, Option<&'static str>) {
        match S::NOUN.parent() {
            Some(parent) => (parent.command(), Some(S::NOUN.short_word())),
            None => ("name", None),
        }
    }
}

impl<S: Object> FromArgMatches for NewName<S> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let (first, second) = Self::args();
        let text = matches.get_one::<String>(first).cloned();
        let text = text.ok_or_else(|| Error::raw(ErrorKind::MissingRequiredArgument, "no name is given"))?;
        let id = second.and_then(|second| matches.get_one::<String>(second).cloned());
        Ok(Self { text, id, object: PhantomData })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl<S: Object> Args for NewName<S> {
    fn augment_args(command: clap::Command) -> clap::Command {
        let (first, second) = Self::args();
        let value = |name: &str| name.to_uppercase().replace('-', "_");
        let Some(second) = second else {
            return command.arg(Arg::new(first).value_name("NAME").required(true).help("Its id"));
        };
        let group = if S::NOUN.parents().contains(&Noun::PortGroup) { " or @GROUP" } else { "" };
        let one_word = format!("The {first}{group}; or {}/{} in one word", value(first), value(second));
        command
            .arg(Arg::new(first).value_name(value(first)).required(true).help(one_word))
            .arg(Arg::new(second).value_name(value(second)).help(format!("Id of the {second}")))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

/// The parent of objects to list, for those that have one.
#[derive(Debug, Clone)]
struct Parent<S> {
    text: Option<String>,
    object: PhantomData<S>,
}

impl<S: Shown> FromArgMatches for Parent<S> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let text = matches.try_get_one::<String>("parent").ok().flatten().cloned();
        Ok(Self { text, object: PhantomData })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl<S: Shown> Args for Parent<S> {
    fn augment_args(command: clap::Command) -> clap::Command {
        if S::NOUN.parent().is_none() {
            return command;
        }
        let help = "Only those of this switch or router";
        command.arg(Arg::new("parent").value_name("PARENT").help(help))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}
