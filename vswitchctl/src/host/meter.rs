//! `meter`: meters, in the syntax of `ovs-ofctl`. `dump` and `stats` print a line each.

use std::io::{self, Write};

use clap::{Args, Subcommand};
use ferroflow_proto::host::{BandCounters, DumpMetersRequest, Meter, rule_change::Kind};
use serde::Serialize;

use super::{
    bundle::Subject,
    features,
    item::{self, Which},
};
use crate::{
    error::CtlError,
    output::{duration, printable},
    session::{Session, host_answer},
};

/// Meters.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the meters
    Dump(Which),
    /// List the meters with their packets, those of each band, and how many rules use them
    Stats(Which),
    /// Tell what meters there can be
    Features,
    /// By hand: add meters
    Add(Meters),
    /// By hand: give meters another content; bands that stay the same go on as they are
    Mod(Meters),
    /// By hand: delete meters, and the rules that use them
    Del(Del),
}

/// Meters.
#[derive(Debug, Args)]
pub struct Meters {
    /// `meter=1,kbps,burst,bands=type=drop,rate=1000,burst_size=100`; @FILE: one in each
    /// line; -: from the standard input
    #[arg(required = true, value_name = "METER")]
    meters: Vec<String>,
}

/// Meters to delete.
#[derive(Debug, Args)]
pub struct Del {
    /// `meter=1`, or just the number
    #[arg(value_name = "METER")]
    meters: Vec<String>,
    /// All of them
    #[arg(long, conflicts_with = "meters")]
    all: bool,
}

impl Command {
    /// Does it.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        match self {
            Self::Dump(Which { id }) => dump(session, id, MeterView::write).await,
            Self::Stats(Which { id }) => dump(session, id, MeterView::write_stats).await,
            Self::Features => features::meters(session).await,
            Self::Add(Meters { meters }) => change(session, &meters, Kind::MeterAdd).await,
            Self::Mod(Meters { meters }) => change(session, &meters, Kind::MeterModify).await,
            Self::Del(Del { meters, all }) => {
                let meters = item::chosen(meters, all, "meters", "meter")?;
                change(session, &meters, Kind::MeterDelete).await
            }
        }
    }
}

async fn dump(
    session: &mut Session<'_>,
    meter_id: Option<u32>,
    write: fn(&MeterView, &mut dyn Write) -> io::Result<()>,
) -> Result<(), CtlError> {
    let mut rules = session.rules().await?;
    let answer = host_answer(
        rules.dump_meters(session.request(DumpMetersRequest { meter_id, bridge: session.bridge() })).await,
    )?;
    let meters: Vec<MeterView> = answer.meters.into_iter().map(MeterView::from).collect();
    item::print(session, &meters, write)
}

async fn change(session: &mut Session<'_>, meters: &[String], kind: Kind) -> Result<(), CtlError> {
    item::change(session, meters, (Subject::Meter, kind)).await
}

/// What is shown of a meter.
#[derive(Debug, Serialize)]
struct MeterView {
    meter_id: u32,
    meter: String,
    /// Packets that came to it.
    n_packets: u64,
    n_bytes: u64,
    /// Rules that use it.
    n_rules: u64,
    /// Nanoseconds.
    age: u64,
    /// Packets that each band was applied to.
    bands: Vec<BandView>,
}

/// What is shown of a band.
#[derive(Debug, Serialize)]
struct BandView {
    n_packets: u64,
    n_bytes: u64,
}

impl From<Meter> for MeterView {
    fn from(meter: Meter) -> Self {
        let band = |BandCounters { n_packets, n_bytes }: BandCounters| BandView { n_packets, n_bytes };
        Self {
            meter_id: meter.meter_id,
            meter: meter.text,
            n_packets: meter.n_packets,
            n_bytes: meter.n_bytes,
            n_rules: meter.n_rules,
            age: meter.age_ns,
            bands: meter.bands.into_iter().map(band).collect(),
        }
    }
}

impl MeterView {
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", printable(&self.meter))
    }

    fn write_stats(&self, out: &mut dyn Write) -> io::Result<()> {
        let Self { meter_id, n_packets, n_bytes, n_rules, age, .. } = self;
        let age = duration(*age);
        write!(
            out,
            "meter:{meter_id} flow_count:{n_rules} packet_in_count:{n_packets} byte_in_count:{n_bytes} duration:{age} bands:"
        )?;
        for (idx, BandView { n_packets, n_bytes }) in self.bands.iter().enumerate() {
            write!(out, " {idx}: packet_count:{n_packets} byte_count:{n_bytes}")?;
        }
        writeln!(out)
    }
}
