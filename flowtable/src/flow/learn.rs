//! The `learn` action: what a rule says about rules that packets shall make.

use super::{Action, Rule};
use crate::{
    field::{Field, SubField},
    types::{Priority, TableId},
};

/// Makes a rule out of the packet (ovs-actions(7), `learn`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Learn {
    /// Where the new rule goes.
    pub table: TableId,
    /// Its priority.
    pub priority: Priority,
    /// Its cookie.
    pub cookie: u64,
    /// Its idle timeout.
    pub idle_timeout: u16,
    /// Its hard timeout.
    pub hard_timeout: u16,
    /// Idle timeout that it gets when a TCP connection ends; 0: stays.
    pub fin_idle_timeout: u16,
    /// Hard timeout that it gets when a TCP connection ends; 0: stays.
    pub fin_hard_timeout: u16,
    /// Tell when it goes.
    pub send_flow_rem: bool,
    /// When the last rule with this action goes, what it has learned goes too: all rules of
    /// the table with the cookie.
    pub delete_learned: bool,
    /// Rules that the table may have with this cookie before no more are learned; 0: any
    /// number.
    pub limit: u32,
    /// Bit that says whether the rule is there or will be: 0 where the limit forbids it.
    pub result_dst: Option<SubField>,
    /// What the new rule matches and does.
    pub specs: Vec<LearnSpec>,
}

impl Default for Learn {
    fn default() -> Self {
        Self {
            // The table that Open vSwitch takes when none is named.
            table: TableId::SECOND,
            priority: Priority::DEFAULT,
            cookie: 0,
            idle_timeout: 0,
            hard_timeout: 0,
            fin_idle_timeout: 0,
            fin_hard_timeout: 0,
            send_flow_rem: false,
            delete_learned: false,
            limit: 0,
            result_dst: None,
            specs: Vec::new(),
        }
    }
}

/// One part of a rule to learn.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LearnSpec {
    /// It matches these bits with that value.
    Match {
        /// What is matched.
        dst: SubField,
        /// The value.
        src: LearnSource,
    },
    /// It sets these bits to that value.
    Load {
        /// What is set.
        dst: SubField,
        /// The value.
        src: LearnSource,
    },
    /// It sends to the port whose number is there now.
    Output(SubField),
}

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LearnSource {
    /// From the packet that is learned from.
    Field(SubField),
    /// From the learning rule, right-aligned.
    Value(u128),
}

impl SubField {
    /// These bits can be learned from those: as many, or the 16 of a port number of Open vSwitch.
    pub(crate) fn takes_learned(self, src: Self) -> bool {
        src.n_bits == self.n_bits || self == Self::whole(Field::InPort) && src.n_bits == 16
    }
}

/// A rule that a packet has made, on its way to the tables.
#[derive(Debug, Clone)]
pub struct Learned {
    /// The rule; it is born when the last packet came that made it.
    pub rule: Rule,
    /// See [`Learn::limit`].
    pub limit: u32,
}

/// The same rule under the same limit.
impl PartialEq for Learned {
    fn eq(&self, other: &Self) -> bool {
        let place = |learned: &Self| (learned.rule.table, learned.rule.priority, learned.limit);
        place(self) == place(other)
            && self.rule.matching == other.rule.matching
            && self.rule.actions == other.rule.actions
            && self.rule.cookie == other.rule.cookie
            && self.rule.life == other.rule.life
    }
}

impl Eq for Learned {}

/// Shows all `learn` actions of a list, nested ones included.
pub(crate) fn each_learn(actions: &[Action], visit: &mut impl FnMut(&Learn)) {
    for action in actions {
        match action {
            Action::Learn(learn) => visit(learn),
            Action::Clone(inner) => each_learn(inner, visit),
            _ => {}
        }
    }
}

/// A list has a `fin_timeout`, nested ones included.
pub(crate) fn has_fin_timeout(actions: &[Action]) -> bool {
    actions.iter().any(|action| match action {
        Action::FinTimeout { .. } => true,
        Action::Clone(inner) => has_fin_timeout(inner),
        _ => false,
    })
}
