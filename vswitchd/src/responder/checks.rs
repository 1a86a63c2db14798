//! Health checks: asks the backends on this host whether they serve, and counts what they
//! answer. By TCP a connection is begun, and reset when it is accepted; by UDP an empty
//! datagram is sent, and silence is consent: only an ICMP error says no. Workloads can be asked as
//! such, also for an echo of ICMP.

use std::time::Duration;

use flowtable::{
    field::Field,
    types::{PortNo, Timestamp},
};
use ovn_northd_lite::{
    key::{DatapathKey, PortKey},
    model::{Protocol, check_key},
    punt::MONITOR_MAC,
    sent_to_workload,
    southbound::Probe,
};

use super::{
    PacketOut,
    packet::Context,
    udp::{Segment, frame},
};

/// First port that questions come from (RFC 6335 §6), and how many there are.
const FIRST_PORT: u16 = 0xc000;
const N_PORTS: u16 = 0x4000;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// Length of the headers.
const TCP_LEN: u8 = 20;
const UDP_LEN: u16 = 8;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// A question to a workload, behind its port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Id of its port.
    pub id: String,
    /// Its switch.
    pub datapath: DatapathKey,
    /// Its port.
    pub port: PortKey,
    /// What it is asked.
    pub probe: Probe,
}

/// Whether a backend serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Id of the load balancer; empty: it is a port's own check.
    pub balancer: String,
    /// Id of the port, of its own check.
    pub port: String,
    /// The service; of a port's own check, the protocol.
    pub vip: String,
    /// The backend; of a port's own check, what is asked.
    pub backend: String,
    /// It serves.
    pub online: bool,
}

/// Who is asked, and what has been answered.
#[derive(Debug, Default)]
pub(super) struct Checks {
    checks: Vec<Check>,
    /// Questions so far, for ports and sequence numbers.
    n_asked: u32,
    /// Results are other ones than when they were told last.
    has_news: bool,
}

#[derive(Debug)]
struct Check {
    asked: Asked,
    next: Timestamp,
    /// The question that waits for its answer.
    open: Option<Question>,
    /// How many in a row were answered, and were not.
    n_good: u16,
    n_bad: u16,
    online: Option<bool>,
}

#[derive(Debug, Clone, Copy)]
struct Question {
    at: Timestamp,
    port: u16,
    sequence: u32,
}

impl Checks {
    /// Who is asked from now on. Those that were asked the same before keep their results.
    pub(super) fn set(&mut self, now: Timestamp, asked: Vec<Asked>) {
        let mut before = std::mem::take(&mut self.checks);
        for asked in asked {
            let known = before.iter().position(|check| check.asked == asked);
            let fresh = |asked| Check { asked, next: now, open: None, n_good: 0, n_bad: 0, online: None };
            self.checks.push(known.map_or_else(|| fresh(asked), |idx| before.swap_remove(idx)));
        }
        self.has_news |= before.iter().any(|check| check.online.is_some());
    }

    /// Results, if there are others than before.
    pub(super) fn news(&mut self) -> Option<Vec<Health>> {
        std::mem::take(&mut self.has_news).then(|| {
            let known = |check: &Check| {
                let Probe { balancer, vip, backend: (ip, number), protocol, .. } = &check.asked.probe;
                let online = check.online?;
                let (port, (vip, backend)) = if balancer.is_empty() {
                    (check.asked.id.clone(), check_key(*protocol, *ip, *number))
                } else {
                    let backend = std::net::SocketAddr::new(*ip, *number).to_string();
                    (String::new(), (vip.to_string(), backend))
                };
                Some(Health { balancer: balancer.clone(), port, vip, backend, online })
            };
            self.checks.iter().filter_map(known).collect()
        })
    }

    /// Gives up questions that were asked too long ago, and asks those whose time it is.
    pub(super) fn due(&mut self, now: Timestamp) -> Vec<PacketOut> {
        let mut packets = Vec::new();
        for check in &mut self.checks {
            let times = check.asked.probe.check;
            let is_late = |question: &Question| now.since(question.at) >= seconds(times.timeout);
            if check.open.as_ref().is_some_and(is_late) {
                self.has_news |= check.settle(check.asked.probe.protocol == Some(Protocol::Udp));
            }
            if check.open.is_some() || now < check.next {
                continue;
            }
            self.n_asked = self.n_asked.wrapping_add(1);
            let port = FIRST_PORT + (self.n_asked % u32::from(N_PORTS)) as u16;
            let sequence = self.n_asked.wrapping_mul(0x9e37_79b9);
            let pause = u64::try_from(seconds(times.interval.max(1)).as_nanos()).unwrap_or(u64::MAX);
            check.next = Timestamp::from_nanos(now.nanos().saturating_add(pause));
            check.open = Some(Question { at: now, port, sequence });
            packets.extend(check.question(port, sequence));
        }
        packets
    }

    /// Takes what a backend has answered.
    pub(super) fn hear(&mut self, context: &Context<'_>) -> Vec<PacketOut> {
        let heard = || {
            let port = PortKey::new(u16::try_from(context.value(Field::Reg14)).ok()?).ok()?;
            Some((context.datapath()?, port, Segment::parse(context)?))
        };
        let Some((datapath, port, segment)) = heard() else { return Vec::new() };
        for check in &mut self.checks {
            if (check.asked.datapath, check.asked.port) != (datapath, port) {
                continue;
            }
            if let Some((is_good, farewell)) = check.judge(&segment) {
                self.has_news |= check.settle(is_good);
                return farewell.into_iter().collect();
            }
        }
        Vec::new()
    }
}

impl Check {
    /// Counts an answer. True when that changes what is thought of the backend.
    fn settle(&mut self, is_good: bool) -> bool {
        let times = self.asked.probe.check;
        self.open = None;
        (self.n_good, self.n_bad) = match is_good {
            true => (self.n_good.saturating_add(1), 0),
            false => (0, self.n_bad.saturating_add(1)),
        };
        let enough = if is_good { self.n_good >= times.n_successes } else { self.n_bad >= times.n_failures };
        let has_changed = enough && self.online != Some(is_good);
        if has_changed {
            self.online = Some(is_good);
            let Probe { balancer, backend: (ip, port), .. } = &self.asked.probe;
            tracing::info!(balancer, %ip, port, online = is_good, "health of a backend");
        }
        has_changed
    }

    /// What a segment says of the open question, and what is said to it; nothing if it is
    /// about something else.
    fn judge(&self, segment: &Segment<'_>) -> Option<(bool, Option<PacketOut>)> {
        let question = self.open?;
        let Probe { backend: (ip, port), source, protocol, .. } = &self.asked.probe;
        let is_from_it = segment.src == *ip && segment.dst == *source;
        let ports = |bytes: &[u8]| {
            let (pair, _) = bytes.split_first_chunk::<4>()?;
            let [a, b, c, d] = *pair;
            Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
        };
        match (protocol, segment.proto) {
            (Some(Protocol::Tcp), TCP) if is_from_it && ports(segment.bytes)? == (*port, question.port) => {
                let number =
                    |at: usize| Some(u32::from_be_bytes(segment.bytes.get(at..at + 4)?.try_into().ok()?));
                let flags = *segment.bytes.get(13)?;
                let is_answer = flags & ACK != 0 && number(8)? == question.sequence.wrapping_add(1);
                match (is_answer, flags & RST != 0, flags & SYN != 0) {
                    (false, ..) => None,
                    (true, true, _) => Some((false, None)),
                    (true, false, true) => {
                        let reset = self.tcp(question.port, question.sequence.wrapping_add(1), RST);
                        Some((true, reset))
                    }
                    (true, false, false) => None,
                }
            }
            (Some(Protocol::Udp), UDP) if is_from_it => {
                (ports(segment.bytes)? == (*port, question.port)).then_some((true, None))
            }
            // Identifier and number are ours (RFC 792, RFC 4443 §4.2).
            (None, ICMP | ICMPV6) if is_from_it => {
                let reply = if segment.proto == ICMP { 0 } else { 129 };
                let kind = *segment.bytes.first()?;
                let is_ours = ports(segment.bytes.get(4..)?)? == (question.port, question.sequence as u16);
                (kind == reply && is_ours).then_some((true, None))
            }
            // An error quotes the datagram that it is about (RFC 792, RFC 4443 §3.1).
            (Some(Protocol::Udp), ICMP | ICMPV6) if segment.dst == *source => {
                let is_v4 = segment.proto == ICMP;
                let unreachable = if is_v4 { 3 } else { 1 };
                let quoted = segment.bytes.get(8..)?;
                let header_len = if is_v4 { usize::from(quoted.first()? & 15) * 4 } else { 40 };
                let pair = ports(quoted.get(header_len..)?)?;
                let is_about_it = *segment.bytes.first()? == unreachable && pair == (question.port, *port);
                is_about_it.then_some((false, None))
            }
            _ => None,
        }
    }

    fn question(&self, port: u16, sequence: u32) -> Option<PacketOut> {
        match self.asked.probe.protocol {
            None => {
                let (proto, kind) = if self.asked.probe.source.is_ipv4() { (ICMP, 8) } else { (ICMPV6, 128) };
                let mut echo = vec![kind, 0, 0, 0];
                echo.extend(port.to_be_bytes());
                echo.extend((sequence as u16).to_be_bytes());
                self.packet(proto, echo, 2)
            }
            Some(Protocol::Tcp) => self.tcp(port, sequence, SYN),
            Some(Protocol::Udp) => {
                let to = self.asked.probe.backend.1.to_be_bytes();
                let header = [port.to_be_bytes(), to, UDP_LEN.to_be_bytes(), [0, 0]].concat();
                self.packet(UDP, header, 6)
            }
            Some(Protocol::Sctp) => None,
        }
    }

    fn tcp(&self, port: u16, sequence: u32, flags: u8) -> Option<PacketOut> {
        let mut header = port.to_be_bytes().to_vec();
        header.extend(self.asked.probe.backend.1.to_be_bytes());
        header.extend(sequence.to_be_bytes());
        header.extend([0, 0, 0, 0, TCP_LEN << 2, flags]);
        // A window, for SYN; then checksum and urgent pointer.
        header.extend(if flags == SYN { [0xff, 0xff] } else { [0, 0] });
        header.extend([0; 4]);
        self.packet(TCP, header, 16)
    }

    fn packet(&self, proto: u8, segment: Vec<u8>, sum_at: usize) -> Option<PacketOut> {
        let Asked { datapath, port, probe, .. } = &self.asked;
        let stations = [probe.mac.octets(), MONITOR_MAC.octets()].concat();
        let ends = (probe.source, probe.backend.0);
        let frame = frame(stations.try_into().ok()?, ends, proto, segment, sum_at)?;
        Some(PacketOut { in_port: PortNo::CONTROLLER, actions: sent_to_workload(*datapath, *port), frame })
    }
}

fn seconds(n: u16) -> Duration {
    Duration::from_secs(n.into())
}
