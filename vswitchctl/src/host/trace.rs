//! `trace`: one packet's walk through the tables, each rule it hits with where that
//! comes from, and what becomes of it.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use clap::Args;
use ferroflow_proto::host::{TraceRequest, TraceResponse, TraceStep, trace_request::Packet};
use serde::Serialize;

use super::{
    drops::DropView,
    frame::{Frame, parse_frame},
    megaflow::MegaflowView,
    origin::OriginView,
    pcap,
};
use crate::{
    error::CtlError,
    output::{printable, short},
    session::{Session, host_answer},
};

/// Deepest nesting that is shown by indentation.
const DEPTH_MAX: u32 = 40;

/// Walk one packet through the tables without sending it.
#[derive(Debug, Args)]
pub struct Trace {
    /// The packet as a flow: tcp,nw_src=10.0.1.11,nw_dst=10.0.2.11,tp_dst=23
    #[arg(required_unless_present_any = ["frame", "pcap"])]
    flow: Option<String>,
    /// The packet as the bytes of a frame, in hexadecimal
    #[arg(long, value_name = "HEX", conflicts_with = "flow", value_parser = parse_frame)]
    frame: Option<Frame>,
    /// The packets of a capture file, one after the other
    #[arg(long, value_name = "FILE", conflicts_with_all = ["flow", "frame"])]
    pcap: Option<PathBuf>,
    /// The port it comes in by: an interface or a switch port
    #[arg(long, value_name = "PORT")]
    in_port: Option<String>,
}

impl Trace {
    /// Does it.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        // Interfaces have no '/', so this can only be the full name of a switch port.
        let in_port = self.in_port.map(|port| short(&port).to_owned()).unwrap_or_default();
        if let Some(file) = &self.pcap {
            return trace_all(session, pcap::read_file(file)?, in_port).await;
        }
        let packet = match self.frame {
            Some(Frame(bytes)) => Packet::Frame(bytes),
            None => Packet::Flow(self.flow.unwrap_or_default()),
        };
        let mut host = session.host().await?;
        let request = session.request(TraceRequest { packet: Some(packet), in_port });
        let view = TraceView::from(host_answer(host.trace(request).await)?);
        session.print(&view, |out| view.write(out))
    }
}

/// Traces the frames of a capture.
async fn trace_all(session: &mut Session<'_>, frames: Vec<Vec<u8>>, in_port: String) -> Result<(), CtlError> {
    let mut host = session.host().await?;
    let mut views = Vec::with_capacity(frames.len());
    for frame in frames {
        let packet = Some(Packet::Frame(frame));
        let request = session.request(TraceRequest { packet, in_port: in_port.clone() });
        views.push(TraceView::from(host_answer(host.trace(request).await)?));
    }
    session.print(&views, |out| {
        views.iter().enumerate().try_for_each(|(idx, view)| {
            writeln!(out, "{}frame {}", if idx == 0 { "" } else { "\n" }, idx + 1)?;
            view.write(out)
        })
    })
}

/// What is shown of a walk.
#[derive(Debug, Serialize)]
struct TraceView {
    steps: Vec<StepView>,
    verdict: String,
    drop: Option<DropView>,
    megaflow: Option<MegaflowView>,
}

/// What is shown of a step.
#[derive(Debug, Serialize)]
struct StepView {
    depth: u32,
    table: Option<u32>,
    priority: Option<u32>,
    #[serde(rename = "match")]
    matching: String,
    actions: String,
    origin: Option<OriginView>,
    note: String,
}

impl From<TraceStep> for StepView {
    fn from(step: TraceStep) -> Self {
        Self {
            depth: step.depth,
            table: step.table,
            priority: step.priority,
            matching: step.r#match,
            actions: step.actions,
            origin: step.origin.map(OriginView::from),
            note: step.note,
        }
    }
}

impl From<TraceResponse> for TraceView {
    fn from(trace: TraceResponse) -> Self {
        Self {
            steps: trace.steps.into_iter().map(StepView::from).collect(),
            verdict: trace.verdict,
            drop: trace.drop.map(DropView::from),
            megaflow: trace.megaflow.map(MegaflowView::from),
        }
    }
}

impl StepView {
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let indent = "  ".repeat(self.depth.min(DEPTH_MAX) as usize);
        let mut lines = Vec::new();
        let head = self.head();
        if !head.is_empty() {
            lines.push(head);
        }
        // Below the rule's line, what belongs to it.
        let inner = if lines.is_empty() { "" } else { "    " };
        if let Some(origin) = self.origin.as_ref().map(OriginView::text).filter(|text| !text.is_empty()) {
            lines.push(format!("{inner}from {origin}"));
        }
        if !self.actions.is_empty() {
            lines.push(format!("{inner}actions {}", self.actions));
        }
        if !self.note.is_empty() {
            lines.push(format!("{inner}{}", self.note));
        }
        lines.iter().try_for_each(|line| writeln!(out, "{indent}{}", printable(line)))
    }

    /// `table 8, priority 50: ip,nw_dst=10.0.0.0/8`, or that nothing matched.
    fn head(&self) -> String {
        let matching = if self.matching.is_empty() { "any packet" } else { &self.matching };
        match (self.table, self.priority) {
            (Some(table), Some(priority)) => format!("table {table}, priority {priority}: {matching}"),
            (Some(table), None) => format!("table {table}: no rule matches"),
            (None, _) => String::new(),
        }
    }
}

impl TraceView {
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        self.steps.iter().try_for_each(|step| step.write(out))?;
        writeln!(out, "\nverdict: {}", printable(&self.verdict))?;
        if let Some(drop) = &self.drop {
            writeln!(out, "  reason: {}: {}", printable(&drop.reason), printable(&drop.description))?;
            if let Some(origin) = drop.origin.as_ref().map(OriginView::text).filter(|text| !text.is_empty()) {
                writeln!(out, "  by: {}", printable(&origin))?;
            }
        }
        if let Some(entry) = &self.megaflow {
            writeln!(out, "megaflow: {}", printable(&entry.matching))?;
            writeln!(out, "  actions: {}", printable(&entry.actions))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endless_depth_is_not_indented_endlessly() {
        let step = TraceStep { depth: u32::MAX, note: "deep".into(), ..Default::default() };
        let mut text = Vec::new();
        StepView::from(step).write(&mut text).unwrap();
        assert_eq!(text.len(), 2 * DEPTH_MAX as usize + "deep\n".len());
    }
}
