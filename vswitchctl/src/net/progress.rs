//! `status --network`: how far each host is, by the controller.

use std::{
    io::{self, Write},
    time::{SystemTime, UNIX_EPOCH},
};

use ferroflow_proto::northbound::{ChassisStatus, GetStatusResponse, PendingRevision};
use serde::Serialize;

use crate::{
    error::CtlError,
    output::{Table, Tabular, short, write_fields, yes},
    session::Session,
};

/// What is shown of the network.
#[derive(Debug, Serialize)]
struct NetworkView {
    revision: u64,
    compiled_revision: u64,
    chassis: Vec<ChassisView>,
}

/// What is shown of a host.
#[derive(Debug, Serialize)]
struct ChassisView {
    chassis: String,
    connected: bool,
    since_unix_ms: u64,
    applied_revision: u64,
    applied_unix_ms: u64,
    wanted_revision: u64,
    pending: Vec<PendingView>,
    has_more: bool,
    errors: Vec<String>,
    #[serde(skip)]
    age: String,
}

/// What is shown of a change that a host has not applied.
#[derive(Debug, Serialize)]
struct PendingView {
    revision: u64,
    resources: Vec<String>,
    n_resources: u64,
}

impl From<PendingRevision> for PendingView {
    fn from(PendingRevision { revision, resources, n_resources }: PendingRevision) -> Self {
        Self { revision, resources, n_resources }
    }
}

impl ChassisView {
    fn new(status: ChassisStatus, now_ms: u64) -> Self {
        Self {
            chassis: status.chassis,
            connected: status.connected,
            since_unix_ms: status.since_unix_ms,
            applied_revision: status.applied_revision,
            applied_unix_ms: status.applied_unix_ms,
            wanted_revision: status.wanted_revision,
            pending: status.pending.into_iter().map(PendingView::from).collect(),
            has_more: status.has_more,
            errors: status.errors,
            age: age(status.since_unix_ms, now_ms),
        }
    }

    fn n_pending(&self) -> String {
        format!("{}{}", self.pending.len(), if self.has_more { "+" } else { "" })
    }

    /// Why it has not applied all of it, or not in full.
    fn reasons(&self) -> Vec<String> {
        let host = short(&self.chassis);
        let errors = self.errors.iter().map(|error| format!("{host}: {error}"));
        let away = (!self.connected && !self.pending.is_empty()).then(|| match self.since_unix_ms {
            0 => format!("{host}: not heard of since the controller started"),
            _ => format!("{host}: gone for {}", self.age),
        });
        let pending = self.pending.iter().map(|PendingView { revision, resources, n_resources }| {
            let n_more = n_resources.saturating_sub(resources.len() as u64);
            let more = if n_more > 0 { format!(" and {n_more} more") } else { String::new() };
            format!("{host}: revision {revision} is not applied: {}{more}", resources.join(", "))
        });
        away.into_iter().chain(pending).chain(errors).collect()
    }
}

impl Tabular for ChassisView {
    const HEADINGS: &'static [&'static str] =
        &["CHASSIS", "CONNECTED", "FOR", "APPLIED", "WANTED", "PENDING", "ERRORS"];

    fn cells(&self) -> Vec<String> {
        vec![
            short(&self.chassis).to_owned(),
            yes(self.connected),
            self.age.clone(),
            self.applied_revision.to_string(),
            self.wanted_revision.to_string(),
            self.n_pending(),
            self.errors.len().to_string(),
        ]
    }
}

/// How long ago something was, in one unit.
fn age(then_ms: u64, now_ms: u64) -> String {
    let seconds = now_ms.saturating_sub(then_ms) / 1000;
    match seconds {
        _ if then_ms == 0 => String::new(),
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// Shows it.
///
/// # Errors
/// Those of the call.
pub async fn run(session: &mut Session<'_>) -> Result<(), CtlError> {
    let mut nb = session.controller().await?;
    let GetStatusResponse { revision, compiled_revision, chassis } = nb.status().await?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis());
    let now = u64::try_from(now).unwrap_or(u64::MAX);
    let chassis = chassis.into_iter().map(|status| ChassisView::new(status, now)).collect();
    let view = NetworkView { revision, compiled_revision, chassis };
    session.print(&view, |out| view.write(out))
}

impl NetworkView {
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let compiled = format!("revision {}", self.compiled_revision);
        write_fields(out, &[("network", format!("revision {}", self.revision)), ("compiled", compiled)])?;
        if self.chassis.is_empty() {
            return Ok(());
        }
        writeln!(out)?;
        Table::of(&self.chassis).write(out)?;
        let reasons: Vec<_> = self.chassis.iter().flat_map(ChassisView::reasons).collect();
        if !reasons.is_empty() {
            writeln!(out)?;
        }
        reasons.iter().try_for_each(|reason| writeln!(out, "{reason}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(pending: Vec<PendingRevision>, connected: bool, since: u64) -> ChassisView {
        let status = ChassisStatus {
            chassis: "chassis/h1".to_owned(),
            connected,
            since_unix_ms: since,
            applied_revision: 3,
            wanted_revision: 5,
            pending,
            errors: vec!["switches/web: no".to_owned()],
            ..ChassisStatus::default()
        };
        ChassisView::new(status, 600_000)
    }

    #[test]
    fn what_is_not_applied_is_told_with_its_reason() {
        let pending =
            PendingRevision { revision: 5, resources: vec!["switches/a".to_owned()], n_resources: 3 };
        let lines = host(vec![pending.clone()], false, 1000).reasons();
        assert_eq!(
            lines,
            [
                "h1: gone for 9 min",
                "h1: revision 5 is not applied: switches/a and 2 more",
                "h1: switches/web: no"
            ]
        );
        assert_eq!(
            host(vec![pending], false, 0).reasons()[0],
            "h1: not heard of since the controller started"
        );
        assert_eq!(host(Vec::new(), false, 0).reasons().len(), 1, "it lacks nothing");
        assert_eq!(host(Vec::new(), true, 1000).cells(), ["h1", "yes", "9 min", "3", "5", "0", "1"]);
    }

    #[test]
    fn ages_have_one_unit() {
        for (seconds, text) in [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (172_800, "2 d")] {
            assert_eq!(age(1, 1 + seconds * 1000), text);
        }
        assert_eq!((age(0, 5000), age(9000, 1)), (String::new(), "0 s".to_owned()));
    }
}
