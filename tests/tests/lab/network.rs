//! A controller with hosts.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use ferroflow_tests::command::{self, Finished};
use ferroflow_tests::daemon::find_program;
use ferroflow_tests::scenario::target_dir;
use serde_json::Value;

use crate::fixture::{LIMIT, Lab, list, number};

/// A network of hosts in one process, with which tests do what users do.
struct Network(Lab);

impl Network {
    /// Hosts with the network of the example, `web-1` on the first and `db-1` on the second.
    fn example(n_hosts: u32) -> Result<Self> {
        let mut lab = Lab::new()?;
        lab.start_network(&["lab", "start", "--dir", "net", "--hosts", &n_hosts.to_string()])?;
        let network = Self(lab);
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/two-switches.yaml");
        network.text(&["apply", "-f", &file.display().to_string(), "--wait"])?;
        network.attach("h1", "web-1")?;
        network.attach("h2", "db-1")?;
        Ok(network)
    }

    fn run(&self, words: &[&str]) -> Result<Finished> {
        let mut command = Command::new(find_program(&target_dir()?, "vswitchctl")?);
        command.args(["--lab", "net"]).args(words).current_dir(&self.0.dir);
        command::run(&mut command, LIMIT)
    }

    fn text(&self, words: &[&str]) -> Result<String> {
        let finished = self.run(words)?;
        ensure!(finished.status.success(), "{words:?}: {}{}", command::complaint(&finished), self.0.log());
        Ok(finished.stdout)
    }

    fn json(&self, words: &[&str]) -> Result<Value> {
        Ok(serde_json::from_str(&self.text(&[&["-o", "json"], words].concat())?)?)
    }

    fn attach(&self, host: &str, port: &str) -> Result<()> {
        self.text(&["--host", host, "lab", "port", "add", port, "--logical-port", port, "--wait"]).map(drop)
    }

    fn inject(&self, host: &str, port: &str, flow: &str) -> Result<Value> {
        self.json(&["--host", host, "lab", "inject", port, "--flow", flow])
    }
}

const TO_DB: &str = "udp,dl_src=0a:00:00:00:01:0b,dl_dst=0a:00:00:00:01:01,nw_src=10.0.1.11,nw_dst=10.0.2.11,\
                     nw_ttl=64,tp_src=4000,tp_dst=53";

/// Host and port of each frame that has left.
fn places(answer: &Value) -> Vec<(&str, &str)> {
    fn text<'a>(value: &'a Value, name: &str) -> &'a str {
        value[name].as_str().unwrap_or_default()
    }
    list(&answer["outputs"]).iter().map(|sent| (text(sent, "chassis"), text(sent, "port"))).collect()
}

#[test]
fn hosts_of_a_lab_forward_as_their_controller_says() -> Result<()> {
    let network = Network::example(3)?;
    let answer = network.inject("h1", "web-1", TO_DB)?;
    ensure!(places(&answer) == [("h2", "db-1")], "{answer}");
    // What the far host drops is told with the host and the object.
    let answer =
        network.inject("h1", "web-1", &TO_DB.replace("udp", "tcp").replace("tp_dst=53", "tp_dst=23"))?;
    let drop = &answer["drops"][0];
    ensure!(places(&answer).is_empty() && drop["chassis"] == "h2", "{answer}");
    ensure!(drop["origin"]["object"] == "switches/db/acls/no-telnet", "{answer}");
    // A frame that was not sent by a tunnel peer does not get in.
    let forged = "0202c61200020201c61200020800".to_owned()
        + "45000024000040004011ae4ec6120009c6120002958c17c100100000";
    let answer = network.json(&["--host", "h2", "lab", "inject", "underlay", &forged])?;
    ensure!(number(&answer["n_dropped"]) == 1, "{answer}");

    // A trace goes the same ways, from host to host.
    let flow = TO_DB.replace("udp", "tcp");
    let traced = network.json(&["trace", "--from", "web-1", &flow])?;
    let hosts = list(&traced["hosts"]);
    ensure!(hosts.len() == 2 && hosts[1]["chassis"] == "h2" && hosts[1]["from"] == "h1", "{traced}");
    ensure!(hosts[1]["trace"]["outputs"][0]["logical_port"] == "db-1", "{traced}");
    let traced = network.json(&["trace", "--from", "web-1", &flow.replace("tp_dst=53", "tp_dst=23")])?;
    let far = &traced["hosts"][1]["trace"];
    ensure!(far["drop"]["origin"]["object"] == "switches/db/acls/no-telnet", "{traced}");
    ensure!(traced["verdict"] == "dropped", "{traced}");

    // A change of the network holds as soon as the command that waits for it returns.
    network.text(&["acl", "del", "db/no-telnet", "--wait"])?;
    let answer =
        network.inject("h1", "web-1", &TO_DB.replace("udp", "tcp").replace("tp_dst=53", "tp_dst=23"))?;
    ensure!(places(&answer) == [("h2", "db-1")], "{answer}");

    // So does a move.
    network.text(&["--host", "h2", "lab", "port", "del", "db-1"])?;
    network.attach("h3", "db-1")?;
    let answer = network.inject("h1", "web-1", TO_DB)?;
    ensure!(places(&answer) == [("h3", "db-1")], "{answer}");
    Ok(())
}

#[test]
fn hosts_of_a_lab_share_a_clock_and_physical_networks() -> Result<()> {
    let network = Network::example(2)?;
    network.text(&["--host", "h1", "lab", "clock", "stop"])?;
    let now = |host: &str| {
        network.json(&["--host", host, "lab", "clock", "show"]).map(|clock| number(&clock["now"]))
    };
    let before = now("h2")?;
    network.text(&["--host", "h1", "lab", "clock", "advance", "300"])?;
    ensure!((now("h1")?, now("h2")?) == (before + 300_000_000_000, before + 300_000_000_000));

    // A switch with a physical network: its ports on two hosts reach each other by that.
    network.text(&["switch", "add", "pub"])?;
    network.text(&["switch-port", "add", "pub", "pub-net", "--network", "provider"])?;
    for (host, port, address) in
        [("h1", "a", "0a:00:00:00:09:01 10.9.0.1"), ("h2", "b", "0a:00:00:00:09:02 10.9.0.2")]
    {
        network.text(&["--host", host, "lab", "port", "add", "eth1", "--network", "provider"])?;
        network.text(&["switch-port", "add", "pub", port, "--address", address])?;
        network.attach(host, port)?;
    }
    let flow =
        "udp,dl_src=0a:00:00:00:09:01,dl_dst=0a:00:00:00:09:02,nw_src=10.9.0.1,nw_dst=10.9.0.2,nw_ttl=64";
    let answer = network.inject("h1", "a", flow)?;
    ensure!(places(&answer).contains(&("h2", "b")), "{answer}");
    ensure!(network.text(&["--host", "h1", "lab", "output", "underlay"])?.is_empty(), "it was tunnelled");
    Ok(())
}

#[test]
fn a_trace_goes_through_a_tunnel_and_the_translation_of_a_gateway() -> Result<()> {
    let network = Network::example(2)?;
    for words in [
        "switch add pub",
        "switch-port add pub pub-net --network provider",
        "router-port add r1 r1-out --mac 0a:00:00:00:02:02 --network 203.0.113.1/24 --gateway h2=20 \
         --static-mac 203.0.113.254=0a:00:00:00:09:fe",
        "switch-port add pub pub-r1 --router-port r1-out",
        "nat add r1 hide --type snat --external 203.0.113.1 --logical 10.0.0.0/16",
        "--host h2 lab port add eth1 --network provider",
    ] {
        network.text(&words.split_whitespace().collect::<Vec<_>>())?;
    }
    network.text(&["router", "set", "r1", "--route", "0.0.0.0/0 via 203.0.113.254", "--wait"])?;
    let flow = TO_DB.replace("10.0.2.11", "198.51.100.7");
    let answer = network.inject("h1", "web-1", &flow)?;
    ensure!(places(&answer) == [("h2", "eth1")], "{answer}");
    // The source is the gateway's.
    let frame = answer["outputs"][0]["frame"].as_str().unwrap_or_default();
    ensure!(frame.contains("cb007101c6336407"), "{frame}");
    let traced = network.json(&["trace", "--from", "web-1", &flow])?;
    let hosts = list(&traced["hosts"]);
    ensure!(hosts.len() == 2 && hosts[1]["trace"]["outputs"][0]["port"] == "eth1", "{traced}");
    ensure!(hosts[1]["trace"].to_string().contains("203.0.113.1"), "{traced}");
    Ok(())
}
