//! The switch against the interpreter: random rules, random packets, and caches that fill and age while
//! the rules change beneath them.
//!
//! A *triple* is a rule set, a packet, and what the caches hold when it comes. For each the switch must
//! send the same frames out of the same ports in the same order, tell controllers the same, or drop for
//! the same reason. Where it may choose, it must choose something that can be chosen, and again the same
//! for the same flow.
//!
//! Here: worlds and their course. [`judge`] one batch · [`harness`] the switch's side.

pub mod harness;
pub mod judge;

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use flowtable::{switch::SwitchConfig, types::Timestamp};

use self::{
    harness::{Harness, TUNNEL, UPLINK},
    judge::{Case, Judge},
};
use crate::{
    coverage::Coverage,
    interpreter::{Port, Ports, World, memory::Memory},
    rng::Rng,
    rules::{Features, Repertoire, rules},
    syntax::{Rules, Step},
    traffic::{Traffic, traffic},
};

/// Our address on the underlay.
const LOCAL: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The peer whose next hop is known.
const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// An address nobody has.
const NOBODY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);

/// Where rules send tunnelled packets to.
const PEERS: &[u32] = &[PEER.to_bits(), PEER.to_bits(), PEER.to_bits(), NOBODY.to_bits()];
/// Packets for each rule set.
const PER_RULES: usize = 512;
/// Packets of a large batch.
const BATCH: usize = 32;
/// Clocks of trackers count milliseconds, and time out after whole seconds: at steps of 7 ms nothing is
/// ever just on the edge.
const TRACKER_STEP: u64 = 7_000_000;

/// What has been compared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Rule sets, changed ones included.
    pub n_rule_sets: u64,
    /// Triples.
    pub n_triples: u64,
    /// Copies that left.
    pub n_copies: u64,
    /// Copies for controllers.
    pub n_told: u64,
    /// Packets of which nothing left.
    pub n_drops: u64,
    /// Packets that a cache answered for.
    pub n_cache_hits: u64,
    /// Triples by caches: both, megaflows only, none.
    pub n_by_caches: [u64; 3],
    /// Triples that came alone, and those that came with others.
    pub n_by_batch: [u64; 2],
    /// Choices of the switch that were seen for the first time.
    pub n_choices: u64,
    /// Rule sets that were given up, since nobody can foresee what they do.
    pub n_lost: u64,
    /// What they met.
    pub coverage: Coverage,
}

/// Compares until at least `n_triples` are done; every rule set follows from `seed` and its number.
///
/// # Errors
/// The first difference, with the rules, the packet and the seed that brings it back.
pub fn soak(seed: u64, n_triples: u64, progress: impl FnMut(&Tally)) -> Result<Tally> {
    soak_against(seed, n_triples, &|_| true, &|_| {}, progress)
}

/// Like [`soak`], with rules for the switch that `spoil` has changed, to see that a difference is noticed;
/// in worlds with the features that are `wanted`.
///
/// # Errors
/// The first difference.
pub fn soak_against(
    seed: u64,
    n_triples: u64,
    wanted: &dyn Fn(&Features) -> bool,
    spoil: &dyn Fn(&mut Rules),
    mut progress: impl FnMut(&Tally),
) -> Result<Tally> {
    let mut tally = Tally::default();
    let mut seed = seed;
    while tally.n_triples < n_triples {
        let is_wanted = wanted(&repertoire(&mut Rng::new(seed)).features);
        if !is_wanted {
            seed = seed.wrapping_add(1);
            continue;
        }
        world(seed, spoil, &mut tally).with_context(|| {
            format!("seed {seed}: `cargo xtask soak --triples 1 --seed {seed}` shows this again")
        })?;
        seed = seed.wrapping_add(1);
        progress(&tally);
    }
    Ok(tally)
}

/// Looks for a difference between rules and what `spoil` makes of them, in worlds with the features that are
/// wanted and with rules that it changes; in at most so many triples.
pub fn notice(
    seed: u64,
    n_triples: u64,
    wanted: &dyn Fn(&Features) -> bool,
    spoil: &dyn Fn(&mut Rules),
) -> Option<anyhow::Error> {
    let mut tally = Tally::default();
    for seed in seed.. {
        if tally.n_triples >= n_triples {
            break;
        }
        let mut rng = Rng::new(seed);
        let repertoire = repertoire(&mut rng);
        if !wanted(&repertoire.features) {
            continue;
        }
        let sound = rules(&mut rng, &repertoire);
        let mut spoilt = sound.clone();
        spoil(&mut spoilt);
        if spoilt != sound
            && let Err(error) = world(seed, spoil, &mut tally)
        {
            return Some(error);
        }
    }
    None
}

/// What a world may have.
fn repertoire(rng: &mut Rng) -> Repertoire {
    let features = Features::random(rng);
    Repertoire {
        ports: &[1, 2, 3, 4, UPLINK],
        tunnel: Some((TUNNEL, PEERS)),
        // What loops tell controllers is more than the queue for them takes.
        loops: !features.tracking && !features.punts,
        protocol: None,
        features,
    }
}

/// One switch, its rules before and after a change, and its packets.
fn world(seed: u64, spoil: &dyn Fn(&mut Rules), tally: &mut Tally) -> Result<()> {
    let mut rng = Rng::new(seed);
    let repertoire = repertoire(&mut rng);
    let mut rules = rules(&mut rng, &repertoire);
    // Odd sizes, so that entries have to make room for others.
    let n_megaflows = rng.pick(&[0, 7, 1 << 10, 1 << 10]);
    let config = SwitchConfig { n_sessions: rng.pick(&[0, 16, 1 << 10]), n_megaflows };
    let caches = match config {
        SwitchConfig { n_megaflows: 0, .. } => 2,
        SwitchConfig { n_sessions: 0, .. } => 1,
        _ => 0,
    };
    let n_batch = rng.pick(&[1, BATCH]);
    let mut harness = Harness::new(config, seed);
    let mut traffic = traffic(&mut rng, &repertoire.features);
    let mut memory = Memory::new(&rules);
    let mut now = 0;
    for epoch in 1..=2 {
        let down = if epoch == 1 { vec![4] } else { rng.pick(&[vec![4], vec![3, 4], vec![]]) };
        let ports = ports(&down);
        let mut theirs = rules.clone();
        spoil(&mut theirs);
        harness.change(&theirs, &ports)?;
        tally.n_rule_sets += 1;
        let mut judge = Judge::new(World { rules: &rules, ports: &ports }, &mut memory);
        for _ in 0..PER_RULES / n_batch / 2 {
            now += pause(&mut rng, &repertoire.features);
            let case = batch(&mut rng, &mut traffic, n_batch, now);
            let observed = harness.process(Timestamp::from_nanos(now), &case)?;
            tally.n_triples += n_batch as u64;
            tally.n_by_caches[caches] += n_batch as u64;
            tally.n_by_batch[usize::from(n_batch > 1)] += n_batch as u64;
            let goes_on =
                judge.batch(&case, observed, tally).with_context(|| format!("{rules}down: {down:?}"))?;
            if !goes_on {
                tally.n_lost += 1;
                return Ok(());
            }
        }
        let before = rules.clone();
        change(&mut rng, &repertoire, &mut rules);
        memory.change(&before, &rules);
    }
    tally.n_cache_hits += harness.n_cache_hits();
    Ok(())
}

/// Time until the next batch.
fn pause(rng: &mut Rng, features: &Features) -> u64 {
    if features.tracking {
        let longest = rng.pick(&[1, 100, 1000, 5000]);
        return rng.below(longest) * TRACKER_STEP;
    }
    let longest = rng.pick(&[1, 1_000_000, 100_000_000, 2_000_000_000]);
    rng.below(longest)
}

/// Packets of one port.
fn batch(rng: &mut Rng, traffic: &mut Traffic, n: usize, now: u64) -> Case {
    let port = traffic.port(rng);
    let packets = (0..n).map(|_| traffic.next(rng, port)).collect();
    Case { now, port, packets }
}

/// Takes some rules away and brings others; changes buckets.
fn change(rng: &mut Rng, repertoire: &Repertoire, rules: &mut Rules) {
    for _ in 0..1 + rng.below(4) {
        if !rules.flows.is_empty() {
            rules.flows.remove(rng.index(rules.flows.len()));
        }
    }
    let fresh = crate::rules::rules(rng, repertoire);
    let refers = |steps: &[Step]| {
        let text: String = steps.iter().map(|step| format!("{step},")).collect();
        text.contains("group:") || text.contains("meter:")
    };
    let taken: Vec<(u8, u16)> = rules.flows.iter().map(|flow| (flow.table, flow.priority)).collect();
    let flows = fresh.flows.into_iter().take(3);
    rules
        .flows
        .extend(flows.filter(|flow| !taken.contains(&(flow.table, flow.priority)) && !refers(&flow.steps)));
    rules.sets = fresh.sets;
    let buckets = fresh.groups.into_iter().flat_map(|group| group.buckets);
    for (group, bucket) in rules.groups.iter_mut().zip(buckets.filter(|bucket| !refers(&bucket.steps))) {
        group.buckets[0].steps = bucket.steps;
        group.buckets[0].weight = bucket.weight;
    }
}

/// The ports as the interpreter has them.
fn ports(down: &[u32]) -> Ports {
    let mut ports: Ports = (1..=4).map(|port| (port, Port::Workload { up: !down.contains(&port) })).collect();
    ports.insert(UPLINK, Port::Uplink);
    ports.insert(TUNNEL, Port::Tunnel { peer: PEER.to_bits(), uplink: UPLINK });
    ports
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
