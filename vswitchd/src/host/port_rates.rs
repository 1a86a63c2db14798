//! What a port may receive and send, as it was set by hand.

use std::collections::BTreeMap;

use dataplane::{PortRates, QueueSpec, Rate};
use serde::{Deserialize, Serialize};

/// Rates and queues of a port; nothing: none.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RateSettings {
    /// What is received beyond is dropped.
    pub receive: Option<RateSetting>,
    /// What is sent beyond waits.
    pub send: Option<RateSetting>,
    /// Queues by number.
    pub queues: BTreeMap<u16, QueueSetting>,
}

/// A rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateSetting {
    /// Bits in a second.
    pub bits_per_second: u64,
    /// Bits that may come at once; `None`: the usual.
    pub burst_bits: Option<u64>,
}

/// A queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QueueSetting {
    /// What it gets before others get more than that.
    pub min: Option<RateSetting>,
    /// What it gets at most.
    pub max: Option<RateSetting>,
    /// Of what is left, lower numbers come first.
    pub priority: u8,
}

/// Lowest rate: a full frame leaves in two minutes.
const MIN_RATE: u64 = 100;
/// Most queues of a port: each is looked at for each packet that leaves.
pub(super) const MAX_QUEUES: usize = 64;

impl RateSettings {
    /// There are none.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// What is wrong with them, if anything is.
    pub(super) fn trouble(&self) -> Option<String> {
        let of_queues = self.queues.values().flat_map(|queue| [queue.min, queue.max]);
        let mut rates = [self.receive, self.send].into_iter().chain(of_queues).flatten();
        if let Some(rate) = rates.find(|rate| rate.bits_per_second < MIN_RATE) {
            return Some(format!(
                "{} bits in a second are no rate; {MIN_RATE} are the least",
                rate.bits_per_second
            ));
        }
        let n_queues = self.queues.len();
        let too_many = n_queues > MAX_QUEUES;
        too_many.then(|| format!("{n_queues} queues; a port has {MAX_QUEUES} at most"))
    }

    /// As the dataplane wants them.
    pub(super) fn to_dataplane(&self) -> PortRates {
        let rate = |setting: RateSetting| {
            let usual = Rate::usual(setting.bits_per_second);
            Rate { burst_bits: setting.burst_bits.unwrap_or(usual.burst_bits), ..usual }
        };
        let queue = |queue: &QueueSetting| QueueSpec {
            min: queue.min.map(rate),
            max: queue.max.map(rate),
            priority: queue.priority,
        };
        PortRates {
            receive: self.receive.map(rate),
            send: self.send.map(rate),
            queues: self.queues.iter().map(|(id, setting)| (*id, queue(setting))).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_has_a_burst_of_its_own_or_the_usual() {
        let setting = |burst_bits| Some(RateSetting { bits_per_second: 1_000_000_000, burst_bits });
        let rates = RateSettings { receive: setting(None), send: setting(Some(7)), ..Default::default() };
        let made = rates.to_dataplane();
        assert_eq!(made.receive.unwrap().burst_bits, 5_000_000);
        assert_eq!(made.send.unwrap().burst_bits, 7);
        assert!(rates.trouble().is_none() && !rates.is_none());
        assert_eq!(Rate::usual(1_000_000).burst_bits, 2 * 8 * 65_536);
    }

    #[test]
    fn what_cannot_be_is_told() {
        let slow = Some(RateSetting { bits_per_second: 99, burst_bits: None });
        let queue = QueueSetting { max: slow, ..QueueSetting::default() };
        let wrong = RateSettings { queues: [(1, queue)].into(), ..Default::default() };
        assert!(wrong.trouble().unwrap().contains("99 bits"));
        let many = (0..=MAX_QUEUES as u16).map(|id| (id, QueueSetting::default())).collect();
        assert!(RateSettings { queues: many, ..Default::default() }.trouble().unwrap().contains("65 queues"));
    }
}
