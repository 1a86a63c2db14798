//! What routers do for workloads, with real TCP and real programs: load balancing, floating addresses, hidden
//! sources, neighbours that nobody has configured, and a traceroute.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ferroflow_tests::daemon::{Daemon, has_command};
use ferroflow_tests::fabric::Fabric;
use ferroflow_tests::netns::{self, End, Netns};
use ferroflow_tests::provider::greeter;
use ferroflow_tests::{checks, command, say, scenario, stop};

const PROBE: &str = env!("CARGO_BIN_EXE_ff-probe");
const SERVICE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 96, 0, 1), 80);

/// A server in a workload that says its name.
fn server(fabric: &Fabric, netns: &Netns, at: SocketAddrV4, name: &str) -> Result<Daemon> {
    greeter(fabric.plan(), netns, at, name)
}

fn servers(fabric: &Fabric, names: &[&str], port: u16) -> Result<Vec<Daemon>> {
    names
        .iter()
        .map(|name| {
            let workload = fabric.workload(name)?;
            server(fabric, &workload.netns, workload.tcp(port), name)
        })
        .collect()
}

/// How often which server answered a workload.
fn ask(fabric: &Fabric, from: &str, to: SocketAddrV4, n: u64) -> Result<BTreeMap<String, u64>> {
    fabric.plan().programs.probe.ask_servers(&fabric.workload(from)?.netns, to, n)
}

#[test]
fn a_load_balancer_spreads_and_connections_stay() -> Result<()> {
    scenario::on_fabric("a_load_balancer_spreads_and_connections_stay", PROBE, |fabric| {
        let _servers = servers(fabric, &["db-1", "db-2"], 8080)?;
        let control = &fabric.control;
        let both = format!("{SERVICE}=10.0.2.11:8080,10.0.2.12:8080");
        control.text(&["load-balancer", "add", "lb", "--vip", &both])?;
        control.text(&["router", "set", "r1", "--load-balancer", "lb", "--wait"])?;
        let answers = ask(fabric, "web-1", SERVICE, 40)?;
        let of = |name: &str| answers.get(&format!("{name} 10.0.1.11")).copied().unwrap_or(0);
        ensure!(of("db-1") + of("db-2") == 40, "the servers see the client as it is: {answers:?}");
        ensure!(of("db-1") >= 5 && of("db-2") >= 5, "shares of 40: {answers:?}");
        // By the client's address alone each has its server.
        control.text(&["load-balancer", "set", "lb", "--hash", "ip-src", "--wait"])?;
        ensure!(ask(fabric, "web-1", SERVICE, 20)?.len() == 1, "one client has two servers");
        control.text(&["load-balancer", "set", "lb", "--no-hash", "--wait"])?;
        // Both at once: one connection stays while the list loses its server, or does not.
        let probe = &fabric.plan().programs.probe;
        let client = &fabric.workload("web-2")?.netns;
        thread::scope(|scope| -> Result<()> {
            let stays: Vec<_> = (0..6)
                .map(|_| scope.spawn(|| probe.stay_at_server(client, SERVICE, Duration::from_secs(4))))
                .collect();
            thread::sleep(Duration::from_secs(1));
            let one = format!("{SERVICE}=10.0.2.12:8080");
            control.text(&["load-balancer", "set", "lb", "--vip", &one, "--wait"])?;
            let new = ask(fabric, "web-1", SERVICE, 10)?;
            ensure!(new.keys().collect::<Vec<_>>() == ["db-2 10.0.1.11"], "new connections: {new:?}");
            for stay in stays {
                let answers = stay.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
                ensure!(answers.len() == 1, "a connection moved: {answers:?}");
            }
            Ok(())
        })?;
        // By a group it is the same service; out of the group there is none.
        control.text(&["load-balancer-group", "add", "lg"])?;
        let by_group = ["--no-load-balancers", "--load-balancer-group", "lg", "--wait"];
        control.text(&[&["router", "set", "r1"][..], &by_group].concat())?;
        ensure!(ask(fabric, "web-1", SERVICE, 1).is_err(), "the group is empty");
        control.text(&["load-balancer-group", "set", "lg", "--add", "lb", "--wait"])?;
        ensure!(ask(fabric, "web-1", SERVICE, 5)?.values().sum::<u64>() == 5);
        // Nobody is left: the drop is the load balancer's.
        let vip = format!("{SERVICE}=");
        control.text(&["load-balancer", "set", "lb", "--vip", &vip, "--wait"])?;
        ensure!(ask(fabric, "web-1", SERVICE, 1).is_err(), "somebody answers for nobody");
        let n_dropped = fabric.host(0).control.dropped_by("load-balancers/lb")?;
        ensure!(n_dropped > 0, "no drop names the load balancer");
        // The host tells of it when it is to.
        control.text(&["load-balancer", "set", "lb", "--event", "--wait"])?;
        ensure!(ask(fabric, "web-1", SERVICE, 1).is_err(), "somebody answers for nobody");
        stop::wait_for("the host tells of it", Duration::from_secs(5), || {
            let log = std::fs::read_to_string(fabric.plan().dir.join("h1.log")).context("the host's log")?;
            let told = format!("load-balancers/lb {SERVICE}");
            Ok(if log.contains(&told) { Ok(()) } else { Err(log) })
        })?;
        control.text(&["load-balancer", "set", "lb", "--reject", "--wait"])?;
        let outcome = probe.connect(&fabric.workload("web-1")?.netns, SERVICE, Duration::from_secs(3))?;
        ensure!(outcome == ferroflow_tests::probe::Outcome::Refused, "{outcome:?}");
        checks::conservation(fabric).map(drop)
    })
}

#[test]
fn a_service_is_another_one_on_each_host() -> Result<()> {
    scenario::on_fabric("a_service_is_another_one_on_each_host", PROBE, |fabric| {
        let _servers = servers(fabric, &["db-1", "db-2"], 8080)?;
        fabric.control.configure(
            "template-variable add node --value h1=10.96.0.1 --value h2=10.96.0.2
             template-variable add near --value h1=10.0.2.11:8080 --value h2=10.0.2.12:8080
             load-balancer add lb --template ^node:80=^near --reject
             router set r1 --load-balancer lb",
        )?;
        let at = |last: u8| SocketAddrV4::new(Ipv4Addr::new(10, 96, 0, last), 80);
        let asked = |from: &str, last: u8| -> Result<Vec<String>> {
            Ok(ask(fabric, from, at(last), 5)?.into_keys().collect())
        };
        // Each host has an address of its own for the service, and its own backend.
        ensure!(asked("web-1", 1)? == ["db-1 10.0.1.11"]);
        ensure!(asked("web-2", 2)? == ["db-2 10.0.1.12"]);
        ensure!(asked("web-1", 2).is_err() && asked("web-2", 1).is_err(), "the other host's address");
        // A change of values concerns the host that they are for; and where none is left, clients are told.
        fabric
            .control
            .configure("template-variable set near --value h1=10.0.2.11:8080,10.0.2.12:8080 --no-value h2")?;
        let both = ask(fabric, "web-1", at(1), 40)?;
        ensure!(both.len() == 2 && both.values().all(|n| *n >= 5), "shares of 40: {both:?}");
        let (probe, client) = (&fabric.plan().programs.probe, &fabric.workload("web-2")?.netns);
        let outcome = probe.connect(client, at(2), Duration::from_secs(3))?;
        ensure!(outcome == ferroflow_tests::probe::Outcome::Refused, "{outcome:?}");
        // A match is what the variable is on the packet's host.
        fabric.control.configure(
            "acl add web x --direction from-lport --priority 10 --match 'ip4.src == 10.0.1.0/24 && ip4.dst == ^node' \
                 --action drop",
        )?;
        ensure!(asked("web-1", 1).is_err(), "an ACL forbids it");
        ensure!(fabric.host(0).control.dropped_by("switches/web/acls/x")? > 0, "no drop names the ACL");
        // What somebody names stays.
        let error = fabric.control.attempt(&["template-variable", "del", "node"])?;
        ensure!(!error.status.success(), "a variable went that an ACL names");
        checks::conservation(fabric).map(drop)
    })
}

#[test]
fn other_routers_have_a_way_to_what_a_router_offers() -> Result<()> {
    scenario::on_fabric("other_routers_have_a_way_to_what_a_router_offers", PROBE, |fabric| {
        let _servers = servers(fabric, &["db-1", "db-2"], 8080)?;
        fabric.control.configure(
            "switch add join
             router-port add r1 r1-join --mac 0a:00:00:00:04:01 --network 100.64.0.1/24
             switch-port add join join-r1 --router-port r1-join
             router add edge --chassis h1 --dnat-force-snat 100.64.0.2 --lb-force-snat 100.64.0.2 \
                 --route '10.0.0.0/16 via 100.64.0.1'
             router-port add edge edge-join --mac 0a:00:00:00:04:02 --network 100.64.0.2/24
             switch-port add join join-edge --router-port edge-join
             nat add edge in --type dnat --external 203.0.113.5 --logical 10.0.2.11
             load-balancer add lb --vip 203.0.113.80:80=10.0.2.12:8080
             router set edge --load-balancer lb",
        )?;
        let translated = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 5), 8080);
        let service = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 80), 80);
        for (to, offer, server) in [
            (translated, "nat set edge/in --add-route", "db-1 100.64.0.2"),
            (service, "load-balancer set lb --add-route", "db-2 100.64.0.2"),
        ] {
            ensure!(ask(fabric, "web-1", to, 1).is_err(), "there is a way to {to} that nobody has offered");
            fabric.control.configure(offer)?;
            // From its own host, and from another one.
            for from in ["web-1", "web-2"] {
                let answers = ask(fabric, from, to, 3)?;
                ensure!(answers.keys().collect::<Vec<_>>() == [server], "{from} to {to}: {answers:?}");
            }
        }
        checks::conservation(fabric).map(drop)
    })
}

#[test]
fn a_floating_address_is_a_workload_on_another_host() -> Result<()> {
    scenario::on_fabric("a_floating_address_is_a_workload_on_another_host", PROBE, |fabric| {
        let _servers = servers(fabric, &["db-2", "web-1"], 8080)?;
        let nat = "nat add r1 fip --type dnat-and-snat --external 10.0.1.100 --logical 10.0.2.12 --stateless --wait";
        fabric.control.text(&nat.split(' ').collect::<Vec<_>>())?;
        let floating = SocketAddrV4::new(Ipv4Addr::new(10, 0, 1, 100), 8080);
        let answers = ask(fabric, "web-1", floating, 5)?;
        ensure!(answers == [("db-2 10.0.1.11".to_owned(), 5)].into(), "{answers:?}");
        // And the other way: the workload is seen with its floating address.
        let web = fabric.workload("web-1")?.tcp(8080);
        let answers = ask(fabric, "db-2", web, 5)?;
        ensure!(answers == [("web-1 10.0.1.100".to_owned(), 5)].into(), "{answers:?}");
        checks::conservation(fabric).map(drop)
    })
}

/// An outside network behind an interface of host `h1`, and the router pinned there.
fn outside(fabric: &Fabric) -> Result<Netns> {
    let outside = Netns::create(&format!("{}-out", fabric.plan().prefix))?;
    netns::link(
        End { address: Some("203.0.113.9/24"), ..End::new(&outside, "eth0") },
        End::new(fabric.host_netns(0), "ext0"),
        1400,
    )?;
    let control = &fabric.control;
    for words in [
        "switch add ext",
        "router-port add r1 r1-ext --mac 0a:00:00:00:03:01 --network 203.0.113.1/24",
        "switch-port add ext ext-to-r1 --router-port r1-ext",
        "switch-port add ext ext-out --address unknown",
        "router set r1 --chassis h1",
        "nat add r1 out --type snat --external 203.0.113.1 --logical 10.0.0.0/16",
        "nat add r1 in --type dnat --external 203.0.113.80 --logical 10.0.2.12 --wait",
    ] {
        control.text(&words.split(' ').collect::<Vec<_>>()).with_context(|| words.to_owned())?;
    }
    fabric.host(0).control.add_port("ext0", "ext-out")?;
    Ok(outside)
}

#[test]
fn workloads_reach_the_outside_and_are_reached() -> Result<()> {
    scenario::on_fabric("workloads_reach_the_outside_and_are_reached", PROBE, |fabric| {
        let outside = outside(fabric)?;
        let _inside = servers(fabric, &["db-2"], 8080)?;
        let at = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 9), 8080);
        let _server = server(fabric, &outside, at, "outside")?;
        let seen: BTreeMap<String, u64> = [("outside 203.0.113.1".to_owned(), 3)].into();
        for from in ["web-1", "web-2", "db-2"] {
            // The router asks the outside's kernel for its address, and the first packets wait.
            stop::wait_for(&format!("{from} reaches the outside"), Duration::from_secs(15), || {
                Ok(ask(fabric, from, at, 1).map(drop).map_err(|error| format!("{error:#}")))
            })?;
            let answers = ask(fabric, from, at, 3)?;
            ensure!(answers == seen, "{from}: {answers:?}");
        }
        let probe = &fabric.plan().programs.probe;
        let published = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 80), 8080);
        let answers = probe.ask_servers(&outside, published, 3)?;
        ensure!(answers == [("db-2 203.0.113.9".to_owned(), 3)].into(), "{answers:?}");
        checks::conservation(fabric).map(drop)
    })
}

#[test]
fn sources_are_hidden_from_some_peers_behind_some_ports() -> Result<()> {
    scenario::on_fabric("sources_are_hidden_from_some_peers_behind_some_ports", PROBE, |fabric| {
        let outside = outside(fabric)?;
        outside.ip(&["route", "add", "10.0.0.0/16", "via", "203.0.113.1"])?;
        outside.ip(&["addr", "add", "203.0.113.10/24", "dev", "eth0"])?;
        let at = |last| SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, last), 8080);
        let _servers = [server(fabric, &outside, at(9), "nine")?, server(fabric, &outside, at(10), "ten")?];
        stop::wait_for("web-1 reaches the outside", Duration::from_secs(15), || {
            Ok(ask(fabric, "web-1", at(9), 1).map(drop).map_err(|error| format!("{error:#}")))
        })?;
        let seen = |last| -> Result<String> {
            let answers = ask(fabric, "web-1", at(last), 2)?;
            ensure!(answers.len() == 1, "{answers:?}");
            Ok(answers.into_keys().next().unwrap_or_default())
        };
        fabric.control.configure("nat set r1/out --ports 40000-40009")?;
        ensure!(seen(9)? == "nine 203.0.113.1" && seen(10)? == "ten 203.0.113.1", "hidden from both");
        // The tracker says which ports were chosen.
        let dump = fabric.host(0).control.text(&["ct", "dump"])?;
        let is_chosen = |line: &&str| line.contains("dst=203.0.113.10,") && line.contains("dst=203.0.113.1,");
        let chosen: Vec<_> = dump.lines().filter(is_chosen).collect();
        ensure!(!chosen.is_empty(), "{dump}");
        ensure!(chosen.iter().all(|line| line.contains("sport=8080,dport=4000")), "{chosen:?}");
        fabric.control.configure("nat set r1/out --exempt 203.0.113.10")?;
        ensure!(seen(9)? == "nine 203.0.113.1" && seen(10)? == "ten 10.0.1.11", "hidden from the first");
        fabric.control.configure(
            "nat del r1/out
             nat add r1 out --type snat --external 203.0.113.1 --logical 10.0.0.0/16 --allow 203.0.113.10",
        )?;
        ensure!(seen(9)? == "nine 10.0.1.11" && seen(10)? == "ten 203.0.113.1", "hidden from the second");
        checks::conservation(fabric).map(drop)
    })
}

#[test]
fn policies_and_discards_overrule_the_way() -> Result<()> {
    scenario::on_fabric("policies_and_discards_overrule_the_way", PROBE, |fabric| {
        let _servers = servers(fabric, &["db-1", "db-2"], 8080)?;
        let db = |last| SocketAddrV4::new(Ipv4Addr::new(10, 0, 2, last), 8080);
        let probe = &fabric.plan().programs.probe;
        let connects = |from: &str, last| -> Result<bool> {
            let netns = &fabric.workload(from)?.netns;
            let outcome = probe.connect(netns, db(last), Duration::from_millis(1500))?;
            Ok(outcome == ferroflow_tests::probe::Outcome::Connected)
        };
        fabric.control.configure(
            "router-policy add r1 shut --priority 10 --match 'ip4.dst == 10.0.2.11 && tcp' --action drop
             router-policy add r1 open --priority 20 --match 'ip4.src == 10.0.1.12' --action allow",
        )?;
        ensure!(!connects("web-1", 11)?, "the policy drops it");
        ensure!(connects("web-1", 12)? && connects("web-2", 11)?, "the policy is for others");
        ensure!(
            fabric.host(0).control.dropped_by("routers/r1/policies/shut")? > 0,
            "no drop names the policy"
        );
        // Another way: to a next hop that is not the destination, which forwards it.
        let detour = fabric.workload("db-1")?;
        detour.netns.set_sysctls(&[
            ("net.ipv4.ip_forward", "1"),
            ("net.ipv4.conf.all.send_redirects", "0"),
            ("net.ipv4.conf.eth0.send_redirects", "0"),
        ])?;
        fabric.control.configure(
            "router-policy del r1/shut
             router-policy del r1/open
             switch-port set db-1 --no-port-security
             router-policy add r1 detour --priority 10 --match 'ip4.dst == 10.0.2.12' --action reroute --next-hop 10.0.2.11",
        )?;
        let forwarded = || -> Result<u64> {
            let text =
                command::output(detour.netns.command("cat").arg("/proc/net/snmp"), Duration::from_secs(5))?;
            let values =
                text.lines().filter(|line| line.starts_with("Ip: ")).nth(1).context("no counters")?;
            Ok(values.split(' ').nth(6).context("no counter")?.parse()?)
        };
        let before = forwarded()?;
        ensure!(connects("web-1", 12)?, "by the detour");
        ensure!(forwarded()? > before, "the next hop has forwarded nothing");
        fabric.control.configure("router-policy del r1/detour")?;
        fabric.control.text(&["router", "set", "r1", "--route", "10.0.2.12/32 discard", "--wait"])?;
        ensure!(!connects("web-1", 12)? && connects("web-1", 11)?, "the route discards it");
        // By who sends, and not to whom.
        fabric.control.text(&["router", "set", "r1", "--route", "from 10.0.1.11/32 discard", "--wait"])?;
        ensure!(!connects("web-1", 11)? && connects("web-2", 11)?, "the route is for what another one sends");
        // What a policy has marked is known by that on the host.
        fabric.control.configure(
            "router set r1 --no-routes
             router-policy add r1 mark --priority 5 --match 'ip4.src == 10.0.1.11' --action allow --pkt-mark 7
             acl add db marked --direction to-lport --priority 10 --match 'pkt.mark == 7' --action drop",
        )?;
        ensure!(!connects("web-1", 11)? && connects("web-2", 12)?, "the mark is of other packets");
        fabric.control.configure("router-policy set r1/mark --pkt-mark 8")?;
        ensure!(connects("web-1", 11)?, "it is another mark");
        checks::conservation(fabric).map(drop)
    })
}

#[test]
fn a_traceroute_passes_two_routers() -> Result<()> {
    if !has_command("traceroute") {
        say("SKIPPED a_traceroute_passes_two_routers: there is no `traceroute`; apt-get install traceroute");
        return Ok(());
    }
    scenario::on_fabric("a_traceroute_passes_two_routers", PROBE, |fabric| {
        let control = &fabric.control;
        for words in [
            "switch add join",
            "router-port add r1 r1-join --mac 0a:00:00:00:05:01 --network 10.0.5.1/24",
            "switch-port add join join-to-r1 --router-port r1-join",
            "router add r2",
            "router-port add r2 r2-join --mac 0a:00:00:00:05:02 --network 10.0.5.2/24",
            "switch-port add join join-to-r2 --router-port r2-join",
            "switch add far",
            "router-port add r2 r2-far --mac 0a:00:00:00:06:01 --network 10.0.6.1/24",
            "switch-port add far far-to-r2 --router-port r2-far",
        ] {
            control.text(&words.split(' ').collect::<Vec<_>>()).with_context(|| words.to_owned())?;
        }
        control.text(&["router", "set", "r1", "--route", "10.0.6.0/24 via 10.0.5.2"])?;
        control.text(&["router", "set", "r2", "--route", "10.0.1.0/24 via 10.0.5.1", "--wait"])?;
        let workload = fabric.workload("web-2")?;
        let mut trace = workload.netns.command("traceroute");
        trace.args(["-n", "-q", "1", "-w", "3", "-m", "5", "10.0.6.1"]);
        let text = command::output(&mut trace, Duration::from_secs(40))?;
        let hops: Vec<&str> =
            text.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)).collect();
        ensure!(hops == ["10.0.1.1", "10.0.6.1"], "{text}");
        // Nowhere: the first router says so.
        let mut trace = workload.netns.command("traceroute");
        trace.args(["-n", "-q", "1", "-w", "3", "-m", "3", "192.0.2.77"]);
        let text = command::output(&mut trace, Duration::from_secs(40))?;
        ensure!(text.contains("10.0.1.1") && text.contains("!N"), "{text}");
        checks::conservation(fabric).map(drop)
    })
}

#[test]
fn a_router_port_is_told_who_has_an_address() -> Result<()> {
    scenario::on_fabric("a_router_port_is_told_who_has_an_address", PROBE, |fabric| {
        // Two who have another address on the network, one on each host, and do not answer ARP questions.
        for (workload, address) in [("db-1", "10.0.2.77/24"), ("db-2", "10.0.2.78/24")] {
            let netns = &fabric.workload(workload)?.netns;
            netns.ip(&["addr", "add", address, "dev", "eth0"])?;
            let gateway_mac = fabric.workload(workload)?.plan.gateway_mac;
            netns.ip(&[
                "neigh",
                "replace",
                "10.0.2.1",
                "lladdr",
                gateway_mac,
                "dev",
                "eth0",
                "nud",
                "permanent",
            ])?;
            netns.set_sysctls(&[("net.ipv4.conf.eth0.arp_ignore", "8")])?;
        }
        fabric.control.configure(
            "switch-port set db-1 --address '0a:00:00:00:02:0b 10.0.2.11' --address unknown --no-port-security
             switch-port set db-2 --address '0a:00:00:00:02:0c 10.0.2.12' --address unknown --no-port-security",
        )?;
        let probe = &fabric.plan().programs.probe;
        let answers = |to: [u8; 4], n: u64| -> Result<u64> {
            Ok(probe.ping(&fabric.workload("web-1")?.netns, to.into(), n, 56)?.n_received)
        };
        let (near, far) = ([10, 0, 2, 77], [10, 0, 2, 78]);
        ensure!(answers(near, 1)? + answers(far, 1)? == 0, "somebody answers for them");
        let (near_mac, far_mac) = ("0a:00:00:00:02:0b", "0a:00:00:00:02:0c");
        let told = |near: &str, far: &str| {
            let line =
                format!("router-port set r1-db --static-mac 10.0.2.77={near} --static-mac 10.0.2.78={far}");
            fabric.control.configure(&line)
        };
        told(near_mac, &format!("{far_mac},override"))?;
        ensure!(answers(near, 5)? == 5, "the one on this host");
        ensure!(answers(far, 5)? == 5, "the one on the other host");
        // The one on this host is heard of; that goes before what is told, unless what is told overrides it.
        fabric.workload("db-1")?.netns.set_sysctls(&[("net.ipv4.conf.eth0.arp_ignore", "0")])?;
        fabric.control.configure("router-port set r1-db --no-static-macs")?;
        ensure!(answers(near, 3)? == 3, "asked for, it answers");
        let nobody = "0a:00:00:00:0b:ad";
        told(nobody, far_mac)?;
        ensure!(answers(near, 3)? == 3, "what is heard goes before what is told");
        told(&format!("{nobody},override"), far_mac)?;
        ensure!(answers(near, 1)? == 0, "what is told goes before what is heard");
        ensure!(answers(far, 3)? == 3, "nobody has heard of the other one");
        checks::conservation(fabric).map(drop)
    })
}

/// Waits until the controller knows this of the two servers.
fn health(fabric: &Fabric, wanted: [&str; 2]) -> Result<()> {
    stop::wait_for(&format!("backends to be {wanted:?}"), Duration::from_secs(15), || {
        let shown = fabric.control.text(&["load-balancer", "show", "lb"])?;
        let mut lines = ["10.0.2.11:8080", "10.0.2.12:8080"].iter().zip(wanted);
        let is_it = lines.all(|(backend, state)| shown.contains(&format!("{backend} {state}\n")));
        Ok(if is_it { Ok(()) } else { Err(shown) })
    })
}

/// Waits until just these servers get new connections: hosts are told a moment after the controller knows.
fn served_by(fabric: &Fabric, wanted: &[&str]) -> Result<()> {
    let expected: Vec<_> = wanted.iter().map(|name| format!("{name} 10.0.1.11")).collect();
    stop::wait_for(&format!("{wanted:?} to serve"), Duration::from_secs(15), || {
        Ok(match ask(fabric, "web-1", SERVICE, 20) {
            Ok(answers) if answers.keys().eq(&expected) => Ok(()),
            answers => Err(format!("{answers:?}")),
        })
    })
}

#[test]
fn backends_that_do_not_serve_get_no_connections() -> Result<()> {
    scenario::on_fabric("backends_that_do_not_serve_get_no_connections", PROBE, |fabric| {
        // A policy that lets nobody else in, nor backends out, is no hindrance to their hosts.
        fabric.control.configure(&format!(
            "acl add db clients --direction to-lport --priority 10 --match 'ip4.src == 10.0.1.0/24' --action allow-related
             switch set db --default drop
             load-balancer add lb --vip {SERVICE}=10.0.2.11:8080,10.0.2.12:8080 --reject --check 1/1/2/2 \
                 --probe 10.0.2.11=db-1@10.0.2.250 --probe 10.0.2.12=db-2@10.0.2.251
             router set r1 --load-balancer lb"
        ))?;
        health(fabric, ["offline", "offline"])?;
        ensure!(ask(fabric, "web-1", SERVICE, 1).is_err(), "nobody serves");
        let mut servers = servers(fabric, &["db-1", "db-2"], 8080)?;
        health(fabric, ["online", "online"])?;
        served_by(fabric, &["db-1", "db-2"])?;
        // One dies: its host finds out, and new connections from either host go to the other.
        servers.remove(0).kill()?;
        health(fabric, ["offline", "online"])?;
        served_by(fabric, &["db-2"])?;
        // It comes back, also without a controller for a while.
        fabric.controller().context("no controller")?.kill()?;
        servers.push(server(
            fabric,
            &fabric.workload("db-1")?.netns,
            fabric.workload("db-1")?.tcp(8080),
            "db-1",
        )?);
        fabric.start_controller()?;
        health(fabric, ["online", "online"])?;
        served_by(fabric, &["db-1", "db-2"])?;
        // What nobody checks is as it was written.
        fabric.control.configure("load-balancer set lb --no-check")?;
        let shown = fabric.control.text(&["load-balancer", "show", "lb"])?;
        ensure!(!shown.contains("8080 online"), "{shown}");
        served_by(fabric, &["db-1", "db-2"])?;
        checks::conservation(fabric).map(drop)
    })
}

#[test]
fn hosts_ask_workloads_whether_they_live() -> Result<()> {
    scenario::on_fabric("hosts_ask_workloads_whether_they_live", PROBE, |fabric| {
        // A policy that lets nobody in is no hindrance to their host.
        fabric.control.configure(
            "switch set db --default drop
             switch-port set db-1 --check icmp:10.0.2.11@10.0.2.250,1/1/2/2 \
                 --check tcp:10.0.2.11:8080@10.0.2.250,1/1/2/2 --check udp:10.0.2.11:5353@10.0.2.251,2/1/2/2",
        )?;
        let is_known = |wanted: [&str; 3]| {
            stop::wait_for(&format!("the workload to be {wanted:?}"), Duration::from_secs(20), || {
                let shown = fabric.control.text(&["switch-port", "show", "db-1"])?;
                let asked = ["icmp 10.0.2.11", "tcp 10.0.2.11:8080", "udp 10.0.2.11:5353"];
                let mut lines = asked.iter().zip(wanted);
                let is_it = lines.all(|(asked, state)| shown.contains(&format!("{asked} {state}\n")));
                Ok(if is_it { Ok(()) } else { Err(shown) })
            })
        };
        is_known(["online", "offline", "offline"])?;
        let workload = fabric.workload("db-1")?;
        let _server = server(fabric, &workload.netns, workload.tcp(8080), "db-1")?;
        is_known(["online", "online", "offline"])?;
        workload.netns.set_sysctls(&[("net.ipv4.icmp_echo_ignore_all", "1")])?;
        is_known(["offline", "online", "offline"])?;
        workload.netns.set_sysctls(&[("net.ipv4.icmp_echo_ignore_all", "0")])?;
        is_known(["online", "online", "offline"])?;
        fabric.control.configure("switch-port set db-1 --no-checks")?;
        let shown = fabric.control.text(&["switch-port", "show", "db-1"])?;
        ensure!(!shown.contains("10.0.2.250") && !shown.contains("health"), "{shown}");
        checks::conservation(fabric).map(drop)
    })
}

#[test]
fn a_client_that_comes_back_in_time_keeps_its_backend() -> Result<()> {
    scenario::on_fabric("a_client_that_comes_back_in_time_keeps_its_backend", PROBE, |fabric| {
        let _servers = servers(fabric, &["db-1", "db-2"], 8080)?;
        fabric.control.configure(&format!(
            "load-balancer add lb --vip {SERVICE}=10.0.2.11:8080,10.0.2.12:8080 --affinity 4
             router set r1 --load-balancer lb"
        ))?;
        let server_of = |from: &str| -> Result<String> {
            // What is remembered of the first connection is in force a moment later.
            let first = ask(fabric, from, SERVICE, 1)?;
            thread::sleep(Duration::from_secs(1));
            let others = ask(fabric, from, SERVICE, 12)?;
            ensure!(first.keys().eq(others.keys()), "{from} had {first:?}, then {others:?}");
            let name = first.into_keys().next().context("no answer")?;
            Ok(name.split(' ').next().unwrap_or_default().to_owned())
        };
        server_of("web-2")?;
        let first = server_of("web-1")?;
        // When it stays away for longer, it is spread like anybody.
        let mut n_tries = 0;
        loop {
            thread::sleep(Duration::from_secs(6));
            if server_of("web-1")? != first {
                break;
            }
            n_tries += 1;
            ensure!(n_tries < 12, "it always gets {first}");
        }
        // A backend that gets no new connections gets none of its clients either.
        fabric.control.configure("load-balancer set lb --affinity 600")?;
        let kept = server_of("web-1")?;
        ensure!(server_of("web-1")? == kept, "it had {kept}");
        let (vips, other) = match kept.as_str() {
            "db-1" => ("-10.0.2.11:8080,10.0.2.12:8080", "db-2"),
            _ => ("10.0.2.11:8080,-10.0.2.12:8080", "db-1"),
        };
        fabric.control.configure(&format!("load-balancer set lb --vip {SERVICE}={vips}"))?;
        ensure!(server_of("web-1")? == other, "{kept} is offline");
        checks::conservation(fabric).map(drop)
    })
}

#[test]
fn ports_choose_their_routes_and_policies_lead_to_others() -> Result<()> {
    scenario::on_fabric("ports_choose_their_routes_and_policies_lead_to_others", PROBE, |fabric| {
        // Both servers have the same address behind their own.
        let far = Ipv4Addr::new(198, 51, 100, 9);
        let mut daemons = Vec::new();
        for name in ["db-1", "db-2"] {
            let workload = fabric.workload(name)?;
            workload.netns.ip(&["addr", "add", "198.51.100.9/32", "dev", "lo"])?;
            // Routers answer questions from their own network.
            workload.netns.set_sysctls(&[("net.ipv4.conf.all.arp_announce", "2")])?;
            fabric.control.configure(&format!("switch-port set {name} --no-port-security"))?;
            for port in [8080, 8081] {
                daemons.push(server(fabric, &workload.netns, SocketAddrV4::new(far, port), name)?);
            }
        }
        let who = |port: u16, n: u64| -> Result<Vec<String>> {
            let answers = ask(fabric, "web-1", SocketAddrV4::new(far, port), n);
            let answers = answers.with_context(|| {
                let drops = [0, 1].map(|host| fabric.host(host).control.text(&["drops"]).unwrap_or_default());
                format!("port {port}: {}", drops.join("\n"))
            })?;
            Ok(answers.into_keys().map(|who| who.split(' ').next().unwrap_or_default().to_owned()).collect())
        };
        fabric.control.configure(
            "router set r1 --route '198.51.100.0/24 via 10.0.2.11' --route '198.51.100.0/24 via 10.0.2.12 table red'",
        )?;
        ensure!(who(8080, 6)? == ["db-1"], "routes without a name: {:?}", who(8080, 6)?);
        fabric.control.configure("router-port set r1-web --route-table red")?;
        ensure!(who(8080, 6)? == ["db-2"], "routes of the port: {:?}", who(8080, 6)?);
        fabric.control.configure(
            "router-policy add r1 jump --priority 5 --match 'tcp.dst == 8081' --action jump --jump-chain web
             router-policy add r1 back --priority 1 --match ip4 --action reroute --next-hop 10.0.2.11 \\
                 --output-port r1-db --chain web",
        )?;
        ensure!(who(8081, 6)? == ["db-1"], "a policy of the chain: {:?}", who(8081, 6)?);
        ensure!(who(8080, 6)? == ["db-2"], "who does not jump: {:?}", who(8080, 6)?);
        fabric.control.configure("router-policy set r1/back --match udp")?;
        ensure!(who(8081, 6)? == ["db-2"], "no policy of the chain matches: {:?}", who(8081, 6)?);
        // Several next hops share what a policy sends them.
        fabric
            .control
            .configure("router-policy set r1/back --match tcp --next-hop 10.0.2.11 --next-hop 10.0.2.12")?;
        ensure!(who(8081, 40)? == ["db-1", "db-2"], "next hops of a policy: {:?}", who(8081, 40)?);
        fabric.control.configure("router-policy set r1/back --match udp")?;
        // Several routes: by all of the connection, then by the client's address alone.
        let both = "--route '198.51.100.0/24 via 10.0.2.11 table red' --route";
        fabric
            .control
            .configure(&format!("router set r1 {both} '198.51.100.0/24 via 10.0.2.12 table red'"))?;
        ensure!(who(8080, 40)? == ["db-1", "db-2"], "shared: {:?}", who(8080, 40)?);
        fabric.control.configure(&format!(
            "router set r1 {both} '198.51.100.0/24 via 10.0.2.12 table red hash ip-src'"
        ))?;
        ensure!(who(8080, 40)?.len() == 1, "by the client: {:?}", who(8080, 40)?);
        checks::conservation(fabric).map(drop)
    })
}

#[test]
fn servers_see_the_router_or_the_client() -> Result<()> {
    scenario::on_fabric("servers_see_the_router_or_the_client", PROBE, |fabric| {
        let _servers = servers(fabric, &["db-1", "db-2"], 8080)?;
        fabric.control.configure(&format!(
            "router set r1 --chassis h1 --lb-force-snat 10.0.2.1 --dnat-force-snat 10.0.2.250
             nat add r1 in --type dnat --external 10.0.1.80 --logical 10.0.2.12
             load-balancer add lb --vip {SERVICE}=10.0.2.11:8080,10.0.2.12:8080
             router set r1 --load-balancer lb"
        ))?;
        let seen = |to: SocketAddrV4| -> Result<Vec<String>> {
            let answers = ask(fabric, "web-1", to, 20)?;
            ensure!(answers.values().sum::<u64>() == 20, "{answers:?}");
            Ok(answers.into_keys().collect())
        };
        let found = seen(SERVICE)?;
        ensure!(found == ["db-1 10.0.2.1", "db-2 10.0.2.1"], "the router for the client: {found:?}");
        let found = seen(SocketAddrV4::new(Ipv4Addr::new(10, 0, 1, 80), 8080))?;
        ensure!(found == ["db-2 10.0.2.250"], "behind a translated destination: {found:?}");
        fabric.control.configure("load-balancer set lb --skip-snat")?;
        let found = seen(SERVICE)?;
        ensure!(found == ["db-1 10.0.1.11", "db-2 10.0.1.11"], "the client itself: {found:?}");
        checks::conservation(fabric).map(drop)
    })
}

#[test]
fn routes_go_before_networks_and_packets_past_bounds_as_they_are_told() -> Result<()> {
    scenario::on_fabric(
        "routes_go_before_networks_and_packets_past_bounds_as_they_are_told",
        PROBE,
        |fabric| {
            let _servers = servers(fabric, &["db-1", "db-2"], 8080)?;
            let probe = &fabric.plan().programs.probe;
            let connects = |from: &str| -> Result<bool> {
                let to = SocketAddrV4::new(Ipv4Addr::new(10, 0, 2, 12), 8080);
                let outcome =
                    probe.connect(&fabric.workload(from)?.netns, to, Duration::from_millis(1500))?;
                Ok(outcome == ferroflow_tests::probe::Outcome::Connected)
            };
            // Who had no answer from the router asks again before it sends.
            let soon = |from: &str| {
                stop::wait_for(&format!("{from} connects again"), Duration::from_secs(15), || {
                    Ok(if connects(from)? { Ok(()) } else { Err("it does not".to_owned()) })
                })
            };
            // The network of the port goes before a route to the same, unless that one is to go before it.
            fabric.control.configure("router set r1 --route '10.0.2.0/24 discard'")?;
            ensure!(connects("web-1")?, "the network is the port's");
            fabric.control.configure("router set r1 --route '10.0.2.0/24 discard override'")?;
            ensure!(!connects("web-1")?, "the route goes before");
            fabric.control.configure("router set r1 --no-routes")?;
            // A router that is off forwards nothing.
            fabric.control.configure("router set r1 --disable")?;
            ensure!(!connects("web-1")? && !connects("web-2")?, "the router is off");
            fabric.control.configure("router set r1 --enable")?;
            soon("web-1")?;
            soon("web-2")?;
            // Nor does a port that is off get anything.
            fabric.control.configure("switch-port set db-2 --disable")?;
            ensure!(!connects("web-1")?, "the port is off");
            fabric.control.configure("switch-port set db-2 --enable")?;
            soon("web-1")?;
            // What is larger than the bound, and may be.
            let large = || -> Result<String> {
                let mut command = fabric.workload("web-1")?.netns.command("ping");
                command.args([
                    "-n",
                    "-c",
                    "3",
                    "-i",
                    "0.2",
                    "-W",
                    "2",
                    "-M",
                    "do",
                    "-s",
                    "1292",
                    "10.0.2.12",
                ]);
                Ok(command::run_regardless(&mut command, Duration::from_secs(20))?.stdout)
            };
            fabric
                .control
                .configure("router-port set r1-db --gateway-mtu 1300 --gateway-mtu-bypass 'tcp || icmp4'")?;
            let text = large()?;
            ensure!(text.contains(" 0% packet loss"), "what may be larger: {text}");
            fabric.control.configure("router-port set r1-db --gateway-mtu-bypass tcp")?;
            let text = large()?;
            ensure!(text.contains("mtu = 1300") || text.contains("mtu=1300"), "{text}");
            checks::conservation(fabric).map(drop)
        },
    )
}
