//! `vswitchd`: parses its options, runs until told to stop.
#![forbid(unsafe_code)]

use std::{io::IsTerminal as _, process::ExitCode};

use anyhow::Context as _;
use clap::Parser as _;
use vswitchd::{
    cli::{Cli, Command},
    daemon, doctor, log,
};

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("vswitchd: {}", sentence(&error));
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    if let Some(Command::Doctor) = cli.command {
        let report = doctor::examine();
        print!("{report}");
        return Ok(if report.can_run() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let filter = &cli.run.log;
    // Colours are for people: not in a journal or a file.
    let is_seen = std::io::stderr().is_terminal();
    let control =
        log::start(filter, (cli.run.log_format, is_seen)).with_context(|| format!("--log {filter}"))?;
    daemon::run(cli.run, control).await?;
    Ok(ExitCode::SUCCESS)
}

/// An error with those of its causes that its own text does not name.
fn sentence(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |said, more| match said.as_str() {
        "" => more,
        _ if said.contains(&more) => said,
        _ => format!("{said}: {more}"),
    })
}
