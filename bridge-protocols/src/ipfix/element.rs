//! What is told of a flow, piece by piece (IANA's registry of IPFIX information elements, RFC
//! 7012).

use std::net::IpAddr;

use super::{Observation, Observed};
use crate::{
    flows::Told,
    netflow::{ip_len, way_out},
};

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// Number of the way out of what leaves by several.
const SEVERAL: u32 = u32::MAX;

/// An information element: its number, and how many bytes of it are told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Element {
    pub(super) number: u16,
    pub(super) len: u16,
    write: fn(&Told<Observed>, u64) -> u128,
}

/// A kind of record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Template {
    pub(super) id: u16,
    pub(super) elements: &'static [&'static [Element]],
}

const fn element(number: u16, len: u16, write: fn(&Told<Observed>, u64) -> u128) -> Element {
    Element { number, len, write }
}

/// Of any frame.
const COMMON: &[Element] = &[
    // observationPointId
    element(138, 4, |told, _| told.flow.observation.point.into()),
    // selectorId
    element(302, 8, |told, _| told.flow.observation.selector.into()),
    // flowDirection: 0 is ingress
    element(61, 1, |told, _| told.flow.observation.is_egress.into()),
    // sourceMacAddress, destinationMacAddress
    element(56, 6, |told, _| number(&told.flow.flow.macs.0.octets())),
    element(80, 6, |told, _| number(&told.flow.flow.macs.1.octets())),
    // ethernetType, vlanId
    element(256, 2, |told, _| told.flow.flow.eth_type.into()),
    element(58, 2, |told, _| told.flow.flow.vlan.get().into()),
    // ingressInterface, egressInterface
    element(10, 4, |told, _| told.flow.flow.in_port.get().into()),
    element(14, 4, |told, _| match told.flow.observation.out_port {
        0 => way_out(told.count.way, SEVERAL).into(),
        port => port.into(),
    }),
    // flowStartMilliseconds, flowEndMilliseconds
    element(152, 8, |told, base| (base + told.count.first.nanos() / 1_000_000).into()),
    element(153, 8, |told, base| (base + told.count.last.nanos() / 1_000_000).into()),
    // packetDeltaCount, octetDeltaCount, layer2OctetDeltaCount
    element(2, 8, |told, _| told.count.n_packets.into()),
    element(1, 8, |told, _| ip_len(&told.flow.flow, &told.count).into()),
    element(352, 8, |told, _| told.count.n_bytes.into()),
    // flowEndReason
    element(136, 1, |told, _| (told.end as u8).into()),
];

/// Of an IP packet: ipVersion, protocolIdentifier, ipClassOfService.
const IP: &[Element] = &[
    element(60, 1, |told, _| if told.flow.flow.is_ipv4() { 4 } else { 6 }),
    element(4, 1, |told, _| told.flow.flow.protocol.into()),
    element(5, 1, |told, _| told.flow.flow.tos.into()),
];

/// sourceIPv4Address, destinationIPv4Address.
const V4: &[Element] = &[
    element(8, 4, |told, _| told.flow.flow.ips.map_or(0, |ips| bits(ips.0))),
    element(12, 4, |told, _| told.flow.flow.ips.map_or(0, |ips| bits(ips.1))),
];

/// sourceIPv6Address, destinationIPv6Address.
const V6: &[Element] = &[
    element(27, 16, |told, _| told.flow.flow.ips.map_or(0, |ips| bits(ips.0))),
    element(28, 16, |told, _| told.flow.flow.ips.map_or(0, |ips| bits(ips.1))),
];

/// sourceTransportPort, destinationTransportPort, tcpControlBits.
const PORTS: &[Element] = &[
    element(7, 2, |told, _| told.flow.flow.ports.0.into()),
    element(11, 2, |told, _| told.flow.flow.ports.1.into()),
    element(6, 2, |told, _| told.count.tcp_flags.into()),
];

/// icmpTypeCodeIPv4, icmpTypeCodeIPv6.
const ICMP_V4: &[Element] = &[element(32, 2, type_and_code)];
const ICMP_V6: &[Element] = &[element(139, 2, type_and_code)];

/// All kinds of records.
pub(super) const TEMPLATES: [Template; 5] = [
    Template { id: 256, elements: &[COMMON] },
    Template { id: 257, elements: &[COMMON, IP, V4, PORTS] },
    Template { id: 258, elements: &[COMMON, IP, V6, PORTS] },
    Template { id: 259, elements: &[COMMON, IP, V4, ICMP_V4] },
    Template { id: 260, elements: &[COMMON, IP, V6, ICMP_V6] },
];

fn type_and_code(told: &Told<Observed>, _: u64) -> u128 {
    let (kind, code) = told.flow.flow.ports;
    (kind << 8 | code & 0xff).into()
}

fn number(octets: &[u8; 6]) -> u128 {
    octets.iter().fold(0, |number, octet| number << 8 | u128::from(*octet))
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl Template {
    /// The kind of record that a flow has.
    pub(super) fn of(observed: &Observed) -> &'static Self {
        let Observed { flow, observation: Observation { .. } } = observed;
        let [frame, v4, v6, icmp_v4, icmp_v6] = &TEMPLATES;
        match (flow.ips, flow.protocol) {
            (None, _) => frame,
            (Some((IpAddr::V4(_), _)), ICMP) => icmp_v4,
            (Some((IpAddr::V4(_), _)), _) => v4,
            (Some((IpAddr::V6(_), _)), ICMPV6) => icmp_v6,
            (Some((IpAddr::V6(_), _)), _) => v6,
        }
    }

    /// Its elements, in order.
    pub(super) fn all(&self) -> impl Iterator<Item = &'static Element> + use<> {
        self.elements.iter().flat_map(|part| part.iter())
    }

    /// The record of a flow. `base`: milliseconds from 1970 to where its time begins.
    pub(super) fn record(&self, told: &Told<Observed>, base: u64) -> Vec<u8> {
        let mut record = Vec::new();
        for element in self.all() {
            let bytes = (element.write)(told, base).to_be_bytes();
            record.extend(&bytes[bytes.len() - usize::from(element.len).min(bytes.len())..]);
        }
        record
    }
}
