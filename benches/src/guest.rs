//! Packets through a guest (P21): a generator, the switch, a guest's ring, DPDK's testpmd that
//! sends everything back, the switch again, a sink. Open vSwitch with DPDK and our dataplane by
//! turns, each with a testpmd of its own; who waits is stopped.
//!
//! ```text
//!   core N   generator ─► switch ─► ring ─┐
//!   core 0                          testpmd
//!   core N        sink ◄─ switch ◄─ ring ─┘
//! ```

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use dataplane::{Dataplane, DataplaneConfig, Device, PortSpec, VhostPort, WorkerConfig};
use ferroflow_tests::{command::describe, say, stop};
use flowtable::{
    port::{PortInfo, PortRole, PortTable},
    program::TunnelKind,
    text::parse_flow,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::{
    peer::{daemon::Daemon, package::Install},
    rules::{IN, OUT, port, snapshot_with},
    workers::{Counter, Endless, Plant, Switched, Valve, median},
    workload::{LOCAL, REMOTE, list::find},
};

/// The guest's port.
const GUEST: u32 = 5;
/// Huge pages of 2 MiB that the two testpmds need.
pub const N_HUGE_PAGES: u64 = 2 * 160;
/// What a testpmd has of them, in MiB.
const MEMORY: &str = "256";
/// Time to get going after a pause.
const SETTLE: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(30);
/// The generator's flows.
const N_FLOWS: u32 = 1;

fn rules() -> [String; 2] {
    [format!("in_port={IN},actions=output:{GUEST}"), format!("in_port={GUEST},actions=output:{OUT}")]
}

/// How the guest's driver uses its rings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Rings {
    /// As DPDK does by itself: buffers are merged and used in order.
    Usual,
    /// A buffer a frame, and several at a time by vector instructions: the guest takes the least time for a frame.
    Plain,
}

impl Rings {
    /// What DPDK's device is told.
    fn arguments(self) -> &'static str {
        match self {
            Self::Usual => "",
            Self::Plain => ",mrg_rxbuf=0,in_order=0,vectorized=1",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Usual => "usual",
            Self::Plain => "plain",
        }
    }
}

/// A testpmd that sends back what it gets. It ends with this value.
struct Guest {
    process: Child,
}

impl Guest {
    fn start(socket: &Path, folder: &Path, rings: Rings) -> Result<Self> {
        let log = fs::File::create(folder.join("testpmd.log"))?;
        let device = format!(
            "net_virtio_user0,path={},queues=1,queue_size=1024,server=1,mac=02:00:00:00:00:99{}",
            socket.display(),
            rings.arguments()
        );
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "nice", "-n", "-20", "dpdk-testpmd", "--lcores=(0,1)@0"]);
        command.args(["--main-lcore=0", "-n", "1", "--no-pci", "--in-memory", "--single-file-segments"]);
        command.args(["-m", MEMORY, "--no-telemetry", "--vdev", &device, "--", "--nb-cores=1"]);
        command.args([
            "--forward-mode=io",
            "--no-mlockall",
            "--total-num-mbufs=32768",
            "--txd=1024",
            "--rxd=1024",
        ]);
        command.args(["--stats-period=3600"]);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let process = command.spawn().with_context(|| format!("cannot run {}", describe(&command)))?;
        Ok(Self { process })
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(i32::try_from(self.process.id())?), signal)?)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Frames that went into the guest and came out of the loop.
#[derive(Debug, Clone, Copy, Default)]
struct Passed {
    into_guest: u64,
    /// What the guest's ring had no room for.
    refused: u64,
    out: u64,
}

/// Rates of a turn.
#[derive(Debug, Clone, Copy)]
struct Window {
    into_guest_mpps: f64,
    out_mpps: f64,
    /// The part of the generator's packets that the guest's ring had no room for: where there is some, the guest
    /// is slower than the switch.
    refused: f64,
    /// The part of its core that the switch had.
    share: f64,
}

/// A switch with a guest.
trait Side {
    fn pause(&mut self) -> Result<()>;
    fn go_on(&mut self) -> Result<()>;
    fn passed(&self) -> Result<Passed>;
    /// Time that the switch had of its core.
    fn cpu(&self) -> Result<Duration>;

    fn measure(&mut self, duration: Duration) -> Result<Window> {
        self.go_on()?;
        thread::sleep(SETTLE);
        let (start, cpu, before) = (Instant::now(), self.cpu()?, self.passed()?);
        thread::sleep(duration);
        let after = self.passed()?;
        let wall = start.elapsed().as_secs_f64();
        let share = self.cpu()?.saturating_sub(cpu).as_secs_f64() / wall;
        self.pause()?;
        stop::check()?;
        let mpps = |after: u64, before: u64| (after - before) as f64 / wall / 1e6;
        Ok(Window {
            into_guest_mpps: mpps(after.into_guest, before.into_guest),
            out_mpps: mpps(after.out, before.out),
            refused: {
                let [refused, taken] =
                    [after.refused - before.refused, after.into_guest - before.into_guest].map(|n| n as f64);
                refused / (refused + taken).max(1.0)
            },
            share,
        })
    }
}

struct Ours {
    plant: Plant,
    valve: Valve,
    out: Counter,
    guest: Guest,
}

impl Ours {
    fn start(core: usize, folder: &Path, rings: Rings) -> Result<Self> {
        let workload = find("P1").context("the workload is in the list")?;
        let socket = folder.join("ours.sock");
        let workers = vec![WorkerConfig { core: Some(core) }];
        let dataplane =
            Dataplane::start(DataplaneConfig { workers, seed: Some(1), ..DataplaneConfig::default() })?;
        let plant = Plant { dataplane };
        let out = Counter::default();
        plant.attach(OUT, Vec::new(), vec![Box::new(out.clone())])?;
        let parse = |line: String| parse_flow(&line, &PortTable::default()).with_context(|| line.clone());
        let rules = rules().into_iter().map(parse).collect::<Result<Vec<_>>>()?;
        let mut snapshot = (*snapshot_with(rules, TunnelKind::Geneve, LOCAL, REMOTE)).clone();
        let mut ports = (*snapshot.ports).clone();
        let info = PortInfo {
            name: "guest".into(),
            role: PortRole::Workload,
            up: true,
            mtu: 1500,
            partial_checksums: false,
        };
        ports.insert(port(GUEST), info);
        snapshot.ports = Arc::new(ports);
        plant.publish(Arc::new(snapshot))?;
        let device =
            Device::Vhost(VhostPort { socket: socket.clone(), listens: false, n_queues: 1, mtu: None });
        plant.dataplane.attach(PortSpec { port: port(GUEST).into(), name: "guest".to_owned(), device })?;
        let mut flows = *workload;
        flows.traffic.n_flows = N_FLOWS;
        let (source, valve) = Switched::new(Endless::new(&flows, 0));
        plant.attach(IN, vec![Box::new(source)], Vec::new())?;
        let guest = Guest::start(&socket, folder, rings)?;
        let ours = Self { plant, valve, out, guest };
        stop::wait_for("our guest", PATIENCE, || {
            Ok(match ours.port()?.why_down {
                Some(why) => Err(why),
                None => Ok(()),
            })
        })?;
        Ok(ours)
    }

    fn port(&self) -> Result<dataplane::PortStatus> {
        let mut ports = self.plant.dataplane.ports().into_iter();
        ports.find(|status| status.port == port(GUEST)).context("the guest's port is gone")
    }
}

impl Side for Ours {
    fn pause(&mut self) -> Result<()> {
        self.valve.set(false);
        self.guest.signal(Signal::SIGSTOP)
    }

    fn go_on(&mut self) -> Result<()> {
        self.guest.signal(Signal::SIGCONT)?;
        self.valve.set(true);
        Ok(())
    }

    fn passed(&self) -> Result<Passed> {
        let counters = self.port()?.counters;
        let (into_guest, refused) = (counters.tx_packets, counters.tx_dropped_total());
        Ok(Passed { into_guest, refused, out: self.out.n() })
    }

    fn cpu(&self) -> Result<Duration> {
        Ok(self.plant.dataplane.perf().first().context("there is a worker")?.cpu_time)
    }
}

struct Theirs {
    daemon: Daemon,
    guest: Guest,
}

impl Theirs {
    fn start(install: &Install, core: usize, folder: &Path, rings: Rings) -> Result<Self> {
        let daemon = Daemon::start(install, core)?;
        daemon.add_bridge("br0", &[])?;
        daemon.vsctl(&["set", "Open_vSwitch", ".", "other_config:emc-insert-inv-prob=1"])?;
        let socket = folder.join("theirs.sock");
        let path = format!("options:vhost-server-path={}", socket.display());
        daemon.add_port("br0", "guest", GUEST, &["type=dpdkvhostuserclient", &path])?;
        daemon.add_port("br0", "out", OUT, &["type=dpdk", "options:dpdk-devargs=\"net_flowgen1,norx=1\""])?;
        daemon.replace_rules("br0", &rules())?;
        let guest = Guest::start(&socket, folder, rings)?;
        let theirs = Self { daemon, guest };
        thread::sleep(4 * SETTLE);
        let flows = format!("options:dpdk-devargs=\"net_flowgen2,flows={N_FLOWS}\"");
        theirs.daemon.add_port("br0", "in", IN, &["type=dpdk", &flows])?;
        stop::wait_for("their guest", PATIENCE, || {
            let passed = theirs.passed()?;
            Ok(if passed.out > 0 { Ok(()) } else { Err(format!("{passed:?}")) })
        })?;
        Ok(theirs)
    }
}

/// Packets that a port has sent, and those that it could not send, of what `dpctl/show` says.
fn sent(text: &str, name: &str) -> Option<(u64, u64)> {
    let own = text.split("\n  port ").find(|part| {
        part.lines()
            .next()
            .and_then(|line| line.split(": ").nth(1))
            .is_some_and(|rest| rest.starts_with(name))
    })?;
    let (_, rest) = own.split_once("TX packets:")?;
    let (sent, rest) = rest.split_once(' ')?;
    let (_, dropped) = rest.split_once("dropped:")?;
    Some((sent.parse().ok()?, dropped.split([' ', '\n']).next()?.parse().ok()?))
}

impl Side for Theirs {
    fn pause(&mut self) -> Result<()> {
        self.daemon.pause()?;
        self.guest.signal(Signal::SIGSTOP)
    }

    fn go_on(&mut self) -> Result<()> {
        self.guest.signal(Signal::SIGCONT)?;
        self.daemon.go_on()
    }

    fn passed(&self) -> Result<Passed> {
        let text = self.daemon.call("dpctl/show", &["-s", "netdev@ovs-netdev"])?;
        let sent = |name: &str| sent(&text, name).with_context(|| format!("no port {name} in {text}"));
        let ((into_guest, refused), (out, _)) = (sent("guest")?, sent("out")?);
        Ok(Passed { into_guest, refused, out })
    }

    fn cpu(&self) -> Result<Duration> {
        self.daemon.polling_time()
    }
}

/// Measures both sides in turn, so many pairs; answers what was measured.
///
/// # Errors
/// When a side does not work.
pub fn run(
    install: &Install,
    (core, rings): (usize, Rings),
    (n_pairs, duration): (usize, Duration),
) -> Result<Value> {
    ensure!(core != 0, "core 0 is the guests'");
    let folder: PathBuf = std::env::temp_dir().join(format!("ff-guest-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let measured = run_in(&folder, install, (core, rings), (n_pairs, duration));
    let said = fs::read_to_string(folder.join("testpmd.log")).unwrap_or_default();
    let _ = fs::remove_dir_all(&folder);
    measured.with_context(|| said.lines().rev().take(8).collect::<Vec<_>>().join("\n"))
}

fn run_in(
    folder: &Path,
    install: &Install,
    (core, rings): (usize, Rings),
    (n_pairs, duration): (usize, Duration),
) -> Result<Value> {
    let mut theirs = Theirs::start(install, core, folder, rings)?;
    theirs.pause()?;
    let mut ours = Ours::start(core, folder, rings)?;
    ours.pause()?;
    let mut pairs = Vec::new();
    for n in 1..=n_pairs {
        let (other, own) = (theirs.measure(duration)?, ours.measure(duration)?);
        let say_of = |name: &str, window: &Window| {
            format!(
                "{name} {:.2} Mpps out of the loop, {:.2} into the guest, which refused {:.0} % ({:.0} % of its core)",
                window.out_mpps,
                window.into_guest_mpps,
                window.refused * 100.0,
                window.share * 100.0
            )
        };
        say(&format!(
            "P21 {} rings, pair {n}: {}; {}",
            rings.name(),
            say_of("OVS-DPDK", &other),
            say_of("Ferroflow", &own)
        ));
        pairs.push((other, own));
    }
    theirs.go_on()?;
    let side = |of: &dyn Fn(&(Window, Window)) -> Window| {
        let windows: Vec<Window> = pairs.iter().map(of).collect();
        let all = |get: fn(&Window) -> f64| windows.iter().map(get).collect::<Vec<_>>();
        json!({
            "out_mpps": all(|window| window.out_mpps),
            "out_mpps_median": median(&all(|window| window.out_mpps)),
            "into_guest_mpps": all(|window| window.into_guest_mpps),
            "refused": all(|window| window.refused),
            "core_share": all(|window| window.share),
        })
    };
    let ratios: Vec<f64> = pairs.iter().map(|(theirs, ours)| ours.out_mpps / theirs.out_mpps).collect();
    Ok(json!({
        "id": "P21",
        "what": "there and back through a guest's device (testpmd, virtio-user), one pair of queues",
        "rings": rings.name(),
        "goal_ratio": 1.2,
        "ratio_median": median(&ratios),
        "ratios": ratios,
        "ovs_dpdk": side(&|pair| pair.0),
        "ferroflow": side(&|pair| pair.1),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_port_has_sent_is_found_by_its_name() {
        let text = "netdev@ovs-netdev:\n  lookups: hit:1\n  port 0: ovs-netdev (tap)\n    RX packets:1 errors:0\n    \
            TX packets:7 errors:0 dropped:0\n  port 2: out (dpdk: x)\n    RX packets:3 errors:0\n    TX packets:42 errors:0 dropped:3 aborted:0\n";
        assert_eq!((sent(text, "out"), sent(text, "guest")), (Some((42, 3)), None));
    }
}
