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
    types::{Epoch, PortNo, Timestamp},
};

use crate::{
    config::{DataplaneConfig, Device, PortSpec},
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
    NotAttached(PortNo),
}

/// What is known of an attached port outside its worker.
#[derive(Debug, Clone)]
struct Registered {
    name: String,
    kind: &'static str,
    worker: usize,
    report: PortReport,
    metrics: Arc<PortMetrics>,
    /// Name and number of the interface it stands on.
    interface: Option<(String, u32)>,
}

/// A running dataplane. Dropping it stops the workers and detaches all ports.
pub struct Dataplane {
    fabric: Arc<Fabric>,
    threads: Vec<JoinHandle<()>>,
    /// Held while ports come and go, one at a time.
    admin: Mutex<()>,
    ports: Mutex<BTreeMap<PortNo, Registered>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
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

    /// Attaches a port and says what it turned out to be. Frames flow at once.
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
        if !port.is_real() && port != PortNo::LOCAL {
            return Err(AttachError::NotReal(port));
        }
        if lock(&self.ports).contains_key(&port) {
            return Err(AttachError::InUse(port));
        }
        let worker = self.least_loaded();
        let seat = &self.fabric.seats()[worker];
        let (device, registered) = open(spec, worker, seat)?;
        let attached = AttachedPort {
            port,
            device,
            metrics: Arc::clone(&registered.metrics),
            base: PortCounters::default(),
        };
        seat.ask(move |worker| worker.attach(attached)).ok_or(AttachError::WorkerGone(worker))?;
        self.route(port, worker, Some(worker));
        let report = registered.report.clone();
        tracing::info!(%port, name = registered.name, mode = report.mode, worker, "port attached");
        lock(&self.ports).insert(port, registered);
        Ok(report)
    }

    /// Detaches a port; an interface is the host's again when this returns. What was
    /// counted of it is the caller's from now on.
    ///
    /// # Errors
    /// The port is not attached.
    pub fn detach(&self, port: PortNo) -> Result<DetachedPort, DetachError> {
        let _admin = lock(&self.admin);
        let registered = lock(&self.ports).remove(&port).ok_or(DetachError::NotAttached(port))?;
        self.route(port, registered.worker, None);
        let seat = &self.fabric.seats()[registered.worker];
        // Closing an interface's sockets takes milliseconds: here, not on the worker.
        let detached = seat.ask(move |worker| worker.detach(port)).flatten();
        let switched = detached.map(|(attached, counts)| {
            drop(attached);
            counts
        });
        let drops = |seat: &Arc<Seat>| seat.ask(move |worker| worker.take_drops(port)).unwrap_or_default();
        let drops = self.fabric.seats().iter().flat_map(drops).collect();
        tracing::info!(%port, name = registered.name, "port detached");
        Ok(DetachedPort { status: registered.status(port, switched.as_ref()), drops })
    }

    /// Switches frames as if a memory port had received them, and returns when that is
    /// done: with one worker, what leaves by memory ports can be had from them then.
    /// Their queues should hold it; what they cannot take is dropped.
    ///
    /// # Errors
    /// The port is not attached, or a frame is too long; then none is switched.
    pub fn inject(&self, port: PortNo, memory: &MemoryPort, frames: Vec<Vec<u8>>) -> Result<(), InjectError> {
        frames.iter().try_for_each(|frame| memory.check(frame))?;
        let worker = lock(&self.ports).get(&port).map(|registered| registered.worker);
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

    /// Makes a snapshot the one that packets see; each worker takes it at its next batch.
    pub fn publish(&self, snapshot: Arc<Snapshot>) {
        self.fabric.publish(snapshot);
    }

    /// Waits until every worker has taken this version or a later one; false when the
    /// time is up.
    pub fn wait_applied(&self, epoch: Epoch, timeout: Duration) -> bool {
        self.fabric.wait_applied(epoch, timeout)
    }

    /// All ports in the order of their numbers. An interface's link state and MTU are
    /// read anew, and the MTU holds for packets from then on.
    pub fn ports(&self) -> Vec<PortStatus> {
        let registered = lock(&self.ports).clone();
        let switched: BTreeMap<PortNo, SwitchedPort> = self
            .fabric
            .seats()
            .iter()
            .filter_map(|seat| seat.ask(|worker| worker.port_counts()))
            .flatten()
            .map(|counts| (counts.port, counts))
            .collect();
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
        let dump = |seat: &Arc<Seat>| {
            let id = seat.id;
            let dumped = seat.ask(|worker| worker.switch().megaflows()).unwrap_or_default();
            dumped.into_iter().map(move |megaflow| (id, megaflow))
        };
        self.fabric.seats().iter().flat_map(dump).collect()
    }

    /// All drops since the start. `n_packets` counts received packets of which nothing
    /// left, `n_copies` copies that were lost on their way out, after the switch had
    /// forwarded them: `tx-ring-full`, `tx-error`, `too-big`, `port-down`, `no-such-port`.
    /// Frames that the kernel took and then refused have input port 0: it does not tell
    /// which frames they were.
    pub fn drops(&self) -> Vec<DropCount> {
        self.fabric.seats().iter().filter_map(|seat| seat.ask(|worker| worker.drops())).flatten().collect()
    }

    /// Brings the counters of the rules up to date with the caches of all workers.
    pub fn flush_stats(&self) {
        for seat in self.fabric.seats() {
            let _ = seat.ask(|worker| worker.switch().flush_stats());
        }
    }

    pub(crate) fn fabric(&self) -> &Fabric {
        &self.fabric
    }

    /// Worker that has a port.
    pub(crate) fn worker_of(&self, port: PortNo) -> Option<usize> {
        lock(&self.ports).get(&port).map(|registered| registered.worker)
    }

    /// Worker with the fewest ports.
    fn least_loaded(&self) -> usize {
        let ports = lock(&self.ports);
        let load = |worker: usize| ports.values().filter(|port| port.worker == worker).count();
        (0..self.fabric.seats().len()).min_by_key(|worker| load(*worker)).unwrap_or(0)
    }

    /// Tells all workers but the port's own where it is.
    fn route(&self, port: PortNo, owner: usize, to: Option<usize>) {
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

/// Opens a port's device.
fn open(spec: PortSpec, worker: usize, seat: &Seat) -> Result<(AnyPort, Registered), AttachError> {
    match spec.device {
        Device::AfXdp { interface, steering } => {
            let opened = AfXdpPort::open(&interface, &steering)?;
            let registered = Registered {
                name: spec.name,
                kind: "afxdp",
                worker,
                report: opened.report,
                metrics: opened.metrics,
                interface: Some((interface, opened.ifindex)),
            };
            Ok((AnyPort::AfXdp(Box::new(opened.port)), registered))
        }
        Device::Memory(memory) => {
            let device = memory.attach(Arc::clone(&seat.waker)).ok_or(AttachError::MemoryInUse)?;
            let report = PortReport { mode: "memory".to_owned(), mac: memory.mac(), mtu: memory.mtu() };
            let registered = Registered {
                name: spec.name,
                kind: "memory",
                worker,
                metrics: Arc::new(PortMetrics::new(report.mtu)),
                report,
                interface: None,
            };
            Ok((AnyPort::Memory(device), registered))
        }
    }
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
        let Some((name, ifindex)) = &self.interface else { return Link::Up };
        match Interface::lookup(name) {
            Ok(facts) if facts.ifindex == *ifindex && !self.metrics.is_gone() => {
                self.metrics.set_mtu(facts.mtu);
                if facts.running { Link::Up } else { Link::Down }
            }
            // Another interface may have taken the name.
            Ok(_) | Err(_) => Link::Gone,
        }
    }

    fn status(self, port: PortNo, switched: Option<&SwitchedPort>) -> PortStatus {
        let link = self.refresh();
        let counts = self.metrics.read();
        PortStatus {
            port,
            kind: self.kind,
            mode: self.report.mode,
            mac: self.report.mac,
            mtu: self.metrics.mtu(),
            up: link == Link::Up,
            gone: link == Link::Gone,
            counters: PortCounts {
                rx_packets: counts.rx_packets,
                rx_bytes: counts.rx_bytes,
                rx_forwarded: switched.map_or(0, |switched| switched.n_forwarded),
                rx_dropped: switched.map_or(0, |switched| switched.n_dropped),
                tx_packets: counts.tx_packets,
                tx_bytes: counts.tx_bytes,
                tx_dropped: counts.tx_dropped,
                rx_kernel_dropped: switched.map_or(0, |switched| switched.n_kernel_dropped),
            },
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
        let switch = worker.switch();
        (switch.counters(), switch.n_sessions(), switch.n_megaflows(), n_frames, n_free, n_exhausted)
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
