//! ICMP errors (RFC 792, RFC 1812 §4.3.2, RFC 4443 §3). The packet made here quotes the
//! one it is about and has its addresses; the flow turns them around and says which
//! error it is.

use flowtable::checksum;
use ovn_northd_lite::punt::Service;

use super::packet::Context;

/// Longest error: RFC 1812 §4.3.2.3.
const MAX_V4: usize = 576;
/// Longest error: the least MTU (RFC 4443 §3).
const MAX_V6: usize = 1280;
/// Length of the headers of an error.
const IPV4: usize = 20;
const IPV6: usize = 40;
const ICMP: usize = 8;
/// The destination cannot be reached, unless the flow says something else.
const UNREACHABLE_V4: (u8, u8) = (3, 0);
const UNREACHABLE_V6: (u8, u8) = (1, 0);
/// Nobody listens.
const PORT_V4: (u8, u8) = (3, 3);
const PORT_V6: (u8, u8) = (1, 4);
/// Network control, as RFC 1812 §4.3.2.5 asks for.
const TOS: u8 = 0xc0;
const TTL: u8 = 255;

/// An error about a packet.
pub(super) fn error(context: &Context<'_>) -> Option<Vec<u8>> {
    match context.request.service {
        Service::Icmp4 => error_v4(context, UNREACHABLE_V4),
        _ => error_v6(context, UNREACHABLE_V6),
    }
}

/// The error that says that nobody listens.
pub(super) fn port_unreachable(context: &Context<'_>, is_v4: bool) -> Option<Vec<u8>> {
    if is_v4 { error_v4(context, PORT_V4) } else { error_v6(context, PORT_V6) }
}

fn error_v4(context: &Context<'_>, kind: (u8, u8)) -> Option<Vec<u8>> {
    let packet = context.payload(0x0800)?;
    let total_len = u16::from_be_bytes(packet.get(2..4)?.try_into().ok()?);
    let quoted = packet.get(..usize::from(total_len).min(packet.len()).min(MAX_V4 - IPV4 - ICMP))?;
    let addresses = packet.get(12..20)?;
    let icmp = message(context, kind, quoted);
    let sum = checksum::of(&icmp);
    let mut ip = vec![0x45, TOS];
    ip.extend(u16::try_from(IPV4 + icmp.len()).ok()?.to_be_bytes());
    ip.extend([0, 0, 0, 0, TTL, 1, 0, 0]);
    ip.extend(addresses);
    let ip_sum = checksum::of(&ip).to_be_bytes();
    ip.get_mut(10..12)?.copy_from_slice(&ip_sum);
    framed(context, 0x0800, &ip, icmp, sum)
}

fn error_v6(context: &Context<'_>, kind: (u8, u8)) -> Option<Vec<u8>> {
    let packet = context.payload(0x86dd)?;
    let payload_len = u16::from_be_bytes(packet.get(4..6)?.try_into().ok()?);
    let len = (IPV6 + usize::from(payload_len)).min(packet.len()).min(MAX_V6 - IPV6 - ICMP);
    let quoted = packet.get(..len)?;
    let addresses = packet.get(8..40)?;
    let (src, dst) = addresses.split_at_checked(16)?;
    let number = |bytes: &[u8]| Some(u128::from_be_bytes(bytes.try_into().ok()?));
    let icmp = message(context, kind, quoted);
    let pseudo = checksum::pseudo_ipv6(number(src)?, number(dst)?, 58, icmp.len());
    let sum = pseudo.bytes(&icmp).checksum();
    let mut ip = vec![0x60 | TOS >> 4, 0, 0, 0];
    ip.extend(u16::try_from(icmp.len()).ok()?.to_be_bytes());
    ip.extend([58, TTL]);
    ip.extend(addresses);
    framed(context, 0x86dd, &ip, icmp, sum)
}

/// The message; the flow may have an MTU to tell, which both families have at its end.
fn message(context: &Context<'_>, (kind, code): (u8, u8), quoted: &[u8]) -> Vec<u8> {
    let mtu = <[u8; 2]>::try_from(context.service_data()).unwrap_or_default();
    let mut icmp = vec![kind, code, 0, 0, 0, 0];
    icmp.extend(mtu);
    icmp.extend(quoted);
    icmp
}

fn framed(context: &Context<'_>, eth_type: u16, ip: &[u8], mut icmp: Vec<u8>, sum: u16) -> Option<Vec<u8>> {
    icmp.get_mut(2..4)?.copy_from_slice(&sum.to_be_bytes());
    let mut frame = context.addresses()?.to_vec();
    frame.extend(eth_type.to_be_bytes());
    frame.extend(ip);
    frame.extend(icmp);
    Some(frame)
}
