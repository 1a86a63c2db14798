//! What the responder has to know of the network beforehand: names, and which routers
//! advertise unasked.

use ovn_northd_lite::{SouthboundDelta, chassis_of, names::is_set};

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
            self.advertise();
        }
    }

    /// Tells the responder which routers advertise from here.
    pub(super) fn advertise(&mut self) {
        let advertisers = self.advertisers();
        self.responder.set_advertisers(self.dataplane.now(), advertisers);
    }

    /// Router ports that advertise from here: those that are everywhere, and those that this
    /// host has.
    fn advertisers(&self) -> Advertisers {
        let mut advertisers = Advertisers::new();
        let (view, local) = (self.lowering.view(), self.local_ports());
        for binding in view.bindings.values().filter(|binding| binding.peer.is_some()) {
            let chassis = chassis_of(view, &local, binding);
            let is_elsewhere = chassis.is_some_and(|id| id != self.identity.chassis);
            if let (Some(says), false) = (&binding.advertises, is_elsewhere) {
                let advertiser = Advertiser { says: says.clone(), is_pinned: chassis.is_some() };
                advertisers.insert((binding.datapath, binding.key), advertiser);
            }
        }
        advertisers
    }
}
