//! The harness for scenarios that cross crates: real processes, namespaces and packets.
//!
//! `cargo xtask demo` and the scenarios in `tests/tests` are made of the same parts, so that what the
//! demo shows is what the tests prove. The harness sees Ferroflow only as its users do: it starts the
//! binaries and talks to them through `vswitchctl`; it depends on none of the project's crates.
//!
//! Reading order: [`fabric`] (two hosts, four workloads, the daemons), [`checks`] (what must hold between
//! them), [`probe`] (traffic), [`gateway`] (one switch between a client and the world, by rules), [`pods`] (pods on one
//! switch, by rules), [`guest`] (guests of vhost-user ports), [`cni`],
//! [`mod@podman`], [`containerd`] and [`docker`] (container runtimes, their containers made of an [`image`]),
//! [`libnetwork`] (what Docker says to its driver), [`outage`] (a switch that is killed and replaced), [`attack`] (a host under attack by one of its workloads), [`mod@soak`] (a network under load that changes), then the means: [`control`], [`daemon`], [`netns`], [`processes`],
//! [`command`], [`random`], [`stop`].
//!
//! Whatever is made is owned by a guard that removes it: on success, on failure, on a panic and at Ctrl-C,
//! which sets [`stop::flag`] and so ends every wait with an error. What a `kill -9` leaves behind is found by
//! its prefix the next time.

#![forbid(unsafe_code)]

pub mod attack;
pub mod checks;
pub mod cni;
pub mod command;
pub mod containerd;
pub mod control;
pub mod daemon;
pub mod docker;
pub mod fabric;
pub mod gap;
pub mod gateway;
pub mod guest;
pub mod image;
pub mod libnetwork;
pub mod netns;
pub mod outage;
pub mod podman;
pub mod pods;
pub mod privilege;
pub mod probe;
pub mod processes;
pub mod provider;
pub mod random;
pub mod raw_frames;
pub mod scenario;
pub mod soak;
pub mod stop;

use std::io::Write;

use anyhow::Result;

/// Tells the person at the terminal, past the capture of the test runner.
pub fn say(line: &str) {
    // With standard error closed there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Prints an answer, flushed.
///
/// # Errors
/// When standard output is closed.
pub fn print_line(line: &str) -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
