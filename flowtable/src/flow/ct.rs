//! The `ct` action: what it asks of the connection tracker.

use super::Action;
use crate::{
    conntrack::{Alg, Nat},
    field::SubField,
    types::TableId,
};

/// Passes the packet through the connection tracker (ovs-actions(7), `ct`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Ct {
    /// Remember the connection.
    pub commit: bool,
    /// A packet of the reply direction begins a new connection instead; needs `commit`.
    pub force: bool,
    /// Continue there, as a new pass that knows the connection. Without it the actions
    /// behind go on with what was known before.
    pub table: Option<TableId>,
    /// Name space.
    pub zone: CtZone,
    /// Translate.
    pub nat: Option<Nat>,
    /// Changes of `ct_mark` and `ct_label`, which stay with the connection; needs `commit`.
    pub exec: Vec<Action>,
    /// Timeout policy of a new connection; `None`: the zone's.
    pub timeout: Option<u8>,
    /// Helper of a new connection, which reads along what it announces.
    pub alg: Option<Alg>,
}

/// Where the zone's number is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CtZone {
    /// Here.
    Literal(u16),
    /// In the packet's key.
    Field(SubField),
}

impl Default for CtZone {
    fn default() -> Self {
        Self::Literal(0)
    }
}
