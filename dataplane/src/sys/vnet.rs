//! Files that frames are read from and written to with a record in front of what is left to
//! do on each (`struct virtio_net_hdr`): TAP devices and packet sockets.

use std::{
    io,
    num::NonZeroU16,
    os::fd::{AsFd as _, AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use flowtable::packet::{Gso, GsoKind, Layout, Offload};

/// Bytes of the record.
pub(crate) const RECORD_LEN: usize = 10;
/// Bytes of a VLAN tag, and of what is in front of it.
const TAG_LEN: usize = 4;
const MACS_LEN: usize = 12;

pub(super) const NEEDS_CHECKSUM: u8 = 1;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
/// Set beside a TCP kind when the congestion window was reduced.
const GSO_ECN: u8 = 0x80;

const PACKET_AUXDATA: libc::c_int = 8;
const STATUS_VLAN_VALID: u32 = 1 << 4;
const STATUS_VLAN_TPID_VALID: u32 = 1 << 6;

/// What kind of file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileKind {
    /// A TAP device.
    Tap,
    /// A packet socket.
    Socket,
}

/// A file with a record in front of each frame.
#[derive(Debug)]
pub(crate) struct VnetFile {
    fd: OwnedFd,
    kind: FileKind,
}

/// A frame that was read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Received {
    /// Its length, tag included.
    pub(crate) len: usize,
    /// What is left to do on it.
    pub(crate) offload: Offload,
    /// A tag that the kernel has taken off it: TPID and TCI.
    pub(crate) tag: Option<[u8; TAG_LEN]>,
}

/// What a file has to say instead of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Nothing more now, or no room now.
    Later,
    /// The interface is down.
    Down,
    /// The interface is gone for good.
    Gone,
    /// The frame is longer than it takes.
    TooLong,
    /// It is refused.
    Refused,
}

impl VnetFile {
    pub(super) fn new(fd: OwnedFd, kind: FileKind) -> Self {
        Self { fd, kind }
    }

    /// To have somebody hold it.
    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// To wait for.
    pub(crate) fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Reads a frame: what does not fit into `head` goes into `tail`.
    pub(crate) fn receive(&self, head: &mut [u8], tail: &mut [u8]) -> Result<Received, Trouble> {
        let mut record = [0; RECORD_LEN];
        let mut parts = [iovec(&mut record), iovec(head), iovec(tail)];
        let (n_read, tag) = match self.kind {
            FileKind::Tap => {
                // SAFETY: the parts are live, writable and as long as they say.
                let n = unsafe { libc::readv(self.fd(), parts.as_ptr(), parts.len() as libc::c_int) };
                (n, None)
            }
            FileKind::Socket => self.receive_message(&mut parts),
        };
        let Ok(n_read) = usize::try_from(n_read) else { return Err(self.trouble()) };
        let len = n_read.checked_sub(RECORD_LEN).ok_or(Trouble::Refused)?;
        Ok(Received { len, offload: decode(&record), tag })
    }

    fn receive_message(&self, parts: &mut [libc::iovec]) -> (isize, Option<[u8; TAG_LEN]>) {
        // Room for one `tpacket_auxdata` of 20 bytes behind its header.
        let mut control = [0_u64; 8];
        // SAFETY: zero bytes are a valid value of this structure.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = parts.as_mut_ptr();
        message.msg_iovlen = parts.len() as _;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control) as _;
        // SAFETY: all that the structure points at is live and as long as it says.
        let n_read = unsafe { libc::recvmsg(self.fd(), &mut message, libc::MSG_DONTWAIT) };
        if n_read < 0 || message.msg_flags & libc::MSG_TRUNC != 0 {
            return (if n_read < 0 { n_read } else { 0 }, None);
        }
        // SAFETY: the kernel has filled in `message`, and `control` is live.
        let first = unsafe { libc::CMSG_FIRSTHDR(&message) };
        if first.is_null() {
            return (n_read, None);
        }
        // SAFETY: not null, so a whole header in `control`.
        let header = unsafe { &*first };
        if (header.cmsg_level, header.cmsg_type) != (libc::SOL_PACKET, PACKET_AUXDATA) {
            return (n_read, None);
        }
        // SAFETY: the kernel has put an auxdata of 20 bytes behind such a header.
        let aux: AuxData = unsafe { std::ptr::read_unaligned(libc::CMSG_DATA(first).cast()) };
        (n_read, aux.tag())
    }

    /// Writes a frame with its record.
    pub(crate) fn send(&self, record: &Record, frame: &[u8]) -> Result<(), Trouble> {
        let parts = [iovec_of(&record.0), iovec_of(frame)];
        loop {
            // SAFETY: the parts are live and as long as they say, and are only read.
            let ret = unsafe { libc::writev(self.fd(), parts.as_ptr(), parts.len() as libc::c_int) };
            if ret >= 0 {
                return Ok(());
            }
            match self.trouble() {
                Trouble::Later if io::Error::last_os_error().raw_os_error() == Some(libc::EINTR) => {}
                trouble => return Err(trouble),
            }
        }
    }

    /// Of the calling thread's last failed call.
    fn trouble(&self) -> Trouble {
        match io::Error::last_os_error().raw_os_error() {
            Some(libc::EAGAIN | libc::EINTR | libc::ENOBUFS | libc::ENOMEM) => Trouble::Later,
            Some(libc::ENETDOWN) if self.is_orphan() => Trouble::Gone,
            // A TAP that is not up answers with the second.
            Some(libc::ENETDOWN | libc::EIO) => Trouble::Down,
            Some(libc::EBADFD | libc::ENXIO | libc::ENODEV | libc::EBADF) => Trouble::Gone,
            Some(libc::EMSGSIZE) => Trouble::TooLong,
            _ => Trouble::Refused,
        }
    }

    /// A socket whose interface has been deleted: it is bound to none any more.
    pub(crate) fn is_orphan(&self) -> bool {
        if self.kind == FileKind::Tap {
            return false;
        }
        // SAFETY: zero bytes are a valid value of this structure.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        let mut len = size_of_val(&address) as libc::socklen_t;
        // SAFETY: fills in a live structure of the length told.
        let ret = unsafe { libc::getsockname(self.fd(), std::ptr::from_mut(&mut address).cast(), &mut len) };
        ret == 0 && address.sll_ifindex <= 0
    }

    /// Frames that the kernel dropped because we were too slow, since the last call.
    pub(crate) fn take_dropped(&self) -> u64 {
        if self.kind == FileKind::Tap {
            return 0;
        }
        let mut stats = [0_u32; 2];
        let mut len = size_of_val(&stats) as libc::socklen_t;
        // SAFETY: fills in two live integers, packets and drops.
        let ret = unsafe {
            libc::getsockopt(
                self.fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                stats.as_mut_ptr().cast(),
                &mut len,
            )
        };
        if ret == 0 { stats[1].into() } else { 0 }
    }
}

#[repr(C)]
struct AuxData {
    status: u32,
    len: u32,
    snaplen: u32,
    mac: u16,
    net: u16,
    vlan_tci: u16,
    vlan_tpid: u16,
}

const _: () = assert!(size_of::<AuxData>() == 20);

impl AuxData {
    fn tag(&self) -> Option<[u8; TAG_LEN]> {
        if self.status & STATUS_VLAN_VALID == 0 {
            return None;
        }
        let is_told = self.status & STATUS_VLAN_TPID_VALID != 0;
        let [a, b] = if is_told { self.vlan_tpid } else { 0x8100 }.to_be_bytes();
        let [c, d] = self.vlan_tci.to_be_bytes();
        Some([a, b, c, d])
    }
}

fn iovec(bytes: &mut [u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() }
}

fn iovec_of(bytes: &[u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
}

/// Puts a tag behind the MAC addresses of a frame that starts `TAG_LEN` bytes into `room`.
/// True when there was room.
pub(crate) fn insert_tag(room: &mut [u8], tag: [u8; TAG_LEN]) -> bool {
    let fits = room.len() >= TAG_LEN + MACS_LEN;
    if fits {
        room.copy_within(TAG_LEN..TAG_LEN + MACS_LEN, 0);
        room[MACS_LEN..MACS_LEN + TAG_LEN].copy_from_slice(&tag);
    }
    fits
}

/// A record, as the kernel reads it: in the machine's byte order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record([u8; RECORD_LEN]);

impl Record {
    /// Of a frame on which nothing is left to do.
    pub(crate) const NONE: Self = Self([0; RECORD_LEN]);

    /// Of a frame with headers of `header_len` bytes up to the payload that is cut.
    pub(crate) fn new(offload: &Offload, frame: &[u8], layout: &Layout, header_len: usize) -> Self {
        let mut record = [0; RECORD_LEN];
        let mut put = |at: usize, value: u16| record[at..at + 2].copy_from_slice(&value.to_ne_bytes());
        if offload.csum_partial {
            put(6, offload.csum_start);
            put(8, offload.csum_offset);
        }
        if let Some(gso) = &offload.gso {
            put(2, header_len as u16);
            put(4, gso.segment_len.get());
            record[1] = kind_of(gso, frame, layout);
        }
        record[0] = if offload.csum_partial { NEEDS_CHECKSUM } else { 0 };
        Self(record)
    }

    /// Its bytes.
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8; RECORD_LEN] {
        &self.0
    }
}

/// What cuts it, as the record has it.
pub(super) fn kind_of(gso: &Gso, frame: &[u8], layout: &Layout) -> u8 {
    let at = |at: usize| frame.get(at).copied().unwrap_or(0);
    match gso.kind {
        GsoKind::Udp => GSO_UDP_L4,
        GsoKind::Tcp => {
            let is_ipv6 = at(layout.l3.into()) >> 4 == 6;
            let reduced = at(usize::from(layout.l4) + 13) & 0x80 != 0;
            (if is_ipv6 { GSO_TCPV6 } else { GSO_TCPV4 }) | if reduced { GSO_ECN } else { 0 }
        }
    }
}

/// What a record says. A kind that was not asked for, and cannot be cut here, is none: such a
/// frame is too large for any port.
#[inline]
pub(crate) fn decode(record: &[u8; RECORD_LEN]) -> Offload {
    let get = |at: usize| u16::from_ne_bytes([record[at], record[at + 1]]);
    let kind = match record[1] & !GSO_ECN {
        GSO_TCPV4 | GSO_TCPV6 => Some(GsoKind::Tcp),
        GSO_UDP_L4 => Some(GsoKind::Udp),
        _ => None,
    };
    let gso = kind.zip(NonZeroU16::new(get(4)));
    let csum_partial = record[0] & NEEDS_CHECKSUM != 0;
    Offload {
        csum_partial,
        csum_start: if csum_partial { get(6) } else { 0 },
        csum_offset: if csum_partial { get(8) } else { 0 },
        gso: gso.map(|(kind, segment_len)| Gso { kind, segment_len, inner: Layout::default() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_say_what_was_told() {
        let layout = Layout { l3: 14, l4: 34, l3_end: 4000, l4_proto: 6 };
        let mut frame = [0; 60];
        for (version, flags, kind) in [(0x45, 0x10, GSO_TCPV4), (0x60, 0x90, GSO_TCPV6 | GSO_ECN)] {
            (frame[14], frame[34 + 13]) = (version, flags);
            let segment_len = NonZeroU16::new(1448).unwrap();
            let gso = Gso { kind: GsoKind::Tcp, segment_len, inner: Layout::default() };
            let offload = Offload { csum_partial: true, csum_start: 34, csum_offset: 16, gso: Some(gso) };
            let record = Record::new(&offload, &frame, &layout, 66);
            assert_eq!((record.0[0], record.0[1]), (NEEDS_CHECKSUM, kind));
            assert_eq!(decode(&record.0), offload);
        }
        assert_eq!(Record::new(&Offload::default(), &frame, &layout, 0), Record::NONE);
        assert_eq!(decode(&[0, 0, 1, 2, 3, 4, 5, 6, 7, 8]), Offload::default());
    }

    #[test]
    fn a_tag_goes_behind_the_addresses() {
        let mut room = [9, 9, 9, 9, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 8, 0];
        assert!(insert_tag(&mut room, [0x81, 0, 0, 5]));
        assert_eq!(room, [1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 0x81, 0, 0, 5, 8, 0]);
        assert!(!insert_tag(&mut room[..15], [0; 4]));
    }
}
