//! Two controllers over an etcd of three members, and two hosts: whichever dies, what was acknowledged stays,
//! and hosts get it, without anybody's help.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use ferroflow_tests::command::{self, SHORT};
use ferroflow_tests::control::Control;
use ferroflow_tests::daemon::{Daemon, Life, find_program, has_command};
use ferroflow_tests::netns::Netns;
use ferroflow_tests::scenario::{self, Dir};
use ferroflow_tests::{say, stop};

/// How long whatever is left may take to be whole again: a leader is chosen in about a second.
const RECOVERY: Duration = Duration::from_secs(30);
const START: Duration = Duration::from_secs(30);
const N_MEMBERS: usize = 3;
const N_CONTROLLERS: usize = 2;
const HOSTS: [(&str, &str); 2] = [("h1", "198.18.0.1"), ("h2", "198.18.0.2")];

/// An etcd, controllers and hosts in one namespace.
struct Company {
    // Dropped in this order.
    hosts: Vec<Daemon>,
    controllers: Vec<Option<Daemon>>,
    members: Vec<Option<Daemon>>,
    netns: Netns,
    programs: PathBuf,
    dir: PathBuf,
    _dir: Dir,
}

impl Company {
    fn start(prefix: &str) -> Result<Self> {
        let dir = scenario::dir(prefix);
        let guard = Dir::create(&dir)?;
        let netns = Netns::create(&format!("{prefix}-c"))?;
        let programs = scenario::target_dir()?;
        let (hosts, controllers, members) = (Vec::new(), Vec::new(), Vec::new());
        let mut company = Self { hosts, controllers, members, netns, programs, dir, _dir: guard };
        for i in 0..N_MEMBERS {
            let member = company.member(i)?;
            company.members.push(Some(member));
        }
        stop::wait_for("etcd has a leader", START, || {
            Ok(company.etcdctl(0, &["endpoint", "health"]).map(drop).map_err(|error| format!("{error:#}")))
        })?;
        for i in 0..N_CONTROLLERS {
            let controller = company.controller(i)?;
            company.controllers.push(Some(controller));
        }
        for i in 0..N_CONTROLLERS {
            company.wait_answers(i)?;
        }
        for (name, ip) in HOSTS {
            let host = company.host(name, ip)?;
            company.hosts.push(host);
        }
        Ok(company)
    }

    fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    fn url(&self, name: &str) -> String {
        format!("unix://{}", self.path(&format!("{name}.sock")))
    }

    fn member(&self, i: usize) -> Result<Daemon> {
        let peers: Vec<_> =
            (0..N_MEMBERS).map(|i| format!("m{i}=http://127.0.0.1:{}", peer_port(i))).collect();
        let (client, peer) = (client_url(i), format!("http://127.0.0.1:{}", peer_port(i)));
        let (name, data) = (format!("m{i}"), self.path(&format!("etcd-{i}")));
        #[rustfmt::skip]
        let args = [
            "--name", &name, "--data-dir", &data, "--initial-cluster", &peers.join(","),
            "--listen-client-urls", &client, "--advertise-client-urls", &client,
            "--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer,
            "--logger", "zap", "--log-level", "warn",
        ];
        let log = self.dir.join(format!("etcd-{i}.log"));
        Daemon::start(&self.netns, Path::new("etcd"), &args, &log, Life::WithParent)
    }

    fn controller(&self, i: usize) -> Result<Daemon> {
        let program = find_program(&self.programs, "vswitch-controller")?;
        let members: Vec<_> = (0..N_MEMBERS).map(|i| format!("127.0.0.1:{}", client_port(i))).collect();
        let (listen, store) = (self.url(&format!("c{i}")), format!("etcd://{}", members.join(",")));
        let log = self.dir.join(format!("c{i}.log"));
        Daemon::start(
            &self.netns,
            &program,
            &["--listen", &listen, "--store", &store],
            &log,
            Life::WithParent,
        )
    }

    fn host(&self, name: &str, ip: &str) -> Result<Daemon> {
        let program = find_program(&self.programs, "vswitchd")?;
        let (socket, urls) = (self.path(&format!("{name}.sock")), [self.url("c0"), self.url("c1")]);
        #[rustfmt::skip]
        let args = [
            "--virtual", "--chassis", name, "--encap-ip", ip, "--socket", &socket,
            "--controller", &urls[0], "--controller", &urls[1],
        ];
        let log = self.dir.join(format!("{name}.log"));
        Daemon::start(&self.netns, &program, &args, &log, Life::WithParent)
    }

    fn control(&self, i: usize) -> Result<Control> {
        Ok(Control::to_controller(&find_program(&self.programs, "vswitchctl")?, &self.url(&format!("c{i}"))))
    }

    fn wait_answers(&mut self, i: usize) -> Result<()> {
        let control = self.control(i)?;
        stop::wait_for("the controller answers", START, || {
            if let Some(controller) = &mut self.controllers[i] {
                controller.check()?;
            }
            let finished = control.attempt(&["chassis", "list"])?;
            Ok(if finished.status.success() { Ok(()) } else { Err(command::complaint(&finished)) })
        })
    }

    fn etcdctl(&self, i: usize, words: &[&str]) -> Result<String> {
        let mut command = self.netns.command("etcdctl");
        command.env("ETCDCTL_API", "3").arg("--endpoints").arg(client_url(i)).args(words);
        command::output(&mut command, SHORT)
    }

    /// The member that leads.
    fn leader(&self) -> Result<usize> {
        for i in (0..N_MEMBERS).filter(|i| self.members[*i].is_some()) {
            let status = self.etcdctl(i, &["endpoint", "status", "-w", "json"])?;
            let status: serde_json::Value = serde_json::from_str(&status)?;
            let status = &status[0]["Status"];
            if status["leader"] == status["header"]["member_id"] {
                return Ok(i);
            }
        }
        bail!("nobody leads")
    }

    /// Everything acknowledged is there, at each controller, and every host has applied it.
    fn check(&mut self, acknowledged: &[String]) -> Result<()> {
        for i in 0..N_CONTROLLERS {
            self.wait_answers(i)?;
            let control = self.control(i)?;
            stop::wait_for("all that was acknowledged is there", RECOVERY, || {
                let there: BTreeSet<_> = control.places()?.into_iter().map(|place| place.id).collect();
                let lost = acknowledged.iter().find(|id| !there.contains(*id));
                Ok(lost.map_or(Ok(()), |lost| Err(format!("controller {i} has no {lost}"))))
            })?;
        }
        // A change of now gets to all hosts, and each controller says so: wherever they are connected.
        for i in 0..N_CONTROLLERS {
            let control = self.control(i)?;
            stop::wait_for("hosts have it", RECOVERY, || {
                let finished = control.attempt(&[
                    "acl",
                    "add",
                    "s",
                    &format!("now-{i}"),
                    "--direction",
                    "to-lport",
                    "--priority",
                    "7",
                    "--match",
                    "ip4",
                    "--action",
                    "allow",
                    "--may-exist",
                    "--wait=5",
                ])?;
                Ok(if finished.status.success() { Ok(()) } else { Err(command::complaint(&finished)) })
            })?;
        }
        for host in &mut self.hosts {
            host.check()?;
        }
        Ok(())
    }

    fn logs(&self) -> String {
        let all =
            self.hosts.iter().chain(self.controllers.iter().flatten()).chain(self.members.iter().flatten());
        all.map(|daemon| format!("---\n{}\n", daemon.log_tail(15))).collect()
    }
}

fn client_port(i: usize) -> usize {
    23_790 + i
}

fn peer_port(i: usize) -> usize {
    23_800 + i
}

fn client_url(i: usize) -> String {
    format!("http://127.0.0.1:{}", client_port(i))
}

/// Adds ports by any controller that answers, until it is told to stop; those that were acknowledged.
fn write(controls: &[Control], stop: &AtomicBool) -> Vec<String> {
    let mut acknowledged = Vec::new();
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let Some(control) = controls.get(n % controls.len()) else { break };
        let name = format!("p{n}");
        let added = control.attempt(&["switch-port", "add", "s", &name, "--may-exist", "--timeout", "5"]);
        if added.is_ok_and(|finished| finished.status.success()) {
            acknowledged.push(name);
        }
    }
    acknowledged
}

#[test]
fn whoever_dies_nothing_acknowledged_is_lost() -> Result<()> {
    if !has_command("etcd") || !has_command("etcdctl") {
        say(
            "SKIPPED whoever_dies_nothing_acknowledged_is_lost: no etcd; apt-get install etcd-server etcd-client",
        );
        return Ok(());
    }
    scenario::run("whoever_dies_nothing_acknowledged_is_lost", |prefix| {
        let mut company = Company::start(prefix)?;
        let result = play(&mut company);
        result.with_context(|| company.logs())
    })
}

fn play(company: &mut Company) -> Result<()> {
    company.control(0)?.text(&["switch", "add", "s"])?;
    for (name, _) in HOSTS {
        let host = Control::to_host(&find_program(&company.programs, "vswitchctl")?, &company.url(name));
        company.control(1)?.text(&["switch-port", "add", "s", &format!("w-{name}"), "--may-exist"])?;
        host.text(&["lab", "port", "add", &format!("w-{name}"), "--logical-port", &format!("w-{name}")])?;
    }
    let controls = [company.control(0)?, company.control(1)?];
    let stopped = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stopped);
    let writing = thread::spawn(move || write(&controls, &told));
    let disturbed = disturb(company);
    stopped.store(true, Ordering::Relaxed);
    let acknowledged = writing.join().ok().context("the writer has panicked")?;
    disturbed?;
    say(&format!("{} writes were acknowledged", acknowledged.len()));
    ensure!(acknowledged.len() > 20, "only {} writes were acknowledged", acknowledged.len());
    company.check(&acknowledged)
}

/// While somebody writes: a controller dies and comes back, etcd's leader dies and comes back, and etcd forgets
/// what was.
fn disturb(company: &mut Company) -> Result<()> {
    let pause = || thread::sleep(Duration::from_secs(2));
    pause();
    company.controllers[0].as_mut().context("no controller")?.kill()?;
    company.controllers[0] = None;
    pause();
    pause();
    company.controllers[0] = Some(company.controller(0)?);
    company.wait_answers(0)?;
    let leader = company.leader()?;
    company.members[leader].as_mut().context("no member")?.kill()?;
    company.members[leader] = None;
    pause();
    pause();
    company.members[leader] = Some(company.member(leader)?);
    pause();
    let other = (leader + 1) % N_MEMBERS;
    let status = company.etcdctl(other, &["endpoint", "status", "-w", "json"])?;
    let status: serde_json::Value = serde_json::from_str(&status)?;
    let revision = status[0]["Status"]["header"]["revision"].as_u64().context("no revision")?;
    company.etcdctl(other, &["compact", &revision.to_string()])?;
    company.controllers[1].as_mut().context("no controller")?.kill()?;
    company.controllers[1] = None;
    pause();
    company.controllers[1] = Some(company.controller(1)?);
    company.wait_answers(1)
}
