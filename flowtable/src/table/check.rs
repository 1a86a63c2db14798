//! What may be in a table. A rule that passes has one meaning: its match names only
//! headers that it requires to be there, and its actions can be carried out.

use std::sync::LazyLock;

use crate::{
    conntrack::{N_POLICIES, Nat},
    field::{Field, Prerequisites, SubField},
    flow::{Action, Ct, CtZone, Match, Rule},
    key::{FlowMask, N_WORDS},
    types::{PortNo, TableId},
};

/// Clones within clones that a rule may have.
pub(crate) const MAX_NESTING: usize = 16;
/// Actions that a rule may have, nested ones included: room for a flood to all hosts of
/// a large network, and an end to what one packet can cost.
pub(crate) const MAX_ACTIONS: usize = 16_384;
/// CFI bit of a TCI, in the key: a tag is there.
const PRESENT: u128 = 0x1000;

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

/// Checks a whole rule, for whoever wants to know before a transaction.
///
/// # Errors
/// Says why the rule may not be in a table.
pub fn check_rule(rule: &Rule) -> Result<(), RuleError> {
    check_match(&rule.matching)?;
    let mut n_actions = 0;
    let mut checker = Checker { table: rule.table, state: rule.matching.clone(), n_actions: &mut n_actions };
    checker.list(&rule.actions, 0)
}

/// Each matched bit belongs to a field whose prerequisites the match requires, and
/// which is matched whole where it is one piece.
pub(crate) fn check_match(matching: &Match) -> Result<(), RuleError> {
    for word in matching.words() {
        let fields = FIELDS_OF_WORD.get(usize::from(word.idx)).ok_or(RuleError::NoSuchBits)?;
        let mut unexplained = word.mask;
        let mut complaint = RuleError::NoSuchBits;
        for (field, bits) in fields.iter().filter(|(_, bits)| bits & word.mask != 0) {
            let info = field.info();
            let error = if !matching.satisfies(info.prerequisites) {
                RuleError::Prerequisites { field: *field, needs: info.prerequisites }
            } else if !info.maskable && matching.get(*field).1 != field.all_bits() {
                RuleError::NotMaskable { field: *field }
            } else {
                unexplained &= !bits;
                continue;
            };
            // "Only whole" is the better advice: that field is the one that was meant.
            let better = matches!(error, RuleError::NotMaskable { .. });
            if unexplained & bits != 0 && (better || complaint == RuleError::NoSuchBits) {
                complaint = error;
            }
        }
        if unexplained != 0 {
            return Err(complaint);
        }
    }
    Ok(())
}

/// Fields that have bits in each word of the key, and which.
static FIELDS_OF_WORD: LazyLock<Vec<Vec<(Field, u64)>>> = LazyLock::new(|| {
    let mut fields = vec![Vec::new(); N_WORDS];
    for field in Field::ALL {
        let mut mask = FlowMask::empty();
        mask.add(*field, field.all_bits());
        for (list, bits) in fields.iter_mut().zip(mask.words()).filter(|(_, bits)| **bits != 0) {
            list.push((*field, *bits));
        }
    }
    fields
});

/// Walks a list of actions, with what is known of the packet at each of them.
struct Checker<'a> {
    table: TableId,
    /// What the match requires and the actions so far have made of it, as far as
    /// prerequisites depend on it.
    state: Match,
    n_actions: &'a mut usize,
}

impl Checker<'_> {
    fn list(&mut self, actions: &[Action], depth: usize) -> Result<(), RuleError> {
        *self.n_actions += actions.len();
        if *self.n_actions > MAX_ACTIONS {
            return Err(RuleError::TooManyActions);
        }
        for (idx, action) in actions.iter().enumerate() {
            let is_last = depth == 0 && idx + 1 == actions.len();
            self.action(action, depth, is_last)?;
        }
        Ok(())
    }

    fn action(&mut self, action: &Action, depth: usize, is_last: bool) -> Result<(), RuleError> {
        match action {
            Action::Output(port) => check_output(*port),
            Action::OutputReg(sub) => self.readable(*sub),
            Action::SetField { field, value, mask } => self.set_field(*field, *value, *mask),
            Action::Move { src, dst } => self.move_bits(*src, *dst),
            Action::Resubmit { .. } | Action::SetTunnel(_) => Ok(()),
            Action::GotoTable(_) if !is_last => Err(RuleError::GotoNotLast),
            Action::GotoTable(to) if *to <= self.table => {
                Err(RuleError::GotoBackwards { from: self.table, to: *to })
            }
            Action::GotoTable(_) => Ok(()),
            Action::Clone(_) if depth >= MAX_NESTING => Err(RuleError::TooDeep),
            Action::Clone(actions) => {
                let state = self.state.clone();
                Checker { table: self.table, state, n_actions: self.n_actions }.list(actions, depth + 1)
            }
            Action::DecTtl if !self.state.satisfies(Prerequisites::Ip) => {
                Err(RuleError::ActionPrerequisites { action: "dec_ttl", needs: Prerequisites::Ip })
            }
            Action::DecTtl => Ok(()),
            Action::Ct(ct) => self.ct(ct, depth),
            Action::CtClear => Ok(()),
            Action::PushVlan(tpid) => self.push_vlan(*tpid),
            Action::PopVlan => {
                self.pop_vlan();
                Ok(())
            }
        }
    }

    fn readable(&self, sub: SubField) -> Result<(), RuleError> {
        SubField::new(sub.field, sub.start, sub.n_bits).ok_or(RuleError::WrongSubField { sub })?;
        self.has_prerequisites(sub.field)
    }

    fn has_prerequisites(&self, field: Field) -> Result<(), RuleError> {
        let needs = field.info().prerequisites;
        if self.state.satisfies(needs) { Ok(()) } else { Err(RuleError::Prerequisites { field, needs }) }
    }

    fn writable(&self, field: Field) -> Result<(), RuleError> {
        if !field.info().writable {
            return Err(RuleError::NotWritable { field });
        }
        self.has_prerequisites(field)
    }

    fn set_field(&mut self, field: Field, value: u128, mask: u128) -> Result<(), RuleError> {
        self.writable(field)?;
        if mask == 0 || mask & !field.all_bits() != 0 || value & !field.all_bits() != 0 {
            return Err(RuleError::WrongValue { field });
        }
        // Whether a tag or an ND message is there may follow from what is set.
        let matters = [Field::VlanTci, Field::VlanVidOxm, Field::Icmpv6Type, Field::Icmpv6Code];
        if matters.contains(&field) {
            self.state = std::mem::take(&mut self.state).with_masked(field, value, mask);
        }
        Ok(())
    }

    fn move_bits(&self, src: SubField, dst: SubField) -> Result<(), RuleError> {
        self.readable(src)?;
        self.readable(dst)?;
        self.writable(dst.field)?;
        if src.n_bits == dst.n_bits { Ok(()) } else { Err(RuleError::MoveWidths { src, dst }) }
    }

    fn ct(&mut self, ct: &Ct, depth: usize) -> Result<(), RuleError> {
        if !self.state.satisfies(Prerequisites::Ip) {
            return Err(RuleError::ActionPrerequisites { action: "ct", needs: Prerequisites::Ip });
        }
        if let CtZone::Field(sub) = ct.zone {
            self.readable(sub)?;
            if sub.n_bits != 16 {
                return Err(RuleError::CtRange);
            }
        }
        let range_falls = match &ct.nat {
            Some(Nat::New(range)) => {
                range.addresses.is_some_and(|(first, last)| first > last || first.is_ipv4() != last.is_ipv4())
                    || range.ports.is_some_and(|(first, last)| first == 0 || first > last)
            }
            Some(Nat::Existing) | None => false,
        };
        if range_falls || ct.timeout.is_some_and(|policy| usize::from(policy) >= N_POLICIES) {
            return Err(RuleError::CtRange);
        }
        for (option, is_there) in [("force", ct.force), ("exec", !ct.exec.is_empty())] {
            if is_there && !ct.commit {
                return Err(RuleError::CtWithoutCommit { option });
            }
        }
        for action in &ct.exec {
            let written = match action {
                Action::SetField { field, .. } => *field,
                Action::Move { dst, .. } => dst.field,
                _ => return Err(RuleError::CtExec),
            };
            if !matches!(written, Field::CtMark | Field::CtLabel) {
                return Err(RuleError::CtExec);
            }
        }
        self.list(&ct.exec, depth + 1)
    }

    fn push_vlan(&mut self, tpid: u16) -> Result<(), RuleError> {
        if !matches!(tpid, 0x8100 | 0x88a8) {
            return Err(RuleError::WrongTpid { tpid });
        }
        let outer = self.tag(Field::VlanTci);
        self.set_tag(Field::CvlanTci, outer);
        self.set_tag(Field::VlanTci, PRESENT);
        Ok(())
    }

    fn pop_vlan(&mut self) {
        let inner = self.tag(Field::CvlanTci);
        self.set_tag(Field::VlanTci, inner);
        self.set_tag(Field::CvlanTci, 0);
    }

    /// The "present" bit of a tag, where it is known to be set.
    fn tag(&self, field: Field) -> u128 {
        let (value, mask) = self.state.get(field);
        value & mask & PRESENT
    }

    fn set_tag(&mut self, field: Field, present: u128) {
        self.state = std::mem::take(&mut self.state).with_masked(field, present, PRESENT);
    }
}

fn check_output(port: PortNo) -> Result<(), RuleError> {
    let reserved = [
        PortNo::IN_PORT,
        PortNo::NORMAL,
        PortNo::FLOOD,
        PortNo::ALL,
        PortNo::CONTROLLER,
        PortNo::LOCAL,
        PortNo::NONE,
    ];
    if port.is_real() || reserved.contains(&port) { Ok(()) } else { Err(RuleError::WrongPort { port }) }
}
