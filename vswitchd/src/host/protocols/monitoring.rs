//! What collectors are told of a bridge: sFlow, by UDP.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use bridge_protocols::sflow::{Agent, FlowSample, PortSample};
use dataplane::PortStatus;
use flowtable::{flow::Sample, switch::Sampled, types::Timestamp};

use super::settings::SflowSettings;

/// Collectors that rules cannot mean: those of the bridge.
const OWN_COLLECTORS: u32 = u32::MAX;

/// Who tells collectors of a bridge.
#[derive(Debug)]
pub(super) struct Sflow {
    settings: SflowSettings,
    agent: Agent,
    began: Timestamp,
    polled: Timestamp,
    /// For IPv4 and IPv6; `None`: there is none of these on the host.
    sockets: [Option<UdpSocket>; 2],
}

impl Sflow {
    pub(super) fn new(settings: &SflowSettings, now: Timestamp) -> Self {
        let any: [SocketAddr; 2] = [(Ipv4Addr::UNSPECIFIED, 0).into(), (Ipv6Addr::UNSPECIFIED, 0).into()];
        let open = |address| {
            let socket = UdpSocket::bind(address).ok()?;
            // Whom a collector makes wait is whoever forwards.
            socket.set_nonblocking(true).ok()?;
            Some(socket)
        };
        let agent = Agent::new(settings.agent, 0);
        Self { settings: settings.clone(), agent, began: now, polled: now, sockets: any.map(open) }
    }

    pub(super) fn settings(&self) -> &SflowSettings {
        &self.settings
    }

    /// Which packets are shown.
    pub(super) fn sampling(&self) -> Sample {
        Sample { probability: self.probability(), collector_set: OWN_COLLECTORS, ..Sample::default() }
    }

    fn probability(&self) -> u16 {
        (u16::MAX / self.settings.sampling.max(1)).max(1)
    }

    /// A packet; `false`: it was for other collectors.
    pub(super) fn show(&mut self, now: Timestamp, sampled: &Sampled) -> bool {
        if sampled.sample.collector_set != OWN_COLLECTORS {
            return false;
        }
        let frame = &sampled.bytes;
        let tci = frame.get(14..16).filter(|_| frame.get(12..14) == Some(&[0x81, 0x00]));
        let tci = tci.map_or(0, |tci| u16::from_be_bytes([tci[0], tci[1]]));
        let sample = FlowSample {
            port: sampled.in_port.get(),
            rate: u32::from(u16::MAX / self.probability()),
            frame_len: frame.len() as u32,
            header: frame.get(..self.settings.header).unwrap_or(frame),
            vlan: ((tci & 0xfff).into(), (tci >> 13).into()),
        };
        let uptime = now.since(self.began);
        self.agent.packet(uptime, &sample);
        true
    }

    /// Tells of counters, if it is time to, and sends what there is.
    pub(super) fn tick<'a>(&mut self, now: Timestamp, ports: impl Iterator<Item = &'a PortStatus>) {
        let uptime = now.since(self.began);
        let polling = Duration::from_secs(self.settings.polling);
        if !polling.is_zero() && now.since(self.polled) >= polling {
            self.polled = now;
            for status in ports {
                let counts = &status.counters;
                let sample = PortSample {
                    port: status.port.get(),
                    up: status.up,
                    received: (counts.rx_bytes, counts.rx_packets, counts.rx_dropped),
                    sent: (counts.tx_bytes, counts.tx_packets, counts.tx_dropped_total()),
                };
                self.agent.counters(uptime, &sample);
            }
        }
        for datagram in self.agent.finish(uptime) {
            for target in &self.settings.targets {
                let socket = &self.sockets[usize::from(target.is_ipv6())];
                // Who samples loses some anyway.
                let sent = socket.as_ref().map(|socket| socket.send_to(&datagram, target));
                if let Some(Err(error)) = sent {
                    tracing::debug!(%target, %error, "a collector was not told");
                }
            }
        }
    }
}
