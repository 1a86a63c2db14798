//! What the responder has to know of the network beforehand: names, which routers advertise
//! unasked, which workloads are asked whether they serve, and which switches listen to what
//! theirs say about groups.

use std::collections::BTreeSet;

use ferroflow_proto::chassis;
use ovn_northd_lite::{
    SouthboundDelta, chassis_of, multicast_group_of, names::is_set, southbound::PortBinding,
};

use super::Host;
use crate::responder::{Advertiser, Advertisers, Asked, Health, Listener, Listeners};

/// Which of it an update touches.
#[derive(Debug, Clone, Copy)]
pub(super) struct Touched {
    names: bool,
    bindings: bool,
    datapaths: bool,
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
            datapaths: is_full || datapaths,
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
            let asked = self.asked();
            self.responder.set_checks(self.dataplane.now(), asked);
        }
        if touched.bindings || touched.datapaths {
            let listeners = self.listeners();
            let effects = self.responder.set_listeners(self.dataplane.now(), listeners);
            self.take_effects(effects);
        }
    }

    /// Switches that listen, with their workloads on this host. What these were known to hear
    /// is what the network was told.
    fn listeners(&self) -> Listeners {
        let view = self.lowering.view();
        let listening = view.datapaths.iter().filter_map(|(key, datapath)| {
            let snooping = datapath.snooping.clone()?;
            Some((*key, Listener { snooping, ports: BTreeSet::new(), known: Vec::new() }))
        });
        let mut listeners: Listeners = listening.collect();
        if listeners.is_empty() {
            return listeners;
        }
        let is_here = |binding: &PortBinding| {
            binding.peer.is_none() && binding.chassis.as_ref() == Some(&self.identity.chassis)
        };
        for binding in view.bindings.values().filter(|binding| is_here(binding)) {
            if let Some(listener) = listeners.get_mut(&binding.datapath) {
                listener.ports.insert(binding.key);
            }
        }
        for ((datapath, _), group) in &view.groups {
            let Some((listener, ip)) = listeners.get_mut(datapath).zip(multicast_group_of(&group.name))
            else {
                continue;
            };
            let members = group.ports.iter().filter_map(|id| Some(view.bindings.get(id)?.key));
            let here: Vec<_> = members.filter(|key| listener.ports.contains(key)).collect();
            listener.known.extend(here.into_iter().map(|key| (key, ip)));
        }
        listeners
    }

    /// What the workloads of this host are asked.
    fn asked(&self) -> Vec<Asked> {
        let is_here = |binding: &PortBinding| binding.chassis.as_ref() == Some(&self.identity.chassis);
        let here = self.lowering.view().bindings.iter().filter(|(_, binding)| is_here(binding));
        let asked = here.flat_map(|(id, PortBinding { datapath, key, probes, .. })| {
            probes.iter().map(|probe| Asked {
                id: id.clone(),
                datapath: *datapath,
                port: *key,
                probe: probe.clone(),
            })
        });
        asked.collect()
    }

    /// Tells the controller which backends serve.
    pub(super) fn tell_health(&mut self, known: Vec<Health>) {
        let backend = |Health { balancer, port, vip, backend, online }| chassis::BackendHealth {
            load_balancer: balancer,
            vip,
            backend,
            online,
            port,
        };
        self.health.send_replace(chassis::Health { backends: known.into_iter().map(backend).collect() });
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
