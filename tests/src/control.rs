//! `vswitchctl` as a script uses it: `-o json` read back. The one place that knows its words and fields.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::command;

/// A request to a daemon that takes longer is lost.
const LIMIT: Duration = Duration::from_secs(15);
/// `apply` waits for every host.
const APPLY_LIMIT: Duration = Duration::from_secs(60);

/// `vswitchctl` with the addresses of the daemons it talks to.
#[derive(Debug, Clone)]
pub struct Control {
    program: PathBuf,
    flags: Vec<String>,
}

/// Counters of a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortCounters {
    /// Interface.
    pub name: String,
    /// Logical port, or empty.
    pub logical_port: String,
    /// It carries traffic.
    pub up: bool,
    /// Received packets.
    pub rx_packets: u64,
    /// Received packets that left by a port.
    pub rx_forwarded: u64,
    /// Received packets that were dropped.
    pub rx_dropped: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Packets that could not be sent.
    pub tx_dropped: u64,
}

/// A workload's port of the logical network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its id.
    pub id: String,
    /// Id of the chassis it is on, or empty.
    pub chassis: String,
    /// Its chassis forwards for it.
    pub up: bool,
    /// Revision that last changed it.
    pub update_revision: u64,
}

/// A counted drop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drop {
    /// Port the packets came in by.
    pub port: String,
    /// Name of the reason.
    pub reason: String,
    /// Northbound object that caused it, or empty.
    pub object: String,
    /// Packets.
    pub n_packets: u64,
}

/// Answer to a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// `forwarded` or `dropped`.
    pub verdict: String,
    /// Northbound object that dropped it, or empty.
    pub object: String,
}

/// State of a host's daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// A stream to the controller is up.
    pub controller_connected: bool,
    /// Revision its tables realise.
    pub applied_revision: u64,
    /// What it could not realise.
    pub errors: Vec<String>,
}

impl Control {
    /// Talks to a controller.
    pub fn to_controller(program: &Path, url: &str) -> Self {
        Self { program: program.to_owned(), flags: vec!["--controller".to_owned(), url.to_owned()] }
    }

    /// Talks to a host's daemon.
    pub fn to_host(program: &Path, url: &str) -> Self {
        Self { program: program.to_owned(), flags: vec!["--host".to_owned(), url.to_owned()] }
    }

    /// The command as one would type it.
    pub fn typed(&self, words: &str) -> String {
        format!("{} {} {words}", self.program.display(), self.flags.join(" "))
    }

    /// Runs a command that has to succeed, and gives what it printed.
    ///
    /// # Errors
    /// When it fails.
    pub fn text(&self, words: &[&str]) -> Result<String> {
        command::output(&mut self.command(words), LIMIT)
    }

    /// Runs a command that may fail.
    ///
    /// # Errors
    /// When it cannot run or does not end.
    pub fn attempt(&self, words: &[&str]) -> Result<command::Finished> {
        command::run(&mut self.command(words), LIMIT)
    }

    /// Runs a command with `-o json`.
    ///
    /// # Errors
    /// When it fails or prints no JSON.
    pub fn json(&self, words: &[&str]) -> Result<Value> {
        let text = command::output(self.command(words).args(["-o", "json"]), LIMIT)?;
        serde_json::from_str(&text).with_context(|| format!("no JSON from {words:?}: {text:?}"))
    }

    /// Applies a file and waits until every affected host has it.
    ///
    /// # Errors
    /// When the controller refuses it or a host does not apply it.
    pub fn apply(&self, file: &Path) -> Result<()> {
        let file = file.to_str().context("a path that is not text")?;
        command::output(&mut self.command(&["apply", "-f", file, "--wait"]), APPLY_LIMIT).map(drop)
    }

    /// Workloads' ports of the logical network: id, id of the chassis or empty, and whether it is up.
    ///
    /// # Errors
    /// When the controller does not answer as expected.
    pub fn places(&self) -> Result<Vec<Place>> {
        items(&self.json(&["switch-port", "list"])?, "ports")?.iter().map(place).collect()
    }

    /// Waits until all hosts that a revision concerns have applied it.
    ///
    /// # Errors
    /// When one has not, or has realised less than all of it.
    pub fn wait_applied(&self, revision: u64) -> Result<()> {
        let revision_text = revision.to_string();
        let mut command = self.command(&["receipt", &revision_text, "--wait", "-o", "json"]);
        let text = command::output(&mut command, APPLY_LIMIT)?;
        let receipt: Value = serde_json::from_str(&text).with_context(|| format!("no JSON: {text:?}"))?;
        ensure!(flag(&receipt, "complete")?, "revision {revision} is not applied everywhere: {receipt}");
        let errors = items(receipt.get("chassis").unwrap_or(&receipt), "chassis")?.iter();
        let errors: Vec<&Value> = errors.filter_map(|host| host.get("errors")?.as_array()?.first()).collect();
        ensure!(errors.is_empty(), "revision {revision} is not realised everywhere: {errors:?}");
        Ok(())
    }

    /// Runs commands, one a line, which may go on in the next after a backslash; single quotes keep spaces.
    /// The last one waits until it is in force.
    ///
    /// # Errors
    /// When one fails.
    pub fn configure(&self, lines: &str) -> Result<()> {
        let lines = lines.replace("\\\n", " ");
        let lines: Vec<&str> = lines.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        for (i, line) in lines.iter().enumerate() {
            let mut words = split(line);
            if i + 1 == lines.len() {
                words.push("--wait".to_owned());
            }
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            self.text(&words).with_context(|| (*line).to_owned())?;
        }
        Ok(())
    }

    /// Attaches an interface for a logical port.
    ///
    /// # Errors
    /// When the host refuses.
    pub fn add_port(&self, interface: &str, logical_port: &str) -> Result<()> {
        self.text(&["port", "add", interface, "--logical-port", logical_port]).map(drop)
    }

    /// Ports with their counters.
    ///
    /// # Errors
    /// When the host does not answer as expected.
    pub fn ports(&self) -> Result<Vec<PortCounters>> {
        items(&self.json(&["port", "list"])?, "ports")?.iter().map(port).collect()
    }

    /// Counted drops.
    ///
    /// # Errors
    /// When the host does not answer as expected.
    pub fn drops(&self) -> Result<Vec<Drop>> {
        items(&self.json(&["drops"])?, "drops")?.iter().map(one_drop).collect()
    }

    /// Packets dropped so far because of a northbound object.
    ///
    /// # Errors
    /// When the host does not answer as expected.
    pub fn dropped_by(&self, object: &str) -> Result<u64> {
        Ok(self.drops()?.iter().filter(|drop| drop.object == object).map(|drop| drop.n_packets).sum())
    }

    /// Walks a packet, given as a flow description, through the tables.
    ///
    /// # Errors
    /// When the host does not answer as expected.
    pub fn trace(&self, in_port: &str, flow: &str) -> Result<Trace> {
        let answer = self.json(&["trace", flow, "--in-port", in_port])?;
        Ok(Trace { verdict: text(&answer, "verdict")?, object: origin_object(answer.get("drop")) })
    }

    /// State of the host's daemon.
    ///
    /// # Errors
    /// When the host does not answer as expected.
    pub fn status(&self) -> Result<Status> {
        let answer = self.json(&["status"])?;
        let errors = answer.get("errors").and_then(Value::as_array).into_iter().flatten();
        Ok(Status {
            controller_connected: flag(&answer, "controller_connected")?,
            applied_revision: number(&answer, "applied_revision")?,
            errors: errors.map(|error| error.as_str().unwrap_or_default().to_owned()).collect(),
        })
    }

    /// Checks that each port's received packets were either forwarded or dropped, none lost or counted twice.
    ///
    /// # Errors
    /// When a port's sum stays wrong although the counters are read again.
    pub fn check_conservation(&self) -> Result<Vec<PortCounters>> {
        // Packets are in flight while the counters of the workers are read: a true account comes right soon.
        crate::stop::wait_for("conservation of packets", Duration::from_secs(5), || {
            let ports = self.ports()?;
            ensure!(!ports.is_empty(), "the host has no ports");
            let drops = self.drops()?;
            Ok(match ports.iter().find_map(|port| unaccounted(port, &drops)) {
                Some(why) => Err(why),
                None => Ok(ports),
            })
        })
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.flags).args(words);
        command
    }
}

/// Words of a line; single quotes keep spaces.
fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (i, part) in line.split('\'').enumerate() {
        match i % 2 {
            0 => words.extend(part.split_whitespace().map(str::to_owned)),
            _ => words.push(part.to_owned()),
        }
    }
    words
}

/// What is wrong with a port's account. The drops were read after the counters, so they may have grown.
fn unaccounted(port: &PortCounters, drops: &[Drop]) -> Option<String> {
    let PortCounters { name, rx_packets, rx_forwarded, rx_dropped, .. } = port;
    if *rx_packets != rx_forwarded + rx_dropped {
        return Some(format!(
            "{name}: received {rx_packets} is not forwarded {rx_forwarded} + dropped {rx_dropped}"
        ));
    }
    let n_named: u64 = drops.iter().filter(|drop| drop.port == *name).map(|drop| drop.n_packets).sum();
    (n_named < *rx_dropped).then(|| format!("{name}: dropped {rx_dropped}, but only {n_named} with a reason"))
}

/// A list is printed as an array, or as an object that holds it.
fn items<'a>(answer: &'a Value, name: &str) -> Result<&'a Vec<Value>> {
    let list = answer.as_array().or_else(|| answer.get(name)?.as_array());
    list.with_context(|| format!("no list of {name} in {answer}"))
}

fn port(value: &Value) -> Result<PortCounters> {
    let counters = value.get("counters").with_context(|| format!("no counters in {value}"))?;
    Ok(PortCounters {
        name: text(value, "name")?,
        logical_port: value.get("logical_port").and_then(Value::as_str).unwrap_or_default().to_owned(),
        up: flag(value, "up")?,
        rx_packets: number(counters, "rx_packets")?,
        rx_forwarded: number(counters, "rx_forwarded")?,
        rx_dropped: number(counters, "rx_dropped")?,
        tx_packets: number(counters, "tx_packets")?,
        tx_dropped: number(counters, "tx_dropped")?,
    })
}

fn place(value: &Value) -> Result<Place> {
    let id_of = |name: &str| name.rsplit('/').next().unwrap_or_default().to_owned();
    Ok(Place {
        id: id_of(&text(value, "name")?),
        chassis: id_of(value.get("chassis").and_then(Value::as_str).unwrap_or_default()),
        up: flag(value, "up")?,
        update_revision: number(value, "update_revision")?,
    })
}

fn one_drop(value: &Value) -> Result<Drop> {
    Ok(Drop {
        port: text(value, "port")?,
        reason: text(value, "reason")?,
        object: origin_object(Some(value)),
        n_packets: number(value, "n_packets")?,
    })
}

fn origin_object(drop: Option<&Value>) -> String {
    let object = drop.and_then(|drop| drop.get("origin")?.get("object")?.as_str());
    object.unwrap_or_default().to_owned()
}

fn text(value: &Value, name: &str) -> Result<String> {
    match value.get(name) {
        Some(Value::String(text)) => Ok(text.clone()),
        _ => bail!("no {name} in {value}"),
    }
}

fn number(value: &Value, name: &str) -> Result<u64> {
    // The protobuf JSON mapping writes 64-bit numbers as strings.
    let number = value.get(name).and_then(|n| n.as_u64().or_else(|| n.as_str()?.parse().ok()));
    number.with_context(|| format!("no {name} in {value}"))
}

fn flag(value: &Value, name: &str) -> Result<bool> {
    value.get(name).and_then(Value::as_bool).with_context(|| format!("no {name} in {value}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn a_port(rx: [u64; 3]) -> PortCounters {
        let value = json!({
            "name": "web-1", "logical_port": null, "up": true,
            "counters": {
                "rx_packets": rx[0], "rx_forwarded": rx[1], "rx_dropped": rx[2], "tx_packets": 0, "tx_dropped": 0,
            },
        });
        port(&value).unwrap()
    }

    #[test]
    fn a_lost_a_doubled_and_a_nameless_packet_are_found() {
        let value =
            json!({ "port": "web-1", "reason": "acl-drop", "origin": { "object": "x" }, "n_packets": 2 });
        let drops = [one_drop(&value).unwrap()];
        assert_eq!(drops[0].object, "x");
        assert_eq!(unaccounted(&a_port([5, 3, 2]), &drops), None);
        assert!(unaccounted(&a_port([6, 3, 2]), &drops).is_some_and(|why| why.contains("received 6")));
        assert!(unaccounted(&a_port([5, 4, 2]), &drops).is_some());
        assert!(unaccounted(&a_port([6, 3, 3]), &drops).is_some_and(|why| why.contains("only 2")));
    }

    #[test]
    fn an_answer_that_lacks_a_field_is_an_error_that_names_it() {
        let error = port(&json!({ "name": "a", "up": true, "counters": {} })).unwrap_err().to_string();
        assert!(error.contains("rx_packets"), "{error}");
        assert!(one_drop(&json!({ "port": "a" })).unwrap_err().to_string().contains("reason"));
        assert!(items(&json!({ "x": [] }), "ports").is_err());
        assert_eq!(items(&json!({ "ports": [1] }), "ports").unwrap().len(), 1);
        assert_eq!(number(&json!({ "n": "18446744073709551615" }), "n").unwrap(), u64::MAX);
    }
}
