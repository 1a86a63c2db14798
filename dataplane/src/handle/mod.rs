//! The dataplane as its owner sees it: ports come and go, versions of the rules are
//! published, counters are read. Any thread may call.

mod perf;
mod ports;
mod queues;

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crossbeam::channel::{Receiver, bounded};
use flowtable::{
    cache::MegaflowDump,
    conntrack::Conntrack,
    quota::{Quota, QuotaCounters},
    snapshot::Snapshot,
    stats::DropCount,
    types::{BridgeId, Epoch, Timestamp},
};

pub(crate) use self::ports::Registered;
pub use self::ports::Remains;
pub use self::queues::{AssignError, Reading};
use crate::{
    balance::Balancer,
    config::{AfXdpConfig, DataplaneConfig, Pin, PortId},
    keep::Beginning,
    numa::Nodes,
    pmd::{Fabric, Job, Pause, Seat, SwitchedPort, Worker},
    port::memory::{InjectError, MemoryPort},
    status::{PortStatus, WorkerStatus},
    sys::{self, link_events::LinkEvents, shared_memory::Unbacked},
};

/// The dataplane could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is nobody to do the work.
    #[error("no worker is configured; name at least one")]
    NoWorker,
    /// A worker's thread or event file could not be made.
    #[error("worker {worker} could not start: {source}")]
    Spawn {
        /// Which worker.
        worker: usize,
        /// What the kernel said.
        source: io::Error,
    },
    /// A successor cannot go on with the connections that there are.
    #[error(
        "the connections of the process that forwards cannot be taken over: {0}; it goes on. To go on without \
         them, stop it before this one starts (systemctl restart vswitchd)"
    )]
    Connections(String),
    /// A worker could not be tied to its core.
    #[error("worker {worker} cannot run on core {core}: {source}; see `nproc` and `taskset -p $$`")]
    Pin {
        /// Which worker.
        worker: usize,
        /// The core it was to run on.
        core: usize,
        /// What the kernel said.
        source: io::Error,
    },
}

/// A port could not be detached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DetachError {
    /// There is none.
    #[error("port {0} is not attached")]
    NotAttached(PortId),
}

/// A running dataplane. Dropping it stops the workers and detaches all ports.
pub struct Dataplane {
    pub(crate) fabric: Arc<Fabric>,
    threads: Vec<JoinHandle<()>>,
    /// Held while ports come and go, one at a time.
    pub(crate) admin: Mutex<()>,
    pub(crate) ports: Mutex<BTreeMap<PortId, Registered>>,
    links: LinkEvents,
    pins: Vec<Pin>,
    balancer: Mutex<Balancer>,
    /// What automatic balancing measures from.
    last_reading: Mutex<Option<Reading>>,
    af_xdp: AfXdpConfig,
    nodes: Nodes,
    beginning: Beginning,
    /// Another process still forwards: some ports are its alone.
    is_waiting: AtomicBool,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Dataplane {
    /// Starts the workers, without ports and with an empty snapshot.
    ///
    /// # Errors
    /// There is no worker, or one could not start; then none runs.
    pub fn start(config: DataplaneConfig) -> Result<Self, StartError> {
        Self::start_with(config, Beginning::default())
    }

    /// The same, after another process or before the next one.
    ///
    /// # Errors
    /// There is no worker, or one could not start; then none runs.
    pub fn start_with(config: DataplaneConfig, beginning: Beginning) -> Result<Self, StartError> {
        if config.workers.is_empty() {
            return Err(StartError::NoWorker);
        }
        sys::thread::raise_memlock_limit();
        let (fabric, receivers) = Fabric::new(&config, &beginning)?;
        let mut dataplane = Self {
            fabric: Arc::new(fabric),
            threads: Vec::new(),
            admin: Mutex::new(()),
            ports: Mutex::default(),
            links: LinkEvents::open(),
            pins: config.pins.clone(),
            balancer: Mutex::new(Balancer::new(config.balancing)),
            last_reading: Mutex::default(),
            af_xdp: config.af_xdp,
            nodes: Nodes::of_machine(),
            is_waiting: AtomicBool::new(beginning.is_successor),
            beginning,
        };
        for (worker, jobs) in receivers.into_iter().enumerate() {
            // On an error, dropping `dataplane` stops those that run already.
            let seat = Arc::clone(&dataplane.fabric.seats()[worker]);
            if config.inline {
                let of_seat = Arc::clone(&seat);
                of_seat.keep(Worker::new(&config, Arc::clone(&dataplane.fabric), seat, jobs));
                continue;
            }
            let thread = spawn(&config, Arc::clone(&dataplane.fabric), seat, jobs)?;
            dataplane.threads.push(thread);
        }
        if dataplane.beginning.keeper.is_some() {
            // While rules and ports are read; packets wait already, but where another process takes them.
            let is_successor = dataplane.beginning.is_successor;
            for seat in dataplane.fabric.seats() {
                let _ = seat.post(if is_successor { Worker::warm_up } else { Worker::warm_up_little });
            }
        }
        Ok(dataplane)
    }

    /// Takes packets from now on; connections are those that the process before has left. For a
    /// dataplane that holds back; otherwise it does nothing.
    pub fn begin(&self) {
        let is_first = self.fabric.is_held();
        let was_waiting = self.is_waiting.swap(false, Relaxed);
        self.fabric.begin();
        if is_first || was_waiting {
            self.fabric.tell_taken_over();
        }
        if is_first && !was_waiting {
            self.fabric.populate_soon();
        }
        // Of a process that goes on where another one was, the tables are soon in use again.
        if is_first && !was_waiting && self.beginning.keeper.is_some() {
            let unbacked = self.fabric.seats().iter().filter_map(|seat| seat.ask(Worker::unbacked));
            unbacked.for_each(Unbacked::populate_soon);
        }
    }

    /// Takes packets as soon as the process that takes them has paused, without being told; is still to
    /// be told, for all else. What the first packets touch is there when this returns. For a successor
    /// whose rules and ports are there.
    ///
    /// # Concurrency
    /// Until then, workers are slow to do what they are asked for.
    pub fn want_turn(&self) {
        for seat in self.fabric.seats() {
            let _ = seat.ask(Worker::warm_up);
        }
        self.fabric.want_turn();
    }

    /// For how long nobody had taken packets when this process began; `None`: the one before has not told.
    pub fn stood(&self) -> Option<Duration> {
        self.fabric.stood()
    }

    /// Takes no packet any more, sends all that it has taken, and leaves connections in good order
    /// for a successor, which takes packets from then on if it waits for its turn.
    pub fn pause(&self) {
        let (done, paused) = bounded(1);
        Pause::begin(&self.fabric, done);
        // It is dropped, which ends the waiting as well, when there are no workers any more.
        let _ = paused.recv();
    }

    /// Goes on after a pause, when nobody else has. AF_XDP ports that another process may have had meanwhile are
    /// told to be gone, and are to be attached anew.
    pub fn go_on(&self) {
        if self.fabric.memories().replace_given() {
            lock(&self.ports).values().filter(|port| port.is_af_xdp()).for_each(Registered::set_gone);
        }
        self.fabric.begin();
    }

    /// Another process still forwards.
    pub fn is_waiting(&self) -> bool {
        self.is_waiting.load(Relaxed)
    }

    /// Switches frames as if a memory port had received them, and returns when that is
    /// done: with one worker, what leaves by memory ports can be had from them then.
    /// Their queues should hold it; what they cannot take is dropped.
    ///
    /// # Errors
    /// The port is not attached, or a frame is too long; then none is switched.
    pub fn inject(
        &self,
        port: impl Into<PortId>,
        memory: &MemoryPort,
        frames: Vec<Vec<u8>>,
    ) -> Result<(), InjectError> {
        let port = port.into();
        frames.iter().try_for_each(|frame| memory.check(frame))?;
        // Its first queue; held, so that the queue does not wander off meanwhile.
        let _admin = lock(&self.admin);
        let worker = lock(&self.ports).get(&port).and_then(Registered::first_worker);
        let seat = worker.and_then(|worker| self.fabric.seats().get(worker));
        let memory = memory.clone();
        seat.and_then(|seat| seat.ask(move |worker| worker.inject(&memory, &frames)))
            .unwrap_or(Err(InjectError::NotAttached))
    }

    /// Lets what waits for its time take place now: a virtual clock that was advanced
    /// wakes nobody.
    pub fn tick(&self) {
        for seat in self.fabric.seats() {
            let _ = seat.ask(Worker::tick);
        }
    }

    /// The connection tracker of all workers.
    pub fn conntrack(&self) -> &Arc<Conntrack> {
        self.fabric.conntrack()
    }

    /// The time that packets, caches and connections go by.
    pub fn now(&self) -> Timestamp {
        self.fabric.now()
    }

    /// Makes a snapshot the one that packets of its bridge see; each worker takes it at its
    /// next batch.
    pub fn publish(&self, snapshot: Arc<Snapshot>) {
        self.fabric.publish(&snapshot);
    }

    /// What packets of a bridge see now.
    pub fn snapshot(&self, bridge: BridgeId) -> Option<Arc<Snapshot>> {
        self.fabric.snapshot(bridge)
    }

    /// Waits until every worker has taken this version or a later one; false when the
    /// time is up. Versions of several bridges are numbered together.
    pub fn wait_applied(&self, epoch: Epoch, timeout: Duration) -> bool {
        self.fabric.wait_applied(epoch, timeout)
    }

    /// All ports in the order of their bridges and numbers. The link state and MTU of an interface that
    /// has changed are read anew, and the MTU holds for packets from then on.
    pub fn ports(&self) -> Vec<PortStatus> {
        let mut switched: BTreeMap<PortId, SwitchedPort> = BTreeMap::new();
        let counts = |seat: &Arc<Seat>| seat.ask(|worker| worker.port_counts());
        for counts in self.fabric.seats().iter().filter_map(counts).flatten() {
            switched.entry(counts.port).and_modify(|sum| *sum += counts).or_insert(counts);
        }
        // After the workers: then no packet is received that has not become something.
        let mut registered = lock(&self.ports);
        let changed = self.links.take();
        let ports = registered.iter_mut();
        ports.map(|(port, registered)| registered.status(*port, &changed, switched.get(port))).collect()
    }

    /// The same, without asking the workers: what they have counted is not up to date.
    ///
    /// # Cost
    /// That of the interfaces that have changed; hundreds of others cost next to nothing.
    pub fn port_links(&self) -> Vec<PortStatus> {
        let mut registered = lock(&self.ports);
        let changed = self.links.take();
        registered.iter_mut().map(|(port, registered)| registered.status(*port, &changed, None)).collect()
    }

    /// All workers.
    pub fn workers(&self) -> Vec<WorkerStatus> {
        self.fabric.seats().iter().map(|seat| worker_status(seat)).collect()
    }

    /// The cached flows of all workers, each with its worker.
    pub fn megaflows(&self) -> Vec<(usize, MegaflowDump)> {
        self.fabric.bridges().into_iter().flat_map(|bridge| self.megaflows_of(bridge)).collect()
    }

    /// Those of a bridge.
    pub fn megaflows_of(&self, bridge: BridgeId) -> Vec<(usize, MegaflowDump)> {
        // Some at a time: packets have their turn in between.
        let mut all = Vec::new();
        for seat in self.fabric.seats() {
            let mut next = Some(0);
            while let Some(from) = next {
                let dumped =
                    seat.ask(move |worker| worker.switch(bridge).map(|switch| switch.megaflows_from(from)));
                let (some, then) = dumped.flatten().unwrap_or_default();
                all.extend(some.into_iter().map(|megaflow| (seat.id, megaflow)));
                next = then;
            }
        }
        all
    }

    /// All drops since the start. `n_packets` counts received packets of which nothing
    /// left, `n_copies` copies that were lost on their way out, after the switch had
    /// forwarded them: `tx-ring-full`, `tx-error`, `too-big`, `port-down`, `no-such-port`,
    /// and between bridges.
    /// Frames that the kernel took and then refused have input port 0: it does not tell
    /// which frames they were.
    pub fn drops(&self) -> Vec<DropCount> {
        self.fabric.bridges().into_iter().flat_map(|bridge| self.drops_of(bridge)).collect()
    }

    /// Those of a bridge.
    pub fn drops_of(&self, bridge: BridgeId) -> Vec<DropCount> {
        let drops = |seat: &Arc<Seat>| seat.ask(move |worker| worker.drops(bridge)).unwrap_or_default();
        self.fabric.seats().iter().flat_map(drops).collect()
    }

    /// Brings the counters of the rules up to date with the caches of all workers.
    pub fn flush_stats(&self) {
        for seat in self.fabric.seats() {
            for bridge in self.fabric.bridges() {
                let mut next = Some(0);
                while let Some(from) = next {
                    let flushed = seat
                        .ask(move |worker| worker.switch(bridge).map(|switch| switch.flush_stats_from(from)));
                    next = flushed.flatten().flatten();
                }
            }
        }
    }

    /// Limits what each port may take of what all share, on each worker and in each bridge,
    /// those that are added later included.
    pub fn set_quota(&self, quota: Quota) {
        for seat in self.fabric.seats() {
            let _ = seat.ask(move |worker| worker.set_quota(quota));
        }
    }

    /// What each port may take, and what was refused to ports.
    pub fn quota(&self) -> (Quota, QuotaCounters) {
        let asked = self.fabric.seats().iter().filter_map(|seat| seat.ask(|worker| worker.quota()));
        asked.fold(Default::default(), |(_, sum): (Quota, QuotaCounters), (quota, refused)| {
            (quota, add(sum, refused))
        })
    }

    pub(crate) fn fabric(&self) -> &Fabric {
        &self.fabric
    }

    /// Worker that has a port.
    pub(crate) fn worker_of(&self, port: PortId) -> Option<usize> {
        lock(&self.ports).get(&port).and_then(Registered::first_worker)
    }
}

impl Drop for Dataplane {
    fn drop(&mut self) {
        self.fabric.stop();
        // They have a share in the fabric, and it in them.
        self.fabric.seats().iter().for_each(|seat| seat.dismiss());
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a worker had panicked");
            }
        }
    }
}

/// Starts a worker's thread and waits until it runs where it should.
fn spawn(
    config: &DataplaneConfig,
    fabric: Arc<Fabric>,
    seat: Arc<Seat>,
    jobs: Receiver<Job>,
) -> Result<JoinHandle<()>, StartError> {
    let (id, core, config) = (seat.id, seat.core, config.clone());
    let (ready, started) = bounded(1);
    let run = move || {
        let pinned = core.map_or(Ok(()), sys::thread::pin);
        let failed = pinned.is_err();
        let _ = ready.send(pinned);
        if !failed {
            // Made here, so that its memory is near the core it runs on.
            Worker::new(&config, fabric, seat, jobs).run();
        }
    };
    let thread = thread::Builder::new()
        .name(format!("pmd-{id}"))
        .spawn(run)
        .map_err(|source| StartError::Spawn { worker: id, source })?;
    match (started.recv(), core) {
        (Ok(Err(source)), Some(core)) => Err(StartError::Pin { worker: id, core, source }),
        _ => Ok(thread),
    }
}

fn worker_status(seat: &Seat) -> WorkerStatus {
    let asked = seat.ask(|worker| {
        let (measured, _) = worker.measured();
        let (n_frames, n_free_frames, n_exhausted) = {
            let pool = worker.pool();
            (pool.n_frames(), pool.n_free(), pool.n_exhausted())
        };
        let counters = worker.counters();
        let (n_sessions, n_megaflows) = worker
            .switches()
            .fold((0, 0), |sum, switch| (sum.0 + switch.n_sessions(), sum.1 + switch.n_megaflows()));
        WorkerStatus {
            running: true,
            n_polls: measured.n_polls,
            n_idle_polls: measured.n_idle_polls,
            n_sleeps: measured.n_sleeps,
            counters,
            n_sessions,
            n_megaflows,
            n_frames,
            n_free_frames,
            n_exhausted,
            ..WorkerStatus::default()
        }
    });
    WorkerStatus { id: seat.id, core: seat.core, ..asked.unwrap_or_default() }
}

/// Both together.
pub(crate) fn add(a: QuotaCounters, b: QuotaCounters) -> QuotaCounters {
    QuotaCounters { n_misses: a.n_misses + b.n_misses, n_sessions: a.n_sessions + b.n_sessions }
}
