//! `bench`: how fast it is, by itself and beside Open vSwitch.

use anyhow::Result;
use clap::Args;

use crate::cargo::{cargo, root, show};
use crate::instructions;
use crate::packages::{self, Purpose};
use crate::progress::Progress;

/// Measure packet rates: Criterion's benches, or Open vSwitch with DPDK beside us.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// Debian's Open vSwitch with DPDK and our switch in turn on one core, with the same rules and packets.
    #[arg(long)]
    vs_ovs: bool,
    /// Instructions per packet of each workload by valgrind, compared with benches/instructions.txt.
    #[arg(long, conflicts_with = "vs_ovs")]
    instructions: bool,
    /// Whole workers: how rates grow from one to two, and what measuring costs.
    #[arg(long, conflicts_with = "vs_ovs")]
    scaling: bool,
    /// Whole workers: how long packets are under way at a tenth of the full rate.
    #[arg(long, conflicts_with = "vs_ovs")]
    latency: bool,
    /// Whole workers: what an idle one costs, and how soon it is back at its full rate.
    #[arg(long, conflicts_with = "vs_ovs")]
    idle: bool,
    /// Whole workers: what is lost when the rules change under load.
    #[arg(long, conflicts_with = "vs_ovs")]
    flush: bool,
    /// Whole workers: what a port under attack does to another one.
    #[arg(long, conflicts_with = "vs_ovs")]
    attack: bool,
    /// Containers on veth pairs, on one host and on two: TCP and pings by our daemons, and by the kernel's
    /// bridge and VXLAN device, in turn; small frames also by DPDK's testpmd and Open vSwitch.
    #[arg(long, conflicts_with = "vs_ovs")]
    veth: bool,
    /// Packets there and back through a guest's device: Debian's Open vSwitch with DPDK and our switch in turn, with
    /// DPDK's testpmd as the guest.
    #[arg(long, conflicts_with = "vs_ovs")]
    vhost: bool,
    /// What a change of a large network costs the controller: time on the processor, and bytes to hosts. Then
    /// Debian's OVN and our daemons by turns, from a stored network to the rules of a host.
    #[arg(long, conflicts_with = "vs_ovs")]
    compile: bool,
    /// Containers by CNI on a host that has hundreds: how long each takes, until its first ping is answered.
    #[arg(long, conflicts_with = "vs_ovs")]
    attach: bool,
    /// The switch killed and upgraded under traffic, again and again: for how long nothing comes, and what is lost.
    #[arg(long, conflicts_with = "vs_ovs")]
    restart: bool,
    /// How often it is killed.
    #[arg(long, value_name = "N", requires = "restart", default_value_t = 1000)]
    crashes: usize,
    /// How often it is upgraded.
    #[arg(long, value_name = "N", requires = "restart", default_value_t = 100)]
    upgrades: usize,
    /// The switch comes, goes and is killed, by an uplink that is shared and by one of its own: for how long the
    /// host is out of reach.
    #[arg(long, conflicts_with = "vs_ovs")]
    uplink: bool,
    /// How often, each.
    #[arg(long, value_name = "N", requires = "uplink", default_value_t = 100)]
    cycles: usize,
    /// Only these workloads, such as `P1,P5`; without `--vs-ovs`, only benches with this in their name.
    #[arg(long, value_name = "WHICH")]
    only: Option<String>,
    /// Turns of each side, of comparisons.
    #[arg(long, value_name = "N")]
    pairs: Option<usize>,
    /// Seconds of a turn.
    #[arg(long, value_name = "S")]
    seconds: Option<f64>,
    /// Write table, JSON and chart into docs/performance/; of whole workers, JSON; of instructions, the limits.
    #[arg(long)]
    save: bool,
}

impl Bench {
    pub(crate) fn run(self) -> Result<()> {
        // The comparison makes a namespace and ties daemons to itself, as the demo does.
        packages::ensure(
            if self.vs_ovs || self.veth || self.vhost || self.attach || self.restart || self.uplink {
                Purpose::Demo
            } else {
                Purpose::Build
            },
            true,
        )?;
        if self.instructions {
            packages::ensure(Purpose::Counting, true)?;
            return instructions::check(self.only.as_deref(), self.save, None);
        }
        let kinds = self.kinds();
        match () {
            () if self.compile => self.changes(),
            () if self.attach => self.attachments(),
            () if self.restart => self.restarts(),
            () if self.uplink => self.uplinks(),
            () if self.veth => self.containers(),
            () if self.vhost => self.guests(),
            () if self.vs_ovs => self.compare(),
            () if !kinds.is_empty() => self.workers(&kinds),
            () => self.criterion(),
        }
    }

    fn changes(self) -> Result<()> {
        let mut command = cargo(&["bench", "--package", "controller", "--bench", "compile", "--"]);
        if self.save {
            command.arg("--save").arg(root().join("docs/performance"));
        }
        show(&mut command, None)?;
        show(&mut cargo(&["bench", "--package", "controller", "--bench", "start"]), None)?;
        let daemons = ["--package", "vswitchd", "--package", "vswitchctl", "--package", "controller"];
        show(cargo(&["build", "--release"]).args(daemons).args(["--package", "benches", "--bins"]), None)?;
        let mut command =
            cargo(&["run", "--quiet", "--release", "--package", "benches", "--bin", "vs-ovn", "--"]);
        if let Some(turns) = self.pairs {
            command.args(["--turns", &turns.to_string()]);
        }
        if self.save {
            command.arg("--save").arg(root().join("docs/performance/vs-ovn.json"));
        }
        show(&mut command, None)
    }

    fn guests(self) -> Result<()> {
        packages::ensure(Purpose::Guests, true)?;
        let mut command =
            cargo(&["run", "--quiet", "--release", "--package", "benches", "--bin", "vhost", "--"]);
        if let Some(pairs) = self.pairs {
            command.args(["--pairs", &pairs.to_string()]);
        }
        if let Some(seconds) = self.seconds {
            command.args(["--seconds", &seconds.to_string()]);
        }
        if self.save {
            command.arg("--save").arg(root().join("docs/performance/vhost.json"));
        }
        show(&mut command, None)
    }

    fn attachments(self) -> Result<()> {
        let mut build = cargo(&["build", "--release", "--package", "vswitchd", "--package", "vswitchctl"]);
        build.args([
            "--package",
            "controller",
            "--package",
            "vswitch-cni",
            "--package",
            "ferroflow-tests",
            "--bins",
        ]);
        show(&mut build, None)?;
        let mut command =
            cargo(&["test", "--release", "--package", "ferroflow-tests", "--test", "cni_many", "--"]);
        command.args(["--exact", "a_container_comes_soon_when_hundreds_are_there", "--nocapture"]);
        if self.save {
            command.env("FERROFLOW_ATTACH_JSON", root().join("docs/performance/attach.json"));
        }
        show(&mut command, None)
    }

    fn restarts(self) -> Result<()> {
        let daemons = ["--package", "vswitchd", "--package", "vswitchctl", "--package", "vswitch-holder"];
        let programs = ["--package", "ferroflow-tests", "--bins"];
        show(cargo(&["build", "--release"]).args(daemons).args(programs), None)?;
        let killed = "a_switch_that_is_killed_again_and_again_forgets_no_connection_and_lets_nobody_in";
        for (test, n, file) in
            [(killed, self.crashes, "crashes"), ("an_upgrade_loses_nothing", self.upgrades, "upgrades")]
        {
            let mut command =
                cargo(&["test", "--release", "--package", "ferroflow-tests", "--test", "outages", "--"]);
            command.args(["--exact", test, "--nocapture"]).env("FERROFLOW_CYCLES", n.to_string());
            if self.save {
                command.env("FERROFLOW_OUTAGES_JSON", root().join(format!("docs/performance/{file}.json")));
            }
            show(&mut command, None)?;
        }
        Ok(())
    }

    fn uplinks(self) -> Result<()> {
        let daemons = ["--package", "vswitchd", "--package", "vswitchctl", "--package", "controller"];
        let programs = ["--package", "ferroflow-tests", "--bins"];
        show(cargo(&["build", "--release"]).args(daemons).args(programs), None)?;
        let mut command =
            cargo(&["test", "--release", "--package", "ferroflow-tests", "--test", "uplinks", "--"]);
        command.args(["--exact", "attach_detach_and_crash_do_not_cut_the_host_off", "--nocapture"]);
        command.env("FERROFLOW_CYCLES", self.cycles.to_string());
        if self.save {
            command.env("FERROFLOW_UPLINKS_JSON", root().join("docs/performance/uplinks.json"));
        }
        show(&mut command, None)
    }

    fn containers(self) -> Result<()> {
        packages::ensure(Purpose::Streams, true)?;
        let daemons = ["--package", "vswitchd", "--package", "vswitchctl", "--package", "controller"];
        show(cargo(&["build", "--release"]).args(daemons).args(["--package", "benches", "--bins"]), None)?;
        let mut command =
            cargo(&["run", "--quiet", "--release", "--package", "benches", "--bin", "veth", "--"]);
        if let Some(only) = self.only {
            command.args(["--only", &only]);
        }
        if let Some(seconds) = self.seconds {
            command.args(["--seconds", &seconds.to_string()]);
        }
        if let Some(rounds) = self.pairs {
            command.args(["--rounds", &rounds.to_string()]);
        }
        if self.save {
            command.arg("--save").arg(root().join("docs/performance/veth.json"));
        }
        show(&mut command, None)
    }

    /// What is asked of whole workers.
    fn kinds(&self) -> Vec<&'static str> {
        let kinds = [
            (self.scaling, "--scaling"),
            (self.latency, "--latency"),
            (self.idle, "--idle"),
            (self.flush, "--flush"),
            (self.attack, "--attack"),
        ];
        kinds.into_iter().filter(|(is_asked, _)| *is_asked).map(|(_, name)| name).collect()
    }

    fn workers(self, kinds: &[&str]) -> Result<()> {
        let mut command =
            cargo(&["run", "--quiet", "--release", "--package", "benches", "--bin", "workers", "--"]);
        command.args(kinds);
        if let Some(seconds) = self.seconds {
            command.args(["--seconds", &seconds.to_string()]);
        }
        if self.save {
            let names: Vec<_> = kinds.iter().map(|kind| kind.trim_start_matches("--")).collect();
            let file = format!("docs/performance/workers-{}.json", names.join("-"));
            command.arg("--save").arg(root().join(file));
        }
        show(&mut command, None)
    }

    fn criterion(self) -> Result<()> {
        let mut command = cargo(&["bench", "--package", "benches"]);
        if let Some(only) = self.only {
            command.args(["--", &only]);
        }
        show(&mut command, None)
    }

    fn compare(self) -> Result<()> {
        let progress = Progress::start();
        progress.step("building the programs");
        let package = ["--release", "--package", "benches"];
        show(cargo(&["build"]).args(package).arg("--bins"), None)?;
        progress.step("comparing; half a minute for each workload");
        let mut command = cargo(&["run", "--quiet"]);
        command.args(package).args(["--bin", "vs-ovs", "--"]);
        let options = [
            ("--only", self.only),
            ("--pairs", self.pairs.map(|n| n.to_string())),
            ("--seconds", self.seconds.map(|seconds| seconds.to_string())),
            ("--save", self.save.then(|| root().join("docs/performance").to_string_lossy().into_owned())),
        ];
        for (name, value) in options {
            if let Some(value) = value {
                command.args([name, &value]);
            }
        }
        show(&mut command, None)
    }
}
