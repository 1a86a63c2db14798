//! What this process may do: scenarios need root, and say so.

use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result, bail};

/// Set to `1` by whoever accepts that scenarios that need root are skipped.
pub const UNPRIVILEGED: &str = "FERROFLOW_UNPRIVILEGED";

/// This process runs as root.
pub fn is_root() -> bool {
    // The owner of a process's directory is its effective user.
    std::fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

/// Kernel version as (major, minor).
///
/// # Errors
/// When the kernel does not tell, or tells something else.
pub fn kernel_version() -> Result<(u32, u32)> {
    let text =
        std::fs::read_to_string("/proc/sys/kernel/osrelease").context("cannot read the kernel version")?;
    parse_version(&text).with_context(|| format!("not a kernel version: {text:?}"))
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Says whether a scenario may run: as root it may, without it is skipped when that was asked for.
///
/// # Errors
/// Without root, unless [`UNPRIVILEGED`] is set.
pub fn may_run(scenario: &str) -> Result<bool> {
    if is_root() {
        return Ok(true);
    }
    if std::env::var_os(UNPRIVILEGED).is_some_and(|value| value == "1") {
        crate::say(&format!("SKIPPED {scenario}: it needs root, and {UNPRIVILEGED}=1 is set"));
        return Ok(false);
    }
    bail!("{scenario} needs root; run it as root, or set {UNPRIVILEGED}=1 to skip it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_as_distributions_write_them() {
        assert_eq!(parse_version("6.1.0-18-amd64\n"), Some((6, 1)));
        assert_eq!(parse_version("5.10\n"), Some((5, 10)));
        assert_eq!(parse_version("linux"), None);
        assert!(kernel_version().unwrap() >= (4, 0));
    }
}
