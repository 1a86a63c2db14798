//! What a bridge is told of its spanning tree.

use std::collections::BTreeMap;

use bridge_protocols::stp;
use serde::{Deserialize, Serialize};

/// Which protocol keeps frames from going in circles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TreeProtocol {
    /// None.
    #[default]
    None,
    /// STP.
    Stp,
    /// RSTP.
    Rstp,
}

/// Of the spanning tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct TreeSettings {
    /// Which protocol.
    pub protocol: TreeProtocol,
    /// Of the bridge: a multiple of 4096; the lowest becomes the root.
    pub priority: u16,
    /// Seconds.
    pub hello_time: u16,
    /// Seconds.
    pub max_age: u16,
    /// Seconds.
    pub forward_delay: u16,
    /// Units that a port sends in a second at most.
    pub tx_hold_count: u16,
    /// Ports that are not as usual, by name.
    pub ports: BTreeMap<String, TreePortSettings>,
}

impl Default for TreeSettings {
    fn default() -> Self {
        let usual = stp::Config::default();
        Self {
            protocol: TreeProtocol::None,
            priority: usual.id.priority,
            hello_time: usual.hello_time,
            max_age: usual.max_age,
            forward_delay: usual.forward_delay,
            tx_hold_count: usual.tx_hold_count,
            ports: BTreeMap::new(),
        }
    }
}

/// Of a port in the spanning tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct TreePortSettings {
    /// It takes part; otherwise it forwards always.
    pub enabled: bool,
    /// A multiple of 16.
    pub priority: u8,
    /// What a way by it costs.
    pub cost: u32,
    /// No bridge is behind it.
    pub edge: bool,
    /// It finds out by itself that no bridge is behind it.
    pub auto_edge: bool,
    /// One neighbour at most is behind it.
    pub point_to_point: bool,
}

impl Default for TreePortSettings {
    fn default() -> Self {
        let usual = stp::PortConfig::default();
        Self {
            enabled: true,
            priority: usual.priority,
            cost: usual.cost,
            edge: usual.is_edge,
            auto_edge: usual.auto_edge,
            point_to_point: usual.is_point_to_point,
        }
    }
}

impl TreeSettings {
    pub(in crate::host::protocols) fn config(&self, id: stp::BridgeId) -> stp::Config {
        stp::Config {
            id: stp::BridgeId { priority: self.priority, ..id },
            is_rapid: self.protocol != TreeProtocol::Stp,
            max_age: self.max_age,
            hello_time: self.hello_time,
            forward_delay: self.forward_delay,
            tx_hold_count: self.tx_hold_count,
        }
    }
}
