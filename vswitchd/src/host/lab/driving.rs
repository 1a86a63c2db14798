//! Driving a lab: ports, frames, the clock.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use dataplane::PortId;
use flowtable::{
    stats::DropCount,
    types::{BridgeId, PortNo, Timestamp},
};

use super::{Injected, Lab, LabError, Outgoing, Sent, Way};
use crate::host::{Host, PortError, Row, UPLINK, ports::NewPort};

/// Rounds in which what has happened makes more happen: an answer that asks for another one.
const MAX_ROUNDS: usize = 64;
/// Step of the clock where bridges speak protocols, and how many steps an advance is at most.
const PROTOCOL_STEP: Duration = Duration::from_millis(500);
const MAX_STEPS: u32 = 10_000;

/// A lab's port that is to be added.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewLabPort {
    /// Its name.
    pub name: String,
    /// Its number; none: the lowest that is free.
    pub number: Option<PortNo>,
    /// Largest L3 packet that may leave by it; none: the usual one.
    pub mtu: Option<u32>,
    /// Switch port it is for; empty: none.
    pub logical_port: String,
    /// Network outside that it leads to; empty: none.
    pub network: String,
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
    pub fn add_lab_port(&mut self, bridge: BridgeId, new: &NewLabPort) -> Result<PortNo, LabError> {
        let NewLabPort { name, number, mtu, logical_port, network } = new;
        let known_mtu = self.lab()?.mtu(name);
        if let Some(present) = self.ports.get(name) {
            if present.peer.is_some() || *mtu != known_mtu {
                return Err(PortError::Differs(name.clone()).into());
            }
            let same = self.same_again(name, present, (bridge, *number, None), (logical_port, network))?;
            return Ok(same.port);
        }
        if self.uplink() == Some(name) {
            return Err(PortError::IsUplink(name.clone()).into());
        }
        self.check_purpose(logical_port, network)?;
        let port = self.choose_number(bridge, *number)?;
        if let Some(lab) = &mut self.lab {
            lab.add(name, *mtu, network);
        }
        let (logical_port, network) = (logical_port.clone(), network.clone());
        let id = PortId::new(bridge, port);
        let added = self.attach_workload(name, NewPort { id, logical_port, network, ..NewPort::default() });
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
        if self.uplink() == Some(text) {
            return Ok((text.to_owned(), UPLINK.into()));
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
            // What a frame has made holds for the next one.
            injected.sent.extend(self.settle());
        }
        let after = books(self);
        injected.n_forwarded = after.0 - n_forwarded;
        injected.n_dropped = after.1 - n_dropped;
        injected.drops = since(&drops, after.2);
        Ok(injected)
    }

    /// Has everything happen that follows from what has happened, and takes what has left.
    pub fn settle(&mut self) -> Vec<Sent> {
        let mut sent = Vec::new();
        if self.lab.is_none() {
            self.take_news();
            return sent;
        }
        for _ in 0..MAX_ROUNDS {
            let n_before = sent.len();
            sent.extend(self.lab.as_mut().map(Lab::collect).unwrap_or_default());
            let has_news = self.take_news();
            if !has_news && sent.len() == n_before {
                break;
            }
        }
        sent
    }

    /// Takes the frames that are for other hosts of the lab.
    pub fn take_outgoing(&mut self) -> Vec<Outgoing> {
        self.lab.as_mut().map(Lab::take_outgoing).unwrap_or_default()
    }

    /// What leaves by this port goes on to other hosts of the lab.
    pub fn is_shared(&self, name: &str) -> bool {
        self.lab.as_ref().is_some_and(|lab| lab.is_shared(name))
    }

    /// Has a frame come in from another host of the lab, and tells what has left. What cannot
    /// be taken, because the port is gone or the frame too long, is lost on the way.
    pub fn arrive(&mut self, way: &Way, frame: &[u8]) -> Vec<Sent> {
        let names = self.lab.as_ref().map(|lab| lab.by_way(way)).unwrap_or_default();
        let mut sent = Vec::new();
        for name in names {
            let id = match self.ports.get(&name) {
                Some(port) => port.id(),
                None => UPLINK.into(),
            };
            let Some(memory) = self.lab.as_ref().and_then(|lab| lab.memory(&name)).cloned() else { continue };
            if let Err(error) = self.dataplane.inject(id, &memory, vec![frame.to_vec()]) {
                tracing::debug!(%error, port = name, "a frame of another host is lost");
            }
            sent.extend(self.settle());
        }
        sent
    }

    /// Has happen what is to happen by now: the clock was advanced.
    pub fn let_time_pass(&mut self) {
        self.dataplane.tick();
        self.expire_rules();
        self.tend_protocols();
        if self.is_handmade {
            self.bfd.tick();
            self.take_news();
            self.tend_links();
        } else {
            self.tend_neighbours();
            self.tend_gateways();
        }
    }

    /// Whether this host and others find out of each other whether they live: that wants
    /// shorter steps of the clock.
    ///
    /// # Errors
    /// There is no lab.
    pub fn keeps_alive(&self) -> Result<bool, LabError> {
        self.lab()?;
        Ok(self.bfd.has_sessions())
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
        let mut left = advance;
        while !left.is_zero() {
            let step = if self.speaks_protocols() { PROTOCOL_STEP.max(advance / MAX_STEPS) } else { left };
            clock.advance(step.min(left));
            left = left.saturating_sub(step);
            self.let_time_pass();
            // What is said meanwhile is heard at its time.
            if !left.is_zero() {
                self.settle();
            }
        }
        Ok((clock.now(), clock.is_stopped()))
    }
}

/// What has been dropped since.
pub(crate) fn since(before: &[Row], after: Vec<Row>) -> Vec<Row> {
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
