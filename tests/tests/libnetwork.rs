//! Docker's network driver, asked as Docker asks it, while it and whatever it needs is killed at any time.

#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ferroflow_tests::daemon::Daemon;
use ferroflow_tests::fabric::{Fabric, HOSTS};
use ferroflow_tests::libnetwork::{ask, kept, start};
use ferroflow_tests::random::Random;
use ferroflow_tests::{checks, cni, scenario, stop};
use serde_json::{Value, json};

const PROBE: &str = env!("CARGO_BIN_EXE_ff-probe");
/// Attachments and detachments with kills.
const N_CYCLES: usize = if cfg!(debug_assertions) { 100 } else { 500 };
const N_WORKERS: usize = 8;
/// So often something is killed among them: the driver, vswitchd, the controller, in turn.
const CYCLES_PER_KILL: usize = 12;
/// Docker's id of the network.
const NETWORK: &str = "5c3f0e8a1b2d4c6f5c3f0e8a1b2d4c6f5c3f0e8a1b2d4c6f5c3f0e8a1b2d4c6f";
/// How long the daemons may take to tidy up.
const TIDY_LIMIT: Duration = Duration::from_secs(60);

/// A question that Docker goes on without if it is refused.
fn try_ask(dir: &Path, method: &str, question: &Value) -> Option<Value> {
    ask(dir, method, question).ok()?.ok()
}

/// A question that has to have its answer.
fn must(dir: &Path, method: &str, question: &Value) -> Result<Value> {
    ask(dir, method, question)?.map_err(|refusal| anyhow::anyhow!("{method} is refused: {refusal}"))
}

/// A container comes and goes, as far as it gets.
fn cycle(dir: &Path, pool: &str, endpoint: &str, random: &mut Random) -> Result<()> {
    let question = json!({ "PoolID": pool, "Address": "", "Options": {} });
    let Some(given) = try_ask(dir, "IpamDriver.RequestAddress", &question) else { return Ok(()) };
    let address = given["Address"].as_str().context("no address")?.to_owned();
    let both = json!({ "NetworkID": NETWORK, "EndpointID": endpoint, "SandboxKey": "/none", "Options": {} });
    let mut create = both.clone();
    create["Interface"] = json!({ "Address": address, "AddressIPv6": "", "MacAddress": "" });
    // One that was not made has no end, for Docker.
    if try_ask(dir, "NetworkDriver.CreateEndpoint", &create).is_some() {
        if random.chance(2, 3) && try_ask(dir, "NetworkDriver.Join", &both).is_some() {
            must(dir, "NetworkDriver.Leave", &both)?;
        }
        must(dir, "NetworkDriver.DeleteEndpoint", &both)?;
    }
    let ip = address.split('/').next().unwrap_or_default();
    must(dir, "IpamDriver.ReleaseAddress", &json!({ "PoolID": pool, "Address": ip })).map(drop)
}

/// Kills a daemon, and starts it again a little later.
fn kill_one(
    fabric: &mut Fabric,
    dir: &Path,
    driver: &mut Daemon,
    random: &mut Random,
    kill: usize,
) -> Result<()> {
    std::thread::sleep(Duration::from_millis(random.below(100)));
    let pause = Duration::from_millis(50 + random.below(150));
    match kill % 3 {
        0 => {
            fabric.switch(0).context("vswitchd runs")?.kill()?;
            std::thread::sleep(pause);
            fabric.start_switch(0)
        }
        1 => {
            driver.kill()?;
            std::thread::sleep(pause);
            *driver = start(fabric, HOSTS[0].name, dir)?;
            Ok(())
        }
        _ => {
            fabric.controller().context("the controller runs")?.kill()?;
            std::thread::sleep(pause);
            fabric.start_controller()
        }
    }
}

/// No endpoint is there that the driver does not know, and will not forget.
fn all_are_known(fabric: &Fabric, dir: &Path) -> Result<()> {
    stop::wait_for("the driver knows all endpoints", TIDY_LIMIT, || {
        let endpoints = fabric.host(0).control.json(&["endpoint", "list"])?;
        let kept = kept(dir)?.join(" ");
        let all = endpoints.as_array().context("not a list")?;
        let ids = all.iter().filter_map(|endpoint| endpoint["key"]["container"].as_str());
        let unknown: Vec<_> = ids.filter(|id| !kept.contains(id)).collect();
        Ok(if unknown.is_empty() { Ok(()) } else { Err(format!("{unknown:?} of {all:?}")) })
    })
}

fn nothing_is_left(fabric: &Fabric, dir: &Path) -> Result<()> {
    stop::wait_for("nothing is left of the containers", TIDY_LIMIT, || {
        let kept = kept(dir)?;
        let links = fabric.host_netns(0).ip(&["-o", "link", "show", "type", "veth"])?;
        let loose = links.matches(": vd").count();
        let ends = cni::host_ends(fabric, 0)?;
        let places = fabric.control.places()?;
        let n_ports = places.iter().filter(|place| place.id.contains("-eth-")).count();
        let has_switch = fabric.control.json(&["switch", "list"])?.to_string().contains("docker-");
        let is_clean = kept.is_empty() && ends.is_empty() && loose + n_ports == 0 && !has_switch;
        let left =
            format!("files {kept:?}, {ends:?}, {loose} loose ends, {n_ports} ports, switch: {has_switch}");
        Ok(if is_clean { Ok(()) } else { Err(left) })
    })
}

#[test]
fn kills_at_any_time_leave_nothing_of_dockers_containers() -> Result<()> {
    scenario::on_fabric("kills_at_any_time_leave_nothing_of_dockers_containers", PROBE, |fabric| {
        let begin = Instant::now();
        let dir = fabric.plan().dir.join("h1-docker");
        fs::create_dir_all(dir.join("plugins"))?;
        let mut driver = start(fabric, HOSTS[0].name, &dir)?;
        must(&dir, "Plugin.Activate", &json!({}))?;
        let question =
            json!({ "AddressSpace": "ferroflow-local", "Pool": "10.77.0.0/16", "SubPool": "", "V6": false });
        let pool = must(&dir, "IpamDriver.RequestPool", &question)?;
        let pool = pool["PoolID"].as_str().context("no pool")?.to_owned();
        let network = json!({ "NetworkID": NETWORK, "Options": {}, "IPv4Data": [{ "Pool": "10.77.0.0/16" }], "IPv6Data": [] });
        must(&dir, "NetworkDriver.CreateNetwork", &network)?;
        let n_cycles = scenario::cycles(N_CYCLES)?;
        let n_kills = n_cycles / CYCLES_PER_KILL;
        let n_done = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let (dir, pool, n_done) = (&dir, &pool, &n_done);
            let workers: Vec<_> = (0..N_WORKERS)
                .map(|worker| {
                    scope.spawn(move || {
                        let mut random = Random::new(worker as u64);
                        loop {
                            let n = n_done.fetch_add(1, Ordering::Relaxed);
                            if n >= n_cycles {
                                return anyhow::Ok(());
                            }
                            cycle(dir, pool, &format!("{n:064x}"), &mut random)?;
                        }
                    })
                })
                .collect();
            let mut random = Random::new(77);
            for kill in 1..=n_kills {
                let is_time = || n_done.load(Ordering::Relaxed) >= n_cycles * kill / (n_kills + 1);
                while !is_time() && workers.iter().any(|worker| !worker.is_finished()) {
                    std::thread::sleep(Duration::from_millis(5));
                }
                kill_one(fabric, dir, &mut driver, &mut random, kill)?;
            }
            workers.into_iter().try_for_each(|worker| worker.join().expect("the thread ends"))
        })?;
        fabric.wait_converged()?;
        all_are_known(fabric, &dir)?;
        let left = kept(&dir)?.iter().filter(|name| name.starts_with("endpoints/")).count();
        ensure!(left <= n_kills * N_WORKERS, "{left} endpoints are left, more than kills can have cut short");
        must(&dir, "IpamDriver.ReleasePool", &json!({ "PoolID": pool }))?;
        must(&dir, "NetworkDriver.DeleteNetwork", &json!({ "NetworkID": NETWORK }))?;
        nothing_is_left(fabric, &dir)?;
        println!("{n_cycles} cycles, {n_kills} kills, libnetwork: {:.1} s", begin.elapsed().as_secs_f64());
        checks::account(fabric)
    })
}
