//! The lab: a host whose ports are queues of frames and whose clock obeys. Its rules are
//! written by hand (`handmade.rs`). Everything else is as on any host.
//!
//! It is deterministic: frames are switched one after the other by the one worker, and
//! whoever injects waits for that; hashes have a fixed seed.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use dataplane::{InjectError, MemoryPort, PortId, VirtualClock};
use flowtable::{
    stats::DropCount,
    types::{BridgeId, MacAddr, PortNo, Timestamp},
};

use super::{BridgeError, Host, PortError, Row, ports::NewPort};

/// MTU of a port that was not given one.
const DEFAULT_MTU: u32 = 1500;
/// Frames that may leave by a port in one burst.
const QUEUE: usize = 4096;
/// Frames that are kept for each port; the oldest are forgotten.
const KEPT: usize = 4096;

/// What makes a host a lab.
#[derive(Debug)]
pub struct Lab {
    clock: VirtualClock,
    /// By name of the port.
    wires: BTreeMap<String, Wire>,
}

/// The outside of a port.
#[derive(Debug)]
struct Wire {
    memory: MemoryPort,
    /// The MTU, where it was asked for.
    mtu: Option<u32>,
    sent: VecDeque<Sent>,
    n_sent: u64,
}

/// A frame that has left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// Name of the port it left by.
    pub port: String,
    /// How many had left by this port before.
    pub index: u64,
    /// When.
    pub time: Timestamp,
    /// Its bytes.
    pub frame: Vec<u8>,
}

/// What became of injected frames.
#[derive(Debug, Clone, Default)]
pub struct Injected {
    /// How many left by a port.
    pub n_forwarded: u64,
    /// How many did not.
    pub n_dropped: u64,
    /// Why, and copies that were lost.
    pub drops: Vec<Row>,
    /// What has left.
    pub sent: Vec<Sent>,
}

/// A lab's command failed.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The host's ports are interfaces.
    #[error(
        "this vswitchd forwards for real: its ports are interfaces, its time is the machine's; for a lab start another: vswitchd --virtual --socket PATH"
    )]
    NotALab,
    /// There is no such port.
    #[error("port `{0}`: there is none of this name or number; vswitchctl port list shows those there are")]
    NoPort(String),
    /// Ports of several bridges have the number.
    #[error(
        "port {0}: each bridge has its own numbers; use the port's name, or name the bridge with --bridge"
    )]
    WhichBridge(String),
    /// The bridge is not there.
    #[error("{0}")]
    Bridge(#[from] BridgeError),
    /// It is one end of a link.
    #[error(
        "port {0} is one end of a link to another bridge; nothing is on its wire but what that bridge sends"
    )]
    IsPatch(String),
    /// A frame was not taken.
    #[error("{0}")]
    Inject(#[from] InjectError),
    /// The port cannot be added.
    #[error("{0}")]
    Port(#[from] PortError),
}

impl Lab {
    /// A lab without ports.
    pub fn new(clock: VirtualClock) -> Self {
        Self { clock, wires: BTreeMap::new() }
    }

    /// Its clock.
    pub fn clock(&self) -> &VirtualClock {
        &self.clock
    }

    pub(super) fn add(&mut self, name: &str, mtu: Option<u32>) {
        // Locally administered, the same for all: no frame of the switch's own has it.
        let mac = MacAddr::new([0x02, 0, 0, 0, 0, 0x01]);
        let memory = MemoryPort::with(QUEUE, mac, mtu.unwrap_or(DEFAULT_MTU));
        self.wires.insert(name.to_owned(), Wire { memory, mtu, sent: VecDeque::new(), n_sent: 0 });
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.wires.remove(name);
    }

    pub(super) fn memory(&self, name: &str) -> Option<&MemoryPort> {
        self.wires.get(name).map(|wire| &wire.memory)
    }

    pub(super) fn mtu(&self, name: &str) -> Option<u32> {
        self.wires.get(name)?.mtu
    }

    /// Takes what has left the ports.
    pub(super) fn collect(&mut self) -> Vec<Sent> {
        let time = self.clock.now();
        let mut collected = Vec::new();
        for (port, wire) in &mut self.wires {
            while let Some(frame) = wire.memory.receive() {
                let sent = Sent { port: port.clone(), index: wire.n_sent, time, frame };
                wire.n_sent += 1;
                if wire.sent.len() == KEPT {
                    wire.sent.pop_front();
                }
                wire.sent.push_back(sent.clone());
                collected.push(sent);
            }
        }
        collected
    }
}

impl Host {
    /// What makes this host a lab.
    ///
    /// # Errors
    /// It is none.
    pub fn lab(&self) -> Result<&Lab, LabError> {
        self.lab.as_ref().ok_or(LabError::NotALab)
    }

    /// Adds a lab's port; without a number it gets the lowest that is free. The same again
    /// changes nothing.
    ///
    /// # Errors
    /// [`LabError`] says what to do; then nothing has changed.
    pub fn add_lab_port(
        &mut self,
        bridge: BridgeId,
        name: &str,
        number: Option<PortNo>,
        mtu: Option<u32>,
    ) -> Result<PortNo, LabError> {
        let known_mtu = self.lab()?.mtu(name);
        if let Some(present) = self.ports.get(name) {
            let is_other = present.bridge != bridge || present.peer.is_some() || mtu != known_mtu;
            if is_other || number.is_some_and(|number| number != present.port) {
                return Err(PortError::Differs(name.to_owned()).into());
            }
            return Ok(present.port);
        }
        let port = self.choose_number(bridge, number)?;
        if let Some(lab) = &mut self.lab {
            lab.add(name, mtu);
        }
        let added =
            self.attach_workload(name, NewPort { id: PortId::new(bridge, port), ..NewPort::default() });
        if let (Err(_), Some(lab)) = (&added, &mut self.lab) {
            lab.remove(name);
        }
        Ok(added?)
    }

    /// The lab's port that a name means, or a number in this bridge; without a bridge, in the
    /// only one that has it.
    ///
    /// # Errors
    /// There is none, or no lab.
    pub fn lab_port(&self, text: &str, bridge: Option<BridgeId>) -> Result<(String, PortId), LabError> {
        self.lab()?;
        if let Some((name, port)) = self.ports.get_key_value(text) {
            return Ok((name.clone(), port.id()));
        }
        let number = text.parse().ok().and_then(|raw| PortNo::new(raw).ok());
        let mut found = self.ports.iter().filter(|(_, port)| {
            Some(port.port) == number && bridge.is_none_or(|bridge| bridge == port.bridge)
        });
        match (found.next(), found.next()) {
            (Some((name, port)), None) => Ok((name.clone(), port.id())),
            (Some(_), Some(_)) => Err(LabError::WhichBridge(text.to_owned())),
            (None, _) => Err(LabError::NoPort(text.to_owned())),
        }
    }

    /// Has a port receive frames, and tells what became of them.
    ///
    /// # Errors
    /// There is no such port, or a frame is too long; then none is switched.
    pub fn inject(
        &mut self,
        (name, port): (String, PortId),
        frames: Vec<Vec<u8>>,
    ) -> Result<Injected, LabError> {
        self.expire_rules();
        let lab = self.lab.as_ref().ok_or(LabError::NotALab)?;
        let memory = lab.memory(&name).cloned().ok_or_else(|| LabError::IsPatch(name.clone()))?;
        frames.iter().try_for_each(|frame| memory.check(frame))?;
        let books = |host: &Self| {
            let statuses = host.dataplane.ports();
            let status =
                statuses.into_iter().find(|status| (status.bridge, status.port) == (port.bridge, port.port));
            let counters = status.map(|status| status.counters).unwrap_or_default();
            (counters.rx_forwarded, counters.rx_dropped, host.dataplane_drops())
        };
        let (n_forwarded, n_dropped, drops) = books(self);
        let mut injected = Injected::default();
        for frame in frames {
            self.dataplane.inject(port, &memory, vec![frame])?;
            injected.sent.extend(self.lab.as_mut().map(Lab::collect).unwrap_or_default());
            // What a frame has made holds for the next one.
            self.take_news();
        }
        let after = books(self);
        injected.n_forwarded = after.0 - n_forwarded;
        injected.n_dropped = after.1 - n_dropped;
        injected.drops = since(&drops, after.2);
        Ok(injected)
    }

    /// Frames that have left a port, from an index on, and how many before these are
    /// forgotten.
    ///
    /// # Errors
    /// There is no such port.
    pub fn sent(&mut self, name: String, from: u64) -> Result<(Vec<Sent>, u64, u64), LabError> {
        let lab = self.lab.as_mut().ok_or(LabError::NotALab)?;
        lab.collect();
        let wire = lab.wires.get(&name).ok_or(LabError::IsPatch(name))?;
        let first = wire.n_sent - wire.sent.len() as u64;
        let sent = wire.sent.iter().filter(|sent| sent.index >= from).cloned().collect();
        Ok((sent, wire.n_sent.max(from), first.saturating_sub(from)))
    }

    /// Stops, starts or advances the lab's clock; what was to happen until then has
    /// happened when this returns. Tells the time.
    ///
    /// # Errors
    /// There is no lab.
    pub fn set_clock(
        &mut self,
        stopped: Option<bool>,
        advance: Duration,
    ) -> Result<(Timestamp, bool), LabError> {
        let clock = self.lab()?.clock().clone();
        if let Some(stopped) = stopped {
            clock.set_stopped(stopped);
        }
        if !advance.is_zero() {
            clock.advance(advance);
            self.dataplane.tick();
            self.expire_rules();
        }
        Ok((clock.now(), clock.is_stopped()))
    }
}

/// What has been dropped since.
pub(super) fn since(before: &[Row], after: Vec<Row>) -> Vec<Row> {
    let cause = |(bridge, row): &Row| {
        let rule = row.rule.as_ref().map(|rule| Arc::as_ptr(&rule.stats) as usize);
        (*bridge, row.in_port, row.reason, rule, row.meter)
    };
    // Each worker may have a row of the same cause.
    let mut sums: BTreeMap<_, Row> = BTreeMap::new();
    for row in after {
        let id = cause(&row);
        let (bridge, row) = row;
        let (n_packets, n_bytes, n_copies) = (row.n_packets, row.n_bytes, row.n_copies);
        let (_, sum) =
            sums.entry(id).or_insert((bridge, DropCount { n_packets: 0, n_bytes: 0, n_copies: 0, ..row }));
        sum.n_packets += n_packets;
        sum.n_bytes += n_bytes;
        sum.n_copies += n_copies;
    }
    for row in before {
        if let Some((_, now)) = sums.get_mut(&cause(row)) {
            let (_, old) = row;
            now.n_packets = now.n_packets.saturating_sub(old.n_packets);
            now.n_bytes = now.n_bytes.saturating_sub(old.n_bytes);
            now.n_copies = now.n_copies.saturating_sub(old.n_copies);
        }
    }
    let is_news = |(_, row): &Row| row.n_packets + row.n_copies > 0;
    let mut fresh: Vec<_> = sums.into_values().filter(is_news).collect();
    fresh.sort_by_key(|(bridge, row)| (*bridge, row.in_port, row.reason.name()));
    fresh
}
