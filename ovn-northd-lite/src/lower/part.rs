//! What one datapath becomes: rules, groups and sets that no other datapath has a hand in.

use std::collections::{BTreeMap, BTreeSet};

use flowtable::{
    flow::{Match, Rule},
    group::Group,
    meter::MeterConfig,
    set::SetName,
    types::{GroupId, MeterId, Priority, TableId},
};

use super::{
    Context, Index, LocalPorts, LowerError, gateway, logical::FlowRules, memory::FlowPlace, neighbours,
    physical, rules::RuleSet, sets::SetSource, tunnel,
};
use crate::{build::whole::ids, key::DatapathKey};

/// Where a rule is, in the order of the tables.
pub(super) type RuleKey = (TableId, std::cmp::Reverse<Priority>, Match);

/// What a datapath, or what is everybody's, became.
#[derive(Debug, Clone, Default)]
pub(super) struct Part {
    pub(super) rules: BTreeMap<RuleKey, Rule>,
    pub(super) groups: BTreeMap<GroupId, Group>,
    /// Meters that its flows have for themselves.
    pub(super) meters: BTreeMap<MeterId, MeterConfig>,
    pub(super) errors: Vec<LowerError>,
    /// Sets that its rules name.
    pub(super) sets: BTreeMap<SetName, SetSource>,
    /// Its flows, as they were lowered.
    pub(super) flows: BTreeMap<u64, FlowRules>,
    /// Ports that it depends on being on this chassis, and whether they are.
    pub(super) residents: BTreeMap<String, bool>,
}

impl Part {
    /// What belongs to no datapath.
    pub(super) fn common(index: &Index, local: &LocalPorts) -> Self {
        let mut rules = RuleSet::default();
        physical::defaults(&mut rules);
        neighbours::build(&mut rules);
        tunnel::defaults(&mut rules);
        gateway::common((index, local), &mut rules);
        rules.finish()
    }

    /// A datapath. Of flows that are as before and mean the same, the rules are `before`'s.
    pub(super) fn of(context: &Context<'_>, datapath: DatapathKey, before: &mut Self) -> Self {
        let mut rules = RuleSet::default();
        physical::build(context, datapath, &mut rules);
        tunnel::build(context, datapath, &mut rules);
        gateway::build(context, datapath, &mut rules);
        let mut residents = gateway::asked(context, datapath);
        let mut flows = BTreeMap::new();
        let mut sets = BTreeMap::new();
        for (id, flow) in context.view.flows.range(ids(datapath)) {
            let old = before.flows.remove(id).filter(|old| old.is_still(context, flow));
            let lowered = old.unwrap_or_else(|| FlowRules::of(context, *id, flow));
            rules.extend(&lowered);
            sets.extend(lowered.sets.clone());
            residents.extend(lowered.residents.clone());
            flows.insert(*id, lowered);
        }
        let lowered = rules.finish();
        Self { flows, sets, residents, ..lowered }
    }

    /// The members of a set are in its rules.
    pub(super) fn has_odd_set(&self, name: &str) -> bool {
        self.flows.values().any(|flow| flow.has_odd_set(name))
    }

    /// Numbers that its flows have.
    pub(super) fn numbers(&self) -> (BTreeSet<&FlowPlace>, BTreeSet<(u64, usize)>) {
        let places = self.flows.values().filter_map(|flow| flow.place.as_ref());
        let conjunctions =
            self.flows.iter().flat_map(|(id, flow)| (0..flow.n_conjunctions).map(|n| (*id, n)));
        (places.collect(), conjunctions.collect())
    }
}
