//! `bridge apply`, `diff` and `export`: bridges with their ports, settings and rules as one file.
//! What a file says of a bridge is all there is of it; bridges that it does not name stay.

mod changes;

use std::{collections::BTreeMap, path::PathBuf};

use clap::Args;
use ferroflow_proto::host::{
    CheckBridgeRequest, DumpFlowsRequest, ListPortsRequest, Port, PortVlan, RemoveBridgeRequest, WantedPort,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tonic::Status;

use super::settings;
use crate::{
    error::CtlError,
    session::{Session, host_answer},
};

/// The file.
#[derive(Debug, Args)]
pub struct FromFile {
    /// Bridges in YAML, or in TOML when the name ends in .toml; -: in YAML from the standard input
    #[arg(long, short, value_name = "FILE")]
    file: PathBuf,
}

/// Which bridges to export.
#[derive(Debug, Args)]
pub struct Export {
    /// Only this one
    #[arg(default_value = "", hide_default_value = true)]
    name: String,
    /// Also their rules
    #[arg(long)]
    flows: bool,
    /// In TOML, not in YAML
    #[arg(long)]
    toml: bool,
}

/// A file.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    bridges: BTreeMap<String, Declared>,
}

impl Document {
    /// As a file; otherwise what cannot be written.
    fn text(&self, is_toml: bool) -> Result<String, String> {
        if is_toml {
            toml::to_string_pretty(self).map_err(|error| error.to_string())
        } else {
            serde_norway::to_string(self).map_err(|error| error.to_string())
        }
    }
}

/// A bridge as a file has it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
struct Declared {
    /// Unset: as it is, or secure.
    #[serde(skip_serializing_if = "Option::is_none")]
    fail_mode: Option<String>,
    /// As `bridge get` shows them; what is not said is as usual.
    settings: Value,
    ports: BTreeMap<String, DeclaredPort>,
    /// Just these rules; unset: whatever rules there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    flows: Option<Vec<String>>,
}

/// A port as a file has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
struct DeclaredPort {
    /// Unset: one that is free.
    #[serde(skip_serializing_if = "Option::is_none")]
    number: Option<u32>,
    /// The other end of a link to another bridge; empty: an interface.
    #[serde(skip_serializing_if = "String::is_empty")]
    peer: String,
    /// How an interface is attached, when it is added.
    #[serde(skip_serializing_if = "String::is_empty")]
    kind: String,
    vlan_mode: String,
    tag: u32,
    trunks: Vec<u32>,
    priority_tags: String,
    enable: bool,
    receive: bool,
    forward: bool,
    packet_in: bool,
    protect: bool,
    flood: bool,
}

impl Default for DeclaredPort {
    fn default() -> Self {
        Self {
            number: None,
            peer: String::new(),
            kind: String::new(),
            vlan_mode: "trunk".to_owned(),
            tag: 0,
            trunks: Vec::new(),
            priority_tags: "no".to_owned(),
            enable: true,
            receive: true,
            forward: true,
            packet_in: true,
            protect: false,
            flood: true,
        }
    }
}

impl DeclaredPort {
    fn vlan(&self) -> PortVlan {
        PortVlan {
            mode: self.vlan_mode.clone(),
            tag: self.tag,
            trunks: self.trunks.clone(),
            priority_tags: self.priority_tags.clone(),
        }
    }
}

impl From<Port> for DeclaredPort {
    fn from(port: Port) -> Self {
        let PortVlan { mode, tag, trunks, priority_tags } = port.vlan.unwrap_or_default();
        let or = |text: String, usual: &str| if text.is_empty() { usual.to_owned() } else { text };
        Self {
            number: Some(port.port_no),
            peer: port.peer,
            kind: String::new(),
            vlan_mode: or(mode, "trunk"),
            tag,
            trunks,
            priority_tags: or(priority_tags, "no"),
            enable: port.enabled,
            receive: port.receives,
            forward: port.forwards,
            packet_in: port.packet_ins,
            protect: port.protected,
            flood: port.floods,
        }
    }
}

impl FromFile {
    fn read(&self) -> Result<Document, CtlError> {
        let wrong = |reason: String| CtlError::Usage(format!("{}: {reason}", self.file.display()));
        let text = if self.file.as_os_str() == "-" {
            std::io::read_to_string(std::io::stdin())
        } else {
            std::fs::read_to_string(&self.file)
        };
        let text = text.map_err(|error| wrong(error.to_string()))?;
        parse(&text, self.file.extension().is_some_and(|ending| ending == "toml")).map_err(wrong)
    }

    /// Has the host have just these.
    pub(super) async fn apply(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let wanted = self.read()?;
        check(session, &wanted).await?;
        let before = all_of(session, &wanted).await?;
        let changes = changes::find(session, &wanted).await?;
        if let Err(error) = changes::make(session, &wanted, &changes).await {
            return Err(undo(session, &before, &wanted, error).await);
        }
        session.print(&changes.lines, |out| {
            changes.lines.iter().try_for_each(|line| writeln!(out, "{line}"))?;
            if changes.lines.is_empty() { writeln!(out, "nothing differs") } else { Ok(()) }
        })
    }

    /// Tells what `apply` would change.
    pub(super) async fn diff(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let wanted = self.read()?;
        check(session, &wanted).await?;
        let lines = changes::find(session, &wanted).await?.lines;
        session.print(&lines, |out| lines.iter().try_for_each(|line| writeln!(out, "{line}")))?;
        match lines.len() {
            0 => Ok(()),
            n => Err(CtlError::Differs { n, what: "places" }),
        }
    }
}

/// Reads a document, in TOML or in YAML; otherwise where it is wrong.
fn parse(text: &str, is_toml: bool) -> Result<Document, String> {
    if is_toml {
        toml::from_str(text).map_err(|error| error.to_string())
    } else {
        serde_norway::from_str(text).map_err(|error| error.to_string())
    }
}

impl Export {
    /// Does it.
    pub(super) async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let mut document = Document::default();
        for bridge in super::list(session).await? {
            if self.name.is_empty() || bridge.name == self.name {
                let declared = present(session, &bridge.name, &bridge.fail_mode, self.flows).await?;
                document.bridges.insert(bridge.name, declared);
            }
        }
        let text = document.text(self.toml).map_err(CtlError::Usage)?;
        session.print(&document, |out| write!(out, "{text}"))
    }
}

/// Has the host say what cannot be, before anything is changed.
async fn check(session: &Session<'_>, wanted: &Document) -> Result<(), CtlError> {
    let mut client = session.bridges().await?;
    for (name, declared) in &wanted.bridges {
        let port = |(name, port): (&String, &DeclaredPort)| WantedPort {
            name: name.clone(),
            port_no: port.number.unwrap_or_default(),
            vlan: Some(port.vlan()),
        };
        let request = session.request(CheckBridgeRequest {
            bridge: name.clone(),
            ports: declared.ports.iter().map(port).collect(),
            settings: if declared.settings.is_null() { String::new() } else { declared.settings.to_string() },
            has_flows: declared.flows.is_some(),
            flows: declared.flows.clone().unwrap_or_default(),
        });
        let checked = client.check_bridge(request).await.map_err(|status| {
            // Which bridge it is about nobody else says.
            Status::new(status.code(), format!("bridge {name}: {}", status.message()))
        });
        host_answer(checked)?;
    }
    Ok(())
}

/// The bridges that a file is about, as they are.
async fn all_of(session: &Session<'_>, wanted: &Document) -> Result<Document, CtlError> {
    let mut document = Document::default();
    for bridge in super::list(session).await? {
        if wanted.bridges.contains_key(&bridge.name) {
            let declared = present(session, &bridge.name, &bridge.fail_mode, true).await?;
            document.bridges.insert(bridge.name, declared);
        }
    }
    Ok(document)
}

/// Has everything as it was, after a step has failed; tells both when that does not go either.
async fn undo(session: &Session<'_>, before: &Document, wanted: &Document, error: CtlError) -> CtlError {
    let undone = async {
        let mut host = session.host().await?;
        for name in wanted.bridges.keys().filter(|name| !before.bridges.contains_key(*name)) {
            let request = RemoveBridgeRequest { name: name.clone(), allow_missing: true };
            host_answer(host.remove_bridge(session.request(request)).await)?;
        }
        let changes = changes::find(session, before).await?;
        changes::make(session, before, &changes).await
    };
    match undone.await {
        Ok(()) => error,
        Err(other) => CtlError::Usage(format!("{error}; and what was done until then stays: {other}")),
    }
}

/// A bridge as it is.
async fn present(
    session: &Session<'_>,
    name: &str,
    fail_mode: &str,
    with_flows: bool,
) -> Result<Declared, CtlError> {
    let mut host = session.host().await?;
    let request = session.request(ListPortsRequest { removed: false, bridge: name.to_owned() });
    let ports = host_answer(host.list_ports(request).await)?.ports;
    let flows = if with_flows {
        let request = DumpFlowsRequest { bridge: name.to_owned(), ..DumpFlowsRequest::default() };
        let flows = host_answer(host.dump_flows(session.request(request)).await)?.flows;
        let line = |flow: ferroflow_proto::host::Flow| {
            let matching = if flow.r#match.is_empty() { String::new() } else { format!(",{}", flow.r#match) };
            format!("table={},priority={}{matching},actions={}", flow.table, flow.priority, flow.actions)
        };
        Some(flows.into_iter().map(line).collect())
    } else {
        None
    };
    Ok(Declared {
        fail_mode: Some(fail_mode.to_owned()),
        settings: settings::of(session, name).await?,
        ports: ports.into_iter().map(|port| (port.name.clone(), port.into())).collect(),
        flows,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_languages_say_the_same_and_wrong_places_are_named() {
        let yaml = "
bridges:
  br0:
    fail-mode: secure
    ports: {p1: {number: 7, vlan-mode: access, tag: 10}, p2: {}}
    settings: {spanning-tree: {protocol: rstp}, bonds: {b: {members: [p1, p2]}}}
    flows: [\"priority=0,actions=NORMAL\"]
  br1: {}
";
        let document = parse(yaml, false).unwrap();
        assert_eq!(document.bridges["br0"].ports["p1"].number, Some(7));
        let toml = "
[bridges.br0]
fail-mode = 'secure'
flows = ['priority=0,actions=NORMAL']
ports = { p1 = { number = 7, vlan-mode = 'access', tag = 10 }, p2 = {} }
[bridges.br0.settings]
spanning-tree = { protocol = 'rstp' }
bonds = { b = { members = ['p1', 'p2'] } }
[bridges.br1]
";
        assert_eq!(parse(toml, true).unwrap(), document);
        let mut whole = document.clone();
        // A bridge has settings when it is there.
        whole
            .bridges
            .values_mut()
            .for_each(|bridge| bridge.settings = serde_json::json!({"lldp": {"hold": 4}}));
        for is_toml in [false, true] {
            let text = whole.text(is_toml).unwrap();
            assert_eq!(parse(&text, is_toml).unwrap(), whole, "{text}");
        }
        for (text, is_toml, place) in [
            ("bridges: {br0: {prots: {}}}", false, "prots"),
            ("bridges: [", false, "line 1"),
            ("[bridges.br0]\nprots = {}", true, "prots"),
            ("[bridges.br0]\nports = {", true, "line 2"),
        ] {
            let error = parse(text, is_toml).unwrap_err();
            assert!(error.contains(place), "{text}: {error}");
        }
    }
}
