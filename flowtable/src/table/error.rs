//! Why a rule may not be in a table, in words.

use super::{
    check::{MAX_ACTIONS, MAX_CLAUSES, MAX_MEMBERS, MAX_MEMBERSHIPS, MAX_NESTING, MIN_TRUNCATED},
    group_change::GroupError,
    meter_change::MeterError,
    set_change::SetError,
};
use crate::{
    field::{Field, Prerequisites, SubField},
    tunnel::OptionError,
    types::{MeterId, PortNo, TableId},
};

/// Why a rule may not be in a table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// The match has bits of no field.
    #[error("the match has bits that are no field's")]
    NoSuchBits,
    /// A field is there only in some packets, and the match does not require those.
    #[error("`{field}` needs {}", .needs.describe())]
    Prerequisites {
        /// The field.
        field: Field,
        /// What it needs.
        needs: Prerequisites,
    },
    /// Part of a field is matched or set that is one piece.
    #[error("`{field}` can only be used whole, without a mask")]
    NotMaskable {
        /// The field.
        field: Field,
    },
    /// The value has bits beyond the field, or the mask has none.
    #[error("value or mask do not suit the {} bits of `{field}`", .field.info().n_bits)]
    WrongValue {
        /// The field.
        field: Field,
    },
    /// The field cannot be set.
    #[error("`{field}` cannot be written")]
    NotWritable {
        /// The field.
        field: Field,
    },
    /// The bits are not within the field.
    #[error("`{}` has no {} bits from bit {}", .sub.field, .sub.n_bits, .sub.start)]
    WrongSubField {
        /// The sub-field.
        sub: SubField,
    },
    /// A move between different widths.
    #[error("cannot move {} bits to {} bits", .src.n_bits, .dst.n_bits)]
    MoveWidths {
        /// From.
        src: SubField,
        /// To.
        dst: SubField,
    },
    /// An action needs a header that the match does not require.
    #[error("`{action}` needs {}", .needs.describe())]
    ActionPrerequisites {
        /// Name of the action.
        action: &'static str,
        /// What it needs.
        needs: Prerequisites,
    },
    /// `goto_table` backwards.
    #[error("goto_table must go forward, not from table {from} to {to}")]
    GotoBackwards {
        /// The rule's table.
        from: TableId,
        /// Where it wants to go.
        to: TableId,
    },
    /// `goto_table` is not the last action of the rule.
    #[error("goto_table must be the last action, and not within a clone")]
    GotoNotLast,
    /// The port cannot be sent to.
    #[error("{port} is not a port that can be sent to")]
    WrongPort {
        /// The port.
        port: PortNo,
    },
    /// Not the EtherType of a VLAN tag.
    #[error("{tpid:#06x} is not a VLAN tag's EtherType; use 0x8100 or 0x88a8")]
    WrongTpid {
        /// The EtherType.
        tpid: u16,
    },
    /// Not the EtherType of MPLS.
    #[error("{eth_type:#06x} is not an EtherType of MPLS; use 0x8847 or 0x8848")]
    WrongLabelType {
        /// The EtherType.
        eth_type: u16,
    },
    /// Less than an Ethernet header would be left.
    #[error("cannot cut frames to {max_len} bytes; at least {MIN_TRUNCATED} are left")]
    TooShort {
        /// The bytes.
        max_len: u32,
    },
    /// A field that is always there.
    #[error("`{field}` cannot be deleted; Geneve options (`tun_metadata0` to `63`) can")]
    NotDeletable {
        /// The field.
        field: Field,
    },
    /// The number of a link does not fit.
    #[error("`{dst}` has no room for {n_links} links, of which there must be at least 1")]
    TooManyLinks {
        /// Number of links.
        n_links: u32,
        /// Where it is to be written.
        dst: SubField,
    },
    /// A port number does not fit.
    #[error("`{dst}` has no room for a port number, which has 16 bits")]
    NoRoomForPort {
        /// Where it is to be written.
        dst: SubField,
    },
    /// Too large a bundle.
    #[error("more than {MAX_MEMBERS} members")]
    TooManyMembers,
    /// A clause that cannot be.
    #[error("clause {clause} of {n_clauses}: a conjunction has 2 to {MAX_CLAUSES} clauses, counted from 1")]
    WrongClause {
        /// Which clause.
        clause: u8,
        /// Of how many.
        n_clauses: u8,
    },
    /// A rule of a conjunction does something else.
    #[error("only `note` can stand beside `conjunction`, and neither within a clone")]
    ConjunctionNotAlone,
    /// The action has no place in a set.
    #[error("`{action}` cannot be in an action set or a bucket")]
    NotInActionSet {
        /// The action.
        action: String,
    },
    /// Instructions in another order than OpenFlow's.
    #[error(
        "`{instruction}` must come before what it follows, once, and not within a clone; the order is actions, clear_actions, write_actions, write_metadata, goto_table"
    )]
    InstructionOrder {
        /// The instruction.
        instruction: &'static str,
    },
    /// The meter is not there.
    #[error("there is no meter {id}; add it first")]
    NoSuchMeter {
        /// The meter.
        id: MeterId,
    },
    /// Something about a group.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// Something about a meter.
    #[error(transparent)]
    Meter(#[from] MeterError),
    /// Something about a named set.
    #[error(transparent)]
    Set(#[from] SetError),
    /// Something about a Geneve option.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// A field has no order, or the range is none of its.
    #[error("`{field}` cannot be matched by a range or set, or the range is beyond its {} bits", .field.info().n_bits)]
    WrongValues {
        /// The field.
        field: Field,
    },
    /// Too many ranges and sets.
    #[error("more than {MAX_MEMBERSHIPS} ranges and sets in a match")]
    TooManyMemberships,
    /// Another rule can match the same packets.
    #[error("it overlaps `{other}`")]
    Overlap {
        /// The other rule.
        other: String,
    },
    /// No room.
    #[error("table {table} is full: it takes {max} rules")]
    TableFull {
        /// The table.
        table: TableId,
        /// Rules that it takes.
        max: usize,
    },
    /// Names of tables are unique.
    #[error("table {table} has the name `{name}` already")]
    TableNameTaken {
        /// The name.
        name: String,
        /// The table that has it.
        table: TableId,
    },
    /// `force` or `exec` without `commit`.
    #[error("`{option}` of a ct action needs `commit`")]
    CtWithoutCommit {
        /// The option.
        option: &'static str,
    },
    /// Something else than the mark or label is changed within `exec`.
    #[error("exec of a ct action can only set `ct_mark` and `ct_label`")]
    CtExec,
    /// A zone, timeout policy or range that there cannot be.
    #[error("a ct action's zone has 16 bits, its timeout policy is below 16, and its ranges rise")]
    CtRange,
    /// An answer is one bit.
    #[error("`{dst}` is not a single bit")]
    NotOneBit {
        /// Where it is to be written.
        dst: SubField,
    },
    /// No packet would be sampled.
    #[error("the probability of a sample is 1 to 65535")]
    NoProbability,
    /// A value and its place in a learned rule do not fit together.
    #[error("cannot learn {n_bits} bits of `{dst}`")]
    LearnWidths {
        /// Bits of the value.
        n_bits: u32,
        /// Their place.
        dst: SubField,
    },
    /// Too deep.
    #[error("clones are nested deeper than {MAX_NESTING}")]
    TooDeep,
    /// Too many.
    #[error("more than {MAX_ACTIONS} actions")]
    TooManyActions,
}

impl Prerequisites {
    /// The match that satisfies them, in words.
    pub fn describe(self) -> &'static str {
        match self {
            Self::None => "nothing",
            Self::Vlan => "a VLAN tag in the match: `dl_vlan` or `vlan_tci=0x1000/0x1000`",
            Self::Mpls => "`mpls` or `mplsm` in the match",
            Self::Ipv4 => "`ip` in the match",
            Self::Ipv6 => "`ipv6` in the match",
            Self::Ip => "`ip` or `ipv6` in the match",
            Self::Arp => "`arp` or `rarp` in the match",
            Self::Tcp => "`tcp` or `tcp6` in the match",
            Self::Udp => "`udp` or `udp6` in the match",
            Self::Sctp => "`sctp` or `sctp6` in the match",
            Self::Icmp => "`icmp` in the match",
            Self::Icmpv6 => "`icmp6` in the match",
            Self::Nd => "`icmp6,icmp_type=135,icmp_code=0` or `icmp6,icmp_type=136,icmp_code=0` in the match",
            Self::NdSolicit => "`icmp6,icmp_type=135,icmp_code=0` in the match",
            Self::NdAdvert => "`icmp6,icmp_type=136,icmp_code=0` in the match",
        }
    }
}
