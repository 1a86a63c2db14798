//! How much each tenant may have of each kind of resource.

use std::{collections::BTreeMap, str::FromStr};

use super::tenants::owner;
use crate::{
    resource::{Kind, Name, check_id},
    state::{Draft, Reason},
};

/// Resources of a kind that a tenant may have when nothing else is said.
pub const DEFAULT: usize = 1000;

/// Text is no quota.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no quota; write KIND=NUMBER or TENANT:KIND=NUMBER, with one of these kinds: {kinds}", kinds = kinds())]
pub struct QuotaError(String);

fn kinds() -> String {
    Kind::ALL.map(Kind::spec_field).join(", ")
}

/// A quota, `[TENANT:]KIND=NUMBER`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quota {
    tenant: Option<String>,
    kind: Kind,
    max: usize,
}

impl FromStr for Quota {
    type Err = QuotaError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || QuotaError(text.chars().take(128).collect());
        let (what, max) = text.split_once('=').ok_or_else(wrong)?;
        let (tenant, kind) = match what.split_once(':') {
            Some((tenant, kind)) => (Some(tenant.to_owned()), kind),
            None => (None, what),
        };
        if tenant.as_deref().is_some_and(|tenant| check_id(tenant).is_err()) {
            return Err(wrong());
        }
        let kind = Kind::ALL.into_iter().find(|known| known.spec_field() == kind).ok_or_else(wrong)?;
        Ok(Self { tenant, kind, max: max.parse().map_err(|_| wrong())? })
    }
}

/// All quotas.
#[derive(Debug, Clone, Default)]
pub struct Quotas {
    each: BTreeMap<Kind, usize>,
    of: BTreeMap<(String, Kind), usize>,
}

impl FromIterator<Quota> for Quotas {
    /// What is said last holds.
    fn from_iter<I: IntoIterator<Item = Quota>>(quotas: I) -> Self {
        let mut all = Self::default();
        for Quota { tenant, kind, max } in quotas {
            match tenant {
                Some(tenant) => all.of.insert((tenant, kind), max),
                None => all.each.insert(kind, max),
            };
        }
        all
    }
}

impl Quotas {
    /// What a tenant may have of a kind.
    pub fn max(&self, tenant: &str, kind: Kind) -> usize {
        let own = self.of.get(&(tenant.to_owned(), kind));
        own.or_else(|| self.each.get(&kind)).copied().unwrap_or(DEFAULT)
    }

    /// A tenant has no more than it may after a draft. Who has more already may have less.
    ///
    /// # Errors
    /// [`Reason::Quota`].
    ///
    /// # Cost
    /// Looks at all resources of the kinds that something is made of.
    pub(super) fn check(&self, tenant: &str, draft: &Draft<'_>) -> Result<(), Reason> {
        let mut made: BTreeMap<Kind, (usize, usize)> = BTreeMap::new();
        for (name, before, after) in draft.changed() {
            let (n_made, n_gone) = made.entry(name.kind()).or_default();
            *n_made += usize::from(before.is_none() && after.is_some());
            *n_gone += usize::from(before.is_some() && after.is_none());
        }
        for (kind, (n_made, n_gone)) in made {
            if n_made <= n_gone {
                continue;
            }
            let state = draft.state();
            let get = |name: &Name| state.get(name).map(|record| &**record);
            let present =
                state.iter_kind(kind).filter(|record| owner(get, &record.name) == Some(tenant)).count();
            let max = self.max(tenant, kind);
            let n = present.saturating_sub(n_gone).saturating_add(n_made);
            if n > max {
                return Err(Reason::Quota { tenant: tenant.to_owned(), what: kind.spec_field(), n, max });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_are_of_a_kind_and_may_be_of_one_tenant() {
        let quotas =
            ["logical_switch=3", "acme:logical_switch=7", "acl=0"].map(|text| text.parse::<Quota>().unwrap());
        let quotas: Quotas = quotas.into_iter().collect();
        assert_eq!(quotas.max("acme", Kind::Switch), 7);
        assert_eq!(quotas.max("other", Kind::Switch), 3);
        assert_eq!(quotas.max("other", Kind::Acl), 0);
        assert_eq!(quotas.max("other", Kind::Nat), DEFAULT);
        for wrong in ["", "x=1", "acl", "acl=-1", "a b:acl=1", ":acl=1", "acl=1=2"] {
            assert!(wrong.parse::<Quota>().is_err(), "{wrong}");
        }
    }
}
