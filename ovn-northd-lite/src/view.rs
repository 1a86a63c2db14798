//! The part of the network that one chassis needs, from scratch. [`crate::Views`] keeps it
//! up to date.

use std::collections::BTreeSet;

use crate::{
    key::DatapathKey,
    southbound::{PortBinding, Southbound, Wire},
    template::seen_by,
};

/// The datapaths with a port on the chassis and those reachable from them through
/// patches, except of routers that are on another chassis, with their bindings, groups,
/// flows and the sets these name, and the hosts of those bindings.
pub fn chassis_view(sb: &Southbound, chassis: &str) -> Southbound {
    let needed = needed_datapaths(sb, chassis);
    let mut view = Southbound::default();
    let datapaths = sb.datapaths.iter().filter(|(key, _)| needed.contains(key));
    view.datapaths.extend(datapaths.map(|(key, datapath)| (*key, datapath.clone())));
    let bindings = sb.bindings.iter().filter(|(_, binding)| needed.contains(&binding.datapath));
    view.bindings.extend(bindings.map(|(id, binding)| (id.clone(), binding.clone())));
    let groups = sb.groups.iter().filter(|((datapath, _), _)| needed.contains(datapath));
    view.groups.extend(groups.map(|(key, group)| (*key, group.clone())));
    let flows = sb.flows.iter().filter(|(_, flow)| needed.contains(&flow.datapath));
    view.flows.extend(flows.map(|(id, flow)| (*id, flow.clone())));
    let named: BTreeSet<_> = view.datapaths.values().flat_map(|datapath| &datapath.sets).collect();
    let sets = sb.sets.iter().filter(|(name, _)| named.contains(name));
    let seen = |name: &String, members| seen_by(chassis, name, members).into_owned();
    view.sets = sets.map(|(name, members)| (name.clone(), seen(name, members))).collect();
    let hosts: BTreeSet<_> = view.bindings.values().flat_map(hosts_of).collect();
    let hosts = sb.chassis.iter().filter(|(id, _)| *id == chassis || hosts.contains(id.as_str()));
    view.chassis.extend(hosts.map(|(id, host)| (id.clone(), host.clone())));
    view
}

/// Hosts that have a port, or may.
pub(crate) fn hosts_of(binding: &PortBinding) -> impl Iterator<Item = &str> {
    let candidates = binding.gateway.iter().map(|candidate| candidate.chassis.as_str());
    let moving = binding.additional.iter().map(String::as_str);
    binding.chassis.as_deref().into_iter().chain(candidates).chain(moving)
}

/// Packets on a chassis may take a patch.
pub(crate) fn is_way<'a>(
    patch: &PortBinding,
    chassis: &str,
    find: &dyn Fn(&str) -> Option<&'a PortBinding>,
) -> bool {
    let mut hosts = hosts_of(patch).peekable();
    let is_on_it =
        |port: &String| find(port).is_some_and(|binding| binding.chassis.as_deref() == Some(chassis));
    // What leads to a gateway elsewhere by a switch is needed where the gateway is not.
    let is_bridge = matches!(patch.wire, Wire::Redirect { .. });
    is_bridge
        || hosts.peek().is_none()
        || hosts.any(|id| id == chassis)
        || patch.open_for.iter().any(is_on_it)
}

fn needed_datapaths(sb: &Southbound, chassis: &str) -> BTreeSet<DatapathKey> {
    // A gateway has to be ready before it is needed.
    let local = sb.bindings.values().filter(|binding| hosts_of(binding).any(|id| id == chassis));
    let mut frontier: Vec<_> = local.map(|binding| binding.datapath).collect();
    let mut edges: Vec<(DatapathKey, DatapathKey)> = Vec::new();
    let find = |id: &str| sb.bindings.get(id);
    for binding in sb.bindings.values().filter(|binding| is_way(binding, chassis, &find)) {
        let peer = binding.peer.as_ref().and_then(|peer| sb.bindings.get(peer));
        edges.extend(peer.map(|peer| (binding.datapath, peer.datapath)));
    }
    edges.sort_unstable();
    let mut needed = BTreeSet::new();
    while let Some(datapath) = frontier.pop() {
        if needed.insert(datapath) {
            let first = edges.partition_point(|(from, _)| *from < datapath);
            let out = edges.get(first..).unwrap_or_default().iter().take_while(|(from, _)| *from == datapath);
            frontier.extend(out.map(|(_, to)| *to));
        }
    }
    needed
}

#[cfg(test)]
mod tests {
    use crate::{chassis_view, compile, fixture::*};

    #[test]
    fn a_view_has_what_is_reachable_and_no_more() {
        let mut nb = small();
        let mut lone = switch(9);
        lone.ports.insert("x".into(), workload(1, 0x55, &["10.5.0.5"], "h3"));
        lone.ports.insert("y".into(), workload(2, 0x56, &["10.5.0.6"], "h1"));
        nb.switches.insert("lone".into(), lone);
        let mut chassis = hosts();
        chassis.insert("h3".into(), chassis["h1"].clone());
        chassis.insert("h4".into(), chassis["h1"].clone());
        let sb = compile(&nb, &chassis);
        let keys = |id| chassis_view(&sb, id).datapaths.keys().map(|key| key.get()).collect::<Vec<_>>();
        assert_eq!(keys("h1"), [1, 2, 3, 9]);
        assert_eq!(keys("h2"), [1, 2, 3]);
        assert_eq!(keys("h3"), [9]);
        assert_eq!(keys("h4"), []);
        let view = chassis_view(&sb, "h3");
        assert_eq!(view.bindings.keys().collect::<Vec<_>>(), ["x", "y"]);
        assert_eq!(view.chassis.keys().collect::<Vec<_>>(), ["h1", "h3"]);
        assert!(view.flows.values().all(|flow| flow.datapath.get() == 9));
        assert!(view.groups.keys().all(|(datapath, _)| datapath.get() == 9));
        assert_eq!(chassis_view(&sb, "h4").chassis.len(), 1);
    }
}
