//! One world: controllers, hosts, the store, what is between them, and those who use it; all of it moves by
//! one queue of events, in order of time and then of asking. There is no thread, no clock and no chance but
//! the seed's.
//!
//! `controllers.rs` and `hosts.rs` drive what is real, `users.rs` changes the network, `packets.rs` sends,
//! `faults.rs` breaks things, `checks.rs` says what must hold.

mod checks;
mod controllers;
mod faults;
mod hosts;
mod packets;
mod users;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use controller::store::LogLimits;
use tempfile::TempDir;

use self::{controllers::Server, hosts::Node, packets::Probe};
use crate::{model::History, plant::Plant, random::Random, store::Disk, trace::Trace, workload::Room};

/// Nanoseconds from the beginning.
pub(crate) type Time = u64;

pub(crate) const MILLI: Time = 1_000_000;
pub(crate) const SECOND: Time = 1000 * MILLI;
/// All has to be as it should be so long after the last fault,
const CONVERGENCE: Time = 5 * SECOND;
/// and so long without a break, or it does not count.
const STEADY: Time = SECOND;
/// More events than any world has: something goes round in circles.
const MAX_EVENTS: u64 = 5_000_000;

/// What to simulate.
#[derive(Debug, Clone, Copy, Default)]
pub struct Settings {
    /// What all of it follows from.
    pub seed: u64,
    /// How many hosts; none: as the seed says, a few.
    pub hosts: Option<usize>,
    /// Print what happens.
    pub is_shown: bool,
    /// With this fault in it.
    pub plant: Option<Plant>,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// The number of all that happened.
    pub trace: u64,
    /// What did not hold.
    pub failure: Option<String>,
    /// What was done.
    pub counts: Counts,
}

/// How much was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Worlds.
    pub worlds: u64,
    /// Events.
    pub events: u64,
    /// Revisions.
    pub revisions: u64,
    /// Packets of workloads that were sent.
    pub sent: u64,
    /// Packets of workloads that arrived.
    pub received: u64,
    /// Packets after which it was known who must get them, and who must not.
    pub judged: u64,
    /// Of these, those that had to arrive.
    pub due: u64,
    /// Of these, those of IPv6.
    pub due_ipv6: u64,
    /// And those by a router's gateway.
    pub due_by_gateway: u64,
    /// Things that broke.
    pub faults: u64,
    /// Nanoseconds that passed.
    pub passed: u64,
    /// Longest time from the last fault until all was as it should be.
    pub convergence: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.worlds += other.worlds;
        self.events += other.events;
        self.revisions += other.revisions;
        self.sent += other.sent;
        self.received += other.received;
        self.judged += other.judged;
        self.due += other.due;
        self.due_ipv6 += other.due_ipv6;
        self.due_by_gateway += other.due_by_gateway;
        self.faults += other.faults;
        self.passed += other.passed;
        self.convergence = self.convergence.max(other.convergence);
    }
}

/// Something that is to happen. What is named with a run happens only in that run of it.
#[derive(Debug)]
pub(crate) enum Event {
    /// A user does something.
    User,
    /// Interfaces come and go.
    Move,
    /// An interface for a port is attached to a host.
    Attach(String, usize),
    /// Workloads send.
    Send,
    /// A workload answers with this frame.
    Answer {
        host: usize,
        port: String,
        frame: Vec<u8>,
    },
    /// Something breaks.
    Break,
    /// What broke on a way is repaired.
    Repair(faults::Way),
    /// Nothing is broken any more.
    Heal,
    /// What must always hold is looked at.
    Look,
    StartServer(usize),
    Compile(usize, u64),
    Follow(usize, u64),
    Tell(usize, u64),
    StartHost(usize),
    Dial(usize, u64),
    Tick(usize, u64),
    /// A host says to others that it lives.
    Beat(usize, u64),
    /// A message arrives.
    ToServer(u64, Vec<u8>),
    ToHost(u64, Vec<u8>),
    /// The host realises it now, and has said so before.
    Late(u64, Vec<u8>),
    /// The host has taken what was sent last.
    Taken(u64),
    /// One end notices that the stream is over.
    ServerCloses(u64),
    HostCloses(u64),
    /// A frame arrives on the underlay.
    Frame(usize, Vec<u8>),
}

/// Of which version a host or a controller is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// What it says of itself, and of what it takes, lacks what has been added later.
    Former,
    Present,
    /// Each of its messages has more in it.
    Next,
}

/// A stream between a host and a controller.
#[derive(Debug)]
pub(crate) struct Wire {
    host: usize,
    host_run: u64,
    server: usize,
    server_run: u64,
    /// The ends think that it is there.
    at_host: bool,
    at_server: bool,
    /// Messages keep their order.
    last_to_host: Time,
    last_to_server: Time,
    /// Something is under way to the host that it has not taken.
    is_full: bool,
}

/// All of it.
pub(crate) struct World {
    pub(crate) settings: Settings,
    pub(crate) random: Random,
    pub(crate) trace: Trace,
    pub(crate) counts: Counts,
    pub(crate) now: Time,
    epoch: Instant,
    n_asked: u64,
    queue: BTreeMap<(Time, u64), Event>,
    disk: Disk,
    dir: TempDir,
    servers: Vec<Server>,
    nodes: Vec<Node>,
    wires: BTreeMap<u64, Wire>,
    n_wires: u64,
    history: History,
    /// Hosts that have an interface for a port.
    homes: BTreeMap<String, BTreeSet<usize>>,
    probes: BTreeMap<u64, Probe>,
    n_probes: u64,
    /// Receipts have said of all revisions up to this one that they are applied everywhere.
    floor: u64,
    faults: faults::Faults,
    room: Room,
    /// All is as it should be from then on.
    well_since: Option<Time>,
    is_over: bool,
    failure: Option<String>,
}

/// Simulates a world until all is well again, or something does not hold.
pub fn run(settings: Settings) -> Outcome {
    let mut world = match World::new(settings) {
        Ok(world) => world,
        Err(error) => {
            let failure = Some(format!("the world does not begin: {error:#}"));
            return Outcome { trace: 0, failure, counts: Counts::default() };
        }
    };
    world.live();
    world.counts.worlds = 1;
    world.counts.passed = world.now;
    world.counts.revisions = world.disk.newest();
    Outcome { trace: world.trace.hash(), failure: world.failure.take(), counts: world.counts }
}

impl World {
    fn new(settings: Settings) -> anyhow::Result<Self> {
        let mut random = Random::new(settings.seed);
        let n_servers = [1, 2, 2, 3][random.index(4)];
        // Few, mostly; of a hundred worlds one is large.
        let usual = if random.percent(1) { random.within(20, 50) } else { random.within(2, 8) };
        let n_hosts = settings.hosts.unwrap_or(usual as usize).clamp(1, 200);
        // Now and then a log that is soon forgotten.
        let n_revisions = if random.percent(30) { random.within(2, 10) } else { 10_000 };
        let limits = LogLimits { n_revisions, ..LogLimits::default() };
        let disk = Disk::new(limits, n_servers > 1).planted(settings.plant);
        let mut world = Self {
            trace: Trace::new(settings.is_shown),
            counts: Counts::default(),
            now: 0,
            epoch: Instant::now(),
            n_asked: 0,
            queue: BTreeMap::new(),
            disk,
            dir: state_dir()?,
            servers: (0..n_servers).map(|_| Server::new(&mut random)).collect(),
            nodes: Vec::new(),
            wires: BTreeMap::new(),
            n_wires: 0,
            history: History::default(),
            homes: BTreeMap::new(),
            probes: BTreeMap::new(),
            n_probes: 0,
            floor: 0,
            faults: faults::Faults::new(&mut random),
            room: Room {
                ports: 4 + n_hosts as u64 / 2,
                hosts: n_hosts as u64,
                has_gateways: random.percent(60),
            },
            well_since: None,
            is_over: false,
            failure: None,
            random,
            settings,
        };
        world.nodes = (0..n_hosts).map(|idx| Node::new(idx, &mut world.random, n_servers)).collect();
        (0..n_servers).for_each(|server| world.start_server(server));
        (0..n_hosts).for_each(|host| world.start_host(host));
        world.found();
        let length = world.random.within(2, 6) * SECOND;
        world.after(MILLI, Event::User);
        world.after(20 * MILLI, Event::Send);
        world.after(100 * MILLI, Event::Move);
        world.after(300 * MILLI, Event::Break);
        world.after(50 * MILLI, Event::Look);
        world.after(length, Event::Heal);
        Ok(world)
    }

    /// Does one thing after the other.
    fn live(&mut self) {
        while self.failure.is_none() && !self.is_over {
            let Some(((now, _), event)) = self.queue.pop_first() else { break };
            self.now = now;
            self.counts.events += 1;
            if self.counts.events > MAX_EVENTS {
                self.fail(format_args!("there is no end to what happens"));
            }
            let due = self.faults.healed_at.map(|healed| healed + CONVERGENCE);
            if due.is_some_and(|due| now > due && self.well_since.is_none_or(|since| since > due)) {
                let why = self.not_well().unwrap_or_default();
                self.fail(format_args!("not all is well {CONVERGENCE} ns after the last fault: {why}"));
                break;
            }
            self.happen(event);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::User => self.user(),
            Event::Move => self.move_interfaces(),
            Event::Attach(port, host) => self.attach(&port, host),
            Event::Send => self.send_some(),
            Event::Answer { host, port, frame } => self.answer(host, &port, &frame),
            Event::Break => self.break_something(),
            Event::Repair(way) => self.repair(way),
            Event::Heal => self.heal(),
            Event::Look => self.look(),
            Event::StartServer(server) => self.start_server(server),
            Event::Compile(server, run) => self.of_server(server, run, Event::Compile(server, run)),
            Event::Follow(server, run) => self.of_server(server, run, Event::Follow(server, run)),
            Event::Tell(server, run) => self.of_server(server, run, Event::Tell(server, run)),
            Event::StartHost(host) => self.start_host(host),
            Event::Dial(host, run) => self.dial(host, run),
            Event::Tick(host, run) => self.tick(host, run),
            Event::Beat(host, run) => self.beat(host, run),
            Event::ToServer(wire, bytes) => self.server_hears(wire, bytes),
            Event::ToHost(wire, bytes) => self.host_hears(wire, bytes),
            Event::Late(wire, bytes) => self.realise(wire, &bytes),
            Event::Taken(wire) => self.taken(wire),
            Event::ServerCloses(wire) => self.server_closes(wire),
            Event::HostCloses(wire) => self.host_closes(wire),
            Event::Frame(host, frame) => self.frame_arrives(host, &frame),
        }
    }

    /// Has something happen later.
    fn after(&mut self, delay: Time, event: Event) {
        self.at(self.now + delay, event);
    }

    fn at(&mut self, time: Time, event: Event) {
        self.n_asked += 1;
        self.queue.insert((time.max(self.now), self.n_asked), event);
    }

    /// Notes that something does not hold; the first of it is told.
    fn fail(&mut self, what: std::fmt::Arguments<'_>) {
        self.trace.add(self.now, format_args!("FAILURE {what}"));
        let at = Duration::from_nanos(self.now);
        self.failure.get_or_insert_with(|| format!("after {at:?}: {what}"));
    }

    fn has(&self, plant: Plant) -> bool {
        self.settings.plant == Some(plant)
    }

    /// The time as controllers have it.
    fn instant(&self) -> Instant {
        if self.has(Plant::StoppedClock) {
            return self.epoch;
        }
        self.epoch + Duration::from_nanos(self.now)
    }

    /// A time that something takes.
    fn some(&mut self, least: Time, most: Time) -> Time {
        self.random.within(least, most)
    }
}

/// Where hosts keep what outlives them: in memory, where there is such a place.
fn state_dir() -> anyhow::Result<TempDir> {
    let memory = std::path::Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    Ok(made.or_else(|_| tempfile::tempdir())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_is_the_same_world() {
        let mut traces = Vec::new();
        for seed in [1, 2] {
            let settings = Settings { seed, ..Settings::default() };
            let (one, two) = (run(settings), run(settings));
            assert_eq!((one.trace, one.counts), (two.trace, two.counts), "seed {seed}");
            assert_eq!(one.failure, None, "seed {seed}");
            traces.push(one.trace);
        }
        assert_ne!(traces[0], traces[1]);
    }
}
