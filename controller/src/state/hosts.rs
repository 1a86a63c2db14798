//! What is written on behalf of hosts: where ports are, which backends serve, whom routers
//! have for neighbours. No user's conditional update fails because of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use super::{Binding, Draft, Heard, Holder, Known, Record, SessionState};
use crate::resource::{Kind, Name, Spec};

impl Draft<'_> {
    /// Binds a workload's port to a chassis, or frees it. Does nothing to what is not such
    /// a port.
    pub fn bind(&mut self, name: &Name, to: Option<(&str, bool)>) {
        let Some(present) = self.get(name).filter(|record| record.is_workload()) else { return };
        let since = |chassis: &str| match &present.binding {
            Some(binding) if binding.chassis == chassis => binding.since,
            Some(_) | None => self.revision,
        };
        let binding =
            to.map(|(chassis, up)| Binding { chassis: chassis.to_owned(), up, since: since(chassis) });
        let record = Record { binding, ..present.clone() };
        self.touch(None, name.clone(), Some(record), false);
    }

    /// Takes note of which chassis have another interface of a workload that moves.
    pub fn set_additional(&mut self, name: &Name, chassis: BTreeSet<String>) {
        let Some(present) = self.get(name).filter(|record| record.is_workload()) else { return };
        if present.additional != chassis {
            let record = Record { additional: chassis, ..present.clone() };
            self.touch(None, name.clone(), Some(record), false);
        }
    }

    /// Takes note of which backends of a load balancer serve.
    pub fn set_health(&mut self, balancer: &Name, known: Known) {
        let Some(present) = self.get(balancer) else { return };
        let mut record = present.clone();
        record.health.extend(known);
        self.touch(None, balancer.clone(), Some(record), false);
    }

    /// Takes note of how sessions of a router port with next hops are.
    pub fn set_sessions(&mut self, port: &Name, news: BTreeMap<IpAddr, SessionState>) {
        let Some(present) = self.get(port) else { return };
        let mut record = present.clone();
        record.sessions.extend(news);
        if let Spec::RouterPort(spec) = &present.spec {
            record.sessions.retain(|peer, _| spec.monitored.contains_key(peer));
        }
        self.touch(None, port.clone(), Some(record), false);
    }

    /// A virtual port's address is this workload's from now on, and so is the port.
    pub fn set_holder(&mut self, port: &Name, holder: Holder) {
        let Some(present) = self.get(port) else { return };
        let record = Record { holder: Some(holder), ..present.clone() };
        let place = record.parent_port().and_then(|parent| self.get(parent)?.binding.clone());
        self.touch(None, port.clone(), Some(record), false);
        self.bind(port, place.as_ref().map(|place| (place.chassis.as_str(), place.up)));
    }

    /// Takes note of whom hosts have heard of on the networks of a router port, or of whom
    /// none has any more.
    pub fn set_heard(&mut self, port: &Name, news: BTreeMap<IpAddr, Option<Heard>>) {
        let Some(present) = self.get(port) else { return };
        let mut record = present.clone();
        for (ip, heard) in news {
            match heard {
                Some(heard) => drop(record.heard.insert(ip, heard)),
                None => drop(record.heard.remove(&ip)),
            }
        }
        self.touch(None, port.clone(), Some(record), false);
    }

    /// What deleted chassis had, or have said, is nowhere any more.
    pub(super) fn leave_deleted_chassis(&mut self) {
        let deleted = self
            .touched
            .iter()
            .filter(|(name, touched)| name.kind() == Kind::Chassis && touched.record.is_none());
        let deleted: Vec<String> = deleted.map(|(name, _)| name.id().to_owned()).collect();
        for chassis in deleted {
            let has_it = |record: &&Arc<Record>| record.additional.contains(&chassis);
            let moving: Vec<_> = self.state.iter().filter(has_it).map(|record| record.name.clone()).collect();
            for port in moving {
                let mut others = self.get(&port).map(|record| record.additional.clone()).unwrap_or_default();
                others.remove(&chassis);
                self.set_additional(&port, others);
            }
            let ports: Vec<Name> = self.state.bound_to(&chassis).cloned().collect();
            for port in ports {
                let is_bound = self
                    .get(&port)
                    .and_then(|record| record.binding.as_ref())
                    .is_some_and(|binding| binding.chassis == chassis);
                if is_bound {
                    self.bind(&port, None);
                }
            }
            let said = |record: &&Arc<Record>| record.heard.values().any(|heard| heard.chassis == chassis);
            let ports: Vec<Name> = self.state.iter().filter(said).map(|record| record.name.clone()).collect();
            for port in ports {
                let heard = self.get(&port).map(|record| record.heard.clone()).unwrap_or_default();
                let own = heard.into_iter().filter(|(_, heard)| heard.chassis == chassis);
                self.set_heard(&port, own.map(|(ip, _)| (ip, None)).collect());
            }
        }
    }
}
