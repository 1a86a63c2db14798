//! Our switch under a workload: generator, pool, sink, and the loop of a worker.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use flowtable::{
    conntrack::{Config, Conntrack, Filter, Storage},
    packet::{HEADROOM, Packet},
    port::PortTable,
    program::TunnelKind,
    snapshot::Snapshot,
    stats::SwitchCounters,
    switch::{MAX_BATCH, Sink, Switch, SwitchConfig},
    text::parse_flow,
    types::{PortNo, Timestamp},
};

use super::{
    LOCAL, Measured, REMOTE, Way, Workload,
    generator::{Generator, ROOM},
    window::{Window, shares},
};
use crate::{
    measure::{n_allocations, on_cpu},
    rules::{IN, UPLINK, port, snapshot_with},
};

/// Bytes of a buffer, as the other side's have them.
const BUF_LEN: usize = 2048;
/// Buffers of the pool.
const N_BUFS: usize = 8 * MAX_BATCH;
/// Flows of a workload of first packets that make the rules known beforehand.
const N_KNOWN: u32 = 2_000;
/// Flow numbers from burst to burst.
const BURST_STRIDE: u32 = 2_000_000;

/// Time of a batch where it is not real: about 15 million packets in a second.
const BATCH_NANOS: u64 = 2_000;

/// A buffer of fixed size.
struct Buf(Box<[u8; BUF_LEN]>);

impl AsRef<[u8]> for Buf {
    fn as_ref(&self) -> &[u8] {
        &self.0[..]
    }
}

impl AsMut<[u8]> for Buf {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.0[..]
    }
}

/// Counts what leaves, and keeps the buffers for the source.
struct Pool {
    free: Vec<Buf>,
    n_sent: u64,
    n_sent_bytes: u64,
}

impl Sink<Buf> for Pool {
    fn output(&mut self, _: PortNo, packet: Packet<Buf>) {
        self.n_sent += 1;
        self.n_sent_bytes += packet.len() as u64;
        self.free.push(packet.into_buf());
    }

    fn copy(&mut self, packet: &Packet<Buf>) -> Option<Packet<Buf>> {
        let mut buf = self.free.pop()?;
        let (start, len) = (packet.start(), packet.len());
        buf.0.get_mut(start..start + len)?.copy_from_slice(packet.bytes());
        Some(Packet::new(buf, start, len, packet.in_port))
    }

    fn release(&mut self, packet: Packet<Buf>) {
        self.free.push(packet.into_buf());
    }
}

/// A switch with its load.
pub struct Rig {
    workload: &'static Workload,
    switch: Switch,
    snapshot: Arc<Snapshot>,
    in_port: PortNo,
    generator: Generator,
    batch: Vec<Packet<Buf>>,
    pool: Pool,
    clock: Clock,
    n_bursts: u32,
}

/// Where the time of the packets comes from.
#[derive(Debug, Clone, Copy)]
enum Clock {
    /// It goes by.
    Real(Instant),
    /// Each batch takes as long as any other, so that every run is the same.
    Virtual(Timestamp),
}

impl Rig {
    /// With a worker's usual caches, as nobody has configured them.
    ///
    /// # Errors
    /// When a rule is not understood.
    pub fn new(workload: &'static Workload) -> Result<Self> {
        let parse = |line: String| parse_flow(&line, &PortTable::default()).with_context(|| line.clone());
        let rules = (workload.rules)().into_iter().map(parse).collect::<Result<Vec<_>>>()?;
        let (kind, in_port) = match workload.way {
            Way::Ports => (TunnelKind::Geneve, IN),
            Way::Encap(kind) => (kind, IN),
            Way::Decap(kind) => (kind, UPLINK),
        };
        let mut switch = Switch::with_seed(SwitchConfig::default(), 1);
        if workload.n_connections > 0 {
            let n_slots = workload.n_connections as usize * 5 / 4 + N_KNOWN as usize;
            let storage = Storage::on_heap_advised(n_slots, dataplane::advise_huge_pages);
            let config = Config { seed: 1, ..Config::default() };
            switch = switch.with_conntrack(Arc::new(Conntrack::new(config, storage)));
        }
        switch.memory().into_iter().for_each(dataplane::advise_huge_pages);
        let free = (0..N_BUFS).map(|_| Buf(Box::new([0; BUF_LEN]))).collect();
        Ok(Self {
            workload,
            switch,
            snapshot: snapshot_with(rules, kind, LOCAL, REMOTE),
            in_port: port(in_port),
            generator: Generator::new(workload.traffic, workload.way),
            batch: Vec::with_capacity(MAX_BATCH),
            pool: Pool { free, n_sent: 0, n_sent_bytes: 0 },
            clock: Clock::Real(Instant::now()),
            n_bursts: 0,
        })
    }

    /// Runs until everything is known.
    pub fn warm_up(&mut self) {
        if self.workload.measured == Measured::Rate {
            self.run(Duration::from_secs_f64(self.workload.warm_up));
        }
    }

    /// Measures once: for so long, or a burst of first packets.
    ///
    /// # Errors
    /// When the kernel does not tell how long the thread ran.
    pub fn measure(&mut self, duration: Duration) -> Result<Window> {
        let n_steps = match self.workload.measured {
            Measured::Rate => None,
            Measured::FirstPackets { n } => {
                self.forget();
                Some(n.div_ceil(MAX_BATCH as u32))
            }
        };
        let before = self.switch.counters();
        let n_allocated = n_allocations();
        let (wall, cpu) = (Instant::now(), precise_cpu()?);
        match n_steps {
            None => self.run(duration),
            Some(n_steps) => (0..n_steps).for_each(|_| self.step()),
        }
        let (cpu, wall) = (precise_cpu()?.saturating_sub(cpu), wall.elapsed());
        let n_allocated = n_allocations() - n_allocated;
        let after = self.switch.counters();
        Ok(Window {
            n_packets: after.n_packets - before.n_packets,
            cpu,
            wall,
            mix: mix(&before, &after),
            n_dropped: after.n_dropped - before.n_dropped,
            n_allocations: Some(n_allocated as u64),
        })
    }

    /// Generator and sink alone: what both sides have in common.
    ///
    /// # Errors
    /// As [`Rig::measure`].
    pub fn measure_harness(&mut self, duration: Duration) -> Result<Window> {
        let (start, cpu) = (Instant::now(), precise_cpu()?);
        let mut n_packets = 0;
        while start.elapsed() < duration {
            self.receive();
            n_packets += self.batch.len() as u64;
            self.batch.drain(..).for_each(|packet| self.pool.output(PortNo::ZERO, packet));
        }
        let (cpu, wall) = (precise_cpu()?.saturating_sub(cpu), start.elapsed());
        Ok(Window { n_packets, cpu, wall, ..Window::default() })
    }

    fn run(&mut self, duration: Duration) {
        let start = Instant::now();
        while start.elapsed() < duration {
            (0..32).for_each(|_| self.step());
        }
    }

    /// Prepares a burst: connections are forgotten, the rules are known, and the flows to come
    /// have not been seen.
    fn forget(&mut self) {
        self.n_bursts += 1;
        let start = self.n_bursts * BURST_STRIDE;
        let now = self.now();
        if let Some(tracker) = self.switch.conntrack() {
            tracker.flush(now, &Filter::default());
            self.generator.go_through(start - N_KNOWN);
            (0..N_KNOWN / MAX_BATCH as u32).for_each(|_| self.step());
        }
        self.generator.go_through(start);
    }

    /// Does the same in every run, for whoever counts instructions or allocations: so many batches to warm up,
    /// then so many that count, in `Rig::counted`. Answers the packets of the latter.
    pub fn rehearse(&mut self, n_warm: u32, n_counted: u32) -> u64 {
        if let Clock::Real(_) = self.clock {
            self.clock = Clock::Virtual(Timestamp::from_nanos(0));
        }
        match self.workload.measured {
            Measured::Rate => (0..n_warm).for_each(|_| self.step()),
            Measured::FirstPackets { .. } => self.forget(),
        }
        let before = self.switch.counters().n_packets;
        self.counted(n_counted);
        self.switch.counters().n_packets - before
    }

    /// A function of its own, which valgrind finds by its name.
    #[inline(never)]
    fn counted(&mut self, n_batches: u32) {
        (0..n_batches).for_each(|_| self.step());
    }

    fn now(&mut self) -> Timestamp {
        match &mut self.clock {
            Clock::Real(start) => Timestamp::from_nanos(start.elapsed().as_nanos() as u64),
            Clock::Virtual(now) => {
                *now = Timestamp::from_nanos(now.nanos() + BATCH_NANOS);
                *now
            }
        }
    }

    /// One batch.
    fn step(&mut self) {
        self.receive();
        let now = self.now();
        self.switch.process(now, &self.snapshot, self.in_port, &mut self.batch, &mut self.pool);
    }

    fn receive(&mut self) {
        for _ in 0..MAX_BATCH {
            let Some(mut buf) = self.pool.free.pop() else { continue };
            let Some(frame) = buf.0[HEADROOM..].first_chunk_mut::<ROOM>() else { continue };
            let len = self.generator.write(frame);
            self.batch.push(Packet::new(buf, HEADROOM, len, self.in_port));
        }
    }
}

/// The kernel adds up a thread's time when it looks at the thread; this makes it look.
fn precise_cpu() -> Result<Duration> {
    thread::yield_now();
    on_cpu().ok_or_else(|| anyhow!("the kernel does not tell how long a thread ran (schedstat)"))
}

fn mix(before: &SwitchCounters, after: &SwitchCounters) -> Vec<(String, f64)> {
    let change = |count: fn(&SwitchCounters) -> u64| count(after) - count(before);
    shares(
        change(|counters| counters.n_packets),
        [
            ("session", change(|counters| counters.n_session_hits)),
            ("megaflow", change(|counters| counters.n_megaflow_hits)),
            ("miss", change(|counters| counters.n_misses)),
            ("again after conntrack", change(|counters| counters.n_recirculations)),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::list::{WORKLOADS, find};

    #[test]
    fn packets_of_every_workload_go_where_they_should() {
        for workload in WORKLOADS {
            // A million connections are the same as few, but take a while.
            if workload.n_connections > 200_000 {
                continue;
            }
            let mut rig = Rig::new(workload).unwrap();
            for _ in 0..200 {
                rig.step();
            }
            let counters = rig.switch.counters();
            assert_eq!(counters.n_packets, 200 * MAX_BATCH as u64, "{}", workload.id);
            let n_sent = rig.pool.n_sent;
            assert_eq!(n_sent, counters.n_forwarded, "{}", workload.id);
            // Some drop what they do not allow; where there is a backend, answers that come before they are asked for.
            if !["P4", "P5d", "P11"].contains(&workload.id) {
                assert_eq!(counters.n_dropped, 0, "{}: {:?}", workload.id, rig.switch.drops());
            }
            let len = match workload.way {
                Way::Encap(_) => 110,
                Way::Ports | Way::Decap(_) => 60,
            };
            assert_eq!(rig.pool.n_sent_bytes, n_sent * len, "{}", workload.id);
            assert_eq!(rig.pool.free.len(), N_BUFS, "{}: buffers lost", workload.id);
        }
    }

    #[test]
    fn bursts_are_of_flows_that_nobody_has_seen() {
        let mut rig = Rig::new(find("P12a").unwrap()).unwrap();
        for _ in 0..2 {
            let window = rig.measure(Duration::ZERO).unwrap();
            assert_eq!(window.n_packets, 8_000);
            assert_eq!(window.mix, [("miss".to_owned(), 1.0)]);
        }
    }
}
