//! What logical networks do where they meet others, with real packets: answers that go back the way they came,
//! neighbours behind other hosts.

#![forbid(unsafe_code)]

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ferroflow_tests::daemon::{Daemon, Life};
use ferroflow_tests::probe::Outcome;
use ferroflow_tests::provider::{Provider, on_hosts, ping, reach_cleanly};
use ferroflow_tests::{command, stop};

const PROBE: &str = env!("CARGO_BIN_EXE_ff-probe");

/// A server in a workload that says its name.
fn greeter(net: &Provider, workload: usize, at: SocketAddrV4) -> Result<Daemon> {
    let probe = &net.plan().programs.probe;
    let (netns, address) = (net.netns(workload), at.to_string());
    let words: Vec<&str> = probe.words.iter().map(String::as_str).collect();
    let words = [words.as_slice(), &["tcp-greet", &address, "server"]].concat();
    let log = net.plan().dir.join("server.log");
    let mut daemon = Daemon::start(netns, &probe.program, &words, &log, Life::WithParent)?;
    stop::wait_for("the server listens", Duration::from_secs(5), || {
        daemon.check()?;
        Ok(probe.ask_servers(netns, at, 1).map(drop).map_err(|error| format!("{error:#}")))
    })?;
    Ok(daemon)
}

/// Two stations of the provider's network, each with the same address behind it.
fn stations(net: &mut Provider) -> Result<[usize; 2]> {
    let mut made = Vec::new();
    for (host, name, last) in [(0, "isp1", 2), (1, "isp2", 3)] {
        let (mac, address) = (format!("0a:00:00:00:07:0{last}"), format!("10.99.0.{last}"));
        net.configure(&[&format!("switch-port add pub {name} --address {mac},{address}")])?;
        let station = net.workload(host, name, (&mac, &format!("{address}/24")), None)?;
        net.netns(station).ip(&["addr", "add", "198.51.100.9/32", "dev", "lo"])?;
        net.netns(station).ip(&["route", "add", "10.0.1.0/24", "via", "10.99.0.1", "src", "198.51.100.9"])?;
        // Routers answer questions from their own network; and no connection shall have another's ports.
        let settings = format!(
            "echo 2 >/proc/sys/net/ipv4/conf/all/arp_announce; \
             echo {last}0000 {last}9999 >/proc/sys/net/ipv4/ip_local_port_range"
        );
        let mut set = net.netns(station).command("sh");
        command::output(set.args(["-c", &settings]), Duration::from_secs(5))?;
        made.push(station);
    }
    made.try_into().ok().context("two stations")
}

/// How many of 16 connections a station gets to a server.
fn connections(net: &Provider, from: usize, to: SocketAddrV4) -> Result<usize> {
    let probe = &net.plan().programs.probe;
    let outcomes = (0..16).map(|_| probe.connect(net.netns(from), to, Duration::from_millis(700)));
    let outcomes = outcomes.collect::<Result<Vec<_>>>()?;
    Ok(outcomes.into_iter().filter(|outcome| *outcome == Outcome::Connected).count())
}

#[test]
fn answers_go_back_the_way_their_connections_came() -> Result<()> {
    on_hosts(("answers_go_back_the_way_their_connections_came", PROBE), 3, |net| {
        let vm = net.with_gateway()?;
        let stations = stations(net)?;
        net.configure(&["nat del r/hide", "nat del r/float"])?;
        let routes = |symmetric: &str| {
            let [a, b] = ["10.99.0.2", "10.99.0.3"].map(|hop| format!("0.0.0.0/0,via,{hop}{symmetric}"));
            net.configure(&[&format!("router set r --route {a} --route {b} --wait")])
        };
        routes("")?;
        net.wait_converged()?;
        let server = SocketAddrV4::new(Ipv4Addr::new(10, 0, 1, 10), 8080);
        let _server = greeter(net, vm, server)?;
        reach_cleanly(net.netns(vm), Ipv4Addr::new(10, 99, 0, 2))?;
        // Both stations have the same client: without memory some answers go to the wrong one.
        let n = stations.map(|station| connections(net, station, server));
        let [a, b] = n;
        let n_right = a? + b?;
        ensure!((1..32).contains(&n_right), "{n_right} of 32 connections by chance");
        routes(",symmetric")?;
        for station in stations {
            let n_right = connections(net, station, server)?;
            ensure!(n_right == 16, "{n_right} of 16 connections of station {station}");
        }
        // The gateway remembers it: the workload is on another host.
        let connections = net.host(0).control.text(&["ct", "dump"])?;
        ensure!(connections.contains("198.51.100.9"), "{connections}");
        // What the workload itself begins is spread, and works.
        reach_cleanly(net.netns(vm), Ipv4Addr::new(10, 99, 0, 3))?;
        net.check_conservation()
    })
}

#[test]
fn a_neighbour_behind_another_host_is_known_to_all() -> Result<()> {
    on_hosts(("a_neighbour_behind_another_host_is_known_to_all", PROBE), 3, |net| {
        net.configure(&[
            "switch add in",
            "switch-port add in vm --address 0a:00:00:00:01:0a,10.0.1.10",
            "switch-port add in vm2 --address 0a:00:00:00:01:0b,10.0.1.11",
            "switch add far",
            "switch-port add far x --address unknown",
            "switch-port add far y --address unknown",
            "router add r",
            "router-port add r r-in --mac 0a:00:00:00:01:01 --network 10.0.1.1/24",
            "switch-port add in in-r --router-port r-in",
            "router-port add r r-far --mac 0a:00:00:00:02:01 --network 10.0.2.1/24",
            "switch-port add far far-r --router-port r-far",
        ])?;
        let vm = net.workload(0, "vm", ("0a:00:00:00:01:0a", "10.0.1.10/24"), Some("10.0.1.1"))?;
        let vm2 = net.workload(2, "vm2", ("0a:00:00:00:01:0b", "10.0.1.11/24"), Some("10.0.1.1"))?;
        // Nobody has told the network their addresses.
        let x = net.workload(1, "x", ("0a:00:00:00:02:0a", "10.0.2.10/24"), Some("10.0.2.1"))?;
        let y = net.workload(2, "y", ("0a:00:00:00:02:0b", "10.0.2.11/24"), Some("10.0.2.1"))?;
        net.wait_converged()?;
        let neighbour = Ipv4Addr::new(10, 0, 2, 10);
        // The answer to the question comes to the neighbour's own host; the first packet waits for it.
        let (n, _) = ping(net.netns(vm), neighbour, 1)?;
        ensure!(n == 1, "the first packet was lost");
        reach_cleanly(net.netns(vm), neighbour)?;
        reach_cleanly(net.netns(vm2), neighbour)?;
        let shown = net.control.text(&["router-port", "show", "r-far"])?;
        ensure!(shown.contains("10.0.2.10 0a:00:00:00:02:0a, heard by h2"), "{shown}");
        for host in 0..3 {
            let rules = net.host(host).control.text(&["flow", "dump", "table=90"])?;
            ensure!(rules.contains("0a:00:00:00:02:0a"), "host {host}: {rules}");
        }
        // The address moves to another station on another host: it says so itself.
        net.netns(x).ip(&["addr", "del", "10.0.2.10/24", "dev", "eth0"])?;
        net.netns(y).ip(&["addr", "add", "10.0.2.10/24", "dev", "eth0"])?;
        reach_cleanly(net.netns(y), Ipv4Addr::new(10, 0, 2, 1))?;
        net.netns(y).ip(&["neigh", "flush", "all"])?;
        let mut ask = net.netns(y).command("ping");
        ask.args(["-n", "-c", "3", "-i", "0.3", "-W", "2", "-I", "10.0.2.10", "10.0.2.1"]);
        let answers = command::run_regardless(&mut ask, Duration::from_secs(10))?;
        ensure!(answers.stdout.contains("bytes from"), "{}", answers.stdout);
        reach_cleanly(net.netns(vm), neighbour)?;
        let shown = net.control.text(&["router-port", "show", "r-far"])?;
        ensure!(shown.contains("10.0.2.10 0a:00:00:00:02:0b, heard by h3"), "{shown}");
        // What hosts were told outlives them, and their controller.
        net.kill_switch(0)?;
        net.start_switch(0)?;
        reach_cleanly(net.netns(vm), neighbour)?;
        net.check_conservation()
    })
}
