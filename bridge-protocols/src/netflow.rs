//! Flows as collectors of NetFlow version 5 are told of them: of IPv4 only, in records of 48
//! bytes.

use std::{net::IpAddr, time::Duration};

use flowtable::{
    account::{FlowId, Way},
    types::{PortNo, Timestamp},
};

use crate::flows::{Count, Told};

const VERSION: u16 = 5;
/// Records of one datagram.
const MAX_RECORDS: usize = 30;
const ICMP: u8 = 1;
/// Number of the ways out of a packet that leaves by several.
const SEVERAL: u16 = 0xffff;
/// Ethernet header, and a tag.
const ETHERNET_LEN: u64 = 14;
const TAG_LEN: u64 = 4;

/// Bytes of a flow's IP packets, with what short frames are filled up with.
pub(crate) fn ip_len(flow: &FlowId, count: &Count) -> u64 {
    let header = ETHERNET_LEN + if flow.vlan.get() == 0 { 0 } else { TAG_LEN };
    count.n_bytes.saturating_sub(header.saturating_mul(count.n_packets))
}

/// Number of the port that a flow's packets leave by; 0: none, or nobody knows.
pub(crate) fn way_out(way: Way, several: u32) -> u32 {
    match way {
        Way::Nowhere => 0,
        Way::Port(port) => port.get(),
        Way::Several => several,
    }
}

/// Who tells.
#[derive(Debug, Clone)]
pub struct Exporter {
    /// Kind and number of the engine, by which collectors know bridges apart.
    engine: (u8, u8),
    /// Flows told of so far.
    sequence: u32,
}

impl Exporter {
    /// With this kind and number.
    pub fn new(engine: (u8, u8)) -> Self {
        Self { engine, sequence: 0 }
    }

    /// The datagrams that tell of flows. `since_1970`: of the present, `now`.
    pub fn write(&mut self, now: Timestamp, since_1970: Duration, flows: &[Told<FlowId>]) -> Vec<Vec<u8>> {
        let records: Vec<[u8; 48]> = flows.iter().flat_map(|told| records(&told.flow, &told.count)).collect();
        records.chunks(MAX_RECORDS).map(|records| self.datagram(now, since_1970, records)).collect()
    }

    fn datagram(&mut self, now: Timestamp, since_1970: Duration, records: &[[u8; 48]]) -> Vec<u8> {
        let mut datagram = Vec::with_capacity(24 + records.len() * 48);
        datagram.extend(VERSION.to_be_bytes());
        datagram.extend((records.len() as u16).to_be_bytes());
        let secs = since_1970.as_secs() as u32;
        for number in [millis(now), secs, since_1970.subsec_nanos(), self.sequence] {
            datagram.extend(number.to_be_bytes());
        }
        // Nothing is sampled.
        datagram.extend([self.engine.0, self.engine.1, 0, 0]);
        records.iter().for_each(|record| datagram.extend(record));
        self.sequence = self.sequence.wrapping_add(records.len() as u32);
        datagram
    }
}

/// Milliseconds, which are over after 49 days and begin anew.
fn millis(at: Timestamp) -> u32 {
    (at.nanos() / 1_000_000) as u32
}

/// The records of a flow: several, where one cannot count so much. None, if it is not of IPv4.
fn records(flow: &FlowId, count: &Count) -> Vec<[u8; 48]> {
    let Some((IpAddr::V4(src), IpAddr::V4(dst))) = flow.ips else { return Vec::new() };
    let n_bytes = ip_len(flow, count);
    let most = u64::from(u32::MAX);
    let n_records = n_bytes.max(count.n_packets).div_ceil(most).max(1);
    let (src_port, dst_port) = match flow.protocol {
        // Type and code, where others have the port they go to.
        ICMP => (0, flow.ports.0 << 8 | flow.ports.1 & 0xff),
        _ => flow.ports,
    };
    let record = |idx: u64| {
        let part = |sum: u64| (sum / n_records + u64::from(idx < sum % n_records)) as u32;
        let mut record = [0; 48];
        let mut put = |at: usize, bytes: &[u8]| {
            if let Some(place) = record.get_mut(at..at + bytes.len()) {
                place.copy_from_slice(bytes);
            }
        };
        put(0, &src.octets());
        put(4, &dst.octets());
        put(12, &number(flow.in_port).to_be_bytes());
        put(14, &(way_out(count.way, SEVERAL.into()).min(SEVERAL.into()) as u16).to_be_bytes());
        put(16, &part(count.n_packets).to_be_bytes());
        put(20, &part(n_bytes).to_be_bytes());
        put(24, &millis(count.first).to_be_bytes());
        put(28, &millis(count.last).to_be_bytes());
        put(32, &src_port.to_be_bytes());
        put(34, &dst_port.to_be_bytes());
        put(37, &[count.tcp_flags as u8, flow.protocol, flow.tos]);
        record
    };
    (0..n_records).map(record).collect()
}

/// A port's number has 16 bits here.
fn number(port: PortNo) -> u16 {
    port.get() as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flows::End;
    use flowtable::types::{MacAddr, VlanId};

    fn flow(last: u8) -> FlowId {
        FlowId {
            in_port: PortNo::new(3).unwrap(),
            vlan: VlanId::new(10).unwrap(),
            macs: (MacAddr::ZERO, MacAddr::ZERO),
            eth_type: 0x0800,
            ips: Some(("10.0.0.1".parse().unwrap(), IpAddr::from([10, 0, 0, last]))),
            protocol: 17,
            tos: 0x10,
            ports: (1000, 53),
        }
    }

    fn told(flow: FlowId, n_packets: u64, n_bytes: u64) -> Told<FlowId> {
        let (first, last) = (Timestamp::from_nanos(1_000_000_000), Timestamp::from_nanos(2_500_000_000));
        let way = Way::Port(PortNo::new(7).unwrap());
        Told {
            flow,
            count: Count { n_packets, n_bytes, tcp_flags: 0x12, way, first, last },
            end: End::Active,
        }
    }

    #[test]
    fn everything_has_its_place() {
        let mut exporter = Exporter::new((1, 2));
        let now = Timestamp::from_nanos(3_000_000_000);
        let flows: Vec<_> = (0..31).map(|last| told(flow(last), 4, 4 * 118)).collect();
        let datagrams = exporter.write(now, Duration::new(1_700_000_000, 5), &flows);
        assert_eq!(datagrams.iter().map(Vec::len).collect::<Vec<_>>(), [24 + 30 * 48, 24 + 48]);
        let expected = [
            &[0, 5, 0, 1][..],
            &3000_u32.to_be_bytes(),
            &1_700_000_000_u32.to_be_bytes(),
            &5_u32.to_be_bytes(),
            &30_u32.to_be_bytes(),
            &[1, 2, 0, 0],
            &[10, 0, 0, 1, 10, 0, 0, 30, 0, 0, 0, 0, 0, 3, 0, 7],
            &4_u32.to_be_bytes(),
            &400_u32.to_be_bytes(),
            &1000_u32.to_be_bytes(),
            &2500_u32.to_be_bytes(),
            &[3, 232, 0, 53, 0, 0x12, 17, 0x10, 0, 0, 0, 0, 0, 0, 0, 0],
        ];
        assert_eq!(datagrams[1], expected.concat());
    }

    #[test]
    fn what_one_record_cannot_count_several_do() {
        let all = records(&flow(2), &told(flow(2), 7, 3 * u64::from(u32::MAX)).count);
        let sum = |at: usize| {
            all.iter()
                .map(|record| u64::from(u32::from_be_bytes(record[at..at + 4].try_into().unwrap())))
                .sum::<u64>()
        };
        assert_eq!((all.len(), sum(16), sum(20)), (3, 7, 3 * u64::from(u32::MAX) - 7 * 18));
        let icmp = FlowId { protocol: 1, ports: (3, 1), ..flow(2) };
        assert_eq!(records(&icmp, &Count::default())[0][32..36], [0, 0, 3, 1]);
        let v6 = FlowId { ips: Some(("::1".parse().unwrap(), "::2".parse().unwrap())), ..flow(2) };
        assert!(records(&v6, &Count::default()).is_empty());
    }
}
