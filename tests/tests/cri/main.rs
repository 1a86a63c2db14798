//! Pods, by containerd's container runtime interface, as Kubernetes uses it.

#![forbid(unsafe_code)]

mod pods;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ferroflow_tests::containerd::Containerd;
use ferroflow_tests::fabric::{Fabric, HOSTS};
use ferroflow_tests::{checks, cni, command, scenario, stop};
use pods::{DnsConfig, Pod, Pods, PortMapping, description};

const PROBE: &str = env!("CARGO_BIN_EXE_ff-probe");
/// How long the daemons may take to tidy up.
const TIDY_LIMIT: Duration = Duration::from_secs(20);
/// Page of the pods' server.
const PAGE: &str = "it works";
/// The server's port on its host.
const HOST_PORT: i32 = 18090;

/// A host that runs pods.
struct Node {
    // Dropped in this order: it takes the runtime to end pods.
    pods: Pods,
    containerd: Containerd,
}

/// containerd on both hosts, with the network that the same line makes on each.
fn start(fabric: &Fabric) -> Result<Vec<Node>> {
    let start = |idx| {
        let containerd = Containerd::start_for_pods(fabric, idx)?;
        let range = "10.0.1.0/24=10.0.1.100-10.0.1.199";
        let words = ["install", "--switch", "web", "--range", range, "--host-gateway", "--names"];
        containerd.cni(&words)?;
        let pods = Pods::of(&containerd).with_context(|| containerd.log_tail())?;
        anyhow::Ok(Node { pods, containerd })
    };
    (0..HOSTS.len()).map(start).collect()
}

fn server(pods: &mut Pods) -> Result<Pod> {
    let mut server = description("web-0", "shop");
    server.port_mappings =
        vec![PortMapping { protocol: 0, container_port: 80, host_port: HOST_PORT, ..PortMapping::default() }];
    pods.run(&server, &["/bin/httpd", "-f", "-h", "/www"])
}

fn client(pods: &mut Pods) -> Result<Pod> {
    let mut client = description("client-0", "shop");
    // Whoever is asked: names that the network knows are answered on the way.
    client.dns_config = Some(DnsConfig {
        servers: vec!["10.0.1.1".to_owned()],
        searches: vec!["shop".to_owned()],
        ..DnsConfig::default()
    });
    pods.run(&client, &["/bin/sleep", "100000"])
}

/// A page by its address, from a pod.
fn page(pods: &Pods, from: &Pod, address: &str) -> Result<()> {
    let got = pods.exec(from, &["/bin/wget", "-q", "-O", "-", &format!("http://{address}/")])?;
    ensure!(got.trim() == PAGE, "{address}: {got}");
    Ok(())
}

/// A page by a port of the first host, from a host.
fn published(fabric: &Fabric, host_idx: usize, address: &str) -> Result<()> {
    let mut curl = fabric.host_netns(host_idx).command("curl");
    let url = format!("http://{address}:{HOST_PORT}/");
    let got = command::output(curl.args(["-sS", "--max-time", "5", &url]), TIDY_LIMIT)?;
    ensure!(got.trim() == PAGE, "{url} from {}: {got}", HOSTS[host_idx].name);
    Ok(())
}

/// All ways to the server.
fn all_ways(fabric: &Fabric, pods: &[&Pods], server: &Pod, client: &Pod) -> Result<()> {
    let address = server.addresses.first().context("the server has an address")?;
    pods[1].exec(client, &["/bin/ping", "-c", "2", "-W", "5", address])?;
    page(pods[1], client, address).context("by its address")?;
    page(pods[1], client, "web-0.shop").context("by its name")?;
    page(pods[1], client, "web-0").context("by its name in the namespace")?;
    published(fabric, 0, "127.0.0.1").context("from the host itself")?;
    published(fabric, 1, HOSTS[0].encap_ip).context("from outside")?;
    let url = format!("{}:{HOST_PORT}", HOSTS[0].encap_ip);
    page(pods[1], client, &url).context("from a pod of another host")?;
    page(pods[0], server, &url).context("from itself, by the host's port")
}

/// No trace of any pod is left.
fn nothing_is_left(fabric: &Fabric) -> Result<()> {
    stop::wait_for("nothing is left of the pods", TIDY_LIMIT, || {
        for (idx, host) in HOSTS.iter().enumerate() {
            fabric.host(idx).control.text(&["endpoint", "release"])?;
            let ends = cni::host_ends(fabric, idx)?;
            let mut nft = fabric.host_netns(idx).command("nft");
            let tables = command::output(nft.args(["list", "tables"]), command::SHORT)?;
            if !ends.is_empty() || tables.contains("ferroflow") {
                return Ok(Err(format!("{} still has {ends:?} {tables}", host.name)));
            }
        }
        let names = fabric.control.json(&["names", "list"])?.to_string();
        let ports = fabric.control.json(&["switch-port", "list"])?.to_string();
        let switch = fabric.control.json(&["switch", "list"])?.to_string();
        let is_left = [&names, &ports, &switch].iter().any(|text| {
            text.contains("names/containers-") || text.contains("lease-") || text.contains("web-0")
        });
        Ok(if is_left { Err(format!("{names} {ports} {switch}")) } else { Ok(()) })
    })
}

#[test]
fn pods_of_two_hosts_outlive_every_daemon_and_leave_nothing() -> Result<()> {
    scenario::on_fabric("pods_of_two_hosts_outlive_every_daemon_and_leave_nothing", PROBE, |fabric| {
        let mut nodes = start(fabric)?;
        let server = server(&mut nodes[0].pods).with_context(|| nodes[0].containerd.log_tail())?;
        let client = client(&mut nodes[1].pods).with_context(|| nodes[1].containerd.log_tail())?;
        let all = |fabric: &Fabric, nodes: &[Node]| {
            let pods: Vec<_> = nodes.iter().map(|node| &node.pods).collect();
            all_ways(fabric, &pods, &server, &client)
        };
        all(fabric, &nodes)?;
        for Node { containerd, pods } in &mut nodes {
            containerd.restart()?;
            pods.wait_ready()?;
        }
        all(fabric, &nodes).context("after a restart of containerd")?;
        for idx in 0..HOSTS.len() {
            fabric.switch(idx).context("vswitchd runs")?.kill()?;
            fabric.start_switch(idx)?;
        }
        fabric.wait_converged()?;
        all(fabric, &nodes).context("after a restart of vswitchd")?;
        fabric.controller().context("the controller runs")?.kill()?;
        all(fabric, &nodes).context("without the controller")?;
        let late = nodes[0].pods.run(&description("late-0", "shop"), &["/bin/sleep", "100000"])?;
        let to = client.addresses.first().context("the client has an address")?;
        nodes[0].pods.exec(&late, &["/bin/ping", "-c", "2", "-W", "5", to])?;
        fabric.start_controller()?;
        fabric.wait_converged()?;
        all(fabric, &nodes).context("after a restart of the controller")?;
        nodes[0].pods.remove(&late)?;
        nodes[0].pods.remove(&server)?;
        nodes[1].pods.remove(&client)?;
        drop(nodes);
        nothing_is_left(fabric)?;
        checks::account(fabric)
    })
}
