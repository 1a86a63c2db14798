//! The switch of one worker: a batch of packets goes in, copies come out of a sink.
//!
//! [`Switch::process`] works in passes over at most [`MAX_BATCH`] packets, so that each
//! pass is a straight loop whose memory accesses do not wait for each other: take all
//! signatures, look all up by them, parse the rest in full and look that up in the
//! megaflows; then, in the order of arrival, translate what is still unknown and carry out
//! each packet's program. Neighbours with the same entry are carried out and counted as one
//! group. Packets are never reordered: what a port sends in leaves in that order.
//!
//! Where to read on: `lookup.rs` finds entries; `run.rs` carries a program out; [`crate::cache`] remembers;
//! [`crate::pipeline`] translates; [`crate::stats`] says what is counted.

mod ahead;
#[cfg(test)]
mod alg_tests;
mod books;
mod continuations;
#[cfg(test)]
mod ct_option_tests;
#[cfg(test)]
mod ct_tests;
mod flow_hash;
#[cfg(test)]
mod fragment_tests;
mod fragments;
mod hop;
#[cfg(test)]
mod hop_tests;
mod injected;
mod journeys;
mod lessons;
mod lookup;
mod metered;
mod passes;
mod punts;
mod quotas;
mod recirculate;
mod rider;
mod run;
mod samples;
mod stage;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_ahead;
#[cfg(test)]
mod tests_bridging;
#[cfg(test)]
mod tests_direct;
#[cfg(test)]
mod tests_injected;
#[cfg(test)]
mod tests_learning;
#[cfg(test)]
mod tests_openflow;
#[cfg(test)]
mod tests_sets;
#[cfg(test)]
mod tests_tables;

use std::{
    hash::{BuildHasher, RandomState},
    ops::Range,
    sync::Arc,
};

use self::{
    ahead::Ahead, books::Books, hop::Hop, journeys::Journeys, lessons::Lessons, lookup::Lookup,
    passes::Passes, punts::Punts, recirculate::FrozenIds, samples::Samples,
};
pub use self::{
    continuations::{
        CONTINUATION_LIFE, ContinuationCounters, ContinuationId, MAX_CONTINUATIONS, MAX_PORT_CONTINUATIONS,
    },
    injected::InjectError,
    lessons::{LearnCounters, MAX_LEARNED, MAX_PORT_LEARNED},
    punts::{MAX_PORT_PUNTS, MAX_PUNTS, PacketIn},
    run::Sink,
    samples::{MAX_PORT_SAMPLES, MAX_SAMPLES, SampleCounters, Sampled},
    stage::Stage,
};
use crate::{
    cache::{Handle, MegaflowDump, Megaflows, N_LONG, Remembered},
    conntrack::{Conntrack, View},
    key::FlowKey,
    packet::{FrameBuf, Packet},
    parse::Signature,
    pipeline::{self, Recent, Translation},
    port::PortRole,
    quota::Quotas,
    snapshot::Snapshot,
    stats::{DropCount, PortCounters, SwitchCounters},
    tunnel::{Arrival, KnownPeers},
    types::{PortNo, Timestamp},
};

/// Packets of one pass.
pub const MAX_BATCH: usize = 32;

/// Journeys of a worker, at most: of 128 bytes each, and 16 in their index.
const MAX_JOURNEYS: usize = 1 << 18;

/// What a translation costs, in packets whose entries are known (4 700 cycles to 100).
pub const TRANSLATION_WORK: u64 = 40;
/// What a pass through the connection tracker costs, likewise.
pub const PASS_WORK: u64 = 5;

/// Sizes of a switch's caches; 0 switches a cache off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SwitchConfig {
    /// Sessions, of 6 bytes each; as many again of packets from tunnels. Memory is only taken as
    /// it is used. 0 also switches off that packets are found without being parsed in full.
    pub n_sessions: usize,
    /// Megaflows. Without them there are no sessions either.
    pub n_megaflows: usize,
}

impl Default for SwitchConfig {
    fn default() -> Self {
        Self { n_sessions: 1 << 20, n_megaflows: 1 << 16 }
    }
}

/// The switch of one worker: its caches and counters. The rules are in the snapshot that
/// each batch brings along.
///
/// # Invariants
/// - Conservation: see [`crate::stats`].
/// - Transparency: what leaves, and all counters but those of the caches, do not depend
///   on the sizes of the caches or on how packets are cut into batches.
pub struct Switch {
    megaflows: Megaflows,
    lanes: Box<Lanes>,
    books: Books,
    punts: Punts,
    lessons: Lessons,
    samples: Samples,
    frozen_ids: FrozenIds,
    known_peers: KnownPeers,
    quotas: Quotas,
    /// Room for sessions of a kind.
    max_sessions: usize,
    /// What tables answered.
    recent: Recent,
    ahead: Option<Ahead>,
    passes: Passes,
    journeys: Journeys,
    conntrack: Option<Arc<Conntrack>>,
    seed: u64,
}

/// What is known of the packets of a pass, one array for each attribute.
struct Lanes {
    signatures: [Signature; MAX_BATCH],
    has_signature: [bool; MAX_BATCH],
    /// Signature and tunnel, of packets from an uplink.
    long: [[u64; N_LONG]; MAX_BATCH],
    /// What the tunnel header said, of packets from an uplink.
    arrivals: [Arrival; MAX_BATCH],
    keys: [FlowKey; MAX_BATCH],
    /// The key is filled in.
    has_key: [bool; MAX_BATCH],
    /// Port whose rules apply: for a packet from a tunnel, the tunnel's.
    ports: [PortNo; MAX_BATCH],
    lookups: [Lookup; MAX_BATCH],
    /// The entry that was found was up to date.
    current: [bool; MAX_BATCH],
    /// What the entry says cannot be carried out without the packet's key.
    needs_key: [bool; MAX_BATCH],
    /// Bytes as received.
    lens: [u64; MAX_BATCH],
    /// How a packet will be tracked as it came.
    hops: [Option<Hop>; MAX_BATCH],
    /// Where its journey is, if it is on one.
    journeys: [u32; MAX_BATCH],
    /// A bit for each packet that is on a journey.
    riding: u32,
    /// Journeys are looked for.
    seeks: bool,
    /// What the tracker sees of it.
    views: [View; MAX_BATCH],
    /// Renewed megaflows when that was found out: what they say may have changed since.
    n_renewed: u64,
    /// Changes of the journeys when they were looked for.
    n_journey_changes: u64,
}

/// What holds for a whole batch.
#[derive(Clone, Copy)]
struct Moment<'a> {
    now: Timestamp,
    snapshot: &'a Snapshot,
    in_port: PortNo,
    role: PortRole,
    partial_checksums: bool,
}

impl<'a> Moment<'a> {
    fn new(now: Timestamp, snapshot: &'a Snapshot, in_port: PortNo) -> Self {
        let port = snapshot.ports.get(in_port);
        Self {
            now,
            snapshot,
            in_port,
            role: port.map_or(PortRole::Workload, |port| port.role),
            partial_checksums: port.is_some_and(|port| port.partial_checksums),
        }
    }

    fn is_uplink(&self) -> bool {
        self.role == PortRole::Uplink
    }
}

impl Switch {
    /// A switch with empty caches, whose hashes nobody outside can foresee.
    pub fn new(config: SwitchConfig) -> Self {
        Self::with_seed(config, RandomState::new().hash_one(0))
    }

    /// A switch whose hashes follow from `seed`: which entries collide is then the same in
    /// every run.
    pub fn with_seed(config: SwitchConfig, seed: u64) -> Self {
        Self {
            megaflows: Megaflows::new(config.n_megaflows, config.n_sessions, seed),
            lanes: Box::new(Lanes {
                signatures: [Signature::default(); MAX_BATCH],
                has_signature: [false; MAX_BATCH],
                long: [[0; N_LONG]; MAX_BATCH],
                arrivals: [Arrival::NONE; MAX_BATCH],
                keys: [FlowKey::zero(); MAX_BATCH],
                has_key: [false; MAX_BATCH],
                ports: [PortNo::ZERO; MAX_BATCH],
                lookups: [Lookup::Unknown; MAX_BATCH],
                current: [false; MAX_BATCH],
                needs_key: [false; MAX_BATCH],
                lens: [0; MAX_BATCH],
                hops: [None; MAX_BATCH],
                journeys: [0; MAX_BATCH],
                riding: 0,
                seeks: false,
                views: [View::NONE; MAX_BATCH],
                n_renewed: 0,
                n_journey_changes: 0,
            }),
            books: Books::new(),
            punts: Punts::new(seed),
            lessons: Lessons::default(),
            samples: Samples::new(seed),
            frozen_ids: FrozenIds::default(),
            known_peers: KnownPeers::default(),
            quotas: Quotas::default(),
            max_sessions: config.n_sessions.max(1).next_power_of_two(),
            recent: Recent::default(),
            ahead: None,
            passes: Passes::new(),
            journeys: Journeys::new(config.n_sessions.min(MAX_JOURNEYS), seed),
            conntrack: None,
            seed,
        }
    }

    /// Tracks connections with this tracker, which other workers may share. Without, a
    /// switch makes a small one of its own when a rule asks for it.
    #[must_use]
    pub fn with_conntrack(self, conntrack: Arc<Conntrack>) -> Self {
        Self { conntrack: Some(conntrack), ..self }
    }

    /// The tracker, if there is one.
    pub fn conntrack(&self) -> Option<&Arc<Conntrack>> {
        self.conntrack.as_ref()
    }

    /// The memory of the caches' large tables, for whoever can have it backed by large pages
    /// before it is used.
    pub fn memory(&self) -> Vec<Range<*const u8>> {
        self.megaflows.memory().into_iter().chain(self.journeys.memory()).collect()
    }

    /// Switches the packets of a batch, all received from `in_port`, and leaves the
    /// batch empty.
    pub fn process<B: FrameBuf, S: Sink<B>>(
        &mut self,
        now: Timestamp,
        snapshot: &Arc<Snapshot>,
        in_port: PortNo,
        batch: &mut Vec<Packet<B>>,
        sink: &mut S,
    ) {
        let moment = Moment::new(now, snapshot, in_port);
        self.megaflows.sweep(now);
        if let Some(conntrack) = &self.conntrack {
            conntrack.tick(now);
        }
        self.books.open(in_port);
        self.enter_lost_fragments(&moment);
        while !batch.is_empty() {
            let n = batch.len().min(MAX_BATCH);
            sink.enter(Stage::Parse);
            self.receive_all(&moment, &mut batch[..n]);
            sink.enter(Stage::Session);
            self.find_journeys(&moment, n);
            self.find_signed(&moment, n);
            self.find_tunnelled_journeys(&moment, n);
            self.spare_keys(n);
            sink.enter(Stage::Parse);
            self.parse_rest(&moment, &batch[..n]);
            sink.enter(Stage::Megaflow);
            self.find_megaflows(&moment, n);
            sink.enter(Stage::Track);
            self.look_ahead(&batch[..n]);
            sink.enter(Stage::Execute);
            self.run_all(&moment, n, batch.drain(..n), sink);
        }
    }

    /// The slow way to a packet's entry, for what the lookups did not find or what is
    /// out of date. Earlier packets of the pass may have made the entry meanwhile.
    fn resolve(&mut self, moment: &Moment<'_>, idx: usize) -> Result<Handle, Box<Translation>> {
        let (port, epoch) = (self.lanes.ports[idx], moment.snapshot.epoch);
        let before = self.lanes.lookups[idx];
        let mut found = before.handle().filter(|handle| self.megaflows.is_present(*handle));
        let key = self.lanes.key(idx);
        let missed = match (found, before) {
            (Some(_), _) => None,
            // The rest was searched at the start of the pass.
            (None, Lookup::Missed) => self.megaflows.find_fresh(port, key),
            (None, _) => self.megaflows.find(port, key),
        };
        if let Some(handle) = missed {
            self.lanes.lookups[idx] = Lookup::Megaflow(handle);
            found = Some(handle);
        }
        let key = self.lanes.key(idx);
        if let Some(handle) = found
            && self.megaflows.is_current(handle, epoch)
        {
            return Ok(handle);
        }
        let mut translation = pipeline::translate_recalling(moment.snapshot, key, None, &mut self.recent);
        self.frozen_ids.number(&mut translation.program);
        if self.megaflows.is_disabled() {
            return Err(Box::new(translation));
        }
        let from_tunnel = moment.is_uplink();
        if let Some(handle) = found {
            self.books.all.n_renewals += 1;
            let new = Remembered { key, from_tunnel, translation, epoch, now: moment.now };
            return Ok(self.megaflows.renew(handle, port, new));
        }
        let signature = self.lanes.has_signature[idx].then(|| &self.lanes.signatures[idx]);
        if let Some(signature) = signature.filter(|_| !from_tunnel)
            && self.megaflows.takes_direct(port, (moment.snapshot, signature), &translation)
        {
            let new = Remembered { key, from_tunnel, translation, epoch, now: moment.now };
            return Ok(self.megaflows.install_direct(port, signature, new));
        }
        let new = Remembered { key, from_tunnel, translation, epoch, now: moment.now };
        Ok(self.megaflows.install(port, new))
    }

    /// Brings the counters of the rules up to date with what the caches have carried.
    pub fn flush_stats(&mut self) {
        let mut next = Some(0);
        while let Some(from) = next {
            next = self.flush_stats_from(from);
        }
    }

    /// The same for some of the entries, from a place on; answers where to go on, so that packets
    /// can have their turn meanwhile.
    pub fn flush_stats_from(&mut self, from: usize) -> Option<usize> {
        self.megaflows.push_stats_from(from)
    }

    /// Takes the packets that rules have sent to controllers, oldest first. What is not
    /// taken in time is dropped as [`PuntQueueFull`](crate::drop::DropReason::PuntQueueFull).
    pub fn take_packet_ins(&mut self) -> Vec<PacketIn> {
        self.punts.take()
    }

    /// Packets for controllers, learned rules or samples wait to be taken.
    pub fn has_news(&self) -> bool {
        !(self.punts.is_empty() && self.lessons.is_empty() && self.samples.is_empty())
    }

    /// The megaflows, with what they have carried.
    pub fn megaflows(&self) -> Vec<MegaflowDump> {
        let (mut all, mut next) = (Vec::new(), Some(0));
        while let Some(from) = next {
            let (some, then) = self.megaflows_from(from);
            all.extend(some);
            next = then;
        }
        all
    }

    /// Some of them, from a place on; answers where to go on.
    pub fn megaflows_from(&self, from: usize) -> (Vec<MegaflowDump>, Option<usize>) {
        self.megaflows.dump_from(from)
    }

    /// Number of megaflows.
    pub fn n_megaflows(&self) -> usize {
        self.megaflows.len()
    }

    /// Number of sessions.
    pub fn n_sessions(&self) -> usize {
        self.megaflows.n_sessions()
    }

    /// Takes the drops of a port out of those of the switch, for a port that goes: its
    /// number may become another's.
    pub fn take_drops(&mut self, in_port: PortNo) -> Vec<DropCount> {
        self.books.drops.take(in_port)
    }

    /// All drops since the start, by port, reason and rule.
    pub fn drops(&self) -> Vec<DropCount> {
        self.books.drops.rows().to_vec()
    }

    /// What became of all packets.
    pub fn counters(&self) -> SwitchCounters {
        SwitchCounters { n_evictions: self.megaflows.n_evicted(), ..self.books.all }
    }

    /// Work done so far, in packets whose entries were known: what a fair share between ports
    /// goes by. A translation costs about as much as [`TRANSLATION_WORK`] of them, a pass
    /// through the tracker as [`PASS_WORK`].
    #[inline]
    pub fn work(&self) -> u64 {
        let SwitchCounters { n_packets, n_misses, n_renewals, n_recirculations, .. } = self.books.all;
        n_packets + TRANSLATION_WORK * (n_misses + n_renewals) + PASS_WORK * n_recirculations
    }

    /// What became of the packets received from a port.
    pub fn port_counters(&self, port: PortNo) -> PortCounters {
        self.books.port(port)
    }
}
