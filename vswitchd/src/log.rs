//! What the daemon logs, which can be changed while it runs.

use std::fmt;

use supervision::log;
pub use supervision::log::Format;
use tracing_subscriber::{
    EnvFilter, Registry, layer::SubscriberExt as _, reload, util::SubscriberInitExt as _,
};

/// The filter of the log, in force and to be changed.
pub struct LogControl {
    filter: String,
    handle: reload::Handle<EnvFilter, Registry>,
}

impl fmt::Debug for LogControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogControl").field("filter", &self.filter).finish_non_exhaustive()
    }
}

/// Logs to the standard error what passes a filter; `coloured`: for people.
///
/// # Errors
/// The filter is none.
pub fn start(filter: &str, (format, coloured): (Format, bool)) -> anyhow::Result<LogControl> {
    let (layer, control) = LogControl::new(filter)?;
    tracing_subscriber::registry().with(layer).with(log::lines(format, coloured)).init();
    Ok(control)
}

impl LogControl {
    /// A layer for a log, and what changes it.
    fn new(filter: &str) -> anyhow::Result<(reload::Layer<EnvFilter, Registry>, Self)> {
        let (layer, handle) = reload::Layer::new(EnvFilter::try_new(filter)?);
        Ok((layer, Self { filter: filter.to_owned(), handle }))
    }

    /// What is logged.
    pub fn filter(&self) -> &str {
        &self.filter
    }

    /// Says what is logged from now on.
    ///
    /// # Errors
    /// Why this is no filter; then all is as before.
    pub fn set(&mut self, filter: &str) -> Result<(), String> {
        let fresh = EnvFilter::try_new(filter).map_err(|error| error.to_string())?;
        self.handle.reload(fresh).map_err(|error| error.to_string())?;
        self.filter = filter.to_owned();
        tracing::info!(filter, "what is logged has changed");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_changes_while_it_is_used_and_a_wrong_one_changes_nothing() {
        let (layer, mut control) = LogControl::new("warn").unwrap();
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            assert!(!tracing::enabled!(tracing::Level::INFO));
            control.set("debug").unwrap();
            assert!(tracing::enabled!(tracing::Level::DEBUG));
            assert!(control.set("vswitchd=loud=very").is_err());
            assert!(tracing::enabled!(tracing::Level::DEBUG));
            assert_eq!(control.filter(), "debug");
            control.set("error").unwrap();
            assert!(!tracing::enabled!(tracing::Level::WARN));
        });
    }
}
