//! `set`: named sets of addresses or ports that rules can match.

use clap::{Args, Subcommand};
use ferroflow_proto::host::{ListSetsRequest, NamedSet, rule_change::Kind};
use serde::Serialize;

use super::bundle::{self, Bundle, Subject, Unsaid};
use crate::{
    error::CtlError,
    output::printable,
    session::{Session, host_answer},
};

/// Named sets of addresses or ports; a rule matches one as `nw_src=$NAME`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the sets with their members
    List {
        /// Only this one
        #[arg(default_value = "", hide_default_value = true)]
        name: String,
    },
    /// By hand: add a set: `hosts type=ipv4 10.0.0.1,10.1.0.0/16,10.2.0.5-10.2.0.9`
    Add(Text),
    /// By hand: give a set other members, all at once
    Replace(Text),
    /// By hand: put members into a set: `hosts 10.0.0.7`
    Insert(Text),
    /// By hand: take members out of a set: `hosts 10.0.0.7`
    Remove(Text),
    /// By hand: delete a set that no rule names
    Del(Text),
}

/// A set, or members of one.
#[derive(Debug, Args)]
pub struct Text {
    /// Its name, its type where it is new, its members. @FILE: a set in each line; -: from
    /// the standard input
    #[arg(required = true, value_name = "SET")]
    words: Vec<String>,
}

impl Command {
    /// Does it.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let (kind, Text { words }) = match self {
            Self::List { name } => return list(session, name).await,
            Self::Add(text) => (Kind::SetAdd, text),
            Self::Replace(text) => (Kind::SetReplace, text),
            Self::Insert(text) => (Kind::SetInsert, text),
            Self::Remove(text) => (Kind::SetRemove, text),
            Self::Del(text) => (Kind::SetDelete, text),
        };
        let unsaid = Unsaid { subject: Subject::Set, kind };
        bundle::change(session, Bundle::read(&[words.join(" ")], unsaid)?, false).await
    }
}

async fn list(session: &mut Session<'_>, name: String) -> Result<(), CtlError> {
    let mut rules = session.rules().await?;
    let answer = host_answer(
        rules.list_sets(session.request(ListSetsRequest { name, bridge: session.bridge() })).await,
    )?;
    let sets: Vec<SetView> = answer.sets.into_iter().map(SetView::from).collect();
    session.print(&sets, |out| {
        sets.iter().try_for_each(|set| {
            let SetView { name, kind, members, .. } = set;
            writeln!(out, "{}", printable(format!("{name} type={kind} {}", members.join(",")).trim_end()))
        })
    })
}

/// What is shown of a set.
#[derive(Debug, Serialize)]
struct SetView {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    members: Vec<String>,
    /// Rules that name it.
    n_rules: u64,
}

impl From<NamedSet> for SetView {
    fn from(set: NamedSet) -> Self {
        Self { name: set.name, kind: set.r#type, members: set.members, n_rules: set.n_rules }
    }
}
