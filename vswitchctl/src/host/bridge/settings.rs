//! `bridge get` and `bridge set`: what a bridge is told about spanning trees, bonds, mirrors and
//! groups.

use clap::Args;
use ferroflow_proto::host::{ChangeBridgeSettingsRequest, GetBridgeSettingsRequest};
use serde_json::{Map, Value};

use crate::{
    address::Daemon,
    error::CtlError,
    session::{Session, host_answer},
};

/// What to show.
#[derive(Debug, Args)]
pub struct Get {
    /// The bridge; the only one by default
    #[arg(default_value = "", hide_default_value = true)]
    name: String,
}

/// What to change.
#[derive(Debug, Args)]
pub struct Set {
    /// The bridge
    name: String,
    /// Places and values: `spanning-tree.protocol=rstp`, `bonds.bond0.members=[eth1,eth2]`;
    /// `null` is what is usual, and takes a bond or mirror away
    #[arg(required = true, value_name = "KEY=VALUE")]
    changes: Vec<String>,
    /// Only show what would be
    #[arg(long)]
    dry_run: bool,
}

impl Get {
    /// Does it.
    pub(super) async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let name = if self.name.is_empty() { session.bridge() } else { self.name };
        let settings = of(session, &name).await?;
        print(session, &settings)
    }
}

impl Set {
    /// Does it.
    pub(super) async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let mut patch = Value::Object(Map::new());
        for change in &self.changes {
            place(&mut patch, change)?;
        }
        let settings = change(session, &self.name, &patch, self.dry_run).await?;
        print(session, &settings)
    }
}

/// What a bridge is told.
pub(super) async fn of(session: &Session<'_>, bridge: &str) -> Result<Value, CtlError> {
    let mut client = session.bridges().await?;
    let request = session.request(GetBridgeSettingsRequest { bridge: bridge.to_owned() });
    read(&host_answer(client.get_bridge_settings(request).await)?.settings)
}

/// Changes what a bridge is told.
pub(super) async fn change(
    session: &Session<'_>,
    bridge: &str,
    patch: &Value,
    validate_only: bool,
) -> Result<Value, CtlError> {
    let mut client = session.bridges().await?;
    let (bridge, patch) = (bridge.to_owned(), patch.to_string());
    let request = session.request(ChangeBridgeSettingsRequest { bridge, patch, validate_only });
    read(&host_answer(client.change_bridge_settings(request).await)?.settings)
}

fn read(text: &str) -> Result<Value, CtlError> {
    serde_json::from_str(text)
        .map_err(|_| CtlError::Newer { daemon: Daemon::Host, what: "settings that are no JSON".into() })
}

fn print(session: &mut Session<'_>, settings: &Value) -> Result<(), CtlError> {
    let text = serde_norway::to_string(settings).unwrap_or_default();
    session.print(settings, |out| write!(out, "{text}"))
}

/// Puts `a.b.c=value` into a patch.
fn place(patch: &mut Value, change: &str) -> Result<(), CtlError> {
    let wrong = |reason: &str| CtlError::Usage(format!("`{change}`: {reason}"));
    let (path, value) = change.split_once('=').ok_or_else(|| wrong("write KEY=VALUE"))?;
    let value: Value = serde_norway::from_str(value).map_err(|error| wrong(&error.to_string()))?;
    let mut at = patch;
    for key in path.split('.') {
        if key.is_empty() {
            return Err(wrong("write the place as words with dots between them"));
        }
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        let Some(object) = at.as_object_mut() else { return Err(wrong("it is set twice")) };
        at = object.entry(key).or_insert(Value::Null);
    }
    *at = value;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_and_values_become_a_patch() {
        let mut patch = Value::Object(Map::new());
        for change in [
            "spanning-tree.protocol=rstp",
            "spanning-tree.priority=4096",
            "bonds.bond0.members=[eth1, eth2]",
            "bonds.old=null",
            "multicast.querier=10.0.0.1",
        ] {
            place(&mut patch, change).unwrap();
        }
        let expected = r#"{"bonds":{"bond0":{"members":["eth1","eth2"]},"old":null},"multicast":{"querier":"10.0.0.1"},"spanning-tree":{"priority":4096,"protocol":"rstp"}}"#;
        assert_eq!(patch, serde_json::from_str::<Value>(expected).unwrap());
        for wrong in ["protocol", "=x", "a..b=1", "a=[1"] {
            assert!(place(&mut patch, wrong).is_err(), "{wrong} was taken");
        }
    }
}
