//! Copies for controllers, with what the packet had in the pipeline.

use std::sync::Arc;

use super::{
    MAX_EMITS, Tracer,
    frozen::{Frozen, Start},
    walk::{Abort, Walk},
};
use crate::{
    drop::DropReason,
    field::Field,
    flow::{Match, PuntReason, ToController},
    key::N_REGS,
    program::{Extras, Punt},
    types::{PortNo, Priority, TableId},
};

/// Cookie where no rule is to blame (OpenFlow 1.5 §7.4.1).
const NO_COOKIE: u64 = u64::MAX;

/// What a controller is told of the pipeline, where it is not zero (`NXT_PACKET_IN2`).
const METADATA: &[Field] = &[
    Field::InPort,
    Field::Metadata,
    Field::TunId,
    Field::TunSrc,
    Field::TunDst,
    Field::TunIpv6Src,
    Field::TunIpv6Dst,
    Field::TunFlags,
    Field::TunGbpId,
    Field::TunGbpFlags,
    Field::PktMark,
    Field::CtState,
    Field::CtZone,
    Field::CtMark,
    Field::CtLabel,
];

impl<T: Tracer> Walk<'_, T> {
    /// Sends the packet as it is now to a controller.
    pub(super) fn punt(&mut self, to: &ToController) -> Result<(), Abort> {
        let mut to = to.clone();
        let Some(rule) = self.rule() else { return self.punt_as(to, TableId::FIRST, NO_COOKIE) };
        // OpenFlow 1.5 §5.4: the rule for what no other one matches.
        let is_miss = rule.priority == Priority::MIN && rule.matching.is_any();
        if to.reason == PuntReason::Action {
            to.reason = if is_miss { PuntReason::NoMatch } else { self.reason };
        }
        self.punt_as(to, rule.table, rule.cookie)
    }

    /// Sends the packet to the controller because a table has no rule for it.
    pub(super) fn punt_miss(&mut self, table: TableId) -> Result<(), Abort> {
        let in_port = PortNo::new(self.key.read(Field::InPort) as u32);
        if in_port.is_ok_and(|port| !self.snapshot.ports.bridging(port).packet_ins) {
            self.note(format_args!("the port's packets do not go to controllers for want of a rule"));
            self.end(DropReason::TableMiss);
            return Ok(());
        }
        let to = ToController { reason: PuntReason::NoMatch, ..ToController::default() };
        self.punt_as(to, table, NO_COOKIE)
    }

    fn punt_as(&mut self, to: ToController, table: TableId, cookie: u64) -> Result<(), Abort> {
        if self.emits.len() >= MAX_EMITS {
            return Err(Abort(DropReason::TooManyOutputs));
        }
        let (meter, metadata) = (to.meter, self.metadata());
        self.note(format_args!("to controller {}: {}", to.controller, to.reason));
        let mut emit = self.copy_for(PortNo::CONTROLLER, None);
        let extras = emit.extras.take().map_or_else(Extras::default, |extras| *extras);
        let next = if to.pause { Some(self.pause()) } else { None };
        let is_log = to.reason == PuntReason::Log;
        let punt = Some(Arc::new(Punt { to, table, cookie, metadata, next }));
        let is_mirrored = extras.is_mirrored || is_log;
        emit.extras = Some(Box::new(Extras { punt, is_mirrored, ..extras }));
        if is_log {
            // A packet that is looked at and goes nowhere is dropped, by who says so.
            self.emits.push(emit);
        } else {
            self.emit(emit);
        }
        meter.map_or(Ok(()), |meter| self.meter_last(meter))
    }

    /// Puts the walk aside until the controller answers; within a clone, the clone's.
    fn pause(&mut self) -> Arc<Frozen> {
        self.note(format_args!("waits for the controller's answer"));
        let (rests, within_clone) = self.put_aside();
        let kept = (&self.stack[..], &self.action_set, self.queue, self.mirrored);
        let frozen = Frozen::new(&mut self.key, kept, Start::Rest { rests, within_clone });
        // It is executed behind the rest, when that is.
        self.clear_actions();
        Arc::new(frozen)
    }

    /// Fields of the pipeline that are not zero. Reads them all.
    fn metadata(&mut self) -> Match {
        let options = (0..64).filter_map(Field::tun_metadata);
        let present = self.key.read(Field::TunMetadataPresent);
        let options = options.enumerate().filter(|(idx, _)| present >> idx & 1 != 0).map(|(_, field)| field);
        let mut metadata = Match::any();
        let registers = (0..N_REGS).filter_map(Field::reg);
        for field in METADATA.iter().copied().chain(registers).chain(options) {
            let value = self.key.read(field);
            if value != 0 {
                metadata = metadata.with(field, value);
            }
        }
        metadata
    }
}
