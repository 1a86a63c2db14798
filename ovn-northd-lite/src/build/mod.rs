//! From the northbound model to the southbound one. One file per logical feature; which
//! there are, and in which order, is in [`switch`] and [`router`]. What a feature is, and
//! how it says what it depends on, is in [`feature`]; the order of the stages is in
//! [`stage`].
//!
//! A network is compiled in units ([`mod@unit`]): [`compile`] builds all of them and puts them
//! together ([`whole`]), [`crate::Compiler`] those that a change reaches.

pub(crate) mod address;
pub(crate) mod balancer;
pub(crate) mod feature;
pub(crate) mod gateway;
pub(crate) mod links;
mod liveness;
pub(crate) mod multicast;
mod router;
pub(crate) mod sets;
mod sink;
pub(crate) mod stage;
mod switch;
mod template;
pub(crate) mod topology;
pub(crate) mod traits;
pub(crate) mod unit;
pub(crate) mod whole;

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    key::PortKey,
    model::Northbound,
    southbound::{ChassisRecord, Southbound},
};

use feature::{build_router, build_switch};
use links::Links;
use topology::{RouterScope, SwitchScope};
use traits::{RouterState, SwitchState};

/// Name of the group of all ports of a switch.
const FLOOD: &str = "_MC_flood";
/// Name of the group of ports that take frames to addresses nobody is known to have.
const UNKNOWN: &str = "_MC_unknown";

/// Name of the group of all ports of a switch but those of routers.
const FLOOD_L2: &str = "_MC_flood_l2";

/// Name of the group of ports that get what workloads say about groups.
const REPORTS: &str = "_MC_mrouter_flood";
/// Name of the group of ports that get what is sent to any group.
const HEAR_ALL: &str = "_MC_static";

/// Keys of the groups (OVN's).
const FLOOD_KEY: Option<PortKey> = key(PortKey::FIRST_GROUP);
const UNKNOWN_KEY: Option<PortKey> = key(PortKey::FIRST_GROUP + 1);

const REPORTS_KEY: Option<PortKey> = key(PortKey::FIRST_GROUP + 2);
const HEAR_ALL_KEY: Option<PortKey> = key(PortKey::FIRST_GROUP + 3);
const FLOOD_L2_KEY: Option<PortKey> = key(PortKey::FIRST_GROUP + 4);

const fn key(raw: u16) -> Option<PortKey> {
    match PortKey::new(raw) {
        Ok(key) => Some(key),
        Err(_) => None,
    }
}

/// Compiles a whole network. Pure and deterministic.
pub fn compile(nb: &Northbound, chassis: &BTreeMap<String, ChassisRecord>) -> Southbound {
    let links = Links::of(nb);
    let mut units = Vec::new();
    for (id, switch) in &nb.switches {
        let state = SwitchState::of(nb, &links, id, switch);
        let scope = SwitchScope::new(nb, &links, (id, switch), &state);
        let items = scope.items().map(Arc::new);
        units.extend(items.map(|item| (build_switch(&scope, &item), item)));
    }
    for (id, router) in &nb.routers {
        let state = RouterState::of(nb, &links, id, router);
        let scope = RouterScope::new(nb, &links, (id, router), &state);
        let items = scope.items().map(Arc::new);
        units.extend(items.map(|item| (build_router(&scope, &item), item)));
    }
    let mut sb = whole::assemble(units);
    sb.chassis = chassis.clone();
    for id in nb.address_sets.keys() {
        sb.sets.extend(sets::of_addresses(nb, id));
    }
    for id in nb.port_groups.keys() {
        sb.sets.extend(sets::of_group(nb, id));
    }
    for id in nb.heard.keys() {
        sb.sets.extend(sets::of_heard(nb, id));
    }
    for id in nb.template_variables.keys() {
        sb.sets.extend(sets::of_variable(nb, id));
    }
    for id in nb.sample_collectors.keys() {
        sb.sets.extend(sets::of_collector(nb, id));
    }
    for id in nb.load_balancers.keys() {
        sb.sets.extend(sets::of_backends(nb, id));
    }
    for id in nb.names.keys() {
        sb.sets.extend(sets::of_names(nb, id));
    }
    sb
}

#[cfg(test)]
mod tests;
