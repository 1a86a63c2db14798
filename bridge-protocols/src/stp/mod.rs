//! Spanning trees: bridges agree which of their ports forward, so that frames reach everybody
//! and do not go in circles (RSTP, IEEE 802.1D-2004 §17; with neighbours that know only STP,
//! or when told to, STP).
//!
//! The standard gives ten state machines for each port, which share some forty variables.
//! They are kept as they are there, under their names in our spelling, so that code and
//! standard can be read side by side: `port.rs` has the variables, `machines.rs` the
//! machines of a port, `transitions.rs` the one that changes roles, `roles.rs` the choice of
//! roles for the whole bridge, `bpdu.rs` what is said. After each event, all machines take
//! steps until none has one to take.
//!
//! Time comes as [`Bridge::tick`], once a second.

mod bpdu;
mod machines;
mod port;
mod roles;
#[cfg(test)]
mod tests;
mod transitions;
mod vector;

use std::collections::BTreeMap;

use flowtable::types::MacAddr;

pub use self::{
    bpdu::{ADDRESS, Bpdu, Configuration, SenderRole},
    port::Role,
    vector::{BridgeId, PortId, Priority, Times},
};
use self::{port::Port, vector::SECOND};

/// Steps of all machines after one event; a bridge that needs more is a mistake of ours.
const MAX_STEPS: usize = 10_000;

/// How a bridge takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Its id: its priority and address.
    pub id: BridgeId,
    /// It speaks RSTP; otherwise only STP.
    pub is_rapid: bool,
    /// Seconds after which what the root has said is too old: 6 to 40.
    pub max_age: u16,
    /// Seconds between two words of the root: 1 to 10.
    pub hello_time: u16,
    /// Seconds that a port listens, and then learns: 4 to 30.
    pub forward_delay: u16,
    /// Units that a port sends in a second at most: 1 to 10.
    pub tx_hold_count: u16,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            id: BridgeId { priority: 0x8000, address: MacAddr::ZERO },
            is_rapid: true,
            max_age: 20,
            hello_time: 2,
            forward_delay: 15,
            tx_hold_count: 6,
        }
    }
}

impl Config {
    /// Whether the numbers are within the standard's bounds and fit together (§17.14); says
    /// what is wrong.
    ///
    /// # Errors
    /// The sentence to show.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.id.priority & 0xfff != 0 {
            return Err("the priority of a bridge is a multiple of 4096, up to 61440");
        }
        if !(6..=40).contains(&self.max_age) {
            return Err("max-age is 6 to 40 seconds");
        }
        if !(1..=10).contains(&self.hello_time) {
            return Err("hello-time is 1 to 10 seconds");
        }
        if !(4..=30).contains(&self.forward_delay) {
            return Err("forward-delay is 4 to 30 seconds");
        }
        if !(1..=10).contains(&self.tx_hold_count) {
            return Err("tx-hold-count is 1 to 10");
        }
        if 2 * (self.forward_delay - 1) < self.max_age || self.max_age < 2 * (self.hello_time + 1) {
            return Err("2 × (forward-delay − 1) ≥ max-age ≥ 2 × (hello-time + 1) does not hold");
        }
        Ok(())
    }

    fn times(&self) -> Times {
        Times {
            message_age: 0,
            max_age: self.max_age * SECOND,
            hello_time: self.hello_time * SECOND,
            forward_delay: self.forward_delay * SECOND,
        }
    }
}

/// How a port takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortConfig {
    /// It can send and receive.
    pub enabled: bool,
    /// A multiple of 16; of two ports to the same bridge, the lower one.
    pub priority: u8,
    /// What a way by this port costs more: 1 to 200,000,000.
    pub cost: u32,
    /// No bridge is behind it.
    pub is_edge: bool,
    /// It finds out by itself that no bridge is behind it.
    pub auto_edge: bool,
    /// One neighbour is behind it at most; only then it can forward at once.
    pub is_point_to_point: bool,
}

impl Default for PortConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            priority: 128,
            cost: 20_000,
            is_edge: false,
            auto_edge: true,
            is_point_to_point: true,
        }
    }
}

/// What may pass a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// Nothing.
    Discarding,
    /// Nothing, but where stations are is learned.
    Learning,
    /// Everything.
    Forwarding,
}

/// What is known of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortStatus {
    /// Its id.
    pub id: PortId,
    /// What it is for.
    pub role: Role,
    /// What may pass.
    pub state: State,
    /// No bridge is behind it.
    pub is_edge: bool,
    /// The neighbour speaks RSTP, as far as is known.
    pub is_rapid: bool,
    /// What is said of root and designated bridge in its LAN.
    pub priority: Priority,
    /// Units sent and received.
    pub n_units: (u64, u64),
    /// Times it has begun to forward.
    pub n_transitions: u64,
}

/// A bridge.
#[derive(Debug, Clone)]
pub struct Bridge {
    config: Config,
    ports: BTreeMap<u16, Port>,
    /// The best vector that is known, through which port.
    root: (Priority, PortId),
    root_times: Times,
    frames: Vec<(u16, Bpdu)>,
    flushes: Vec<u16>,
    n_changes: u64,
}

impl Bridge {
    /// A bridge without ports: the root of its own tree.
    pub fn new(config: Config) -> Self {
        let mut bridge = Self {
            config,
            ports: BTreeMap::new(),
            root: (Priority::default(), PortId::default()),
            root_times: config.times(),
            frames: Vec::new(),
            flushes: Vec::new(),
            n_changes: 0,
        };
        bridge.choose_roles();
        bridge
    }

    /// How it takes part.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Changes how it takes part. All ports begin anew when the version changes.
    pub fn set_config(&mut self, config: Config) {
        if self.config == config {
            return;
        }
        let begins_anew = self.config.is_rapid != config.is_rapid;
        self.config = config;
        for (number, port) in &mut self.ports {
            if begins_anew {
                let fresh = Port::new(port.config, *number, &config);
                self.flushes.push(*number);
                *port = fresh;
            }
            port.reselects();
        }
        self.run();
    }

    /// Adds a port, or changes how it takes part. Numbers are 1 to 4095.
    pub fn set_port(&mut self, number: u16, config: PortConfig) {
        let bridge = self.config;
        let fresh = || Port::new(PortConfig { enabled: false, ..config }, number, &bridge);
        let port = self.ports.entry(number).or_insert_with(fresh);
        if port.config == config {
            return;
        }
        port.configure(config, number);
        self.run();
    }

    /// Takes a port away.
    pub fn remove_port(&mut self, number: u16) {
        if self.ports.remove(&number).is_some() {
            self.ports.values_mut().for_each(Port::reselects);
            self.run();
        }
    }

    /// Numbers of the ports.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        self.ports.keys().copied()
    }

    /// A second has passed.
    pub fn tick(&mut self) {
        self.ports.values_mut().for_each(Port::tick);
        self.run();
    }

    /// A unit has arrived by a port.
    pub fn receive(&mut self, number: u16, bpdu: &Bpdu) {
        let own = self.config.id.address;
        let Some(port) = self.ports.get_mut(&number).filter(|port| port.config.enabled) else { return };
        // §9.3.4: what it has said itself.
        let is_own = matches!(bpdu, Bpdu::Configuration(said)
            if said.priority.bridge.address == own && said.priority.port.raw() & 0xfff == number);
        if is_own {
            return;
        }
        port.take(bpdu);
        self.run();
    }

    /// Asks the neighbours again whether they speak RSTP.
    pub fn check_versions(&mut self) {
        self.ports.values_mut().for_each(|port| port.mcheck = true);
        self.run();
    }

    /// What is to be sent, in order.
    pub fn take_frames(&mut self) -> Vec<(u16, Bpdu)> {
        std::mem::take(&mut self.frames)
    }

    /// Ports behind which stations are not where they were.
    pub fn take_flushes(&mut self) -> Vec<u16> {
        std::mem::take(&mut self.flushes)
    }

    /// What is known of a port.
    pub fn port(&self, number: u16) -> Option<PortStatus> {
        self.ports.get(&number).map(|port| port.status(number))
    }

    /// The root of the tree, what the way there costs, and the port it goes by; itself, 0 and
    /// none, when it is the root.
    pub fn root(&self) -> (BridgeId, u32, Option<u16>) {
        let (priority, port) = &self.root;
        let is_root = priority.root == self.config.id;
        (priority.root, priority.cost, (!is_root).then_some(port.raw() & 0xfff))
    }

    /// Times the tree has changed here.
    pub fn n_changes(&self) -> u64 {
        self.n_changes
    }

    /// Has all machines take steps until none has one to take.
    fn run(&mut self) {
        let numbers: Vec<u16> = self.ports.keys().copied().collect();
        for _ in 0..MAX_STEPS {
            let mut has_stepped = false;
            for number in &numbers {
                has_stepped |= self.step(*number);
            }
            if self.ports.values().any(|port| port.reselect) {
                self.choose_roles();
                has_stepped = true;
            }
            if !has_stepped {
                break;
            }
        }
        // What is said last is said of the end of it.
        for number in numbers {
            self.transmit(number);
        }
    }
}
