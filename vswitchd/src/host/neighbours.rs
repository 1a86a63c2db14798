//! What the responder has heard of neighbours, and what other hosts have, as rules of the
//! tables. Each change is a transaction of its few rules; the network need not be lowered
//! again.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use flowtable::{
    flow::Rule,
    switch::PacketIn,
    table::Change,
    types::{BridgeId, MacAddr},
};
use ovn_northd_lite::{
    Learned, SouthboundDelta, heard,
    key::{DatapathKey, PortKey},
    neighbour_rules,
    southbound::{PortBinding, Southbound},
};
use tokio::sync::watch;

use super::Host;
use crate::responder::{Effect, Hearers, Hold};

/// Neighbours that a host has heard of: router port by key and id, address, MAC address. And
/// groups that its workloads want to hear: switch port, group, zero.
pub type Heard = BTreeMap<(DatapathKey, PortKey, IpAddr), (String, MacAddr)>;

/// Who has the address of a virtual port, by the id of that: a number that rises with each
/// word, id of the workload's port, MAC address.
pub type Holders = BTreeMap<String, (u64, String, MacAddr)>;

/// What an update says of neighbours that other hosts have heard of.
#[derive(Debug, Default)]
pub(super) struct Hearsay {
    /// New ones, by the id of the router port.
    heard: Vec<(String, IpAddr, MacAddr)>,
    gone: Vec<Learned>,
}

impl Hearsay {
    /// What an update of a view says, before it is applied.
    pub(super) fn of(delta: &SouthboundDelta, view: &Southbound) -> Self {
        let mut hearsay = Self::default();
        let mut is_gone = |port: &str, member: &String| {
            let known = view.bindings.get(port).zip(heard::parse(member));
            let learned = known.map(|(PortBinding { datapath, key, .. }, (ip, mac))| Learned {
                datapath: *datapath,
                port: *key,
                ip,
                mac,
            });
            hearsay.gone.extend(learned);
        };
        for (name, change) in &delta.sets {
            let Some(port) = heard::port_of(name) else { continue };
            change.removed.iter().for_each(|member| is_gone(port, member));
            let new = change.added.iter().filter_map(|member| heard::parse(member));
            hearsay.heard.extend(new.map(|(ip, mac)| (port.to_owned(), ip, mac)));
        }
        for name in &delta.removed.sets {
            let Some(port) = heard::port_of(name) else { continue };
            view.sets.get(name).into_iter().flatten().for_each(|member| is_gone(port, member));
        }
        hearsay
    }
}

/// The neighbours that have rules.
#[derive(Debug, Default)]
pub(super) struct Neighbours(BTreeMap<(DatapathKey, PortKey, IpAddr), MacAddr>);

impl Neighbours {
    pub(super) fn iter(&self) -> impl Iterator<Item = Learned> {
        self.0.iter().map(|((datapath, port, ip), mac)| Learned {
            datapath: *datapath,
            port: *port,
            ip: *ip,
            mac: *mac,
        })
    }

    /// Keeps those that pass, and answers with the others.
    pub(super) fn retain(&mut self, keep: impl Fn(&Learned) -> bool) -> Vec<Learned> {
        let gone: Vec<_> = self.iter().filter(|neighbour| !keep(neighbour)).collect();
        for neighbour in &gone {
            self.0.remove(&(neighbour.datapath, neighbour.port, neighbour.ip));
        }
        gone
    }

    /// The rules of all.
    pub(super) fn rules(&self) -> impl Iterator<Item = Rule> {
        self.iter().flat_map(|neighbour| neighbour_rules(&neighbour))
    }
}

impl Host {
    /// Does what the responder says to a packet.
    pub(super) fn answer(&mut self, packet_in: &PacketIn) {
        if self.is_handmade {
            return;
        }
        let effects = self.responder.answer(self.dataplane.now(), packet_in);
        self.take_effects(effects);
    }

    /// Takes over what other hosts have heard, and have not for too long.
    pub(super) fn take_hearsay(&mut self, hearsay: Hearsay) {
        let now = self.dataplane.now();
        let gone = hearsay.gone.into_iter().filter_map(|learned| self.responder.unhear(learned));
        let mut effects: Vec<_> = gone.collect();
        for (port, ip, mac) in hearsay.heard {
            let Some(binding) = self.lowering.view().bindings.get(&port) else { continue };
            let learned = Learned { datapath: binding.datapath, port: binding.key, ip, mac };
            effects.extend(self.responder.hear_of(now, learned));
        }
        self.take_effects(effects);
    }

    /// Who this host has heard of by itself and that others should know, as it changes.
    pub fn heard(&self) -> watch::Receiver<Arc<Heard>> {
        self.heard.subscribe()
    }

    /// Has others told of what this host has heard. A router that is on this host alone is
    /// nobody else's business.
    fn tell_heard(&mut self) {
        let news = self.responder.take_heard();
        if news.is_empty() {
            return;
        }
        let lowering = &self.lowering;
        self.heard.send_modify(|heard| {
            let heard = Arc::make_mut(heard);
            for (Learned { datapath, port, ip, mac }, is_there) in news {
                let known = lowering.port(datapath, port).filter(|(_, binding)| binding.chassis.is_none());
                match known.filter(|_| is_there) {
                    Some((id, _)) => drop(heard.insert((datapath, port, ip), (id.to_owned(), mac))),
                    None => drop(heard.remove(&(datapath, port, ip))),
                }
            }
        });
    }

    /// Who has the addresses of virtual ports, as workloads of this host have said.
    pub fn holders(&self) -> watch::Receiver<Arc<Holders>> {
        self.holders.subscribe()
    }

    /// Has the controller told who has the address of a virtual port.
    fn tell_holder(&mut self, hold: &Hold) {
        let id = |key| self.lowering.port(hold.datapath, key).map(|(id, _)| id.to_owned());
        let Some((port, parent)) = id(hold.port).zip(id(hold.parent)) else { return };
        self.holders.send_modify(|holders| {
            let holders = Arc::make_mut(holders);
            // What came last is told last, also when it is what was told before.
            let number = 1 + holders.values().map(|(number, ..)| *number).max().unwrap_or(0);
            holders.insert(port, (number, parent, hold.mac));
        });
    }

    /// Has others told who of this host's workloads hears a group.
    fn tell_hearers(&mut self, Hearers { datapath, group, ports }: &Hearers) {
        let lowering = &self.lowering;
        self.heard.send_modify(|heard| {
            let heard = Arc::make_mut(heard);
            heard.retain(|(known, port, ip), _| known != datapath || ip != group || ports.contains(port));
            for port in ports {
                if let Some((id, _)) = lowering.port(*datapath, *port) {
                    heard.insert((*datapath, *port, *group), (id.to_owned(), MacAddr::ZERO));
                }
            }
        });
    }

    /// Lets go what has waited too long for a neighbour, and who was heard of long ago.
    pub fn tend_neighbours(&mut self) {
        let effects = self.responder.tick(self.dataplane.now());
        self.take_effects(effects);
    }

    pub(super) fn take_effects(&mut self, effects: Vec<Effect>) {
        let (mut changes, mut packets) = (Vec::new(), Vec::new());
        for effect in effects {
            match effect {
                Effect::Learn(learned) => changes.extend(self.learn_neighbour(learned)),
                Effect::Forget(learned) => changes.extend(self.forget_neighbour(learned)),
                Effect::Send(packet) => packets.push(packet),
                Effect::GiveUp { in_port, n_bytes } => self.give_up(in_port, n_bytes),
                Effect::Log(line) => line.write(),
                Effect::Health(known) => self.tell_health(known),
                Effect::Hold(hold) => self.tell_holder(&hold),
                Effect::Hears(hearers) => self.tell_hearers(&hearers),
                Effect::Activate(port) => self.activate(port),
            }
        }
        // What is learned comes before the packets that waited for it.
        if !changes.is_empty() {
            self.transact(changes);
            self.publish(BridgeId::FIRST);
        }
        self.tell_heard();
        for packet in packets {
            if let Err(error) = self.dataplane.packet_out(packet.in_port, packet.actions, packet.frame) {
                tracing::debug!(%error, "a packet of the responder is not sent");
            }
        }
    }

    fn learn_neighbour(&mut self, learned: Learned) -> Vec<Change> {
        let mut changes = self.forget_neighbour(learned);
        if self.lowering.view().datapaths.contains_key(&learned.datapath) {
            self.neighbours.0.insert((learned.datapath, learned.port, learned.ip), learned.mac);
            changes.extend(neighbour_rules(&learned).map(Change::Add));
        }
        changes
    }

    /// Whatever its MAC address was.
    fn forget_neighbour(&mut self, learned: Learned) -> Vec<Change> {
        let Some(mac) = self.neighbours.0.remove(&(learned.datapath, learned.port, learned.ip)) else {
            return Vec::new();
        };
        without(&Learned { mac, ..learned }).into()
    }
}

/// The changes that take a neighbour's rules away.
pub(super) fn without(learned: &Learned) -> [Change; 3] {
    neighbour_rules(learned).map(|Rule { table, priority, matching, .. }| Change::DeleteStrict {
        table,
        priority,
        matching,
    })
}
