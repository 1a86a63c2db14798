//! Who collects what the network's ACLs sample: told by the first bridge, as the sets that its own
//! rules sample for are.

use std::collections::{BTreeMap, BTreeSet};

use ovn_northd_lite::{
    SouthboundDelta,
    sampling::{Target, is_set},
    southbound::Southbound,
};

use super::Host;

/// An update says something about collectors.
pub(super) fn is_about_collectors(delta: &SouthboundDelta) -> bool {
    delta.sets.keys().chain(&delta.removed.sets).any(|name| is_set(name))
}

/// Where what is sampled for each set is told.
fn collectors(view: &Southbound) -> BTreeMap<u32, BTreeSet<std::net::SocketAddr>> {
    let mut all: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    let sets = view.sets.iter().filter(|(name, _)| is_set(name));
    for target in sets.flat_map(|(_, members)| members).filter_map(|member| Target::parse(member)) {
        all.entry(target.set).or_default().insert(target.address);
    }
    all
}

impl Host {
    /// Follows a change of who collects.
    pub(super) fn follow_collectors(&mut self) {
        let (sampled, now) = (collectors(self.lowering.view()), self.dataplane.now());
        self.first_mut().protocols.set_sampled(sampled, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collectors_with_the_same_number_are_told_together() {
        let mut view = Southbound::default();
        let members = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<BTreeSet<_>>();
        view.sets.insert("~a".to_owned(), members(&["7 192.0.2.9:4739", "8 192.0.2.9:4739", "x"]));
        view.sets.insert("~b".to_owned(), members(&["7 192.0.2.10:4739"]));
        view.sets.insert("$c".to_owned(), members(&["9 192.0.2.10:4739"]));
        let all = collectors(&view);
        assert_eq!(all.keys().copied().collect::<Vec<_>>(), [7, 8]);
        assert_eq!((all[&7].len(), all[&8].len()), (2, 1));
    }
}
