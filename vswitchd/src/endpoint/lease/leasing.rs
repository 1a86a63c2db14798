//! Getting leased ports from the network, giving them to containers, and giving them back.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use flowtable::types::MacAddr;
use tonic::{Code, Status};

use super::{
    Choice, Pool, REST, Ranges, Slot, choose, now,
    routes::{by_host, routes},
};
use crate::endpoint::{
    AttachWanted, Endpoints, Leased, Record, UP_LIMIT, gateway,
    key::stable_hash,
    northbound::{Northbound, PortWanted},
    unsaved,
};

/// Ports that are leased at once: those of a block of places.
const BLOCK: u64 = 16;
/// Most that are leased at once, however many containers wait.
const MAX_AT_ONCE: usize = 128;
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
        let planned = Record { routes, lease: Some(lease), ..planned };
        let host = self.get(&gateway::host_key(&wanted.key.network)).filter(|_| wanted.is_gateway_leased);
        Ok(Some(match host {
            Some(host) => by_host(planned, &wanted.routes, &host),
            None => planned,
        }))
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
                "where addresses are leased, the host leases those of the gateway too; do not name them",
            ));
        }
        let pool = ranges.pool(&wanted.switch);
        self.pools.lock().await.entry(pool.clone()).or_insert_with(|| Pool {
            switch: wanted.switch.clone(),
            ranges: ranges.clone(),
            try_again: Duration::ZERO,
        });
        let choice = Choice {
            addresses: wanted.addresses.iter().map(|prefix| prefix.address).collect(),
            mac: wanted.mac,
        };
        let place = named_place(ranges, &choice)?;
        let _waiting = Waiting::new(&self.waiting);
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

    /// Lets the host, which is a gateway, send what comes from elsewhere by its port.
    pub(in crate::endpoint) async fn open_port(
        &self,
        northbound: &Northbound,
        record: &Record,
    ) -> Result<(), Status> {
        let slot = self.slots().get(&record.port_id()).cloned();
        let slot = slot.ok_or_else(|| Status::internal(format!("{} is not leased", record.port_id())))?;
        let slot = Slot { is_gateway: true, is_told: false, ..slot };
        self.slots().put(slot.clone()).map_err(unsaved)?;
        let revision = northbound.make_port(wanted_port(&slot)).await?;
        self.slots().put(Slot { is_told: true, ..slot }).map_err(unsaved)?;
        northbound.wait_for_others(revision).await;
        Ok(())
    }

    /// A container has ended: its slot rests.
    pub(in crate::endpoint) fn rest(&self, port: &str) -> Result<(), Status> {
        let mut slots = self.slots();
        let Some(slot) = slots.get(&port.to_owned()).cloned() else { return Ok(()) };
        let labels = self.free_labels();
        let rested = Slot { rests_until: now() + REST, labels, is_told: false, is_gateway: false, ..slot };
        slots.put(rested).map_err(unsaved)
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

    /// The free places of the next block that has any, and of more when many containers wait.
    /// Each host begins somewhere else, so that they seldom want the same.
    fn next_block(&self, switch: &str, ranges: &Ranges, taken: &BTreeSet<IpAddr>) -> Vec<Slot> {
        let n_places = ranges.n_places();
        let n_blocks = n_places.div_ceil(BLOCK);
        if n_blocks == 0 {
            return Vec::new();
        }
        let begin = stable_hash(self.chassis.bytes()) % n_blocks;
        let n_wanted = self.waiting.load(Ordering::Relaxed).clamp(1, MAX_AT_ONCE);
        // As many are full as taken addresses can fill, and those of gateways.
        let n_full = (taken.len() as u64 + n_places.min(BLOCK)).min(n_blocks).max(1);
        let n_blocks_wanted = n_wanted.div_ceil(BLOCK as usize) as u64;
        let mut slots = Vec::new();
        for idx in 0..n_blocks.min(n_full + n_blocks_wanted) {
            let block = (begin + idx) % n_blocks;
            let places = block * BLOCK..n_places.min((block + 1) * BLOCK);
            slots.extend(self.block(switch, ranges, places, taken));
            if slots.len() >= n_wanted {
                break;
            }
        }
        slots
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
            // Not while it is given back: telling would make it again.
            let _alone = self.leasing.lock().await;
            if self.slots().get(&slot.id) != Some(&slot) {
                continue;
            }
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
        for (id, Pool { switch, ranges, try_again }) in pools {
            let n_free = self.n_free(&id, true);
            if n_free < LOW && self.n_free(&id, false) < HIGH && now() >= try_again {
                self.lease_ahead(northbound, &id, &switch, &ranges).await?;
            } else if n_free > HIGH {
                self.give_back(northbound, |slot| slot.pool == id, n_free - HIGH).await?;
            }
        }
        Ok(())
    }

    /// Leases a block before it is needed; when there is none, not again at once.
    async fn lease_ahead(
        &self,
        northbound: &Northbound,
        pool: &str,
        switch: &str,
        ranges: &Ranges,
    ) -> Result<(), Status> {
        match self.lease(northbound, switch, ranges, Wish::More).await {
            Err(status) if matches!(status.code(), Code::ResourceExhausted | Code::NotFound) => {
                if let Some(pool) = self.pools.lock().await.get_mut(pool) {
                    pool.try_again = now() + REST;
                }
                Ok(())
            }
            leased => leased,
        }
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

/// A container that waits for its addresses.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(n_waiting: &'a AtomicUsize) -> Self {
        n_waiting.fetch_add(1, Ordering::Relaxed);
        Self(n_waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
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
        is_gateway: slot.is_gateway,
        labels: slot.labels.clone(),
        rules: Vec::new(),
    }
}
