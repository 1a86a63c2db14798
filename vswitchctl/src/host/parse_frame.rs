//! `parse-frame`: what rules see of frames, by the parser of the switch.

use std::path::PathBuf;

use clap::Args;
use ferroflow_proto::host::DescribeFramesRequest;
use serde::Serialize;

use super::{
    frame::{Frame, parse_frame},
    pcap,
};
use crate::{
    error::CtlError,
    output::printable,
    session::{Session, host_answer},
};

/// Bytes of frames in one request.
const CHUNK_LEN: usize = 64 << 10;

/// Tell what rules see of frames.
#[derive(Debug, Args)]
pub struct ParseFrame {
    /// The bytes of a frame, in hexadecimal; several come one after the other
    #[arg(required_unless_present = "pcap", value_parser = parse_frame)]
    frames: Vec<Frame>,
    /// The frames of a capture file
    #[arg(long, value_name = "FILE", conflicts_with = "frames")]
    pcap: Option<PathBuf>,
}

impl ParseFrame {
    /// Does it.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let frames = match &self.pcap {
            Some(file) => pcap::read_file(file)?,
            None => self.frames.into_iter().map(|Frame(bytes)| bytes).collect(),
        };
        let mut host = session.host().await?;
        let mut views = Vec::with_capacity(frames.len());
        let mut rest = frames.into_iter().peekable();
        while rest.peek().is_some() {
            let mut chunk = Vec::new();
            let mut len = 0;
            while let Some(frame) = rest.next_if(|frame| chunk.is_empty() || len + frame.len() <= CHUNK_LEN) {
                len += frame.len();
                chunk.push(frame);
            }
            let request = session.request(DescribeFramesRequest { frames: chunk });
            let flows = host_answer(host.describe_frames(request).await)?.flows;
            views.extend(
                flows.into_iter().map(|flow| FlowView { flow: Some(flow).filter(|flow| !flow.is_empty()) }),
            );
        }
        session.print(&views, |out| {
            views.iter().try_for_each(|view| {
                let text = view.flow.as_deref().unwrap_or("malformed: shorter than its headers say");
                writeln!(out, "{}", printable(text))
            })
        })
    }
}

/// What is shown of a frame.
#[derive(Debug, Serialize)]
struct FlowView {
    /// Its headers; none: it cannot be read.
    flow: Option<String>,
}
