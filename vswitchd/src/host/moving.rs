//! Workloads that move to this host, and send and receive here when they have said so.

use flowtable::types::BridgeId;
use ovn_northd_lite::{
    SouthboundDelta,
    key::{DatapathKey, PortKey},
    southbound::PortBinding,
};

use super::Host;

impl Host {
    /// A workload has said by RARP that it goes on here.
    pub(super) fn activate(&mut self, (datapath, port): (DatapathKey, PortKey)) {
        let chassis = &self.identity.chassis;
        let waits = |(id, binding): &(&str, &PortBinding)| {
            binding.awaits_rarp && binding.additional.contains(chassis) && !self.activated.contains(*id)
        };
        let Some((id, _)) = self.lowering.port(datapath, port).filter(waits) else { return };
        let id = id.to_owned();
        tracing::info!(port = id, "the workload goes on here");
        self.activated.insert(id);
        self.lower(SouthboundDelta::default());
        self.publish(BridgeId::FIRST);
    }

    /// Forgets who has gone on here, when the move is over: the next one is another one.
    pub(super) fn forget_activations(&mut self, delta: &SouthboundDelta) {
        let (view, chassis) = (self.lowering.view(), &self.identity.chassis);
        self.activated.retain(|id| {
            let is_gone = delta.removed.bindings.contains(id);
            let binding = delta.bindings.get(id).or_else(|| view.bindings.get(id).filter(|_| !is_gone));
            binding.is_some_and(|binding| binding.awaits_rarp && binding.additional.contains(chassis))
        });
    }
}
