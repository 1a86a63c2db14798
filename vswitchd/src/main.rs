//! `vswitchd`: parses its options, runs until told to stop.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use tracing_subscriber::EnvFilter;
use vswitchd::{
    cli::{Cli, Command},
    daemon, doctor,
};

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    if let Some(Command::Doctor) = cli.command {
        let report = doctor::examine();
        print!("{report}");
        return Ok(if report.can_run() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let log = &cli.run.log;
    let filter = EnvFilter::try_new(log).with_context(|| format!("--log {log}"))?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    daemon::run(cli.run).await?;
    Ok(ExitCode::SUCCESS)
}
