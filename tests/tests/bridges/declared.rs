//! A configuration in a file: applied, kept over a crash, changed by what differs and nothing else.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use ferroflow_tests::command;

use crate::star::{Kind, Star, on_star};

const YAML: &str = "
bridges:
  br0:
    fail-mode: secure
    ports:
      p1: {number: 11, vlan-mode: access, tag: 10}
      p2: {number: 12, vlan-mode: access, tag: 10}
      p3: {number: 13, vlan-mode: access, tag: 20, protect: true}
      to-br1: {number: 20, peer: to-br0}
    settings:
      spanning-tree: {protocol: rstp, priority: 8192, ports: {p1: {edge: true}, p2: {edge: true}}}
      multicast: {snooping: true, members: [{vlan: 10, group: 239.1.1.1, port: p2}]}
      mirrors: {watch: {select-src: [p1], output-port: p3, filter: tcp}}
      stations: {max-age: 77}
    flows:
      - priority=10,in_port=p1,tcp,tp_dst=23,actions=drop
      - priority=0,actions=NORMAL
  br1:
    ports:
      to-br0: {peer: to-br1}
    flows:
      - priority=5,in_port=to-br0,actions=drop
";

/// The same, in TOML.
const TOML: &str = r#"
[bridges.br0]
fail-mode = "secure"
flows = ["priority=10,in_port=p1,tcp,tp_dst=23,actions=drop", "priority=0,actions=NORMAL"]

[bridges.br0.ports]
p1 = { number = 11, vlan-mode = "access", tag = 10 }
p2 = { number = 12, vlan-mode = "access", tag = 10 }
p3 = { number = 13, vlan-mode = "access", tag = 20, protect = true }
to-br1 = { number = 20, peer = "to-br0" }

[bridges.br0.settings]
spanning-tree = { protocol = "rstp", priority = 8192, ports = { p1 = { edge = true }, p2 = { edge = true } } }
multicast = { snooping = true, members = [{ vlan = 10, group = "239.1.1.1", port = "p2" }] }
mirrors = { watch = { select-src = ["p1"], output-port = "p3", filter = "tcp" } }
stations = { max-age = 77 }

[bridges.br1]
ports = { to-br0 = { peer = "to-br1" } }
flows = ["priority=5,in_port=to-br0,actions=drop"]
"#;

fn file(star: &Star, name: &str, text: &str) -> Result<PathBuf> {
    let path = star.dir.join(name);
    fs::write(&path, text)?;
    Ok(path)
}

fn bridge(star: &Star, verb: &str, file: &Path) -> Result<command::Finished> {
    star.switch.control.attempt(&["bridge", verb, "-f", &file.display().to_string()])
}

/// What `apply` has changed, a line each.
fn apply(star: &Star, file: &Path) -> Result<Vec<String>> {
    let finished = bridge(star, "apply", file)?;
    ensure!(finished.status.success(), "{}", command::complaint(&finished));
    Ok(finished.stdout.lines().map(str::to_owned).collect())
}

/// Nothing differs, and the exit code says so.
fn check_same(star: &Star, file: &Path) -> Result<()> {
    let finished = bridge(star, "diff", file)?;
    ensure!(finished.status.code() == Some(0), "{}", command::complaint(&finished));
    ensure!(finished.stdout.is_empty(), "{}", finished.stdout);
    Ok(())
}

/// All that there is, rules included.
fn whole(star: &Star) -> Result<String> {
    star.switch.control.text(&["bridge", "export", "--flows"])
}

fn check_kept_and_changed(
    star: &mut Star,
    path: &Path,
    changed: &Path,
    wrong: &[(PathBuf, &str)],
) -> Result<()> {
    let differences = bridge(star, "diff", path)?;
    ensure!(differences.status.code() == Some(1), "{}", command::complaint(&differences));
    let lines = apply(star, path)?;
    ensure!(lines.contains(&"+ bridge br1".to_owned()), "{lines:?}");
    check_same(star, path)?;
    ensure!(star.ping(1, 2, 3)? == 3, "both are in VLAN 10");
    let before = whole(star)?;
    star.switch.crash()?;
    ensure!(whole(star)? == before, "{}\n{before}", whole(star)?);
    check_same(star, path)?;
    star.wait_for_ping(1, 2)?;
    ensure!(star.ping(1, 3, 1)? == 0, "p3 is only looked by");
    // What cannot be changes nothing, however much else of the file could be.
    for (path, reason) in wrong {
        let refused = bridge(star, "apply", path)?;
        let said = command::complaint(&refused);
        ensure!(!refused.status.success() && said.contains(reason), "{}: {said}", path.display());
        ensure!(whole(star)? == before, "{} has changed something: {}", path.display(), whole(star)?);
    }
    check_same(star, path)?;
    // Only what differs.
    let mut lines = apply(star, changed)?;
    lines.sort();
    let wanted = [
        "+ flow cookie=0x0, table=0, priority=7,udp actions=drop",
        "- flow cookie=0x0, table=0, priority=10,tcp,in_port=11,tp_dst=23 actions=drop",
        "~ br0 stations.max-age: 77 -> 78",
        "~ port p2 of br0",
    ];
    ensure!(lines == wanted, "{lines:#?}");
    check_same(star, changed)?;
    let again = apply(star, changed)?;
    ensure!(again == ["nothing differs"], "{again:?}");
    ensure!(star.ping(1, 2, 1)? == 0, "they are in different VLANs");
    // What is printed is a file as well.
    let path = file(star, "printed.yaml", &whole(star)?)?;
    check_same(star, &path)
}

fn changed(text: &str) -> String {
    let drop = "priority=10,in_port=p1,tcp,tp_dst=23,actions=drop";
    text.replace(drop, "priority=7,udp,actions=drop")
        .replace("max-age: 77", "max-age: 78")
        .replace("max-age = 77", "max-age = 78")
        .replace(
            "p2: {number: 12, vlan-mode: access, tag: 10}",
            "p2: {number: 12, vlan-mode: access, tag: 30}",
        )
        .replace(
            "p2 = { number = 12, vlan-mode = \"access\", tag = 10 }",
            "p2 = { number = 12, vlan-mode = \"access\", tag = 30 }",
        )
}

fn on_declared(name: &str, text: &str, ending: &str) -> Result<()> {
    let kind = Kind { n_hosts: 3, is_secure: true, ..Kind::default() };
    on_star(name, kind, |star| {
        let named = |name: &str| format!("{name}.{ending}");
        let path = file(star, &named("bridges"), text)?;
        let other = file(star, &named("changed"), &changed(text))?;
        let mut wrong = Vec::new();
        for (n, (from, to, reason)) in [
            ("tag: 20", "tag: 4096", "br0"),
            ("tag = 20", "tag = 4096", "br0"),
            ("8192", "8191", "spanning-tree"),
            ("actions=NORMAL", "actions=output:nobody", "nobody"),
            ("actions=NORMAL", "actions=NORMAL,nonsense", "nonsense"),
            ("stations", "stationery", "stationery"),
            ("protect", "detect", "detect"),
            // Found out only by doing it.
            ("p3", "p9", "p9"),
        ]
        .into_iter()
        .enumerate()
        {
            let other = changed(text);
            // Some are written so only in one of the languages.
            if other.contains(from) {
                let path = file(star, &named(&format!("wrong-{n}")), &other.replace(from, to))?;
                wrong.push((path, reason));
            }
        }
        let half = file(star, &named("half"), &text[..text.len() / 2])?;
        wrong.push((half, "line"));
        check_kept_and_changed(star, &path, &other, &wrong)
    })
}

#[test]
fn bridges_of_a_yaml_file_survive_a_crash_and_change_by_what_differs() -> Result<()> {
    on_declared("bridges_of_a_yaml_file", YAML, "yaml")
}

#[test]
fn bridges_of_a_toml_file_survive_a_crash_and_change_by_what_differs() -> Result<()> {
    on_declared("bridges_of_a_toml_file", TOML, "toml")
}
