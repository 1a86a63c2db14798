//! `flow dump`: the rules of the tables, a line each in the syntax of `ovs-ofctl`, so
//! that it can be searched, compared and fed to `flow` tools.

use std::io::{self, Write};

use clap::{Args, Subcommand};
use ferroflow_proto::host::{DumpFlowsRequest, Flow};
use serde::Serialize;

use super::origin::OriginView;
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
        let Self::Dump(Dump { table }) = self;
        let mut host = session.host().await?;
        let request = session.request(DumpFlowsRequest { table: table.map(u32::from) });
        let answer = host_answer(host.dump_flows(request).await)?;
        let flows: Vec<FlowView> = answer.flows.into_iter().map(FlowView::from).collect();
        session.print(&flows, |out| flows.iter().try_for_each(|flow| flow.write(out)))
    }
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
