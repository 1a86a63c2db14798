//! How long rules stay in their table.

use std::fmt;

use crate::types::Timestamp;

/// How long a rule stays, and what happens when it comes and goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct RuleLife {
    /// Seconds without a packet after which it goes; 0: it stays.
    pub idle_timeout: u16,
    /// Seconds after which it goes in any case; 0: it stays.
    pub hard_timeout: u16,
    /// Rules of less importance go first when their table is full.
    pub importance: u16,
    /// What is asked for besides.
    pub flags: RuleFlags,
    /// When it came into its table. The transaction that adds the rule sets it.
    pub born: Timestamp,
}

impl RuleLife {
    /// It goes some day without being deleted.
    pub fn is_mortal(&self) -> bool {
        self.idle_timeout != 0 || self.hard_timeout != 0
    }

    /// The same wishes, whenever the rules came into their tables.
    pub fn asks_the_same(&self, other: &Self) -> bool {
        Self { born: other.born, ..*self } == *other
    }

    /// When the hard timeout ends it.
    pub fn hard_end(&self) -> Option<Timestamp> {
        (self.hard_timeout != 0).then(|| self.born.plus_secs(self.hard_timeout))
    }

    /// When the idle timeout ends it, the last packet having come at `used`.
    pub fn idle_end(&self, used: Timestamp) -> Option<Timestamp> {
        (self.idle_timeout != 0).then(|| self.born.max(used).plus_secs(self.idle_timeout))
    }
}

/// Flags of a rule (OpenFlow 1.5 §7.3.4.3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct RuleFlags(u8);

impl RuleFlags {
    /// Tell when it goes.
    pub const SEND_FLOW_REM: Self = Self(1);
    /// Refuse it when a rule of same priority can match the same packets.
    pub const CHECK_OVERLAP: Self = Self(2);
    /// Do not go on with the counters of the rule it replaces.
    pub const RESET_COUNTS: Self = Self(4);
    /// Packets need not be counted; they are.
    pub const NO_PACKET_COUNTS: Self = Self(8);
    /// Bytes need not be counted; they are.
    pub const NO_BYTE_COUNTS: Self = Self(16);

    /// All flags with their names in flow text.
    pub const NAMES: &[(&str, Self)] = &[
        ("send_flow_rem", Self::SEND_FLOW_REM),
        ("check_overlap", Self::CHECK_OVERLAP),
        ("reset_counts", Self::RESET_COUNTS),
        ("no_packet_counts", Self::NO_PACKET_COUNTS),
        ("no_byte_counts", Self::NO_BYTE_COUNTS),
    ];

    /// All flags of both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those of these flags that are not among others.
    #[must_use]
    pub const fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// All of these flags are set.
    pub const fn has(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// Names of the flags that are set.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.iter().filter(move |(_, flag)| self.has(*flag)).map(|(name, _)| *name)
    }
}

impl fmt::Debug for RuleFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}
