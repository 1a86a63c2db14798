//! The switch's sets for those that flows name. A set of addresses becomes one for each
//! kind of address that a flow asks it for (`ip4.web`), or one of all other addresses
//! (`not-ip4.web`); a set of ports, one for each datapath (`ports.7.web`), since keys of
//! ports mean something in their datapath alone. Only sets that flows name are there.
//!
//! A new member is a new member of the switch's set: no rule changes.

use std::collections::BTreeSet;

use flowtable::set::{NamedSet, SetKind, SetName, ValueRange};

use super::{Context, stale::Stale};
use crate::{
    expr::{self, Constant, IntervalSet, Notation},
    key::DatapathKey,
};

/// Where the members of a set of the switch come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SetSource {
    /// As flows name it, `$web`.
    pub(super) set: String,
    kind: SetKind,
    negated: bool,
    /// Of a set of ports: whose ports.
    pub(super) datapath: Option<DatapathKey>,
}

impl SetSource {
    /// The set that a flow needs, with its name; `None`: there can be none.
    pub(super) fn of(
        datapath: DatapathKey,
        set: expr::SetName<'_>,
        kind: SetKind,
        negated: bool,
    ) -> Option<(SetName, Self)> {
        let (not, text) = (if negated { "not-" } else { "" }, set.to_string());
        let id = text.get(1..)?;
        let (name, datapath) = match set {
            expr::SetName::Addresses(_) => (format!("{not}{}.{id}", word(kind)?), None),
            expr::SetName::Ports(_) => (format!("{not}ports.{datapath}.{id}"), Some(datapath)),
            expr::SetName::Variable(_) => return None,
        };
        Some((SetName::new(&name).ok()?, Self { set: text, kind, negated, datapath }))
    }

    /// There is such a set, and all its members are prefixes: with one that is not, it would
    /// be another set.
    pub(super) fn is_sound(&self, context: &Context<'_>) -> bool {
        self.members(context).is_some()
    }

    /// Among members of a set there is one that is no prefix: with it, it is another set.
    pub(super) fn has_odd(set: &str, members: &BTreeSet<String>) -> bool {
        let is_odd = |constant: &Constant| {
            let Constant::Number { value, mask: Some(mask), notation } = constant else { return false };
            let n_bits = match notation {
                Notation::Ipv4 => SetKind::Ipv4.n_bits(),
                Notation::Mac => SetKind::Mac.n_bits(),
                Notation::Ipv6 | Notation::Decimal | Notation::Hex => SetKind::Ipv6.n_bits(),
            };
            IntervalSet::masked(n_bits, *value, *mask).is_none()
        };
        set.starts_with('$') && members.iter().filter_map(|text| expr::constant(text)).any(|one| is_odd(&one))
    }

    /// Ports in the set may have other keys now.
    pub(super) fn is_touched(&self, context: &Context<'_>, stale: &Stale) -> bool {
        let Some(datapath) = self.datapath else { return false };
        let names = stale.names.range((datapath, String::new())..).take_while(|(of, _)| *of == datapath);
        let members = context.view.sets.get(&self.set);
        stale.datapaths.contains(&datapath)
            || names.into_iter().any(|(_, name)| members.is_some_and(|members| members.contains(name)))
    }

    /// The set as it is now.
    pub(super) fn fill(&self, context: &Context<'_>, name: &SetName) -> NamedSet {
        let members = self.members(context).unwrap_or_default();
        let n_bits = if self.kind == SetKind::Number { 32 } else { self.kind.n_bits() };
        let members = if self.negated {
            IntervalSet::new(n_bits, members).complement().parts().collect()
        } else {
            members
        };
        let mut filled = NamedSet::new(name.clone(), self.kind);
        for range in members.into_iter().filter_map(|(lo, hi)| ValueRange::new(lo, hi)) {
            filled.insert(range);
        }
        filled
    }

    fn members(&self, context: &Context<'_>) -> Option<Vec<(u128, u128)>> {
        let texts = context.view.sets.get(&self.set)?;
        if let Some(datapath) = self.datapath {
            let keys = texts.iter().filter_map(|id| context.key(datapath, id));
            return Some(keys.map(|key| (key.into(), key.into())).collect());
        }
        let of_kind = |constant: &Constant| match constant {
            Constant::Number { notation, .. } => match notation {
                Notation::Ipv4 => self.kind == SetKind::Ipv4,
                Notation::Ipv6 => self.kind == SetKind::Ipv6,
                Notation::Mac => self.kind == SetKind::Mac,
                Notation::Decimal | Notation::Hex => true,
            },
            Constant::Port(_) | Constant::AddressSet(_) | Constant::PortGroup(_) | Constant::Variable(_) => {
                false
            }
        };
        let range = |constant: Constant| match constant {
            Constant::Number { value, mask, .. } => {
                let n_bits = self.kind.n_bits();
                IntervalSet::masked(n_bits, value, mask.unwrap_or(u128::MAX))
            }
            Constant::Port(_) | Constant::AddressSet(_) | Constant::PortGroup(_) | Constant::Variable(_) => {
                None
            }
        };
        texts.iter().filter_map(|text| expr::constant(text)).filter(of_kind).map(range).collect()
    }
}

fn word(kind: SetKind) -> Option<&'static str> {
    match kind {
        SetKind::Ipv4 => Some("ip4"),
        SetKind::Ipv6 => Some("ip6"),
        SetKind::Mac => Some("mac"),
        SetKind::Port | SetKind::Number => None,
    }
}
