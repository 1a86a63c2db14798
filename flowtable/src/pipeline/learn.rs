//! `learn` and `fin_timeout`: what a packet makes of rules.

use std::sync::Arc;

use super::{
    Finished, Tracer,
    walk::{Abort, Walk},
    write::holds,
};
use crate::{
    field::{Field, Prerequisites, SubField},
    flow::{Action, Learn, LearnSource, LearnSpec, Learned, Match, Origin, Rule, RuleFlags, RuleLife},
    key::low_bits,
    program::Effect,
    types::{PortNo, Priority, TableId},
};

/// Flags of segments that end a connection: FIN and RST (RFC 9293 §3.1).
const ENDING: u128 = 0x05;

/// What the specs make of a packet.
#[derive(Default)]
struct Draft {
    matching: Match,
    actions: Vec<Action>,
}

impl<T: Tracer> Walk<'_, T> {
    /// Makes a rule out of the packet as it is now. What is in the tables already is part of
    /// the snapshot, so looking there needs no bits of the mask.
    pub(super) fn learn(&mut self, learn: &Learn) -> Result<(), Abort> {
        let Some(teacher) = self.rule() else { return Ok(()) };
        let Some(draft) = self.draft(learn)? else { return Ok(()) };
        self.count_effect()?;
        let Learn { table, priority, cookie, limit, .. } = *learn;
        let tables = &self.snapshot.tables;
        let known = tables.get(table, priority, &draft.matching);
        let fits = known.is_some() || limit == 0 || tables.n_learned(table, cookie) < limit as usize;
        if let Some(dst) = learn.result_dst {
            self.set(dst.field, u128::from(fits) << dst.start, dst.bits())?;
        }
        match known {
            _ if !fits => self.note(format_args!("not learned: {limit} rules are the limit")),
            Some(rule)
                if rule.actions == draft.actions
                    && rule.cookie == cookie
                    && !self.has_learned(table, priority, &draft.matching) =>
            {
                self.note(format_args!("learned already: {rule}"));
                self.tally.renewed.push(Arc::clone(&rule.stats));
            }
            _ => {
                let rule = rule_of(learn, draft, &teacher.origin);
                self.note(format_args!("learned: {rule}"));
                self.effects.push(Effect::Learn(Arc::new(Learned { rule, limit })));
            }
        }
        Ok(())
    }

    /// The packet has made this rule do something else already: of its lessons the last one stays.
    fn has_learned(&self, table: TableId, priority: Priority, matching: &Match) -> bool {
        self.effects.iter().any(|effect| match effect {
            Effect::Learn(learned) => {
                (learned.rule.table, learned.rule.priority) == (table, priority)
                    && learned.rule.matching == *matching
            }
            Effect::Station(_) => false,
        })
    }

    /// Match and actions of the rule; `None`: the packet lacks a header that is needed.
    fn draft(&mut self, learn: &Learn) -> Result<Option<Draft>, Abort> {
        let mut draft = Draft::default();
        let (idle_timeout, hard_timeout) = (learn.fin_idle_timeout, learn.fin_hard_timeout);
        if idle_timeout != 0 || hard_timeout != 0 {
            draft.actions.push(Action::FinTimeout { idle_timeout, hard_timeout });
        }
        for spec in &learn.specs {
            match spec {
                LearnSpec::Match { dst, src } => {
                    let Some(value) = self.learned_value(src)? else { return Ok(None) };
                    draft.matching = draft.matching.with_masked(dst.field, value << dst.start, dst.bits());
                }
                LearnSpec::Load { dst, src } => {
                    let Some(value) = self.learned_value(src)? else { return Ok(None) };
                    let (field, mask) = (dst.field, dst.bits());
                    draft.actions.push(Action::SetField { field, value: value << dst.start & mask, mask });
                }
                LearnSpec::Output(sub) => {
                    let Some(value) = self.learned_value(&LearnSource::Field(*sub))? else {
                        return Ok(None);
                    };
                    let port = u32::try_from(value).ok().and_then(|raw| PortNo::new(raw).ok());
                    draft.actions.extend(port.filter(can_be_learned).map(Action::Output));
                }
            }
        }
        Ok(Some(draft))
    }

    fn learned_value(&mut self, source: &LearnSource) -> Result<Option<u128>, Abort> {
        match source {
            LearnSource::Value(value) => Ok(Some(*value)),
            LearnSource::Field(sub) => self.learned_field(*sub),
        }
    }

    fn learned_field(&mut self, sub: SubField) -> Result<Option<u128>, Abort> {
        let needs = sub.field.info().prerequisites;
        self.see_header(needs)?;
        if !holds(&mut self.key, needs) {
            self.note(format_args!("the packet has no {}: nothing learned", sub.field));
            return Ok(None);
        }
        Ok(Some(self.key.read_sub(sub) & low_bits(sub.n_bits)))
    }

    /// Lowers the timeouts of the rule when the packet ends a TCP connection.
    pub(super) fn fin_timeout(&mut self, idle_timeout: u16, hard_timeout: u16) -> Result<(), Abort> {
        self.see_payload()?;
        let Some(rule) = self.rule() else { return Ok(()) };
        if holds(&mut self.key, Prerequisites::Tcp) && self.key.read_bits(Field::TcpFlags, ENDING) != 0 {
            self.note(format_args!("the connection ends: timeouts are lowered"));
            self.count_effect()?;
            self.tally.finished.push(Finished { rule: Arc::clone(rule), idle_timeout, hard_timeout });
        }
        Ok(())
    }
}

fn rule_of(learn: &Learn, draft: Draft, origin: &Arc<Origin>) -> Rule {
    let flags = if learn.send_flow_rem { RuleFlags::SEND_FLOW_REM } else { RuleFlags::default() };
    let (idle_timeout, hard_timeout) = (learn.idle_timeout, learn.hard_timeout);
    Rule {
        table: learn.table,
        priority: learn.priority,
        matching: draft.matching,
        actions: draft.actions,
        cookie: learn.cookie,
        origin: Arc::clone(origin),
        life: RuleLife { idle_timeout, hard_timeout, flags, ..RuleLife::default() },
        stats: Arc::default(),
    }
}

/// A learned rule may send there.
fn can_be_learned(port: &PortNo) -> bool {
    port.is_real() || matches!(*port, PortNo::IN_PORT | PortNo::FLOOD | PortNo::ALL | PortNo::LOCAL)
}
