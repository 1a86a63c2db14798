//! `vswitchd`: parses its options, runs until told to stop.
#![forbid(unsafe_code)]

use std::{io::IsTerminal as _, process::ExitCode};

use anyhow::Context as _;
use clap::Parser as _;
use tracing_subscriber::EnvFilter;
use vswitchd::{
    cli::{Cli, Command},
    daemon, doctor,
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
    let log = &cli.run.log;
    let filter = EnvFilter::try_new(log).with_context(|| format!("--log {log}"))?;
    // Colours are for people: not in a journal or a file.
    let is_seen = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(is_seen).with_writer(std::io::stderr).init();
    daemon::run(cli.run).await?;
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
