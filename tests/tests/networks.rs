//! What logical networks do where they meet others, with real packets: answers that go back the way they came,
//! neighbours behind other hosts, addresses that move, workloads in the network outside.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ferroflow_tests::daemon::{Daemon, Life};
use ferroflow_tests::netns::{self, End, Netns};
use ferroflow_tests::probe::Outcome;
use ferroflow_tests::provider::{OUTSIDE, Provider, greeter, on_hosts, ping, reach_cleanly};
use ferroflow_tests::{command, stop};

const PROBE: &str = env!("CARGO_BIN_EXE_ff-probe");

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
        let _server = greeter(net.plan(), net.netns(vm), server, "server")?;
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

/// Says unasked who has an address.
fn say(net: &Provider, from: usize, address: &str) -> Result<()> {
    let mut command = net.netns(from).command("busybox");
    command.args(["arping", "-U", "-c", "2", "-I", "eth0", "-s", address, address]);
    command::run_regardless(&mut command, Duration::from_secs(10)).map(drop)
}

#[test]
fn an_address_is_with_whoever_said_so_last() -> Result<()> {
    let name = "an_address_is_with_whoever_said_so_last";
    if !has_busybox(name) {
        return Ok(());
    }
    on_hosts((name, PROBE), 3, |net| {
        net.configure(&[
            "switch add in",
            "switch-port add in a --address 0a:00:00:00:01:0a,10.0.1.10 --port-security 0a:00:00:00:01:0a,10.0.1.10,10.0.1.100",
            "switch-port add in b --address 0a:00:00:00:01:0b,10.0.1.11 --port-security 0a:00:00:00:01:0b,10.0.1.11,10.0.1.100",
            "switch-port add in thief --address 0a:00:00:00:01:0c,10.0.1.12",
            "switch-port add in vip --virtual-ip 10.0.1.100 --virtual-parent a --virtual-parent b",
            "switch add out",
            "switch-port add out c --address 0a:00:00:00:02:0c,10.0.2.12",
            "router add r",
            "router-port add r r-in --mac 0a:00:00:00:01:01 --network 10.0.1.1/24",
            "switch-port add in in-r --router-port r-in",
            "router-port add r r-out --mac 0a:00:00:00:02:01 --network 10.0.2.1/24",
            "switch-port add out out-r --router-port r-out",
        ])?;
        let a = net.workload(0, "a", ("0a:00:00:00:01:0a", "10.0.1.10/24"), Some("10.0.1.1"))?;
        let b = net.workload(1, "b", ("0a:00:00:00:01:0b", "10.0.1.11/24"), Some("10.0.1.1"))?;
        let thief = net.workload(1, "thief", ("0a:00:00:00:01:0c", "10.0.1.12/24"), Some("10.0.1.1"))?;
        let c = net.workload(2, "c", ("0a:00:00:00:02:0c", "10.0.2.12/24"), Some("10.0.2.1"))?;
        net.wait_converged()?;
        let vip = Ipv4Addr::new(10, 0, 1, 100);
        let shows = |text: &str| {
            stop::wait_for(text, Duration::from_secs(10), || {
                let shown = net.control.text(&["switch-port", "show", "vip"])?;
                Ok(if shown.contains(text) { Ok(()) } else { Err(shown) })
            })
        };
        for (from, to, parent, host) in [(b, a, "a", "h1"), (a, b, "b", "h2"), (b, a, "a", "h1")] {
            let _ = net.netns(from).ip(&["addr", "del", "10.0.1.100/32", "dev", "eth0"]);
            net.netns(to).ip(&["addr", "add", "10.0.1.100/32", "dev", "eth0"])?;
            say(net, to, "10.0.1.100")?;
            shows(&format!("10.0.1.100 at {parent}"))?;
            shows(&format!("chassis/{host}"))?;
            reach_cleanly(net.netns(c), vip)?;
        }
        // Nobody else can take it.
        net.netns(thief).ip(&["addr", "add", "10.0.1.100/32", "dev", "eth0"])?;
        say(net, thief, "10.0.1.100")?;
        reach_cleanly(net.netns(c), vip)?;
        shows("10.0.1.100 at a")?;
        net.check_conservation()
    })
}

fn has_busybox(name: &str) -> bool {
    let is_there = ferroflow_tests::daemon::has_command("busybox");
    if !is_there {
        ferroflow_tests::say(&format!("SKIPPED {name}: there is no `busybox`; apt-get install busybox"));
    }
    is_there
}

#[test]
fn a_workload_in_the_network_outside_is_served_by_one_host() -> Result<()> {
    let name = "a_workload_in_the_network_outside_is_served_by_one_host";
    if !has_busybox(name) {
        return Ok(());
    }
    on_hosts((name, PROBE), 3, |net| {
        net.configure(&[
            "dhcp-options add pub4 --cidr 10.99.0.0/24 --option server_id=10.99.0.254 --option router=10.99.0.1",
            "switch add pub --dhcpv4 pub4",
            "switch-port add pub pub-net --network provider --tag 100",
            "switch-port add pub a --address 0a:00:00:00:09:0a,10.99.0.10",
            "switch-port add pub metal --address 0a:00:00:00:09:77,10.99.0.77 --external --gateway h1=20 --gateway h2=10",
        ])?;
        net.outside.ip(&["link", "set", "dev", "eth0", "address", "0a:00:00:00:09:77"])?;
        let a = net.workload(2, "a", ("0a:00:00:00:09:0a", "10.99.0.10/24"), None)?;
        net.wait_converged()?;
        // Of three hosts that hear the question one answers.
        let lease = |net: &Provider| -> Result<String> {
            let mut client = net.outside.command("busybox");
            client.args(["udhcpc", "-i", "eth0", "-f", "-n", "-q", "-t", "5", "-T", "1", "-s", "/bin/true"]);
            let finished = command::run_regardless(&mut client, Duration::from_secs(20))?;
            Ok(finished.stdout + &finished.stderr)
        };
        let text = lease(net)?;
        ensure!(text.contains("10.99.0.77"), "{text}");
        reach_cleanly(&net.outside, Ipv4Addr::new(10, 99, 0, 10))?;
        reach_cleanly(net.netns(a), OUTSIDE)?;
        let answered = |net: &Provider, host: usize| -> Result<bool> {
            let rules = net.host(host).control.text(&["flow", "dump"])?;
            Ok(rules.contains("switches/pub/ports/metal") && rules.contains("dl_src=0a:00:00:00:09:77"))
        };
        ensure!(answered(net, 0)? && !answered(net, 1)? && !answered(net, 2)?, "more hosts than one answer");
        net.kill_switch(0)?;
        stop::wait_for("the next host answers", Duration::from_secs(20), || {
            Ok(if answered(net, 1)? { Ok(()) } else { Err("it does not".to_owned()) })
        })?;
        let text = lease(net)?;
        ensure!(text.contains("10.99.0.77"), "after the first host's end: {text}");
        net.check_conservation()
    })
}

/// Frames that a host has sent to a workload.
fn n_sent(net: &Provider, host: usize, port: &str) -> Result<u64> {
    let ports = net.host(host).control.ports()?;
    let port =
        ports.into_iter().find(|found| found.name == port).with_context(|| format!("no port {port}"))?;
    Ok(port.tx_packets)
}

#[test]
fn stations_are_found_where_they_were_seen_last() -> Result<()> {
    on_hosts(("stations_are_found_where_they_were_seen_last", PROBE), 3, |net| {
        net.configure(&[
            "switch add lan --fdb-age 5",
            "switch-port add lan x --address unknown",
            "switch-port add lan y --address unknown --requested-chassis h2",
            "switch-port add lan z --address unknown",
        ])?;
        let x = net.workload(0, "x", ("0a:00:00:00:04:01", "10.0.4.1/24"), None)?;
        let y = net.workload(1, "y", ("0a:00:00:00:04:02", "10.0.4.2/24"), None)?;
        let z = net.workload(2, "z", ("0a:00:00:00:04:03", "10.0.4.3/24"), None)?;
        net.wait_converged()?;
        let [at_x, at_y] = [1, 2].map(|last| Ipv4Addr::new(10, 0, 4, last));
        reach_cleanly(net.netns(x), at_y)?;
        // What the two say to each other is no business of the third.
        let before = n_sent(net, 2, "z")?;
        reach_cleanly(net.netns(x), at_y)?;
        let n_more = n_sent(net, 2, "z")? - before;
        ensure!(n_more < 10, "{n_more} frames for others came to z");
        let stations = |host: usize| net.host(host).control.text(&["flow", "dump", "table=95"]);
        for host in 0..2 {
            let known = stations(host)?;
            ensure!(
                known.contains("0a:00:00:00:04:01") && known.contains("0a:00:00:00:04:02"),
                "{host}: {known}"
            );
        }
        // The station moves to another host.
        net.netns(y).ip(&["link", "set", "dev", "eth0", "down"])?;
        net.netns(z).ip(&["addr", "add", "10.0.4.2/24", "dev", "eth0"])?;
        net.netns(z).ip(&["link", "set", "dev", "eth0", "address", "0a:00:00:00:04:02"])?;
        reach_cleanly(net.netns(z), at_x)?;
        reach_cleanly(net.netns(x), at_y)?;
        // Who says nothing is forgotten.
        for end in [x, z] {
            net.netns(end).ip(&["link", "set", "dev", "eth0", "down"])?;
        }
        stop::wait_for("no station is known", Duration::from_secs(25), || {
            let known = stations(0)? + &stations(2)?;
            Ok(if known.contains("0a:00:00:00:04:0") { Err(known) } else { Ok(()) })
        })?;
        net.check_conservation()
    })
}

#[test]
fn ports_are_where_they_may_be_and_answer_as_they_are_told() -> Result<()> {
    on_hosts(("ports_are_where_they_may_be_and_answer_as_they_are_told", PROBE), 2, |net| {
        net.configure(&[
            "switch add lan --broadcast-arps false",
            "switch-port add lan a --address 0a:00:00:00:04:01,10.0.4.1 --disable-arp-nd-rsp",
            "switch-port add lan b --address 0a:00:00:00:04:02,10.0.4.2 --requested-chassis h2",
            "router add r",
            "router-port add r r-lan --mac 0a:00:00:00:04:fe --network 10.0.4.254/24",
            "switch-port add lan lan-r --router-port r-lan --arp-proxy 10.0.4.128/25",
        ])?;
        let a = net.workload(0, "a", ("0a:00:00:00:04:01", "10.0.4.1/24"), None)?;
        let b = net.workload(1, "b", ("0a:00:00:00:04:02", "10.0.4.2/24"), None)?;
        net.wait_converged()?;
        let place = |id: &str| -> Result<String> {
            let found = net.control.places()?.into_iter().find(|place| place.id == id);
            Ok(found.with_context(|| format!("no {id}"))?.chassis)
        };
        ensure!(place("b")? == "h2", "b is on {}", place("b")?);
        // The workload answers for itself.
        reach_cleanly(net.netns(b), Ipv4Addr::new(10, 0, 4, 1))?;
        reach_cleanly(net.netns(a), Ipv4Addr::new(10, 0, 4, 254))?;
        // The router is taken to have what is not there.
        let _ = ping(net.netns(a), Ipv4Addr::new(10, 0, 4, 200), 1)?;
        let neighbours = net.netns(a).ip(&["neigh", "show", "10.0.4.200"])?;
        ensure!(neighbours.contains("0a:00:00:00:04:fe"), "{neighbours}");
        // The port may be on another host only: it has none until it is there.
        net.configure(&["switch-port set b --requested-chassis h1 --wait"])?;
        ensure!(place("b")?.is_empty(), "b is still on {}", place("b")?);
        net.configure(&["switch-port set b --requested-chassis h1 --requested-chassis h2 --wait"])?;
        net.wait_converged()?;
        ensure!(place("b")? == "h2", "b is on {}", place("b")?);
        reach_cleanly(net.netns(a), Ipv4Addr::new(10, 0, 4, 2))?;
        net.check_conservation()
    })
}

#[test]
fn a_workload_moves_and_is_at_two_hosts_meanwhile() -> Result<()> {
    on_hosts(("a_workload_moves_and_is_at_two_hosts_meanwhile", PROBE), 3, |net| {
        net.configure(&[
            "switch add lan",
            "switch-port add lan a --address 0a:00:00:00:04:01,10.0.4.1",
            "switch-port add lan vm --address 0a:00:00:00:04:02,10.0.4.2 --requested-chassis h1 \
             --additional-chassis h2 --activation rarp",
        ])?;
        let a = net.workload(2, "a", ("0a:00:00:00:04:01", "10.0.4.1/24"), None)?;
        let vm = ("0a:00:00:00:04:02", "10.0.4.2/24");
        let before = net.workload_as(0, ("vm1", "vm"), vm, None)?;
        let after = net.workload_as(1, ("vm2", "vm"), vm, None)?;
        net.wait_converged()?;
        let shows = |text: &str| {
            stop::wait_for(text, Duration::from_secs(10), || {
                let shown = net.control.text(&["switch-port", "show", "vm"])?;
                Ok(if shown.contains(text) { Ok(()) } else { Err(shown) })
            })
        };
        shows("additional chassis")?;
        net.wait_converged()?;
        let [at_a, at_vm] = [1, 2].map(|last| Ipv4Addr::new(10, 0, 4, last));
        // Where it is to go on it neither hears nor says anything yet.
        reach_cleanly(net.netns(a), at_vm)?;
        let (n, _) = ping(net.netns(after), at_a, 3)?;
        ensure!(n == 0, "{n} answers before the workload goes on");
        ensure!(n_sent(net, 1, "vm2")? == 0, "it was told something");
        // It says that it goes on there: from now on both get everything.
        net.plan().programs.probe.rarp(net.netns(after), "eth0")?;
        stop::wait_for("both answer", Duration::from_secs(10), || {
            Ok(match ping(net.netns(a), at_vm, 10)? {
                // It ends with the last answer, not with that one's copy.
                (10, 9..) => Ok(()),
                found => Err(format!("{found:?} answers of 10")),
            })
        })?;
        net.netns(before).ip(&["link", "set", "dev", "eth0", "down"])?;
        reach_cleanly(net.netns(a), at_vm)?;
        reach_cleanly(net.netns(after), at_a)?;
        // The move is over: it is at one host again.
        net.configure(&["switch-port set vm --requested-chassis h2 --no-additional-chassis --wait"])?;
        reach_cleanly(net.netns(a), at_vm)?;
        shows("chassis/h2")?;
        let shown = net.control.text(&["switch-port", "show", "vm"])?;
        ensure!(!shown.contains("additional chassis"), "{shown}");
        let n_before = n_sent(net, 0, "vm1")?;
        reach_cleanly(net.netns(a), at_vm)?;
        ensure!(n_sent(net, 0, "vm1")? == n_before, "the first host still gets what is for it");
        net.check_conservation()
    })
}

#[test]
fn ports_have_the_keys_copies_and_rules_that_are_asked_for() -> Result<()> {
    on_hosts(("ports_have_the_keys_copies_and_rules_that_are_asked_for", PROBE), 2, |net| {
        net.configure(&[
            "switch add lan --tunnel-key 777",
            "switch-port add lan vm --address 0a:00:00:00:04:01,10.0.4.1 --tunnel-key 99 --clone-to-unknown",
            "switch-port add lan tap --address unknown",
            "switch add ext",
            "switch-port add ext x --address 0a:00:00:00:05:01,10.0.5.1",
            "router add r --chassis h1 --tunnel-key 778",
            "router-port add r r-lan --mac 0a:00:00:00:04:fe --network 10.0.4.254/24 --tunnel-key 5",
            "switch-port add lan lan-r --router-port r-lan",
            "router-port add r r-ext --mac 0a:00:00:00:05:fe --network 10.0.5.254/24",
            "switch-port add ext ext-r --router-port r-ext",
        ])?;
        let vm = net.workload(1, "vm", ("0a:00:00:00:04:01", "10.0.4.1/24"), Some("10.0.4.254"))?;
        net.workload(0, "tap", ("0a:00:00:00:04:02", "10.0.4.2/24"), None)?;
        let x = net.workload(0, "x", ("0a:00:00:00:05:01", "10.0.5.1/24"), Some("10.0.5.254"))?;
        net.wait_converged()?;
        let [at_vm, at_x] = [Ipv4Addr::new(10, 0, 4, 1), Ipv4Addr::new(10, 0, 5, 1)];
        reach_cleanly(net.netns(x), at_vm)?;
        // What somebody else has nobody gets.
        let taken = net.control.attempt(&["switch", "add", "other", "--tunnel-key", "777"])?;
        ensure!(!taken.status.success() && taken.stderr.contains("777 is in use"), "{}", taken.stderr);
        for (words, key) in [(["switch", "show", "lan"], "777"), (["switch-port", "show", "vm"], "99")] {
            let shown = net.control.text(&words)?;
            ensure!(shown.contains(key), "{shown}");
        }
        let rules = net.host(0).control.text(&["flow", "dump", "table=0"])?;
        ensure!(rules.contains("tun_id=0x309"), "{rules}");
        // Another key is another network to hosts, with the same ports.
        net.configure(&[
            "switch set lan --tunnel-key 800 --wait",
            "switch-port set vm --tunnel-key 7 --wait",
        ])?;
        net.wait_converged()?;
        reach_cleanly(net.netns(x), at_vm)?;
        // Who takes unknown addresses also gets what is for the workload.
        let n_copies = n_sent(net, 0, "tap")?;
        reach_cleanly(net.netns(x), at_vm)?;
        let n_more = n_sent(net, 0, "tap")? - n_copies;
        ensure!(n_more >= 20, "{n_more} copies");
        // ACLs at the router's port know no connections, unless told to.
        net.configure(&[
            "acl add lan in --direction from-lport --priority 10 --match inport==\"lan-r\"&&icmp4 \
             --action allow-related",
            "acl add lan out --direction to-lport --priority 5 --match outport==\"lan-r\"&&ip4 --action drop --wait",
        ])?;
        let (n, _) = ping(net.netns(x), at_vm, 3)?;
        ensure!(n == 0, "{n} answers pass without a connection");
        net.configure(&["switch-port set lan-r --router-port-acl --wait"])?;
        reach_cleanly(net.netns(x), at_vm)?;
        let (n, _) = ping(net.netns(vm), at_x, 3)?;
        ensure!(n == 0, "{n} answers to what must not begin");
        net.check_conservation()
    })
}

#[test]
fn a_network_with_a_vlan_has_its_router_where_the_gateway_is() -> Result<()> {
    on_hosts(("a_network_with_a_vlan_has_its_router_where_the_gateway_is", PROBE), 3, |net| {
        let vm = net.with_gateway()?;
        net.configure(&[
            "switch add vl",
            "switch-port add vl vl-net --network provider --tag 200",
            "switch-port add vl v --address 0a:00:00:00:03:0a,10.0.3.10",
            "router-port add r r-vl --mac 0a:00:00:00:03:01 --network 10.0.3.1/24 --reside-on-redirect-chassis",
            "switch-port add vl vl-r --router-port r-vl",
            "nat add r hide-vl --type snat --external 10.99.0.1 --logical 10.0.3.0/24",
        ])?;
        let v = net.workload(2, "v", ("0a:00:00:00:03:0a", "10.0.3.10/24"), Some("10.0.3.1"))?;
        net.wait_converged()?;
        reach_cleanly(net.netns(v), OUTSIDE)?;
        // By the network itself: its host sends nothing into tunnels but what says that it lives.
        let before = n_sent(net, 2, "underlay")?;
        let (n, _) = ping(net.netns(v), OUTSIDE, 100)?;
        ensure!(n == 100, "{n} of 100 answers");
        let n_tunnelled = n_sent(net, 2, "underlay")? - before;
        ensure!(n_tunnelled < 90, "{n_tunnelled} packets into tunnels");
        // The workloads of the router's other networks reach it, and it them.
        reach_cleanly(net.netns(vm), Ipv4Addr::new(10, 0, 3, 10))?;
        reach_cleanly(net.netns(v), Ipv4Addr::new(10, 0, 1, 10))?;
        // The router is where the gateway is, also when that is another host.
        net.kill_switch(0)?;
        reach_cleanly(net.netns(v), OUTSIDE)?;
        net.check_conservation()
    })
}

#[test]
fn a_service_is_on_each_host_and_a_network_behind_one() -> Result<()> {
    on_hosts(("a_service_is_on_each_host_and_a_network_behind_one", PROBE), 3, |net| {
        net.configure(&[
            "switch add pub",
            "switch-port add pub pub-net --network provider --tag 100 --gateway h1=20 --gateway h2=10",
            "switch-port add pub a --address 0a:00:00:00:09:0a,10.99.0.10",
            "switch add in",
            "switch-port add in b --address 0a:00:00:00:01:0b,10.0.1.11",
            "switch-port add in c --address 0a:00:00:00:01:0c,10.0.1.12",
            "switch-port add in meta --address 0a:00:00:00:01:fe,10.0.1.254 --localport",
        ])?;
        let a = net.workload(2, "a", ("0a:00:00:00:09:0a", "10.99.0.10/24"), Some("10.99.0.1"))?;
        let b = net.workload(1, "b", ("0a:00:00:00:01:0b", "10.0.1.11/24"), Some("10.0.1.1"))?;
        let c = net.workload(2, "c", ("0a:00:00:00:01:0c", "10.0.1.12/24"), Some("10.0.1.1"))?;
        let meta = ("0a:00:00:00:01:fe", "10.0.1.254/24");
        let on_2 = net.workload_as(1, ("meta2", "meta"), meta, Some("10.0.1.1"))?;
        let on_3 = net.workload_as(2, ("meta3", "meta"), meta, Some("10.0.1.1"))?;
        net.wait_converged()?;
        // Each workload is served by its own host.
        let at = SocketAddrV4::new(Ipv4Addr::new(10, 0, 1, 254), 80);
        let _servers = [
            greeter(net.plan(), net.netns(on_2), at, "h2")?,
            greeter(net.plan(), net.netns(on_3), at, "h3")?,
        ];
        for (from, wanted) in [(b, "h2 10.0.1.11"), (c, "h3 10.0.1.12")] {
            let answers = net.plan().programs.probe.ask_servers(net.netns(from), at, 5)?;
            ensure!(answers == [(wanted.to_owned(), 5)].into(), "{answers:?}");
        }
        reach_cleanly(net.netns(b), Ipv4Addr::new(10, 0, 1, 12))?;
        // Another switch is the same network.
        net.configure(&[
            "switch add more",
            "switch-port add more d --address 0a:00:00:00:01:0d,10.0.1.13",
            "switch-port add more more-in --peer switches/in/ports/in-more",
            "switch-port add in in-more --peer more-in",
        ])?;
        let d = net.workload(0, "d", ("0a:00:00:00:01:0d", "10.0.1.13/24"), Some("10.0.1.1"))?;
        net.wait_converged()?;
        for from in [b, c] {
            reach_cleanly(net.netns(from), Ipv4Addr::new(10, 0, 1, 13))?;
        }
        reach_cleanly(net.netns(d), Ipv4Addr::new(10, 0, 1, 12))?;
        // The network is behind one host, by a tunnel, and behind the next one when that is gone.
        reach_cleanly(net.netns(a), OUTSIDE)?;
        reach_cleanly(&net.outside, Ipv4Addr::new(10, 99, 0, 10))?;
        net.kill_switch(0)?;
        reach_cleanly(net.netns(a), OUTSIDE)?;
        net.check_conservation()
    })
}

/// Somebody who hears a group and answers; the kernel says that it does.
fn member(net: &Provider, of: usize, own: &str, group: SocketAddr) -> Result<Daemon> {
    let (program, group) = (&net.plan().programs.probe, group.to_string());
    let words: Vec<&str> = program.words.iter().map(String::as_str).collect();
    let words = [words.as_slice(), &["group-echo", &group, own]].concat();
    let log = net.plan().dir.join("members.log");
    Daemon::start(net.netns(of), &program.program, &words, &log, Life::WithParent)
}

/// Waits until those who answer what is sent to a group are these, and no others.
fn wait_for_hearers(net: &Provider, from: (usize, &str), group: SocketAddr, wanted: &[&str]) -> Result<()> {
    let own: IpAddr = from.1.parse()?;
    let wanted: BTreeMap<String, u64> = wanted.iter().map(|ip| ((*ip).to_owned(), 3)).collect();
    stop::wait_for(&format!("{group} is heard by {wanted:?}"), Duration::from_secs(15), || {
        let heard = net.plan().programs.probe.ask_group((net.netns(from.0), own), group, 3)?;
        Ok(if heard == wanted { Ok(()) } else { Err(format!("{heard:?}")) })
    })
}

#[test]
fn groups_reach_those_who_want_to_hear_them() -> Result<()> {
    on_hosts(("groups_reach_those_who_want_to_hear_them", PROBE), 2, |net| {
        let ask = "--mcast-snoop --mcast-idle-timeout 15 --mcast-query-interval 3 --mcast-querier";
        net.configure(&[
            &format!("switch add in {ask} 0a:00:00:00:01:fe --mcast-ip4-src 10.0.1.254"),
            "switch-port add in a --address 0a:00:00:00:01:0a,10.0.1.10",
            "switch-port add in b --address 0a:00:00:00:01:0b,10.0.1.11",
            "switch-port add in c --address 0a:00:00:00:01:0c,10.0.1.12",
            &format!("switch add far {ask} 0a:00:00:00:02:fe"),
            "switch-port add far d --address 0a:00:00:00:02:0d,10.0.2.13",
            "switch-port add far e --address 0a:00:00:00:02:0e,10.0.2.14",
            "router add r --mcast-relay",
            "router-port add r r-in --mac 0a:00:00:00:01:01 --network 10.0.1.1/24 --network fd00:1::1/64",
            "switch-port add in in-r --router-port r-in",
            "router-port add r r-far --mac 0a:00:00:00:02:01 --network 10.0.2.1/24 --network fd00:2::1/64",
            "switch-port add far far-r --router-port r-far",
        ])?;
        let mut made = Vec::new();
        for (host, name, subnet, last) in
            [(0, "a", 1, 10), (1, "b", 1, 11), (0, "c", 1, 12), (0, "d", 2, 13), (1, "e", 2, 14)]
        {
            let (mac, ip) = (format!("0a:00:00:00:0{subnet}:{last:02x}"), format!("10.0.{subnet}.{last}/24"));
            let of = net.workload(host, name, (&mac, &ip), Some(&format!("10.0.{subnet}.1")))?;
            net.netns(of).ip(&[
                "-6",
                "addr",
                "add",
                &format!("fd00:{subnet}::{last:x}/64"),
                "dev",
                "eth0",
                "nodad",
            ])?;
            net.netns(of).ip(&["-6", "route", "add", "default", "via", &format!("fd00:{subnet}::1")])?;
            made.push(of);
        }
        let [a, b, c, d, e] = made.try_into().ok().context("five workloads")?;
        net.wait_converged()?;
        let group: SocketAddr = "239.1.2.3:5000".parse()?;
        wait_for_hearers(net, (a, "10.0.1.10"), group, &[])?;
        // Members on both hosts, and behind the router; one speaks IGMPv2, one IGMPv1.
        for (of, version) in [(b, 2), (e, 1)] {
            let setting = format!("echo {version} >/proc/sys/net/ipv4/conf/eth0/force_igmp_version");
            command::output(net.netns(of).command("sh").args(["-c", &setting]), Duration::from_secs(5))?;
        }
        let _at_b = member(net, b, "10.0.1.11", group)?;
        let mut at_d = member(net, d, "10.0.2.13", group)?;
        let _at_e = member(net, e, "10.0.2.14", group)?;
        wait_for_hearers(net, (a, "10.0.1.10"), group, &["10.0.1.11", "10.0.2.13", "10.0.2.14"])?;
        wait_for_hearers(net, (c, "10.0.1.12"), group, &["10.0.1.11", "10.0.2.13", "10.0.2.14"])?;
        let shown = net.control.text(&["switch-port", "show", "b"])?;
        ensure!(shown.contains("239.1.2.3"), "{shown}");
        // Nobody else has anything of it but questions now and then, and of other groups nobody.
        wait_for_hearers(net, (a, "10.0.1.10"), "239.9.9.9:5000".parse()?, &[])?;
        let before = (n_sent(net, 0, "c")?, n_sent(net, 1, "b")?);
        let own: IpAddr = "10.0.1.10".parse()?;
        net.plan().programs.probe.ask_group((net.netns(a), own), group, 30)?;
        let n_more = (n_sent(net, 0, "c")? - before.0, n_sent(net, 1, "b")? - before.1);
        ensure!(
            n_more.0 < 15 && n_more.1 >= 30,
            "{n_more:?} frames came to c, which hears nothing, and to b"
        );
        // IPv6.
        let group6: SocketAddr = "[ff05::1:3]:5000".parse()?;
        let _at_b6 = member(net, b, "fd00:1::b", group6)?;
        let _at_d6 = member(net, d, "fd00:2::d", group6)?;
        wait_for_hearers(net, (a, "fd00:1::a"), group6, &["fd00:1::b", "fd00:2::d"])?;
        // Who leaves hears no more; who is still there does, also past the time after which it is forgotten,
        // because it is asked, and after its host's daemon has begun anew.
        at_d.kill()?;
        wait_for_hearers(net, (a, "10.0.1.10"), group, &["10.0.1.11", "10.0.2.14"])?;
        std::thread::sleep(Duration::from_secs(16));
        wait_for_hearers(net, (a, "10.0.1.10"), group, &["10.0.1.11", "10.0.2.14"])?;
        net.kill_switch(1)?;
        net.start_switch(1)?;
        wait_for_hearers(net, (a, "10.0.1.10"), group, &["10.0.1.11", "10.0.2.14"])?;
        // A switch that does not listen any more sends it to all.
        net.configure(&["switch set in --mcast-snoop=false --wait"])?;
        let before = n_sent(net, 0, "c")?;
        let _ = net.plan().programs.probe.ask_group((net.netns(a), "10.0.1.10".parse()?), group, 3)?;
        ensure!(n_sent(net, 0, "c")? >= before + 3, "a switch that does not listen is no hub");
        net.check_conservation()
    })
}

#[test]
fn neighbours_are_followed_and_forgotten_as_the_router_is_told() -> Result<()> {
    let name = "neighbours_are_followed_and_forgotten_as_the_router_is_told";
    if !has_busybox(name) {
        return Ok(());
    }
    on_hosts((name, PROBE), 2, |net| {
        net.configure(&[
            "switch add in",
            "switch-port add in vm --address 0a:00:00:00:01:0a,10.0.1.10",
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
        let x = net.workload(1, "x", ("0a:00:00:00:02:0a", "10.0.2.10/24"), Some("10.0.2.1"))?;
        let y = net.workload(1, "y", ("0a:00:00:00:02:0b", "10.0.2.11/24"), Some("10.0.2.1"))?;
        net.wait_converged()?;
        let shows = |text: &str, is_there: bool| {
            stop::wait_for(&format!("{text}: {is_there}"), Duration::from_secs(15), || {
                let shown = net.control.text(&["router-port", "show", "r-far"])?;
                Ok(if shown.contains(text) == is_there { Ok(()) } else { Err(shown) })
            })
        };
        let moves = Ipv4Addr::new(10, 0, 2, 10);
        reach_cleanly(net.netns(vm), moves)?;
        shows("10.0.2.10 0a:00:00:00:02:0a", true)?;
        // The address goes to another station, which tells everybody by a question for itself.
        net.netns(x).ip(&["addr", "del", "10.0.2.10/24", "dev", "eth0"])?;
        net.netns(y).ip(&["addr", "add", "10.0.2.10/24", "dev", "eth0"])?;
        say(net, y, "10.0.2.10")?;
        shows("10.0.2.10 0a:00:00:00:02:0b", true)?;
        reach_cleanly(net.netns(vm), moves)?;
        // Whom the router did not know it does not remember for that, unless it is told to.
        net.netns(x).ip(&["addr", "add", "10.0.2.77/24", "dev", "eth0"])?;
        net.netns(x).ip(&["route", "add", "default", "via", "10.0.2.1"])?;
        say(net, x, "10.0.2.77")?;
        say(net, y, "10.0.2.10")?;
        shows("10.0.2.77", false)?;
        net.configure(&["router set r --always-learn-from-arp-request --mac-binding-age 3 --wait"])?;
        say(net, x, "10.0.2.77")?;
        shows("10.0.2.77 0a:00:00:00:02:0a", true)?;
        // It is forgotten soon; who was heard of before is not.
        shows("10.0.2.77", false)?;
        shows("10.0.2.10 0a:00:00:00:02:0b", true)?;
        reach_cleanly(net.netns(vm), Ipv4Addr::new(10, 0, 2, 77))?;
        net.check_conservation()
    })
}

#[test]
fn frames_go_where_addresses_were_seen_also_those_of_ports_and_of_networks() -> Result<()> {
    on_hosts(("frames_go_where_addresses_were_seen_also_those_of_ports_and_of_networks", PROBE), 3, |net| {
        net.configure(&[
            "switch add pub",
            "switch-port add pub pub-net --network provider --tag 100",
            "switch-port add pub a --address 0a:00:00:00:09:0a,10.99.0.10",
            "switch-port add pub open --address unknown",
            "switch add lan",
            "switch-port add lan vm --address 0a:00:00:00:04:01,10.0.4.1 --address unknown",
            "switch-port add lan y --address unknown",
            "switch-port add lan x --address 0a:00:00:00:04:03,10.0.4.3",
        ])?;
        let a = net.workload(0, "a", ("0a:00:00:00:09:0a", "10.99.0.10/24"), None)?;
        net.workload(0, "open", ("0a:00:00:00:09:0b", "10.99.0.11/24"), None)?;
        let vm = net.workload(0, "vm", ("0a:00:00:00:04:01", "10.0.4.1/24"), None)?;
        let y = net.workload(1, "y", ("0a:00:00:00:04:02", "10.0.4.2/24"), None)?;
        let x = net.workload(2, "x", ("0a:00:00:00:04:03", "10.0.4.3/24"), None)?;
        net.wait_converged()?;
        // Who is in the network outside is looked for at all ports that take unknown addresses, until the
        // network is learned from.
        for (learns, n_most, n_least) in [("false", u64::MAX, 20), ("true", 10, 0)] {
            net.configure(&[&format!("switch-port set pub-net --learn-fdb {learns} --wait")])?;
            reach_cleanly(net.netns(a), OUTSIDE)?;
            let before = n_sent(net, 0, "open")?;
            reach_cleanly(net.netns(a), OUTSIDE)?;
            let n = n_sent(net, 0, "open")? - before;
            ensure!((n_least..=n_most).contains(&n), "learn {learns}: {n} frames for others");
        }
        // The address of a port is its own, whoever has it meanwhile, unless it is looked up.
        let at = Ipv4Addr::new(10, 0, 4, 1);
        reach_cleanly(net.netns(x), at)?;
        net.netns(vm).ip(&["link", "set", "dev", "eth0", "down"])?;
        net.netns(y).ip(&["link", "set", "dev", "eth0", "address", "0a:00:00:00:04:01"])?;
        net.netns(y).ip(&["addr", "add", "10.0.4.1/24", "dev", "eth0"])?;
        let speak = |net: &Provider| ping(net.netns(y), Ipv4Addr::new(10, 0, 4, 3), 2).map(drop);
        speak(net)?;
        let (n, _) = ping(net.netns(x), at, 3)?;
        ensure!(n == 0, "{n} answers of who has the address of a port");
        net.configure(&["switch-port set vm --force-fdb-lookup --wait"])?;
        speak(net)?;
        reach_cleanly(net.netns(x), at)?;
        let refused = net.control.attempt(&["switch-port", "set", "x", "--force-fdb-lookup"])?;
        ensure!(!refused.status.success() && refused.stderr.contains("unknown"), "{}", refused.stderr);
        net.check_conservation()
    })
}

#[test]
fn groups_reach_ports_that_are_told_to_hear_all_or_nothing() -> Result<()> {
    on_hosts(("groups_reach_ports_that_are_told_to_hear_all_or_nothing", PROBE), 2, |net| {
        net.configure(&[
            "switch add in --mcast-snoop",
            "switch-port add in a --address 0a:00:00:00:01:0a,10.0.1.10",
            "switch-port add in b --address 0a:00:00:00:01:0b,10.0.1.11",
            "switch-port add in c --address 0a:00:00:00:01:0c,10.0.1.12",
            "switch-port add in d --address 0a:00:00:00:01:0d,10.0.1.13",
        ])?;
        let a = net.workload(0, "a", ("0a:00:00:00:01:0a", "10.0.1.10/24"), None)?;
        let b = net.workload(1, "b", ("0a:00:00:00:01:0b", "10.0.1.11/24"), None)?;
        net.workload(0, "c", ("0a:00:00:00:01:0c", "10.0.1.12/24"), None)?;
        net.workload(1, "d", ("0a:00:00:00:01:0d", "10.0.1.13/24"), None)?;
        net.wait_converged()?;
        let (group, own): (SocketAddr, IpAddr) = ("239.1.2.3:5000".parse()?, "10.0.1.10".parse()?);
        let _at_b = member(net, b, "10.0.1.11", group)?;
        wait_for_hearers(net, (a, "10.0.1.10"), group, &["10.0.1.11"])?;
        // Frames that come to `c` and `d` of 30 that are sent to a group.
        let heard = |group: &str| -> Result<[u64; 2]> {
            let before = [n_sent(net, 0, "c")?, n_sent(net, 1, "d")?];
            net.plan().programs.probe.ask_group((net.netns(a), own), group.parse()?, 30)?;
            Ok([n_sent(net, 0, "c")? - before[0], n_sent(net, 1, "d")? - before[1]])
        };
        let [c, d] = heard("239.1.2.3:5000")?;
        ensure!(c < 15 && d < 15, "{c} and {d} of 30 frames come to who hears nothing");
        net.configure(&["switch-port set c --mcast-flood", "switch-port set d --mcast-flood --wait"])?;
        let [c, d] = heard("239.1.2.3:5000")?;
        ensure!(c >= 30 && d >= 30, "{c} and {d} of 30 frames come to who hears all");
        net.configure(&[
            "switch-port set c --mcast-flood false",
            "switch-port set d --mcast-flood=false --wait",
        ])?;
        let [c, d] = heard("239.9.9.9:5000")?;
        ensure!(c < 15 && d < 15, "{c} and {d} of 30 frames of a group that nobody hears");
        net.configure(&[
            "switch-port set d --receive-multicast false",
            "switch set in --mcast-flood-unregistered --wait",
        ])?;
        let [c, d] = heard("239.9.9.9:5000")?;
        ensure!(c >= 30 && d == 0, "{c} and {d} of 30 frames of a group that nobody hears, sent to all");
        // What workloads say about groups is for routers, and for who wants to hear that.
        net.configure(&[
            "switch set in --mcast-flood-unregistered=false",
            "switch-port set d --receive-multicast true --wait",
        ])?;
        for (wants, n_least, n_most) in [("false", 0, 1), ("true", 2, 100)] {
            net.configure(&[&format!("switch-port set d --mcast-flood-reports {wants} --wait")])?;
            let before = n_sent(net, 1, "d")?;
            for n in 1..5 {
                let mut one = member(net, b, "10.0.1.11", format!("239.7.7.{n}:5000").parse()?)?;
                std::thread::sleep(Duration::from_millis(300));
                one.kill()?;
            }
            let n = n_sent(net, 1, "d")? - before;
            ensure!((n_least..=n_most).contains(&n), "reports {wants}: {n} frames");
        }
        net.check_conservation()
    })
}

#[test]
fn frames_with_tags_pass_where_a_switch_lets_them() -> Result<()> {
    on_hosts(("frames_with_tags_pass_where_a_switch_lets_them", PROBE), 2, |net| {
        net.configure(&[
            "switch add lan --vlan-passthru",
            "switch-port add lan vm1 --address unknown",
            "switch-port add lan vm2 --address unknown",
        ])?;
        for (host, vm, inner, last) in [(0, "vm1", "in1", 1), (1, "vm2", "in2", 2)] {
            let (mac, address) = (format!("0a:00:00:00:06:0{last}"), format!("10.0.6.{last}/24"));
            let machine = net.workload(host, vm, (&mac, &address), None)?;
            let behind = Netns::create(&format!("{}-{inner}", net.plan().prefix))?;
            let (mac, address) = (format!("0a:00:00:00:07:0{last}"), format!("10.0.7.{last}/24"));
            let end = End { netns: &behind, name: "eth0", mac: Some(&mac), address: Some(&address) };
            netns::link(end, End::new(net.netns(machine), inner), 1400)?;
            net.adopt(behind);
            net.tag_in(machine, &[(inner, "7")])?;
        }
        net.wait_converged()?;
        let far = Ipv4Addr::new(10, 0, 7, 2);
        reach_cleanly(net.named("in1")?, far)?;
        net.configure(&["switch set lan --vlan-passthru false --wait"])?;
        let (n, _) = ping(net.named("in1")?, far, 3)?;
        ensure!(n == 0, "{n} answers pass with tags");
        net.check_conservation()
    })
}

#[test]
fn a_switch_chooses_addresses_with_its_prefix() -> Result<()> {
    on_hosts(("a_switch_chooses_addresses_with_its_prefix", PROBE), 2, |net| {
        net.configure(&[
            "switch add lan --subnet 10.0.5.0/24 --mac-prefix 0a:77:00",
            "switch-port add lan a --address dynamic",
            "switch-port add lan b --address dynamic",
            "switch add macs --mac-prefix 0a:78:00",
            "switch-port add macs c --address dynamic",
        ])?;
        // What was chosen: MAC address, IP address.
        let chosen = |port: &str| -> Result<Vec<String>> {
            let text = net.control.text(&["switch-port", "show", port])?;
            let text = text.split_once('(').and_then(|(_, rest)| rest.split_once(')'));
            let (text, _) = text.with_context(|| format!("nothing is chosen for {port}"))?;
            Ok(text.split(' ').map(str::to_owned).collect())
        };
        let (a, b, c) = (chosen("a")?, chosen("b")?, chosen("c")?);
        ensure!(a.len() == 2 && a[0].starts_with("0a:77:00:") && a[1].starts_with("10.0.5."), "{a:?}");
        ensure!(c.len() == 1 && c[0].starts_with("0a:78:00:"), "a MAC address alone: {c:?}");
        let at_a = net.workload(0, "a", (&a[0], &format!("{}/24", a[1])), None)?;
        net.workload(1, "b", (&b[0], &format!("{}/24", b[1])), None)?;
        net.wait_converged()?;
        reach_cleanly(net.netns(at_a), b[1].parse()?)?;
        net.check_conservation()
    })
}
