//! The rule of highest priority that matches, by looking at all; and conjunctions
//! (ovs-fields(7), "Conjunctive Match Fields").

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    field::Field,
    frame::View,
    state::State,
    syntax::{Flow, Matching, NamedSet, Rules, Step, Values},
};

/// A packet as a lookup sees it.
struct Seen<'a> {
    state: &'a State,
    view: View,
    in_port: Option<u32>,
    /// Addresses and ports are those of the connection's first packet.
    ct: bool,
    conj_id: u32,
    sets: &'a [NamedSet],
}

/// The rule for a packet: that of the highest priority that matches, be it by the clauses of a
/// conjunction that leads to a rule; then, also a rule of the conjunction.
pub(super) fn find<'a>(
    rules: &'a Rules,
    learned: &'a [Flow],
    table: u8,
    state: &State,
    in_port: Option<u32>,
    ct: bool,
) -> Option<(&'a Flow, Option<&'a Flow>)> {
    let is_tuple = ct && state.get(Field::CtNwProto) != 0;
    let mut seen = Seen { state, view: state.view(), in_port, ct: is_tuple, conj_id: 0, sets: &[] };
    if is_tuple && let Ok(proto) = u8::try_from(state.get(Field::CtNwProto)) {
        if matches!(seen.view.eth_type, 0x0800 | 0x86dd) {
            seen.view.proto = proto;
        } else {
            seen.ct = false;
        }
    }
    seen.sets = &rules.sets;
    let in_table = || rules.flows.iter().chain(learned).filter(|flow| flow.table == table);
    let plain = best(in_table(), &seen);
    let above = plain.map_or(-1, |flow| i32::from(flow.priority));
    let mut clauses: BTreeMap<(u16, u32), (BTreeSet<u8>, BTreeSet<u8>)> = BTreeMap::new();
    for flow in in_table().filter(|flow| is_part(flow) && i32::from(flow.priority) > above) {
        if !matches(&flow.matching, &seen) {
            continue;
        }
        for step in &flow.steps {
            if let Step::Conjunction { id, clause, n_clauses } = step {
                // Of high priorities the highest first, of equal ones the lowest id.
                let (met, sizes) = clauses.entry((u16::MAX - flow.priority, *id)).or_default();
                met.insert(*clause);
                sizes.insert(*n_clauses);
            }
        }
    }
    for ((_, id), (met, sizes)) in clauses {
        if sizes.len() == 1 && sizes.contains(&(met.len() as u8)) {
            seen.conj_id = id;
            let found = best(in_table(), &seen);
            let is_other = |flow: &&Flow| plain.is_none_or(|plain| !std::ptr::eq(plain, *flow));
            if let Some(found) = found.filter(is_other) {
                let is_mine = |step: &Step| matches!(step, Step::Conjunction { id: mine, .. } if *mine == id);
                let part = in_table().find(|flow| flow.steps.iter().any(is_mine));
                return Some((found, part));
            }
        }
    }
    plain.map(|flow| (flow, None))
}

fn is_part(flow: &Flow) -> bool {
    flow.steps.iter().any(|step| matches!(step, Step::Conjunction { .. }))
}

fn best<'a>(flows: impl Iterator<Item = &'a Flow>, seen: &Seen<'_>) -> Option<&'a Flow> {
    flows.filter(|flow| !is_part(flow) && matches(&flow.matching, seen)).max_by_key(|flow| flow.priority)
}

fn matches(matching: &Matching, seen: &Seen<'_>) -> bool {
    let kind = matching.kind.is_none_or(|kind| {
        let (_, eth_type, proto) = kind.meaning();
        seen.view.eth_type == eth_type && proto.is_none_or(|proto| seen.view.proto == proto)
    });
    kind && matching.terms.iter().all(|term| (seen.value(term.field) ^ term.value) & term.mask == 0)
        && matching.members.iter().all(|member| {
            let value = seen.value(member.field);
            match &member.values {
                Values::Range(first, last) => (*first..=*last).contains(&value),
                Values::Set(name) => seen.sets.iter().any(|set| set.name == *name && set.has(value)),
            }
        })
}

impl Seen<'_> {
    fn value(&self, field: Field) -> u128 {
        match (field, self.in_port) {
            (Field::InPort, Some(port)) => port.into(),
            (Field::ConjId, _) => self.conj_id.into(),
            _ => {
                let field = if self.ct { original(field) } else { field };
                self.state.get_in(&self.view, field)
            }
        }
    }
}

/// Where the connection's first packet has a field.
fn original(field: Field) -> Field {
    match field {
        Field::NwSrc => Field::CtNwSrc,
        Field::NwDst => Field::CtNwDst,
        Field::Ipv6Src => Field::CtIpv6Src,
        Field::Ipv6Dst => Field::CtIpv6Dst,
        Field::NwProto => Field::CtNwProto,
        Field::TcpSrc | Field::UdpSrc | Field::SctpSrc | Field::IcmpType | Field::Icmpv6Type => {
            Field::CtTpSrc
        }
        Field::TcpDst | Field::UdpDst | Field::SctpDst | Field::IcmpCode | Field::Icmpv6Code => {
            Field::CtTpDst
        }
        field => field,
    }
}
