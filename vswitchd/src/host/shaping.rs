//! How fast what workloads send leaves this host: queues of the ports to other hosts and to
//! networks outside, one for each workload whose port has rates in the network. Rules put what
//! such a workload sends into its queue as it comes in; ports without that queue send it as
//! anything else.

use std::collections::{BTreeMap, BTreeSet};

use dataplane::{PortId, PortRates, QueueSpec, Rate};
use ovn_northd_lite::southbound::Shaping;

use super::{Host, port_rates::MAX_QUEUES, tunnels::UPLINK};

/// Queues, and the ports that have them.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Shaped {
    queues: BTreeMap<u16, Shaping>,
    ports: BTreeSet<PortId>,
}

impl Host {
    /// Gives the ways out of this host the queues that the network has workloads send by.
    pub(super) fn follow_shaping(&mut self) {
        let mut queues = self.lowering.shaped();
        if queues.len() > MAX_QUEUES {
            self.errors.push(format!(
                "{} workloads have rates of their own, and a port has {MAX_QUEUES} queues: some are not kept to; \
                 place the workloads on more hosts",
                queues.len()
            ));
            queues = queues.into_iter().take(MAX_QUEUES).collect();
        }
        let outside = self.ports.values().filter(|port| !port.network.is_empty() && port.is_attached());
        let uplink = self.uplink().map(|_| PortId::from(UPLINK));
        let ports = outside.map(|port| port.id()).chain(uplink).collect();
        let wanted = Shaped { queues, ports };
        if wanted == self.shaped {
            return;
        }
        let before = std::mem::replace(&mut self.shaped, wanted);
        if before.queues.is_empty() && self.shaped.queues.is_empty() {
            return;
        }
        let outside = self.ports.iter().filter(|(_, port)| self.shaped.ports.contains(&port.id()));
        outside.for_each(|(interface, _)| self.apply_rates(interface));
        self.shape_uplink();
    }

    /// Gives the uplink its queues, again when it was attached anew.
    pub(super) fn shape_uplink(&self) {
        let wire = self.wire();
        let is_empty = self.shaped.queues.is_empty() && self.shaped.ports.is_empty();
        if self.uplink().is_none() || is_empty || !self.is_attached(wire) {
            return;
        }
        let rates = self.with_shaping(UPLINK.into(), PortRates::default());
        if let Err(error) = self.dataplane.set_rates(wire, rates) {
            tracing::warn!(%error, "the uplink does not keep to the rates of workloads");
        }
    }

    /// The rates of a port with those of workloads; a queue that was set by hand stays.
    pub(super) fn with_shaping(&self, port: PortId, mut rates: PortRates) -> PortRates {
        if self.shaped.ports.contains(&port) {
            let room = MAX_QUEUES.saturating_sub(rates.queues.len());
            let new = self.shaped.queues.iter().filter(|(queue, _)| !rates.queues.contains_key(queue));
            let new: Vec<_> = new.take(room).map(|(queue, shaping)| (*queue, spec(*shaping))).collect();
            rates.queues.extend(new);
        }
        rates
    }
}

fn spec(shaping: Shaping) -> QueueSpec {
    let rate = |bits_per_second: u64| {
        let usual = Rate::usual(bits_per_second);
        Rate { burst_bits: shaping.burst.unwrap_or(usual.burst_bits), ..usual }
    };
    QueueSpec { min: shaping.min.map(rate), max: shaping.max.map(rate), priority: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workloads_rates_are_those_of_its_queue() {
        let shaping = Shaping { min: Some(1_000_000), max: Some(2_000_000), burst: Some(64_000) };
        let made = spec(shaping);
        assert_eq!(made.min.map(|rate| (rate.bits_per_second, rate.burst_bits)), Some((1_000_000, 64_000)));
        assert_eq!(made.max.map(|rate| (rate.bits_per_second, rate.burst_bits)), Some((2_000_000, 64_000)));
        let made = spec(Shaping { max: Some(2_000_000), ..Shaping::default() });
        assert_eq!((made.min, made.max), (None, Some(Rate::usual(2_000_000))));
    }
}
