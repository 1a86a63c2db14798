//! How a table is run: its name, what a miss means, how many rules it takes.

use super::{
    change::{Refusal, Transaction},
    error::RuleError,
};
use crate::types::TableId;

/// How a table is run. The default is a table without a name that drops what it has no
/// rule for and takes any number of rules.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TableSettings {
    /// Name, unique among the tables; empty: none.
    pub name: String,
    /// What becomes of packets that no rule matches.
    pub miss: MissPolicy,
    /// Rules it takes; `None`: any number.
    pub max_rules: Option<usize>,
    /// What happens when there are more.
    pub overflow: OverflowPolicy,
}

/// What becomes of packets that no rule of a table matches (OpenFlow 1.5 §5.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum MissPolicy {
    /// They are dropped.
    #[default]
    Drop,
    /// They go on in the next table; from the last one they are dropped.
    Continue,
    /// They go to the controller.
    Controller,
}

/// What happens to a rule for which its table has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OverflowPolicy {
    /// It is refused.
    #[default]
    Refuse,
    /// The least important rule goes, of these the one whose timeout ends first, unless
    /// it is more important than the new one.
    Evict,
}

impl Transaction {
    pub(super) fn change_table(&mut self, table: TableId, settings: TableSettings) -> Result<(), Refusal> {
        let refuse = |reason| Err(Refusal { what: format!("table={table}"), reason });
        let same_name = self.next.settings.iter().find(|(_, other)| other.name == settings.name);
        if let Some((other, _)) = same_name.filter(|(other, _)| !settings.name.is_empty() && **other != table)
        {
            return refuse(RuleError::TableNameTaken { name: settings.name, table: *other });
        }
        let all = std::sync::Arc::make_mut(&mut self.next.settings);
        if settings == TableSettings::default() {
            all.remove(&table);
        } else {
            all.insert(table, settings);
        }
        let settings = self.next.settings(table).clone();
        while settings.max_rules.is_some_and(|max| self.next.n_rules(table) > max) {
            let n_rules = self.next.n_rules(table);
            if settings.overflow == OverflowPolicy::Refuse || !self.evict(table, None) {
                return refuse(RuleError::TableFull { table, max: n_rules });
            }
        }
        Ok(())
    }
}
