//! Rules that make rules: `learn`.

use crate::{
    field::SubField,
    types::{Priority, TableId},
};

/// Where a value of a learned rule comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LearnSource {
    /// From the packet.
    Field(SubField),
    /// Given, right-aligned.
    Value(u128),
}

/// One thing that a learned rule matches or does.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LearnSpec {
    /// It matches this of a field.
    Match {
        /// Which bits.
        dst: SubField,
        /// Their value.
        src: LearnSource,
    },
    /// It sets bits of a field.
    Load {
        /// Which bits.
        dst: SubField,
        /// Their value.
        src: LearnSource,
    },
    /// It sends to the port that this packet's sub-field names.
    Output(SubField),
}

/// Makes or refreshes a rule from the packet: the arguments of `learn(...)`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Learn {
    /// Table of the learned rules.
    pub table: TableId,
    /// Their priority.
    pub priority: Priority,
    /// Seconds without packets until they go; 0: none.
    pub idle_timeout: u16,
    /// Seconds until they go; 0: none.
    pub hard_timeout: u16,
    /// Idle timeout after a FIN or RST; 0: none.
    pub fin_idle_timeout: u16,
    /// Hard timeout after a FIN or RST; 0: none.
    pub fin_hard_timeout: u16,
    /// Their cookie.
    pub cookie: u64,
    /// Tell the controller when one goes.
    pub send_flow_rem: bool,
    /// They go with the rule that learned them.
    pub delete_learned: bool,
    /// Rules with this table and cookie at most; 0: no limit.
    pub limit: u32,
    /// Bit that tells whether there was room.
    pub result_dst: Option<SubField>,
    /// What they match and do.
    pub specs: Vec<LearnSpec>,
}

impl Default for Learn {
    fn default() -> Self {
        Self {
            table: TableId::FIRST,
            priority: Priority::DEFAULT,
            idle_timeout: 0,
            hard_timeout: 0,
            fin_idle_timeout: 0,
            fin_hard_timeout: 0,
            cookie: 0,
            send_flow_rem: false,
            delete_learned: false,
            limit: 0,
            result_dst: None,
            specs: Vec::new(),
        }
    }
}
