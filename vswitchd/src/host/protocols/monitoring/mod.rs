//! What collectors are told of a bridge: packets and counters by sFlow (`sflow.rs`), flows by
//! NetFlow and IPFIX (`flows.rs`). All of it goes by UDP (`sender.rs`).
//!
//! Where all packets of flows are counted, the caches' own counters do it
//! ([`flowtable::account`]): they are read every second. What is sampled comes packet by packet.

mod flows;
mod sender;
mod sflow;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use dataplane::PortStatus;
use flowtable::{account::Accounts, flow::Sample, switch::Sampled, types::Timestamp};

use self::{
    flows::{Ipfix, Netflow},
    sflow::Sflow,
};
use super::settings::BridgeSettings;

/// Collectors that rules cannot mean: those of the bridge.
const SFLOW: u32 = u32::MAX;
const IPFIX: u32 = u32::MAX - 1;
/// How often flows are looked at.
const SWEEP: Duration = Duration::from_secs(1);

/// What one kind of collectors is told, for dumps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExportStatus {
    /// `netflow`, `ipfix`, or a set that rules sample for.
    pub kind: ExportKind,
    /// Flows that are gathered.
    pub n_flows: u64,
    /// Datagrams that could not be sent.
    pub n_lost: u64,
    /// Packets of flows that there was no room to count.
    pub n_uncounted: u64,
}

/// Kinds of collectors of flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportKind {
    /// Of NetFlow.
    Netflow,
    /// Of IPFIX, of all that ports receive.
    Ipfix,
    /// Of IPFIX, of what rules sample for this set.
    IpfixSet(u32),
}

/// Who tells collectors of a bridge.
#[derive(Debug, Default)]
pub(super) struct Monitoring {
    settings: BridgeSettings,
    sflow: Option<Sflow>,
    netflow: Option<Netflow>,
    ipfix: Option<Ipfix>,
    sets: BTreeMap<u32, Ipfix>,
    accounts: Option<Arc<Accounts>>,
    swept: Timestamp,
}

impl Monitoring {
    /// Takes over what it is told; what is told the same goes on.
    pub(super) fn set_settings(&mut self, settings: &BridgeSettings, now: Timestamp) {
        // What was counted until now was so by what was told until now.
        self.sweep(now);
        let old = std::mem::replace(&mut self.settings, settings.clone());
        let since_1970 = since_1970();
        if old.sflow != settings.sflow {
            self.sflow.iter_mut().for_each(|old| old.send(now));
            self.sflow = (!settings.sflow.targets.is_empty()).then(|| Sflow::new(&settings.sflow, now));
        }
        if old.netflow != settings.netflow {
            self.netflow.iter_mut().for_each(|old| old.tell(now, since_1970, true));
            self.netflow = (!settings.netflow.targets.is_empty()).then(|| Netflow::new(&settings.netflow));
        }
        let (before, ipfix) = (&old.ipfix, &settings.ipfix);
        if (before.as_set(), before.sampling) != (ipfix.as_set(), ipfix.sampling) {
            self.ipfix.iter_mut().for_each(|old| old.tell(now, since_1970, true));
            self.ipfix = (!ipfix.targets.is_empty()).then(|| Ipfix::new(&ipfix.as_set()));
            if let (Some(all), 1) = (&mut self.ipfix, ipfix.sampling) {
                all.set_probability(1.0);
            }
        }
        for (id, set) in &mut self.sets {
            if before.sets.get(id) != ipfix.sets.get(id) {
                set.tell(now, since_1970, true);
            }
        }
        self.sets.retain(|id, _| before.sets.get(id) == ipfix.sets.get(id));
        for (id, set) in &ipfix.sets {
            self.sets.entry(*id).or_insert_with(|| Ipfix::new(set));
        }
        self.open_accounts(now);
    }

    /// Has flows counted one by one, where somebody wants all of them.
    fn open_accounts(&mut self, now: Timestamp) {
        let counts_all = self.ipfix.is_some() && self.settings.ipfix.sampling == 1;
        let of_ipfix = counts_all.then_some(self.settings.ipfix.max_flows);
        let of_netflow = self.netflow.as_ref().map(|_| self.settings.netflow.max_flows);
        let wanted = of_ipfix.max(of_netflow).map(|max_flows| (max_flows, !counts_all));
        let is_same = self.accounts.as_ref().map(|accounts| accounts.limits()) == wanted;
        if !is_same {
            self.swept = now;
            self.accounts =
                wanted.map(|(max_flows, only_ipv4)| Arc::new(Accounts::new(max_flows, only_ipv4)));
        }
    }

    /// There is something to do from time to time.
    pub(super) fn is_on(&self) -> bool {
        self.sflow.is_some() || self.netflow.is_some() || self.ipfix.is_some() || !self.sets.is_empty()
    }

    /// Which packets are shown.
    pub(super) fn sampling(&self) -> Vec<Sample> {
        let of_ipfix = self.ipfix.as_ref().filter(|_| self.settings.ipfix.sampling > 1).map(|_| Sample {
            probability: (u16::MAX / self.settings.ipfix.sampling).max(1),
            collector_set: IPFIX,
            obs_domain: self.settings.ipfix.domain,
            obs_point: self.settings.ipfix.point,
            ..Sample::default()
        });
        self.sflow.as_ref().map(Sflow::sampling).into_iter().chain(of_ipfix).collect()
    }

    /// Where flows are counted one by one.
    pub(super) fn accounts(&self) -> Option<&Arc<Accounts>> {
        self.accounts.as_ref()
    }

    /// A packet; `true`: it was for the bridge's own collectors, and nobody else.
    pub(super) fn show(&mut self, now: Timestamp, sampled: &Sampled) -> bool {
        match sampled.sample.collector_set {
            SFLOW => self.sflow.as_mut().is_some_and(|sflow| sflow.show(now, sampled)),
            IPFIX => {
                self.ipfix.iter_mut().for_each(|ipfix| ipfix.show(now, sampled));
                self.ipfix.is_some()
            }
            set => {
                self.sets.get_mut(&set).into_iter().for_each(|ipfix| ipfix.show(now, sampled));
                false
            }
        }
    }

    /// Flows are to be looked at now: what caches have counted is to be brought up to date first.
    pub(super) fn is_sweep_due(&self, now: Timestamp) -> bool {
        let has_flows = self.netflow.is_some() || self.ipfix.is_some() || !self.sets.is_empty();
        has_flows && now.since(self.swept) >= SWEEP
    }

    /// Tells what it is time for.
    pub(super) fn tick<'a>(&mut self, now: Timestamp, ports: impl Iterator<Item = &'a PortStatus>) {
        if let Some(sflow) = &mut self.sflow {
            sflow.tick(now, ports);
        }
        if self.is_sweep_due(now) {
            self.sweep(now);
            self.tell(now, false);
        }
    }

    /// Tells all that is still to be told.
    pub(super) fn end(&mut self, now: Timestamp) {
        self.sflow.iter_mut().for_each(|sflow| sflow.send(now));
        self.sweep(now);
        self.tell(now, true);
    }

    fn sweep(&mut self, now: Timestamp) {
        let from = std::mem::replace(&mut self.swept, now);
        let place = (self.settings.ipfix.domain, self.settings.ipfix.point);
        let ipfix = self.ipfix.as_mut().filter(|_| self.settings.ipfix.sampling == 1);
        let (netflow, mut ipfix) = (&mut self.netflow, ipfix);
        for counted in self.accounts.iter().flat_map(|accounts| accounts.take()) {
            netflow.iter_mut().for_each(|netflow| netflow.add(from, &counted));
            ipfix.iter_mut().for_each(|ipfix| ipfix.add(from, &counted, place));
        }
    }

    fn tell(&mut self, now: Timestamp, is_last: bool) {
        let since_1970 = since_1970();
        self.netflow.iter_mut().for_each(|netflow| netflow.tell(now, since_1970, is_last));
        let all = self.ipfix.iter_mut().chain(self.sets.values_mut());
        all.for_each(|ipfix| ipfix.tell(now, since_1970, is_last));
    }

    /// What collectors of flows are told.
    pub(super) fn exports(&self) -> Vec<ExportStatus> {
        let rest = self.accounts.as_ref().map_or(0, |accounts| accounts.rest().0);
        let status =
            |kind, (n_flows, n_lost), n_uncounted| ExportStatus { kind, n_flows, n_lost, n_uncounted };
        let netflow = self.netflow.iter().map(|one| status(ExportKind::Netflow, one.counters(), rest));
        let of_all = if self.settings.ipfix.sampling == 1 { rest } else { 0 };
        let ipfix = self.ipfix.iter().map(|one| status(ExportKind::Ipfix, one.counters(), of_all));
        let sets = self.sets.iter().map(|(id, one)| status(ExportKind::IpfixSet(*id), one.counters(), 0));
        netflow.chain(ipfix).chain(sets).collect()
    }
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
