//! One batch: what the switch did is what the interpreter says, for some choices where there is one.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use flowtable::{field::Field, switch::PacketIn};

use super::{Tally, harness::Observed, hex};
use crate::{
    interpreter::{Outcome, Sent, Told, World, interpret, memory::Memory},
    traffic::Arrived,
};

/// Ways of choosing that are tried for a packet.
const MAX_TRIES: usize = 64;
/// Packets of one port that the queue for controllers has room for.
const MAX_TOLD: usize = 256;

/// A batch.
#[derive(Debug, Clone)]
pub struct Case {
    /// When it comes, in nanoseconds.
    pub now: u64,
    /// By which port.
    pub port: u32,
    /// Its packets.
    pub packets: Vec<Arrived>,
}

/// Compares batch by batch.
pub struct Judge<'a> {
    world: World<'a>,
    memory: &'a mut Memory,
    /// Outcomes that stay as they are, by port and packet.
    known: BTreeMap<(u32, usize), Outcome>,
    /// What packets had taught when they were found.
    version: u64,
}

impl<'a> Judge<'a> {
    /// For one rule set.
    pub fn new(world: World<'a>, memory: &'a mut Memory) -> Self {
        Self { world, version: memory.version(), memory, known: BTreeMap::new() }
    }

    /// Compares a batch; false: nobody can foresee how it goes on.
    ///
    /// # Errors
    /// The first difference.
    pub fn batch(&mut self, case: &Case, observed: Observed, tally: &mut Tally) -> Result<bool> {
        let mut told = &observed.told[..];
        let mut reasons = Vec::new();
        for (packet, sent) in case.packets.iter().zip(&observed.sent) {
            if self.version != self.memory.version() {
                self.version = self.memory.version();
                self.known.clear();
            }
            let place = packet.number.map(|number| (case.port, number));
            let known = place.and_then(|place| self.known.get(&place));
            let outcome = match known {
                Some(outcome) => {
                    check(outcome, sent, told).map_err(|error| error.context(describe(case, packet)))?;
                    outcome
                }
                None => {
                    let Some(outcome) = self.explain(case, packet, sent, told, tally)? else {
                        return Ok(false);
                    };
                    match place.filter(|_| outcome.is_lasting) {
                        Some(place) => self.known.entry(place).or_insert(outcome),
                        None => &outcome.clone(),
                    }
                }
            };
            told = told.get(outcome.told.len()..).unwrap_or_default();
            tally.n_copies += outcome.sent.len() as u64;
            tally.n_told += outcome.told.len() as u64;
            tally.coverage.add(&outcome.met);
            if !outcome.dropped.is_empty() {
                tally.n_drops += 1;
                reasons.push(outcome.dropped.clone());
            }
        }
        if let Some(more) = told.first() {
            bail!("{}\ncontrollers were told {more:?} as well", frames(case));
        }
        check_drops(&reasons, &observed.drops).map_err(|error| error.context(frames(case)))?;
        self.memory.end_batch(self.world.rules, case.now);
        Ok(true)
    }

    /// Looks for choices with which the interpreter does what the switch has done.
    fn explain(
        &mut self,
        case: &Case,
        packet: &Arrived,
        sent: &[Sent],
        told: &[PacketIn],
        tally: &mut Tally,
    ) -> Result<Option<Outcome>> {
        let before = self.memory.snapshot();
        let mut guess: Vec<usize> = Vec::new();
        let mut found: Vec<Vec<usize>> = Vec::new();
        let mut n_told = None;
        let mut first_error = None;
        let interpreted = |memory: &mut Memory, guess: &[usize]| {
            memory.guess(guess.to_vec());
            interpret(self.world, memory, case.now, case.port, &packet.frame)
        };
        for n_tries in 0.. {
            let outcome = interpreted(self.memory, &guess);
            if outcome.is_lost
                || n_tries > MAX_TRIES
                || outcome.told.len() > MAX_TOLD / case.packets.len().max(1)
            {
                return Ok(None);
            }
            let sizes: Vec<usize> = self.memory.fresh().iter().map(|(_, n)| *n).collect();
            guess.resize(sizes.len(), 0);
            match check(&outcome, sent, told) {
                Ok(()) if sizes.is_empty() => return Ok(Some(outcome)),
                // What controllers are told does not say of which packet it is.
                Ok(()) if *n_told.get_or_insert(outcome.told.len()) != outcome.told.len() => return Ok(None),
                Ok(()) => found.push(guess.clone()),
                Err(error) => drop(first_error.get_or_insert(error)),
            }
            let Some(next) = (0..sizes.len()).rev().find(|idx| guess[*idx] + 1 < sizes[*idx]) else { break };
            guess[next] += 1;
            guess.truncate(next + 1);
            self.memory.forget_packet(&before);
        }
        let Some(chosen) = found.first() else {
            let error = first_error.unwrap_or_else(|| anyhow::anyhow!("nothing was tried"));
            return Err(error.context(describe(case, packet)));
        };
        self.memory.forget_packet(&before);
        let mut outcome = interpreted(self.memory, chosen);
        if found.len() == 1 {
            tally.n_choices += chosen.len() as u64;
            self.memory.learn(chosen);
            return Ok(Some(outcome));
        }
        // Several ways lead to the same frames; which one was taken decides what is remembered.
        let is_pure = outcome.met.is_stateless() && !outcome.is_teaching;
        for guess in &found[1..] {
            self.memory.forget_packet(&before);
            outcome.dropped.extend(interpreted(self.memory, guess).dropped);
        }
        Ok(is_pure.then_some(outcome))
    }
}

/// The frames that left, and what controllers were told.
fn check(outcome: &Outcome, sent: &[Sent], told: &[PacketIn]) -> Result<()> {
    for idx in 0..outcome.sent.len().max(sent.len()) {
        let (wanted, got) = (outcome.sent.get(idx), sent.get(idx));
        if wanted != got {
            let ports = |sent: &[Sent]| sent.iter().map(|sent| sent.port).collect::<Vec<_>>();
            let (all, theirs) = (ports(&outcome.sent), ports(sent));
            bail!("copy {idx} is not {}\n but {}; ports {all:?} and {theirs:?}", show(wanted), show(got));
        }
    }
    for (idx, wanted) in outcome.told.iter().enumerate() {
        let got = told.get(idx).map(understood);
        if got.as_ref() != Some(wanted) {
            bail!("controllers are not told {wanted:x?}\n but {got:x?}");
        }
    }
    Ok(())
}

fn understood(told: &PacketIn) -> Told {
    let punt = &told.punt;
    let fields = Field::ALL.iter().filter(|field| {
        let name = field.to_string();
        !name.starts_with("xreg") && !name.starts_with("xxreg") && !matches!(field, Field::TunMetadataPresent)
    });
    let metadata = fields.map(|field| (field.to_string(), punt.metadata.get(*field)));
    Told {
        controller: punt.to.controller,
        reason: punt.to.reason.name(),
        frame: told.bytes.clone(),
        len: told.n_bytes,
        table: punt.table.get(),
        cookie: punt.cookie,
        userdata: punt.to.userdata.clone(),
        metadata: metadata
            .filter(|(_, (value, _))| *value != 0)
            .map(|(name, (value, _))| (name, value))
            .collect(),
    }
}

/// Each packet that went nowhere is counted under one of its reasons.
fn check_drops(reasons: &[Vec<&'static str>], drops: &BTreeMap<&'static str, u64>) -> Result<()> {
    let places: Vec<&str> =
        drops.iter().flat_map(|(reason, n)| std::iter::repeat_n(*reason, *n as usize)).collect();
    let mut taken: Vec<Option<usize>> = vec![None; places.len()];
    let matched = (0..reasons.len()).all(|idx| {
        let mut tried = vec![false; places.len()];
        find_place(idx, reasons, &places, &mut taken, &mut tried)
    });
    if !matched || places.len() != reasons.len() {
        bail!("drops are {drops:?}, but should be {reasons:?}");
    }
    Ok(())
}

/// A place for a packet, others making room for it where they can (Kuhn's algorithm).
fn find_place(
    idx: usize,
    reasons: &[Vec<&'static str>],
    places: &[&str],
    taken: &mut [Option<usize>],
    tried: &mut [bool],
) -> bool {
    for place in 0..places.len() {
        if tried[place] || !reasons[idx].contains(&places[place]) {
            continue;
        }
        tried[place] = true;
        if taken[place].is_none_or(|other| find_place(other, reasons, places, taken, tried)) {
            taken[place] = Some(idx);
            return true;
        }
    }
    false
}

fn describe(case: &Case, packet: &Arrived) -> String {
    format!("at {} ns, port {}, {}", case.now, case.port, hex(&packet.frame))
}

fn frames(case: &Case) -> String {
    let frames: Vec<String> = case.packets.iter().map(|packet| hex(&packet.frame)).collect();
    format!("at {} ns, port {}, {frames:?}", case.now, case.port)
}

fn show(sent: Option<&Sent>) -> String {
    match sent {
        Some(Sent { port, frame, tunnel }) => format!("{} by port {port} {tunnel:?}", hex(frame)),
        None => "there".to_owned(),
    }
}
