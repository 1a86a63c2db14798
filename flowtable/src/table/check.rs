//! What may be in a table. A rule that passes has one meaning: its match names only
//! headers that it requires to be there, and its actions can be carried out.

use std::sync::LazyLock;

use super::{error::RuleError, group_change::check_allowed};
use crate::{
    conntrack::{N_POLICIES, Nat},
    field::{Field, Prerequisites, SubField},
    flow::{Action, Bundle, Ct, CtZone, Match, Membership, Multipath, Rule, Values},
    key::{FlowMask, N_WORDS, low_bits},
    set::SetKind,
    types::{PortNo, TableId},
};

/// Clones within clones that a rule may have.
pub(crate) const MAX_NESTING: usize = 16;
/// Actions that a rule may have, nested ones included: room for a flood to all hosts of
/// a large network, and an end to what one packet can cost.
pub(crate) const MAX_ACTIONS: usize = 16_384;
/// Bytes that truncation leaves at least: an Ethernet header.
pub(crate) const MIN_TRUNCATED: u32 = 14;
/// Clauses of a conjunction.
pub(crate) const MAX_CLAUSES: u8 = 64;
/// Members of a bundle.
pub(crate) const MAX_MEMBERS: usize = 2048;
/// Ranges and sets of a match: a lookup goes as deep as there are.
pub(crate) const MAX_MEMBERSHIPS: usize = 32;
/// CFI bit of a TCI, in the key: a tag is there.
const PRESENT: u128 = 0x1000;

/// Checks a whole rule, for whoever wants to know before a transaction.
///
/// # Errors
/// Says why the rule may not be in a table.
pub fn check_rule(rule: &Rule) -> Result<(), RuleError> {
    check_match(&rule.matching)?;
    let mut n_actions = 0;
    let mut checker =
        Checker { table: rule.table, state: Some(rule.matching.clone()), n_actions: &mut n_actions };
    checker.list(&rule.actions, 0)
}

/// Checks the actions of a bucket, which any packet may come to: one that lacks a header
/// is left as it is.
pub(super) fn check_set(actions: &[Action]) -> Result<(), RuleError> {
    check_allowed(actions)?;
    Checker { table: TableId::FIRST, state: None, n_actions: &mut 0 }.list(actions, 1)
}

/// Where an instruction stands among the others; 0: actions.
fn instruction(action: &Action) -> (u8, &'static str) {
    match action {
        Action::ClearActions => (1, "clear_actions"),
        Action::WriteActions(_) => (2, "write_actions"),
        Action::WriteMetadata { .. } => (3, "write_metadata"),
        Action::GotoTable(_) => (4, "goto_table"),
        _ => (0, "actions"),
    }
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
    if matching.memberships().len() > MAX_MEMBERSHIPS {
        return Err(RuleError::TooManyMemberships);
    }
    matching.memberships().iter().try_for_each(|membership| check_membership(matching, membership))
}

/// A field that has the place of the membership's is there in all packets that match, and
/// has an order.
fn check_membership(matching: &Match, Membership { field, values }: &Membership) -> Result<(), RuleError> {
    let beyond = match values {
        Values::Range(range) => range.last() > field.all_bits(),
        Values::Set(_) => false,
    };
    if beyond || SetKind::of(*field).is_none() {
        return Err(RuleError::WrongValues { field: *field });
    }
    let mut fields = Field::ALL.iter().filter(|other| other.shares_place(*field));
    if fields.any(|field| matching.satisfies(field.info().prerequisites)) {
        return Ok(());
    }
    Err(RuleError::Prerequisites { field: *field, needs: field.info().prerequisites })
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
pub(super) struct Checker<'a> {
    table: TableId,
    /// What the match requires and the actions so far have made of it, as far as
    /// prerequisites depend on it; `None`: nothing is required.
    state: Option<Match>,
    n_actions: &'a mut usize,
}

impl Checker<'_> {
    fn list(&mut self, actions: &[Action], depth: usize) -> Result<(), RuleError> {
        *self.n_actions += actions.len();
        if *self.n_actions > MAX_ACTIONS {
            return Err(RuleError::TooManyActions);
        }
        let is_part = |action: &Action| matches!(action, Action::Conjunction { .. });
        let goes_along = |action: &Action| is_part(action) || matches!(action, Action::Note(_));
        if actions.iter().any(is_part) && !actions.iter().all(goes_along) {
            return Err(RuleError::ConjunctionNotAlone);
        }
        let mut last = 0;
        for (idx, action) in actions.iter().enumerate() {
            let is_last = depth == 0 && idx + 1 == actions.len();
            self.action(action, depth, is_last)?;
            let (place, name) = instruction(action);
            if place < last || place != 0 && (place == last || depth != 0) {
                let instruction = if place == 0 { instruction(&actions[idx - 1]).1 } else { name };
                return Err(RuleError::InstructionOrder { instruction });
            }
            last = place;
        }
        Ok(())
    }

    fn action(&mut self, action: &Action, depth: usize, is_last: bool) -> Result<(), RuleError> {
        match action {
            Action::Output(port) => check_output(*port),
            Action::OutputReg(sub) => self.readable(*sub),
            Action::SetField { field, value, mask } => self.set_field(*field, *value, *mask),
            Action::Move { src, dst } => self.move_bits(*src, *dst),
            Action::Resubmit { .. }
            | Action::ResubmitCt { .. }
            | Action::SetTunnel(_)
            | Action::SetQueue(_)
            | Action::PopQueue
            | Action::Controller(_)
            | Action::Exit
            | Action::Note(_)
            | Action::Group(_)
            | Action::Meter(_)
            | Action::ClearActions
            | Action::WriteMetadata { .. } => Ok(()),
            Action::OutputTruncated { max_len, .. } if *max_len < MIN_TRUNCATED => {
                Err(RuleError::TooShort { max_len: *max_len })
            }
            // The table's actions would not know of it.
            Action::OutputTruncated { port: PortNo::TABLE, .. }
            | Action::Enqueue { port: PortNo::TABLE, .. } => {
                Err(RuleError::WrongPort { port: PortNo::TABLE })
            }
            Action::OutputTruncated { port, .. } | Action::Enqueue { port, .. } => check_output(*port),
            Action::PushMpls(eth_type) | Action::PopMpls(eth_type) => {
                self.relabel(matches!(action, Action::PushMpls(_)), *eth_type)
            }
            Action::DecMplsTtl => self.needs("dec_mpls_ttl", Prerequisites::Mpls),
            Action::Push(sub) => self.readable(*sub),
            Action::Pop(sub) => self.readable(*sub).and_then(|()| self.writable(sub.field)),
            Action::DeleteField(field) if Field::TUN_METADATA.contains(field) => Ok(()),
            Action::DeleteField(field) => Err(RuleError::NotDeletable { field: *field }),
            Action::Multipath(multipath) => self.multipath(multipath),
            Action::Bundle(bundle) => self.bundle(bundle),
            Action::Conjunction { clause, n_clauses, .. } => check_conjunction(*clause, *n_clauses, depth),
            Action::WriteActions(actions) => {
                check_allowed(actions)?;
                let state = self.state.clone();
                Checker { table: self.table, state, n_actions: self.n_actions }.list(actions, depth + 1)
            }
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
            Action::DecTtl | Action::DecTtlOrTell(_) => self.needs("dec_ttl", Prerequisites::Ip),
            Action::Ct(ct) => self.ct(ct, depth),
            Action::CtClear => Ok(()),
            Action::Learn(learn) => self.learn(learn),
            Action::FinTimeout { .. } => self.needs("fin_timeout", Prerequisites::Tcp),
            Action::CheckPktLarger { dst, .. } => self.writable_bit(*dst),
            Action::Sample(sample) if sample.probability == 0 => Err(RuleError::NoProbability),
            Action::Sample(_) => Ok(()),
            Action::PushVlan(tpid) => self.push_vlan(*tpid),
            Action::PopVlan => {
                self.pop_vlan();
                Ok(())
            }
        }
    }

    fn needs(&self, action: &'static str, needs: Prerequisites) -> Result<(), RuleError> {
        if self.satisfies(needs) { Ok(()) } else { Err(RuleError::ActionPrerequisites { action, needs }) }
    }

    fn relabel(&mut self, push: bool, eth_type: u16) -> Result<(), RuleError> {
        if push && !matches!(eth_type, 0x8847 | 0x8848) {
            return Err(RuleError::WrongLabelType { eth_type });
        }
        if !push {
            self.needs("pop_mpls", Prerequisites::Mpls)?;
        }
        self.state = self.state.take().map(|state| state.with(Field::EthType, eth_type.into()));
        Ok(())
    }

    fn multipath(&self, multipath: &Multipath) -> Result<(), RuleError> {
        let dst = multipath.dst;
        self.readable(dst)?;
        self.writable(dst.field)?;
        let room = low_bits(dst.n_bits.min(32));
        if multipath.n_links == 0 || u128::from(multipath.n_links - 1) > room {
            return Err(RuleError::TooManyLinks { n_links: multipath.n_links, dst });
        }
        Ok(())
    }

    fn bundle(&self, bundle: &Bundle) -> Result<(), RuleError> {
        bundle.members.iter().try_for_each(|port| check_output(*port))?;
        if bundle.members.len() > MAX_MEMBERS {
            return Err(RuleError::TooManyMembers);
        }
        match bundle.dst {
            Some(dst) if dst.n_bits < 16 => Err(RuleError::NoRoomForPort { dst }),
            Some(dst) => self.readable(dst).and_then(|()| self.writable(dst.field)),
            None => Ok(()),
        }
    }

    pub(super) fn readable(&self, sub: SubField) -> Result<(), RuleError> {
        SubField::new(sub.field, sub.start, sub.n_bits).ok_or(RuleError::WrongSubField { sub })?;
        self.has_prerequisites(sub.field)
    }

    fn has_prerequisites(&self, field: Field) -> Result<(), RuleError> {
        let needs = field.info().prerequisites;
        if self.satisfies(needs) { Ok(()) } else { Err(RuleError::Prerequisites { field, needs }) }
    }

    fn satisfies(&self, needs: Prerequisites) -> bool {
        self.state.as_ref().is_none_or(|state| state.satisfies(needs))
    }

    pub(super) fn writable(&self, field: Field) -> Result<(), RuleError> {
        if !field.info().writable {
            return Err(RuleError::NotWritable { field });
        }
        self.has_prerequisites(field)
    }

    /// A bit for an answer.
    pub(super) fn writable_bit(&self, dst: SubField) -> Result<(), RuleError> {
        self.readable(dst)?;
        if dst.n_bits != 1 {
            return Err(RuleError::NotOneBit { dst });
        }
        self.writable(dst.field)
    }

    /// A checker for what is known of packets that match.
    pub(super) fn within<'s>(&'s mut self, state: Option<Match>) -> Checker<'s> {
        Checker { table: self.table, state, n_actions: self.n_actions }
    }

    fn set_field(&mut self, field: Field, value: u128, mask: u128) -> Result<(), RuleError> {
        self.writable(field)?;
        if mask == 0 || mask & !field.all_bits() != 0 || value & !field.all_bits() != 0 {
            return Err(RuleError::WrongValue { field });
        }
        // Whether a tag or an ND message is there may follow from what is set.
        let matters = [Field::VlanTci, Field::VlanVidOxm, Field::Icmpv6Type, Field::Icmpv6Code];
        if matters.contains(&field) {
            self.state = self.state.take().map(|state| state.with_masked(field, value, mask));
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
        self.needs("ct", Prerequisites::Ip)?;
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
        let (value, mask) = self.state.as_ref().map_or((0, 0), |state| state.get(field));
        value & mask & PRESENT
    }

    fn set_tag(&mut self, field: Field, present: u128) {
        self.state = self.state.take().map(|state| state.with_masked(field, present, PRESENT));
    }
}

fn check_conjunction(clause: u8, n_clauses: u8, depth: usize) -> Result<(), RuleError> {
    let fits = (2..=MAX_CLAUSES).contains(&n_clauses) && (1..=n_clauses).contains(&clause);
    match (fits, depth) {
        (false, _) => Err(RuleError::WrongClause { clause, n_clauses }),
        (true, 0) => Ok(()),
        (true, _) => Err(RuleError::ConjunctionNotAlone),
    }
}

pub(super) fn check_output(port: PortNo) -> Result<(), RuleError> {
    let reserved = [
        PortNo::IN_PORT,
        PortNo::NORMAL,
        PortNo::FLOOD,
        PortNo::ALL,
        PortNo::CONTROLLER,
        PortNo::LOCAL,
        PortNo::NONE,
        PortNo::TABLE,
    ];
    if port.is_real() || reserved.contains(&port) { Ok(()) } else { Err(RuleError::WrongPort { port }) }
}
