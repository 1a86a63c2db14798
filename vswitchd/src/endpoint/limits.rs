//! Bounds on what a container receives and sends: rules of its switch, beside its port.

use ferroflow_proto::northbound::{QosRule, Resource, acl::Direction, resource::Spec};
use serde::{Deserialize, Serialize};

/// Priority of the rules: what an operator writes goes before.
const PRIORITY: u32 = 100;

/// A bound, in the units of the network's rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    rate_kbps: u32,
    burst_kbit: u32,
}

impl Limit {
    /// A bound of bits per second, and of bits at once (0: as many as in a second).
    ///
    /// # Errors
    /// The rate is too small to be written.
    pub fn new(rate_bps: u64, burst_bits: u64) -> Result<Self, String> {
        let kilo = |bits: u64| u32::try_from(bits / 1000).unwrap_or(u32::MAX);
        if rate_bps < 1000 {
            return Err(format!("{rate_bps} bits per second: a bound is at least 1000"));
        }
        // Less than a packet would let nothing pass at all.
        let burst_kbit = if burst_bits == 0 { 0 } else { kilo(burst_bits).max(LEAST_BURST_KBIT) };
        Ok(Self { rate_kbps: kilo(rate_bps), burst_kbit })
    }
}

/// Some full packets.
const LEAST_BURST_KBIT: u32 = 64;

/// The bounds of a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// On what it receives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receive: Option<Limit>,
    /// On what it sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub send: Option<Limit>,
}

impl Limits {
    /// The rules for a port of a switch, `switches/{id}`.
    pub(super) fn rules(&self, switch: &str, port: &str) -> Vec<Resource> {
        let [receive, send] = rule_names(switch, port);
        let rule = |name: String, direction: Direction, side: &str, limit: Limit| {
            let rule = QosRule {
                direction: direction.into(),
                priority: PRIORITY,
                r#match: format!("{side} == \"{port}\""),
                rate_kbps: limit.rate_kbps,
                burst_kbit: limit.burst_kbit,
                ..QosRule::default()
            };
            Resource { name, spec: Some(Spec::QosRule(rule)), ..Resource::default() }
        };
        let receive = self.receive.map(|limit| rule(receive, Direction::ToLport, "outport", limit));
        let send = self.send.map(|limit| rule(send, Direction::FromLport, "inport", limit));
        receive.into_iter().chain(send).collect()
    }

    /// There is one.
    pub(super) fn is_any(&self) -> bool {
        self.receive.is_some() || self.send.is_some()
    }
}

/// Names of the rules that a port may have.
pub(super) fn rule_names(switch: &str, port: &str) -> [String; 2] {
    ["receive", "send"].map(|what| format!("{switch}/qos-rules/{port}-{what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_direction_has_its_rule() {
        let limits = Limits {
            receive: Limit::new(10_000_000, u64::from(u32::MAX)).ok(),
            send: Limit::new(1999, 1).ok(),
        };
        let rules: Vec<_> = limits
            .rules("switches/web", "p")
            .into_iter()
            .map(|resource| match resource.spec {
                Some(Spec::QosRule(rule)) => {
                    (resource.name, rule.r#match, rule.rate_kbps, rule.burst_kbit, rule.direction)
                }
                other => panic!("{other:?}"),
            })
            .collect();
        let rule = |name: &str, text: &str, rate, burst, direction: Direction| {
            (format!("switches/web/qos-rules/p-{name}"), text.to_owned(), rate, burst, direction.into())
        };
        assert_eq!(
            rules,
            [
                rule("receive", "outport == \"p\"", 10_000, 4_294_967, Direction::ToLport),
                rule("send", "inport == \"p\"", 1, 64, Direction::FromLport),
            ]
        );
        assert!(Limit::new(999, 0).is_err());
        assert!(!Limits::default().is_any());
    }
}
