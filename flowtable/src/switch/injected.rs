//! Packets that a controller sends: those that it answers ([`Switch::resume`]) and its own
//! ([`Switch::packet_out`]).
//!
//! `controller(…,pause)` puts the walk aside: what the packet had in the pipeline (registers,
//! metadata, tunnel, connection, stack, action set, queue) and the actions that were left,
//! up to the end of the enclosing clone. The [`PacketIn`](super::PacketIn) carries an id for
//! all this, and the answer names the id, the frame as it is now, and the fields of the
//! pipeline that have changed (`NXT_RESUME`). The packet then goes on with the rules of that
//! moment: what was put aside are actions, and a table that they lead to is looked up anew.
//! An id is of the switch that has given it, that is of one worker.
//!
//! Packets from a controller are rare, so no cache keeps their translations. They have a page
//! of their own in the books ([`Switch::injected_counters`]), in which they are received like
//! others, and in the drop table their port is [`PortNo::CONTROLLER`].

use std::sync::Arc;

use super::{ContinuationId, Moment, Sink, Switch, rider::Rider};
use crate::{
    drop::DropReason,
    field::Field,
    flow::{Action, Match},
    key::FlowKey,
    packet::{FrameBuf, Packet},
    parse::parse,
    pipeline::{self, Frozen, NoTrace},
    snapshot::Snapshot,
    stats::PortCounters,
    switch::ContinuationCounters,
    table::RuleError,
    types::{PortNo, Timestamp},
};

/// A packet from a controller was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InjectError {
    /// Nothing waits under this id.
    #[error(
        "no packet waits as {0}: it went on already, waited longer than {secs} s, made room for others, or never was",
        secs = super::CONTINUATION_LIFE.as_secs()
    )]
    NoSuchContinuation(ContinuationId),
    /// Only what is not in the frame can be changed beside the frame.
    #[error("`{0}` is in the frame; change it there")]
    FrameField(Field),
    /// The frame is not one.
    #[error("the frame cannot be parsed: {0}")]
    Frame(DropReason),
    /// The actions cannot be carried out.
    #[error(transparent)]
    Actions(#[from] RuleError),
}

impl Switch {
    /// Goes on with a packet that waited for its controller. `metadata`: fields of the
    /// pipeline that have changed meanwhile; what it does not name is as it was.
    ///
    /// # Errors
    /// Says why nothing was done. A packet that has been found goes on at most once, and
    /// not again when its new frame or metadata are refused.
    pub fn resume<B: FrameBuf, S: Sink<B>>(
        &mut self,
        now: Timestamp,
        snapshot: &Arc<Snapshot>,
        (id, metadata): (ContinuationId, &Match),
        packet: Packet<B>,
        sink: &mut S,
    ) -> Result<(), InjectError> {
        let prepared = self.prepare_resume(now, (id, metadata), packet);
        self.inject(now, snapshot, prepared, sink)
    }

    /// Carries out actions on a packet of the controller's own, as if it had come in by
    /// `in_port`, which need not be a real port.
    ///
    /// # Errors
    /// Says why nothing was done.
    pub fn packet_out<B: FrameBuf, S: Sink<B>>(
        &mut self,
        now: Timestamp,
        snapshot: &Arc<Snapshot>,
        (in_port, actions): (PortNo, Vec<Action>),
        packet: Packet<B>,
        sink: &mut S,
    ) -> Result<(), InjectError> {
        let prepared = prepare_packet_out((in_port, actions), packet);
        self.inject(now, snapshot, prepared, sink)
    }

    /// What became of packets from controllers.
    pub fn injected_counters(&self) -> PortCounters {
        self.books.injected()
    }

    /// What became of packets that wait for a controller's answer.
    pub fn continuation_counters(&self) -> ContinuationCounters {
        self.punts.continuations.counters
    }

    fn prepare_resume<B: FrameBuf>(
        &mut self,
        now: Timestamp,
        (id, metadata): (ContinuationId, &Match),
        mut packet: Packet<B>,
    ) -> Prepared<B> {
        let Some(waiting) = self.punts.continuations.take(now, id) else {
            return Err((InjectError::NoSuchContinuation(id), packet));
        };
        if let Some(field) = pipeline::frame_field(metadata) {
            return Err((InjectError::FrameField(field), packet));
        }
        packet.in_port = waiting.in_port;
        match frame_key(&mut packet) {
            Ok(frame) => {
                let mut key = waiting.key;
                waiting.frozen.take_frame(&mut key, &frame);
                waiting.frozen.restore(&mut key);
                for word in metadata.words() {
                    let old = &mut key.words_mut()[usize::from(word.idx)];
                    *old = *old & !word.mask | word.value;
                }
                Ok(((Rider::fresh(packet), key), waiting.frozen))
            }
            Err(reason) => Err((InjectError::Frame(reason), packet)),
        }
    }

    fn inject<B: FrameBuf, S: Sink<B>>(
        &mut self,
        now: Timestamp,
        snapshot: &Arc<Snapshot>,
        prepared: Prepared<B>,
        sink: &mut S,
    ) -> Result<(), InjectError> {
        let ((rider, mut key), frozen) = match prepared {
            Ok(prepared) => prepared,
            Err((error, packet)) => {
                sink.release(packet);
                return Err(error);
            }
        };
        let moment = Moment::new(now, snapshot, rider.packet.in_port);
        let n_bytes = rider.packet.len() as u64;
        let mut translation = pipeline::translate_frozen(snapshot, &key, &frozen, &mut NoTrace);
        self.frozen_ids.number(&mut translation.program);
        translation.tally.credit(&translation.rules, 1, n_bytes, now);
        self.books.open_injected();
        self.carry_rider(&moment, &translation.program, (rider, &mut key), n_bytes, sink);
        Ok(())
    }
}

/// A packet at the beginning of its walk, or why it has none.
type Prepared<B> = Result<((Rider<B>, FlowKey), Arc<Frozen>), (InjectError, Packet<B>)>;

fn prepare_packet_out<B: FrameBuf>(
    (in_port, actions): (PortNo, Vec<Action>),
    mut packet: Packet<B>,
) -> Prepared<B> {
    packet.in_port = in_port;
    let mut key = match frame_key(&mut packet) {
        Ok(key) => key,
        Err(reason) => return Err((InjectError::Frame(reason), packet)),
    };
    key.in_port.set(in_port.get());
    match pipeline::begin_packet_out(&key, actions) {
        Ok(frozen) => Ok(((Rider::fresh(packet), key), Arc::new(frozen))),
        Err(error) => Err((error.into(), packet)),
    }
}

/// What the frame has of a key.
fn frame_key<B: FrameBuf>(packet: &mut Packet<B>) -> Result<FlowKey, DropReason> {
    let mut key = FlowKey::zero();
    parse(packet, &mut key)?;
    key.set_frame_len(packet.len());
    Ok(key)
}
