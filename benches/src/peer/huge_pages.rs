//! Huge pages, lent to the other side for a while.

use std::fs;

use anyhow::{Context, Result, ensure};

const COUNT: &str = "/proc/sys/vm/nr_hugepages";

/// So many huge pages more than before, until this is dropped.
#[derive(Debug)]
pub struct HugePages {
    before: u64,
}

impl HugePages {
    /// Reserves them.
    ///
    /// # Errors
    /// When the host has no memory for them.
    pub fn reserve(n: u64) -> Result<Self> {
        let before = count()?;
        let lent = Self { before };
        fs::write(COUNT, (before + n).to_string()).with_context(|| format!("cannot write {COUNT}"))?;
        let now = count()?;
        ensure!(now >= before + n, "no room for {n} huge pages: {} came", now - before.min(now));
        Ok(lent)
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        if let Err(error) = fs::write(COUNT, self.before.to_string()) {
            ferroflow_tests::say(&format!("cannot give back huge pages: {error}"));
        }
    }
}

fn count() -> Result<u64> {
    let text = fs::read_to_string(COUNT).with_context(|| format!("cannot read {COUNT}"))?;
    text.trim().parse().with_context(|| format!("{COUNT} is no number"))
}
