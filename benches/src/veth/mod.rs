//! Real interfaces: containers on one host and on two, through our daemons and through the
//! kernel's own bridge and VXLAN device, in turn.
//!
//! ```text
//!   a ── vas [host] vbs ── b                  one host: P14, P15, P16
//!   a ── vas [h1] u1 ══ u2 [h2] vbs ── b      two hosts: P20
//! ```
//! Both ends of the stream share a core, switches have the other one, as far as the kernel lets
//! itself be told: its bridge runs where the packets come from.
//!
//! P14 is small frames from veth to veth instead, beside DPDK's testpmd and Open vSwitch as well
//! (`forwarders.rs`).

mod flood;
mod forwarders;
mod lab;
mod paths;
mod rounds;
mod stream;

use std::{path::Path, time::Duration};

use anyhow::Result;
use serde_json::{Value, json};

pub use self::paths::Way;
use self::{paths::Programs, stream::Figures};

/// What is of frames and not of streams.
const FORWARDING: &str = "P14";

/// One comparison: a name, what it is measured against, and the others.
struct Case {
    id: &'static str,
    what: &'static str,
    reference: Way,
    others: &'static [Way],
}

impl Case {
    /// One of its goals is named.
    fn is_among(&self, only: &str) -> bool {
        only.split(',').any(|wanted| self.id.split('/').any(|id| id == wanted))
    }
}

const CASES: [Case; 2] = [
    Case {
        id: "P15/P16",
        what: "between two containers on a host",
        reference: Way::Bridge,
        others: &[
            Way::OvsAfXdp,
            Way::Packet,
            Way::Tap,
            Way::AfXdp,
            Way::BusyPacket,
            Way::BusyTap,
            Way::BusyAfXdp,
        ],
    },
    Case {
        id: "P20",
        what: "between containers on two hosts",
        reference: Way::KernelVxlan,
        others: &[Way::Geneve],
    },
];

/// Runs all ways of all cases in turn, `n_rounds` times; `tell` gets a line for each. `programs`
/// is the folder of our daemons.
///
/// # Errors
/// When a way cannot be set up.
pub fn run(
    programs: &Path,
    only: Option<&str>,
    (n_rounds, duration): (usize, Duration),
    tell: &dyn Fn(&str),
) -> Result<Vec<Value>> {
    let programs = Programs::find(programs)?;
    let mut results = Vec::new();
    if only.is_none_or(|only| only.split(',').any(|id| id == FORWARDING)) {
        results = forwarders::run(&programs, (n_rounds, duration), tell)?;
    }
    for case in CASES.iter().filter(|case| only.is_none_or(|only| case.is_among(only))) {
        let ways: Vec<Way> = std::iter::once(case.reference).chain(case.others.iter().copied()).collect();
        let mut figures = vec![Vec::new(); ways.len()];
        for round in 0..n_rounds {
            for (way, figures) in ways.iter().zip(&mut figures) {
                let figure = paths::measure(*way, &programs, duration)?;
                tell(&format!("{} round {}: {}: {figure}", case.id, round + 1, way.name()));
                figures.push(figure);
            }
        }
        for (way, own) in ways.iter().zip(&figures) {
            results.push(row(case, *way, own, &figures[0]));
        }
    }
    Ok(results)
}

/// What was measured of a way, and its share of the reference, round by round.
fn row(case: &Case, way: Way, own: &[Figures], reference: &[Figures]) -> Value {
    let ratios = |of: fn(&Figures) -> f64| {
        median(own.iter().zip(reference).map(|(own, reference)| of(own) / of(reference)).collect())
    };
    let spread = |of: fn(&Figures) -> f64| {
        let all: Vec<f64> = own.iter().map(of).collect();
        let least = all.iter().copied().fold(f64::INFINITY, f64::min);
        let most = all.iter().copied().fold(0.0, f64::max);
        json!({ "median": median(all), "min": least, "max": most })
    };
    json!({
        "id": case.id,
        "what": case.what,
        "way": way.name(),
        "reference": case.reference.name(),
        "gbps": spread(|figures| figures.gbps),
        "gbps_ratio": ratios(|figures| figures.gbps),
        "ping_us": spread(|figures| figures.ping_us),
        "ping_ratio": ratios(|figures| figures.ping_us),
        "tcp_rr_us": spread(|figures| figures.rounds.median_us),
        "tcp_rr_ratio": ratios(|figures| figures.rounds.median_us),
        "tcp_rr_p99_us": spread(|figures| figures.rounds.p99_us),
        "n_retransmits": own.iter().map(|figures| figures.n_retransmits).sum::<u64>(),
        "n_wrong_checksums": own.iter().map(|figures| figures.n_wrong_checksums).sum::<u64>(),
    })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match (values.len(), values.len() / 2) {
        (0, _) => f64::NAN,
        (len, middle) if len % 2 == 1 => values[middle],
        (_, middle) => f64::midpoint(values[middle - 1], values[middle]),
    }
}

/// The rows as a table for people.
pub fn table(rows: &[Value]) -> String {
    let (frames, streams): (Vec<Value>, Vec<Value>) =
        rows.iter().cloned().partition(|row| row["id"].as_str() == Some(FORWARDING));
    let mut text = String::new();
    if !frames.is_empty() {
        text = forwarders::table(&frames);
    }
    if !streams.is_empty() {
        text.push_str(if frames.is_empty() { "" } else { "\n" });
        text.push_str(&streams_table(&streams));
    }
    text
}

fn streams_table(rows: &[Value]) -> String {
    let mut text = String::from(
        "| id | way | TCP, Gbit/s (least to most) | of the reference | ping, µs | of the reference \
         | a byte there and back by TCP, µs (p99) | of the reference |\n|---|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let number = |name: &str, part: &str| row[name][part].as_f64().unwrap_or(f64::NAN);
        let ratio = |name: &str| row[name].as_f64().unwrap_or(f64::NAN);
        text.push_str(&format!(
            "| {} | {} | {:.1} ({:.1} to {:.1}) | {:.0} % | {:.0} | {:.1}x | {:.0} ({:.0}) | {:.1}x |\n",
            row["id"].as_str().unwrap_or_default(),
            row["way"].as_str().unwrap_or_default(),
            number("gbps", "median"),
            number("gbps", "min"),
            number("gbps", "max"),
            100.0 * ratio("gbps_ratio"),
            number("ping_us", "median"),
            ratio("ping_ratio"),
            number("tcp_rr_us", "median"),
            number("tcp_rr_p99_us", "median"),
            ratio("tcp_rr_ratio"),
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{rounds::Rounds, *};

    #[test]
    fn ratios_are_of_the_same_round() {
        let rounds = Rounds { median_us: 20.0, p99_us: 30.0 };
        let figures = |gbps| Figures { gbps, ping_us: 10.0, rounds, n_retransmits: 1, n_wrong_checksums: 0 };
        let (own, reference) =
            ([figures(5.0), figures(20.0), figures(9.0)], [figures(10.0), figures(20.0), figures(10.0)]);
        let row = row(&CASES[0], Way::Packet, &own, &reference);
        assert_eq!(row["gbps_ratio"], 0.9);
        assert_eq!((row["gbps"]["median"].as_f64(), row["n_retransmits"].as_u64()), (Some(9.0), Some(3)));
        assert!(
            table(&[row]).contains(
                "| P15/P16 | packet socket | 9.0 (5.0 to 20.0) | 90 % | 10 | 1.0x | 20 (30) | 1.0x |"
            )
        );
        assert!(CASES[0].is_among("P1,P15") && !CASES[0].is_among("P20,P1"));
    }
}
