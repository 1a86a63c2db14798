//! How the rules of a chassis differ from those before.

use std::collections::{BTreeMap, BTreeSet};

use flowtable::{
    flow::Rule,
    group::Group,
    meter::MeterConfig,
    set::{NamedSet, SetName},
    table::{Change, GroupChange, MeterChange, SetChange},
    types::{GroupId, MeterId},
};

/// How the rules of a chassis differ.
#[derive(Debug, Clone, Default)]
pub struct LoweredDelta {
    /// New rules, and those that do something else.
    pub rules: Vec<Rule>,
    /// Rules that are gone.
    pub gone_rules: Vec<Rule>,
    /// New and changed groups.
    pub groups: Vec<Group>,
    /// Groups that are gone.
    pub gone_groups: Vec<GroupId>,
    /// Sets with other members; true: the set is new.
    pub sets: Vec<(bool, NamedSet)>,
    /// Sets that are gone.
    pub gone_sets: Vec<SetName>,
    /// New and changed meters.
    pub meters: Vec<MeterConfig>,
    /// Meters that are gone.
    pub gone_meters: Vec<MeterId>,
}

impl LoweredDelta {
    /// Nothing differs.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
            && self.gone_rules.is_empty()
            && self.groups.is_empty()
            && self.gone_groups.is_empty()
            && self.sets.is_empty()
            && self.gone_sets.is_empty()
            && self.meters.is_empty()
            && self.gone_meters.is_empty()
    }

    /// As changes of the tables: what rules refer to comes before them, and goes after them.
    pub fn changes(self) -> Vec<Change> {
        let set = |set: NamedSet| Change::Set(SetChange::Replace(set));
        // A number that one flow has let go, another may have been given.
        let given: BTreeSet<_> = self.groups.iter().map(|group| group.id).collect();
        let metered: BTreeSet<_> = self.meters.iter().map(|meter| meter.id).collect();
        let mut changes = Vec::new();
        for (is_new, filled) in self.sets {
            changes.push(if is_new { Change::Set(SetChange::Add(filled)) } else { set(filled) });
        }
        changes.extend(self.meters.into_iter().map(|meter| Change::Meter(MeterChange::Set(meter))));
        changes.extend(self.groups.into_iter().map(|group| Change::Group(GroupChange::Set(group))));
        let delete =
            |Rule { table, priority, matching, .. }| Change::DeleteStrict { table, priority, matching };
        changes.extend(self.gone_rules.into_iter().map(delete));
        changes.extend(self.rules.into_iter().map(Change::Add));
        let gone = self.gone_groups.into_iter().filter(|id| !given.contains(id));
        changes.extend(gone.map(|id| Change::Group(GroupChange::Delete(id))));
        changes.extend(self.gone_sets.into_iter().map(|name| Change::Set(SetChange::Delete(name))));
        let gone = self.gone_meters.into_iter().filter(|id| !metered.contains(id));
        changes.extend(gone.map(|id| Change::Meter(MeterChange::Delete(id))));
        changes
    }

    /// Adds how the meters of datapaths differ.
    pub(super) fn meters(
        &mut self,
        old: &BTreeMap<MeterId, MeterConfig>,
        new: &BTreeMap<MeterId, MeterConfig>,
    ) {
        let changed = new.iter().filter(|(id, meter)| old.get(id) != Some(meter));
        self.meters.extend(changed.map(|(_, meter)| meter.clone()));
        self.gone_meters.extend(old.keys().filter(|id| !new.contains_key(id)));
    }
}
