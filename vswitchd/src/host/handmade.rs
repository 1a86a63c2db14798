//! Rules written by hand: changes come as text, take place in one transaction, and are
//! saved before they do.
//!
//! What ends by itself, by a timeout, is saved a little later with the housekeeping: a
//! restart may bring back what ended in the last moment, and it ends again.

use std::sync::Arc;

use flowtable::{
    group::Group,
    port::PortTable,
    table::{Change, GroupChange, MeterChange, Tables, TransactionError},
    text::{
        ChangeKind, TextError, parse_change, parse_deleted_groups, parse_deleted_meters, parse_group,
        parse_inserted_buckets, parse_meter, parse_removed_buckets, print_flow, print_group, print_meter,
    },
    types::{Epoch, GroupId},
};

use super::{Host, rules::differences};
use crate::state::StateError;

/// What a text asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Something about rules.
    Flow(ChangeKind),
    /// A new group.
    AddGroup,
    /// Another content for a group.
    ModifyGroup,
    /// A group, whether it is there or not.
    SetGroup,
    /// No such group, or none at all.
    DeleteGroup,
    /// More buckets.
    InsertBuckets,
    /// Fewer buckets.
    RemoveBuckets,
    /// A new meter.
    AddMeter,
    /// Another content for a meter.
    ModifyMeter,
    /// No such meter, or none at all.
    DeleteMeter,
}

/// A change as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenChange {
    /// What is to be done.
    pub verb: Verb,
    /// To what, in the syntax of ovs-ofctl.
    pub text: String,
}

/// A change by hand failed; then nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// Rules are made from the logical network.
    #[error(
        "this vswitchd makes its rules from the logical network, and by nothing else; rules are written by hand with vswitchd --standalone, or, without interfaces, vswitchd --virtual"
    )]
    NotByHand,
    /// A change is not understood.
    #[error("change {}: {error}", .index + 1)]
    Text {
        /// Which one, from 0.
        index: usize,
        /// What is wrong.
        error: TextError,
    },
    /// Something else than rules is to be replaced.
    #[error("change {}: only rules are replaced; groups and meters are changed with `group` and `meter`, or with all in one `bundle`", .index + 1)]
    NotARule {
        /// Which one, from 0.
        index: usize,
    },
    /// The tables refuse a change.
    #[error("{0}")]
    Refused(#[from] TransactionError),
    /// The change could not be saved.
    #[error("{0}")]
    State(#[from] StateError),
}

impl Host {
    /// Changes rules, groups and meters in one transaction: all of it or nothing. With
    /// `replace` the rules that are there go first, but one that stays the same keeps its
    /// statistics.
    ///
    /// # Errors
    /// Names the first change that is wrong, and why.
    pub fn change_rules(&mut self, written: &[WrittenChange], replace: bool) -> Result<Epoch, ChangeError> {
        if !self.is_handmade {
            return Err(ChangeError::NotByHand);
        }
        let is_rule = |change: &WrittenChange| matches!(change.verb, Verb::Flow(_));
        if let Some(index) = written.iter().position(|change| !is_rule(change)).filter(|_| replace) {
            return Err(ChangeError::NotARule { index });
        }
        let now = self.dataplane.now();
        self.expire_rules();
        let changes = parse(written, &self.port_table, &self.tables)?;
        let commit = if replace {
            // The first change, so that the others are counted from 1, as the caller does.
            let changes = [Change::Clear].into_iter().chain(changes).collect();
            let wanted = self.tables.commit(changes, now)?.tables;
            let wanted: Vec<_> = wanted.rules().map(|rule| (**rule).clone()).collect();
            self.tables.commit(differences(&self.tables, &wanted), now)?
        } else {
            let counted = |error: TransactionError| TransactionError { change: error.change + 1, ..error };
            self.tables.commit(changes, now).map_err(counted)?
        };
        self.state.save_rules(&print_tables(&commit.tables))?;
        self.is_unsaved = false;
        self.tables = Arc::new(commit.tables);
        self.publish();
        Ok(self.epoch)
    }

    /// Takes out the rules whose time has come, and saves what has changed by itself.
    pub fn tend_rules(&mut self) {
        self.expire_rules();
        if self.is_unsaved && self.is_handmade {
            match self.state.save_rules(&print_tables(&self.tables)) {
                Ok(()) => self.is_unsaved = false,
                Err(error) => {
                    tracing::error!(%error, "rules that have expired would be back after a restart");
                }
            }
        }
    }

    /// Takes out the rules whose time has come.
    pub(super) fn expire_rules(&mut self) {
        let now = self.dataplane.now();
        // By what the rules know; a later use only makes it later.
        if !self.is_handmade || self.tables.next_expiry().is_none_or(|end| end > now) {
            return;
        }
        // When a rule was last used is what the caches have told.
        self.dataplane.flush_stats();
        if let Some(commit) = self.tables.expire(now) {
            self.is_unsaved = true;
            self.tables = Arc::new(commit.tables);
            self.publish();
        }
    }

    /// Takes the rules of the last run; rules that this version does not understand are
    /// told of, and then there are none.
    pub(super) fn restore_rules(&mut self) {
        let Some(text) = self.state.rules() else { return };
        let lines: Vec<_> = text.lines().map(saved_line).collect();
        if let Err(error) = self.change_rules(&lines, false) {
            tracing::error!(%error, "the rules of the last run are not taken");
            self.errors.push(format!("the rules of the last run are not taken: {error}"));
        }
    }
}

/// Meters and groups before what refers to them, a line each.
fn print_tables(tables: &Tables) -> String {
    let meters = tables.meters().map(|meter| format!("meter {}\n", print_meter(meter.config())));
    let groups = tables.groups_bottom_up().into_iter().map(|group| format!("group {}\n", print_group(group)));
    let rules = tables.rules().map(|rule| format!("flow {}\n", print_flow(rule)));
    meters.chain(groups).chain(rules).collect()
}

fn saved_line(line: &str) -> WrittenChange {
    let (verb, text) = match line.split_once(' ') {
        Some(("meter", text)) => (Verb::AddMeter, text),
        Some(("group", text)) => (Verb::AddGroup, text),
        Some(("flow", text)) => (Verb::Flow(ChangeKind::Add), text),
        _ => (Verb::Flow(ChangeKind::Add), line),
    };
    WrittenChange { verb, text: text.to_owned() }
}

fn parse(written: &[WrittenChange], ports: &PortTable, tables: &Tables) -> Result<Vec<Change>, ChangeError> {
    let mut changes = Vec::with_capacity(written.len());
    for (index, WrittenChange { verb, text }) in written.iter().enumerate() {
        let change = parse_one(*verb, text, ports, |id| group_then(id, tables, &changes));
        changes.push(change.map_err(|error| ChangeError::Text { index, error })?);
    }
    Ok(changes)
}

fn parse_one(
    verb: Verb,
    text: &str,
    ports: &PortTable,
    group: impl FnOnce(GroupId) -> Option<Group>,
) -> Result<Change, TextError> {
    Ok(match verb {
        Verb::Flow(kind) => parse_change(kind, text, ports)?,
        Verb::AddGroup => Change::Group(GroupChange::Add(parse_group(text, ports)?)),
        Verb::ModifyGroup => Change::Group(GroupChange::Modify(parse_group(text, ports)?)),
        Verb::SetGroup => Change::Group(GroupChange::Set(parse_group(text, ports)?)),
        Verb::DeleteGroup => Change::Group(parse_deleted_groups(text, ports)?),
        Verb::InsertBuckets => Change::Group(parse_inserted_buckets(text, ports, group)?),
        Verb::RemoveBuckets => Change::Group(parse_removed_buckets(text, ports)?),
        Verb::AddMeter => Change::Meter(MeterChange::Add(parse_meter(text)?)),
        Verb::ModifyMeter => Change::Meter(MeterChange::Modify(parse_meter(text)?)),
        Verb::DeleteMeter => Change::Meter(parse_deleted_meters(text)?),
    })
}

/// A group as it is when these changes have been made, as far as its buckets' numbers go:
/// those that were removed count as taken.
fn group_then(id: GroupId, tables: &Tables, changes: &[Change]) -> Option<Group> {
    let mut group = tables.group(id).map(|group| (**group).clone());
    for change in changes {
        match change {
            Change::Group(GroupChange::Add(new) | GroupChange::Modify(new) | GroupChange::Set(new))
                if new.id == id =>
            {
                group = Some(new.clone());
            }
            Change::Group(GroupChange::InsertBuckets { group: into, buckets, .. }) if *into == id => {
                if let Some(group) = &mut group {
                    group.buckets.extend(buckets.iter().cloned());
                }
            }
            _ => {}
        }
    }
    group
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(lines: &[(Verb, &str)]) -> Vec<WrittenChange> {
        lines.iter().map(|(verb, text)| WrittenChange { verb: *verb, text: (*text).to_owned() }).collect()
    }

    #[test]
    fn what_is_saved_reads_back_in_its_order() {
        let lines = [
            (Verb::AddMeter, "meter=3,kbps,burst,bands=type=drop,rate=100,burst_size=10"),
            (Verb::AddGroup, "group_id=9,type=indirect,bucket=actions=output:2"),
            // Its number is smaller than that of the group it needs.
            (Verb::AddGroup, "group_id=1,type=all,bucket=actions=group:9,bucket=actions=output:1"),
            (Verb::InsertBuckets, "group_id=1,bucket=actions=output:3"),
            (Verb::InsertBuckets, "group_id=1,bucket=actions=output:4"),
            (Verb::Flow(ChangeKind::Add), "table=2,priority=7,ip,idle_timeout=9,actions=meter:3,group:1"),
        ];
        let ports = PortTable::default();
        let changes = parse(&written(&lines), &ports, &Tables::default()).unwrap();
        let tables = Tables::default().transact(changes).unwrap();
        assert_eq!(tables.group(GroupId::new(1).unwrap()).unwrap().buckets.len(), 4);
        let text = print_tables(&tables);
        let lines: Vec<_> = text.lines().map(saved_line).collect();
        let again = Tables::default().transact(parse(&lines, &ports, &Tables::default()).unwrap()).unwrap();
        assert_eq!(again, tables, "{text}");
        assert_eq!(print_tables(&again), text);
    }

    #[test]
    fn the_wrong_change_is_named() {
        let lines = [(Verb::DeleteMeter, "all"), (Verb::AddGroup, "group_id=1,tpye=all")];
        let error = parse(&written(&lines), &PortTable::default(), &Tables::default()).unwrap_err();
        assert_eq!(error.to_string(), "change 2: character 12: a group has no `tpye`; did you mean `type`?");
    }
}
