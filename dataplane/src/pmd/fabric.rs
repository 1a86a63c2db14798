//! What workers share: the snapshot, the tracker, the clock, and each worker's seat, by which others
//! reach it.

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Acquire, Release, SeqCst},
            fence,
        },
    },
    thread::{self, Thread},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use crossbeam::{
    channel::{Receiver, Sender, unbounded},
    queue::{ArrayQueue, SegQueue},
    utils::CachePadded,
};
use flowtable::{
    conntrack::{self, Conntrack},
    packet::Packet,
    snapshot::Snapshot,
    types::{BridgeId, Epoch, Timestamp},
};

use super::{Worker, answer::question};
use crate::{
    clock::Clock,
    config::{DataplaneConfig, PortId},
    connections::{self, Connections, OpenError, Opened},
    handle::StartError,
    keep::Beginning,
    pool::Frame,
    port::afxdp::Memories,
    sys::{advise_huge_pages, event::Waker, shared_memory::monotonic_nanos, tsc},
};

/// How long a worker waits for its turn before it looks for jobs.
const TURN_LOOK: Duration = Duration::from_millis(5);
/// Turns that a worker without a thread has to take a version.
const MAX_TURNS: u32 = 1 << 16;

/// Something a worker does between two batches.
pub(crate) type Job = Box<dyn FnOnce(&mut Worker) + Send>;

/// A packet for a port of another worker.
pub(crate) struct Handover {
    pub(crate) port: PortId,
    pub(crate) packet: Packet<Frame>,
}

/// One worker as others see it.
pub(crate) struct Seat {
    pub(crate) id: usize,
    pub(crate) core: Option<usize>,
    pub(crate) waker: Arc<Waker>,
    /// Packets from other workers.
    pub(crate) inbox: ArrayQueue<Handover>,
    jobs: Sender<Job>,
    /// Where there are no threads: the worker itself, until the dataplane ends. Who asks does its work.
    at_hand: OnceLock<Mutex<Option<Box<Worker>>>>,
    /// Version the worker has taken, plus one; zero: none yet.
    applied: AtomicU64,
}

impl Seat {
    /// A seat, and the jobs that come to it.
    pub(crate) fn new(
        id: usize,
        core: Option<usize>,
        n_handover: usize,
    ) -> io::Result<(Self, Receiver<Job>)> {
        let (jobs, receiver) = unbounded();
        let seat = Self {
            id,
            core,
            waker: Arc::new(Waker::new()?),
            inbox: ArrayQueue::new(n_handover.max(1)),
            jobs,
            at_hand: OnceLock::new(),
            applied: AtomicU64::new(0),
        };
        Ok((seat, receiver))
    }

    /// Takes a worker that has no thread.
    pub(crate) fn keep(&self, worker: Worker) {
        // There is one worker for a seat.
        let _ = self.at_hand.set(Mutex::new(Some(Box::new(worker))));
    }

    /// Ends a worker that has no thread.
    pub(crate) fn dismiss(&self) {
        drop(self.at_hand().and_then(|mut worker| worker.take()));
    }

    /// Has a worker without a thread take its turn.
    fn turn(&self) {
        if let Some(mut worker) = self.at_hand()
            && let Some(worker) = worker.as_mut()
        {
            worker.turn();
        }
    }

    fn at_hand(&self) -> Option<MutexGuard<'_, Option<Box<Worker>>>> {
        self.at_hand.get().map(|worker| worker.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Has the worker do something and waits for the result. `None`: it has ended.
    pub(crate) fn ask<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Worker) -> T + Send + 'static,
    ) -> Option<T> {
        if let Some(mut worker) = self.at_hand() {
            let worker = worker.as_mut()?;
            let answer = job(worker);
            // As after any job packets have their turn.
            worker.turn();
            return Some(answer);
        }
        let (answerer, asker) = question();
        if !self.post(move |worker: &mut Worker| answerer.answer(job(worker))) {
            return None;
        }
        asker.wait()
    }

    /// Has the worker do something, some time. False: it has ended.
    pub(crate) fn post(&self, job: impl FnOnce(&mut Worker) + Send + 'static) -> bool {
        if let Some(worker) = self.at_hand.get() {
            // Its own jobs ask for more of them: those have their turn later.
            let Ok(mut worker) = worker.try_lock() else { return self.jobs.send(Box::new(job)).is_ok() };
            let Some(worker) = worker.as_mut() else { return false };
            job(worker);
            worker.turn();
            return true;
        }
        let sent = self.jobs.send(Box::new(job)).is_ok();
        self.waker.wake();
        sent
    }
}

/// Somebody who is told by a worker.
pub(crate) type Told = Box<dyn Fn() + Send + Sync>;

/// What packets see: a snapshot for each bridge.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plan {
    /// Of the snapshot that came last.
    pub(crate) epoch: Epoch,
    /// By bridge.
    snapshots: Vec<Option<Arc<Snapshot>>>,
}

impl Plan {
    /// What packets of a bridge see, if there is one.
    pub(crate) fn of(&self, bridge: BridgeId) -> Option<&Arc<Snapshot>> {
        self.snapshots.get(usize::from(bridge.get()))?.as_ref()
    }

    fn bridges(&self) -> Vec<BridgeId> {
        self.snapshots.iter().flatten().map(|snapshot| snapshot.bridge).collect()
    }

    /// The same with another snapshot of a bridge.
    fn with(&self, snapshot: &Arc<Snapshot>) -> Self {
        let (mut plan, idx) = (self.clone(), usize::from(snapshot.bridge.get()));
        if idx >= plan.snapshots.len() {
            plan.snapshots.resize(idx + 1, None);
        }
        plan.snapshots[idx] = Some(Arc::clone(snapshot));
        plan.epoch = snapshot.epoch;
        plan
    }

    fn without(&self, bridge: BridgeId) -> Self {
        let mut plan = self.clone();
        if let Some(snapshot) = plan.snapshots.get_mut(usize::from(bridge.get())) {
            *snapshot = None;
        }
        plan
    }
}

/// What all workers see.
pub(crate) struct Fabric {
    seats: Vec<Arc<Seat>>,
    plan: ArcSwap<Plan>,
    /// Counts up with each snapshot. Read by every worker in every round, so nothing that
    /// changes is on its cache line.
    n_published: CachePadded<AtomicU64>,
    /// Snapshots that workers have given up: who made them takes them apart, which can take
    /// long.
    retired: SegQueue<Arc<Plan>>,
    /// Threads that wait for a version to be taken.
    waiting: ArcSwap<Vec<Thread>>,
    conntrack: Arc<Conntrack>,
    /// What outlives the process of it, if anything does.
    connections: Option<Connections>,
    /// The frames of AF_XDP sockets.
    memories: Memories,
    started: Instant,
    /// When that was, as time is counted: zero, or later when another process has begun to count.
    started_at: u64,
    started_tsc: u64,
    clock: Clock,
    /// Workers have no threads.
    is_inline: bool,
    stopping: AtomicBool,
    /// No packets are taken from ports.
    is_held: AtomicBool,
    /// Another process takes packets, and says in memory when it has stopped.
    awaits_turn: AtomicBool,
    /// Held while packets begin to be taken: workers and the owner may want that at the same time.
    beginning: Mutex<()>,
    /// Nanoseconds for which no process has taken packets, when this one began; zero: not known.
    stood: AtomicU64,
    /// Told when something waits for the owner.
    on_news: OnceLock<Told>,
}

impl Fabric {
    /// Seats for all workers, and what comes to each.
    pub(crate) fn new(
        config: &DataplaneConfig,
        beginning: &Beginning,
    ) -> Result<(Self, Vec<Receiver<Job>>), StartError> {
        let (mut seats, mut receivers) = (Vec::new(), Vec::new());
        for (id, worker) in config.workers.iter().enumerate() {
            let seat = Seat::new(id, worker.core, config.n_handover);
            let (seat, receiver) = seat.map_err(|source| StartError::Spawn { worker: id, source })?;
            seats.push(Arc::new(seat));
            receivers.push(receiver);
        }
        let tracking = config.seed.map(|seed| conntrack::Config { seed, ..conntrack::Config::default() });
        let tracking = tracking.unwrap_or_default();
        let outliving = match beginning.keeper.as_deref() {
            Some(keeper) => {
                let opened =
                    connections::open((keeper, beginning.is_successor), config.n_connections, tracking);
                match opened {
                    Err(OpenError::Foreign(why)) => return Err(StartError::Connections(why)),
                    Err(OpenError::Memory(error)) => {
                        tracing::warn!(%error, "connections will not outlive this process");
                        None
                    }
                    Ok(opened) => Some(opened),
                }
            }
            None => None,
        };
        let (conntrack, connections, started_at) = match outliving {
            Some(Opened { connections, tracker, origin }) => {
                (tracker, Some(connections), monotonic_nanos().saturating_sub(origin))
            }
            None => {
                let storage = conntrack::Storage::on_heap_advised(config.n_connections, advise_huge_pages);
                (Arc::new(Conntrack::new(tracking, storage)), None, 0)
            }
        };
        if !beginning.holds_back
            && let Some(connections) = &connections
        {
            connections.begin(&conntrack);
        }
        let fabric = Self {
            conntrack,
            connections,
            memories: Memories::new(beginning),
            started_at,
            is_held: AtomicBool::new(beginning.holds_back),
            awaits_turn: AtomicBool::new(false),
            beginning: Mutex::default(),
            stood: AtomicU64::new(0),
            seats,
            plan: ArcSwap::from_pointee(Plan::default().with(&Arc::default())),
            n_published: CachePadded::new(AtomicU64::new(1)),
            retired: SegQueue::new(),
            waiting: ArcSwap::from_pointee(Vec::new()),
            started: Instant::now(),
            started_tsc: tsc::now(),
            clock: config.clock.clone(),
            is_inline: config.inline,
            stopping: AtomicBool::new(false),
            on_news: OnceLock::new(),
        };
        Ok((fabric, receivers))
    }

    pub(crate) fn seats(&self) -> &[Arc<Seat>] {
        &self.seats
    }

    /// How many snapshots there were so far.
    #[inline]
    pub(crate) fn n_published(&self) -> u64 {
        self.n_published.load(Acquire)
    }

    /// The newest snapshots.
    pub(crate) fn plan(&self) -> Arc<Plan> {
        self.plan.load_full()
    }

    /// Takes snapshots from a worker that has others.
    pub(crate) fn retire(&self, old: Arc<Plan>) {
        self.retired.push(old);
    }

    pub(crate) fn conntrack(&self) -> &Arc<Conntrack> {
        &self.conntrack
    }

    /// The frames of AF_XDP sockets.
    pub(crate) fn memories(&self) -> &Memories {
        &self.memories
    }

    pub(crate) fn on_news(&self, told: Told) {
        // Whoever came first stays.
        let _ = self.on_news.set(told);
    }

    pub(crate) fn tell_news(&self) {
        if let Some(told) = self.on_news.get() {
            told();
        }
    }

    /// The time that packets and caches go by.
    pub(crate) fn now(&self) -> Timestamp {
        match &self.clock {
            Clock::Machine => self.machine_uptime(),
            Clock::Virtual(clock) => clock.now(),
        }
    }

    /// The machine's time, from the start: what a worker's rest goes by, which must not
    /// stop with a stopped clock. Without threads nobody rests, and there is no other time.
    pub(crate) fn uptime(&self) -> Timestamp {
        if self.is_inline {
            return self.now();
        }
        self.machine_uptime()
    }

    fn machine_uptime(&self) -> Timestamp {
        Timestamp::from_nanos(self.started_at + self.started.elapsed().as_nanos() as u64)
    }

    /// Cycles of the time stamp counter in a second, the more exactly the longer we run.
    pub(crate) fn tsc_hz(&self) -> u64 {
        let elapsed = self.started.elapsed();
        let cycles = tsc::now().saturating_sub(self.started_tsc);
        (u128::from(cycles) * 1_000_000_000 / elapsed.as_nanos().max(1)) as u64
    }

    /// Bridges that there are.
    pub(crate) fn bridges(&self) -> Vec<BridgeId> {
        self.plan.load().bridges()
    }

    /// A bridge is there.
    pub(crate) fn has(&self, bridge: BridgeId) -> bool {
        self.plan.load().of(bridge).is_some()
    }

    /// The newest version of a bridge.
    pub(crate) fn snapshot(&self, bridge: BridgeId) -> Option<Arc<Snapshot>> {
        self.plan.load().of(bridge).cloned()
    }

    /// A bridge is there from now on, with an empty snapshot.
    pub(crate) fn reserve(&self, bridge: BridgeId) {
        if !self.has(bridge) {
            let snapshot = Arc::new(Snapshot { bridge, ..Snapshot::default() });
            self.change(|plan| Plan { epoch: plan.epoch, ..plan.with(&snapshot) });
        }
    }

    /// A bridge is not there any more.
    pub(crate) fn forget(&self, bridge: BridgeId) {
        self.change(|plan| plan.without(bridge));
    }

    /// Makes a version of a bridge the newest.
    pub(crate) fn publish(&self, snapshot: &Arc<Snapshot>) {
        self.change(|plan| plan.with(snapshot));
    }

    fn change(&self, change: impl Fn(&Plan) -> Plan) {
        // What was there may be the last of its kind: it is taken apart here.
        drop(self.plan.rcu(|plan| change(plan)));
        self.n_published.fetch_add(1, Release);
        self.wake_all();
        self.take_apart();
    }

    /// Takes apart the snapshots that no worker needs any more.
    pub(crate) fn take_apart(&self) {
        while self.retired.pop().is_some() {}
    }

    pub(crate) fn stop(&self) {
        self.stopping.store(true, Release);
        self.wake_all();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Acquire)
    }

    /// No packets are taken from ports.
    #[inline]
    pub(crate) fn is_held(&self) -> bool {
        self.is_held.load(Acquire)
    }

    /// Takes packets, with the connections that there are. Where packets are taken already, nothing
    /// changes.
    pub(crate) fn begin(&self) {
        let _one = self.beginning.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.is_held() {
            return;
        }
        self.awaits_turn.store(false, Release);
        if let Some(connections) = &self.connections {
            let stood = connections.turn().begin().unwrap_or_default();
            self.stood.store(stood.as_nanos() as u64, Release);
            connections.begin(&self.conntrack);
        }
        self.memories.settle();
        self.is_held.store(false, Release);
        if let Some(connections) = &self.connections {
            connections.turn().wake();
        }
        self.wake_all();
    }

    /// For how long no process had taken packets when this one began, if the one before has told.
    pub(crate) fn stood(&self) -> Option<Duration> {
        let stood = self.stood.load(Acquire);
        (stood != 0).then(|| Duration::from_nanos(stood))
    }

    /// Takes packets as soon as the process that takes them has stopped. Where memory is not shared with
    /// it, somebody has to say when that is.
    pub(crate) fn want_turn(&self) {
        let Some(connections) = &self.connections else { return };
        connections.populate();
        connections.turn().want();
        self.awaits_turn.store(true, Release);
        self.wake_all();
    }

    /// Another process takes packets, until it is this one's turn.
    #[inline]
    pub(crate) fn awaits_turn(&self) -> bool {
        self.awaits_turn.load(Acquire)
    }

    /// Waits for a while for this process's turn, and takes packets if it has come.
    pub(crate) fn wait_for_turn(&self) {
        if self.connections.as_ref().is_some_and(|connections| connections.turn().wait(TURN_LOOK)) {
            self.begin();
        }
    }

    /// Takes no packets.
    pub(crate) fn hold(&self) {
        if let Some(connections) = self.connections.as_ref().filter(|_| !self.is_held()) {
            connections.turn().stop();
        }
        self.is_held.store(true, Release);
        self.wake_all();
    }

    /// Leaves the connections to another process, and has that take packets if it waits for it.
    pub(crate) fn park(&self) {
        if let Some(connections) = &self.connections {
            connections.park(&self.conntrack);
            connections.turn().give();
        }
    }

    /// Logs what there was of the process before.
    pub(crate) fn tell_taken_over(&self) {
        let stats = self.conntrack.stats();
        if self.connections.is_some() && stats.n_connections + stats.n_damaged > 0 {
            let (n_connections, n_dropped) = (stats.n_connections, stats.n_damaged);
            tracing::info!(n_connections, n_dropped, "connections of the process before go on");
        }
    }

    /// Maps what may be touched later, while packets go on.
    pub(crate) fn populate_soon(&self) {
        if let Some(connections) = &self.connections {
            connections.populate_soon();
        }
    }

    fn wake_all(&self) {
        self.seats.iter().for_each(|seat| seat.waker.wake());
    }

    /// A worker has taken a version. It waits for nobody: who waits for it is woken.
    pub(crate) fn set_applied(&self, seat: &Seat, epoch: Epoch) {
        seat.applied.store(epoch.get().saturating_add(1), Release);
        fence(SeqCst);
        self.waiting.load().iter().for_each(Thread::unpark);
    }

    /// Waits until each worker has taken this version or a later one.
    pub(crate) fn wait_applied(&self, epoch: Epoch, timeout: Duration) -> bool {
        let inline = self.seats.iter().filter(|seat| seat.at_hand.get().is_some());
        for seat in inline {
            // Caches are made ready for a version in some turns.
            let is_behind = || seat.applied.load(Acquire) <= epoch.get();
            (0..MAX_TURNS).take_while(|_| is_behind()).for_each(|_| seat.turn());
        }
        let deadline = Instant::now() + timeout;
        let me = thread::current();
        self.waiting.rcu(|waiting| [&waiting[..], std::slice::from_ref(&me)].concat());
        // Pairs with that of `set_applied`: either we see the version, or it sees us.
        fence(SeqCst);
        let behind = || self.seats.iter().any(|seat| seat.applied.load(Acquire) <= epoch.get());
        let mut is_behind = behind();
        while is_behind {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            thread::park_timeout(left);
            is_behind = behind();
        }
        self.waiting.rcu(|waiting| {
            let mut waiting = waiting.to_vec();
            if let Some(idx) = waiting.iter().position(|thread| thread.id() == me.id()) {
                waiting.swap_remove(idx);
            }
            waiting
        });
        self.take_apart();
        !is_behind
    }
}
