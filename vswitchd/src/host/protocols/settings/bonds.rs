//! What a bridge is told of ports that are several.

use std::collections::BTreeSet;

use bridge_protocols::bond;
use serde::{Deserialize, Serialize};

use crate::host::PortSettings;

/// How a bond uses its members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BondModeName {
    /// One at a time.
    #[default]
    ActiveBackup,
    /// All, by source address and VLAN.
    BalanceSlb,
    /// All, by addresses and ports, once LACP has agreed.
    BalanceTcp,
}

impl LacpName {
    /// Name, as in settings.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Active => "active",
            Self::Passive => "passive",
        }
    }
}

impl From<BondModeName> for bond::Mode {
    fn from(name: BondModeName) -> Self {
        match name {
            BondModeName::ActiveBackup => Self::ActiveBackup,
            BondModeName::BalanceSlb => Self::BalanceSlb,
            BondModeName::BalanceTcp => Self::BalanceTcp,
        }
    }
}

/// Whether the neighbour is to know of the bond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LacpName {
    /// No.
    #[default]
    Off,
    /// Yes, and this end speaks first.
    Active,
    /// Yes, if the other end speaks first.
    Passive,
}

/// A bond.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct BondSettings {
    /// Its number in rules; 0: one that is free.
    pub number: u32,
    /// Names of its ports.
    pub members: BTreeSet<String>,
    /// How it uses them.
    pub mode: BondModeName,
    /// The one that is active whenever it can be; empty: none.
    pub primary: String,
    /// Whether the neighbour is to know.
    pub lacp: LacpName,
    /// LACP: units every second, and not every half minute.
    pub lacp_fast: bool,
    /// LACP: the lower one decides.
    pub lacp_priority: u16,
    /// Without an answer by LACP, one member is used all the same.
    pub lacp_fallback: bool,
    /// Milliseconds that a link is up before it is used.
    pub up_delay: u64,
    /// Milliseconds that a link is down before it is given up.
    pub down_delay: u64,
    /// Seconds between two looks at the loads of members; 0: never.
    pub rebalance_interval: u64,
    /// How it takes part in forwarding, as any port.
    pub port: PortSettings,
}

impl Default for BondSettings {
    fn default() -> Self {
        Self {
            number: 0,
            members: BTreeSet::new(),
            mode: BondModeName::ActiveBackup,
            primary: String::new(),
            lacp: LacpName::Off,
            lacp_fast: false,
            lacp_priority: 0x8000,
            lacp_fallback: false,
            up_delay: 0,
            down_delay: 0,
            rebalance_interval: 10,
            port: PortSettings::default(),
        }
    }
}
