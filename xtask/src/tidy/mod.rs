//! `tidy`: the project's own rules, those that compiler and clippy do not know.
//!
//! [`imports`] who may depend on whom · [`sources`] rules for each source file, read through [`lexer`] ·
//! [`drops`] the documented list of drop reasons is the one in the code.

mod drops;
mod imports;
mod lexer;
mod sources;

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use ferroflow_tests::say;

use crate::cargo::root;

/// Check the project's own rules: imports, unsafe, documentation, file lengths, drop reasons.
#[derive(Debug, Args)]
pub(crate) struct Tidy {
    /// Write what is generated (docs/drops.md) instead of only checking it.
    #[arg(long)]
    fix: bool,
}

impl Tidy {
    pub(crate) fn run(self) -> Result<()> {
        check(self.fix)
    }
}

/// A rule that is broken somewhere.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    path: PathBuf,
    /// From 1; 0: the file as a whole.
    line: usize,
    what: String,
}

impl Finding {
    fn new(path: &Path, line: usize, what: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path.display(), self.what),
            line => write!(f, "{}:{line}: {}", self.path.display(), self.what),
        }
    }
}

/// Checks every rule; with `fix`, what is generated is written.
///
/// # Errors
/// When a rule is broken, after all findings were printed.
pub(crate) fn check(fix: bool) -> Result<()> {
    let root = root();
    let mut findings = imports::check(&crate::cargo::metadata()?)?;
    findings.extend(imports::check_manifests(&root)?);
    findings.extend(sources::check(&root)?);
    findings.extend(drops::check(&root, fix)?);
    for finding in &findings {
        say(&finding.to_string());
    }
    match findings.len() {
        0 => Ok(()),
        n => bail!("tidy: {n} findings"),
    }
}

/// Files below `dir` whose name ends in `suffix`, without build output and hidden folders, in order.
fn files(dir: &Path, suffix: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries =
            std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // The type of the entry itself: links are not followed.
            let kind = entry.file_type()?;
            if kind.is_dir() && !name.starts_with('.') && name != "target" {
                folders.push(entry.path());
            } else if kind.is_file() && name.ends_with(suffix) {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}
