//! Router advertisements (RFC 4861 §6.2): answers to solicitations, whose content comes with
//! the packet, and those that nobody asks for, on a schedule for each router port.

use std::{collections::BTreeMap, net::Ipv6Addr, time::Duration};

use flowtable::{
    checksum,
    types::{MacAddr, PortNo, Timestamp},
};
use ovn_northd_lite::{
    key::{DatapathKey, PortKey},
    sent_by_router,
    southbound::Advertises,
};

use super::{PacketOut, Reply, packet::Context, udp::v6_header};

const ICMPV6: u8 = 58;
/// Nobody who is not on the link can send it (RFC 4861 §6.1.2).
const HOPS: u8 = 255;
/// All nodes of the link (RFC 4291 §2.7.1), and their MAC address.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
/// The first ones follow each other faster (RFC 4861 §10).
const N_INITIAL: u32 = 3;
const INITIAL_PAUSE: Duration = Duration::from_secs(16);

/// What becomes of a solicitation.
pub(super) fn answer(context: &Context<'_>) -> Reply {
    let made = || {
        let packet = context.payload(0x86dd)?;
        let address = |at: usize| Some(Ipv6Addr::from(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?));
        let (src, dst) = (address(8)?, address(24)?);
        let is_solicitation = packet.get(40..42)? == [133, 0];
        is_solicitation.then_some(())?;
        frame(context.addresses()?, (src, dst), context.service_data())
    };
    made().map_or(Reply::Silent, Reply::Made)
}

/// A message as a frame.
fn frame(stations: [u8; 12], (src, dst): (Ipv6Addr, Ipv6Addr), message: &[u8]) -> Option<Vec<u8>> {
    let mut icmp = message.to_vec();
    icmp.get_mut(2..4)?.fill(0);
    let pseudo = checksum::pseudo_ipv6(src.to_bits(), dst.to_bits(), ICMPV6, icmp.len());
    let sum = pseudo.bytes(&icmp).checksum().to_be_bytes();
    icmp.get_mut(2..4)?.copy_from_slice(&sum);
    let mut frame = stations.to_vec();
    frame.extend([0x86, 0xdd]);
    frame.extend(v6_header(src, dst, (u16::try_from(icmp.len()).ok()?, ICMPV6, HOPS)));
    frame.extend(icmp);
    Some(frame)
}

/// A router port that advertises unasked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advertiser {
    /// What it says, and how often.
    pub says: Advertises,
    /// Its router is on this host alone: it speaks to all hosts' workloads.
    pub is_pinned: bool,
}

/// Router ports by their keys.
pub type Advertisers = BTreeMap<(DatapathKey, PortKey), Advertiser>;

/// Who advertises when.
#[derive(Debug, Default)]
pub(super) struct Schedule(BTreeMap<(DatapathKey, PortKey), Turn>);

#[derive(Debug)]
struct Turn {
    advertiser: Advertiser,
    next: Timestamp,
    n_sent: u32,
}

impl Schedule {
    /// Who advertises from now on; what is new or has changed is said at once.
    pub(super) fn set(&mut self, now: Timestamp, advertisers: Advertisers) {
        let mut turns = BTreeMap::new();
        for (key, advertiser) in advertisers {
            let turn = match self.0.remove(&key) {
                Some(turn) if turn.advertiser == advertiser => turn,
                _ => Turn { advertiser, next: now, n_sent: 0 },
            };
            turns.insert(key, turn);
        }
        self.0 = turns;
    }

    /// What is to be sent by now.
    pub(super) fn due(&mut self, now: Timestamp) -> Vec<PacketOut> {
        let mut packets = Vec::new();
        for ((datapath, port), turn) in &mut self.0 {
            if now < turn.next {
                continue;
            }
            turn.next = Timestamp::from_nanos(now.nanos().saturating_add(turn.pause((*datapath, *port))));
            turn.n_sent = turn.n_sent.saturating_add(1);
            let Advertiser { says, is_pinned } = &turn.advertiser;
            let stations = [ALL_NODES_MAC, says.mac.octets()].concat();
            let stations = <[u8; 12]>::try_from(stations).ok();
            let made = stations
                .and_then(|stations| frame(stations, (link_local(says.mac), ALL_NODES), &says.message));
            let actions = sent_by_router(*datapath, *port, *is_pinned);
            packets.extend(made.map(|frame| PacketOut { in_port: PortNo::CONTROLLER, actions, frame }));
        }
        packets
    }
}

impl Turn {
    /// Nanoseconds until the next one: between the least and the most, another time for each
    /// port, so that routers do not speak in chorus.
    fn pause(&self, (datapath, port): (DatapathKey, PortKey)) -> u64 {
        let (min, max) = self.advertiser.says.interval;
        let (min, max) = (u64::from(min) * 1_000_000_000, u64::from(max) * 1_000_000_000);
        let seed = u64::from(datapath.get()) << 32 | u64::from(port.get()) << 16 | u64::from(self.n_sent);
        let mixed = (seed ^ seed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 32).wrapping_mul(0x94d0_49bb_1331_11eb) >> 1;
        let pause = min + mixed % (max.saturating_sub(min) + 1);
        let initial = u64::try_from(INITIAL_PAUSE.as_nanos()).unwrap_or(u64::MAX);
        if self.n_sent < N_INITIAL { pause.min(initial) } else { pause }
    }
}

/// RFC 4291, appendix A.
fn link_local(mac: MacAddr) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.octets();
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}
