//! Network policy with real connections: `examples/policy.yaml` on the network of two switches.

#![forbid(unsafe_code)]

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use ferroflow_tests::fabric::Fabric;
use ferroflow_tests::probe::Outcome;
use ferroflow_tests::{checks, scenario, stop};

const PROBE: &str = env!("CARGO_BIN_EXE_ff-probe");
/// How long a connection attempt may stay without an answer: two SYNs.
const CONNECT_LIMIT: Duration = Duration::from_millis(2500);
/// Ports of the example: what clients may use, and what is refused.
const ALLOWED: u16 = 8080;
const REFUSED: u16 = 9999;

#[test]
fn a_policy_is_for_connections_and_who_began_them() -> Result<()> {
    scenario::on_fabric("a_policy_is_for_connections_and_who_began_them", PROBE, |fabric| {
        fabric.control.apply(&policy())?;
        // One way, with the replies: on one host, and across hosts.
        connects(fabric, "web-1", ("db-1", ALLOWED), Outcome::Connected)?;
        checks::transfer(fabric, "web-1", "db-2")?;
        // Not the other way, although somebody listens; nor for somebody else, nor for other protocols.
        connects(fabric, "db-1", ("web-1", ALLOWED), Outcome::Silent)?;
        connects(fabric, "db-2", ("web-1", ALLOWED), Outcome::Silent)?;
        connects(fabric, "web-2", ("db-1", ALLOWED), Outcome::Silent)?;
        ensure!(checks::ping(fabric, "web-1", "db-1", 56).is_err(), "a ping is no connection to a database");
        let by_default = fabric.host(0).control.dropped_by("port-groups/databases")?;
        ensure!(by_default > 0, "no drop names the port group");
        // Those who are told so: on one host, and across hosts.
        connects(fabric, "web-1", ("db-1", REFUSED), Outcome::Refused)?;
        connects(fabric, "web-1", ("db-2", REFUSED), Outcome::Refused)?;
        // A new member of the set, and of the group.
        fabric.control.text(&["address-set", "set", "clients", "--add", "10.0.1.12", "--wait"])?;
        connects(fabric, "web-2", ("db-1", ALLOWED), Outcome::Connected)?;
        fabric.control.text(&["port-group", "set", "databases", "--remove", "db-1", "--wait"])?;
        connects(fabric, "db-1", ("web-1", ALLOWED), Outcome::Connected)?;
        connects(fabric, "db-2", ("web-1", ALLOWED), Outcome::Silent)?;
        checks::conservation(fabric).map(drop)
    })
}

#[test]
fn tiers_decide_one_after_the_other() -> Result<()> {
    scenario::on_fabric("tiers_decide_one_after_the_other", PROBE, |fabric| {
        fabric.control.configure(&format!(
            "acl add db known --direction to-lport --priority 10 --match 'ip4.src == 10.0.1.11' --action pass
             acl add db others --direction to-lport --priority 5 --match 'ip4.dst == 10.0.2.0/24' --action drop
             acl add db service --direction to-lport --tier 1 --priority 10 --match 'tcp.dst == {ALLOWED}' --action allow-related
             acl add db no-tcp --direction to-lport --tier 1 --priority 9 --match '!tcp && ip4.dst == 10.0.2.0/24' --action reject
             acl add db plain --direction to-lport --tier 1 --priority 8 --match '!(tcp.dst == {REFUSED}) && ip4.dst == 10.0.2.0/24' --action drop"
        ))?;
        // The first tier leaves it to the second, which allows, refuses what is not TCP, and has no more to say.
        connects(fabric, "web-1", ("db-1", ALLOWED), Outcome::Connected)?;
        connects(fabric, "web-1", ("db-2", ALLOWED), Outcome::Connected)?;
        connects(fabric, "web-1", ("db-2", REFUSED), Outcome::Connected)?;
        connects(fabric, "web-1", ("db-1", 7777), Outcome::Silent)?;
        ensure!(checks::ping(fabric, "web-1", "db-1", 56).is_err(), "a ping is not TCP");
        ensure!(fabric.host(0).control.dropped_by("switches/db/acls/plain")? > 0, "no drop names the ACL");
        // What the first tier drops, no other is asked about.
        connects(fabric, "web-2", ("db-1", ALLOWED), Outcome::Silent)?;
        fabric.control.configure("acl set db/others --action pass")?;
        connects(fabric, "web-2", ("db-1", ALLOWED), Outcome::Connected)?;
        checks::conservation(fabric).map(drop)
    })
}

#[test]
fn a_connection_ends_when_what_allowed_it_goes() -> Result<()> {
    const N: u64 = 100;
    const INTERVAL: Duration = Duration::from_millis(100);
    const PATIENCE: Duration = Duration::from_secs(5);
    scenario::on_fabric("a_connection_ends_when_what_allowed_it_goes", PROBE, |fabric| {
        fabric.control.apply(&policy())?;
        let probe = &fabric.plan().programs.probe;
        for to in ["db-1", "db-2"] {
            let (client, server) = (fabric.workload("web-1")?, fabric.workload(to)?);
            let at = (&server.netns, server.tcp(ALLOWED));
            let few = probe.chat(&client.netns, at, 10, (INTERVAL / 10, PATIENCE))?;
            ensure!(few == 10, "{few} of 10 bytes came back from {to}");
            let answered = std::thread::scope(|scope| -> Result<u64> {
                let talking = scope.spawn(|| probe.chat(&client.netns, at, N, (INTERVAL, PATIENCE)));
                std::thread::sleep(INTERVAL * 20);
                fabric.control.text(&["acl", "del", "@databases/clients-in", "--wait"])?;
                talking.join().map_err(|_| anyhow::anyhow!("the client's thread panicked"))?
            })?;
            ensure!(answered > 0 && answered < N, "{answered} of {N} bytes came back from {to}");
            // It comes back with the ACL.
            fabric.control.apply(&policy())?;
            connects(fabric, "web-1", (to, ALLOWED), Outcome::Connected)?;
        }
        checks::conservation(fabric).map(drop)
    })
}

#[test]
fn a_connection_lasts_where_an_acl_says_so_and_backends_are_seen_behind_services() -> Result<()> {
    const N: u64 = 30;
    const INTERVAL: Duration = Duration::from_millis(100);
    let name = "a_connection_lasts_where_an_acl_says_so_and_backends_are_seen_behind_services";
    scenario::on_fabric(name, PROBE, |fabric| {
        fabric.control.configure(&format!(
            "switch set db --default drop
             acl add db other --direction to-lport --priority 1 --match 'tcp.dst == 1' --action allow-related
             acl add db in --direction to-lport --priority 10 --match 'tcp.dst == {ALLOWED}' --action allow-related \\
                 --persist-established"
        ))?;
        let probe = &fabric.plan().programs.probe;
        let (client, server) = (fabric.workload("web-1")?, fabric.workload("db-2")?);
        let at = (&server.netns, server.tcp(ALLOWED));
        let answered = std::thread::scope(|scope| -> Result<u64> {
            let talking =
                scope.spawn(|| probe.chat(&client.netns, at, N, (INTERVAL, Duration::from_secs(3))));
            std::thread::sleep(INTERVAL * 10);
            fabric.control.configure("acl del db/in")?;
            talking.join().map_err(|_| anyhow::anyhow!("the client's thread panicked"))?
        })?;
        ensure!(answered == N, "{answered} of {N} bytes came back");
        connects(fabric, "web-1", ("db-2", ALLOWED), Outcome::Silent)?;
        // An ACL that is asked behind the load balancer sees whom the service stands for.
        fabric.control.configure(&format!(
            "switch set db --default allow
             load-balancer add lb --vip 10.96.0.1:80=10.0.2.11:{ALLOWED},10.0.2.12:{ALLOWED}
             switch set web --load-balancer lb
             acl add web all --direction from-lport --priority 1 --match ip4 --action allow-related
             acl add web late --direction from-lport --priority 5 --match 'ip4.dst == 10.0.2.12' --action drop \\
                 --apply-after-lb"
        ))?;
        let listeners = ["db-1", "db-2"].map(|name| checks::listen(fabric, fabric.workload(name)?, ALLOWED));
        let _listeners = listeners.into_iter().collect::<Result<Vec<_>>>()?;
        let service = std::net::SocketAddrV4::new(std::net::Ipv4Addr::new(10, 96, 0, 1), 80);
        let outcomes = (0..12).map(|_| probe.connect(&client.netns, service, Duration::from_millis(400)));
        let outcomes = outcomes.collect::<Result<Vec<_>>>()?;
        let n = outcomes.iter().filter(|outcome| **outcome == Outcome::Connected).count();
        ensure!((1..12).contains(&n), "{n} of 12 connections, of which some are for db-2");
        ensure!(fabric.host(0).control.dropped_by("switches/web/acls/late")? > 0, "no drop names the ACL");
        checks::conservation(fabric).map(drop)
    })
}

#[test]
fn what_is_allowed_without_state_is_allowed_one_way() -> Result<()> {
    scenario::on_fabric("what_is_allowed_without_state_is_allowed_one_way", PROBE, |fabric| {
        // The switch tracks connections, by the last of them; these two packets' are not.
        fabric.control.configure(&format!(
            "switch set db --default drop
             acl add db there --direction to-lport --priority 10 --match 'tcp.dst == {ALLOWED}' \\
                 --action allow-stateless
             acl add db back --direction from-lport --priority 10 --match 'tcp.src == {ALLOWED}' \\
                 --action allow-stateless
             acl add db other --direction to-lport --priority 1 --match 'tcp.dst == 1' --action allow-related"
        ))?;
        for to in ["db-1", "db-2"] {
            connects(fabric, "web-1", (to, ALLOWED), Outcome::Connected)?;
        }
        let filter = format!("tcp,dport={ALLOWED}");
        let tracked = fabric.host(0).control.text(&["ct", "dump", &filter])?;
        ensure!(tracked.trim().is_empty(), "it is tracked: {tracked}");
        // The answers are nobody's without the other one.
        fabric.control.configure("acl del db/back")?;
        for to in ["db-1", "db-2"] {
            connects(fabric, "web-1", (to, ALLOWED), Outcome::Silent)?;
        }
        // A load balancer works all the same: it has what it needs tracked.
        fabric.control.configure(&format!(
            "acl add db back --direction from-lport --priority 10 --match 'tcp.src == {ALLOWED}' \\
                 --action allow-stateless
             load-balancer add lb --vip 10.96.0.1:80=10.0.2.11:{ALLOWED},10.0.2.12:{ALLOWED}
             switch set web --default drop --load-balancer lb
             acl add web there --direction from-lport --priority 10 --match 'tcp.dst == 80' --action allow-stateless
             acl add web back --direction to-lport --priority 10 --match 'tcp.src == 80' --action allow-stateless
             acl add web other --direction to-lport --priority 1 --match 'tcp.dst == 1' --action allow-related"
        ))?;
        let servers = ["db-1", "db-2"].map(|name| checks::listen(fabric, fabric.workload(name)?, ALLOWED));
        let _servers = servers.into_iter().collect::<Result<Vec<_>>>()?;
        let service = std::net::SocketAddrV4::new(std::net::Ipv4Addr::new(10, 96, 0, 1), 80);
        for _ in 0..6 {
            let client = &fabric.workload("web-1")?.netns;
            let outcome = fabric.plan().programs.probe.connect(client, service, CONNECT_LIMIT)?;
            ensure!(outcome == Outcome::Connected, "{outcome:?}");
        }
        checks::conservation(fabric).map(drop)
    })
}

#[test]
fn answers_of_connections_are_logged_where_an_acl_says_so() -> Result<()> {
    scenario::on_fabric("answers_of_connections_are_logged_where_an_acl_says_so", PROBE, |fabric| {
        fabric.control.configure(&format!(
            "acl add db told --direction to-lport --priority 10 --match 'tcp.dst == {ALLOWED}' --action allow-related \\
                 --log --log-name told --label-number 7"
        ))?;
        // What the host has written of packets to the server, and of its answers.
        let lines = || -> Result<[usize; 2]> {
            let log = std::fs::read_to_string(fabric.plan().dir.join("h1.log"))?;
            let of = |field: &str| {
                let port = format!("{field}={ALLOWED}");
                let is_one = |line: &&str| line.contains("acl=\"told\"") && line.contains(&port);
                log.lines().filter(is_one).count()
            };
            Ok([of("tp_dst"), of("tp_src")])
        };
        let wait = |what: &str, is_there: &dyn Fn([usize; 2]) -> bool| {
            stop::wait_for(what, Duration::from_secs(5), || {
                let seen = lines()?;
                Ok(if is_there(seen) { Ok(()) } else { Err(format!("{seen:?} lines there and back")) })
            })
        };
        connects(fabric, "web-1", ("db-1", ALLOWED), Outcome::Connected)?;
        wait("the connection is logged", &|[there, _]| there > 0)?;
        ensure!(lines()?[1] == 0, "answers are logged, which nobody wants: {:?}", lines()?);
        fabric.control.configure("acl set db/told --log-related")?;
        connects(fabric, "web-2", ("db-1", ALLOWED), Outcome::Connected)?;
        wait("its answers are logged", &|[_, back]| back > 0)?;
        checks::conservation(fabric).map(drop)
    })
}

fn policy() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/policy.yaml")
}

/// What becomes of a connection to a port where somebody listens.
fn connects(fabric: &Fabric, from: &str, (to, port): (&str, u16), wanted: Outcome) -> Result<()> {
    let (client, server) = (fabric.workload(from)?, fabric.workload(to)?);
    let _listener = checks::listen(fabric, server, port)?;
    let outcome = fabric.plan().programs.probe.connect(&client.netns, server.tcp(port), CONNECT_LIMIT)?;
    ensure!(outcome == wanted, "{from} to {to}:{port} is {outcome:?}, not {wanted:?}");
    Ok(())
}
