//! `log`: what the daemon logs while it runs.

use clap::Args;
use ferroflow_proto::host::SetLogRequest;
use serde::Serialize;

use crate::{
    error::CtlError,
    output::printable,
    session::{Session, host_answer},
};

/// Tell or change what the daemon logs.
#[derive(Debug, Args)]
pub struct Log {
    /// `warn`, `info,dataplane=debug`; none: tells what it is
    #[arg(default_value = "", hide_default_value = true)]
    filter: String,
}

impl Log {
    /// Does it.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let mut host = session.host().await?;
        let request = session.request(SetLogRequest { filter: self.filter });
        let view = LogView { filter: host_answer(host.set_log(request).await)?.filter };
        session.print(&view, |out| writeln!(out, "{}", printable(&view.filter)))
    }
}

/// What is shown of the log.
#[derive(Debug, Serialize)]
struct LogView {
    filter: String,
}
