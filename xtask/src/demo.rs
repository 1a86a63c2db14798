//! `demo`: two hosts in namespaces, a network on them, and a table of what holds between its workloads.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use ferroflow_tests::checks::{CHECKS, Row};
use ferroflow_tests::command::{complaint, run};
use ferroflow_tests::daemon::Life;
use ferroflow_tests::fabric::{self, Fabric, Plan, Programs};
use ferroflow_tests::probe::Probe;
use ferroflow_tests::{print_line, privilege, say, stop};

use crate::cargo::{cargo, root, show};
use crate::packages::{self, Purpose};
use crate::progress::{Progress, chain};

/// Start of the names of the demo's namespaces.
const PREFIX: &str = "ff-demo";
/// The demo's folder: sockets, state, logs. Only root may write where it is made.
const DIR: &str = "/run/ff-demo";
/// Holds the process id of the demo that runs.
const OWNER: &str = "/run/ff-demo.pid";
/// The first kernel that attaches an XDP program by a link, which ends with its process, is 5.9; this is the
/// long-term one after it.
const KERNEL_MIN: (u32, u32) = (5, 10);

/// Show it: two hosts, four workloads, a router and an ACL on this machine, in namespaces that are removed again.
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Leave everything running, to look around.
    #[arg(long)]
    keep: bool,
    /// Remove what `--keep` has left running, and do nothing else.
    #[arg(long, conflicts_with = "keep")]
    down: bool,
    /// Do not install missing packages; fail and name them.
    #[arg(long)]
    no_install: bool,
}

impl Demo {
    pub(crate) fn run(self) -> Result<()> {
        ensure!(privilege::is_root(), "the demo makes network namespaces and AF_XDP sockets: run it as root");
        let _owner = Owner::claim(Path::new(OWNER))?;
        let progress = Progress::start();
        if self.down {
            return down(&progress);
        }
        let (major, minor) = privilege::kernel_version()?;
        let (min_major, min_minor) = KERNEL_MIN;
        ensure!(
            (major, minor) >= KERNEL_MIN,
            "this is Linux {major}.{minor}, and AF_XDP with BPF links wants {min_major}.{min_minor} or newer"
        );
        progress.step(&format!("looking for what the build needs (Linux {major}.{minor})"));
        packages::ensure(Purpose::Demo, !self.no_install)?;
        let programs = build(&progress)?;
        doctor(&programs, &progress)?;
        remove_stale(&progress)?;
        self.show(programs, &progress)
    }

    fn show(&self, programs: Programs, progress: &Progress) -> Result<()> {
        let life = if self.keep { Life::OnItsOwn } else { Life::WithParent };
        let plan = Plan { prefix: PREFIX.to_owned(), dir: DIR.into(), programs, life };
        let tell = |what: &str| progress.step(what);
        let mut fabric = Fabric::start(plan, &tell)?;
        let example = root().join("examples/two-switches.yaml");
        let result = fabric.realise(&example, &tell).and_then(|()| prove(&fabric, progress));
        let result = result.and_then(|()| fabric.check_daemons());
        if result.is_err() && !stop::requested() {
            say(&fabric.logs(20));
        }
        if self.keep && !stop::requested() {
            print_line(&hints(&fabric))?;
            fabric.keep();
        } else {
            progress.step("removing it all");
            drop(fabric);
        }
        result?;
        progress.step("all rows hold");
        Ok(())
    }
}

/// Builds the programs, with cargo's own progress on the terminal.
fn build(progress: &Progress) -> Result<Programs> {
    progress.step("building vswitch-controller, vswitchd and vswitchctl (minutes when it is the first time)");
    #[rustfmt::skip]
    let words = ["build", "--release", "--bin", "vswitch-controller", "--bin", "vswitchd", "--bin", "vswitchctl"];
    show(&mut cargo(&words), None)?;
    let xtask = std::env::current_exe()?;
    // Beside the folder of the profile that this program was built with.
    let release_dir = xtask.parent().and_then(Path::parent).map(|dir| dir.join("release"));
    let release_dir = release_dir.context("this program is not in cargo's output folder")?;
    Programs::find(&release_dir, Probe { program: xtask, words: vec!["probe".to_owned()] })
}

/// Says what this host can do before anything is made on it.
fn doctor(programs: &Programs, progress: &Progress) -> Result<()> {
    progress.step("what this host can do (vswitchd doctor)");
    let mut command = std::process::Command::new(&programs.switch);
    let finished = run(command.arg("doctor"), Duration::from_secs(30))?;
    for line in finished.stdout.lines() {
        say(&format!("            {line}"));
    }
    ensure!(finished.status.success(), "this host cannot run vswitchd: {}", complaint(&finished));
    Ok(())
}

/// Makes every check, also after one that does not hold: the rows tell together what is wrong.
fn prove(fabric: &Fabric, progress: &Progress) -> Result<()> {
    progress.step("checking");
    let name_len = CHECKS.iter().map(|check| check.name.chars().count()).max().unwrap_or_default();
    print_line("")?;
    let mut n_failed = 0;
    for check in CHECKS {
        let row = check.run(fabric);
        stop::check()?;
        print_line(&line(&row, name_len))?;
        n_failed += u32::from(row.result.is_err());
    }
    print_line("")?;
    match n_failed {
        0 => Ok(()),
        n => bail!("{n} of {} rows do not hold", CHECKS.len()),
    }
}

fn line(row: &Row, name_len: usize) -> String {
    let (mark, said) = match &row.result {
        Ok(said) => ('✓', said.clone()),
        Err(error) => ('✗', chain(error)),
    };
    format!("  {mark} {:<name_len$}  {:>6.2} s  {said}", row.name, row.took.as_secs_f64())
}

fn hints(fabric: &Fabric) -> String {
    let programs = &fabric.plan().programs;
    let bin_dir = programs.control.parent().map_or_else(PathBuf::new, Path::to_owned);
    format!(
        "It is still running. Try:

  export PATH={}:$PATH
  export VSWITCH_CONTROLLER=unix://{DIR}/controller.sock VSWITCH_HOST=unix://{DIR}/h1.sock
  vswitchctl status; vswitchctl port list; vswitchctl drops; vswitchctl megaflow dump
  vswitchctl acl list; vswitchctl export
  vswitchctl trace --in-port web-1 'tcp,dl_src=0a:00:00:00:01:0b,dl_dst=0a:00:00:00:01:01,nw_src=10.0.1.11,nw_dst=10.0.2.11,tp_dst=23'
  ip netns exec {PREFIX}-web-1 {} probe ping 10.0.2.12 5 56
  ip netns exec {PREFIX}-h1 tcpdump -ni underlay udp port 6081
  tail -f {DIR}/h1.log

Remove it: cargo xtask demo --down
",
        bin_dir.display(),
        programs.probe.program.display()
    )
}

fn down(progress: &Progress) -> Result<()> {
    let n = fabric::remove(PREFIX, Path::new(DIR))?;
    progress.step(&format!("removed {n} namespaces and {DIR}"));
    Ok(())
}

/// What a demo that was killed, or kept, has left behind.
fn remove_stale(progress: &Progress) -> Result<()> {
    let n = fabric::remove(PREFIX, Path::new(DIR))?;
    if n > 0 {
        progress.step(&format!("removed {n} namespaces of an earlier demo"));
    }
    Ok(())
}

/// Says that this process runs the demo: names and folder are fixed, so there is one at a time.
#[derive(Debug)]
struct Owner {
    path: PathBuf,
}

impl Owner {
    fn claim(path: &Path) -> Result<Self> {
        loop {
            match fs::File::create_new(path) {
                Ok(mut file) => {
                    write!(file, "{}", std::process::id())?;
                    return Ok(Self { path: path.to_owned() });
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    let text = fs::read_to_string(path).unwrap_or_default();
                    if is_alive(&text) {
                        bail!("another demo is running (process {})", text.trim());
                    }
                    fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))?;
                }
                Err(error) => return Err(error).with_context(|| format!("cannot make {}", path.display())),
            }
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// The process exists and is one of ours: ids are used again.
fn is_alive(pid: &str) -> bool {
    let Ok(pid) = pid.trim().parse::<u32>() else { return false };
    let of = |pid: &str| fs::read_to_string(format!("/proc/{pid}/comm")).ok();
    pid != std::process::id() && of(&pid.to_string()).is_some_and(|comm| Some(comm) == of("self"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_demo_at_a_time_but_a_dead_one_is_in_nobodys_way() {
        let path = std::env::temp_dir().join(format!("ff-demo-owner-{}", std::process::id()));
        fs::write(&path, "4000000000").unwrap();
        let owner = Owner::claim(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), std::process::id().to_string());
        drop(owner);
        assert!(!path.exists());
        // A process of another name has got the id.
        fs::write(&path, "1").unwrap();
        drop(Owner::claim(&path).unwrap());
    }

    #[test]
    fn a_row_tells_what_was_seen_or_why_not() {
        let took = Duration::from_millis(1234);
        let good = line(&Row { name: "ping", took, result: Ok("5/5".to_owned()) }, 6);
        assert_eq!(good, "  ✓ ping      1.23 s  5/5");
        let error = anyhow::anyhow!("no answer").context("web-1");
        let bad = line(&Row { name: "ping", took, result: Err(error) }, 6);
        assert_eq!(bad, "  ✗ ping      1.23 s  web-1: no answer");
    }
}
