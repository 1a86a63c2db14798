//! `capture`: packets as they come in, leave and are dropped; a line each, or a file that
//! Wireshark and tcpdump read.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Write},
    path::PathBuf,
    time::Duration,
};

use clap::{Args, ValueEnum};
use ferroflow_proto::host::{CapturePoint, CaptureRequest, CaptureResponse, CapturedPacket};
use serde::Serialize;
use tonic::{Request, Streaming};

use super::{
    frame::hex,
    pcap,
    pcapng::{Direction, Frame, Writer},
};
use crate::{
    address::Daemon,
    error::CtlError,
    output::printable,
    session::{Session, host_answer},
};

/// Show packets as they come in, leave and are dropped.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct Capture {
    /// Headers that they must have, in the syntax of ovs-ofctl: udp,tp_dst=53
    #[arg(value_name = "MATCH", default_value = "", hide_default_value = true)]
    matching: String,
    /// Only at this port: its name or number, or a switch port's id; repeat it for others. A
    /// dropped packet is at the port it came in by
    #[arg(short, long, value_name = "PORT")]
    port: Vec<String>,
    /// Only at these places
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PLACE")]
    at: Vec<Place>,
    /// Only dropped packets, each with its reason
    #[arg(long, conflicts_with = "at")]
    drops: bool,
    /// Write a file that Wireshark and tcpdump read; -: to the standard output
    #[arg(short, long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Of what kind the file is [default: pcap if the file's name ends so, else pcapng]
    #[arg(long, value_enum, requires = "write")]
    format: Option<FileFormat>,
    /// End after so many packets
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after so many seconds
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: Option<u64>,
    /// Bytes of each packet that are kept [default: all]
    #[arg(short, long, value_name = "BYTES", default_value_t = 0, hide_default_value = true)]
    snap_len: u32,
    /// Print frames, in hexadecimal
    #[arg(short, long, conflicts_with = "write")]
    verbose: bool,
}

const HELP: &str = "\
Live in Wireshark: vswitchctl capture -w - | wireshark -k -i -
A pcapng file has each packet's port and direction, and why it was dropped as its comment.
What a port gets may be larger than its wire takes: it is cut by the next device.";

/// Places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Place {
    /// Where packets come in, before anything has changed
    Received,
    /// Where they leave
    Sent,
    /// Where they are dropped
    Dropped,
}

impl Place {
    fn message(self) -> CapturePoint {
        match self {
            Self::Received => CapturePoint::Received,
            Self::Sent => CapturePoint::Sent,
            Self::Dropped => CapturePoint::Dropped,
        }
    }
}

/// Kinds of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FileFormat {
    /// With ports, directions and comments
    Pcapng,
    /// Frames only
    Pcap,
}

impl Capture {
    /// Shows packets until there are enough.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let mut captures = session.captures().await?;
        let points: Vec<i32> = match self.drops {
            true => vec![CapturePoint::Dropped.into()],
            false => self.at.iter().map(|place| place.message().into()).collect(),
        };
        // It may take as long as it likes: no deadline.
        let request = Request::new(CaptureRequest {
            points,
            ports: self.port.clone(),
            r#match: self.matching.clone(),
            max_len: self.snap_len,
            describe: self.write.is_none(),
            bridge: session.bridge(),
        });
        let stream = host_answer(captures.capture(request).await)?;
        let mut sheet = Sheet::open(&self)?;
        sheet.begin(session)?;
        let limit = self.seconds.map_or(Duration::MAX, Duration::from_secs);
        let shown = tokio::time::timeout(limit, self.show(stream, &mut sheet, session)).await;
        let n_lost = sheet.n_lost;
        if n_lost > 0 {
            // The standard output may be a file's.
            let _ = writeln!(io::stderr(), "{n_lost} packets came too fast and are not shown");
        }
        shown.unwrap_or(Ok(()))
    }

    async fn show(
        &self,
        mut stream: Streaming<CaptureResponse>,
        sheet: &mut Sheet,
        session: &mut Session<'_>,
    ) -> Result<(), CtlError> {
        let wrong = |status: tonic::Status| CtlError::from_status(Daemon::Host, &status);
        let mut n_shown = 0;
        while let Some(answer) = stream.message().await.map_err(wrong)? {
            sheet.n_lost += answer.n_lost;
            for packet in answer.packets {
                sheet.add(session, packet)?;
                n_shown += 1;
                if self.count == Some(n_shown) {
                    return sheet.flush(session);
                }
            }
            sheet.flush(session)?;
        }
        Ok(())
    }
}

/// Where packets are written down.
struct Sheet {
    /// `None`: the session's output.
    file: Option<File>,
    kind: Kind,
    n_lost: u64,
}

enum Kind {
    Lines { verbose: bool },
    Pcap,
    Pcapng(Writer),
}

impl Sheet {
    fn open(capture: &Capture) -> Result<Self, CtlError> {
        let Some(path) = &capture.write else {
            let kind = Kind::Lines { verbose: capture.verbose };
            return Ok(Self { file: None, kind, n_lost: 0 });
        };
        let is_pcap = path.extension().is_some_and(|extension| extension == "pcap");
        let usual = if is_pcap { FileFormat::Pcap } else { FileFormat::Pcapng };
        let kind = match capture.format.unwrap_or(usual) {
            FileFormat::Pcap => Kind::Pcap,
            FileFormat::Pcapng => Kind::Pcapng(Writer::default()),
        };
        let file = match path.as_os_str().to_str() {
            Some("-") => None,
            _ => Some(File::create(path).map_err(|error| CtlError::File {
                file: path.display().to_string(),
                line: None,
                reason: error.to_string(),
            })?),
        };
        Ok(Self { file, kind, n_lost: 0 })
    }

    /// Writes what a file begins with: who reads along knows that something will come.
    fn begin(&mut self, session: &mut Session<'_>) -> Result<(), CtlError> {
        match &self.kind {
            Kind::Lines { .. } => Ok(()),
            Kind::Pcap => self.put(session, &pcap::header()),
            Kind::Pcapng(_) => self.put(session, &Writer::header()),
        }?;
        self.flush(session)
    }

    fn add(&mut self, session: &mut Session<'_>, packet: CapturedPacket) -> Result<(), CtlError> {
        let bytes = match &mut self.kind {
            Kind::Lines { verbose } => {
                let (view, verbose) = (PacketView::read(packet)?, *verbose);
                return session.print_line(&view, |out| view.write(out, verbose));
            }
            Kind::Pcap => pcap::record(packet.time, &packet.frame, packet.n_bytes),
            Kind::Pcapng(writer) => writer.write(&Frame {
                port: &packet.port,
                time: packet.time,
                bytes: &packet.frame,
                len: packet.n_bytes,
                direction: direction(packet.point()),
                comment: &why(&packet),
            }),
        };
        self.put(session, &bytes)
    }

    fn put(&mut self, session: &mut Session<'_>, bytes: &[u8]) -> Result<(), CtlError> {
        match &mut self.file {
            Some(file) => file.write_all(bytes).map_err(CtlError::Output),
            None => session.out.write_all(bytes).map_err(CtlError::Output),
        }
    }

    fn flush(&mut self, session: &mut Session<'_>) -> Result<(), CtlError> {
        session.out.flush().map_err(CtlError::Output)
    }
}

fn direction(point: CapturePoint) -> Direction {
    match point {
        CapturePoint::Received | CapturePoint::Dropped => Direction::In,
        CapturePoint::Sent => Direction::Out,
        CapturePoint::Unspecified => Direction::Unknown,
    }
}

/// Why a packet was dropped, and by what; empty: it was not.
fn why(packet: &CapturedPacket) -> String {
    if packet.reason.is_empty() {
        return String::new();
    }
    let origin = packet.origin.clone().unwrap_or_default();
    let by: BTreeSet<_> = [origin.object, origin.stage].into_iter().filter(|part| !part.is_empty()).collect();
    let by: Vec<_> = by.into_iter().collect();
    match by.is_empty() {
        true => format!("dropped: {}", packet.reason),
        false => format!("dropped: {} by {}", packet.reason, by.join(", ")),
    }
}

/// What is shown of a packet.
#[derive(Debug, Serialize)]
struct PacketView {
    /// Nanoseconds since 1970.
    time: u64,
    at: &'static str,
    bridge: String,
    port: String,
    n_bytes: u64,
    flow: String,
    /// Why it was dropped.
    reason: Option<String>,
    /// The northbound object whose rule did it.
    object: Option<String>,
    /// In hexadecimal.
    frame: String,
}

impl PacketView {
    fn read(packet: CapturedPacket) -> Result<Self, CtlError> {
        let at = match packet.point() {
            CapturePoint::Received => "received",
            CapturePoint::Sent => "sent",
            CapturePoint::Dropped => "dropped",
            CapturePoint::Unspecified => {
                return Err(CtlError::Newer { daemon: Daemon::Host, what: "a place of a new kind".into() });
            }
        };
        let some = |text: String| Some(text).filter(|text| !text.is_empty());
        Ok(Self {
            time: packet.time,
            at,
            bridge: packet.bridge,
            port: packet.port,
            n_bytes: packet.n_bytes,
            flow: packet.flow,
            reason: some(packet.reason),
            object: packet.origin.and_then(|origin| some(origin.object)),
            frame: hex(&packet.frame),
        })
    }

    fn write(&self, out: &mut dyn Write, verbose: bool) -> io::Result<()> {
        let Self { at, port, n_bytes, flow, .. } = self;
        let mut line = format!("{} {at:<8} {port} len={n_bytes} {flow}", time_of_day(self.time));
        if let Some(reason) = &self.reason {
            line += &format!(" reason={reason}");
        }
        if let Some(object) = &self.object {
            line += &format!(" object={object}");
        }
        writeln!(out, "{}", printable(&line))?;
        if verbose { writeln!(out, "  {}", self.frame) } else { Ok(()) }
    }
}

/// Time of the day (UTC), with microseconds.
fn time_of_day(nanos: u64) -> String {
    let (seconds, micros) = (nanos / 1_000_000_000, nanos / 1000 % 1_000_000);
    let (hours, minutes) = (seconds / 3600 % 24, seconds / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}.{micros:06}", seconds % 60)
}

#[cfg(test)]
mod tests {
    use ferroflow_proto::host::Origin;

    use super::*;

    #[test]
    fn a_drop_says_why_and_by_what() {
        let mut packet = CapturedPacket { reason: "rule-drop".into(), ..Default::default() };
        assert_eq!(why(&packet), "dropped: rule-drop");
        let object = "switches/web/acls/a".to_owned();
        packet.origin = Some(Origin { logical_flow: 3, stage: String::new(), object });
        assert_eq!(why(&packet), "dropped: rule-drop by switches/web/acls/a");
        assert_eq!(why(&CapturedPacket::default()), "");
    }

    #[test]
    fn times_are_of_the_day() {
        assert_eq!(time_of_day(86_399_000_001_000), "23:59:59.000001");
        assert_eq!(time_of_day(0), "00:00:00.000000");
    }
}
