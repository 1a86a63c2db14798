//! ARP and RARP for Ethernet and IPv4 (RFC 826); other kinds leave the key as it is.

use zerocopy::FromBytes;

use super::Payload;
use crate::{
    key::FlowKey,
    wire::{Arp, ethertype},
};

const ETHERNET: u16 = 1;

pub(super) fn parse(packet: &[u8], key: &mut FlowKey) -> Option<Payload> {
    let (arp, _) = Arp::ref_from_prefix(packet).ok()?;
    let known = arp.hardware == ETHERNET
        && arp.protocol == ethertype::IPV4
        && arp.hardware_len == 6
        && arp.protocol_len == 4;
    if !known {
        return None;
    }
    key.nw_src = arp.spa;
    key.nw_dst = arp.tpa;
    key.arp_sha = arp.sha;
    key.arp_tha = arp.tha;
    // The key holds 8 bits of the operation; larger ones are none of those it can name.
    key.nw_proto = u8::try_from(arp.op.get()).unwrap_or(0);
    Some(Payload { start: Arp::LEN, end: Arp::LEN, proto: None })
}
