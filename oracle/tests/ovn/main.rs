//! Random logical networks and packets through Debian's ovn-trace(8) and through ours: the same ports get
//! them, the same packets are refused, the same make a router ask for a neighbour. What is known to differ
//! is listed in docs/differences-from-ovn.md, and only that is left out.
//!
//! `world.rs` random networks, in the words of both · `packet.rs` random packets · `ours.rs` our answer ·
//! `theirs.rs` OVN's.

#![allow(clippy::unwrap_used)]

mod ours;
mod packet;
mod theirs;
mod world;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant, SystemTime},
};

use oracle::{
    ovs::{
        ovn::Ovn,
        package::{Names, Package},
    },
    rng::Rng,
};

use self::{ours::Ours, packet::Probe, world::World};

/// Packets for each network.
const N_PROBES: usize = 25;
/// No more networks are begun after this; `FERROFLOW_SECONDS` is for those who want more.
const LIMIT: Duration = Duration::from_secs(45);
/// Networks that are compared at least, however slow the machine is.
const N_WORLDS: usize = 5;

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Verdict {
    /// Ports that it leaves by.
    ports: BTreeSet<String>,
    /// Its sender is told that it is refused or does not get there.
    is_refused: bool,
    /// A router asks who has the next hop's address.
    asks: bool,
}

#[test]
fn random_networks_do_the_same_in_ovn() {
    let Some(package) = Package::get_or_skip_of(Names::Ovn, "comparing with OVN").unwrap() else { return };
    let ovn = Ovn::start(package).unwrap();
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let limit = number("FERROFLOW_SECONDS").map_or(LIMIT, Duration::from_secs);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let first = number("FERROFLOW_SEED").unwrap_or(now.as_nanos() as u64 >> 10);
    let start = Instant::now();
    let (mut n_worlds, mut tally) = (0, Tally::default());
    while n_worlds < N_WORLDS || start.elapsed() < limit {
        let seed = first.wrapping_add(n_worlds as u64);
        compare(&ovn, seed, &mut tally);
        n_worlds += 1;
        if number("FERROFLOW_SEED").is_some() && number("FERROFLOW_SECONDS").is_none() {
            break;
        }
    }
    eprintln!("OVN {}: {n_worlds} networks, {tally:?}", ovn.version().unwrap());
    if n_worlds >= N_WORLDS {
        let Tally { n_delivered, n_dropped, n_refused, .. } = tally;
        assert!(n_delivered.min(n_dropped) > 10 && n_refused > 0, "one-sided: {tally:?}");
    }
}

/// Whoever comes from OVN finds every command of Debian's.
#[test]
fn every_command_of_ovn_has_its_place() {
    let Some(package) = Package::get_or_skip_of(Names::Ovn, "listing OVN's commands").unwrap() else {
        return;
    };
    let ovn = Ovn::start_databases(package).unwrap();
    let page = include_str!("../../../docs/coming-from-ovn.md");
    let there = page.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let told: Vec<_> = there.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    let mut n_commands = 0;
    for program in ["ovn-nbctl", "ovn-sbctl"] {
        for line in ovn.commands(program).unwrap().lines() {
            // `[--may-exist] ,ls-add,?SWITCH`
            let command = line.split(',').nth(1).unwrap();
            let is_told = told.iter().any(|text| text.split_whitespace().any(|word| word == command));
            assert!(is_told, "{program} {command} is not in docs/coming-from-ovn.md");
            n_commands += 1;
        }
    }
    assert!(n_commands > 120, "only {n_commands} commands");
}

/// What the packets met.
#[derive(Debug, Default)]
struct Tally {
    n_delivered: usize,
    n_dropped: usize,
    n_refused: usize,
    n_asked: usize,
}

fn compare(ovn: &Ovn, seed: u64, tally: &mut Tally) {
    let mut rng = Rng::new(seed);
    let world = World::random(&mut rng);
    theirs::set(ovn, &world);
    let ours = Ours::new(&world);
    for _ in 0..N_PROBES {
        let probe = Probe::random(&world, &mut rng);
        let (text, theirs) = theirs::trace(ovn, &world, &probe);
        let mine = ours.trace(&probe);
        assert!(
            theirs == mine,
            "FERROFLOW_SEED={seed}: {probe:?}\nOVN: {theirs:?}\nours: {mine:?}\n{text}\n{}\n{}",
            theirs::commands(&world).join("\n"),
            ours.steps(&probe)
        );
        tally.n_refused += usize::from(mine.is_refused);
        tally.n_asked += usize::from(mine.asks);
        tally.n_delivered += usize::from(!mine.ports.is_empty());
        tally.n_dropped += usize::from(mine.ports.is_empty() && !mine.is_refused && !mine.asks);
    }
}
