//! Stand-in until the real one is merged.
use std::net::IpAddr;

use crate::{
    drop::DropReason,
    key::{FlowKey, TUN_METADATA_LEN},
    packet::{FrameBuf, Packet},
    program::TunnelHeader,
    types::Vni,
    underlay::{NextHop, TunnelPort, Underlay},
};

/// Spec.
#[derive(Debug)]
pub struct TunnelSpec {
    /// VNI.
    pub vni: Vni,
    /// Remote.
    pub remote: IpAddr,
    /// TOS.
    pub tos: u8,
    /// TTL.
    pub ttl: u8,
    /// Present.
    pub present: u64,
    /// Options.
    pub options: [u8; TUN_METADATA_LEN],
}

/// Builds.
pub fn build_header(spec: &TunnelSpec, tunnel: &TunnelPort, _hop: &NextHop) -> Option<TunnelHeader> {
    Some(TunnelHeader {
        kind: tunnel.kind,
        vni: spec.vni,
        remote: spec.remote,
        bytes: [vec![spec.tos, spec.ttl], spec.options.to_vec()].concat(),
        tunnel_port: tunnel.port,
    })
}

/// Receives.
pub fn receive<B: FrameBuf>(_: &mut Packet<B>, _: &mut FlowKey, _: &Underlay) -> Result<(), DropReason> {
    Err(DropReason::TunnelNotForUs)
}
