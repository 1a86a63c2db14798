//! Hosts: real ones, with state, lowering, switch and responder; their ports are queues of frames, their
//! clocks go by the world's, a little faster or slower.

use std::{collections::BTreeSet, fs, net::Ipv4Addr, path::PathBuf, time::Duration};

use dataplane::{Clock, Dataplane, DataplaneConfig, VirtualClock};
use ferroflow_proto::chassis::{Ack, Hello, SyncRequest, SyncResponse, sync_request::Message};
use flowtable::{program::TunnelKind, switch::SwitchConfig, types::BridgeId};
use prost::Message as _;
use vswitchd::{
    agent::{Outbox, Said},
    bfd::Timing,
    host::{Host, Identity, LAB_UPLINK, Lab, Mode, NewLabPort, Sent, Way},
    lab::underlay_destination,
    state::StateDir,
};

use super::{Event, MILLI, SECOND, Time, Version, Wire, World};
use crate::{plant::Plant, random::Random, skew::said_by_next};

/// First and longest pause between attempts to connect, as of real agents.
const FIRST_PAUSE: Time = 100 * MILLI;
const LONGEST_PAUSE: Time = 2 * SECOND;
/// How often a host looks after what goes by time.
const TICK: Time = 500 * MILLI;
/// How often it looks whether it has to say that it lives, and whether others have.
const BEAT: Time = 100 * MILLI;
/// Connections that a host can track, frames that it has room for, entries of its caches.
const N_CONNECTIONS: usize = 1 << 10;
const N_FRAMES: usize = 64;
const CACHES: SwitchConfig = SwitchConfig { n_sessions: 1 << 8, n_megaflows: 1 << 9 };

/// A host's place.
pub(super) struct Node {
    pub(super) running: Option<Running>,
    /// Counts its runs.
    pub(super) run: u64,
    /// What a controller has been told that it forwards by, in any of its runs.
    pub(super) acknowledged: u64,
    /// It is not started again.
    pub(super) is_dead: bool,
    pub(super) ip: Ipv4Addr,
    /// The controllers in the order in which it asks them.
    order: Vec<usize>,
    /// How much faster its clock goes, in millionths; slower when below zero.
    drift: i64,
    version: Version,
}

/// A host that runs.
pub(super) struct Running {
    pub(super) host: Host,
    clock: VirtualClock,
    at: Time,
    said: Said,
    /// The stream, as the host sees it.
    pub(super) wire: Option<u64>,
    outbox: Option<Outbox>,
    pause: Time,
    turn: usize,
}

impl Node {
    pub(super) fn new(idx: usize, random: &mut Random, n_servers: usize) -> Self {
        let first = random.index(n_servers);
        let [high, low] = (idx as u16 + 1).to_be_bytes();
        Self {
            running: None,
            run: 0,
            acknowledged: 0,
            is_dead: false,
            ip: Ipv4Addr::new(198, 18, high, low),
            order: (0..n_servers).map(|n| (first + n) % n_servers).collect(),
            drift: random.within(0, 40_000) as i64 - 20_000,
            version: [Version::Former, Version::Next, Version::Present, Version::Present][random.index(4)],
        }
    }
}

impl Node {
    /// A controller that is behind may set it back: it does not say what it goes by.
    pub(super) fn may_go_back(&self) -> bool {
        self.version == Version::Former
    }
}

/// Id of a host.
pub(super) fn chassis(idx: usize) -> String {
    format!("h{idx}")
}

impl World {
    fn state_of(&self, idx: usize) -> PathBuf {
        self.dir.path().join(chassis(idx))
    }

    /// A host begins, with what it has left of itself.
    pub(super) fn start_host(&mut self, idx: usize) {
        if self.nodes[idx].running.is_some() || self.nodes[idx].is_dead {
            return;
        }
        self.nodes[idx].run += 1;
        let (run, ip) = (self.nodes[idx].run, self.nodes[idx].ip);
        self.trace.add(self.now, format_args!("host {idx} starts, run {run}"));
        let clock = VirtualClock::new();
        clock.set_stopped(true);
        let config = DataplaneConfig {
            inline: true,
            clock: Clock::Virtual(clock.clone()),
            seed: Some(self.settings.seed),
            n_connections: N_CONNECTIONS,
            n_frames: N_FRAMES,
            switch: CACHES,
            ..DataplaneConfig::default()
        };
        let identity = Identity {
            chassis: chassis(idx),
            hostname: chassis(idx),
            endpoint: Some((LAB_UPLINK.to_owned(), ip.into())),
            internal_port: None,
            own_address: None,
            encap_types: vec![TunnelKind::Geneve],
            tunnel_peers: Vec::new(),
            controller: None,
            liveness: Timing { interval: Duration::from_millis(300), multiplier: 3 },
        };
        let mode = Mode::LabNetwork(Lab::among_others(clock.clone()).in_run(run));
        let started = Dataplane::start(config).map_err(anyhow::Error::from).and_then(|dataplane| {
            let state = StateDir::open(&self.state_of(idx))?;
            Ok(Host::start(identity, dataplane, state, mode)?)
        });
        let host = match started {
            Ok(host) => host,
            Err(error) => return self.fail(format_args!("host {idx} does not start: {error:#}")),
        };
        let (acknowledged, applied) = (self.nodes[idx].acknowledged, host.applied_revision());
        if applied < acknowledged {
            self.fail(format_args!(
                "host {idx} has acknowledged revision {acknowledged}, and comes back with {applied}"
            ));
        }
        self.nodes[idx].running = Some(Running {
            said: Said::of(&host),
            host,
            clock,
            at: self.now,
            wire: None,
            outbox: None,
            pause: FIRST_PAUSE,
            turn: 0,
        });
        let soon = self.some(MILLI, 50 * MILLI);
        self.after(soon, Event::Dial(idx, run));
        self.after(TICK, Event::Tick(idx, run));
        self.after(BEAT, Event::Beat(idx, run));
    }

    /// A host is gone; what is on its disk stays.
    pub(super) fn crash_host(&mut self, idx: usize) {
        self.check_books(idx);
        let Some(running) = self.nodes[idx].running.take() else { return };
        self.trace.add(self.now, format_args!("host {idx} is gone"));
        if self.has(Plant::LostState) {
            // What cannot be removed is not lost, and the fault is not found.
            let _ = fs::remove_dir_all(self.state_of(idx));
        }
        if let Some(id) = running.wire {
            self.at_host_over(id);
        }
    }

    /// Does something with a host, at its time; takes what has left it.
    pub(super) fn with_host<T>(
        &mut self,
        idx: usize,
        act: impl FnOnce(&mut Host) -> (T, Vec<Sent>),
    ) -> Option<T> {
        let (now, drift) = (self.now, self.nodes[idx].drift);
        let running = self.nodes[idx].running.as_mut()?;
        let passed = (now - running.at) as i64;
        running.at = now;
        running.clock.advance(Duration::from_nanos((passed + passed / 1_000_000 * drift).max(0) as u64));
        let (done, mut sent) = act(&mut running.host);
        sent.extend(running.host.settle());
        let outgoing = running.host.take_outgoing();
        for frame in outgoing {
            self.on_underlay(idx, frame.frame);
        }
        for one in sent.into_iter().filter(|one| one.port != LAB_UPLINK) {
            self.received(idx, &one.port, &one.frame);
            if self.has(Plant::TwiceDelivered) && self.random.percent(2) {
                self.received(idx, &one.port, &one.frame);
            }
        }
        self.speak(idx);
        Some(done)
    }

    /// A frame leaves a host for another one.
    fn on_underlay(&mut self, idx: usize, frame: Vec<u8>) {
        let to = underlay_destination(&frame);
        let Some(to) = self.nodes.iter().position(|node| Some(node.ip) == to) else { return };
        let is_lost = self.random.percent(self.faults.loss) || self.faults.is_cut_between(idx, to);
        if is_lost {
            return;
        }
        let delay = self.some(MILLI / 20, self.faults.slowness);
        self.after(delay, Event::Frame(to, frame));
    }

    /// A frame comes to a host.
    pub(super) fn frame_arrives(&mut self, idx: usize, frame: &[u8]) {
        self.with_host(idx, |host| ((), host.arrive(&Way::Underlay, frame)));
    }

    pub(super) fn tick(&mut self, idx: usize, run: u64) {
        if self.nodes[idx].run != run || self.nodes[idx].running.is_none() {
            return;
        }
        let repaired = self.with_host(idx, |host| {
            host.let_time_pass();
            host.audit();
            (host.n_repairs(), Vec::new())
        });
        if repaired.is_some_and(|n| n > 0) {
            self.fail(format_args!("host {idx}: its tables had drifted from the network"));
        }
        self.after(TICK, Event::Tick(idx, run));
    }

    pub(super) fn beat(&mut self, idx: usize, run: u64) {
        if self.nodes[idx].run != run {
            return;
        }
        let Some(running) = &self.nodes[idx].running else { return };
        let speaks = running.host.bfd().has_sessions();
        self.after(BEAT, Event::Beat(idx, run));
        if speaks {
            self.with_host(idx, |host| {
                let (_, is_late) = host.bfd().tick();
                if is_late {
                    host.tend_gateways();
                }
                ((), Vec::new())
            });
        }
    }

    /// Tries to connect to the controller whose turn it is.
    pub(super) fn dial(&mut self, idx: usize, run: u64) {
        if self.nodes[idx].run != run {
            return;
        }
        let node = &self.nodes[idx];
        let Some(running) = node.running.as_ref().filter(|running| running.wire.is_none()) else { return };
        let server = node.order[running.turn % node.order.len()];
        let answers = self.servers[server].running.is_some() && !self.faults.is_cut_from(idx, server);
        self.trace.add(self.now, format_args!("host {idx} dials controller {server}, {answers}"));
        if !answers {
            return self.dial_later(idx);
        }
        self.n_wires += 1;
        let id = self.n_wires;
        let wire = Wire {
            host: idx,
            host_run: run,
            server,
            server_run: self.servers[server].run,
            at_host: true,
            at_server: true,
            last_to_host: self.now,
            last_to_server: self.now,
            is_full: false,
        };
        self.wires.insert(id, wire);
        if let Some(running) = &mut self.nodes[idx].running {
            running.wire = Some(id);
            running.outbox = Some(Outbox::new(running.host.begin_stream(), running.said.clone()));
        }
        self.speak(idx);
    }

    fn dial_later(&mut self, idx: usize) {
        let run = self.nodes[idx].run;
        let Some(running) = &mut self.nodes[idx].running else { return };
        running.turn += 1;
        let pause = running.pause;
        running.pause = (pause * 2).min(LONGEST_PAUSE);
        self.after(pause, Event::Dial(idx, run));
    }

    /// Sends what the host has to say.
    pub(super) fn speak(&mut self, idx: usize) {
        let Some(running) = &mut self.nodes[idx].running else { return };
        let (Some(id), Some(outbox)) = (running.wire, &mut running.outbox) else { return };
        for mut message in outbox.take() {
            if let (Version::Former, Some(Message::Hello(hello))) =
                (self.nodes[idx].version, &mut message.message)
            {
                *hello = Hello { encap_types: Vec::new(), stream: 0, applied: 0, ..hello.clone() };
            }
            self.send_up(id, &message);
        }
    }

    fn send_up(&mut self, id: u64, message: &SyncRequest) {
        let delay = self.some(MILLI / 5, self.faults.slowness);
        let Some(wire) = self.wires.get_mut(&id).filter(|wire| wire.at_host) else { return };
        wire.last_to_server = wire.last_to_server.max(self.now + delay);
        let time =
            if self.settings.plant == Some(Plant::Disorder) { self.now + delay } else { wire.last_to_server };
        let (host, mut bytes) = (wire.host, message.encode_to_vec());
        if self.nodes[host].version == Version::Next {
            bytes = said_by_next("SyncRequest", &bytes).unwrap_or_default();
        }
        self.at(time, Event::ToServer(id, bytes));
    }

    /// A message of a controller arrives.
    pub(super) fn host_hears(&mut self, id: u64, bytes: Vec<u8>) {
        if self.has(Plant::EarlyAck)
            && let Ok(SyncResponse { revision, .. }) = SyncResponse::decode(bytes.as_slice())
        {
            self.acknowledge(id, revision, Vec::new());
            return self.after(300 * MILLI, Event::Late(id, bytes));
        }
        self.realise(id, &bytes);
    }

    /// The host that hears this does what an update says.
    pub(super) fn realise(&mut self, id: u64, bytes: &[u8]) {
        let Some(wire) = self.wires.get(&id).filter(|wire| wire.at_host) else { return };
        let (idx, run) = (wire.host, wire.host_run);
        if self.nodes[idx].run != run || self.nodes[idx].running.is_none() {
            return;
        }
        let Ok(mut update) = SyncResponse::decode(bytes) else {
            return self.fail(format_args!("an update cannot be read"));
        };
        if self.has(Plant::StaleLocation)
            && let Some(running) = self.nodes[idx].running.as_ref().filter(|_| !update.full)
        {
            update.port_bindings.retain(|binding| !running.host.view().bindings.contains_key(&binding.name));
        }
        let node = &mut self.nodes[idx];
        let outbox = node.running.as_mut().and_then(|running| running.outbox.as_mut());
        if let Some(outbox) = outbox.filter(|_| node.version != Version::Former) {
            outbox.hear(&update);
        }
        let revision = update.revision;
        let errors = self.with_host(idx, |host| {
            host.set_connected(true);
            (host.realise(update), Vec::new())
        });
        let errors = errors.unwrap_or_default();
        if !errors.is_empty() {
            self.fail(format_args!("host {idx} cannot realise revision {revision}: {errors:?}"));
        }
        if let Some(running) = &mut self.nodes[idx].running {
            running.pause = FIRST_PAUSE;
        }
        self.trace.add(self.now, format_args!("host {idx} realises {revision}"));
        if !self.has(Plant::EarlyAck) {
            self.acknowledge(id, revision, errors);
        }
    }

    fn acknowledge(&mut self, id: u64, revision: u64, errors: Vec<String>) {
        let Some(wire) = self.wires.get(&id).filter(|wire| wire.at_host) else { return };
        let (idx, run) = (wire.host, wire.host_run);
        if self.nodes[idx].run != run {
            return;
        }
        let node = &mut self.nodes[idx];
        node.acknowledged = if node.may_go_back() { revision } else { node.acknowledged.max(revision) };
        self.send_up(id, &SyncRequest { message: Some(Message::Ack(Ack { revision, errors })) });
        let delay = self.some(MILLI / 5, self.faults.slowness);
        self.after(delay, Event::Taken(id));
    }

    /// The host's end of a stream is over; the controller notices.
    pub(super) fn at_host_over(&mut self, id: u64) {
        let delay = self.some(MILLI, 500 * MILLI);
        let Some(wire) = self.wires.get_mut(&id) else { return };
        wire.at_host = false;
        self.after(delay, Event::ServerCloses(id));
    }

    /// A host notices that its stream is over.
    pub(super) fn host_closes(&mut self, id: u64) {
        let Some(wire) = self.wires.get_mut(&id).filter(|wire| wire.at_host) else { return };
        wire.at_host = false;
        let (idx, run) = (wire.host, wire.host_run);
        if self.nodes[idx].run != run {
            return;
        }
        let Some(running) = self.nodes[idx].running.as_mut().filter(|running| running.wire == Some(id))
        else {
            return;
        };
        (running.wire, running.outbox) = (None, None);
        running.host.set_connected(false);
        self.dial_later(idx);
    }

    /// An interface for a port is there.
    pub(super) fn attach(&mut self, port: &str, idx: usize) {
        let new =
            NewLabPort { name: port.to_owned(), logical_port: port.to_owned(), ..NewLabPort::default() };
        let added = self.with_host(idx, |host| (host.add_lab_port(BridgeId::FIRST, &new), Vec::new()));
        match added {
            None => {}
            Some(Ok(_)) => {
                self.trace.add(self.now, format_args!("host {idx} has {port}"));
                self.homes.entry(port.to_owned()).or_default().insert(idx);
            }
            Some(Err(error)) => self.fail(format_args!("host {idx} cannot have {port}: {error}")),
        }
    }

    /// It is not there any more.
    pub(super) fn detach(&mut self, port: &str, idx: usize) {
        let removed = self.with_host(idx, |host| (host.remove_port(port), Vec::new()));
        if let Some(Err(error)) = removed {
            return self.fail(format_args!("host {idx} cannot give up {port}: {error}"));
        }
        if removed.is_some() {
            self.trace.add(self.now, format_args!("host {idx} has {port} no more"));
            if let Some(homes) = self.homes.get_mut(port) {
                homes.remove(&idx);
            }
        }
    }

    /// Hosts that run.
    pub(super) fn living(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|idx| self.nodes[*idx].running.is_some()).collect()
    }

    /// Where a port's interface is, of hosts that run.
    pub(super) fn homes_of(&self, port: &str) -> BTreeSet<usize> {
        let homes = self.homes.get(port).into_iter().flatten().copied();
        homes.filter(|idx| self.nodes[*idx].running.is_some()).collect()
    }
}
