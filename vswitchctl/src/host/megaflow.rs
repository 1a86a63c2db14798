//! `megaflow dump`: the entries of the flow cache, in the syntax of `ovs-dpctl`.

use std::io::{self, Write};

use clap::{Args, Subcommand};
use ferroflow_proto::host::{DumpMegaflowsRequest, Megaflow};
use serde::Serialize;

use super::origin::OriginView;
use crate::{
    error::CtlError,
    output::printable,
    session::{Session, host_answer},
};

/// Entries of the flow cache.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the entries, each with its counters
    Dump(Dump),
}

/// Entries to list.
#[derive(Debug, Args)]
pub struct Dump {
    /// Also print the rules that made each entry, in the order of the walk
    #[arg(long)]
    origins: bool,
}

impl Command {
    /// Does it.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let Self::Dump(Dump { origins }) = self;
        let mut host = session.host().await?;
        let answer = host_answer(
            host.dump_megaflows(session.request(DumpMegaflowsRequest { bridge: session.bridge() })).await,
        )?;
        let entries: Vec<MegaflowView> = answer.megaflows.into_iter().map(MegaflowView::from).collect();
        session.print(&entries, |out| entries.iter().try_for_each(|entry| entry.write(out, origins)))
    }
}

/// What is shown of a cache entry.
#[derive(Debug, Serialize)]
pub struct MegaflowView {
    bridge: String,
    worker: u32,
    /// In the syntax of `ovs-dpctl`.
    #[serde(rename = "match")]
    pub(super) matching: String,
    /// In the syntax of `ovs-dpctl`.
    pub(super) actions: String,
    n_packets: u64,
    n_bytes: u64,
    epoch: u64,
    origins: Vec<OriginView>,
}

impl From<Megaflow> for MegaflowView {
    fn from(entry: Megaflow) -> Self {
        Self {
            bridge: entry.bridge,
            worker: entry.worker,
            matching: entry.r#match,
            actions: entry.actions,
            n_packets: entry.n_packets,
            n_bytes: entry.n_bytes,
            epoch: entry.epoch,
            origins: entry.origins.into_iter().map(OriginView::from).collect(),
        }
    }
}

impl MegaflowView {
    fn write(&self, out: &mut dyn Write, origins: bool) -> io::Result<()> {
        let Self { worker, n_packets, n_bytes, epoch, .. } = self;
        let (matching, actions) = (printable(&self.matching), printable(&self.actions));
        write!(out, "worker {worker}: {matching}, packets:{n_packets}, bytes:{n_bytes}, ")?;
        writeln!(out, "epoch:{epoch}, actions:{actions}")?;
        for origin in self.origins.iter().filter(|_| origins) {
            writeln!(out, "    {}", printable(&origin.text()))?;
        }
        Ok(())
    }
}
