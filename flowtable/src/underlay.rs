//! What tunnels need to know of the network below: which tunnels there are, who may
//! send to us, and the next hop to each peer. Filled from the host's routes and
//! neighbours by whoever runs the switch; part of the snapshot a packet sees.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::{
    program::TunnelKind,
    types::{MacAddr, PortNo},
};

/// A tunnel port. Where a packet goes is in its `tun_dst`, its key in `tun_id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TunnelPort {
    /// Number of the port in matches and outputs.
    pub port: PortNo,
    /// Encapsulation.
    pub kind: TunnelKind,
    /// UDP destination port: 6081 for Geneve, 4789 for VXLAN; GRE has none.
    pub udp_port: u16,
    /// Our address on the underlay.
    pub local: IpAddr,
}

/// How to reach a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextHop {
    /// Uplink port.
    pub port: PortNo,
    /// MAC address of the uplink.
    pub src_mac: MacAddr,
    /// MAC address of the peer or of the router to it.
    pub dst_mac: MacAddr,
}

/// The underlay.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Underlay {
    /// Tunnel ports.
    pub tunnels: Vec<TunnelPort>,
    /// Addresses that may send us tunnelled packets. Empty: nobody may.
    pub peers: BTreeSet<IpAddr>,
    /// Peers whose next hop is known.
    pub next_hops: BTreeMap<IpAddr, NextHop>,
}
