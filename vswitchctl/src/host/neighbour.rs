//! `neighbour`: who the host knows, on the underlay and in the logical network.

use clap::Subcommand;
use ferroflow_proto::host::{ListNeighboursRequest, Neighbour};
use serde::Serialize;

use crate::{
    error::CtlError,
    output::Tabular,
    session::{Session, host_answer},
};

/// Neighbours that are known.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the next hops to other hosts, and what logical routers have heard
    List,
}

impl Command {
    /// Does it.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let Self::List = self;
        let mut underlay = session.underlay().await?;
        let answer = host_answer(underlay.list_neighbours(session.request(ListNeighboursRequest {})).await)?;
        let neighbours: Vec<_> = answer.neighbours.into_iter().map(NeighbourView::from).collect();
        session.print_rows(&neighbours)
    }
}

/// What is shown of a neighbour.
#[derive(Debug, Serialize)]
struct NeighbourView {
    network: String,
    port: String,
    address: String,
    mac: String,
}

impl From<Neighbour> for NeighbourView {
    fn from(found: Neighbour) -> Self {
        Self { network: found.network, port: found.port, address: found.address, mac: found.mac }
    }
}

impl Tabular for NeighbourView {
    const HEADINGS: &'static [&'static str] = &["NETWORK", "PORT", "ADDRESS", "MAC"];

    fn cells(&self) -> Vec<String> {
        vec![self.network.clone(), self.port.clone(), self.address.clone(), self.mac.clone()]
    }
}
