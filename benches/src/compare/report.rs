//! The table, and the files below docs/performance/.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{chart, outcome::Outcome};
use crate::{measure::tsc_ghz, workload::window::Window};

/// What is generated stands between these lines of README.md.
const BEGIN: &str = "<!-- written by `cargo xtask bench --vs-ovs --save`: begin -->";
const END: &str = "<!-- end -->";

/// What a run was like.
#[derive(Debug, Clone)]
pub struct Circumstances {
    /// The other side's version.
    pub peer: String,
    /// The processor.
    pub processor: String,
    /// Processes that wanted a core, on average, before and after.
    pub load: (String, String),
    /// Our generator and sink alone.
    pub harness: Option<Window>,
    /// Turns, and seconds of each.
    pub n_pairs: usize,
    /// Seconds of a turn.
    pub seconds: f64,
}

/// The table, as Markdown.
pub fn table(outcomes: &[Outcome]) -> String {
    let mut text = String::from(
        "| id | workload | OVS-DPDK, its best setting | Ferroflow | ratio | floor | stretch | reached |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for outcome in outcomes {
        let (theirs, ours) = outcome.cycles();
        let (ratio, goal) = (outcome.ratio(), outcome.workload.goal);
        let side =
            |cycles: f64, mix: &str| format!("{:.2} M/s ({cycles:.0}) {mix}", tsc_ghz() * 1e3 / cycles);
        let last = outcome.pairs.last();
        let theirs_mix = last.map(|pair| mix(&pair.theirs)).unwrap_or_default();
        let ours_mix = last.map(|pair| mix(&pair.ours)).unwrap_or_default();
        let mark = if outcome.least_share() < 0.9 { " *" } else { "" };
        text += &format!(
            "| {} | {} | {} {} | {} | **{:.2}x** ({:.2}–{:.2}){mark} | {}x | {}x | {} |\n",
            outcome.workload.id,
            outcome.workload.title,
            outcome.setting.name,
            side(theirs.median, &theirs_mix),
            side(ours.median, &ours_mix),
            ratio.median,
            ratio.min,
            ratio.max,
            goal.floor,
            goal.stretch,
            outcome.reached().word(),
        );
    }
    text
}

/// What answered the packets.
fn mix(window: &Window) -> String {
    let part = |(name, share): &(String, f64)| match name.as_str() {
        "masks/hit" => format!("{share:.1} masks a hit"),
        _ => format!("{name} {:.0} %", 100.0 * share),
    };
    let is_large = |part: &&(String, f64)| part.1 >= 0.005;
    let parts: Vec<String> = window.mix.iter().filter(is_large).map(part).collect();
    format!("· {}", parts.join(", "))
}

/// Table and circumstances, as Markdown.
pub fn markdown(circumstances: &Circumstances, outcomes: &[Outcome]) -> String {
    let Circumstances { peer, processor, load, n_pairs, seconds, .. } = circumstances;
    let harness = circumstances.harness.as_ref().map(|window| window.nanos() * tsc_ghz());
    let harness = harness
        .map_or_else(String::new, |cycles| format!(" Our generator and sink alone take {cycles:.0} cycles."));
    format!(
        "Open vSwitch {peer}; {processor}, time stamp counter {:.2} GHz; load before and after: {} and {}. \
         {n_pairs} turns of {seconds} s each, in turn on the same core.{harness}\n\n{}\n\
         Millions of packets in a second of the core, cycles of the time stamp counter per packet, and what \
         answered them; of first packets and new connections, millions of those. The ratio is the median of \
         the turns, with the least and the most. *: a side had less than 90 % of the core in some turn; all \
         figures are by the time it had.\n",
        tsc_ghz(),
        load.0,
        load.1,
        table(outcomes)
    )
}

/// Everything, as JSON.
pub fn to_json(circumstances: &Circumstances, outcomes: &[Outcome]) -> Value {
    json!({
        "peer": circumstances.peer,
        "processor": circumstances.processor,
        "tsc_ghz": tsc_ghz(),
        "load": [circumstances.load.0, circumstances.load.1],
        "harness": circumstances.harness.as_ref().map(Window::to_json),
        "n_pairs": circumstances.n_pairs,
        "seconds": circumstances.seconds,
        "outcomes": outcomes.iter().map(Outcome::to_json).collect::<Vec<_>>(),
    })
}

/// Writes JSON and chart into a folder, and the table into its README.md.
///
/// # Errors
/// When a file cannot be written, or README.md has no place for the table.
pub fn save(folder: &Path, circumstances: &Circumstances, outcomes: &[Outcome]) -> Result<()> {
    let write = |name: &str, text: String| {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    let json = serde_json::to_string_pretty(&to_json(circumstances, outcomes))?;
    write("vs-ovs.json", json + "\n")?;
    write("vs-ovs.svg", chart::draw(outcomes))?;
    let readme = fs::read_to_string(folder.join("README.md")).context("no README.md to put the table in")?;
    write("README.md", replaced(&readme, &markdown(circumstances, outcomes))?)
}

/// A text with something else between the lines of [`BEGIN`] and [`END`].
fn replaced(text: &str, new: &str) -> Result<String> {
    let (head, rest) = text.split_once(BEGIN).context("README.md has no place for the table")?;
    let (_, tail) = rest.split_once(END).context("README.md has no end of the table")?;
    Ok(format!("{head}{BEGIN}\n{new}{END}{tail}"))
}

#[cfg(test)]
mod tests {
    use super::{super::outcome::tests::outcome, *};

    #[test]
    fn a_row_says_all() {
        let text = table(&[outcome(&[3, 2, 4])]);
        let row = text.lines().nth(2).unwrap();
        assert!(row.starts_with("| P2 | 100k flows, one mask | EMC 1/100 3.33 M/s ("), "{row}");
        assert!(row.ends_with("| **3.00x** (2.00–4.00) | 2x | 3x | stretch |"), "{row}");
    }

    #[test]
    fn the_place_in_the_readme_is_found() {
        let text = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        assert_eq!(replaced(&text, "new\n").unwrap(), format!("a\n{BEGIN}\nnew\n{END}\nb\n"));
        assert!(replaced("a", "new").is_err());
    }
}
