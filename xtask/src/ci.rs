//! `ci`: what every change has to pass, the same here and on the build server.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;

use crate::cargo::{cargo, show};
use crate::packages::{self, Purpose};
use crate::progress::Progress;
use crate::{deny, instructions, test, tidy};

/// Everything a change has to pass: fmt, tidy, deny, clippy, doc, instructions, test. The quick ones come first.
#[derive(Debug, Args)]
pub(crate) struct Ci {
    /// Fail when it takes longer than this many minutes.
    #[arg(long, value_name = "MINUTES")]
    time_limit: Option<u64>,
    /// Without root: skip the tests that need it.
    #[arg(long)]
    unprivileged: bool,
}

impl Ci {
    pub(crate) fn run(self) -> Result<()> {
        let progress = Progress::start();
        let deadline = self.time_limit.map(|minutes| Instant::now() + Duration::from_secs(60 * minutes));
        let step = |name: &'static str, result: &mut dyn FnMut() -> Result<()>| {
            progress.step(name);
            result().context(name)
        };
        step("fmt", &mut || show(&mut cargo(&["fmt", "--all", "--check"]), deadline))?;
        step("tidy", &mut || tidy::check(false))?;
        step("deny", &mut || deny::check(deadline))?;
        step("packages", &mut || packages::ensure(Purpose::Test, true))?;
        #[rustfmt::skip]
        let clippy = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
        step("clippy", &mut || show(&mut cargo(&clippy), deadline))?;
        step("doc", &mut || {
            let mut doc = cargo(&["doc", "--workspace", "--no-deps", "--document-private-items", "--locked"]);
            show(doc.env("RUSTDOCFLAGS", "-D warnings"), deadline)
        })?;
        step("instructions", &mut || {
            packages::ensure(Purpose::Counting, true)?;
            instructions::check(None, false, deadline)
        })?;
        step("test", &mut || test::run(self.unprivileged, deadline))?;
        progress.step("everything passes");
        Ok(())
    }
}
