//! Ethernet II, 802.3 with LLC/SNAP, and up to two VLAN tags.

use zerocopy::FromBytes;

use crate::{
    key::FlowKey,
    wire::{Ethernet, Tag, ethertype},
};

/// Tags that are unwrapped; a third one stays as the EtherType.
const MAX_TAGS: usize = 2;
/// "This tag is present", in the place of the DEI bit.
pub(crate) const TAG_PRESENT: u16 = 0x1000;
/// LLC header of SNAP with the organisation code zero (RFC 1042).
const SNAP: [u8; 6] = [0xaa, 0xaa, 3, 0, 0, 0];

/// The offset of L3, or nothing for a frame without a whole header.
pub(super) fn parse(frame: &[u8], key: &mut FlowKey) -> Option<usize> {
    let (ethernet, _) = Ethernet::ref_from_prefix(frame).ok()?;
    key.eth_dst = ethernet.dst;
    key.eth_src = ethernet.src;
    let mut eth_type = ethernet.eth_type.get();
    let mut l3 = Ethernet::LEN;
    for idx in 0..MAX_TAGS {
        // A tag that is cut off, or has no type behind it, stays an unknown type.
        let tag = frame.get(l3 - 2..).and_then(|rest| Tag::ref_from_prefix(rest).ok());
        let next = frame.get(l3 + 2..l3 + 4);
        let (true, Some((tag, _)), Some(&[high, low])) = (is_tag(eth_type), tag, next) else { break };
        let tci = tag.tci.get() | TAG_PRESENT;
        if idx == 0 {
            key.vlan_tpid = tag.tpid;
            key.vlan_tci.set(tci);
        } else {
            key.cvlan_tpid = tag.tpid;
            key.cvlan_tci.set(tci);
        }
        eth_type = u16::from_be_bytes([high, low]);
        l3 += Tag::LEN;
    }
    if eth_type < ethertype::MIN {
        (eth_type, l3) = llc(frame, l3);
    }
    key.eth_type.set(eth_type);
    Some(l3)
}

/// The type is that of a VLAN tag.
pub(crate) fn is_tag(eth_type: u16) -> bool {
    matches!(eth_type, ethertype::VLAN | ethertype::QINQ)
}

/// Type and L3 offset of a frame with a length in the place of the type.
fn llc(frame: &[u8], l3: usize) -> (u16, usize) {
    match frame.get(l3..l3 + 8) {
        Some(&[ref llc @ .., high, low]) if *llc == SNAP => match u16::from_be_bytes([high, low]) {
            eth_type @ ethertype::MIN.. => (eth_type, l3 + 8),
            _ => (ethertype::LLC, l3),
        },
        _ => (ethertype::LLC, l3),
    }
}
