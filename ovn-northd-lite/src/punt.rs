//! What a rule tells the host's responder about a packet it sends there: the user data of
//! `controller` actions.

use flowtable::{
    field::{Field, SubField},
    types::MacAddr,
};

use crate::model::Severity;

/// Register that has the continuation's number when a packet comes to its table.
pub const CONTINUATION_REGISTER: Field = Field::Reg31;
/// Bit that is set when a packet comes to its continuation as the answer to what it was.
pub const ANSWERED: SubField = SubField { field: Field::Reg30, start: 0, n_bits: 1 };
/// Register with the port of a neighbour, for those to be learned.
pub const NEIGHBOUR_PORT: Field = Field::Reg18;
/// Register with the address of a neighbour.
pub const NEIGHBOUR_ADDRESS: Field = Field::Xxreg5;
/// Register with the MAC address of a neighbour.
pub const NEIGHBOUR_MAC: SubField = SubField { field: Field::Xreg8, start: 0, n_bits: 48 };

/// MAC address that backends are asked from whether they serve.
pub const MONITOR_MAC: MacAddr = MacAddr::new([0x0e, 0x5e, 0xf0, 0, 0, 1]);

/// UDP port of what chassis say of being alive (RFC 5881 §4).
pub const BFD_UDP_PORT: u16 = 3784;

/// What the responder is to do with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Service {
    /// Ask for the next hop's MAC address by ARP; the packet waits for the answer.
    Arp = 1,
    /// The same by neighbour solicitation.
    Solicitation = 2,
    /// Remember the MAC address of an IPv4 address.
    LearnArp = 3,
    /// Remember the MAC address of an IPv6 address.
    LearnNd = 4,
    /// Tell the source by ICMP.
    Icmp4 = 5,
    /// Tell the source by ICMPv6.
    Icmp6 = 6,
    /// End a TCP connection.
    TcpReset = 7,
    /// Answer a DHCP request.
    DhcpV4 = 8,
    /// Tell the source that the packet is refused: [`Service::TcpReset`] or an ICMP error,
    /// from the packet's destination back to its source.
    Reject = 9,
    /// Answer a DHCPv6 request.
    DhcpV6 = 10,
    /// Answer a question for a name.
    Dns = 11,
    /// Answer a router solicitation.
    Advertise = 12,
    /// Take note of what a backend answers to a health check.
    HealthCheck = 13,
    /// Take note of who has the address of a virtual port.
    BindVirtual = 14,
    /// Take note of what a workload wants to hear.
    Igmp = 15,
    /// A next hop says that it lives (RFC 5880).
    BfdMessage = 16,
    /// A workload that moves goes on here.
    Activation = 17,
    /// Pass a DHCP message on, from a client or from its server.
    DhcpRelay = 18,
    /// Another chassis says that it lives (RFC 5880).
    Bfd = 32,
}

impl Service {
    /// All of them, with their names in texts.
    pub const ALL: &[(Self, &'static str)] = &[
        (Self::Arp, "arp"),
        (Self::Solicitation, "nd_ns"),
        (Self::LearnArp, "put_arp"),
        (Self::LearnNd, "put_nd"),
        (Self::Icmp4, "icmp4"),
        (Self::Icmp6, "icmp6"),
        (Self::TcpReset, "tcp_reset"),
        (Self::DhcpV4, "put_dhcp_opts"),
        (Self::Reject, "reject"),
        (Self::DhcpV6, "put_dhcpv6_opts"),
        (Self::Dns, "dns_lookup"),
        (Self::Advertise, "put_nd_ra_opts"),
        (Self::HealthCheck, "handle_svc_check"),
        (Self::BindVirtual, "bind_vport"),
        (Self::Igmp, "igmp"),
        (Self::BfdMessage, "handle_bfd_msg"),
        (Self::Activation, "activation_strategy"),
        (Self::DhcpRelay, "dhcp_relay"),
        (Self::Bfd, "bfd"),
    ];

    /// Names of the services in bounds on them (OVN's, of Copp).
    pub const CLASSES: &[(Self, &'static str)] = &[
        (Self::LearnArp, "arp"),
        (Self::Arp, "arp-resolve"),
        (Self::BfdMessage, "bfd"),
        (Self::BindVirtual, "bind-vport"),
        (Self::DhcpV4, "dhcpv4-opts"),
        (Self::DhcpRelay, "dhcpv4-relay"),
        (Self::DhcpV6, "dhcpv6-opts"),
        (Self::Dns, "dns"),
        (Self::Icmp4, "icmp4-error"),
        (Self::Icmp6, "icmp6-error"),
        (Self::Igmp, "igmp"),
        (Self::LearnNd, "nd-na"),
        (Self::Solicitation, "nd-ns-resolve"),
        (Self::Advertise, "nd-ra-opts"),
        (Self::Reject, "reject"),
        (Self::HealthCheck, "svc-monitor"),
        (Self::TcpReset, "tcp-reset"),
    ];

    /// The user data may have more than the request.
    fn has_payload(self) -> bool {
        use Service::{
            Advertise, BindVirtual, DhcpRelay, DhcpV4, DhcpV6, Dns, Icmp4, Icmp6, LearnArp, LearnNd,
        };
        let is_served = matches!(self, DhcpV4 | DhcpV6 | DhcpRelay | Dns | Advertise);
        is_served || matches!(self, Icmp4 | Icmp6 | BindVirtual | LearnArp | LearnNd)
    }

    /// Name in bounds.
    pub fn class(self) -> &'static str {
        Self::CLASSES.iter().find(|(service, _)| *service == self).map_or("", |(_, name)| name)
    }

    /// Name in texts.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(service, _)| *service == self).map_or("", |(_, name)| name)
    }
}

/// User data of a packet for the responder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// What to do.
    pub service: Service,
    /// Number of the rule in [`CONTINUATION`](crate::CONTINUATION) that takes the packet
    /// the responder makes.
    pub continuation: u32,
    /// Table where the packet itself goes on, when what it waits for is there.
    pub table: u8,
}

/// Length of the user data.
const LEN: usize = 7;
/// First byte: a version of the format.
const FORMAT: u8 = 1;

impl Request {
    /// As bytes.
    pub fn encode(self) -> Vec<u8> {
        let mut bytes = vec![FORMAT, self.service as u8, self.table];
        bytes.extend(self.continuation.to_be_bytes());
        bytes
    }

    /// From bytes; `None` when they are not for the responder.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (head, payload) = bytes.split_first_chunk::<LEN>()?;
        let [FORMAT, service, table, a, b, c, d] = *head else { return None };
        let (service, _) = Service::ALL.iter().find(|(known, _)| *known as u8 == service)?;
        if !payload.is_empty() && !service.has_payload() {
            return None;
        }
        Some(Self { service: *service, continuation: u32::from_be_bytes([a, b, c, d]), table })
    }

    /// What follows the request in its user data.
    pub fn payload(bytes: &[u8]) -> &[u8] {
        bytes.get(LEN..).unwrap_or_default()
    }
}

/// First byte of a log entry: a version of its format, unlike [`FORMAT`].
const LOG_FORMAT: u8 = 0x11;
/// Bytes of a name in a log entry; more is cut off.
const MAX_NAME_LEN: usize = 255;

/// What an ACL decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Verdict {
    /// The packet may go on.
    Allow = 0,
    /// It is dropped.
    Drop = 1,
    /// It is dropped, and its sender told.
    Reject = 2,
    /// The next tier decides.
    Pass = 3,
}

impl Verdict {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Allow, Self::Drop, Self::Reject, Self::Pass];

    /// Name in texts.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Drop => "drop",
            Self::Reject => "reject",
            Self::Pass => "pass",
        }
    }
}

/// User data of a packet that is to be logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// What was decided about it.
    pub verdict: Verdict,
    /// How much it matters.
    pub severity: Severity,
    /// Name of the ACL that decided.
    pub name: String,
}

impl LogEntry {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let name = self.name.as_bytes();
        let name = name.get(..MAX_NAME_LEN).unwrap_or(name);
        [&[LOG_FORMAT, self.verdict as u8, self.severity as u8], name].concat()
    }

    /// From bytes; `None` when they are no log entry.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (head, name) = bytes.split_first_chunk()?;
        let [LOG_FORMAT, verdict, severity] = *head else { return None };
        Some(Self {
            verdict: Verdict::ALL.into_iter().find(|known| *known as u8 == verdict)?,
            severity: Severity::ALL.into_iter().find(|known| *known as u8 == severity)?,
            name: String::from_utf8_lossy(name).into_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_entries_come_back_and_are_no_requests() {
        for verdict in Verdict::ALL {
            for severity in Severity::ALL {
                let entry = LogEntry { verdict, severity, name: "switches/web/acls/é".to_owned() };
                assert_eq!(LogEntry::decode(&entry.encode()), Some(entry.clone()));
                let four = LogEntry { name: "four".to_owned(), ..entry };
                assert_eq!(Request::decode(&four.encode()), None);
            }
        }
        let long = LogEntry { verdict: Verdict::Drop, severity: Severity::Info, name: "é".repeat(400) };
        assert_eq!(long.encode().len(), 3 + MAX_NAME_LEN);
        assert!(LogEntry::decode(&long.encode()).is_some());
        for bytes in [&[][..], &[LOG_FORMAT, 0], &[LOG_FORMAT, 9, 0], &[LOG_FORMAT, 0, 9], &[1, 0, 0]] {
            assert_eq!(LogEntry::decode(bytes), None);
        }
    }

    #[test]
    fn requests_come_back_and_nonsense_does_not() {
        for (service, _) in Service::ALL {
            let request = Request { service: *service, continuation: 0x8000_0001, table: 200 };
            let bytes = request.encode();
            assert_eq!(Request::decode(&bytes), Some(request));
            for len in 0..bytes.len() {
                assert_eq!(Request::decode(&bytes[..len]), None);
            }
            let longer = [bytes, vec![0]].concat();
            assert_eq!(Request::decode(&longer), service.has_payload().then_some(request));
            assert_eq!(Request::payload(&longer), [0]);
            // What hosts tell each other, and what is said once, has no bound that a user sets.
            let has_class = !matches!(service, Service::Bfd | Service::Activation);
            assert_eq!(!service.class().is_empty(), has_class);
        }
        assert_eq!(Request::decode(&[1, 99, 0, 0, 0, 0, 0]), None);
        assert_eq!(Request::decode(&[2, 1, 0, 0, 0, 0, 0]), None);
    }
}
