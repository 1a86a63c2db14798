//! `trace`: one packet's walk through the tables, each rule it hits with where that
//! comes from, and what becomes of it.

mod across;

use std::{
    io::{self, Write},
    path::PathBuf,
};

use clap::Args;
use ferroflow_proto::{
    host::{
        TraceHop, TracePass, TraceRequest, TraceResponse, TraceStep, TracedOutput, trace_request::Packet,
    },
    northbound::trace_packet_request,
};
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
    /// The switch port it comes in by, on whatever host that is: the controller has it traced there,
    /// and what it becomes on the hosts that it is tunnelled to
    #[arg(long, value_name = "PORT", conflicts_with_all = ["in_port", "pcap"])]
    from: Option<String>,
    /// What the connection tracker is assumed to say when the packet comes back from it:
    /// `trk,est`. Repeat it for the second time, the third and so on [default: trk,new]
    #[arg(long, value_name = "STATE")]
    ct_next: Vec<String>,
    /// Tell why other rules were not the ones
    #[arg(long)]
    why: bool,
}

impl Trace {
    /// Does it.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        if let Some(from) = self.from {
            let packet = match self.frame {
                Some(Frame(bytes)) => trace_packet_request::Packet::Frame(bytes),
                None => trace_packet_request::Packet::Flow(self.flow.unwrap_or_default()),
            };
            return across::run(session, &from, packet, (self.ct_next, self.why)).await;
        }
        // Interfaces have no '/', so this can only be the full name of a switch port.
        let in_port = self.in_port.map(|port| short(&port).to_owned()).unwrap_or_default();
        if let Some(file) = &self.pcap {
            let frames = pcap::read_file(file)?.into_iter().map(Packet::Frame).collect();
            let views = trace_all(session, frames, (in_port, self.ct_next, self.why)).await?;
            return session.print(&views, |out| {
                views.iter().enumerate().try_for_each(|(idx, view)| {
                    writeln!(out, "{}frame {}", if idx == 0 { "" } else { "\n" }, idx + 1)?;
                    view.write(out)
                })
            });
        }
        let packet = match self.frame {
            Some(Frame(bytes)) => Packet::Frame(bytes),
            None => Packet::Flow(self.flow.unwrap_or_default()),
        };
        let views = trace_all(session, vec![packet], (in_port, self.ct_next, self.why)).await?;
        views.iter().try_for_each(|view| session.print(view, |out| view.write(out)))
    }
}

/// Traces packets, one after the other.
async fn trace_all(
    session: &Session<'_>,
    packets: Vec<Packet>,
    (in_port, ct_next, why): (String, Vec<String>, bool),
) -> Result<Vec<TraceView>, CtlError> {
    let mut host = session.host().await?;
    let mut views = Vec::with_capacity(packets.len());
    for packet in packets {
        let (in_port, ct_next) = (in_port.clone(), ct_next.clone());
        let bridge = session.bridge();
        let packet = Some(packet);
        let request = TraceRequest { packet, in_port, why, ct_next, bridge, from_underlay: false };
        views.push(TraceView::from(host_answer(host.trace(session.request(request)).await)?));
    }
    Ok(views)
}

/// What is shown of a walk.
#[derive(Debug, Serialize)]
pub(super) struct TraceView {
    steps: Vec<StepView>,
    verdict: String,
    drop: Option<DropView>,
    megaflow: Option<MegaflowView>,
    /// What came back from the connection tracker.
    passes: Vec<PassView>,
    n_omitted_passes: u64,
    /// Bridge that it came in by.
    bridge: String,
    /// What became of copies in other bridges.
    hops: Vec<HopView>,
    n_omitted_hops: u64,
    /// Addresses of the hosts that copies are tunnelled to.
    tunnelled: Vec<String>,
    /// Ports that copies leave by.
    outputs: Vec<OutputView>,
}

/// What is shown of a port that a copy leaves by.
#[derive(Debug, Clone, Serialize)]
pub(super) struct OutputView {
    pub(super) port: String,
    /// Id of the switch port, where it is one's.
    pub(super) logical_port: String,
}

/// What is shown of a walk through another bridge.
#[derive(Debug, Serialize)]
struct HopView {
    bridge: String,
    in_port: String,
    from: String,
    steps: Vec<StepView>,
    drop: Option<DropView>,
    megaflow: Option<MegaflowView>,
    passes: Vec<PassView>,
    n_omitted_passes: u64,
}

/// What is shown of a walk after the connection tracker.
#[derive(Debug, Serialize)]
struct PassView {
    recirc_id: u32,
    /// What it is assumed to have said; none: it was not asked.
    ct_state: Option<String>,
    /// It was asked for, not the default.
    asked: bool,
    steps: Vec<StepView>,
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
    /// The rule was not the one.
    lost: bool,
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
            lost: step.lost,
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
            passes: trace.passes.into_iter().map(PassView::from).collect(),
            n_omitted_passes: trace.n_omitted_passes,
            bridge: trace.bridge,
            hops: trace.hops.into_iter().map(HopView::from).collect(),
            n_omitted_hops: trace.n_omitted_hops,
            tunnelled: trace.tunnelled.into_iter().map(|copy| copy.peer).collect(),
            outputs: trace
                .outputs
                .into_iter()
                .map(|TracedOutput { port, logical_port }| OutputView { port, logical_port })
                .collect(),
        }
    }
}

impl From<TraceHop> for HopView {
    fn from(hop: TraceHop) -> Self {
        Self {
            bridge: hop.bridge,
            in_port: hop.in_port,
            from: hop.from,
            steps: hop.steps.into_iter().map(StepView::from).collect(),
            drop: hop.drop.map(DropView::from),
            megaflow: hop.megaflow.map(MegaflowView::from),
            passes: hop.passes.into_iter().map(PassView::from).collect(),
            n_omitted_passes: hop.n_omitted_passes,
        }
    }
}

impl HopView {
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let line = format!("bridge {}: in by {}, from {}", self.bridge, self.in_port, self.from);
        writeln!(out, "\n{}", printable(&line))?;
        self.steps.iter().try_for_each(|step| step.write(out))?;
        write_end(out, self.drop.as_ref(), self.megaflow.as_ref())?;
        write_passes(out, &self.passes, self.n_omitted_passes)
    }
}

/// What came back from the connection tracker.
fn write_passes(out: &mut dyn Write, passes: &[PassView], n_omitted: u64) -> io::Result<()> {
    passes.iter().try_for_each(|pass| pass.write(out))?;
    if n_omitted > 0 {
        writeln!(out, "\n{n_omitted} more passes are not traced")?;
    }
    Ok(())
}

impl From<TracePass> for PassView {
    fn from(pass: TracePass) -> Self {
        Self {
            recirc_id: pass.recirc_id,
            ct_state: Some(pass.ct_state).filter(|state| !state.is_empty()),
            asked: pass.asked,
            steps: pass.steps.into_iter().map(StepView::from).collect(),
            drop: pass.drop.map(DropView::from),
            megaflow: pass.megaflow.map(MegaflowView::from),
        }
    }
}

impl PassView {
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        write!(out, "\nrecirc({:#x})", self.recirc_id)?;
        match (&self.ct_state, self.asked) {
            (Some(state), true) => writeln!(out, ": ct_state {} assumed, as asked", printable(state))?,
            (Some(state), false) => {
                writeln!(out, ": ct_state {} assumed; another with --ct-next", printable(state))?;
            }
            (None, _) => writeln!(out)?,
        }
        self.steps.iter().try_for_each(|step| step.write(out))?;
        write_end(out, self.drop.as_ref(), self.megaflow.as_ref())
    }
}

/// Why nothing leaves, and the cache entry.
fn write_end(
    out: &mut dyn Write,
    drop: Option<&DropView>,
    megaflow: Option<&MegaflowView>,
) -> io::Result<()> {
    if let Some(drop) = drop {
        writeln!(out, "  reason: {}: {}", printable(&drop.reason), printable(&drop.description))?;
        if let Some(origin) = drop.origin.as_ref().map(OriginView::text).filter(|text| !text.is_empty()) {
            writeln!(out, "  by: {}", printable(&origin))?;
        }
    }
    if let Some(entry) = megaflow {
        writeln!(out, "megaflow: {}", printable(&entry.matching))?;
        writeln!(out, "  actions: {}", printable(&entry.actions))?;
    }
    Ok(())
}

impl StepView {
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let indent = "  ".repeat(self.depth.min(DEPTH_MAX) as usize);
        if self.lost {
            let (priority, matching) = (self.priority.unwrap_or_default(), &self.matching);
            let matching = if matching.is_empty() { "any packet" } else { matching };
            let line = format!("  not priority {priority}: {matching}: {}", self.note);
            return writeln!(out, "{indent}{}", printable(&line));
        }
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
    /// Ports that copies leave by.
    pub(super) fn outputs(&self) -> &[OutputView] {
        &self.outputs
    }

    /// Prints it.
    pub(super) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        self.steps.iter().try_for_each(|step| step.write(out))?;
        if self.passes.is_empty() && self.hops.is_empty() {
            writeln!(out, "\nverdict: {}", printable(&self.verdict))?;
            return write_end(out, self.drop.as_ref(), self.megaflow.as_ref());
        }
        write_end(out, self.drop.as_ref(), self.megaflow.as_ref())?;
        write_passes(out, &self.passes, self.n_omitted_passes)?;
        self.hops.iter().try_for_each(|hop| hop.write(out))?;
        if self.n_omitted_hops > 0 {
            writeln!(out, "\n{} more links are not traced", self.n_omitted_hops)?;
        }
        writeln!(out, "\nverdict: {}", printable(&self.verdict))
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
