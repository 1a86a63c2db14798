//! Every file of the corpus, and many variations of each: no panic, nothing that takes long.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    time::{Duration, Instant},
};

use ferroflow_fuzz::{TARGETS, Target};
use oracle::rng::Rng;

/// Variations of each file; `cargo xtask test` does this at full speed as well.
const N_VARIATIONS: usize = if cfg!(debug_assertions) { 100 } else { 400 };
/// No input of this size may take longer; without optimisation everything takes ten times as long.
const TIME_MAX: Duration = Duration::from_millis(if cfg!(debug_assertions) { 100 } else { 10 });
/// Often enough that one of them is not disturbed by other processes.
const N_TRIES: usize = 10;
/// Largest input.
const LEN_MAX: usize = 1 << 12;

#[test]
fn the_corpus_and_its_variations_are_survived() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut n_inputs = 0;
    for (name, target) in TARGETS {
        let mut files: Vec<_> = fs::read_dir(root.join(name))
            .unwrap_or_else(|error| panic!("{name} has no corpus: {error}"))
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        assert!(!files.is_empty(), "{name} has no corpus");
        let seeds: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
        // A frame may be followed by anything, a text by nothing.
        for (file, seed) in files.iter().zip(&seeds) {
            check(name, *target, seed);
            let mut rng = Rng::new(
                0x5eed ^ seed.iter().fold(0, |sum: u64, byte| sum.rotate_left(5) ^ u64::from(*byte)),
            );
            for _ in 0..N_VARIATIONS {
                check(name, *target, &varied(&mut rng, seed, &seeds));
            }
            for len in 0..seed.len() {
                check(name, *target, &seed[..len]);
            }
            n_inputs += 1 + N_VARIATIONS + seed.len();
            assert!(seed.len() <= 1024, "{} is too long for a corpus by hand", file.display());
        }
    }
    eprintln!("{n_inputs} inputs for {} targets", TARGETS.len());
}

#[test]
fn every_folder_has_a_target() {
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(TARGETS.iter().any(|(target, _)| *target == name), "{name} is nobody's corpus");
    }
}

fn check(name: &str, target: Target, input: &[u8]) {
    let mut shortest = Duration::MAX;
    for _ in 0..N_TRIES {
        let start = Instant::now();
        if catch_unwind(AssertUnwindSafe(|| target(input))).is_err() {
            panic!("{name}: {}", shown(input));
        }
        shortest = shortest.min(start.elapsed());
        if shortest <= TIME_MAX {
            return;
        }
    }
    panic!("{name} takes {shortest:?}: {}", shown(input));
}

fn shown(input: &[u8]) -> String {
    let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{:?} = {hex}", String::from_utf8_lossy(input))
}

/// The input with some things changed that a fuzzer would change.
fn varied(rng: &mut Rng, seed: &[u8], seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut input = seed.to_vec();
    for _ in 0..1 + rng.below(4) {
        let at = rng.index(input.len() + 1);
        match rng.below(8) {
            0 if at < input.len() => input[at] ^= 1 << rng.below(8),
            1 if at < input.len() => input[at] = rng.pick(&[0, 1, 0x7f, 0x80, 0xff, b'0', b',', b'(', b'/']),
            2 if at < input.len() => drop(input.remove(at)),
            3 => input.insert(at, rng.bits() as u8),
            4 => input.truncate(at),
            5 => {
                // Something twice, so that lists get long and nesting deep.
                let end = (at + 1 + rng.index(24)).min(input.len());
                let part = input[at.min(end)..end].to_vec();
                let n = 1 + rng.index(40);
                for _ in 0..n {
                    input.splice(at..at, part.iter().copied());
                }
            }
            6 => {
                let other = rng.pick(seeds);
                input.truncate(at);
                input.extend_from_slice(&other[rng.index(other.len() + 1)..]);
            }
            _ => {
                if let Some(place) = input.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<2>()) {
                    *place = (rng.bits() as u16).to_be_bytes();
                }
            }
        }
    }
    input.truncate(LEN_MAX);
    input
}
