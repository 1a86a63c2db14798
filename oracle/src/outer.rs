//! Reads Geneve headers (RFC 8926), with etherparse for what is below.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};

use crate::interpreter::Outer;

/// Geneve's UDP port (RFC 8926 §3.3).
pub const GENEVE_PORT: u16 = 6081;
/// Class and type of the option that OVN sends, its critical bit included.
const OVN_OPTION: [u8; 3] = [0x01, 0x02, 0x80];

/// What a Geneve packet from `local` says, and the frame in it; nothing when it is something else.
///
/// # Errors
/// When it is Geneve and wrong.
pub fn open(frame: &[u8], local: Ipv4Addr) -> Result<Option<(Outer, &[u8])>> {
    let Ok(sliced) = SlicedPacket::from_ethernet(frame) else { return Ok(None) };
    let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Udp(udp))) = (&sliced.net, &sliced.transport) else {
        return Ok(None);
    };
    if udp.destination_port() != GENEVE_PORT || ip.header().source_addr() != local {
        return Ok(None);
    }
    let header = ip.header();
    ensure!(
        header.header_checksum() == header.to_header().calc_header_checksum(),
        "the outer checksum is wrong"
    );
    ensure!(udp.source_port() >= 0x8000, "source ports below 32768 are no spread over paths");
    let payload = udp.payload();
    let (geneve, rest) = payload.split_first_chunk::<8>().context("the Geneve header is cut off")?;
    ensure!(geneve[0] >> 6 == 0 && geneve[2..4] == [0x65, 0x58], "not version 0 with Ethernet in it");
    let options_len = usize::from(geneve[0] & 0x3f) * 4;
    let (options, inner) = rest.split_at_checked(options_len).context("the options are cut off")?;
    let option = match options {
        [] => None,
        [class_high, class_low, kind, 1, value @ ..] if value.len() == 4 => {
            ensure!([*class_high, *class_low, *kind] == OVN_OPTION, "an unknown option");
            ensure!(geneve[1] & 0x40 != 0, "a critical option without the C bit");
            Some(value.iter().fold(0, |value, byte| value << 8 | u32::from(*byte)))
        }
        _ => anyhow::bail!("unknown options"),
    };
    let vni = u32::from_be_bytes([0, geneve[4], geneve[5], geneve[6]]);
    Ok(Some((Outer { peer: header.destination_addr().to_bits(), vni, option }, inner)))
}
