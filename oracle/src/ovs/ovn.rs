//! OVN, run beside the tests: the databases and ovn-northd from Debian's unpacked packages, and the answers
//! of ovn-trace(8), of the logical network alone. Comparisons of speed have a host as well, with dummy devices.
//! Nothing is installed.

use anyhow::{Context, Result};

use super::{
    package::Package,
    processes::{Processes, text},
};

/// Lookups of connections that a packet meets on its way, at most.
const MAX_LOOKUPS: usize = 12;
/// Socket of the daemon that does what ovn-nbctl(8) says.
const NBCTL_CONTROL: &str = "nbctl.ctl";

/// A running OVN. It ends, and its folder goes, with this value.
#[derive(Debug)]
pub struct Ovn {
    processes: Processes,
    /// A daemon does what [`Ovn::nbctl`] says.
    keeps_nbctl: bool,
}

impl Ovn {
    /// Starts databases and northd.
    ///
    /// # Errors
    /// When a daemon does not start.
    pub fn start(package: Package) -> Result<Self> {
        let mut ovn = Self::start_databases(package)?;
        ovn.start_northd()?;
        Ok(ovn)
    }

    /// Starts the databases, which nobody compiles yet.
    ///
    /// # Errors
    /// When a daemon does not start.
    pub fn start_databases(package: Package) -> Result<Self> {
        let mut processes = Processes::new(package, "ff-ovn")?;
        for name in ["nb", "sb"] {
            let schema = processes.package.file(&format!("usr/share/ovn/ovn-{name}.ovsschema"));
            let database = text(&processes.path(&format!("{name}.db")));
            processes.run("usr/bin/ovsdb-tool", &["create", &database, &text(&schema)])?;
            let remote = format!("--remote=punix:{}", text(&processes.path(&format!("{name}.sock"))));
            let control = format!("--unixctl={}", text(&processes.path(&format!("{name}.ctl"))));
            processes.daemon("usr/sbin/ovsdb-server", &[&remote, &control, &database])?;
            processes.wait_for(&format!("{name}.sock"))?;
        }
        let ovn = Self { processes, keeps_nbctl: false };
        ovn.nbctl(&["init"])?;
        Ok(ovn)
    }

    /// Starts northd.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_northd(&mut self) -> Result<()> {
        let (nb, sb) = (self.socket("--ovnnb-db", "nb"), self.socket("--ovnsb-db", "sb"));
        let control = format!("--unixctl={}", text(&self.processes.path("northd.ctl")));
        self.processes.daemon("usr/bin/ovn-northd", &[&nb, &sb, &control])?;
        self.processes.wait_for("northd.ctl")
    }

    /// Starts Open vSwitch with dummy devices, a host with a workload that nobody controls yet.
    ///
    /// # Errors
    /// When a daemon does not start.
    pub fn start_switch(&mut self, chassis: &str, workload: &str) -> Result<()> {
        self.processes.open_vswitch()?;
        let remote = format!("external_ids:ovn-remote=unix:{}", text(&self.processes.path("sb.sock")));
        let id = format!("external_ids:system-id={chassis}");
        let words = [
            &["set", "Open_vSwitch", ".", &id, &remote][..],
            &["external_ids:ovn-encap-type=geneve", "external_ids:ovn-encap-ip=127.0.0.1"],
            &["external_ids:ovn-monitor-all=true", "external_ids:ovn-bridge-datapath-type=dummy"],
            &["--", "add-br", "br-int", "--", "set", "bridge", "br-int", "datapath-type=dummy"],
            &["fail-mode=secure"],
        ];
        self.vsctl(&words.concat())?;
        self.add_workload(workload)
    }

    /// Starts ovn-controller for the host.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_controller(&mut self) -> Result<()> {
        let database = format!("unix:{}", text(&self.processes.path("db.sock")));
        let control = format!("--unixctl={}", text(&self.processes.path("controller.ctl")));
        self.processes.daemon("usr/bin/ovn-controller", &[&control, &database])
    }

    /// Gives the host an interface for a switch port.
    ///
    /// # Errors
    /// When Open vSwitch refuses.
    pub fn add_workload(&self, port: &str) -> Result<()> {
        let interface = format!("v-{port}");
        let id = format!("external_ids:iface-id={port}");
        let words =
            ["add-port", "br-int", &interface, "--", "set", "interface", &interface, "type=dummy", &id];
        self.vsctl(&words)
    }

    /// A switch port is up.
    ///
    /// # Errors
    /// When the database does not answer.
    pub fn is_up(&self, port: &str) -> Result<bool> {
        Ok(self.nbctl(&["--if-exists", "get", "Logical_Switch_Port", port, "up"])?.trim() == "true")
    }

    /// Has a daemon keep a copy of the database for the calls of [`Ovn::nbctl`] that come.
    ///
    /// # Errors
    /// When it does not start.
    pub fn keep_nbctl(&mut self) -> Result<()> {
        let (database, control) = (self.socket("--db", "nb"), self.nbctl_control());
        // It goes into the background by itself, so it has to be told to end.
        let words = [&database, &format!("--unixctl={control}"), "--no-chdir", "--detach"];
        self.processes.run("usr/bin/ovn-nbctl", &words)?;
        self.keeps_nbctl = true;
        Ok(())
    }

    fn end_nbctl(&mut self) -> Result<()> {
        if std::mem::take(&mut self.keeps_nbctl) {
            let control = self.nbctl_control();
            self.processes.run("usr/bin/ovs-appctl", &["-t", &control, "exit"])?;
        }
        Ok(())
    }

    fn nbctl_control(&self) -> String {
        text(&self.processes.path(NBCTL_CONTROL))
    }

    fn vsctl(&self, words: &[&str]) -> Result<()> {
        let database = self.socket("--db", "db");
        self.processes.run("usr/bin/ovs-vsctl", &[&[database.as_str()], words].concat()).map(drop)
    }

    /// Waits until the host has all that was said.
    ///
    /// # Errors
    /// When it does not take it.
    pub fn wait_for_host(&self) -> Result<()> {
        self.nbctl(&["--wait=hv", "sync"]).map(drop)
    }

    /// Process ids of all daemons.
    pub fn pids(&self) -> Vec<u32> {
        self.processes.pids()
    }

    /// Logical flows.
    ///
    /// # Errors
    /// When the database does not answer.
    pub fn n_logical_flows(&self) -> Result<usize> {
        let database = self.socket("--db", "sb");
        let words = [database.as_str(), "--bare", "--columns=_uuid", "list", "Logical_Flow"];
        Ok(self.processes.run("usr/bin/ovn-sbctl", &words)?.split_whitespace().count())
    }

    /// Rules of the host's switch.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn n_rules(&self) -> Result<usize> {
        let bridge = format!("unix:{}", text(&self.processes.path("br-int.mgmt")));
        let words = ["-O", "OpenFlow15", "dump-aggregate", &bridge];
        let told = self.processes.run("usr/bin/ovs-ofctl", &words)?;
        let count = told.split("flow_count=").nth(1).and_then(|rest| rest.split_whitespace().next());
        count.and_then(|count| count.trim_end_matches(',').parse().ok()).context("no number of rules")
    }

    /// The release.
    ///
    /// # Errors
    /// When its programs do not run.
    pub fn version(&self) -> Result<String> {
        let told = self.processes.run("usr/bin/ovn-nbctl", &["--version"])?;
        Ok(told.lines().next().and_then(|line| line.split_whitespace().last()).unwrap_or("?").to_owned())
    }

    /// The commands that a program knows, as it lists them.
    ///
    /// # Errors
    /// When it does not run.
    pub fn commands(&self, program: &str) -> Result<String> {
        self.processes.run(&format!("usr/bin/{program}"), &["--commands"])
    }

    /// Does what ovn-nbctl(8) understands, in one transaction; commands are separated by `--`.
    ///
    /// # Errors
    /// When it refuses.
    pub fn nbctl(&self, words: &[&str]) -> Result<String> {
        let control = self.nbctl_control();
        let database = self.socket("--db", "nb");
        let way = if self.keeps_nbctl { vec!["-u", &control] } else { vec![database.as_str()] };
        self.processes.run("usr/bin/ovn-nbctl", &[&way[..], &["--timeout=400"], words].concat())
    }

    /// Waits until northd has compiled all that was said.
    ///
    /// # Errors
    /// When it does not.
    pub fn sync(&self) -> Result<()> {
        self.nbctl(&["--wait=sb", "sync"]).map(drop)
    }

    /// Asks what becomes of a packet that comes into a datapath, in the words of ovn-trace(8). All lookups of
    /// its connection say `state`.
    ///
    /// # Errors
    /// When it does not understand.
    pub fn trace(&self, datapath: &str, packet: &str, state: &str) -> Result<String> {
        let (database, state) = (self.socket("--db", "sb"), format!("--ct={state}"));
        let mut words = vec![database.as_str(), "--summary"];
        words.extend([state.as_str(); MAX_LOOKUPS]);
        words.extend([datapath, packet]);
        self.processes.run("usr/bin/ovn-trace", &words)
    }

    fn socket(&self, option: &str, name: &str) -> String {
        format!("{option}=unix:{}", text(&self.processes.path(&format!("{name}.sock"))))
    }
}

impl Drop for Ovn {
    fn drop(&mut self) {
        if let Err(error) = self.end_nbctl() {
            eprintln!("ovn-nbctl may have stayed: {error:#}");
        }
    }
}
