//! Docker, with our network and IPAM driver.

#![forbid(unsafe_code)]

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ferroflow_tests::docker::{DRIVER, Docker, IMAGE};
use ferroflow_tests::fabric::{Fabric, HOSTS, WORKLOAD_MTU};
use ferroflow_tests::{checks, command, scenario, stop};

const PROBE: &str = env!("CARGO_BIN_EXE_ff-probe");
/// How long the daemons may take to tidy up.
const TIDY_LIMIT: Duration = Duration::from_secs(20);
/// Page of the containers' server.
const PAGE: &str = "it works";

/// No trace of any container is left: no interface, no port, no switch, no file.
fn nothing_is_left(fabric: &Fabric, dockers: &[&Docker]) -> Result<()> {
    stop::wait_for("nothing is left of the containers", TIDY_LIMIT, || {
        for docker in dockers {
            let kept = docker.kept()?;
            if !kept.is_empty() {
                return Ok(Err(format!("the driver still keeps {kept:?}")));
            }
        }
        for (idx, host) in HOSTS.iter().enumerate() {
            let links = fabric.host_netns(idx).ip(&["-o", "link", "show", "type", "veth"])?;
            let names = links.lines().filter_map(|line| line.split([':', '@']).nth(1)).map(str::trim);
            if let Some(left) =
                names.into_iter().find(|name| name.starts_with("vc") || name.starts_with("vd"))
            {
                return Ok(Err(format!("{} still has {left}", host.name)));
            }
            let endpoints = fabric.host(idx).control.json(&["endpoint", "list"])?;
            if endpoints.to_string().contains("\"container\"") {
                return Ok(Err(format!("{} still has {endpoints}", host.name)));
            }
        }
        for words in [["switch", "list"], ["switch-port", "list"]] {
            let text = fabric.control.json(&words)?.to_string();
            if text.contains("docker") {
                return Ok(Err(format!("the network still has {text}")));
            }
        }
        Ok(Ok(()))
    })
}

fn ping(docker: &Docker, from: &str, to: &str) -> Result<()> {
    docker.exec(from, &["ping", "-c", "2", "-W", "5", to]).map(drop)
}

fn cannot_ping(docker: &Docker, from: &str, to: &str) -> Result<()> {
    let asked = docker.attempt(&["exec", from, "ping", "-c", "1", "-W", "1", to])?;
    ensure!(!asked.status.success(), "{from} reaches {to}, and must not: {}", asked.stdout);
    Ok(())
}

/// A command that must fail and say why.
fn refused(docker: &Docker, words: &[&str], why: &str) -> Result<()> {
    let asked = docker.attempt(words)?;
    ensure!(!asked.status.success(), "{words:?} is not refused");
    ensure!(asked.stderr.contains(why), "{words:?} is refused, but without `{why}`: {}", asked.stderr);
    Ok(())
}

fn page(fabric: &Fabric, host_idx: usize, address: &str) -> Result<()> {
    let mut curl = fabric.host_netns(host_idx).command("curl");
    let got =
        command::output(curl.args(["-sS", "--max-time", "5", &format!("http://{address}/")]), TIDY_LIMIT)?;
    ensure!(got.trim() == PAGE, "{address} from {}: {got}", HOSTS[host_idx].name);
    Ok(())
}

#[test]
fn dockers_containers_talk_and_leave_nothing() -> Result<()> {
    scenario::on_fabric("dockers_containers_talk_and_leave_nothing", PROBE, |fabric| {
        let docker = Docker::start(fabric, 0, false)?;
        for (network, words) in [("red", &["--ipv6"][..]), ("blue", &[]), ("inner", &["--internal"])] {
            docker.network(network, words)?;
        }
        networks_of_their_own(fabric, &docker).context("networks of their own")?;
        published_ports(fabric, &docker).context("published ports")?;
        wrong_requests(&docker).context("wrong requests")?;
        let names = docker.run(&["ps", "-aq"])?;
        docker.run(&[&["rm", "-f"][..], &names.split_whitespace().collect::<Vec<_>>()].concat())?;
        docker.run(&["network", "rm", "red", "blue", "inner"])?;
        nothing_is_left(fabric, &[&docker])?;
        checks::account(fabric)
    })
}

fn networks_of_their_own(fabric: &Fabric, docker: &Docker) -> Result<()> {
    docker.sleeper("red-1", "red", &[])?;
    docker.sleeper("red-2", "red", &["--network-alias", "rose"])?;
    docker.sleeper("blue-1", "blue", &[])?;
    docker.sleeper("inner-1", "inner", &[])?;
    docker.sleeper("inner-2", "inner", &[])?;
    // By address, by name, by alias, by IPv6.
    let address = docker.endpoint("red-2", "red", "IPAddress")?;
    let address_v6 = docker.endpoint("red-2", "red", "GlobalIPv6Address")?;
    for to in [address.as_str(), &address_v6, "red-2", "rose"] {
        ping(docker, "red-1", to)?;
    }
    ping(docker, "inner-1", "inner-2")?;
    // Full size, and what Docker says of it is what the switch has.
    docker.exec("red-1", &["ping", "-c", "2", "-s", &(WORKLOAD_MTU - 28).to_string(), "red-2"])?;
    let link = docker.exec("red-1", &["ip", "-o", "link", "show", "eth0"])?;
    ensure!(link.contains(&format!("mtu {WORKLOAD_MTU}")), "{link}");
    ensure!(link.contains(&docker.endpoint("red-1", "red", "MacAddress")?), "{link}");
    // Others, and their networks, are not there.
    let other = docker.endpoint("blue-1", "blue", "IPAddress")?;
    cannot_ping(docker, "red-1", &other)?;
    cannot_ping(docker, "red-1", "blue-1")?;
    // Out, but not from an internal network.
    ping(docker, "red-1", HOSTS[1].encap_ip)?;
    cannot_ping(docker, "inner-1", HOSTS[1].encap_ip)?;
    let routes = docker.exec("inner-1", &["ip", "route"])?;
    ensure!(!routes.contains("default"), "{routes}");
    // Into another network and out of it again, while it runs.
    docker.run(&["network", "connect", "blue", "red-1"])?;
    ping(docker, "red-1", &other)?;
    docker.run(&["network", "disconnect", "blue", "red-1"])?;
    cannot_ping(docker, "red-1", &other)?;
    // An address that has just come back is nobody's for a while.
    docker.run(&["rm", "-f", "blue-1"])?;
    docker.sleeper("blue-2", "blue", &[])?;
    ensure!(docker.endpoint("blue-2", "blue", "IPAddress")? != other, "{other} is given again at once");
    let named = ["--ip", "10.200.77.5", "--mac-address", "02:00:00:00:77:05"];
    docker.network("named", &["--subnet", "10.200.77.0/24"])?;
    docker.sleeper("named-1", "named", &named)?;
    let link = docker.exec("named-1", &["ip", "address", "show", "eth0"])?;
    ensure!(link.contains("10.200.77.5/24") && link.contains("02:00:00:00:77:05"), "{link}");
    let taken = [&["run", "--rm", "--network", "named"][..], &named[..2], &[IMAGE, "true"]].concat();
    refused(docker, &taken, "in use")?;
    docker.run(&["rm", "-f", "named-1"])?;
    docker.run(&["network", "rm", "named"])?;
    // Without a word about switches, nothing of all this can be seen from the fabric's own.
    let web = fabric.workload("web-1")?;
    let result = fabric.plan().programs.probe.ping(&web.netns, address.parse::<Ipv4Addr>()?, 1, 56)?;
    ensure!(result.n_received == 0, "web-1 reaches a container of another network");
    Ok(())
}

/// Docker publishes on its gateway bridge, which containers of networks with no router are joined to.
fn published_ports(fabric: &Fabric, docker: &Docker) -> Result<()> {
    let words = ["run", "-d", "--name", "server", "--network", "red", "-p", "18080:80"];
    docker.run(&[&words[..], &[IMAGE, "httpd", "-f", "-h", "/www"]].concat())?;
    let published = format!("{}:18080", HOSTS[0].encap_ip);
    // From the host, from outside, from the network itself, and from itself by the host's address.
    page(fabric, 0, "127.0.0.1:18080")?;
    page(fabric, 0, &published)?;
    page(fabric, 1, &published)?;
    // By IPv6 too: Docker's proxy takes it from there.
    for (idx, address) in ["fd99::1/64", "fd99::2/64"].into_iter().enumerate() {
        fabric.host_netns(idx).ip(&["address", "add", address, "dev", "underlay", "nodad"])?;
    }
    for host_idx in [0, 1] {
        page(fabric, host_idx, "[fd99::1]:18080").context("by IPv6")?;
    }
    page(fabric, 0, "[::1]:18080").context("by IPv6")?;
    for (from, to) in [("red-1", "server:80"), ("red-1", &published), ("server", &published)] {
        let got = docker.exec(from, &["wget", "-q", "-O", "-", &format!("http://{to}/")])?;
        ensure!(got.trim() == PAGE, "{to} from {from}: {got}");
    }
    Ok(())
}

fn wrong_requests(docker: &Docker) -> Result<()> {
    let create = |words: &[&'static str]| {
        [&["network", "create", "-d", DRIVER, "--ipam-driver", DRIVER][..], words, &["wrong"]].concat()
    };
    for (words, why) in [
        (&["-o", "swich=web"][..], "this driver knows switch"),
        (&["-o", "switch=nowhere"], "there is no switches/nowhere"),
        (&["-o", "gateway=left"], "write router"),
        (&["--subnet", "10.200.0.0/16"], "another network has"),
        (&["--ipam-opt", "tenant=a/b"], "write a name"),
    ] {
        refused(docker, &create(words), why)?;
    }
    // Tenants that know nothing of each other may have the same addresses.
    docker.network("tenant-1", &["--subnet", "10.9.0.0/24", "--ipam-opt", "tenant=a"])?;
    docker.network("tenant-2", &["--subnet", "10.9.0.0/24", "--ipam-opt", "tenant=b"])?;
    for (name, network) in [("t1", "tenant-1"), ("t2", "tenant-2")] {
        docker.sleeper(name, network, &["--ip", "10.9.0.9"])?;
    }
    docker.run(&["run", "--rm", "--network", "tenant-2", IMAGE, "ping", "-c", "1", "10.9.0.9"])?;
    docker.run(&["rm", "-f", "t1", "t2"])?;
    // A host whose MTU does not carry it.
    docker.network("big", &["-o", "mtu=9000"])?;
    refused(docker, &["run", "--rm", "--network", "big", IMAGE, "true"], "tunnels of this host carry")?;
    docker.run(&["network", "rm", "tenant-1", "tenant-2", "big"]).map(drop)
}

/// The network `web` of the fabric, as each host's Docker has it.
fn web(docker: &Docker, range: &str) -> Result<()> {
    let words = ["--subnet", "10.0.1.0/24", "--ip-range", range, "--gateway", "10.0.1.1", "-o", "switch=web"];
    docker.network("web", &words)
}

#[test]
fn dockers_of_two_hosts_share_a_switch() -> Result<()> {
    scenario::on_fabric("dockers_of_two_hosts_share_a_switch", PROBE, |fabric| {
        let dockers = [Docker::start(fabric, 0, false)?, Docker::start(fabric, 1, false)?];
        for (docker, range) in dockers.iter().zip(["10.0.1.64/28", "10.0.1.80/28"]) {
            web(docker, range)?;
            docker.sleeper("one", "web", &[])?;
        }
        let far = dockers[1].endpoint("one", "web", "IPAddress")?;
        // To the other host, to a workload that is no container, by the router to the other network.
        for to in [far.as_str(), "10.0.1.11", "10.0.1.12", "10.0.1.1", "10.0.2.12"] {
            ping(&dockers[0], "one", to)?;
        }
        let full = (WORKLOAD_MTU - 28).to_string();
        dockers[0].exec("one", &["ping", "-c", "2", "-s", &full, &far])?;
        let near: Ipv4Addr = dockers[0].endpoint("one", "web", "IPAddress")?.parse()?;
        let from = fabric.workload("db-2")?;
        let result = fabric.plan().programs.probe.ping(&from.netns, near, 3, 56)?;
        ensure!(
            result.n_received == 3,
            "db-2 got {} answers of 3 from Docker's container",
            result.n_received
        );
        // This network has a router of its own: its ports are not Docker's to publish.
        let words = ["run", "--rm", "--network", "web", "-p", "18081:80", IMAGE, "true"];
        refused(&dockers[0], &words, "by a load balancer or NAT")?;
        for docker in &dockers {
            docker.run(&["rm", "-f", "one"])?;
            docker.run(&["network", "rm", "web"])?;
        }
        nothing_is_left(fabric, &[&dockers[0], &dockers[1]])?;
        // The switch is not the driver's.
        ensure!(fabric.control.json(&["switch", "list"])?.to_string().contains("web"));
        checks::account(fabric)
    })
}

/// Echo requests from a container's namespace, whether there is a Docker or not.
fn ping_by_pid(pid: &str, to: &str) -> Result<()> {
    let mut ping = Command::new("nsenter");
    ping.args(["--target", pid, "--net", "ping", "-c", "2", "-W", "5", to]);
    command::output(&mut ping, TIDY_LIMIT).map(drop)
}

#[test]
fn containers_outlive_every_daemon() -> Result<()> {
    scenario::on_fabric("containers_outlive_every_daemon", PROBE, |fabric| {
        let mut docker = Docker::start(fabric, 0, true)?;
        docker.network("red", &[])?;
        docker.sleeper("one", "red", &[])?;
        docker.sleeper("two", "red", &[])?;
        let (pid, to) = (docker.pid("one")?, docker.endpoint("two", "red", "IPAddress")?);
        docker.dockerd()?.kill()?;
        ping_by_pid(&pid, &to).context("without dockerd")?;
        docker.driver()?.kill()?;
        ping_by_pid(&pid, &to).context("without the driver")?;
        docker.start_driver(fabric)?;
        docker.start_dockerd()?;
        // As before, and nobody's address is given again.
        ping(&docker, "one", "two").context("with another dockerd and driver")?;
        docker.sleeper("three", "red", &[])?;
        ping(&docker, "three", "two")?;
        let addresses = ["one", "two", "three"].map(|name| docker.endpoint(name, "red", "IPAddress"));
        let addresses = addresses.into_iter().collect::<Result<std::collections::BTreeSet<_>>>()?;
        ensure!(addresses.len() == 3, "an address has two owners: {addresses:?}");
        without_vswitchd(fabric, &docker, &pid, &to)?;
        docker.run(&["rm", "-f", "one", "two"])?;
        docker.run(&["network", "rm", "red"])?;
        nothing_is_left(fabric, &[&docker])?;
        checks::account(fabric)
    })
}

/// Its end stops no container from ending; none can start.
fn without_vswitchd(fabric: &mut Fabric, docker: &Docker, pid: &str, to: &str) -> Result<()> {
    fabric.switch(0).context("vswitchd runs")?.kill()?;
    docker.run(&["rm", "-f", "three"])?;
    refused(docker, &["run", "--rm", "--network", "red", IMAGE, "true"], "is it running?")?;
    fabric.start_switch(0)?;
    fabric.wait_converged()?;
    stop::wait_for("the others have their network", TIDY_LIMIT, || {
        Ok(ping_by_pid(pid, to).map_err(|error| format!("{error:#}")))
    })?;
    docker.run(&["run", "--rm", "--network", "red", IMAGE, "ping", "-c", "1", "two"]).map(drop)
}

#[test]
fn a_docker_that_starts_again_starts_its_containers_again() -> Result<()> {
    scenario::on_fabric("a_docker_that_starts_again_starts_its_containers_again", PROBE, |fabric| {
        let mut docker = Docker::start(fabric, 0, false)?;
        docker.network("red", &[])?;
        docker.sleeper("one", "red", &["--restart=always"])?;
        docker.sleeper("two", "red", &["--restart=always"])?;
        for kill in [false, true] {
            if kill {
                docker.dockerd()?.kill()?;
            } else {
                docker.dockerd()?.stop()?;
            }
            docker.start_dockerd()?;
            stop::wait_for("both run again and talk", TIDY_LIMIT, || {
                Ok(ping(&docker, "one", "two").map_err(|error| format!("{error:#}")))
            })
            .with_context(|| format!("killed: {kill}"))?;
            let endpoints = fabric.host(0).control.json(&["endpoint", "list"])?;
            let n_endpoints = endpoints.to_string().matches("\"container\"").count();
            ensure!(n_endpoints == 2, "{n_endpoints} endpoints: {endpoints}");
        }
        // Docker tells twice that a network is gone when the first answer is lost.
        docker.run(&["rm", "-f", "one", "two"])?;
        fabric.controller().context("the controller runs")?.kill()?;
        docker.run(&["network", "rm", "red"])?;
        fabric.start_controller()?;
        fabric.wait_converged()?;
        nothing_is_left(fabric, &[&docker])?;
        checks::account(fabric)
    })
}
