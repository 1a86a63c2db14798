//! Who wants to hear which group (RFC 4541): a bridge listens to what hosts report and
//! routers ask, and sends a group's packets only to those that want them.
//!
//! [`Groups`] is the table of a bridge: by VLAN and group, the ports that have reported; by
//! VLAN, the ports that routers are behind, which hear everything. Where no router asks, a
//! bridge can do so itself (a *querier*).

mod message;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use flowtable::types::{MacAddr, PortNo, Timestamp, VlanId};

pub use self::message::{Interest, Message};

/// RFC 3376 §8.2, §8.3: between two queries, and for an answer.
const QUERY_INTERVAL: Duration = Duration::from_secs(125);
const RESPONSE_INTERVAL: Duration = Duration::from_secs(10);
/// RFC 3376 §8.6: this part of it at the start.
const STARTUP_PART: u32 = 4;
const N_STARTUP: u32 = 2;
/// RFC 3376 §8.5: so long another querier is heard.
const OTHER_QUERIER: Duration = Duration::from_secs(255);
/// RFC 3376 §8.8 twice: so long others may object when one has left.
const LAST_MEMBER: Duration = Duration::from_secs(2);

/// How a bridge listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Groups in all VLANs at most; when there are more, the one that was reported longest
    /// ago goes.
    pub max_groups: usize,
    /// Who does not report for so long wants to hear no more.
    pub max_age: Duration,
    /// Who leaves hears nothing more at once: for ports with one host behind each.
    pub fast_leave: bool,
    /// The bridge asks itself.
    pub querier: Option<Querier>,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_groups: 2048, max_age: Duration::from_secs(300), fast_leave: false, querier: None }
    }
}

/// A bridge that asks itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Querier {
    /// From this address; of IPv6, from the link-local one that is made of it.
    pub mac: MacAddr,
    /// From this address; 0.0.0.0: it has none, and gives way to any other querier.
    pub address: Ipv4Addr,
    /// In these VLANs; 0: none.
    pub vlans: BTreeSet<VlanId>,
    /// Of IPv6, from this address instead.
    pub address_v6: Option<Ipv6Addr>,
    /// Between two queries about all groups.
    pub interval: Duration,
    /// So long hosts may take to answer.
    pub max_response: Duration,
}

impl Querier {
    /// One with the times of RFC 3376 §8.
    pub fn new(mac: MacAddr, address: Ipv4Addr, vlans: BTreeSet<VlanId>) -> Self {
        let (interval, max_response) = (QUERY_INTERVAL, RESPONSE_INTERVAL);
        Self { mac, address, vlans, address_v6: None, interval, max_response }
    }
}

/// Who hears a group from now on, or everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// In this VLAN.
    pub vlan: VlanId,
    /// The group; `None`: everything, for routers are there.
    pub group: Option<IpAddr>,
    /// The ports; `None`: nothing is known of the group any more.
    pub ports: Option<BTreeSet<PortNo>>,
}

/// One member, for dumps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// In this VLAN.
    pub vlan: VlanId,
    /// Of this group; `None`: it hears everything.
    pub group: Option<IpAddr>,
    /// The port.
    pub port: PortNo,
    /// How long it still hears it; `None`: it was said by hand.
    pub left: Option<Duration>,
}

/// When a member is forgotten; `None`: never, it was said by hand.
type Members = BTreeMap<PortNo, Option<Timestamp>>;
type Key = (VlanId, Option<IpAddr>);

/// The table.
#[derive(Debug, Clone, Default)]
pub struct Groups {
    config: Config,
    members: BTreeMap<Key, Members>,
    changed: BTreeSet<Key>,
    /// By VLAN and version of IP.
    queriers: BTreeMap<(VlanId, bool), Asking>,
    queries: Vec<(VlanId, Vec<u8>)>,
    n_evicted: u64,
}

/// What is known of who asks in a VLAN.
#[derive(Debug, Clone, Copy, Default)]
struct Asking {
    n_asked: u32,
    due: Timestamp,
    /// Somebody else asks until then.
    other_until: Option<Timestamp>,
}

impl Groups {
    /// An empty table.
    pub fn new(config: Config) -> Self {
        Self { config, ..Self::default() }
    }

    /// How it listens.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Changes how it listens.
    pub fn set_config(&mut self, config: Config) {
        if self.config.querier != config.querier {
            self.queriers.clear();
        }
        self.config = config;
        self.make_room();
    }

    /// A frame in this VLAN has come by a port and says this.
    pub fn hear(&mut self, now: Timestamp, (vlan, port): (VlanId, PortNo), message: &Message) {
        match message {
            Message::Query { source, group } => self.hear_query(now, (vlan, port), *source, *group),
            Message::Report(said) => {
                for (group, interest) in said.iter().filter(|(group, _)| is_kept(*group)) {
                    match interest {
                        Interest::Joins => {
                            let expires = Some(now.after(self.config.max_age));
                            self.put((vlan, Some(*group)), port, expires);
                        }
                        Interest::Leaves => self.leave(now, (vlan, port), *group),
                    }
                }
                self.make_room();
            }
        }
    }

    /// Says by hand who hears a group, or everything.
    pub fn set_static(&mut self, vlan: VlanId, group: Option<IpAddr>, port: PortNo, hears: bool) {
        let key = (vlan, group);
        match hears {
            true => self.put(key, port, None),
            false => self.remove(key, port, |expires| expires.is_none()),
        }
    }

    /// A port is gone, or down.
    pub fn forget_port(&mut self, port: PortNo) {
        for key in self.members.keys().copied().collect::<Vec<_>>() {
            self.remove(key, port, Option::is_some);
        }
    }

    /// Forgets all that was heard.
    pub fn clear(&mut self) {
        for (key, members) in &self.members {
            if members.values().any(Option::is_some) {
                self.changed.insert(*key);
            }
        }
        for members in self.members.values_mut() {
            members.retain(|_, expires| expires.is_none());
        }
        self.members.retain(|_, members| !members.is_empty());
    }

    /// Forgets who was silent for too long, and asks if it is time to.
    pub fn tick(&mut self, now: Timestamp) {
        for (key, members) in &mut self.members {
            let n_before = members.len();
            members.retain(|_, expires| expires.is_none_or(|expires| now < expires));
            if members.len() != n_before {
                self.changed.insert(*key);
            }
        }
        self.members.retain(|_, members| !members.is_empty());
        self.ask(now);
    }

    /// What has changed since.
    pub fn take_changes(&mut self) -> Vec<Change> {
        let changed = std::mem::take(&mut self.changed);
        let change = |key: Key| Change {
            vlan: key.0,
            group: key.1,
            ports: self.members.get(&key).map(|members| members.keys().copied().collect()),
        };
        changed.into_iter().map(change).collect()
    }

    /// Queries to send to all ports of a VLAN, without its tag.
    pub fn take_queries(&mut self) -> Vec<(VlanId, Vec<u8>)> {
        std::mem::take(&mut self.queries)
    }

    /// All members.
    pub fn entries(&self, now: Timestamp) -> Vec<Entry> {
        let of = |(key, members): (&Key, &Members)| {
            let (vlan, group) = *key;
            let left = move |expires: &Option<Timestamp>| expires.map(|expires| expires.since(now));
            let entries = members.iter();
            entries
                .map(move |(port, expires)| Entry { vlan, group, port: *port, left: left(expires) })
                .collect::<Vec<_>>()
        };
        self.members.iter().flat_map(of).collect()
    }

    /// Groups that made room for others.
    pub fn n_evicted(&self) -> u64 {
        self.n_evicted
    }

    fn put(&mut self, key: Key, port: PortNo, expires: Option<Timestamp>) {
        let members = self.members.entry(key).or_default();
        match members.get_mut(&port) {
            // What was said by hand stays.
            Some(None) => {}
            Some(known) => *known = expires,
            None => {
                members.insert(port, expires);
                self.changed.insert(key);
            }
        }
    }

    fn remove(&mut self, key: Key, port: PortNo, which: impl Fn(&Option<Timestamp>) -> bool) {
        let Some(members) = self.members.get_mut(&key) else { return };
        if members.get(&port).is_some_and(which) {
            members.remove(&port);
            self.changed.insert(key);
        }
        if members.is_empty() {
            self.members.remove(&key);
        }
    }

    fn leave(&mut self, now: Timestamp, (vlan, port): (VlanId, PortNo), group: IpAddr) {
        let key = (vlan, Some(group));
        if self.config.fast_leave {
            return self.remove(key, port, Option::is_some);
        }
        let soon = now.after(LAST_MEMBER);
        let known = self.members.get_mut(&key).and_then(|members| members.get_mut(&port));
        if let Some(Some(expires)) = known {
            *expires = soon.min(*expires);
            if self.is_querier(now, vlan, group.is_ipv6()) {
                self.query(vlan, Some(group), group.is_ipv6());
            }
        }
    }

    fn hear_query(
        &mut self,
        now: Timestamp,
        (vlan, port): (VlanId, PortNo),
        source: IpAddr,
        group: Option<IpAddr>,
    ) {
        // RFC 4541 §2.1.1: one without an address is no router.
        if !source.is_unspecified() {
            self.put((vlan, None), port, Some(now.after(self.config.max_age)));
        }
        if let Some(querier) = &self.config.querier {
            // RFC 3376 §6.6.2: the lowest address asks.
            let is_lower = match source {
                IpAddr::V4(other) => {
                    !other.is_unspecified() && (querier.address.is_unspecified() || other < querier.address)
                }
                IpAddr::V6(other) => !other.is_unspecified(),
            };
            if is_lower {
                let asking = self.queriers.entry((vlan, source.is_ipv6())).or_default();
                asking.other_until = Some(now.after(OTHER_QUERIER));
            }
        }
        // Who does not answer in time has left.
        if let Some(members) = group.and_then(|group| self.members.get_mut(&(vlan, Some(group)))) {
            let soon = now.after(LAST_MEMBER);
            members.values_mut().flatten().for_each(|expires| *expires = soon.min(*expires));
        }
    }

    fn is_querier(&self, now: Timestamp, vlan: VlanId, is_v6: bool) -> bool {
        let asks = self.config.querier.as_ref().is_some_and(|querier| querier.vlans.contains(&vlan));
        let other = self.queriers.get(&(vlan, is_v6)).and_then(|asking| asking.other_until);
        asks && other.is_none_or(|until| now >= until)
    }

    fn ask(&mut self, now: Timestamp) {
        let Some(Querier { vlans, interval, .. }) = self.config.querier.clone() else { return };
        for vlan in vlans {
            for is_v6 in [false, true] {
                if !self.is_querier(now, vlan, is_v6) {
                    continue;
                }
                let asking = self.queriers.entry((vlan, is_v6)).or_default();
                if asking.n_asked > 0 && now < asking.due {
                    continue;
                }
                asking.n_asked = asking.n_asked.saturating_add(1);
                let part = if asking.n_asked < N_STARTUP { STARTUP_PART } else { 1 };
                asking.due = now.after(interval / part);
                self.query(vlan, None, is_v6);
            }
        }
    }

    fn query(&mut self, vlan: VlanId, group: Option<IpAddr>, is_v6: bool) {
        let Some(querier) = &self.config.querier else { return };
        let frame = match (group, is_v6) {
            (Some(IpAddr::V4(group)), _) => message::query_v4(querier, Some(group)),
            (Some(IpAddr::V6(group)), _) => message::query_v6(querier, Some(group)),
            (None, false) => message::query_v4(querier, None),
            (None, true) => message::query_v6(querier, None),
        };
        self.queries.push((vlan, frame));
    }

    /// The group that was reported longest ago goes, and the next, until there is room.
    fn make_room(&mut self) {
        let is_group = |key: &Key| key.1.is_some();
        let mut n_groups = self.members.keys().filter(|key| is_group(key)).count();
        while n_groups > self.config.max_groups {
            let age = |(key, members): (&Key, &Members)| {
                let last = members
                    .values()
                    .copied()
                    .max_by_key(|expires| expires.map_or(u64::MAX, Timestamp::nanos));
                (last.flatten().map_or(u64::MAX, Timestamp::nanos), *key)
            };
            let oldest = self.members.iter().filter(|(key, _)| is_group(key)).map(age).min();
            let Some((_, key)) = oldest else { break };
            self.members.remove(&key);
            self.changed.insert(key);
            self.n_evicted += 1;
            n_groups -= 1;
        }
    }
}

/// Groups beyond the link: packets of others are for everybody anyway (RFC 4541 §2.1.2, §3).
fn is_kept(group: IpAddr) -> bool {
    match group {
        IpAddr::V4(group) => group.is_multicast() && group.octets()[..3] != [224, 0, 0],
        IpAddr::V6(group) => group.is_multicast() && group.octets()[1] & 0xf > 2,
    }
}
