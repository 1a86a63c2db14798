//! Bindings: which chassis a port is on. Decided by the registry, kept in the store.

use std::collections::BTreeSet;

use crate::{
    access::Author,
    controller::Controller,
    resource::Name,
    state::{Refusal, State},
};

/// Where a port is to be, and whether it is up there; and where it is to be besides.
type Move = (Name, Option<(String, bool)>, BTreeSet<String>);

/// Brings the bindings of these ports, and of all ports on this chassis, in line with
/// what the registry says.
pub(super) fn settle(controller: &Controller, chassis: &str, ports: BTreeSet<String>) -> Result<(), Refusal> {
    write(controller, &Author::chassis(chassis, "claims"), chassis, &ports)
}

/// The same, of these ports alone: nothing else has changed.
pub(super) fn settle_changed(
    controller: &Controller,
    chassis: &str,
    ports: &BTreeSet<String>,
) -> Result<(), Refusal> {
    write(controller, &Author::chassis(chassis, "claims"), "", ports)
}

/// Brings all ports that are claimed here in line with what the registry says: others may have
/// made them, or have taken them from somebody.
pub(crate) fn settle_claims(controller: &Controller) -> Result<(), Refusal> {
    write(controller, &Author::controller("claims"), "", &controller.registry.claimed())
}

fn write(
    controller: &Controller,
    author: &Author,
    chassis: &str,
    ports: &BTreeSet<String>,
) -> Result<(), Refusal> {
    if moves(controller, &controller.state(), chassis, ports).is_empty() {
        return Ok(());
    }
    controller.write(author, false, |draft| {
        for (name, place, additional) in moves(controller, draft.state(), chassis, ports) {
            draft.bind(&name, place.as_ref().map(|(chassis, up)| (chassis.as_str(), *up)));
            draft.set_additional(&name, additional);
        }
        Ok(())
    })?;
    Ok(())
}

/// What is to change of these ports, and of those that are on this chassis; empty: of none besides.
fn moves(controller: &Controller, state: &State, chassis: &str, ports: &BTreeSet<String>) -> Vec<Move> {
    let bound = state.bound_to(chassis).filter_map(|name| state.get(name));
    let nested = ports.iter().flat_map(|port| state.nested_in(port)).filter_map(|name| state.get(name));
    let named = ports.iter().filter_map(|port| state.port(port)).chain(nested);
    let mut moves = Vec::new();
    for record in named.chain(bound).filter(|record| record.is_workload()) {
        let present = record.binding.as_ref();
        let place =
            controller.registry.place(record.claimed_as(), present, |chassis| record.may_be_on(chassis));
        let is_same = match (present, &place) {
            (Some(present), Some((chassis, up))) => present.chassis == *chassis && present.up == *up,
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        let additional = controller.registry.additional(
            record.claimed_as(),
            &record.additional,
            record.wanted_additional(),
        );
        if !is_same || additional != record.additional {
            moves.push((record.name.clone(), place, additional));
        }
    }
    moves
}

/// Reports the claims that were refused because another chassis holds the port.
pub(super) fn report_refused<'a>(
    controller: &Controller,
    chassis: &str,
    ports: impl Iterator<Item = &'a String>,
) {
    let state = controller.state();
    for port in ports {
        let record = state.port(port);
        if record.is_some_and(|record| record.wanted_additional().any(|id| id == chassis)) {
            continue;
        }
        if record.is_some_and(|record| !record.may_be_on(chassis)) {
            tracing::warn!(
                port,
                chassis,
                "claim refused: the port's requested_chassis does not name this one"
            );
            continue;
        }
        let holder = record.and_then(|record| record.binding.as_ref());
        if let Some(holder) = holder.filter(|holder| holder.chassis != chassis) {
            tracing::warn!(
                port,
                chassis,
                holder = holder.chassis,
                "claim refused: the port is bound to another chassis that is connected; remove it there first"
            );
        }
    }
}
