//! `export`: the logical network as a file that `apply` takes.

use clap::Args;

use crate::{error::CtlError, file::objects::document, output::Format, session::Session};

/// Print the logical network as a file that `apply` takes: YAML, or JSON with -o json.
#[derive(Debug, Args)]
pub struct Export {}

impl Export {
    /// Does it.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let resources = session.controller().await?.snapshot().await?;
        let document = document(&resources)?;
        if session.global.output == Format::Table {
            session.global.output = Format::Yaml;
        }
        session.print(&document, |_| Ok(()))
    }
}
