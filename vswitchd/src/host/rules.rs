//! From the network to the tables: what a change of it becomes is one transaction. When the
//! tables are not what they should be, they are compared as a whole and put right.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use flowtable::{
    flow::{Match, Rule},
    program::TunnelKind,
    set::NamedSet,
    table::{Change, GroupChange, MeterChange, SetChange, Tables},
    types::{Priority, TableId},
};
use ovn_northd_lite::{Learned, LocalPorts, Lowered, SouthboundDelta, diff, southbound::Southbound};

use super::{Host, neighbours, sampling};

type RuleKey<'a> = (TableId, Priority, &'a Match);

impl Host {
    /// Follows a change of the network, or of the ports alone, with the tables, unless rules
    /// are written by hand here; the caller publishes them.
    pub(super) fn lower(&mut self, delta: SouthboundDelta) {
        if self.is_handmade {
            return;
        }
        let zones = self.lowering.zones_version();
        let has_collectors = sampling::is_about_collectors(&delta);
        let may_lose_neighbours = !delta.removed.datapaths.is_empty();
        let news = self.lowering.update(delta, self.local_ports());
        self.errors = self.lowering.errors().map(ToString::to_string).collect();
        self.follow_shaping();
        self.follow_zone_limits();
        if has_collectors {
            self.follow_collectors();
        }
        if self.lowering.zones_version() != zones {
            // Before packets see them: connections must be found again after a restart.
            if let Err(error) = self.state.save_zones(&self.lowering.zones()) {
                tracing::error!(%error, "the zones of connections would not outlive this process");
            }
        }
        let datapaths = &self.lowering.view().datapaths;
        let is_kept = |neighbour: &Learned| datapaths.contains_key(&neighbour.datapath);
        let gone = if may_lose_neighbours { self.neighbours.retain(is_kept) } else { Vec::new() };
        gone.iter().for_each(|neighbour| self.responder.drop_neighbour(*neighbour));
        if self.is_adrift || self.first().tables.is_empty() {
            return self.realign();
        }
        let gone = gone.iter().flat_map(neighbours::without);
        let changes: Vec<_> = news.changes().into_iter().chain(gone).collect();
        if !changes.is_empty() {
            self.is_adrift = !self.transact(changes);
        }
    }

    /// Makes the tables what the network became, whatever they are.
    pub(super) fn realign(&mut self) {
        let mut lowered = self.lowering.lowered();
        lowered.rules.extend(self.neighbours.rules());
        self.is_adrift = !self.transact(changes(&self.first().tables, &lowered));
    }

    /// Whether the tables are what the whole network becomes when it is lowered at once. It is where
    /// nothing is wrong.
    ///
    /// # Cost
    /// That of the whole network.
    pub fn is_as_lowered_at_once(&self) -> bool {
        let mut afresh = self.lowering.emptied();
        afresh.update(diff(&Southbound::default(), self.lowering.view()), self.local_ports());
        let mut lowered = afresh.lowered();
        lowered.rules.extend(self.neighbours.rules());
        changes(&self.first().tables, &lowered).is_empty()
    }

    /// Changes the tables as a whole; false when they refuse it.
    pub(super) fn transact(&mut self, changes: Vec<Change>) -> bool {
        match self.first().tables.transact(changes) {
            Ok(tables) => {
                self.first_mut().tables = Arc::new(tables);
                true
            }
            Err(error) => {
                // A rule that the tables refuse is a bug of the compiler. The old rules
                // stay as a whole; the receipt says that the change is not in force.
                tracing::error!(%error, "the rules are refused as a whole");
                self.errors.push(format!("the rules are refused as a whole: {error}"));
                false
            }
        }
    }

    pub(super) fn local_ports(&self) -> LocalPorts {
        let attached = || self.ports.values().filter(|port| port.is_attached());
        let named = attached().filter(|port| !port.logical_port.is_empty());
        let networks = attached().filter(|port| !port.network.is_empty());
        LocalPorts {
            chassis: self.identity.chassis.clone(),
            ports: named.map(|port| (port.logical_port.clone(), port.port)).collect(),
            networks: networks.map(|port| (port.network.clone(), port.port)).collect(),
            down: self.gateways.down.clone(),
            activated: self.activated.clone(),
            tunnel: self.tunnel(TunnelKind::Geneve),
            vxlan: self.tunnel(TunnelKind::Vxlan),
        }
    }
}

/// Changes that turn the tables into what a view became: what rules refer to comes before
/// them, and goes after them.
fn changes(tables: &Tables, wanted: &Lowered) -> Vec<Change> {
    let mut changes = Vec::new();
    for meter in &wanted.meters {
        if tables.meter(meter.id).is_none_or(|old| old.config() != meter) {
            changes.push(Change::Meter(MeterChange::Set(meter.clone())));
        }
    }
    for set in &wanted.sets {
        changes.extend(set_changes(tables, set));
    }
    for group in &wanted.groups {
        let is_there = tables.group(group.id).is_some_and(|old| **old == *group);
        if !is_there {
            changes.push(Change::Group(GroupChange::Set(group.clone())));
        }
    }
    let differing = differences(tables, &wanted.rules).into_iter();
    changes.extend(differing.filter(|change| !is_of_learned(tables, change)));
    let sets: HashSet<_> = wanted.sets.iter().map(NamedSet::name).collect();
    let gone = tables.sets().iter().map(|set| set.name()).filter(|name| !sets.contains(name));
    changes.extend(gone.map(|name| Change::Set(SetChange::Delete(name.clone()))));
    let groups: HashSet<_> = wanted.groups.iter().map(|group| group.id).collect();
    let gone = tables.groups().map(|group| group.id).filter(|id| !groups.contains(id));
    changes.extend(gone.map(|id| Change::Group(GroupChange::Delete(id))));
    let meters: HashSet<_> = wanted.meters.iter().map(|meter| meter.id).collect();
    let gone = tables.meters().map(|meter| meter.config().id).filter(|id| !meters.contains(id));
    changes.extend(gone.map(|id| Change::Meter(MeterChange::Delete(id))));
    changes
}

/// It deletes a rule that packets have made, which goes by its timeout.
fn is_of_learned(tables: &Tables, change: &Change) -> bool {
    let Change::DeleteStrict { table, priority, matching } = change else { return false };
    tables.get(*table, *priority, matching).is_some_and(|rule| rule.is_mortal())
}

/// Changes that give a set its members: only those that differ are touched.
fn set_changes(tables: &Tables, wanted: &NamedSet) -> Vec<Change> {
    let (name, kind) = (wanted.name(), wanted.kind());
    let Some(old) = tables.set(name) else {
        return vec![Change::Set(SetChange::Add(wanted.clone()))];
    };
    let added: Vec<_> = wanted.members().filter(|member| !old.has_member(*member)).collect();
    let removed: Vec<_> = old.members().filter(|member| !wanted.has_member(*member)).collect();
    let mut changes = Vec::new();
    if !added.is_empty() {
        changes.push(SetChange::Insert { set: name.clone(), kind, members: added });
    }
    if !removed.is_empty() {
        changes.push(SetChange::Remove { set: name.clone(), kind, members: removed });
    }
    changes.into_iter().map(Change::Set).collect()
}

/// Changes that turn the tables into these rules. Rules that stay keep their statistics.
pub(super) fn differences(tables: &Tables, wanted: &[Rule]) -> Vec<Change> {
    let mut present: HashMap<RuleKey<'_>, &Rule> =
        tables.rules().map(|rule| ((rule.table, rule.priority, &rule.matching), &**rule)).collect();
    let mut changes = Vec::new();
    for rule in wanted {
        match present.remove(&(rule.table, rule.priority, &rule.matching)) {
            Some(old) if is_same(old, rule) => {}
            Some(old) => changes.push(Change::Add(Rule { stats: Arc::clone(&old.stats), ..rule.clone() })),
            None => changes.push(Change::Add(rule.clone())),
        }
    }
    let gone = present.into_values().map(|rule| Change::DeleteStrict {
        table: rule.table,
        priority: rule.priority,
        matching: rule.matching.clone(),
    });
    changes.extend(gone);
    changes
}

fn is_same(old: &Rule, new: &Rule) -> bool {
    old.actions == new.actions && old.cookie == new.cookie && old.origin == new.origin && old.life == new.life
}

#[cfg(test)]
mod tests {
    use flowtable::{
        field::Field,
        flow::{Action, Origin, RuleStats},
        types::PortNo,
    };

    use super::*;

    fn rule(dst: u128, port: u32) -> Rule {
        Rule {
            table: TableId::new(0).unwrap(),
            priority: Priority::new(1).unwrap(),
            matching: Match::any().with(Field::EthDst, dst),
            actions: vec![Action::Output(PortNo::new(port).unwrap())],
            cookie: 0,
            origin: Arc::new(Origin::default()),
            life: Default::default(),
            stats: Arc::new(RuleStats::default()),
        }
    }

    #[test]
    fn only_what_differs_is_changed_and_statistics_stay() {
        let first =
            Tables::default().transact(differences(&Tables::default(), &[rule(1, 1), rule(2, 2)])).unwrap();
        first.rules().for_each(|rule| rule.stats.add(1, 60));
        let steps = differences(&first, &[rule(2, 2), rule(3, 3)]);
        assert_eq!(steps.len(), 2);
        let second = first.transact(steps).unwrap();
        let mut seen: Vec<_> =
            second.rules().map(|r| (r.matching.get(Field::EthDst).0, r.stats.get().0)).collect();
        seen.sort_unstable();
        assert_eq!(seen, [(2, 1), (3, 0)]);
        assert!(differences(&second, &[rule(3, 3), rule(2, 2)]).is_empty());
    }
}
