//! Cutting a packet into frames of the wire's size.

use zerocopy::FromBytes;

use crate::{
    checksum::{self, Sum, pseudo_ipv4, pseudo_ipv6},
    packet::{FrameBuf, GsoKind, Layout, Packet},
    wire::{Ipv4, Ipv6, Udp, ip_proto, ipv4_fragment},
};

/// Bits of a TCP header's 14th byte.
mod tcp_flag {
    pub(super) const FIN: u8 = 0x01;
    pub(super) const PSH: u8 = 0x08;
    /// Congestion window reduced: said once (RFC 3168 §6.1.2).
    pub(super) const CWR: u8 = 0x80;
}

/// The frames that a packet stands for, one after the other. Their checksums are complete.
///
/// Headers that were put in front since (a tunnel's, labels) are in front of each; of a
/// tunnel's, lengths and checksums are made right.
#[derive(Debug)]
pub struct Segments<'a> {
    frame: &'a [u8],
    kind: GsoKind,
    /// The outermost IP header, where there is a tunnel's.
    outer: Option<Layout>,
    inner: Layout,
    header_len: usize,
    segment_len: usize,
    /// End of the payload.
    end: usize,
    /// First byte of payload of the next frame.
    at: usize,
    n_made: u16,
}

impl<'a> Segments<'a> {
    /// `None`: the packet is not to be cut.
    pub fn of<B: FrameBuf>(packet: &'a Packet<B>) -> Option<Self> {
        let gso = packet.offload.gso?;
        let (inner, layout) = (packet.cut_layout(), packet.layout);
        let header_len = packet.cut_header_len(&gso);
        let is_tunnel = matches!(layout.l4_proto, ip_proto::UDP | ip_proto::GRE);
        let has_tunnel = gso.inner.l3 != 0 && is_tunnel && layout.l4 < gso.inner.l3;
        Some(Self {
            frame: packet.bytes(),
            kind: gso.kind,
            outer: has_tunnel.then_some(layout),
            inner,
            header_len,
            segment_len: gso.segment_len.get().into(),
            end: usize::from(inner.l3_end).min(packet.len()),
            at: header_len,
            n_made: 0,
        })
    }

    /// How many frames are left.
    pub fn n_left(&self) -> usize {
        self.end.saturating_sub(self.at).div_ceil(self.segment_len)
    }

    /// Writes the next frame and answers its length. `None`: there is none, or no room for it.
    pub fn write_next(&mut self, room: &mut [u8]) -> Option<usize> {
        let payload = self.frame.get(self.at..self.end.min(self.at + self.segment_len))?;
        if payload.is_empty() {
            return None;
        }
        let len = self.header_len + payload.len();
        let frame = room.get_mut(..len)?;
        let (header, rest) = frame.split_at_mut_checked(self.header_len)?;
        header.copy_from_slice(self.frame.get(..self.header_len)?);
        rest.copy_from_slice(payload);
        let is_last = self.at + payload.len() >= self.end;
        self.mend_l4(frame, is_last)?;
        let mut pseudo = mend_l3(frame.get_mut(self.inner.l3.into()..)?, &self.inner, self.n_made)?;
        pseudo = pseudo.word(self.inner.l4_proto.into());
        fill_checksum(frame.get_mut(self.inner.l4.into()..)?, pseudo, self.kind)?;
        if let Some(outer) = &self.outer {
            mend_outer(frame, outer)?;
        }
        self.at += payload.len();
        self.n_made = self.n_made.wrapping_add(1);
        Some(len)
    }

    /// Sequence number and flags, or the datagram's length.
    fn mend_l4(&self, frame: &mut [u8], is_last: bool) -> Option<()> {
        let segment = frame.get_mut(self.inner.l4.into()..)?;
        match self.kind {
            GsoKind::Udp => {
                let len = segment.len() as u16;
                segment.get_mut(4..6)?.copy_from_slice(&len.to_be_bytes());
            }
            GsoKind::Tcp => {
                let number: &mut [u8; 4] = segment.get_mut(4..8)?.first_chunk_mut()?;
                let before = (self.at - self.header_len) as u32;
                *number = u32::from_be_bytes(*number).wrapping_add(before).to_be_bytes();
                let flags = segment.get_mut(13)?;
                if !is_last {
                    *flags &= !(tcp_flag::FIN | tcp_flag::PSH);
                }
                if before != 0 {
                    *flags &= !tcp_flag::CWR;
                }
            }
        }
        Some(())
    }
}

/// Length, identification and checksum of an IP header in front of the rest of the frame;
/// answers the sum of addresses and L4 length.
fn mend_l3(packet: &mut [u8], layout: &Layout, n_before: u16) -> Option<Sum> {
    let (len, l4) = (packet.len(), usize::from(layout.l4 - layout.l3));
    if packet.first()? >> 4 == 6 {
        let (ip, _) = Ipv6::mut_from_prefix(packet).ok()?;
        ip.payload_len.set((len - Ipv6::LEN) as u16);
        return Some(pseudo_ipv6(ip.src.get(), ip.dst.get(), 0, len - l4));
    }
    let (ip, _) = Ipv4::mut_from_prefix(packet).ok()?;
    ip.total_len.set(len as u16);
    // Packets that nobody may fragment need no identification (RFC 6864 §4.1), but a sender
    // that has given one counts on.
    if ip.fragment.get() & ipv4_fragment::DONT == 0 || ip.id.get() != 0 {
        ip.id.set(ip.id.get().wrapping_add(n_before));
    }
    ip.checksum.set(0);
    let pseudo = pseudo_ipv4(ip.src.get(), ip.dst.get(), 0, len - l4);
    let sum = checksum::of(packet.get(..usize::from(packet.first()? & 0xf) * 4)?);
    packet.get_mut(10..12)?.copy_from_slice(&sum.to_be_bytes());
    Some(pseudo)
}

fn fill_checksum(segment: &mut [u8], pseudo: Sum, kind: GsoKind) -> Option<()> {
    let at = match kind {
        GsoKind::Tcp => 16,
        GsoKind::Udp => 6,
    };
    segment.get_mut(at..at + 2)?.fill(0);
    let sum = match pseudo.bytes(segment).checksum() {
        // Zero would mean "none" (RFC 768).
        0 if kind == GsoKind::Udp => u16::MAX,
        sum => sum,
    };
    segment.get_mut(at..at + 2)?.copy_from_slice(&sum.to_be_bytes());
    Some(())
}

/// Lengths and checksums of a tunnel's headers. A UDP checksum is computed where there is
/// anything but zero in its place.
fn mend_outer(frame: &mut [u8], outer: &Layout) -> Option<()> {
    // Nobody fragments these, so that they have no identification.
    let pseudo = mend_l3(frame.get_mut(outer.l3.into()..)?, outer, 0)?.word(ip_proto::UDP.into());
    if outer.l4_proto != ip_proto::UDP {
        return Some(());
    }
    let datagram = frame.get_mut(outer.l4.into()..)?;
    let len = datagram.len() as u16;
    let (udp, _) = Udp::mut_from_prefix(datagram).ok()?;
    udp.len.set(len);
    if udp.checksum.get() != 0 {
        fill_checksum(datagram, pseudo, GsoKind::Udp)?;
    }
    Some(())
}
