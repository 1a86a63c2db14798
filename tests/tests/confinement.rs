//! What daemons may still do when they run, by the word of the kernel: `/proc/PID/status` of each of their threads.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ferroflow_tests::control::Control;
use ferroflow_tests::daemon::{Daemon, find_program};
use ferroflow_tests::pods::{By, Pods};
use ferroflow_tests::probe::Probe;
use ferroflow_tests::{checks, scenario, stop};

const PROBE: &str = env!("CARGO_BIN_EXE_ff-probe");
const LIMIT: Duration = Duration::from_secs(20);
/// Numbers of capabilities (linux/capability.h), by the names that units have for them.
const NUMBERS: [(&str, u32); 8] = [
    ("CAP_NET_ADMIN", 12),
    ("CAP_NET_RAW", 13),
    ("CAP_IPC_LOCK", 14),
    ("CAP_SYS_PTRACE", 19),
    ("CAP_SYS_ADMIN", 21),
    ("CAP_SYS_NICE", 23),
    ("CAP_SYS_RESOURCE", 24),
    ("CAP_BPF", 39),
];
const NET_ADMIN: u64 = 1 << 12;

/// The capabilities that the unit of the host's daemon leaves it, of those that can be had here, as bits.
fn of_unit() -> Result<u64> {
    let own = u64::from_str_radix(&status(Path::new("/proc/self"))?["CapBnd"], 16)?;
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist/systemd/vswitchd.service");
    let text = fs::read_to_string(unit)?;
    let line = text.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let names = line.context("the unit limits no capabilities")?.split_whitespace();
    let set: Result<u64> = names
        .map(|name| {
            let found = NUMBERS.iter().find(|(known, _)| *known == name);
            let number =
                found.with_context(|| format!("a capability that this test does not know: {name}"))?.1;
            anyhow::Ok(1_u64 << number)
        })
        .sum();
    Ok(set? & own)
}

/// What the kernel says of a process or thread.
fn status(folder: &Path) -> Result<BTreeMap<String, String>> {
    let text = fs::read_to_string(folder.join("status")).with_context(|| folder.display().to_string())?;
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    Ok(pairs.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect())
}

/// Every thread of a process has these capabilities, may have these, gains none, and has its calls filtered.
fn is_confined(pid: u32, effective: u64, permitted: u64) -> Result<()> {
    let threads: Vec<_> = fs::read_dir(format!("/proc/{pid}/task"))?.collect::<Result<_, _>>()?;
    ensure!(!threads.is_empty(), "{pid} has no threads");
    for thread in threads {
        // One that has ended meanwhile can do nothing any more.
        let Ok(status) = status(&thread.path()) else { continue };
        let wanted = [
            ("CapEff", effective),
            ("CapPrm", permitted),
            ("CapInh", 0),
            ("CapBnd", permitted),
            ("CapAmb", 0),
        ];
        for (name, wanted) in wanted {
            let found = u64::from_str_radix(&status[name], 16)?;
            ensure!(found == wanted, "{} of {}: {name} {found:x}, not {wanted:x}", status["Name"], pid);
        }
        ensure!(status["NoNewPrivs"] == "1", "{} of {pid} may gain privileges", status["Name"]);
        ensure!(status["Seccomp"] == "2", "{} of {pid} has its calls not filtered", status["Name"]);
    }
    Ok(())
}

/// The processes that a process has started and that run.
fn children(pid: u32) -> Result<Vec<u32>> {
    let mut children = Vec::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(thread?.path().join("children"))?;
        children.extend(text.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    Ok(children)
}

#[test]
fn a_host_and_its_holder_keep_what_the_unit_says_also_over_an_upgrade() -> Result<()> {
    let name = "a_host_and_its_holder_keep_what_the_unit_says_also_over_an_upgrade";
    scenario::run(name, |prefix| {
        let target = scenario::target_dir()?;
        let holder = find_program(&target, "vswitch-holder")?.display().to_string();
        let socket = format!("/run/{prefix}.holder");
        // The daemon ends with the holder, should that be killed.
        let wrapper =
            [&holder, "--socket", &socket, "--", "setpriv", "--pdeathsig", "KILL", "--"].map(str::to_owned);
        let ways = [By::Packet, By::Tap, By::AfXdp];
        let mut pods = Pods::start_as(prefix, &ways, &wrapper, &["--holder", &socket])?;
        let set = of_unit()?;
        let result = (|| {
            let before = held(&pods, set)?;
            all_reach_each_other(&pods)?;
            nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(pods.daemon.pid().cast_signed()),
                nix::sys::signal::Signal::SIGHUP,
            )?;
            stop::wait_for("another daemon runs alone", LIMIT, || {
                let now = children(pods.daemon.pid())?;
                let answers = pods.control.attempt(&["status"])?.status.success();
                let is_other = now.len() == 1 && now[0] != before && answers;
                Ok(if is_other { Ok(()) } else { Err(format!("{now:?}, answers: {answers}")) })
            })?;
            held(&pods, set)?;
            // What is attached later finds the daemon able to.
            pods.add(prefix, By::AfXdp)?;
            pods.wait_for_links()?;
            all_reach_each_other(&pods)?;
            pods.check().map(drop)
        })();
        result.with_context(|| pods.state())
    })
}

/// Holder and daemon are confined; answers the daemon.
fn held(pods: &Pods, set: u64) -> Result<u32> {
    is_confined(pods.daemon.pid(), 0, set)?;
    let daemons = children(pods.daemon.pid())?;
    let [daemon] = daemons[..] else { anyhow::bail!("the holder has started {daemons:?}") };
    is_confined(daemon, set, set)?;
    ensure!(children(daemon)?.is_empty(), "a switch with rules by hand starts no programs");
    Ok(daemon)
}

fn all_reach_each_other(pods: &Pods) -> Result<()> {
    let probe = Probe { program: PROBE.into(), words: Vec::new() };
    for from in &pods.pods {
        for to in pods.pods.iter().filter(|to| to.address != from.address) {
            let result = probe.ping(&from.netns, to.address, 3, 56)?;
            ensure!(result.n_received == 3, "{} to {}: {result:?}", from.port, to.port);
        }
    }
    Ok(())
}

#[test]
fn hosts_of_a_network_and_their_controller_are_confined_and_all_that_the_demo_shows_holds() -> Result<()> {
    let name = "hosts_of_a_network_and_their_controller_are_confined_and_all_that_the_demo_shows_holds";
    scenario::on_fabric(name, PROBE, |fabric| {
        let set = of_unit()?;
        let controller = fabric.controller().context("no controller")?.pid();
        is_confined(controller, 0, 0)?;
        for idx in 0..2 {
            let daemon = fabric.switch(idx).context("no daemon")?.pid();
            is_confined(daemon, set, set)?;
            let started = children(daemon)?;
            let [translator] = started[..] else { anyhow::bail!("the daemon has started {started:?}") };
            is_confined(translator, NET_ADMIN, NET_ADMIN)?;
        }
        checks::all(fabric)?;
        // What was started for the daemon ends with it, however that ends.
        let daemon = fabric.switch(0).context("no daemon")?;
        let started = children(daemon.pid())?;
        daemon.kill()?;
        stop::wait_for("what the daemon has started ends", LIMIT, || {
            let left: Vec<_> =
                started.iter().filter(|pid| Path::new(&format!("/proc/{pid}")).exists()).collect();
            Ok(if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) })
        })?;
        fabric.start_switch(0)?;
        fabric.wait_converged()
    })
}

#[test]
fn a_controller_runs_as_nobody_special() -> Result<()> {
    scenario::run("a_controller_runs_as_nobody_special", |prefix| {
        let dir = scenario::dir(prefix);
        let _guard = scenario::Dir::create(&dir)?;
        // A user that owns nothing else: what DynamicUser= of the unit is.
        const USER: u32 = 64_321;
        std::os::unix::fs::chown(&dir, Some(USER), Some(USER))?;
        let target = scenario::target_dir()?;
        let url = format!("unix://{}/c.sock", dir.display());
        // The program by an open file: the way to it may be root's alone.
        let script = format!(
            "exec 3<\"$0\" && exec setpriv --pdeathsig KILL --reuid {USER} --regid {USER} --clear-groups \
             --inh-caps=-all --bounding-set=-all --no-new-privs -- /proc/self/fd/3 \"$@\""
        );
        let mut command = Command::new("sh");
        command.arg("-c").arg(script).arg(find_program(&target, "vswitch-controller")?);
        command.args(["--listen", &url, "--data-dir"]).arg(&dir);
        let mut daemon = Daemon::spawn(command, "vswitch-controller".to_owned(), &dir.join("log"))?;
        let control = Control::to_controller(&find_program(&target, "vswitchctl")?, &url);
        stop::wait_for("the controller answers", LIMIT, || {
            daemon.check()?;
            Ok(control.text(&["switch", "add", "web"]).map(drop).map_err(|error| format!("{error:#}")))
        })?;
        ensure!(control.text(&["switch", "list"])?.contains("web"), "it keeps a network");
        is_confined(daemon.pid(), 0, 0)
    })
}
