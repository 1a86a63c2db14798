//! What must hold: at all times, and when all is well again.

use std::collections::{BTreeMap, BTreeSet};

use controller::{
    access::Access,
    controller::Controller,
    network,
    resource::Kind,
    state::ChassisStatus,
    store::{LogLimits, Revision},
};
use ferroflow_proto::northbound::{self as pb, resource::Spec};

use vswitchd::host::GatewayStatus;

use super::{Event, MILLI, STEADY, World, hosts::chassis, packets::Target};
use crate::{
    model::{Half, Net, Packet, router_mac},
    plant::Plant,
};

/// Packets that tell in the end who gets what.
const FINAL_PACKETS: usize = 40;
/// What workloads send in the end has arrived so long after.
const ARRIVAL: u64 = 200 * MILLI;

impl World {
    /// What receipts say: how far all hosts are.
    pub(super) fn look(&mut self) {
        self.after(50 * MILLI, Event::Look);
        for idx in 0..self.servers.len() {
            while let Some(running) = &self.servers[idx].running {
                let next = self.floor + 1;
                if running.controller.state().revision().get() < next {
                    break;
                }
                if !running.northbound.receipt(Revision::new(next)).complete {
                    break;
                }
                self.floor = next;
            }
        }
        let floor = self.floor;
        self.trace.add(self.now, format_args!("applied everywhere: {floor}"));
        self.check_truth();
        self.look_after_faults();
    }

    /// Where receipts say of all revisions that all hosts have them, hosts have what the network is.
    fn check_truth(&mut self) {
        if self.floor < self.disk.newest() || !self.random.percent(20) {
            return;
        }
        let Some(wanted) = self.compiled_at_once() else { return };
        for idx in self.living().into_iter().filter(|idx| !self.nodes[*idx].may_go_back()) {
            let has = self.nodes[idx].running.as_ref().map(|running| running.host.view());
            let is_registered = wanted.state().chassis(&chassis(idx)).is_some();
            if is_registered && has != Some(&wanted.network().view(&chassis(idx)).1) {
                let floor = self.floor;
                self.fail(format_args!(
                    "receipts say that revision {floor} is applied everywhere, and host {idx} does not have it"
                ));
                return;
            }
        }
    }

    /// A controller that has just read the store, and compiled all of it at once.
    fn compiled_at_once(&self) -> Option<std::sync::Arc<Controller>> {
        let observer = usize::MAX;
        let opened = Controller::open_with(self.disk.link(observer), LogLimits::default(), Access::default());
        let controller = opened.ok()?;
        network::follow(&controller);
        Some(controller)
    }

    /// What is not as it should be when all is repaired; none: all is well.
    pub(super) fn not_well(&self) -> Option<String> {
        let is_over = |event: &Event| matches!(event, Event::HostCloses(_) | Event::ServerCloses(_));
        if self.queue.values().any(is_over) {
            return Some("a stream is over, and not all have noticed".to_owned());
        }
        let newest = self.disk.newest();
        for (idx, server) in self.servers.iter().enumerate() {
            let Some(running) = &server.running else {
                return Some(format!("controller {idx} does not run"));
            };
            let at = running.controller.state().revision().get();
            if at != newest {
                return Some(format!("controller {idx} is at revision {at} of {newest}"));
            }
            let receipt = running.northbound.receipt(Revision::new(newest));
            let waits = |of: &&pb::ChassisReceipt| !of.applied && !self.is_dead(&of.chassis);
            if running.controller.receipts.newest() != Some(Revision::new(newest)) {
                return Some(format!("controller {idx} has not compiled revision {newest}"));
            }
            if let Some(waits) = receipt.chassis.iter().find(waits) {
                return Some(format!(
                    "by controller {idx} revision {newest} is not applied by {}",
                    waits.chassis
                ));
            }
        }
        for idx in self.living() {
            if self.nodes[idx].running.as_ref().is_none_or(|running| running.wire.is_none()) {
                return Some(format!("host {idx} has no controller"));
            }
            let connected = self
                .servers
                .iter()
                .flat_map(|server| &server.running)
                .all(|running| running.controller.chassis_status(&chassis(idx)).connected);
            if !connected {
                return Some(format!("host {idx} is not connected, as controllers say"));
            }
        }
        self.unbound().or_else(|| self.at_odds())
    }

    fn is_dead(&self, name: &str) -> bool {
        self.nodes
            .iter()
            .enumerate()
            .any(|(idx, node)| node.is_dead && name == format!("chassis/{}", chassis(idx)))
    }

    /// A port whose interface is there, and that is not bound to its host, or not up.
    fn unbound(&self) -> Option<String> {
        let running = self.servers.iter().find_map(|server| server.running.as_ref())?;
        let (net, state) = (self.history.at(self.disk.newest()), running.controller.state());
        for (id, homes) in &self.homes {
            let (Some(home), true) = (homes.first(), net.ports.contains_key(id)) else { continue };
            let binding = state.port(id).and_then(|record| record.binding.clone());
            if binding.as_ref().is_none_or(|binding| binding.chassis != chassis(*home) || !binding.up) {
                return Some(format!("{id} is at host {home}, and bound so: {binding:?}"));
            }
        }
        None
    }

    /// When all has been well for long enough, it is looked at closely.
    fn look_after_faults(&mut self) {
        let Some(healed_at) = self.faults.healed_at.filter(|_| !self.is_over) else { return };
        if let Some(why) = self.not_well() {
            if self.well_since.take().is_some() {
                self.trace.add(self.now, format_args!("all was well, and is not any more: {why}"));
            }
            return;
        }
        let since = *self.well_since.get_or_insert(self.now);
        if since == self.now {
            self.trace.add(self.now, format_args!("all is well"));
        }
        // What is still under way may do no harm.
        if self.now < since + STEADY {
            return;
        }
        self.counts.convergence = since - healed_at;
        self.is_over = true;
        self.check_end();
    }

    fn check_end(&mut self) {
        self.check_resources();
        self.check_compiled();
        self.check_hosts();
        if self.failure.is_none() {
            self.check_packets();
        }
        for idx in self.living() {
            self.check_books(idx);
        }
    }

    /// All controllers have what users were told that they have, and nothing else.
    fn check_resources(&mut self) {
        let wanted: BTreeMap<_, _> = {
            let net = self.history.at(self.disk.newest());
            net.resources().into_iter().map(|resource| (resource.name.clone(), resource)).collect()
        };
        if self.has(Plant::OneDirection) {
            // Answers and packets have to tell.
            return;
        }
        let mut wrong = None;
        for (idx, server) in self.servers.iter().enumerate() {
            let Some(running) = &server.running else { continue };
            let state = running.controller.state();
            let users = state.iter().filter(|record| record.name.kind() != Kind::Chassis);
            let has: BTreeMap<_, _> = users
                .map(|record| plain(record.to_wire(|_| ChassisStatus::default())))
                .map(|resource| (resource.name.clone(), resource))
                .collect();
            let differs = wanted.keys().chain(has.keys()).find(|name| wanted.get(*name) != has.get(*name));
            if let Some(name) = differs {
                wrong = Some(format!(
                    "{name} at controller {idx}: {:?}, should be {:?}",
                    has.get(name),
                    wanted.get(name)
                ));
                break;
            }
        }
        if let Some(wrong) = wrong {
            self.fail(format_args!("{wrong}"));
        }
    }

    /// What was compiled change by change is what is compiled at once; hosts have it.
    fn check_compiled(&mut self) {
        let Some(wanted) = self.compiled_at_once() else { return };
        for host in self.living() {
            let id = chassis(host);
            let view = wanted.network().view(&id).1;
            let wrong = self.servers.iter().enumerate().find(|(_, server)| {
                server
                    .running
                    .as_ref()
                    .is_some_and(|running| running.controller.network().view(&id).1 != view)
            });
            if let Some((idx, _)) = wrong {
                self.fail(format_args!(
                    "what controller {idx} has compiled for host {host} is not what is compiled at once"
                ));
            }
            if self.nodes[host].running.as_ref().is_some_and(|running| *running.host.view() != view) {
                self.fail(format_args!("host {host} has not what the network is"));
            }
        }
    }

    /// The tables of hosts are what the network is lowered to at once.
    fn check_hosts(&mut self) {
        for idx in self.living() {
            let Some(running) = &self.nodes[idx].running else { continue };
            let (same, errors) = (running.host.is_as_lowered_at_once(), running.host.errors());
            if !same {
                self.fail(format_args!(
                    "the tables of host {idx} are not what the network is lowered to at once"
                ));
            }
            if !errors.is_empty() {
                self.fail(format_args!("host {idx}: {errors:?}"));
            }
        }
    }

    /// Received is forwarded or dropped by name, at each port.
    pub(super) fn check_books(&mut self, idx: usize) {
        let Some(running) = &self.nodes[idx].running else { return };
        let dataplane = running.host.dataplane();
        let (ports, drops) = (dataplane.ports(), dataplane.drops());
        for status in ports {
            let counters = &status.counters;
            let named = drops.iter().filter(|drop| drop.in_port == status.port);
            let mut named: Vec<u64> = named.map(|drop| drop.n_packets).collect();
            if self.has(Plant::TwiceCounted) {
                named.extend(named.first().filter(|n| **n > 0).map(|_| 1));
            }
            let named: u64 = named.iter().sum();
            let is_right = counters.rx_packets == counters.rx_forwarded + counters.rx_dropped;
            if !is_right || named != counters.rx_dropped {
                return self.fail(format_args!(
                    "host {idx}, port {}: {} received, {} forwarded, {} dropped, {named} by name",
                    status.name, counters.rx_packets, counters.rx_forwarded, counters.rx_dropped
                ));
            }
        }
    }

    /// Now it is known of each packet who has to get it.
    fn check_packets(&mut self) {
        let net = self.history.at(self.disk.newest());
        let mut sent = Vec::new();
        let senders: Vec<_> = self.homes.keys().filter(|id| net.ports.contains_key(*id)).cloned().collect();
        for _ in 0..FINAL_PACKETS {
            let Some(port) = self.random.pick(&senders).cloned() else { return };
            let (Some(host), from) = (self.homes_of(&port).first().copied(), net.ports.get(&port).cloned())
            else {
                continue;
            };
            let Some((packet, target)) = self.some_packet(&net, from) else { continue };
            let number = self.send(host, &port, packet);
            sent.push((number, port, packet, target));
        }
        let before = self.drops();
        let end = self.now + ARRIVAL;
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= end) {
            let ((now, _), event) = entry.remove_entry();
            self.now = now;
            self.happen(event);
        }
        for drop in self.drops().difference(&before) {
            self.trace.note(format_args!("    {drop}"));
        }
        for idx in self.living() {
            let Some(running) = &self.nodes[idx].running else { continue };
            for GatewayStatus { port, active, candidates } in running.host.gateway_status() {
                self.trace.note(format_args!("    host {idx} takes {active} for {port}: {candidates:?}"));
            }
        }
        for (number, port, packet, target) in sent {
            let got = self.probes.get(&number).map(|probe| probe.received.clone()).unwrap_or_default();
            let Some(due) = self.due(&net, &port, &packet, &target) else { continue };
            self.counts.judged += 1;
            self.counts.due += u64::from(due.is_some());
            self.counts.due_ipv6 += u64::from(due.is_some() && packet.is_ipv6);
            self.counts.due_by_gateway +=
                u64::from(due.is_some() && crosses_gateway(&net, &port, &packet, &target));
            let is_right = match &due {
                None => got.is_empty(),
                Some(any) => got.len() == 1 && any.contains(&got[0]),
            };
            if !is_right {
                self.fail(format_args!("{port} sends {packet:?}: {got:?} get it, and {due:?} should"));
            }
        }
    }

    /// What hosts have dropped, for those who read the trace.
    fn drops(&self) -> BTreeSet<String> {
        let living = self.living().into_iter().filter(|_| self.settings.is_shown);
        let running = living.filter_map(|idx| Some((idx, self.nodes[idx].running.as_ref()?)));
        let drops = running.flat_map(|(idx, running)| {
            let drops = running.host.dataplane().drops();
            drops.into_iter().map(move |drop| format!("host {idx} has dropped {drop:?}"))
        });
        drops.collect()
    }

    /// Who has to get a packet: one of these, or nobody; none where it cannot be said.
    fn due(&self, net: &Net, from: &str, packet: &Packet, target: &Target) -> Option<Option<Vec<String>>> {
        let is_there = |id: &String| !self.homes_of(id).is_empty();
        let gets = |id: &String, sent_on: Packet| {
            let (to, sender) = (net.ports.get(id)?, net.ports.get(from)?);
            let router =
                net.routers.keys().find(|router| router_mac(**router, sender.switch) == packet.dst_mac);
            let received = match router {
                Some(router) => {
                    let routed = net.translated(*router, sender.switch, &sent_on);
                    if routed.dst != to.ip {
                        // Around a corner, or by what is not there any more.
                        return None;
                    }
                    let by_gateway =
                        [sender.switch, to.switch].iter().any(|switch| is_gateway(net, *router, *switch));
                    if by_gateway && !self.has_gateway(net, *router) {
                        return None;
                    }
                    Packet { dst_mac: to.mac, src_mac: router_mac(*router, to.switch), ..routed }
                }
                None => sent_on,
            };
            let goes = net.allows(Half::Sent(from, net), packet, &received);
            Some(goes && net.allows(Half::Received(id), packet, &received) && is_there(id))
        };
        match target {
            // Who sends to himself may hear it or not.
            Target::Port(id) if id == from => None,
            Target::Port(id) => Some(gets(id, *packet)?.then(|| vec![id.clone()])),
            Target::OneOf(ids) => {
                let service = net
                    .balancers
                    .values()
                    .find(|one| (one.vip, one.port) == (packet.dst, packet.dst_port))?;
                if ids.iter().any(|id| id == from) || service.backends.len() != ids.len() {
                    return None;
                }
                let to = |id: &String| {
                    net.ports.get(id).map(|port| Packet { dst: port.ip, dst_port: 8080, ..*packet })
                };
                let verdicts = ids.iter().map(|id| gets(id, to(id)?)).collect::<Option<Vec<_>>>()?;
                match (verdicts.iter().all(|gets| *gets), verdicts.iter().any(|gets| *gets)) {
                    (true, true) => Some(Some(ids.clone())),
                    (_, false) => Some(None),
                    (false, true) => None,
                }
            }
        }
    }
}

impl World {
    /// A host that may be the router's gateway lives.
    fn has_gateway(&self, net: &Net, router: u8) -> bool {
        let living = self.living();
        net.gateway(router)
            .is_some_and(|(_, hosts)| hosts.iter().any(|host| living.contains(&usize::from(*host))))
    }

    /// A host that takes another one for the gateway than the best of those that live.
    fn at_odds(&self) -> Option<String> {
        let living: Vec<_> = self.living().into_iter().map(chassis).collect();
        for idx in self.living() {
            let Some(running) = &self.nodes[idx].running else { continue };
            for GatewayStatus { port, active, candidates } in running.host.gateway_status() {
                let best = candidates.iter().map(|(id, ..)| id).find(|id| living.contains(*id));
                if best.is_some_and(|best| *best != active) {
                    return Some(format!(
                        "host {idx} takes {active} for the gateway of {port}: {candidates:?}"
                    ));
                }
            }
        }
        None
    }
}

/// The router's side of the switch is at a gateway.
fn is_gateway(net: &Net, router: u8, switch: u8) -> bool {
    net.links.get(&(router, switch)).is_some_and(|gateways| !gateways.is_empty())
}

/// The packet gets to its target by a gateway.
fn crosses_gateway(net: &Net, from: &str, packet: &Packet, target: &Target) -> bool {
    let (Some(sender), Target::Port(to)) = (net.ports.get(from), target) else { return false };
    let to = net.ports.get(to).map(|port| port.switch);
    let asked = net.routers.keys().find(|router| router_mac(**router, sender.switch) == packet.dst_mac);
    asked.is_some_and(|router| {
        to.into_iter().chain([sender.switch]).any(|switch| is_gateway(net, *router, switch))
    })
}

/// A resource without what the network says by itself.
fn plain(mut resource: pb::Resource) -> pb::Resource {
    (resource.create_revision, resource.update_revision) = (0, 0);
    match &mut resource.spec {
        Some(Spec::LogicalSwitch(switch)) => switch.tunnel_key = 0,
        Some(Spec::LogicalRouter(router)) => router.tunnel_key = 0,
        Some(Spec::LogicalRouterPort(port)) => port.tunnel_key = 0,
        Some(Spec::LogicalSwitchPort(port)) => {
            (port.tunnel_key, port.up) = (0, false);
            port.chassis.clear();
        }
        _ => {}
    }
    resource
}
