//! The worker: a thread that polls its receive queues and switches what they hold.
//!
//! [`Worker::poll_once`] is the packet's walk: a burst from a queue, the switch of its bridge,
//! the ports it goes out by, one flush for all. What leaves by a link to another bridge goes
//! on in that one's switch before the next burst ([`patch`]). The clock is read once per batch,
//! the snapshots are looked for once per round. Everything else, attaching a port or reading a counter, is a
//! *job*: a closure that runs between two rounds, so a worker's state has one owner and no
//! lock. After each job packets have their turn.
//!
//! With nothing to do for a while (`patience.rs`: for no while where others want the core), the worker sleeps on its sockets and on an event
//! file; whoever gives it work wakes it (`sys::event::Waker`).
//!
//! While another process takes the packets, workers wait for their turn (`pause.rs`, `crate::turn`).
//!
//! Which worker has which queue is decided outside ([`crate::balance`]); `transit.rs` is how a
//! queue gets from one to the other.

mod answer;
mod controlled;
mod egress;
mod fabric;
mod ingress;
mod meter;
mod patch;
mod patience;
mod pause;
mod shaping;
mod tap;
mod transit;
mod version;

use std::{collections::HashMap, ops::Range, sync::Arc, time::Duration};

use crossbeam::channel::Receiver;
use flowtable::{
    drop::DropReason,
    packet::Packet,
    quota::{Quota, QuotaCounters},
    stats::{DropCount, PortCounters, SwitchCounters},
    switch::{Stage, Switch},
    types::{BridgeId, PortNo, Timestamp},
};

pub use self::controlled::SendError;
pub(crate) use self::{
    controlled::sum,
    fabric::{Fabric, Job, Seat},
    meter::Measured,
    patch::PatchEnd,
    pause::Pause,
    shaping::SharedRates,
    tap::Tap,
};
use self::{
    egress::Egress,
    fabric::Plan,
    ingress::Ingress,
    patch::{Crossing, MAX_CROSSINGS},
    patience::Patience,
    version::Coming,
};
use crate::{
    config::{DataplaneConfig, PortId},
    handle::add,
    pool::{Frame, Pool},
    port::{
        AttachedOutlet, AttachedQueue, BATCH, RxQueue,
        memory::{InjectError, MemoryPort},
    },
    sys::{
        advise_huge_pages,
        event::{PollSet, Readiness},
        shared_memory::Unbacked,
        thread, tsc,
    },
    top::{Watch, Watcher},
};

/// Longest sleep: nothing depends on it, it only bounds the harm of a lost wake-up.
const MAX_SLEEP: Duration = Duration::from_millis(500);
/// What waits for its time is looked after so often where no packet comes to do it.
const TICK: Duration = Duration::from_secs(1);
/// Longest sleep while a port waits for another flush.
const FLUSH_SLEEP: Duration = Duration::from_millis(2);

/// How long a worker in a hurry runs at a time where others want its core.
const SHORT_SLICE: Duration = Duration::from_micros(100);
/// How long it is after it has begun: then whatever else there is to do at a start is done.
const HURRY: Duration = Duration::from_millis(500);
/// Bytes of each table that are there soon. Tables are filled from their beginnings.
const FIRST_OF_TABLE: usize = 2 << 20;
/// Bytes of each that the first packets touch.
const FIRST_TOUCHED: usize = 64 << 10;

/// A worker, in its thread.
pub(crate) struct Worker {
    seat: Arc<Seat>,
    fabric: Arc<Fabric>,
    jobs: Receiver<Job>,
    /// By bridge.
    switches: Vec<Option<Switch>>,
    config: DataplaneConfig,
    ingress: Ingress,
    egress: Egress,
    plan: Arc<Plan>,
    /// The next versions, while the caches are made ready for them.
    coming: Option<Coming>,
    /// How many snapshots had been published when the newest was taken.
    n_published: u64,
    /// What is taken from one bridge to another, between two calls empty.
    crossings: Vec<Crossing>,
    /// What the switch had counted under a port's number before the port had it.
    bases: HashMap<PortId, PortCounters>,
    batch: Vec<Packet<Frame>>,
    poll_set: PollSet,
    /// Port of each file in the poll set after the first.
    poll_ports: Vec<PortId>,
    idle_since: Option<Timestamp>,
    /// When what waits for its time was last looked after without packets.
    ticked_at: Timestamp,
    patience: Patience,
    hurry: Hurry,
}

/// Whether a worker is to run as soon as it is woken, whoever has its core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hurry {
    No,
    /// Until packets are taken, and some time longer.
    Begins,
    Until(Timestamp),
}

/// A worker's switch, its tables on large pages where there are any.
fn new_switch(config: &DataplaneConfig) -> Switch {
    let switch = match config.seed {
        Some(seed) => Switch::with_seed(config.switch, seed),
        None => Switch::new(config.switch),
    };
    switch.memory().into_iter().for_each(advise_huge_pages);
    let mut switch = switch;
    switch.set_quota(config.quota);
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
        let patience = Patience::new(fabric.uptime());
        let mut worker = Self {
            plan: Arc::default(),
            coming: None,
            n_published: 0,
            ingress: Ingress::default(),
            egress: Egress::new(pool, Arc::clone(&fabric), Arc::clone(&seat)),
            fabric,
            seat,
            jobs,
            switches: Vec::new(),
            config: config.clone(),
            crossings: Vec::new(),
            bases: HashMap::new(),
            batch: Vec::with_capacity(BATCH),
            poll_set: PollSet::default(),
            poll_ports: Vec::new(),
            idle_since: None,
            ticked_at: Timestamp::default(),
            patience,
            hurry: Hurry::No,
        };
        worker.add_bridge(BridgeId::FIRST);
        worker
    }

    /// Polls until the dataplane stops.
    pub(crate) fn run(mut self) {
        if self.fabric.is_held() {
            thread::set_slice(Some(SHORT_SLICE));
            self.hurry = Hurry::Begins;
        }
        while !self.fabric.is_stopping() {
            if let Ok(job) = self.jobs.try_recv() {
                let began = tsc::now();
                job(&mut self);
                self.egress.meter().job_took(began);
            }
            let found = self.poll_once();
            if self.hurry != Hurry::No {
                self.watch_hurry();
            }
            self.rest(found);
        }
    }

    /// Is like others again some time after packets have begun to be taken.
    #[cold]
    fn watch_hurry(&mut self) {
        let now = self.fabric.uptime();
        match self.hurry {
            Hurry::Begins if !self.fabric.is_held() => self.hurry = Hurry::Until(now.after(HURRY)),
            Hurry::Until(end) if now >= end => {
                thread::set_slice(None);
                self.hurry = Hurry::No;
            }
            Hurry::No | Hurry::Begins | Hurry::Until(_) => {}
        }
    }

    /// What a worker without a thread does when somebody asks it for something.
    fn turn(&mut self) {
        if let Ok(job) = self.jobs.try_recv() {
            job(self);
        }
        self.poll_once();
    }

    /// One round over all queues. True if there was a packet.
    fn poll_once(&mut self) -> bool {
        self.observe_version();
        let began = self.egress.meter().begin_round();
        self.egress.meter().enter(Stage::Transmit);
        let mut found = self.egress.take_handovers();
        self.ingress.begin_round();
        let mut most = 0;
        let n_queues = if self.fabric.is_held() { 0 } else { self.ingress.len() };
        for idx in 0..n_queues {
            most = most.max(self.poll_queue(idx));
        }
        found |= most > 0;
        self.egress.meter().enter(Stage::Transmit);
        self.egress.flush();
        self.egress.meter().end_round(began, found);
        if self.coming.is_some() {
            self.make_ready(most);
        }
        if found {
            self.tell_news();
        }
        found
    }

    /// A queue's turn; answers how many packets there were.
    #[inline]
    fn poll_queue(&mut self, idx: usize) -> usize {
        self.egress.meter().enter(Stage::Receive);
        let start = self.egress.meter().clock();
        let Some(port) = self.ingress.receive(idx, self.egress.pool_mut(), &mut self.batch) else {
            return 0;
        };
        let n_packets = self.batch.len();
        self.egress.meter().batch(n_packets);
        if let Some(rate) = self.ingress.rate(idx) {
            self.egress.police(port, (rate, self.fabric.now()), &mut self.batch);
        }
        let work = self.switch_batch(port) + self.cross();
        self.ingress.spent(idx, n_packets, work);
        if self.egress.meter().is_on() {
            let cycles = self.egress.meter().clock().saturating_sub(start);
            self.ingress.took(idx, n_packets, cycles);
        }
        n_packets
    }

    /// Has the packets of the batch, all from this port, switched by its bridge; answers how
    /// much work that was.
    #[inline]
    fn switch_batch(&mut self, port: PortId) -> u64 {
        let (bridge, egress, batch) = (port.bridge, &mut self.egress, &mut self.batch);
        if egress.is_tapped() {
            egress.show_received(port, batch);
        }
        let switch = self.switches.get_mut(usize::from(bridge.get())).and_then(Option::as_mut);
        let (Some(switch), Some(snapshot)) = (switch, self.plan.of(bridge)) else {
            // Ports go before their bridge, so nothing comes in for one that is gone.
            egress.discard(bridge, batch);
            return 0;
        };
        let work = switch.work();
        switch.process(self.fabric.now(), snapshot, port.port, batch, egress.of(bridge));
        switch.work() - work
    }

    /// Takes what has left by links into the bridges on their other side, and what leaves
    /// those by links further on, in the order in which it has left; answers how much work
    /// that was.
    #[inline]
    fn cross(&mut self) -> u64 {
        if self.egress.has_crossings() { self.cross_links() } else { 0 }
    }

    fn cross_links(&mut self) -> u64 {
        let mut work = 0;
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
                work += self.switch_batch(to);
            }
            drop(rest);
            if !self.egress.has_crossings() {
                self.crossings = list;
                return work;
            }
        }
        self.egress.swap_crossings(&mut list);
        for crossing in list.drain(..) {
            self.egress.lose_crossing(DropReason::DepthExceeded, crossing);
        }
        self.crossings = list;
        work
    }

    /// What to do between two rounds.
    fn rest(&mut self, found: bool) {
        if found {
            self.idle_since = None;
            return;
        }
        if self.fabric.awaits_turn() {
            return self.fabric.wait_for_turn();
        }
        let now = self.fabric.uptime();
        if now.since(self.ticked_at) >= TICK && !self.fabric.is_held() {
            self.ticked_at = now;
            self.tick();
        }
        if self.config.busy {
            std::hint::spin_loop();
            return;
        }
        let since = *self.idle_since.get_or_insert(now);
        if now.since(since) < self.config.idle_spin && !self.patience.is_core_shared(now) {
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
        let is_held = self.fabric.is_held();
        if !is_held {
            for (port, fd) in self.ingress.wait_fds() {
                self.poll_set.add(fd);
                self.poll_ports.push(port);
            }
            // Behind those with a port: whichever it is, the next round finds out.
            if let Some(fd) = self.ingress.ready_fd() {
                self.poll_set.add(fd);
            }
        }
        self.seat.waker.prepare();
        // Work that came before we said that we sleep wakes nobody, nor do packets that may be taken since.
        if !self.has_work() && self.fabric.is_held() == is_held {
            let began = tsc::now();
            let longest = if self.egress.has_unsent() { FLUSH_SLEEP } else { MAX_SLEEP };
            self.poll_set.wait(self.egress.shaped_wait().map_or(longest, |wait| wait.min(longest)));
            self.egress.meter().slept(began);
        }
        self.seat.waker.finish();
        for (readiness, port) in self.poll_set.results().skip(1).zip(&self.poll_ports) {
            // A deleted interface's socket is "ready" for ever: it must not be waited
            // for again.
            if readiness == Readiness::Broken {
                self.ingress.set_gone(*port);
            }
        }
        self.idle_since = None;
    }

    fn has_work(&mut self) -> bool {
        !self.jobs.is_empty()
            || self.fabric.is_stopping()
            || self.fabric.n_published() != self.n_published
            || self.coming.is_some()
            || self.egress.has_pending()
            || self.fabric.awaits_turn()
            || !self.fabric.is_held() && self.ingress.has_pending()
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

    /// A port is there, whoever has its queues.
    pub(crate) fn open_port(&mut self, port: PortId) {
        self.bases.insert(port, self.counted(port));
    }

    /// Takes one end of a link over.
    pub(crate) fn add_patch(&mut self, end: PatchEnd) {
        self.open_port(end.port);
        self.egress.add_patch(end);
    }

    /// Says what the other end of a link is.
    pub(crate) fn link(&mut self, port: PortId, peer: Option<PortId>) {
        self.egress.link(port, peer);
    }

    /// Takes a way out.
    pub(crate) fn take_outlet(&mut self, outlet: AttachedOutlet) {
        self.egress.attach(outlet);
    }

    /// Takes a queue.
    pub(crate) fn take_queue(&mut self, mut queue: AttachedQueue) {
        queue.device.set_waker(&self.seat.waker);
        self.ingress.add(queue);
    }

    /// Shows packets to somebody from now on.
    pub(crate) fn add_tap(&mut self, tap: Arc<Tap>) {
        self.egress.taps_mut().add(tap);
    }

    /// Shows him nothing any more.
    pub(crate) fn remove_tap(&mut self, tap: &Arc<Tap>) {
        self.egress.taps_mut().remove(tap);
    }

    /// Has somebody watch who has most of the traffic.
    pub(crate) fn add_watch(&mut self, watch: Arc<Watch>) {
        let seed = self.config.seed.unwrap_or_else(tsc::now);
        self.egress.taps_mut().add_watcher(Watcher::new(watch, self.seat.id, seed));
    }

    /// He watches no more.
    pub(crate) fn remove_watch(&mut self, watch: &Arc<Watch>) {
        self.egress.taps_mut().remove_watch(watch);
    }

    /// Gives up the queues of a port.
    pub(crate) fn drop_queues(&mut self, port: PortId) -> Vec<AttachedQueue> {
        let queues = self.ingress.take_all(port);
        queues.iter().for_each(AttachedQueue::refresh);
        queues
    }

    /// Gives up the way out by a port, whose last frames are flushed; with it goes what was
    /// counted of the port.
    pub(crate) fn close_port(&mut self, port: PortId) -> (Option<AttachedOutlet>, SwitchedPort) {
        self.egress.take_handovers();
        self.egress.abandon(port);
        self.egress.flush();
        let outlet = self.egress.detach(port);
        self.egress.remove_patch(port);
        let counts = self.counts_of(port);
        self.bases.remove(&port);
        (outlet, counts)
    }

    /// Takes away the drops of packets from a port, of which nothing comes any more.
    pub(crate) fn take_drops(&mut self, port: PortId) -> Vec<DropCount> {
        let mut drops = self.switch(port.bridge).map_or_else(Vec::new, |switch| switch.take_drops(port.port));
        drops.extend(self.egress.take_drops(port));
        drops
    }

    /// A port's way out is on another worker, or on none.
    pub(crate) fn route(&mut self, port: PortId, worker: Option<usize>) {
        self.egress.route(port, worker);
    }

    /// Switches frames as if a memory port of ours had received them just now: when this
    /// returns, the worker is done with them.
    pub(crate) fn inject(&mut self, memory: &MemoryPort, frames: &[Vec<u8>]) -> Result<(), InjectError> {
        for burst in frames.chunks(BATCH) {
            // Frames that others have put on the wire go first.
            self.drain(memory);
            burst.iter().try_for_each(|frame| memory.inject(frame))?;
            self.drain(memory);
        }
        Ok(())
    }

    /// Polls until a memory port has nothing more, or there is no buffer for it.
    fn drain(&mut self, memory: &MemoryPort) {
        let mut n_vain = 0;
        // A queue may be passed over in a round or two when others have packets.
        while memory.n_injected() > 0 && n_vain < MAX_VAIN_ROUNDS {
            n_vain = if self.poll_once() { 0 } else { n_vain + 1 };
        }
    }

    /// Sends what has been taken and not sent yet; what waits in the queues of a port stays there.
    pub(crate) fn send_off(&mut self) {
        self.egress.take_handovers();
        self.egress.flush();
    }

    /// Leaves AF_XDP sockets and their frames to another process; what waits in queues of ports may be in such a
    /// frame, and is lost.
    pub(crate) fn leave_frames(&mut self) {
        self.ingress.leave();
        self.egress.leave();
    }

    /// Has what packets touch at first there before they come: a large page takes a good part of a millisecond to be
    /// made. For a worker that may take its time.
    pub(crate) fn warm_up(&mut self) {
        self.unbacked().populate();
    }

    /// The same of what the very first packets touch, for a worker that they wait for.
    pub(crate) fn warm_up_little(&mut self) {
        self.beginnings(FIRST_TOUCHED).populate();
    }

    /// What packets touch at first.
    pub(crate) fn unbacked(&mut self) -> Unbacked {
        self.beginnings(FIRST_OF_TABLE)
    }

    /// So many bytes of each table, and of the frames.
    fn beginnings(&self, len: usize) -> Unbacked {
        let first = |memory: Range<*const u8>| {
            let len = memory.end.addr().saturating_sub(memory.start.addr()).min(len);
            memory.start..memory.start.wrapping_add(len)
        };
        let tables = self.switches.iter().flatten().flat_map(Switch::memory);
        Unbacked::new(tables.chain(self.egress.pool().first_used()).map(first))
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

    /// Limits what each port may take, in bridges that there are and will be.
    pub(crate) fn set_quota(&mut self, quota: Quota) {
        self.config.quota = quota;
        self.switches().for_each(|switch| switch.set_quota(quota));
    }

    /// What each port may take, and what was refused to ports of all bridges.
    pub(crate) fn quota(&mut self) -> (Quota, QuotaCounters) {
        let refused = self.switches().map(|switch| switch.quota_counters());
        let refused = refused.fold(QuotaCounters::default(), add);
        (self.config.quota, refused)
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

    /// What was measured, brought up to date.
    pub(crate) fn measured(&mut self) -> (Measured, u32) {
        let meter = self.egress.meter();
        meter.catch_up();
        (meter.total, meter.every())
    }

    /// Time that this thread had of a core.
    pub(crate) fn cpu_time(&self) -> Duration {
        thread::cpu_time()
    }

    /// Measures one busy round in so many; forgets, if asked to, what was measured.
    pub(crate) fn set_measuring(&mut self, every: Option<u32>, forget: bool) {
        let meter = self.egress.meter();
        if let Some(every) = every {
            meter.set_every(every);
        }
        if forget {
            meter.forget();
        }
    }

    /// The queues of this worker.
    pub(crate) fn queues(&self) -> Vec<HeldQueue> {
        let held = |queue: &AttachedQueue| HeldQueue {
            port: queue.port,
            queue: queue.queue,
            n_packets: queue.n_packets(),
            cycles_per_packet: queue.load.cycles_per_packet(),
        };
        self.ingress.iter().map(held).collect()
    }

    /// What the packets received from each port have become here since it was attached.
    pub(crate) fn port_counts(&self) -> Vec<SwitchedPort> {
        self.ingress.iter().for_each(AttachedQueue::refresh);
        self.bases.keys().map(|port| self.counts_of(*port)).collect()
    }

    fn counts_of(&self, port: PortId) -> SwitchedPort {
        let now = self.counted(port);
        let base = self.bases.get(&port).copied().unwrap_or_default();
        SwitchedPort {
            port,
            n_forwarded: now.rx_forwarded.saturating_sub(base.rx_forwarded),
            n_dropped: now.rx_dropped.saturating_sub(base.rx_dropped) + self.egress.n_refused(port),
        }
    }

    /// What the switch has counted under a port's number.
    fn counted(&self, port: PortId) -> PortCounters {
        let switch = self.switches.get(usize::from(port.bridge.get())).and_then(Option::as_ref);
        switch.map_or_else(PortCounters::default, |switch| switch.port_counters(port.port))
    }
}

/// Rounds without a packet after which the rest of what was injected is left for later.
const MAX_VAIN_ROUNDS: u32 = 256;

/// What a worker knows of a port's received packets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SwitchedPort {
    pub(crate) port: PortId,
    pub(crate) n_forwarded: u64,
    pub(crate) n_dropped: u64,
}

impl std::ops::AddAssign for SwitchedPort {
    fn add_assign(&mut self, other: Self) {
        self.n_forwarded += other.n_forwarded;
        self.n_dropped += other.n_dropped;
    }
}

/// A queue, as its worker knows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeldQueue {
    pub(crate) port: PortId,
    pub(crate) queue: usize,
    pub(crate) n_packets: u64,
    /// As sampled; `None`: not yet.
    pub(crate) cycles_per_packet: Option<f64>,
}
