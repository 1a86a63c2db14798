//! From bytes to a flow key. Start here; each header has a file of its own.
//!
//! The parser is the first code that hostile bytes meet. It never fails on what is
//! wrong above L2: like Open vSwitch, it stops at the first header that is cut short or
//! contradicts itself and leaves the rest of the key zero, so that rules decide what
//! becomes of such a packet. (A firewall that allows by protocol or port thereby drops
//! it.) Only a frame without a whole Ethernet header is [`DropReason::Malformed`].
//!
//! What is checked: IPv4 version, header length and total length; IPv6 version and
//! payload length; the chain of IPv6 extension headers; TCP data offset; ARP's kinds
//! and lengths of addresses; the lengths of ND options. Checksums are the receiver's to
//! check: edits change them incrementally, so that a wrong one stays wrong.

mod arp;
mod ethernet;
mod icmp;
mod ipv4;
pub(crate) mod ipv6;
mod l4;
mod mpls;
mod signature;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_rare;

use zerocopy::FromZeros;

pub(crate) use ethernet::{TAG_PRESENT, is_tag};
pub(crate) use icmp::{is_nd, nd_options};
pub(crate) use ipv4::{bounds as ipv4_bounds, fragment as ipv4_fragment};
pub(crate) use signature::{N_WORDS as N_SIGNATURE_WORDS, Signature};

use crate::{
    drop::DropReason,
    key::FlowKey,
    packet::{FrameBuf, Layout, Packet},
    wire::ethertype,
};

/// Where an L3 header's payload is, and what it is.
struct Payload {
    /// Its first byte.
    start: usize,
    /// The byte after its last one.
    end: usize,
    /// Its protocol; `None` when no L4 header starts there (a later fragment, ARP).
    proto: Option<u8>,
}

/// Fills `key` from the packet's frame and notes in `packet.layout` where the headers
/// are. Metadata other than the input port is zero afterwards.
///
/// # Errors
/// [`DropReason::Malformed`] when the frame has no whole Ethernet header, or is longer
/// than the 65 535 bytes that a [`Layout`] can address.
pub fn parse<B: FrameBuf>(packet: &mut Packet<B>, key: &mut FlowKey) -> Result<(), DropReason> {
    packet.layout = Layout::default();
    packet.layout = fill_key(packet, key)?;
    Ok(())
}

/// The same without noting the layout.
pub(crate) fn fill_key<B: FrameBuf>(packet: &Packet<B>, key: &mut FlowKey) -> Result<Layout, DropReason> {
    FromZeros::zero(key);
    key.in_port.set(packet.in_port.get());
    parse_frame(packet.bytes(), key)
}

/// Parses a frame into a key whose header fields are zero.
pub(crate) fn parse_frame(frame: &[u8], key: &mut FlowKey) -> Result<Layout, DropReason> {
    if frame.len() > usize::from(u16::MAX) {
        return Err(DropReason::Malformed);
    }
    let l3 = ethernet::parse(frame, key).ok_or(DropReason::Malformed)?;
    let mut layout = Layout { l3: l3 as u16, ..Layout::default() };
    let packet = frame.get(l3..).unwrap_or_default();
    let payload = match key.eth_type.get() {
        ethertype::IPV4 => ipv4::parse(packet, key),
        ethertype::IPV6 => ipv6::parse(packet, key),
        ethertype::ARP | ethertype::RARP => arp::parse(packet, key),
        ethertype::MPLS | ethertype::MPLS_UPSTREAM => mpls::parse(packet, key),
        _ => None,
    };
    let Some(payload) = payload else { return Ok(layout) };
    // All three are within the frame, whose length fits.
    layout.l3_end = (l3 + payload.end) as u16;
    if let Some(proto) = payload.proto {
        layout.l4 = (l3 + payload.start) as u16;
        let segment = packet.get(payload.start..payload.end).unwrap_or_default();
        if l4::parse(segment, proto, key) {
            layout.l4_proto = proto;
        }
    }
    Ok(layout)
}
