//! Controllers: real ones, whose streams, watches and rounds are events.

use std::{collections::BTreeMap, sync::Arc};

use controller::{
    access::{Access, Caller},
    chassis::Dialogue,
    company::{Company, Follower},
    controller::Controller,
    network,
    northbound::Northbound,
    resource::Name,
    state::Binding,
    store::LogLimits,
};
use ferroflow_proto::chassis::SyncRequest;
use prost::Message as _;

use super::{Event, MILLI, SECOND, Time, Version, World};
use crate::{plant::Plant, random::Random, skew::said_by_next, store::Made};

/// How often controllers tell each other of hosts, and look for news that they were not told of.
const ROUND: Time = 200 * MILLI;

/// A controller's place.
pub(super) struct Server {
    pub(super) running: Option<Running>,
    /// Counts its runs.
    pub(super) run: u64,
    /// It waits for the store until then.
    pub(super) busy_until: Time,
    version: Version,
}

impl Server {
    pub(super) fn new(random: &mut Random) -> Self {
        let version = match random.below(100) {
            0..15 => Version::Next,
            15..30 => Version::Former,
            _ => Version::Present,
        };
        Self { running: None, run: 0, busy_until: 0, version }
    }
}

/// A controller that runs.
pub(super) struct Running {
    pub(super) controller: Arc<Controller>,
    pub(super) northbound: Northbound,
    follower: Follower,
    company: Company,
    dialogues: BTreeMap<u64, Dialogue>,
    /// Revision that was seen last.
    seen: u64,
    is_compiling: bool,
}

impl World {
    pub(super) fn start_server(&mut self, idx: usize) {
        if self.servers[idx].running.is_some() {
            return;
        }
        let limits = LogLimits::default();
        let opened = Controller::open_with(self.disk.link(idx), limits, Access::default());
        let Ok(controller) = opened else {
            // Its supervisor tries again.
            self.trace.add(self.now, format_args!("controller {idx} does not start"));
            let pause = self.some(100 * MILLI, SECOND);
            return self.after(pause, Event::StartServer(idx));
        };
        self.servers[idx].run += 1;
        let run = self.servers[idx].run;
        self.trace.add(self.now, format_args!("controller {idx} starts, run {run}"));
        let company = Company::new(format!("c{idx}.{run}"), self.instant());
        self.servers[idx].running = Some(Running {
            northbound: Northbound::new(Arc::clone(&controller)),
            controller,
            follower: Follower::default(),
            company,
            dialogues: BTreeMap::new(),
            seen: 0,
            is_compiling: true,
        });
        self.servers[idx].busy_until = self.now;
        self.after(MILLI, Event::Compile(idx, run));
        if self.servers.len() > 1 {
            self.after(MILLI, Event::Tell(idx, run));
        }
    }

    /// It is gone, in the middle of whatever it does.
    pub(super) fn crash_server(&mut self, idx: usize) {
        let Some(running) = self.servers[idx].running.take() else { return };
        self.trace.add(self.now, format_args!("controller {idx} is gone"));
        drop(running);
        let wires: Vec<_> =
            self.wires.iter().filter(|(_, wire)| wire.server == idx && wire.at_server).collect();
        let wires: Vec<_> = wires.into_iter().map(|(id, _)| *id).collect();
        for id in wires {
            self.at_server_over(id);
        }
    }

    /// The controller's end of a stream is over; the host notices.
    fn at_server_over(&mut self, id: u64) {
        let delay = self.some(MILLI, 500 * MILLI);
        let Some(wire) = self.wires.get_mut(&id) else { return };
        wire.at_server = false;
        self.after(delay, Event::HostCloses(id));
    }

    /// Something that a controller does by itself.
    pub(super) fn of_server(&mut self, idx: usize, run: u64, event: Event) {
        if self.servers[idx].run != run || self.servers[idx].running.is_none() {
            return;
        }
        let busy_until = self.servers[idx].busy_until;
        if busy_until > self.now {
            return self.at(busy_until, event);
        }
        let now = self.instant();
        let newest = self.disk.newest();
        let Some(running) = &mut self.servers[idx].running else { return };
        match event {
            Event::Compile(..) => {
                running.is_compiling = false;
                network::follow(&running.controller);
            }
            Event::Follow(..) => self.follow(idx),
            Event::Tell(..) => {
                running.company.tell(&running.controller, now);
                let is_behind = running.controller.state().revision().get() < newest;
                let overdue: Vec<u64> = running
                    .dialogues
                    .iter()
                    .filter(|(_, dialogue)| dialogue.tend(now).is_err())
                    .map(|(id, _)| *id)
                    .collect();
                overdue.into_iter().for_each(|id| self.end_dialogue(idx, id));
                if is_behind && self.disk.is_reachable(idx) {
                    self.follow(idx);
                }
                self.after(ROUND, Event::Tell(idx, run));
            }
            _ => {}
        }
        self.served(idx);
    }

    fn follow(&mut self, idx: usize) {
        self.store_may_fail();
        let Some(running) = &mut self.servers[idx].running else { return };
        let before = running.controller.state().revision();
        let done = running.follower.follow(&running.controller, true);
        let after = running.controller.state().revision();
        self.trace
            .add(self.now, format_args!("controller {idx} follows {before} → {after}, {}", done.is_ok()));
        if done.is_err() {
            let run = self.servers[idx].run;
            self.after(ROUND, Event::Follow(idx, run));
        }
    }

    /// A controller has done something: what follows from it.
    pub(super) fn served(&mut self, idx: usize) {
        self.committed(idx);
        let Some(running) = &mut self.servers[idx].running else { return };
        if running.controller.ending().borrow().is_some() {
            self.crash_server(idx);
            let pause = self.some(100 * MILLI, SECOND);
            return self.after(pause, Event::StartServer(idx));
        }
        let revision = running.controller.state().revision().get();
        if revision != running.seen && !running.is_compiling {
            running.is_compiling = true;
            let (run, delay) = (self.servers[idx].run, self.some(MILLI / 10, 20 * MILLI));
            self.after(delay, Event::Compile(idx, run));
        }
        let Some(running) = &mut self.servers[idx].running else { return };
        running.seen = revision;
        let ended = running.dialogues.iter().filter(|(_, dialogue)| dialogue.ended().is_some());
        let ended: Vec<u64> = ended.map(|(id, _)| *id).collect();
        for id in ended {
            self.end_dialogue(idx, id);
        }
        self.say(idx);
    }

    /// What was written by a controller is seen by the others some time.
    pub(super) fn committed(&mut self, idx: usize) {
        let made = self.disk.take_made();
        for Made { revision, keys } in &made {
            self.trace.add(self.now, format_args!("controller {idx} made revision {revision}"));
            self.tell_of(idx, keys);
        }
        if made.is_empty() {
            return;
        }
        for other in (0..self.servers.len()).filter(|other| *other != idx) {
            if self.disk.is_reachable(other) {
                let (run, delay) = (self.servers[other].run, self.some(MILLI, 60 * MILLI));
                self.after(delay, Event::Follow(other, run));
            }
        }
        // Now and then the disk takes its time.
        if self.random.percent(self.faults.slow_disk) {
            let wait = self.some(MILLI, 800 * MILLI);
            self.servers[idx].busy_until = self.now + wait;
        }
    }

    /// Has the trace tell where ports are now.
    fn tell_of(&mut self, idx: usize, keys: &[String]) {
        let Some(running) = self.servers[idx].running.as_ref().filter(|_| self.settings.is_shown) else {
            return;
        };
        let state = running.controller.state();
        for record in keys.iter().filter_map(|key| Name::parse(key).ok()).filter_map(|name| state.get(&name))
        {
            if let Some(Binding { chassis, up, since }) = &record.binding {
                let up = if *up { ", up" } else { "" };
                self.trace.note(format_args!("    {} at {chassis}{up}, since {since}", record.name));
            }
        }
    }

    /// Sends hosts what is new for them, as far as they have taken what was before.
    fn say(&mut self, idx: usize) {
        let Some(running) = &self.servers[idx].running else { return };
        let mut said = Vec::new();
        for (id, dialogue) in &running.dialogues {
            if self.wires.get(id).is_some_and(|wire| !wire.is_full)
                && let Some(update) = dialogue.say()
            {
                said.push((*id, update));
            }
        }
        for (id, update) in said {
            let mut update = update;
            if self.has(Plant::MissedUnit) && !update.full {
                update.logical_flows.pop();
            }
            let version = self.servers[idx].version;
            update.takes_claim_changes &= version != Version::Former;
            let (revision, mut bytes) = (update.revision, update.encode_to_vec());
            if version == Version::Next {
                bytes = said_by_next("SyncResponse", &bytes).unwrap_or_default();
            }
            let delay = self.some(MILLI / 5, self.faults.slowness);
            let Some(wire) = self.wires.get_mut(&id) else { continue };
            wire.is_full = true;
            wire.last_to_host = wire.last_to_host.max(self.now + delay);
            let (time, host) = (wire.last_to_host, wire.host);
            let whole = if update.full { " whole" } else { "" };
            self.trace.add(self.now, format_args!("controller {idx} tells host {host}{whole} {revision}"));
            self.trace.bytes(&bytes);
            self.at(time, Event::ToHost(id, bytes));
        }
    }

    /// A message of a host arrives.
    pub(super) fn server_hears(&mut self, id: u64, bytes: Vec<u8>) {
        let Some(wire) = self.wires.get(&id).filter(|wire| wire.at_server) else { return };
        let idx = wire.server;
        if self.servers[idx].busy_until > self.now {
            let busy_until = self.servers[idx].busy_until;
            return self.at(busy_until, Event::ToServer(id, bytes));
        }
        self.trace.add(self.now, format_args!("controller {idx} hears by {id}"));
        self.trace.bytes(&bytes);
        let Ok(request) = SyncRequest::decode(bytes.as_slice()) else {
            return self.fail(format_args!("a message cannot be read"));
        };
        self.store_may_fail();
        let now = self.instant();
        let Some(running) = &mut self.servers[idx].running else { return };
        let heard = match running.dialogues.get(&id) {
            Some(dialogue) => dialogue.hear(request, now),
            None => Dialogue::begin(Arc::clone(&running.controller), &Caller::local(), Some(request))
                .map(|dialogue| drop(running.dialogues.insert(id, dialogue))),
        };
        if let Err(status) = heard {
            self.trace.add(self.now, format_args!("controller {idx} refuses: {}", status.message()));
            self.end_dialogue(idx, id);
        }
        self.served(idx);
    }

    /// A stream ends, as the controller sees it.
    fn end_dialogue(&mut self, idx: usize, id: u64) {
        let Some(running) = &mut self.servers[idx].running else { return };
        if let Some(dialogue) = running.dialogues.remove(&id) {
            dialogue.finish();
        }
        if self.wires.get(&id).is_some_and(|wire| wire.at_server) {
            self.at_server_over(id);
        }
    }

    /// A controller notices that a host has gone.
    pub(super) fn server_closes(&mut self, id: u64) {
        let Some(wire) = self.wires.get(&id).filter(|wire| wire.at_server) else { return };
        let idx = wire.server;
        if self.servers[idx].busy_until > self.now {
            let busy_until = self.servers[idx].busy_until;
            return self.at(busy_until, Event::ServerCloses(id));
        }
        self.store_may_fail();
        self.end_dialogue(idx, id);
        self.served(idx);
    }

    /// The host has taken what was sent.
    pub(super) fn taken(&mut self, id: u64) {
        let Some(wire) = self.wires.get_mut(&id) else { return };
        wire.is_full = false;
        let (idx, run) = (wire.server, wire.server_run);
        if self.servers[idx].run == run {
            self.say(idx);
        }
    }
}
