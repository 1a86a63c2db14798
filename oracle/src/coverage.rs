//! How many packets met each action and each field: what has been compared, in numbers.

use std::{collections::BTreeMap, fmt};

use flowtable::flow::Action;

use crate::syntax::{Matching, Step};

/// Declares the kinds of actions: pattern of the switch's, of ours, name.
macro_rules! kinds {
    ($($name:literal: $action:pat => $step:pat,)*) => {
        /// Every kind of action of the flow language.
        pub const ACTIONS: &[&str] = &[$($name),*];

        /// The kind of an action of the switch. A new action has to get a name here, and then to be met.
        pub fn kind_of(action: &Action) -> &'static str {
            match action { $($action => $name,)* }
        }

        fn name(step: &Step) -> &'static str {
            match step { $($step => $name,)* }
        }
    };
}

kinds! {
    "output": Action::Output(_) => Step::Output(_) | Step::InPort | Step::Flood | Step::Controller,
    "output:field": Action::OutputReg(_) => Step::OutputReg(_),
    "output(max_len)": Action::OutputTruncated { .. } => Step::Truncated { .. },
    "enqueue": Action::Enqueue { .. } => Step::Enqueue { .. },
    "set_queue": Action::SetQueue(_) => Step::SetQueue(_),
    "pop_queue": Action::PopQueue => Step::PopQueue,
    "controller": Action::Controller(_) => Step::Tell(_),
    "set_field": Action::SetField { .. } => Step::Set(_) | Step::Load(..) | Step::ModVlanVid(_) | Step::SetVlanVid(_) | Step::ModVlanPcp(_),
    "move": Action::Move { .. } => Step::Move { .. },
    "resubmit": Action::Resubmit { .. } => Step::Resubmit { ct: false, .. },
    "resubmit(ct)": Action::ResubmitCt { .. } => Step::Resubmit { ct: true, .. },
    "goto_table": Action::GotoTable(_) => Step::Goto(_),
    "clone": Action::Clone(_) => Step::Clone(_),
    "exit": Action::Exit => Step::Exit,
    "dec_ttl": Action::DecTtl => Step::DecTtl,
    "dec_ttl(ids)": Action::DecTtlOrTell(_) => Step::DecTtlOrTell(_),
    "push_vlan": Action::PushVlan(_) => Step::PushVlan(_),
    "pop_vlan": Action::PopVlan => Step::PopVlan,
    "push_mpls": Action::PushMpls(_) => Step::PushMpls(_),
    "pop_mpls": Action::PopMpls(_) => Step::PopMpls(_),
    "dec_mpls_ttl": Action::DecMplsTtl => Step::DecMplsTtl,
    "set_tunnel": Action::SetTunnel(_) => Step::SetTunnel(_),
    "push": Action::Push(_) => Step::Push(_),
    "pop": Action::Pop(_) => Step::Pop(_),
    "delete_field": Action::DeleteField(_) => Step::DeleteField(_),
    "multipath": Action::Multipath(_) => Step::Multipath(_),
    "bundle": Action::Bundle(_) => Step::Bundle(_),
    "conjunction": Action::Conjunction { .. } => Step::Conjunction { .. },
    "group": Action::Group(_) => Step::Group(_),
    "meter": Action::Meter(_) => Step::Meter(_),
    "ct": Action::Ct(_) => Step::Ct(_),
    "ct_clear": Action::CtClear => Step::CtClear,
    "note": Action::Note(_) => Step::Note(_),
    "clear_actions": Action::ClearActions => Step::ClearActions,
    "write_actions": Action::WriteActions(_) => Step::WriteActions(_),
    "write_metadata": Action::WriteMetadata { .. } => Step::WriteMetadata(..),
}

/// Actions and fields that a packet met, each once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Met {
    actions: u64,
    fields: Vec<crate::field::Field>,
}

impl Met {
    /// An action.
    pub fn step(&mut self, step: &Step) {
        let name = name(step);
        if let Some(idx) = ACTIONS.iter().position(|known| *known == name) {
            self.actions |= 1 << idx;
        }
    }

    /// Nothing that packets leave traces in.
    pub fn is_stateless(&self) -> bool {
        let is_met = |name: &str| {
            ACTIONS.iter().position(|known| *known == name).is_some_and(|idx| self.actions >> idx & 1 != 0)
        };
        !is_met("ct") && !is_met("meter")
    }

    /// The fields of a match.
    pub fn matching(&mut self, matching: &Matching) {
        for term in &matching.terms {
            if !self.fields.contains(&term.field) {
                self.fields.push(term.field);
            }
        }
    }
}

/// Packets by what they met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coverage {
    actions: [u64; ACTIONS.len()],
    fields: BTreeMap<crate::field::Field, u64>,
}

impl Default for Coverage {
    fn default() -> Self {
        Self { actions: [0; ACTIONS.len()], fields: BTreeMap::new() }
    }
}

impl Coverage {
    /// Counts a packet.
    pub fn add(&mut self, met: &Met) {
        let mut actions = met.actions;
        while actions != 0 {
            self.actions[actions.trailing_zeros() as usize] += 1;
            actions &= actions - 1;
        }
        for field in &met.fields {
            *self.fields.entry(*field).or_default() += 1;
        }
    }

    /// Packets that met each kind of action.
    pub fn actions(&self) -> impl Iterator<Item = (&'static str, u64)> {
        ACTIONS.iter().copied().zip(self.actions)
    }

    /// Packets that met a rule that matches each field.
    pub fn fields(&self) -> impl Iterator<Item = (String, u64)> {
        self.fields.iter().map(|(field, n)| (field.name(), *n))
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let actions = self.actions().map(|(name, n)| (name.to_owned(), n));
        table(f, "action", actions.collect())?;
        writeln!(f)?;
        table(f, "matched field", self.fields().collect())
    }
}

/// Columns of a table.
const N_COLUMNS: usize = 4;

fn table(f: &mut fmt::Formatter<'_>, what: &str, rows: Vec<(String, u64)>) -> fmt::Result {
    writeln!(f, "|{}", format!(" {what} | packets |").repeat(N_COLUMNS))?;
    writeln!(f, "|{}", "---|---|".repeat(N_COLUMNS))?;
    let n_lines = rows.len().div_ceil(N_COLUMNS);
    for line in 0..n_lines {
        f.write_str("|")?;
        for column in 0..N_COLUMNS {
            match rows.get(column * n_lines + line) {
                Some((name, n)) => write!(f, " `{name}` | {n} |")?,
                None => f.write_str(" | |")?,
            }
        }
        writeln!(f)?;
    }
    Ok(())
}
