//! `explain`: why two workloads can or cannot talk.

use std::io::{self, Write};

use clap::{Args, ValueEnum};
use ferroflow_proto::northbound::{ExplainRequest, ExplainResponse, ExplainedStep, ExplainedWay};
use serde::Serialize;

use crate::{
    error::CtlError,
    name::Noun,
    output::{printable, short},
    session::Session,
};

/// Tell why two workloads can or cannot talk, and which objects have a say; exit code 1 when
/// they cannot. Nothing is sent.
#[derive(Debug, Args)]
pub struct Explain {
    /// Switch port of the workload that begins
    from: String,
    /// Switch port of the workload that is to answer
    to: String,
    /// How they want to talk
    #[arg(long, value_enum, default_value_t = Proto::Icmp)]
    proto: Proto,
    /// Destination port, of tcp and udp
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=65_535), required_if_eq_any([("proto", "tcp"), ("proto", "udp")]))]
    port: Option<u32>,
    /// Address that is asked for, when it is not one of the other's own: a load balancer's
    #[arg(long, value_name = "ADDRESS")]
    address: Option<std::net::IpAddr>,
    /// Also show what each flow matches and does
    #[arg(short, long)]
    verbose: bool,
}

/// Protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Proto {
    Tcp,
    Udp,
    Icmp,
}

impl Proto {
    fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
        }
    }
}

/// The answer.
#[derive(Debug, Serialize)]
struct ExplanationView {
    revision: u64,
    can_talk: bool,
    there: Option<WayView>,
    back: Option<WayView>,
}

/// One direction.
#[derive(Debug, Serialize)]
struct WayView {
    source: String,
    destination: String,
    outcome: String,
    detail: String,
    ports: Vec<String>,
    steps: Vec<StepView>,
}

/// A flow that had a say.
#[derive(Debug, Serialize)]
struct StepView {
    datapath: String,
    stage: String,
    object: String,
    r#match: String,
    actions: String,
    why: String,
}

impl Explain {
    /// Does it.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let mut nb = session.controller().await?;
        let request = ExplainRequest {
            from: nb.resolve(Noun::SwitchPort, &self.from).await?,
            to: nb.resolve(Noun::SwitchPort, &self.to).await?,
            protocol: self.proto.name().to_owned(),
            port: self.port.unwrap_or_default(),
            address: self.address.map(|ip| ip.to_string()).unwrap_or_default(),
        };
        let names = [short(&request.from).to_owned(), short(&request.to).to_owned()];
        let view = ExplanationView::from(nb.explain(request).await?);
        session.print(&view, |out| view.write(&names, self.verbose, out))?;
        if view.can_talk { Ok(()) } else { Err(CtlError::CannotTalk) }
    }
}

impl From<ExplainResponse> for ExplanationView {
    fn from(answer: ExplainResponse) -> Self {
        let ExplainResponse { revision, can_talk, there, back } = answer;
        Self { revision, can_talk, there: there.map(WayView::from), back: back.map(WayView::from) }
    }
}

impl From<ExplainedWay> for WayView {
    fn from(way: ExplainedWay) -> Self {
        let ExplainedWay { source, destination, outcome, detail, ports, steps } = way;
        let steps = steps.into_iter().map(StepView::from).collect();
        Self { source, destination, outcome, detail, ports, steps }
    }
}

impl From<ExplainedStep> for StepView {
    fn from(step: ExplainedStep) -> Self {
        let ExplainedStep { datapath, stage, object, r#match, actions, why } = step;
        Self { datapath, stage, object, r#match, actions, why }
    }
}

impl ExplanationView {
    fn write(&self, [from, to]: &[String; 2], verbose: bool, out: &mut dyn Write) -> io::Result<()> {
        let ways = [(&self.there, from, to), (&self.back, to, from)];
        for (way, from, to) in ways.into_iter().filter_map(|(way, from, to)| Some((way.as_ref()?, from, to)))
        {
            writeln!(out, "{from} ({}) to {to} ({}):", way.source, way.destination)?;
            way.write(verbose, out)?;
        }
        let verdict = if self.can_talk { "they can talk" } else { "they cannot talk" };
        writeln!(out, "{verdict}, by revision {}", self.revision)
    }
}

impl WayView {
    fn write(&self, verbose: bool, out: &mut dyn Write) -> io::Result<()> {
        for step in &self.steps {
            let StepView { stage, object, why, r#match, actions, .. } = step;
            writeln!(out, "  {stage:18} {}: {}", printable(object), printable(why))?;
            if verbose {
                writeln!(out, "      {}\n      {}", printable(r#match), printable(actions))?;
            }
        }
        let cause = self.steps.last().map_or("the network", |step| &step.object);
        let cause = printable(cause);
        match self.outcome.as_str() {
            "arrives" => writeln!(out, "  arrives"),
            "elsewhere" => writeln!(out, "  leaves elsewhere: {}", printable(&self.ports.join(", "))),
            "host" if self.detail == "reject" => writeln!(out, "  refused by {cause}"),
            "host" => writeln!(out, "  ends at the host ({}), by {cause}", printable(&self.detail)),
            _ => writeln!(out, "  dropped by {cause}: {}", printable(&self.detail)),
        }
    }
}
