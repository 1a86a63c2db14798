//! `trace --from`: a packet's walk through all hosts that it comes to, as the controller has them
//! asked.

use std::io::{self, Write};

use ferroflow_proto::northbound::{
    TracePacketRequest, TracePacketResponse, TracedHost, trace_packet_request::Packet,
};
use serde::Serialize;

use super::TraceView;
use crate::{
    error::CtlError,
    name::Noun,
    output::{printable, short},
    session::Session,
};

/// Traces a packet of a switch port.
pub(super) async fn run(
    session: &mut Session<'_>,
    from: &str,
    packet: Packet,
    (ct_next, why): (Vec<String>, bool),
) -> Result<(), CtlError> {
    let mut nb = session.controller().await?;
    let port = nb.resolve(Noun::SwitchPort, from).await?;
    let request = TracePacketRequest { port, packet: Some(packet), why, ct_next };
    let view = AcrossView::from(nb.trace_packet(request).await?);
    session.print(&view, |out| view.write(out))
}

/// What is shown of a packet's walk through hosts.
#[derive(Debug, Serialize)]
struct AcrossView {
    hosts: Vec<HostView>,
    n_omitted: u64,
    /// Something leaves a host by a port.
    verdict: &'static str,
}

/// What is shown of one host.
#[derive(Debug, Serialize)]
struct HostView {
    /// None: no host has the address that the packet was sent to.
    chassis: Option<String>,
    /// The host it was tunnelled from.
    from: Option<String>,
    trace: Option<TraceView>,
    /// Why there is no trace.
    error: Option<String>,
}

impl From<TracePacketResponse> for AcrossView {
    fn from(answer: TracePacketResponse) -> Self {
        let hosts: Vec<_> = answer.hosts.into_iter().map(HostView::from).collect();
        let mut traces = hosts.iter().filter_map(|host| host.trace.as_ref());
        let verdict = if traces.any(|trace| !trace.outputs().is_empty()) { "forwarded" } else { "dropped" };
        Self { hosts, n_omitted: answer.n_omitted, verdict }
    }
}

impl From<TracedHost> for HostView {
    fn from(host: TracedHost) -> Self {
        let some = |text: &str| (!text.is_empty()).then(|| short(text).to_owned());
        Self {
            chassis: some(&host.chassis),
            from: some(&host.from),
            trace: host.trace.map(TraceView::from),
            error: (!host.error.is_empty()).then_some(host.error),
        }
    }
}

impl AcrossView {
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        for (idx, host) in self.hosts.iter().enumerate() {
            if idx > 0 {
                writeln!(out)?;
            }
            host.write(out)?;
        }
        if self.n_omitted > 0 {
            writeln!(out, "\n{} more copies are not traced", self.n_omitted)?;
        }
        let places = self.hosts.iter().flat_map(|host| {
            let chassis = host.chassis.as_deref().unwrap_or_default();
            host.trace.iter().flat_map(TraceView::outputs).map(move |output| {
                let port = if output.logical_port.is_empty() { &output.port } else { &output.logical_port };
                format!("{port} on {chassis}")
            })
        });
        let places: Vec<_> = places.collect();
        if places.is_empty() {
            return writeln!(out, "\nin all: {}", self.verdict);
        }
        writeln!(out, "\nin all: {}, by {}", self.verdict, printable(&places.join(", ")))
    }
}

impl HostView {
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let line = match (&self.chassis, &self.from) {
            (Some(chassis), Some(from)) => format!("host {chassis}: in by the tunnel from {from}"),
            (Some(chassis), None) => format!("host {chassis}"),
            (None, from) => format!("tunnelled from {}", from.as_deref().unwrap_or("nowhere")),
        };
        writeln!(out, "{}", printable(&line))?;
        if let Some(error) = &self.error {
            writeln!(out, "  not traced: {}", printable(error))?;
        }
        self.trace.as_ref().map_or(Ok(()), |trace| trace.write(out))
    }
}
