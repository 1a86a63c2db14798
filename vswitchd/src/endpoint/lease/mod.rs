//! Addresses that this host has leased: ports of a switch that were made ahead of time, are
//! bound to this host and known to all others, and wait for a container. To give one to a
//! container takes nobody but this host.
//!
//! That no other host has the same address, the network's store sees to: the name of such a
//! port is that of its first address, and only one host can make it.
//!
//! - `ranges`: which addresses there are
//! - `leasing`: getting them from the network, and giving them to containers
//! - `tending`: having some ahead of time, telling who has which, and giving them back
//! - `routes`: their gateways

mod leasing;
mod ranges;
mod routes;
mod tending;

use std::{
    collections::{HashMap, HashSet},
    fs,
    net::IpAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use flowtable::types::MacAddr;
use serde::{Deserialize, Serialize};

use super::{
    Prefix, Record,
    kept::{Files, Kept},
    key::stable_hash,
    mac_of,
};
use ranges::Place;
pub use ranges::Ranges;
pub(super) use routes::by_host;
pub(super) use tending::Demand;

/// How long an address rests: until no host sends to its old owner any more.
pub(super) const REST: Duration = Duration::from_secs(30);

/// Where addresses are leased from.
#[derive(Debug, Clone)]
pub(super) struct Pool {
    switch: String,
    ranges: Ranges,
    /// All are taken; not to be tried again before, since 1970.
    try_again: Duration,
}

/// A leased port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Slot {
    /// Id of the port.
    pub id: String,
    /// Which ranges of which switch it is of.
    pub pool: String,
    /// `switches/{id}`
    pub switch: String,
    /// Addresses.
    pub addresses: Vec<Prefix>,
    /// Gateways of their ranges.
    pub gateways: Vec<Option<IpAddr>>,
    /// MAC address.
    #[serde(with = "super::text")]
    pub mac: MacAddr,
    /// The network has made it. Before, it may be another host's.
    pub is_made: bool,
    /// When it may be given again, since 1970.
    pub rests_until: Duration,
    /// Labels that its port is to have.
    pub labels: HashMap<String, String>,
    /// The port is as this says.
    pub is_told: bool,
    /// The host has it, as a gateway.
    #[serde(default)]
    pub is_gateway: bool,
}

impl Slot {
    /// A port for a place that nobody has yet.
    fn new(pool: &str, switch: &str, place: Place, labels: HashMap<String, String>) -> Option<Self> {
        let first = place.addresses.first()?.address;
        let switch_hash = stable_hash(switch.bytes()) >> 32;
        let address = first.to_string().replace(':', "-");
        Some(Self {
            id: format!("{PREFIX}{switch_hash:08x}-{address}"),
            pool: pool.to_owned(),
            switch: switch.to_owned(),
            mac: mac_of(first),
            addresses: place.addresses,
            gateways: place.gateways,
            is_made: false,
            rests_until: Duration::ZERO,
            labels,
            is_told: true,
            is_gateway: false,
        })
    }

    /// `switches/{id}/ports/{id}`
    pub(super) fn port_name(&self) -> String {
        format!("{}/ports/{}", self.switch, self.id)
    }

    /// `MAC IP…`
    fn port_addresses(&self) -> String {
        let ips: Vec<_> = self.addresses.iter().map(|prefix| prefix.address.to_string()).collect();
        format!("{} {}", self.mac, ips.join(" "))
    }

    fn has(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|prefix| prefix.address == address)
    }
}

impl Kept for Slot {
    type Key = String;

    fn key(&self) -> &String {
        &self.id
    }

    fn file(key: &String) -> String {
        key.clone()
    }
}

/// What a container asks of the addresses that are chosen for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Choice {
    /// It has to have these.
    pub addresses: Vec<IpAddr>,
    /// It would have this one.
    pub mac: Option<MacAddr>,
}

/// Names of leased ports begin so.
const PREFIX: &str = "lease-";

/// The name of a port is that of a leased one.
fn is_lease(name: &str) -> bool {
    name.rsplit_once("/ports/").is_some_and(|(_, id)| id.starts_with(PREFIX))
}

/// Ids of the slots that endpoints have.
fn used(records: &Files<Record>) -> HashSet<&str> {
    records.iter().filter_map(|record| Some(record.lease.as_ref()?.port.as_str())).collect()
}

/// The slots of a pool that nobody uses; `now`: those that have rested by then.
fn free<'a>(
    slots: &'a Files<Slot>,
    pool: &str,
    used: &HashSet<&str>,
    now: Option<Duration>,
) -> impl Iterator<Item = &'a Slot> {
    slots
        .iter()
        .filter(move |slot| slot.pool == pool && slot.is_made && !used.contains(slot.id.as_str()))
        .filter(move |slot| now.is_none_or(|now| slot.rests_until <= now))
}

/// The slot to give, of those that nobody uses: the one that has rested longest. Who names
/// an address gets it although it rests.
fn choose<'a>(
    slots: &'a Files<Slot>,
    pool: &str,
    used: &HashSet<&str>,
    choice: &Choice,
    now: Duration,
) -> Option<&'a Slot> {
    free(slots, pool, used, choice.addresses.is_empty().then_some(now))
        .filter(|slot| choice.addresses.iter().all(|address| slot.has(*address)))
        .min_by_key(|slot| (choice.mac.is_some_and(|mac| mac != slot.mac), slot.rests_until))
}

/// Time as it is kept in files.
fn now() -> Duration {
    // Before 1970 every address has rested.
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// When the machine was started: what ran before had ended by then. `None`: it does not tell.
fn ended_before() -> Option<Duration> {
    let text = fs::read_to_string("/proc/uptime").ok()?;
    let uptime: f64 = text.split_whitespace().next()?.parse().ok()?;
    Some(now().saturating_sub(Duration::try_from_secs_f64(uptime).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(rests: &[u64]) -> Files<Slot> {
        let mut slots = Files::open(None).unwrap();
        for (idx, rest) in rests.iter().enumerate() {
            let address = format!("10.0.0.{}/24", idx + 1).parse().unwrap();
            let place = Place { addresses: vec![address], gateways: vec![None] };
            let slot = Slot::new("p", "switches/web", place, HashMap::new()).unwrap();
            let rests_until = Duration::from_secs(*rest);
            slots.put(Slot { is_made: true, rests_until, ..slot }).unwrap();
        }
        slots
    }

    #[test]
    fn the_one_that_has_rested_longest_is_given_and_none_that_rests() {
        let slots = slots(&[20, 10, 30]);
        let given = |used: &[&str], choice: &Choice, now| {
            let used = used.iter().copied().collect();
            choose(&slots, "p", &used, choice, Duration::from_secs(now))
                .map(|slot| slot.addresses[0].to_string())
        };
        let any = Choice::default();
        let first = choose(&slots, "p", &HashSet::new(), &any, Duration::from_secs(15)).unwrap().id.clone();
        assert_eq!(given(&[], &any, 25).unwrap(), "10.0.0.2/24");
        assert_eq!(given(&[&first], &any, 25).unwrap(), "10.0.0.1/24");
        assert_eq!(given(&[&first], &any, 15), None);
        let named = Choice { addresses: vec!["10.0.0.3".parse().unwrap()], mac: None };
        assert_eq!(given(&[], &named, 15).unwrap(), "10.0.0.3/24");
        let mac = Choice { addresses: vec![], mac: Some(mac_of("10.0.0.1".parse().unwrap())) };
        assert_eq!(given(&[], &mac, 25).unwrap(), "10.0.0.1/24");
        assert!(choose(&slots, "q", &HashSet::new(), &any, Duration::MAX).is_none());
    }

    #[test]
    fn ids_of_ports_are_the_addresses_and_short_enough() {
        let place = Place {
            addresses: vec!["2001:db8:1111:2222:3333:4444:5555:6666/64".parse().unwrap()],
            gateways: vec![None],
        };
        let switch = format!("switches/{}", "s".repeat(63));
        let slot = Slot::new("p", &switch, place, HashMap::new()).unwrap();
        assert!(slot.id.ends_with("-2001-db8-1111-2222-3333-4444-5555-6666") && slot.id.len() <= 63);
        let json = serde_json::to_string(&slot).unwrap();
        assert_eq!(serde_json::from_str::<Slot>(&json).unwrap(), slot);
    }
}
