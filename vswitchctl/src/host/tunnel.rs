//! `tunnel`: the way to other hosts.

use clap::Subcommand;
use ferroflow_proto::host::{ListTunnelsRequest, Tunnel};
use serde::Serialize;

use crate::{
    error::CtlError,
    output::Tabular,
    session::{Session, host_answer},
};

/// The way to other hosts.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the hosts that tunnelled packets are exchanged with
    List,
}

impl Command {
    /// Does it.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let Self::List = self;
        let mut underlay = session.underlay().await?;
        let answer = host_answer(underlay.list_tunnels(session.request(ListTunnelsRequest {})).await)?;
        let tunnels: Vec<_> = answer.tunnels.into_iter().map(TunnelView::from).collect();
        session.print_rows(&tunnels)
    }
}

/// What is shown of a tunnel.
#[derive(Debug, Serialize)]
struct TunnelView {
    port: String,
    port_no: u32,
    kind: String,
    local: String,
    remote: String,
    udp_port: u32,
    /// Id of the other host.
    chassis: Option<String>,
    /// MAC address that packets go to.
    next_hop: Option<String>,
    /// Whether it lives, where that is watched.
    liveness: Option<String>,
    mtu: u32,
}

impl From<Tunnel> for TunnelView {
    fn from(found: Tunnel) -> Self {
        let some = |text: String| Some(text).filter(|text| !text.is_empty());
        Self {
            port: found.port,
            port_no: found.port_no,
            kind: found.kind,
            local: found.local,
            remote: found.remote,
            udp_port: found.udp_port,
            chassis: some(found.chassis),
            next_hop: some(found.next_hop),
            liveness: some(found.liveness),
            mtu: found.mtu,
        }
    }
}

impl Tabular for TunnelView {
    const HEADINGS: &'static [&'static str] =
        &["PORT", "KIND", "LOCAL", "REMOTE", "CHASSIS", "NEXT-HOP", "LIVENESS", "MTU"];

    fn cells(&self) -> Vec<String> {
        let shown = |text: &Option<String>| text.clone().unwrap_or_default();
        vec![
            self.port.clone(),
            self.kind.clone(),
            self.local.clone(),
            self.remote.clone(),
            shown(&self.chassis),
            shown(&self.next_hop),
            shown(&self.liveness),
            self.mtu.to_string(),
        ]
    }
}
