//! What lookups in tables ended at last: most first packets ask a table what those before them
//! asked.
//!
//! A table answers by some bits of the key, and tells which: a packet that agrees in them gets the
//! same answer and has the same bits recorded. In most tables of a pipeline these are few (a
//! network, a port, a protocol), the same for all new conversations, and one comparison stands for
//! the search of all masks of the table.
//!
//! Tables that look at what differs between packets never answer twice the same; nobody asks their
//! recent answers for a while then.

use std::sync::{Arc, Weak};

use crate::{
    flow::Rule,
    key::{Examined, Tracked},
    table::{RulePlace, Tables},
    types::TableId,
};

/// Answers that are kept for a table.
const N_ANSWERS: usize = 4;
/// Lookups after which a table is judged, and how many of them recent answers must have spared.
const JUDGED_AFTER: u16 = 32;
const WORTH: u16 = 8;
/// Lookups of a table that was found not worth it until it is tried again.
const REST: u16 = 1024;

/// The recent answers of all tables, in one version of them.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    /// The version; nothing else can be where it is as long as this is kept.
    version: Weak<Tables>,
    /// By table.
    tables: Vec<RecentOfTable>,
    /// Rules that the last walk passed: the next will hardly pass more.
    pub(super) n_rules: usize,
}

#[derive(Debug, Default)]
struct RecentOfTable {
    /// The last used first.
    answers: Vec<Answer>,
    n_lookups: u16,
    n_spared: u16,
    /// Lookups left that nothing is kept of.
    resting: u16,
}

/// What a table answers packets that agree in some bits.
#[derive(Debug)]
struct Answer {
    /// The bits, and what they are.
    examined: Examined,
    /// The rule; `None`: the table has none for them.
    rule: Option<RulePlace>,
}

impl Recent {
    /// As [`Tables::lookup`].
    pub(super) fn lookup<'a>(
        &mut self,
        tables: &'a Arc<Tables>,
        table: TableId,
        key: &mut Tracked,
    ) -> Option<&'a Arc<Rule>> {
        if !std::ptr::eq(self.version.as_ptr(), Arc::as_ptr(tables)) {
            self.version = Arc::downgrade(tables);
            self.tables.iter_mut().for_each(|table| table.answers.clear());
        }
        let idx = usize::from(table.get());
        if self.tables.len() <= idx {
            self.tables.resize_with(idx + 1, RecentOfTable::default);
        }
        let recent = &mut self.tables[idx];
        if recent.rests() {
            return tables.lookup(table, key);
        }
        recent.n_lookups += 1;
        if let Some(at) = recent.answers.iter().position(|answer| key.agrees(&answer.examined)) {
            recent.answers.swap(0, at);
            let Answer { examined, rule } = &recent.answers[0];
            let found = rule.map(|place| tables.rule_at(table, place));
            // A place that leads nowhere is not of this version.
            if found.is_none_or(|rule| rule.is_some()) {
                recent.n_spared += 1;
                key.record_again(examined);
                return found.flatten();
            }
        }
        let (found, examined) = key.examine(|key| tables.lookup(table, key));
        let rule = found.map(|rule| tables.place_of(rule));
        if rule.is_none_or(|place| place.is_some()) {
            recent.keep(Answer { examined, rule: rule.flatten() });
        }
        found
    }
}

impl RecentOfTable {
    /// Nothing is looked for nor kept now; judges whether it shall be so.
    fn rests(&mut self) -> bool {
        if self.resting > 0 {
            self.resting -= 1;
            return true;
        }
        if self.n_lookups >= JUDGED_AFTER {
            let is_worth_it = self.n_spared >= WORTH;
            (self.n_lookups, self.n_spared) = (0, 0);
            if !is_worth_it {
                self.resting = REST;
                self.answers.clear();
            }
        }
        false
    }

    /// Keeps an answer, in the place of the one that was used least lately.
    fn keep(&mut self, answer: Answer) {
        if self.answers.len() >= N_ANSWERS {
            self.answers.pop();
        }
        self.answers.insert(0, answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        key::FlowKey,
        pipeline::{NoTrace, random, translate, translate_recalling},
        port::PortTable,
        snapshot::Snapshot,
        text::parse_flow,
    };

    fn snapshot(epoch: u64, rules: &str) -> Arc<Snapshot> {
        let parse = |line: &str| parse_flow(line.trim(), &PortTable::default()).unwrap();
        random::snapshot(epoch, &rules.lines().map(parse).collect::<Vec<_>>())
    }

    /// UDP over IPv4, from a host and a port.
    fn packet(n: u32) -> FlowKey {
        let mut key = FlowKey::zero();
        key.in_port.set(1);
        key.eth_type.set(0x0800);
        key.nw_proto = 17;
        key.nw_src.set(0x0a00_0000 | n);
        key.tp_src.set(n as u16);
        key
    }

    const RULES: &str = "table=0,priority=2,udp,nw_src=10.0.0.0/8,actions=load:7->NXM_NX_REG0[],resubmit(,1)
        table=1,priority=9,tcp,reg0=7,tp_dst=80,actions=drop
        table=1,priority=8,udp,reg0=6,actions=drop
        table=1,priority=1,udp,reg0=7,actions=resubmit(,2)
        table=2,priority=7,udp,tp_src=1,actions=drop
        table=2,priority=7,udp,tp_src=0x200/0x200,actions=drop";

    #[test]
    fn tables_are_searched_for_what_is_new() {
        let snapshot = snapshot(1, RULES);
        let mut recent = Recent::default();
        for n in 0..4000 {
            let key = packet(n);
            let recalled = translate_recalling(&snapshot, &key, None, &mut recent);
            let plain = translate(&snapshot, &key, &mut NoTrace);
            assert_eq!((recalled.mask, recalled.rules.len()), (plain.mask, plain.rules.len()), "{n}");
        }
        let n_answers = |table: usize| recent.tables[table].answers.len();
        assert_eq!([0, 1].map(n_answers), [1, 1], "one answer is enough for all");
        assert!(n_answers(2) <= N_ANSWERS && n_answers(2) > 0);
        assert!(recent.tables[0].n_spared + 1 >= recent.tables[0].n_lookups);
    }

    #[test]
    fn a_table_that_never_repeats_itself_is_left_alone() {
        let rules: String =
            (0..2000).map(|n| format!("table=0,priority=2,udp,tp_src={n},actions=drop\n")).collect();
        let snapshot = snapshot(1, &rules);
        let mut recent = Recent::default();
        let n_kept: usize = (0..2000)
            .filter(|n| {
                translate_recalling(&snapshot, &packet(*n), None, &mut recent);
                recent.tables[0].resting == 0
            })
            .count();
        assert!(n_kept <= 3 * usize::from(JUDGED_AFTER), "{n_kept} lookups were remembered");
    }

    #[test]
    fn answers_are_of_one_version() {
        let mut recent = Recent::default();
        let versions = [snapshot(1, RULES), snapshot(1, "table=0,priority=1,udp,actions=drop")];
        for n in 0..50 {
            let version = &versions[n as usize % 2];
            let recalled = translate_recalling(version, &packet(n), None, &mut recent);
            let plain = translate(version, &packet(n), &mut NoTrace);
            assert_eq!(recalled.mask, plain.mask);
            assert!(recalled.rules.iter().map(Arc::as_ptr).eq(plain.rules.iter().map(Arc::as_ptr)));
        }
    }
}
