//! Who is at the other end of each port: the link layer discovery protocol (IEEE 802.1AB-2016).
//!
//! [`Unit`] is what neighbours tell each other, [`Agent`] tells it by each port of a bridge and
//! remembers what is told there, as long as it is said to be true.

mod unit;

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use flowtable::types::{MacAddr, Timestamp};

pub use self::unit::{ADDRESS, BRIDGE, ETHER_TYPE, Id, Unit};

/// Neighbours of one port that are remembered.
pub const MAX_NEIGHBOURS: usize = 16;
/// Units that are sent soon after each other when a link comes up or somebody new is there
/// (§9.2.5.19, §9.2.5.17).
const N_FAST: u8 = 4;
const FAST: Duration = Duration::from_secs(1);

/// What is told, and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The bridge's address, by which neighbours know it.
    pub address: MacAddr,
    /// Name of the system.
    pub system_name: String,
    /// What it is.
    pub system_description: String,
    /// Where it is managed.
    pub management: Vec<IpAddr>,
    /// Between two units.
    pub interval: Duration,
    /// What is told is true for so many intervals.
    pub hold: u16,
}

/// How a port takes part.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PortConfig {
    /// Its name.
    pub name: String,
    /// It has a link.
    pub is_up: bool,
    /// It tells.
    pub sends: bool,
    /// It listens.
    pub receives: bool,
}

/// Somebody at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// What it has said last.
    pub unit: Unit,
    /// It is forgotten then.
    pub expires: Timestamp,
}

#[derive(Debug, Clone, Default)]
struct Port {
    config: PortConfig,
    next: Timestamp,
    n_fast: u8,
    /// By chassis and port.
    neighbours: BTreeMap<(Id, Id), Neighbour>,
    counters: Counters,
}

/// What a port has counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Units sent.
    pub n_sent: u64,
    /// Units heard.
    pub n_received: u64,
    /// Neighbours that were forgotten because they were silent.
    pub n_aged_out: u64,
    /// Neighbours that there was no room for.
    pub n_refused: u64,
}

/// The agent of a bridge.
#[derive(Debug, Clone)]
pub struct Agent {
    config: Config,
    ports: BTreeMap<u16, Port>,
    frames: Vec<(u16, Vec<u8>)>,
}

impl Agent {
    /// Without ports.
    pub fn new(config: Config) -> Self {
        Self { config, ports: BTreeMap::new(), frames: Vec::new() }
    }

    /// Changes what is told; neighbours hear of it soon.
    pub fn set_config(&mut self, config: Config) {
        if self.config != config {
            self.config = config;
            self.ports.values_mut().for_each(Port::hurry);
        }
    }

    /// Adds or changes a port.
    pub fn set_port(&mut self, id: u16, config: PortConfig) {
        let port = self.ports.entry(id).or_default();
        if port.config == config {
            return;
        }
        let old = std::mem::replace(&mut port.config, config);
        if !(port.config.is_up && port.config.receives) {
            port.neighbours.clear();
        }
        if old.sends && old.is_up && !port.config.sends {
            let unit = farewell(&self.config, &old);
            self.frames.push((id, unit.to_frame(self.config.address)));
        }
        port.hurry();
    }

    /// Takes a port away.
    pub fn remove_port(&mut self, id: u16) {
        self.ports.remove(&id);
    }

    /// The ports.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        self.ports.keys().copied()
    }

    /// What a port hears, and has counted.
    pub fn port(&self, id: u16) -> Option<(Vec<&Neighbour>, Counters)> {
        self.ports.get(&id).map(|port| (port.neighbours.values().collect(), port.counters))
    }

    /// A unit has come by a port.
    pub fn receive(&mut self, now: Timestamp, id: u16, unit: Unit) {
        let Some(port) = self.ports.get_mut(&id).filter(|port| port.config.receives) else { return };
        port.counters.n_received += 1;
        let key = (unit.chassis.clone(), unit.port.clone());
        if unit.ttl == 0 {
            port.neighbours.remove(&key);
            return;
        }
        let is_new = !port.neighbours.contains_key(&key);
        if is_new && port.neighbours.len() >= MAX_NEIGHBOURS {
            port.counters.n_refused += 1;
            return;
        }
        let expires = now.after(Duration::from_secs(unit.ttl.into()));
        port.neighbours.insert(key, Neighbour { unit, expires });
        if is_new {
            port.hurry();
        }
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Timestamp) {
        for (id, port) in &mut self.ports {
            let n_before = port.neighbours.len();
            port.neighbours.retain(|_, neighbour| now < neighbour.expires);
            port.counters.n_aged_out += (n_before - port.neighbours.len()) as u64;
            if !(port.config.is_up && port.config.sends) || now < port.next {
                continue;
            }
            let is_fast = port.n_fast > 0;
            port.n_fast = port.n_fast.saturating_sub(1);
            port.next =
                now.after(if is_fast { FAST.min(self.config.interval) } else { self.config.interval });
            port.counters.n_sent += 1;
            let ttl = (self.config.interval.as_secs() * u64::from(self.config.hold) + 1).min(u16::MAX.into());
            let unit = unit(&self.config, &port.config, ttl as u16);
            self.frames.push((*id, unit.to_frame(self.config.address)));
        }
    }

    /// Tells all neighbours that what was told is not true any more.
    pub fn end(&mut self) {
        for (id, port) in &self.ports {
            if port.config.is_up && port.config.sends {
                let unit = farewell(&self.config, &port.config);
                self.frames.push((*id, unit.to_frame(self.config.address)));
            }
        }
    }

    /// Takes the frames that are to be sent, each with its port.
    pub fn take_frames(&mut self) -> Vec<(u16, Vec<u8>)> {
        std::mem::take(&mut self.frames)
    }
}

impl Port {
    /// The next units are sent soon.
    fn hurry(&mut self) {
        (self.next, self.n_fast) = (Timestamp::default(), N_FAST);
    }
}

fn unit(config: &Config, port: &PortConfig, ttl: u16) -> Unit {
    Unit {
        chassis: Id::of_chassis(config.address),
        port: Id::of_interface(&port.name),
        ttl,
        port_description: port.name.clone(),
        system_name: config.system_name.clone(),
        system_description: config.system_description.clone(),
        capabilities: Some((BRIDGE, BRIDGE)),
        management: config.management.clone(),
    }
}

/// What was told is not true any more (§9.1.2.2).
fn farewell(config: &Config, port: &PortConfig) -> Unit {
    Unit {
        ttl: 0,
        port_description: String::new(),
        system_name: String::new(),
        system_description: String::new(),
        capabilities: None,
        management: Vec::new(),
        ..unit(config, port, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_nanos(secs * 1_000_000_000)
    }

    fn config(last: u8) -> Config {
        Config {
            address: MacAddr::new([2, 0, 0, 0, 0, last]),
            system_name: format!("host-{last}"),
            system_description: "a switch".to_owned(),
            management: vec!["192.0.2.1".parse().unwrap()],
            interval: Duration::from_secs(30),
            hold: 4,
        }
    }

    fn port(name: &str) -> PortConfig {
        PortConfig { name: name.to_owned(), is_up: true, sends: true, receives: true }
    }

    /// Gives what one sends to the other.
    fn talk(from: &mut Agent, to: &mut Agent, now: Timestamp) -> usize {
        from.tick(now);
        carry(from, to, now)
    }

    fn carry(from: &mut Agent, to: &mut Agent, now: Timestamp) -> usize {
        let frames = from.take_frames();
        for (_, frame) in &frames {
            to.receive(now, 1, Unit::parse(frame).unwrap());
        }
        frames.len()
    }

    #[test]
    fn neighbours_know_each_other_until_one_falls_silent() {
        let (mut a, mut b) = (Agent::new(config(1)), Agent::new(config(2)));
        a.set_port(1, port("eth1"));
        b.set_port(1, port("p1"));
        let mut n = 0;
        for secs in 0..100 {
            n += talk(&mut a, &mut b, at(secs));
            talk(&mut b, &mut a, at(secs));
        }
        // Four soon, since somebody new was there again four, then every half minute.
        assert!((7..=11).contains(&n), "{n} units");
        let (heard, counters) = b.port(1).unwrap();
        let unit = &heard[0].unit;
        assert_eq!((heard.len(), &unit.system_name[..], unit.port.port_text()), (1, "host-1", "eth1".into()));
        assert_eq!((unit.ttl, unit.capabilities, counters.n_aged_out), (121, Some((BRIDGE, BRIDGE)), 0));
        for secs in 100..260 {
            b.tick(at(secs));
        }
        assert_eq!((b.port(1).unwrap().0.len(), b.port(1).unwrap().1.n_aged_out), (0, 1));
    }

    #[test]
    fn who_ends_says_so_and_who_listens_only_says_nothing() {
        let (mut a, mut b) = (Agent::new(config(1)), Agent::new(config(2)));
        a.set_port(1, port("eth1"));
        b.set_port(1, PortConfig { sends: false, ..port("p1") });
        talk(&mut a, &mut b, at(0));
        assert_eq!((talk(&mut b, &mut a, at(0)), b.port(1).unwrap().0.len()), (0, 1));
        a.end();
        carry(&mut a, &mut b, at(1));
        assert!(b.port(1).unwrap().0.is_empty());
        talk(&mut a, &mut b, at(2));
        a.set_port(1, PortConfig { sends: false, ..port("eth1") });
        carry(&mut a, &mut b, at(3));
        assert!(b.port(1).unwrap().0.is_empty());
        b.set_port(1, PortConfig { receives: false, ..port("p1") });
        b.receive(at(4), 1, super::unit(&config(1), &port("x"), 9));
        assert!(b.port(1).unwrap().0.is_empty(), "it does not listen");
    }

    #[test]
    fn neighbours_of_a_port_are_bounded() {
        let mut agent = Agent::new(config(1));
        agent.set_port(1, port("eth1"));
        for n in 0..MAX_NEIGHBOURS as u8 + 3 {
            agent.receive(at(0), 1, super::unit(&config(n), &port("x"), 9));
        }
        let (heard, counters) = agent.port(1).unwrap();
        assert_eq!((heard.len(), counters.n_refused), (MAX_NEIGHBOURS, 3));
        agent.tick(at(9));
        assert!(agent.port(1).unwrap().0.is_empty());
        agent.set_port(1, PortConfig { is_up: false, ..port("eth1") });
        agent.take_frames();
        agent.tick(at(99));
        assert!(agent.take_frames().is_empty(), "without a link nothing is sent");
    }
}
