//! What the responder has to know of the network beforehand: names, and which routers
//! advertise unasked.

use ovn_northd_lite::{SouthboundDelta, names::is_set};

use super::Host;
use crate::responder::{Advertiser, Advertisers};

/// Which of it an update touches.
#[derive(Debug, Clone, Copy)]
pub(super) struct Touched {
    names: bool,
    bindings: bool,
}

impl Touched {
    /// What an update touches, before it is applied.
    pub(super) fn of(delta: &SouthboundDelta, is_full: bool) -> Self {
        let sets = delta.sets.keys().chain(&delta.removed.sets);
        let datapaths = !delta.datapaths.is_empty() || !delta.removed.datapaths.is_empty();
        let bindings = !delta.bindings.is_empty() || !delta.removed.bindings.is_empty();
        Self {
            names: is_full || datapaths || sets.into_iter().any(|name| is_set(name)),
            bindings: is_full || bindings,
        }
    }
}

impl Host {
    /// Tells the responder what has changed.
    pub(super) fn brief_responder(&mut self, touched: Touched) {
        if touched.names {
            self.responder.set_names(self.lowering.view());
        }
        if touched.bindings {
            let advertisers = self.advertisers();
            self.responder.set_advertisers(self.dataplane.now(), advertisers);
        }
    }

    /// Router ports that advertise from here: those of routers that are everywhere, and of
    /// those that are on this host.
    fn advertisers(&self) -> Advertisers {
        let mut advertisers = Advertisers::new();
        for binding in self.lowering.view().bindings.values().filter(|binding| binding.peer.is_some()) {
            let is_elsewhere = binding.chassis.as_ref().is_some_and(|id| *id != self.identity.chassis);
            if let (Some(says), false) = (&binding.advertises, is_elsewhere) {
                let advertiser = Advertiser { says: says.clone(), is_pinned: binding.chassis.is_some() };
                advertisers.insert((binding.datapath, binding.key), advertiser);
            }
        }
        advertisers
    }
}
