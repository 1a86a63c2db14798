//! Huge pages, lent to the other side for a while.

use std::fs;

use anyhow::{Context, Result, ensure};

const COUNT: &str = "/proc/sys/vm/nr_hugepages";
/// Times that the kernel is asked.
const N_TRIES: usize = 20;

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
        let mut now = before;
        // The kernel makes room as it goes, and stops where that takes long: it is asked again.
        for _ in 0..N_TRIES {
            fs::write(COUNT, (before + n).to_string()).with_context(|| format!("cannot write {COUNT}"))?;
            now = count()?;
            if now >= before + n {
                break;
            }
        }
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
