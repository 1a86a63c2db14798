//! Carrying out programs with meters: first the meters measure the packet, then the copies
//! leave that they let pass. What a rule or bucket counts does not depend on it.

use super::run::{Ends, Sender, Sink, copy, send};
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
    if let (true, Some(cause)) = (program.emits.is_empty(), &program.drop) {
        sink.drop_packet(packet, cause.reason, cause.rule.as_ref());
        return books.dropped(row, cause.reason, cause.rule.as_ref(), n_bytes);
    }
    let n_emits = program.emits.len();
    let Some(last) = (0..n_emits).rev().find(|emit| verdicts.of(steps, *emit).is_ok()) else {
        match verdicts.of(steps, n_emits.saturating_sub(1)) {
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
    };
    let mut packet = Some(packet);
    let mut failed = None;
    let mut sent = false;
    for (idx, emit) in program.emits.iter().enumerate() {
        let n_levels = match verdicts.of(steps, idx) {
            Ok(n_levels) => n_levels,
            Err(step) => {
                books.metered_copy(step);
                continue;
            }
        };
        // The last one takes the packet itself.
        let own = if idx == last { packet.take() } else { None };
        let copied = match (own, &packet) {
            (Some(own), _) => Ok(own),
            (None, Some(packet)) => copy(packet, sink),
            (None, None) => continue,
        };
        match copied.and_then(|copy| send(copy, emit, (sender, n_levels), punts, sink)) {
            Ok(()) => sent = true,
            Err(reason) if idx == last => failed = Some(reason),
            Err(reason) => books.failed_copy(reason),
        }
    }
    match failed {
        Some(reason) if !sent => drop(books.dropped(0, reason, None, n_bytes)),
        Some(reason) => {
            books.failed_copy(reason);
            books.forwarded(1);
        }
        None => books.forwarded(1),
    }
    row
}
