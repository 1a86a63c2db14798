//! `bench --instructions`: instructions per packet of each workload, counted by valgrind. Time is noisy on a
//! shared machine, the number of instructions is not: it says whether a change made the fast path longer.
//!
//! What a workload may take is in `benches/instructions.txt`. Limits are written by `--save` and lowered by hand
//! never; a change that raises one says why.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ferroflow_tests::command::run;
use ferroflow_tests::print_line;

use crate::cargo::{cargo, metadata, root, show};

/// Where the limits are, from the workspace's folder.
const LIMITS: &str = "benches/instructions.txt";
/// How much more than the limit is not yet a failure, in percent: other compilers, other layouts.
const TOLERANCE: u64 = 5;
/// A workload takes a few seconds.
const LIMIT: Duration = Duration::from_secs(120);

/// A line of the limits: what is counted, and how many instructions a packet may take.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Limit {
    id: String,
    n_warm: u32,
    n_counted: u32,
    instructions: u64,
}

/// Counts, shows, and fails when a workload takes more than it may. With `save` the limits are what was counted.
pub(crate) fn check(only: Option<&str>, save: bool, deadline: Option<Instant>) -> Result<()> {
    let path = root().join(LIMITS);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {LIMITS}"))?;
    let limits = parse(&text)?;
    let chosen: Vec<_> = limits.iter().filter(|limit| is_chosen(only, &limit.id)).collect();
    ensure!(!chosen.is_empty(), "{LIMITS} has no such workload");
    show(
        &mut cargo(&["build", "--release", "--locked", "--package", "benches", "--bin", "workload"]),
        deadline,
    )?;
    let program = program()?;
    let counted = count_all(&program, &chosen)?;
    let mut longer = Vec::new();
    for limit in &chosen {
        let n = counted[&limit.id];
        print_line(&format!("{:<6} {n:>7} instructions per packet, limit {}", limit.id, limit.instructions))?;
        if n * 100 > limit.instructions * (100 + TOLERANCE) {
            longer.push(limit.id.as_str());
        }
    }
    if save {
        return fs::write(&path, rewrite(&text, &counted)).with_context(|| format!("cannot write {LIMITS}"));
    }
    if !longer.is_empty() {
        bail!("{} take more instructions than {LIMITS} allows", longer.join(", "));
    }
    Ok(())
}

fn is_chosen(only: Option<&str>, id: &str) -> bool {
    only.is_none_or(|only| only.split(',').any(|wanted| wanted.trim().eq_ignore_ascii_case(id)))
}

/// As many at a time as there are cores.
fn count_all(program: &Path, limits: &[&Limit]) -> Result<BTreeMap<String, u64>> {
    let n_threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let count_share = |first: usize| {
            let share = limits.iter().skip(first).step_by(n_threads);
            share.map(|limit| Ok((limit.id.clone(), count(program, limit)?))).collect::<Result<Vec<_>>>()
        };
        let threads: Vec<_> = (0..n_threads).map(|first| scope.spawn(move || count_share(first))).collect();
        let mut counted = BTreeMap::new();
        for thread in threads {
            counted.extend(thread.join().map_err(|_| anyhow::anyhow!("a counting thread panicked"))??);
        }
        Ok(counted)
    })
}

fn count(program: &Path, limit: &Limit) -> Result<u64> {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--collect-atstart=no", "--toggle-collect=*Rig*counted*"]);
    command.arg("--callgrind-out-file=/dev/null").arg(program);
    command.args([&limit.id, "--rehearse", &limit.n_warm.to_string(), &limit.n_counted.to_string()]);
    let finished = run(&mut command, LIMIT)?;
    ensure!(finished.status.success(), "valgrind with {}: {}", limit.id, finished.stderr.trim());
    let n_packets: u64 =
        finished.stdout.trim().parse().context("the workload did not say how many packets")?;
    let collected = finished.stderr.lines().find_map(|line| line.split("Collected :").nth(1));
    let n: u64 = collected.context("valgrind collected nothing")?.trim().parse()?;
    ensure!(n > 0 && n_packets > 0, "{}: nothing was counted", limit.id);
    Ok(n / n_packets)
}

fn program() -> Result<PathBuf> {
    let metadata = metadata()?;
    let folder = metadata["target_directory"].as_str().context("cargo names no target directory")?;
    Ok(Path::new(folder).join("release/workload"))
}

fn parse(text: &str) -> Result<Vec<Limit>> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    lines.map(|line| parse_line(line).with_context(|| format!("{LIMITS}: {line}"))).collect()
}

fn parse_line(line: &str) -> Result<Limit> {
    let words: Vec<_> = line.split_whitespace().collect();
    let [id, n_warm, n_counted, instructions] = words[..] else { bail!("four words are expected") };
    let (n_warm, n_counted) = (n_warm.parse()?, n_counted.parse()?);
    Ok(Limit { id: id.to_owned(), n_warm, n_counted, instructions: instructions.parse()? })
}

/// The same text with other limits.
fn rewrite(text: &str, counted: &BTreeMap<String, u64>) -> String {
    let line = |line: &str| match parse_line(line) {
        Ok(Limit { id, n_warm, n_counted, instructions }) if !line.starts_with('#') => {
            let instructions = counted.get(&id).copied().unwrap_or(instructions);
            format!("{id:<6} {n_warm:>6} {n_counted:>6} {instructions:>7}\n")
        }
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_and_written() {
        let text = "# id warm counted limit\nP1 10 20 300\nP12a 0 5 5000\n";
        let limits = parse(text).unwrap();
        assert_eq!(limits[1], Limit { id: "P12a".into(), n_warm: 0, n_counted: 5, instructions: 5000 });
        let counted = BTreeMap::from([("P1".to_owned(), 250)]);
        let written = parse(&rewrite(text, &counted)).unwrap();
        assert_eq!((written[0].instructions, written[1].instructions), (250, 5000));
        assert!(rewrite(text, &counted).starts_with("# id"));
        assert!(parse("P1 10 20").is_err());
    }

    #[test]
    fn the_limits_of_the_project_are_understood() {
        let limits = parse(&fs::read_to_string(root().join(LIMITS)).unwrap()).unwrap();
        assert!(limits.iter().all(|limit| limit.instructions > 0 && limit.n_counted > 0));
        assert!(is_chosen(Some("p1, P2"), "P1") && !is_chosen(Some("P1"), "P10e") && is_chosen(None, "P3"));
    }
}
