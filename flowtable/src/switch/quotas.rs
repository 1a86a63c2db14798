//! Where ports' quotas hold: first packets and sessions. Megaflows are limited where they are
//! kept.

use super::{Moment, Switch};
use crate::{
    drop::DropReason,
    key::FlowKey,
    quota::{Quota, QuotaCounters},
    types::PortNo,
};

impl Switch {
    /// Limits what each port may take from now on.
    pub fn set_quota(&mut self, quota: Quota) {
        self.quotas.set(quota);
        self.megaflows.limit_ports(quota.max_megaflows as usize);
    }

    /// What each port may take.
    pub fn quota(&self) -> Quota {
        self.quotas.quota()
    }

    /// What was refused to ports.
    pub fn quota_counters(&self) -> QuotaCounters {
        self.quotas.refused()
    }

    /// Why a packet that no entry was found for is not translated, if it is not. Only what would
    /// be translated counts: an earlier packet of the pass may have made an entry for it.
    pub(super) fn refusal(&mut self, moment: &Moment<'_>, port: PortNo, key: &FlowKey) -> Option<DropReason> {
        if !self.quotas.limits_misses() || self.megaflows.find(port, key).is_some() {
            return None;
        }
        (!self.quotas.admit_miss(port, moment.now)).then_some(DropReason::MissQuota)
    }
}
