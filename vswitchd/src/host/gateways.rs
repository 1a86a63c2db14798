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
    southbound::{PortBinding, Wire},
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
        let is_shared = |(_, binding): &(&String, &PortBinding)| {
            let is_patch = binding.peer.is_some() && !matches!(binding.wire, Wire::Redirect { .. });
            !binding.gateway.is_empty() && !is_patch
        };
        let shared = self.lowering.view().bindings.iter().filter(is_shared);
        shared
            .map(|(id, binding)| GatewayStatus {
                port: id.strip_prefix("cr:").unwrap_or(id).to_owned(),
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
