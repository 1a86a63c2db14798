//! Health of backends, and of workloads as such: what hosts say of their own ones, kept in the store.

use std::collections::BTreeMap;

use ferroflow_proto::chassis::BackendHealth;

use crate::{
    access::Author,
    controller::Controller,
    resource::Name,
    state::{Known, Refusal, State},
};

/// Writes what a chassis says of backends, where it is new. What is not its business, or of
/// what is no longer asked, is left out.
pub(super) fn settle(controller: &Controller, chassis: &str, said: &[BackendHealth]) -> Result<(), Refusal> {
    if changes(&controller.state(), chassis, said).is_empty() {
        return Ok(());
    }
    controller.write(&Author::chassis(chassis, "health"), false, |draft| {
        for (balancer, known) in changes(draft.state(), chassis, said) {
            draft.set_health(&balancer, known);
        }
        Ok(())
    })?;
    Ok(())
}

fn changes(state: &State, chassis: &str, said: &[BackendHealth]) -> BTreeMap<Name, Known> {
    let mut changes: BTreeMap<Name, Known> = BTreeMap::new();
    for BackendHealth { load_balancer, vip, backend, online, port } in said {
        let balancer = || state.get(&Name::parse(&format!("load-balancers/{load_balancer}")).ok()?);
        let found = if load_balancer.is_empty() { state.port(port) } else { balancer() };
        let Some(record) = found else { continue };
        let key = (vip.clone(), backend.clone());
        let Some(port) = record.checked().remove(&key) else { continue };
        let binding = state.port(&port).and_then(|record| record.binding.as_ref());
        let is_its_own = binding.is_some_and(|binding| binding.chassis == chassis);
        if is_its_own && record.health.get(&key) != Some(online) {
            changes.entry(record.name.clone()).or_default().insert(key, *online);
        }
    }
    changes
}
