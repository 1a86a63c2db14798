//! Containers by the Container Network Interface: the plugin, called as a runtime does.

#![forbid(unsafe_code)]

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ferroflow_tests::cni::{self, Container, Runtime};
use ferroflow_tests::daemon::{Daemon, Life};
use ferroflow_tests::fabric::{Fabric, HOSTS, WORKLOAD_MTU};
use ferroflow_tests::netns::Netns;
use ferroflow_tests::{checks, command, random, scenario, stop};
use serde_json::{Value, json};

const PROBE: &str = env!("CARGO_BIN_EXE_ff-probe");
/// How long the daemons may take to tidy up.
const TIDY_LIMIT: Duration = Duration::from_secs(20);

fn ping(fabric: &Fabric, from: &Container, to: &str) -> Result<()> {
    let to: Ipv4Addr = to.parse()?;
    let result = fabric.plan().programs.probe.ping(&from.netns, to, 3, 56)?;
    ensure!(result.n_received == 3, "{} got {} answers of 3 from {to}", from.id, result.n_received);
    Ok(())
}

/// No trace of any container is left: on no host, in no namespace, in the network, in the pool of addresses.
fn nothing_is_left(fabric: &Fabric, runtimes: &[Runtime]) -> Result<()> {
    stop::wait_for("nothing is left of the containers", TIDY_LIMIT, || {
        for (idx, runtime) in runtimes.iter().enumerate() {
            let ends = cni::host_ends(fabric, idx)?;
            if !ends.is_empty() {
                return Ok(Err(format!("{} still has {ends:?}", HOSTS[idx].name)));
            }
            let taken = runtime.taken_addresses()?;
            if !taken.is_empty() {
                return Ok(Err(format!("{} still has the addresses {taken:?}", HOSTS[idx].name)));
            }
            let mut nft = fabric.host_netns(idx).command("nft");
            let tables = command::output(nft.args(["list", "tables"]), command::SHORT)?;
            if tables.contains("ferroflow") {
                return Ok(Err(format!("{} still has {tables}", HOSTS[idx].name)));
            }
            let ports = fabric.host(idx).control.ports()?;
            if let Some(port) = ports.iter().find(|port| port.name.starts_with("vc")) {
                return Ok(Err(format!("{} still has the port {}", HOSTS[idx].name, port.name)));
            }
        }
        let places = fabric.control.places()?;
        match places.iter().find(|place| place.id.contains("-eth0-") || place.id.contains("-vh")) {
            Some(place) => Ok(Err(format!("the network still has the port {}", place.id))),
            None => Ok(Ok(())),
        }
    })
}

fn runtimes(fabric: &Fabric) -> Result<Vec<Runtime>> {
    (0..HOSTS.len()).map(|idx| Runtime::on(fabric, idx)).collect()
}

#[test]
fn containers_of_two_hosts_talk_and_leave_nothing_in_each_version() -> Result<()> {
    scenario::on_fabric("containers_of_two_hosts_talk_and_leave_nothing_in_each_version", PROBE, |fabric| {
        let runtimes = runtimes(fabric)?;
        for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
            in_version(fabric, &runtimes, version).context(version)?;
        }
        nothing_is_left(fabric, &runtimes)?;
        checks::account(fabric)
    })
}

fn in_version(fabric: &Fabric, runtimes: &[Runtime], version: &str) -> Result<()> {
    let containers = [Container::create(fabric, "c1")?, Container::create(fabric, "c2")?];
    let mut results = Vec::new();
    for (runtime, container) in runtimes.iter().zip(&containers) {
        let result = runtime.add(container, version)?;
        check_result(&result, container, version)?;
        results.push(result);
    }
    let other = cni::address(&results[1])?;
    // ADD has answered, so packets pass: the first one, and to everybody.
    ping(fabric, &containers[0], &other)?;
    ping(fabric, &containers[0], "10.0.1.1")?;
    ping(fabric, &containers[1], "10.0.2.11")?;
    let inside = containers[0].netns.ip(&["-o", "link", "show", "dev", "eth0"])?;
    ensure!(inside.contains(&format!("mtu {WORKLOAD_MTU}")), "{inside}");
    for ((runtime, container), result) in runtimes.iter().zip(&containers).zip(&results) {
        check_verbs(runtime, container, result, version)?;
        runtime.del(&container.id, &container.path(), version)?;
        ensure!(container.netns.ip(&["link", "show", "dev", "eth0"]).is_err(), "eth0 is still there");
        // A runtime asks again, and without the namespace.
        runtime.del(&container.id, "", version)?;
    }
    Ok(())
}

fn check_result(result: &Value, container: &Container, version: &str) -> Result<()> {
    ensure!(result["cniVersion"] == version, "{result}");
    let interfaces = result["interfaces"].as_array().context("no interfaces")?;
    ensure!(interfaces.len() == 2 && interfaces[0].get("sandbox").is_none(), "{result}");
    let container_end = json!({ "name": interfaces[1]["name"], "sandbox": interfaces[1]["sandbox"] });
    ensure!(container_end == json!({ "name": "eth0", "sandbox": container.path() }), "{result}");
    ensure!(result["ips"][0]["interface"] == 1, "{result}");
    ensure!((result["ips"][0]["version"] == "4") == version.starts_with('0'), "{result}");
    ensure!(result["routes"][0]["dst"] == "0.0.0.0/0", "{result}");
    Ok(())
}

fn check_verbs(runtime: &Runtime, container: &Container, result: &Value, version: &str) -> Result<()> {
    let mut config = runtime.config(version);
    config["prevResult"] = result.clone();
    let call = |verb: &str, config: &Value| runtime.call(verb, &container.id, &container.path(), config);
    let checked = call("CHECK", &config)?;
    if version == "0.3.1" {
        ensure!(checked.is_err_and(|error| error["code"] == 1), "CHECK is newer than 0.3.1");
    } else {
        ensure!(checked == Ok(Value::Null), "CHECK: {checked:?}");
        container.netns.ip(&["route", "del", "default"])?;
        let checked = call("CHECK", &config)?;
        ensure!(checked.is_err(), "CHECK does not see that the route is gone");
    }
    let status = call("STATUS", &config)?;
    ensure!((version == "1.1.0") == status.is_ok(), "STATUS: {status:?}");
    if version == "1.1.0" {
        config["switch"] = "nowhere".into();
        let status = call("STATUS", &config)?;
        ensure!(status.as_ref().is_err_and(|error| error["code"] == 50), "STATUS: {status:?}");
    }
    let versions = call("VERSION", &json!({ "cniVersion": version }))?;
    ensure!(versions.is_ok_and(|answer| answer["supportedVersions"][3] == "1.1.0"));
    Ok(())
}

#[test]
fn wrong_requests_are_refused_and_leave_nothing() -> Result<()> {
    scenario::on_fabric("wrong_requests_are_refused_and_leave_nothing", PROBE, |fabric| {
        let runtimes = runtimes(fabric)?;
        let runtime = &runtimes[0];
        let container = Container::create(fabric, "c1")?;
        let path = container.path();
        let with = |field: &str, value: Value| {
            let mut config = runtime.config("1.0.0");
            config[field] = value;
            config
        };
        let cases = [
            ("another version", with("cniVersion", "2.0.0".into()), path.as_str(), 1),
            ("no switch", with("switch", "".into()), &path, 7),
            ("a switch that is not there", with("switch", "nowhere".into()), &path, 100),
            ("no IPAM", with("ipam", Value::Null), &path, 7),
            ("an IPAM that is not there", with("ipam", json!({ "type": "nobody" })), &path, 7),
            ("an IPAM that is a path", with("ipam", json!({ "type": "../x" })), &path, 7),
            ("too large an MTU", with("mtu", 9000.into()), &path, 7),
            ("a namespace that is none", runtime.config("1.0.0"), "/etc/hostname", 3),
            ("a namespace that is not there", runtime.config("1.0.0"), "/run/netns/nobody", 3),
        ];
        for (what, config, netns, code) in cases {
            let answer = runtime.call("ADD", "c1", netns, &config)?;
            let error = answer.err().with_context(|| format!("{what} is not refused"))?;
            ensure!(error["code"] == code, "{what}: {error}");
            ensure!(error["msg"].as_str().is_some_and(|text| !text.is_empty()), "{what}: {error}");
        }
        // An interface of that name is the container's own.
        container.netns.ip(&["link", "add", "eth0", "type", "veth", "peer", "name", "other"])?;
        let answer = runtime.call("ADD", "c1", &path, &runtime.config("1.0.0"))?;
        ensure!(answer.is_err_and(|error| error.to_string().contains("has an interface eth0 already")));
        container.netns.ip(&["link", "show", "dev", "eth0"])?;
        nothing_is_left(fabric, &runtimes)
    })
}

#[test]
fn a_daemon_that_is_not_there_stops_no_container() -> Result<()> {
    scenario::on_fabric("a_daemon_that_is_not_there_stops_no_container", PROBE, |fabric| {
        let runtimes = runtimes(fabric)?;
        let [kept, ended] = [Container::create(fabric, "c1")?, Container::create(fabric, "c2")?];
        runtimes[0].add(&kept, "1.0.0")?;
        runtimes[0].add(&ended, "1.0.0")?;
        fabric.switch(0).context("vswitchd runs")?.kill()?;
        let late = Container::create(fabric, "c3")?;
        let refused = runtimes[0].call("ADD", "c3", &late.path(), &runtimes[0].config("1.0.0"))?;
        ensure!(refused.as_ref().is_err_and(|error| error["code"] == 11), "{refused:?}");
        runtimes[0].del("c2", &ended.path(), "1.0.0")?;
        fabric.start_switch(0)?;
        fabric.wait_converged()?;
        // The one that went meanwhile is gone, the other has its network as before.
        stop::wait_for("one container is left", TIDY_LIMIT, || {
            let ends = cni::host_ends(fabric, 0)?;
            Ok(if ends.len() == 1 { Ok(()) } else { Err(format!("{ends:?}")) })
        })?;
        stop::wait_for("the other one has its network", TIDY_LIMIT, || {
            Ok(ping(fabric, &kept, "10.0.1.12").map_err(|error| format!("{error:#}")))
        })?;
        runtimes[0].del("c1", &kept.path(), "1.0.0")?;
        nothing_is_left(fabric, &runtimes)?;
        checks::account(fabric)
    })
}

#[test]
fn a_controller_that_is_not_there_is_told_later() -> Result<()> {
    scenario::on_fabric("a_controller_that_is_not_there_is_told_later", PROBE, |fabric| {
        let runtimes = runtimes(fabric)?;
        let [ended, late] = [Container::create(fabric, "c1")?, Container::create(fabric, "c2")?];
        runtimes[0].add(&ended, "1.0.0")?;
        fabric.controller().context("the controller runs")?.kill()?;
        let refused = runtimes[0].call("ADD", "c2", &late.path(), &runtimes[0].config("1.0.0"))?;
        ensure!(refused.as_ref().is_err_and(|error| error["code"] == 11), "{refused:?}");
        ensure!(late.netns.ip(&["link", "show", "dev", "eth0"]).is_err(), "half an attachment is left");
        runtimes[0].del("c1", &ended.path(), "1.0.0")?;
        fabric.start_controller()?;
        fabric.wait_converged()?;
        nothing_is_left(fabric, &runtimes)
    })
}

#[test]
fn many_come_and_go_at_once_and_a_kill_leaves_nothing() -> Result<()> {
    const N_CONTAINERS: usize = 24;
    scenario::on_fabric("many_come_and_go_at_once_and_a_kill_leaves_nothing", PROBE, |fabric| {
        let runtimes = runtimes(fabric)?;
        let runtime = &runtimes[0];
        let mut containers = Vec::new();
        for idx in 0..N_CONTAINERS {
            containers.push(Container::create(fabric, &format!("c{idx}"))?);
        }
        let start = Instant::now();
        std::thread::scope(|scope| {
            let adding: Vec<_> = containers
                .iter()
                .map(|container| scope.spawn(|| runtime.add(container, "1.1.0").map(drop)))
                .collect();
            adding.into_iter().try_for_each(|thread| thread.join().expect("the thread ends"))
        })?;
        println!("{N_CONTAINERS} containers attached in {:.1} s", start.elapsed().as_secs_f64());
        for container in &containers {
            ping(fabric, container, "10.0.1.12")?;
        }
        collect_garbage(fabric, runtime, &containers)?;
        killed_at_any_time(fabric, runtime, &containers[N_CONTAINERS / 2..])?;
        for container in &containers {
            runtime.del(&container.id, &container.path(), "1.1.0")?;
        }
        nothing_is_left(fabric, &runtimes)?;
        checks::account(fabric)
    })
}

/// GC takes away what the runtime does not name.
fn collect_garbage(fabric: &Fabric, runtime: &Runtime, containers: &[Container]) -> Result<()> {
    let (kept, stale) = containers.split_at(containers.len() / 2);
    let mut config = runtime.config("1.1.0");
    config["cni.dev/valid-attachments"] =
        kept.iter().map(|container| json!({ "containerID": container.id, "ifname": "eth0" })).collect();
    let answer = runtime.call("GC", "", "", &config)?;
    ensure!(answer == Ok(Value::Null), "{answer:?}");
    ensure!(cni::host_ends(fabric, 0)?.len() == kept.len(), "GC left other interfaces than it was told to");
    for container in stale {
        ensure!(
            container.netns.ip(&["link", "show", "dev", "eth0"]).is_err(),
            "{} is still attached",
            container.id
        );
        runtime.del(&container.id, &container.path(), "1.1.0")?;
    }
    ping(fabric, &kept[0], "10.0.1.12")
}

/// Plugin and daemon are killed while containers come and go; a DEL afterwards always succeeds.
fn killed_at_any_time(fabric: &mut Fabric, runtime: &Runtime, containers: &[Container]) -> Result<()> {
    let mut random = random::Random::new(7);
    for container in containers {
        let mut command =
            runtime.command("ADD", &container.id, &container.path(), &runtime.config("1.1.0"))?;
        // Killed at its limit, with its children.
        let limit = Duration::from_millis(random.below(60));
        let cut_short = command::run(&mut command, limit);
        if random.chance(1, 4) {
            fabric.switch(0).context("vswitchd runs")?.kill()?;
            runtime.del(&container.id, &container.path(), "1.1.0")?;
            fabric.start_switch(0)?;
        }
        drop(cut_short);
    }
    fabric.wait_converged()
}

/// What the server in a container says.
const PAGE: &str = "it works";
/// Where it listens.
const SERVER_PORT: &str = "8080";

/// Starts a server in a container.
fn serve(fabric: &Fabric, container: &Container) -> Result<Daemon> {
    let dir = fabric.plan().dir.join("www");
    fs::create_dir_all(&dir)?;
    fs::write(dir.join("index.html"), PAGE)?;
    let args = ["httpd", "-f", "-p", SERVER_PORT, "-h", dir.to_str().context("not UTF-8")?];
    let log = fabric.plan().dir.join("httpd.log");
    Daemon::start(&container.netns, Path::new("/bin/busybox"), &args, &log, Life::WithParent)
}

/// The server answers by this address.
fn page(from: &Netns, address: &str) -> Result<()> {
    let mut curl = from.command("curl");
    curl.args(["-sS", "--max-time", "5", "--retry", "3", "--retry-connrefused"]);
    let got = command::output(curl.arg(format!("http://{address}/")), Duration::from_secs(20))?;
    ensure!(got == PAGE, "{address} from {}: {got}", from.name());
    Ok(())
}

/// All ways to the server, and out.
fn published(fabric: &Fabric, server: &Container, client: &Container) -> Result<()> {
    let (inside, outside) = (fabric.host_netns(0), fabric.host_netns(1));
    for from in [inside, outside, &client.netns, &server.netns] {
        for address in ["172.31.0.1:18080", "[fd99::1]:18080"] {
            page(from, address)?;
        }
    }
    page(inside, "127.0.0.1:18080")?;
    // Not where it was not asked for.
    let mut curl = outside.command("curl");
    let got = command::run(curl.args(["-s", "--max-time", "1", "http://172.31.0.1:18081/"]), command::SHORT)?;
    ensure!(!got.status.success(), "port 18081 is open to others than the host itself");
    page(inside, "127.0.0.1:18081")?;
    for (to, word) in [("172.31.0.2", "-4"), ("fd99::2", "-6")] {
        let mut ping = client.netns.command("ping");
        command::output(ping.args([word, "-c", "2", "-W", "5", to]), Duration::from_secs(20))?;
    }
    ping(fabric, client, "10.0.1.12")
}

#[test]
fn ports_of_the_host_lead_to_containers() -> Result<()> {
    scenario::on_fabric("ports_of_the_host_lead_to_containers", PROBE, |fabric| {
        let runtimes: Vec<_> = runtimes(fabric)?.into_iter().map(Runtime::with_host_as_gateway).collect();
        for (idx, address) in ["fd99::1/64", "fd99::2/64"].into_iter().enumerate() {
            fabric.host_netns(idx).ip(&["address", "add", address, "dev", "underlay", "nodad"])?;
        }
        let [server, client, third] = ["c1", "c2", "c3"].map(|id| Container::create(fabric, id));
        let (server, client, third) = (server?, client?, third?);
        let mut config = runtimes[0].config("1.0.0");
        config["runtimeConfig"] = json!({ "portMappings": [
            { "hostPort": 18080, "containerPort": 8080, "protocol": "tcp", "hostIP": "" },
            { "hostPort": 18081, "containerPort": 8080, "protocol": "tcp", "hostIP": "127.0.0.1" },
        ]});
        let add = |container: &Container, config: &Value| {
            runtimes[0].call("ADD", &container.id, &container.path(), config)
        };
        let added = add(&server, &config)?;
        ensure!(added.is_ok(), "{added:?}");
        runtimes[0].add(&client, "1.0.0")?;
        let _httpd = serve(fabric, &server)?;
        published(fabric, &server, &client)?;
        // A port leads to one container; a router's network has none.
        let refused = add(&third, &config)?;
        ensure!(refused.as_ref().is_err_and(|error| error.to_string().contains("leads to")), "{refused:?}");
        config["gateway"] = "router".into();
        let refused = add(&third, &config)?;
        ensure!(refused.as_ref().is_err_and(|error| error["code"] == 7), "{refused:?}");
        apart(fabric, &runtimes[0], &third, &server)?;
        fabric.switch(0).context("vswitchd runs")?.kill()?;
        fabric.start_switch(0)?;
        fabric.wait_converged()?;
        published(fabric, &server, &client).context("after a restart of vswitchd")?;
        runtimes[0].del("c1", &server.path(), "1.0.0")?;
        let mut curl = fabric.host_netns(1).command("curl");
        let got =
            command::run(curl.args(["-s", "--max-time", "1", "http://172.31.0.1:18080/"]), command::SHORT)?;
        ensure!(!got.status.success(), "port 18080 is still open");
        ping(fabric, &client, "172.31.0.2")?;
        runtimes[0].del("c2", "", "1.0.0")?;
        nothing_is_left(fabric, &runtimes)?;
        checks::account(fabric)
    })
}

/// Another network whose gateway is the same host is not a way to this one.
fn apart(fabric: &Fabric, runtime: &Runtime, third: &Container, server: &Container) -> Result<()> {
    let mut config = runtime.config("1.0.0");
    config["name"] = "others".into();
    config["switch"] = "db".into();
    config["ipam"]["ranges"] =
        json!([[{ "subnet": "10.0.2.0/24", "rangeStart": "10.0.2.100", "gateway": "10.0.2.100" }]]);
    config["ipam"]["routes"] = json!([{ "dst": "0.0.0.0/0" }]);
    let added = runtime.call("ADD", &third.id, &third.path(), &config)?;
    ensure!(added.is_ok(), "{added:?}");
    let inside = server.netns.ip(&["-4", "-o", "address", "show", "dev", "eth0"])?;
    let address =
        inside.split_whitespace().find_map(|word| word.strip_suffix("/24")).context("no address")?;
    let result = fabric.plan().programs.probe.ping(&third.netns, address.parse()?, 2, 56)?;
    ensure!(result.n_received == 0, "a container of another network reaches {address} through the host");
    page(&third.netns, "172.31.0.1:18080")?;
    let deleted = runtime.call("DEL", &third.id, &third.path(), &config)?;
    ensure!(deleted.is_ok(), "{deleted:?}");
    Ok(())
}

/// Bits per second of a transfer.
fn rate(fabric: &Fabric, from: &Netns, (to, address): (&Netns, Ipv4Addr)) -> Result<f64> {
    const LEN: u64 = 2 << 20;
    let probe = &fabric.plan().programs.probe;
    let to = (to, SocketAddrV4::new(address, 9000));
    let (_, received) = probe.transfer(from, to, LEN, Duration::from_secs(60))?;
    ensure!(received.len == LEN, "{} bytes arrived", received.len);
    Ok(LEN as f64 * 8.0 / received.took.as_secs_f64())
}

#[test]
fn a_container_sends_and_receives_no_more_than_it_may() -> Result<()> {
    const LIMIT_BPS: f64 = 8e6;
    scenario::on_fabric("a_container_sends_and_receives_no_more_than_it_may", PROBE, |fabric| {
        let runtimes = runtimes(fabric)?;
        let container = Container::create(fabric, "c1")?;
        let other = fabric.workload("web-1")?;
        let with = |bandwidth: Value| {
            let mut config = runtimes[0].config("1.0.0");
            config["runtimeConfig"] = json!({ "bandwidth": bandwidth });
            config
        };
        // As containerd writes it, as others do, and not at all.
        for (bandwidth, is_slow) in [
            (json!({ "IngressRate": 8_000_000, "IngressBurst": 400_000, "EgressRate": 0 }), [true, false]),
            (json!({ "egressRate": 8_000_000, "egressBurst": 400_000 }), [false, true]),
            (Value::Null, [false, false]),
        ] {
            let answer = runtimes[0].call("ADD", "c1", &container.path(), &with(bandwidth.clone()))?;
            let result = answer.map_err(|error| anyhow::anyhow!("{error}"))?;
            let inside = (&container.netns, cni::address(&result)?.parse()?);
            let outside = (&other.netns, other.plan.address);
            let rates = [rate(fabric, outside.0, inside)?, rate(fabric, inside.0, outside)?];
            for (rate, is_slow) in rates.into_iter().zip(is_slow) {
                ensure!(
                    (rate < LIMIT_BPS * 1.5) == is_slow,
                    "{bandwidth}: received, sent at {rates:?} bit/s"
                );
            }
            runtimes[0].del("c1", &container.path(), "1.0.0")?;
        }
        let answer = runtimes[0].call("ADD", "c1", &container.path(), &with(json!({ "ingressRate": 1 })))?;
        ensure!(answer.as_ref().is_err_and(|error| error["code"] == 7), "{answer:?}");
        let rules = fabric.control.json(&["qos-rule", "list"])?.to_string();
        ensure!(!rules.contains("c1-eth0"), "{rules}");
        nothing_is_left(fabric, &runtimes)?;
        checks::account(fabric)
    })
}
