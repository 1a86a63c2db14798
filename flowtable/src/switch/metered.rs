//! Carrying out programs with meters: first the meters measure the packet, then the copies
//! leave that they let pass. What a rule or bucket counts does not depend on it.

use super::run::{Ends, Outcome, Sender, Sink, copy, send};
use crate::{
    drop::DropReason,
    meter::Verdict,
    packet::{FrameBuf, Packet},
    pipeline::MAX_METERS,
    program::{MeterStep, Program},
    types::{PortNo, Timestamp},
};

/// What the meters of a program say of one packet.
pub(super) struct Verdicts([Verdict; MAX_METERS]);

impl Verdicts {
    /// Shows the packet to each meter that it comes to.
    pub(super) fn measure(steps: &[MeterStep], now: Timestamp, (in_port, n_bytes): (PortNo, u64)) -> Self {
        let mut verdicts = Self([Verdict::Pass; MAX_METERS]);
        let mut idx = 0;
        while let (Some(step), Some(verdict)) = (steps.get(idx), verdicts.0.get_mut(idx)) {
            *verdict = step.meter.measure(now, in_port, n_bytes);
            idx += if *verdict == Verdict::Drop { 1 + step.n_within } else { 1 };
        }
        verdicts
    }

    /// The meter at this place has let the packet pass.
    pub(super) fn passes(&self, step: usize) -> bool {
        !matches!(self.0.get(step), Some(Verdict::Drop))
    }

    /// What becomes of an emit: the levels by which its drop precedence rises, or the
    /// meter that drops it.
    pub(super) fn of<'s>(&self, steps: &'s [MeterStep], emit: usize) -> Result<u8, &'s MeterStep> {
        let mut n_levels = 0_u8;
        for (step, verdict) in steps.iter().zip(&self.0).filter(|(step, _)| step.emits.contains(&emit)) {
            match verdict {
                Verdict::Pass => {}
                Verdict::Drop => return Err(step),
                Verdict::Remark(more) => n_levels = n_levels.saturating_add(*more),
            }
        }
        Ok(n_levels)
    }
}

/// Does with one packet what a program says, as far as its meters let it. Answers where
/// the program's own drops are counted.
pub(super) fn carry_out<B: FrameBuf, S: Sink<B>>(
    program: &Program,
    packet: Packet<B>,
    sender: Sender<'_>,
    (n_bytes, row): (u64, usize),
    ends: &mut Ends<'_>,
    sink: &mut S,
) -> usize {
    let steps = &program.meters[..];
    let verdicts = Verdicts::measure(steps, sender.now, (packet.in_port, packet.len() as u64));
    ends.samples.show(&program.samples, &packet, |step| verdicts.passes(step));
    let Ends { books, punts, .. } = ends;
    let passes = |emit: &usize| verdicts.of(steps, *emit).is_ok();
    let mut own = (0..program.emits.len()).rev().filter(|emit| !program.emits[*emit].is_mirrored());
    let (last_own, is_sent) = (own.clone().next(), program.drop.is_none() && own.any(|emit| passes(&emit)));
    if !is_sent {
        for (idx, emit) in program.emits.iter().enumerate().filter(|(_, emit)| emit.is_mirrored()) {
            let sent = |n_levels| {
                copy(&packet, sink).and_then(|copy| send(copy, emit, (sender, n_levels), punts, sink))
            };
            match verdicts.of(steps, idx).map(sent) {
                Ok(Ok(())) => {}
                Ok(Err(reason)) => books.failed_copy(reason),
                Err(step) => books.metered_copy(step),
            }
        }
        if let Some(cause) = &program.drop {
            sink.drop_packet(packet, cause.reason, cause.rule.as_ref());
            return books.dropped(row, cause.reason, cause.rule.as_ref(), n_bytes);
        }
        match verdicts.of(steps, last_own.unwrap_or_default()) {
            Err(step) => {
                sink.drop_packet(packet, DropReason::Metered, Some(&step.rule));
                books.metered(step, n_bytes);
            }
            Ok(_) => {
                sink.drop_packet(packet, DropReason::TableMiss, None);
                books.dropped(row, DropReason::TableMiss, None, n_bytes);
            }
        }
        return row;
    }
    let last = (0..program.emits.len()).rev().find(passes);
    let mut packet = Some(packet);
    let mut outcome = Outcome::default();
    for (idx, emit) in program.emits.iter().enumerate() {
        let n_levels = match verdicts.of(steps, idx) {
            Ok(n_levels) => n_levels,
            Err(step) => {
                books.metered_copy(step);
                continue;
            }
        };
        // The last one takes the packet itself.
        let own = if Some(idx) == last { packet.take() } else { None };
        let copied = match (own, &packet) {
            (Some(own), _) => Ok(own),
            (None, Some(packet)) => copy(packet, sink),
            (None, None) => continue,
        };
        let sent = copied.and_then(|copy| send(copy, emit, (sender, n_levels), punts, sink));
        outcome.add(emit, sent, books);
    }
    outcome.settle(n_bytes, books);
    row
}
