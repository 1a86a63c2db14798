//! `tlv-map`: Geneve options that rules see as `tun_metadata` fields.

use clap::{Args, Subcommand};
use ferroflow_proto::host::{ListTablesRequest, rule_change::Kind};

use super::bundle::{self, Bundle, Subject, Unsaid};
use crate::{
    error::CtlError,
    output::printable,
    session::{Session, host_answer},
};

/// Geneve options that have fields of their own, which rules match and set as `tun_metadataN`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List them
    List,
    /// By hand: give options fields: `{class=0xffff,type=0x80,len=4}->tun_metadata1`
    Add(Options),
    /// By hand: take their fields away
    Del(Options),
}

/// Options.
#[derive(Debug, Args)]
pub struct Options {
    /// An option, or several with commas between them. @FILE: one in each line; -: from the
    /// standard input
    #[arg(required = true, value_name = "OPTION")]
    options: Vec<String>,
}

impl Command {
    /// Does it.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let (kind, Options { options }) = match self {
            Self::List => return list(session).await,
            Self::Add(options) => (Kind::OptionMap, options),
            Self::Del(options) => (Kind::OptionUnmap, options),
        };
        let unsaid = Unsaid { subject: Subject::Option, kind };
        let options: Vec<String> = options.iter().flat_map(|text| each(text)).collect();
        bundle::change(session, Bundle::read(&options, unsaid)?, false).await
    }
}

/// `{…}->a,{…}->b` one by one.
fn each(text: &str) -> Vec<String> {
    let mut parts = text.split(",{");
    let first = parts.next().map(str::to_owned);
    first.into_iter().chain(parts.map(|rest| format!("{{{rest}"))).collect()
}

async fn list(session: &mut Session<'_>) -> Result<(), CtlError> {
    let mut rules = session.rules().await?;
    let request = session.request(ListTablesRequest { bridge: session.bridge() });
    let answer = host_answer(rules.list_tables(request).await)?;
    session.print(&answer.options, |out| {
        answer.options.iter().try_for_each(|option| writeln!(out, "{}", printable(option)))
    })
}

#[cfg(test)]
mod tests {
    use super::each;

    #[test]
    fn options_are_told_apart_by_their_braces() {
        let text = "{class=1,type=2,len=4}->tun_metadata1,{class=1,type=3,len=4}->tun_metadata2";
        let expected = ["{class=1,type=2,len=4}->tun_metadata1", "{class=1,type=3,len=4}->tun_metadata2"];
        assert_eq!(each(text), expected);
        assert_eq!(each("@file"), ["@file"]);
    }
}
