//! The `sample` action: what a rule says about packets for a collector.

use crate::types::PortNo;

/// Shows some packets to a collector (ovs-actions(7), `sample`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Sample {
    /// How many of 65 535 packets; 65 535: all.
    pub probability: u16,
    /// Which collectors.
    pub collector_set: u32,
    /// IPFIX observation domain.
    pub obs_domain: u32,
    /// IPFIX observation point.
    pub obs_point: u32,
    /// Port that the collector is told the packet was seen at.
    pub sampling_port: Option<PortNo>,
    /// Which way it passed that port.
    pub direction: SampleDirection,
}

/// Which way a sampled packet passes its port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SampleDirection {
    /// The rule does not say.
    #[default]
    Unsaid,
    /// Into the switch.
    Ingress,
    /// Out of the switch.
    Egress,
}

impl SampleDirection {
    /// Word in flow text.
    pub const fn name(self) -> Option<&'static str> {
        match self {
            Self::Unsaid => None,
            Self::Ingress => Some("ingress"),
            Self::Egress => Some("egress"),
        }
    }
}
