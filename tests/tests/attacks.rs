//! Six attacks by a workload, and how its neighbours on the same host fare. `cargo xtask attack` runs this for longer, with daemons
//! built for speed, holds it against the goal, and saves what it saw.

#![forbid(unsafe_code)]

use std::env;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ferroflow_tests::attack::{ATTACKS, HEAD, Outcome, Plan, Siege};
use ferroflow_tests::{checks, say, scenario};
use serde_json::json;

const PROBE: &str = env!("CARGO_BIN_EXE_ff-probe");
/// Seconds of each attack, for who wants more; then the goal is to be reached.
const SECONDS: &str = "FERROFLOW_ATTACK_SECONDS";
/// Packets that the attacker sends in a second.
const RATE: &str = "FERROFLOW_ATTACK_RATE";
/// The name of one attack.
const ONLY: &str = "FERROFLOW_ATTACK_ONLY";
/// A file for what was measured.
const SAVE: &str = "FERROFLOW_ATTACK_JSON";
/// Of questions asked so many of a thousand may be lost in the short run, on a machine that does something else as well.
const MAX_LOST_PER_MILLE: u64 = 20;
/// Memory that an attack may cost the daemon: connections, megaflows and sessions have their capacities.
const MAX_MORE_KIB: u64 = 512 << 10;

fn number(name: &str) -> Result<Option<u32>> {
    env::var(name)
        .ok()
        .map(|text| text.parse().with_context(|| format!("{name}={text}: write a number")))
        .transpose()
}

#[test]
fn attacks_stay_with_those_who_make_them() -> Result<()> {
    let name = "attacks_stay_with_those_who_make_them";
    let seconds = number(SECONDS)?;
    let only = env::var(ONLY).ok();
    let known: Vec<_> = ATTACKS.iter().map(|attack| attack.name).collect();
    if let Some(only) = &only {
        ensure!(known.contains(&only.as_str()), "{only} is no attack; there are {}", known.join(", "));
    }
    let plan = match seconds {
        Some(seconds) => Plan {
            attack: Duration::from_secs(seconds.into()),
            calm: Duration::from_secs(seconds.clamp(1, 10).into()),
            rate: number(RATE)?.unwrap_or(50_000),
            questions: 1000,
        },
        // Daemons that are not built for speed, on a machine with something else to do.
        None => Plan {
            attack: Duration::from_secs(2),
            calm: Duration::from_secs(1),
            rate: number(RATE)?.unwrap_or(5000),
            questions: 200,
        },
    };
    scenario::on_fabric(name, PROBE, |fabric| {
        let mut outcomes = Vec::new();
        {
            let mut siege = Siege::lay(fabric)?;
            say(HEAD);
            for attack in
                ATTACKS.iter().filter(|attack| only.as_deref().is_none_or(|only| only == attack.name))
            {
                let outcome = siege.endure(*attack, plan).context(attack.name)?;
                say(&outcome.row());
                outcomes.push(outcome);
            }
        }
        if let Ok(file) = env::var(SAVE) {
            let attacks: Vec<_> = outcomes.iter().map(Outcome::json).collect();
            let measured = json!({
                "seconds": plan.attack.as_secs_f64(),
                "attacker_pps": plan.rate,
                "victim_questions_per_second": plan.questions,
                "load": fs::read_to_string("/proc/loadavg")?.split(' ').next(),
                "attacks": attacks,
            });
            fs::write(&file, serde_json::to_string_pretty(&measured)? + "\n")?;
        }
        for outcome in &outcomes {
            bounded(outcome, seconds.is_some()).with_context(|| outcome.attack.what)?;
        }
        // The host is as it was before.
        checks::telnet_is_blocked(fabric)?;
        checks::conservation(fabric).map(drop)
    })
}

/// The victim has what it is to have, and the attacker no more than what there is for him.
fn bounded(outcome: &Outcome, is_goal: bool) -> Result<()> {
    let Outcome { attack, calm, attacked, n_sent, rx, drops, memory_kib, .. } = outcome;
    // What the switch does not take in time is lost in the queue of the attacker's own interface.
    ensure!(rx.0 > n_sent / 20, "of {n_sent} packets only {} reached the switch", rx.0);
    let n_dropped: u64 = drops.values().sum();
    let n_unexplained = rx.0.abs_diff(rx.1 + n_dropped);
    ensure!(n_unexplained == 0, "{n_unexplained} packets are neither forwarded nor dropped: {outcome:?}");
    let more = memory_kib[1].saturating_sub(memory_kib[0]);
    ensure!(more <= MAX_MORE_KIB, "{} took {more} KiB", attack.name);
    if attack.name == "control" {
        ensure!(drops.keys().any(|reason| reason.contains("meter")), "nothing was metered: {drops:?}");
    }
    if is_goal {
        ensure!(attacked.n_lost == 0, "the victim lost {} of {}", attacked.n_lost, attacked.n_asked);
        let limit = calm.p99 * 2;
        ensure!(attacked.p99 <= limit, "p99 is {:?}, {limit:?} is the most", attacked.p99);
    }
    let limit = attacked.n_asked * MAX_LOST_PER_MILLE / 1000;
    ensure!(attacked.n_lost <= limit, "the victim lost {} of {}", attacked.n_lost, attacked.n_asked);
    Ok(())
}
