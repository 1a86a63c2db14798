//! How a table is run: its name, what a miss means, how many rules it takes; and how all
//! of them take fragments.

use std::sync::Arc;

use super::{
    Tables,
    change::{Refusal, Transaction},
    error::RuleError,
};
use crate::{
    field::Field,
    flow::Rule,
    key::{Tracked, nw_frag},
    tunnel::{OptionChange, OptionMap},
    types::TableId,
};

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

/// How rules see IP fragments (ovs-ofctl(8), `set-frags`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum FragmentMode {
    /// As packets whose ports and ICMP type and code are 0, also of first fragments, which
    /// do have them.
    Normal,
    /// Not at all: they are dropped before the first table.
    Drop,
    /// As packets: first fragments show their ports, others have none.
    #[default]
    NxMatch,
}

impl FragmentMode {
    /// All modes.
    pub const ALL: &[Self] = &[Self::Normal, Self::Drop, Self::NxMatch];

    /// Name in text.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Drop => "drop",
            Self::NxMatch => "nx-match",
        }
    }
}

impl Tables {
    /// How rules see IP fragments.
    pub fn fragments(&self) -> FragmentMode {
        self.fragments
    }

    /// Which Geneve options have fields.
    pub fn options(&self) -> &OptionMap {
        &self.options
    }

    /// The packet is dropped before the first table, being a fragment; un-wildcards what
    /// tells.
    pub(crate) fn drops(&self, key: &mut Tracked) -> bool {
        self.fragments == FragmentMode::Drop && is_fragment(key)
    }

    /// What `lookup` finds, with ports that are 0 where fragments are to be seen so.
    pub(super) fn lookup_as_set<'a>(
        &self,
        key: &mut Tracked,
        lookup: impl FnOnce(&mut Tracked) -> Option<&'a Arc<Rule>>,
    ) -> Option<&'a Arc<Rule>> {
        if self.fragments != FragmentMode::Normal || !is_fragment(key) {
            return lookup(key);
        }
        let saved = key.clone();
        key.write(Field::TcpSrc, 0);
        key.write(Field::TcpDst, 0);
        let found = lookup(key);
        key.restore(&saved);
        found
    }
}

fn is_fragment(key: &mut Tracked) -> bool {
    key.read_bits(Field::NwFrag, nw_frag::ANY.into()) != 0
}

impl Transaction {
    pub(super) fn change_options(&mut self, change: OptionChange) -> Result<(), Refusal> {
        let what = match change {
            OptionChange::Map(option) => option.to_string(),
            OptionChange::Unmap { class, kind } => format!("{{class={class:#x},type={kind:#x}}}"),
        };
        let changed = Arc::make_mut(&mut self.next.options).change(change);
        changed.map_err(|error| Refusal { what, reason: error.into() })
    }

    pub(super) fn change_table(&mut self, table: TableId, settings: TableSettings) -> Result<(), Refusal> {
        let refuse = |reason| Err(Refusal { what: format!("table={table}"), reason });
        let same_name = self.next.settings.iter().find(|(_, other)| other.name == settings.name);
        if let Some((other, _)) = same_name.filter(|(other, _)| !settings.name.is_empty() && **other != table)
        {
            return refuse(RuleError::TableNameTaken { name: settings.name, table: *other });
        }
        let all = Arc::make_mut(&mut self.next.settings);
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
