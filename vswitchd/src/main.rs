//! `vswitchd`: parses its options, gives up what it does not need, runs until told to stop.
#![forbid(unsafe_code)]

use std::{io::IsTerminal as _, process::ExitCode};

use anyhow::Context as _;
use clap::Parser as _;
use confinement::{Role, confine};
use vswitchd::{
    cli::{Cli, Command, RunOptions},
    daemon, doctor,
    endpoint::{self, Translator},
    log,
};

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("vswitchd: {}", sentence(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Some(Command::Doctor) => {
            let report = doctor::examine();
            print!("{report}");
            Ok(if report.can_run() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Some(Command::Nft) => {
            confine(Role::Translator)?;
            endpoint::serve_nft()?;
            Ok(ExitCode::SUCCESS)
        }
        None => serve(cli.run).map(|()| ExitCode::SUCCESS),
    }
}

/// Runs the daemon.
fn serve(options: RunOptions) -> anyhow::Result<()> {
    // Colours are for people: not in a journal or a file.
    let is_seen = std::io::stderr().is_terminal();
    let filter = &options.log;
    let control =
        log::start(filter, (options.log_format, is_seen)).with_context(|| format!("--log {filter}"))?;
    // Only hosts of a network are gateways.
    let is_gateway = !options.r#virtual && !options.standalone;
    let translator = is_gateway.then(Translator::start).transpose().context("cannot start what runs nft")?;
    // Before there are other threads: they all are confined with this one.
    let confined = confine(if options.r#virtual { Role::Lab } else { Role::Switch })?;
    tracing::info!(
        capabilities = format!("{:#x}", confined.effective),
        is_bounding_wider = confined.is_bounding_wider,
        "confined"
    );
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(daemon::run(options, control, translator))
}

/// An error with those of its causes that its own text does not name.
fn sentence(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |said, more| match said.as_str() {
        "" => more,
        _ if said.contains(&more) => said,
        _ => format!("{said}: {more}"),
    })
}
