//! What the network bounds and ends, with real packets: what packets may ask hosts for, how many connections are
//! remembered, which end with their backend; and what is logged and still a drop.

#![forbid(unsafe_code)]

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Result, ensure};
use ferroflow_tests::command;
use ferroflow_tests::probe::Outcome;
use ferroflow_tests::provider::{OUTSIDE, Provider, greeter, on_hosts, ping, reach, reach_cleanly};

const PROBE: &str = env!("CARGO_BIN_EXE_ff-probe");
const A: Ipv4Addr = Ipv4Addr::new(10, 0, 4, 1);
const B: Ipv4Addr = Ipv4Addr::new(10, 0, 4, 2);
const C: Ipv4Addr = Ipv4Addr::new(10, 0, 4, 3);

/// Workloads `a` and `c` on the first host, `b` on the second, behind a router.
fn three(net: &mut Provider) -> Result<[usize; 3]> {
    net.configure(&[
        "switch add lan",
        "switch-port add lan a --address 0a:00:00:00:04:01,10.0.4.1",
        "switch-port add lan b --address 0a:00:00:00:04:02,10.0.4.2",
        "switch-port add lan c --address 0a:00:00:00:04:03,10.0.4.3",
        "router add r",
        "router-port add r r-lan --mac 0a:00:00:00:04:fe --network 10.0.4.254/24",
        "switch-port add lan lan-r --router-port r-lan",
        "router-port add r r-far --mac 0a:00:00:00:05:fe --network 10.0.5.254/24",
    ])?;
    let gateway = Some("10.0.4.254");
    let a = net.workload(0, "a", ("0a:00:00:00:04:01", "10.0.4.1/24"), gateway)?;
    let b = net.workload(1, "b", ("0a:00:00:00:04:02", "10.0.4.2/24"), gateway)?;
    let c = net.workload(0, "c", ("0a:00:00:00:04:03", "10.0.4.3/24"), gateway)?;
    net.wait_converged()?;
    reach_cleanly(net.netns(a), B)?;
    reach(net.netns(c), B)?;
    Ok([a, b, c])
}

/// How many of 20 packets a workload is told have come to the end of their way.
fn n_expired(net: &Provider, from: usize) -> Result<usize> {
    let mut command = net.netns(from).command("ping");
    command.args(["-n", "-c", "20", "-i", "0.05", "-W", "1", "-t", "1", "10.0.5.9"]);
    let finished = command::run_regardless(&mut command, Duration::from_secs(20))?;
    Ok(finished.stdout.lines().filter(|line| line.contains("Time to live exceeded")).count())
}

#[test]
fn what_packets_ask_hosts_for_is_bounded_as_the_network_says() -> Result<()> {
    on_hosts(("what_packets_ask_hosts_for_is_bounded_as_the_network_says", PROBE), 2, |net| {
        let [a, ..] = three(net)?;
        let n_usual = n_expired(net, a)?;
        ensure!(n_usual == 20, "{n_usual} of 20 by the usual bounds");
        net.configure(&[
            "control-plane-limits add tight --limit icmp4-error=4/4",
            "router set r --limits tight --wait",
        ])?;
        // One port has a quarter of what a host has: a packet each second.
        let n_bounded = n_expired(net, a)?;
        ensure!((1..8).contains(&n_bounded), "{n_bounded} of 20 with a bound of 4 each second");
        // The bound is that of one class, and of one router.
        reach_cleanly(net.netns(a), Ipv4Addr::new(10, 0, 4, 254))?;
        let refused = net.control.attempt(&["control-plane-limits", "add", "odd", "--limit", "icmp=4"])?;
        ensure!(!refused.status.success() && refused.stderr.contains("icmp4-error"), "{}", refused.stderr);
        net.configure(&["router set r --limits= --wait"])?;
        let n_again = n_expired(net, a)?;
        ensure!(n_again == 20, "{n_again} of 20 without the bound");
        net.check_conservation()
    })
}

/// How many of 8 connections a workload gets. An attempt is one SYN.
fn n_connected(net: &Provider, from: usize, to: SocketAddrV4) -> Result<usize> {
    let probe = &net.plan().programs.probe;
    let outcomes = (0..8).map(|_| probe.connect(net.netns(from), to, Duration::from_millis(800)));
    let outcomes = outcomes.collect::<Result<Vec<_>>>()?;
    Ok(outcomes.into_iter().filter(|outcome| *outcome == Outcome::Connected).count())
}

/// How many connections a host remembers that an address takes part in.
fn n_known(net: &Provider, host: usize, address: &str) -> Result<usize> {
    let connections = net.host(host).control.text(&["ct", "dump"])?;
    Ok(connections.lines().filter(|line| line.contains(address)).count())
}

#[test]
fn a_workload_has_as_many_connections_as_the_network_says() -> Result<()> {
    on_hosts(("a_workload_has_as_many_connections_as_the_network_says", PROBE), 2, |net| {
        let [a, b, c] = three(net)?;
        let at = SocketAddrV4::new(B, 8080);
        let _server = greeter(net.plan(), net.netns(b), at, "b")?;
        // Of one switch, whose only ACL is about requests: answers come back all the same.
        net.configure(&[
            "acl add lan all --direction to-lport --priority 1 --match tcp.dst==8080 --action allow-related --wait",
        ])?;
        let n = n_connected(net, a, at)?;
        ensure!(n == 8, "{n} of 8 connections without a bound");
        // On its host, `b` is the only workload, so what is remembered is its own.
        let n_before = n_known(net, 1, "10.0.4.2")?;
        net.configure(&[&format!("switch set lan --ct-zone-limit {} --wait", n_before + 4)])?;
        let n = n_connected(net, c, at)?;
        ensure!(n == 4, "{n} of 8 connections where there is room for 4");
        let drops = net.host(1).control.text(&["drops"])?;
        ensure!(drops.contains("ct-limit"), "no drop has the name: {drops}");
        // A port may have a bound of its own; what is remembered stays.
        net.configure(&[
            "switch-port set b --ct-zone-limit 1000",
            "switch-port set c --ct-zone-limit 1000 --wait",
        ])?;
        let n = n_connected(net, c, at)?;
        ensure!(n == 8, "{n} of 8 connections by the bounds of the ports");
        net.configure(&[
            "switch-port set b --ct-zone-limit 0",
            "switch-port set c --ct-zone-limit 0 --wait",
        ])?;
        let n = n_connected(net, c, at)?;
        ensure!(n == 0, "{n} connections by the bound of the switch, which is exceeded");
        net.configure(&["switch set lan --ct-zone-limit 0 --wait"])?;
        let n = n_connected(net, c, at)?;
        ensure!(n == 8, "{n} of 8 connections without a bound again");
        net.check_conservation()
    })
}

#[test]
fn a_gateway_translates_as_many_connections_as_its_router_says() -> Result<()> {
    on_hosts(("a_gateway_translates_as_many_connections_as_its_router_says", PROBE), 3, |net| {
        let vm = net.with_gateway()?;
        net.configure(&["nat del r/float --wait"])?;
        let at = SocketAddrV4::new(OUTSIDE, 8080);
        let _server = greeter(net.plan(), &net.outside, at, "outside")?;
        reach(net.netns(vm), OUTSIDE)?;
        // What the gateway has translated so far is forgotten: the bound is for what comes now.
        net.host(0).control.text(&["ct", "flush", "--all"])?;
        net.configure(&["router set r --ct-zone-limit 3 --wait"])?;
        let n = n_connected(net, vm, at)?;
        ensure!(n == 3, "{n} of 8 connections where there may be 3");
        net.configure(&["router set r --ct-zone-limit 0 --wait"])?;
        let n = n_connected(net, vm, at)?;
        ensure!(n == 8, "{n} of 8 connections without a bound");
        net.check_conservation()
    })
}

#[test]
fn connections_end_with_their_backend_where_that_is_asked_for() -> Result<()> {
    on_hosts(("connections_end_with_their_backend_where_that_is_asked_for", PROBE), 2, |net| {
        let [a, b, c] = three(net)?;
        let backend = |ip: Ipv4Addr| SocketAddrV4::new(ip, 8080);
        let service = SocketAddrV4::new(Ipv4Addr::new(10, 96, 0, 1), 80);
        let _servers = [
            greeter(net.plan(), net.netns(b), backend(B), "b")?,
            greeter(net.plan(), net.netns(c), backend(C), "c")?,
        ];
        net.configure(&[
            "load-balancer add lb --vip 10.96.0.1:80=10.0.4.2:8080 --hairpin-snat 192.0.2.200",
            "switch set lan --load-balancer lb --wait",
        ])?;
        let probe = &net.plan().programs.probe;
        let known = |to: &str| -> Result<usize> {
            let connections = net.host(0).control.text(&["ct", "dump"])?;
            Ok(connections.lines().filter(|line| line.contains("10.96.0.1") && line.contains(to)).count())
        };
        let answers = probe.ask_servers(net.netns(a), service, 3)?;
        ensure!(answers == [(format!("b {A}"), 3)].into(), "{answers:?}");
        ensure!(known("10.0.4.2")? >= 3, "the host remembers {}", known("10.0.4.2")?);
        // A client that is its own backend is seen as the address that is set.
        let answers = probe.ask_servers(net.netns(b), service, 2)?;
        ensure!(answers == [("b 192.0.2.200".to_owned(), 2)].into(), "{answers:?}");
        // Without being asked for, what is there stays.
        let swap = |ip: Ipv4Addr| {
            net.configure(&[&format!("load-balancer set lb --vip 10.96.0.1:80={ip}:8080 --wait")])
        };
        swap(C)?;
        let answers = probe.ask_servers(net.netns(a), service, 3)?;
        ensure!(answers == [(format!("c {A}"), 3)].into(), "{answers:?}");
        ensure!(known("10.0.4.2")? >= 3, "connections to the first backend are gone");
        // With it, connections of a backend that goes end, and those of others do not.
        net.configure(&["load-balancer set lb --ct-flush --wait"])?;
        swap(B)?;
        ensure!(known("10.0.4.3")? == 0, "{} connections to the backend that is gone", known("10.0.4.3")?);
        ensure!(known("10.0.4.2")? >= 3, "connections to the other backend are gone, too");
        let answers = probe.ask_servers(net.netns(a), service, 3)?;
        ensure!(answers == [(format!("b {A}"), 3)].into(), "{answers:?}");
        net.configure(&["switch set lan --no-load-balancers --wait"])?;
        ensure!(known("10.0.4.2")? == 0, "connections to a service that is gone");
        net.check_conservation()
    })
}

#[test]
fn what_is_logged_and_dropped_is_a_drop() -> Result<()> {
    on_hosts(("what_is_logged_and_dropped_is_a_drop", PROBE), 2, |net| {
        let [a, ..] = three(net)?;
        net.configure(&[
            "acl add lan no --direction to-lport --priority 9 --match ip4.dst==10.0.4.2&&icmp4 --action drop \
             --log --log-name no-ping --wait",
        ])?;
        let (n, _) = ping(net.netns(a), B, 5)?;
        ensure!(n == 0, "{n} answers");
        let n_dropped = net.host(1).control.dropped_by("switches/lan/acls/no")?;
        ensure!(n_dropped == 5, "{n_dropped} of 5 are counted as dropped by the ACL");
        // What is logged and allowed is no drop.
        net.configure(&["acl set lan/no --action allow --wait"])?;
        reach_cleanly(net.netns(a), B)?;
        let n_dropped = net.host(1).control.dropped_by("switches/lan/acls/no")?;
        ensure!(n_dropped == 5, "{n_dropped} drops");
        net.check_conservation()
    })
}
