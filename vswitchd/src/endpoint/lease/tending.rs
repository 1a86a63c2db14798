//! Looking after leased ports: there are some ahead of time, the network knows who has which, and what is
//! too much is given back.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use tokio::sync::Notify;
use tonic::{Code, Status};

use super::{
    Pool, REST, Ranges, Slot, ended_before, is_lease,
    leasing::{LABEL, Wish, wanted_port},
    now, used,
};
use crate::endpoint::{Endpoints, northbound::Northbound, unsaved};

/// Fewer free ones, and more are leased.
const LOW: usize = 8;
/// As many are kept ahead as were given in a second, up to this: nobody waits for the controller.
const MAX_LOW: usize = 64;
/// More free ones, and some are given back.
const HIGH: usize = 48;
/// Ports that the network is told of at once.
const TOLD_AT_ONCE: usize = 64;

/// How many addresses containers have wanted of late.
#[derive(Debug, Default)]
pub(in crate::endpoint) struct Demand {
    /// Since the last look.
    n_given: AtomicUsize,
    /// Between the two looks before.
    n_before: AtomicUsize,
    /// More are to be leased at once.
    is_short: Notify,
}

impl Demand {
    /// One more was given, and so many are left of its pool.
    pub(super) fn given(&self, n_left: usize) {
        self.n_given.fetch_add(1, Ordering::Relaxed);
        if n_left < self.low() {
            self.is_short.notify_one();
        }
    }

    /// How many are to be free: as many as were given in a second.
    fn low(&self) -> usize {
        let n_recent = self.n_given.load(Ordering::Relaxed).max(self.n_before.load(Ordering::Relaxed));
        n_recent.clamp(LOW, MAX_LOW)
    }

    /// A second has passed.
    fn look(&self) {
        self.n_before.store(self.n_given.swap(0, Ordering::Relaxed), Ordering::Relaxed);
    }
}

impl Endpoints {
    /// Claims what the last run had leased, and takes from ports what containers had that are gone.
    pub(in crate::endpoint) async fn settle_leases(&self) {
        let held: BTreeSet<_> = self.slots().iter().map(|slot| slot.id.clone()).collect();
        if held.is_empty() {
            return;
        }
        if let Err(status) = self.settle_slots() {
            tracing::error!(%status, "ports of containers that are gone keep what these had");
        }
        self.host.with(move |host| host.hold(held)).await;
    }

    fn settle_slots(&self) -> Result<(), Status> {
        let records = self.records();
        let used = used(&records);
        let mut slots = self.slots();
        let free_labels = self.free_labels();
        // What was written last may be gone with the power: a container had its address until then.
        let rested = ended_before().map_or(Duration::ZERO, |ended| ended + REST);
        let settled = slots.iter().filter(|slot| !used.contains(slot.id.as_str())).filter_map(|slot| {
            let rests_until = slot.rests_until.max(if rested > now() { rested } else { Duration::ZERO });
            let is_left = slot.is_gateway || slot.labels != free_labels;
            let is_told = slot.is_told && !is_left;
            let labels = free_labels.clone();
            let settled = Slot { rests_until, labels, is_told, is_gateway: false, ..slot.clone() };
            (settled != *slot).then_some(settled)
        });
        let settled: Vec<_> = settled.collect();
        settled.into_iter().try_for_each(|slot| slots.put_lightly(slot).map_err(unsaved))
    }

    /// Leases more before they are needed, gives back what is too much, and tells the network
    /// who has which.
    pub(in crate::endpoint) async fn tend_leases(&self) {
        self.demand.look();
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
        self.return_lost(northbound).await?;
        self.fill_up(northbound).await?;
        self.tell_slots(northbound).await?;
        let pools: Vec<_> = self.pools.lock().await.keys().cloned().collect();
        for id in pools {
            let high = HIGH + 2 * (self.demand.low() - LOW);
            let n_free = self.n_free(&id, true);
            if n_free > high {
                self.give_back(northbound, |slot| slot.pool == id, n_free - high).await?;
            }
        }
        Ok(())
    }

    /// Leases more as soon as there are few, until the task is dropped.
    pub async fn lease_ahead(&self) {
        loop {
            self.demand.is_short.notified().await;
            let Some(northbound) = &self.northbound else { return };
            if !self.host.with(|host| host.is_connected()).await {
                continue;
            }
            if let Err(status) = self.fill_up(northbound).await {
                tracing::debug!(%status, "addresses are leased later");
            }
        }
    }

    /// Leases more of each pool of which few are free.
    async fn fill_up(&self, northbound: &Northbound) -> Result<(), Status> {
        let pools = self.pools.lock().await.clone();
        for (id, Pool { switch, ranges, try_again }) in pools {
            let low = self.demand.low();
            let n_free = self.n_free(&id, true);
            // As many may rest as are given while they do.
            let n_resting = self.n_free(&id, false).saturating_sub(n_free);
            let is_enough = n_resting >= HIGH + low * REST.as_secs() as usize;
            if n_free < low && !is_enough && now() >= try_again {
                self.lease_more(northbound, (&id, 2 * low - n_free), &switch, &ranges).await?;
            }
        }
        Ok(())
    }

    /// Leases blocks before they are needed; when there are none, not again at once.
    async fn lease_more(
        &self,
        northbound: &Northbound,
        (pool, n): (&str, usize),
        switch: &str,
        ranges: &Ranges,
    ) -> Result<(), Status> {
        match self.lease(northbound, switch, ranges, Wish::More(n)).await {
            Err(status) if matches!(status.code(), Code::ResourceExhausted | Code::NotFound) => {
                if let Some(pool) = self.pools.lock().await.get_mut(pool) {
                    pool.try_again = now() + REST;
                }
                Ok(())
            }
            leased => leased,
        }
    }

    /// Tells the network who has which.
    async fn tell_slots(&self, northbound: &Northbound) -> Result<(), Status> {
        let untold: Vec<_> =
            self.slots().iter().filter(|slot| slot.is_made && !slot.is_told).cloned().collect();
        for some in untold.chunks(TOLD_AT_ONCE) {
            // Not while they are given back: telling would make them again.
            let _alone = self.leasing.lock().await;
            let some: Vec<_> =
                some.iter().filter(|slot| self.slots().get(&slot.id) == Some(slot)).cloned().collect();
            match self.tell_some(northbound, &some).await {
                Err(status) if status.code() != Code::Unavailable && some.len() > 1 => {
                    // One by one: the others know nothing of what is wrong with one.
                    for slot in &some {
                        self.tell_or_forget(northbound, slot).await?;
                    }
                }
                Err(_) if some.len() == 1 => self.tell_or_forget(northbound, &some[0]).await?,
                told => told?,
            }
        }
        Ok(())
    }

    async fn tell_or_forget(&self, northbound: &Northbound, slot: &Slot) -> Result<(), Status> {
        match self.tell_some(northbound, std::slice::from_ref(slot)).await {
            // Its switch is gone, and it with it.
            Err(status) if status.code() == Code::NotFound => self.forget(std::slice::from_ref(slot)),
            told => told,
        }
    }

    async fn tell_some(&self, northbound: &Northbound, some: &[Slot]) -> Result<(), Status> {
        if some.is_empty() {
            return Ok(());
        }
        northbound.make_ports(some.iter().map(wanted_port)).await?;
        let mut slots = self.slots();
        for slot in some {
            // What was told is still so.
            if slots.get(&slot.id) == Some(slot) {
                slots.put_lightly(Slot { is_told: true, ..slot.clone() }).map_err(unsaved)?;
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

    /// Gives back, once, what is leased to this host and not known here: its state was lost.
    async fn return_lost(&self, northbound: &Northbound) -> Result<(), Status> {
        if self.has_looked_for_lost.load(Ordering::Relaxed) || self.slots().has_strange() {
            return Ok(());
        }
        let _alone = self.leasing.lock().await;
        let leased = northbound.labelled(LABEL, &self.chassis).await?;
        let lost: Vec<_> = {
            let slots = self.slots();
            let known: BTreeSet<_> = slots.iter().map(Slot::port_name).collect();
            leased.into_iter().filter(|name| is_lease(name) && !known.contains(name)).collect()
        };
        if !lost.is_empty() {
            tracing::warn!(
                n = lost.len(),
                "leased to this host, which has lost what it knew of them; given back"
            );
            northbound.delete(lost).await?;
        }
        self.has_looked_for_lost.store(true, Ordering::Relaxed);
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
            let used = used(&records);
            let mut slots = self.slots();
            let is_free = |slot: &&Slot| slot.is_made && is_meant(slot) && !used.contains(slot.id.as_str());
            let free: Vec<_> = slots.iter().filter(is_free).take(n).cloned().collect();
            let free = free.into_iter().map(|slot| Slot { is_made: false, ..slot });
            free.inspect(|slot| slots.set(slot.clone())).collect()
        };
        if !slots.is_empty() {
            self.keep_slots(slots.clone()).await?;
            northbound.delete(slots.iter().map(Slot::port_name)).await?;
            self.forget(&slots)?;
        }
        let addresses = slots.iter().flat_map(|slot| &slot.addresses);
        Ok(addresses.map(|prefix| prefix.address).collect())
    }

    /// These are not this host's any more.
    pub(super) fn forget(&self, slots: &[Slot]) -> Result<(), Status> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn as_many_are_kept_as_were_given_in_a_second_and_who_leases_hears_when_there_are_fewer() {
        let demand = Demand::default();
        let is_short =
            async || tokio::time::timeout(Duration::from_millis(1), demand.is_short.notified()).await.is_ok();
        (0..5).for_each(|_| demand.given(LOW));
        assert_eq!((demand.low(), is_short().await), (LOW, false));
        demand.given(LOW - 1);
        assert!(is_short().await);
        (0..20).for_each(|_| demand.given(MAX_LOW));
        assert_eq!((demand.low(), is_short().await), (26, false));
        demand.look();
        demand.given(25);
        assert_eq!((demand.low(), is_short().await), (26, true), "the second before counts, too");
        demand.look();
        demand.look();
        assert_eq!(demand.low(), LOW);
        (0..1000).for_each(|_| demand.given(MAX_LOW));
        assert_eq!(demand.low(), MAX_LOW);
    }
}
