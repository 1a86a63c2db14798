//! `monitor`: events of the switch as they happen, a line each.

use std::io::{self, Write};

use clap::{Args, ValueEnum};
use ferroflow_proto::host::{
    Event, EventKind, FlowRemoved, MonitorRequest, PacketIn, PortEvent, Sample, event::Event as Happened,
};
use serde::Serialize;
use tonic::Request;

use super::frame::hex;
use crate::{
    address::Daemon,
    error::CtlError,
    output::{as_hex, duration, printable},
    session::{Session, host_answer},
};

/// Print events of the switch as they happen.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct Monitor {
    /// Only these kinds
    #[arg(long, value_enum, value_delimiter = ',', value_name = "KIND")]
    only: Vec<Kind>,
    /// Begin with the event of this index, if it is still kept; 0: with the first one
    #[arg(long, value_name = "N")]
    follow_from: Option<u64>,
    /// End when all that has happened is printed; begins with what is kept
    #[arg(long)]
    kept: bool,
    /// End after so many events
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Print frames, in hexadecimal
    #[arg(short, long)]
    verbose: bool,
}

const HELP: &str = "\
The switch keeps its last events. Who reads too slowly is told how many he has missed.";

/// Kinds of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Packets that rules send to controllers
    PacketIn,
    /// Rules with send_flow_rem that are gone
    FlowRemoved,
    /// Ports that come, go or change
    Port,
    /// Packets that rules show to collectors
    Sample,
}

impl Kind {
    fn message(self) -> EventKind {
        match self {
            Self::PacketIn => EventKind::PacketIn,
            Self::FlowRemoved => EventKind::FlowRemoved,
            Self::Port => EventKind::Port,
            Self::Sample => EventKind::Sample,
        }
    }
}

impl Monitor {
    /// Prints events until there are no more, or enough.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let mut events = session.events().await?;
        // It may take as long as it likes: no deadline.
        let request = Request::new(MonitorRequest {
            from: self.follow_from.or(self.kept.then_some(0)),
            kept_only: self.kept,
            kinds: self.only.iter().map(|kind| kind.message().into()).collect(),
            bridge: session.bridge(),
        });
        let mut stream = host_answer(events.monitor(request).await)?;
        let mut n_printed = 0;
        let wrong = |status: tonic::Status| CtlError::from_status(Daemon::Host, &status);
        while let Some(event) = stream.message().await.map_err(wrong)? {
            let view = EventView::read(event)?;
            session.print_line(&view, |out| view.write(out, self.verbose))?;
            n_printed += 1;
            if self.count == Some(n_printed) {
                break;
            }
        }
        Ok(())
    }
}

/// What is shown of an event.
#[derive(Debug, Serialize)]
struct EventView {
    index: u64,
    /// Nanoseconds.
    time: u64,
    /// Where; empty: in no bridge in particular.
    bridge: String,
    #[serde(flatten)]
    happened: HappenedView,
}

#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
enum HappenedView {
    PacketIn(PacketInView),
    FlowRemoved(FlowRemovedView),
    Port(PortView),
    Sample(SampleView),
    Lost { n_lost: u64 },
}

#[derive(Debug, Serialize)]
struct PacketInView {
    reason: String,
    table: u32,
    #[serde(serialize_with = "as_hex")]
    cookie: u64,
    in_port: u32,
    port: String,
    controller: u32,
    /// In hexadecimal.
    userdata: String,
    metadata: String,
    /// What `resume` names it by, if it waits.
    id: Option<String>,
    n_bytes: u64,
    flow: String,
    /// In hexadecimal.
    frame: String,
}

#[derive(Debug, Serialize)]
struct FlowRemovedView {
    reason: String,
    table: u32,
    priority: u32,
    #[serde(serialize_with = "as_hex")]
    cookie: u64,
    #[serde(rename = "match")]
    matching: String,
    actions: String,
    n_packets: u64,
    n_bytes: u64,
    /// Nanoseconds.
    age: u64,
}

#[derive(Debug, Serialize)]
struct PortView {
    what: String,
    port_no: u32,
    name: String,
    up: bool,
    mtu: u32,
}

#[derive(Debug, Serialize)]
struct SampleView {
    in_port: u32,
    port: String,
    /// Of 65535.
    probability: u32,
    collector_set: u32,
    obs_domain: u32,
    obs_point: u32,
    flow: String,
    /// In hexadecimal.
    frame: String,
}

impl EventView {
    fn read(event: Event) -> Result<Self, CtlError> {
        let unknown = || CtlError::Newer { daemon: Daemon::Host, what: "an event of a new kind".into() };
        let happened = match event.event.ok_or_else(unknown)? {
            Happened::PacketIn(found) => HappenedView::PacketIn(PacketInView::from(found)),
            Happened::FlowRemoved(found) => HappenedView::FlowRemoved(FlowRemovedView::from(found)),
            Happened::Port(PortEvent { what, port_no, name, up, mtu }) => {
                HappenedView::Port(PortView { what, port_no, name, up, mtu })
            }
            Happened::Sample(found) => HappenedView::Sample(SampleView::from(found)),
            Happened::NLost(n_lost) => HappenedView::Lost { n_lost },
        };
        Ok(Self { index: event.index, time: event.time, bridge: event.bridge, happened })
    }

    fn write(&self, out: &mut dyn Write, verbose: bool) -> io::Result<()> {
        let (line, frame) = match &self.happened {
            HappenedView::PacketIn(found) => (found.line(), Some(&found.frame)),
            HappenedView::FlowRemoved(found) => (found.line(), None),
            HappenedView::Port(found) => (found.line(), None),
            HappenedView::Sample(found) => (found.line(), Some(&found.frame)),
            HappenedView::Lost { n_lost } => return writeln!(out, "{n_lost} events lost: read too slowly"),
        };
        let bridge = if self.bridge.is_empty() { String::new() } else { format!("{} ", self.bridge) };
        writeln!(out, "{} {}", duration(self.time), printable(&(bridge + &line)))?;
        match frame {
            Some(frame) if verbose => writeln!(out, "  {frame}"),
            _ => Ok(()),
        }
    }
}

impl PacketInView {
    fn line(&self) -> String {
        let Self { reason, table, cookie, in_port, n_bytes, flow, .. } = self;
        let mut line = format!(
            "packet-in: reason={reason} table={table} cookie={cookie:#x} in_port={in_port} len={n_bytes}"
        );
        if !self.userdata.is_empty() {
            line += &format!(" userdata={}", self.userdata);
        }
        // The input port, which is there anyway, is what others see first.
        let metadata = self.metadata.replace(&format!("in_port={in_port}"), "");
        let metadata = metadata.trim_matches(',');
        if !metadata.is_empty() {
            line += &format!(" metadata={metadata}");
        }
        if let Some(id) = &self.id {
            line += &format!(" id={id}");
        }
        format!("{line} {flow}")
    }
}

impl FlowRemovedView {
    fn line(&self) -> String {
        let Self { reason, table, priority, cookie, matching, n_packets, n_bytes, age, .. } = self;
        let comma = if matching.is_empty() { "" } else { "," };
        let age = duration(*age);
        format!(
            "flow-removed: reason={reason} table={table} cookie={cookie:#x} duration={age} \
             n_packets={n_packets} n_bytes={n_bytes} priority={priority}{comma}{matching}"
        )
    }
}

impl PortView {
    fn line(&self) -> String {
        let state = if self.up { "up" } else { "down" };
        format!("port: {} {} ({}) {state} mtu={}", self.what, self.port_no, self.name, self.mtu)
    }
}

impl SampleView {
    fn line(&self) -> String {
        let Self { in_port, probability, collector_set, obs_domain, obs_point, flow, .. } = self;
        format!(
            "sample: probability={probability} collector_set_id={collector_set} obs_domain_id={obs_domain} \
             obs_point_id={obs_point} in_port={in_port} {flow}"
        )
    }
}

impl From<PacketIn> for PacketInView {
    fn from(found: PacketIn) -> Self {
        Self {
            reason: found.reason,
            table: found.table,
            cookie: found.cookie,
            in_port: found.in_port,
            port: found.port,
            controller: found.controller,
            userdata: hex(&found.userdata),
            metadata: found.metadata,
            id: Some(found.id).filter(|id| !id.is_empty()),
            n_bytes: found.n_bytes,
            flow: found.flow,
            frame: hex(&found.frame),
        }
    }
}

impl From<FlowRemoved> for FlowRemovedView {
    fn from(found: FlowRemoved) -> Self {
        Self {
            reason: found.reason,
            table: found.table,
            priority: found.priority,
            cookie: found.cookie,
            matching: found.r#match,
            actions: found.actions,
            n_packets: found.n_packets,
            n_bytes: found.n_bytes,
            age: found.age_ns,
        }
    }
}

impl From<Sample> for SampleView {
    fn from(found: Sample) -> Self {
        Self {
            in_port: found.in_port,
            port: found.port,
            probability: found.probability,
            collector_set: found.collector_set,
            obs_domain: found.obs_domain,
            obs_point: found.obs_point,
            flow: found.flow,
            frame: hex(&found.frame),
        }
    }
}
