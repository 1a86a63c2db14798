//! What rules do.

use super::{Bundle, Ct, Learn, Multipath, Sample, ToController};
use crate::{
    field::{Field, SubField},
    types::{GroupId, MeterId, PortNo, TableId},
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
    /// Send to a port, without what is behind the first so many bytes of the frame.
    OutputTruncated {
        /// To this port.
        port: PortNo,
        /// Bytes that are left, at least 14.
        max_len: u32,
    },
    /// Send to a port by one of its queues.
    Enqueue {
        /// To this port.
        port: PortNo,
        /// The queue.
        queue: u32,
    },
    /// Later outputs use this queue of their port.
    SetQueue(u32),
    /// Later outputs use the queue they would use without [`Action::SetQueue`].
    PopQueue,
    /// Send to a controller.
    Controller(Box<ToController>),
    /// Like [`Action::DecTtl`]; a packet whose TTL has run out goes to these controllers.
    DecTtlOrTell(Vec<u16>),
    /// Push an MPLS label with this EtherType.
    PushMpls(u16),
    /// Remove the outermost MPLS label; the EtherType is that of what is below.
    PopMpls(u16),
    /// Decrement the TTL of the outermost label; a packet with 0 or 1 is dropped.
    DecMplsTtl,
    /// Put a sub-field on the stack.
    Push(SubField),
    /// Take the top of the stack into a sub-field.
    Pop(SubField),
    /// Remove a Geneve option field.
    DeleteField(Field),
    /// Like [`Action::Resubmit`], but looks up with the addresses and ports that the first
    /// packet of the connection had, where the packet has been tracked.
    ResubmitCt {
        /// Input port to look up with; `None` leaves it.
        port: Option<PortNo>,
        /// Table to look up in; `None`: the current one.
        table: Option<TableId>,
    },
    /// End the walk; within a clone, the clone.
    Exit,
    /// Nothing: bytes for whoever reads the rules.
    Note(Vec<u8>),
    /// Choose one of several links.
    Multipath(Box<Multipath>),
    /// Choose one of several ports that are up.
    Bundle(Box<Bundle>),
    /// The rule is one way to satisfy a clause of a conjunction. A packet that satisfies all
    /// clauses is looked up again with `conj_id` set.
    Conjunction {
        /// The conjunction.
        id: u32,
        /// Which of its clauses, from 1.
        clause: u8,
        /// How many it has, 2 to 64.
        n_clauses: u8,
    },
    /// Do what a group says on copies: what it changes is undone afterwards.
    Group(GroupId),
    /// Let a meter decide whether the packet goes on: from here to the end of the
    /// enclosing clone or bucket, or else of the whole walk.
    Meter(MeterId),
    /// Empty the action set (instruction).
    ClearActions,
    /// Put actions into the action set, which is executed at the end (instruction).
    WriteActions(Vec<Action>),
    /// Set the masked bits of the metadata (instruction).
    WriteMetadata {
        /// New bits.
        value: u64,
        /// Which bits.
        mask: u64,
    },
    /// Pass through the connection tracker.
    Ct(Box<Ct>),
    /// Forget what the connection tracker said.
    CtClear,
    /// Make a rule out of the packet.
    Learn(Box<Learn>),
    /// Lower the rule's timeouts when the packet ends a TCP connection.
    FinTimeout {
        /// New idle timeout, in seconds; 0: stays.
        idle_timeout: u16,
        /// New hard timeout, in seconds; 0: stays.
        hard_timeout: u16,
    },
    /// Write a bit: whether the frame is longer than so many bytes.
    CheckPktLarger {
        /// Bytes of the frame, Ethernet header included.
        max_len: u16,
        /// The bit.
        dst: SubField,
    },
    /// Show some packets to a collector.
    Sample(Sample),
}
