//! What the host must have to build and run Ferroflow, and how to get it on Debian.
//!
//! A need is looked for by its evidence, a command or a file, not by the name of a package: hosts of other
//! distributions that have everything are welcome.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};
use ferroflow_tests::command::{complaint, run};
use ferroflow_tests::daemon::has_command;
use ferroflow_tests::{privilege, say};

use crate::cargo;

/// An installation of all packages takes well below a minute where a mirror is near.
const APT_LIMIT: Duration = Duration::from_secs(600);

#[derive(Debug, Clone, Copy)]
enum Evidence {
    Command(&'static str),
    File(&'static str),
}

/// Something the host must have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Need {
    package: &'static str,
    evidence: Evidence,
    why: &'static str,
}

/// What compiling needs.
#[rustfmt::skip]
const BUILD: &[Need] = &[
    Need { package: "gcc", evidence: Evidence::Command("cc"), why: "links programs, compiles the C of libxdp and ring" },
    Need { package: "libc6-dev", evidence: Evidence::File("/usr/include/stdio.h"), why: "headers of the C library" },
    Need { package: "make", evidence: Evidence::Command("make"), why: "builds libbpf, which xsk-rs brings along" },
    Need { package: "pkg-config", evidence: Evidence::Command("pkg-config"), why: "libbpf's build asks it for libelf" },
    Need { package: "clang", evidence: Evidence::Command("clang"), why: "compiles libxdp's BPF programs and reads its headers" },
    Need { package: "m4", evidence: Evidence::Command("m4"), why: "writes the source of libxdp's dispatcher" },
    Need { package: "libelf-dev", evidence: Evidence::File("/usr/include/gelf.h"), why: "libbpf reads ELF files" },
    Need { package: "zlib1g-dev", evidence: Evidence::File("/usr/include/zlib.h"), why: "libelf's compressed sections" },
];

/// What scenarios and the demo need.
#[rustfmt::skip]
const NETWORK: &[Need] = &[
    Need { package: "iproute2", evidence: Evidence::Command("ip"), why: "makes namespaces, links and routes" },
    Need { package: "util-linux", evidence: Evidence::Command("setpriv"), why: "lets daemons end with what started them" },
];

/// Makes sure that the host has what building needs and, for `network`, what scenarios need; as root, missing
/// packages are installed unless `install` says no.
///
/// # Errors
/// When something is missing and cannot be installed, with what and why.
pub(crate) fn ensure(network: bool, install: bool) -> Result<()> {
    let needs: Vec<Need> =
        BUILD.iter().chain(network.then_some(NETWORK).into_iter().flatten()).copied().collect();
    let missing = missing(&needs);
    if missing.is_empty() {
        return Ok(());
    }
    for need in &missing {
        say(&format!("            needs {:<12} {}", need.package, need.why));
    }
    let packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
    let by_hand = format!("apt-get install {}", packages.join(" "));
    if !has_command("apt-get") {
        bail!("the above is missing, and there is no apt-get: install it with this system's means");
    }
    if !install || !privilege::is_root() {
        bail!("the above is missing; as root: {by_hand}");
    }
    apt_install(&packages)?;
    let still: Vec<&str> = self::missing(&needs).iter().map(|need| need.package).collect();
    anyhow::ensure!(still.is_empty(), "installed, but not found: {}", still.join(" "));
    Ok(())
}

fn missing(needs: &[Need]) -> Vec<Need> {
    let is_missing = |need: &&Need| match need.evidence {
        Evidence::Command(name) => !has_command(name),
        Evidence::File(path) => !Path::new(path).exists(),
    };
    needs.iter().filter(is_missing).copied().collect()
}

/// A fresh image has no lists of packages, an old one has lists that name versions that are gone: both are
/// cured by an update, which is not made when it is not needed.
fn apt_install(packages: &[&str]) -> Result<()> {
    let mut words = vec!["install", "-y", "--no-install-recommends"];
    words.extend(packages);
    say(&format!("            apt-get {}", words.join(" ")));
    if run(&mut apt(&words), APT_LIMIT)?.status.success() {
        return Ok(());
    }
    say("            apt-get update");
    let update = run(&mut apt(&["update"]), APT_LIMIT)?;
    let finished = run(&mut apt(&words), APT_LIMIT)?;
    if !finished.status.success() {
        // An update that failed is the likelier cause.
        let cause = if update.status.success() { &finished } else { &update };
        bail!("cannot install packages: {}", complaint(cause));
    }
    Ok(())
}

fn apt(words: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.args(words).env("DEBIAN_FRONTEND", "noninteractive").current_dir(cargo::root());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_here_is_found_and_what_is_not_is_named() {
        let here = Need { package: "dash", evidence: Evidence::Command("sh"), why: "" };
        let file = Need { package: "base-files", evidence: Evidence::File("/etc"), why: "" };
        let gone = Need { package: "gone", evidence: Evidence::Command("no-such-command"), why: "" };
        let lost = Need { package: "lost", evidence: Evidence::File("/no/such/file"), why: "" };
        let names: Vec<_> = missing(&[here, gone, file, lost]).iter().map(|need| need.package).collect();
        assert_eq!(names, ["gone", "lost"]);
    }
}
