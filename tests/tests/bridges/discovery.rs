//! Discovery: lldpd and ours see each other, and forget who says farewell.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ferroflow_tests::daemon::{Daemon, has_command};
use ferroflow_tests::netns::Netns;
use ferroflow_tests::{command, stop};
use serde_json::Value;

use crate::LIMIT;
use crate::star::{Kind, Star, on_star};

/// Where Debian's lldpd takes refuge from what it reads; only its package's service makes it.
const REFUGE: &str = "/run/lldpd";
/// Seconds between two units, and for how many of those they are true.
const INTERVAL: u64 = 1;
const HOLD: u64 = 4;

/// lldpd in a host.
struct Lldpd {
    daemon: Daemon,
    socket: PathBuf,
}

impl Lldpd {
    fn start(star: &Star, host: &Netns) -> Result<Self> {
        std::fs::create_dir_all(REFUGE).with_context(|| format!("cannot make {REFUGE}"))?;
        // Who asks it has no rights in the folders of others.
        let socket = Path::new(REFUGE).join(format!("{}.sock", host.name()));
        let mut command = host.command("setpriv");
        // Nothing of the host's settings, and no program that tells it more.
        command.args(["--pdeathsig", "KILL", "--", "lldpd", "-d", "-I", "eth0", "-S", "a neighbour"]);
        command.args(["-O", "/dev/null", "-u"]).arg(&socket);
        let mut daemon = Daemon::spawn(command, "lldpd".to_owned(), &star.dir.join("lldpd.log"))?;
        let mut lldpd = stop::wait_for("lldpd answers", LIMIT, || {
            daemon.check()?;
            Ok(if socket.exists() { Ok(()) } else { Err("no socket".to_owned()) })
        })
        .map(|()| Self { daemon, socket })?;
        lldpd.daemon.check()?;
        // It begins when it is told to, by its own client or by this one.
        lldpd.told(&["resume"])?;
        stop::wait_for("lldpd has the interface", LIMIT, || {
            let shown = lldpd.told(&["show", "interfaces"])?;
            Ok(if shown.contains("\"eth0\"") { Ok(()) } else { Err(shown) })
        })?;
        lldpd.told(&["configure", "lldp", "tx-interval", &INTERVAL.to_string()])?;
        lldpd.told(&["configure", "lldp", "tx-hold", &HOLD.to_string()])?;
        Ok(lldpd)
    }

    fn told(&self, words: &[&str]) -> Result<String> {
        let mut command = std::process::Command::new("lldpcli");
        command.arg("-u").arg(&self.socket).args(["-f", "json0"]).args(words);
        command::output(&mut command, LIMIT)
    }

    /// Its neighbours by eth0.
    fn neighbours(&self) -> Result<Vec<Value>> {
        let shown: Value = serde_json::from_str(&self.told(&["show", "neighbors", "details"])?)?;
        Ok(shown["lldp"][0]["interface"].as_array().cloned().unwrap_or_default())
    }
}

impl Drop for Lldpd {
    fn drop(&mut self) {
        // It is gone already where the daemon has ended as it was asked to.
        let _ = std::fs::remove_file(&self.socket);
    }
}

#[test]
fn lldpd_and_ours_see_each_other_and_forget_who_says_farewell() -> Result<()> {
    ensure!(has_command("lldpd"), "there is no `lldpd`; apt-get install lldpd");
    let kind = Kind { n_hosts: 2, ..Kind::default() };
    on_star("lldpd_and_ours", kind, |star| {
        star.add_ports()?;
        let mut lldpd = Lldpd::start(star, star.host(1))?;
        star.switch.set(&[
            "lldp.enabled=true",
            "lldp.interval=1",
            "lldp.hold=3",
            "lldp.system-name=ferroflow-one",
            "lldp.management=[\"192.0.2.7\"]",
        ])?;
        // Ours, as lldpd sees it.
        let heard = stop::wait_for("lldpd sees ours", LIMIT, || {
            let heard = lldpd.neighbours()?;
            Ok(if heard.len() == 1 { Ok(heard[0].clone()) } else { Err(format!("{heard:?}")) })
        })?;
        let (chassis, port) = (&heard["chassis"][0], &heard["port"][0]);
        ensure!(heard["via"] == "LLDP", "{heard}");
        ensure!(chassis["name"][0]["value"] == "ferroflow-one", "{heard}");
        ensure!(chassis["id"][0]["type"] == "mac", "{heard}");
        ensure!(chassis["mgmt-ip"][0]["value"] == "192.0.2.7", "{heard}");
        let described = chassis["descr"][0]["value"].as_str().unwrap_or_default();
        ensure!(described.starts_with("Ferroflow "), "{heard}");
        ensure!(port["id"][0] == serde_json::json!({"type": "ifname", "value": "p1"}), "{heard}");
        ensure!(port["ttl"][0]["value"] == "4" || port["ttl"][0]["ttl"] == "4", "{heard}");
        let is_bridge = |chassis: &Value| {
            let all = chassis["capability"].as_array().cloned().unwrap_or_default();
            all.iter().any(|one| one["type"] == "Bridge" && one["enabled"] == true)
        };
        ensure!(is_bridge(chassis), "{heard}");
        // lldpd, as ours sees it, by the port where it is and no other.
        let known = |n: usize| {
            stop::wait_for(&format!("ours knows of {n}"), LIMIT, || {
                let protocols = star.switch.protocols()?;
                let ports = protocols["lldp_ports"].as_array().cloned().unwrap_or_default();
                let of = |name: &str| {
                    let port = ports.iter().find(|port| port["port"] == name).cloned().unwrap_or_default();
                    port["neighbours"].as_array().cloned().unwrap_or_default()
                };
                let (near, far) = (of("p1"), of("p2"));
                Ok(if near.len() == n && far.is_empty() { Ok(near) } else { Err(protocols.to_string()) })
            })
        };
        let heard = known(1)?.remove(0);
        let mac = star.host(1).ip(&["-o", "link", "show", "dev", "eth0"])?;
        let mac = mac.split_whitespace().skip_while(|word| *word != "link/ether").nth(1).unwrap_or_default();
        ensure!(heard["port_id"] == mac, "{heard}");
        ensure!(heard["system_description"] == "a neighbour", "{heard}");
        ensure!(
            heard["management"].as_array().is_some_and(|all| all.contains(&"10.0.0.1".into())),
            "{heard}"
        );
        let left = heard["seconds_left"].as_u64().unwrap_or_default();
        ensure!((1..=INTERVAL * HOLD + 1).contains(&left), "{heard}");
        // Ours falls silent after it has said so: lldpd does not have to wait for what was true so long.
        star.switch.set(&["lldp.hold=10", "lldp.interval=30"])?;
        stop::wait_for("what is told is true for long", LIMIT, || {
            let ttl = lldpd
                .neighbours()?
                .first()
                .map(|heard| heard["port"][0]["ttl"][0].clone())
                .unwrap_or_default();
            Ok(if ttl["value"] == "301" || ttl["ttl"] == "301" { Ok(()) } else { Err(ttl.to_string()) })
        })?;
        star.switch.set(&["lldp.ports.p1=receive"])?;
        stop::wait_for("lldpd forgets ours", Duration::from_secs(10), || {
            let heard = lldpd.neighbours()?;
            Ok(if heard.is_empty() { Ok(()) } else { Err(format!("{heard:?}")) })
        })?;
        // And the other way round.
        lldpd.told(&["configure", "lldp", "tx-hold", "100"])?;
        stop::wait_for("lldpd is there for long", LIMIT, || {
            let left = known(1)?[0]["seconds_left"].as_u64().unwrap_or_default();
            Ok(if left > 50 { Ok(()) } else { Err(format!("{left} s")) })
        })?;
        lldpd.daemon.stop()?;
        known(0).map(drop)
    })
}
