//! Changes as they are written, and the tables as a text of such changes.

use flowtable::{
    group::Group,
    port::PortTable,
    table::{Change, FragmentMode, GroupChange, MeterChange, TableSettings, Tables},
    text::{
        ChangeKind, SetChangeKind, TextError, parse_change, parse_deleted_groups, parse_deleted_meters,
        parse_fragment_mode, parse_group, parse_inserted_buckets, parse_meter, parse_removed_buckets,
        parse_set_change, parse_table_settings, print_flow, print_group, print_meter, print_set,
        print_table_settings,
    },
    types::{GroupId, TableId},
};

use super::ChangeError;

/// What a text asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Something about rules.
    Flow(ChangeKind),
    /// Something about a named set.
    Set(SetChangeKind),
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
    /// How a table is run.
    Table,
    /// How rules see fragments.
    Fragments,
}

/// A change as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenChange {
    /// What is to be done.
    pub verb: Verb,
    /// To what, in the syntax of ovs-ofctl.
    pub text: String,
}

/// The lines of a saved text, by their first word.
const SAVED: [(&str, Verb); 6] = [
    ("flow", Verb::Flow(ChangeKind::Add)),
    ("group", Verb::AddGroup),
    ("meter", Verb::AddMeter),
    ("set", Verb::Set(SetChangeKind::Add)),
    ("table", Verb::Table),
    ("frags", Verb::Fragments),
];

/// What is referred to comes before what refers to it, a line each.
pub(super) fn print_tables(tables: &Tables) -> String {
    let fragments = (tables.fragments() != FragmentMode::default())
        .then(|| format!("frags {}\n", tables.fragments().name()));
    let all = (0..=u8::MAX).filter_map(|raw| TableId::new(raw).ok());
    let usual = TableSettings::default();
    let settings = all.filter(|table| *tables.settings(*table) != usual);
    let settings =
        settings.map(|table| format!("table {}\n", print_table_settings(table, tables.settings(table))));
    let sets = tables.sets().iter().map(|set| format!("set {}\n", print_set(set)));
    let meters = tables.meters().map(|meter| format!("meter {}\n", print_meter(meter.config())));
    let groups = tables.groups_bottom_up().into_iter().map(|group| format!("group {}\n", print_group(group)));
    let rules = tables.rules().map(|rule| format!("flow {}\n", print_flow(rule)));
    fragments.into_iter().chain(settings).chain(sets).chain(meters).chain(groups).chain(rules).collect()
}

/// A line of a saved text.
pub(super) fn saved_line(line: &str) -> WrittenChange {
    let found = line.split_once(' ').and_then(|(word, text)| {
        let known = SAVED.iter().find(|(known, _)| *known == word)?;
        Some((known.1, text))
    });
    let (verb, text) = found.unwrap_or((Verb::Flow(ChangeKind::Add), line));
    WrittenChange { verb, text: text.to_owned() }
}

/// Reads changes for these tables.
pub(super) fn parse(
    written: &[WrittenChange],
    ports: &PortTable,
    tables: &Tables,
) -> Result<Vec<Change>, ChangeError> {
    let mut changes = Vec::with_capacity(written.len());
    for (index, WrittenChange { verb, text }) in written.iter().enumerate() {
        let change = parse_one(*verb, text, ports, (tables, &changes));
        changes.push(change.map_err(|error| ChangeError::Text { index, error })?);
    }
    Ok(changes)
}

fn parse_one(
    verb: Verb,
    text: &str,
    ports: &PortTable,
    (tables, before): (&Tables, &[Change]),
) -> Result<Change, TextError> {
    let group = |id| group_then(id, tables, before);
    let settings = |table| settings_then(table, tables, before);
    Ok(match verb {
        Verb::Flow(kind) => parse_change(kind, text, ports)?,
        Verb::Set(kind) => Change::Set(parse_set_change(kind, text)?),
        Verb::AddGroup => Change::Group(GroupChange::Add(parse_group(text, ports)?)),
        Verb::ModifyGroup => Change::Group(GroupChange::Modify(parse_group(text, ports)?)),
        Verb::SetGroup => Change::Group(GroupChange::Set(parse_group(text, ports)?)),
        Verb::DeleteGroup => Change::Group(parse_deleted_groups(text, ports)?),
        Verb::InsertBuckets => Change::Group(parse_inserted_buckets(text, ports, group)?),
        Verb::RemoveBuckets => Change::Group(parse_removed_buckets(text, ports)?),
        Verb::AddMeter => Change::Meter(MeterChange::Add(parse_meter(text)?)),
        Verb::ModifyMeter => Change::Meter(MeterChange::Modify(parse_meter(text)?)),
        Verb::DeleteMeter => Change::Meter(parse_deleted_meters(text)?),
        Verb::Table => {
            let (table, settings) = parse_table_settings(text, settings)?;
            Change::Table(table, settings)
        }
        Verb::Fragments => Change::Fragments(parse_fragment_mode(text)?),
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

/// How a table is run when these changes have been made.
fn settings_then(table: TableId, tables: &Tables, changes: &[Change]) -> TableSettings {
    let last = changes.iter().rev().find_map(|change| match change {
        Change::Table(changed, settings) if *changed == table => Some(settings),
        _ => None,
    });
    last.unwrap_or_else(|| tables.settings(table)).clone()
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
            (Verb::Set(SetChangeKind::Add), "hosts type=ipv4 10.0.0.1,10.1.0.0/16"),
            (Verb::Table, "table=2,name=last,max_rules=9"),
            (Verb::Table, "table=2,miss=controller"),
            (Verb::Fragments, "nx-match"),
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
        assert!(text.contains("table table=2,name=last,miss=controller,max_rules=9"), "{text}");
    }

    #[test]
    fn the_wrong_change_is_named() {
        let lines = [(Verb::DeleteMeter, "all"), (Verb::AddGroup, "group_id=1,tpye=all")];
        let error = parse(&written(&lines), &PortTable::default(), &Tables::default()).unwrap_err();
        assert_eq!(error.to_string(), "change 2: character 12: a group has no `tpye`; did you mean `type`?");
    }
}
