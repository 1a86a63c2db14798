//! What a bridge does that nobody tells anything: `secure` drops by name, `standalone` is a learning switch; and
//! what it was told it does with nobody there to tell it, also after a crash.

use anyhow::{Context, Result, ensure};
use ferroflow_tests::stop;

use crate::LIMIT;
use crate::star::{Kind, Star, on_star};

fn mode(star: &Star) -> Result<(String, u64)> {
    let shown = star.switch.control.json(&["bridge", "show", "br0"])?;
    let mode = shown["fail_mode"].as_str().with_context(|| shown.to_string())?;
    Ok((mode.to_owned(), shown["n_rules"].as_u64().with_context(|| shown.to_string())?))
}

fn wait_for_misses(star: &Star) -> Result<()> {
    stop::wait_for("drops have their name", LIMIT, || {
        let drops = star.switch.control.drops()?;
        let is_named = drops.iter().any(|drop| drop.port == "p1" && drop.reason == "table-miss");
        Ok(if is_named { Ok(()) } else { Err(format!("{drops:?}")) })
    })
}

#[test]
fn a_secure_bridge_without_rules_drops_by_name_and_stays_so() -> Result<()> {
    let kind = Kind { n_hosts: 2, is_secure: true, ..Kind::default() };
    on_star("a_secure_bridge", kind, |star| {
        star.add_ports()?;
        ensure!(mode(star)? == ("secure".to_owned(), 0), "{:?}", mode(star)?);
        ensure!(star.ping(1, 2, 2)? == 0, "there is no rule");
        wait_for_misses(star)?;
        star.switch.crash()?;
        ensure!(mode(star)? == ("secure".to_owned(), 0), "{:?}", mode(star)?);
        ensure!(star.ping(1, 2, 2)? == 0, "there is still no rule");
        wait_for_misses(star)?;
        // Told to, it begins as a learning switch, and does not forget that.
        star.switch.control.text(&["bridge", "set-fail-mode", "br0", "standalone"])?;
        star.wait_for_ping(1, 2)?;
        star.switch.crash()?;
        ensure!(mode(star)? == ("standalone".to_owned(), 1), "{:?}", mode(star)?);
        star.wait_for_ping(1, 2)
    })
}

#[test]
fn a_standalone_bridge_learns_and_rules_stay_when_whoever_wrote_them_is_gone() -> Result<()> {
    let kind = Kind { n_hosts: 3, ..Kind::default() };
    on_star("a_standalone_bridge", kind, |star| {
        star.add_ports()?;
        ensure!(mode(star)? == ("standalone".to_owned(), 1), "{:?}", mode(star)?);
        star.wait_for_ping(1, 2)?;
        let stations = star.switch.control.text(&["fdb", "dump"])?;
        ensure!(stations.contains("p1") && stations.contains("p2"), "{stations}");
        // Whoever tells it something has gone as soon as it has answered. What it was told holds, also after a
        // crash: a bridge with rules is never taken for one without.
        star.switch.control.text(&["flow", "add", "priority=9,in_port=p3,actions=drop"])?;
        for _ in 0..2 {
            ensure!(star.ping(3, 1, 1)? == 0, "a rule drops what host 3 says");
            star.wait_for_ping(1, 2)?;
            star.switch.crash()?;
        }
        ensure!(mode(star)? == ("standalone".to_owned(), 2), "{:?}", mode(star)?);
        // Another mode changes nothing of a bridge that has rules; without any, it says what comes.
        star.switch.control.text(&["bridge", "set-fail-mode", "br0", "secure"])?;
        star.wait_for_ping(1, 2)?;
        star.switch.control.text(&["flow", "del", "--all"])?;
        ensure!(mode(star)? == ("secure".to_owned(), 0), "{:?}", mode(star)?);
        ensure!(star.ping(1, 2, 2)? == 0, "there is no rule");
        star.switch.crash()?;
        ensure!(mode(star)? == ("secure".to_owned(), 0), "{:?}", mode(star)?);
        ensure!(star.ping(1, 2, 2)? == 0, "there is still no rule");
        wait_for_misses(star)
    })
}
