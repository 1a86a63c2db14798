//! AF_XDP sockets, each one queue of an interface, in two halves: one to receive by and one to
//! send by, which may be in the hands of two threads.
//!
//! There are two of them. [`own`] stands on the rings that the kernel shows (`ring.rs`), and its
//! frames are those of packets: nothing is copied on our side,
//! and another process can go on with them (`half.rs`). [`library`] is xsk-rs, which keeps
//! its memory to itself, so that frames are copied in and out. What both do alike is here.

pub(crate) mod half;
pub(crate) mod library;
pub(crate) mod own;
mod ring;

use std::{
    io,
    os::fd::{FromRawFd, OwnedFd, RawFd},
    thread,
    time::{Duration, Instant},
};

use super::SysError;

/// Descriptors of each ring: at 1 Mpps, a worker may be away for two milliseconds.
pub(crate) const RING_LEN: u32 = 2048;
/// Bytes of a UMEM frame that the kernel keeps in front of the packet.
pub(crate) const KERNEL_HEADROOM: u32 = 256;
/// Largest UMEM frame: a page (larger ones need multi-buffer descriptors).
pub(crate) const MAX_CHUNK: u32 = 4096;
/// Smallest.
pub(crate) const MIN_CHUNK: u32 = 2048;
/// Longest frame that is one descriptor.
pub(crate) const MAX_FRAME_LEN: u32 = MAX_CHUNK - KERNEL_HEADROOM;
/// Most frames taken from or put on a ring at a time.
pub(crate) const BURST: usize = 32;
/// Frames the kernel sends per call in copy mode (default 32); `SOL_XDP` option 9.
const TX_BUDGET: u32 = 256;
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;
/// Options of `SOL_SOCKET` for busy polling, the same on all architectures that have AF_XDP.
const SO_BUSY_POLL: libc::c_int = 46;
const SO_PREFER_BUSY_POLL: libc::c_int = 69;
const SO_BUSY_POLL_BUDGET: libc::c_int = 70;
/// How long a call may look for frames in a device that is polled.
const BUSY_POLL_MICROS: libc::c_int = 20;
/// Most calls to send what is on the ring before other work gets its turn.
const MAX_KICKS: u32 = 64;
/// How long a queue may stay busy: the kernel releases a closed socket's queue late.
pub(crate) const BIND_PATIENCE: Duration = Duration::from_secs(2);

/// How frames get between driver and socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transfer {
    /// The driver writes to our memory.
    ZeroCopy,
    /// The kernel copies; works with every driver.
    Copy,
}

/// Why a frame was not taken for sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SendError {
    /// All frames are under way.
    Full,
    /// It is longer than a packet may be.
    TooLong,
    /// It is a frame of another memory.
    Foreign,
}

/// What became of the frames on the tx ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flush {
    /// The kernel has them.
    Done,
    /// Some wait for the next flush.
    Later,
    /// The interface is down; they wait.
    Down,
    /// The interface is gone for good.
    Gone,
}

/// Opens an AF_XDP socket and closes it again.
pub(crate) fn probe(what: &str) -> Result<(), SysError> {
    // SAFETY: a plain call; its answer is checked.
    let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(SysError::last(what, "socket(AF_XDP)"));
    }
    // SAFETY: the descriptor is new and nobody else's.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    Ok(())
}

/// Does something until it works, fails with more than "busy", or the time is up.
fn patiently<T>(deadline: Instant, mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match attempt() {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(5));
            }
            result => return result,
        }
    }
}

/// Asks the kernel to send what is on a tx ring, until it has all of it, as far as it goes;
/// `reclaim` makes room on the completion ring. Answers also how many frames were lost.
fn kick(fd: RawFd, mut reclaim: impl FnMut()) -> (Flush, u64) {
    let mut n_refused = 0;
    for _ in 0..MAX_KICKS {
        // SAFETY: sends nothing from us: no buffer, no address.
        let ret = unsafe { libc::sendto(fd, std::ptr::null(), 0, libc::MSG_DONTWAIT, std::ptr::null(), 0) };
        if ret >= 0 {
            return (Flush::Done, n_refused);
        }
        match io::Error::last_os_error().raw_os_error() {
            // The budget is used up, or the completion ring is full.
            Some(libc::EAGAIN) => reclaim(),
            Some(libc::EINTR) => {}
            // One frame was taken off the ring and dropped by the device.
            Some(libc::EBUSY) => n_refused += 1,
            Some(libc::ENETDOWN) => return (Flush::Down, n_refused),
            Some(libc::ENXIO | libc::ENODEV | libc::EBADF) => return (Flush::Gone, n_refused),
            _ => return (Flush::Later, n_refused),
        }
    }
    (Flush::Later, n_refused)
}

/// Has the device looked at: what has come goes to the rx ring. For busy polling, where nobody
/// else does.
fn drive(fd: RawFd) {
    // SAFETY: receives nothing to us: no buffer, no address. What it answers is of no
    // consequence: frames are looked for on the ring.
    unsafe {
        libc::recvfrom(
            fd,
            std::ptr::null_mut(),
            0,
            libc::MSG_DONTWAIT,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        )
    };
}

/// Asks for more frames per call in copy mode, and, if told, for busy polling with so many
/// frames at a time. A kernel without one or the other goes on as it does by itself.
fn prepare(fd: RawFd, busy_poll: Option<u16>) {
    set_option(fd, libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET, TX_BUDGET as libc::c_int);
    if let Some(budget) = busy_poll {
        set_option(fd, libc::SOL_SOCKET, SO_PREFER_BUSY_POLL, 1);
        set_option(fd, libc::SOL_SOCKET, SO_BUSY_POLL, BUSY_POLL_MICROS);
        set_option(fd, libc::SOL_SOCKET, SO_BUSY_POLL_BUDGET, budget.into());
    }
}

fn set_option(fd: RawFd, level: libc::c_int, option: libc::c_int, value: libc::c_int) {
    let len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: passes four live bytes.
    unsafe { libc::setsockopt(fd, level, option, std::ptr::from_ref(&value).cast(), len) };
}
