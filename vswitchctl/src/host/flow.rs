//! `flow`: the rules of the tables, in the syntax of `ovs-ofctl`. `dump` prints a line
//! each, so that it can be searched and compared; the others change rules that are written
//! by hand.

use std::io::{self, Write};

use clap::{Args, Subcommand};
use ferroflow_proto::host::{DumpFlowsRequest, Flow, rule_change::Kind};
use serde::Serialize;

use super::{
    bundle::{self, Bundle, Subject, Unsaid},
    origin::OriginView,
};
use crate::{
    error::CtlError,
    output::{as_hex, printable},
    session::{Session, host_answer},
};

/// Rules of the flow tables.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List rules, each with its counters and where it comes from
    Dump(Dump),
    /// Tell how many rules there are, and their packets and bytes together
    #[command(visible_alias = "aggregate")]
    Sum(Dump),
    /// By hand: tell what `replace` would change; exit code 1 when something
    Diff(Flows),
    /// By hand: add rules; one of same table, priority and match is replaced
    Add(Flows),
    /// By hand: give all rules that match other actions
    Mod(Mod),
    /// By hand: delete all rules that match
    Del(Del),
    /// By hand: have just these rules and no others
    Replace(Flows),
}

/// Rules.
#[derive(Debug, Args)]
pub struct Flows {
    /// A rule, `priority=5,ip,actions=output:2`; @FILE: one in each line; -: from the
    /// standard input. All are added in one transaction
    #[arg(required = true, value_name = "FLOW")]
    flows: Vec<String>,
}

/// Other actions for rules.
#[derive(Debug, Args)]
pub struct Mod {
    /// Which rules, and their actions: `table=0,ip,actions=drop`; @FILE or - for several
    #[arg(required = true, value_name = "FLOW")]
    flows: Vec<String>,
    /// Only the rule of just this table, priority and match
    #[arg(long)]
    strict: bool,
}

/// Rules to delete.
#[derive(Debug, Args)]
pub struct Del {
    /// Which rules: `table=0,ip`; @FILE or - for several
    #[arg(value_name = "MATCH")]
    flows: Vec<String>,
    /// Only the rule of just this table, priority and match
    #[arg(long, conflicts_with = "all")]
    strict: bool,
    /// All rules of all tables
    #[arg(long, conflicts_with = "flows")]
    all: bool,
}

/// Rules to list.
#[derive(Debug, Args)]
pub struct Dump {
    /// Only rules whose match is this or within it: `table=3,ip`, `cookie=0x10/0xf0`,
    /// `out_port=2`
    #[arg(value_name = "MATCH")]
    filter: Vec<String>,
    /// Only the rule of just this table, priority and match
    #[arg(long, requires = "filter")]
    strict: bool,
}

impl Command {
    /// Does it.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        match self {
            Self::Dump(choice) => dump(session, choice).await,
            Self::Sum(choice) => sum(session, choice).await,
            Self::Diff(Flows { flows }) => diff(session, &flows).await,
            Self::Add(Flows { flows }) => change(session, &flows, Kind::FlowAdd, false).await,
            Self::Replace(Flows { flows }) => change(session, &flows, Kind::FlowAdd, true).await,
            Self::Mod(Mod { flows, strict }) => {
                let kind = if strict { Kind::FlowModifyStrict } else { Kind::FlowModify };
                change(session, &flows, kind, false).await
            }
            Self::Del(Del { flows, strict, all }) => {
                let kind = if strict { Kind::FlowDeleteStrict } else { Kind::FlowDelete };
                if flows.is_empty() && !all {
                    return Err(CtlError::Usage("say which rules to delete, or --all".into()));
                }
                // An empty match is any packet's.
                let flows = if all { vec![String::new()] } else { flows };
                change(session, &flows, kind, false).await
            }
        }
    }
}

async fn get(session: &Session<'_>, choice: Dump) -> Result<Vec<Flow>, CtlError> {
    let mut host = session.host().await?;
    let filter = choice.filter.join(",");
    let request = session.request(DumpFlowsRequest {
        table: None,
        filter,
        strict: choice.strict,
        bridge: session.bridge(),
    });
    Ok(host_answer(host.dump_flows(request).await)?.flows)
}

async fn dump(session: &mut Session<'_>, choice: Dump) -> Result<(), CtlError> {
    let flows: Vec<FlowView> = get(session, choice).await?.into_iter().map(FlowView::from).collect();
    session.print(&flows, |out| flows.iter().try_for_each(|flow| flow.write(out)))
}

async fn sum(session: &mut Session<'_>, choice: Dump) -> Result<(), CtlError> {
    let flows = get(session, choice).await?;
    let view = SumView {
        n_packets: flows.iter().map(|flow| flow.n_packets).sum(),
        n_bytes: flows.iter().map(|flow| flow.n_bytes).sum(),
        n_flows: flows.len(),
    };
    session.print(&view, |out| {
        let SumView { n_packets, n_bytes, n_flows } = view;
        writeln!(out, "packet_count={n_packets} byte_count={n_bytes} flow_count={n_flows}")
    })
}

/// What is shown of rules together.
#[derive(Debug, Serialize)]
struct SumView {
    n_packets: u64,
    n_bytes: u64,
    n_flows: usize,
}

async fn diff(session: &mut Session<'_>, flows: &[String]) -> Result<(), CtlError> {
    let mut bundle = Bundle::read(flows, Unsaid { subject: Subject::Flow, kind: Kind::FlowAdd })?;
    let request = bundle.take_request(session, true);
    let mut rules = session.rules().await?;
    let answer = host_answer(rules.compare_rules(session.request(request)).await)
        .map_err(|error| bundle.about_place(error))?;
    let view = DiffView { gone: answer.gone, fresh: answer.fresh };
    session.print(&view, |out| {
        view.gone.iter().try_for_each(|rule| writeln!(out, "-{}", printable(rule)))?;
        view.fresh.iter().try_for_each(|rule| writeln!(out, "+{}", printable(rule)))
    })?;
    match view.gone.len() + view.fresh.len() {
        0 => Ok(()),
        n => Err(CtlError::Differs { n, what: "rules" }),
    }
}

/// What is shown of a comparison.
#[derive(Debug, Serialize)]
struct DiffView {
    /// Rules that are there, and not in the file.
    gone: Vec<String>,
    /// Rules of the file that are not there.
    fresh: Vec<String>,
}

async fn change(
    session: &mut Session<'_>,
    flows: &[String],
    kind: Kind,
    replace: bool,
) -> Result<(), CtlError> {
    let bundle = Bundle::read(flows, Unsaid { subject: Subject::Flow, kind })?;
    bundle::change(session, bundle, replace).await
}

/// What is shown of a rule.
#[derive(Debug, Serialize)]
pub struct FlowView {
    table: u32,
    priority: u32,
    #[serde(serialize_with = "as_hex")]
    cookie: u64,
    #[serde(rename = "match")]
    matching: String,
    actions: String,
    n_packets: u64,
    n_bytes: u64,
    /// Timeouts, importance and flags.
    options: String,
    /// Nanoseconds.
    age: u64,
    origin: Option<OriginView>,
}

impl From<Flow> for FlowView {
    fn from(flow: Flow) -> Self {
        Self {
            table: flow.table,
            priority: flow.priority,
            cookie: flow.cookie,
            matching: flow.r#match,
            actions: flow.actions,
            n_packets: flow.n_packets,
            n_bytes: flow.n_bytes,
            options: flow.options,
            age: flow.age_ns,
            origin: flow.origin.map(OriginView::from),
        }
    }
}

impl FlowView {
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let Self { table, priority, cookie, matching, actions, n_packets, n_bytes, options, origin, .. } =
            self;
        write!(out, "cookie={cookie:#x}, table={table}, n_packets={n_packets}, n_bytes={n_bytes}, ")?;
        if !options.is_empty() {
            write!(out, "{}, ", printable(options))?;
        }
        let comma = if matching.is_empty() { "" } else { "," };
        write!(out, "priority={priority}{comma}{} actions={}", printable(matching), printable(actions))?;
        match origin.as_ref().map(OriginView::text).filter(|text| !text.is_empty()) {
            Some(text) => writeln!(out, "  # {}", printable(&text)),
            None => writeln!(out),
        }
    }
}
