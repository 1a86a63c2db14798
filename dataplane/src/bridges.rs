//! Several bridges on one set of workers, and the links between them.
//!
//! A bridge is a switch of its own on each worker, with snapshots, caches and counters of its
//! own. What leaves one by a link comes in by the other in the same worker
//! (`pmd/patch.rs`).

use std::sync::Arc;

use flowtable::types::{BridgeId, MacAddr};

use crate::{
    config::PortId,
    handle::{Dataplane, DetachError, lock},
    pmd::PatchEnd,
    port::{AttachError, Opened, PortReport, metrics::PortMetrics},
};

/// A link takes whatever a frame can be.
const PATCH_MTU: u32 = 65_535;

/// One end of a link as a device: it has no queues, and each worker counts apart.
pub(crate) fn patch(n_workers: usize) -> Opened {
    Opened {
        kind: "patch",
        report: PortReport { mode: "patch".to_owned(), mac: MacAddr::ZERO, mtu: PATCH_MTU },
        metrics: Arc::new(PortMetrics::new(PATCH_MTU, n_workers, n_workers)),
        queues: Vec::new(),
        outlets: Vec::new(),
        hold: None,
        interface: None,
    }
}

impl Dataplane {
    /// Makes a bridge, with an empty snapshot; that with [`BridgeId::FIRST`] is there from the
    /// start. Making one that is there changes nothing.
    pub fn add_bridge(&self, bridge: BridgeId) {
        let _admin = lock(&self.admin);
        self.fabric.reserve(bridge);
        for seat in self.fabric.seats() {
            let _ = seat.ask(move |worker| worker.add_bridge(bridge));
        }
    }

    /// Takes a bridge away, with the ports that it still has.
    pub fn remove_bridge(&self, bridge: BridgeId) {
        let ports: Vec<_> = lock(&self.ports).keys().copied().filter(|port| port.bridge == bridge).collect();
        for port in ports {
            // The only error: somebody else has detached it meanwhile.
            let _ = self.detach(port);
        }
        let _admin = lock(&self.admin);
        for seat in self.fabric.seats() {
            let _ = seat.ask(move |worker| worker.remove_bridge(bridge));
        }
        self.fabric.forget(bridge);
    }

    /// Gives one end of a link to all workers.
    pub(crate) fn add_patch(
        &self,
        port: PortId,
        keeps_queues: bool,
        metrics: &Arc<PortMetrics>,
    ) -> Result<(), AttachError> {
        for seat in self.fabric.seats() {
            let end =
                PatchEnd { port, peer: None, metrics: Arc::clone(metrics), keeps_queues, lane: seat.id };
            seat.ask(move |worker| worker.add_patch(end)).ok_or(AttachError::WorkerGone(seat.id))?;
        }
        Ok(())
    }

    /// Says which port, one end of a link, has which for its other end: from then on, what
    /// leaves by the first comes in by the second. It is not said what holds the other way.
    ///
    /// # Errors
    /// The port is not attached, or no end of a link.
    pub fn link(&self, port: PortId, peer: Option<PortId>) -> Result<(), DetachError> {
        let _admin = lock(&self.admin);
        let mut ports = lock(&self.ports);
        let link = ports.get_mut(&port).and_then(|registered| registered.link.as_mut());
        *link.ok_or(DetachError::NotAttached(port))? = peer;
        drop(ports);
        for seat in self.fabric.seats() {
            let _ = seat.ask(move |worker| worker.link(port, peer));
        }
        Ok(())
    }
}
