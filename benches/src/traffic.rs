//! Frames, and the loop that feeds them to a switch: a source that writes them into
//! buffers from a pool, and a sink that counts them and gives the buffers back.

use std::{net::Ipv4Addr, sync::Arc};

use flowtable::{
    build::{self, Host},
    conntrack::Conntrack,
    packet::{HEADROOM, Packet},
    snapshot::Snapshot,
    switch::{MAX_BATCH, Sink, Switch, SwitchConfig},
    types::{PortNo, Timestamp},
};

/// Bytes of a buffer.
const BUF_LEN: usize = 2048;

/// Offset of the IPv4 source address in an untagged frame; destination and ports follow.
const ADDRESSES: usize = 14 + 12;

/// The smallest UDP frame, padded to 60 bytes.
pub fn udp_template() -> Vec<u8> {
    padded(build::udp(&Host::v4(1), &Host::v4(2), b""))
}

/// Makes such a frame one of flow `n`. Neighbouring numbers differ in all of addresses and
/// ports; the low four bits of the source port are `n % 16`. Checksums stay as they are:
/// the switch changes them, it does not check them.
pub fn write_flow(frame: &mut [u8], n: u32) {
    let mixed = n.wrapping_mul(0x9e37_79b1);
    let src_port = 0x8000 | ((mixed & 0x7ff) << 4) | (n % 16);
    let ports = src_port << 16 | mixed >> 16 | 1;
    let words = [0x0a00_0000 | mixed >> 12, 0x0b00_0000 | n & 0xff_ffff, ports];
    for (place, word) in frame[ADDRESSES..ADDRESSES + 12].chunks_exact_mut(4).zip(words) {
        place.copy_from_slice(&word.to_be_bytes());
    }
}

/// The frame of flow `n`.
pub fn udp_frame(n: u32) -> Vec<u8> {
    let mut frame = udp_template();
    write_flow(&mut frame, n);
    frame
}

/// Offset of the UDP checksum in such a frame.
const CHECKSUM: usize = 14 + 20 + 6;

/// Turns a frame around: an answer to it, with another source port and address.
fn answer(frame: &mut [u8]) {
    let (addresses, ports) = frame[ADDRESSES..ADDRESSES + 12].split_at_mut(8);
    addresses.rotate_left(4);
    ports.rotate_left(2);
}

/// Makes a frame pass for whole where its checksums are looked at: none in UDP, the right
/// one in IPv4.
fn settle_checksums(frame: &mut [u8]) {
    frame[CHECKSUM..CHECKSUM + 2].fill(0);
    let header = &mut frame[14..34];
    header[10..12].fill(0);
    let sum = flowtable::checksum::of(header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// Where a load's frames come from.
#[derive(Debug, Clone)]
pub enum Source {
    /// UDP flows, made one after the other: costs as little as a generator can.
    Flows(u32),
    /// UDP conversations without checksums, in an order without neighbours: packets of one
    /// side, or of both.
    Conversations {
        /// How many.
        n: u32,
        /// The other side answers each packet.
        both_ways: bool,
    },
    /// A flood, and among it the packets of one conversation.
    Flood {
        /// Writes packet `n` of the flood; answers its length.
        write: fn(u32, &mut [u8]) -> usize,
        /// Every how many packets is one of the conversation.
        every: usize,
    },
    /// Frames in memory, which adds the cost of reading them.
    Frames(Vec<Vec<u8>>),
}

impl Source {
    fn n_frames(&self) -> usize {
        match self {
            Self::Flows(n) => *n as usize,
            Self::Conversations { n, both_ways } => *n as usize * (1 + usize::from(*both_ways)),
            Self::Flood { .. } => usize::MAX,
            Self::Frames(frames) => frames.len(),
        }
    }

    /// Writes frame `idx` into a buffer; answers its length.
    fn write(&self, template: &[u8], idx: usize, buf: &mut [u8]) -> usize {
        let frame = match self {
            Self::Flood { write, every } if idx > 1 && !idx.is_multiple_of(*every) => {
                return write(idx as u32, buf);
            }
            Self::Flows(_) | Self::Conversations { .. } | Self::Flood { .. } => template,
            Self::Frames(frames) => &frames[idx],
        };
        let place = &mut buf[..frame.len()];
        place.copy_from_slice(frame);
        match self {
            Self::Flows(_) => write_flow(place, idx as u32),
            Self::Conversations { n, both_ways } => {
                // The factor has no divisor in common with the powers of ten.
                let step = (idx >> usize::from(*both_ways)) as u64 * 0x9e37_79b1;
                write_flow(place, (step % u64::from(*n)) as u32);
                if *both_ways && idx & 1 == 1 {
                    answer(place);
                }
                settle_checksums(place);
            }
            Self::Flood { .. } => {
                write_flow(place, 0);
                // The other side answers once.
                if idx == 1 {
                    answer(place);
                }
                settle_checksums(place);
            }
            Self::Frames(_) => {}
        }
        frame.len()
    }
}

/// A TCP frame of flow `n` whose addresses and ports are all random.
pub fn random_frame(n: u32) -> Vec<u8> {
    let mix = |salt: u32| (n ^ salt).wrapping_mul(0x85eb_ca6b).rotate_left(15).wrapping_mul(0xc2b2_ae35);
    let host = |salt| Host {
        ip: Ipv4Addr::from_bits(mix(salt)).into(),
        port: (mix(salt + 1) >> 16) as u16,
        ..Host::v4(1)
    };
    padded(build::tcp(&host(1), &host(3), 0x10, b""))
}

fn padded(mut frame: Vec<u8>) -> Vec<u8> {
    frame.resize(frame.len().max(60), 0);
    frame
}

/// A sink that keeps the buffers for the source.
#[derive(Debug, Default)]
pub struct Pool {
    free: Vec<Vec<u8>>,
    n_sent: u64,
}

impl Sink<Vec<u8>> for Pool {
    fn output(&mut self, _: PortNo, packet: Packet<Vec<u8>>) {
        self.n_sent += 1;
        self.free.push(packet.into_buf());
    }

    fn copy(&mut self, packet: &Packet<Vec<u8>>) -> Option<Packet<Vec<u8>>> {
        let mut buf = self.free.pop()?;
        let (start, len) = (packet.start(), packet.len());
        buf.get_mut(start..start + len)?.copy_from_slice(packet.bytes());
        Some(Packet::new(buf, start, len, packet.in_port))
    }

    fn release(&mut self, packet: Packet<Vec<u8>>) {
        self.free.push(packet.into_buf());
    }
}

/// A switch under load.
pub struct Load {
    switch: Switch,
    snapshot: Arc<Snapshot>,
    in_port: PortNo,
    source: Source,
    template: Vec<u8>,
    next: usize,
    batch: Vec<Packet<Vec<u8>>>,
    pool: Pool,
    now: u64,
    /// Nanoseconds from batch to batch.
    pace: u64,
}

impl Load {
    /// A switch that a source's frames come to by a port, again and again.
    pub fn new(config: SwitchConfig, snapshot: Arc<Snapshot>, in_port: PortNo, source: Source) -> Self {
        let free = vec![vec![0; BUF_LEN]; 4 * MAX_BATCH];
        let switch = Switch::with_seed(config, 1);
        switch.memory().into_iter().for_each(dataplane::advise_huge_pages);
        Self {
            switch,
            snapshot,
            in_port,
            source,
            template: udp_template(),
            next: 0,
            batch: Vec::with_capacity(MAX_BATCH),
            pool: Pool { free, ..Pool::default() },
            now: 0,
            pace: 1000,
        }
    }

    /// The same, with this tracker.
    #[must_use]
    pub fn with_conntrack(self, tracker: Arc<Conntrack>) -> Self {
        Self { switch: self.switch.with_conntrack(tracker), ..self }
    }

    /// The same at so many packets in a second of the switch's clock.
    #[must_use]
    pub fn at_rate(self, pps: u64) -> Self {
        Self { pace: 1_000_000_000 * MAX_BATCH as u64 / pps, ..self }
    }

    /// The switch's clock.
    pub fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.now)
    }

    /// The same, after each frame has come often enough for all caches to know it.
    #[must_use]
    pub fn warm(mut self) -> Self {
        // Sessions replace each other only now and then.
        for _ in 0..(4 * self.source.n_frames()).div_ceil(MAX_BATCH) {
            self.step();
        }
        self
    }

    /// One batch.
    pub fn step(&mut self) {
        for _ in 0..MAX_BATCH {
            let Some(mut buf) = self.pool.free.pop() else { continue };
            let len = self.source.write(&self.template, self.next, &mut buf[HEADROOM..]);
            self.next = if self.next + 1 == self.source.n_frames() { 0 } else { self.next + 1 };
            self.batch.push(Packet::new(buf, HEADROOM, len, self.in_port));
        }
        self.now += self.pace;
        let now = Timestamp::from_nanos(self.now);
        self.switch.process(now, &self.snapshot, self.in_port, &mut self.batch, &mut self.pool);
    }

    /// Makes another snapshot the current one.
    pub fn publish(&mut self, snapshot: Arc<Snapshot>) {
        self.snapshot = snapshot;
    }

    /// The switch, to look at its counters.
    pub fn switch(&self) -> &Switch {
        &self.switch
    }

    /// Packets that left.
    pub fn n_sent(&self) -> u64 {
        self.pool.n_sent
    }
}

/// Frames as a host with these rules sends them: those of `frames`, switched once.
pub fn sent_by(snapshot: &Arc<Snapshot>, in_port: PortNo, frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    struct Keep(Vec<Vec<u8>>);
    impl Sink<Vec<u8>> for Keep {
        fn output(&mut self, _: PortNo, packet: Packet<Vec<u8>>) {
            self.0.push(packet.bytes().to_vec());
        }
        fn copy(&mut self, _: &Packet<Vec<u8>>) -> Option<Packet<Vec<u8>>> {
            None
        }
        fn release(&mut self, _: Packet<Vec<u8>>) {}
    }
    let mut switch = Switch::with_seed(SwitchConfig::default(), 1);
    let mut batch = frames.iter().map(|frame| build::packet(frame, in_port)).collect();
    let mut keep = Keep(Vec::new());
    switch.process(Timestamp::default(), snapshot, in_port, &mut batch, &mut keep);
    keep.0
}
