//! Getting leased ports from the network, and giving them to containers.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use flowtable::types::MacAddr;
use tonic::{Code, Status};

use super::{
    Choice, Pool, REST, Ranges, Slot, choose, free, now,
    routes::{by_host, routes},
    used,
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
/// Other hosts may want the same block at the same moment, this often.
const MAX_TRIES: usize = 16;
/// The host that a port is leased to.
pub(super) const LABEL: &str = "lease";

/// What is to be leased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// Just this place.
    Place(u64),
    /// A block, if no port is free.
    Any,
    /// So many more at least, although some are.
    More(usize),
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
        let mut slots = self.slots();
        let (now, used) = (now(), used(&records));
        let Some(slot) = choose(&slots, pool, &used, choice, now) else { return Ok(None) };
        let n_left = free(&slots, pool, &used, Some(now)).count().saturating_sub(1);
        let lease = Leased { port: slot.id.clone(), gateways: slot.gateways.clone() };
        let record = Record { addresses: slot.addresses.clone(), mac: slot.mac, ..planned.clone() };
        let routes = routes(&wanted.routes, &record, &lease);
        let record = Record { routes, lease: Some(lease), ..record };
        gateway::check_published(&records, &record)?;
        let mut labels = self.labels(&wanted.key, wanted.labels.clone());
        labels.insert(LABEL.to_owned(), self.chassis.clone());
        let slot = Slot { labels, is_told: false, is_gateway: false, ..slot.clone() };
        drop(used);
        slots.put_lightly(slot).map_err(unsaved)?;
        records.put(record.clone()).map_err(unsaved)?;
        self.demand.given(n_left);
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
        slots.put_lightly(rested).map_err(unsaved)
    }

    pub(super) fn free_labels(&self) -> HashMap<String, String> {
        HashMap::from([(LABEL.to_owned(), self.chassis.clone())])
    }

    /// Leases ports.
    pub(super) async fn lease(
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
            Wish::Any => self.next_block(switch, ranges, &taken, 1),
            Wish::More(n) => self.next_block(switch, ranges, &taken, n),
        };
        if slots.is_empty() {
            let why = match wish {
                Wish::Place(_) => "the address is in use, or a gateway's".to_owned(),
                Wish::Any | Wish::More(_) => self.why_none(&pool),
            };
            return Err(Status::resource_exhausted(why));
        }
        // Before they are made: what a crash leaves behind is known.
        self.keep_slots(slots.clone()).await?;
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
        self.keep_slots(slots.into_iter().map(|slot| Slot { is_made: true, ..slot }).collect()).await
    }

    /// Keeps slots that nobody else changes meanwhile, as they are now, durably.
    pub(super) async fn keep_slots(&self, slots: Vec<Slot>) -> Result<(), Status> {
        let writer = self.slots().writer();
        let write = move || writer.write(&slots).map(|()| slots);
        let written = tokio::task::spawn_blocking(write).await;
        let written = written.unwrap_or_else(|error| Err(std::io::Error::other(error))).map_err(unsaved)?;
        let mut kept = self.slots();
        written.into_iter().for_each(|slot| kept.set(slot));
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

    /// The free places of the next block that has any, and of more when so many are wanted, or as many
    /// containers wait. Each host begins somewhere else, so that they seldom want the same.
    fn next_block(
        &self,
        switch: &str,
        ranges: &Ranges,
        taken: &BTreeSet<IpAddr>,
        n_wanted: usize,
    ) -> Vec<Slot> {
        let n_places = ranges.n_places();
        let n_blocks = n_places.div_ceil(BLOCK);
        if n_blocks == 0 {
            return Vec::new();
        }
        let begin = stable_hash(self.chassis.bytes()) % n_blocks;
        let n_waiting = self.waiting.load(Ordering::Relaxed);
        let n_wanted = n_wanted.max(n_waiting).clamp(1, MAX_AT_ONCE);
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

    /// Ports that a container could get; `only_rested`: at once.
    pub(super) fn n_free(&self, pool: &str, only_rested: bool) -> usize {
        let records = self.records();
        free(&self.slots(), pool, &used(&records), only_rested.then(now)).count()
    }

    fn why_none(&self, pool: &str) -> String {
        let n_resting = self.n_free(pool, false);
        let rest = REST.as_secs();
        format!(
            "no address is free: all are leased by hosts; {n_resting} of this host rest, for up to {rest} s after their last use"
        )
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

pub(super) fn wanted_port(slot: &Slot) -> PortWanted {
    PortWanted {
        name: slot.port_name(),
        addresses: slot.port_addresses(),
        is_gateway: slot.is_gateway,
        labels: slot.labels.clone(),
        rules: Vec::new(),
    }
}
