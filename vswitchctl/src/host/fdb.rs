//! `fdb`: where stations are, as the port NORMAL has learned.

use clap::{Args, Subcommand};
use ferroflow_proto::host::{
    DumpStationsRequest, DumpStationsResponse, FlushStationsRequest, SetStationRequest, Station,
};
use serde::Serialize;

use crate::{
    error::CtlError,
    output::{Table, Tabular, printable},
    session::{Session, host_answer},
};

/// Where stations are, as the port NORMAL has learned.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the stations
    Dump,
    /// Tell how many there are and have been
    Stats,
    /// Say where a station is, whatever packets say
    Add(Add),
    /// Forget stations
    Flush(Flush),
}

/// A station whose place is known.
#[derive(Debug, Args)]
pub struct Add {
    /// The port it is at, by name or number
    port: String,
    /// Its VLAN; 0: none
    vlan: u32,
    /// Its address
    mac: String,
}

/// Stations to forget; nothing chooses all.
#[derive(Debug, Args)]
pub struct Flush {
    /// Only those at this port, by name or number
    #[arg(long, default_value = "", hide_default_value = true)]
    port: String,
    /// Only those in this VLAN
    #[arg(long)]
    vlan: Option<u32>,
    /// Only that with this address
    #[arg(long, default_value = "", hide_default_value = true)]
    mac: String,
    /// Also those that were added by hand
    #[arg(long)]
    r#static: bool,
}

impl Command {
    /// Does it.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        match self {
            Self::Dump => dump(session).await,
            Self::Stats => stats(session).await,
            Self::Add(add) => add.run(session).await,
            Self::Flush(flush) => flush.run(session).await,
        }
    }
}

async fn get(session: &Session<'_>) -> Result<DumpStationsResponse, CtlError> {
    let mut events = session.events().await?;
    host_answer(events.dump_stations(session.request(DumpStationsRequest { bridge: session.bridge() })).await)
}

async fn dump(session: &mut Session<'_>) -> Result<(), CtlError> {
    let stations: Vec<StationView> =
        get(session).await?.stations.into_iter().map(StationView::from).collect();
    session.print(&stations, |out| Table::of(&stations).write(out))
}

async fn stats(session: &mut Session<'_>) -> Result<(), CtlError> {
    let answer = get(session).await?;
    let view = StatsView {
        n_stations: answer.stations.len(),
        max: answer.max,
        max_age: answer.max_age_ns,
        n_learned: answer.n_learned,
        n_moved: answer.n_moved,
        n_expired: answer.n_expired,
        n_evicted: answer.n_evicted,
        n_flushed: answer.n_flushed,
    };
    session.print(&view, |out| {
        let age = view.max_age / 1_000_000_000;
        writeln!(out, "{} stations of {}, forgotten after {age} s", view.n_stations, view.max)?;
        writeln!(
            out,
            "{} learned, {} moved, {} expired, {} evicted, {} flushed",
            view.n_learned, view.n_moved, view.n_expired, view.n_evicted, view.n_flushed
        )
    })
}

impl Add {
    async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let Self { port, vlan, mac } = self;
        let mut events = session.events().await?;
        let view = AddView { port: port.clone(), vlan, mac: mac.clone() };
        let request = SetStationRequest { bridge: session.bridge(), port, vlan, mac };
        host_answer(events.set_station(session.request(request)).await)?;
        session.print(&view, |out| {
            let line = format!("{} is at port {} in VLAN {}", view.mac, view.port, view.vlan);
            writeln!(out, "{}", printable(&line))
        })
    }
}

/// What is shown of a station that was added.
#[derive(Debug, Serialize)]
struct AddView {
    port: String,
    vlan: u32,
    mac: String,
}

impl Flush {
    async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let mut events = session.events().await?;
        let request = FlushStationsRequest {
            port: self.port,
            vlan: self.vlan,
            mac: self.mac,
            bridge: session.bridge(),
            with_static: self.r#static,
        };
        let answer = host_answer(events.flush_stations(session.request(request)).await)?;
        let view = FlushView { n_removed: answer.n_removed };
        session.print(&view, |out| writeln!(out, "{} stations forgotten", view.n_removed))
    }
}

/// What is shown of a flush.
#[derive(Debug, Serialize)]
struct FlushView {
    n_removed: u64,
}

/// What is shown of all stations.
#[derive(Debug, Serialize)]
struct StatsView {
    n_stations: usize,
    max: u64,
    /// Nanoseconds.
    max_age: u64,
    n_learned: u64,
    n_moved: u64,
    n_expired: u64,
    n_evicted: u64,
    n_flushed: u64,
}

/// What is shown of a station.
#[derive(Debug, Serialize)]
struct StationView {
    port_no: u32,
    port: String,
    vlan: u32,
    mac: String,
    /// Nanoseconds; none: it was set by hand.
    age: Option<u64>,
}

impl From<Station> for StationView {
    fn from(station: Station) -> Self {
        let Station { port_no, port, vlan, mac, age_ns } = station;
        Self { port_no, port, vlan, mac, age: age_ns }
    }
}

impl Tabular for StationView {
    const HEADINGS: &'static [&'static str] = &["PORT", "NAME", "VLAN", "MAC", "AGE"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.port_no.to_string(),
            self.port.clone(),
            self.vlan.to_string(),
            self.mac.clone(),
            self.age.map_or_else(|| "static".to_owned(), |age| (age / 1_000_000_000).to_string()),
        ]
    }
}
