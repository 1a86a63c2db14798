//! Carrying programs out: copies, edits, the way to the sink, and the books.

use std::{ops::Range, sync::Arc, vec};

use super::{
    Lanes, Lookup, Moment, Stage, Switch,
    books::{Books, Totals},
    flow_hash::flow_hash_of_signature,
    metered,
    punts::Punts,
    samples::Samples,
};
use crate::{
    cache::Handle,
    drop::DropReason,
    execute,
    flow::Rule,
    key::FlowKey,
    offload,
    packet::{FrameBuf, Packet},
    pipeline::{self, NoTrace, Translation},
    program::{Emit, Program, TunnelHeader},
    types::{PortNo, Timestamp},
};

/// Where packets go.
pub trait Sink<B> {
    /// Takes a packet to send by a port, and counts it there: as sent, or as a drop of
    /// that port.
    fn output(&mut self, port: PortNo, packet: Packet<B>);
    /// The same for several packets, in order.
    fn output_all(&mut self, port: PortNo, packets: impl Iterator<Item = Packet<B>>)
    where
        Self: Sized,
    {
        packets.for_each(|packet| self.output(port, packet));
    }
    /// A copy of a packet's frame, with the same headroom; `None` when there is no free
    /// buffer.
    fn copy(&mut self, packet: &Packet<B>) -> Option<Packet<B>>;
    /// A packet with this frame, in a buffer like that of another one; `None` when there is
    /// no free buffer.
    fn make(&mut self, frame: &[u8], like: &Packet<B>) -> Option<Packet<B>>
    where
        B: FrameBuf,
    {
        let copy = self.copy(like)?;
        let (start, in_port) = (copy.start(), copy.in_port);
        let mut buf = copy.into_buf();
        let place = buf.as_mut().get_mut(start..start + frame.len());
        let fits = place.map(|place| place.copy_from_slice(frame)).is_some();
        let made = Packet::new(buf, start, if fits { frame.len() } else { 0 }, in_port);
        if fits {
            return Some(made);
        }
        self.release(made);
        None
    }
    /// Takes back the buffer of a packet that goes nowhere.
    fn release(&mut self, packet: Packet<B>);
    /// The same, of a packet or copy that was dropped: for a sink that shows what is. It is
    /// counted elsewhere.
    #[inline(always)]
    fn drop_packet(&mut self, packet: Packet<B>, _reason: DropReason, _rule: Option<&Arc<Rule>>) {
        self.release(packet);
    }
    /// What follows, until it is told again, belongs to this stage: for a sink that measures.
    #[inline(always)]
    fn enter(&mut self, _stage: Stage) {}
}

/// Where a switch enters what becomes of packets, and where those go that do not leave by a
/// port.
pub(super) struct Ends<'a> {
    pub(super) books: &'a mut Books,
    pub(super) punts: &'a mut Punts,
    pub(super) samples: &'a mut Samples,
}

/// What sending a copy needs to know besides the copy.
#[derive(Clone, Copy)]
pub(super) struct Sender<'a> {
    /// The packet's key as it was received; packets that wait for a controller have one.
    pub(super) key: Option<&'a FlowKey>,
    /// Of its flow; only tunnels need it.
    pub(super) hash: u32,
    pub(super) now: Timestamp,
}

impl Switch {
    /// Last pass, in the order of arrival.
    pub(super) fn run_all<B: FrameBuf, S: Sink<B>>(
        &mut self,
        moment: &Moment<'_>,
        n: usize,
        mut packets: vec::Drain<'_, Packet<B>>,
        sink: &mut S,
    ) {
        let mut idx = 0;
        let mut totals = Totals::default();
        while idx < n {
            if self.lanes.is_riding(idx) && self.ride_next(moment, idx, &mut packets, (&mut totals, sink)) {
                idx += 1;
                continue;
            }
            let lookup = self.lanes.lookups[idx];
            idx += match lookup {
                Lookup::Session(handle) | Lookup::Signed(handle) | Lookup::Megaflow(handle)
                    if self.lanes.current[idx]
                        && let Some(entry) = self.megaflows.get_holding(handle) =>
                {
                    if entry.plain == PortNo::UNSET || matches!(lookup, Lookup::Megaflow(_)) {
                        self.run_group(moment, handle, idx..n, &mut packets, sink)
                    } else {
                        let same = self.lanes.lookups[idx..n].iter().take_while(|other| **other == lookup);
                        let n_group = same.count();
                        let n_bytes = self.lanes.lens[idx..idx + n_group].iter().sum();
                        entry.count(moment.now, n_group as u64, n_bytes);
                        totals.add(lookup, n_group as u64, n_bytes);
                        let port = entry.plain;
                        sink.output_all(port, packets.by_ref().take(n_group));
                        n_group
                    }
                }
                Lookup::Dropped(reason) => {
                    packets.by_ref().take(1).for_each(|packet| sink.drop_packet(packet, reason, None));
                    self.books.received(1, self.lanes.lens[idx]);
                    self.books.dropped(0, reason, None, self.lanes.lens[idx]);
                    1
                }
                _ => {
                    // An entry may have made room for that of an earlier packet of the pass.
                    if let Some(packet) = packets.as_slice().first() {
                        self.lanes.ensure_key(moment, idx, packet);
                    }
                    let (port, key) = (self.lanes.ports[idx], *self.lanes.key(idx));
                    if let Some(reason) = self.refusal(moment, port, &key) {
                        packets.by_ref().take(1).for_each(|packet| sink.drop_packet(packet, reason, None));
                        self.books.received(1, self.lanes.lens[idx]);
                        self.books.dropped(0, reason, None, self.lanes.lens[idx]);
                        idx += 1;
                        continue;
                    }
                    sink.enter(Stage::Translate);
                    let resolved = self.resolve(moment, idx);
                    sink.enter(Stage::Execute);
                    match resolved {
                        Ok(handle) => self.run_group(moment, handle, idx..n, &mut packets, sink),
                        Err(translation) => self.run_once(moment, &translation, idx, &mut packets, sink),
                    }
                }
            };
        }
        self.books.left(&totals);
    }

    /// Runs the packet at the start of the range and those after it that have the same
    /// entry; answers how many they were.
    fn run_group<B: FrameBuf, S: Sink<B>>(
        &mut self,
        moment: &Moment<'_>,
        handle: Handle,
        range: Range<usize>,
        packets: &mut vec::Drain<'_, Packet<B>>,
        sink: &mut S,
    ) -> usize {
        let Some(entry) = self.megaflows.get_mut(handle) else {
            // Resolving has just found it; should that ever be wrong, do without.
            let key = self.lanes.key(range.start);
            let mut translation = pipeline::translate(moment.snapshot, key, &mut NoTrace);
            self.frozen_ids.number(&mut translation.program);
            return self.run_once(moment, &translation, range.start, packets, sink);
        };
        let (is_alone, is_signed) = (entry.is_alone, entry.is_signed);
        let rest = &self.lanes.lookups[range.start + 1..range.end];
        let n_group = match is_alone {
            true => 1,
            false => 1 + rest.iter().take_while(|lookup| lookup.handle() == Some(handle)).count(),
        };
        let group = range.start..range.start + n_group;
        for idx in group.clone() {
            let lookup = self.lanes.lookups[idx];
            if is_signed && matches!(lookup, Lookup::Megaflow(_)) {
                self.remember(moment, idx, handle);
            }
            self.books.found(lookup);
        }
        let n_bytes = self.lanes.lens[group.clone()].iter().sum();
        let Some(entry) = self.megaflows.get_mut(handle) else { return n_group };
        entry.count(moment.now, n_group as u64, n_bytes);
        if is_alone {
            for packet in packets.take(1) {
                if let Some((packet, seen)) = self.hop_known(moment, handle, group.start, packet, sink) {
                    self.carry_first(moment, (handle, seen), group.start, packet, sink);
                }
            }
            return 1;
        }
        let lanes = &*self.lanes;
        let mut ends = Ends { books: &mut self.books, punts: &mut self.punts, samples: &mut self.samples };
        match &entry.program.emits[..] {
            [emit] if entry.program.only_sends() => {
                let group = (lanes, group, n_bytes);
                send_group(emit, group, packets, (moment.now, &mut ends), sink);
            }
            _ => {
                let mut row = entry.drop_row as usize;
                for (idx, packet) in group.zip(packets.take(n_group)) {
                    let state = (moment.now, row);
                    row = carry_out(&entry.program, (lanes, idx), packet, state, &mut ends, sink);
                }
                entry.drop_row = row as u32;
            }
        }
        n_group
    }

    /// Runs one packet by a translation that no cache keeps, and counts it with the rules
    /// at once.
    fn run_once<B: FrameBuf, S: Sink<B>>(
        &mut self,
        moment: &Moment<'_>,
        translation: &Translation,
        idx: usize,
        packets: &mut vec::Drain<'_, Packet<B>>,
        sink: &mut S,
    ) -> usize {
        for packet in packets.take(1) {
            let n_bytes = packet.len() as u64;
            translation.tally.credit(&translation.rules, 1, n_bytes, moment.now);
            self.books.found(Lookup::Unknown);
            self.carry_alone(moment, &translation.program, idx, packet, sink);
        }
        1
    }

    /// Carries out any program on one packet.
    pub(super) fn carry_alone<B: FrameBuf, S: Sink<B>>(
        &mut self,
        moment: &Moment<'_>,
        program: &Program,
        idx: usize,
        packet: Packet<B>,
        sink: &mut S,
    ) {
        if program.is_tracked() {
            self.carry_tracked(moment, program, idx, packet, sink);
            return sink.enter(Stage::Execute);
        }
        self.teach(moment, &program.effects, packet.in_port);
        let mut ends = Ends { books: &mut self.books, punts: &mut self.punts, samples: &mut self.samples };
        carry_out(program, (&self.lanes, idx), packet, (moment.now, 0), &mut ends, sink);
    }
}

/// Does with some packets of the same entry what its program says, when that is to send
/// each to one place.
fn send_group<B: FrameBuf, S: Sink<B>>(
    emit: &Emit,
    (lanes, group, n_bytes): (&Lanes, Range<usize>, u64),
    packets: &mut vec::Drain<'_, Packet<B>>,
    (now, ends): (Timestamp, &mut Ends<'_>),
    sink: &mut S,
) {
    let Ends { books, punts, .. } = ends;
    let n_group = group.len();
    books.received(n_group as u64, n_bytes);
    if emit.is_plain() {
        sink.output_all(emit.port, packets.take(n_group));
        return books.forwarded(n_group as u64);
    }
    if let Some(header) = emit.only_tunnel() {
        return encapsulate_group((header, emit.port), (lanes, group), packets, books, sink);
    }
    let mut n_sent = 0;
    for (idx, packet) in group.zip(packets.take(n_group)) {
        let hash = if emit.tunnel.is_some() { lanes.flow_hash(idx) } else { 0 };
        let sender = Sender { key: lanes.known_key(idx), hash, now };
        match send(packet, emit, (sender, 0), punts, sink) {
            Ok(()) => n_sent += 1,
            Err(reason) => {
                books.dropped(0, reason, None, lanes.lens[idx]);
            }
        }
    }
    books.forwarded(n_sent);
}

/// Sends packets into a tunnel as they came.
fn encapsulate_group<B: FrameBuf, S: Sink<B>>(
    (header, port): (&TunnelHeader, PortNo),
    (lanes, group): (&Lanes, Range<usize>),
    packets: &mut vec::Drain<'_, Packet<B>>,
    books: &mut Books,
    sink: &mut S,
) {
    let mut n_sent = 0;
    let n_group = group.len();
    for (idx, mut packet) in group.zip(packets.take(n_group)) {
        let done = if lanes.has_signature[idx] {
            let signature = &lanes.signatures[idx];
            let hash = flow_hash_of_signature(signature);
            execute::encapsulate_marked(&mut packet, header, (Some(signature.ecn()), hash))
        } else {
            execute::encapsulate(&mut packet, header, lanes.flow_hash(idx))
        };
        match done {
            Ok(()) => {
                n_sent += 1;
                sink.output(port, packet);
            }
            Err(reason) => {
                sink.drop_packet(packet, reason, None);
                books.dropped(0, reason, None, lanes.lens[idx]);
            }
        }
    }
    books.forwarded(n_sent);
}

/// Does with one packet what a program says. Each emit starts from the packet as it was
/// received, so all but the last work on copies, and the last on the packet itself.
/// `row` is where the program's drops were counted the last time; answers where they are.
fn carry_out<B: FrameBuf, S: Sink<B>>(
    program: &Program,
    (lanes, idx): (&Lanes, usize),
    packet: Packet<B>,
    (now, row): (Timestamp, usize),
    ends: &mut Ends<'_>,
    sink: &mut S,
) -> usize {
    let n_bytes = lanes.lens[idx];
    ends.books.received(1, n_bytes);
    if !program.meters.is_empty() {
        let sender = Sender { key: lanes.known_key(idx), hash: lanes.flow_hash(idx), now };
        return metered::carry_out(program, packet, sender, (n_bytes, row), ends, sink);
    }
    if !program.samples.is_empty() {
        ends.samples.show(&program.samples, &packet, |_| true);
    }
    let Ends { books, punts, .. } = ends;
    let tunnelled = program.emits.iter().any(|emit| emit.tunnel.is_some());
    let hash = if tunnelled { lanes.flow_hash(idx) } else { 0 };
    let sender = Sender { key: lanes.known_key(idx), hash, now };
    let Some((last, others)) = program.emits.split_last().filter(|_| program.drop.is_none()) else {
        for emit in &program.emits {
            if let Err(reason) =
                copy(&packet, sink).and_then(|copy| send(copy, emit, (sender, 0), punts, sink))
            {
                books.failed_copy(reason);
            }
        }
        let cause = program.drop.as_ref();
        let reason = cause.map_or(DropReason::TableMiss, |cause| cause.reason);
        let rule = cause.and_then(|cause| cause.rule.as_ref());
        sink.drop_packet(packet, reason, rule);
        return books.dropped(row, reason, rule, n_bytes);
    };
    let mut outcome = Outcome::default();
    for emit in others {
        let sent = copy(&packet, sink).and_then(|copy| send(copy, emit, (sender, 0), punts, sink));
        outcome.add(emit, sent, books);
    }
    let sent = send(packet, last, (sender, 0), punts, sink);
    outcome.add(last, sent, books);
    outcome.settle(n_bytes, books);
    row
}

/// What becomes of a packet by its copies, but for those that mirrors have.
#[derive(Default)]
pub(super) struct Outcome {
    sent: bool,
    failed: Option<DropReason>,
}

impl Outcome {
    /// What became of one copy.
    pub(super) fn add(&mut self, emit: &Emit, sent: Result<(), DropReason>, books: &mut Books) {
        let lost = match (sent, emit.is_mirrored()) {
            (Ok(()), is_mirrored) => {
                self.sent |= !is_mirrored;
                None
            }
            (Err(reason), true) => Some(reason),
            // The last one says why, if none is sent.
            (Err(reason), false) => self.failed.replace(reason),
        };
        lost.into_iter().for_each(|reason| books.failed_copy(reason));
    }

    /// Enters what became of the packet.
    pub(super) fn settle(self, n_bytes: u64, books: &mut Books) {
        match self.failed {
            Some(reason) if !self.sent => drop(books.dropped(0, reason, None, n_bytes)),
            failed => {
                failed.into_iter().for_each(|reason| books.failed_copy(reason));
                books.forwarded(1);
            }
        }
    }
}

/// A copy with all that travels with the packet.
pub(super) fn copy<B: FrameBuf, S: Sink<B>>(
    packet: &Packet<B>,
    sink: &mut S,
) -> Result<Packet<B>, DropReason> {
    let mut copy = sink.copy(packet).ok_or(DropReason::NoBuffer)?;
    copy.in_port = packet.in_port;
    copy.layout = packet.layout;
    copy.offload = packet.offload;
    Ok(copy)
}

/// Sends a packet; `n_levels` is what meters raise its drop precedence by.
pub(super) fn send<B: FrameBuf, S: Sink<B>>(
    mut packet: Packet<B>,
    emit: &Emit,
    (sender, n_levels): (Sender<'_>, u8),
    punts: &mut Punts,
    sink: &mut S,
) -> Result<(), DropReason> {
    let punt = emit.extras.as_ref().and_then(|extras| extras.punt.as_ref());
    let applied = execute::apply_remarked(&mut packet, emit, sender.hash, n_levels);
    let result = applied.and_then(|()| match punt {
        // A frame for the controller has no device behind it that completes checksums.
        Some(punt) => {
            offload::complete(&mut packet);
            punts.add(&packet, punt, sender)
        }
        None => Ok(()),
    });
    match (&result, punt) {
        (Ok(()), None) => sink.output(emit.port, packet),
        (Ok(()), Some(_)) => sink.release(packet),
        (Err(reason), _) => sink.drop_packet(packet, *reason, None),
    }
    result
}
