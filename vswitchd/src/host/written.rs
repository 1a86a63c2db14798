//! Changes as they are written, and the tables as a text of such changes.

use std::{collections::HashSet, sync::Arc};

use flowtable::{
    flow::{Rule, RuleFlags, RuleLife},
    group::Group,
    port::PortTable,
    table::{Change, FragmentMode, GroupChange, MeterChange, RuleEdit, TableSettings, Tables},
    text::{
        ChangeKind, SetChangeKind, TextError, parse_change, parse_deleted_groups, parse_deleted_meters,
        parse_fragment_mode, parse_group, parse_inserted_buckets, parse_mapped_option, parse_meter,
        parse_removed_buckets, parse_set_change, parse_table_settings, parse_unmapped_option, print_flow,
        print_group, print_meter, print_set, print_table_settings,
    },
    tunnel::OptionMap,
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
    /// A meter, whether it is there or not.
    SetMeter,
    /// No such meter, or none at all.
    DeleteMeter,
    /// How a table is run.
    Table,
    /// How rules see fragments.
    Fragments,
    /// A field for a Geneve option.
    MapOption,
    /// No field for it any more.
    UnmapOption,
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
const SAVED: [(&str, Verb); 14] = [
    ("flow", Verb::Flow(ChangeKind::Add)),
    ("flow-gone", Verb::Flow(ChangeKind::DeleteStrict)),
    ("flows-gone", Verb::Flow(ChangeKind::Delete)),
    ("group", Verb::SetGroup),
    ("group-gone", Verb::DeleteGroup),
    ("meter", Verb::SetMeter),
    ("meter-gone", Verb::DeleteMeter),
    ("set", Verb::Set(SetChangeKind::Add)),
    ("set-now", Verb::Set(SetChangeKind::Replace)),
    ("set-gone", Verb::Set(SetChangeKind::Delete)),
    ("table", Verb::Table),
    ("frags", Verb::Fragments),
    ("option", Verb::MapOption),
    ("option-gone", Verb::UnmapOption),
];

/// What is referred to comes before what refers to it, a line each.
pub(super) fn print_tables(tables: &Tables) -> String {
    let fragments = (tables.fragments() != FragmentMode::default())
        .then(|| format!("frags {}\n", tables.fragments().name()));
    let usual = OptionMap::default();
    let options = tables.options().iter().filter(|option| !usual.iter().any(|usual| usual == *option));
    let options = options.map(|option| format!("option {option}\n"));
    let usual = TableSettings::default();
    let settings = Tables::ids().filter(|table| *tables.settings(*table) != usual);
    let settings =
        settings.map(|table| format!("table {}\n", print_table_settings(table, tables.settings(table))));
    let sets = tables.sets().iter().map(|set| format!("set {}\n", print_set(set)));
    let meters = tables.meters().map(|meter| format!("meter {}\n", print_meter(meter.config())));
    let groups = tables.groups_bottom_up().into_iter().map(|group| format!("group {}\n", print_group(group)));
    let rules = tables.rules().map(|rule| put(rule));
    let first = fragments.into_iter().chain(options).chain(settings);
    first.chain(sets).chain(meters).chain(groups).chain(rules).collect()
}

/// What turns the text of a version of the tables into that of the next: what is referred to
/// comes before what refers to it, and goes after it. `None`: only the whole does.
pub(super) fn print_change(old: &Tables, new: &Tables, edits: &[RuleEdit]) -> Option<String> {
    let is_same = old.shares_all_but_rules(new);
    let rest = if is_same { Rest::default() } else { Rest::print(old, new)? };
    Some(rest.before + &print_edits(edits) + &rest.behind)
}

/// The last edit of each rule: one before it may refer to what is not there any more. Rules go
/// first, so that there is room for the others.
fn print_edits(edits: &[RuleEdit]) -> String {
    let cleared = edits.iter().rposition(|edit| matches!(edit, RuleEdit::Cleared));
    let edits = &edits[cleared.map_or(0, |at| at + 1)..];
    let mut known = HashSet::new();
    let (mut gone, mut fresh) = (Vec::new(), Vec::new());
    for edit in edits.iter().rev() {
        let (RuleEdit::Put(rule) | RuleEdit::Taken(rule)) = edit else { continue };
        if !known.insert((rule.table, rule.priority, &rule.matching)) {
            continue;
        }
        match edit {
            RuleEdit::Put(_) => fresh.push(put(rule)),
            _ => gone.push(format!("flow-gone {}\n", print_strict(rule))),
        }
    }
    let cleared = cleared.map(|_| "flows-gone \n".to_owned());
    cleared.into_iter().chain(gone.into_iter().rev()).chain(fresh.into_iter().rev()).collect()
}

/// Changes of all but the rules: those that come before the rules' and those behind.
#[derive(Debug, Default)]
struct Rest {
    before: String,
    behind: String,
}

impl Rest {
    fn print(old: &Tables, new: &Tables) -> Option<Self> {
        let mut rest = Self::default();
        if old.fragments() != new.fragments() {
            rest.before += &format!("frags {}\n", new.fragments().name());
        }
        rest.options(old, new);
        rest.settings(old, new);
        for set in new.sets().iter() {
            match old.sets().get(set.name()) {
                Some(known) if Arc::ptr_eq(known, set) || known == set => {}
                // It was another one, whose rules are gone, too.
                Some(known) if known.kind() != set.kind() => return None,
                Some(_) => rest.before += &format!("set-now {}\n", print_set(set)),
                None => rest.before += &format!("set {}\n", print_set(set)),
            }
        }
        rest.meters_and_groups(old, new);
        let gone = old.sets().iter().filter(|set| new.sets().get(set.name()).is_none());
        rest.behind.extend(gone.map(|set| format!("set-gone {}\n", set.name())));
        Some(rest)
    }

    fn options(&mut self, old: &Tables, new: &Tables) {
        let is_in = |tables: &Tables, option| tables.options().iter().any(|known| known == option);
        // Those that go make room for those that come.
        for option in old.options().iter().filter(|option| !is_in(new, *option)) {
            self.before += &format!("option-gone {option}\n");
        }
        for option in new.options().iter().filter(|option| !is_in(old, *option)) {
            self.before += &format!("option {option}\n");
        }
    }

    fn settings(&mut self, old: &Tables, new: &Tables) {
        let changed = || Tables::ids().filter(|table| old.settings(*table) != new.settings(*table));
        // Another table may have the name now.
        for table in changed().filter(|table| old.settings(*table).name != new.settings(*table).name) {
            self.before += &format!("table table={table},name=\n");
        }
        for table in changed() {
            let TableSettings { name, miss, max_rules, overflow } = new.settings(table);
            let max = max_rules.map_or_else(|| "any".to_owned(), |max| max.to_string());
            let (miss, overflow) = (miss.name(), overflow.name());
            let line =
                format!("table table={table},name={name},miss={miss},max_rules={max},overflow={overflow}\n");
            // Rules that there is no room for go by lines of their own, before there is none.
            let shrinks =
                max_rules.is_some_and(|is| old.settings(table).max_rules.is_none_or(|was| is < was));
            if shrinks { self.behind += &line } else { self.before += &line }
        }
    }

    fn meters_and_groups(&mut self, old: &Tables, new: &Tables) {
        for meter in new.meters() {
            if old.meter(meter.config().id).is_none_or(|known| known.config() != meter.config()) {
                self.before += &format!("meter {}\n", print_meter(meter.config()));
            }
        }
        for group in new.groups_bottom_up() {
            if old.group(group.id).is_none_or(|known| !Arc::ptr_eq(known, group) && known != group) {
                self.before += &format!("group {}\n", print_group(group));
            }
        }
        let gone = old.groups().filter(|group| new.group(group.id).is_none());
        self.behind.extend(gone.map(|group| format!("group-gone group_id={}\n", group.id)));
        let gone = old.meters().map(|meter| meter.config().id).filter(|id| new.meter(*id).is_none());
        self.behind.extend(gone.map(|id| format!("meter-gone meter={id}\n")));
    }
}

/// A rule that is there: whether it overlaps was asked when it came, and is not asked again.
fn put(rule: &Rule) -> String {
    let overlap = RuleFlags::CHECK_OVERLAP;
    if !rule.life.flags.has(overlap) {
        return format!("flow {}\n", print_flow(rule));
    }
    let life = RuleLife { flags: rule.life.flags.without(overlap), ..rule.life };
    format!("flow {}\n", print_flow(&Rule { life, ..rule.clone() }))
}

/// The one rule of this table, priority and match.
fn print_strict(rule: &Rule) -> String {
    let (table, priority, matching) = (rule.table, rule.priority, rule.matching.to_string());
    let comma = if matching.is_empty() { "" } else { "," };
    format!("table={table},priority={priority}{comma}{matching}")
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
        Verb::SetMeter => Change::Meter(MeterChange::Set(parse_meter(text)?)),
        Verb::DeleteMeter => Change::Meter(parse_deleted_meters(text)?),
        Verb::Table => {
            let (table, settings) = parse_table_settings(text, settings)?;
            Change::Table(table, settings)
        }
        Verb::Fragments => Change::Fragments(parse_fragment_mode(text)?),
        Verb::MapOption => Change::Option(parse_mapped_option(text)?),
        Verb::UnmapOption => Change::Option(parse_unmapped_option(text)?),
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
    use flowtable::types::Timestamp;
    use proptest::prelude::*;

    use super::*;

    fn written(lines: &[(Verb, &str)]) -> Vec<WrittenChange> {
        lines.iter().map(|(verb, text)| WrittenChange { verb: *verb, text: (*text).to_owned() }).collect()
    }

    #[test]
    fn a_rule_that_came_and_went_within_a_change_is_not_told_with_its_meter() {
        let lines = [
            (Verb::AddMeter, "meter=1,kbps,bands=type=drop,rate=1"),
            (Verb::Flow(ChangeKind::Add), "priority=1,tcp,actions=meter:1,output:2"),
            (Verb::Flow(ChangeKind::Add), "priority=2,tcp,actions=output:2"),
            (Verb::DeleteMeter, "meter=1"),
        ];
        let old = Tables::default();
        let changes = parse(&written(&lines), &PortTable::default(), &old).unwrap();
        let commit = old.commit(changes, Timestamp::default()).unwrap();
        let text = print_change(&old, &commit.tables, &commit.edits).unwrap();
        let lines: Vec<_> = text.lines().map(saved_line).collect();
        let again = old.transact(parse(&lines, &PortTable::default(), &old).unwrap()).unwrap();
        assert_eq!(again, commit.tables, "{text}");
        assert_eq!(again.len(), 1);
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
            (Verb::MapOption, "{class=0xffff,type=0x1,len=4}->tun_metadata9"),
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

    /// Changes that may be refused, of everything that there can be, on few names.
    fn wish() -> impl Strategy<Value = (Verb, String)> {
        let flow = |kind| Verb::Flow(kind);
        prop_oneof![
            (0..3_u8, 0..3_u8, 0..4_u8).prop_map(move |(table, priority, actions)| {
                let actions = ["drop", "output:1", "group:1", "meter:1,output:2"][usize::from(actions)];
                let matching = ["", "tcp,", "nw_src=$hosts,ip,"][usize::from(priority)];
                let flags = if actions == "drop" { "check_overlap,importance=3," } else { "" };
                (
                    flow(ChangeKind::Add),
                    format!("table={table},priority={priority},{flags}{matching}actions={actions}"),
                )
            }),
            (0..3_u8).prop_map(move |table| (flow(ChangeKind::Delete), format!("table={table},tcp"))),
            Just((flow(ChangeKind::Delete), String::new())),
            (0..3_u8).prop_map(move |table| {
                (flow(ChangeKind::Modify), format!("table={table},actions=output:7"))
            }),
            (1..4_u8, 1..4_u8).prop_map(|(id, next)| {
                (Verb::SetGroup, format!("group_id={id},type=all,bucket=actions=group:{next}"))
            }),
            (1..4_u8)
                .prop_map(|id| (Verb::SetGroup, format!("group_id={id},type=all,bucket=actions=output:1"))),
            (1..4_u8).prop_map(|id| (Verb::DeleteGroup, format!("group_id={id}"))),
            (1..3_u8, 1..9_u8).prop_map(|(id, rate)| {
                (Verb::SetMeter, format!("meter={id},kbps,bands=type=drop,rate={rate}"))
            }),
            (1..3_u8).prop_map(|id| (Verb::DeleteMeter, format!("meter={id}"))),
            Just((Verb::Set(SetChangeKind::Add), "hosts type=ipv4 10.0.0.1".to_owned())),
            Just((Verb::Set(SetChangeKind::Insert), "hosts 10.0.0.9".to_owned())),
            Just((Verb::Set(SetChangeKind::Delete), "hosts".to_owned())),
            Just((Verb::Set(SetChangeKind::Add), "hosts type=port 80".to_owned())),
            (0..3_u8, 0..3_u8, 0..2_u8).prop_map(|(table, max, name)| {
                let max = ["any", "1", "2"][usize::from(max)];
                let name = ["", "acl"][usize::from(name)];
                (Verb::Table, format!("table={table},name={name},max_rules={max},overflow=evict"))
            }),
            Just((Verb::Fragments, "nx-match".to_owned())),
            (1..4_u8, 1..4_u8).prop_map(|(kind, idx)| {
                (Verb::MapOption, format!("{{class=1,type={kind},len=4}}->tun_metadata{idx}"))
            }),
            (1..4_u8).prop_map(|kind| (Verb::UnmapOption, format!("{{class=1,type={kind}}}"))),
        ]
    }

    proptest! {
        /// What is in a journal leads to what was there: whole, then change by change, or
        /// whole at any time.
        #[test]
        fn a_journal_leads_to_the_tables_that_it_is_of(
            transactions in prop::collection::vec(prop::collection::vec(wish(), 1..5), 1..12)
        ) {
            let ports = PortTable::default();
            let read = |text: &str, tables: &Tables| {
                let lines: Vec<_> = text.lines().map(saved_line).collect();
                let changes = parse(&lines, &ports, tables).unwrap();
                tables.transact(changes).map_err(|error| format!("{error}: {text}")).unwrap()
            };
            let (mut tables, mut replayed) = (Tables::default(), Tables::default());
            for wishes in transactions {
                let wishes: Vec<_> =
                    wishes.into_iter().map(|(verb, text)| WrittenChange { verb, text }).collect();
                let Ok(changes) = parse(&wishes, &ports, &tables) else { continue };
                let Ok(commit) = tables.commit(changes, Timestamp::default()) else { continue };
                replayed = match print_change(&tables, &commit.tables, &commit.edits) {
                    Some(text) => read(&text, &replayed),
                    None => read(&print_tables(&commit.tables), &Tables::default()),
                };
                tables = commit.tables;
                prop_assert_eq!(print_tables(&replayed), print_tables(&tables));
                let whole = read(&print_tables(&tables), &Tables::default());
                prop_assert_eq!(print_tables(&whole), print_tables(&tables));
            }
        }
    }

    #[test]
    fn the_wrong_change_is_named() {
        let lines = [(Verb::DeleteMeter, "all"), (Verb::AddGroup, "group_id=1,tpye=all")];
        let error = parse(&written(&lines), &PortTable::default(), &Tables::default()).unwrap_err();
        assert_eq!(error.to_string(), "change 2: character 12: a group has no `tpye`; did you mean `type`?");
    }
}
