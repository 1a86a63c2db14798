//! `endpoint`: containers' interfaces, as shims had them made.

use clap::Subcommand;
use ferroflow_proto::host::{Endpoint, ListEndpointsRequest, ReleaseAddressesRequest};
use serde::Serialize;

use crate::{
    error::CtlError,
    output::Tabular,
    session::{Session, host_answer},
};

/// Containers' interfaces, as shims had them made.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List them
    List,
    /// Give leased addresses back that no container has
    Release,
}

impl Command {
    /// Does it.
    ///
    /// # Errors
    /// The daemon does not answer.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        match self {
            Self::List => {
                let rows: Vec<_> = list(session).await?.into_iter().map(EndpointView::from).collect();
                session.print_rows(&rows)
            }
            Self::Release => {
                let released = release(session).await?;
                session.print(&released, |out| {
                    released.iter().try_for_each(|address| writeln!(out, "gave back {address}"))
                })
            }
        }
    }
}

/// Has the host give back what it leases and does not use.
pub(crate) async fn release(session: &Session<'_>) -> Result<Vec<String>, CtlError> {
    let mut client = session.endpoints().await?;
    let request = session.request(ReleaseAddressesRequest {});
    Ok(host_answer(client.release_addresses(request).await)?.addresses)
}

/// The endpoints of the host.
pub(crate) async fn list(session: &Session<'_>) -> Result<Vec<Endpoint>, CtlError> {
    let mut client = session.endpoints().await?;
    Ok(host_answer(client.list_endpoints(session.request(ListEndpointsRequest {})).await)?.endpoints)
}

/// What is shown of an endpoint.
#[derive(Debug, Serialize)]
struct EndpointView {
    network: String,
    container: String,
    interface: String,
    netns: String,
    host_interface: String,
    port: String,
    mac: String,
    addresses: Vec<String>,
    mtu: u32,
}

impl From<Endpoint> for EndpointView {
    fn from(endpoint: Endpoint) -> Self {
        let Endpoint { key, netns, port, host_interface, addresses, mac, mtu, .. } = endpoint;
        let key = key.unwrap_or_default();
        Self {
            network: key.network,
            container: key.container,
            interface: key.interface,
            netns,
            host_interface,
            port,
            mac,
            addresses,
            mtu,
        }
    }
}

impl Tabular for EndpointView {
    const HEADINGS: &'static [&'static str] =
        &["NETWORK", "CONTAINER", "INTERFACE", "HOST-INTERFACE", "PORT", "ADDRESSES"];

    fn cells(&self) -> Vec<String> {
        /// As container runtimes show ids.
        const SHOWN: usize = 12;
        vec![
            self.network.clone(),
            self.container.chars().take(SHOWN).collect(),
            self.interface.clone(),
            self.host_interface.clone(),
            self.port.clone(),
            self.addresses.join(" "),
        ]
    }
}
