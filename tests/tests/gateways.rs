//! Where networks meet the outside: a switch in a provider's VLAN, gateways that fail and come back, floating
//! addresses on their workloads' hosts, containers behind one interface.

#![forbid(unsafe_code)]

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ferroflow_tests::daemon::{Daemon, Life, has_command};
use ferroflow_tests::netns::{End, Netns};
use ferroflow_tests::probe::Outcome;
use ferroflow_tests::provider::{self, OUTSIDE, Provider, greeter, reach_cleanly};
use ferroflow_tests::{netns, stop};

const PROBE: &str = env!("CARGO_BIN_EXE_ff-probe");

/// Runs a scenario on so many hosts.
fn on_hosts(name: &str, n_hosts: usize, run: impl FnOnce(&mut Provider) -> Result<()>) -> Result<()> {
    provider::on_hosts((name, PROBE), n_hosts, run)
}

#[test]
fn a_switch_in_a_providers_network() -> Result<()> {
    on_hosts("a_switch_in_a_providers_network", 2, |net| {
        net.configure(&[
            "switch add pub",
            "switch-port add pub pub-net --network provider --tag 100",
            "switch-port add pub a --address 0a:00:00:00:09:0a,10.99.0.10",
            "switch-port add pub b --address 0a:00:00:00:09:0b,10.99.0.11",
            "switch-port add pub c --address unknown",
        ])?;
        let a = net.workload(0, "a", ("0a:00:00:00:09:0a", "10.99.0.10/24"), None)?;
        let b = net.workload(1, "b", ("0a:00:00:00:09:0b", "10.99.0.11/24"), None)?;
        let c = net.workload(1, "c", ("0a:00:00:00:09:0c", "10.99.0.12/24"), None)?;
        net.wait_converged()?;
        let [at_a, at_b, at_c] = [10, 11, 12].map(|last| Ipv4Addr::new(10, 99, 0, last));
        // Hosts reach each other by the VLAN, and the outside reaches all.
        for (from, to) in
            [(a, at_b), (b, at_a), (a, at_c), (c, at_a), (a, OUTSIDE), (b, OUTSIDE), (c, OUTSIDE)]
        {
            reach_cleanly(net.netns(from), to)?;
        }
        for to in [at_a, at_b, at_c] {
            reach_cleanly(&net.outside, to)?;
        }
        // Full-size frames: there is no tunnel in between.
        let mut full = net.netns(a).command("ping");
        full.args(["-n", "-c", "3", "-i", "0.1", "-W", "2", "-M", "do", "-s", "1472", "10.99.0.11"]);
        let text = ferroflow_tests::command::output(&mut full, Duration::from_secs(20))?;
        ensure!(text.contains(" 0% packet loss"), "{text}");
        let tunnelled = net.host(0).control.ports()?.into_iter().find(|port| port.name == "geneve");
        ensure!(
            tunnelled.is_none_or(|port| port.tx_packets == 0),
            "frames of the VLAN went through a tunnel"
        );
        // The outside is told where a new workload is, unless that is not wanted.
        net.configure(&["switch-port add pub d --address 0a:00:00:00:09:0d,10.99.0.13 --disable-garp-rarp"])?;
        let wrong =
            ["neigh", "replace", "10.99.0.13", "lladdr", "0a:00:00:00:09:99", "dev", "eth0", "nud", "stale"];
        net.outside.ip(&wrong)?;
        net.workload(0, "d", ("0a:00:00:00:09:0d", "10.99.0.13/24"), None)?;
        net.wait_converged()?;
        thread::sleep(Duration::from_secs(3));
        let known = net.outside.ip(&["neigh", "show", "10.99.0.13"])?;
        ensure!(known.contains("0a:00:00:00:09:99"), "{known}");
        net.configure(&["switch-port set d --disable-garp-rarp false --wait"])?;
        stop::wait_for("the outside is told", Duration::from_secs(10), || {
            let known = net.outside.ip(&["neigh", "show", "10.99.0.13"])?;
            Ok(if known.contains("0a:00:00:00:09:0d") { Ok(()) } else { Err(known) })
        })?;
        net.check_conservation()
    })
}

/// Who has the gateway port, as a host sees it.
fn gateway_of(net: &Provider, host: usize) -> Result<String> {
    let text = net.host(host).control.text(&["status", "-o", "json"])?;
    let status: serde_json::Value = serde_json::from_str(&text)?;
    let active = status["gateways"].as_array().and_then(|list| list.first()?["active"].as_str());
    Ok(active.unwrap_or_default().to_owned())
}

/// Pings once every 50 ms until told to stop: the longest time without an answer, and when it began.
fn outage(net: &Netns, to: Ipv4Addr, lasts: Duration) -> Result<Duration> {
    let (start, mut last, mut longest) = (Instant::now(), Instant::now(), Duration::ZERO);
    while start.elapsed() < lasts {
        let mut command = net.command("ping");
        command.args(["-n", "-c", "1", "-W", "1", &to.to_string()]);
        let finished = ferroflow_tests::command::run_regardless(&mut command, Duration::from_secs(5))?;
        if finished.status.success() {
            longest = longest.max(last.elapsed());
            last = Instant::now();
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(longest.max(last.elapsed()))
}

#[test]
fn a_gateway_fails_over_and_comes_back() -> Result<()> {
    on_hosts("a_gateway_fails_over_and_comes_back", 3, |net| {
        let vm = net.with_gateway()?;
        let floating = Ipv4Addr::new(10, 99, 0, 50);
        reach_cleanly(net.netns(vm), OUTSIDE)?;
        reach_cleanly(&net.outside, floating)?;
        for host in 0..3 {
            ensure!(gateway_of(net, host)? == "h1", "host {host}: {}", gateway_of(net, host)?);
        }
        // Those who could be the gateway see each other, and so does who needs one.
        let sees = |host: usize, text: &str| -> Result<()> {
            stop::wait_for("sessions", Duration::from_secs(10), || {
                let status = net.host(host).control.text(&["status"])?;
                Ok(if status.contains(text) { Ok(()) } else { Err(status) })
            })
        };
        sees(2, "h1=20 up, h2=10 up")?;
        sees(1, "h1=20 up, h2=10 self")?;
        // The gateway dies.
        net.kill_switch(0)?;
        let inside = outage(net.netns(vm), OUTSIDE, Duration::from_secs(4))?;
        ensure!(inside < Duration::from_secs(3), "from inside: nothing for {inside:?}");
        let outside = outage(&net.outside, floating, Duration::from_secs(1))?;
        ensure!(outside < Duration::from_millis(1500), "from outside: nothing for {outside:?}");
        for host in 1..3 {
            ensure!(gateway_of(net, host)? == "h2", "host {host}: {}", gateway_of(net, host)?);
        }
        reach_cleanly(&net.outside, floating)?;
        // It comes back, and is preferred again.
        net.start_switch(0)?;
        let inside = outage(net.netns(vm), OUTSIDE, Duration::from_secs(6))?;
        ensure!(inside < Duration::from_secs(3), "when it came back: nothing for {inside:?}");
        stop::wait_for("the first gateway is back", Duration::from_secs(10), || {
            let seen = [0, 1, 2].map(|host| gateway_of(net, host).unwrap_or_default());
            Ok(if seen.iter().all(|active| active == "h1") { Ok(()) } else { Err(format!("{seen:?}")) })
        })?;
        // The group says otherwise: whoever names it follows.
        net.configure(&["ha-chassis-group set gw --chassis h1=20 --chassis h2=30 --wait"])?;
        stop::wait_for("the group is followed", Duration::from_secs(10), || {
            let seen = [0, 1, 2].map(|host| gateway_of(net, host).unwrap_or_default());
            Ok(if seen.iter().all(|active| active == "h2") { Ok(()) } else { Err(format!("{seen:?}")) })
        })?;
        reach_cleanly(net.netns(vm), OUTSIDE)?;
        reach_cleanly(&net.outside, floating)?;
        net.check_conservation()
    })
}

#[test]
fn a_floating_address_on_its_workloads_host() -> Result<()> {
    on_hosts("a_floating_address_on_its_workloads_host", 3, |net| {
        let vm = net.with_gateway()?;
        net.configure(&["nat set r/float --external-mac 0a:00:00:00:02:50 --logical-port vm --wait"])?;
        let floating = Ipv4Addr::new(10, 99, 0, 50);
        reach_cleanly(&net.outside, floating)?;
        reach_cleanly(net.netns(vm), OUTSIDE)?;
        let neighbours = net.outside.ip(&["neigh", "show", "10.99.0.50"])?;
        ensure!(neighbours.contains("0a:00:00:00:02:50"), "{neighbours}");
        // The gateway tells the outside of addresses that are there besides.
        net.outside.ip(&["neigh", "replace", "10.99.0.77", "lladdr", "0a:00:00:00:09:99", "dev", "eth0"])?;
        net.outside.ip(&["neigh", "change", "10.99.0.77", "dev", "eth0", "nud", "stale"])?;
        net.configure(&["switch-port set pub-r --nat-address 0a:00:00:00:02:77,10.99.0.77 --wait"])?;
        stop::wait_for("the outside is told", Duration::from_secs(10), || {
            let known = net.outside.ip(&["neigh", "show", "10.99.0.77"])?;
            Ok(if known.contains("0a:00:00:00:02:77") { Ok(()) } else { Err(known) })
        })?;
        // It needs no gateway at all.
        net.kill_switch(0)?;
        net.kill_switch(1)?;
        thread::sleep(Duration::from_secs(2));
        reach_cleanly(&net.outside, floating)?;
        reach_cleanly(net.netns(vm), OUTSIDE)?;
        net.check_conservation()
    })
}

#[test]
fn containers_behind_one_interface() -> Result<()> {
    on_hosts("containers_behind_one_interface", 2, |net| {
        net.configure(&[
            "switch add machines",
            "switch-port add machines vm --address 0a:00:00:00:01:0a,10.0.1.10",
            "switch add containers",
            "switch-port add containers c1 --address 0a:00:00:00:03:01,10.0.3.1 --parent vm --tag 31",
            "switch-port add containers c2 --address 0a:00:00:00:03:02,10.0.3.2 --parent vm --tag-request",
            "switch-port add containers far --address 0a:00:00:00:03:03,10.0.3.3",
        ])?;
        let vm = net.workload(0, "vm", ("0a:00:00:00:01:0a", "10.0.1.10/24"), None)?;
        let far = net.workload(1, "far", ("0a:00:00:00:03:03", "10.0.3.3/24"), None)?;
        for (name, mac, address) in
            [("c1", "0a:00:00:00:03:01", "10.0.3.1/24"), ("c2", "0a:00:00:00:03:02", "10.0.3.2/24")]
        {
            let inner = Netns::create(&format!("{}-{name}", net.plan().prefix))?;
            let container = End { netns: &inner, name: "eth0", mac: Some(mac), address: Some(address) };
            netns::link(container, End::new(net.netns(vm), name), 1400)?;
            net.adopt(inner);
        }
        // One says its tag; that of the other one is chosen.
        let shown = net.control.text(&["switch-port", "show", "c2"])?;
        ensure!(shown.contains("1 (chosen)"), "{shown}");
        net.tag_in(vm, &[("c1", "31"), ("c2", "1")])?;
        net.wait_converged()?;
        let [at_1, at_2, at_far] = [1, 2, 3].map(|last| Ipv4Addr::new(10, 0, 3, last));
        let (c1, c2) = (net.named("c1")?, net.named("c2")?);
        reach_cleanly(c1, at_2)?;
        reach_cleanly(c2, at_1)?;
        reach_cleanly(c1, at_far)?;
        reach_cleanly(net.netns(far), at_2)?;
        let place = net.control.places()?.into_iter().find(|place| place.id == "c1").context("no c1")?;
        ensure!((place.chassis.as_str(), place.up) == ("h1", true), "{place:?}");
        net.check_conservation()
    })
}

#[test]
fn who_sends_too_much_at_once_to_the_outside_is_told() -> Result<()> {
    on_hosts("who_sends_too_much_at_once_to_the_outside_is_told", 3, |net| {
        // The workload is on a host that is not the gateway.
        let vm = net.with_gateway()?;
        reach_cleanly(net.netns(vm), OUTSIDE)?;
        let ping = |len: u32| -> Result<String> {
            let (len, to) = ((len - 28).to_string(), OUTSIDE.to_string());
            let mut command = net.netns(vm).command("ping");
            command.args(["-n", "-c", "3", "-i", "0.2", "-W", "2", "-M", "do", "-s", &len, &to]);
            Ok(ferroflow_tests::command::run_regardless(&mut command, Duration::from_secs(20))?.stdout)
        };
        let text = ping(1400)?;
        ensure!(text.contains(" 0% packet loss"), "there is no bound yet: {text}");
        net.configure(&["router-port set r-out --gateway-mtu 1300 --wait"])?;
        let text = ping(1400)?;
        ensure!(text.contains("Frag needed and DF set (mtu = 1300)"), "{text}");
        let text = ping(1300)?;
        ensure!(text.contains(" 0% packet loss"), "what fits: {text}");
        // The kernel has taken note.
        let route = net.netns(vm).ip(&["route", "get", &OUTSIDE.to_string()])?;
        ensure!(route.contains("mtu 1300"), "{route}");
        net.check_conservation()
    })
}

#[test]
fn services_are_reached_from_outside_wherever_their_backends_are() -> Result<()> {
    on_hosts("services_are_reached_from_outside_wherever_their_backends_are", 3, |net| {
        // One backend is on a host that is not the gateway, the other where the gateway is.
        let far = net.with_gateway()?;
        net.configure(&["switch-port add in vm2 --address 0a:00:00:00:01:0b,10.0.1.11"])?;
        let near = net.workload(0, "vm2", ("0a:00:00:00:01:0b", "10.0.1.11/24"), Some("10.0.1.1"))?;
        let both = "10.99.0.80:80=10.0.1.10:8080,10.0.1.11:8080";
        net.control.text(&["load-balancer", "add", "lb", "--vip", both])?;
        net.configure(&["router set r --load-balancer lb --wait"])?;
        net.wait_converged()?;
        let inside = |last| SocketAddrV4::new(Ipv4Addr::new(10, 0, 1, last), 8080);
        let _servers = [
            greeter(net.plan(), net.netns(far), inside(10), "far")?,
            greeter(net.plan(), net.netns(near), inside(11), "near")?,
        ];
        let probe = net.plan().programs.probe.clone();
        let service = SocketAddrV4::new(Ipv4Addr::new(10, 99, 0, 80), 80);
        let answers = probe.ask_servers(&net.outside, service, 40)?;
        let of = |name: &str| answers.get(&format!("{name} {OUTSIDE}")).copied().unwrap_or(0);
        ensure!(of("far") + of("near") == 40, "the servers see the client as it is: {answers:?}");
        ensure!(of("far") >= 5 && of("near") >= 5, "shares of 40: {answers:?}");
        // The router answers for the address, unless it is told otherwise.
        net.configure(&["load-balancer set lb --neighbor-responder none --wait"])?;
        net.outside.ip(&["neigh", "flush", "dev", "eth0"])?;
        let outcome = probe.connect(&net.outside, service, Duration::from_millis(1500))?;
        ensure!(outcome != Outcome::Connected, "nobody answers: {outcome:?}");
        net.configure(&["load-balancer set lb --neighbor-responder reachable --wait"])?;
        // Without hidden sources it is the same.
        net.configure(&["nat del r/hide", "nat del r/float --wait"])?;
        let answers = probe.ask_servers(&net.outside, service, 20)?;
        ensure!(answers.values().sum::<u64>() == 20 && answers.len() == 2, "{answers:?}");
        // And from inside, where the client's host does it.
        let answers = probe.ask_servers(net.netns(near), service, 20)?;
        ensure!(answers.keys().any(|who| who == "far 10.0.1.11"), "{answers:?}");
        hides_by_what_packets_are(net, far)?;
        net.check_conservation()
    })
}

/// Rules with a condition of their own go before those without.
fn hides_by_what_packets_are(net: &Provider, vm: usize) -> Result<()> {
    net.configure(&[
        "nat add r hide --type snat --external 10.99.0.1 --logical 10.0.1.0/24",
        "nat add r some --type snat --external 10.99.0.60 --logical 10.0.1.0/24 --match tcp.dst,==,{9000},||,tcp.dst,==,{9001}",
        "nat add r few --type snat --external 10.99.0.61 --logical 10.0.1.0/24 --match tcp.dst,==,9001 --priority 5 \
         --gateway-port r-out --wait",
    ])?;
    for (port, seen) in [(9000, "10.99.0.60"), (9001, "10.99.0.61"), (9002, "10.99.0.1")] {
        let at = SocketAddrV4::new(OUTSIDE, port);
        let _server = greeter(net.plan(), &net.outside, at, "outside")?;
        let answers = net.plan().programs.probe.ask_servers(net.netns(vm), at, 3)?;
        ensure!(answers == [(format!("outside {seen}"), 3)].into(), "port {port}: {answers:?}");
    }
    Ok(())
}

/// Frames that a host has sent to others by tunnels.
fn n_tunnelled(net: &Provider, host: usize) -> Result<u64> {
    let ports = net.host(host).control.ports()?;
    Ok(ports.iter().filter(|port| port.name == "underlay").map(|port| port.tx_packets).sum())
}

#[test]
fn a_gateway_is_reached_by_the_network_outside_or_by_a_tunnel() -> Result<()> {
    on_hosts("a_gateway_is_reached_by_the_network_outside_or_by_a_tunnel", 3, |net| {
        let vm = net.with_gateway()?;
        let at = SocketAddrV4::new(OUTSIDE, 8080);
        let _server = greeter(net.plan(), &net.outside, at, "outside")?;
        let probe = net.plan().programs.probe.clone();
        // Hosts ask each other in tunnels whether they live, a few times a second.
        let floats = Ipv4Addr::new(10, 99, 0, 50);
        for (redirect, by_tunnel) in [("overlay", true), ("bridged", false), ("overlay", true)] {
            net.configure(&[&format!("router-port set r-out --redirect-type {redirect} --wait")])?;
            let before = n_tunnelled(net, 2)?;
            let mut command = net.netns(vm).command("ping");
            command.args(["-n", "-c", "200", "-i", "0.01", "-W", "2", &OUTSIDE.to_string()]);
            let text = ferroflow_tests::command::output(&mut command, Duration::from_secs(60))?;
            ensure!(text.contains(" 0% packet loss"), "{redirect}: {text}");
            let n = n_tunnelled(net, 2)? - before;
            ensure!((n >= 200) == by_tunnel, "{redirect}: {n} frames by tunnels");
            let answers = probe.ask_servers(net.netns(vm), at, 5)?;
            ensure!(answers == [("outside 10.99.0.50".to_owned(), 5)].into(), "{redirect}: {answers:?}");
            reach_cleanly(&net.outside, floats)?;
        }
        // Nobody outside takes the sender for the gateway.
        let neighbours = net.outside.ip(&["neigh", "show", "10.99.0.1"])?;
        ensure!(neighbours.contains("0a:00:00:00:02:01"), "{neighbours}");
        // The gateway moves, and the way with it.
        net.configure(&[
            "router-port set r-out --redirect-type bridged",
            "ha-chassis-group set gw --chassis h1=10 --chassis h2=20 --wait",
        ])?;
        stop::wait_for("the other host is the gateway", Duration::from_secs(10), || {
            let seen = [0, 1, 2].map(|host| gateway_of(net, host).unwrap_or_default());
            Ok(if seen.iter().all(|active| active == "h2") { Ok(()) } else { Err(format!("{seen:?}")) })
        })?;
        reach_cleanly(net.netns(vm), OUTSIDE)?;
        let refused = net.control.attempt(&["router-port", "set", "r-in", "--redirect-type", "bridged"])?;
        ensure!(!refused.status.success() && refused.stderr.contains("gateway"), "{}", refused.stderr);
        net.check_conservation()
    })
}

#[test]
fn answers_leave_by_another_gateway_than_requests_come_by() -> Result<()> {
    on_hosts("answers_leave_by_another_gateway_than_requests_come_by", 3, |net| {
        let vm = net.with_gateway()?;
        net.second_way()?;
        let both = "10.99.0.80:80=10.0.1.10:8080,10.0.1.11:8081";
        net.control.text(&["load-balancer", "add", "lb", "--vip", both, "--stateless"])?;
        net.configure(&[
            "nat del r/hide",
            "nat del r/float",
            "switch add too",
            "switch-port add too too-net --network provider --tag 101",
            "router-port add r r-too --mac 0a:00:00:00:03:01 --network 10.98.0.1/24 --gateway h2=20",
            "switch-port add too too-r --router-port r-too",
            "switch-port add in vm2 --address 0a:00:00:00:01:0b,10.0.1.11",
            "router set r --load-balancer lb --route 10.97.0.0/16,via,10.98.0.9",
        ])?;
        let near = net.workload(0, "vm2", ("0a:00:00:00:01:0b", "10.0.1.11/24"), Some("10.0.1.1"))?;
        net.wait_converged()?;
        let inside = |last, port| SocketAddrV4::new(Ipv4Addr::new(10, 0, 1, last), port);
        let _servers = [
            greeter(net.plan(), net.netns(vm), inside(10, 8080), "far")?,
            greeter(net.plan(), net.netns(near), inside(11, 8081), "near")?,
        ];
        // A client whose requests come by the first gateway, to whom the router's way is the second one.
        let loose = ["all", "eth0", "eth1"].map(|name| format!("net.ipv4.conf.{name}.rp_filter"));
        net.outside.set_sysctls(&loose.each_ref().map(|name| (name.as_str(), "0")))?;
        net.outside.ip(&["addr", "add", "10.97.0.9/32", "dev", "lo"])?;
        net.outside.ip(&["route", "add", "10.99.0.80/32", "dev", "eth0", "src", "10.97.0.9"])?;
        // Who is not in the gateway's network gets no answer about it.
        let way = ["neigh", "add", "10.99.0.80", "lladdr", "0a:00:00:00:02:01", "dev", "eth0"];
        net.outside.ip(&way)?;
        let service = SocketAddrV4::new(Ipv4Addr::new(10, 99, 0, 80), 80);
        let probe = net.plan().programs.probe.clone();
        let answers = probe.ask_servers(&net.outside, service, 40)?;
        let of = |name: &str| answers.get(&format!("{name} 10.97.0.9")).copied().unwrap_or(0);
        ensure!(of("far") + of("near") == 40, "the servers see the client as it is: {answers:?}");
        ensure!(of("far") >= 5 && of("near") >= 5, "shares of 40: {answers:?}");
        for host in 0..2 {
            let known = net.host(host).control.text(&["ct", "dump"])?;
            ensure!(!known.contains("10.97.0.9"), "host {host} remembers: {known}");
        }
        // With a memory, the second gateway knows nothing of it.
        net.configure(&["load-balancer set lb --stateless false --wait"])?;
        let outcome = probe.connect(&net.outside, service, Duration::from_millis(1500))?;
        ensure!(outcome != Outcome::Connected, "{outcome:?}");
        net.check_conservation()
    })
}

#[test]
fn a_gateway_remembers_all_connections_in_the_zone_that_is_named() -> Result<()> {
    on_hosts("a_gateway_remembers_all_connections_in_the_zone_that_is_named", 3, |net| {
        let vm = net.with_gateway()?;
        net.outside.ip(&["route", "add", "10.0.1.0/24", "via", "10.99.0.1"])?;
        let inside = SocketAddrV4::new(Ipv4Addr::new(10, 0, 1, 10), 8080);
        let known = |to: &str| -> Result<Vec<String>> {
            let all = net.host(0).control.text(&["ct", "dump"])?;
            Ok(all.lines().filter(|line| line.contains(to)).map(str::to_owned).collect())
        };
        let at = SocketAddrV4::new(OUTSIDE, 8080);
        let _servers = [
            greeter(net.plan(), &net.outside, at, "outside")?,
            greeter(net.plan(), net.netns(vm), inside, "inside")?,
        ];
        let probe = net.plan().programs.probe.clone();
        for (words, zone, n) in
            [("", None, 1), ("--snat-ct-zone 64000", Some(64_000), 1), ("--ct-commit-all", Some(64_000), 2)]
        {
            if !words.is_empty() {
                net.configure(&[&format!("router set r {words} --wait")])?;
            }
            net.host(0).control.text(&["ct", "flush", "--all"])?;
            let answers = probe.ask_servers(net.netns(vm), at, 1)?;
            ensure!(answers == [("outside 10.99.0.50".to_owned(), 1)].into(), "{words}: {answers:?}");
            if n > 1 {
                // From outside to the workload's own address: neither is that translated, nor are its answers.
                ensure!(probe.ask_servers(&net.outside, inside, 1)?.len() == 1);
            }
            let lines = known("10.99.0.9")?;
            ensure!(lines.len() == n, "{words}: {lines:#?}");
            if let Some(zone) = zone {
                let wanted = format!("zone={zone}");
                ensure!(lines.iter().all(|line| line.contains(&wanted)), "{words}: {lines:#?}");
            }
        }
        let refused = net.control.attempt(&["router", "set", "r", "--snat-ct-zone", "2000"])?;
        ensure!(!refused.status.success() && refused.stderr.contains("64000 to 65535"), "{}", refused.stderr);
        net.configure(&["router set r --no-snat-ct-zone --ct-commit-all false --wait"])?;
        reach_cleanly(net.netns(vm), OUTSIDE)?;
        net.check_conservation()
    })
}

/// BIRD, which says that a next hop lives, until it is dropped.
fn bird(net: &Provider, at: usize, own: &str) -> Result<Daemon> {
    let path = |ending: &str| net.plan().dir.join(format!("bird-{own}.{ending}"));
    let settings = format!(
        "router id {own};\nprotocol device {{}}\nprotocol bfd {{\n interface \"eth0\" {{\n \
         min rx interval 100 ms; min tx interval 100 ms; idle tx interval 300 ms; multiplier 3;\n }};\n \
         neighbor 10.0.7.1 dev \"eth0\" local {own};\n}}\n"
    );
    std::fs::write(path("conf"), settings)?;
    let (conf, socket) = (path("conf").display().to_string(), path("ctl").display().to_string());
    let words = ["-f", "-c", &conf, "-s", &socket];
    Daemon::start(net.netns(at), Path::new("bird"), &words, &path("log"), Life::WithParent)
}

/// Waits until the sessions with both next hops are so.
fn wait_for_sessions(net: &Provider, wanted: [&str; 2]) -> Result<()> {
    let wanted: Vec<_> =
        [2, 3].into_iter().zip(wanted).map(|(n, state)| format!("10.0.7.{n} {state}")).collect();
    stop::wait_for(&wanted.join(", "), Duration::from_secs(20), || {
        let shown = net.control.text(&["router-port", "show", "r-isp"])?;
        Ok(if wanted.iter().all(|text| shown.contains(text)) { Ok(()) } else { Err(shown) })
    })
}

#[test]
fn a_route_is_there_while_its_next_hop_says_that_it_lives() -> Result<()> {
    let name = "a_route_is_there_while_its_next_hop_says_that_it_lives";
    if !has_command("bird") {
        ferroflow_tests::say(&format!("SKIPPED {name}: there is no `bird`; apt-get install bird2"));
        return Ok(());
    }
    on_hosts(name, 2, |net| {
        net.configure(&[
            "switch add in",
            "switch-port add in vm --address 0a:00:00:00:01:0a,10.0.1.10",
            "switch add isp",
            "switch-port add isp isp1 --address 0a:00:00:00:07:02,10.0.7.2",
            "switch-port add isp isp2 --address 0a:00:00:00:07:03,10.0.7.3",
            "router add r --chassis h1 --route 0.0.0.0/0,via,10.0.7.2,bfd --route 0.0.0.0/0,via,10.0.7.3,bfd",
            "router-port add r r-in --mac 0a:00:00:00:01:01 --network 10.0.1.1/24",
            "switch-port add in in-r --router-port r-in",
            "router-port add r r-isp --mac 0a:00:00:00:07:01 --network 10.0.7.1/24 \
             --bfd 10.0.7.2,tx=100,rx=100,mult=3 --bfd 10.0.7.3,tx=100,rx=100,mult=3",
            "switch-port add isp isp-r --router-port r-isp",
            "router-policy add r by-two --priority 9 --match ip4.dst==198.51.100.8 --action reroute --next-hop 10.0.7.3 --bfd",
        ])?;
        let vm = net.workload(1, "vm", ("0a:00:00:00:01:0a", "10.0.1.10/24"), Some("10.0.1.1"))?;
        let mut isps = Vec::new();
        for (host, name, last) in [(0, "isp1", 2), (1, "isp2", 3)] {
            let (mac, ip) = (format!("0a:00:00:00:07:0{last}"), format!("10.0.7.{last}/24"));
            let isp = net.workload(host, name, (&mac, &ip), Some("10.0.7.1"))?;
            for behind in ["198.51.100.8/32", "198.51.100.9/32"] {
                net.netns(isp).ip(&["addr", "add", behind, "dev", "lo"])?;
            }
            isps.push(isp);
        }
        let [isp1, isp2] = isps.try_into().ok().context("two next hops")?;
        net.wait_converged()?;
        let (behind, by_policy) = (Ipv4Addr::new(198, 51, 100, 9), Ipv4Addr::new(198, 51, 100, 8));
        // Nobody has said yet that he lives.
        ensure!(provider::ping(net.netns(vm), behind, 2)?.0 == 0, "a route to nobody");
        let mut first = bird(net, isp1, "10.0.7.2")?;
        let mut second = bird(net, isp2, "10.0.7.3")?;
        wait_for_sessions(net, ["up", "up"])?;
        reach_cleanly(net.netns(vm), behind)?;
        // The first goes away without a word, and nothing is behind it any more: packets take the other route.
        first.kill()?;
        net.netns(isp1).ip(&["addr", "flush", "dev", "lo"])?;
        let gone = Instant::now();
        wait_for_sessions(net, ["down", "up"])?;
        ensure!(gone.elapsed() < Duration::from_secs(5), "after {:?}", gone.elapsed());
        reach_cleanly(net.netns(vm), behind)?;
        reach_cleanly(net.netns(vm), by_policy)?;
        // It comes back, and the other one goes: then the policy is not there, and the route leads to the first.
        for address in ["198.51.100.8/32", "198.51.100.9/32"] {
            net.netns(isp1).ip(&["addr", "add", address, "dev", "lo"])?;
        }
        let _first = bird(net, isp1, "10.0.7.2")?;
        wait_for_sessions(net, ["up", "up"])?;
        second.kill()?;
        net.netns(isp2).ip(&["addr", "flush", "dev", "lo"])?;
        wait_for_sessions(net, ["up", "down"])?;
        reach_cleanly(net.netns(vm), behind)?;
        reach_cleanly(net.netns(vm), by_policy)?;
        net.check_conservation()
    })
}

/// EtherTypes of the tags of frames in a capture.
fn tags_of(capture: &[u8]) -> Vec<[u8; 2]> {
    let mut rest = capture.get(24..).unwrap_or_default();
    let mut found = Vec::new();
    while let Some((head, behind)) = rest.split_first_chunk::<16>() {
        let len = u32::from_ne_bytes([head[8], head[9], head[10], head[11]]) as usize;
        let Some((frame, next)) = behind.split_at_checked(len) else { break };
        found.extend(frame.get(12..14).and_then(|tag| <[u8; 2]>::try_from(tag).ok()));
        rest = next;
    }
    found
}

#[test]
fn a_network_with_a_providers_tags() -> Result<()> {
    on_hosts("a_network_with_a_providers_tags", 2, |net| {
        net.configure(&[
            "switch add pub",
            "switch-port add pub pub-net --network provider --tag 100",
            "switch-port add pub a --address 0a:00:00:00:09:0a,10.99.0.10",
            "switch-port add pub b --address 0a:00:00:00:09:0b,10.99.0.11",
        ])?;
        let a = net.workload(0, "a", ("0a:00:00:00:09:0a", "10.99.0.10/24"), None)?;
        let b = net.workload(1, "b", ("0a:00:00:00:09:0b", "10.99.0.11/24"), None)?;
        net.wait_converged()?;
        for (words, wanted) in [("--ethtype 802.1ad", [0x88, 0xa8]), ("--ethtype 802.1q", [0x81, 0x00])] {
            net.configure(&[&format!("switch-port set pub-net {words} --wait")])?;
            // To the other host, and to who is outside and says 802.1Q: both are taken.
            reach_cleanly(net.netns(a), Ipv4Addr::new(10, 99, 0, 11))?;
            reach_cleanly(net.netns(b), Ipv4Addr::new(10, 99, 0, 10))?;
            reach_cleanly(net.netns(a), OUTSIDE)?;
            let file = net.plan().dir.join("tags.pcap");
            let text = file.display().to_string();
            let capture = ["capture", "--at", "sent", "--port", "phys", "-w", &text, "--count", "5"];
            thread::scope(|scope| -> Result<()> {
                let captured = scope.spawn(|| net.host(0).control.text(&capture));
                for _ in 0..40 {
                    reach_cleanly(net.netns(a), OUTSIDE)?;
                    if captured.is_finished() {
                        break;
                    }
                }
                captured.join().map_err(|_| anyhow::anyhow!("the capture panicked"))?.map(drop)
            })?;
            let tags = tags_of(&std::fs::read(&file)?);
            ensure!(tags.len() == 5 && tags.iter().all(|tag| *tag == wanted), "{words}: {tags:02x?}");
        }
        let refused = net.control.attempt(&["switch-port", "set", "a", "--ethtype", "802.1ad"])?;
        ensure!(!refused.status.success() && refused.stderr.contains("tag_type"), "{}", refused.stderr);
        net.check_conservation()
    })
}
