//! Neighbours of routers: what hosts have heard of them, kept in the store, so that the
//! other hosts are told.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ferroflow_proto::chassis as pb;
use flowtable::types::MacAddr;

use crate::{
    controller::Controller,
    resource::{Kind, Name, limits::MAX_HEARD},
    state::{Heard, Record, Refusal, State},
};

/// What of a port's neighbours is new; `None`: nobody has heard of it any more.
type Changes = BTreeMap<Name, BTreeMap<IpAddr, Option<Heard>>>;

/// Writes what a chassis has heard, where it is new. What is about no router port, or more
/// than one has room for, is left out.
pub(super) fn settle(controller: &Controller, chassis: &str, said: &pb::Neighbours) -> Result<(), Refusal> {
    if changes(&controller.state(), chassis, said).is_empty() {
        return Ok(());
    }
    controller.write(false, |draft| {
        for (port, heard) in changes(draft.state(), chassis, said) {
            draft.set_heard(&port, heard);
        }
        Ok(())
    })?;
    Ok(())
}

fn changes(state: &State, chassis: &str, said: &pb::Neighbours) -> Changes {
    let mut changes = Changes::new();
    let heard: Vec<_> = said.heard.iter().filter_map(|one| known(state, one)).collect();
    if said.full {
        let named: BTreeSet<_> = heard.iter().map(|(record, ip, _)| (record.name.as_str(), *ip)).collect();
        for record in state.iter().filter(|record| !record.heard.is_empty()) {
            let own = record.heard.iter().filter(|(_, heard)| heard.chassis == chassis);
            let gone = own.filter(|(ip, _)| !named.contains(&(record.name.as_str(), **ip)));
            for (ip, _) in gone {
                changes.entry(record.name.clone()).or_default().insert(*ip, None);
            }
        }
    }
    for (record, ip, mac) in heard {
        let present = record.heard.get(&ip);
        let news = changes.entry(record.name.clone()).or_default();
        let has_room = present.is_some() || record.heard.len() + news.len() < MAX_HEARD;
        if present.is_none_or(|heard| heard.mac != mac) && has_room {
            news.insert(ip, Some(Heard { mac, chassis: chassis.to_owned() }));
        }
    }
    for (record, ip, mac) in said.gone.iter().filter_map(|one| known(state, one)) {
        // Who has heard it last says when it is over.
        let is_own = |heard: &&Heard| heard.mac == mac && heard.chassis == chassis;
        if record.heard.get(&ip).filter(is_own).is_some() {
            changes.entry(record.name.clone()).or_default().insert(ip, None);
        }
    }
    changes.retain(|_, heard| !heard.is_empty());
    changes
}

/// A neighbour of a router port that there is.
fn known<'a>(state: &'a State, said: &pb::Neighbour) -> Option<(&'a Record, IpAddr, MacAddr)> {
    let record: &Record = state.port(&said.router_port)?;
    let is_router_port = record.name.kind() == Kind::RouterPort;
    Some((record, said.ip.parse().ok()?, said.mac.parse().ok()?)).filter(|_| is_router_port)
}
