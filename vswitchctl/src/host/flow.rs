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
    /// List the rules, each with its counters and where it comes from
    Dump(Dump),
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
    /// Only those of this table
    #[arg(value_name = "table=N", value_parser = parse_table)]
    table: Option<u8>,
}

impl Command {
    /// Does it.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        match self {
            Self::Dump(Dump { table }) => dump(session, table).await,
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

async fn dump(session: &mut Session<'_>, table: Option<u8>) -> Result<(), CtlError> {
    let mut host = session.host().await?;
    let request = session.request(DumpFlowsRequest { table: table.map(u32::from) });
    let answer = host_answer(host.dump_flows(request).await)?;
    let flows: Vec<FlowView> = answer.flows.into_iter().map(FlowView::from).collect();
    session.print(&flows, |out| flows.iter().try_for_each(|flow| flow.write(out)))
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

fn parse_table(text: &str) -> Result<u8, String> {
    let number = text.strip_prefix("table=").unwrap_or(text);
    number.parse().map_err(|_| "a table is table=N, with N of 0 to 255".into())
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
            origin: flow.origin.map(OriginView::from),
        }
    }
}

impl FlowView {
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let Self { table, priority, cookie, matching, actions, n_packets, n_bytes, origin } = self;
        write!(out, "cookie={cookie:#x}, table={table}, n_packets={n_packets}, n_bytes={n_bytes}, ")?;
        let comma = if matching.is_empty() { "" } else { "," };
        write!(out, "priority={priority}{comma}{} actions={}", printable(matching), printable(actions))?;
        match origin.as_ref().map(OriginView::text).filter(|text| !text.is_empty()) {
            Some(text) => writeln!(out, "  # {}", printable(&text)),
            None => writeln!(out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_numbered() {
        assert_eq!(parse_table("table=8"), Ok(8));
        assert_eq!(parse_table("255"), Ok(255));
        for text in ["", "table=", "table=256", "-1", "x"] {
            assert!(parse_table(text).is_err(), "{text:?} was taken");
        }
    }
}
