//! TCP resets (RFC 9293 §3.5.2). The packet made here has the addresses of the one it is
//! about, and its ports turned around; the flow does the rest.

use flowtable::checksum;

use super::packet::Context;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;
/// Length of a header without options.
const TCP: usize = 20;
const TTL: u8 = 255;

/// The reset of a connection that a segment asks for; a reset has none.
pub(super) fn reset(context: &Context<'_>) -> Option<Vec<u8>> {
    let v4 = context.payload(0x0800).filter(|packet| packet.get(9) == Some(&6));
    let (header, tcp, pseudo) = match v4 {
        Some(packet) => ipv4(packet)?,
        None => ipv6(context.payload(0x86dd)?)?,
    };
    let mut segment = answer(tcp)?;
    let sum = pseudo.bytes(&segment).checksum().to_be_bytes();
    segment.get_mut(16..18)?.copy_from_slice(&sum);
    let mut frame = context.frame().get(..super::packet::ETH)?.to_vec();
    frame.extend(header);
    frame.extend(segment);
    Some(frame)
}

type Parts<'a> = (Vec<u8>, &'a [u8], checksum::Sum);

/// The reset's IP header, the segment, and what is summed besides.
fn ipv4(packet: &[u8]) -> Option<Parts<'_>> {
    let header_len = usize::from(packet.first()? & 15) * 4;
    let total_len = usize::from(u16::from_be_bytes(packet.get(2..4)?.try_into().ok()?));
    let tcp = packet.get(header_len..total_len.min(packet.len()))?;
    let addresses = packet.get(12..20)?;
    let mut header = vec![0x45, 0, 0, (20 + TCP) as u8, 0, 0, 0x40, 0, TTL, 6, 0, 0];
    header.extend(addresses);
    let sum = checksum::of(&header).to_be_bytes();
    header.get_mut(10..12)?.copy_from_slice(&sum);
    let number = |at: usize| Some(u32::from_be_bytes(packet.get(at..at + 4)?.try_into().ok()?));
    Some((header, tcp, checksum::pseudo_ipv4(number(12)?, number(16)?, 6, TCP)))
}

/// Segments behind extension headers have no answer.
fn ipv6(packet: &[u8]) -> Option<Parts<'_>> {
    if packet.get(6) != Some(&6) {
        return None;
    }
    let payload_len = usize::from(u16::from_be_bytes(packet.get(4..6)?.try_into().ok()?));
    let tcp = packet.get(40..(40 + payload_len).min(packet.len()))?;
    let mut header = vec![0x60, 0, 0, 0, 0, TCP as u8, 6, TTL];
    header.extend(packet.get(8..40)?);
    let number = |at: usize| Some(u128::from_be_bytes(packet.get(at..at + 16)?.try_into().ok()?));
    Some((header, tcp, checksum::pseudo_ipv6(number(8)?, number(24)?, 6, TCP)))
}

fn answer(tcp: &[u8]) -> Option<Vec<u8>> {
    let number = |at: usize| Some(u32::from_be_bytes(tcp.get(at..at + 4)?.try_into().ok()?));
    let (offset, flags) = (usize::from(tcp.get(12)? >> 4) * 4, *tcp.get(13)?);
    if flags & RST != 0 || offset < TCP {
        return None;
    }
    let (seq, ack, flags) = if flags & ACK != 0 {
        (number(8)?, 0, RST)
    } else {
        let n_flags = u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
        let data_len = u32::try_from(tcp.len().checked_sub(offset)?).ok()?;
        (0, number(4)?.wrapping_add(data_len).wrapping_add(n_flags), RST | ACK)
    };
    let mut segment = tcp.get(2..4)?.to_vec();
    segment.extend(tcp.get(..2)?);
    segment.extend(seq.to_be_bytes());
    segment.extend(ack.to_be_bytes());
    segment.extend([(TCP as u8 / 4) << 4, flags, 0, 0, 0, 0, 0, 0]);
    Some(segment)
}
