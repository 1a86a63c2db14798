//! What a bridge is told of copies.

use std::{collections::BTreeSet, net::IpAddr};

use flowtable::{flow::Match, port::PortTable, text::parse_match};
use serde::{Deserialize, Serialize};

/// A mirror.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct MirrorSettings {
    /// Packets of all ports.
    pub select_all: bool,
    /// Packets that come by these ports.
    pub select_src: BTreeSet<String>,
    /// Packets that leave by these ports.
    pub select_dst: BTreeSet<String>,
    /// Packets of these VLANs; none: of all.
    pub select_vlans: BTreeSet<u16>,
    /// Only what matches, in the syntax of rules.
    pub filter: String,
    /// The port that copies go to; it has nothing else.
    pub output_port: String,
    /// The port is a tunnel's: the address of its other end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote: Option<IpAddr>,
    /// The network in the tunnel.
    pub key: u32,
    /// Without a port: the VLAN that copies go to; 0: none.
    pub output_vlan: u16,
    /// Bytes of each packet; 0: all.
    pub snaplen: u32,
}

impl MirrorSettings {
    /// What the filter means. It is checked.
    pub(in crate::host::protocols) fn matching(&self, ports: &PortTable) -> Match {
        parse_match(&self.filter, ports).unwrap_or_default()
    }
}
