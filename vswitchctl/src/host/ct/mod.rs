//! `ct`: the connections that the switch tracks, and how. `dump` prints a line each, in the
//! format of `ovs-appctl dpctl/dump-conntrack`.

mod monitor;
mod settings;
mod stats;

use std::io;

use clap::{Args, Subcommand, ValueEnum};
use ferroflow_proto::host::{
    Connection, DumpConnectionsRequest, FlushConnectionsRequest, ListTalkersRequest, PortTalker, Talker,
    Tuple,
};
use serde::Serialize;

use crate::{
    error::CtlError,
    output::{Tabular, printable},
    session::{Session, host_answer},
};

/// Tracked connections.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List connections, a line each
    Dump(Dump),
    /// Forget connections; their packets begin new ones
    Flush(Flush),
    /// Print connections as they begin, are established and go, a line each
    Monitor(monitor::Monitor),
    /// Tell how full the tracker is, and what it has done
    Stats,
    /// List those who have begun most connections
    Top(Top),
    /// How many connections there may be: of a zone, of each port, of all
    #[command(subcommand)]
    Limit(settings::Limit),
    /// How long connections are kept without a packet
    #[command(subcommand)]
    Timeout(settings::Timeout),
    /// What is asked of packets
    Check(settings::Check),
}

const FILTER_HELP: &str = "\
Connections are chosen by zone=N, mark=V/MASK, label=V/MASK, tcp, udp, icmp, icmpv6, sctp or
proto=N, src=IP, dst=IP, sport=N, dport=N, and unreplied. Addresses and ports are those of
either direction. The words of dpctl/flush-conntrack (ct_nw_src and so on) are known, too.";

/// Connections to list.
#[derive(Debug, Args)]
#[command(after_help = FILTER_HELP)]
pub struct Dump {
    /// Which: `zone=1,tcp,src=10.0.0.1`
    #[arg(value_name = "FILTER")]
    filter: Vec<String>,
}

/// Connections to forget.
#[derive(Debug, Args)]
#[command(after_help = FILTER_HELP)]
pub struct Flush {
    /// Which: `zone=1,tcp,src=10.0.0.1`
    #[arg(value_name = "FILTER")]
    filter: Vec<String>,
    /// All of them
    #[arg(long, conflicts_with = "filter")]
    all: bool,
}

/// Whom to list.
#[derive(Debug, Args)]
pub struct Top {
    /// How many at most
    #[arg(value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    max: u32,
    /// By what they are told apart: an address can be made up, a port cannot
    #[arg(long, value_enum, default_value_t = By::Port)]
    by: By,
}

/// By what originators are told apart.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum By {
    /// The port that they are behind
    Port,
    /// The address that they give
    Address,
}

impl Command {
    /// Does it.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        match self {
            Self::Dump(Dump { filter }) => dump(session, filter.join(",")).await,
            Self::Flush(Flush { filter, all }) if filter.is_empty() && !all => {
                Err(CtlError::Usage("say which connections to forget, or --all".into()))
            }
            Self::Flush(Flush { filter, .. }) => flush(session, filter.join(",")).await,
            Self::Monitor(monitor) => monitor.run(session).await,
            Self::Stats => stats::show(session).await,
            Self::Top(arguments) => top(session, arguments).await,
            Self::Limit(command) => command.run(session).await,
            Self::Timeout(command) => command.run(session).await,
            Self::Check(check) => check.run(session).await,
        }
    }
}

async fn dump(session: &mut Session<'_>, filter: String) -> Result<(), CtlError> {
    let mut conntrack = session.conntrack().await?;
    let request = session.request(DumpConnectionsRequest { filter });
    let mut chunks = host_answer(conntrack.dump_connections(request).await)?;
    let mut connections = Vec::new();
    let wrong = |status: tonic::Status| CtlError::from_status(crate::address::Daemon::Host, &status);
    while let Some(chunk) = chunks.message().await.map_err(wrong)? {
        connections.extend(chunk.connections.into_iter().map(ConnectionView::from));
    }
    session.print(&connections, |out| {
        connections.iter().try_for_each(|found| writeln!(out, "{}", printable(&found.text)))
    })
}

async fn flush(session: &mut Session<'_>, filter: String) -> Result<(), CtlError> {
    let mut conntrack = session.conntrack().await?;
    let request = session.request(FlushConnectionsRequest { filter });
    let answer = host_answer(conntrack.flush_connections(request).await)?;
    let view = FlushView { n_removed: answer.n_removed };
    session.print(&view, |out| writeln!(out, "{} connections forgotten", view.n_removed))
}

async fn top(session: &mut Session<'_>, Top { max, by }: Top) -> Result<(), CtlError> {
    let mut conntrack = session.conntrack().await?;
    let answer = host_answer(conntrack.list_talkers(session.request(ListTalkersRequest { max })).await)?;
    match by {
        By::Port => {
            session.print_rows(&answer.ports.into_iter().map(PortTalkerView::from).collect::<Vec<_>>())
        }
        By::Address => {
            session.print_rows(&answer.talkers.into_iter().map(TalkerView::from).collect::<Vec<_>>())
        }
    }
}

/// What is shown of a flush.
#[derive(Debug, Serialize)]
struct FlushView {
    n_removed: u64,
}

/// What is shown of a connection.
#[derive(Debug, Serialize)]
struct ConnectionView {
    #[serde(skip)]
    text: String,
    original: TupleView,
    reply: TupleView,
    zone: u32,
    mark: u32,
    /// In hexadecimal.
    label: String,
    state: String,
    replied: bool,
    snat: bool,
    dnat: bool,
    policy: u32,
    in_port: u32,
    /// Nanoseconds.
    expires_in: u64,
    helper: Option<String>,
    /// Another connection announced it: that one's tuple.
    master: Option<TupleView>,
}

/// What is shown of a direction.
#[derive(Debug, Serialize)]
struct TupleView {
    proto: String,
    src: String,
    dst: String,
    src_port: u32,
    dst_port: u32,
}

impl From<Tuple> for TupleView {
    fn from(tuple: Tuple) -> Self {
        let Tuple { proto, src, dst, src_port, dst_port } = tuple;
        Self { proto, src, dst, src_port, dst_port }
    }
}

impl From<Connection> for ConnectionView {
    fn from(found: Connection) -> Self {
        Self {
            text: found.text,
            original: found.original.unwrap_or_default().into(),
            reply: found.reply.unwrap_or_default().into(),
            zone: found.zone,
            mark: found.mark,
            label: found.label,
            state: found.state,
            replied: found.replied,
            snat: found.snat,
            dnat: found.dnat,
            policy: found.policy,
            in_port: found.in_port,
            expires_in: found.expires_in_ns,
            helper: Some(found.helper).filter(|helper| !helper.is_empty()),
            master: found.master.map(TupleView::from),
        }
    }
}

/// What is shown of somebody who begins connections.
#[derive(Debug, Serialize)]
struct TalkerView {
    zone: u32,
    address: String,
    n_connections: u64,
    n_unreplied: u64,
}

/// What is shown of a port behind which connections began.
#[derive(Debug, Serialize)]
struct PortTalkerView {
    zone: u32,
    port: u32,
    name: String,
    n_connections: u64,
    n_unreplied: u64,
}

impl From<PortTalker> for PortTalkerView {
    fn from(talker: PortTalker) -> Self {
        let PortTalker { zone, port, name, n_connections, n_unreplied } = talker;
        Self { zone, port, name, n_connections, n_unreplied }
    }
}

impl Tabular for PortTalkerView {
    const HEADINGS: &'static [&'static str] = &["ZONE", "PORT", "NAME", "CONNECTIONS", "UNREPLIED"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.zone.to_string(),
            self.port.to_string(),
            self.name.clone(),
            self.n_connections.to_string(),
            self.n_unreplied.to_string(),
        ]
    }
}

impl From<Talker> for TalkerView {
    fn from(talker: Talker) -> Self {
        let Talker { zone, address, n_connections, n_unreplied } = talker;
        Self { zone, address, n_connections, n_unreplied }
    }
}

impl Tabular for TalkerView {
    const HEADINGS: &'static [&'static str] = &["ZONE", "ADDRESS", "CONNECTIONS", "UNREPLIED"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.zone.to_string(),
            self.address.clone(),
            self.n_connections.to_string(),
            self.n_unreplied.to_string(),
        ]
    }
}

/// Prints `name value` pairs, a line each.
fn write_pairs(out: &mut dyn io::Write, pairs: &[(&str, String)]) -> io::Result<()> {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    pairs.iter().try_for_each(|(name, value)| writeln!(out, "{name:<width$}  {value}"))
}
