//! Who has an address on the networks around: rules for what the host has learned.

use std::{net::IpAddr, sync::Arc};

use flowtable::{
    field::Field,
    flow::{Action, Match, Origin, Rule},
    types::{MacAddr, Priority},
};

use super::{
    GET_NEIGHBOUR, LB_AFFINITY, LOOKUP_NEIGHBOUR,
    rules::{RuleSet, set},
};
use crate::{
    actions::KNOWN,
    key::{DatapathKey, PortKey},
    punt::{NEIGHBOUR_ADDRESS as ADDRESS, NEIGHBOUR_MAC as MAC, NEIGHBOUR_PORT as PORT},
};

/// A neighbour of a router's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Learned {
    /// The router.
    pub datapath: DatapathKey,
    /// Its port.
    pub port: PortKey,
    /// The neighbour's address.
    pub ip: IpAddr,
    /// Its MAC address.
    pub mac: MacAddr,
}

/// What the tables of neighbours say of what they do not know.
pub(super) fn build(rules: &mut RuleSet) {
    rules.physical(GET_NEIGHBOUR, 0, &[], vec![set(Field::EthDst, 0)], String::new());
    let unknown = Action::SetField { field: KNOWN.field, value: 0, mask: KNOWN.bits() };
    rules.physical(LOOKUP_NEIGHBOUR, 0, &[], vec![unknown.clone()], String::new());
    // So that there is an end to the packets that clients of load balancers are looked up for.
    rules.physical(LB_AFFINITY, 0, &[], vec![unknown], String::new());
}

/// The rules of one neighbour: what MAC address it has, that it has this one, and that it has any.
pub fn neighbour_rules(learned: &Learned) -> [Rule; 3] {
    let (ip, ip_type, question_type) = match learned.ip {
        IpAddr::V4(ip) => (u128::from(u32::from(ip)), 0x800, 0x806),
        IpAddr::V6(ip) => (u128::from(ip), 0x86dd, 0x86dd),
    };
    let mac = learned.mac.octets().iter().fold(0, |value: u128, byte| value << 8 | u128::from(*byte));
    let of = |eth_type| {
        Match::any()
            .with(Field::Metadata, learned.datapath.get().into())
            .with(PORT, learned.port.get().into())
            .with(ADDRESS, ip)
            .with(Field::EthType, eth_type)
    };
    let known = |mac| of(question_type).with_masked(MAC.field, mac, MAC.bits());
    let is_known = Action::SetField { field: KNOWN.field, value: KNOWN.bits(), mask: KNOWN.bits() };
    [
        rule(GET_NEIGHBOUR, "get_neighbour", of(ip_type), set(Field::EthDst, mac)),
        rule(LOOKUP_NEIGHBOUR, "lookup_neighbour", known(mac), is_known.clone()),
        rule(LOOKUP_NEIGHBOUR, "lookup_neighbour", known(0), is_known),
    ]
}

fn rule(table: flowtable::types::TableId, stage: &str, matching: Match, action: Action) -> Rule {
    Rule {
        table,
        priority: Priority::DEFAULT,
        matching,
        actions: vec![action],
        cookie: 0,
        origin: Arc::new(Origin { logical_flow: 0, stage: stage.to_owned(), object: String::new() }),
        life: Default::default(),
        stats: Arc::default(),
    }
}
