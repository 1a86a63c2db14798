//! Changes of the tables as text: what `ovs-ofctl` takes on the command lines of
//! add-flow, mod-flows and del-flows, strict or not.

use super::{FlowReader, TextError, action, cursor::Piece, parse_filter, parse_flow};
use crate::{
    flow::{Action, Match},
    port::PortTable,
    table::{Change, Filter},
    types::{Priority, TableId},
};

/// What a text asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChangeKind {
    /// A rule, added.
    Add,
    /// Other actions for all rules chosen. Choosing none adds none.
    Modify,
    /// Other actions for one rule.
    ModifyStrict,
    /// Deletes all rules chosen.
    Delete,
    /// Deletes one rule.
    DeleteStrict,
}

/// Reads a change. A strict one names its table, and its priority unless that is the
/// default.
///
/// # Errors
/// Says where the text is wrong, and why.
pub fn parse_change(kind: ChangeKind, text: &str, ports: &PortTable) -> Result<Change, TextError> {
    Ok(match kind {
        ChangeKind::Add => Change::Add(parse_flow(text, ports)?),
        ChangeKind::Delete => Change::Delete(parse_filter(text, ports)?),
        ChangeKind::Modify => {
            let (filter, actions) = modification(text, ports)?;
            Change::Modify { filter, actions }
        }
        ChangeKind::ModifyStrict => {
            let Strict { table, priority, matching, actions } = Strict::parse(text, ports)?;
            let actions = actions.ok_or_else(|| no_actions(text))?;
            Change::ModifyStrict { table, priority, matching, actions }
        }
        ChangeKind::DeleteStrict => {
            let Strict { table, priority, matching, actions } = Strict::parse(text, ports)?;
            if actions.is_some() {
                return Err(Piece::whole("").error("what chooses a rule has no actions"));
            }
            Change::DeleteStrict { table, priority, matching }
        }
    })
}

fn modification(text: &str, ports: &PortTable) -> Result<(Filter, Vec<Action>), TextError> {
    let mut flow = FlowReader::new(ports);
    flow.cookie = (0, 0);
    let actions = flow.read(text)?.ok_or_else(|| no_actions(text))?;
    if flow.priority.is_some() {
        return Err(Piece::whole("").error("rules cannot be chosen by priority, except strictly"));
    }
    let (cookie, cookie_mask) = flow.cookie;
    if cookie_mask != 0 && !flow.cookie_has_mask {
        // To ovs-ofctl this would be the rules' new cookie.
        return Err(Piece::whole("")
            .error("a rule's cookie stays as it is; `cookie=VALUE/-1` chooses the rules that have it"));
    }
    let (table, out_port, out_group) = (flow.table, flow.out_port, flow.out_group);
    let matching = flow.matching.finish()?;
    let actions = action::parse(actions, ports, Some(&matching))?;
    Ok((Filter { table, matching, cookie, cookie_mask, out_port, out_group }, actions))
}

fn no_actions(text: &str) -> TextError {
    Piece { text: "", at: text.len() }.error("the rules' new actions are missing; `actions=drop` drops")
}

/// Just one rule, and what it shall do if that is said.
struct Strict {
    table: TableId,
    priority: Priority,
    matching: Match,
    actions: Option<Vec<Action>>,
}

impl Strict {
    fn parse(text: &str, ports: &PortTable) -> Result<Self, TextError> {
        let mut flow = FlowReader::new(ports);
        let actions = flow.read(text)?;
        if flow.cookie != (0, u64::MAX) {
            return Err(
                Piece::whole("").error("a strict choice is by table, priority and match, not by cookie")
            );
        }
        let table =
            flow.table.ok_or_else(|| Piece::whole("").error("a strict choice names its table: `table=0`"))?;
        let matching = flow.matching.finish()?;
        let actions = actions.map(|text| action::parse(text, ports, Some(&matching))).transpose()?;
        Ok(Self { table, priority: flow.priority.unwrap_or(Priority::DEFAULT), matching, actions })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{table::Tables, text::print_flow};

    /// The rules after these changes, by priority, without what all have.
    fn after(changes: &[(ChangeKind, &str)]) -> Vec<String> {
        let ports = PortTable::default();
        let changes = changes.iter().map(|(kind, text)| parse_change(*kind, text, &ports).unwrap());
        let tables = Tables::default().transact(changes.collect()).unwrap();
        tables.rules().map(|rule| print_flow(rule).replace("cookie=0x0, table=0, ", "")).collect()
    }

    const BASE: [(ChangeKind, &str); 3] = [
        (ChangeKind::Add, "priority=9,tcp,actions=output:1"),
        (ChangeKind::Add, "priority=8,ip,actions=output:2"),
        (ChangeKind::Add, "priority=7,cookie=0x12,arp,actions=output:3"),
    ];

    fn with(kind: ChangeKind, text: &'static str) -> Vec<String> {
        after(&[BASE.as_slice(), &[(kind, text)]].concat())
    }

    #[test]
    fn filters_reach_what_is_within_and_strict_ones_just_one_rule() {
        let arp = "cookie=0x12, table=0, priority=7,arp actions=output:3";
        let cases = [
            (
                ChangeKind::Modify,
                "ip,actions=drop",
                &["priority=9,tcp actions=drop", "priority=8,ip actions=drop", arp] as &[&str],
            ),
            (
                ChangeKind::Modify,
                "tcp,actions=drop",
                &["priority=9,tcp actions=drop", "priority=8,ip actions=output:2", arp],
            ),
            (
                ChangeKind::Modify,
                "udp,actions=drop",
                &["priority=9,tcp actions=output:1", "priority=8,ip actions=output:2", arp],
            ),
            (
                ChangeKind::ModifyStrict,
                "table=0,priority=8,ip,actions=drop",
                &["priority=9,tcp actions=output:1", "priority=8,ip actions=drop", arp],
            ),
            (
                ChangeKind::ModifyStrict,
                "table=0,priority=3,ip,actions=drop",
                &["priority=9,tcp actions=output:1", "priority=8,ip actions=output:2", arp],
            ),
            (ChangeKind::Delete, "ip", &[arp]),
            (
                ChangeKind::Delete,
                "cookie=0x10/0xf0",
                &["priority=9,tcp actions=output:1", "priority=8,ip actions=output:2"],
            ),
            (
                ChangeKind::Modify,
                "cookie=0x12/-1,actions=drop",
                &[
                    "priority=9,tcp actions=output:1",
                    "priority=8,ip actions=output:2",
                    "cookie=0x12, table=0, priority=7,arp actions=drop",
                ],
            ),
            (ChangeKind::DeleteStrict, "table=0,priority=8,ip", &["priority=9,tcp actions=output:1", arp]),
            (ChangeKind::Delete, "", &[]),
        ];
        for (kind, text, wanted) in cases {
            assert_eq!(with(kind, text), wanted, "{kind:?} {text}");
        }
    }

    #[test]
    fn what_would_mean_something_else_to_ovs_is_refused() {
        let wrong = [
            (ChangeKind::Add, "ip", "no actions"),
            (ChangeKind::Modify, "ip", "actions are missing"),
            (ChangeKind::Modify, "priority=8,ip,actions=drop", "by priority"),
            (ChangeKind::Modify, "cookie=5,actions=drop", "stays as it is"),
            (ChangeKind::ModifyStrict, "priority=8,ip,actions=drop", "names its table"),
            (ChangeKind::ModifyStrict, "table=0,cookie=5/-1,actions=drop", "not by cookie"),
            (ChangeKind::ModifyStrict, "table=0,ip", "actions are missing"),
            (ChangeKind::Delete, "ip,actions=drop", "no actions"),
            (ChangeKind::DeleteStrict, "priority=8,ip", "names its table"),
            (ChangeKind::DeleteStrict, "table=0,ip,actions=drop", "no actions"),
        ];
        for (kind, text, reason) in wrong {
            let error = parse_change(kind, text, &PortTable::default()).unwrap_err().to_string();
            assert!(error.contains(reason), "{kind:?} {text}: {error}");
        }
    }
}
