//! What `group` and `meter` have in common: each is named by a number, written as a text in
//! the syntax of `ovs-ofctl`, and printed on a line.

use std::io::{self, Write};

use clap::Args;
use ferroflow_proto::host::rule_change::Kind;
use serde::Serialize;

use super::bundle::{self, Bundle, Subject, Unsaid};
use crate::{error::CtlError, session::Session};

/// Which to list.
#[derive(Debug, Args)]
pub struct Which {
    /// Only this one
    #[arg(value_name = "ID")]
    pub(super) id: Option<u32>,
}

/// Which to delete: all, or those that are named, each by its number or by `key=number`.
pub(super) fn chosen(items: Vec<String>, all: bool, word: &str, key: &str) -> Result<Vec<String>, CtlError> {
    if all {
        return Ok(vec!["all".to_owned()]);
    }
    if items.is_empty() {
        return Err(CtlError::Usage(format!("say which {word} to delete, or --all")));
    }
    let named = |item: String| match item.parse::<u32>() {
        Ok(id) => format!("{key}={id}"),
        Err(_) => item,
    };
    Ok(items.into_iter().map(named).collect())
}

/// Changes them.
pub(super) async fn change(
    session: &mut Session<'_>,
    items: &[String],
    (subject, kind): (Subject, Kind),
) -> Result<(), CtlError> {
    let bundle = Bundle::read(items, Unsaid { subject, kind })?;
    bundle::change(session, bundle, false).await
}

/// Prints them, a line each.
pub(super) fn print<T: Serialize>(
    session: &mut Session<'_>,
    views: &[T],
    write: fn(&T, &mut dyn Write) -> io::Result<()>,
) -> Result<(), CtlError> {
    session.print(&views, |out| views.iter().try_for_each(|view| write(view, out)))
}
