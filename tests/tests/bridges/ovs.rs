//! Open vSwitch as the peer.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use ferroflow_tests::daemon::Daemon;
use ferroflow_tests::netns::Netns;
use ferroflow_tests::{command, stop};
use oracle::ovs::package::Package;

use crate::LIMIT;

/// Open vSwitch in a name space, with its datapath in user space.
pub(crate) struct OpenVSwitch {
    package: Package,
    dir: PathBuf,
    _daemons: Vec<Daemon>,
}

impl OpenVSwitch {
    pub(crate) fn start(package: Package, peer: &Netns, dir: &Path) -> Result<Self> {
        let dir = dir.join("ovs");
        std::fs::create_dir_all(&dir)?;
        let mut ovs = Self { package, dir, _daemons: Vec::new() };
        let (database, socket) = (ovs.path("conf.db"), ovs.path("db.sock"));
        let schema = ovs.package.file("usr/share/openvswitch/vswitch.ovsschema").display().to_string();
        command::output(
            &mut ovs.command(peer, "usr/bin/ovsdb-tool", &["create", &database, &schema]),
            LIMIT,
        )?;
        let (remote, control) = (format!("--remote=punix:{socket}"), ovs.path("db.ctl"));
        let words = [&remote, &format!("--unixctl={control}"), &database];
        ovs.daemon(peer, "usr/sbin/ovsdb-server", &words.map(String::as_str), "db.sock")?;
        ovs.vsctl(peer, &["--no-wait", "init"])?;
        let words = [format!("--unixctl={}", ovs.path("ovs.ctl")), format!("unix:{socket}")];
        let words = words.each_ref().map(String::as_str);
        ovs.daemon(peer, "usr/lib/openvswitch-switch/ovs-vswitchd", &words, "ovs.ctl")?;
        Ok(ovs)
    }

    fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    fn command(&self, peer: &Netns, program: &str, words: &[&str]) -> Command {
        let mut command = peer.command("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "env"]);
        command.arg(format!("LD_LIBRARY_PATH={}", self.package.libraries()));
        for name in ["RUNDIR", "LOGDIR", "DBDIR", "SYSCONFDIR"] {
            command.arg(format!("OVS_{name}={}", self.dir.display()));
        }
        command.arg(self.package.file(program)).args(words);
        command
    }

    fn daemon(&mut self, peer: &Netns, program: &str, words: &[&str], sign: &str) -> Result<()> {
        let command = self.command(peer, program, words);
        let log = self.dir.join(format!("{sign}.log"));
        let mut daemon = Daemon::spawn(command, program.to_owned(), &log)?;
        stop::wait_for(program, LIMIT, || {
            daemon.check()?;
            Ok(if self.dir.join(sign).exists() { Ok(()) } else { Err("it does not answer".to_owned()) })
        })?;
        self._daemons.push(daemon);
        Ok(())
    }

    pub(crate) fn vsctl(&self, peer: &Netns, words: &[&str]) -> Result<String> {
        let database = format!("--db=unix:{}", self.path("db.sock"));
        command::output(
            &mut self.command(peer, "usr/bin/ovs-vsctl", &[&[database.as_str()], words].concat()),
            LIMIT,
        )
    }

    pub(crate) fn appctl(&self, peer: &Netns, words: &[&str]) -> Result<String> {
        let target = self.path("ovs.ctl");
        command::output(
            &mut self.command(peer, "usr/bin/ovs-appctl", &[&["-t", &target], words].concat()),
            LIMIT,
        )
    }
}
