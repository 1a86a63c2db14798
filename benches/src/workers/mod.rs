//! Whole workers under load: threads with their loop, ports in memory.
//!
//! What is measured here and not by the switch alone: how rates grow with workers
//! ([`scaling`]), how long a packet is under way ([`latency`]), what an idle worker costs and how
//! soon it is back ([`idle`]), what is lost when all rules change ([`flush`]), and what a port
//! under attack does to another one ([`attack`]). Frames come from the generator of the
//! workloads, in the worker's own thread.
//!
//! Machines have other work. Rates are by the time that the kernel gave the thread; a packet
//! that was under way while the kernel ran something else is counted apart, as *disturbed*:
//! `Watch` notices that.

pub mod attack;
pub mod flush;
pub mod idle;
pub mod latency;
pub mod pace;
pub mod scaling;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use dataplane::{
    Dataplane, DataplaneConfig, Device, FramePort, FrameSink, FrameSource, PortSpec, Wake, WorkerConfig,
    WorkerPerf,
};
use flowtable::{port::PortTable, program::TunnelKind, snapshot::Snapshot, text::parse_flow};

use crate::{
    rules::{IN, OUT, port, snapshot_with},
    workload::{
        LOCAL, REMOTE, Workload,
        generator::{Generator, ROOM},
    },
};

/// How long a new version may take to be taken.
const PATIENCE: Duration = Duration::from_secs(10);

/// The rules of a workload, as a version.
///
/// # Errors
/// When a rule is not understood.
pub fn snapshot_of(workload: &Workload) -> Result<Arc<Snapshot>> {
    let parse = |line: String| parse_flow(&line, &PortTable::default()).with_context(|| line.clone());
    let rules = (workload.rules)().into_iter().map(parse).collect::<Result<Vec<_>>>()?;
    Ok(snapshot_with(rules, TunnelKind::Geneve, LOCAL, REMOTE))
}

/// Frames of a workload, as many as are asked for.
pub struct Endless {
    generator: Generator,
}

impl Endless {
    /// Of flows that no other source with another number has.
    pub fn new(workload: &Workload, number: u32) -> Self {
        let generator = Generator::new(workload.traffic, workload.way);
        Self { generator: generator.from_flow(number * workload.traffic.n_flows) }
    }
}

impl FrameSource for Endless {
    #[inline]
    fn next(&mut self, room: &mut [u8]) -> Option<usize> {
        Some(self.generator.write(room.first_chunk_mut::<ROOM>()?))
    }

    fn is_ready(&self) -> bool {
        true
    }
}

/// A source that somebody switches on and off, and that can be woken.
pub struct Switched<S> {
    source: S,
    on: Arc<AtomicBool>,
    wake: Arc<std::sync::Mutex<Option<Wake>>>,
}

impl<S> Switched<S> {
    /// Off at first.
    pub fn new(source: S) -> (Self, Valve) {
        let (on, wake) = (Arc::<AtomicBool>::default(), Arc::default());
        let valve = Valve { on: Arc::clone(&on), wake: Arc::clone(&wake) };
        (Self { source, on, wake }, valve)
    }
}

impl<S: FrameSource> FrameSource for Switched<S> {
    #[inline]
    fn next(&mut self, room: &mut [u8]) -> Option<usize> {
        if self.on.load(Relaxed) { self.source.next(room) } else { None }
    }

    fn is_ready(&self) -> bool {
        self.on.load(Relaxed) && self.source.is_ready()
    }

    fn attached(&mut self, wake: Wake) {
        if let Ok(mut place) = self.wake.lock() {
            *place = Some(wake);
        }
    }
}

/// What switches a source.
#[derive(Debug, Clone)]
pub struct Valve {
    on: Arc<AtomicBool>,
    wake: Arc<std::sync::Mutex<Option<Wake>>>,
}

impl Valve {
    /// Switches it, and wakes the worker.
    pub fn set(&self, on: bool) {
        self.on.store(on, Relaxed);
        if let Ok(place) = self.wake.lock()
            && let Some(wake) = &*place
        {
            wake.wake();
        }
    }
}

/// Counts what leaves.
#[derive(Debug, Clone, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// Frames so far.
    pub fn n(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl FrameSink for Counter {
    #[inline]
    fn take(&mut self, _: &[u8]) -> bool {
        // Only this thread writes.
        self.0.store(self.0.load(Relaxed) + 1, Relaxed);
        true
    }
}

/// A dataplane with a port that traffic comes from and one that it leaves by.
pub struct Plant {
    /// The dataplane.
    pub dataplane: Dataplane,
}

impl Plant {
    /// Starts workers, each on its core; each has a source and a sink.
    ///
    /// # Errors
    /// When it cannot start.
    pub fn start(
        workload: &Workload,
        config: DataplaneConfig,
        sources: Vec<Box<dyn FrameSource>>,
        sinks: Vec<Box<dyn FrameSink>>,
    ) -> Result<Self> {
        let n_connections = (workload.n_connections as usize * 5 / 2).max(1 << 12);
        let dataplane = Dataplane::start(DataplaneConfig { n_connections, seed: Some(1), ..config })?;
        let plant = Self { dataplane };
        plant.attach(OUT, Vec::new(), sinks)?;
        plant.publish(snapshot_of(workload)?)?;
        plant.attach(IN, sources, Vec::new())?;
        Ok(plant)
    }

    /// Attaches a port of sources and sinks.
    ///
    /// # Errors
    /// When it cannot be.
    pub fn attach(
        &self,
        number: u32,
        sources: Vec<Box<dyn FrameSource>>,
        sinks: Vec<Box<dyn FrameSink>>,
    ) -> Result<()> {
        let device = Device::Frames(FramePort::new(sources, sinks));
        self.dataplane.attach(PortSpec { port: port(number).into(), name: format!("p{number}"), device })?;
        Ok(())
    }

    /// Publishes a version and waits until all workers have it.
    ///
    /// # Errors
    /// When they do not take it.
    pub fn publish(&self, snapshot: Arc<Snapshot>) -> Result<()> {
        let epoch = snapshot.epoch;
        self.dataplane.publish(snapshot);
        ensure!(self.dataplane.wait_applied(epoch, PATIENCE), "the workers did not take the rules");
        Ok(())
    }

    /// Waits until hardly a packet is of a flow that nobody knows.
    ///
    /// # Errors
    /// When that does not come.
    pub fn warm(&self) -> Result<()> {
        let deadline = Instant::now() + 2 * PATIENCE;
        let counts = || {
            let counters = self.dataplane.perf().into_iter().map(|worker| worker.counters);
            counters.fold((0, 0), |sum, one| (sum.0 + one.n_packets, sum.1 + one.n_misses))
        };
        loop {
            let before = counts();
            std::thread::sleep(Duration::from_millis(250));
            let after = counts();
            let (n_packets, n_misses) = (after.0 - before.0, after.1 - before.1);
            if n_packets > 10_000 && n_misses * 1000 < n_packets {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{n_misses} of {n_packets} packets are still unknown");
        }
    }

    /// What each worker did, and how long it ran, while `wait` passed.
    pub fn observe(&self, wait: Duration) -> Vec<Observed> {
        let before = self.dataplane.perf();
        std::thread::sleep(wait);
        let after = self.dataplane.perf();
        before.iter().zip(&after).map(|(before, after)| Observed::between(before, after)).collect()
    }
}

/// What a worker did in a while.
#[derive(Debug, Clone, Copy)]
pub struct Observed {
    /// Packets.
    pub n_packets: u64,
    /// Time that it had of a core.
    pub cpu: Duration,
    /// Time that passed.
    pub wall: Duration,
}

impl Observed {
    fn between(before: &WorkerPerf, after: &WorkerPerf) -> Self {
        let wall = (after.at - before.at) as f64 / after.hz as f64;
        Self {
            n_packets: after.counters.n_packets - before.counters.n_packets,
            cpu: after.cpu_time.saturating_sub(before.cpu_time),
            wall: Duration::from_secs_f64(wall),
        }
    }

    /// Packets in a second of its core.
    pub fn pps(&self) -> f64 {
        self.n_packets as f64 / self.cpu.as_secs_f64().max(1e-9)
    }
}

/// Cores for `n` workers, from the last one down, as far as there are any.
pub fn workers(n: usize) -> Vec<WorkerConfig> {
    let n_cores = std::thread::available_parallelism().map_or(1, usize::from);
    (0..n).map(|idx| WorkerConfig { core: (idx < n_cores).then(|| n_cores - 1 - idx) }).collect()
}

/// Middle of some numbers.
pub fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
