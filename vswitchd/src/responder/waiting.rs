//! Packets that wait until a neighbour's MAC address is known.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    time::Duration,
};

use flowtable::types::{MacAddr, Timestamp};
use ovn_northd_lite::{
    Learned,
    key::{DatapathKey, PortKey},
};

use super::{PacketOut, packet::Context};

/// Packets that wait for one neighbour: the newest ones (RFC 1122 §2.3.2.2 asks for one).
const MAX_PACKETS: usize = 16;
/// Neighbours that are waited for.
const MAX_NEIGHBOURS: usize = 1024;
/// How long a packet waits.
const LIFE: Duration = Duration::from_secs(3);
/// Pause between two questions (RFC 1122 §2.3.2.1, RFC 4861 §10 RetransTimer).
const PAUSE: Duration = Duration::from_secs(1);

/// A neighbour of a router's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Wanted {
    pub(super) datapath: DatapathKey,
    pub(super) port: PortKey,
    pub(super) ip: IpAddr,
}

impl From<Learned> for Wanted {
    fn from(Learned { datapath, port, ip, .. }: Learned) -> Self {
        Self { datapath, port, ip }
    }
}

/// The packets, by who they wait for.
#[derive(Debug, Default)]
pub(super) struct Waiting(HashMap<Wanted, Queue>);

#[derive(Debug)]
struct Queue {
    asked: Timestamp,
    /// With the time they came; to be sent once the address is filled in.
    packets: VecDeque<(Timestamp, PacketOut)>,
}

impl Waiting {
    /// Lets a packet wait: whether it is time to ask, and the packet that is given up
    /// because there are too many.
    pub(super) fn add(
        &mut self,
        now: Timestamp,
        wanted: Wanted,
        context: &Context<'_>,
    ) -> (bool, Option<PacketOut>) {
        let packet = context.released(MacAddr::new([0; 6]));
        if !self.0.contains_key(&wanted) && self.0.len() >= MAX_NEIGHBOURS {
            return (false, Some(packet));
        }
        let mut is_time = false;
        let queue = self.0.entry(wanted).or_insert_with(|| {
            is_time = true;
            Queue { asked: now, packets: VecDeque::new() }
        });
        if now.since(queue.asked) >= PAUSE {
            queue.asked = now;
            is_time = true;
        }
        let too_many = queue.packets.len() >= MAX_PACKETS;
        let oldest = too_many.then(|| queue.packets.pop_front()).flatten();
        queue.packets.push_back((now, packet));
        (is_time, oldest.map(|(_, packet)| packet))
    }

    /// The packets that wait for a neighbour, addressed to it.
    pub(super) fn take(&mut self, found: &Wanted, mac: MacAddr) -> Vec<PacketOut> {
        let packets = self.0.remove(found).map(|queue| queue.packets).unwrap_or_default();
        let address = |(_, mut packet): (Timestamp, PacketOut)| {
            if let Some(destination) = packet.frame.get_mut(..6) {
                destination.copy_from_slice(&mac.octets());
            }
            packet
        };
        packets.into_iter().map(address).collect()
    }

    /// Gives up packets that have waited too long.
    pub(super) fn expire(&mut self, now: Timestamp) -> Vec<PacketOut> {
        let mut given_up = Vec::new();
        self.0.retain(|_, queue| {
            // They wait in the order they came.
            while queue.packets.front().is_some_and(|(came, _)| now.since(*came) >= LIFE) {
                given_up.extend(queue.packets.pop_front().map(|(_, packet)| packet));
            }
            !queue.packets.is_empty()
        });
        given_up
    }
}
