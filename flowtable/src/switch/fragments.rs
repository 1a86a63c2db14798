//! Fragments on their way through the tracker: kept until their packet is whole, tracked
//! once, and sent on one by one as they came in.
//!
//! A fragment is entered in the books when it is known what becomes of it. While it
//! waits its buffer is free again: what waits is a copy on the heap
//! ([`crate::conntrack::fragments`]), which any worker may complete.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use super::{
    Moment, Sink, Switch,
    recirculate::{Failure, Fate},
    rider::Rider,
};
use crate::{
    cache::Remembered,
    conntrack::{
        Conntrack, Request, Verdict, View,
        fragments::{Held, Offered},
        piece::Piece,
    },
    drop::DropReason,
    key::FlowKey,
    packet::{FrameBuf, Packet},
    pipeline::{self, NoTrace},
    program::Program,
    types::{PortNo, Timestamp},
};

/// A packet that came in fragments, as the tracker sees it.
#[derive(Debug)]
pub(super) struct Whole {
    /// Bytes of its L4 header and payload.
    pub(super) segment_len: usize,
    /// What the tracker has said of it: the same to all its fragments.
    verdicts: RefCell<Vec<Judged>>,
}

#[derive(Debug)]
struct Judged {
    request: Request,
    /// Addresses at that point; the ports are in the first fragment alone.
    addresses: (u128, u128),
    verdict: Result<Verdict, DropReason>,
}

impl Whole {
    /// Asks the tracker, unless it has been asked the same for another fragment.
    pub(super) fn track(
        &self,
        tracker: &Conntrack,
        (now, request, view): (Timestamp, &Request, &View),
    ) -> Result<Verdict, DropReason> {
        let addresses = (view.tuple.src, view.tuple.dst);
        let is_same = |judged: &&Judged| judged.request == *request && judged.addresses == addresses;
        let mut verdicts = self.verdicts.borrow_mut();
        if let Some(judged) = verdicts.iter().find(is_same) {
            return judged.verdict;
        }
        let verdict = tracker.track(now, request, view);
        verdicts.push(Judged { request: *request, addresses, verdict });
        verdict
    }
}

impl Switch {
    /// Keeps a fragment that is to be tracked; when it completes its packet, all go on.
    pub(super) fn gather<B: FrameBuf, S: Sink<B>>(
        &mut self,
        moment: &Moment<'_>,
        program: &Program,
        idx: usize,
        packet: Packet<B>,
        sink: &mut S,
    ) {
        let zone = program.emits.iter().find_map(|emit| emit.ct.as_ref()).map_or(0, |ct| ct.request.zone);
        let received = (moment.in_port, self.lanes.lens[idx]);
        match Piece::read(&packet, zone) {
            Err(reason) => self.refuse(moment, reason, received),
            Ok(mut piece) => {
                piece.of.bridge = moment.snapshot.bridge;
                let held = Held {
                    frame: packet.bytes().into(),
                    layout: packet.layout,
                    key: Box::new(*self.lanes.key(idx)),
                    piece,
                    port: packet.in_port,
                    received,
                };
                match self.tracker().gather(moment.now, held) {
                    Offered::Kept => {}
                    Offered::Refused(reason, held) => self.refuse(moment, reason, held.received),
                    Offered::Whole(pieces) => self.go_on(moment, pieces, &packet, sink),
                }
            }
        }
        sink.release(packet);
        self.enter_lost_fragments(moment);
    }

    /// Enters fragments that nobody waits for any longer.
    pub(super) fn enter_lost_fragments(&mut self, moment: &Moment<'_>) {
        let Some(tracker) = &self.conntrack else { return };
        for (reason, held) in tracker.lost_fragments(moment.now, moment.snapshot.bridge) {
            self.refuse(moment, reason, held.received);
        }
    }

    fn refuse(&mut self, moment: &Moment<'_>, reason: DropReason, (in_port, n_bytes): (PortNo, u64)) {
        self.books.open(in_port);
        self.books.received(1, n_bytes);
        self.books.dropped(0, reason, None, n_bytes);
        self.books.open(moment.in_port);
    }

    /// Sends on the fragments of a whole packet; `like` is a packet with a usual buffer.
    fn go_on<B: FrameBuf, S: Sink<B>>(
        &mut self,
        moment: &Moment<'_>,
        pieces: Vec<Held>,
        like: &Packet<B>,
        sink: &mut S,
    ) {
        let payload: Vec<u8> = pieces
            .iter()
            .flat_map(|held| held.frame.get(held.piece.payload.clone()))
            .flatten()
            .copied()
            .collect();
        let Some(first) = pieces.first() else { return };
        let view = self.tracker().view_of_whole(&first.packet(), (first.piece.proto, &payload));
        // Of IPv6, headers in front of L4 may be part of what was cut.
        let n_before = usize::from(first.layout.l4).saturating_sub(first.piece.payload.start);
        let whole = Rc::new(Whole {
            segment_len: payload.len().saturating_sub(n_before),
            verdicts: RefCell::default(),
        });
        for held in pieces {
            let (in_port, n_bytes) = held.received;
            self.books.open(in_port);
            self.books.received(1, n_bytes);
            let mut fate = Fate::default();
            match sink.make(&held.frame, like) {
                Some(mut packet) => {
                    (packet.in_port, packet.layout) = (held.port, held.layout);
                    let mut key = *held.key;
                    let program = self.program_for(moment, &held, &key);
                    let rider = Rider {
                        packet,
                        depth: 1,
                        view: Some(view),
                        whole: Some(Rc::clone(&whole)),
                        translated: None,
                    };
                    self.ride(moment, &program, (rider, &mut key), sink, &mut fate);
                }
                None => self.fail(&mut fate, Failure::of(DropReason::NoBuffer)),
            }
            self.settle(fate, n_bytes);
        }
        self.books.open(moment.in_port);
    }

    /// What the tables make of a packet that has been counted with its rules already. It may
    /// have been received by another worker, whose caches are not ours.
    fn program_for(&mut self, moment: &Moment<'_>, held: &Held, key: &FlowKey) -> Arc<Program> {
        let port = held.port;
        let epoch = moment.snapshot.epoch;
        let found = self.megaflows.find(port, key);
        if let Some(handle) = found
            && self.megaflows.is_current(handle, epoch)
            && let Some(entry) = self.megaflows.get_mut(handle)
        {
            return Arc::clone(&entry.program);
        }
        let mut translation = pipeline::translate(moment.snapshot, key, &mut NoTrace);
        self.frozen_ids.number(&mut translation.program);
        if found.is_some() || self.megaflows.is_disabled() {
            return Arc::new(translation.program);
        }
        let program = Arc::new(translation.program.clone());
        let from_tunnel = port != held.received.0;
        self.megaflows.install(port, Remembered { key, from_tunnel, translation, epoch, now: moment.now });
        program
    }
}
