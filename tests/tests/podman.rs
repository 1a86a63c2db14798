//! podman, with our CNI plugin.

#![forbid(unsafe_code)]

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ferroflow_tests::cni::{self, Runtime};
use ferroflow_tests::fabric::{Fabric, HOSTS};
use ferroflow_tests::podman::{IMAGE, Podman};
use ferroflow_tests::{checks, command, scenario, stop};
use serde_json::json;

const PROBE: &str = env!("CARGO_BIN_EXE_ff-probe");
/// How long the daemons may take to tidy up.
const TIDY_LIMIT: Duration = Duration::from_secs(20);
/// What the server in a container says.
const PAGE: &str = "it works";

fn runtimes(fabric: &Fabric) -> Result<Vec<Runtime>> {
    (0..HOSTS.len()).map(|idx| Runtime::on(fabric, idx)).collect()
}

/// No trace of any container is left: on no host, in the network, in the pool of addresses.
fn nothing_is_left(fabric: &Fabric, runtimes: &[Runtime]) -> Result<()> {
    stop::wait_for("nothing is left of the containers", TIDY_LIMIT, || {
        for (idx, runtime) in runtimes.iter().enumerate() {
            fabric.host(idx).control.text(&["endpoint", "release"])?;
            let ends = cni::host_ends(fabric, idx)?;
            let taken = runtime.taken_addresses()?;
            let mut nft = fabric.host_netns(idx).command("nft");
            let tables = command::output(nft.args(["list", "tables"]), command::SHORT)?;
            if !ends.is_empty() || !taken.is_empty() || tables.contains("ferroflow") {
                return Ok(Err(format!("{} still has {ends:?} {taken:?} {tables}", HOSTS[idx].name)));
            }
        }
        let ports = fabric.control.json(&["switch-port", "list"])?.to_string();
        let names = fabric.control.json(&["names", "list"])?.to_string();
        let is_left = ports.contains("-eth0-") || ports.contains("lease-") || names.contains("containers-");
        Ok(if is_left { Err(format!("{ports} {names}")) } else { Ok(()) })
    })
}

/// podman on both hosts, with a network that is the same on each but for the socket: leased addresses, the hosts as
/// gateways, names.
fn podmans(fabric: &Fabric, runtimes: &[Runtime]) -> Result<Vec<Podman>> {
    let start = |(idx, runtime): (usize, &Runtime)| {
        let mut network = runtime.config("1.0.0");
        network["gateway"] = "host".into();
        network["names"] = true.into();
        network["capabilities"] = json!({ "portMappings": true, "aliases": true, "ips": true, "mac": true });
        // Nobody answers there: names that the network knows are answered on the way.
        network["dns"] = json!({ "nameservers": ["10.0.1.1"] });
        network["ipam"] = json!({
            "type": "ferroflow",
            "ranges": [[{ "subnet": "10.0.1.0/24", "rangeStart": "10.0.1.100", "rangeEnd": "10.0.1.199" }]],
            "routes": [{ "dst": "0.0.0.0/0" }],
        });
        Podman::with_network(fabric, runtime, idx, network)
    };
    runtimes.iter().enumerate().map(start).collect()
}

/// A page, from a container that is there just for that.
fn page(podman: &Podman, address: &str) -> Result<()> {
    let words = ["run", "--rm", "--dns-search", ".", "--network", "pods", IMAGE, "wget", "-q", "-O", "-"];
    let got = podman.run(&[&words[..], &[&format!("http://{address}/")]].concat())?;
    ensure!(got.trim() == PAGE, "{address}: {got}");
    Ok(())
}

#[test]
fn podmans_containers_of_two_hosts_find_each_other_by_name() -> Result<()> {
    scenario::on_fabric("podmans_containers_of_two_hosts_find_each_other_by_name", PROBE, |fabric| {
        let runtimes = runtimes(fabric)?;
        let podmans = podmans(fabric, &runtimes)?;
        let words = ["run", "-d", "--name", "server", "--network", "pods", "--network-alias", "www"];
        let published = ["-p", "18083:80", IMAGE, "httpd", "-f", "-h", "/www"];
        podmans[0].run(&[&words[..], &published].concat())?;
        let by_port = format!("{}:18083", HOSTS[0].encap_ip);
        for address in ["server", "www", &by_port] {
            page(&podmans[1], address).with_context(|| format!("{address} from the other host"))?;
            page(&podmans[0], address).with_context(|| format!("{address} from the same host"))?;
        }
        // A name goes with its container, and comes again with the next one.
        podmans[0].run(&["rm", "-f", "-t", "0", "server"])?;
        stop::wait_for("the names are gone", TIDY_LIMIT, || {
            let names = fabric.control.json(&["names", "list"])?.to_string();
            Ok(if names.contains("server") { Err(names) } else { Ok(()) })
        })?;
        let words = ["run", "-d", "--name", "server", "--network", "pods"];
        podmans[1].run(&[&words[..], &[IMAGE, "httpd", "-f", "-h", "/www"]].concat())?;
        page(&podmans[0], "server").context("after it moved to the other host")?;
        podmans[1].run(&["rm", "-f", "-t", "0", "server"])?;
        drop(podmans);
        nothing_is_left(fabric, &runtimes)?;
        checks::account(fabric)
    })
}

#[test]
fn podmans_containers_outlive_every_daemon() -> Result<()> {
    scenario::on_fabric("podmans_containers_outlive_every_daemon", PROBE, |fabric| {
        let runtimes = runtimes(fabric)?;
        let podmans = podmans(fabric, &runtimes)?;
        let sleeper = |podman: &Podman, name: &str| {
            podman.run(&["run", "-d", "--name", name, "--network", "pods", IMAGE, "sleep", "1000"])
        };
        let ping = |podman: &Podman, from: &str, to: &str| {
            podman.run(&["exec", from, "ping", "-c", "2", "-W", "5", to]).map(drop)
        };
        for name in ["one", "two"] {
            sleeper(&podmans[0], name)?;
        }
        sleeper(&podmans[1], "far")?;
        let of = |podman: &Podman, name: &str| -> Result<String> {
            let address = ["inspect", "-f", "{{.NetworkSettings.Networks.pods.IPAddress}}", name];
            Ok(podman.run(&address)?.trim().to_owned())
        };
        let far = of(&podmans[1], "far")?;
        ping(&podmans[0], "one", &far)?;
        // What looks after a container dies: it goes on, and can be ended.
        let conmon = podmans[0].run(&["inspect", "-f", "{{.State.ConmonPid}}", "one"])?;
        command::output(std::process::Command::new("kill").args(["-9", conmon.trim()]), command::SHORT)?;
        ping(&podmans[0], "one", &far).context("without conmon")?;
        fabric.switch(0).context("vswitchd runs")?.kill()?;
        // One ends meanwhile, and none can start.
        podmans[0].run(&["rm", "-f", "-t", "0", "two"])?;
        let refused = sleeper(&podmans[0], "none").err().context("a container starts without vswitchd")?;
        ensure!(format!("{refused:#}").contains("is it running?"), "{refused:#}");
        fabric.start_switch(0)?;
        fabric.wait_converged()?;
        stop::wait_for("the other one has its network", TIDY_LIMIT, || {
            Ok(ping(&podmans[0], "one", &far).map_err(|error| format!("{error:#}")))
        })?;
        fabric.controller().context("the controller runs")?.kill()?;
        ping(&podmans[0], "one", &far).context("without the controller")?;
        sleeper(&podmans[0], "late")?;
        ping(&podmans[0], "late", &far).context("one that started without the controller")?;
        podmans[0].run(&["rm", "-f", "-t", "0", "late"])?;
        fabric.start_controller()?;
        fabric.wait_converged()?;
        ping(&podmans[0], "one", &far).context("with the controller again")?;
        podmans[0].run(&["rm", "-f", "-t", "0", "-a"])?;
        podmans[1].run(&["rm", "-f", "-t", "0", "-a"])?;
        drop(podmans);
        nothing_is_left(fabric, &runtimes)?;
        checks::account(fabric)
    })
}

#[test]
fn podman_publishes_ports() -> Result<()> {
    scenario::on_fabric("podman_publishes_ports", PROBE, |fabric| {
        let runtimes: Vec<_> = runtimes(fabric)?.into_iter().map(Runtime::with_host_as_gateway).collect();
        let podman = Podman::prepare(fabric, &runtimes[0], 0)?;
        let words = ["run", "-d", "--name", "server", "--network", "pods", "-p", "18082:80", IMAGE];
        podman.run(&[&words[..], &["httpd", "-f", "-h", "/www"]].concat())?;
        let mut curl = fabric.host_netns(1).command("curl");
        curl.args([
            "-sS",
            "--max-time",
            "5",
            "--retry",
            "3",
            "--retry-connrefused",
            "http://172.31.0.1:18082/",
        ]);
        let got = command::output(&mut curl, Duration::from_secs(20))?;
        ensure!(got.trim() == PAGE, "{got}");
        podman.run(&[
            "run",
            "--rm",
            "--network",
            "pods",
            IMAGE,
            "ping",
            "-c",
            "2",
            "-W",
            "5",
            "172.31.0.2",
        ])?;
        podman.run(&["rm", "-f", "-t", "0", "server"])?;
        drop(podman);
        nothing_is_left(fabric, &runtimes)?;
        checks::account(fabric)
    })
}

#[test]
fn podman_runs_containers_on_our_network() -> Result<()> {
    scenario::on_fabric("podman_runs_containers_on_our_network", PROBE, |fabric| {
        let runtimes = runtimes(fabric)?;
        let podman = Podman::prepare(fabric, &runtimes[0], 0)?;
        let addresses = podman.run(&[
            "run",
            "--rm",
            "--network",
            "pods",
            IMAGE,
            "ip",
            "-4",
            "-o",
            "address",
            "show",
            "eth0",
        ])?;
        ensure!(addresses.contains("inet 10.0.1.1"), "{addresses}");
        // Across hosts, and to the other network by its router.
        for to in ["10.0.1.12", "10.0.2.12"] {
            podman.run(&["run", "--rm", "--network", "pods", IMAGE, "ping", "-c", "2", "-W", "5", to])?;
        }
        podman.run(&["run", "-d", "--name", "server", "--network", "pods", IMAGE, "sleep", "60"])?;
        let address =
            podman.run(&["inspect", "-f", "{{.NetworkSettings.Networks.pods.IPAddress}}", "server"])?;
        let address: Ipv4Addr = address.trim().parse().with_context(|| format!("`{address}`"))?;
        let from = fabric.workload("web-2")?;
        let result = fabric.plan().programs.probe.ping(&from.netns, address, 3, 56)?;
        ensure!(
            result.n_received == 3,
            "web-2 got {} answers of 3 from podman's container",
            result.n_received
        );
        podman.run(&["rm", "-f", "-t", "0", "server"])?;
        drop(podman);
        nothing_is_left(fabric, &runtimes)?;
        checks::account(fabric)
    })
}
