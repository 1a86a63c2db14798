//! What a packet sees: one version of tables, ports and underlay.

use std::sync::Arc;

use crate::{
    port::PortTable,
    table::Tables,
    types::{BridgeId, Epoch},
    underlay::Underlay,
};

/// One version of everything that decides about packets. Workers take it once per
/// batch; a commit publishes the next one as a whole.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Whose it is.
    pub bridge: BridgeId,
    /// Version; each published snapshot has a larger one.
    pub epoch: Epoch,
    /// The flow tables.
    pub tables: Arc<Tables>,
    /// The ports.
    pub ports: Arc<PortTable>,
    /// Tunnels, peers, next hops.
    pub underlay: Arc<Underlay>,
}
