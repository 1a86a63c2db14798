//! The worker: a thread that polls its ports and switches what they receive.
//!
//! [`Worker::poll_once`] is the packet's walk: a burst from a port, the switch, the
//! ports it goes out by, one flush for all. Snapshot and clock are read once per batch.
//! Everything else, attaching a port or reading a counter, is a *job*: a closure that
//! runs between two batches, so a worker's state has one owner and no lock.
//!
//! With nothing to do for a while, the worker sleeps on its sockets and on an event
//! file; whoever gives it work wakes it (`sys::event::Waker`).

mod controlled;
mod egress;
mod fabric;

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
    packet::Packet,
    snapshot::Snapshot,
    stats::DropCount,
    switch::Switch,
    types::{Epoch, PortNo, Timestamp},
};

pub use self::controlled::SendError;
use self::egress::Egress;
pub(crate) use self::fabric::{Fabric, Job, Seat};
use crate::{
    config::DataplaneConfig,
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
    switch: Switch,
    egress: Egress,
    snapshot: Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>,
    /// Version last seen.
    epoch: Option<Epoch>,
    batch: Vec<Packet<Frame>>,
    poll_set: PollSet,
    /// Port of each file in the poll set after the first.
    poll_ports: Vec<PortNo>,
    busy: bool,
    idle_spin: Duration,
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
        let conntrack = Arc::clone(fabric.conntrack());
        Self {
            snapshot: Cache::new(Arc::clone(fabric.snapshot())),
            egress: Egress::new(pool, Arc::clone(&fabric), Arc::clone(&seat)),
            fabric,
            seat,
            jobs,
            switch: new_switch(config).with_conntrack(conntrack),
            epoch: None,
            batch: Vec::with_capacity(BATCH),
            poll_set: PollSet::default(),
            poll_ports: Vec::new(),
            busy: config.busy,
            idle_spin: config.idle_spin,
            idle_since: None,
        }
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
            let now = self.fabric.now();
            let snapshot = self.snapshot.load();
            self.switch.process(now, snapshot, port, &mut self.batch, &mut self.egress);
        }
        self.egress.flush();
        if found {
            self.tell_news();
        }
        found
    }

    /// Tells whoever waits that this worker has the newest version.
    fn observe_epoch(&mut self) {
        let epoch = self.snapshot.load().epoch;
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
        if self.busy {
            std::hint::spin_loop();
            return;
        }
        let now = self.fabric.uptime();
        let since = *self.idle_since.get_or_insert(now);
        if now.since(since) < self.idle_spin {
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
            || Some(self.snapshot.load().epoch) != self.epoch
            || self.egress.has_pending()
    }

    // What jobs do.

    /// Takes a port over.
    pub(crate) fn attach(&mut self, mut port: AttachedPort) {
        port.base = self.switch.port_counters(port.port);
        self.egress.attach(port);
    }

    /// Gives a port up; its last frames are flushed. With it goes what was counted of it.
    pub(crate) fn detach(&mut self, port: PortNo) -> Option<(AttachedPort, SwitchedPort)> {
        self.egress.flush();
        let attached = self.egress.detach(port)?;
        let counts = self.counts_of(&attached);
        Some((attached, counts))
    }

    /// Takes away the drops of packets from a port, of which nothing comes any more.
    pub(crate) fn take_drops(&mut self, port: PortNo) -> Vec<DropCount> {
        let mut drops = self.switch.take_drops(port);
        drops.extend(self.egress.take_drops(port));
        drops
    }

    /// A port is on another worker, or on none.
    pub(crate) fn route(&mut self, port: PortNo, worker: Option<usize>) {
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
        let (now, snapshot) = (self.fabric.now(), self.snapshot.load());
        self.switch.process(now, snapshot, PortNo::ZERO, &mut self.batch, &mut self.egress);
        self.egress.flush();
    }

    /// The switch, to look at.
    pub(crate) fn switch(&mut self) -> &mut Switch {
        &mut self.switch
    }

    /// The packet buffers.
    pub(crate) fn pool(&self) -> &Pool {
        self.egress.pool()
    }

    /// Drops of packets (by the switch) and of copies (by ports).
    pub(crate) fn drops(&self) -> Vec<DropCount> {
        let mut drops = self.switch.drops();
        drops.extend(self.egress.drops());
        drops
    }

    /// For each port: what was received, forwarded and dropped since it was attached,
    /// and what the kernel dropped in front of it.
    pub(crate) fn port_counts(&self) -> Vec<SwitchedPort> {
        self.egress.ports().map(|attached| self.counts_of(attached)).collect()
    }

    fn counts_of(&self, attached: &AttachedPort) -> SwitchedPort {
        let now = self.switch.port_counters(attached.port);
        SwitchedPort {
            port: attached.port,
            n_forwarded: now.rx_forwarded.saturating_sub(attached.base.rx_forwarded),
            n_dropped: now.rx_dropped.saturating_sub(attached.base.rx_dropped),
            n_kernel_dropped: attached.device.kernel_dropped(),
        }
    }
}

/// What a worker knows of a port's received packets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SwitchedPort {
    pub(crate) port: PortNo,
    pub(crate) n_forwarded: u64,
    pub(crate) n_dropped: u64,
    pub(crate) n_kernel_dropped: u64,
}
