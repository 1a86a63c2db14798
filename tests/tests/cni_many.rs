//! Many containers: how long one takes when hundreds are there, and what is left when whatever works for them
//! is killed at any time.

#![forbid(unsafe_code)]

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs};

use anyhow::{Context, Result, bail, ensure};
use ferroflow_tests::cni::{self, Container, Runtime};
use ferroflow_tests::fabric::Fabric;
use ferroflow_tests::random::Random;
use ferroflow_tests::{checks, command, netns, scenario, stop};
use serde_json::{Value, json};

const PROBE: &str = env!("CARGO_BIN_EXE_ff-probe");
/// Containers that are there. Without optimisation one takes many times as long.
const N_PRESENT: usize = if cfg!(debug_assertions) { 60 } else { 500 };
/// Containers that come one after the other, and how often.
const N_COMING: usize = if cfg!(debug_assertions) { 20 } else { 200 };
const INTERVAL: Duration = Duration::from_millis(50);
/// How many come at once.
const N_AT_ONCE: usize = if cfg!(debug_assertions) { 16 } else { 500 };
/// Attachments and detachments with kills.
const N_CYCLES: usize = if cfg!(debug_assertions) { 100 } else { 500 };
const N_WORKERS: usize = 16;
/// So often vswitchd or the controller is killed among them.
const CYCLES_PER_KILL: usize = 25;
/// How long the daemons may take to tidy up.
const TIDY_LIMIT: Duration = Duration::from_secs(60);
/// No container waits longer than this, on however slow a machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// The network's configuration, with more addresses than a host of the fabric has otherwise.
fn config(runtime: &Runtime, ipam: &str) -> Value {
    let mut config = runtime.config("1.0.0");
    config["ipam"] = json!({ "type": ipam, "ranges": [[{ "subnet": "10.5.0.0/16" }]], "routes": [] });
    if ipam == "host-local" {
        config["ipam"]["dataDir"] = json!(runtime.addresses_dir());
    }
    config
}

fn add(runtime: &Runtime, container: &Container, config: &Value) -> Result<String> {
    match runtime.call("ADD", &container.id, &container.path(), config)? {
        Ok(result) => cni::address(&result),
        Err(error) => bail!("ADD of {} failed: {error}", container.id),
    }
}

fn del(runtime: &Runtime, id: &str, config: &Value) -> Result<()> {
    let deleted = runtime.call("DEL", id, "", config)?;
    ensure!(deleted.is_ok(), "DEL of {id} failed: {deleted:?}");
    Ok(())
}

/// Does something for each, several at once.
fn at_once<T: Sync>(items: &[T], act: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..N_AT_ONCE)
            .map(|_| {
                scope.spawn(|| {
                    while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                        act(item)?;
                    }
                    Ok(())
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("the thread ends"))
    })
}

/// No trace of any container is left.
fn nothing_is_left(fabric: &Fabric, runtime: &Runtime) -> Result<()> {
    stop::wait_for("nothing is left of the containers", TIDY_LIMIT, || {
        // Of containers that end only now, too.
        fabric.host(0).control.text(&["endpoint", "release"])?;
        let ends = cni::host_ends(fabric, 0)?;
        let taken = runtime.taken_addresses()?;
        let ports = fabric.control.places()?;
        let endpoints = fabric.host(0).control.json(&["endpoint", "list"])?.to_string();
        if endpoints.contains("\"container\"") {
            return Ok(Err(format!("endpoints: {endpoints}")));
        }
        let n_ports = ports
            .iter()
            .filter(|place| place.id.contains("-eth0-") || place.id.starts_with("lease-"))
            .count();
        let n_left = ends.len() + taken.len() + n_ports;
        let left = format!("{} interfaces, {} addresses, {n_ports} ports", ends.len(), taken.len());
        Ok(if n_left == 0 { Ok(()) } else { Err(left) })
    })
}

#[test]
fn a_container_comes_soon_when_hundreds_are_there() -> Result<()> {
    scenario::on_fabric("a_container_comes_soon_when_hundreds_are_there", PROBE, |fabric| {
        let runtime = Runtime::on(fabric, 0)?;
        let config = config(&runtime, "ferroflow");
        let create = |idx| Container::create(fabric, &format!("c{idx}"));
        let present = (0..N_PRESENT).map(create).collect::<Result<Vec<_>>>()?;
        let start = Instant::now();
        at_once(&present, |container| add(&runtime, container, &config).map(drop))?;
        let together = start.elapsed().as_secs_f64();
        println!("{N_PRESENT} containers, {N_AT_ONCE} at once: {together:.1} s");
        let coming = (N_PRESENT..N_PRESENT + N_COMING).map(create).collect::<Result<Vec<_>>>()?;
        let to = inside_address(&present[0])?;
        let took = one_after_the_other(&runtime, &coming, &config, &to)?;
        let loads = fs::read_to_string("/proc/loadavg")?;
        let load = loads.split(' ').next().unwrap_or_default();
        let mut figures = json!({ "present": N_PRESENT, "at_once_s": together, "load": load });
        for (what, times) in [("ADD", took.0), ("ADD and first ping", took.1)] {
            let at = |part: usize| times[times.len() * part / 100].as_secs_f64() * 1e3;
            println!("{what}: p50 {:.1} ms, p99 {:.1} ms, load {load}", at(50), at(99));
            figures[what] = json!({ "p50_ms": at(50), "p99_ms": at(99) });
            ensure!(
                times.last().is_some_and(|longest| *longest < PATIENCE),
                "{what} takes too long: {times:?}"
            );
        }
        // Asked for by `cargo xtask bench --attach --save`.
        if let Some(file) = env::var_os("FERROFLOW_ATTACH_JSON") {
            fs::write(file, serde_json::to_string_pretty(&figures)? + "\n")?;
        }
        at_once(&present.into_iter().chain(coming).collect::<Vec<_>>(), |container| {
            del(&runtime, &container.id, &config)
        })?;
        nothing_is_left(fabric, &runtime)?;
        checks::account(fabric)
    })
}

fn inside_address(container: &Container) -> Result<String> {
    let shown = container.netns.ip(&["-4", "-o", "address", "show", "dev", "eth0"])?;
    let address = shown.split_whitespace().find_map(|word| word.split_once('/')).context("no address")?;
    Ok(address.0.to_owned())
}

/// Attaches containers at a steady rate, whether earlier ones are ready or not; gives, in order, how long ADD
/// took, and how long it was until the first ping was answered.
fn one_after_the_other(
    runtime: &Runtime,
    containers: &[Container],
    config: &Value,
    to: &str,
) -> Result<(Vec<Duration>, Vec<Duration>)> {
    let start = Instant::now();
    let times: Vec<(Duration, Duration)> = std::thread::scope(|scope| {
        let threads: Vec<_> = containers
            .iter()
            .zip(0_u32..)
            .map(|(container, idx)| {
                let at = start + INTERVAL * idx;
                std::thread::sleep(at.saturating_duration_since(Instant::now()));
                scope.spawn(move || {
                    let start = Instant::now();
                    add(runtime, container, config)?;
                    let added = start.elapsed();
                    // One request, and no second one: the first packet has to pass.
                    let mut ping = Command::new("nsenter");
                    ping.arg(format!("--net={}", container.path()));
                    command::output(ping.args(["ping", "-c", "1", "-W", "5", to]), PATIENCE)?;
                    Ok((added, start.elapsed()))
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("the thread ends")).collect::<Result<_>>()
    })?;
    let (mut added, mut answered): (Vec<_>, Vec<_>) = times.into_iter().unzip();
    added.sort();
    answered.sort();
    Ok((added, answered))
}

#[test]
fn kills_at_any_time_leave_nothing() -> Result<()> {
    scenario::on_fabric("kills_at_any_time_leave_nothing", PROBE, |fabric| killed(fabric, "host-local"))
}

#[test]
fn kills_at_any_time_leave_nothing_leased() -> Result<()> {
    scenario::on_fabric("kills_at_any_time_leave_nothing_leased", PROBE, |fabric| killed(fabric, "ferroflow"))
}

/// Containers come and go while plugin and daemon are killed.
fn killed(fabric: &mut Fabric, ipam: &str) -> Result<()> {
    let start = Instant::now();
    let runtime = Runtime::on(fabric, 0)?;
    let config = config(&runtime, ipam);
    let containers = (0..N_WORKERS)
        .map(|idx| Container::create(fabric, &format!("c{idx}")))
        .collect::<Result<Vec<_>>>()?;
    let n_cycles = scenario::cycles(N_CYCLES)?;
    let n_kills = n_cycles / CYCLES_PER_KILL;
    let n_done = AtomicUsize::new(0);
    let worked: Result<()> = std::thread::scope(|scope| {
        let (runtime, config, n_done) = (&runtime, &config, &n_done);
        let workers: Vec<_> = containers
            .iter()
            .zip(0..)
            .map(|(container, seed)| {
                scope.spawn(move || {
                    let mut random = Random::new(seed);
                    while n_done.fetch_add(1, Ordering::Relaxed) < n_cycles {
                        cycle(runtime, container, config, &mut random)?;
                    }
                    anyhow::Ok(())
                })
            })
            .collect();
        for kill in 1..=n_kills {
            let is_time = || n_done.load(Ordering::Relaxed) >= n_cycles * kill / (n_kills + 1);
            while !is_time() && workers.iter().any(|worker| !worker.is_finished()) {
                std::thread::sleep(Duration::from_millis(10));
            }
            kill_one(fabric, kill % 3 == 0)?;
        }
        workers.into_iter().try_for_each(|worker| worker.join().expect("the thread ends"))
    });
    worked?;
    fabric.wait_converged()?;
    for container in &containers {
        del(&runtime, &container.id, &config)?;
    }
    nothing_is_left(fabric, &runtime)?;
    let inodes = containers.iter().map(|container| container.netns.inode()).collect::<Result<Vec<_>>>()?;
    drop(containers);
    let holders = netns::holders(&inodes)?;
    ensure!(holders.is_empty(), "namespaces of containers are still held: {holders:?}");
    println!("{n_cycles} cycles, {n_kills} kills of daemons, {ipam}: {:.1} s", start.elapsed().as_secs_f64());
    checks::account(fabric)
}

/// A daemon dies, and is started again a little later.
fn kill_one(fabric: &mut Fabric, is_controller: bool) -> Result<()> {
    const PAUSE: Duration = Duration::from_millis(200);
    if is_controller {
        fabric.controller().context("the controller runs")?.kill()?;
        std::thread::sleep(PAUSE);
        return fabric.start_controller();
    }
    fabric.switch(0).context("vswitchd runs")?.kill()?;
    std::thread::sleep(PAUSE);
    fabric.start_switch(0)
}

/// ADD, perhaps killed, and DEL, perhaps killed and then asked again, as a runtime does.
fn cycle(runtime: &Runtime, container: &Container, config: &Value, random: &mut Random) -> Result<()> {
    let mut cut_short = |verb: &str| -> Result<()> {
        let limit = if random.chance(1, 2) { Duration::from_millis(random.below(200)) } else { PATIENCE * 2 };
        let mut command = runtime.command(verb, &container.id, &container.path(), config)?;
        // Refused or killed: either may be.
        drop(command::run(&mut command, limit));
        Ok(())
    };
    cut_short("ADD")?;
    cut_short("DEL")?;
    del(runtime, &container.id, config)
}
