//! Random logical networks and packets through Debian's ovn-trace(8) and through ours: the same ports get
//! them, the same packets are refused, the same make a router ask for a neighbour. What is known to differ
//! is listed in docs/differences-from-ovn.md, and only that is left out.
//!
//! `world.rs` random networks, in the words of both · `translations.rs` what changes addresses there ·
//! `packet.rs` random packets · `model.rs` the network in our words · `ours.rs` our answer · `theirs.rs` the
//! network in OVN's words · `summary.rs` OVN's answer · `features.rs` what was compared.

#![allow(clippy::unwrap_used)]

mod features;
mod model;
mod ours;
mod packet;
mod summary;
mod theirs;
mod translations;
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

use self::{
    features::Met,
    ours::Ours,
    packet::{Headers, Probe},
    world::World,
};

/// Packets for each network.
const N_PROBES: usize = 25;
/// No more networks are begun after this; `FERROFLOW_SECONDS` is for those who want more.
const LIMIT: Duration = Duration::from_secs(45);
/// Networks that are compared at least, however slow the machine is.
const N_WORLDS: usize = 5;

/// A packet that leaves.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Left {
    port: String,
    headers: Headers,
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Verdict {
    /// By which ports it leaves, and how.
    left: BTreeSet<Left>,
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
    let (mut n_worlds, mut met) = (0, Met::default());
    while n_worlds < N_WORLDS || start.elapsed() < limit {
        let seed = first.wrapping_add(n_worlds as u64);
        compare(&ovn, seed, &mut met);
        n_worlds += 1;
        if number("FERROFLOW_SEED").is_some() && number("FERROFLOW_SECONDS").is_none() {
            break;
        }
    }
    eprintln!("OVN {}: {n_worlds} networks, {met:?}", ovn.version().unwrap());
    let missing = met.missing(n_worlds);
    assert!(missing.is_empty(), "no packet of {n_worlds} networks has met: {missing:?}");
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

fn compare(ovn: &Ovn, seed: u64, met_by_all: &mut Met) {
    let mut rng = Rng::new(seed);
    let world = World::random(&mut rng);
    theirs::set(ovn, &world);
    let ours = Ours::new(&world);
    let mut met = BTreeSet::new();
    for _ in 0..N_PROBES {
        let probe = Probe::random(&world, &mut rng);
        let (text, theirs) = theirs::trace(ovn, &world, &probe);
        let (steps, mine) = ours.send(&probe);
        assert!(
            theirs == mine,
            "FERROFLOW_SEED={seed}: {probe:?}\nOVN: {theirs:?}\nours: {mine:?}\n{text}\n{}\n{steps}",
            theirs::commands(&world).join("\n"),
        );
        met.extend(features::met(&mine, &steps));
    }
    met_by_all.count(&met);
}
