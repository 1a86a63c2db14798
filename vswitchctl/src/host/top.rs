//! `top`: which flows and pairs of ports have most of the traffic.

use std::io::{self, Write};

use clap::{Args, ValueEnum};
use ferroflow_proto::host::{TopCount, TopFlow, TopPair, TopRequest, TopResponse};
use serde::Serialize;
use tonic::Request;

use crate::{
    address::Daemon,
    error::CtlError,
    output::{Table, Tabular},
    session::{Session, host_answer},
};

/// Show which flows and pairs of ports have most of the traffic, again and again.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct Top {
    /// Seconds between two answers
    #[arg(short, long, default_value_t = 2.0, value_parser = seconds, value_name = "SECONDS")]
    interval: f64,
    /// End after so many answers [default: never]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Flows and pairs of each answer
    #[arg(short, long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1024))]
    number: u32,
    /// By what they are compared
    #[arg(long, value_enum, default_value = "bytes")]
    by: By,
    /// Look at one packet of so many, at random; 1: at all, which takes the switch time
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    sampling: u32,
}

const HELP: &str = "\
The rate of a flow is at least what is shown, and at most ERROR more, with 95 % certainty where not
all packets are looked at. Flows are as their packets come in. Nobody watches when nobody asks.";

/// What flows are compared by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// By bits per second
    Bytes,
    /// By packets per second
    Packets,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "write a number of seconds".to_owned())?;
    if (0.1..=3600.0).contains(&seconds) { Ok(seconds) } else { Err("0.1 to 3600 seconds".to_owned()) }
}

impl Top {
    /// Shows it until there is enough.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let mut captures = session.captures().await?;
        // It may take as long as it likes: no deadline.
        let request = Request::new(TopRequest {
            bridge: session.bridge(),
            interval: (self.interval * 1000.0) as u32,
            every: self.sampling,
            by_packets: self.by == By::Packets,
            count: self.number,
        });
        let mut answers = host_answer(captures.top(request).await)?;
        let wrong = |status: tonic::Status| CtlError::from_status(Daemon::Host, &status);
        let mut n_shown = 0;
        while let Some(answer) = answers.message().await.map_err(wrong)? {
            let view = View::of(answer, self.by);
            session.print_line(&view, |out| view.write(out))?;
            n_shown += 1;
            if self.count.is_some_and(|count| n_shown >= count) {
                break;
            }
        }
        Ok(())
    }
}

/// What is shown.
#[derive(Debug, Serialize)]
struct View {
    seconds: f64,
    total: Rates,
    flows: Vec<FlowView>,
    pairs: Vec<PairView>,
    /// What a flow that is not shown can have at most, but for chance.
    most_missed: f64,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Rates {
    packets_per_second: f64,
    bits_per_second: f64,
}

/// Rates, and how wrong that can be by which flows are compared: so much more, and so much to
/// both sides by chance.
#[derive(Debug, Clone, Copy, Serialize)]
struct Estimate {
    packets_per_second: f64,
    bits_per_second: f64,
    missed: f64,
    spread: f64,
    #[serde(skip)]
    by: Unit,
}

#[derive(Debug, Clone, Copy)]
enum Unit {
    Bits,
    Packets,
}

#[derive(Debug, Serialize)]
struct FlowView {
    bridge: String,
    in_port: String,
    vlan: u32,
    flow: String,
    #[serde(flatten)]
    rate: Estimate,
}

#[derive(Debug, Serialize)]
struct PairView {
    bridge: String,
    in_port: String,
    out_port: String,
    #[serde(flatten)]
    rate: Estimate,
}

impl Estimate {
    fn of(count: Option<TopCount>, seconds: f64, by: By) -> Self {
        let TopCount { n_packets, n_bytes, missed, spread } = count.unwrap_or_default();
        let rate = |n: u64| if seconds > 0.0 { n as f64 / seconds } else { 0.0 };
        let (unit, factor) = match by {
            By::Bytes => (Unit::Bits, 8.0),
            By::Packets => (Unit::Packets, 1.0),
        };
        Self {
            packets_per_second: rate(n_packets),
            bits_per_second: 8.0 * rate(n_bytes),
            missed: factor * rate(missed),
            spread: factor * rate(spread),
            by: unit,
        }
    }

    /// As cells: packets, bits, and how much more it can be.
    fn cells(&self) -> [String; 3] {
        let unit = match self.by {
            Unit::Bits => "bit/s",
            Unit::Packets => "/s",
        };
        let error = match (self.missed > 0.0, self.spread > 0.0) {
            (false, false) => String::new(),
            (true, false) => format!("+{}{unit}", scaled(self.missed)),
            (false, true) => format!("±{}{unit}", scaled(self.spread)),
            (true, true) => format!("±{}+{}{unit}", scaled(self.spread), scaled(self.missed)),
        };
        [
            format!("{}/s", scaled(self.packets_per_second)),
            format!("{}bit/s", scaled(self.bits_per_second)),
            error,
        ]
    }
}

impl View {
    fn of(answer: TopResponse, by: By) -> Self {
        let TopResponse { seconds, n_packets, n_bytes, flows, pairs, most_missed } = answer;
        let all = TopCount { n_packets, n_bytes, missed: most_missed, spread: 0 };
        let all = Estimate::of(Some(all), seconds, by);
        let flow = |TopFlow { bridge, in_port, vlan, flow, count }: TopFlow| FlowView {
            bridge,
            in_port,
            vlan,
            flow,
            rate: Estimate::of(count, seconds, by),
        };
        let pair = |TopPair { bridge, in_port, out_port, count }: TopPair| PairView {
            bridge,
            in_port,
            out_port,
            rate: Estimate::of(count, seconds, by),
        };
        Self {
            seconds,
            total: Rates { packets_per_second: all.packets_per_second, bits_per_second: all.bits_per_second },
            flows: flows.into_iter().map(flow).collect(),
            pairs: pairs.into_iter().map(pair).collect(),
            most_missed: all.missed,
        }
    }

    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let Rates { packets_per_second, bits_per_second } = self.total;
        let (packets, bits) = (scaled(packets_per_second), scaled(bits_per_second));
        writeln!(out, "in {:.1} s: {packets} packets/s, {bits}bit/s", self.seconds)?;
        if !self.flows.is_empty() {
            Table::of(&self.flows).write(out)?;
        }
        if !self.pairs.is_empty() {
            Table::of(&self.pairs).write(out)?;
        }
        writeln!(out)
    }
}

impl Tabular for FlowView {
    const HEADINGS: &'static [&'static str] = &["BRIDGE", "PORT", "PACKETS", "RATE", "ERROR", "FLOW"];

    fn cells(&self) -> Vec<String> {
        let vlan = if self.vlan == 0 { String::new() } else { format!("dl_vlan={},", self.vlan) };
        let [packets, bits, error] = self.rate.cells();
        let flow = format!("{vlan}{}", self.flow);
        vec![self.bridge.clone(), self.in_port.clone(), packets, bits, error, flow]
    }
}

impl Tabular for PairView {
    const HEADINGS: &'static [&'static str] = &["BRIDGE", "FROM", "TO", "PACKETS", "RATE", "ERROR"];

    fn cells(&self) -> Vec<String> {
        let names = [&self.bridge, &self.in_port, &self.out_port].map(Clone::clone);
        names.into_iter().chain(self.rate.cells()).collect()
    }
}

/// With three digits and a unit.
fn scaled(number: f64) -> String {
    let units = [(1e9, "G"), (1e6, "M"), (1e3, "k")];
    match units.into_iter().find(|(unit, _)| number >= *unit) {
        Some((unit, name)) => format!("{:.1}{name}", number / unit),
        None => format!("{number:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_the_time_that_has_passed() {
        let count = TopCount { n_packets: 100, n_bytes: 12_500, missed: 250, spread: 0 };
        let estimate = Estimate::of(Some(count), 2.0, By::Bytes);
        assert_eq!(estimate.cells(), ["50/s", "50.0kbit/s", "+1.0kbit/s"]);
        let count = TopCount { spread: 4, missed: 2, ..count };
        assert_eq!(Estimate::of(Some(count), 2.0, By::Packets).cells()[2], "±2+1/s");
        assert_eq!(Estimate::of(Some(count), 0.0, By::Packets).cells()[0], "0/s");
        assert!(seconds("0.05").is_err() && seconds("x").is_err() && seconds("0.5") == Ok(0.5));
    }
}
