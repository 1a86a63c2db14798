//! `ct monitor`: connections as they begin, are established and go, a line each.

use clap::{Args, ValueEnum};
use ferroflow_proto::host::{
    ConnectionEvent, ConnectionEventKind, MonitorConnectionsRequest, connection_event::Event as Happened,
};
use serde::Serialize;
use tonic::Request;

use super::{ConnectionView, FILTER_HELP};
use crate::{
    address::Daemon,
    error::CtlError,
    output::{duration, printable},
    session::{Session, host_answer},
};

/// Connections to watch.
#[derive(Debug, Args)]
#[command(after_help = FILTER_HELP)]
pub struct Monitor {
    /// Which: `zone=1,tcp,src=10.0.0.1`
    #[arg(value_name = "FILTER")]
    filter: Vec<String>,
    /// Only these kinds of events
    #[arg(long, value_enum, value_delimiter = ',', value_name = "KIND")]
    only: Vec<Kind>,
    /// End after so many events
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

/// What becomes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// It was committed
    New,
    /// Both sides have spoken; the handshake is over, where there is one
    Established,
    /// It expired, was flushed, evicted or replaced
    Destroyed,
}

impl Kind {
    fn message(self) -> ConnectionEventKind {
        match self {
            Self::New => ConnectionEventKind::New,
            Self::Established => ConnectionEventKind::Established,
            Self::Destroyed => ConnectionEventKind::Destroyed,
        }
    }
}

impl Monitor {
    /// Prints events until there are enough.
    pub(super) async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let mut conntrack = session.conntrack().await?;
        // It may take as long as it likes: no deadline.
        let request = Request::new(MonitorConnectionsRequest {
            filter: self.filter.join(","),
            kinds: self.only.iter().map(|kind| kind.message().into()).collect(),
        });
        let mut stream = host_answer(conntrack.monitor_connections(request).await)?;
        let mut n_printed = 0;
        let wrong = |status: tonic::Status| CtlError::from_status(Daemon::Host, &status);
        while let Some(event) = stream.message().await.map_err(wrong)? {
            let (view, line) = read(event)?;
            session.print_line(&view, |out| writeln!(out, "{}", printable(&line)))?;
            n_printed += 1;
            if self.count == Some(n_printed) {
                break;
            }
        }
        Ok(())
    }
}

/// What is shown of an event.
#[derive(Debug, Serialize)]
struct EventView {
    /// Nanoseconds.
    time: u64,
    #[serde(flatten)]
    happened: HappenedView,
}

#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
enum HappenedView {
    New(Box<ConnectionView>),
    Established(Box<ConnectionView>),
    Destroyed(Box<ConnectionView>),
    Lost { n_lost: u64 },
}

/// An event, and the same as a line of text.
fn read(event: ConnectionEvent) -> Result<(EventView, String), CtlError> {
    let unknown = || CtlError::Newer { daemon: Daemon::Host, what: "an event of a new kind".into() };
    let time = event.time;
    let (happened, line) = match event.event.ok_or_else(unknown)? {
        Happened::NLost(n_lost) => {
            (HappenedView::Lost { n_lost }, format!("{n_lost} events lost: they came too fast"))
        }
        Happened::Change(change) => {
            let kind = change.kind();
            let view = Box::new(ConnectionView::from(change.connection.unwrap_or_default()));
            let text = view.text.clone();
            let (word, view) = match kind {
                ConnectionEventKind::New => ("new", HappenedView::New(view)),
                ConnectionEventKind::Established => ("established", HappenedView::Established(view)),
                ConnectionEventKind::Destroyed => ("destroyed", HappenedView::Destroyed(view)),
                ConnectionEventKind::Unspecified => return Err(unknown()),
            };
            (view, format!("{} {word}: {text}", duration(time)))
        }
    };
    Ok((EventView { time, happened }, line))
}
