//! `watch`: changes as they happen.

use std::io::{self, Write};

use clap::Args;
use ferroflow_proto::northbound::{WatchRequest, WatchResponse, event::Event};
use serde::Serialize;
use serde_json::Value;

use crate::{
    address::Daemon,
    error::CtlError,
    name::Noun,
    net::{by_noun, chassis::ChassisSpec, object::Shown},
    output::{Format, printable},
    session::Session,
};

/// Print changes as they happen.
#[derive(Debug, Args)]
pub struct Watch {
    /// Kinds to watch; none: all
    #[arg(value_enum)]
    kinds: Vec<Noun>,
    /// Only what is below this switch or router, in full: switches/web
    #[arg(long)]
    parent: Option<String>,
    /// Start after this revision; 0: start with everything there is
    #[arg(long, default_value_t = 0, value_name = "REVISION")]
    after: u64,
}

/// One change, as it is printed.
#[derive(Debug, Serialize)]
struct WatchedChange {
    revision: u64,
    name: String,
    /// `put` or `deleted`.
    event: &'static str,
    /// The object as its `show` prints it; none when it is gone.
    object: Option<Value>,
}

impl Watch {
    /// Prints changes until the stream ends.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let mut nb = session.controller().await?;
        let request = WatchRequest {
            kinds: self.kinds.iter().map(|noun| noun.kind().into()).collect(),
            parent: self.parent.unwrap_or_default(),
            after_revision: self.after,
        };
        let mut stream = nb.watch(request).await?;
        let mut seen = self.after;
        loop {
            match stream.message().await {
                Ok(Some(answer)) => {
                    seen = seen.max(answer.revision);
                    print(session, answer)?;
                }
                Ok(None) => return Err(ended(seen, "the controller ended it")),
                Err(status) if status.code() == tonic::Code::Unavailable => {
                    return Err(ended(seen, "the connection was lost"));
                }
                Err(status) => return Err(CtlError::from_status(Daemon::Controller, &status)),
            }
        }
    }
}

fn ended(seen: u64, why: &str) -> CtlError {
    CtlError::Refused {
        daemon: Daemon::Controller,
        code: tonic::Code::Aborted,
        message: format!("the watch ended: {why}; go on with --after {seen}"),
    }
}

fn print(session: &mut Session<'_>, answer: WatchResponse) -> Result<(), CtlError> {
    let revision = answer.revision;
    for event in answer.events.into_iter().filter_map(|event| event.event) {
        let change = watched(revision, event)?;
        match session.global.output {
            Format::Table => change.write(session.out)?,
            // One object a line, so that a reader need not wait for an end.
            Format::Json => {
                serde_json::to_writer(&mut *session.out, &change).map_err(io::Error::from)?;
                writeln!(session.out)?;
            }
            Format::Yaml => {
                writeln!(session.out, "---")?;
                serde_norway::to_writer(&mut *session.out, &change).map_err(io::Error::other)?;
            }
        }
    }
    session.out.flush()?;
    Ok(())
}

fn watched(revision: u64, event: Event) -> Result<WatchedChange, CtlError> {
    match event {
        Event::Deleted(name) => Ok(WatchedChange { revision, name, event: "deleted", object: None }),
        Event::Put(resource) => {
            let object = match Noun::of(&resource.name) {
                Some(noun) => by_noun!(noun, S => Some(value(<S as Shown>::view(&resource)?)?),
                    else => Some(value(ChassisSpec::view(&resource)?)?)),
                None => None,
            };
            Ok(WatchedChange { revision, name: resource.name, event: "put", object })
        }
    }
}

fn value(view: impl Serialize) -> Result<Value, CtlError> {
    serde_json::to_value(view).map_err(|error| CtlError::Output(error.into()))
}

impl WatchedChange {
    /// `12 put switches/web/ports/web-1 enabled=true …`, without what is empty.
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        write!(out, "{} {} {}", self.revision, self.event, printable(&self.name))?;
        let fields = self.object.as_ref().and_then(Value::as_object).into_iter().flatten();
        for (name, field) in fields.filter(|(name, field)| is_telling(name, field)) {
            match field {
                Value::String(text) => write!(out, " {name}={:?}", printable(text))?,
                other => write!(out, " {name}={}", printable(&other.to_string()))?,
            }
        }
        writeln!(out)
    }
}

fn is_telling(name: &str, field: &Value) -> bool {
    let is_empty = match field {
        Value::Null => true,
        Value::Array(values) => values.is_empty(),
        Value::Object(values) => values.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    };
    !is_empty && !matches!(name, "name" | "create_revision" | "update_revision")
}

#[cfg(test)]
mod tests {
    use ferroflow_proto::northbound::{LogicalRouterPort, Resource, resource};

    use super::*;

    #[test]
    fn a_change_is_one_line() {
        let port = LogicalRouterPort {
            mac: "0a:00:00:00:01:01".into(),
            networks: vec!["10.0.1.1/24".into()],
            ..Default::default()
        };
        let resource = Resource {
            name: "routers/r1/ports/r1-web".into(),
            spec: Some(resource::Spec::LogicalRouterPort(port)),
            ..Default::default()
        };
        let mut text = Vec::new();
        watched(4, Event::Put(resource)).unwrap().write(&mut text).unwrap();
        watched(5, Event::Deleted("routers/r1".into())).unwrap().write(&mut text).unwrap();
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "4 put routers/r1/ports/r1-web enabled=true mac=\"0a:00:00:00:01:01\" \
             networks=[\"10.0.1.1/24\"] tunnel_key=0\n\
             5 deleted routers/r1\n"
        );
    }
}
