//! The worker: a thread that polls its ports and switches what they receive.
//!
//! [`Worker::poll_once`] is the packet's walk: a burst from a port, the switch of its bridge,
//! the ports it goes out by, one flush for all. Snapshot and clock are read once per batch.
//! What leaves by a link to another bridge goes on in that one's switch before the next
//! burst ([`patch`]).
//! Everything else, attaching a port or reading a counter, is a *job*: a closure that
//! runs between two batches, so a worker's state has one owner and no lock.
//!
//! With nothing to do for a while, the worker sleeps on its sockets and on an event
//! file; whoever gives it work wakes it (`sys::event::Waker`).

mod controlled;
mod egress;
mod fabric;
mod patch;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, Cache};
use crossbeam::channel::Receiver;
use flowtable::{
    drop::DropReason,
    packet::Packet,
    stats::{DropCount, PortCounters, SwitchCounters},
    switch::Switch,
    types::{BridgeId, Epoch, PortNo, Timestamp},
};

pub use self::controlled::SendError;
pub(crate) use self::{
    controlled::sum,
    fabric::{Fabric, Job, Seat},
    patch::PatchEnd,
};
use self::{
    egress::Egress,
    fabric::Plan,
    patch::{Crossing, MAX_CROSSINGS},
};
use crate::{
    config::{DataplaneConfig, PortId},
    pool::{Frame, Pool},
    port::{
        AttachedPort, BATCH, Port,
        memory::{InjectError, MemoryPort},
    },
    sys::{
        advise_huge_pages,
        event::{PollSet, Readiness},
    },
};

/// Longest sleep: nothing depends on it, it only bounds the harm of a lost wake-up.
const MAX_SLEEP: Duration = Duration::from_millis(500);
/// Longest sleep while a port waits for another flush.
const FLUSH_SLEEP: Duration = Duration::from_millis(2);

/// A worker, in its thread.
pub(crate) struct Worker {
    seat: Arc<Seat>,
    fabric: Arc<Fabric>,
    jobs: Receiver<Job>,
    /// By bridge.
    switches: Vec<Option<Switch>>,
    config: DataplaneConfig,
    egress: Egress,
    plan: Cache<Arc<ArcSwap<Plan>>, Arc<Plan>>,
    /// What is taken from one bridge to another, between two calls empty.
    crossings: Vec<Crossing>,
    /// Version last seen.
    epoch: Option<Epoch>,
    batch: Vec<Packet<Frame>>,
    poll_set: PollSet,
    /// Port of each file in the poll set after the first.
    poll_ports: Vec<PortId>,
    idle_since: Option<Timestamp>,
}

/// Adds to a counter that only the calling thread writes.
fn count(counter: &AtomicU64) {
    counter.store(counter.load(Relaxed).wrapping_add(1), Relaxed);
}

/// A worker's switch, its tables on large pages where there are any.
fn new_switch(config: &DataplaneConfig) -> Switch {
    let switch = match config.seed {
        Some(seed) => Switch::with_seed(config.switch, seed),
        None => Switch::new(config.switch),
    };
    switch.memory().into_iter().for_each(advise_huge_pages);
    switch
}

impl Worker {
    /// A worker for a seat; run it in a thread of its own.
    pub(crate) fn new(
        config: &DataplaneConfig,
        fabric: Arc<Fabric>,
        seat: Arc<Seat>,
        jobs: Receiver<Job>,
    ) -> Self {
        let pool = Pool::new(config.n_frames);
        let mut worker = Self {
            plan: Cache::new(Arc::clone(fabric.plan())),
            egress: Egress::new(pool, Arc::clone(&fabric), Arc::clone(&seat)),
            fabric,
            seat,
            jobs,
            switches: Vec::new(),
            config: config.clone(),
            crossings: Vec::new(),
            epoch: None,
            batch: Vec::with_capacity(BATCH),
            poll_set: PollSet::default(),
            poll_ports: Vec::new(),
            idle_since: None,
        };
        worker.add_bridge(BridgeId::FIRST);
        worker
    }

    /// Polls until the dataplane stops.
    pub(crate) fn run(mut self) {
        while !self.fabric.is_stopping() {
            while let Ok(job) = self.jobs.try_recv() {
                job(&mut self);
            }
            let found = self.poll_once();
            self.rest(found);
        }
    }

    /// One round over all ports. True if there was a packet.
    fn poll_once(&mut self) -> bool {
        count(&self.seat.n_polls);
        self.observe_epoch();
        let mut found = self.egress.take_handovers();
        for idx in 0..self.egress.n_ports() {
            let Some(port) = self.egress.receive(idx, &mut self.batch) else { continue };
            found = true;
            self.switch_batch(port);
            self.cross();
        }
        self.egress.flush();
        if found {
            self.tell_news();
        }
        found
    }

    /// Has the packets of the batch, all from this port, switched by its bridge.
    fn switch_batch(&mut self, port: PortId) {
        let (bridge, egress, batch) = (port.bridge, &mut self.egress, &mut self.batch);
        let switch = self.switches.get_mut(usize::from(bridge.get())).and_then(Option::as_mut);
        match (switch, self.plan.load().of(bridge)) {
            (Some(switch), Some(snapshot)) => {
                switch.process(self.fabric.now(), snapshot, port.port, batch, egress.of(bridge));
            }
            // Ports go before their bridge, so nothing comes in for one that is gone.
            _ => egress.discard(bridge, batch),
        }
    }

    /// Takes what has left by links into the bridges on their other side, and what leaves
    /// those by links further on, in the order in which it has left.
    fn cross(&mut self) {
        if !self.egress.has_crossings() {
            return;
        }
        let mut list = std::mem::take(&mut self.crossings);
        for _ in 0..MAX_CROSSINGS {
            self.egress.swap_crossings(&mut list);
            let mut rest = list.drain(..).peekable();
            while let Some(Crossing { from, to, packet }) = rest.next() {
                self.batch.push(packet);
                while self.batch.len() < BATCH
                    && let Some(next) = rest.next_if(|next| (next.from, next.to) == (from, to))
                {
                    self.batch.push(next.packet);
                }
                self.egress.arrive((from, to), &self.batch);
                self.switch_batch(to);
            }
            drop(rest);
            if !self.egress.has_crossings() {
                self.crossings = list;
                return;
            }
        }
        self.egress.swap_crossings(&mut list);
        for crossing in list.drain(..) {
            self.egress.lose_crossing(DropReason::DepthExceeded, crossing);
        }
        self.crossings = list;
    }

    /// Tells whoever waits that this worker has the newest version.
    fn observe_epoch(&mut self) {
        let epoch = self.plan.load().epoch;
        if self.epoch != Some(epoch) {
            self.epoch = Some(epoch);
            self.fabric.set_applied(&self.seat, epoch);
        }
    }

    /// What to do between two rounds.
    fn rest(&mut self, found: bool) {
        if found {
            self.idle_since = None;
            return;
        }
        count(&self.seat.n_idle_polls);
        if self.config.busy {
            std::hint::spin_loop();
            return;
        }
        let now = self.fabric.uptime();
        let since = *self.idle_since.get_or_insert(now);
        if now.since(since) < self.config.idle_spin {
            std::hint::spin_loop();
            return;
        }
        self.sleep();
    }

    /// Sleeps until a socket is readable or somebody wakes us.
    fn sleep(&mut self) {
        self.poll_set.clear();
        self.poll_set.add(self.seat.waker.fd());
        self.poll_ports.clear();
        self.egress.wait_for(&mut self.poll_set, &mut self.poll_ports);
        self.seat.waker.prepare();
        // Work that came before we said that we sleep wakes nobody.
        if !self.has_work() {
            count(&self.seat.n_sleeps);
            self.poll_set.wait(if self.egress.has_unsent() { FLUSH_SLEEP } else { MAX_SLEEP });
        }
        self.seat.waker.finish();
        for (readiness, port) in self.poll_set.results().skip(1).zip(&self.poll_ports) {
            // A deleted interface's socket is "ready" for ever: it must not be waited
            // for again.
            if readiness == Readiness::Broken {
                self.egress.set_gone(*port);
            }
        }
        self.idle_since = None;
    }

    fn has_work(&mut self) -> bool {
        !self.jobs.is_empty()
            || self.fabric.is_stopping()
            || Some(self.plan.load().epoch) != self.epoch
            || self.egress.has_pending()
    }

    // What jobs do.

    /// Makes the switch of a bridge, unless there is one.
    pub(crate) fn add_bridge(&mut self, bridge: BridgeId) {
        let idx = usize::from(bridge.get());
        for _ in self.switches.len()..=idx {
            self.switches.push(None);
        }
        if self.switches[idx].is_none() {
            let conntrack = Arc::clone(self.fabric.conntrack());
            self.switches[idx] = Some(new_switch(&self.config).with_conntrack(conntrack));
        }
    }

    /// Forgets the switch of a bridge that has no ports any more.
    pub(crate) fn remove_bridge(&mut self, bridge: BridgeId) {
        if let Some(switch) = self.switches.get_mut(usize::from(bridge.get())) {
            *switch = None;
        }
    }

    /// Takes a port over.
    pub(crate) fn attach(&mut self, mut port: AttachedPort) {
        port.base = self.counted(port.port);
        self.egress.attach(port);
    }

    /// Takes one end of a link over.
    pub(crate) fn add_patch(&mut self, mut end: PatchEnd) {
        end.base = self.counted(end.port);
        self.egress.add_patch(end);
    }

    /// Says what the other end of a link is.
    pub(crate) fn link(&mut self, port: PortId, peer: Option<PortId>) {
        self.egress.link(port, peer);
    }

    /// Gives one end of a link up, with what was counted of it.
    pub(crate) fn remove_patch(&mut self, port: PortId) -> Option<SwitchedPort> {
        let end = self.egress.remove_patch(port)?;
        Some(self.counts_since(end.port, &end.base, 0))
    }

    /// Gives a port up; its last frames are flushed. With it goes what was counted of it.
    pub(crate) fn detach(&mut self, port: PortId) -> Option<(AttachedPort, SwitchedPort)> {
        self.egress.flush();
        let attached = self.egress.detach(port)?;
        let counts = self.counts_of(&attached);
        Some((attached, counts))
    }

    /// Takes away the drops of packets from a port, of which nothing comes any more.
    pub(crate) fn take_drops(&mut self, port: PortId) -> Vec<DropCount> {
        let mut drops = self.switch(port.bridge).map_or_else(Vec::new, |switch| switch.take_drops(port.port));
        drops.extend(self.egress.take_drops(port));
        drops
    }

    /// A port is on another worker, or on none.
    pub(crate) fn route(&mut self, port: PortId, worker: Option<usize>) {
        self.egress.route(port, worker);
    }

    /// Switches frames as if a memory port of ours had received them just now: when this
    /// returns, the worker is done with them.
    pub(crate) fn inject(&mut self, memory: &MemoryPort, frames: &[Vec<u8>]) -> Result<(), InjectError> {
        for burst in frames.chunks(BATCH) {
            // Frames that others have put on the wire go first.
            while memory.n_injected() > 0 && self.poll_once() {}
            burst.iter().try_for_each(|frame| memory.inject(frame))?;
            self.poll_once();
        }
        Ok(())
    }

    /// Lets what waits for its time take place.
    pub(crate) fn tick(&mut self) {
        for bridge in self.bridges() {
            self.switch_batch(PortId::new(bridge, PortNo::ZERO));
        }
        self.cross();
        self.egress.flush();
    }

    /// Bridges that there are.
    pub(crate) fn bridges(&self) -> Vec<BridgeId> {
        let ids = (0..).map_while(|raw| BridgeId::new(raw).ok()).zip(&self.switches);
        ids.filter(|(_, switch)| switch.is_some()).map(|(id, _)| id).collect()
    }

    /// The switch of a bridge, to look at.
    pub(crate) fn switch(&mut self, bridge: BridgeId) -> Option<&mut Switch> {
        self.switches.get_mut(usize::from(bridge.get()))?.as_mut()
    }

    /// The switches of all bridges.
    pub(crate) fn switches(&mut self) -> impl Iterator<Item = &mut Switch> {
        self.switches.iter_mut().flatten()
    }

    /// What all switches did.
    pub(crate) fn counters(&self) -> SwitchCounters {
        let mut sum = SwitchCounters::default();
        self.switches.iter().flatten().for_each(|switch| sum += switch.counters());
        sum
    }

    /// The packet buffers.
    pub(crate) fn pool(&self) -> &Pool {
        self.egress.pool()
    }

    /// Drops of packets (by the switch of a bridge) and of copies (by its ports).
    pub(crate) fn drops(&mut self, bridge: BridgeId) -> Vec<DropCount> {
        let mut drops = self.switch(bridge).map_or_else(Vec::new, |switch| switch.drops());
        drops.extend(self.egress.drops(bridge));
        drops
    }

    /// For each port: what was received, forwarded and dropped since it was attached,
    /// and what the kernel dropped in front of it.
    pub(crate) fn port_counts(&self) -> Vec<SwitchedPort> {
        let patches = self.egress.patches().map(|end| self.counts_since(end.port, &end.base, 0));
        self.egress.ports().map(|attached| self.counts_of(attached)).chain(patches).collect()
    }

    fn counts_of(&self, attached: &AttachedPort) -> SwitchedPort {
        self.counts_since(attached.port, &attached.base, attached.device.kernel_dropped())
    }

    fn counts_since(&self, port: PortId, base: &PortCounters, n_kernel_dropped: u64) -> SwitchedPort {
        let now = self.counted(port);
        SwitchedPort {
            port,
            n_forwarded: now.rx_forwarded.saturating_sub(base.rx_forwarded),
            n_dropped: now.rx_dropped.saturating_sub(base.rx_dropped),
            n_kernel_dropped,
        }
    }

    /// What the switch has counted under a port's number.
    fn counted(&self, port: PortId) -> PortCounters {
        let switch = self.switches.get(usize::from(port.bridge.get())).and_then(Option::as_ref);
        switch.map_or_else(PortCounters::default, |switch| switch.port_counters(port.port))
    }
}

/// What a worker knows of a port's received packets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SwitchedPort {
    pub(crate) port: PortId,
    pub(crate) n_forwarded: u64,
    pub(crate) n_dropped: u64,
    pub(crate) n_kernel_dropped: u64,
}

impl SwitchedPort {
    /// What two workers know of one end of a link.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            port: self.port,
            n_forwarded: self.n_forwarded + other.n_forwarded,
            n_dropped: self.n_dropped + other.n_dropped,
            n_kernel_dropped: self.n_kernel_dropped + other.n_kernel_dropped,
        }
    }
}
