//! Logical ports that this host claims: those of its interfaces, and those that it holds for
//! interfaces to come.

use std::collections::BTreeSet;

use dataplane::PortStatus;
use ferroflow_proto::chassis::{Claim, Claims};

use super::Host;

impl Host {
    /// Claims logical ports that have no interface yet: what is sent to them comes to this
    /// host, so that an interface can be attached without asking anybody.
    pub fn hold(&mut self, ports: BTreeSet<String>) {
        self.held.extend(ports);
        self.tell_claims(&self.dataplane.port_links());
    }

    /// Does not claim them any more, but for those that have an interface.
    pub fn let_go_of(&mut self, ports: &BTreeSet<String>) {
        self.held.retain(|port| !ports.contains(port));
        self.tell_claims(&self.dataplane.port_links());
    }

    /// Tells the controller which logical ports are here, when they are others than before.
    pub(super) fn tell_claims(&self, statuses: &[PortStatus]) {
        let up: BTreeSet<_> = statuses.iter().filter(|status| status.up).map(|status| status.port).collect();
        let claims = self.ports.values().filter(|port| !port.logical_port.is_empty()).map(|port| Claim {
            logical_port: port.logical_port.clone(),
            up: port.is_attached() && up.contains(&port.port),
        });
        let mut claims: Vec<_> = claims.collect();
        let attached: BTreeSet<_> = claims.iter().map(|claim| claim.logical_port.clone()).collect();
        let waiting = self.held.iter().filter(|port| !attached.contains(*port));
        claims.extend(waiting.map(|port| Claim { logical_port: port.clone(), up: false }));
        let claims = Claims { claims };
        self.claims.send_if_modified(|sent| {
            let differs = *sent != claims;
            *sent = claims;
            differs
        });
    }
}
