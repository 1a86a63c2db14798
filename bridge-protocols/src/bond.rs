//! By which of several links a flow leaves: bonds, with or without LACP.
//!
//! [`Bond`] says which members are enabled, which one is active, and by which member each of
//! [`N_SLOTS`] slots leaves; who forwards hashes a packet to a slot. A member that comes or
//! goes moves as few slots as can be.

use std::{collections::BTreeMap, time::Duration};

use flowtable::types::Timestamp;

/// Slots that flows are hashed to.
pub const N_SLOTS: usize = 256;
/// Loads are uneven when the greatest and the least differ by more than this part of all.
const UNEVEN: u64 = 20;

/// How a bond uses its members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Mode {
    /// One at a time.
    #[default]
    ActiveBackup,
    /// All, by source address and VLAN; the neighbours need not know.
    BalanceSlb,
    /// All, by addresses and ports; the neighbour has to know, by LACP.
    BalanceTcp,
}

impl Mode {
    const ALL: [(&str, Self); 3] = [
        ("active-backup", Self::ActiveBackup),
        ("balance-slb", Self::BalanceSlb),
        ("balance-tcp", Self::BalanceTcp),
    ];

    /// Name, as in commands.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, mode)| *mode == self).map_or("", |(name, _)| name)
    }

    /// The mode with this name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, mode)| *mode)
    }
}

/// How a bond is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Config {
    /// How it uses its members.
    pub mode: Mode,
    /// A link that comes up is used after so long.
    pub up_delay: Duration,
    /// A link that goes down is given up after so long.
    pub down_delay: Duration,
    /// The member that is active whenever it can be.
    pub primary: Option<u16>,
    /// How often slots are moved for even loads; zero: never.
    pub rebalance: Duration,
}

#[derive(Debug, Clone, Copy, Default)]
struct Member {
    enabled: bool,
    /// Since when it ought to be otherwise.
    since: Option<Timestamp>,
}

/// A bond.
#[derive(Debug, Clone)]
pub struct Bond {
    config: Config,
    members: BTreeMap<u16, Member>,
    active: Option<u16>,
    slots: Vec<Option<u16>>,
    balanced: Timestamp,
}

impl Bond {
    /// Without members.
    pub fn new(config: Config) -> Self {
        let slots = vec![None; N_SLOTS];
        Self { config, members: BTreeMap::new(), active: None, slots, balanced: Timestamp::default() }
    }

    /// Changes how it is to be.
    pub fn set_config(&mut self, config: Config) {
        self.config = config;
    }

    /// These are its members from now on; those that stay are as they were.
    pub fn set_members(&mut self, members: &[u16]) {
        self.members.retain(|member, _| members.contains(member));
        for member in members {
            self.members.entry(*member).or_default();
        }
        self.settle();
    }

    /// Takes over which members can be used now; `true`: something has changed.
    /// `at_once`: without delays, for LACP has said so.
    pub fn update(&mut self, now: Timestamp, at_once: bool, can: impl Fn(u16) -> bool) -> bool {
        let before = (self.active, self.slots.clone(), self.enabled().collect::<Vec<_>>());
        // Waiting for a link while there is none to use would only lose packets.
        let is_idle = !self.members.values().any(|member| member.enabled);
        for (number, member) in &mut self.members {
            let can = can(*number);
            if can == member.enabled {
                member.since = None;
                continue;
            }
            let since = *member.since.get_or_insert(now);
            let delay = if can { self.config.up_delay } else { self.config.down_delay };
            if at_once || can && is_idle || now.since(since) >= delay {
                (member.enabled, member.since) = (can, None);
            }
        }
        self.settle();
        before != (self.active, self.slots.clone(), self.enabled().collect())
    }

    /// Makes another member the active one until it goes; `false`: it is not enabled.
    pub fn set_active(&mut self, member: u16) -> bool {
        let can = self.is_enabled(member);
        if can {
            self.active = Some(member);
        }
        can
    }

    /// Moves slots for even loads, if it is time to; `true`: some were moved.
    pub fn rebalance(&mut self, now: Timestamp, loads: &[u64]) -> bool {
        let is_due = !self.config.rebalance.is_zero() && now.since(self.balanced) >= self.config.rebalance;
        if !is_due || self.config.mode == Mode::ActiveBackup || loads.len() != N_SLOTS {
            return false;
        }
        self.balanced = now;
        let mut moved = false;
        for _ in 0..N_SLOTS {
            let Some((slot, to)) = self.best_move(loads) else { break };
            self.slots[slot] = Some(to);
            moved = true;
        }
        moved
    }

    /// The active member.
    pub fn active(&self) -> Option<u16> {
        self.active
    }

    /// Members that are used, in order.
    pub fn enabled(&self) -> impl Iterator<Item = u16> {
        self.members.iter().filter(|(_, member)| member.enabled).map(|(number, _)| *number)
    }

    /// The member is used.
    pub fn is_enabled(&self, member: u16) -> bool {
        self.members.get(&member).is_some_and(|member| member.enabled)
    }

    /// Its members, in order.
    pub fn members(&self) -> impl Iterator<Item = u16> {
        self.members.keys().copied()
    }

    /// By which member each slot leaves.
    pub fn slots(&self) -> &[Option<u16>] {
        &self.slots
    }

    fn settle(&mut self) {
        let enabled: Vec<u16> = self.enabled().collect();
        let primary = self.config.primary.filter(|primary| enabled.contains(primary));
        let kept = self.active.filter(|active| enabled.contains(active));
        self.active = primary.or(kept).or_else(|| enabled.first().copied());
        self.share_out(&enabled);
    }

    /// Gives each member about as many slots as any other, and moves as few as can be.
    fn share_out(&mut self, enabled: &[u16]) {
        let mut counts: BTreeMap<u16, usize> = enabled.iter().map(|member| (*member, 0)).collect();
        for slot in &mut self.slots {
            match slot.and_then(|member| counts.get_mut(&member)) {
                Some(count) => *count += 1,
                None => *slot = None,
            }
        }
        let n_most = N_SLOTS.div_ceil(enabled.len().max(1));
        for slot in &mut self.slots {
            let is_kept = slot.and_then(|member| counts.get(&member)).is_some_and(|count| *count <= n_most);
            if is_kept {
                continue;
            }
            if let Some(count) = slot.and_then(|member| counts.get_mut(&member)) {
                *count -= 1;
            }
            let least = counts.iter_mut().min_by_key(|(_, count)| **count);
            *slot = least.map(|(member, count)| {
                *count += 1;
                *member
            });
        }
    }

    /// The slot whose move makes loads most even, and where to.
    fn best_move(&self, loads: &[u64]) -> Option<(usize, u16)> {
        let mut sums: BTreeMap<u16, u64> = self.enabled().map(|member| (member, 0)).collect();
        for (slot, load) in self.slots.iter().zip(loads) {
            if let Some(sum) = slot.and_then(|member| sums.get_mut(&member)) {
                *sum = sum.saturating_add(*load);
            }
        }
        let total = sums.values().fold(0_u64, |total, sum| total.saturating_add(*sum));
        let (from, most) = sums.iter().max_by_key(|(_, sum)| **sum).map(|(member, sum)| (*member, *sum))?;
        let (to, least) = sums.iter().min_by_key(|(_, sum)| **sum).map(|(member, sum)| (*member, *sum))?;
        let gap = most - least;
        if gap <= total / UNEVEN {
            return None;
        }
        let of_most = self.slots.iter().zip(loads).enumerate().filter(|(_, (slot, _))| **slot == Some(from));
        // Half the gap is best; what is as large as all of it only changes sides.
        let fitting =
            of_most.map(|(idx, (_, load))| (idx, *load)).filter(|(_, load)| *load > 0 && *load < gap);
        let best = fitting.min_by_key(|(_, load)| (gap / 2).abs_diff(*load));
        best.map(|(idx, _)| (idx, to))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_nanos(millis * 1_000_000)
    }

    fn counts(bond: &Bond) -> BTreeMap<u16, usize> {
        let mut counts = BTreeMap::new();
        bond.slots().iter().flatten().for_each(|member| *counts.entry(*member).or_default() += 1);
        counts
    }

    #[test]
    fn the_primary_is_active_whenever_it_can_be() {
        let mut bond = Bond::new(Config { primary: Some(2), ..Config::default() });
        bond.set_members(&[1, 2]);
        assert!(bond.update(at(0), false, |member| member == 1));
        assert_eq!(bond.active(), Some(1));
        assert!(bond.update(at(1), false, |_| true) && bond.active() == Some(2));
        assert!(!bond.update(at(2), false, |_| true));
        bond.update(at(3), false, |member| member == 1);
        assert_eq!(bond.active(), Some(1));
        bond.update(at(4), false, |_| false);
        assert_eq!((bond.active(), bond.slots()[0]), (None, None));
    }

    #[test]
    fn without_a_primary_the_active_one_stays() {
        let mut bond = Bond::new(Config::default());
        bond.set_members(&[1, 2, 3]);
        bond.update(at(0), false, |member| member > 1);
        assert_eq!(bond.active(), Some(2));
        bond.update(at(0), false, |_| true);
        assert_eq!(bond.active(), Some(2));
        assert!(bond.set_active(3) && !bond.set_active(9));
        bond.update(at(1), false, |_| true);
        assert_eq!(bond.active(), Some(3));
    }

    #[test]
    fn delays_are_waited_for_unless_nothing_else_is_up() {
        let config = Config {
            up_delay: Duration::from_millis(500),
            down_delay: Duration::from_millis(200),
            ..Config::default()
        };
        let mut bond = Bond::new(config);
        bond.set_members(&[1, 2]);
        assert!(bond.update(at(0), false, |member| member == 1), "it is the only one");
        assert!(!bond.update(at(10), false, |_| true) && !bond.update(at(509), false, |_| true));
        assert!(bond.update(at(510), false, |_| true));
        assert!(!bond.update(at(600), false, |member| member == 2));
        // It is back before it was given up, and the wait begins anew.
        assert!(!bond.update(at(700), false, |_| true));
        assert!(!bond.update(at(750), false, |member| member == 2));
        assert!(bond.update(at(950), false, |member| member == 2) && bond.active() == Some(2));
        assert!(bond.update(at(951), true, |_| true), "LACP has said so");
    }

    #[test]
    fn loads_become_even() {
        let config =
            Config { mode: Mode::BalanceTcp, rebalance: Duration::from_secs(10), ..Config::default() };
        let mut bond = Bond::new(config);
        bond.set_members(&[1, 2]);
        bond.update(at(0), false, |_| true);
        let ones: Vec<_> = (0..N_SLOTS).filter(|slot| bond.slots()[*slot] == Some(1)).collect();
        let mut loads = vec![0; N_SLOTS];
        ones.iter().take(10).for_each(|slot| loads[*slot] = 100);
        assert!(!bond.rebalance(at(9_999), &loads));
        assert!(bond.rebalance(at(10_000), &loads));
        let sum = |bond: &Bond, member| {
            let slots = bond.slots().iter().zip(&loads).filter(|(slot, _)| **slot == Some(member));
            slots.map(|(_, load)| *load).sum::<u64>()
        };
        assert_eq!((sum(&bond, 1), sum(&bond, 2)), (500, 500));
        assert!(!bond.rebalance(at(20_000), &loads), "it was even");
        // One elephant stays where it is.
        let mut elephant = vec![0; N_SLOTS];
        elephant[ones[20]] = 1000;
        assert!(!bond.rebalance(at(40_000), &elephant));
    }

    proptest! {
        /// Whatever comes and goes: one is active at most, it is enabled, one is active when
        /// any is enabled, slots are shared out evenly among the enabled, and a member that
        /// comes or goes moves no other's slots to each other.
        #[test]
        fn slots_and_the_active_one_follow_the_links(steps in proptest::collection::vec(any::<[bool; 5]>(), 1..12)) {
            let mut bond = Bond::new(Config::default());
            bond.set_members(&[0, 1, 2, 3, 4]);
            let mut before: Vec<Option<u16>> = vec![None; N_SLOTS];
            for (idx, up) in steps.iter().enumerate() {
                let old: Vec<_> = bond.enabled().collect();
                bond.update(at(idx as u64), false, |member| up[usize::from(member)]);
                let enabled: Vec<_> = bond.enabled().collect();
                prop_assert_eq!(bond.active().is_some(), !enabled.is_empty());
                prop_assert!(bond.active().is_none_or(|active| enabled.contains(&active)));
                let counts = counts(&bond);
                prop_assert_eq!(counts.keys().copied().collect::<Vec<_>>(), enabled.clone());
                let (most, least) = (counts.values().max(), counts.values().min());
                prop_assert!(most.zip(least).is_none_or(|(most, least)| most - least <= enabled.len()), "{:?}", counts);
                if old == enabled {
                    prop_assert_eq!(&before, bond.slots());
                }
                before = bond.slots().to_vec();
            }
        }
    }
}
