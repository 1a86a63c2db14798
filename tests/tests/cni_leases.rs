//! Addresses that hosts lease: containers come and go without the controller, and no address has two owners.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use ferroflow_tests::cni::{self, Container, Runtime};
use ferroflow_tests::command;
use ferroflow_tests::fabric::{Fabric, HOSTS};
use ferroflow_tests::{checks, scenario, stop};
use serde_json::{Value, json};

const PROBE: &str = env!("CARGO_BIN_EXE_ff-probe");
/// How long the daemons may take to tidy up.
const TIDY_LIMIT: Duration = Duration::from_secs(20);

/// The network's configuration, the same on both hosts but for the socket.
fn config(runtime: &Runtime) -> Value {
    let mut config = runtime.config("1.0.0");
    config["ipam"] = json!({
        "type": "ferroflow",
        "ranges": [
            [{ "subnet": "10.0.1.0/24", "rangeStart": "10.0.1.1", "rangeEnd": "10.0.1.127", "gateway": "10.0.1.1" }],
            [{ "subnet": "fd01::/64", "gateway": "fd01::ffff" }],
        ],
        "routes": [{ "dst": "0.0.0.0/0" }],
    });
    config
}

fn add(runtime: &Runtime, container: &Container, config: &Value) -> Result<String> {
    match runtime.call("ADD", &container.id, &container.path(), config)? {
        Ok(result) => {
            let interfaces = (&result["ips"][0]["interface"], &result["ips"][1]["interface"]);
            ensure!(interfaces == (&json!(1), &json!(1)), "{result}");
            ensure!(result["ips"][0]["gateway"] == "10.0.1.1", "{result}");
            cni::address(&result)
        }
        Err(error) => bail!("ADD of {} failed: {error}", container.id),
    }
}

fn ping(fabric: &Fabric, from: &Container, to: &str) -> Result<()> {
    let to: Ipv4Addr = to.parse()?;
    let result = fabric.plan().programs.probe.ping(&from.netns, to, 3, 56)?;
    ensure!(result.n_received == 3, "{} got {} answers of 3 from {to}", from.id, result.n_received);
    Ok(())
}

/// The IPv6 address of a container's interface.
fn address_v6(container: &Container) -> Result<String> {
    let shown = container.netns.ip(&["-6", "-o", "address", "show", "dev", "eth0", "scope", "global"])?;
    let address = shown.split_whitespace().find_map(|word| word.strip_suffix("/64"));
    address.map(str::to_owned).with_context(|| format!("no IPv6 address: {shown}"))
}

#[test]
fn containers_come_and_go_without_the_controller() -> Result<()> {
    scenario::on_fabric("containers_come_and_go_without_the_controller", PROBE, |fabric| {
        let runtimes = [Runtime::on(fabric, 0)?, Runtime::on(fabric, 1)?];
        let configs = [config(&runtimes[0]), config(&runtimes[1])];
        let names = ["c0", "c1", "c2", "c3", "c4", "c5"];
        let containers =
            names.map(|id| Container::create(fabric, id)).into_iter().collect::<Result<Vec<_>>>()?;
        let here = |fabric: &Fabric, container: &Container| -> Result<String> {
            let address = add(&runtimes[0], container, &configs[0])?;
            // The first packet passes: to this host, to another, and by the router.
            ping(fabric, container, "10.0.1.12")?;
            ping(fabric, container, "10.0.2.12")?;
            Ok(address)
        };
        let mut given = BTreeSet::from([here(fabric, &containers[0])?]);
        let far = add(&runtimes[1], &containers[1], &configs[1])?;
        ensure!(given.insert(far.clone()), "{far} was given by both hosts");
        ping(fabric, &containers[0], &far)?;
        let mut ping6 = containers[0].netns.command("ping");
        command::output(ping6.args(["-6", "-c", "1", "-W", "5", &address_v6(&containers[1])?]), TIDY_LIMIT)?;
        fabric.controller().context("the controller runs")?.kill()?;
        let third = here(fabric, &containers[2])?;
        ensure!(given.insert(third.clone()), "{third} has two owners");
        ping(fabric, &containers[1], &third)?;
        // One that came back is not given again at once.
        runtimes[0].del("c0", "", "1.0.0")?;
        let fourth = here(fabric, &containers[3])?;
        ensure!(given.insert(fourth.clone()), "{fourth} is given again at once");
        fabric.switch(0).context("vswitchd runs")?.kill()?;
        fabric.start_switch(0)?;
        stop::wait_for("the others have their network", TIDY_LIMIT, || {
            Ok(ping(fabric, &containers[3], &far).map_err(|error| format!("{error:#}")))
        })?;
        let fifth = here(fabric, &containers[4])?;
        ensure!(given.insert(fifth.clone()), "{fifth} has two owners after a restart");
        fabric.start_controller()?;
        fabric.wait_converged()?;
        told(fabric)?;
        named(fabric, &runtimes[0], &configs[0], &containers[5], &fifth)?;
        for (container, runtime) in containers.iter().zip([0, 1, 0, 0, 0, 0]) {
            let deleted = runtimes[runtime].call("DEL", &container.id, "", &configs[runtime])?;
            ensure!(deleted.is_ok(), "{deleted:?}");
        }
        nothing_is_left(fabric)?;
        checks::account(fabric)
    })
}

/// The network learns, later, whose ports they are.
fn told(fabric: &Fabric) -> Result<()> {
    stop::wait_for("the network knows the containers", TIDY_LIMIT, || {
        let ports = fabric.control.json(&["switch-port", "list", "-l", "container=c4"])?.to_string();
        Ok(if ports.contains("lease-") { Ok(()) } else { Err(ports) })
    })
}

/// Addresses and MAC addresses that are asked for.
fn named(
    fabric: &Fabric,
    runtime: &Runtime,
    config: &Value,
    container: &Container,
    taken: &str,
) -> Result<()> {
    let mut config = config.clone();
    config["runtimeConfig"] = json!({ "ips": ["10.0.1.99", "10.0.1.99/24"], "mac": "02:00:00:00:00:99" });
    let address = add(runtime, container, &config)?;
    ensure!(address == "10.0.1.99", "asked for 10.0.1.99, got {address}");
    let link = container.netns.ip(&["link", "show", "dev", "eth0"])?;
    ensure!(link.contains("02:00:00:00:00:99"), "{link}");
    ping(fabric, container, "10.0.1.12")?;
    let deleted = runtime.call("DEL", &container.id, "", &config)?;
    ensure!(deleted.is_ok(), "{deleted:?}");
    // It rests, but who names it gets it.
    add(runtime, container, &config)?;
    let deleted = runtime.call("DEL", &container.id, "", &config)?;
    ensure!(deleted.is_ok(), "{deleted:?}");
    for (ips, code) in [(taken, 100), ("10.0.1.1", 100), ("10.0.1.11", 100), ("10.9.9.9", 7)] {
        config["runtimeConfig"] = json!({ "ips": [ips] });
        let refused = runtime.call("ADD", &container.id, &container.path(), &config)?;
        ensure!(refused.as_ref().is_err_and(|error| error["code"] == code), "{ips}: {refused:?}");
    }
    Ok(())
}

/// What is leased and not used is given back when it is asked for.
fn nothing_is_left(fabric: &Fabric) -> Result<()> {
    for (idx, host) in HOSTS.iter().enumerate() {
        let ends = cni::host_ends(fabric, idx)?;
        ensure!(ends.is_empty(), "{} still has {ends:?}", host.name);
        fabric.host(idx).control.text(&["endpoint", "release"])?;
    }
    let left = fabric.control.places()?;
    let left: Vec<_> =
        left.iter().filter(|place| place.id.starts_with("lease-")).map(|place| &place.id).collect();
    ensure!(left.is_empty(), "the network still has {left:?}");
    Ok(())
}

#[test]
fn hosts_that_lease_at_once_share_no_address_and_say_when_there_is_none() -> Result<()> {
    scenario::on_fabric("hosts_that_lease_at_once_share_no_address", PROBE, |fabric| {
        const N_CONTAINERS: usize = 15;
        let runtimes = [Runtime::on(fabric, 0)?, Runtime::on(fabric, 1)?];
        let configs: Vec<_> = runtimes
            .iter()
            .map(|runtime| {
                // Two blocks, in two ranges: 32 places without those of the gateway and of web-2.
                let mut config = config(runtime);
                config["ipam"]["ranges"] = json!([[
                    { "subnet": "10.0.1.0/24", "rangeStart": "10.0.1.1", "rangeEnd": "10.0.1.16", "gateway": "10.0.1.1" },
                    { "subnet": "10.0.1.0/24", "rangeStart": "10.0.1.33", "rangeEnd": "10.0.1.48", "gateway": "10.0.1.1" },
                ]]);
                config
            })
            .collect();
        let containers = (0..2 * N_CONTAINERS)
            .map(|idx| Container::create(fabric, &format!("c{idx}")))
            .collect::<Result<Vec<_>>>()?;
        let answers: Vec<_> = std::thread::scope(|scope| {
            let adding: Vec<_> = containers
                .iter()
                .enumerate()
                .map(|(idx, container)| {
                    let (runtime, config) = (&runtimes[idx % 2], &configs[idx % 2]);
                    scope.spawn(|| runtime.call("ADD", &container.id, &container.path(), config))
                })
                .collect();
            adding.into_iter().map(|thread| thread.join().expect("the thread ends")).collect::<Result<_>>()
        })?;
        let given: Vec<_> = answers.iter().flatten().map(cni::address).collect::<Result<_>>()?;
        let distinct: BTreeSet<_> = given.iter().collect();
        ensure!(distinct.len() == given.len(), "an address has two owners: {given:?}");
        // 10.0.1.1 is the router's, 10.0.1.11 and .12 are those of workloads that are no containers.
        ensure!(given.len() >= 2 * N_CONTAINERS - 5 && given.len() <= 29, "{} addresses given", given.len());
        for error in answers.iter().filter_map(|answer| answer.as_ref().err()) {
            ensure!(error.to_string().contains("no address is free"), "{error}");
        }
        for (idx, container) in containers.iter().enumerate() {
            let deleted = runtimes[idx % 2].call("DEL", &container.id, "", &configs[idx % 2])?;
            ensure!(deleted.is_ok(), "{deleted:?}");
        }
        nothing_is_left(fabric)?;
        checks::account(fabric)
    })
}
