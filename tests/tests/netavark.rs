//! The plugin for podman 5, asked as netavark asks it.

#![forbid(unsafe_code)]

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ferroflow_tests::cni::{self, Container};
use ferroflow_tests::daemon::{Daemon, Life, find_program};
use ferroflow_tests::fabric::{Fabric, HOSTS};
use ferroflow_tests::{checks, command, scenario, stop};
use serde_json::{Value, json};

const PROBE: &str = env!("CARGO_BIN_EXE_ff-probe");
/// How long the daemons may take to tidy up, and the plugin to answer.
const LIMIT: Duration = Duration::from_secs(40);
/// What the server in a container says.
const PAGE: &str = "it works";

/// Asks the plugin; its own refusals are answers.
fn ask(fabric: &Fabric, words: &[&str], question: &Value) -> Result<Result<Value, String>> {
    let stdin = fabric.plan().dir.join("question.json");
    fs::write(&stdin, question.to_string())?;
    let plugin = find_program(&scenario::target_dir()?, "vswitch-netavark")?;
    let mut command = Command::new("sh");
    command
        .args(["-c", "stdin=$1; shift; exec \"$0\" \"$@\" < \"$stdin\""])
        .arg(&plugin)
        .arg(&stdin)
        .args(words);
    let finished = command::run(&mut command, LIMIT)?;
    let answer: Value = match finished.stdout.trim() {
        "" => Value::Null,
        text => serde_json::from_str(text).with_context(|| format!("{words:?} answers `{text}`"))?,
    };
    Ok(if finished.status.success() {
        Ok(answer)
    } else {
        Err(answer["error"].as_str().context("a refusal without a word")?.to_owned())
    })
}

fn must(fabric: &Fabric, words: &[&str], question: &Value) -> Result<Value> {
    ask(fabric, words, question)?.map_err(|refusal| anyhow::anyhow!("{words:?} is refused: {refusal}"))
}

/// A network as podman has it, once the plugin has agreed.
fn network(fabric: &Fabric, host_idx: usize, options: Value, subnets: Value) -> Result<Value> {
    let mut network = json!({
        "name": "shop", "id": "2f259bab93aaaaa2542ba43ef33eb990d0999ee1b9924b557b7be53c0b7a1bb9",
        "driver": "ferroflow", "network_interface": "shop0", "created": "2024-01-01T00:00:00Z", "subnets": subnets,
        "ipv6_enabled": false, "internal": false, "dns_enabled": false, "ipam_options": { "driver": "none" },
        "options": options,
    });
    network["options"]["socket"] = json!(fabric.plan().dir.join(format!("{}.sock", HOSTS[host_idx].name)));
    let agreed = must(fabric, &["create"], &network)?;
    ensure!(agreed == network, "{agreed} is not {network}");
    Ok(agreed)
}

/// What podman says of a container.
fn question(network: &Value, container: &Container, ips: &[&str], ports: Value) -> Value {
    json!({
        "container_id": container.id, "container_name": container.id, "port_mappings": ports, "network": network,
        "network_options": {
            "interface_name": "eth0", "static_ips": ips, "static_mac": null, "aliases": ["alias-of-it"], "options": null,
        },
    })
}

fn address(answer: &Value) -> Result<String> {
    let address = answer["interfaces"]["eth0"]["subnets"][0]["ipnet"].as_str().context("no address")?;
    Ok(address.split('/').next().unwrap_or_default().to_owned())
}

fn ping(fabric: &Fabric, from: &Container, to: &str) -> Result<()> {
    let result = fabric.plan().programs.probe.ping(&from.netns, to.parse()?, 3, 56)?;
    ensure!(result.n_received == 3, "{} got {} answers of 3 from {to}", from.id, result.n_received);
    Ok(())
}

fn page(fabric: &Fabric, host_idx: usize, address: &str) -> Result<()> {
    let mut curl = fabric.host_netns(host_idx).command("curl");
    curl.args([
        "-sS",
        "--max-time",
        "5",
        "--retry",
        "3",
        "--retry-connrefused",
        &format!("http://{address}/"),
    ]);
    let got = command::output(&mut curl, LIMIT)?;
    ensure!(got == PAGE, "{address}: {got}");
    Ok(())
}

fn serve(fabric: &Fabric, container: &Container) -> Result<Daemon> {
    let dir = fabric.plan().dir.join("www");
    fs::create_dir_all(&dir)?;
    fs::write(dir.join("index.html"), PAGE)?;
    let args = ["httpd", "-f", "-p", "8080", "-h", dir.to_str().context("not UTF-8")?];
    let log = fabric.plan().dir.join("httpd.log");
    Daemon::start(&container.netns, "/bin/busybox".as_ref(), &args, &log, Life::WithParent)
}

fn nothing_is_left(fabric: &Fabric) -> Result<()> {
    stop::wait_for("nothing is left of the containers", LIMIT, || {
        for (idx, host) in HOSTS.iter().enumerate() {
            fabric.host(idx).control.text(&["endpoint", "release"])?;
            let ends = cni::host_ends(fabric, idx)?;
            if !ends.is_empty() {
                return Ok(Err(format!("{} still has {ends:?}", host.name)));
            }
        }
        let ports = fabric.control.json(&["switch-port", "list"])?.to_string();
        let names = fabric.control.json(&["names", "list"])?.to_string();
        let is_left = ports.contains("-eth0-") || ports.contains("lease-") || names.contains("containers-");
        Ok(if is_left { Err(format!("{ports} {names}")) } else { Ok(()) })
    })
}

#[test]
fn containers_of_two_podmans_talk_and_leave_nothing() -> Result<()> {
    scenario::on_fabric("containers_of_two_podmans_talk_and_leave_nothing", PROBE, |fabric| {
        let info = must(fabric, &["info"], &Value::Null)?;
        ensure!(info["api_version"] == "1.0.0", "{info}");
        let options =
            || json!({ "switch": "web", "gateway": "host", "ranges": "10.0.1.0/24=10.0.1.100-10.0.1.199" });
        let networks =
            [network(fabric, 0, options(), Value::Null)?, network(fabric, 1, options(), Value::Null)?];
        let [server, client] = ["server", "client"].map(|id| Container::create(fabric, id));
        let (server, client) = (server?, client?);
        let ports = json!([{ "container_port": 8080, "host_ip": "", "host_port": 18084, "protocol": "tcp", "range": 1 }]);
        let questions =
            [question(&networks[0], &server, &[], ports), question(&networks[1], &client, &[], Value::Null)];
        let answer = must(fabric, &["setup", &server.path()], &questions[0])?;
        ensure!(answer["interfaces"]["eth0"]["subnets"][0]["gateway"].is_string(), "{answer}");
        must(fabric, &["setup", &client.path()], &questions[1])?;
        let _httpd = serve(fabric, &server)?;
        ping(fabric, &client, &address(&answer)?)?;
        ping(fabric, &client, "10.0.1.11")?;
        for (host_idx, address) in [(0, "127.0.0.1:18084"), (1, "172.31.0.1:18084")] {
            page(fabric, host_idx, address)?;
        }
        let names = fabric.control.json(&["names", "list"])?.to_string();
        ensure!(names.contains("alias-of-it") && names.contains("client"), "{names}");
        by_podmans_addresses(fabric)?;
        fabric.switch(0).context("vswitchd runs")?.kill()?;
        // Its end stops no container from ending; podman asks again, too.
        for _ in 0..2 {
            must(fabric, &["teardown", &server.path()], &questions[0])?;
        }
        let refused =
            ask(fabric, &["setup", &server.path()], &questions[0])?.err().context("it is not refused")?;
        ensure!(refused.contains("is it running?"), "{refused}");
        fabric.start_switch(0)?;
        fabric.wait_converged()?;
        must(fabric, &["teardown", &client.path()], &questions[1])?;
        nothing_is_left(fabric)?;
        checks::account(fabric)
    })
}

/// podman chooses the address, and a router is the gateway.
fn by_podmans_addresses(fabric: &Fabric) -> Result<()> {
    let subnets = json!([{ "subnet": "10.0.1.0/24", "gateway": "10.0.1.1", "lease_range": null }]);
    let network = network(fabric, 0, json!({ "switch": "web" }), subnets)?;
    let container = Container::create(fabric, "third")?;
    let question = question(&network, &container, &["10.0.1.77"], Value::Null);
    let answer = must(fabric, &["setup", &container.path()], &question)?;
    let expected = json!([{ "ipnet": "10.0.1.77/24", "gateway": "10.0.1.1" }]);
    ensure!(answer["interfaces"]["eth0"]["subnets"] == expected, "{answer}");
    // On this host, on another, and by the router.
    for to in ["10.0.1.11", "10.0.1.12", "10.0.2.12"] {
        ping(fabric, &container, to)?;
    }
    must(fabric, &["teardown", &container.path()], &question)?;
    ensure!(container.netns.ip(&["link", "show", "dev", "eth0"]).is_err(), "eth0 is still there");
    let mut wrong = network.clone();
    wrong["options"]["swich"] = "web".into();
    let refused = ask(fabric, &["create"], &wrong)?.err().context("a wrong option is not refused")?;
    ensure!(refused.contains("this plugin knows"), "{refused}");
    Ok(())
}
