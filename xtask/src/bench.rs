//! `bench`: how fast it is, by itself and beside Open vSwitch.

use anyhow::Result;
use clap::Args;
use ferroflow_tests::{say, stop};
use serde_json::Value;

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
    /// Cold starts: a controller with 100 000 ports in its store; a switch with 20 000 rules, upgraded and killed under
    /// traffic.
    #[arg(long, conflicts_with = "vs_ovs")]
    start: bool,
    /// How often the switch is upgraded, and how often it is killed.
    #[arg(long, value_name = "N", requires = "start", default_value_t = 5)]
    starts: usize,
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
            if self.vs_ovs
                || self.veth
                || self.vhost
                || self.attach
                || self.restart
                || self.start
                || self.uplink
            {
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
            () if self.start => self.starts(),
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
        self.outages(&[
            (
                "a_switch_that_is_killed_again_and_again_forgets_no_connection_and_lets_nobody_in",
                self.crashes,
                "crashes",
            ),
            ("an_upgrade_loses_nothing", self.upgrades, "upgrades"),
            (
                "af_xdp_ports_live_on_when_the_switch_is_killed_again_and_again",
                self.crashes,
                "crashes-af-xdp",
            ),
            ("an_upgrade_loses_nothing_of_af_xdp_ports", self.upgrades, "upgrades-af-xdp"),
        ])
    }

    /// A controller with 100 000 ports in its store, and a switch with 20 000 rules, from their starts.
    fn starts(self) -> Result<()> {
        show(&mut cargo(&["bench", "--package", "controller", "--bench", "start"]), None)?;
        self.outages(&[("a_switch_with_thousands_of_rules_is_back_within_a_second", self.starts, "starts")])
    }

    /// Runs scenarios of blows, so many each, and prints a line for each of them.
    fn outages(&self, scenarios: &[(&str, usize, &str)]) -> Result<()> {
        let daemons = ["--package", "vswitchd", "--package", "vswitchctl", "--package", "vswitch-holder"];
        let programs = ["--package", "ferroflow-tests", "--bins"];
        show(cargo(&["build", "--release"]).args(daemons).args(programs), None)?;
        let (mut table, mut failed) = (vec![Outages::HEAD.to_owned()], None);
        for (test, n, name) in scenarios {
            let file = match self.save {
                true => root().join(format!("docs/performance/{name}.json")),
                false => std::env::temp_dir().join(format!("ferroflow-{}-{name}.json", std::process::id())),
            };
            let mut command =
                cargo(&["test", "--release", "--package", "ferroflow-tests", "--test", "outages", "--"]);
            command.args(["--exact", test, "--nocapture"]).env("FERROFLOW_CYCLES", n.to_string());
            command.env("FERROFLOW_OUTAGES_JSON", &file);
            // What was measured is shown even where it is too much.
            failed = show(&mut command, None).err().or(failed);
            stop::check()?;
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            if !self.save {
                let _ = std::fs::remove_file(&file);
            }
            table.extend(Outages::read(name, &text).map(|outages| outages.0));
        }
        say(&table.join("\n"));
        failed.map_or(Ok(()), Err)
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

/// What a scenario of blows has measured, as a line of a table.
struct Outages(String);

impl Outages {
    const HEAD: &str = "\
| scenario | blows | gap p50 | p99 | longest | longest without a blow | datagrams lost | words unanswered | forbidden passed |
|---|---|---|---|---|---|---|---|---|";

    /// `None`: the scenario has not got so far.
    fn read(name: &str, text: &str) -> Option<Self> {
        let measured: Value = serde_json::from_str(text).ok()?;
        let number = |path: &str| measured.pointer(path).and_then(Value::as_u64);
        let millis = |path: &str| number(path).map(|micros| format!("{:.1} ms", micros as f64 / 1000.0));
        Some(Self(format!(
            "| {name} | {} | {} | {} | {} | {} | {} of {} | {} of {} | {} |",
            number("/blows")?,
            millis("/gap_us/p50")?,
            millis("/gap_us/p99")?,
            millis("/gap_us/longest")?,
            millis("/longest_without_a_blow_us")?,
            number("/datagrams/lost")?,
            number("/datagrams/sent")?,
            number("/words/said")?.checked_sub(number("/words/answered")?)?,
            number("/words/said")?,
            number("/datagrams/forbidden")?,
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_measured_is_a_line_of_the_table() {
        let text = r#"{"blows": 3, "gap_us": {"p50": 1240, "p99": 2000, "longest": 30049},
            "longest_without_a_blow_us": 900, "datagrams": {"sent": 1000, "lost": 2, "forbidden": 0},
            "words": {"said": 40, "answered": 39}}"#;
        let line = Outages::read("crashes", text).unwrap().0;
        assert_eq!(line, "| crashes | 3 | 1.2 ms | 2.0 ms | 30.0 ms | 0.9 ms | 2 of 1000 | 1 of 40 | 0 |");
        let n_columns = |line: &str| line.matches('|').count();
        assert!(Outages::HEAD.lines().all(|head| n_columns(head) == n_columns(&line)));
        assert!(Outages::read("crashes", "").is_none() && Outages::read("crashes", "{}").is_none());
    }
}
