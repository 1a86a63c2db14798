//! What collectors of sFlow are told (sFlow version 5, www.sflow.org): some packets, as they
//! were at a port, and the ports' counters.
//!
//! [`Agent`] packs samples into datagrams; when one is full, or [`Agent::finish`] is called, it
//! is there to be sent.

use std::{net::IpAddr, time::Duration};

const VERSION: u32 = 5;
/// Kinds of samples, and of records in them, of the standard enterprise.
const FLOW_SAMPLE: u32 = 1;
const COUNTER_SAMPLE: u32 = 2;
const RAW_HEADER: u32 = 1;
const EXTENDED_SWITCH: u32 = 1001;
const INTERFACE_COUNTERS: u32 = 1;
/// Of a raw header.
const ETHERNET: u32 = 1;
/// The frame check sequence, which is not there.
const STRIPPED: u32 = 4;
/// Of an interface: ethernetCsmacd (IANAifType), and its speed.
const IF_TYPE: u32 = 6;
const IF_SPEED: u64 = 10_000_000_000;
const FULL_DUPLEX: u32 = 1;
/// Longest payload of a datagram that no link cuts.
const MAX_LEN: usize = 1400;
/// What an interface does not count.
const UNKNOWN: u32 = u32::MAX;

/// A sampled packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowSample<'a> {
    /// Number of the port that it came by.
    pub port: u32,
    /// How many packets it stands for.
    pub rate: u32,
    /// Bytes that the whole frame has.
    pub frame_len: u32,
    /// The start of the frame.
    pub header: &'a [u8],
    /// Its VLAN and priority.
    pub vlan: (u32, u32),
}

/// What a port has counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PortSample {
    /// Number of the port.
    pub port: u32,
    /// It has a link.
    pub up: bool,
    /// Bytes and packets received, and those of them that were dropped.
    pub received: (u64, u64, u64),
    /// Bytes and packets sent, and those that could not be.
    pub sent: (u64, u64, u64),
}

/// Who tells.
#[derive(Debug, Clone)]
pub struct Agent {
    address: IpAddr,
    sub_id: u32,
    n_datagrams: u32,
    n_flow_samples: u32,
    n_counter_samples: u32,
    /// Packets that samples have stood for.
    pool: u32,
    /// Samples of the next datagram.
    n_samples: u32,
    samples: Vec<u8>,
    full: Vec<Vec<u8>>,
}

impl Agent {
    /// With this address, which is how collectors know it; `sub_id`: one of several there.
    pub fn new(address: IpAddr, sub_id: u32) -> Self {
        Self {
            address,
            sub_id,
            n_datagrams: 0,
            n_flow_samples: 0,
            n_counter_samples: 0,
            pool: 0,
            n_samples: 0,
            samples: Vec::new(),
            full: Vec::new(),
        }
    }

    /// Tells of a packet. `uptime`: how long the agent has been there.
    pub fn packet(&mut self, uptime: Duration, sample: &FlowSample<'_>) {
        self.n_flow_samples = self.n_flow_samples.wrapping_add(1);
        self.pool = self.pool.wrapping_add(sample.rate);
        let mut body = Vec::new();
        // Nothing is told of drops, and the way out is not known yet.
        for number in [self.n_flow_samples, sample.port, sample.rate, self.pool, 0, sample.port, 0, 2] {
            put(&mut body, number);
        }
        let header_len = sample.header.len() as u32;
        let mut raw = Vec::new();
        for number in [ETHERNET, sample.frame_len + STRIPPED, STRIPPED, header_len] {
            put(&mut raw, number);
        }
        raw.extend(sample.header);
        raw.resize(raw.len().next_multiple_of(4), 0);
        record(&mut body, RAW_HEADER, &raw);
        let mut switch = Vec::new();
        for number in [sample.vlan.0, sample.vlan.1, sample.vlan.0, sample.vlan.1] {
            put(&mut switch, number);
        }
        record(&mut body, EXTENDED_SWITCH, &switch);
        self.add(uptime, FLOW_SAMPLE, &body);
    }

    /// Tells what a port has counted.
    pub fn counters(&mut self, uptime: Duration, sample: &PortSample) {
        self.n_counter_samples = self.n_counter_samples.wrapping_add(1);
        let mut body = Vec::new();
        for number in [self.n_counter_samples, sample.port, 1] {
            put(&mut body, number);
        }
        let mut counters = Vec::new();
        for number in [sample.port, IF_TYPE] {
            put(&mut counters, number);
        }
        counters.extend(IF_SPEED.to_be_bytes());
        // Enabled, and with a link.
        put(&mut counters, FULL_DUPLEX);
        put(&mut counters, 1 | u32::from(sample.up) << 1);
        let (bytes, packets, drops) = sample.received;
        counters.extend(bytes.to_be_bytes());
        for number in [packets as u32, UNKNOWN, UNKNOWN, drops as u32, 0, UNKNOWN] {
            put(&mut counters, number);
        }
        let (bytes, packets, drops) = sample.sent;
        counters.extend(bytes.to_be_bytes());
        for number in [packets as u32, UNKNOWN, UNKNOWN, drops as u32, 0, 0] {
            put(&mut counters, number);
        }
        record(&mut body, INTERFACE_COUNTERS, &counters);
        self.add(uptime, COUNTER_SAMPLE, &body);
    }

    /// Closes the datagram under way, and hands out all that are to be sent.
    pub fn finish(&mut self, uptime: Duration) -> Vec<Vec<u8>> {
        self.close(uptime);
        std::mem::take(&mut self.full)
    }

    fn add(&mut self, uptime: Duration, kind: u32, body: &[u8]) {
        if self.samples.len() + body.len() > MAX_LEN {
            self.close(uptime);
        }
        self.n_samples += 1;
        record(&mut self.samples, kind, body);
    }

    fn close(&mut self, uptime: Duration) {
        if self.n_samples == 0 {
            return;
        }
        self.n_datagrams = self.n_datagrams.wrapping_add(1);
        let mut datagram = Vec::new();
        put(&mut datagram, VERSION);
        match self.address {
            IpAddr::V4(address) => {
                put(&mut datagram, 1);
                datagram.extend(address.octets());
            }
            IpAddr::V6(address) => {
                put(&mut datagram, 2);
                datagram.extend(address.octets());
            }
        }
        for number in [self.sub_id, self.n_datagrams, uptime.as_millis() as u32, self.n_samples] {
            put(&mut datagram, number);
        }
        datagram.append(&mut self.samples);
        self.n_samples = 0;
        self.full.push(datagram);
    }
}

fn put(bytes: &mut Vec<u8>, number: u32) {
    bytes.extend(number.to_be_bytes());
}

/// Kind, length and contents.
fn record(bytes: &mut Vec<u8>, kind: u32, body: &[u8]) {
    put(bytes, kind);
    put(bytes, body.len() as u32);
    bytes.extend(body);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A dull reader, which follows the lengths.
    struct Reader<'a>(&'a [u8]);

    impl<'a> Reader<'a> {
        fn u32(&mut self) -> u32 {
            u32::from_be_bytes(self.bytes(4).try_into().unwrap())
        }

        fn bytes(&mut self, n: usize) -> &'a [u8] {
            let (bytes, rest) = self.0.split_at(n);
            self.0 = rest;
            bytes
        }

        fn record(&mut self) -> (u32, Reader<'a>) {
            let (kind, len) = (self.u32(), self.u32());
            (kind, Reader(self.bytes(len as usize)))
        }
    }

    /// Number of the datagram, and its samples by kind.
    fn read(datagram: &[u8]) -> (u32, Vec<(u32, Reader<'_>)>) {
        let mut reader = Reader(datagram);
        assert_eq!((reader.u32(), reader.u32(), reader.bytes(4)), (5, 1, &[10, 0, 0, 9][..]));
        let (sub_id, number, uptime, n) = (reader.u32(), reader.u32(), reader.u32(), reader.u32());
        assert_eq!((sub_id, uptime), (7, 5000));
        let samples = (0..n).map(|_| reader.record()).collect();
        assert!(reader.0.is_empty(), "{} bytes are left", reader.0.len());
        (number, samples)
    }

    proptest! {
        #[test]
        fn what_is_told_is_read(headers in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 14..200), 1..40)) {
            let mut agent = Agent::new("10.0.0.9".parse().unwrap(), 7);
            let uptime = Duration::from_secs(5);
            for header in &headers {
                let (port, vlan) = (3, (5, 1));
                agent.packet(uptime, &FlowSample { port, rate: 64, frame_len: 1514, header, vlan });
            }
            let datagrams = agent.finish(uptime);
            prop_assert!(agent.finish(uptime).is_empty());
            let mut seen = Vec::new();
            for (idx, datagram) in datagrams.iter().enumerate() {
                prop_assert!(datagram.len() <= MAX_LEN + 100);
                let (number, samples) = read(datagram);
                prop_assert_eq!(number as usize, idx + 1);
                for (kind, mut sample) in samples {
                    prop_assert_eq!(kind, 1);
                    let numbers: Vec<u32> = (0..8).map(|_| sample.u32()).collect();
                    let n = seen.len() as u32 + 1;
                    prop_assert_eq!(numbers, vec![n, 3, 64, 64 * n, 0, 3, 0, 2]);
                    let (kind, mut raw) = sample.record();
                    prop_assert_eq!((kind, raw.u32(), raw.u32(), raw.u32()), (1, 1, 1518, 4));
                    let len = raw.u32() as usize;
                    seen.push(raw.bytes(len).to_vec());
                    let (kind, mut switch) = sample.record();
                    prop_assert_eq!((kind, switch.u32(), switch.u32()), (1001, 5, 1));
                    prop_assert!(sample.0.is_empty());
                }
            }
            prop_assert_eq!(seen, headers);
        }
    }

    #[test]
    fn counters_have_their_places() {
        let mut agent = Agent::new("10.0.0.9".parse().unwrap(), 7);
        let uptime = Duration::from_secs(5);
        let sample = PortSample { port: 4, up: true, received: (1000, 10, 1), sent: (500, 5, 2) };
        agent.counters(uptime, &sample);
        let datagrams = agent.finish(uptime);
        let (_, mut samples) = read(&datagrams[0]);
        let (kind, sample) = &mut samples[0];
        assert_eq!((*kind, sample.u32(), sample.u32(), sample.u32()), (2, 1, 4, 1));
        let (kind, mut counters) = sample.record();
        assert_eq!((kind, counters.0.len()), (1, 88));
        assert_eq!((counters.u32(), counters.u32()), (4, 6));
        counters.bytes(8);
        assert_eq!((counters.u32(), counters.u32()), (1, 3));
        assert_eq!(counters.bytes(8), 1000_u64.to_be_bytes());
        assert_eq!(counters.u32(), 10);
    }
}
