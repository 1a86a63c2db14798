//! A way into the kernel for tunnelled packets that are to be cut: a TAP device that takes them with a record of both
//! sets of headers (`struct virtio_net_hdr_v1_hash_tunnel`, Linux 6.17), and a program that has an interface send what the
//! device is given.
//!
//! A packet socket has no words for what is behind a tunnel's header. By this way the packet is to the kernel what one of
//! its own tunnels would have made: whoever is last cuts it, the card if it can, and on the way to somebody who takes
//! it whole, nobody does.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd, BorrowedFd, OwnedFd},
};

use flowtable::{
    offload::Whole,
    packet::{Gso, Layout},
};

use super::{
    SysError,
    bpf::Link,
    interface::{self, Interface},
    tap,
    vnet::{NEEDS_CHECKSUM, kind_of},
};

/// The kernel puts the first free number in its place.
const NAME: &str = "ffseg%d";
/// Below the least of IPv6 (RFC 8200 §5), so that the host does not speak on the device. What we
/// write may be longer.
const MTU: libc::c_int = 576;
const RECORD_LEN: usize = 24;
/// TCP and checksums, also behind a tunnel's header over UDP, with a checksum or without.
const TAKEN: libc::c_ulong = 0x1 | 0x2 | 0x4 | 0x8 | 0x80 | 0x100;
/// The outer UDP checksum is begun.
const TUNNEL_CHECKSUM: u8 = 8;
const TUNNEL_IPV4: u8 = 0x20;
const TUNNEL_IPV6: u8 = 0x40;
/// Where the checksum of TCP is.
const TCP_CHECKSUM: u16 = 16;

/// The device, and what ties it to the interface. Both go with their files.
#[derive(Debug)]
pub(crate) struct Segmenter {
    device: OwnedFd,
    link: Link,
}

impl Segmenter {
    /// Makes one, in the calling thread's network namespace, for an interface there.
    ///
    /// # Errors
    /// The kernel is older, or may not be asked.
    pub(crate) fn open(ifindex: u32) -> Result<Self, SysError> {
        let (device, name) = tap::attach(NAME, 0)?;
        tap::set_record_len(&name, &device, RECORD_LEN)?;
        tap::leave(&name, &device, TAKEN)?;
        interface::raise(&name, MTU)?;
        let link = Link::pass_on(&name, Interface::lookup(&name)?.ifindex, ifindex)?;
        Ok(Self { device, link })
    }

    /// One that another process has made.
    pub(crate) fn of(device: OwnedFd, link: OwnedFd) -> Self {
        Self { device, link: Link::of(link) }
    }

    /// Its files, in the order that [`of`](Self::of) takes them in.
    pub(crate) fn fds(&self) -> [BorrowedFd<'_>; 2] {
        [self.device.as_fd(), self.link.fd()]
    }

    /// Has the kernel send a packet.
    ///
    /// # Errors
    /// It has no memory for it now, or does not take it.
    pub(crate) fn send(&self, whole: &Whole<'_>, gso: &Gso) -> io::Result<()> {
        let record = record(whole, gso);
        let parts = [&record[..], whole.headers, whole.payload]
            .map(|part| libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() });
        // SAFETY: the parts are live and as long as they say, and are only read.
        let ret =
            unsafe { libc::writev(self.device.as_raw_fd(), parts.as_ptr(), parts.len() as libc::c_int) };
        if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

fn record(whole: &Whole<'_>, gso: &Gso) -> [u8; RECORD_LEN] {
    let Layout { l3: inner_l3, l4: inner_l4, .. } = whole.inner;
    let is_ipv6 = whole.headers.get(usize::from(whole.outer.l3)).is_some_and(|byte| byte >> 4 == 6);
    let mut record = [0; RECORD_LEN];
    let mut put = |at: usize, value: [u8; 2]| record[at..at + 2].copy_from_slice(&value);
    put(2, (whole.headers.len() as u16).to_ne_bytes());
    put(4, gso.segment_len.get().to_ne_bytes());
    put(6, inner_l4.to_ne_bytes());
    put(8, TCP_CHECKSUM.to_ne_bytes());
    // Behind the counts and the hash, which are of what is received. These two are little-endian everywhere.
    put(20, whole.outer.l4.to_le_bytes());
    put(22, inner_l3.to_le_bytes());
    record[0] = NEEDS_CHECKSUM | if whole.has_checksum { TUNNEL_CHECKSUM } else { 0 };
    record[1] = kind_of(gso, whole.headers, &whole.inner) | if is_ipv6 { TUNNEL_IPV6 } else { TUNNEL_IPV4 };
    record
}
