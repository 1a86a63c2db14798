//! A tunnelled packet that goes on whole, to a device that knows of tunnels and cuts it itself.

use super::datagrams::{MAX_TRAIN_LEN, begin_checksum, finish_outer, outer_len};
use crate::packet::{FrameBuf, GsoKind, Layout, Packet};

/// Longest headers that are made right: the outer ones, a tunnel's with all its options, and TCP's with all of
/// its own.
pub const MAX_HEADERS_LEN: usize = 512;

/// A tunnelled TCP segment that is to be cut, with outer headers as if it went on as it is.
#[derive(Debug)]
pub struct Whole<'a> {
    /// All headers, the inner ones included.
    pub headers: &'a [u8],
    /// What follows them.
    pub payload: &'a [u8],
    /// The outer IP header.
    pub outer: Layout,
    /// The inner one.
    pub inner: Layout,
    /// The outer UDP checksum is begun; otherwise there is none.
    pub has_checksum: bool,
}

impl<'a> Whole<'a> {
    /// Of a packet, with room for its headers. `None`: it is of another kind, or too long for one IP packet.
    pub fn of<B: FrameBuf>(packet: &'a Packet<B>, room: &'a mut [u8; MAX_HEADERS_LEN]) -> Option<Self> {
        let gso = packet.offload.gso.filter(|gso| gso.kind == GsoKind::Tcp && gso.inner.l3 != 0)?;
        let (frame, len) = (packet.bytes(), usize::from(gso.inner.l3_end));
        let outer_len = outer_len(frame).filter(|outer_len| usize::from(gso.inner.l3) > *outer_len)?;
        let is_whole = packet.offload.csum_partial && len <= frame.len().min(MAX_TRAIN_LEN);
        let (headers, payload) =
            frame.get(..len).filter(|_| is_whole)?.split_at_checked(packet.cut_header_len(&gso))?;
        let room = room.get_mut(..headers.len())?;
        room.copy_from_slice(headers);
        let has_checksum = room.get(outer_len - 2..outer_len)? != [0; 2];
        finish_outer(room, outer_len, len)?;
        if has_checksum {
            begin_checksum(room, outer_len, len)?;
        }
        Some(Self { headers: room, payload, outer: packet.layout, inner: gso.inner, has_checksum })
    }
}
