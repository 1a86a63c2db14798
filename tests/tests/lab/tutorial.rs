//! The page that users begin with.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail, ensure};
use ferroflow_tests::command::{self};
use ferroflow_tests::scenario::target_dir;

use crate::fixture::{LIMIT, Lab};

/// Blocks of commands with what they print, as the page has them.
fn steps(page: &str) -> Vec<(String, String)> {
    let mut steps: Vec<(String, String)> = Vec::new();
    let mut is_inside = false;
    for line in page.lines() {
        match (line, line.strip_prefix("$ ")) {
            ("```console", _) => is_inside = true,
            ("```", _) => is_inside = false,
            (_, Some(command)) if is_inside => steps.push((command.to_owned(), String::new())),
            _ if is_inside => {
                if let Some((_, output)) = steps.last_mut() {
                    output.push_str(line);
                    output.push('\n');
                }
            }
            _ => {}
        }
    }
    steps
}

/// The same lines; `…` on the page stands for anything within one.
fn is_as_shown(said: &str, page: &str) -> bool {
    let is_line = |(said, page): (&str, &str)| match page.split_once('…') {
        Some((start, end)) => {
            said.len() >= start.len() + end.len() && said.starts_with(start) && said.ends_with(end)
        }
        None => said == page,
    };
    said.lines().count() == page.lines().count() && said.lines().zip(page.lines()).all(is_line)
}

#[test]
fn the_tutorial_is_true() -> Result<()> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/lab.md");
    let steps = steps(&fs::read_to_string(&page)?);
    ensure!(steps.len() > 70, "{} commands in {}", steps.len(), page.display());
    let mut lab = Lab::new()?;
    let mut exported = BTreeMap::new();
    let path = format!("{}:{}", target_dir()?.display(), std::env::var("PATH").unwrap_or_default());
    for (typed, wanted) in steps {
        if let Some(daemon) = typed.strip_prefix("vswitchd ").and_then(|args| args.strip_suffix(" &")) {
            lab.start(&daemon.split_whitespace().collect::<Vec<_>>())?;
            continue;
        }
        if let Some(network) = typed.strip_prefix("vswitchctl ").and_then(|args| args.strip_suffix(" &")) {
            // The one that the page speaks of.
            let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/two-switches.yaml");
            fs::copy(example, lab.dir.join("two-switches.yaml"))?;
            lab.start_network(&network.split_whitespace().collect::<Vec<_>>())?;
            continue;
        }
        let mut shell = Command::new("sh");
        shell.current_dir(&lab.dir).env("PATH", &path).env("PWD", &lab.dir).envs(&exported);
        if let Some((name, value)) = typed.strip_prefix("export ").and_then(|set| set.split_once('=')) {
            let value = command::output(shell.args(["-c", &format!("printf %s \"{value}\"")]), LIMIT)?;
            exported.insert(name.to_owned(), value);
            continue;
        }
        let finished = command::run(shell.args(["-c", &typed]), LIMIT)?;
        let said = finished.stdout + &finished.stderr;
        if !is_as_shown(&said, &wanted) {
            bail!("$ {typed}\nprints\n{said}where the page has\n{wanted}{}", lab.log());
        }
    }
    lab.check_conservation()
}
