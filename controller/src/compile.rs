//! The bridge to the compiler: keeps its model of the network in step with the state, has
//! what changed compiled, and hands each chassis its view.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ovn_northd_lite::{
    Compiler, Dirty, SouthboundDelta, chassis_view,
    key::{DatapathKey, PortKey},
    model::{LogicalRouter, LogicalSwitch, Northbound, RouterPort, SwitchPort, SwitchPortKind},
    southbound::{ChassisRecord, Southbound},
};

use crate::{
    chassis::View,
    controller::{Controller, Ending},
    resource::{Attachment, Kind, Name, RouterPortSpec, Spec, SwitchPortSpec},
    state::{Change, Record},
    store::Revision,
};

/// Checks the match of an ACL.
///
/// # Errors
/// What is wrong, and where.
pub fn check_match(text: &str) -> Result<(), String> {
    ovn_northd_lite::expr::check_match(text).map_err(|error| error.to_string())
}

/// Compiles each revision until the controller ends. Revisions that come while it is
/// busy are compiled together.
pub async fn run(controller: Arc<Controller>) {
    let mut engine = Engine::default();
    let mut revisions = controller.revisions();
    let mut ending = controller.ending();
    loop {
        revisions.borrow_and_update();
        let shared = Arc::clone(&controller);
        let step = tokio::task::spawn_blocking(move || {
            engine.step(&shared);
            engine
        });
        match step.await {
            Ok(done) => engine = done,
            Err(error) => {
                controller.end(Ending::Failed(format!("the compiler failed: {error}")));
                return;
            }
        }
        tokio::select! {
            _ = revisions.changed() => {}
            _ = ending.wait_for(Option::is_some) => return,
        }
    }
}

/// The network as compiled last.
#[derive(Default)]
struct Engine {
    /// `None`: nothing compiled yet.
    revision: Option<Revision>,
    model: Model,
    compiler: Compiler,
    views: BTreeMap<String, Arc<Southbound>>,
}

impl Engine {
    /// Compiles what has changed since the last step.
    fn step(&mut self, controller: &Controller) {
        let (revision, dirty) = {
            let state = controller.state();
            let dirty = match self.revision.map(|revision| state.changes_since(revision)) {
                Some(Ok(revised)) => {
                    let mut dirty = Dirty::default();
                    for change in revised.flat_map(|revised| &revised.changes) {
                        self.model.apply(change, &mut dirty);
                    }
                    dirty
                }
                None | Some(Err(_)) => self.model.rebuild(state.iter().map(|record| &**record)),
            };
            (state.revision(), dirty)
        };
        let delta = self.compiler.update(&self.model.network, &self.model.chassis, &dirty);
        let affected = self.update_views(controller, revision, &delta);
        controller.receipts.compiled(revision, affected);
        self.revision = Some(revision);
    }

    /// Publishes the views that differ; tells whose.
    fn update_views(
        &mut self,
        controller: &Controller,
        revision: Revision,
        delta: &SouthboundDelta,
    ) -> BTreeSet<String> {
        let southbound = self.compiler.southbound();
        let gone = self.views.extract_if(.., |id, _| !self.model.chassis.contains_key(id));
        for (id, _) in gone {
            controller.registry.retract(&id);
        }
        let touched = Touched::of(delta);
        let mut affected = BTreeSet::new();
        for id in self.model.chassis.keys() {
            let old = self.views.get(id);
            if old.is_some_and(|old| !touched.concerns(id, old, delta)) {
                continue;
            }
            let new = chassis_view(southbound, id);
            if old.is_some_and(|old| **old == new) {
                continue;
            }
            let new = Arc::new(new);
            self.views.insert(id.clone(), Arc::clone(&new));
            controller.registry.publish(id, View { revision, southbound: new });
            affected.insert(id.clone());
        }
        affected
    }
}

/// What a delta touches, for a quick "this view cannot have changed".
struct Touched {
    datapaths: BTreeSet<DatapathKey>,
    hosts: BTreeSet<String>,
}

impl Touched {
    fn of(delta: &SouthboundDelta) -> Self {
        let datapaths = delta.datapaths.keys().copied();
        let bindings = delta.bindings.values().map(|binding| binding.datapath);
        let groups = delta.groups.keys().chain(&delta.removed.groups).map(|(datapath, _)| *datapath);
        let flows = delta.flows.values().map(|flow| flow.datapath);
        let gone = delta.removed.datapaths.iter().copied();
        let hosts = delta.bindings.values().filter_map(|binding| binding.chassis.clone());
        let hosts = hosts.chain(delta.chassis.keys().cloned()).chain(delta.removed.chassis.iter().cloned());
        Self {
            datapaths: datapaths.chain(bindings).chain(groups).chain(flows).chain(gone).collect(),
            hosts: hosts.collect(),
        }
    }

    /// May be true for a view that stays the same, never false for one that changes. A
    /// view grows only along a changed binding of its own: of its host, or of one of its
    /// datapaths.
    fn concerns(&self, chassis: &str, view: &Southbound, delta: &SouthboundDelta) -> bool {
        let is_host = |id: &String| view.chassis.contains_key(id);
        let is_peer = |id: &String| {
            delta.chassis.contains_key(id)
                && view.bindings.values().any(|binding| binding.chassis.as_ref() == Some(id))
        };
        self.datapaths.iter().any(|datapath| view.datapaths.contains_key(datapath))
            || self.hosts.contains(chassis)
            || self.hosts.iter().any(|id| is_host(id) || is_peer(id))
            || delta.removed.bindings.iter().any(|id| view.bindings.contains_key(id))
            || delta.removed.flows.iter().any(|id| view.flows.contains_key(id))
    }
}

/// The compiler's input.
#[derive(Debug, Default, PartialEq, Eq)]
struct Model {
    network: Northbound,
    chassis: BTreeMap<String, ChassisRecord>,
}

impl Model {
    /// Starts again from all records, parents before children; everything that was or is
    /// there is dirty.
    fn rebuild<'a>(&mut self, records: impl Iterator<Item = &'a Record>) -> Dirty {
        let old = std::mem::take(self);
        let mut dirty = Dirty::default();
        dirty.switches.extend(old.network.switches.into_keys());
        dirty.routers.extend(old.network.routers.into_keys());
        for record in records {
            self.put(record, &mut dirty);
        }
        dirty
    }

    fn apply(&mut self, change: &Change, dirty: &mut Dirty) {
        match &change.after {
            Some(record) => self.put(record, dirty),
            None => self.remove(&change.name, dirty),
        }
    }

    fn put(&mut self, record: &Record, dirty: &mut Dirty) {
        let name = &record.name;
        let id = name.id().to_owned();
        let key = DatapathKey::new(record.key);
        let parent = name.parent();
        let parent = parent.as_ref().map_or("", Name::id);
        let Northbound { switches, routers } = &mut self.network;
        let is_changed = match &record.spec {
            Spec::Switch => match (switches.get_mut(&id), key) {
                (Some(switch), Ok(key)) => std::mem::replace(&mut switch.key, key) != key,
                (None, Ok(key)) => {
                    let switch = LogicalSwitch { key, ports: BTreeMap::new(), acls: BTreeMap::new() };
                    switches.insert(id, switch).is_none()
                }
                (_, Err(_)) => false,
            },
            Spec::Router(spec) => match (key, routers.remove(&id)) {
                (Ok(key), old) => {
                    let router = LogicalRouter {
                        key,
                        enabled: spec.enabled,
                        ports: old.as_ref().map(|old| old.ports.clone()).unwrap_or_default(),
                        static_routes: spec.static_routes.clone(),
                    };
                    let is_changed = old.as_ref() != Some(&router);
                    routers.insert(id, router);
                    is_changed
                }
                (Err(_), _) => true,
            },
            Spec::SwitchPort(spec) => switches
                .get_mut(parent)
                .zip(switch_port(record, spec))
                .is_some_and(|(switch, port)| insert(&mut switch.ports, id, port)),
            Spec::RouterPort(spec) => routers
                .get_mut(parent)
                .zip(router_port(record, spec))
                .is_some_and(|(router, port)| insert(&mut router.ports, id, port)),
            Spec::Acl(acl) => {
                switches.get_mut(parent).is_some_and(|switch| insert(&mut switch.acls, id, acl.clone()))
            }
            Spec::Chassis(spec) => {
                self.chassis.insert(id, ChassisRecord { encap_ip: spec.encap_ip });
                false
            }
        };
        if is_changed {
            mark(name, dirty);
        }
    }

    fn remove(&mut self, name: &Name, dirty: &mut Dirty) {
        mark(name, dirty);
        let id = name.id();
        let parent = name.parent();
        let parent = parent.as_ref().map_or("", Name::id);
        let Northbound { switches, routers } = &mut self.network;
        match name.kind() {
            Kind::Switch => drop(switches.remove(id)),
            Kind::SwitchPort => drop(switches.get_mut(parent).and_then(|switch| switch.ports.remove(id))),
            Kind::Acl => drop(switches.get_mut(parent).and_then(|switch| switch.acls.remove(id))),
            Kind::Router => drop(routers.remove(id)),
            Kind::RouterPort => drop(routers.get_mut(parent).and_then(|router| router.ports.remove(id))),
            Kind::Chassis => drop(self.chassis.remove(id)),
        }
    }
}

/// Puts a value; true when it is not what was there.
fn insert<V: PartialEq>(map: &mut BTreeMap<String, V>, id: String, value: V) -> bool {
    let is_changed = map.get(&id) != Some(&value);
    map.insert(id, value);
    is_changed
}

fn mark(name: &Name, dirty: &mut Dirty) {
    let datapath = name.parent().unwrap_or_else(|| name.clone());
    match datapath.kind() {
        Kind::Switch => drop(dirty.switches.insert(datapath.id().to_owned())),
        Kind::Router => drop(dirty.routers.insert(datapath.id().to_owned())),
        Kind::SwitchPort | Kind::RouterPort | Kind::Acl | Kind::Chassis => {}
    }
}

fn port_key(record: &Record) -> Option<PortKey> {
    u16::try_from(record.key).ok().and_then(|raw| PortKey::new(raw).ok())
}

fn switch_port(record: &Record, spec: &SwitchPortSpec) -> Option<SwitchPort> {
    let kind = match &spec.attachment {
        Attachment::Workload { addresses, unknown, port_security } => SwitchPortKind::Workload {
            addresses: addresses.clone(),
            unknown: *unknown,
            port_security: port_security.clone(),
            chassis: record.binding.as_ref().map(|binding| binding.chassis.clone()),
        },
        Attachment::Router(peer) => {
            SwitchPortKind::Router { router: peer.parent()?.id().to_owned(), port: peer.id().to_owned() }
        }
    };
    Some(SwitchPort { key: port_key(record)?, kind, enabled: spec.enabled })
}

fn router_port(record: &Record, spec: &RouterPortSpec) -> Option<RouterPort> {
    let RouterPortSpec { mac, networks, enabled } = spec.clone();
    Some(RouterPort { key: port_key(record)?, mac, networks, enabled })
}
