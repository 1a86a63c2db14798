//! The switch's sets for those that flows name. A set of addresses becomes one for each
//! kind of address that a flow asks it for (`ip4.web`), or one of all other addresses
//! (`not-ip4.web`); a set of ports, one for each datapath (`ports.7.web`), since keys of
//! ports mean something in their datapath alone. Only sets that flows name are there.
//!
//! A new member is a new member of the switch's set: no rule changes.

use std::{cell::RefCell, collections::BTreeMap};

use flowtable::set::{NamedSet, SetKind, SetName, ValueRange};

use super::Context;
use crate::{
    expr::{self, Constant, IntervalSet, Notation},
    key::DatapathKey,
};

/// Sets that flows ask for, as they do.
pub(super) struct Sets<'a> {
    context: &'a Context<'a>,
    used: RefCell<BTreeMap<SetName, NamedSet>>,
}

impl<'a> Sets<'a> {
    pub(super) fn new(context: &'a Context<'a>) -> Self {
        Self { context, used: RefCell::default() }
    }

    /// The name of the set, which is there from now on; `None`: there can be none.
    pub(super) fn name(
        &self,
        datapath: DatapathKey,
        set: expr::SetName<'_>,
        kind: SetKind,
        negated: bool,
    ) -> Option<SetName> {
        let (not, text) = (if negated { "not-" } else { "" }, set.to_string());
        let id = text.get(1..)?;
        let name = match set {
            expr::SetName::Addresses(_) => SetName::new(&format!("{not}{}.{id}", word(kind)?)),
            expr::SetName::Ports(_) => SetName::new(&format!("{not}ports.{datapath}.{id}")),
        };
        let name = name.ok()?;
        if !self.used.borrow().contains_key(&name) {
            let members = match set {
                expr::SetName::Addresses(_) => self.addresses(set, kind)?,
                expr::SetName::Ports(_) => self.ports(datapath, set)?,
            };
            let n_bits = if kind == SetKind::Number { 32 } else { kind.n_bits() };
            let all = IntervalSet::new(n_bits, members.clone());
            let members = if negated { all.complement().parts().collect() } else { members };
            let mut filled = NamedSet::new(name.clone(), kind);
            for range in members.into_iter().filter_map(|(lo, hi)| ValueRange::new(lo, hi)) {
                filled.insert(range);
            }
            self.used.borrow_mut().insert(name.clone(), filled);
        }
        Some(name)
    }

    /// Members of one kind.
    fn addresses(&self, set: expr::SetName<'_>, kind: SetKind) -> Option<Vec<(u128, u128)>> {
        let of_kind = |constant: &Constant| match constant {
            Constant::Number { notation, .. } => match notation {
                Notation::Ipv4 => kind == SetKind::Ipv4,
                Notation::Ipv6 => kind == SetKind::Ipv6,
                Notation::Mac => kind == SetKind::Mac,
                Notation::Decimal | Notation::Hex => true,
            },
            Constant::Port(_) | Constant::AddressSet(_) | Constant::PortGroup(_) => false,
        };
        let range = |constant: Constant| match constant {
            Constant::Number { value, mask, .. } => {
                IntervalSet::masked(kind.n_bits(), value, mask.unwrap_or(u128::MAX))
            }
            Constant::Port(_) | Constant::AddressSet(_) | Constant::PortGroup(_) => None,
        };
        // One member that is no range, and there is no such set: it would be another one.
        self.context.set(set)?.into_iter().filter(of_kind).map(range).collect()
    }

    /// Keys of the members that are ports of the datapath.
    fn ports(&self, datapath: DatapathKey, set: expr::SetName<'_>) -> Option<Vec<(u128, u128)>> {
        let ids = self.context.view.sets.get(&set.to_string())?;
        let keys = ids.iter().filter_map(|id| self.context.key(datapath, id));
        Some(keys.map(|key| (key.into(), key.into())).collect())
    }

    /// The sets, in the order of their names.
    pub(super) fn finish(self) -> Vec<NamedSet> {
        self.used.into_inner().into_values().collect()
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
