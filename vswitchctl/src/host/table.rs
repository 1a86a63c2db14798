//! `table`: how tables are run and what they count; `frags`: how rules see fragments.

use clap::{Args, Subcommand, ValueEnum};
use ferroflow_proto::host::{ListTablesRequest, ListTablesResponse, Table, rule_change::Kind};
use serde::Serialize;

use super::bundle::{self, Bundle, Subject, Unsaid};
use crate::{
    error::CtlError,
    output::Tabular,
    session::{Session, host_answer},
};

/// Tables.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the tables with their rules, lookups, hits, limits and what a miss means
    List,
    /// By hand: say how a table is run; what is not said stays
    Set(Set),
}

/// How a table is to be run.
#[derive(Debug, Args)]
pub struct Set {
    /// Its number
    table: u8,
    /// Its name, unique among the tables; an empty one takes it away
    #[arg(long)]
    name: Option<String>,
    /// What becomes of packets that no rule matches
    #[arg(long, value_enum)]
    miss: Option<Miss>,
    /// Rules it takes, or `any`
    #[arg(long, value_name = "N", value_parser = parse_max)]
    max_rules: Option<String>,
    /// What happens when there are more
    #[arg(long, value_enum)]
    overflow: Option<Overflow>,
}

/// What becomes of packets that no rule matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Miss {
    /// They are dropped
    Drop,
    /// They go on in the next table
    Continue,
    /// They go to the controller: see `monitor`
    Controller,
}

/// What happens to a rule for which there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Overflow {
    /// It is refused
    Refuse,
    /// The least important one makes room
    Evict,
}

/// How rules see IP fragments.
#[derive(Debug, Args)]
pub struct Frags {
    /// normal: first fragments, too, as packets without ports; drop; nx-match: first fragments with
    /// their ports. None: tells which it is
    mode: Option<String>,
}

fn parse_max(text: &str) -> Result<String, String> {
    let is_known = text == "any" || text.parse::<u32>().is_ok();
    if is_known { Ok(text.to_owned()) } else { Err("a number of rules, or any".into()) }
}

impl Command {
    /// Does it.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        match self {
            Self::List => {
                let answer = get(session).await?;
                let tables: Vec<TableView> = answer.tables.into_iter().map(TableView::from).collect();
                session.print_rows(&tables)
            }
            Self::Set(set) => set.run(session).await,
        }
    }
}

async fn get(session: &Session<'_>) -> Result<ListTablesResponse, CtlError> {
    let mut rules = session.rules().await?;
    host_answer(rules.list_tables(session.request(ListTablesRequest { bridge: session.bridge() })).await)
}

impl Set {
    async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        if self.name.is_none() && self.miss.is_none() && self.max_rules.is_none() && self.overflow.is_none() {
            return Err(CtlError::Usage("say what: --name, --miss, --max-rules or --overflow".into()));
        }
        let mut text = format!("table={}", self.table);
        if let Some(name) = self.name {
            text += &format!(",name={name}");
        }
        if let Some(miss) = self.miss {
            text += match miss {
                Miss::Drop => ",miss=drop",
                Miss::Continue => ",miss=continue",
                Miss::Controller => ",miss=controller",
            };
        }
        if let Some(max) = self.max_rules {
            text += &format!(",max_rules={max}");
        }
        if let Some(overflow) = self.overflow {
            text += match overflow {
                Overflow::Refuse => ",overflow=refuse",
                Overflow::Evict => ",overflow=evict",
            };
        }
        let unsaid = Unsaid { subject: Subject::Table, kind: Kind::Table };
        bundle::change(session, Bundle::read(&[text], unsaid)?, false).await
    }
}

impl Frags {
    /// Tells or sets it.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        if let Some(mode) = self.mode {
            let unsaid = Unsaid { subject: Subject::Fragments, kind: Kind::Fragments };
            return bundle::change(session, Bundle::read(&[mode], unsaid)?, false).await;
        }
        let view = FragsView { fragments: get(session).await?.fragments };
        session.print(&view, |out| writeln!(out, "{}", view.fragments))
    }
}

/// What is shown of the handling of fragments.
#[derive(Debug, Serialize)]
struct FragsView {
    fragments: String,
}

/// What is shown of a table.
#[derive(Debug, Serialize)]
struct TableView {
    table: u32,
    name: String,
    n_rules: u64,
    n_lookups: u64,
    n_matches: u64,
    max_rules: Option<u64>,
    overflow: String,
    miss: String,
}

impl From<Table> for TableView {
    fn from(table: Table) -> Self {
        let Table { table, name, n_rules, n_lookups, n_matches, max_rules, overflow, miss } = table;
        Self { table, name, n_rules, n_lookups, n_matches, max_rules, overflow, miss }
    }
}

impl Tabular for TableView {
    const HEADINGS: &'static [&'static str] =
        &["TABLE", "NAME", "RULES", "LOOKUPS", "MATCHES", "MAX-RULES", "OVERFLOW", "MISS"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.table.to_string(),
            self.name.clone(),
            self.n_rules.to_string(),
            self.n_lookups.to_string(),
            self.n_matches.to_string(),
            self.max_rules.map_or_else(|| "any".to_owned(), |max| max.to_string()),
            self.overflow.clone(),
            self.miss.clone(),
        ]
    }
}
