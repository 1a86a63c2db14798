//! What rules do.

use super::Ct;
use crate::{
    field::{Field, SubField},
    types::{PortNo, TableId},
};

/// An action of a rule, in the order they are applied (ovs-actions(7)).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Action {
    /// Send to a port, or to what a reserved number stands for.
    Output(PortNo),
    /// Send to the port whose number is in a sub-field.
    OutputReg(SubField),
    /// Set the masked bits of a field.
    SetField {
        /// Which field.
        field: Field,
        /// New value, right-aligned.
        value: u128,
        /// Which bits of it.
        mask: u128,
    },
    /// Copy a sub-field to another of the same width.
    Move {
        /// From here.
        src: SubField,
        /// To there.
        dst: SubField,
    },
    /// Look the packet up in a table and go on with the next action afterwards.
    /// Changes that the table's actions make to the packet stay.
    Resubmit {
        /// Input port to look up with; `None` leaves it.
        port: Option<PortNo>,
        /// Table to look up in; `None`: the current one.
        table: Option<TableId>,
    },
    /// Continue in a later table after the actions of this rule (instruction).
    GotoTable(TableId),
    /// Do these on a copy: what they change is undone afterwards.
    Clone(Vec<Action>),
    /// Decrement the TTL or hop limit; a packet with TTL 0 or 1 is dropped.
    DecTtl,
    /// Push an empty VLAN tag with this TPID.
    PushVlan(u16),
    /// Remove the outer VLAN tag.
    PopVlan,
    /// Set the tunnel key.
    SetTunnel(u64),
    /// Pass through the connection tracker.
    Ct(Box<Ct>),
    /// Forget what the connection tracker said.
    CtClear,
}
