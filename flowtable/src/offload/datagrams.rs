//! Tunnelled packets that come and go many at a time: datagrams of one flow and one length, one
//! after the other behind one set of outer headers (UDP segmentation and receive offload).
//!
//! What comes in is taken apart by [`Datagrams`]; segments of TCP that follow one another become
//! one packet at once, as if they had never been cut. What goes out is put together by
//! [`Train`].

use std::num::NonZeroU16;

use zerocopy::{FromBytes, IntoBytes};

use super::Segments;
use crate::{
    checksum::{self, pseudo_ipv4, pseudo_ipv6},
    headers::Headers,
    key::FlowKey,
    packet::{FrameBuf, Gso, GsoKind, Layout, Offload, Packet},
    parse::parse_frame,
    wire::{Ethernet, Ipv4, Ipv6, Udp, ip_proto, ipv4_fragment},
};

/// Longest outer headers: those over IPv6.
pub(super) const MAX_OUTER_LEN: usize = Ethernet::LEN + Ipv6::LEN + Udp::LEN;
/// Longest train: what a [`Layout`] can address.
pub(super) const MAX_TRAIN_LEN: usize = u16::MAX as usize;
/// TCP flags of segments that can become one: ACK, and at the end PSH.
const ACK: u8 = 0x10;
const PSH: u8 = 0x08;

/// Length of a frame's outer headers: Ethernet without tags, IPv4 without options or IPv6 without
/// other headers, UDP. `None`: it has others.
pub(super) fn outer_len(frame: &[u8]) -> Option<usize> {
    let (ip_len, proto_at) = match *frame.get(12..15)? {
        [0x08, 0x00, 0x45] => (Ipv4::LEN, 23),
        [0x86, 0xdd, version] if version >> 4 == 6 => (Ipv6::LEN, 20),
        _ => return None,
    };
    let len = Ethernet::LEN + ip_len + Udp::LEN;
    (*frame.get(proto_at)? == ip_proto::UDP && frame.len() >= len).then_some(len)
}

/// Where the packet of a frame with such headers ends, as its IP header has it.
fn packet_end(frame: &[u8], outer_len: usize) -> Option<usize> {
    let word = |at: usize| Some(usize::from(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?])));
    if outer_len == MAX_OUTER_LEN {
        return Some(Ethernet::LEN + Ipv6::LEN + word(18)?);
    }
    Some(Ethernet::LEN + word(16)?)
}

/// A TCP segment in a tunnel, from the datagram's start.
#[derive(Debug, Clone, Copy)]
struct Tcp {
    layout: Layout,
    payload: usize,
    seq: u32,
    flags: u8,
}

/// The packets in what a port has received at a time: at least one.
#[derive(Debug)]
pub struct Datagrams<'a> {
    frame: &'a [u8],
    outer_len: usize,
    /// Bytes of each datagram's payload but the last one's.
    each: usize,
    at: usize,
}

/// A packet taken out of [`Datagrams`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Its length.
    pub len: usize,
    /// What is left to do on it.
    pub offload: Offload,
}

impl<'a> Datagrams<'a> {
    /// Of a frame with datagrams of `each` bytes behind outer headers, but for those in
    /// front of byte `at`; `None`: a frame of another kind.
    pub fn of(frame: &'a [u8], each: usize, at: usize) -> Option<Self> {
        let outer_len = outer_len(frame)?;
        let frame = frame.get(..packet_end(frame, outer_len)?).filter(|frame| frame.len() > outer_len)?;
        let at = at.clamp(outer_len, frame.len());
        (each > 0).then_some(Self { frame, outer_len, each, at })
    }

    /// Where the rest begins.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Length of the longest packet that can come next; 0: none does.
    pub fn longest(&self) -> usize {
        match self.frame.len() - self.at {
            0 => 0,
            left => self.outer_len + left,
        }
    }

    /// Writes the next packet, as long as there is one and room for it. Its outer UDP checksum is
    /// absent (over IPv6, where it must not be: begun only): who received it has checked it, or
    /// nobody has ever computed one.
    pub fn write_next(&mut self, room: &mut [u8]) -> Option<Taken> {
        let (first, outer_len) = (self.peek()?, self.outer_len);
        let mut len = outer_len + first.len();
        room.get_mut(..outer_len)?.copy_from_slice(self.frame.get(..outer_len)?);
        room.get_mut(outer_len..len)?.copy_from_slice(first);
        self.at += first.len();
        let mut last = segment(first).map(|tcp| (tcp, tcp));
        let mut n_merged = 1;
        if let Some((head, tail)) = &mut last
            && can_begin(first, head)
        {
            let segment_len = first.len() - head.payload;
            while let Some(next) = self.peek()
                && let Some(tcp) = follows((first, head), tail, next, segment_len)
                && let Some(place) = room.get_mut(len..len + next.len() - tcp.payload)
            {
                place.copy_from_slice(next.get(tcp.payload..)?);
                len += place.len();
                self.at += next.len();
                (n_merged, *tail) = (n_merged + 1, tcp);
                if place_is_short(next, &tcp, segment_len) {
                    break;
                }
            }
        }
        let packet = room.get_mut(..len)?;
        let mut offload = Offload::default();
        if n_merged > 1
            && let Some((head, tail)) = last
        {
            let segment_len = first.len() - head.payload;
            offload = merged(packet.get_mut(outer_len..)?, (&head, tail.flags), (segment_len, outer_len))?;
        }
        finish_outer(packet, outer_len, len)?;
        Some(Taken { len, offload })
    }

    fn peek(&self) -> Option<&'a [u8]> {
        let end = self.frame.len().min(self.at + self.each);
        self.frame.get(self.at..end).filter(|datagram| !datagram.is_empty())
    }
}

fn place_is_short(datagram: &[u8], tcp: &Tcp, segment_len: usize) -> bool {
    datagram.len() - tcp.payload < segment_len || tcp.flags & PSH != 0
}

/// Bytes of the tunnel header in front of an Ethernet frame: Geneve's (RFC 8926 §3.4, protocol
/// 0x6558) or VXLAN's (RFC 7348 §5), which cannot be taken for each other.
fn tunnel_len(datagram: &[u8]) -> Option<usize> {
    let (head, _) = datagram.split_first_chunk::<8>()?;
    match (head[0] >> 6, [head[2], head[3]]) {
        (0, [0x65, 0x58]) => Some(8 + 4 * usize::from(head[0] & 0x3f)),
        // Maybe with a group policy.
        _ if head[0] & 0x7f == 0x08 && head[7] == 0 => Some(8),
        _ => None,
    }
}

/// The TCP segment in a tunnelled packet, if it is one that is whole.
fn segment(datagram: &[u8]) -> Option<Tcp> {
    let by = tunnel_len(datagram)?;
    let frame = datagram.get(by..)?;
    let layout = parse_frame(frame, &mut FlowKey::zero()).ok()?;
    let headers = Headers::of(frame, &layout);
    if layout.l4_proto != ip_proto::TCP
        || usize::from(layout.l3_end) != frame.len()
        || headers.is_fragment(frame)
        || headers.is_routed(frame)
    {
        return None;
    }
    let l4 = usize::from(layout.l4);
    let header = frame.get(l4..l4 + 20)?;
    let payload = l4 + usize::from(header[12] >> 4) * 4;
    let seq = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    let moved = |at: u16| at + by as u16;
    let moved = Layout { l3: moved(layout.l3), l4: moved(layout.l4), l3_end: moved(layout.l3_end), ..layout };
    Some(Tcp { layout: moved, payload: by + payload, seq, flags: header[13] })
}

/// A segment with payload, no flags of importance and a right checksum.
fn can_begin(datagram: &[u8], tcp: &Tcp) -> bool {
    datagram.len() > tcp.payload
        && tcp.flags & !PSH == ACK
        && tcp.flags & PSH == 0
        && is_intact(datagram, tcp)
}

fn is_intact(datagram: &[u8], tcp: &Tcp) -> bool {
    let headers = Headers::of(datagram, &tcp.layout);
    headers.pseudo(datagram).is_some_and(|pseudo| pseudo.bytes(headers.segment(datagram)).checksum() == 0)
}

/// The next segment of the same conversation, when nothing but what must differ does.
fn follows((first, head): (&[u8], &Tcp), last: &Tcp, next: &[u8], segment_len: usize) -> Option<Tcp> {
    let tcp = segment(next)?;
    let payload_len = next.len().checked_sub(tcp.payload).filter(|len| (1..=segment_len).contains(len))?;
    let last_len = usize::from(last.layout.l3_end) - last.payload;
    let is_next = tcp.seq == last.seq.wrapping_add(last_len as u32)
        && tcp.payload == head.payload
        && tcp.flags & !PSH == ACK
        && payload_len > 0
        && same_headers(first, next, head)
        && is_intact(next, &tcp);
    is_next.then_some(tcp)
}

/// The headers are the same but for lengths, identification, numbers and checksums: those of
/// the tunnel, addresses, marks, ports, acknowledgement, window and options.
fn same_headers(a: &[u8], b: &[u8], head: &Tcp) -> bool {
    let (l3, l4) = (usize::from(head.layout.l3), usize::from(head.layout.l4));
    let same =
        |range: std::ops::Range<usize>| a.get(range.clone()).is_some_and(|bytes| b.get(range) == Some(bytes));
    let ip = match a.get(l3).map(|byte| byte >> 4) {
        // Version to TOS; fragment, TTL, protocol; addresses and options.
        Some(4) => same(l3..l3 + 2) && same(l3 + 6..l3 + 10) && same(l3 + 12..l4),
        Some(6) => same(l3..l3 + 4) && same(l3 + 6..l4),
        _ => false,
    };
    ip && same(0..l3)
        && same(l4..l4 + 4)
        && same(l4 + 8..l4 + 13)
        && same(l4 + 14..l4 + 16)
        && same(l4 + 18..head.payload)
}

/// Makes the headers of the first segment those of all of them together.
fn merged(
    datagram: &mut [u8],
    (head, last_flags): (&Tcp, u8),
    (segment_len, outer_len): (usize, usize),
) -> Option<Offload> {
    let (l3, l4, end) = (usize::from(head.layout.l3), usize::from(head.layout.l4), datagram.len());
    let layout = Layout { l3_end: u16::try_from(end).ok()?, ..head.layout };
    let ip = datagram.get_mut(l3..)?;
    if ip.first()? >> 4 == 6 {
        ip.get_mut(4..6)?.copy_from_slice(&((end - l3 - 40) as u16).to_be_bytes());
    } else {
        ip.get_mut(2..4)?.copy_from_slice(&((end - l3) as u16).to_be_bytes());
        ip.get_mut(10..12)?.fill(0);
        let sum = checksum::of(ip.get(..usize::from(ip.first()? & 0xf) * 4)?);
        ip.get_mut(10..12)?.copy_from_slice(&sum.to_be_bytes());
    }
    *datagram.get_mut(l4 + 13)? |= last_flags;
    let pseudo = Headers::of(datagram, &layout).pseudo(datagram)?.fold();
    datagram.get_mut(l4 + 16..l4 + 18)?.copy_from_slice(&pseudo.to_be_bytes());
    let by = outer_len as u16;
    let inner =
        Layout { l3: layout.l3 + by, l4: layout.l4 + by, l3_end: layout.l3_end.checked_add(by)?, ..layout };
    let segment_len = NonZeroU16::new(u16::try_from(segment_len).ok()?)?;
    let gso = Some(Gso { kind: GsoKind::Tcp, segment_len, inner });
    Some(Offload { csum_partial: true, csum_start: inner.l4, csum_offset: 16, gso })
}

/// Lengths and checksums of the outer headers, at the start of `frame`, of a packet of `len` bytes.
pub(super) fn finish_outer(frame: &mut [u8], outer_len: usize, len: usize) -> Option<()> {
    let ip_len = u16::try_from(len - Ethernet::LEN).ok()?;
    let packet = frame.get_mut(Ethernet::LEN..)?;
    if outer_len == MAX_OUTER_LEN {
        let (ip, datagram) = Ipv6::mut_from_prefix(packet).ok()?;
        ip.payload_len.set(ip_len - Ipv6::LEN as u16);
        let (udp, _) = Udp::mut_from_prefix(datagram).ok()?;
        udp.len.set(ip_len - Ipv6::LEN as u16);
    } else {
        let (ip, datagram) = Ipv4::mut_from_prefix(packet).ok()?;
        ip.total_len.set(ip_len);
        ip.checksum.set(0);
        let sum = checksum::of(ip.as_bytes());
        ip.checksum.set(sum);
        let (udp, _) = Udp::mut_from_prefix(datagram).ok()?;
        udp.len.set(ip_len - Ipv4::LEN as u16);
    }
    leave_out_checksum(frame, outer_len, len)
}

/// Where UDP's checksum is, zero over IPv4: there is none. Over IPv6 there always is one
/// (RFC 8200 §8.1); it is begun with the pseudo header, which says that the rest is left to a device.
fn leave_out_checksum(frame: &mut [u8], outer_len: usize, len: usize) -> Option<()> {
    if outer_len == MAX_OUTER_LEN {
        return begin_checksum(frame, outer_len, len);
    }
    frame.get_mut(outer_len - 2..outer_len)?.fill(0);
    Some(())
}

/// Has the sum of the pseudo header where UDP's checksum is: a device completes it.
pub(super) fn begin_checksum(frame: &mut [u8], outer_len: usize, len: usize) -> Option<()> {
    let packet = frame.get(Ethernet::LEN..)?;
    let begun = if outer_len == MAX_OUTER_LEN {
        let (ip, _) = Ipv6::ref_from_prefix(packet).ok()?;
        pseudo_ipv6(ip.src.get(), ip.dst.get(), ip_proto::UDP, len - Ethernet::LEN - Ipv6::LEN)
    } else {
        let (ip, _) = Ipv4::ref_from_prefix(packet).ok()?;
        pseudo_ipv4(ip.src.get(), ip.dst.get(), ip_proto::UDP, len - Ethernet::LEN - Ipv4::LEN)
    };
    frame.get_mut(outer_len - 2..outer_len)?.copy_from_slice(&begun.fold().to_be_bytes());
    Some(())
}

fn outer_layout(outer_len: usize, l3_end: u16) -> Layout {
    let l4 = (outer_len - Udp::LEN) as u16;
    Layout { l3: Ethernet::LEN as u16, l4, l3_end, l4_proto: ip_proto::UDP }
}

/// Settles what a sender on this machine has left undone of a frame for a tunnel, and gives what
/// is left to do on the packet inside. A checksum within the tunnel is completed; a TCP segment
/// there that is to be cut stays whole.
pub fn settle_received(frame: &mut [u8], undone: &Offload) -> Offload {
    if !undone.csum_partial {
        return Offload::default();
    }
    drop_outer_checksum(frame);
    let Some(outer_len) = outer_len(frame).filter(|len| usize::from(undone.csum_start) >= *len) else {
        return Offload::default();
    };
    let gso = undone.gso.filter(|gso| gso.kind == GsoKind::Tcp);
    if let Some(large) = gso.and_then(|gso| large_segment(frame, gso, outer_len)) {
        return large;
    }
    complete_inside(frame, undone, outer_len);
    Offload::default()
}

/// A TCP segment in a tunnel that is to be cut.
fn large_segment(frame: &[u8], gso: Gso, outer_len: usize) -> Option<Offload> {
    let layout = segment(frame.get(outer_len..)?)?.layout;
    let moved = |at: u16| at.checked_add(outer_len as u16);
    let inner =
        Layout { l3: moved(layout.l3)?, l4: moved(layout.l4)?, l3_end: moved(layout.l3_end)?, ..layout };
    let gso = Some(Gso { inner, ..gso });
    Some(Offload { csum_partial: true, csum_start: inner.l4, csum_offset: 16, gso })
}

/// The packet inside ends where the outer one does.
fn complete_inside(frame: &mut [u8], undone: &Offload, outer_len: usize) {
    let end = packet_end(frame, outer_len).map_or(0, |end| end.min(frame.len()));
    let Some(segment) = frame.get_mut(usize::from(undone.csum_start)..end) else { return };
    // What is none at all must not come out as one that says "none" in UDP (RFC 768).
    let sum = match checksum::of(segment) {
        0 => u16::MAX,
        sum => sum,
    };
    let at = usize::from(undone.csum_offset);
    if let Some(field) = segment.get_mut(at..at + 2) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
}

/// A received frame's outer UDP checksum was checked by who received it, or never computed by a
/// sender on this machine: from now on there is none.
pub(super) fn drop_outer_checksum(frame: &mut [u8]) {
    let Some(outer_len) = outer_len(frame) else { return };
    let is_whole = outer_len == MAX_OUTER_LEN
        || frame.get(20..22).is_some_and(|bytes| {
            u16::from_be_bytes([bytes[0], bytes[1]]) & (ipv4_fragment::MORE | ipv4_fragment::OFFSET) == 0
        });
    let end = packet_end(frame, outer_len).unwrap_or_default();
    if let Some(packet) = frame.get_mut(..end).filter(|packet| is_whole && packet.len() >= outer_len) {
        // It has room for the header.
        let _ = leave_out_checksum(packet, outer_len, end);
    }
}

/// Makes trains of a tunnelled packet that is to be cut: datagrams one after the other behind
/// one set of outer headers, which the sending device takes apart.
#[derive(Debug)]
pub struct Train<'a> {
    segments: Segments<'a>,
    outer_len: usize,
    /// The first piece of the next train, kept in front of the room it goes to.
    each: usize,
}

/// A train that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Its length.
    pub len: usize,
    /// Bytes of payload of each datagram but the last; `None`: there is just one.
    pub each: Option<NonZeroU16>,
    /// How many datagrams.
    pub n_datagrams: u64,
    /// Bytes of outer headers.
    outer_len: usize,
}

impl<'a> Train<'a> {
    /// `None`: the packet is not one to be cut behind a tunnel's headers.
    pub fn of<B: FrameBuf>(packet: &'a Packet<B>) -> Option<Self> {
        let outer_len = outer_len(packet.bytes())?;
        let is_tunnelled = packet.layout.l4_proto == ip_proto::UDP && packet.offload.gso?.inner.l3 != 0;
        let each = packet.wire_len().checked_sub(outer_len)?;
        let segments = Segments::of(packet).filter(|_| is_tunnelled)?;
        Some(Self { segments, outer_len, each })
    }

    /// Writes the next train. `None`: all have been, or there is no room for one datagram.
    pub fn write_next(&mut self, room: &mut [u8]) -> Option<Written> {
        let room_len = room.len().min(MAX_TRAIN_LEN);
        let room = room.get_mut(..room_len)?;
        let mut len = self.segments.write_next(room)?;
        let mut n_datagrams = 1;
        // A datagram is written with outer headers of its own, over the end of the one before;
        // what was there is put back.
        while len + self.each <= room.len() && self.segments.n_left() > 0 {
            let at = len - self.outer_len;
            let mut kept = [0; MAX_OUTER_LEN];
            let end = kept.get_mut(..self.outer_len)?;
            end.copy_from_slice(room.get(at..len)?);
            let more = self.segments.write_next(room.get_mut(at..)?);
            room.get_mut(at..len)?.copy_from_slice(end);
            len = at + more?;
            n_datagrams += 1;
        }
        let each = NonZeroU16::new(u16::try_from(self.each).ok()?).filter(|_| n_datagrams > 1);
        // Lengths are those of the whole train.
        finish_outer(room, self.outer_len, len)?;
        begin_checksum(room, self.outer_len, len)?;
        Some(Written { len, each, n_datagrams, outer_len: self.outer_len })
    }
}

/// What a train's record says.
pub fn train_offload(written: &Written) -> (Offload, Layout) {
    let layout = outer_layout(written.outer_len, written.len as u16);
    let gso =
        written.each.map(|segment_len| Gso { kind: GsoKind::Udp, segment_len, inner: Layout::default() });
    (Offload { csum_partial: true, csum_start: layout.l4, csum_offset: 6, gso }, layout)
}
