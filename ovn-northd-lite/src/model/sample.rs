//! Who is told of sampled packets, and of which.

use std::{collections::BTreeSet, net::SocketAddr};

/// Who is told of sampled packets, by IPFIX (OVN: Sample_Collector).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleCollector {
    /// Number of the set on hosts.
    pub set: u32,
    /// How many of 65 535 packets are told of; at least 1.
    pub probability: u16,
    /// Addresses and ports where it is told.
    pub targets: BTreeSet<SocketAddr>,
    /// Upper 8 bits of the observation domain of packets that belong to no connection yet.
    pub new_application: u8,
    /// The same, of packets of connections.
    pub established_application: u8,
}

/// How collectors are told of what an ACL decides about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Samples {
    /// Of packets that belong to no connection that it has allowed.
    pub new: Option<Sample>,
    /// Of packets of connections that it has allowed, in both directions.
    pub established: Option<Sample>,
}

/// Some packets for collectors (OVN: Sample).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Observation point; not 0.
    pub point: u32,
    /// Ids of collectors.
    pub collectors: BTreeSet<String>,
}
