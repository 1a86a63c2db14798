//! What the responder has heard of neighbours, as rules of the tables. Each change is a
//! transaction of its few rules; the network need not be lowered again.

use std::{collections::BTreeMap, net::IpAddr};

use flowtable::{flow::Rule, table::Change, types::MacAddr};
use ovn_northd_lite::{
    Learned,
    key::{DatapathKey, PortKey},
    neighbour_rules,
};

use super::Host;

/// News of a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Neighbour {
    /// It has this MAC address.
    Known(Learned),
    /// It may have another one, or be gone.
    Gone(Learned),
}

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

    /// Keeps those that pass.
    pub(super) fn retain(&mut self, keep: impl Fn(&Learned) -> bool) {
        let gone: Vec<_> = self.iter().filter(|neighbour| !keep(neighbour)).collect();
        for neighbour in gone {
            self.0.remove(&(neighbour.datapath, neighbour.port, neighbour.ip));
        }
    }

    /// The rules of all.
    pub(super) fn rules(&self) -> impl Iterator<Item = Rule> {
        self.iter().flat_map(|neighbour| neighbour_rules(&neighbour))
    }
}

impl Host {
    /// Takes news of neighbours over, in order.
    pub fn hear_of(&mut self, news: &[Neighbour]) {
        let mut changes = Vec::new();
        for neighbour in news {
            let (Neighbour::Known(learned) | Neighbour::Gone(learned)) = *neighbour;
            let place = (learned.datapath, learned.port, learned.ip);
            if let Some(mac) = self.neighbours.0.remove(&place) {
                let old = neighbour_rules(&Learned { mac, ..learned });
                changes.extend(old.map(|rule| Change::DeleteStrict {
                    table: rule.table,
                    priority: rule.priority,
                    matching: rule.matching,
                }));
            }
            if matches!(neighbour, Neighbour::Known(_)) && self.view.datapaths.contains_key(&learned.datapath)
            {
                self.neighbours.0.insert(place, learned.mac);
                changes.extend(neighbour_rules(&learned).map(Change::Add));
            }
        }
        if !changes.is_empty() && !self.is_handmade {
            self.transact(changes);
            self.publish();
        }
    }
}
