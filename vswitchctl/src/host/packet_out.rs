//! `packet-out` and `resume`: what a controller says about a packet.

use clap::Args;
use ferroflow_proto::host::{
    InjectedPacket, ResumePacketRequest, SendPacketRequest, SendPacketResponse,
    injected_packet::Packet as Given,
};
use serde::Serialize;

use super::{
    drops::DropView,
    frame::{Frame, parse_frame},
    lab::FrameView,
};
use crate::{
    error::CtlError,
    output::printable,
    session::{Session, host_answer},
};

/// Carry out actions on a packet of your own.
#[derive(Debug, Args)]
pub struct PacketOut {
    /// The port it seems to have come in by, by name or number; CONTROLLER for none
    #[arg(value_name = "PORT")]
    in_port: String,
    /// What to do with it: `output:2`, or `resubmit(,0)` to have it go through the tables
    actions: String,
    /// The bytes of the frame, in hexadecimal
    #[arg(required_unless_present = "flow", value_parser = parse_frame)]
    frame: Option<Frame>,
    /// A frame with these headers: udp,nw_src=10.0.0.1,nw_dst=10.0.0.2
    #[arg(long, conflicts_with = "frame")]
    flow: Option<String>,
}

/// Let a packet go on that waits since a rule said controller(pause).
#[derive(Debug, Args)]
pub struct Resume {
    /// Its id, as `monitor` shows it
    id: String,
    /// The frame as it shall be, in hexadecimal; as it was by default
    #[arg(long, value_name = "HEX", value_parser = parse_frame)]
    frame: Option<Frame>,
    /// Registers and metadata that change: reg0=5,metadata=7
    #[arg(long, value_name = "FIELDS", default_value = "", hide_default_value = true)]
    metadata: String,
}

impl PacketOut {
    /// Does it.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let packet = match self.frame {
            Some(Frame(bytes)) => Given::Frame(bytes),
            None => Given::Flow(self.flow.unwrap_or_default()),
        };
        let packet = Some(InjectedPacket { packet: Some(packet) });
        let mut events = session.events().await?;
        let request = SendPacketRequest {
            in_port: self.in_port,
            actions: self.actions,
            packet,
            bridge: session.bridge(),
        };
        let answer = host_answer(events.send_packet(session.request(request)).await)?;
        print(session, answer)
    }
}

impl Resume {
    /// Does it.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let frame = self.frame.map(|Frame(bytes)| bytes);
        let mut events = session.events().await?;
        let request = ResumePacketRequest { id: self.id, frame, metadata: self.metadata };
        let answer = host_answer(events.resume_packet(session.request(request)).await)?;
        print(session, answer)
    }
}

fn print(session: &mut Session<'_>, answer: SendPacketResponse) -> Result<(), CtlError> {
    let view = SentView {
        forwarded: answer.forwarded,
        drops: answer.drops.into_iter().map(DropView::from).collect(),
        outputs: answer.outputs.into_iter().map(FrameView::from).collect(),
    };
    session.print(&view, |out| {
        writeln!(out, "{}", if view.forwarded { "forwarded" } else { "dropped" })?;
        for drop in &view.drops {
            writeln!(out, "  {}", printable(&drop.sentence()))?;
        }
        view.outputs.iter().try_for_each(|frame| frame.write(out))
    })
}

/// What is shown of a packet that was sent.
#[derive(Debug, Serialize)]
struct SentView {
    forwarded: bool,
    drops: Vec<DropView>,
    outputs: Vec<FrameView>,
}
