//! The commands against servers that answer as the daemons do, over unix sockets.
//! `fake_controller.rs` and `fake_host.rs` are those servers; what a real controller
//! checks is not repeated in them.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fake_controller;
mod fake_host;
mod host;
mod net;

use std::path::{Path, PathBuf};

use clap::Parser as _;
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use vswitchctl::{Cli, CtlError};

/// A directory with the sockets of the fakes.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn listen(&self, name: &str) -> UnixListenerStream {
        UnixListenerStream::new(UnixListener::bind(self.path(name)).unwrap())
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// Runs a command line and gives what it printed.
    async fn try_run(&self, args: &[&str]) -> (String, Result<(), CtlError>) {
        let address = |path: &Path| format!("unix://{}", path.display());
        let (controller, host) = (address(&self.path("controller")), address(&self.path("host")));
        let fixed = ["vswitchctl", "--controller", &controller, "--host", &host];
        let cli = Cli::try_parse_from(fixed.iter().chain(args)).unwrap();
        let mut out = Vec::new();
        let result = vswitchctl::run(cli, &mut out).await;
        (String::from_utf8(out).unwrap(), result)
    }

    async fn run(&self, args: &[&str]) -> String {
        let (out, result) = self.try_run(args).await;
        result.unwrap_or_else(|error| panic!("{args:?}: {error}\n{out}"));
        out
    }

    async fn fail(&self, args: &[&str]) -> CtlError {
        let (out, result) = self.try_run(args).await;
        result.expect_err(&format!("{args:?} succeeded with {out}"))
    }
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let cli = Cli::try_parse_from(["vswitchctl", "completions", shell]).unwrap();
        let mut out = Vec::new();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(vswitchctl::run(cli, &mut out)).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("switch-port") && text.contains("megaflow"), "{shell}");
        if shell == "bash" {
            bash_asks_for_names(&text);
        }
    }
}

/// Bash itself, with a command that prints what it was asked.
fn bash_asks_for_names(completions: &str) {
    let script = format!(
        "{completions}
vswitchctl() {{ [[ \"$*\" == '--timeout 2 complete-names -- switch set' ]] && printf 'web\nwest\ndb\n'; }}
COMP_WORDS=(vswitchctl switch set we) COMP_CWORD=3 COMPREPLY=()
_vswitchctl_with_names vswitchctl we set
printf '%s,' \"${{COMPREPLY[@]}}\"
"
    );
    // In a file: an argument is at most 128 KiB (execve(2)).
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), script).unwrap();
    let done = std::process::Command::new("bash").arg("--norc").arg(file.path()).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert_eq!(out, "web,west,", "{err}");
}
