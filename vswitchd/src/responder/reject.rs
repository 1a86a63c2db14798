//! Refusals: a reset for TCP, for everything else an ICMP error, from where the packet
//! wanted to go back to where it came from.

use super::{
    icmp,
    packet::{Context, ETH},
    reset,
};

/// The refusal of a packet; none for what must not be answered.
pub(super) fn reject(context: &Context<'_>) -> Option<Vec<u8>> {
    let v4 = context.payload(0x0800);
    let proto = match v4 {
        Some(packet) => *packet.get(9)?,
        None => *context.payload(0x86dd)?.get(6)?,
    };
    let mut frame = match proto {
        6 => reset::reset(context)?,
        _ if v4.is_some_and(is_silent_v4) || v4.is_none() && is_silent_v6(context.payload(0x86dd)?) => {
            return None;
        }
        _ => icmp::port_unreachable(context, v4.is_some())?,
    };
    turn_around(&mut frame, v4.is_some())?;
    Some(frame)
}

/// Exchanges the addresses; no checksum depends on their order.
fn turn_around(frame: &mut [u8], is_v4: bool) -> Option<()> {
    let (at, len) = if is_v4 { (ETH + 12, 4) } else { (ETH + 8, 16) };
    for (at, len) in [(0, 6), (at, len)] {
        let (one, other) = frame.get_mut(at..at + 2 * len)?.split_at_mut(len);
        one.swap_with_slice(other);
    }
    Some(())
}

/// Errors, groups and later fragments (RFC 1812 §4.3.2.7).
fn is_silent_v4(packet: &[u8]) -> bool {
    let header_len = packet.first().map_or(0, |first| usize::from(first & 15) * 4);
    let is_later =
        packet.get(6..8).is_none_or(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]) & 0x1fff != 0);
    let is_error = packet.get(9) == Some(&1)
        && packet.get(header_len).is_none_or(|kind| matches!(kind, 3 | 4 | 5 | 11 | 12));
    let to_group = packet.get(16).is_none_or(|first| *first >= 224);
    is_later || is_error || to_group
}

/// RFC 4443 §2.4.
fn is_silent_v6(packet: &[u8]) -> bool {
    let is_error = packet.get(6) == Some(&58) && packet.get(40).is_none_or(|kind| *kind < 128);
    // A later fragment has no ports to be told of.
    let is_later = packet.get(6) == Some(&44)
        && packet.get(42..44).is_none_or(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]) & 0xfff8 != 0);
    is_error || is_later || packet.get(24) == Some(&0xff)
}
