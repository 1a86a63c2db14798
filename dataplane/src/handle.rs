//! The dataplane as its owner sees it: ports come and go, versions of the rules are
//! published, counters are read. Any thread may call.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering::Relaxed},
    thread::{self, JoinHandle},
    time::Duration,
};

use crossbeam::channel::{Receiver, bounded};
use flowtable::{
    cache::MegaflowDump,
    conntrack::Conntrack,
    snapshot::Snapshot,
    stats::{DropCount, PortCounters},
    types::{BridgeId, Epoch, PortNo, Timestamp},
};

use crate::{
    config::{DataplaneConfig, Device, PortId, PortSpec, Steering},
    pmd::{Fabric, Job, Seat, SwitchedPort, Worker},
    port::{
        AnyPort, AttachError, AttachedPort, PortReport,
        afxdp::AfXdpPort,
        memory::{InjectError, MemoryPort},
        metrics::PortMetrics,
    },
    status::{DetachedPort, PortCounts, PortStatus, WorkerStatus},
    sys,
    sys::interface::Interface,
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

/// What is known of an attached port outside its worker.
#[derive(Debug, Clone)]
pub(crate) struct Registered {
    pub(crate) name: String,
    pub(crate) kind: &'static str,
    /// `None`: one end of a link, which is on every worker.
    pub(crate) worker: Option<usize>,
    pub(crate) report: PortReport,
    /// One; of one end of a link, each worker's.
    pub(crate) metrics: Vec<Arc<PortMetrics>>,
    /// The other end of the link.
    pub(crate) peer: Option<PortId>,
    /// Name and number of the interface it stands on.
    pub(crate) interface: Option<(String, u32)>,
}

/// A running dataplane. Dropping it stops the workers and detaches all ports.
pub struct Dataplane {
    pub(crate) fabric: Arc<Fabric>,
    threads: Vec<JoinHandle<()>>,
    /// Held while ports come and go, one at a time.
    pub(crate) admin: Mutex<()>,
    pub(crate) ports: Mutex<BTreeMap<PortId, Registered>>,
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
        if config.workers.is_empty() {
            return Err(StartError::NoWorker);
        }
        sys::thread::raise_memlock_limit();
        let (fabric, receivers) =
            Fabric::new(&config).map_err(|source| StartError::Spawn { worker: 0, source })?;
        let mut dataplane = Self {
            fabric: Arc::new(fabric),
            threads: Vec::new(),
            admin: Mutex::new(()),
            ports: Mutex::default(),
        };
        for (worker, jobs) in receivers.into_iter().enumerate() {
            // On an error, dropping `dataplane` stops those that run already.
            let seat = Arc::clone(&dataplane.fabric.seats()[worker]);
            let thread = spawn(&config, Arc::clone(&dataplane.fabric), seat, jobs)?;
            dataplane.threads.push(thread);
        }
        Ok(dataplane)
    }

    /// Attaches a port and says what it turned out to be. Frames flow at once; by one end of
    /// a link, as soon as it has a peer.
    ///
    /// # Errors
    /// [`AttachError`] says what to do.
    ///
    /// # Concurrency
    /// An interface is looked for in the calling thread's network namespace.
    pub fn attach(&self, spec: PortSpec) -> Result<PortReport, AttachError> {
        let _admin = lock(&self.admin);
        let port = spec.port;
        // The host's own port is one like others, with a number of its own.
        if !port.port.is_real() && port.port != PortNo::LOCAL {
            return Err(AttachError::NotReal(port.port));
        }
        if !self.fabric.has(port.bridge) {
            return Err(AttachError::NoBridge(port.bridge));
        }
        if lock(&self.ports).contains_key(&port) {
            return Err(AttachError::InUse(port));
        }
        let (name, worker) = (spec.name, self.least_loaded());
        let registered = match spec.device {
            Device::Patch => self.add_patch(port, name)?,
            Device::AfXdp { interface, steering } => {
                self.hand_to(port, worker, open_interface(name, (interface, steering), worker)?)?
            }
            Device::Memory(memory) => {
                let seat = &self.fabric.seats()[worker];
                self.hand_to(port, worker, open_memory(name, &memory, (worker, seat))?)?
            }
        };
        let report = registered.report.clone();
        let worker = registered.worker;
        tracing::info!(%port, name = registered.name, mode = report.mode, worker, "port attached");
        lock(&self.ports).insert(port, registered);
        Ok(report)
    }

    /// Hands an opened port to its worker.
    fn hand_to(&self, port: PortId, worker: usize, opened: Opened) -> Result<Registered, AttachError> {
        let (device, metrics, registered) = opened;
        let attached = AttachedPort { port, device, metrics, base: PortCounters::default() };
        let seat = &self.fabric.seats()[worker];
        seat.ask(move |worker| worker.attach(attached)).ok_or(AttachError::WorkerGone(worker))?;
        self.route(port, worker, Some(worker));
        Ok(registered)
    }

    /// Detaches a port; an interface is the host's again when this returns. What was
    /// counted of it is the caller's from now on.
    ///
    /// # Errors
    /// The port is not attached.
    pub fn detach(&self, port: impl Into<PortId>) -> Result<DetachedPort, DetachError> {
        let port = port.into();
        let _admin = lock(&self.admin);
        let registered = lock(&self.ports).remove(&port).ok_or(DetachError::NotAttached(port))?;
        let switched = match registered.worker {
            Some(worker) => self.detach_device(port, worker),
            None => self.remove_patch(port),
        };
        let drops = |seat: &Arc<Seat>| seat.ask(move |worker| worker.take_drops(port)).unwrap_or_default();
        let drops = self.fabric.seats().iter().flat_map(drops).collect();
        tracing::info!(%port, name = registered.name, "port detached");
        Ok(DetachedPort { status: registered.status(port, switched.as_ref()), drops })
    }

    fn detach_device(&self, port: PortId, worker: usize) -> Option<SwitchedPort> {
        self.route(port, worker, None);
        let seat = &self.fabric.seats()[worker];
        // Closing an interface's sockets takes milliseconds: here, not on the worker.
        let detached = seat.ask(move |worker| worker.detach(port)).flatten();
        detached.map(|(attached, counts)| {
            drop(attached);
            counts
        })
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
        let worker = lock(&self.ports).get(&port).and_then(|registered| registered.worker);
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

    /// Waits until every worker has taken this version or a later one; false when the
    /// time is up. Versions of several bridges are numbered together.
    pub fn wait_applied(&self, epoch: Epoch, timeout: Duration) -> bool {
        self.fabric.wait_applied(epoch, timeout)
    }

    /// All ports in the order of their bridges and numbers. An interface's link state and MTU are
    /// read anew, and the MTU holds for packets from then on.
    pub fn ports(&self) -> Vec<PortStatus> {
        let registered = lock(&self.ports).clone();
        let mut switched: BTreeMap<PortId, SwitchedPort> = BTreeMap::new();
        let asked = self.fabric.seats().iter().filter_map(|seat| seat.ask(|worker| worker.port_counts()));
        for counts in asked.flatten() {
            switched.entry(counts.port).and_modify(|sum| *sum = sum.and(counts)).or_insert(counts);
        }
        registered
            .into_iter()
            .map(|(port, registered)| registered.status(port, switched.get(&port)))
            .collect()
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
        let dump = |seat: &Arc<Seat>| {
            let id = seat.id;
            let dumped = seat.ask(move |worker| worker.switch(bridge).map(|switch| switch.megaflows()));
            dumped.flatten().unwrap_or_default().into_iter().map(move |megaflow| (id, megaflow))
        };
        self.fabric.seats().iter().flat_map(dump).collect()
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
            let _ = seat.ask(|worker| worker.switches().for_each(|switch| switch.flush_stats()));
        }
    }

    pub(crate) fn fabric(&self) -> &Fabric {
        &self.fabric
    }

    /// Worker that has a port.
    pub(crate) fn worker_of(&self, port: PortId) -> Option<usize> {
        lock(&self.ports).get(&port).and_then(|registered| registered.worker)
    }

    /// Worker with the fewest ports.
    fn least_loaded(&self) -> usize {
        let ports = lock(&self.ports);
        let load = |worker: usize| ports.values().filter(|port| port.worker == Some(worker)).count();
        (0..self.fabric.seats().len()).min_by_key(|worker| load(*worker)).unwrap_or(0)
    }

    /// Tells all workers but the port's own where it is.
    fn route(&self, port: PortId, owner: usize, to: Option<usize>) {
        for seat in self.fabric.seats().iter().filter(|seat| seat.id != owner) {
            let _ = seat.ask(move |worker| worker.route(port, to));
        }
    }
}

impl Drop for Dataplane {
    fn drop(&mut self) {
        self.fabric.stop();
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

/// What an opened port is: its device, what counts for it, and what is to be known of it.
type Opened = (AnyPort, Arc<PortMetrics>, Registered);

fn open_interface(
    name: String,
    (interface, steering): (String, Steering),
    worker: usize,
) -> Result<Opened, AttachError> {
    let opened = AfXdpPort::open(&interface, &steering)?;
    let registered = Registered {
        name,
        kind: "afxdp",
        worker: Some(worker),
        report: opened.report,
        metrics: vec![Arc::clone(&opened.metrics)],
        peer: None,
        interface: Some((interface, opened.ifindex)),
    };
    Ok((AnyPort::AfXdp(Box::new(opened.port)), opened.metrics, registered))
}

fn open_memory(
    name: String,
    memory: &MemoryPort,
    (worker, seat): (usize, &Seat),
) -> Result<Opened, AttachError> {
    let device = memory.attach(Arc::clone(&seat.waker)).ok_or(AttachError::MemoryInUse)?;
    let report = PortReport { mode: "memory".to_owned(), mac: memory.mac(), mtu: memory.mtu() };
    let metrics = Arc::new(PortMetrics::new(report.mtu));
    let registered = Registered {
        name,
        kind: "memory",
        worker: Some(worker),
        metrics: vec![Arc::clone(&metrics)],
        report,
        peer: None,
        interface: None,
    };
    Ok((AnyPort::Memory(device), metrics, registered))
}

/// State of a port's interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Up,
    Down,
    Gone,
}

impl Registered {
    /// Looks at the link, and takes over a changed MTU on the way.
    fn refresh(&self) -> Link {
        let Some((name, ifindex)) = &self.interface else {
            let has_other_end = self.worker.is_some() || self.peer.is_some();
            return if has_other_end { Link::Up } else { Link::Down };
        };
        let is_gone = self.metrics.iter().any(|metrics| metrics.is_gone());
        match Interface::lookup(name) {
            Ok(facts) if facts.ifindex == *ifindex && !is_gone => {
                self.metrics.iter().for_each(|metrics| metrics.set_mtu(facts.mtu));
                if facts.running { Link::Up } else { Link::Down }
            }
            // Another interface may have taken the name.
            Ok(_) | Err(_) => Link::Gone,
        }
    }

    fn status(self, id: PortId, switched: Option<&SwitchedPort>) -> PortStatus {
        let link = self.refresh();
        let mut counters = PortCounts {
            rx_forwarded: switched.map_or(0, |switched| switched.n_forwarded),
            rx_dropped: switched.map_or(0, |switched| switched.n_dropped),
            rx_kernel_dropped: switched.map_or(0, |switched| switched.n_kernel_dropped),
            ..PortCounts::default()
        };
        self.metrics.iter().for_each(|metrics| counters += metrics.read());
        PortStatus {
            bridge: id.bridge,
            port: id.port,
            kind: self.kind,
            mtu: self.metrics.first().map_or(self.report.mtu, |metrics| metrics.mtu()),
            mode: self.report.mode,
            mac: self.report.mac,
            up: link == Link::Up,
            gone: link == Link::Gone,
            counters,
            name: self.name,
        }
    }
}

fn worker_status(seat: &Seat) -> WorkerStatus {
    let asked = seat.ask(|worker| {
        let (n_frames, n_free, n_exhausted) = {
            let pool = worker.pool();
            (pool.n_frames(), pool.n_free(), pool.n_exhausted())
        };
        let counters = worker.counters();
        let (n_sessions, n_megaflows) = worker
            .switches()
            .fold((0, 0), |sum, switch| (sum.0 + switch.n_sessions(), sum.1 + switch.n_megaflows()));
        (counters, n_sessions, n_megaflows, n_frames, n_free, n_exhausted)
    });
    let running = asked.is_some();
    let (counters, n_sessions, n_megaflows, n_frames, n_free_frames, n_exhausted) = asked.unwrap_or_default();
    WorkerStatus {
        id: seat.id,
        core: seat.core,
        running,
        n_polls: seat.n_polls.load(Relaxed),
        n_idle_polls: seat.n_idle_polls.load(Relaxed),
        n_sleeps: seat.n_sleeps.load(Relaxed),
        counters,
        n_sessions,
        n_megaflows,
        n_frames,
        n_free_frames,
        n_exhausted,
    }
}
