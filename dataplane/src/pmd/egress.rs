//! The ways out of one worker and the way to those of others: the switch's sink.
//!
//! A port may have several ways out (a queue of a network card is one); a worker that has one
//! of them sends by that, the others hand their packets to a worker that has. Ways out stay
//! where they are as long as the port is attached.

use std::{collections::HashMap, sync::Arc};

use flowtable::{
    drop::DropReason,
    flow::Rule,
    packet::Packet,
    stats::DropCount,
    switch::{Sink, Stage},
    types::{BridgeId, PortNo, Timestamp},
};

use super::{
    fabric::{Fabric, Handover, Seat},
    meter::{DEFAULT_EVERY, Meter},
    patch::{Crossing, PatchEnd, Patches},
    shaping::Held,
    tap::{Sight, Taps},
};
use crate::{
    capture::CapturePoint,
    config::PortId,
    pool::{FRAME_LEN, Frame, Pool},
    port::{AttachedOutlet, Loss, Outlet},
};

/// Where a port's way out is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    Nowhere,
    /// Here, at this index.
    Here(usize),
    /// On this worker.
    Worker(usize),
    /// One end of a link to another bridge, at this index: as such, it is on every worker.
    Patch(usize),
}

/// Ways out, buffers, and what was lost on the way out.
pub(crate) struct Egress {
    pub(super) outlets: Vec<AttachedOutlet>,
    /// Ways out whose packets wait in queues, and how many do.
    pub(super) n_shapers: usize,
    pub(super) held: Held,
    patches: Patches,
    /// By bridge and port number.
    routes: Vec<Vec<Route>>,
    /// Bridge whose switch sends now.
    pub(super) bridge: BridgeId,
    pool: Pool,
    fabric: Arc<Fabric>,
    seat: Arc<Seat>,
    meter: Meter,
    taps: Taps,
    /// Workers that got packets since the last flush.
    to_wake: Vec<usize>,
    drops: HashMap<(PortId, DropReason), Lost>,
    /// Where frames are cut from larger packets.
    room: Box<[u8]>,
}

/// Packets that were not taken, copies lost on their way out, and their bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Lost {
    n_packets: u64,
    n_copies: u64,
    n_bytes: u64,
}

impl Egress {
    pub(crate) fn new(pool: Pool, fabric: Arc<Fabric>, seat: Arc<Seat>) -> Self {
        Self {
            outlets: Vec::new(),
            n_shapers: 0,
            held: Held::default(),
            patches: Patches::default(),
            routes: Vec::new(),
            bridge: BridgeId::FIRST,
            pool,
            meter: Meter::new(DEFAULT_EVERY),
            taps: Taps::default(),
            to_wake: Vec::with_capacity(fabric.seats().len()),
            fabric,
            seat,
            drops: HashMap::new(),
            room: vec![0; FRAME_LEN].into(),
        }
    }

    /// The sink of the switch of a bridge.
    pub(crate) fn of(&mut self, bridge: BridgeId) -> &mut Self {
        self.bridge = bridge;
        self
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    pub(crate) fn pool_mut(&mut self) -> &mut Pool {
        &mut self.pool
    }

    #[inline(always)]
    pub(crate) fn meter(&mut self) -> &mut Meter {
        &mut self.meter
    }

    /// Somebody captures or watches.
    #[inline(always)]
    pub(crate) fn is_tapped(&self) -> bool {
        !self.taps.is_empty()
    }

    pub(crate) fn taps_mut(&mut self) -> &mut Taps {
        &mut self.taps
    }

    /// Shows packets that came in by a port.
    #[cold]
    pub(crate) fn show_received(&mut self, port: PortId, batch: &mut [Packet<Frame>]) {
        let (now, sight) = (self.fabric.now(), Sight { point: CapturePoint::Received, port, why: None });
        batch.iter_mut().for_each(|packet| self.taps.show(now, &sight, packet));
    }

    /// Shows a packet that is dropped.
    #[cold]
    fn show_dropped(&mut self, reason: DropReason, rule: Option<&Arc<Rule>>, packet: &mut Packet<Frame>) {
        let port = PortId::new(self.bridge, packet.in_port);
        let sight = Sight { point: CapturePoint::Dropped, port, why: Some((reason, rule)) };
        self.taps.show(self.fabric.now(), &sight, packet);
    }

    /// Sends what other workers have received for our ports.
    pub(crate) fn take_handovers(&mut self) -> bool {
        let mut found = false;
        // At most what was there at the start: others may add as fast as we take.
        for _ in 0..self.seat.inbox.len() {
            let Some(Handover { port, packet }) = self.seat.inbox.pop() else { break };
            found = true;
            self.bridge = port.bridge;
            match self.route_of(port) {
                Route::Here(idx) => self.send(idx, packet),
                // It has moved or gone meanwhile; packets do not travel twice.
                Route::Nowhere | Route::Worker(_) | Route::Patch(_) => {
                    self.lose(DropReason::NoSuchPort, packet);
                }
            }
        }
        found
    }

    /// Sends what the ports have taken, and wakes workers that got packets from us.
    pub(crate) fn flush(&mut self) {
        self.release_shaped();
        for attached in &mut self.outlets {
            let n_lost = attached.flush(&mut self.pool);
            if n_lost > 0 {
                // The kernel does not tell which frames these were, nor their ports.
                let port = PortId::new(attached.port.bridge, PortNo::ZERO);
                self.drops.entry((port, DropReason::TxError)).or_default().n_copies += n_lost;
            }
        }
        for worker in self.to_wake.drain(..) {
            self.fabric.seats()[worker].waker.wake();
        }
    }

    pub(crate) fn has_unsent(&self) -> bool {
        self.outlets.iter().any(|attached| attached.device.has_unsent())
    }

    /// Packets from other workers wait.
    pub(crate) fn has_pending(&self) -> bool {
        !self.seat.inbox.is_empty()
    }

    pub(crate) fn attach(&mut self, outlet: AttachedOutlet) {
        self.set_route(outlet.port, Route::Here(self.outlets.len()));
        self.outlets.push(outlet);
    }

    /// Adds one end of a link.
    pub(crate) fn add_patch(&mut self, end: PatchEnd) {
        let port = end.port;
        let idx = self.patches.add(end);
        self.set_route(port, Route::Patch(idx));
    }

    /// Says what the other end of a link is.
    pub(crate) fn link(&mut self, port: PortId, peer: Option<PortId>) {
        if let Route::Patch(idx) = self.route_of(port)
            && let Some(end) = self.patches.end_mut(idx)
        {
            end.peer = peer;
        }
    }

    pub(crate) fn remove_patch(&mut self, port: PortId) -> Option<PatchEnd> {
        let Route::Patch(idx) = self.route_of(port) else { return None };
        self.set_route(port, Route::Nowhere);
        self.patches.remove(idx)
    }

    pub(crate) fn detach(&mut self, port: PortId) -> Option<AttachedOutlet> {
        let Route::Here(idx) = self.route_of(port) else { return None };
        self.set_route(port, Route::Nowhere);
        let detached = self.outlets.swap_remove(idx);
        if let Some(moved) = self.outlets.get(idx).map(|moved| moved.port) {
            self.set_route(moved, Route::Here(idx));
        }
        Some(detached)
    }

    pub(crate) fn route(&mut self, port: PortId, worker: Option<usize>) {
        self.set_route(port, worker.map_or(Route::Nowhere, Route::Worker));
    }

    /// Packets that a switch did not get, and copies lost after it had handed them over, by the
    /// port their packet came in by.
    pub(crate) fn drops(&self, bridge: BridgeId) -> impl Iterator<Item = DropCount> {
        let of_bridge = self.drops.iter().filter(move |((port, _), _)| port.bridge == bridge);
        of_bridge.map(|((in_port, reason), lost)| DropCount {
            in_port: in_port.port,
            reason: *reason,
            rule: None,
            meter: None,
            n_packets: lost.n_packets,
            n_bytes: lost.n_bytes,
            n_copies: lost.n_copies,
        })
    }

    /// Takes away what was lost of packets from a port.
    pub(crate) fn take_drops(&mut self, in_port: PortId) -> Vec<DropCount> {
        let taken = self.drops(in_port.bridge).filter(|row| row.in_port == in_port.port).collect();
        self.drops.retain(|(port, _), _| *port != in_port);
        taken
    }

    fn route_of(&self, port: PortId) -> Route {
        let routes = self.routes.get(usize::from(port.bridge.get()));
        routes.and_then(|routes| routes.get(port.port.get() as usize)).copied().unwrap_or(Route::Nowhere)
    }

    fn set_route(&mut self, port: PortId, route: Route) {
        let (bridge, idx) = (usize::from(port.bridge.get()), port.port.get() as usize);
        if bridge >= self.routes.len() {
            self.routes.resize(bridge + 1, Vec::new());
        }
        let routes = &mut self.routes[bridge];
        if idx >= routes.len() {
            routes.resize(idx + 1, Route::Nowhere);
        }
        routes[idx] = route;
    }

    /// Takes a packet that leaves by one end of a link: it goes on when the switch is done
    /// with its batch.
    fn cross(&mut self, idx: usize, packet: Packet<Frame>) {
        if let Err((reason, packet)) = self.patches.take(idx, packet) {
            self.lose(reason, packet);
        }
    }

    /// Hands over what is between two bridges, oldest first, for an empty list.
    pub(crate) fn swap_crossings(&mut self, list: &mut Vec<Crossing>) {
        self.patches.swap(list);
    }

    /// Packets are between two bridges.
    pub(crate) fn has_crossings(&self) -> bool {
        self.patches.has_crossings()
    }

    /// Has packets of one link arrive, and counts them at both of its ends.
    pub(crate) fn arrive(&mut self, (from, to): (PortId, PortId), batch: &[Packet<Frame>]) {
        let n_bytes = |packet: &Packet<Frame>| packet.len() as u64;
        if let Route::Patch(idx) = self.route_of(from)
            && let Some(end) = self.patches.end_mut(idx)
        {
            batch.iter().for_each(|packet| end.metrics.tx(end.lane).sent(n_bytes(packet)));
        }
        if let Route::Patch(idx) = self.route_of(to)
            && let Some(end) = self.patches.end_mut(idx)
        {
            end.metrics.rx(end.lane).received(batch.len() as u64, batch.iter().map(n_bytes).sum());
        }
    }

    /// Packets that have crossed too many links, or whose bridge is gone, go no further.
    pub(crate) fn lose_crossing(&mut self, reason: DropReason, crossing: Crossing) {
        if let Route::Patch(idx) = self.route_of(crossing.from)
            && let Some(end) = self.patches.end_mut(idx)
        {
            end.metrics.tx(end.lane).dropped(DropReason::PortDown, 1);
        }
        self.bridge = crossing.from.bridge;
        self.lose(reason, crossing.packet);
    }

    /// Packets that no switch is there for.
    pub(crate) fn discard(&mut self, bridge: BridgeId, batch: &mut Vec<Packet<Frame>>) {
        self.bridge = bridge;
        for packet in batch.drain(..) {
            self.lose(DropReason::NoSuchPort, packet);
        }
    }

    /// The time that packets go by.
    pub(super) fn now(&self) -> Timestamp {
        self.fabric.now()
    }

    /// Received packets that were not taken, of those of a port.
    pub(crate) fn n_refused(&self, port: PortId) -> u64 {
        self.drops.get(&(port, DropReason::RateLimit)).map_or(0, |lost| lost.n_packets)
    }

    /// Does not take a received packet.
    pub(super) fn refuse(&mut self, port: PortId, mut packet: Packet<Frame>) {
        self.bridge = port.bridge;
        if self.is_tapped() {
            self.show_dropped(DropReason::RateLimit, None, &mut packet);
        }
        let lost = self.drops.entry((port, DropReason::RateLimit)).or_default();
        lost.n_packets += 1;
        lost.n_bytes += packet.len() as u64;
        self.pool.put_packet(packet);
    }

    /// Sends by a way out of ours, or has a packet wait there.
    #[inline]
    fn send(&mut self, idx: usize, packet: Packet<Frame>) {
        if self.outlets[idx].shaper.is_some() {
            return self.enqueue(idx, packet);
        }
        self.send_now(idx, packet);
    }

    #[inline]
    pub(super) fn send_now(&mut self, idx: usize, mut packet: Packet<Frame>) {
        if self.outlets[idx].takes_frame_of(&packet) {
            if let Err((loss, packet)) = self.outlets[idx].give(packet, &mut self.pool) {
                self.lose_frames((loss.reason, loss.n_frames), packet);
            }
            return;
        }
        match self.outlets[idx].send(&mut packet, &mut self.room) {
            Ok(()) => self.pool.put_packet(packet),
            Err(Loss { reason, n_frames }) => self.lose_frames((reason, n_frames), packet),
        }
    }

    fn hand_over(&mut self, worker: usize, port: PortId, packet: Packet<Frame>) {
        match self.fabric.seats()[worker].inbox.push(Handover { port, packet }) {
            Ok(()) if self.to_wake.contains(&worker) => {}
            Ok(()) => self.to_wake.push(worker),
            Err(back) => self.lose(DropReason::TxRingFull, back.packet),
        }
    }

    pub(super) fn lose(&mut self, reason: DropReason, packet: Packet<Frame>) {
        self.lose_frames((reason, 1), packet);
    }

    fn lose_frames(&mut self, (reason, n_frames): (DropReason, u64), mut packet: Packet<Frame>) {
        if self.is_tapped() {
            self.show_dropped(reason, None, &mut packet);
        }
        let in_port = PortId::new(self.bridge, packet.in_port);
        let lost = self.drops.entry((in_port, reason)).or_default();
        lost.n_copies += n_frames;
        lost.n_bytes += packet.len() as u64;
        self.pool.put_packet(packet);
    }
}

impl Sink<Frame> for Egress {
    #[inline]
    fn output(&mut self, port: PortNo, mut packet: Packet<Frame>) {
        let stage = self.meter.enter(Stage::Transmit);
        let port = PortId::new(self.bridge, port);
        if self.is_tapped() {
            let sight = Sight { point: CapturePoint::Sent, port, why: None };
            self.taps.show(self.fabric.now(), &sight, &mut packet);
        }
        match self.route_of(port) {
            Route::Here(idx) => self.send(idx, packet),
            Route::Worker(worker) => self.hand_over(worker, port, packet),
            Route::Patch(idx) => self.cross(idx, packet),
            Route::Nowhere => self.lose(DropReason::NoSuchPort, packet),
        }
        self.meter.enter(stage);
    }

    #[inline]
    fn output_all(&mut self, port: PortNo, packets: impl Iterator<Item = Packet<Frame>>) {
        let idx = match self.route_of(PortId::new(self.bridge, port)) {
            Route::Here(idx) if !self.is_tapped() && self.outlets[idx].shaper.is_none() => idx,
            _ => return packets.for_each(|packet| self.output(port, packet)),
        };
        let stage = self.meter.enter(Stage::Transmit);
        packets.for_each(|packet| self.send_now(idx, packet));
        self.meter.enter(stage);
    }

    fn copy(&mut self, packet: &Packet<Frame>) -> Option<Packet<Frame>> {
        let (start, len) = (packet.start(), packet.len());
        let mut frame = self.pool.get_for(start + len)?;
        frame.as_mut().get_mut(start..start + len)?.copy_from_slice(packet.bytes());
        let mut copy = Packet::new(frame, start, len, packet.in_port);
        copy.layout = packet.layout;
        copy.offload = packet.offload;
        Some(copy)
    }

    fn release(&mut self, packet: Packet<Frame>) {
        self.pool.put_packet(packet);
    }

    #[inline]
    fn drop_packet(&mut self, mut packet: Packet<Frame>, reason: DropReason, rule: Option<&Arc<Rule>>) {
        if self.is_tapped() {
            self.show_dropped(reason, rule, &mut packet);
        }
        self.pool.put_packet(packet);
    }

    #[inline(always)]
    fn enter(&mut self, stage: Stage) {
        self.meter.enter(stage);
    }
}
