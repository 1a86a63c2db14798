//! What rules are made from, a unit at a time: a port, a group, a flow. A unit's rules depend
//! on few other things; what these are is kept with it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use flowtable::{
    flow::Rule,
    group::Group,
    meter::MeterConfig,
    set::SetName,
    types::{GroupId, MeterId, PortNo},
};

use super::{
    Context, LowerError, gateway, held::RuleKey, logical::FlowRules, memory::FlowPlace, neighbours, physical,
    rules::RuleSet, sets::SetSource, tunnel,
};
use crate::{
    build::whole::datapath_of,
    key::{DatapathKey, PortKey},
};

/// Something that rules are made from. Where two make a rule for one place, the order counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Unit {
    /// What belongs to no datapath.
    Common,
    /// A datapath as such.
    Datapath(DatapathKey),
    /// A port, by its id.
    Port(Arc<str>),
    /// A group.
    Group(DatapathKey, PortKey),
    /// A logical flow, by its id.
    Flow(u64),
}

/// What [`Unit::Common`] depends on: the tunnels, whether there is something that several
/// chassis may have, whether there are patches that workloads take on their own chassis.
pub(super) type CommonInput = ([Option<PortNo>; 2], bool, bool);

/// What a unit becomes.
#[derive(Debug, Default)]
pub(super) struct Output {
    pub(super) rules: Vec<Rule>,
    pub(super) groups: Vec<Group>,
    /// The meter that a flow has for itself.
    pub(super) meter: Option<MeterConfig>,
    pub(super) errors: Vec<LowerError>,
    pub(super) needs: Needs,
}

/// What a unit depends on beside what it is.
#[derive(Debug, Clone, Default)]
pub(super) struct Needs {
    /// Ports of which it matters whether they are on this chassis, and whether they are.
    pub(super) residents: BTreeMap<String, bool>,
    /// Names of ports and groups, with the keys they have.
    pub(super) names: Vec<(String, Option<u16>)>,
    /// The number of its place.
    pub(super) number: Option<(FlowPlace, u32)>,
    pub(super) n_conjunctions: usize,
    /// The switch's sets that its rules name.
    pub(super) sets: BTreeMap<SetName, SetSource>,
    /// Sets whose members are in its rules, and those that it names and there are not.
    pub(super) odd_sets: BTreeSet<String>,
}

/// What a unit has become.
#[derive(Debug, Clone, Default)]
pub(super) struct Made {
    pub(super) places: Vec<RuleKey>,
    pub(super) groups: Vec<GroupId>,
    pub(super) meter: Option<MeterId>,
    pub(super) errors: Vec<LowerError>,
    pub(super) needs: Needs,
}

impl Unit {
    /// A port.
    pub(super) fn port(id: &str) -> Self {
        Self::Port(id.into())
    }

    /// What it becomes; `None`: there is no such unit.
    pub(super) fn make(&self, context: &Context<'_>, common: CommonInput) -> Option<Output> {
        let mut rules = RuleSet::default();
        let is_there = |datapath: DatapathKey| context.view.datapaths.contains_key(&datapath);
        let mut needs = Needs::default();
        match self {
            Self::Common => {
                physical::defaults(&mut rules);
                neighbours::build(&mut rules);
                tunnel::defaults(&mut rules);
                gateway::common(common, &mut rules);
            }
            Self::Datapath(datapath) => {
                if !is_there(*datapath) {
                    return None;
                }
                tunnel::receive(context, &mut rules, *datapath);
            }
            Self::Port(id) => {
                let (id, binding) = context.view.bindings.get_key_value(&**id)?;
                if !is_there(binding.datapath) {
                    return None;
                }
                physical::port(context, &mut rules, id, binding);
                tunnel::port(context, &mut rules, id, binding);
                gateway::port(context, &mut rules, id, binding);
                needs.residents = gateway::asked(context, binding);
            }
            Self::Group(datapath, key) => {
                let group = context.view.groups.get(&(*datapath, *key)).filter(|_| is_there(*datapath))?;
                physical::group(context, &mut rules, *datapath, key.get().into(), group);
                tunnel::group(context, &mut rules, *datapath, key.get().into(), group);
            }
            Self::Flow(id) => {
                let flow = context.view.flows.get(id).filter(|_| datapath_of(*id).is_some_and(is_there))?;
                return Some(FlowRules::of(context, *id, flow).output());
            }
        }
        let (rules, errors) = rules.finish();
        Some(Output { rules, errors, needs, ..Output::default() })
    }
}

impl Needs {
    /// Names of sets, as flows name them.
    pub(super) fn set_names(&self) -> BTreeSet<&String> {
        self.sets.values().map(|source| &source.set).chain(&self.odd_sets).collect()
    }
}
