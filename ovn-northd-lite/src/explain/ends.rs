//! Who says what to whom: frames as workloads with a default route would send them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use flowtable::{
    build::{self, Host},
    field::Field,
    key::FlowKey,
    parse::parse,
    types::{MacAddr, PortNo},
};

use super::{ExplainError, Question, Speech, key_of};
use crate::model::{IpNetwork, LogicalSwitch, Northbound, PortAddresses, SwitchPort, SwitchPortKind};

/// Port of those who begin, out of the range for such (RFC 6335 §6).
const EPHEMERAL: u16 = 49_152;
/// Flags of TCP's first two packets (RFC 9293 §3.1).
const SYN: u16 = 0x02;
const SYN_ACK: u16 = 0x12;
/// What comes after a first segment, which [`build::tcp`] numbers 1.
const NEXT: u8 = 2;
/// Protocols and types (RFC 792, RFC 4443 §4).
const TCP: u128 = 6;
const UDP: u128 = 17;
const ECHO: u128 = 8;
const ECHO_V6: u128 = 128;

/// Both ends of the first packet: MAC addresses as on the first link.
pub(super) struct Ends {
    from: Host,
    to: Host,
}

impl Ends {
    pub(super) fn of(nb: &Northbound, question: &Question) -> Result<Self, ExplainError> {
        let (switch_id, switch, port) = find(nb, &question.from)?;
        let own = addresses_of(&question.from, port)?;
        let (to_switch, _, to_port) = find(nb, &question.to)?;
        let theirs = addresses_of(&question.to, to_port)?;
        let wanted = match question.address {
            Some(ip) => vec![ip],
            None => theirs.iter().flat_map(|known| known.ips.iter().copied()).collect(),
        };
        let pairs = own.iter().flat_map(|known| known.ips.iter().map(|ip| (known.mac, *ip)));
        let mut pairs = pairs.flat_map(|own| wanted.iter().map(move |ip| (own, *ip)));
        let ((mac, ip), to) =
            pairs.find(|((_, own), to)| own.is_ipv4() == to.is_ipv4()).ok_or_else(|| {
                let has_none = own.iter().all(|known| known.ips.is_empty());
                if has_none {
                    ExplainError::NoAddress(question.from.clone())
                } else if wanted.is_empty() {
                    ExplainError::NoAddress(question.to.clone())
                } else {
                    ExplainError::Families { from: question.from.clone() }
                }
            })?;
        let router = router_of(nb, switch, ip);
        let neighbour = theirs.iter().find(|known| known.ips.contains(&to)).map(|known| known.mac);
        let neighbour = neighbour.filter(|_| to_switch == switch_id);
        let is_near = router.is_none_or(|(_, network)| network.contains(to));
        let next = neighbour.filter(|_| is_near).or(router.map(|(mac, _)| mac));
        let next = next.ok_or_else(|| ExplainError::NoRouter {
            from: question.from.clone(),
            switch: switch_id.to_owned(),
            to,
        })?;
        let from = Host { mac, ip, port: EPHEMERAL };
        Ok(Self { from, to: Host { mac: next, ip: to, port: 0 } })
    }

    /// What begins the conversation.
    pub(super) fn first_frame(&self, speech: Speech) -> Vec<u8> {
        let to = |port| Host { port, ..self.to };
        match speech {
            Speech::Tcp(port) => build::tcp(&self.from, &to(port), SYN, &[]),
            Speech::Udp(port) => build::udp(&self.from, &to(port), b"?"),
            Speech::Ping => build::icmp_echo(&self.from, &self.to, false, 1, 1, b"?"),
        }
    }
}

/// What whoever gets this frame says to it; nothing to what it does not understand.
pub(super) fn reply(frame: &[u8]) -> Option<Vec<u8>> {
    let key = key_of(frame);
    let mac = |field| {
        let [_, _, octets @ ..] = u64::try_from(key.get(field)).unwrap_or_default().to_be_bytes();
        MacAddr::new(octets)
    };
    let port = |field| u16::try_from(key.get(field)).unwrap_or_default();
    let (source, destination) = addresses(&key);
    let me = Host { mac: mac(Field::EthDst), ip: destination, port: port(Field::TcpDst) };
    let peer = Host { mac: mac(Field::EthSrc), ip: source, port: port(Field::TcpSrc) };
    match (key.get(Field::NwProto), key.get(Field::IcmpType)) {
        (TCP, _) => acknowledging(build::tcp(&me, &peer, SYN_ACK, &[])),
        (UDP, _) => Some(build::udp(&me, &peer, b"!")),
        (_, ECHO | ECHO_V6) => {
            let (id, seq) = echo_numbers(frame)?;
            Some(build::icmp_echo(&me, &peer, true, id, seq, b"?"))
        }
        _ => None,
    }
}

/// A segment that acknowledges 0, as the answer to a first one. The checksum follows (RFC 1624 §3).
fn acknowledging(mut frame: Vec<u8>) -> Option<Vec<u8>> {
    let l4 = l4_of(&frame)?;
    let header: &mut [u8; 20] = frame.get_mut(l4..)?.first_chunk_mut()?;
    header[11] = NEXT;
    let sum = u32::from(!u16::from_be_bytes([header[16], header[17]])) + u32::from(NEXT);
    let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
    [header[16], header[17]] = checksum.to_be_bytes();
    Some(frame)
}

/// Identifier and sequence number of an echo request.
fn echo_numbers(frame: &[u8]) -> Option<(u16, u16)> {
    let [_, _, _, _, a, b, c, d] = *frame.get(l4_of(frame)?..)?.first_chunk()?;
    Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
}

fn l4_of(frame: &[u8]) -> Option<usize> {
    let mut packet = build::packet(frame, PortNo::ZERO);
    parse(&mut packet, &mut FlowKey::zero()).ok()?;
    Some(packet.layout.l4.into())
}

/// Source and destination.
pub(super) fn addresses(key: &FlowKey) -> (IpAddr, IpAddr) {
    let v4 = |field| IpAddr::from(Ipv4Addr::from(key.get(field) as u32));
    let v6 = |field| IpAddr::from(Ipv6Addr::from(key.get(field)));
    match key.get(Field::Ipv6Dst) {
        0 => (v4(Field::NwSrc), v4(Field::NwDst)),
        _ => (v6(Field::Ipv6Src), v6(Field::Ipv6Dst)),
    }
}

fn find<'a>(
    nb: &'a Northbound,
    id: &str,
) -> Result<(&'a str, &'a LogicalSwitch, &'a SwitchPort), ExplainError> {
    let mut switches = nb.switches.iter();
    let found =
        switches.find_map(|(switch_id, switch)| Some((switch_id.as_str(), switch, switch.ports.get(id)?)));
    found.ok_or_else(|| ExplainError::NoPort(id.to_owned()))
}

fn addresses_of<'a>(id: &str, port: &'a SwitchPort) -> Result<&'a [PortAddresses], ExplainError> {
    match &port.kind {
        SwitchPortKind::Workload { addresses, .. } => Ok(addresses),
        SwitchPortKind::Router { .. } | SwitchPortKind::Switch { .. } | SwitchPortKind::Network { .. } => {
            Err(ExplainError::NotAWorkload(id.to_owned()))
        }
    }
}

/// The router on the switch that has an address in the network of `ip`, and that network.
fn router_of(nb: &Northbound, switch: &LogicalSwitch, ip: IpAddr) -> Option<(MacAddr, IpNetwork)> {
    switch.ports.values().find_map(|port| {
        let SwitchPortKind::Router { router, port } = &port.kind else { return None };
        let port = nb.routers.get(router)?.ports.get(port)?;
        let network = port.networks.iter().find(|network| network.contains(ip))?;
        Some((port.mac, *network))
    })
}
