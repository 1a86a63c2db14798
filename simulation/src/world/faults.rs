//! What breaks, and is repaired.

use std::collections::BTreeSet;

use super::{Event, MILLI, SECOND, Time, World};
use crate::{random::Random, store::Fate};

/// A way that can be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    /// From a host to a controller.
    Control(usize, usize),
    /// Between two hosts.
    Underlay(usize, usize),
    /// From a controller to the store.
    Store(usize),
}

/// What is broken, and how much breaks.
#[derive(Debug)]
pub(crate) struct Faults {
    cut: BTreeSet<Way>,
    /// Frames lost between hosts, of a hundred.
    pub(super) loss: u64,
    /// Commits that take long, and that get lost, of a hundred.
    pub(super) slow_disk: u64,
    lost_commits: u64,
    /// Longest time that a message takes.
    pub(super) slowness: Time,
    /// Between two faults, on average.
    pause: Time,
    /// When the last of it was repaired.
    pub(super) healed_at: Option<Time>,
}

impl Faults {
    pub(super) fn new(random: &mut Random) -> Self {
        let some = |random: &mut Random, most| if random.percent(50) { random.within(1, most) } else { 0 };
        Self {
            cut: BTreeSet::new(),
            loss: some(random, 10),
            slow_disk: some(random, 30),
            lost_commits: some(random, 6),
            slowness: [2 * MILLI, 20 * MILLI, 150 * MILLI][random.index(3)],
            pause: random.within(150, 1200) * MILLI,
            healed_at: None,
        }
    }

    pub(super) fn is_cut_from(&self, host: usize, server: usize) -> bool {
        self.cut.contains(&Way::Control(host, server))
    }

    pub(super) fn is_cut_between(&self, a: usize, b: usize) -> bool {
        self.cut.contains(&Way::Underlay(a.min(b), a.max(b)))
    }
}

impl World {
    /// The next commit may not come to where it should.
    pub(super) fn store_may_fail(&mut self) {
        let is_lost = self.random.percent(self.faults.lost_commits);
        let fate = match self.random.percent(50) {
            _ if !is_lost => Fate::Done,
            true => Fate::LostBefore,
            false => Fate::LostAfter,
        };
        self.disk.set_fate(fate);
    }

    pub(super) fn break_something(&mut self) {
        if self.faults.healed_at.is_some() {
            return;
        }
        self.counts.faults += 1;
        let (host, server) = (self.random.index(self.nodes.len()), self.random.index(self.servers.len()));
        let long = self.some(100 * MILLI, 3 * SECOND);
        match self.random.below(10) {
            0 | 1 => {
                self.crash_server(server);
                self.after(long, Event::StartServer(server));
            }
            2 | 3 => {
                self.crash_host(host);
                self.after(long, Event::StartHost(host));
            }
            4 => {
                // The host is gone for good; its workloads are started elsewhere.
                if self.living().len() > 2 && !self.nodes[host].is_dead {
                    self.crash_host(host);
                    self.nodes[host].is_dead = true;
                    self.evacuate(host);
                }
            }
            5 | 6 => self.cut(Way::Control(host, server), long),
            7 if self.servers.len() > 1 => self.cut(Way::Store(server), long),
            8 => {
                let other = self.random.index(self.nodes.len());
                self.cut(Way::Underlay(host.min(other), host.max(other)), long);
            }
            _ => self.lose_wires(|wire| wire.host == host),
        }
        let pause = self.some(self.faults.pause / 2, self.faults.pause * 2);
        self.after(pause, Event::Break);
    }

    fn cut(&mut self, way: Way, long: Time) {
        self.trace.add(self.now, format_args!("cut: {way:?}"));
        self.faults.cut.insert(way);
        match way {
            Way::Control(host, server) => self.lose_wires(|wire| wire.host == host && wire.server == server),
            Way::Store(server) => self.disk.set_reachable(server, false),
            Way::Underlay(..) => {}
        }
        self.after(long, Event::Repair(way));
    }

    /// Connections are lost, with all that is under way; both ends notice, each in its time.
    fn lose_wires(&mut self, is_lost: impl Fn(&super::Wire) -> bool) {
        let lost = self.wires.iter().filter(|(_, wire)| (wire.at_host || wire.at_server) && is_lost(wire));
        let lost: Vec<u64> = lost.map(|(id, _)| *id).collect();
        for id in lost {
            self.queue.retain(
                |_, event| !matches!(event, Event::ToHost(wire, _) | Event::ToServer(wire, _) if *wire == id),
            );
            let (sooner, later) = (self.some(MILLI, SECOND), self.some(MILLI, SECOND));
            self.after(sooner, Event::HostCloses(id));
            self.after(later, Event::ServerCloses(id));
        }
    }

    pub(super) fn repair(&mut self, way: Way) {
        if !self.faults.cut.remove(&way) {
            return;
        }
        self.trace.add(self.now, format_args!("repaired: {way:?}"));
        if let Way::Store(server) = way {
            self.disk.set_reachable(server, true);
            let run = self.servers[server].run;
            self.after(MILLI, Event::Follow(server, run));
        }
    }

    /// All is repaired, and users do nothing more.
    pub(super) fn heal(&mut self) {
        self.trace.add(self.now, format_args!("all is repaired"));
        for way in std::mem::take(&mut self.faults.cut) {
            self.faults.cut.insert(way);
            self.repair(way);
        }
        (self.faults.loss, self.faults.slow_disk, self.faults.lost_commits) = (0, 0, 0);
        self.faults.slowness = 20 * MILLI;
        self.disk.set_fate(Fate::Done);
        (0..self.servers.len()).for_each(|server| self.start_server(server));
        (0..self.nodes.len()).for_each(|host| self.start_host(host));
        self.settle_homes();
        self.end_movements();
        self.faults.healed_at = Some(self.now);
    }
}
