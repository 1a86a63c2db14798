//! Getting leased ports from the network, giving them to containers, and giving them back.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use flowtable::types::MacAddr;
use tonic::{Code, Status};

use super::{Choice, REST, Ranges, Slot, choose, now};
use crate::endpoint::{
    AttachWanted, Endpoints, Leased, Record, Route, UP_LIMIT, gateway,
    key::stable_hash,
    northbound::{Northbound, PortWanted},
    unsaved,
};

/// Ports that are leased at once: those of a block of places.
const BLOCK: u64 = 16;
/// Fewer free ones, and more are leased.
const LOW: usize = 8;
/// More free ones, and some are given back.
const HIGH: usize = 48;
/// Other hosts may want the same block at the same moment, this often.
const MAX_TRIES: usize = 16;
/// The host that a port is leased to.
const LABEL: &str = "lease";

/// What is to be leased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    /// Just this place.
    Place(u64),
    /// A block, if no port is free.
    Any,
    /// A block, although some are.
    More,
}

impl Endpoints {
    /// What an endpoint with leased addresses comes to that has been made before.
    pub(in crate::endpoint) async fn leased_before(
        &self,
        wanted: &AttachWanted,
    ) -> Result<Option<Record>, Status> {
        let Some((record, lease)) = self.get(&wanted.key).and_then(|record| {
            let lease = record.lease.clone()?;
            Some((record, lease))
        }) else {
            return Ok(None);
        };
        let planned = self.plan(wanted, record.addresses.clone(), record.mac).await?;
        let routes = routes(&wanted.routes, &record, &lease);
        Ok(Some(Record { routes, lease: Some(lease), ..planned }))
    }

    /// Writes an endpoint down that is about to be made, with addresses that nobody has.
    pub(in crate::endpoint) async fn reserve(
        &self,
        northbound: &Northbound,
        wanted: &AttachWanted,
        ranges: &Ranges,
    ) -> Result<Record, Status> {
        if !wanted.host_addresses.is_empty() {
            return Err(Status::invalid_argument(
                "the host is to be the gateway, which has an address of its own on each host: name this host's ranges, with host-local",
            ));
        }
        let pool = ranges.pool(&wanted.switch);
        self.pools.lock().await.insert(pool.clone(), (wanted.switch.clone(), ranges.clone()));
        let choice = Choice {
            addresses: wanted.addresses.iter().map(|prefix| prefix.address).collect(),
            mac: wanted.mac,
        };
        let place = named_place(ranges, &choice)?;
        let planned = self.plan(wanted, Vec::new(), MacAddr::ZERO).await?;
        for _ in 0..MAX_TRIES {
            if let Some(record) = self.take_slot(wanted, &planned, &pool, &choice)? {
                return self.with_mac(northbound, record, wanted.mac).await;
            }
            self.lease(northbound, &wanted.switch, ranges, place.map_or(Wish::Any, Wish::Place)).await?;
        }
        Err(Status::resource_exhausted(self.why_none(&pool)))
    }

    /// Gives a slot to an endpoint, if there is one: both are looked at under one lock.
    fn take_slot(
        &self,
        wanted: &AttachWanted,
        planned: &Record,
        pool: &str,
        choice: &Choice,
    ) -> Result<Option<Record>, Status> {
        let mut records = self.records();
        let used = records.iter().filter_map(|record| Some(record.lease.as_ref()?.port.clone())).collect();
        let mut slots = self.slots();
        let Some(slot) = choose(&slots, pool, &used, choice, now()) else { return Ok(None) };
        let lease = Leased { port: slot.id.clone(), gateways: slot.gateways.clone() };
        let record = Record { addresses: slot.addresses.clone(), mac: slot.mac, ..planned.clone() };
        let routes = routes(&wanted.routes, &record, &lease);
        let record = Record { routes, lease: Some(lease), ..record };
        gateway::check_published(&records, &record)?;
        let mut labels = self.labels(&wanted.key, wanted.labels.clone());
        labels.insert(LABEL.to_owned(), self.chassis.clone());
        let slot = Slot { labels, is_told: false, ..slot.clone() };
        slots.put(slot).map_err(unsaved)?;
        records.put(record.clone()).map_err(unsaved)?;
        Ok(Some(record))
    }

    /// Has the port changed to the MAC address that is asked for.
    async fn with_mac(
        &self,
        northbound: &Northbound,
        record: Record,
        mac: Option<MacAddr>,
    ) -> Result<Record, Status> {
        let Some(mac) = mac.filter(|mac| *mac != record.mac) else { return Ok(record) };
        let record = Record { mac, ..record };
        let port = record.port_id();
        let slot = self.slots().get(&port).cloned();
        let slot = slot.ok_or_else(|| Status::internal(format!("{port} is not leased any more")))?;
        let slot = Slot { mac, is_told: true, ..slot };
        self.put(record.clone())?;
        let made = northbound.make_port(wanted_port(&slot)).await;
        match made {
            Ok(_) => self.slots().put(slot).map_err(unsaved)?,
            Err(status) => {
                self.remove(&record.key)?;
                return Err(status);
            }
        }
        Ok(record)
    }

    /// A container has ended: its slot rests.
    pub(in crate::endpoint) fn rest(&self, port: &str) -> Result<(), Status> {
        let mut slots = self.slots();
        let Some(slot) = slots.get(&port.to_owned()).cloned() else { return Ok(()) };
        let labels = self.free_labels();
        slots.put(Slot { rests_until: now() + REST, labels, is_told: false, ..slot }).map_err(unsaved)
    }

    fn free_labels(&self) -> HashMap<String, String> {
        HashMap::from([(LABEL.to_owned(), self.chassis.clone())])
    }

    /// Leases ports.
    async fn lease(
        &self,
        northbound: &Northbound,
        switch: &str,
        ranges: &Ranges,
        wish: Wish,
    ) -> Result<(), Status> {
        let _alone = self.leasing.lock().await;
        let pool = ranges.pool(switch);
        // Somebody else may have done it while this one waited.
        if wish == Wish::Any && self.n_free(&pool, true) > 0 {
            return Ok(());
        }
        let taken = northbound.addresses(switch).await?;
        let slots = match wish {
            Wish::Place(at) => self.block(switch, ranges, at..at.saturating_add(1), &taken),
            Wish::Any | Wish::More => self.next_block(switch, ranges, &taken),
        };
        if slots.is_empty() {
            let why = match wish {
                Wish::Place(_) => "the address is in use, or a gateway's".to_owned(),
                Wish::Any | Wish::More => self.why_none(&pool),
            };
            return Err(Status::resource_exhausted(why));
        }
        // Before they are made: what a crash leaves behind is known.
        for slot in &slots {
            self.slots().put(slot.clone()).map_err(unsaved)?;
        }
        match northbound.create_ports(slots.iter().map(wanted_port)).await {
            Ok(revision) => self.begin(northbound, switch, slots, revision).await,
            Err(status) => {
                let is_refused =
                    status.code() != Code::Unavailable && status.code() != Code::DeadlineExceeded;
                if is_refused {
                    self.forget(&slots)?;
                }
                // Another host was faster: the next try sees what it has.
                if status.code() == Code::AlreadyExists { Ok(()) } else { Err(status) }
            }
        }
    }

    /// The ports are made: claims them, and waits until all hosts know.
    async fn begin(
        &self,
        northbound: &Northbound,
        switch: &str,
        slots: Vec<Slot>,
        revision: u64,
    ) -> Result<(), Status> {
        let ids: BTreeSet<_> = slots.iter().map(|slot| slot.id.clone()).collect();
        let held = ids.clone();
        self.host.with(move |host| host.hold(held)).await;
        northbound.wait_bound(switch, &ids, &self.chassis, revision, UP_LIMIT).await?;
        let mut kept = self.slots();
        for slot in slots {
            kept.put(Slot { is_made: true, ..slot }).map_err(unsaved)?;
        }
        Ok(())
    }

    /// The places of a block that nobody has.
    fn block(
        &self,
        switch: &str,
        ranges: &Ranges,
        places: std::ops::Range<u64>,
        taken: &BTreeSet<IpAddr>,
    ) -> Vec<Slot> {
        let pool = ranges.pool(switch);
        let is_free = |slot: &Slot| !slot.addresses.iter().any(|prefix| taken.contains(&prefix.address));
        places
            .filter_map(|at| Slot::new(&pool, switch, ranges.place(at)?, self.free_labels()))
            .filter(is_free)
            .collect()
    }

    /// The free places of the next block that has any. Each host begins somewhere else, so
    /// that they seldom want the same.
    fn next_block(&self, switch: &str, ranges: &Ranges, taken: &BTreeSet<IpAddr>) -> Vec<Slot> {
        let n_places = ranges.n_places();
        let n_blocks = n_places.div_ceil(BLOCK);
        if n_blocks == 0 {
            return Vec::new();
        }
        let begin = stable_hash(self.chassis.bytes()) % n_blocks;
        // As many are full as taken addresses can fill, and those of gateways.
        let n_full = (taken.len() as u64 + n_places.min(BLOCK)).min(n_blocks);
        (0..n_full.max(1))
            .map(|idx| (begin + idx) % n_blocks)
            .map(|block| block * BLOCK..n_places.min((block + 1) * BLOCK))
            .map(|places| self.block(switch, ranges, places, taken))
            .find(|slots| !slots.is_empty())
            .unwrap_or_default()
    }

    fn n_free(&self, pool: &str, only_rested: bool) -> usize {
        let used = self.used_slots();
        let now = now();
        let slots = self.slots();
        let free = slots.iter().filter(|slot| slot.pool == pool && slot.is_made && !used.contains(&slot.id));
        free.filter(|slot| !only_rested || slot.rests_until <= now).count()
    }

    fn used_slots(&self) -> BTreeSet<String> {
        self.records().iter().filter_map(|record| Some(record.lease.as_ref()?.port.clone())).collect()
    }

    fn why_none(&self, pool: &str) -> String {
        let n_resting = self.n_free(pool, false);
        let rest = REST.as_secs();
        format!(
            "no address is free: all are leased by hosts; {n_resting} of this host rest, for up to {rest} s after their last use"
        )
    }

    /// Claims what the last run had leased.
    pub(in crate::endpoint) async fn settle_leases(&self) {
        let held: BTreeSet<_> = self.slots().iter().map(|slot| slot.id.clone()).collect();
        if !held.is_empty() {
            self.host.with(move |host| host.hold(held)).await;
        }
    }

    /// Leases more before they are needed, gives back what is too much, and tells the network
    /// who has which.
    pub(in crate::endpoint) async fn tend_leases(&self) {
        let Some(northbound) = &self.northbound else { return };
        if !self.host.with(|host| host.is_connected()).await {
            return;
        }
        if let Err(status) = self.try_tend_leases(northbound).await {
            tracing::debug!(%status, "leased addresses are looked after later");
        }
    }

    async fn try_tend_leases(&self, northbound: &Northbound) -> Result<(), Status> {
        self.clear_up(northbound).await?;
        let untold: Vec<_> =
            self.slots().iter().filter(|slot| slot.is_made && !slot.is_told).cloned().collect();
        for slot in untold {
            match northbound.make_port(wanted_port(&slot)).await {
                Ok(_) => {}
                // Its switch is gone, and it with it.
                Err(status) if status.code() == Code::NotFound => {
                    self.forget(std::slice::from_ref(&slot))?;
                    continue;
                }
                Err(status) => return Err(status),
            }
            let mut slots = self.slots();
            // What was told is still so.
            if slots.get(&slot.id) == Some(&slot) {
                slots.put(Slot { is_told: true, ..slot }).map_err(unsaved)?;
            }
        }
        let pools = self.pools.lock().await.clone();
        for (pool, (switch, ranges)) in pools {
            let n_free = self.n_free(&pool, true);
            if n_free > 0 && n_free < LOW && self.n_free(&pool, false) < HIGH {
                self.lease(northbound, &switch, &ranges, Wish::More).await?;
            } else if n_free > HIGH {
                self.give_back(northbound, |slot| slot.pool == pool, n_free - HIGH).await?;
            }
        }
        Ok(())
    }

    /// Finds out what became of ports whose making was cut short.
    async fn clear_up(&self, northbound: &Northbound) -> Result<(), Status> {
        let _alone = self.leasing.lock().await;
        let half: Vec<_> = self.slots().iter().filter(|slot| !slot.is_made).cloned().collect();
        for slot in half {
            let is_ours = northbound.label(&slot.port_name(), LABEL).await? == Some(self.chassis.clone());
            if is_ours {
                northbound.delete([slot.port_name()]).await?;
            }
            self.forget(&[slot])?;
        }
        Ok(())
    }

    /// Gives leased addresses back that no endpoint has; answers which.
    ///
    /// # Errors
    /// UNAVAILABLE without a controller.
    pub async fn release_addresses(&self) -> Result<Vec<IpAddr>, Status> {
        let Some(northbound) = &self.northbound else { return Ok(Vec::new()) };
        self.pools.lock().await.clear();
        self.clear_up(northbound).await?;
        self.give_back(northbound, |_| true, usize::MAX).await
    }

    async fn give_back(
        &self,
        northbound: &Northbound,
        is_meant: impl Fn(&Slot) -> bool,
        n: usize,
    ) -> Result<Vec<IpAddr>, Status> {
        let _alone = self.leasing.lock().await;
        // Taken out first, so that nobody takes them meanwhile.
        let slots: Vec<_> = {
            let records = self.records();
            let is_used = |slot: &Slot| {
                records.iter().any(|record| record.lease.as_ref().is_some_and(|lease| lease.port == slot.id))
            };
            let mut slots = self.slots();
            let free = slots.iter().filter(|slot| slot.is_made && is_meant(slot) && !is_used(slot));
            let free: Vec<_> = free.take(n).cloned().collect();
            for slot in &free {
                slots.put(Slot { is_made: false, ..slot.clone() }).map_err(unsaved)?;
            }
            free
        };
        if !slots.is_empty() {
            northbound.delete(slots.iter().map(Slot::port_name)).await?;
            self.forget(&slots)?;
        }
        let addresses = slots.iter().flat_map(|slot| &slot.addresses);
        Ok(addresses.map(|prefix| prefix.address).collect())
    }

    /// These are not this host's any more.
    fn forget(&self, slots: &[Slot]) -> Result<(), Status> {
        let ids: BTreeSet<_> = slots.iter().map(|slot| slot.id.clone()).collect();
        let mut kept = self.slots();
        for id in &ids {
            kept.remove(id).map_err(unsaved)?;
        }
        drop(kept);
        let host = self.host.clone();
        tokio::spawn(async move { host.with(move |host| host.let_go_of(&ids)).await });
        Ok(())
    }
}

/// The place that a container names by its addresses.
fn named_place(ranges: &Ranges, choice: &Choice) -> Result<Option<u64>, Status> {
    let mut named = None;
    for address in &choice.addresses {
        let place = ranges
            .place_of(*address)
            .ok_or_else(|| Status::invalid_argument(format!("{address} is not in the network's ranges")))?;
        if named.is_some_and(|named| named != place) {
            return Err(Status::invalid_argument(format!(
                "{address} does not belong to the other address that is asked for; name one of them"
            )));
        }
        named = Some(place);
    }
    Ok(named)
}

fn wanted_port(slot: &Slot) -> PortWanted {
    PortWanted {
        name: slot.port_name(),
        addresses: slot.port_addresses(),
        is_gateway: false,
        labels: slot.labels.clone(),
        rules: Vec::new(),
    }
}

/// Routes, those without a gateway by that of the range of their family.
fn routes(wanted: &[Route], record: &Record, lease: &Leased) -> Vec<Route> {
    let gateway = |is_v4: bool| {
        let of_family = record.addresses.iter().zip(&lease.gateways);
        of_family.filter(|(prefix, _)| prefix.address.is_ipv4() == is_v4).find_map(|(_, gateway)| *gateway)
    };
    let by_gateway = |route: &Route| Route {
        gateway: route.gateway.or_else(|| gateway(route.destination.address.is_ipv4())),
        ..route.clone()
    };
    wanted.iter().map(by_gateway).collect()
}
