//! A workload on Open vSwitch: ports, rules, settings, measurements.

use std::{
    net::Ipv4Addr,
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use ferroflow_tests::stop;

use super::{daemon::Daemon, package::Install, stats::PmdStats};
use crate::{
    measure::tsc_ghz,
    rules::{IN, OUT, TUNNEL},
    workload::{LOCAL, Measured, REMOTE, Setting, Shape, VNI, Way, Workload, tunnel_name, window::Window},
};

/// Time to get going again after a pause.
const SETTLE: Duration = Duration::from_millis(300);
/// A burst of first packets is over by then.
const BURST: Duration = Duration::from_secs(30);
/// Flows that make the rules known before a burst.
const N_KNOWN: u32 = 2_000;
/// Flow numbers from burst to burst.
const BURST_STRIDE: u32 = 2_000_000;
/// Connections that it may track; its default is 3 000 000.
const MAX_CONNECTIONS: &str = "3000000";

/// Open vSwitch under a workload.
#[derive(Debug)]
pub struct Subject {
    daemon: Daemon,
    workload: &'static Workload,
    n_bursts: u32,
    n_devices: u32,
}

impl Subject {
    /// Starts it; where there is traffic all the time, it comes from now on.
    ///
    /// # Errors
    /// When something is refused.
    pub fn start(install: &Install, core: usize, workload: &'static Workload) -> Result<Self> {
        let daemon = Daemon::start(install, core)?;
        let mut subject = Self { daemon, workload, n_bursts: 0, n_devices: 0 };
        subject.daemon.add_bridge("br0", &[])?;
        if workload.n_connections > 0 {
            subject.daemon.call("dpctl/ct-set-maxconns", &[MAX_CONNECTIONS])?;
        }
        match workload.way {
            Way::Ports => {
                subject.add_device("br0", "out", OUT, "norx=1")?;
                subject.daemon.replace_rules("br0", &(workload.rules)())?;
            }
            Way::Encap(_) | Way::Decap(_) => subject.add_tunnel()?,
        }
        if workload.measured == Measured::Rate {
            let arguments = arguments(workload);
            let bridge = if matches!(workload.way, Way::Decap(_)) { "under" } else { "br0" };
            subject.add_device(bridge, "in", IN, &arguments)?;
            pause(Duration::from_secs_f64(workload.warm_up))?;
        }
        Ok(subject)
    }

    /// Changes the caches' settings.
    ///
    /// # Errors
    /// When they are refused.
    pub fn set(&self, setting: &Setting) -> Result<()> {
        let emc = format!("other_config:emc-insert-inv-prob={}", setting.emc_inverse_probability);
        let smc = format!("other_config:smc-enable={}", setting.smc);
        self.daemon.vsctl(&["set", "Open_vSwitch", ".", &emc, &smc])?;
        pause(Duration::from_secs_f64(self.workload.warm_up.min(2.0)))
    }

    /// Stops everything, to leave the core to others.
    ///
    /// # Errors
    /// When it has ended.
    pub fn pause(&self) -> Result<()> {
        self.daemon.pause()
    }

    /// Goes on, and is soon as warm as before.
    ///
    /// # Errors
    /// When it has ended.
    pub fn go_on(&self) -> Result<()> {
        self.daemon.go_on()?;
        pause(SETTLE)
    }

    /// Measures once: for so long, or a burst of first packets.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn measure(&mut self, duration: Duration) -> Result<Window> {
        match self.workload.measured {
            Measured::Rate => self.measure_rate(duration),
            Measured::FirstPackets { n } => self.measure_burst(n),
        }
    }

    fn measure_rate(&self, duration: Duration) -> Result<Window> {
        self.daemon.call("dpif-netdev/pmd-stats-clear", &[])?;
        let (start, cpu) = (Instant::now(), self.daemon.polling_time()?);
        pause(duration)?;
        let stats = self.stats()?;
        let share = self.share(start, cpu)?;
        // The thread's own clock says how long it counted; the kernel, which part of that it ran.
        let wall = Duration::from_nanos((stats.cycles() as f64 / tsc_ghz()) as u64);
        Ok(Window {
            n_packets: stats.n_packets,
            cpu: wall.mul_f64(share),
            wall,
            mix: stats.mix(),
            n_dropped: stats.n_lost(),
            n_allocations: None,
        })
    }

    /// Lets new flows come, each once, and counts the cycles with packets.
    fn measure_burst(&mut self, n: u32) -> Result<Window> {
        self.n_bursts += 1;
        let first = self.n_bursts * BURST_STRIDE;
        if self.workload.n_connections > 0 {
            self.daemon.call("dpctl/flush-conntrack", &[])?;
            self.send_burst(first - N_KNOWN, N_KNOWN)?;
        }
        let (stats, share) = self.send_burst(first, n)?;
        if self.workload.n_connections == 0 {
            self.daemon.call("revalidator/purge", &[])?;
        }
        let wall = Duration::from_nanos((stats.busy_cycles as f64 / tsc_ghz()) as u64);
        Ok(Window {
            n_packets: stats.n_packets - stats.n_lost(),
            cpu: wall.mul_f64(share),
            wall,
            mix: stats.mix(),
            n_dropped: stats.n_lost(),
            n_allocations: None,
        })
    }

    fn send_burst(&mut self, first: u32, n: u32) -> Result<(PmdStats, f64)> {
        self.daemon.call("dpif-netdev/pmd-stats-clear", &[])?;
        let (start, cpu) = (Instant::now(), self.daemon.polling_time()?);
        self.add_device("br0", "in", IN, &format!("order=1,start={first},max={n}"))?;
        let stats = stop::wait_for("a burst of first packets", BURST, || {
            let stats = self.stats()?;
            let is_over = stats.n_packets >= u64::from(n);
            Ok(if is_over { Ok(stats) } else { Err(format!("{} of {n} came", stats.n_packets)) })
        })?;
        let share = self.share(start, cpu)?;
        self.daemon.vsctl(&["del-port", "br0", "in"])?;
        Ok((stats, share))
    }

    /// The part of its core that the polling thread has had since then.
    fn share(&self, start: Instant, cpu: Duration) -> Result<f64> {
        let used = self.daemon.polling_time()?.saturating_sub(cpu);
        Ok((used.as_secs_f64() / start.elapsed().as_secs_f64()).min(1.0))
    }

    fn stats(&self) -> Result<PmdStats> {
        PmdStats::parse(&self.daemon.call("dpif-netdev/pmd-stats-show", &[])?)
    }

    /// Adds a port of our driver, with a device of its own: it goes when the port does.
    fn add_device(&mut self, bridge: &str, name: &str, number: u32, arguments: &str) -> Result<()> {
        self.n_devices += 1;
        let device = format!("net_flowgen{}", self.n_devices);
        let option = format!("options:dpdk-devargs=\"{device},{arguments}\"");
        self.daemon.add_port(bridge, name, number, &["type=dpdk", &option])
    }

    /// A bridge for the underlay, and a tunnel whose peer and key the rules choose.
    fn add_tunnel(&mut self) -> Result<()> {
        let (Way::Encap(kind) | Way::Decap(kind)) = self.workload.way else { return Ok(()) };
        self.daemon.add_bridge("under", &["other_config:hwaddr=02:00:00:00:bb:02"])?;
        self.daemon.ip(&["addr", "add", &format!("{LOCAL}/24"), "dev", "under"])?;
        self.daemon.ip(&["link", "set", "under", "up"])?;
        let kind = format!("type={}", tunnel_name(kind));
        let local = format!("options:local_ip={LOCAL}");
        let words = [&kind, "options:remote_ip=flow", "options:key=flow", &local].map(|word: &str| word);
        self.daemon.add_port("br0", "tunnel", TUNNEL, &words)?;
        self.daemon.replace_rules("br0", &(self.workload.rules)())?;
        match self.workload.way {
            Way::Decap(_) => {
                self.add_device("br0", "out", OUT, "norx=1")?;
                self.daemon.replace_rules("under", &["actions=NORMAL".to_owned()])?;
            }
            Way::Encap(_) | Way::Ports => {
                self.add_device("under", "wire", IN, "norx=1")?;
                let rules = ["in_port=LOCAL,actions=output:1", "in_port=1,actions=LOCAL"];
                self.daemon.replace_rules("under", &rules.map(str::to_owned))?;
            }
        }
        pause(Duration::from_secs(1))?;
        self.daemon.call("tnl/neigh/set", &["under", &REMOTE.to_string(), "02:00:00:00:bb:01"]).map(drop)
    }
}

/// What the driver is told, so that it does as our generator does.
fn arguments(workload: &Workload) -> String {
    let traffic = workload.traffic;
    let shape = match traffic.shape {
        Shape::Plain => 0,
        Shape::Masks => 1,
        Shape::Random => 2,
    };
    let encap = match workload.way {
        Way::Decap(flowtable::program::TunnelKind::Vxlan) => 1,
        Way::Decap(flowtable::program::TunnelKind::Geneve) => 2,
        Way::Decap(flowtable::program::TunnelKind::Gre) => unreachable!("no workload is of GRE"),
        Way::Ports | Way::Encap(_) => 0,
    };
    format!(
        "flows={},shape={shape},bidir={},backend={},tcp={},encap={encap},vni={VNI}",
        traffic.n_flows,
        u8::from(traffic.both_ways),
        traffic.backend.map_or(0, Ipv4Addr::to_bits),
        u8::from(traffic.tcp)
    )
}

/// Sleeps, unless somebody wants to stop.
fn pause(duration: Duration) -> Result<()> {
    let end = Instant::now() + duration;
    loop {
        stop::check()?;
        match end.saturating_duration_since(Instant::now()) {
            Duration::ZERO => return Ok(()),
            rest => thread::sleep(rest.min(Duration::from_millis(100))),
        }
    }
}
