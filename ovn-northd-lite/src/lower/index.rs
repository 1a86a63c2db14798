//! What is found by something else than its key.

use std::collections::{BTreeMap, BTreeSet};

use super::{Interface, LocalPorts, chassis_of, gateway};
use crate::{
    key::{DatapathKey, PortKey},
    southbound::{PortBinding, Southbound, Wire},
};

/// Ids of ports by what they have.
#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    /// By datapath.
    pub(super) bindings: BTreeMap<DatapathKey, BTreeSet<String>>,
    /// By key.
    pub(super) keys: BTreeMap<(DatapathKey, PortKey), BTreeSet<String>>,
    /// By the other side of their patch.
    pub(super) peers: BTreeMap<String, BTreeSet<String>>,
    /// By the port whose interface they have frames by.
    pub(super) children: BTreeMap<String, BTreeSet<String>>,
    /// By datapath, those that lead to a network outside.
    pub(super) networks: BTreeMap<DatapathKey, BTreeSet<String>>,
    /// Logical ports that frames of ports of the switch are for; of several the first one, by
    /// datapath and id, gets them.
    pub(super) holders: BTreeMap<Interface, BTreeSet<(DatapathKey, String)>>,
    /// The same the other way around.
    interfaces: BTreeMap<String, (Interface, DatapathKey)>,
    /// Ids of ports that several chassis may have, with the one that has it now.
    pub(super) shared: BTreeMap<String, Option<String>>,
    /// Ids of patches that some workloads take on their own chassis.
    pub(super) open: BTreeSet<String>,
    /// Ids of ports whose workloads send by queues.
    pub(super) shaped: BTreeSet<String>,
    /// Of datapaths the port to a network outside that every host has.
    pub(super) outside: BTreeMap<DatapathKey, String>,
}

/// What is another chassis's, or another port's, than before.
#[derive(Debug, Default)]
pub(super) struct Elected {
    /// Ports that another chassis has.
    pub(super) ports: Vec<String>,
    /// Datapaths that another port leads outside from.
    pub(super) datapaths: Vec<DatapathKey>,
}

impl Index {
    /// Ports of a datapath.
    pub(super) fn ports(&self, datapath: DatapathKey) -> impl Iterator<Item = &String> {
        self.bindings.get(&datapath).into_iter().flatten()
    }

    /// A binding comes, or goes.
    pub(super) fn follow(&mut self, id: &str, binding: &PortBinding, is_new: bool) {
        put(&mut self.bindings, binding.datapath, id, is_new);
        put(&mut self.keys, (binding.datapath, binding.key), id, is_new);
        if let Some(peer) = &binding.peer {
            put(&mut self.peers, peer.clone(), id, is_new);
        }
        match &binding.wire {
            Wire::Nested { parent, .. } => put(&mut self.children, parent.clone(), id, is_new),
            Wire::Network { .. } => put(&mut self.networks, binding.datapath, id, is_new),
            Wire::Own | Wire::Redirect { .. } | Wire::EachChassis | Wire::External => {}
        }
        if is_new && !binding.open_for.is_empty() {
            self.open.insert(id.to_owned());
        } else {
            self.open.remove(id);
        }
        if is_new && binding.shaping.is_some() {
            self.shaped.insert(id.to_owned());
        } else {
            self.shaped.remove(id);
        }
        if is_new && !binding.gateway.is_empty() {
            self.shared.insert(id.to_owned(), None);
        } else {
            self.shared.remove(id);
        }
    }

    /// Finds out anew which port of the switch a port has frames by. When others contend for
    /// it, or did, all of them.
    pub(super) fn follow_interface(
        &mut self,
        view: &Southbound,
        local: &LocalPorts,
        id: &str,
    ) -> BTreeSet<String> {
        let of =
            |binding: &PortBinding| Some((gateway::interface(view, local, id, binding)?, binding.datapath));
        let now = view.bindings.get(id).and_then(of);
        let before = self.interfaces.get(id).copied();
        let mut contenders = BTreeSet::new();
        if now == before {
            return contenders;
        }
        if let Some((interface, datapath)) = before {
            self.interfaces.remove(id);
            contenders.extend(self.contenders(interface));
            if let Some(ids) = self.holders.get_mut(&interface) {
                ids.remove(&(datapath, id.to_owned()));
                if ids.is_empty() {
                    self.holders.remove(&interface);
                }
            }
        }
        if let Some((interface, datapath)) = now {
            self.interfaces.insert(id.to_owned(), (interface, datapath));
            self.holders.entry(interface).or_default().insert((datapath, id.to_owned()));
            contenders.extend(self.contenders(interface));
        }
        contenders
    }

    /// Ports that have frames by one port of the switch, if they are several.
    fn contenders(&self, interface: Interface) -> Vec<String> {
        let ids = self.holders.get(&interface).filter(|ids| ids.len() > 1);
        ids.into_iter().flatten().map(|(_, id)| id.clone()).collect()
    }

    /// Finds out anew who has what several chassis may have, and the ports to networks outside
    /// that every host has: of several one that this chassis has an interface to.
    pub(super) fn elect(&mut self, view: &Southbound, local: &LocalPorts) -> Elected {
        let mut elected = Elected::default();
        for (id, known) in &mut self.shared {
            let Some(binding) = view.bindings.get(id) else { continue };
            let now = chassis_of(view, local, binding);
            if known.as_deref() != now {
                *known = now.map(str::to_owned);
                elected.ports.push(id.clone());
            }
        }
        let mut outside = BTreeMap::new();
        for (key, ids) in &self.networks {
            let mut first = None;
            for (id, binding) in ids.iter().filter_map(|id| view.bindings.get_key_value(id)) {
                let Wire::Network { name, .. } = &binding.wire else { continue };
                if !binding.gateway.is_empty() {
                    continue;
                }
                if local.networks.contains_key(name) {
                    first = Some(id);
                    break;
                }
                first = first.or(Some(id));
            }
            outside.extend(first.map(|id| (*key, id.clone())));
        }
        let keys: BTreeSet<_> = self.outside.keys().chain(outside.keys()).copied().collect();
        let is_other = |key: &DatapathKey| self.outside.get(key) != outside.get(key);
        elected.datapaths = keys.into_iter().filter(is_other).collect();
        self.outside = outside;
        elected
    }
}

fn put<K: Ord>(map: &mut BTreeMap<K, BTreeSet<String>>, key: K, id: &str, is_new: bool) {
    if is_new {
        map.entry(key).or_default().insert(id.to_owned());
    } else if let Some(ids) = map.get_mut(&key) {
        ids.remove(id);
        if ids.is_empty() {
            map.remove(&key);
        }
    }
}
