//! What the responder has heard of neighbours, as rules of the tables. Each change is a
//! transaction of its few rules; the network need not be lowered again.

use std::{collections::BTreeMap, net::IpAddr};

use flowtable::{
    flow::Rule,
    switch::PacketIn,
    table::Change,
    types::{BridgeId, MacAddr},
};
use ovn_northd_lite::{
    Learned,
    key::{DatapathKey, PortKey},
    neighbour_rules,
};

use super::Host;
use crate::responder::Effect;

/// The neighbours that have rules.
#[derive(Debug, Default)]
pub(super) struct Neighbours(BTreeMap<(DatapathKey, PortKey, IpAddr), MacAddr>);

impl Neighbours {
    fn iter(&self) -> impl Iterator<Item = Learned> {
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

    /// Lets go what has waited too long for a neighbour, and who was heard of long ago.
    pub fn tend_neighbours(&mut self) {
        let effects = self.responder.tick(self.dataplane.now());
        self.take_effects(effects);
    }

    fn take_effects(&mut self, effects: Vec<Effect>) {
        let (mut changes, mut packets) = (Vec::new(), Vec::new());
        for effect in effects {
            match effect {
                Effect::Learn(learned) => changes.extend(self.learn_neighbour(learned)),
                Effect::Forget(learned) => changes.extend(self.forget_neighbour(learned)),
                Effect::Send(packet) => packets.push(packet),
                Effect::GiveUp { in_port, n_bytes } => self.give_up(in_port, n_bytes),
                Effect::Log(line) => line.write(),
                Effect::Health(known) => self.tell_health(known),
            }
        }
        // What is learned comes before the packets that waited for it.
        if !changes.is_empty() {
            self.transact(changes);
            self.publish(BridgeId::FIRST);
        }
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
pub(super) fn without(learned: &Learned) -> [Change; 2] {
    neighbour_rules(learned).map(|Rule { table, priority, matching, .. }| Change::DeleteStrict {
        table,
        priority,
        matching,
    })
}
