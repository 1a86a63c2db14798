//! `bridge`: the switches of a host, each with ports, rules and stations of its own.

mod declared;
mod neighbours;
mod protocols;
mod settings;

use clap::{Args, Subcommand, ValueEnum};
use ferroflow_proto::host::{AddBridgeRequest, Bridge, ListBridgesRequest, RemoveBridgeRequest};
use serde::Serialize;

use crate::{
    address::Daemon,
    error::CtlError,
    output::{Tabular, write_fields},
    session::{Session, host_answer},
};

/// Bridges of a host: switches with ports, rules and stations of their own.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the bridges
    List,
    /// Tell all about a bridge
    Show {
        /// Its name; the only one by default
        #[arg(default_value = "", hide_default_value = true)]
        name: String,
    },
    /// By hand: add a bridge; adding it again changes nothing
    Add(Add),
    /// By hand: change how a bridge fails; one without rules begins accordingly
    SetFailMode {
        /// Its name
        name: String,
        /// How
        #[arg(value_enum)]
        mode: FailMode,
    },
    /// By hand: remove a bridge with its ports and rules; the last one stays
    Del(Del),
    /// Tell what a bridge is told: of trees, bonds, mirrors, groups, neighbours, collectors
    Get(settings::Get),
    /// By hand: tell a bridge about trees, bonds, mirrors, groups, neighbours, collectors
    Set(settings::Set),
    /// Tell what has come of it: trees, bonds, mirrors, groups, neighbours, faults
    Protocols(protocols::Protocols),
    /// By hand: make another member of a bond the active one, as long as it can be
    SetActiveMember(protocols::SetActiveMember),
    /// By hand: have bridges with the ports, settings and rules that a file has, and no others
    Apply(declared::FromFile),
    /// By hand: tell what `apply` would change; exit code 1 when something
    Diff(declared::FromFile),
    /// Print bridges with their ports and settings as `apply` takes them
    Export(declared::Export),
}

/// A bridge to add.
#[derive(Debug, Args)]
pub struct Add {
    /// Its name: a letter, then at most 14 of a-z A-Z 0-9 . _ -
    name: String,
    /// What it does without rules [default: secure]
    #[arg(long, value_enum, value_name = "MODE")]
    fail_mode: Option<FailMode>,
}

/// What a bridge does that has never had rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FailMode {
    /// It drops everything
    Secure,
    /// It is a learning switch: it begins with the one rule `priority=0,actions=NORMAL`
    Standalone,
}

impl FailMode {
    fn name(self) -> &'static str {
        match self {
            Self::Secure => "secure",
            Self::Standalone => "standalone",
        }
    }
}

/// A bridge to remove.
#[derive(Debug, Args)]
pub struct Del {
    /// Its name
    name: String,
    /// Succeed when there is none
    #[arg(long)]
    if_exists: bool,
}

impl Command {
    /// Does it.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        match self {
            Self::List => {
                let bridges = list(session).await?;
                session.print_rows(&bridges)
            }
            Self::Show { name } => show(session, &name).await,
            Self::Add(Add { name, fail_mode }) => {
                let fail_mode = fail_mode.map_or("", FailMode::name).to_owned();
                let mut host = session.host().await?;
                let request = session.request(AddBridgeRequest { name, fail_mode });
                let answer = host_answer(host.add_bridge(request).await)?;
                changed(session, answer.bridge)
            }
            Self::SetFailMode { name, mode } => {
                let mut host = session.host().await?;
                let fail_mode = mode.name().to_owned();
                let request = session.request(AddBridgeRequest { name, fail_mode });
                let answer = host_answer(host.modify_bridge(request).await)?;
                changed(session, answer.bridge)
            }
            Self::Get(get) => get.run(session).await,
            Self::Set(set) => set.run(session).await,
            Self::Protocols(protocols) => protocols.run(session).await,
            Self::SetActiveMember(member) => member.run(session).await,
            Self::Apply(file) => file.apply(session).await,
            Self::Diff(file) => file.diff(session).await,
            Self::Export(export) => export.run(session).await,
            Self::Del(Del { name, if_exists }) => {
                let mut host = session.host().await?;
                let request = RemoveBridgeRequest { name: name.clone(), allow_missing: if_exists };
                host_answer(host.remove_bridge(session.request(request)).await)?;
                let removed = Removed { name, present: false };
                session.print(&removed, |out| writeln!(out, "{} removed", removed.name))
            }
        }
    }
}

/// The bridges of the host.
pub(crate) async fn list(session: &Session<'_>) -> Result<Vec<BridgeView>, CtlError> {
    let mut host = session.host().await?;
    let answer = host_answer(host.list_bridges(session.request(ListBridgesRequest {})).await)?;
    Ok(answer.bridges.into_iter().map(BridgeView::from).collect())
}

async fn show(session: &mut Session<'_>, name: &str) -> Result<(), CtlError> {
    let bridges = list(session).await?;
    let asked = if name.is_empty() { session.bridge() } else { name.to_owned() };
    let found = match (asked.as_str(), &bridges[..]) {
        ("", [only]) => Some(only),
        (name, all) => all.iter().find(|bridge| bridge.name == name),
    };
    let Some(bridge) = found else {
        let names = bridges.iter().map(|bridge| bridge.name.as_str()).collect::<Vec<_>>().join(", ");
        return Err(CtlError::Usage(format!("say which bridge; there are: {names}")));
    };
    session.print(bridge, |out| {
        write_fields(
            out,
            &[
                ("name", bridge.name.clone()),
                ("fail mode", bridge.fail_mode.clone()),
                ("ports", bridge.ports.join(" ")),
                ("tables", format!("{} rules, epoch {}", bridge.n_rules, bridge.epoch)),
                ("groups", bridge.n_groups.to_string()),
                ("meters", bridge.n_meters.to_string()),
                ("stations", bridge.n_stations.to_string()),
            ],
        )
    })
}

fn changed(session: &mut Session<'_>, bridge: Option<Bridge>) -> Result<(), CtlError> {
    let Some(bridge) = bridge.map(BridgeView::from) else {
        return Err(CtlError::Newer { daemon: Daemon::Host, what: "an answer without its bridge".into() });
    };
    session.print(&bridge, |out| {
        writeln!(out, "{}: fail mode {}, {} rules", bridge.name, bridge.fail_mode, bridge.n_rules)
    })
}

/// What is shown of a bridge that was taken away.
#[derive(Debug, Serialize)]
struct Removed {
    name: String,
    present: bool,
}

/// What is shown of a bridge.
#[derive(Debug, Serialize)]
pub(crate) struct BridgeView {
    pub(crate) name: String,
    pub(crate) fail_mode: String,
    ports: Vec<String>,
    n_rules: u64,
    n_groups: u64,
    n_meters: u64,
    pub(crate) n_stations: u64,
    epoch: u64,
}

impl From<Bridge> for BridgeView {
    fn from(bridge: Bridge) -> Self {
        let Bridge { name, fail_mode, ports, n_rules, n_groups, n_meters, n_stations, epoch } = bridge;
        Self { name, fail_mode, ports, n_rules, n_groups, n_meters, n_stations, epoch }
    }
}

impl Tabular for BridgeView {
    const HEADINGS: &'static [&'static str] = &["NAME", "FAIL-MODE", "RULES", "STATIONS", "PORTS"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.fail_mode.clone(),
            self.n_rules.to_string(),
            self.n_stations.to_string(),
            self.ports.join(" "),
        ]
    }
}
