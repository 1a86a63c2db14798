//! How many packets met each action and each field: what has been compared, in numbers.

use std::{collections::BTreeMap, fmt};

use flowtable::flow::Action;

use crate::syntax::{Matching, Step};

/// Declares the kinds of actions: ours, its name, pattern of the switch's, of ours.
macro_rules! kinds {
    ($($kind:ident $name:literal: $action:pat => $step:pat,)*) => {
        #[derive(Clone, Copy)]
        enum Kind { $($kind,)* }

        /// Every kind of action of the flow language.
        pub const ACTIONS: &[&str] = &[$($name),*];

        /// The kind of an action of the switch. A new action has to get a name here, and then to be met.
        pub fn kind_of(action: &Action) -> &'static str {
            match action { $($action => $name,)* }
        }

        fn kind(step: &Step) -> Kind {
            match step { $($step => Kind::$kind,)* }
        }
    };
}

kinds! {
    Output "output": Action::Output(_) => Step::Output(_) | Step::InPort | Step::Flood | Step::Normal | Step::Controller,
    OutputField "output:field": Action::OutputReg(_) => Step::OutputReg(_),
    OutputTruncated "output(max_len)": Action::OutputTruncated { .. } => Step::Truncated { .. },
    Enqueue "enqueue": Action::Enqueue { .. } => Step::Enqueue { .. },
    SetQueue "set_queue": Action::SetQueue(_) => Step::SetQueue(_),
    PopQueue "pop_queue": Action::PopQueue => Step::PopQueue,
    Controller "controller": Action::Controller(_) => Step::Tell(_),
    SetField "set_field": Action::SetField { .. } => Step::Set(_) | Step::Load(..) | Step::ModVlanVid(_) | Step::SetVlanVid(_) | Step::ModVlanPcp(_),
    Move "move": Action::Move { .. } => Step::Move { .. },
    Resubmit "resubmit": Action::Resubmit { .. } => Step::Resubmit { ct: false, .. },
    ResubmitCt "resubmit(ct)": Action::ResubmitCt { .. } => Step::Resubmit { ct: true, .. },
    GotoTable "goto_table": Action::GotoTable(_) => Step::Goto(_),
    Clone "clone": Action::Clone(_) => Step::Clone(_),
    Exit "exit": Action::Exit => Step::Exit,
    DecTtl "dec_ttl": Action::DecTtl => Step::DecTtl,
    DecTtlOrTell "dec_ttl(ids)": Action::DecTtlOrTell(_) => Step::DecTtlOrTell(_),
    PushVlan "push_vlan": Action::PushVlan(_) => Step::PushVlan(_),
    PopVlan "pop_vlan": Action::PopVlan => Step::PopVlan,
    PushMpls "push_mpls": Action::PushMpls(_) => Step::PushMpls(_),
    PopMpls "pop_mpls": Action::PopMpls(_) => Step::PopMpls(_),
    DecMplsTtl "dec_mpls_ttl": Action::DecMplsTtl => Step::DecMplsTtl,
    SetTunnel "set_tunnel": Action::SetTunnel(_) => Step::SetTunnel(_),
    Push "push": Action::Push(_) => Step::Push(_),
    Pop "pop": Action::Pop(_) => Step::Pop(_),
    DeleteField "delete_field": Action::DeleteField(_) => Step::DeleteField(_),
    Multipath "multipath": Action::Multipath(_) => Step::Multipath(_),
    Bundle "bundle": Action::Bundle(_) => Step::Bundle(_),
    Conjunction "conjunction": Action::Conjunction { .. } => Step::Conjunction { .. },
    Group "group": Action::Group(_) => Step::Group(_),
    Meter "meter": Action::Meter(_) => Step::Meter(_),
    Ct "ct": Action::Ct(_) => Step::Ct(_),
    CtClear "ct_clear": Action::CtClear => Step::CtClear,
    Note "note": Action::Note(_) => Step::Note(_),
    CheckPktLarger "check_pkt_larger": Action::CheckPktLarger { .. } => Step::CheckPktLarger(..),
    Learn "learn": Action::Learn(_) => Step::Learn(_),
    FinTimeout "fin_timeout": Action::FinTimeout { .. } => Step::FinTimeout,
    Sample "sample": Action::Sample(_) => Step::Sample,
    ClearActions "clear_actions": Action::ClearActions => Step::ClearActions,
    WriteActions "write_actions": Action::WriteActions(_) => Step::WriteActions(_),
    WriteMetadata "write_metadata": Action::WriteMetadata { .. } => Step::WriteMetadata(..),
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
        self.actions |= 1 << kind(step) as u32;
    }

    /// Nothing that packets leave traces in.
    pub fn is_stateless(&self) -> bool {
        let is_met = |kind: Kind| self.actions >> kind as u32 & 1 != 0;
        !is_met(Kind::Ct) && !is_met(Kind::Meter)
    }

    /// The fields of a match.
    pub fn matching(&mut self, matching: &Matching) {
        let members = matching.members.iter().map(|member| member.field);
        for field in matching.terms.iter().map(|term| term.field).chain(members) {
            if !self.fields.contains(&field) {
                self.fields.push(field);
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
