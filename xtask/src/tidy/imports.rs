//! Who may depend on whom: the import table of ARCHITECTURE.md, checked against what cargo says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use super::{Finding, files};

/// What a crate promises.
struct Promise {
    name: &'static str,
    /// Crates of ours that it may depend on.
    ours: &'static [&'static str],
    /// Crates of others that it must never see, not even through another crate.
    never: &'static [&'static str],
}

/// Sockets, files, threads and clocks in one word.
const IO: &[&str] =
    &["tokio", "mio", "tonic", "prost", "nix", "rustix", "socket2", "crossbeam", "rayon", "redb"];
const NETWORK_API: &[&str] = &["tonic", "prost", "redb"];

#[rustfmt::skip]
const PROMISES: &[Promise] = &[
    Promise { name: "ferroflow-proto", ours: &[], never: &["redb", "xsk-rs"] },
    Promise { name: "flowtable", ours: &[], never: IO },
    Promise { name: "dataplane", ours: &["flowtable"], never: NETWORK_API },
    Promise { name: "ovn-northd-lite", ours: &["flowtable"], never: IO },
    Promise { name: "credentials", ours: &[], never: &["redb", "xsk-rs"] },
    // It is in the holder too.
    Promise { name: "confinement", ours: &[], never: &["tokio", "tonic", "prost", "redb", "clap", "tracing"] },
    // Of flowtable the controller takes the vocabulary in which the compiler's models are written.
    Promise { name: "controller", ours: &["confinement", "credentials", "ferroflow-proto", "ovn-northd-lite", "flowtable", "supervision"], never: &["xsk-rs"] },
    Promise { name: "vswitchd", ours: &["address-pool", "bridge-protocols", "confinement", "credentials", "ferroflow-proto", "flowtable", "dataplane", "ovn-northd-lite", "supervision", "vswitch-holder"], never: &["redb"] },
    // It has to live longer than all others: there is next to nothing in it.
    Promise { name: "vswitch-holder", ours: &["confinement"], never: &["tokio", "tonic", "prost", "redb", "clap", "tracing"] },
    Promise { name: "vswitchctl", ours: &["credentials", "ferroflow-proto"], never: &["redb", "xsk-rs"] },
    // The controller and the hosts in one process.
    Promise { name: "vswitch-lab", ours: &["controller", "vswitchd"], never: &[] },
    Promise { name: "address-pool", ours: &[], never: IO },
    Promise { name: "bridge-protocols", ours: &["flowtable"], never: IO },
    // Whatever is supervised, it knows nothing of.
    Promise { name: "supervision", ours: &[], never: NETWORK_API },
    Promise { name: "vswitch-shim", ours: &["ferroflow-proto"], never: &["redb", "xsk-rs"] },
    Promise { name: "vswitch-cni", ours: &["ferroflow-proto", "vswitch-shim"], never: &["redb", "xsk-rs"] },
    Promise {
        name: "vswitch-libnetwork",
        ours: &["address-pool", "ferroflow-proto", "vswitch-shim"],
        never: &["redb", "xsk-rs"],
    },
    Promise {
        name: "vswitch-netavark",
        ours: &["address-pool", "ferroflow-proto", "vswitch-shim"],
        never: &["redb", "xsk-rs"],
    },
    // Beside Open vSwitch it needs what the oracle knows of that, and the harness for processes.
    Promise { name: "benches", ours: &["flowtable", "dataplane", "ovn-northd-lite", "oracle", "ferroflow-tests"], never: NETWORK_API },
    // The oracle sees the switch from outside: its text, its frames.
    Promise { name: "oracle", ours: &["flowtable"], never: IO },
    // Controllers and hosts as they are; what is between them it makes up.
    Promise {
        name: "simulation",
        ours: &["controller", "dataplane", "ferroflow-proto", "flowtable", "vswitchd"],
        never: &[],
    },
    // It calls every parser there is.
    Promise {
        name: "ferroflow-fuzz",
        ours: &[
            "ferroflow-proto",
            "flowtable",
            "bridge-protocols",
            "dataplane",
            "oracle",
            "ovn-northd-lite",
            "controller",
            "vswitchd",
            "vswitchctl",
        ],
        never: &[],
    },
    Promise { name: "ferroflow-tests", ours: &[], never: &["tokio", "tonic"] },
    Promise { name: "xtask", ours: &["ferroflow-tests"], never: &["tokio", "tonic"] },
];

/// Checks the table against the output of `cargo metadata`. What tests depend on is not in it.
pub(super) fn check(metadata: &Value) -> Result<Vec<Finding>> {
    let graph = Graph::new(metadata)?;
    let mut findings = Vec::new();
    for (id, member) in &graph.members {
        let Some(promise) = PROMISES.iter().find(|promise| promise.name == member.name) else {
            findings.push(Finding::new(&member.manifest, 0, "this crate is not in tidy's import table"));
            continue;
        };
        for dependency in graph.edges.get(id).into_iter().flatten() {
            if let Some(ours) = graph.members.get(dependency)
                && !promise.ours.contains(&ours.name.as_str())
            {
                let what = format!("{} must not depend on {}", member.name, ours.name);
                findings.push(Finding::new(&member.manifest, 0, what));
            }
        }
        for (name, path) in graph.reachable(id) {
            if promise.never.contains(&name.as_str()) {
                let what = format!("{} must never see {name}, but does: {path}", member.name);
                findings.push(Finding::new(&member.manifest, 0, what));
            }
        }
    }
    Ok(findings)
}

/// Every crate takes versions and lints from the workspace, so that each is said once.
pub(super) fn check_manifests(root: &Path) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for path in files(root, "Cargo.toml")? {
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        if !text.contains("[workspace]") {
            findings.extend(check_manifest(path.strip_prefix(root).unwrap_or(&path), &text));
        }
    }
    Ok(findings)
}

fn check_manifest(path: &Path, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut section = "";
    let mut has_lints = false;
    for (i, line) in text.lines().map(str::trim).enumerate() {
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']);
            continue;
        }
        let inherits = line.contains("workspace = true");
        has_lints |= section == "lints" && inherits;
        // Continued lines of a list of features have no `=`.
        let is_dependency = section.ends_with("dependencies") && line.contains('=') && !line.starts_with('#');
        if is_dependency && !inherits {
            findings.push(Finding::new(path, i + 1, "a dependency that is not in [workspace.dependencies]"));
        }
    }
    if !has_lints {
        findings.push(Finding::new(path, 0, "without `[lints] workspace = true`"));
    }
    findings
}

struct Member {
    name: String,
    manifest: PathBuf,
}

/// Packages and what they depend on to be built, tests aside.
struct Graph {
    members: BTreeMap<String, Member>,
    names: BTreeMap<String, String>,
    edges: BTreeMap<String, Vec<String>>,
}

impl Graph {
    fn new(metadata: &Value) -> Result<Self> {
        let list = |value: &Value, name: &str| -> Result<Vec<Value>> {
            Ok(value
                .get(name)
                .and_then(Value::as_array)
                .with_context(|| format!("no {name} in metadata"))?
                .clone())
        };
        let text = |value: &Value, name: &str| -> Result<String> {
            Ok(value
                .get(name)
                .and_then(Value::as_str)
                .with_context(|| format!("no {name} in metadata"))?
                .to_owned())
        };
        let root = text(metadata, "workspace_root")?;
        let ids: BTreeSet<String> = list(metadata, "workspace_members")?
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        let (mut members, mut names, mut edges) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for package in list(metadata, "packages")? {
            let (id, name) = (text(&package, "id")?, text(&package, "name")?);
            if ids.contains(&id) {
                let manifest = PathBuf::from(text(&package, "manifest_path")?);
                let manifest = manifest.strip_prefix(&root).unwrap_or(&manifest).to_owned();
                members.insert(id.clone(), Member { name: name.clone(), manifest });
            }
            names.insert(id, name);
        }
        let resolve = metadata.get("resolve").context("no resolve in metadata")?;
        for node in list(resolve, "nodes")? {
            let mut dependencies = Vec::new();
            for dependency in list(&node, "deps")? {
                // Kinds: null is normal; what only `build.rs` uses is not in the program.
                if list(&dependency, "dep_kinds")?
                    .iter()
                    .any(|kind| kind.get("kind").is_some_and(Value::is_null))
                {
                    dependencies.push(text(&dependency, "pkg")?);
                }
            }
            edges.insert(text(&node, "id")?, dependencies);
        }
        Ok(Self { members, names, edges })
    }

    /// Every package that `id` depends on, directly or not, with one way to it. Crates of ours are not entered:
    /// they have promises of their own, and which of them may be seen is the other rule.
    fn reachable(&self, id: &str) -> BTreeMap<String, String> {
        let mut seen = BTreeSet::from([id.to_owned()]);
        let mut found = BTreeMap::new();
        let mut open = vec![(id.to_owned(), String::new())];
        while let Some((id, path)) = open.pop() {
            for dependency in self.edges.get(&id).into_iter().flatten() {
                if self.members.contains_key(dependency) || !seen.insert(dependency.clone()) {
                    continue;
                }
                let name = self.names.get(dependency).cloned().unwrap_or_default();
                let path = if path.is_empty() { name.clone() } else { format!("{path} → {name}") };
                found.entry(name).or_insert_with(|| path.clone());
                open.push((dependency.clone(), path));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn metadata(edges: &[(&str, &str, Option<&str>)]) -> Value {
        let names: BTreeSet<&str> = edges.iter().flat_map(|(from, to, _)| [*from, *to]).collect();
        let is_ours =
            |name: &&&str| PROMISES.iter().any(|promise| promise.name == **name) || name.starts_with("new");
        let package = |name: &&str| json!({ "id": name, "name": name, "manifest_path": format!("/r/{name}/Cargo.toml") });
        let node = |name: &&str| {
            let deps = edges.iter().filter(|(from, ..)| from == name);
            let deps = deps.map(|(_, to, kind)| json!({ "pkg": to, "dep_kinds": [{ "kind": kind }] }));
            json!({ "id": name, "deps": deps.collect::<Vec<_>>() })
        };
        json!({
            "workspace_root": "/r",
            "workspace_members": names.iter().filter(is_ours).collect::<Vec<_>>(),
            "packages": names.iter().map(package).collect::<Vec<_>>(),
            "resolve": { "nodes": names.iter().map(node).collect::<Vec<_>>() },
        })
    }

    fn findings(edges: &[(&str, &str, Option<&str>)]) -> Vec<String> {
        check(&metadata(edges)).unwrap().into_iter().map(|finding| finding.to_string()).collect()
    }

    #[test]
    fn what_the_table_allows_and_what_it_does_not() {
        let good = [
            ("dataplane", "flowtable", None),
            ("controller", "tokio", None),
            ("flowtable", "tokio", Some("dev")),
        ];
        assert_eq!(findings(&good), Vec::<String>::new());
        assert_eq!(
            findings(&[("flowtable", "ferroflow-proto", None)]),
            ["flowtable/Cargo.toml: flowtable must not depend on ferroflow-proto"]
        );
        assert_eq!(
            findings(&[("flowtable", "innocent", None), ("innocent", "tokio", None)]),
            ["flowtable/Cargo.toml: flowtable must never see tokio, but does: innocent → tokio"]
        );
        assert_eq!(findings(&[("new-crate", "serde", None)]).len(), 1);
    }

    #[test]
    fn manifests_inherit() {
        let good = "[package]\nversion = \"1\"\n[lints]\nworkspace = true\n[dependencies]\na.workspace = true\nb = { workspace = true, features = [\n  \"x\",\n] }\n";
        assert_eq!(check_manifest(Path::new("Cargo.toml"), good), Vec::<Finding>::new());
        let bad = "[dev-dependencies]\na = \"1\"\n";
        assert_eq!(check_manifest(Path::new("Cargo.toml"), bad).len(), 2);
    }
}
