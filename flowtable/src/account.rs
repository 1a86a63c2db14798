//! Flows that are counted one by one, for collectors that want to know all of them.
//!
//! A walk that a bridge accounts for looks at the addresses and ports of its packets, so that
//! each flow has cache entries of its own, and has them counted besides its rules: nothing is
//! done for a packet that would not be done without. Who tells the collectors takes from time
//! to time what was counted since the last time. What nobody counts for any more is forgotten
//! then.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    field::Field,
    flow::RuleStats,
    key::{FlowKey, Tracked},
    types::{MacAddr, PortNo, Timestamp, VlanId},
};

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
/// TCP, UDP, ICMP, ICMPv6, SCTP: what has ports, or type and code in their places.
const WITH_PORTS: [u8; 5] = [6, 17, 1, 58, 132];

/// What makes packets one flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowId {
    /// Port it comes by.
    pub in_port: PortNo,
    /// VLAN of its tag; 0: none.
    pub vlan: VlanId,
    /// Ethernet addresses.
    pub macs: (MacAddr, MacAddr),
    /// Type of the frame.
    pub eth_type: u16,
    /// IP addresses; `None`: it is no IP.
    pub ips: Option<(IpAddr, IpAddr)>,
    /// Protocol of IP.
    pub protocol: u8,
    /// Type of service, or traffic class.
    pub tos: u8,
    /// Ports; of ICMP, type and code.
    pub ports: (u16, u16),
}

impl FlowId {
    /// Of a packet with this key.
    pub fn of(key: &FlowKey) -> Self {
        let mac = |field| {
            let [.., a, b, c, d, e, f] = key.get(field).to_be_bytes();
            MacAddr::new([a, b, c, d, e, f])
        };
        let v4 = |field| IpAddr::V4(Ipv4Addr::from_bits(key.get(field) as u32));
        let v6 = |field| IpAddr::V6(Ipv6Addr::from_bits(key.get(field)));
        let eth_type = key.get(Field::EthType) as u16;
        let ips = match eth_type {
            IPV4 => Some((v4(Field::NwSrc), v4(Field::NwDst))),
            IPV6 => Some((v6(Field::Ipv6Src), v6(Field::Ipv6Dst))),
            _ => None,
        };
        let of_ip = |field| if ips.is_some() { key.get(field) as u8 } else { 0 };
        let protocol = of_ip(Field::NwProto);
        let has_ports = WITH_PORTS.contains(&protocol);
        let port = |field| if has_ports { key.get(field) as u16 } else { 0 };
        let vid = key.get(Field::VlanVid) as u16;
        Self {
            in_port: PortNo::new(key.get(Field::InPort) as u32).unwrap_or(PortNo::ZERO),
            vlan: VlanId::new(vid).unwrap_or(VlanId::NONE),
            macs: (mac(Field::EthSrc), mac(Field::EthDst)),
            eth_type,
            ips,
            protocol,
            tos: of_ip(Field::NwTos),
            ports: (port(Field::TcpSrc), port(Field::TcpDst)),
        }
    }

    /// It is of IPv4.
    pub fn is_ipv4(&self) -> bool {
        self.eth_type == IPV4
    }

    /// Looks at all that makes the packets of a key a flow.
    pub(crate) fn read(key: &mut Tracked) -> Self {
        for field in [Field::InPort, Field::EthSrc, Field::EthDst, Field::VlanTci] {
            key.read(field);
        }
        let ips = match key.read(Field::EthType) as u16 {
            IPV4 => Some([Field::NwSrc, Field::NwDst]),
            IPV6 => Some([Field::Ipv6Src, Field::Ipv6Dst]),
            _ => None,
        };
        if let Some(ips) = ips {
            for field in ips.into_iter().chain([Field::NwTos]) {
                key.read(field);
            }
            let ports = match key.read(Field::NwProto) {
                6 => Some([Field::TcpSrc, Field::TcpDst]),
                17 => Some([Field::UdpSrc, Field::UdpDst]),
                132 => Some([Field::SctpSrc, Field::SctpDst]),
                1 => Some([Field::IcmpType, Field::IcmpCode]),
                58 => Some([Field::Icmpv6Type, Field::Icmpv6Code]),
                _ => None,
            };
            for field in ports.into_iter().flatten() {
                key.read(field);
            }
        }
        key.has_acted_on_headers();
        Self::of(key.peek())
    }
}

/// Where a flow's packets go, as far as the walk tells that they begin with: what becomes of them
/// behind the connection tracker it does not, and copies for mirrors are not meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Way {
    /// Nowhere, or nobody knows.
    #[default]
    Nowhere,
    /// To this port.
    Port(PortNo),
    /// To several ports.
    Several,
}

/// What was counted of a flow since it was asked for last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// The flow.
    pub flow: FlowId,
    /// Where its packets go.
    pub way: Way,
    /// Packets.
    pub n_packets: u64,
    /// Bytes of their frames.
    pub n_bytes: u64,
    /// When the last one came.
    pub used: Timestamp,
}

/// A flow's account.
#[derive(Debug)]
struct Account {
    way: Way,
    stats: Arc<RuleStats>,
    /// Packets and bytes that were told already.
    told: (u64, u64),
}

/// The accounts of a bridge. Two are the same when they are one.
#[derive(Debug)]
pub struct Accounts {
    max_flows: usize,
    only_ipv4: bool,
    flows: Mutex<HashMap<FlowId, Account>>,
    /// Packets for which there was no account.
    rest: Arc<RuleStats>,
}

impl PartialEq for Accounts {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Accounts {}

impl Accounts {
    /// Room for so many flows; `only_ipv4`: others are not of interest.
    pub fn new(max_flows: usize, only_ipv4: bool) -> Self {
        Self { max_flows, only_ipv4, flows: Mutex::default(), rest: Arc::default() }
    }

    /// Room for how many flows there is, and whether only IPv4 is of interest.
    pub fn limits(&self) -> (usize, bool) {
        (self.max_flows, self.only_ipv4)
    }

    /// Packets of this type are accounted for.
    pub(crate) fn wants(&self, eth_type: u16) -> bool {
        !self.only_ipv4 || eth_type == IPV4
    }

    /// What counts the packets of a flow that take this way.
    pub(crate) fn open(&self, flow: FlowId, way: Way) -> Arc<RuleStats> {
        let mut flows = self.flows.lock().unwrap_or_else(PoisonError::into_inner);
        let has_room = flows.len() < self.max_flows;
        match flows.get_mut(&flow) {
            Some(account) => {
                account.way = way;
                Arc::clone(&account.stats)
            }
            None if has_room => {
                let account = Account { way, stats: Arc::default(), told: (0, 0) };
                let stats = Arc::clone(&account.stats);
                flows.insert(flow, account);
                stats
            }
            None => Arc::clone(&self.rest),
        }
    }

    /// What was counted since this was asked last: of flows that had packets. What no cache
    /// entry counts for any more is forgotten then.
    pub fn take(&self) -> Vec<Counted> {
        let mut flows = self.flows.lock().unwrap_or_else(PoisonError::into_inner);
        let mut counted = Vec::new();
        flows.retain(|flow, account| {
            // Whoever has given up counting has counted before: first this, then the sums.
            let is_counting = Arc::get_mut(&mut account.stats).is_none();
            let now = account.stats.get();
            let (n_packets, n_bytes) = (now.0 - account.told.0, now.1 - account.told.1);
            account.told = now;
            if n_packets > 0 {
                let (way, used) = (account.way, account.stats.used());
                counted.push(Counted { flow: *flow, way, n_packets, n_bytes, used });
            }
            is_counting
        });
        counted
    }

    /// Packets and bytes of flows for which there was no room, so far.
    pub fn rest(&self) -> (u64, u64) {
        self.rest.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        build::{Host, packet, tcp, udp},
        parse::parse,
    };

    fn key(frame: &[u8]) -> FlowKey {
        let mut key = FlowKey::zero();
        parse(&mut packet(frame, PortNo::new(3).unwrap()), &mut key).unwrap();
        key.set(Field::InPort, 3);
        key
    }

    #[test]
    fn a_flow_is_what_its_headers_say() {
        let flow = FlowId::of(&key(&udp(&Host::v4(1), &Host::v4(2), b"x")));
        assert_eq!((flow.in_port.get(), flow.eth_type, flow.protocol), (3, IPV4, 17));
        assert_eq!(flow.ips, Some((Host::v4(1).ip, Host::v4(2).ip)));
        assert_eq!(flow.macs, (Host::v4(1).mac, Host::v4(2).mac));
        let flow = FlowId::of(&key(&tcp(&Host::v6(1), &Host::v6(2), 0x10, b"")));
        assert_eq!((flow.eth_type, flow.protocol, flow.is_ipv4()), (IPV6, 6, false));
        assert_ne!(flow.ports, (0, 0));
        let mut tracked = Tracked::new(key(&udp(&Host::v4(1), &Host::v4(2), b"x")));
        assert_eq!(FlowId::read(&mut tracked), FlowId::of(tracked.original()));
        for field in [Field::NwSrc, Field::UdpDst, Field::EthSrc, Field::InPort] {
            assert_eq!(tracked.mask().get(field), field.all_bits(), "{field:?} is looked at");
        }
        assert!(tracked.acts_on_headers());
    }

    #[test]
    fn what_was_counted_is_told_once_and_nobodys_accounts_go() {
        let accounts = Accounts::new(2, false);
        let flow = |n| FlowId::of(&key(&udp(&Host::v4(n), &Host::v4(99), b"x")));
        let at = Timestamp::from_nanos;
        let one = accounts.open(flow(1), Way::Nowhere);
        let again = accounts.open(flow(1), Way::Several);
        assert!(Arc::ptr_eq(&one, &again));
        one.credit(2, 200, at(7));
        again.credit(1, 100, at(5));
        let counted = Counted { flow: flow(1), way: Way::Several, n_packets: 3, n_bytes: 300, used: at(7) };
        assert_eq!((accounts.take(), accounts.take()), (vec![counted], vec![]));
        let two = accounts.open(flow(2), Way::Nowhere);
        accounts.open(flow(3), Way::Nowhere).credit(1, 60, at(8));
        assert_eq!((accounts.take(), accounts.rest()), (vec![], (1, 60)), "there was no room");
        two.credit(1, 1, at(9));
        drop((two, one, again));
        assert_eq!(accounts.take().len(), 1, "what an entry has counted before it went is told");
        assert!(accounts.flows.lock().unwrap().is_empty());
        assert!(Accounts::new(1, true).wants(IPV4) && !Accounts::new(1, true).wants(IPV6));
    }
}
