//! Workloads that send, and what becomes of it.

use std::net::Ipv4Addr;

use super::{Event, MILLI, World, hosts::Node};
use crate::{
    model::{Half, Nat, NatKind, Net, Packet, Port, nat_ip, router_mac},
    packet,
    workload::SERVICES,
};

/// A packet of a workload.
#[derive(Debug)]
pub(super) struct Probe {
    packet: Packet,
    host: usize,
    pub(super) port: String,
    /// Revisions by which the sender's host may have judged it.
    oldest: u64,
    newest: u64,
    /// The oldest one by which a gateway may have.
    floor: u64,
    /// It answers one that came from here.
    answers: Option<String>,
    pub(super) received: Vec<String>,
}

/// Whom a packet is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// This port.
    Port(String),
    /// One of these ports: the service's backends.
    OneOf(Vec<String>),
}

impl World {
    pub(super) fn send_some(&mut self) {
        if self.faults.healed_at.is_some() {
            return;
        }
        let pause = self.some(20 * MILLI, 120 * MILLI);
        self.after(pause, Event::Send);
        // What they think of the network may be long out of date.
        let newest = self.disk.newest();
        let known = newest.saturating_sub(self.random.below(8));
        for _ in 0..self.random.within(1, 4) {
            let net = self.history.at(if self.random.percent(60) { newest } else { known });
            let senders: Vec<_> = self
                .homes
                .iter()
                .flat_map(|(port, homes)| homes.iter().map(|home| (port.clone(), *home)))
                .collect();
            let Some((port, host)) = self.random.pick(&senders).cloned() else { return };
            let own = self.own_addresses(&net, &port);
            if let Some((packet, _)) = self.some_packet(&net, own) {
                self.send(host, &port, packet);
            }
        }
    }

    /// What a workload sends by: what its port has or had, or now and then what somebody else has.
    fn own_addresses(&mut self, net: &Net, id: &str) -> Option<Port> {
        let spoofed = self.random.percent(6);
        let own = net.ports.get(id).filter(|_| !spoofed).cloned();
        let others: Vec<_> = net.ports.values().collect();
        own.or_else(|| self.random.pick(&others).map(|port| (*port).clone()))
    }

    /// A packet from such a port to somebody.
    pub(super) fn some_packet(&mut self, net: &Net, from: Option<Port>) -> Option<(Packet, Target)> {
        let from = from?;
        let (is_ipv6, is_tcp) = (self.random.percent(35), self.random.percent(30));
        let packet = Packet {
            src_mac: from.mac,
            src: from.ip,
            dst_mac: from.mac,
            dst: Ipv4Addr::UNSPECIFIED,
            is_ipv6,
            is_tcp,
            dst_port: SERVICES[self.random.index(SERVICES.len())],
        };
        let routers: Vec<_> = net.links.keys().filter(|(_, switch)| *switch == from.switch).collect();
        let router = self.random.pick(&routers).map(|(router, _)| router_mac(*router, from.switch));
        let from_outside = |(router, id): (u8, u8), nat: &Nat| match nat.kind {
            NatKind::Source(_) => None,
            NatKind::Destination(inside) | NatKind::Floating(inside) => {
                let dst_mac = router_mac(router, from.switch);
                let packet =
                    Packet { dst_mac, dst: nat_ip(router, id, nat.outside), is_ipv6: false, ..packet };
                let (id, _) = net.ports.iter().find(|(_, port)| port.ip == inside)?;
                Some((packet, Target::Port(id.clone())))
            }
        };
        let here = net.nats.iter().filter(|(_, nat)| nat.outside == from.switch);
        let published: Vec<_> = here.filter_map(|(id, nat)| from_outside(*id, nat)).collect();
        if !published.is_empty() && self.random.percent(30) {
            return self.random.pick(&published).cloned();
        }
        if let Some(dst_mac) = router.filter(|_| self.random.percent(20)) {
            let services: Vec<_> = net.balancers.values().collect();
            let service = *self.random.pick(&services)?;
            let ports =
                net.ports.iter().filter(|(_, port)| service.backends.iter().any(|(ip, _)| *ip == port.ip));
            let target = Target::OneOf(ports.map(|(id, _)| id.clone()).collect());
            let dst_port = service.port;
            let packet = Packet { is_ipv6: false, is_tcp: false, ..packet };
            return Some((Packet { dst_mac, dst: service.vip, dst_port, ..packet }, target));
        }
        let others: Vec<_> = net.ports.iter().collect();
        let (id, to) = self.random.pick(&others)?;
        let is_near = to.switch == from.switch;
        let dst_mac = if is_near && !self.random.percent(10) { to.mac } else { router? };
        Some((Packet { dst_mac, dst: to.ip, ..packet }, Target::Port((*id).clone())))
    }

    /// A workload sends a packet; its number.
    pub(super) fn send(&mut self, host: usize, port: &str, packet: Packet) -> u64 {
        self.n_probes += 1;
        let number = self.n_probes;
        // Each packet is the first one of a connection.
        let src_port = 10_000 + (number % 50_000) as u16;
        self.probes.insert(number, self.probe(host, port, packet, None));
        self.inject(host, port, packet::frame(&packet, src_port, number));
        number
    }

    fn probe(&self, host: usize, port: &str, packet: Packet, answers: Option<String>) -> Probe {
        let (oldest, newest) = (self.in_force(host), self.disk.newest());
        let (port, floor) = (port.to_owned(), self.in_force_anywhere());
        Probe { packet, host, port, oldest, newest, floor, answers, received: Vec::new() }
    }

    /// The oldest revision that a host may go by.
    fn in_force(&self, host: usize) -> u64 {
        let node = &self.nodes[host];
        let applied = node.running.as_ref().map_or(0, |running| running.host.applied_revision());
        if node.may_go_back() { applied } else { applied.max(self.floor) }
    }

    /// The oldest revision that any host may go by.
    fn in_force_anywhere(&self) -> u64 {
        let goes_by = |node: &Node| match &node.running {
            Some(running) => running.host.applied_revision(),
            None => node.acknowledged,
        };
        let going_back = self.nodes.iter().filter(|node| node.may_go_back() && !node.is_dead).map(goes_by);
        going_back.min().map_or(self.floor, |oldest| oldest.min(self.floor))
    }

    fn inject(&mut self, host: usize, port: &str, frame: Vec<u8>) {
        self.counts.sent += 1;
        self.trace.add(self.now, format_args!("{port} sends at host {host}"));
        self.trace.bytes(&frame);
        self.with_host(host, |host| match host.lab_port(port, None) {
            // It may just have been taken away.
            Err(_) => ((), Vec::new()),
            Ok(known) => {
                ((), host.inject(known, vec![frame]).map(|injected| injected.sent).unwrap_or_default())
            }
        });
    }

    /// A workload gets a frame.
    pub(super) fn received(&mut self, host: usize, port: &str, frame: &[u8]) {
        self.trace.add(self.now, format_args!("{port} receives at host {host}"));
        self.trace.bytes(frame);
        let Some((received, src_port, number)) = packet::read(frame) else { return };
        self.counts.received += 1;
        let Some(mut probe) = self.probes.remove(&number) else {
            return self
                .fail(format_args!("{port} at host {host} receives packet {number}, which nobody has sent"));
        };
        self.judge(host, port, &probe, &received);
        probe.received.push(port.to_owned());
        if probe.received.len() > self.n_places(host, port, &probe) {
            self.fail(format_args!("packet {number} arrives more than once: {:?}", probe.received));
        }
        let is_request = probe.answers.is_none();
        self.probes.insert(number, probe);
        if is_request && self.faults.healed_at.is_none() && self.random.percent(30) {
            self.n_probes += 1;
            let number = self.n_probes;
            let answer = Packet {
                src_mac: received.dst_mac,
                dst_mac: received.src_mac,
                src: received.dst,
                dst: received.src,
                is_ipv6: received.is_ipv6,
                is_tcp: received.is_tcp,
                dst_port: src_port,
            };
            // The answer to the first packet of a connection of TCP is not its first packet: only UDP answers.
            if !answer.is_tcp {
                let frame = packet::frame(&answer, received.dst_port, number);
                let mut probe = self.probe(host, port, answer, None);
                probe.answers = self.sender_of(src_port);
                self.probes.insert(number, probe);
                let delay = self.some(MILLI / 10, 400 * MILLI);
                self.after(delay, Event::Answer { host, port: port.to_owned(), frame });
            }
        }
    }

    /// How many interfaces may get a packet: two, while the workload moves.
    fn n_places(&self, host: usize, port: &str, probe: &Probe) -> usize {
        let oldest = probe.oldest.min(self.in_force(host));
        let known = self.history.between(oldest, self.disk.newest());
        let mut known = known.iter().filter_map(|net| net.ports.get(port));
        let moves = known.any(|port| port.additional.is_some());
        if moves && probe.received.iter().all(|receiver| receiver == port) { 2 } else { 1 }
    }

    /// Who sent the packet that had this port.
    fn sender_of(&self, src_port: u16) -> Option<String> {
        let sent =
            self.probes.iter().rev().find(|(number, _)| 10_000 + (*number % 50_000) as u16 == src_port);
        sent.map(|(_, probe)| probe.port.clone())
    }

    pub(super) fn answer(&mut self, host: usize, port: &str, frame: &[u8]) {
        let Some((_, _, number)) = packet::read(frame) else { return };
        let (oldest, newest) = (self.in_force(host), self.disk.newest());
        if let Some(probe) = self.probes.get_mut(&number) {
            (probe.oldest, probe.newest) = (oldest, newest);
        }
        self.inject(host, port, frame.to_vec());
    }

    /// Nobody gets what the network does not let him have: as the hosts of sender and receiver judge, each
    /// by one of the revisions that it may go by.
    fn judge(&mut self, host: usize, port: &str, probe: &Probe, received: &Packet) {
        let sent = &probe.packet;
        let is_answer = probe.answers.as_deref() == Some(port);
        let at_sender = self.history.between(probe.oldest, probe.newest);
        let (oldest, newest) = (self.in_force(host), self.disk.newest());
        let at_gateway = self.history.between(probe.floor, newest);
        // What a service sends back to its sender is for the address that he sent by, his own or not.
        let is_sent_back = (probe.host, probe.port.as_str()) == (host, port)
            && received.dst_mac == sent.src_mac
            && at_sender.iter().any(|net| net.allows(Half::Back(port), sent, received));
        let is_let_go = is_answer
            || is_sent_back
            || at_sender.iter().any(|net| {
                let by = |gateway| net.allows(Half::Sent(&probe.port, gateway), sent, received);
                by(net) || net.has_gateways() && at_gateway.iter().any(|gateway| by(gateway))
            });
        let at_receiver = self.history.between(oldest, newest);
        let had_mac = |net: &Net| net.ports.get(port).is_some_and(|port| port.mac == received.dst_mac);
        let was_looked_up = is_sent_back || at_sender.iter().chain(&at_gateway).any(|net| had_mac(net));
        let is_let_in = at_receiver.iter().any(|net| {
            let Some(known) = net.ports.get(port) else { return false };
            let gets = |received| net.allows(Half::Received(port), sent, received);
            // Who may have any address gets what was for his former one, as the host says that looked it up.
            let for_now = Packet { dst_mac: known.mac, ..*received };
            match is_answer {
                true => known.enabled,
                false => gets(received) || (was_looked_up && !known.secure && gets(&for_now)),
            }
        });
        if !is_let_go {
            self.fail(format_args!(
                "{port} at host {host} receives {received:?}, which host {} must not let {} send as {sent:?} by any \
                 revision from {} to {}",
                probe.host, probe.port, probe.oldest, probe.newest
            ));
        } else if !is_let_in {
            self.fail(format_args!(
                "{port} at host {host} receives {received:?} of {}, which it must not by any revision from {oldest} to {newest}",
                probe.port
            ));
        }
    }
}
