//! Changes of meters.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Tables,
    change::{Refusal, Transaction},
    error::RuleError,
    group_change::leads_to,
    life::RemovedReason,
    reference::{Reference, refers_to},
};
use crate::{
    meter::{BandConfig, BandKind, Meter, MeterConfig},
    types::{GroupId, MeterId},
};

/// Bands of a meter: each is looked at for each packet.
pub const MAX_BANDS: usize = 16;

/// All meters of a version.
pub(super) type Meters = BTreeMap<MeterId, Arc<Meter>>;

/// A change of a meter (OpenFlow 1.5 §6.8).
#[derive(Debug, Clone)]
pub enum MeterChange {
    /// Adds a meter; there must be none of its number.
    Add(MeterConfig),
    /// Changes a meter, which must be there. It keeps its statistics and the state of
    /// bands that stay as they are.
    Modify(MeterConfig),
    /// Adds a meter or changes it, whichever it takes.
    Set(MeterConfig),
    /// Deletes a meter, if it is there, and the rules that use it.
    Delete(MeterId),
    /// Deletes all meters and the rules that use one.
    DeleteAll,
}

/// Why a meter may not be there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MeterError {
    /// There is one of this number.
    #[error("meter {0} exists already; modify it instead")]
    Exists(MeterId),
    /// There is none of this number.
    #[error("there is no meter {0}; add it first")]
    Missing(MeterId),
    /// A group uses it.
    #[error("group {0} uses it; change that group first")]
    InUse(GroupId),
    /// Too many.
    #[error("more than {MAX_BANDS} bands")]
    TooManyBands,
    /// Nothing would pass.
    #[error("the rate of a band is at least 1")]
    NoRate,
    /// A burst size that would not be looked at.
    #[error("`burst_size` needs the flag `burst`")]
    BurstWithoutFlag,
    /// The drop precedence has three levels.
    #[error("`prec_level` is 1 or 2, not {0}")]
    WrongLevel(u8),
}

impl Transaction {
    pub(super) fn change_meter(&mut self, change: MeterChange) -> Result<(), Refusal> {
        match change {
            MeterChange::Add(config) if self.next.meters.contains_key(&config.id) => {
                refuse(config.id, MeterError::Exists(config.id))
            }
            MeterChange::Modify(config) if !self.next.meters.contains_key(&config.id) => {
                refuse(config.id, MeterError::Missing(config.id))
            }
            MeterChange::Add(config) | MeterChange::Modify(config) | MeterChange::Set(config) => {
                check(&config).or_else(|error| refuse(config.id, error))?;
                let old = self.next.meters.get(&config.id).map(|old| &**old);
                let (id, meter) = (config.id, Meter::new(config, old, self.now));
                Arc::make_mut(&mut self.next.meters).insert(id, Arc::new(meter));
                Ok(())
            }
            MeterChange::Delete(id) => self.delete_meter(id),
            MeterChange::DeleteAll => {
                let all: Vec<MeterId> = self.next.meters.keys().copied().collect();
                all.into_iter().try_for_each(|id| self.delete_meter(id))
            }
        }
    }

    fn delete_meter(&mut self, id: MeterId) -> Result<(), Refusal> {
        if let Some(user) = self.next.groups.values().find(|group| leads_to(group, Reference::Meter(id))) {
            return refuse(id, MeterError::InUse(user.id));
        }
        if Arc::make_mut(&mut self.next.meters).remove(&id).is_some() {
            self.take_referring(Reference::Meter(id), RemovedReason::MeterDelete);
        }
        Ok(())
    }
}

impl Tables {
    /// The meter with this number.
    pub fn meter(&self, id: MeterId) -> Option<&Arc<Meter>> {
        self.meters.get(&id)
    }

    /// All meters in the order of their numbers.
    pub fn meters(&self) -> impl Iterator<Item = &Arc<Meter>> {
        self.meters.values()
    }

    /// Rules that use a meter.
    ///
    /// # Cost
    /// Looks at each rule.
    pub fn n_rules_of_meter(&self, id: MeterId) -> usize {
        self.rules().filter(|rule| refers_to(&rule.actions, Reference::Meter(id))).count()
    }
}

fn refuse<T>(id: MeterId, error: MeterError) -> Result<T, Refusal> {
    Err(Refusal { what: format!("meter={id}"), reason: RuleError::Meter(error) })
}

fn check(config: &MeterConfig) -> Result<(), MeterError> {
    if config.bands.len() > MAX_BANDS {
        return Err(MeterError::TooManyBands);
    }
    config.bands.iter().try_for_each(|BandConfig { kind, rate, burst_size }| match kind {
        _ if *rate == 0 => Err(MeterError::NoRate),
        _ if *burst_size != 0 && !config.burst => Err(MeterError::BurstWithoutFlag),
        BandKind::DscpRemark(level) if !(1..=2).contains(level) => Err(MeterError::WrongLevel(*level)),
        BandKind::Drop | BandKind::DscpRemark(_) => Ok(()),
    })
}
