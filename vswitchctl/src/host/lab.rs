//! `lab`: drives a switch without interfaces, `vswitchd --virtual`: its ports, the frames
//! on their wires, its clock. Its rules are written with `flow`. `lab start` becomes a
//! controller with such hosts, whose rules are made from its network.

use std::{
    env,
    io::{self, Write},
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process,
};

use clap::{Args, Subcommand};
use ferroflow_proto::host::{
    AddLabPortRequest, InjectRequest, InjectResponse, InjectedPacket, OutputFrame, ReadOutputRequest,
    RemovePortRequest, SetClockRequest, SetClockResponse, injected_packet::Packet as Given,
};
use serde::Serialize;

use super::{
    drops::DropView,
    frame::{Frame, hex, parse_frame},
    pcap,
    port::{Detached, PortView, parse_number},
};
use crate::{
    address::Daemon,
    error::CtlError,
    net::binding::wait_until_up,
    output::printable,
    session::{Session, host_answer},
};

/// Bytes of frames in one request.
const CHUNK_LEN: usize = 256 << 10;
const NANOS: u64 = 1_000_000_000;
/// The program with a controller and hosts.
const PROGRAM: &str = "vswitch-lab";

/// A switch without interfaces (vswitchd --virtual), or a network of them (lab start), to
/// learn with and to test.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a controller and hosts without interfaces, in this process, until it is stopped
    Start(Start),
    /// Ports, which are queues of frames
    #[command(subcommand)]
    Port(PortCommand),
    /// Have a port receive frames, and tell what became of them
    Inject(Inject),
    /// Print the frames that have left a port
    Output(Output),
    /// The switch's clock
    #[command(subcommand)]
    Clock(ClockCommand),
}

/// A lab of several hosts.
#[derive(Debug, Args)]
pub struct Start {
    /// Directory for the sockets; export it as VSWITCH_LAB for other commands
    #[arg(long, value_name = "DIR", default_value = "lab")]
    dir: PathBuf,
    /// How many hosts; their names are h1, h2 and so on
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    hosts: u32,
    /// What it logs
    #[arg(long, default_value = "warn")]
    log: String,
}

/// Ports of a lab.
#[derive(Debug, Subcommand)]
pub enum PortCommand {
    /// Add a port; adding it again changes nothing
    Add(AddPort),
    /// Remove a port
    Del(DelPort),
}

/// A port to add.
#[derive(Debug, Args)]
pub struct AddPort {
    /// Its name
    name: String,
    /// Its number in rules, or LOCAL for the host's own; the lowest that is free by default
    #[arg(long, value_name = "N", value_parser = parse_number)]
    number: Option<u32>,
    /// Largest L3 packet that may leave by it, in bytes [default: 1500]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..))]
    mtu: Option<u32>,
    /// The switch port that it is for
    #[arg(long, value_name = "ID", conflicts_with = "network")]
    logical_port: Option<String>,
    /// The physical network that it leads to; all hosts' ports of the same one are on one wire
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
}

/// A port to remove.
#[derive(Debug, Args)]
pub struct DelPort {
    /// Its name
    name: String,
    /// Succeed when there is none
    #[arg(long)]
    if_exists: bool,
}

/// Frames to receive.
#[derive(Debug, Args)]
pub struct Inject {
    /// The port that receives them, by name or number
    port: String,
    /// The bytes of a frame, in hexadecimal; several come one after the other
    #[arg(required_unless_present_any = ["flow", "pcap"], value_parser = parse_frame)]
    frames: Vec<Frame>,
    /// A frame with these headers: udp,nw_src=10.0.0.1,nw_dst=10.0.0.2
    #[arg(long, conflicts_with = "frames")]
    flow: Vec<String>,
    /// The frames of a capture file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["frames", "flow"])]
    pcap: Option<PathBuf>,
}

/// Frames to print.
#[derive(Debug, Args)]
pub struct Output {
    /// The port they left by, by name or number
    port: String,
    /// Only those from this index on: 0 is the first that ever left, `next` of an earlier
    /// answer the first that is new
    #[arg(long, value_name = "N", default_value_t = 0)]
    follow_from: u64,
    /// Write them to a capture file instead
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
}

/// What to do with the clock.
#[derive(Debug, Subcommand)]
pub enum ClockCommand {
    /// Stop it: from then on it moves only when it is advanced
    Stop,
    /// Let it run on
    Start,
    /// Make it later at once, and have happen what was to happen until then
    Advance {
        /// By how much
        #[arg(value_name = "SECONDS", value_parser = parse_seconds)]
        nanos: u64,
    },
    /// Tell the time
    Show,
}

impl Command {
    /// Whether `--wait` means something to it.
    pub fn takes_wait(&self) -> bool {
        matches!(self, Self::Port(PortCommand::Add(add)) if add.logical_port.is_some())
    }

    /// Does it.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        match self {
            Self::Start(start) => start.run(),
            Self::Port(PortCommand::Add(add)) => add.run(session).await,
            Self::Port(PortCommand::Del(del)) => del.run(session).await,
            Self::Inject(inject) => inject.run(session).await,
            Self::Output(output) => output.run(session).await,
            Self::Clock(command) => command.run(session).await,
        }
    }
}

impl Start {
    /// Becomes the program beside this one, or else the one in the path.
    fn run(self) -> Result<(), CtlError> {
        let beside = env::current_exe().ok().map(|program| program.with_file_name(PROGRAM));
        let program = beside.filter(|path| path.exists()).unwrap_or_else(|| PROGRAM.into());
        let mut command = process::Command::new(&program);
        command.arg("--dir").arg(self.dir).args(["--hosts", &self.hosts.to_string(), "--log", &self.log]);
        let error = command.exec();
        Err(CtlError::File { file: program.display().to_string(), line: None, reason: error.to_string() })
    }
}

impl AddPort {
    async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let mut lab = session.lab().await?;
        let logical_port = self.logical_port.unwrap_or_default();
        let request = session.request(AddLabPortRequest {
            name: self.name,
            port_no: self.number.unwrap_or_default(),
            mtu: self.mtu.unwrap_or_default(),
            bridge: session.bridge(),
            logical_port: logical_port.clone(),
            network: self.network.unwrap_or_default(),
        });
        let answer = host_answer(lab.add_lab_port(request).await)?;
        let Some(port) = answer.port.map(PortView::from) else {
            return Err(CtlError::Newer { daemon: Daemon::Host, what: "an answer without its port".into() });
        };
        session.print(&port, |out| writeln!(out, "{}", printable(&port.sentence())))?;
        if logical_port.is_empty() { Ok(()) } else { wait_until_up(session, &logical_port).await }
    }
}

impl DelPort {
    async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let mut host = session.host().await?;
        let request = RemovePortRequest { interface: self.name.clone(), allow_missing: self.if_exists };
        host_answer(host.remove_port(session.request(request)).await)?;
        let removed = Detached { name: self.name, attached: false };
        session.print(&removed, |out| writeln!(out, "{} removed", removed.name))
    }
}

impl Inject {
    async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let mut given: Vec<_> = self.frames.into_iter().map(|Frame(bytes)| Given::Frame(bytes)).collect();
        given.extend(self.flow.into_iter().map(Given::Flow));
        if let Some(file) = &self.pcap {
            given.extend(pcap::read_file(file)?.into_iter().map(Given::Frame));
        }
        let mut lab = session.lab().await?;
        let mut view = InjectView::default();
        for packets in chunks(given) {
            view.n_packets += packets.len() as u64;
            let request = InjectRequest { port: self.port.clone(), packets, bridge: session.bridge() };
            view.add(host_answer(lab.inject(session.request(request)).await)?);
        }
        session.print(&view, |out| view.write(out))
    }
}

/// Packets in groups that fit a request.
fn chunks(given: Vec<Given>) -> Vec<Vec<InjectedPacket>> {
    let mut chunks = vec![Vec::new()];
    let mut len = 0;
    for packet in given {
        let own = match &packet {
            Given::Frame(bytes) => bytes.len(),
            Given::Flow(text) => text.len(),
        };
        if len + own > CHUNK_LEN && len > 0 {
            chunks.push(Vec::new());
            len = 0;
        }
        len += own;
        if let Some(chunk) = chunks.last_mut() {
            chunk.push(InjectedPacket { packet: Some(packet) });
        }
    }
    chunks
}

/// What is shown of injected frames.
#[derive(Debug, Default, Serialize)]
struct InjectView {
    n_packets: u64,
    n_forwarded: u64,
    n_dropped: u64,
    drops: Vec<DropView>,
    outputs: Vec<FrameView>,
}

impl InjectView {
    fn add(&mut self, answer: InjectResponse) {
        self.n_forwarded += answer.n_forwarded;
        self.n_dropped += answer.n_dropped;
        for drop in answer.drops.into_iter().map(DropView::from) {
            match self.drops.iter_mut().find(|known| known.is_like(&drop)) {
                Some(known) => known.add(&drop),
                None => self.drops.push(drop),
            }
        }
        self.outputs.extend(answer.outputs.into_iter().map(FrameView::from));
    }

    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let Self { n_packets, n_forwarded, n_dropped, .. } = self;
        writeln!(out, "{n_packets} received, {n_forwarded} forwarded, {n_dropped} dropped")?;
        for drop in &self.drops {
            writeln!(out, "  {}", printable(&drop.sentence()))?;
        }
        self.outputs.iter().try_for_each(|frame| frame.write(out))
    }
}

/// What is shown of a frame that has left.
#[derive(Debug, Serialize)]
pub(super) struct FrameView {
    /// The host it left; empty: the one that was asked.
    #[serde(skip_serializing_if = "String::is_empty")]
    chassis: String,
    port: String,
    index: u64,
    /// Nanoseconds.
    time: u64,
    /// In hexadecimal.
    frame: String,
}

impl From<OutputFrame> for FrameView {
    fn from(sent: OutputFrame) -> Self {
        let OutputFrame { port, index, time, frame, chassis } = sent;
        Self { chassis, port, index, time, frame: hex(&frame) }
    }
}

impl FrameView {
    /// Its port and its bytes.
    pub(super) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        if !self.chassis.is_empty() {
            write!(out, "{} ", printable(&self.chassis))?;
        }
        writeln!(out, "{} {}", printable(&self.port), self.frame)
    }
}

impl Output {
    async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let mut lab = session.lab().await?;
        let request = ReadOutputRequest { port: self.port, from: self.follow_from, bridge: session.bridge() };
        let answer = host_answer(lab.read_output(session.request(request)).await)?;
        let (next, n_forgotten) = (answer.next, answer.n_forgotten);
        let mut view = OutputView { n_frames: answer.frames.len(), next, n_forgotten, frames: Vec::new() };
        if let Some(file) = &self.pcap {
            pcap::write_file(file, answer.frames.iter().map(|sent| (sent.time, sent.frame.as_slice())))?;
            return session.print(&view, |out| writeln!(out, "{} frames written", view.n_frames));
        }
        view.frames = answer.frames.into_iter().map(FrameView::from).collect();
        session.print(&view, |out| view.write(out))
    }
}

/// What is shown of a port's output.
#[derive(Debug, Serialize)]
struct OutputView {
    n_frames: usize,
    frames: Vec<FrameView>,
    next: u64,
    n_forgotten: u64,
}

impl OutputView {
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.n_forgotten > 0 {
            writeln!(out, "{} older frames are forgotten", self.n_forgotten)?;
        }
        self.frames.iter().try_for_each(|sent| writeln!(out, "{} {}", sent.index, sent.frame))
    }
}

impl ClockCommand {
    async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let (stopped, advance) = match self {
            Self::Stop => (Some(true), 0),
            Self::Start => (Some(false), 0),
            Self::Advance { nanos } => (None, nanos),
            Self::Show => (None, 0),
        };
        let mut lab = session.lab().await?;
        let request = session.request(SetClockRequest { stopped, advance });
        let SetClockResponse { now, stopped } = host_answer(lab.set_clock(request).await)?;
        let view = ClockView { now, stopped };
        session.print(&view, |out| {
            let state = if stopped { "stopped" } else { "running" };
            writeln!(out, "{}.{:09} s, {state}", now / NANOS, now % NANOS)
        })
    }
}

/// What is shown of the clock.
#[derive(Debug, Serialize)]
struct ClockView {
    /// Nanoseconds since the daemon's start.
    now: u64,
    stopped: bool,
}

/// Reads seconds, with up to nine decimals, as nanoseconds.
fn parse_seconds(text: &str) -> Result<u64, String> {
    let wrong = || "a duration is a number of seconds, such as 300 or 0.5".to_owned();
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    if !is_number(whole) || !is_number(decimals) || decimals.len() > 9 {
        return Err(wrong());
    }
    let decimals: u64 = format!("{decimals:0<9}").parse().map_err(|_| wrong())?;
    let whole: u64 = whole.parse().map_err(|_| wrong())?;
    whole.checked_mul(NANOS).and_then(|nanos| nanos.checked_add(decimals)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_have_decimals() {
        assert_eq!(parse_seconds("300"), Ok(300 * NANOS));
        assert_eq!(parse_seconds("0.000000001"), Ok(1));
        assert_eq!(parse_seconds("1.5"), Ok(NANOS + NANOS / 2));
        for text in ["", ".", "1.", ".5", "-1", "+1", "1e3", "1.0000000001", "99999999999999"] {
            assert!(parse_seconds(text).is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn requests_are_bounded_and_nothing_is_lost() {
        let frames = |n: usize, len: usize| vec![Given::Frame(vec![0; len]); n];
        for (given, wanted) in [
            (frames(3, 60), vec![3]),
            (frames(3, CHUNK_LEN), vec![1, 1, 1]),
            (frames(5, CHUNK_LEN / 2), vec![2, 2, 1]),
        ] {
            assert_eq!(chunks(given).iter().map(Vec::len).collect::<Vec<_>>(), wanted);
        }
    }
}
