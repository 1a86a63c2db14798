//! What collectors of sFlow are told of a bridge.

use std::time::Duration;

use bridge_protocols::sflow::{Agent, FlowSample, PortSample};
use dataplane::PortStatus;
use flowtable::{flow::Sample, switch::Sampled, types::Timestamp};

use super::{super::settings::SflowSettings, SFLOW, sender::Sender};

/// Who tells collectors of a bridge.
#[derive(Debug)]
pub(super) struct Sflow {
    settings: SflowSettings,
    agent: Agent,
    began: Timestamp,
    polled: Timestamp,
    sender: Sender,
}

impl Sflow {
    pub(super) fn new(settings: &SflowSettings, now: Timestamp) -> Self {
        let agent = Agent::new(settings.agent, 0);
        let sender = Sender::new(&settings.targets, settings.source);
        Self { settings: settings.clone(), agent, began: now, polled: now, sender }
    }

    /// Which packets are shown.
    pub(super) fn sampling(&self) -> Sample {
        Sample { probability: self.probability(), collector_set: SFLOW, ..Sample::default() }
    }

    fn probability(&self) -> u16 {
        (u16::MAX / self.settings.sampling.max(1)).max(1)
    }

    /// A packet; `false`: it was for other collectors.
    pub(super) fn show(&mut self, now: Timestamp, sampled: &Sampled) -> bool {
        if sampled.sample.collector_set != SFLOW {
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
        self.send(now);
    }

    /// Sends what there is.
    pub(super) fn send(&mut self, now: Timestamp) {
        self.sender.send(&self.agent.finish(now.since(self.began)));
    }
}
