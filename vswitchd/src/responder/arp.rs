//! Questions of routers for MAC addresses (RFC 826, RFC 4861 §4.3).

use std::net::{IpAddr, Ipv6Addr};

use flowtable::{checksum, field::Field};

use super::{packet::Context, waiting::Wanted};

/// An ARP request from the packet's source; the flow fills in the IP addresses.
pub(super) fn request(context: &Context<'_>) -> Option<Vec<u8>> {
    let source = context.source()?;
    let mut frame = vec![0xff; 6];
    frame.extend(source);
    frame.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(source);
    frame.extend([0; 4 + 6 + 4]);
    Some(frame)
}

/// A neighbour solicitation for the next hop.
pub(super) fn solicitation(context: &Context<'_>, wanted: &Wanted) -> Option<Vec<u8>> {
    let IpAddr::V6(target) = wanted.ip else { return None };
    let (mac, source) = (context.source()?, Ipv6Addr::from(context.value(Field::Xxreg1)));
    let [.., a, b, c] = target.octets();
    // RFC 4291 §2.7.1, RFC 2464 §7.
    let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]);
    let mut icmp = vec![135, 0, 0, 0, 0, 0, 0, 0];
    icmp.extend(target.octets());
    icmp.extend([1, 1]);
    icmp.extend(mac);
    let pseudo = checksum::pseudo_ipv6(source.into(), group.into(), 58, icmp.len());
    let sum = pseudo.bytes(&icmp).checksum().to_be_bytes();
    icmp.get_mut(2..4)?.copy_from_slice(&sum);
    let mut frame = vec![0x33, 0x33, 0xff, a, b, c];
    frame.extend(mac);
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    frame.extend(u16::try_from(icmp.len()).ok()?.to_be_bytes());
    frame.extend([58, 255]);
    frame.extend(source.octets());
    frame.extend(group.octets());
    frame.extend(icmp);
    Some(frame)
}
