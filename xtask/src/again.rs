//! Scenarios that fail are run once more, each alone.
//!
//! They have real kernels, runtimes and clocks beneath them, on machines that others use as well. One that fails beside
//! others and then passes alone is a fault all the same, of the scenario or of the product: it is named at the end, for
//! somebody to find it. It does not hide what all the others say.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ferroflow_tests::command::describe;
use ferroflow_tests::say;

use crate::cargo::{await_end, cargo, show};

/// Where scenarios are: nothing else is run twice.
const SCENARIOS: &str = "-p ferroflow-tests --test ";
/// When more fail than this, it is no accident.
const MOST: usize = 3;
/// How long the last words of a command that has ended may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Tests that failed, by what cargo calls their target.
#[derive(Debug, Default, PartialEq, Eq)]
struct Failures {
    by_target: BTreeMap<String, Vec<String>>,
    /// Names under the last heading, until it is known what target they are of.
    listed: Vec<String>,
}

impl Failures {
    /// Reads a line of what `cargo test --no-fail-fast` prints.
    fn read(&mut self, line: &str) {
        if line == "failures:" {
            self.listed.clear();
        } else if let Some(name) = line.strip_prefix("    ").filter(|name| is_name(name)) {
            self.listed.push(name.to_owned());
        } else if let Some((_, target)) = line.split_once("to rerun pass `") {
            let names = std::mem::take(&mut self.listed);
            self.by_target.insert(target.trim_end_matches('`').to_owned(), names);
        }
    }

    /// The scenarios among them; nothing when others failed, too many, or some without a name.
    fn scenarios(&self) -> Option<Vec<(&str, &[String])>> {
        let n_failed: usize = self.by_target.values().map(Vec::len).sum();
        let scenario = |(target, names): (&'_ String, &'_ Vec<String>)| {
            !names.is_empty() && target.starts_with(SCENARIOS)
        };
        if n_failed == 0 || n_failed > MOST || !self.by_target.iter().all(scenario) {
            return None;
        }
        let target = |target: &'_ String| target.len().min(SCENARIOS.len());
        Some(self.by_target.iter().map(|(name, tests)| (&name[target(name)..], tests.as_slice())).collect())
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
}

/// Runs `cargo test --no-fail-fast …`, and what scenarios fail once more. Answers which of them passed then.
///
/// # Errors
/// When a test fails that is no scenario, or one fails twice.
pub(crate) fn test(command: &mut Command, deadline: Option<Instant>) -> Result<Vec<String>> {
    let mut failures = Failures::default();
    let first = echo(command, deadline, |line| failures.read(line));
    let Err(why) = first else { return Ok(Vec::new()) };
    let Some(scenarios) = failures.scenarios() else { return Err(why) };
    let mut unsteady = Vec::new();
    for (target, names) in scenarios {
        for name in names {
            say(&format!("            once more, alone: {target}, {name}"));
            let mut again =
                cargo(&["test", "--package", "ferroflow-tests", "--test", target, "--", "--exact", name]);
            show(&mut again, deadline).with_context(|| format!("{name} failed twice"))?;
            unsteady.push(format!("{target}: {name}"));
        }
    }
    Ok(unsteady)
}

/// Runs a command whose output the person sees, and `each` as well, line by line.
fn echo(command: &mut Command, deadline: Option<Instant>, mut each: impl FnMut(&str)) -> Result<()> {
    // Cargo says which target failed on the other stream than the tests say which of them: in one, their order is kept.
    let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn().with_context(|| format!("cannot run {}", describe(command)))?;
    // Our ends of the pipe; the reader's end comes when the last writer has gone.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let (lines, printed) = mpsc::channel();
    let copier = std::thread::spawn(move || {
        for line in BufReader::new(reader).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            // With standard output closed there is nobody to tell.
            let _ = writeln!(std::io::stdout(), "{line}");
            let _ = lines.send(line);
        }
    });
    let ended = await_end(&mut child, command, deadline);
    // What a test left running may hold the pipe open for ever: what is printed by then is what there is.
    let patience = Instant::now() + PATIENCE;
    while !copier.is_finished() && Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(10));
    }
    printed.try_iter().for_each(|line| each(&line));
    ended
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Failures {
        let mut failures = Failures::default();
        text.lines().for_each(|line| failures.read(line));
        failures
    }

    const OUTPUT: &str = "\
     Running tests/routers.rs (target/debug/deps/routers-1)
test it_routes ... FAILED
test it_stays ... ok

failures:

---- it_routes stdout ----
    not_a_test
failures:
    nor_this

failures:
    it_routes

test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.63s

error: test failed, to rerun pass `-p ferroflow-tests --test routers`
     Running tests/services.rs (target/debug/deps/services-1)
test result: ok. 7 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 47.34s
error: 1 target failed:
    `-p ferroflow-tests --test routers`
";

    #[test]
    fn failed_scenarios_are_found() {
        let failures = read(OUTPUT);
        assert_eq!(failures.scenarios(), Some(vec![("routers", &["it_routes".to_owned()][..])]));
    }

    #[test]
    fn nothing_else_is_run_twice() {
        let other = OUTPUT.replace("-p ferroflow-tests --test routers", "-p flowtable --lib");
        assert_eq!(read(&other).scenarios(), None);
        let unnamed = OUTPUT.replace("    it_routes\n", "");
        assert_eq!(read(&unnamed).scenarios(), None, "it did not come to an end");
        let many = OUTPUT.replace("    it_routes\n", "    a\n    b\n    c\n    d\n");
        assert_eq!(read(&many).scenarios(), None, "this is no accident");
        assert_eq!(read("error: could not compile").scenarios(), None);
    }
}
