//! Gateways: which of the hosts that may have something live, and what this host has by
//! that. What it comes to have, it tells the networks outside.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use flowtable::{
    field::Field,
    flow::Action,
    types::{BridgeId, MacAddr, PortNo, Timestamp, VlanId},
};
use ovn_northd_lite::{
    SouthboundDelta, chassis_of, is_resident,
    southbound::{PortBinding, Southbound, Wire},
};

use super::Host;
use crate::bfd::Bfd;

mod announcement;
mod hops;

/// Pauses between the times that something is told.
const PAUSES: [Duration; 4] =
    [Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];

/// An address of this host's in a network outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Presence {
    port: PortNo,
    tag: Option<VlanId>,
    /// The tag is one of a provider.
    is_service: bool,
    mac: MacAddr,
    ip: Option<IpAddr>,
}

/// What this host sees of gateways.
#[derive(Debug, Default)]
pub(super) struct Gateways {
    /// Ids of chassis that are dead.
    pub(super) down: BTreeSet<String>,
    /// What has been told, how often, and when it is next.
    told: BTreeMap<Presence, (usize, Timestamp)>,
}

/// Something that several hosts may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayStatus {
    /// Id of the port.
    pub port: String,
    /// Id of the chassis that has it.
    pub active: String,
    /// Those that may, the best first: id, priority, and what is known of it.
    pub candidates: Vec<(String, u16, &'static str)>,
}

/// What several hosts may have, by the name of the port that users know. A gateway port of a router is known by its
/// redirect; a host that has only the switch at it knows it by that switch's side.
fn shared(view: &Southbound) -> impl Iterator<Item = (&str, &PortBinding)> {
    let shared = view.bindings.iter().filter(|(_, binding)| !binding.gateway.is_empty());
    shared.filter_map(move |(id, binding)| Some((name_of(view, id, binding)?, binding)))
}

fn name_of<'a>(view: &Southbound, id: &'a str, binding: &'a PortBinding) -> Option<&'a str> {
    let is_router = || view.datapaths.get(&binding.datapath).is_some_and(|datapath| datapath.is_router);
    match (&binding.peer, &binding.wire) {
        (_, Wire::Redirect { .. }) | (None, _) => Some(id.strip_prefix("cr:").unwrap_or(id)),
        (Some(peer), _) => {
            Some(peer.as_str()).filter(|peer| !is_router() && !view.bindings.contains_key(*peer))
        }
    }
}

impl Host {
    /// The sessions with other hosts.
    pub fn bfd(&self) -> Arc<Bfd> {
        Arc::clone(&self.bfd)
    }

    /// Looks anew at who lives, and forwards by that.
    pub fn tend_gateways(&mut self) {
        self.bfd.expire();
        let down = self.dead();
        if down != self.gateways.down {
            tracing::info!(
                dead = down.iter().map(String::as_str).collect::<Vec<_>>().join(" "),
                "other hosts that may be gateways"
            );
            self.gateways.down = down;
            self.lower(SouthboundDelta::default());
            self.publish(BridgeId::FIRST);
            self.advertise();
        }
        self.want_hops();
        self.tell_sessions();
        self.announce();
    }

    /// Watches the hosts that the network names as gateways, and forwards by what is known of
    /// them; the caller publishes it.
    pub(super) fn watch_gateways(&mut self) {
        let chassis = &self.identity.chassis;
        let candidates = self.lowering.view().bindings.values().flat_map(|binding| &binding.gateway);
        let ids: BTreeSet<_> = candidates.map(|candidate| &candidate.chassis).collect();
        let others = ids.into_iter().filter(|id| *id != chassis);
        let peers = others
            .filter_map(|id| self.lowering.view().chassis.get(id))
            .map(|record| record.encap_ip)
            .collect();
        self.bfd.want(&peers);
        let down = self.dead();
        if down != self.gateways.down {
            self.gateways.down = down;
            self.lower(SouthboundDelta::default());
        }
        self.want_hops();
        self.tell_sessions();
    }

    /// Everything that several hosts may have, as this one sees it.
    pub fn gateway_status(&self) -> Vec<GatewayStatus> {
        let local = self.local_ports();
        shared(self.lowering.view())
            .map(|(name, binding)| GatewayStatus {
                port: name.to_owned(),
                active: chassis_of(self.lowering.view(), &local, binding).unwrap_or_default().to_owned(),
                candidates: binding
                    .gateway
                    .iter()
                    .map(|candidate| {
                        let id = candidate.chassis.clone();
                        let known = self.liveness(&id);
                        (id, candidate.priority, known)
                    })
                    .collect(),
            })
            .collect()
    }

    fn liveness(&self, chassis: &str) -> &'static str {
        if chassis == self.identity.chassis {
            return "self";
        }
        let Some(record) = self.lowering.view().chassis.get(chassis) else { return "unknown" };
        self.bfd.state(record.encap_ip).map_or("unknown", |state| state.name())
    }

    /// Candidates that do not live.
    fn dead(&self) -> BTreeSet<String> {
        let candidates = self.lowering.view().bindings.values().flat_map(|binding| &binding.gateway);
        let ids: BTreeSet<_> = candidates.map(|candidate| &candidate.chassis).collect();
        let is_dead = |id: &&String| {
            let record = self.lowering.view().chassis.get(*id).filter(|_| **id != self.identity.chassis);
            record.is_some_and(|record| !self.bfd.is_alive(record.encap_ip))
        };
        ids.into_iter().filter(is_dead).cloned().collect()
    }

    /// Tells the networks outside what this host has come to have, several times: such
    /// packets get lost.
    pub(super) fn announce(&mut self) {
        let now = self.dataplane.now();
        let present = self.presences();
        self.gateways.told.retain(|presence, _| present.contains(presence));
        let mut due = Vec::new();
        for presence in present {
            let (n_told, next) = self.gateways.told.entry(presence).or_insert((0, now));
            if now >= *next && *n_told <= PAUSES.len() {
                let pause = PAUSES.get(*n_told).copied().unwrap_or_default();
                (*n_told, *next) = (*n_told + 1, now.after(pause));
                due.push(presence);
            }
        }
        for presence in due {
            self.tell(&presence);
        }
    }

    /// The addresses that this host has in networks outside.
    fn presences(&self) -> BTreeSet<Presence> {
        let local = self.local_ports();
        let mut found = BTreeSet::new();
        for (id, network) in &self.lowering.view().bindings {
            let Wire::Network { name, tag, is_service } = &network.wire else { continue };
            let is_everywhere = network.gateway.is_empty();
            let is_here = is_everywhere || is_resident(self.lowering.view(), &local, id);
            let Some(port) = local.networks.get(name).filter(|_| is_here) else { continue };
            let on_switch =
                self.lowering.view().bindings.values().filter(|port| port.datapath == network.datapath);
            // By an l2gateway the network reaches all of the switch.
            let own = on_switch
                .flat_map(|port| &port.announced)
                .filter(|one| !is_everywhere || is_resident(self.lowering.view(), &local, &one.port));
            let (port, tag, is_service) = (*port, *tag, *is_service);
            found.extend(own.map(|one| Presence { port, tag, is_service, mac: one.mac, ip: one.ip }));
        }
        found
    }

    fn tell(&self, presence: &Presence) {
        let mut actions = Vec::new();
        if let Some(tag) = presence.tag {
            let value = 0x1000 | u128::from(tag.get());
            actions.push(Action::PushVlan(if presence.is_service { 0x88a8 } else { 0x8100 }));
            actions.push(Action::SetField { field: Field::VlanTci, value, mask: 0x1fff });
        }
        actions.push(Action::Output(presence.port));
        let frame = announcement::frame(presence.mac, presence.ip);
        if let Err(error) = self.dataplane.packet_out(PortNo::CONTROLLER, actions, frame) {
            tracing::debug!(%error, mac = %presence.mac, "an announcement is not sent");
        }
    }
}

#[cfg(test)]
mod tests {
    use ferroflow_proto::chassis as pb;

    use super::*;
    use crate::agent::decode;

    /// A router's gateway port, the switch's side of it, and the redirect to it; of these, those that the host has.
    fn view(has: &[&str], by: &str) -> Southbound {
        let candidate = |chassis: &str, priority| pb::Candidate { chassis: chassis.to_owned(), priority };
        let binding =
            |(name, peer, datapath, key, stage): (&str, &str, u32, u32, Option<u32>)| pb::PortBinding {
                name: name.to_owned(),
                datapath,
                key,
                peer: peer.to_owned(),
                gateway: vec![candidate("h4", 20), candidate("h6", 10)],
                wire: stage.map(pb::port_binding::Wire::RedirectStage),
                ..Default::default()
            };
        let all =
            [("s0r1", "r1s0", 1, 5, None), ("r1s0", "s0r1", 2, 1, None), ("cr:r1s0", by, 2, 2, Some(5))];
        let port_bindings = all.into_iter().filter(|one| has.contains(&one.0)).map(binding).collect();
        let datapath =
            |key, router| pb::Datapath { key, router, name: format!("d{key}"), ..Default::default() };
        let datapaths = vec![datapath(1, false), datapath(2, true)];
        let update = pb::SyncResponse { full: true, datapaths, port_bindings, ..Default::default() };
        let mut view = Southbound::default();
        decode(update).unwrap().apply(&mut view);
        view
    }

    #[test]
    fn a_host_that_has_only_the_switch_at_a_gateway_says_whom_it_sends_to() {
        let names =
            |view: &Southbound| -> Vec<String> { shared(view).map(|(name, _)| name.to_owned()).collect() };
        assert_eq!(names(&view(&["s0r1"], "")), ["r1s0"]);
        // Once, where the router is known.
        assert_eq!(names(&view(&["r1s0", "cr:r1s0"], "")), ["r1s0"]);
        assert_eq!(names(&view(&["s0r1", "r1s0", "cr:r1s0"], "")), ["r1s0"]);
        // To the gateway without a tunnel.
        assert_eq!(names(&view(&["s0r1", "r1s0", "cr:r1s0"], "s0r1")), ["r1s0"]);
    }
}
