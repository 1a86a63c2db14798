//! Looking at connections from outside: dump, flush, statistics, who has most.

use std::{
    cmp::Reverse, collections::HashMap, hash::Hash, net::IpAddr, sync::atomic::Ordering::Relaxed,
    time::Duration,
};

use super::{
    Alg, Conntrack, Stats, kind, millis,
    slot::{Live, Slot},
    timeout::State,
    tuple::Tuple,
};
use crate::types::Timestamp;

/// Slots that a flush looks at before it lets others have the ledger.
const CHUNK: usize = 256;

/// A connection, for commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// Packets of the originator.
    pub original: Tuple,
    /// Answers, as they arrive.
    pub reply: Tuple,
    /// Its state.
    pub state: State,
    /// The other side has answered.
    pub has_replied: bool,
    /// The originator's address is translated.
    pub snat: bool,
    /// The responder's address is translated.
    pub dnat: bool,
    /// Another connection announced it: the tuple of that one's first packet.
    pub master: Option<Tuple>,
    /// Its helper.
    pub alg: Option<Alg>,
    /// Mark.
    pub mark: u32,
    /// Label.
    pub label: u128,
    /// Timeout policy.
    pub policy: u8,
    /// Port that its first packet came in by.
    pub in_port: u16,
    /// How long it is kept without a packet, from now.
    pub expires_in: Duration,
}

/// Which connections; nothing set: all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// Those of a zone.
    pub zone: Option<u16>,
    /// Those with this tuple in one of their directions.
    pub tuple: Option<Tuple>,
    /// Those with these bits of the mark: (value, mask).
    pub mark: Option<(u32, u32)>,
    /// Those with these bits of the label: (value, mask).
    pub label: Option<(u128, u128)>,
    /// Those of an IP protocol.
    pub proto: Option<u8>,
    /// Those with this source, in one of their directions,
    pub src: Option<IpAddr>,
    /// and this destination,
    pub dst: Option<IpAddr>,
    /// this source port or ICMP identifier,
    pub src_port: Option<u16>,
    /// and this destination port, or ICMP type and code, in the same direction.
    pub dst_port: Option<u16>,
    /// Only those that nobody has answered.
    pub unreplied: bool,
}

impl Filter {
    /// The connection is one of those chosen.
    pub fn accepts(&self, connection: &Connection) -> bool {
        self.zone.is_none_or(|zone| zone == connection.original.zone)
            && self.tuple.is_none_or(|tuple| tuple == connection.original || tuple == connection.reply)
            && self.mark.is_none_or(|(value, mask)| connection.mark & mask == value & mask)
            && self.label.is_none_or(|(value, mask)| connection.label & mask == value & mask)
            && (self.goes(&connection.original) || self.goes(&connection.reply))
            && !(self.unreplied && connection.has_replied)
    }

    /// The tuple has the addresses and ports that are set.
    fn goes(&self, tuple: &Tuple) -> bool {
        self.proto.is_none_or(|proto| proto == tuple.proto)
            && self.src.is_none_or(|src| src == tuple.address(tuple.src))
            && self.dst.is_none_or(|dst| dst == tuple.address(tuple.dst))
            && self.src_port.is_none_or(|port| port == tuple.src_port)
            && self.dst_port.is_none_or(|port| port == tuple.dst_port)
    }
}

/// An originator, and how many connections it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Talker<Who> {
    /// Zone.
    pub zone: u16,
    /// Its address, or the port that it is behind.
    pub who: Who,
    /// Connections.
    pub n_connections: u64,
    /// Those of them that nobody has answered.
    pub n_unreplied: u64,
}

impl Conntrack {
    /// The connections that `filter` accepts and whose time is not over, in the order of
    /// their slots.
    ///
    /// # Cost
    /// Reads every slot; packets go on meanwhile.
    pub fn dump(&self, now: Timestamp, filter: &Filter) -> Vec<Connection> {
        let now = millis(now);
        let slots = self.slots().iter().filter(|slot| slot.is_connection());
        slots.filter_map(|slot| self.peek(slot, now)).filter(|found| filter.accepts(found)).collect()
    }

    /// Removes connections; answers how many.
    pub fn flush(&self, now: Timestamp, filter: &Filter) -> u64 {
        self.flush_where(now, |connection| filter.accepts(connection))
    }

    /// Removes the connections that are chosen; answers how many.
    ///
    /// # Cost
    /// As that of [`Conntrack::dump`].
    pub fn flush_where(&self, now: Timestamp, is_chosen: impl Fn(&Connection) -> bool) -> u64 {
        let now = millis(now);
        let mut n_removed = 0;
        for (chunk_idx, chunk) in self.slots().chunks(CHUNK).enumerate() {
            let mut ledger = None;
            for (idx, slot) in chunk.iter().enumerate().filter(|(_, slot)| slot.is_connection()) {
                let ledger = ledger.get_or_insert_with(|| self.ledger());
                if self.peek(slot, now).is_some_and(|found| is_chosen(&found)) {
                    self.remove(ledger, (chunk_idx * CHUNK + idx) as u32, now);
                    n_removed += 1;
                }
            }
        }
        self.counters.n_removed.fetch_add(n_removed, Relaxed);
        n_removed
    }

    /// What the tracker has done, and how full it is.
    pub fn stats(&self) -> Stats {
        let ledger = self.ledger();
        Stats {
            n_connections: ledger.n_connections.into(),
            n_slots: self.slots().len() as u64,
            n_lost_events: ledger.n_lost_events,
            ..self.counters.read()
        }
    }

    /// Connections of each zone that has any.
    pub fn zones(&self) -> Vec<(u16, u32)> {
        self.ledger().zones.all()
    }

    /// The `n` originators with most connections, by their addresses.
    ///
    /// # Cost
    /// Reads every slot; packets go on meanwhile.
    pub fn top_talkers(&self, now: Timestamp, n: usize) -> Vec<Talker<IpAddr>> {
        self.top_by(now, n, |found| found.original.address(found.original.src))
    }

    /// The `n` ports behind which most connections began: an address can be made up, a port
    /// cannot.
    ///
    /// # Cost
    /// As [`Conntrack::top_talkers`].
    pub fn top_ports(&self, now: Timestamp, n: usize) -> Vec<Talker<u16>> {
        self.top_by(now, n, |found| found.in_port)
    }

    fn top_by<Who: Copy + Eq + Ord + Hash>(
        &self,
        now: Timestamp,
        n: usize,
        who: impl Fn(&Connection) -> Who,
    ) -> Vec<Talker<Who>> {
        let now = millis(now);
        let mut talkers: HashMap<(u16, Who), [u64; 2]> = HashMap::new();
        for slot in self.slots().iter().filter(|slot| slot.is_connection()) {
            let Some(found) = self.peek(slot, now) else { continue };
            let counts = talkers.entry((found.original.zone, who(&found))).or_default();
            counts[0] += 1;
            counts[1] += u64::from(!found.has_replied);
        }
        let of = |((zone, who), [n_connections, n_unreplied]): ((u16, Who), [u64; 2])| Talker {
            zone,
            who,
            n_connections,
            n_unreplied,
        };
        let mut talkers: Vec<_> = talkers.into_iter().map(of).collect();
        talkers.sort_by_key(|talker| (Reverse(talker.n_connections), talker.zone, talker.who));
        talkers.truncate(n);
        talkers
    }

    /// A connection as it is, unless the slot is free or its time over.
    fn peek(&self, slot: &Slot, now: u32) -> Option<Connection> {
        let guard = slot.lock();
        (slot.is_connection() && !guard.live.is_over(now))
            .then(|| self.describe_locked(slot, &guard.live, now))
    }

    /// A connection as it is.
    pub(super) fn describe(&self, slot: &Slot, now: u32) -> Connection {
        let guard = slot.lock();
        self.describe_locked(slot, &guard.live, now)
    }

    pub(super) fn describe_locked(&self, slot: &Slot, live: &Live, now: u32) -> Connection {
        let left = if live.is_over(now) { 0 } else { live.expires.wrapping_sub(now) };
        Connection {
            original: self.tuple_of(slot, 0),
            reply: self.tuple_of(slot, 1),
            state: live.state,
            has_replied: live.has_replied,
            snat: slot.kind() & kind::SNAT != 0,
            dnat: slot.kind() & kind::DNAT != 0,
            master: (slot.kind() & kind::RELATED != 0).then(|| self.original_of(slot)),
            alg: Alg::of(slot.kind()),
            mark: slot.mark(),
            label: slot.label(),
            policy: live.policy,
            in_port: slot.in_port(),
            expires_in: Duration::from_millis(left.into()),
        }
    }
}
