//! Who has which address of some spans.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use serde::{Deserialize, Serialize};

use crate::Span;

/// Addresses, and who has them. Times are since whatever epoch the caller's clock has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool<H> {
    /// What is given, in this order.
    spans: Vec<Span>,
    held: BTreeMap<IpAddr, H>,
    /// When addresses that came back may be given again.
    resting: BTreeMap<IpAddr, Duration>,
    /// What was given last.
    last: Option<IpAddr>,
}

/// Nothing can be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub struct Exhausted {
    /// Addresses that somebody has.
    pub n_held: usize,
    /// How long until the first one has rested; `None`: none rests.
    pub wait: Option<Duration>,
}

impl std::fmt::Display for Exhausted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "no address is free: {} are in use", self.n_held)?;
        match self.wait {
            Some(wait) => write!(
                f,
                ", and what came back is not given again before traffic to its old owner has ended, the first in {} s",
                wait.as_secs() + 1
            ),
            None => Ok(()),
        }
    }
}

impl<H> Pool<H> {
    /// Nobody has any of these.
    pub fn new(spans: Vec<Span>) -> Self {
        Self { spans, held: BTreeMap::new(), resting: BTreeMap::new(), last: None }
    }

    /// Gives spans another shape; who has an address keeps it.
    pub fn set_spans(&mut self, spans: Vec<Span>) {
        self.spans = spans;
    }

    /// What is given.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// Gives the next address that nobody has and that does not rest.
    ///
    /// # Errors
    /// There is none.
    ///
    /// # Cost
    /// A step for each address that is passed over.
    pub fn give(&mut self, holder: H, now: Duration) -> Result<IpAddr, Exhausted> {
        self.resting.retain(|_, until| *until > now);
        let found = self.behind_last().find(|address| self.is_free(*address));
        let Some(address) = found else {
            let wait = self.resting.values().min().map(|until| until.saturating_sub(now));
            return Err(Exhausted { n_held: self.held.len(), wait });
        };
        self.held.insert(address, holder);
        self.last = Some(address);
        Ok(address)
    }

    /// Gives just this address, also one that rests or is outside the spans: who asks for it
    /// knows why. What it answers had it before.
    pub fn hold(&mut self, address: IpAddr, holder: H) -> Option<H> {
        self.resting.remove(&address);
        self.held.insert(address, holder)
    }

    /// Takes an address back, which then rests until a time; it may be nobody's.
    pub fn take_back(&mut self, address: IpAddr, until: Duration) -> Option<H> {
        let holder = self.held.remove(&address)?;
        self.resting.insert(address, until);
        Some(holder)
    }

    /// Who has an address.
    pub fn holder(&self, address: IpAddr) -> Option<&H> {
        self.held.get(&address)
    }

    /// All who have one.
    pub fn holders(&self) -> impl Iterator<Item = (IpAddr, &H)> {
        self.held.iter().map(|(address, holder)| (*address, holder))
    }

    /// All who have one, to be changed.
    pub fn holders_mut(&mut self) -> impl Iterator<Item = (IpAddr, &mut H)> {
        self.held.iter_mut().map(|(address, holder)| (*address, holder))
    }

    fn is_free(&self, address: IpAddr) -> bool {
        !self.held.contains_key(&address) && !self.resting.contains_key(&address)
    }

    /// All addresses once, beginning behind the last one given.
    fn behind_last(&self) -> impl Iterator<Item = IpAddr> {
        let place =
            self.last.and_then(|last| Some((self.spans.iter().position(|span| span.contains(last))?, last)));
        let (idx, last) = place.map_or((0, None), |(idx, last)| (idx, Some(last)));
        let (before, from) = self.spans.split_at(idx);
        let rest = from.first().and_then(|span| match last {
            Some(last) => Some((*span, span.after(last)?)),
            None => Some((*span, span.first)),
        });
        let later = from.iter().skip(1).chain(before).map(|span| (*span, span.first));
        let again = last.and_then(|last| Some((Span::new(from.first()?.first, last)?, from.first()?.first)));
        rest.into_iter()
            .chain(later)
            .chain(again)
            .flat_map(|(span, first)| std::iter::successors(Some(first), move |address| span.after(*address)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const REST: Duration = Duration::from_secs(30);

    fn ip(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn pool(spans: &[(u8, u8)]) -> Pool<u32> {
        Pool::new(spans.iter().map(|(first, last)| Span { first: ip(*first), last: ip(*last) }).collect())
    }

    #[test]
    fn an_address_that_came_back_is_given_last_and_only_when_it_has_rested() {
        let mut pool = pool(&[(1, 2), (9, 9)]);
        let at = Duration::from_secs;
        assert_eq!(pool.give(0, at(0)), Ok(ip(1)));
        pool.take_back(ip(1), at(0) + REST);
        assert_eq!(pool.give(0, at(1)), Ok(ip(2)));
        assert_eq!(pool.give(0, at(2)), Ok(ip(9)));
        let exhausted = pool.give(0, at(3)).unwrap_err();
        assert_eq!(exhausted, Exhausted { n_held: 2, wait: Some(at(27)) });
        assert_eq!(pool.give(0, at(29)).unwrap_err().wait, Some(at(1)));
        assert_eq!(pool.give(0, at(30)), Ok(ip(1)));
        assert_eq!(pool.give(0, at(31)), Err(Exhausted { n_held: 3, wait: None }));
    }

    #[test]
    fn who_asks_for_an_address_gets_it_although_it_rests() {
        let mut pool = pool(&[(1, 2)]);
        pool.give(7, Duration::ZERO).unwrap();
        assert_eq!(pool.take_back(ip(1), REST), Some(7));
        assert_eq!(pool.take_back(ip(1), REST), None);
        assert_eq!(pool.hold(ip(1), 8), None);
        assert_eq!(pool.hold(ip(1), 9), Some(8));
        assert_eq!(pool.holder(ip(1)), Some(&9));
    }

    #[test]
    fn a_network_of_many_addresses_is_not_gone_through() {
        let hosts = "fd00::/64".parse::<crate::Network>().unwrap().hosts();
        let mut pool = Pool::new(vec![hosts]);
        for idx in 1..=1000_u32 {
            assert_eq!(pool.give(idx, Duration::ZERO).unwrap().to_string(), format!("fd00::{idx:x}"));
        }
    }

    proptest! {
        /// Against a dull twin: no address has two owners, none is given while it rests, and
        /// none is refused while one is free.
        #[test]
        fn nobody_shares_an_address(steps in prop::collection::vec((0_u8..4, 1_u8..9, 0_u64..20), 1..200)) {
            let mut pool = pool(&[(1, 3), (5, 8)]);
            let (mut held, mut resting) = (BTreeSet::new(), BTreeMap::new());
            let mut now = Duration::ZERO;
            for (what, address, passes) in steps {
                now += Duration::from_secs(passes);
                resting.retain(|_, until| *until > now);
                let address = ip(address);
                if what == 0 {
                    let was_held = held.remove(&address);
                    prop_assert_eq!(pool.take_back(address, now + REST).is_some(), was_held);
                    if was_held {
                        resting.insert(address, now + REST);
                    }
                } else {
                    match pool.give(1, now) {
                        Ok(address) => {
                            prop_assert!(held.insert(address) && !resting.contains_key(&address));
                            prop_assert!(pool.spans.iter().any(|span| span.contains(address)));
                        }
                        Err(exhausted) => {
                            prop_assert_eq!(exhausted.n_held, held.len());
                            prop_assert_eq!(held.len() + resting.len(), 7);
                        }
                    }
                }
            }
            let saved = serde_json::to_string(&pool).unwrap();
            prop_assert_eq!(serde_json::from_str::<Pool<u32>>(&saved).unwrap(), pool);
        }
    }
}
