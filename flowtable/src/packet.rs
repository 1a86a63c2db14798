//! A packet: a frame's bytes in a buffer with headroom, and what travels with them.
//!
//! The buffer's memory belongs to whoever moves packets (an AF_XDP frame, a heap
//! block in tests); the switch only needs it as bytes. Headroom in front of the frame
//! lets a tunnel header be pushed without moving the payload.

use std::num::NonZeroU16;

use crate::{types::PortNo, wire::Udp};

/// Free bytes in front of a received frame: outer Ethernet, VLAN, IPv6, UDP and Geneve
/// with 60 bytes of options fit (14 + 4 + 40 + 8 + 8 + 60 = 134).
pub const HEADROOM: usize = 192;

/// Memory of one frame.
pub trait FrameBuf: AsRef<[u8]> + AsMut<[u8]> {}

impl<T: AsRef<[u8]> + AsMut<[u8]>> FrameBuf for T {}

/// Work on a frame's payload that was left to whoever sends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offload {
    /// The L4 checksum field holds only the sum of the pseudo header; it must be
    /// completed over the bytes from `csum_start` before the frame leaves for a
    /// device that does not do it.
    pub csum_partial: bool,
    /// First byte that the checksum covers, from the frame's start.
    pub csum_start: u16,
    /// Place of the checksum, from `csum_start`.
    pub csum_offset: u16,
    /// The frame stands for several, which are to be cut from it.
    pub gso: Option<Gso>,
}

impl Offload {
    /// There is nothing to do.
    #[inline]
    pub fn is_none(&self) -> bool {
        !self.csum_partial && self.gso.is_none()
    }
}

/// How a frame that is longer than a wire takes (generic segmentation offload) is cut: each
/// piece has the headers, with lengths, numbers and checksums of its own, and a part of the
/// payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gso {
    /// What the payload is of.
    pub kind: GsoKind,
    /// Bytes of payload in each piece but the last. Never zero.
    pub segment_len: NonZeroU16,
    /// Where the headers are, when others have been put in front of them since; those are
    /// part of each piece too. All zero: where the packet's layout says.
    pub inner: Layout,
}

/// What is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GsoKind {
    /// A TCP segment into segments.
    Tcp,
    /// UDP datagrams of one length, one after the other behind one header, into datagrams.
    Udp,
}

/// Where the parser found the headers, from the frame's start. Zero: absent.
///
/// # Invariants
/// `l3_end` is zero when the L3 header is not one the switch knows or contradicts
/// itself; then `l4` is zero too, and no edit touches the bytes after `l3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Layout {
    /// First byte after the Ethernet header and its tags.
    pub l3: u16,
    /// First byte of the L4 header; absent in later fragments.
    pub l4: u16,
    /// End of the L3 packet, by its own length field: what follows is padding.
    pub l3_end: u16,
    /// Protocol at `l4`, when its header is whole and one the parser reads: TCP, UDP,
    /// SCTP, ICMP, ICMPv6, IGMP. Zero: the bytes at `l4` are opaque.
    pub l4_proto: u8,
}

/// One packet.
// In this order, so that what is copied as a whole (the packet) and what is taken out of it (the buffer) meet at the same
// places: a processor waits where a load spans what two stores have written.
#[derive(Debug)]
#[repr(C)]
pub struct Packet<B> {
    buf: B,
    start: u32,
    end: u32,
    /// Port it came in by.
    pub in_port: PortNo,
    /// Queue of the port it leaves by; 0: the usual one.
    pub queue: u16,
    /// Where its headers are; set by the parser.
    pub layout: Layout,
    /// What is left to do on its payload.
    pub offload: Offload,
}

impl<B: FrameBuf> Packet<B> {
    /// The bytes `start..start + len` of `buf` as a packet; what exceeds the buffer is
    /// cut off.
    #[inline]
    pub fn new(buf: B, start: usize, len: usize, in_port: PortNo) -> Self {
        let room = buf.as_ref().len().min(u32::MAX as usize);
        let start = start.min(room);
        let end = start.saturating_add(len).min(room);
        Self {
            buf,
            start: start as u32,
            end: end as u32,
            in_port,
            queue: 0,
            layout: Layout::default(),
            offload: Offload::default(),
        }
    }

    /// The frame.
    pub fn bytes(&self) -> &[u8] {
        &self.buf.as_ref()[self.start as usize..self.end as usize]
    }

    /// The frame, to write.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.buf.as_mut()[self.start as usize..self.end as usize]
    }

    /// Length of the frame.
    pub fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// The headers that are repeated when the frame is cut.
    pub fn cut_layout(&self) -> Layout {
        match self.offload.gso {
            Some(gso) if gso.inner.l3 != 0 => gso.inner,
            _ => self.layout,
        }
    }

    /// Length of the longest frame that is sent of it: its own, unless it is to be cut.
    #[inline]
    pub fn wire_len(&self) -> usize {
        match self.offload.gso {
            None => self.len(),
            Some(gso) => (self.cut_header_len(&gso) + usize::from(gso.segment_len.get())).min(self.len()),
        }
    }

    /// Bytes in front of the payload that is cut.
    pub(crate) fn cut_header_len(&self, gso: &Gso) -> usize {
        let l4 = usize::from(self.cut_layout().l4);
        match gso.kind {
            GsoKind::Udp => l4 + Udp::LEN,
            GsoKind::Tcp => l4 + self.bytes().get(l4 + 12).map_or(0, |byte| usize::from(byte >> 4) * 4),
        }
    }

    /// A frame without bytes.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Bytes in front of the frame.
    pub fn headroom(&self) -> usize {
        self.start as usize
    }

    /// Where the frame starts in its buffer.
    pub fn start(&self) -> usize {
        self.start as usize
    }

    /// Grows the frame by `len` bytes in front; their content is undefined. False when
    /// there is not enough headroom, and then nothing has changed.
    #[must_use]
    pub fn push_front(&mut self, len: usize) -> bool {
        let fits = len <= self.start as usize;
        if fits {
            self.start -= len as u32;
        }
        fits
    }

    /// Takes `len` bytes off the front. False when the frame is shorter.
    #[must_use]
    pub fn pull_front(&mut self, len: usize) -> bool {
        let fits = len <= self.len();
        if fits {
            self.start += len as u32;
        }
        fits
    }

    /// Cuts the frame to `len` bytes; a shorter one stays as it is.
    pub fn truncate(&mut self, len: usize) {
        self.end = self.end.min(self.start.saturating_add(len.min(u32::MAX as usize) as u32));
    }

    /// The memory, to look at.
    pub fn buf(&self) -> &B {
        &self.buf
    }

    /// The memory, to give it back.
    pub fn into_buf(self) -> B {
        self.buf
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headroom_is_bounded_at_both_ends() {
        let mut packet = Packet::new(vec![0_u8; 100], 20, 60, PortNo::ZERO);
        assert!(!packet.push_front(21));
        assert!(packet.push_front(20));
        assert_eq!((packet.len(), packet.headroom()), (80, 0));
        assert!(!packet.pull_front(81));
        assert!(packet.pull_front(80));
        assert!(packet.is_empty());
    }

    #[test]
    fn a_frame_never_exceeds_its_buffer() {
        assert_eq!(Packet::new(vec![0_u8; 10], 4, 100, PortNo::ZERO).len(), 6);
        assert_eq!(Packet::new(vec![0_u8; 10], 40, 1, PortNo::ZERO).len(), 0);
    }
}
