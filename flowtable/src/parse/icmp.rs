//! ICMP, IGMP, ICMPv6, and neighbour discovery (RFC 4861).

use zerocopy::{FromBytes, network_endian::U128};

use crate::{
    key::FlowKey,
    wire::{Icmp, nd},
};

const UNKNOWN_LINK: [u8; 6] = [0; 6];

pub(super) fn parse_v4(segment: &[u8], key: &mut FlowKey) -> bool {
    let Ok((icmp, _)) = Icmp::ref_from_prefix(segment) else { return false };
    key.tp_src.set(icmp.kind.into());
    key.tp_dst.set(icmp.code.into());
    true
}

pub(super) fn parse_v6(segment: &[u8], key: &mut FlowKey) -> bool {
    let Ok((icmp, message)) = Icmp::ref_from_prefix(segment) else { return false };
    key.tp_src.set(icmp.kind.into());
    key.tp_dst.set(icmp.code.into());
    if is_nd(icmp)
        && let Some(neighbour) = Neighbour::read(message)
    {
        key.nd_reserved = icmp.body;
        key.nd_target = neighbour.target;
        key.arp_sha = neighbour.source_link;
        key.arp_tha = neighbour.target_link;
        key.nd_options_type = neighbour.first_option;
    }
    true
}

/// A neighbour solicitation or advertisement.
pub(crate) fn is_nd(icmp: &Icmp) -> bool {
    icmp.code == 0 && matches!(icmp.kind, nd::SOLICITATION | nd::ADVERTISEMENT)
}

/// The key's part of a solicitation or advertisement.
struct Neighbour {
    target: U128,
    source_link: [u8; 6],
    target_link: [u8; 6],
    first_option: u8,
}

impl Neighbour {
    /// Nothing when the message is cut off or has an option twice: then nobody can
    /// tell which one the receiver will believe.
    fn read(message: &[u8]) -> Option<Self> {
        let (target, options) = U128::read_from_prefix(message).ok()?;
        let mut neighbour =
            Self { target, source_link: UNKNOWN_LINK, target_link: UNKNOWN_LINK, first_option: 0 };
        for option in nd_options(options) {
            let slot = match option.kind {
                nd::SOURCE_LINK => &mut neighbour.source_link,
                nd::TARGET_LINK => &mut neighbour.target_link,
                _ => continue,
            };
            if *slot != UNKNOWN_LINK {
                return None;
            }
            *slot = option.link;
            if neighbour.first_option == 0 {
                neighbour.first_option = option.kind;
            }
        }
        Some(neighbour)
    }
}

/// A link-layer address option of 8 bytes; other options are passed over.
pub(crate) struct NdOption {
    /// Source or target link-layer address.
    pub(crate) kind: u8,
    /// Offset of the option from the start of the options.
    pub(crate) offset: usize,
    /// The address.
    pub(crate) link: [u8; 6],
}

/// The link-layer address options of a solicitation or advertisement, up to the first
/// option that is cut off or has no length.
pub(crate) fn nd_options(options: &[u8]) -> impl Iterator<Item = NdOption> {
    let mut offset = 0;
    std::iter::from_fn(move || {
        loop {
            let at = offset;
            let &[kind, units, link @ ..] = options.get(at..)?.first_chunk::<8>()?;
            let len = usize::from(units) * 8;
            if len == 0 || len > options.len() - at {
                return None;
            }
            offset += len;
            if len == 8 && matches!(kind, nd::SOURCE_LINK | nd::TARGET_LINK) {
                return Some(NdOption { kind, offset: at, link });
            }
        }
    })
}
