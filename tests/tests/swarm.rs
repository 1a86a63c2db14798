//! A swarm of two Dockers: networks of all of them, by our driver as a plugin that Docker manages.

#![forbid(unsafe_code)]

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ferroflow_tests::docker::{Docker, IMAGE, MANAGED};
use ferroflow_tests::fabric::{Fabric, HOSTS};
use ferroflow_tests::{checks, cni, command, scenario, stop};

const PROBE: &str = env!("CARGO_BIN_EXE_ff-probe");
/// How long a swarm may take over anything.
const LIMIT: Duration = Duration::from_secs(60);
/// The network.
const TEAM: &str = "team";

/// A port of each host that leads to the task there.
const PUBLISHED: &str = "mode=host,published=18085,target=80";

/// Two Dockers, the first of which is the manager of a swarm of both.
fn start(fabric: &Fabric) -> Result<[Docker; 2]> {
    let dockers = [Docker::start_managed(fabric, 0)?, Docker::start_managed(fabric, 1)?];
    let [first, second] = HOSTS.map(|host| host.encap_ip);
    dockers[0].run(&["swarm", "init", "--advertise-addr", first, "--listen-addr", first])?;
    let token = dockers[0].run(&["swarm", "join-token", "-q", "worker"])?;
    let manager = format!("{first}:2377");
    let words =
        ["swarm", "join", "--token", token.trim(), "--advertise-addr", second, "--listen-addr", second];
    dockers[1].run(&[&words[..], &[&manager]].concat())?;
    Ok(dockers)
}

fn ping(docker: &Docker, from: &str, to: &str) -> Result<()> {
    stop::wait_for(&format!("{from} reaches {to}"), LIMIT, || {
        let finished = docker.attempt(&["exec", from, "ping", "-c", "2", "-W", "3", to])?;
        Ok(if finished.status.success() { Ok(()) } else { Err(finished.stdout + &finished.stderr) })
    })
}

/// No trace of the network is left, on any host or in the network.
fn nothing_is_left(fabric: &Fabric, dockers: &[Docker]) -> Result<()> {
    stop::wait_for("nothing is left", LIMIT, || {
        for (idx, docker) in dockers.iter().enumerate() {
            let (ends, kept) = (cni::host_ends(fabric, idx)?, docker.kept()?);
            if !ends.is_empty() || !kept.is_empty() {
                return Ok(Err(format!("{} still has {ends:?} {kept:?}", HOSTS[idx].name)));
            }
        }
        let switches = fabric.control.json(&["switch", "list"])?.to_string();
        Ok(if switches.contains("docker-") { Err(switches) } else { Ok(()) })
    })
}

#[test]
fn containers_of_a_swarm_talk_across_hosts_and_leave_nothing() -> Result<()> {
    scenario::on_fabric("containers_of_a_swarm_talk_across_hosts_and_leave_nothing", PROBE, |fabric| {
        let dockers = start(fabric)?;
        let [manager, worker] = &dockers;
        let create = ["network", "create", "-d", MANAGED, "--ipam-driver", MANAGED, "--attachable"];
        manager.run(&[&create[..], &["--subnet", "10.50.0.0/24", TEAM]].concat())?;
        manager.sleeper("one", TEAM, &[])?;
        worker.sleeper("two", TEAM, &[])?;
        let [a, b] = [(manager, "one"), (worker, "two")]
            .map(|(docker, name)| docker.endpoint(name, TEAM, "IPAddress"));
        let (a, b) = (a?, b?);
        ensure!(a != b && a.starts_with("10.50.0.") && b.starts_with("10.50.0."), "{a}, {b}");
        ping(manager, "one", &b)?;
        ping(worker, "two", &a)?;
        ping(worker, "two", HOSTS[0].encap_ip).context("out by the host")?;
        // A service, a task of which is on each host; its name leads to all of them.
        #[rustfmt::skip]
        manager.run(&[
            "service", "create", "--detach", "--no-resolve-image", "--name", "web", "--network", TEAM,
            "--mode", "global", "--endpoint-mode", "dnsrr", "--stop-grace-period", "1s", "--publish", PUBLISHED,
            IMAGE, "httpd", "-f", "-h", "/www",
        ])?;
        ping(manager, "one", "tasks.web")?;
        ping(worker, "two", "tasks.web")?;
        stop::wait_for("both tasks are known", LIMIT, || {
            let asked = worker.attempt(&["exec", "two", "nslookup", "tasks.web"])?;
            let n = asked.stdout.matches("10.50.0.").count();
            Ok(if n >= 2 { Ok(()) } else { Err(asked.stdout + &asked.stderr) })
        })?;
        for [from, to] in [[1, 0], [0, 1]] {
            let url = format!("http://{}:18085/", HOSTS[to].encap_ip);
            let curl = ["-sS", "--max-time", "5", "--retry", "5", "--retry-connrefused", &url];
            let page = command::output(fabric.host_netns(from).command("curl").args(curl), LIMIT)?;
            ensure!(page.trim() == "it works", "{url}: {page}");
        }
        manager.run(&["service", "rm", "web"])?;
        manager.run(&["rm", "-f", "one"])?;
        worker.run(&["rm", "-f", "two"])?;
        stop::wait_for("the network can be removed", LIMIT, || {
            let removed = manager.attempt(&["network", "rm", TEAM])?;
            Ok(if removed.status.success() { Ok(()) } else { Err(removed.stderr) })
        })?;
        nothing_is_left(fabric, &dockers)?;
        drop(dockers);
        checks::account(fabric)
    })
}
