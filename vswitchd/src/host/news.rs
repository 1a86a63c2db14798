//! What packets make: packets for controllers, learned rules, samples, stations. They are
//! taken from the workers as soon as these tell of them; here they become events, and rules.

use ovn_northd_lite::punt::{Request, Service};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use dataplane::{News, PortId, SendError};
use flowtable::{
    flow::{Action, Learned, Match, PuntReason},
    switch::{ContinuationId, MAX_CONTINUATIONS, PacketIn},
    table::{Commit, Removed},
    types::{BridgeId, Timestamp},
};

use super::{Event, Events, Host, Row, Sent, lab::since};

/// A packet that waits for its controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PausedId {
    /// Bridge that it is in.
    pub bridge: BridgeId,
    /// Worker that has it.
    pub worker: usize,
    /// As which.
    pub id: ContinuationId,
}

impl std::fmt::Display for PausedId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.bridge != BridgeId::FIRST {
            write!(f, "{}/", self.bridge)?;
        }
        write!(f, "{}:{:#x}", self.worker, self.id.get())
    }
}

impl std::str::FromStr for PausedId {
    type Err = ResumeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = || {
            let (bridge, rest) = text.split_once('/').unwrap_or(("0", text));
            let bridge = BridgeId::new(bridge.parse().ok()?).ok()?;
            let (worker, id) = rest.split_once(":0x")?;
            let id = u64::from_str_radix(id, 16).ok()?;
            Some(Self { bridge, worker: worker.parse().ok()?, id: ContinuationId::new(id) })
        };
        read().ok_or_else(|| ResumeError::NotAnId(text.to_owned()))
    }
}

/// A waiting packet does not go on.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// Not what a packet-in has.
    #[error("`{0}` is no id of a waiting packet; vswitchctl monitor shows them, 0:0x…")]
    NotAnId(String),
    /// Its frame is not known.
    #[error("the frame of packet {0} is not known whole any more; give it with --frame")]
    FrameUnknown(PausedId),
    /// The switch refuses it.
    #[error("{0}")]
    Send(#[from] SendError),
}

/// Frames of waiting packets, oldest first.
#[derive(Debug, Default)]
pub(super) struct Paused(VecDeque<(PausedId, Vec<u8>)>);

impl Paused {
    fn add(&mut self, (bridge, worker): (BridgeId, usize), packet_in: &PacketIn) {
        let Some(id) = packet_in.continuation.filter(|_| packet_in.bytes.len() == packet_in.n_bytes) else {
            return;
        };
        if self.0.len() == MAX_CONTINUATIONS {
            self.0.pop_front();
        }
        self.0.push_back((PausedId { bridge, worker, id }, packet_in.bytes.clone()));
    }

    fn take(&mut self, id: PausedId) -> Option<Vec<u8>> {
        let idx = self.0.iter().position(|(known, _)| *known == id)?;
        self.0.remove(idx).map(|(_, frame)| frame)
    }
}

/// What became of a packet from a controller.
#[derive(Debug, Clone, Default)]
pub struct SentPacket {
    /// Something left.
    pub forwarded: bool,
    /// What did not.
    pub drops: Vec<Row>,
    /// In a lab: what left.
    pub sent: Vec<Sent>,
}

impl Host {
    /// What the switch tells of by itself.
    pub fn events(&self) -> &Arc<Events> {
        &self.events
    }

    /// Takes what packets have made; true when there was something.
    pub fn take_news(&mut self) -> bool {
        let News { packet_ins, learned, samples } = self.dataplane.take_news();
        let has_news = !(packet_ins.is_empty() && learned.is_empty() && samples.is_empty());
        let now = self.dataplane.now();
        let mut by_bridge: BTreeMap<BridgeId, Vec<Learned>> = BTreeMap::new();
        for (bridge, one) in learned {
            by_bridge.entry(bridge).or_default().push(one);
        }
        for (bridge, learned) in by_bridge {
            self.learn(bridge, &learned, now);
        }
        let (mut has_changed, mut has_heard) = (false, false);
        for (bridge, worker, packet_in) in packet_ins {
            // Between bridges; nobody else is told.
            if packet_in.punt.to.reason == PuntReason::Protocol {
                self.hear_protocol(bridge, packet_in.in_port, &packet_in.bytes);
                has_heard = true;
                continue;
            }
            if self.is_liveness(&packet_in) {
                let peers = &self.underlay.peers;
                has_changed |= self.bfd.receive(&packet_in.bytes, |from| peers.contains(&from));
                continue;
            }
            if let Some(is_new) = self.hear_hop(&packet_in) {
                has_changed |= is_new;
                continue;
            }
            self.answer(&packet_in);
            self.paused.add((bridge, worker), &packet_in);
            let name = self.bridge_name(bridge);
            self.events.tell_of(name, now, Event::PacketIn { bridge, worker, packet_in });
        }
        for (bridge, sampled) in samples {
            if self.show_sample(bridge, &sampled) {
                continue;
            }
            self.events.tell_of(self.bridge_name(bridge), now, Event::Sampled(sampled));
        }
        if has_changed {
            self.tend_gateways();
        }
        if has_heard {
            self.tend_protocols();
        }
        has_news
    }

    /// Another host says that it lives. Nobody else is told: it does so all the time.
    fn is_liveness(&self, packet_in: &PacketIn) -> bool {
        let request = Request::decode(&packet_in.punt.to.userdata);
        !self.is_handmade && request.is_some_and(|request| request.service == Service::Bfd)
    }

    fn learn(&mut self, id: BridgeId, learned: &[Learned], now: Timestamp) {
        let Some(bridge) = self.bridge_of(id) else { return };
        let learning = bridge.tables.learn(learned, now);
        if let Some(reason) = learning.refusal {
            tracing::warn!(n = learning.n_refused, %reason, "rules that packets have made are refused");
        }
        if let Some(commit) = learning.commit {
            self.note_commit(id, &commit);
            self.take_tables(id, commit);
        }
    }

    /// Makes a new version of a bridge's tables what packets see, and tells which rules are
    /// gone.
    pub(super) fn take_tables(&mut self, id: BridgeId, commit: Commit) {
        let Some(bridge) = self.bridge_mut(id) else { return };
        bridge.tables = Arc::new(commit.tables);
        self.publish(id);
        if commit.removed.is_empty() {
            return;
        }
        // From now on nobody counts for them any more.
        self.dataplane.flush_stats();
        for removed in commit.removed {
            let Removed { rule, at, .. } = &removed;
            let (stats, at) = (rule.stats.get(), *at);
            self.events.tell_of(self.bridge_name(id), at, Event::Removed { removed, stats });
        }
    }

    /// Carries out actions on a packet, as if it had come in by a port of a bridge.
    ///
    /// # Errors
    /// Says why nothing was sent.
    pub fn send_packet(
        &mut self,
        in_port: PortId,
        actions: Vec<Action>,
        frame: Vec<u8>,
    ) -> Result<SentPacket, SendError> {
        self.sending(move |host| host.dataplane.packet_out(in_port, actions, frame))
    }

    /// Goes on with a waiting packet; without a frame, as it was.
    ///
    /// # Errors
    /// Says why it does not go on.
    pub fn resume(
        &mut self,
        id: PausedId,
        metadata: Match,
        frame: Option<Vec<u8>>,
    ) -> Result<SentPacket, ResumeError> {
        let known = self.paused.take(id);
        let frame = frame.or(known).ok_or(ResumeError::FrameUnknown(id))?;
        let sent =
            self.sending(move |host| host.dataplane.resume((id.bridge, id.worker), id.id, metadata, frame));
        Ok(sent?)
    }

    fn sending(
        &mut self,
        send: impl FnOnce(&mut Self) -> Result<(), SendError>,
    ) -> Result<SentPacket, SendError> {
        self.expire_rules();
        let before = (self.dataplane.sent_counters().rx_forwarded, self.dataplane_drops());
        send(self)?;
        let forwarded = self.dataplane.sent_counters().rx_forwarded > before.0;
        let mut drops = since(&before.1, self.dataplane_drops());
        // Others may have dropped something meanwhile; in a lab nobody has.
        drops.retain(|(_, drop)| self.lab.is_some() || !drop.in_port.is_real());
        let sent = self.settle();
        Ok(SentPacket { forwarded, drops, sent })
    }

    /// Forgets stations that were silent for too long.
    pub(super) fn tend_stations(&mut self) {
        let known = self.bridges.iter().map(|bridge| bridge.tables.fdb()).filter(|fdb| !fdb.is_empty());
        let known: Vec<_> = known.collect();
        if known.is_empty() {
            return;
        }
        self.dataplane.flush_stats();
        let now = self.dataplane.now();
        for fdb in known {
            fdb.expire(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_as_they_print() {
        let id = PausedId { bridge: BridgeId::FIRST, worker: 3, id: ContinuationId::new(0x7_0000_00ab) };
        assert_eq!(id.to_string(), "3:0x7000000ab");
        assert_eq!(id.to_string().parse::<PausedId>().unwrap(), id);
        let elsewhere = PausedId { bridge: BridgeId::new(5).unwrap(), ..id };
        assert_eq!(elsewhere.to_string(), "5/3:0x7000000ab");
        assert_eq!(elsewhere.to_string().parse::<PausedId>().unwrap(), elsewhere);
        for text in ["", "3", "3:7", "x:0x1", "3:0x", "3:0x10000000000000000", "64/3:0x1", "/3:0x1"] {
            assert!(text.parse::<PausedId>().is_err(), "{text:?} was taken");
        }
    }
}
