//! The recipes of docs/recipes.md, as far as no other scenario follows them: containers without a network and with
//! the host's, in a provider's VLAN, behind routers, of tenants that have the same addresses.

#![forbid(unsafe_code)]

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ferroflow_tests::cni::{Container, Runtime};
use ferroflow_tests::daemon::{Daemon, Life};
use ferroflow_tests::fabric::{Fabric, WORKLOAD_MTU};
use ferroflow_tests::netns::Netns;
use ferroflow_tests::podman::{IMAGE, Podman};
use ferroflow_tests::provider::{self, OUTSIDE, Provider, ping};
use ferroflow_tests::{checks, command, say, scenario, stop};

const PROBE: &str = env!("CARGO_BIN_EXE_ff-probe");
/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(20);
/// Where servers listen.
const SERVER_PORT: &str = "8080";

/// Runs a scenario on two hosts in a provider's network.
fn on_hosts(name: &str, run: impl FnOnce(&mut Provider, &[Runtime; 2]) -> Result<()>) -> Result<()> {
    if let Some(program) = provider::missing_program() {
        say(&format!("SKIPPED {name}: there is no `{program}`; apt-get install iputils-ping ethtool"));
        return Ok(());
    }
    scenario::run(name, |prefix| {
        let mut provider = Provider::start(scenario::plan(prefix, PROBE)?, 2)?;
        let runtimes =
            [Runtime::of_host(provider.plan(), "h1", 0)?, Runtime::of_host(provider.plan(), "h2", 1)?];
        run(&mut provider, &runtimes).with_context(|| provider.logs(30))
    })
}

/// Starts a server in a container, whose page is the container's id.
fn serve(dir: &Path, container: &Container) -> Result<Daemon> {
    let www = dir.join(format!("www-{}", container.id));
    fs::create_dir_all(&www)?;
    fs::write(www.join("index.html"), &container.id)?;
    let args = ["httpd", "-f", "-p", SERVER_PORT, "-h", www.to_str().context("not UTF-8")?];
    let log = dir.join(format!("httpd-{}.log", container.id));
    Daemon::start(&container.netns, Path::new("/bin/busybox"), &args, &log, Life::WithParent)
}

/// The page at an address, once somebody answers.
fn page(from: &Netns, address: &str) -> Result<String> {
    let mut curl = from.command("curl");
    curl.args(["-sS", "--max-time", "3", "--retry", "5", "--retry-connrefused", "--retry-delay", "1"]);
    command::output(curl.arg(format!("http://{address}/")), LIMIT)
}

/// Whoever is asked answers, every time once it has answered at all.
fn reach(from: &Netns, to: Ipv4Addr) -> Result<()> {
    stop::wait_for(&format!("{to} answers {}", from.name()), LIMIT, || {
        Ok(if ping(from, to, 1)?.0 == 0 { Err("no answer".to_owned()) } else { Ok(()) })
    })?;
    let answers = ping(from, to, 10)?;
    ensure!(answers == (10, 0), "{} to {to}: answers {answers:?} of 10", from.name());
    Ok(())
}

#[test]
fn containers_in_a_providers_vlan() -> Result<()> {
    on_hosts("containers_in_a_providers_vlan", |net, runtimes| {
        net.configure(&["switch add pub", "switch-port add pub pub-net --network provider --tag 100"])?;
        let network =
            |idx: usize| runtimes[idx].leased("pub", "pub", ("10.99.0.0/24", "10.99.0.100-10.99.0.199"), "");
        let prefix = net.plan().prefix.clone();
        let [one, two] = ["one", "two"].map(|id| Container::with_prefix(&prefix, id));
        let (one, two) = (one?, two?);
        let at_one: Ipv4Addr = runtimes[0].attach(&one, &network(0))?.parse()?;
        let at_two: Ipv4Addr = runtimes[1].attach(&two, &network(1))?.parse()?;
        reach(&one.netns, at_two)?;
        reach(&two.netns, OUTSIDE)?;
        reach(&net.outside, at_one)?;
        reach(&net.outside, at_two)?;
        let ports = net.host(0).control.ports()?;
        let uplink = ports.iter().find(|port| port.name == "underlay").context("there is an uplink")?;
        ensure!(uplink.tx_packets == 0, "frames of the VLAN went through a tunnel");
        runtimes[0].detach(&one, &network(0))?;
        runtimes[1].detach(&two, &network(1))?;
        net.check_conservation()
    })
}

/// Encapsulations that packets from a host to the other leave in.
fn encapsulations(fabric: &Fabric, host_idx: usize) -> Result<Vec<&'static str>> {
    let megaflows = fabric.host(host_idx).control.text(&["megaflow", "dump"])?;
    let is_used = |name: &&str| megaflows.contains(&format!(",{name}(vni="));
    Ok(["geneve", "vxlan"].into_iter().filter(is_used).collect())
}

/// Restarts both hosts with these encapsulations, and waits until they forward again.
fn restart_with(fabric: &mut Fabric, encap_types: [&str; 2]) -> Result<()> {
    for (idx, types) in encap_types.into_iter().enumerate() {
        fabric.restart_with(idx, types)?;
    }
    fabric.wait_converged()
}

#[test]
fn containers_of_two_hosts_by_vxlan() -> Result<()> {
    scenario::on_fabric("containers_of_two_hosts_by_vxlan", PROBE, |fabric| {
        restart_with(fabric, ["vxlan", "vxlan"])?;
        let runtimes = [Runtime::on(fabric, 0)?, Runtime::on(fabric, 1)?];
        let range = ("10.0.1.0/24", "10.0.1.100-10.0.1.199");
        let networks = [0, 1].map(|idx: usize| runtimes[idx].leased("web", "web", range, "10.0.1.1"));
        let [one, two] = ["one", "two"].map(|id| Container::create(fabric, id));
        let (one, two) = (one?, two?);
        runtimes[0].attach(&one, &networks[0])?;
        let at_two: Ipv4Addr = runtimes[1].attach(&two, &networks[1])?.parse()?;
        // Eight bytes more than by Geneve, which has options.
        let mtu = WORKLOAD_MTU + 8;
        let link = one.netns.ip(&["-o", "link", "show", "eth0"])?;
        ensure!(link.contains(&format!(" mtu {mtu} ")), "{link}");
        reach(&one.netns, at_two)?;
        let probe = &fabric.plan().programs.probe;
        let result = probe.ping(&one.netns, at_two, 3, (mtu - 28) as usize)?;
        ensure!(result.n_received == 3, "packets of {mtu} bytes: {result:?}");
        let _httpd = serve(&fabric.plan().dir, &two)?;
        let got = page(&one.netns, &format!("{at_two}:{SERVER_PORT}"))?;
        ensure!(got == two.id, "the page is {got}");
        checks::all(fabric)?;
        let used = [encapsulations(fabric, 0)?, encapsulations(fabric, 1)?];
        ensure!(used == [["vxlan"], ["vxlan"]], "{used:?}");
        runtimes[0].detach(&one, &networks[0])?;
        runtimes[1].detach(&two, &networks[1])?;
        // Who is sent to decides, as far as the other can follow.
        restart_with(fabric, ["vxlan,geneve", "geneve,vxlan"])?;
        checks::all(fabric)?;
        let used = [encapsulations(fabric, 0)?, encapsulations(fabric, 1)?];
        ensure!(used == [["geneve"], ["vxlan"]], "{used:?}");
        fabric.restart_with(0, "vxlan")?;
        fabric.restart_with(1, "geneve")?;
        stop::wait_for("they have nothing in common, and it is told", LIMIT, || {
            let status = fabric.host(0).control.text(&["status"])?;
            Ok(if status.contains("--encap-type in common") { Ok(()) } else { Err(status) })
        })?;
        ensure!(checks::ping(fabric, "web-1", "web-2", 56).is_err(), "packets pass anyhow");
        restart_with(fabric, ["geneve", "geneve"])?;
        checks::all(fabric)
    })
}

#[test]
fn containers_behind_a_router_with_a_gateway() -> Result<()> {
    on_hosts("containers_behind_a_router_with_a_gateway", |net, runtimes| {
        net.configure(&[
            "switch add pods",
            "switch add pub",
            "switch-port add pub pub-net --network provider --tag 100",
            "router add r",
            "router-port add r r-pods --mac 0a:00:00:00:01:01 --network 10.0.1.1/24",
            "switch-port add pods pods-r --router-port r-pods",
            "router-port add r r-out --mac 0a:00:00:00:02:01 --network 10.99.0.1/24 --gateway h1=20 --gateway h2=10",
            "switch-port add pub pub-r --router-port r-out",
            "nat add r hide --type snat --external 10.99.0.1 --logical 10.0.1.0/24",
        ])?;
        net.wait_converged()?;
        let network = |idx: usize| {
            runtimes[idx].leased("pods", "pods", ("10.0.1.0/24", "10.0.1.100-10.0.1.199"), "10.0.1.1")
        };
        let prefix = net.plan().prefix.clone();
        let [one, two] = ["one", "two"].map(|id| Container::with_prefix(&prefix, id));
        let (one, two) = (one?, two?);
        runtimes[0].attach(&one, &network(0))?;
        let at_two = runtimes[1].attach(&two, &network(1))?;
        reach(&one.netns, at_two.parse()?)?;
        // Out by the router, whose address the outside sees.
        reach(&one.netns, OUTSIDE)?;
        reach(&two.netns, OUTSIDE)?;
        // In by an address of the outside that is the container's alone.
        let _httpd = serve(&net.plan().dir, &two)?;
        net.configure(&[&format!(
            "nat add r float --type dnat-and-snat --external 10.99.0.50 --logical {at_two}"
        )])?;
        stop::wait_for("the outside has the page", LIMIT, || {
            Ok(match page(&net.outside, &format!("10.99.0.50:{SERVER_PORT}")) {
                Ok(page) if page == "two" => Ok(()),
                Ok(page) => Err(page),
                Err(error) => Err(format!("{error:#}")),
            })
        })?;
        runtimes[0].detach(&one, &network(0))?;
        runtimes[1].detach(&two, &network(1))?;
        net.check_conservation()
    })
}

#[test]
fn tenants_with_the_same_addresses() -> Result<()> {
    scenario::on_fabric("tenants_with_the_same_addresses", PROBE, |fabric| {
        let runtimes = [Runtime::on(fabric, 0)?, Runtime::on(fabric, 1)?];
        let tenants = ["red", "blue"];
        for tenant in tenants {
            fabric.control.text(&["switch", "add", tenant])?;
        }
        let range = ("10.9.0.0/24", "10.9.0.1-10.9.0.250");
        let server_address = "10.9.0.50";
        let mut kept = Vec::new();
        for tenant in tenants {
            // The server is on the one host, the client on the other.
            let (mut here, there) = (
                runtimes[0].leased(tenant, tenant, range, ""),
                runtimes[1].leased(tenant, tenant, range, ""),
            );
            here["runtimeConfig"] = serde_json::json!({ "ips": [server_address] });
            let server = Container::create(fabric, &format!("{tenant}-server"))?;
            let client = Container::create(fabric, &format!("{tenant}-client"))?;
            let given = runtimes[0].attach(&server, &here)?;
            ensure!(given == server_address, "{tenant} asked for {server_address} and got {given}");
            runtimes[1].attach(&client, &there)?;
            let httpd = serve(&fabric.plan().dir, &server)?;
            kept.push((server, client, here, there, httpd));
        }
        for (server, client, ..) in &kept {
            let got = page(&client.netns, &format!("{server_address}:{SERVER_PORT}"))?;
            ensure!(got == server.id, "{} reaches {got}, and not its own server", client.id);
        }
        // One tenant's server is gone; the other's is nobody else's.
        runtimes[0].detach(&kept[0].0, &kept[0].2)?;
        let at = server_address.parse()?;
        let result = fabric.plan().programs.probe.ping(&kept[0].1.netns, at, 2, 56)?;
        ensure!(result.n_received == 0, "the red client reaches the blue server");
        let result = fabric.plan().programs.probe.ping(&kept[1].1.netns, at, 2, 56)?;
        ensure!(result.n_received == 2, "the blue client has lost its server");
        runtimes[0].detach(&kept[1].0, &kept[1].2)?;
        for (_, client, _, there, _) in &kept {
            runtimes[1].detach(client, there)?;
        }
        checks::account(fabric)
    })
}

#[test]
fn containers_without_a_network_and_with_the_hosts() -> Result<()> {
    scenario::on_fabric("containers_without_a_network_and_with_the_hosts", PROBE, |fabric: &mut Fabric| {
        let runtime = Runtime::on(fabric, 0)?.with_host_as_gateway();
        let podman = Podman::prepare(fabric, &runtime, 0)?;
        let links = podman.run(&["run", "--rm", "--network", "none", IMAGE, "ip", "-o", "link"])?;
        ensure!(links.lines().count() == 1 && links.contains("lo:"), "{links}");
        podman.run(&["run", "-d", "--name", "server", "--network", "pods", IMAGE, "sleep", "1000"])?;
        let address = ["inspect", "-f", "{{.NetworkSettings.Networks.pods.IPAddress}}", "server"];
        let address = podman.run(&address)?.trim().to_owned();
        // With the host's network it is where the host is: on the underlay, and the gateway of containers.
        for to in ["172.31.0.2", &address] {
            podman.run(&["run", "--rm", "--network", "host", IMAGE, "ping", "-c", "2", "-W", "5", to])?;
        }
        podman.run(&["rm", "-f", "-t", "0", "server"])?;
        checks::account(fabric)
    })
}
