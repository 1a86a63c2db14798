//! What differs between bridges as they are and as a file has them, and how it is changed.

use std::collections::BTreeMap;

use ferroflow_proto::host::{
    AddBridgeRequest, AddPortRequest, ChangeRulesRequest, ModifyPortRequest, RemovePortRequest, RuleChange,
    rule_change::Kind,
};
use serde_json::{Map, Value};

use super::{Declared, DeclaredPort, Document, present};
use crate::{
    error::CtlError,
    host::bridge::{list, settings},
    session::{Session, host_answer},
};

/// What has to change.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// For people: what goes, comes and changes.
    pub(super) lines: Vec<String>,
    /// Bridges to make, or to fail otherwise.
    bridges: Vec<String>,
    /// Ports to take away first.
    gone: Vec<String>,
    /// Ports to add, each with its bridge.
    fresh: Vec<(String, String)>,
    /// Ports to set, each with its bridge.
    set: Vec<(String, String)>,
    /// Patches of settings.
    patches: Vec<(String, Value)>,
    /// Bridges with other rules.
    flows: Vec<String>,
}

/// Compares.
pub(super) async fn find(session: &Session<'_>, wanted: &Document) -> Result<Changes, CtlError> {
    let mut changes = Changes::default();
    let known: BTreeMap<String, String> =
        list(session).await?.into_iter().map(|bridge| (bridge.name, bridge.fail_mode)).collect();
    for (name, declared) in &wanted.bridges {
        let present = match known.get(name) {
            Some(mode) => present(session, name, mode, false).await?,
            None => {
                changes.lines.push(format!("+ bridge {name}"));
                Declared { fail_mode: Some("secure".to_owned()), ..Declared::default() }
            }
        };
        let is_new = !known.contains_key(name);
        let other_mode = declared.fail_mode.as_ref().filter(|mode| present.fail_mode.as_ref() != Some(mode));
        if let Some(mode) = other_mode {
            changes.lines.push(format!("~ {name} fail-mode: {mode}"));
        }
        if is_new || other_mode.is_some() {
            changes.bridges.push(name.clone());
        }
        changes.compare_ports(name, &present.ports, &declared.ports);
        let usual = Value::Object(Map::new());
        let settings = if declared.settings.is_null() { &usual } else { &declared.settings };
        let patch = patch_to(&present.settings, settings);
        changes.compare_settings(name, &present.settings, &patch, session, is_new).await?;
        if let Some(flows) = &declared.flows {
            changes.compare_flows(name, flows, session, is_new).await?;
        }
    }
    Ok(changes)
}

impl Changes {
    fn compare_ports(
        &mut self,
        bridge: &str,
        present: &BTreeMap<String, DeclaredPort>,
        wanted: &BTreeMap<String, DeclaredPort>,
    ) {
        for name in present.keys().filter(|name| !wanted.contains_key(*name)) {
            self.lines.push(format!("- port {name} of {bridge}"));
            self.gone.push(name.clone());
        }
        for (name, port) in wanted {
            let known = present.get(name);
            let is_same = |known: &&DeclaredPort| {
                known.peer == port.peer && port.number.is_none_or(|number| known.number == Some(number))
            };
            let Some(known) = known.filter(is_same) else {
                self.lines.push(format!("+ port {name} of {bridge}"));
                self.gone.extend(known.map(|_| name.clone()));
                self.fresh.push((bridge.to_owned(), name.clone()));
                self.set.push((bridge.to_owned(), name.clone()));
                continue;
            };
            let comparable = DeclaredPort { number: known.number, kind: known.kind.clone(), ..port.clone() };
            if comparable != *known {
                self.lines.push(format!("~ port {name} of {bridge}"));
                self.set.push((bridge.to_owned(), name.clone()));
            }
        }
    }

    async fn compare_settings(
        &mut self,
        bridge: &str,
        present: &Value,
        patch: &Value,
        session: &Session<'_>,
        is_new: bool,
    ) -> Result<(), CtlError> {
        if is_new {
            self.patches.push((bridge.to_owned(), patch.clone()));
            return Ok(());
        }
        let after = match settings::change(session, bridge, patch, true).await {
            Ok(after) => after,
            // They name ports that are still to come, or to go.
            Err(_) if !(self.fresh.is_empty() && self.gone.is_empty()) => {
                self.lines.push(format!("~ {bridge} settings"));
                self.patches.push((bridge.to_owned(), patch.clone()));
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let n_before = self.lines.len();
        tell("", present, &after, &mut |line| self.lines.push(format!("~ {bridge} {line}")));
        if self.lines.len() > n_before {
            self.patches.push((bridge.to_owned(), patch.clone()));
        }
        Ok(())
    }

    async fn compare_flows(
        &mut self,
        bridge: &str,
        flows: &[String],
        session: &Session<'_>,
        is_new: bool,
    ) -> Result<(), CtlError> {
        if is_new {
            self.lines.extend(flows.iter().map(|flow| format!("+ flow {flow}")));
            self.flows.push(bridge.to_owned());
            return Ok(());
        }
        let mut rules = session.rules().await?;
        let request = session.request(rules_request(bridge, flows));
        let answer = match host_answer(rules.compare_rules(request).await) {
            Ok(answer) => answer,
            // They name ports that are still to come.
            Err(_) if !self.fresh.is_empty() => {
                self.lines.push(format!("~ {bridge} flows"));
                self.flows.push(bridge.to_owned());
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if !(answer.gone.is_empty() && answer.fresh.is_empty()) {
            self.lines.extend(answer.gone.iter().map(|flow| format!("- flow {flow}")));
            self.lines.extend(answer.fresh.iter().map(|flow| format!("+ flow {flow}")));
            self.flows.push(bridge.to_owned());
        }
        Ok(())
    }
}

/// Makes what was found.
pub(super) async fn make(
    session: &Session<'_>,
    wanted: &Document,
    changes: &Changes,
) -> Result<(), CtlError> {
    let mut host = session.host().await?;
    for name in &changes.bridges {
        let fail_mode = wanted.bridges.get(name).and_then(|declared| declared.fail_mode.clone());
        let request = AddBridgeRequest { name: name.clone(), fail_mode: fail_mode.unwrap_or_default() };
        host_answer(host.add_bridge(session.request(request)).await)?;
    }
    for interface in &changes.gone {
        let request = RemovePortRequest { interface: interface.clone(), allow_missing: true };
        host_answer(host.remove_port(session.request(request)).await)?;
    }
    let port_of = |bridge: &String, name: &String| wanted.bridges.get(bridge)?.ports.get(name);
    for (bridge, name) in &changes.fresh {
        let Some(port) = port_of(bridge, name) else { continue };
        let request = AddPortRequest {
            interface: name.clone(),
            port_no: port.number.unwrap_or_default(),
            bridge: bridge.clone(),
            peer: port.peer.clone(),
            kind: port.kind.clone(),
            ..AddPortRequest::default()
        };
        host_answer(host.add_port(session.request(request)).await)?;
    }
    for (bridge, name) in &changes.set {
        let Some(port) = port_of(bridge, name) else { continue };
        host_answer(host.modify_port(session.request(modification(name, port))).await)?;
    }
    for (bridge, patch) in &changes.patches {
        settings::change(session, bridge, patch, false).await?;
    }
    let mut rules = session.rules().await?;
    for bridge in &changes.flows {
        let flows = wanted.bridges.get(bridge).and_then(|declared| declared.flows.as_deref());
        let request = session.request(rules_request(bridge, flows.unwrap_or_default()));
        host_answer(rules.change_rules(request).await)?;
    }
    Ok(())
}

fn modification(name: &str, port: &DeclaredPort) -> ModifyPortRequest {
    ModifyPortRequest {
        interface: name.to_owned(),
        forwards: Some(port.forward),
        floods: Some(port.flood),
        vlan: Some(port.vlan()),
        receives: Some(port.receive),
        enabled: Some(port.enable),
        packet_ins: Some(port.packet_in),
        protected: Some(port.protect),
        // A declaration says nothing of rates: they stay.
        ..ModifyPortRequest::default()
    }
}

fn rules_request(bridge: &str, flows: &[String]) -> ChangeRulesRequest {
    let change = |flow: &String| RuleChange { kind: Kind::FlowAdd.into(), text: flow.clone() };
    ChangeRulesRequest {
        changes: flows.iter().map(change).collect(),
        replace: true,
        bridge: bridge.to_owned(),
    }
}

/// The merge patch that makes of some settings just those that are wanted: what these do not
/// say is as usual.
fn patch_to(present: &Value, wanted: &Value) -> Value {
    let (Value::Object(present), Value::Object(wanted)) = (present, wanted) else {
        return if wanted.is_null() && present.is_object() {
            patch_to(present, &Value::Object(Map::new()))
        } else {
            wanted.clone()
        };
    };
    let mut patch = Map::new();
    for key in present.keys().filter(|key| !wanted.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in wanted {
        let known = present.get(key).unwrap_or(&Value::Null);
        patch.insert(key.clone(), if known.is_object() { patch_to(known, value) } else { value.clone() });
    }
    Value::Object(patch)
}

/// Tells where two documents differ.
fn tell(place: &str, before: &Value, after: &Value, line: &mut dyn FnMut(String)) {
    let (Value::Object(old), Value::Object(new)) = (before, after) else {
        if before != after {
            line(format!("{place}: {before} -> {after}"));
        }
        return;
    };
    let keys: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for key in keys {
        let inner = if place.is_empty() { key.clone() } else { format!("{place}.{key}") };
        let of = |object: &Map<String, Value>| object.get(key).cloned().unwrap_or(Value::Null);
        tell(&inner, &of(old), &of(new), line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_patch_leaves_just_what_is_wanted() {
        let present = json(r#"{"tree":{"protocol":"rstp","priority":1},"bonds":{"b":{"mode":"x"}}}"#);
        let patch = patch_to(&present, &json(r#"{"tree":{"protocol":"stp"},"bonds":{"c":{}}}"#));
        let expected = json(r#"{"tree":{"protocol":"stp","priority":null},"bonds":{"b":null,"c":{}}}"#);
        assert_eq!(patch, expected);
        assert_eq!(patch_to(&present, &Value::Null), json(r#"{"tree":null,"bonds":null}"#));
    }

    #[test]
    fn ports_come_go_and_change() {
        let port = |number, tag| DeclaredPort { number, tag, ..DeclaredPort::default() };
        let of = |ports: &[(&str, DeclaredPort)]| {
            ports.iter().map(|(name, port)| ((*name).to_owned(), port.clone())).collect::<BTreeMap<_, _>>()
        };
        let present = of(&[
            ("a", port(Some(1), 0)),
            ("b", port(Some(2), 0)),
            ("c", port(Some(3), 0)),
            ("d", port(Some(4), 0)),
        ]);
        let wanted =
            of(&[("a", port(None, 0)), ("b", port(None, 5)), ("d", port(Some(9), 0)), ("e", port(None, 0))]);
        let mut changes = Changes::default();
        changes.compare_ports("br", &present, &wanted);
        assert_eq!(changes.lines, ["- port c of br", "~ port b of br", "+ port d of br", "+ port e of br"]);
        assert_eq!(
            (changes.gone, changes.fresh.len(), changes.set.len()),
            (vec!["c".into(), "d".into()], 2, 3)
        );
    }
}
