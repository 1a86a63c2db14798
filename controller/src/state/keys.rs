//! Tunnel keys: allocated once per datapath and port, inside the transaction that makes
//! them.
//!
//! Keys are handed out in rising order and wrap around at the end. The smallest free
//! key is the rejected way: packets on their way, and hosts that lag behind, would take
//! a new datapath for the one that just went.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::resource::{Kind, Name};

/// Where the counters of the scopes are in the store.
pub(super) const COUNTERS: &str = "counters/";
const DATAPATHS: &str = "counters/datapaths";
const MAX_DATAPATH: u32 = 0xff_ffff;
const MAX_PORT: u32 = 0x7fff;

/// The scope within which the key of this resource is unique, by the key of its counter
/// in the store; `None` when the resource has no tunnel key.
pub(super) fn scope(name: &Name) -> Option<String> {
    match name.kind() {
        Kind::Switch | Kind::Router => Some(DATAPATHS.to_owned()),
        Kind::SwitchPort | Kind::RouterPort => name.parent().map(|datapath| scope_below(&datapath)),
        Kind::Acl
        | Kind::Chassis
        | Kind::AddressSet
        | Kind::PortGroup
        | Kind::LoadBalancer
        | Kind::LoadBalancerGroup
        | Kind::HaChassisGroup
        | Kind::TemplateVariable
        | Kind::SampleCollector
        | Kind::Nat
        | Kind::RouterPolicy
        | Kind::DhcpOptions
        | Kind::Names
        | Kind::Limits
        | Kind::QosRule => None,
    }
}

/// A resource of this name can have this key; 0 stands for none.
pub(super) fn is_valid(name: &Name, key: u32) -> bool {
    match name.kind() {
        Kind::Switch | Kind::Router => (1..=MAX_DATAPATH).contains(&key),
        Kind::SwitchPort | Kind::RouterPort => (1..=MAX_PORT).contains(&key),
        Kind::Acl
        | Kind::Chassis
        | Kind::AddressSet
        | Kind::PortGroup
        | Kind::LoadBalancer
        | Kind::LoadBalancerGroup
        | Kind::HaChassisGroup
        | Kind::TemplateVariable
        | Kind::SampleCollector
        | Kind::Nat
        | Kind::RouterPolicy
        | Kind::DhcpOptions
        | Kind::Names
        | Kind::Limits
        | Kind::QosRule => key == 0,
    }
}

/// The scope of the ports of a datapath.
pub(super) fn scope_below(datapath: &Name) -> String {
    format!("{COUNTERS}{datapath}")
}

/// All keys of a scope are in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Exhausted {
    pub(super) max: u32,
}

/// The key is another one's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeyTaken;

/// Hands out keys on top of those in use.
pub(super) struct Allocator<'a> {
    counters: &'a HashMap<String, u32>,
    used: &'a HashMap<String, HashSet<u32>>,
    /// Scopes whose counter and used keys do not count.
    reset: HashSet<String>,
    scopes: BTreeMap<String, Scope>,
}

struct Scope {
    next: u32,
    fresh: HashSet<u32>,
}

impl<'a> Allocator<'a> {
    pub(super) fn new(
        counters: &'a HashMap<String, u32>,
        used: &'a HashMap<String, HashSet<u32>>,
        reset: HashSet<String>,
    ) -> Self {
        Self { counters, used, reset, scopes: BTreeMap::new() }
    }

    /// The next free key of a scope.
    pub(super) fn allocate(&mut self, scope: &str) -> Result<u32, Exhausted> {
        let max = if scope == DATAPATHS { MAX_DATAPATH } else { MAX_PORT };
        let is_reset = self.reset.contains(scope);
        let used = self.used.get(scope).filter(|_| !is_reset);
        let state = self.scopes.entry(scope.to_owned()).or_insert_with(|| Scope {
            next: self.counters.get(scope).copied().filter(|_| !is_reset).unwrap_or(1),
            fresh: HashSet::new(),
        });
        for _ in 0..max {
            let key = state.next.clamp(1, max);
            state.next = if key == max { 1 } else { key + 1 };
            let is_free = !used.is_some_and(|used| used.contains(&key)) && !state.fresh.contains(&key);
            if is_free {
                state.fresh.insert(key);
                return Ok(key);
            }
        }
        Err(Exhausted { max })
    }

    /// A key that is asked for, by who may have it already.
    pub(super) fn take(&mut self, scope: &str, key: u32, is_own: bool) -> Result<(), KeyTaken> {
        let is_reset = self.reset.contains(scope);
        let used = self.used.get(scope).filter(|_| !is_reset);
        if !is_own && used.is_some_and(|used| used.contains(&key)) {
            return Err(KeyTaken);
        }
        let next = self.counters.get(scope).copied().filter(|_| !is_reset).unwrap_or(1);
        let state =
            self.scopes.entry(scope.to_owned()).or_insert_with(|| Scope { next, fresh: HashSet::new() });
        if state.fresh.insert(key) { Ok(()) } else { Err(KeyTaken) }
    }

    /// The counters that have moved.
    pub(super) fn into_counters(self) -> BTreeMap<String, u32> {
        self.scopes.into_iter().map(|(scope, state)| (scope, state.next)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_rise_skip_what_is_used_and_wrap() {
        let scope = "counters/switches/s".to_owned();
        let counters = HashMap::from([(scope.clone(), MAX_PORT - 1)]);
        let used = HashMap::from([(scope.clone(), HashSet::from([MAX_PORT, 1, 2]))]);
        let mut keys = Allocator::new(&counters, &used, HashSet::new());
        assert_eq!(keys.allocate(&scope), Ok(MAX_PORT - 1));
        assert_eq!(keys.allocate(&scope), Ok(3));
        assert_eq!(keys.into_counters(), BTreeMap::from([(scope, 4)]));
    }

    #[test]
    fn a_key_that_is_asked_for_is_given_once_and_to_nobody_else() {
        let scope = "counters/routers/r".to_owned();
        let used = HashMap::from([(scope.clone(), HashSet::from([7]))]);
        let counters = HashMap::from([(scope.clone(), 4)]);
        let mut keys = Allocator::new(&counters, &used, HashSet::new());
        assert_eq!(keys.take(&scope, 7, false), Err(KeyTaken));
        assert_eq!(keys.take(&scope, 5, false), Ok(()));
        assert_eq!(keys.take(&scope, 5, false), Err(KeyTaken));
        assert_eq!((keys.allocate(&scope), keys.allocate(&scope)), (Ok(4), Ok(6)));
        let mut anew = Allocator::new(&counters, &used, HashSet::from([scope.clone()]));
        assert_eq!(anew.take(&scope, 7, false), Ok(()), "the datapath is another one");
        let mut again = Allocator::new(&counters, &used, HashSet::new());
        assert_eq!(again.take(&scope, 7, true), Ok(()), "it is made anew, with the key it had");
    }

    #[test]
    fn a_full_scope_says_so() {
        let (counters, used) = (HashMap::new(), HashMap::new());
        let mut keys = Allocator::new(&counters, &used, HashSet::new());
        for expected in 1..=MAX_PORT {
            assert_eq!(keys.allocate("counters/routers/r"), Ok(expected));
        }
        assert_eq!(keys.allocate("counters/routers/r"), Err(Exhausted { max: MAX_PORT }));
    }
}
