//! Debian's OVN.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use oracle::ovs::{
    ovn::Ovn,
    package::{Names, Package},
};

use super::{
    CHASSIS, Cost, Figures, N_CHANGES, Topology, WORKLOAD, cpu, resident, timed, topology::words, wait_until,
};

const LIMIT: Duration = Duration::from_secs(300);

/// OVN, to be started anew for each turn.
pub(super) struct Side {
    package: Package,
    pub(super) version: String,
}

impl Side {
    pub(super) fn get() -> Result<Self> {
        let package = Package::get_of(Names::Ovn)?;
        let version = Ovn::start_databases(package.clone())?.version()?;
        Ok(Self { package, version })
    }

    pub(super) fn measure(&self, topology: Topology) -> Result<Figures> {
        let mut ovn = Ovn::start_databases(self.package.clone())?;
        populate(&ovn, topology)?;
        let mut figures = Figures::default();
        let before = cpu(&ovn.pids())?;
        let start = Instant::now();
        ovn.start_northd()?;
        ovn.sync()?;
        figures.central = Cost { wall: start.elapsed().as_secs_f64(), cpu: cpu(&ovn.pids())? - before };
        // What is there without a network is none of its cost.
        ovn.start_switch(CHASSIS, WORKLOAD)?;
        let before = cpu(&ovn.pids())?;
        let start = Instant::now();
        ovn.start_controller()?;
        wait_until(LIMIT, || ovn.is_up(WORKLOAD))?;
        ovn.wait_for_host()?;
        figures.host = Cost { wall: start.elapsed().as_secs_f64(), cpu: cpu(&ovn.pids())? - before };
        figures.n_rules = ovn.n_rules()?;
        figures.memory = resident(&ovn.pids())?;
        // Else each command begins with a copy of the database.
        ovn.keep_nbctl()?;
        let nbctl = |call: &[&str]| ovn.nbctl(&[&["--wait=hv"], call].concat()).map(drop);
        figures.noop = timed(N_CHANGES, |_| nbctl(&["sync"]))?;
        figures.port = timed(N_CHANGES, |n| {
            let (id, has) = (format!("new{n}"), format!("02:50:00:00:00:{n:02x} 10.4.200.{}", n + 1));
            nbctl(&["lsp-add", "ls3", &id, "--", "lsp-set-addresses", &id, &has])
        })?;
        figures.acl = timed(N_CHANGES, |n| {
            let matching = format!("outport == @pg0 && ip4 && udp.dst == {}", n + 1);
            nbctl(&["acl-add", "pg0", "to-lport", &(3000 + n).to_string(), &matching, "drop"])
        })?;
        figures.workload = timed(N_CHANGES / 2, |n| {
            let (id, has) = (format!("hv{n}"), format!("02:40:00:00:00:{n:02x} 10.3.200.{}", n + 1));
            ovn.nbctl(&["lsp-add", "ls2", &id, "--", "lsp-set-addresses", &id, &has])?;
            ovn.add_workload(&id)?;
            wait_until(LIMIT, || ovn.is_up(&id))?;
            nbctl(&["sync"])
        })?;
        Ok(figures)
    }
}

fn populate(ovn: &Ovn, topology: Topology) -> Result<()> {
    let call = |words: &[String]| ovn.nbctl(&words.iter().map(String::as_str).collect::<Vec<_>>());
    for words in topology.ovn() {
        call(&words)?;
    }
    let ids = |table: &str| -> Result<Vec<String>> {
        Ok(words(&call(&words(&format!("--bare --columns=_uuid list {table}")))?))
    };
    call(&words("create Load_Balancer_Group name=lbg0"))?;
    let group = ids("Load_Balancer_Group")?.pop().context("no group of load balancers")?;
    for words in topology.ovn_balancers(&ids("Load_Balancer")?, &group) {
        call(&words)?;
    }
    Ok(())
}
