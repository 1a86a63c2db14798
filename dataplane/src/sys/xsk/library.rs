//! One AF_XDP socket with memory of its own, in two halves, one to receive by and one to send by: xsk-rs
//! behind a face that is safe to use.
//!
//! Frames are copied between the socket's memory (UMEM) and the caller's buffers. xsk-rs
//! keeps the address of a descriptor to itself, so a packet whose start has moved, by
//! pushing or pulling a tunnel header, could not be sent from where it is.
//!
//! # Invariants
//! - The halves share no descriptor: the first half of the UMEM is for receiving, the other
//!   for sending. So they may be in the hands of two threads.
//! - A descriptor is in exactly one place: the fill ring, the rx ring, `unfilled`;
//!   or `free`, `staged`, the tx ring, the completion ring. So the memory behind a
//!   descriptor that we hold is touched by nobody else.
//! - Each ring has room for all descriptors that can ever be in it.

use std::{
    error::Error,
    ffi::CString,
    io,
    num::NonZeroU32,
    os::fd::{AsRawFd, RawFd},
    time::Instant,
};

use xsk_rs::{
    CompQueue, FillQueue, FrameDesc, RxQueue, Socket, TxQueue, Umem,
    config::{
        BindFlags, FrameSize, Interface, LibxdpFlags, QueueSize, SocketConfig, UmemConfig,
        XDP_UMEM_MIN_CHUNK_SIZE,
    },
};

use super::{
    super::SysError, BURST, Flush, KERNEL_HEADROOM, MAX_CHUNK, RING_LEN, SendError, Transfer, drive, kick,
    patiently, prepare,
};

/// The receiving half of one queue of an interface.
#[derive(Debug)]
pub(crate) struct XskRx {
    rx: RxQueue,
    fill: FillQueue,
    umem: Umem,
    scratch: Vec<FrameDesc>,
    /// Received and copied out, to go back to the fill ring.
    unfilled: Vec<FrameDesc>,
    /// The device is polled by who receives.
    is_driven: bool,
}

/// The sending half.
#[derive(Debug)]
pub(crate) struct XskTx {
    tx: TxQueue,
    completed: CompQueue,
    umem: Umem,
    scratch: Vec<FrameDesc>,
    /// Free to send with.
    free: Vec<FrameDesc>,
    /// Written, not yet on the tx ring.
    staged: Vec<FrameDesc>,
    /// The tx ring holds frames that the kernel has not been asked to send.
    unsent: bool,
    n_refused: u64,
}

/// Opens a socket for one queue, for frames of up to `frame_len` bytes. A queue that is busy
/// may become free until `deadline`.
pub(crate) fn open(
    interface: &str,
    queue: u32,
    frame_len: u32,
    (transfer, busy_poll): (Transfer, Option<u16>),
    deadline: Instant,
) -> Result<(XskRx, XskTx), SysError> {
    let fail = |call, source| SysError::new(interface, call, source);
    let (umem, frames) = create_umem(frame_len).map_err(|source| fail("setsockopt(XDP_UMEM_REG)", source))?;
    close_sockets_on_exec();
    let name = CString::new(interface).map_err(|source| fail("naming the interface", source.into()))?;
    let (tx, rx, rings) = bind(&umem, &Interface::new(name), queue, transfer, deadline)
        .map_err(|source| fail("bind(AF_XDP)", source))?;
    let (mut fill, completed) = rings.ok_or_else(|| {
        fail("bind(AF_XDP)", io::Error::other("the socket came without fill and completion ring"))
    })?;
    let (for_rx, for_tx) = frames.split_at(RING_LEN as usize);
    // SAFETY: the frames are of this UMEM and are given to the kernel here only.
    let n_filled = unsafe { fill.produce(for_rx) };
    let scratch = vec![FrameDesc::default(); BURST];
    let unfilled = for_rx[n_filled..].to_vec();
    let is_driven = busy_poll.is_some();
    let receiver = XskRx { rx, fill, umem: umem.clone(), scratch: scratch.clone(), unfilled, is_driven };
    let free = for_tx.to_vec();
    let staged = Vec::with_capacity(BURST);
    let sender = XskTx { tx, completed, umem, scratch, free, staged, unsent: false, n_refused: 0 };
    prepare(sender.tx.fd().as_raw_fd(), busy_poll);
    Ok((receiver, sender))
}

impl XskRx {
    /// For the socket map and for poll(2).
    pub(crate) fn fd(&self) -> RawFd {
        self.rx.fd().as_raw_fd()
    }

    /// Hands up to `budget` received frames to `take`, in order. Returns how many.
    pub(crate) fn receive(&mut self, budget: usize, mut take: impl FnMut(&[u8])) -> usize {
        let budget = budget.min(BURST);
        // SAFETY: this socket's rx ring only holds descriptors of this socket's UMEM.
        let n = unsafe { self.rx.consume(&mut self.scratch[..budget]) };
        if n == 0 && self.is_driven {
            drive(self.fd());
        }
        for desc in &self.scratch[..n] {
            // SAFETY: the descriptor came from the rx ring: the frame is ours, complete
            // and untouched until it goes back to the fill ring below.
            take(unsafe { self.umem.data(desc) }.contents());
        }
        if n > 0 || !self.unfilled.is_empty() {
            self.refill(n);
        }
        n
    }

    /// A received frame waits.
    pub(crate) fn has_received(&mut self) -> bool {
        self.rx.nb_avail(1) > 0
    }

    /// Gives the first `n` scratch frames, and those left over, back to the kernel.
    fn refill(&mut self, n: usize) {
        let received = &self.scratch[..n];
        // SAFETY: these frames of our UMEM were copied out; we drop our claim on those
        // that the ring has taken.
        let n_filled = unsafe { self.fill.produce(received) };
        self.unfilled.extend_from_slice(&received[n_filled..]);
        if n_filled == n && !self.unfilled.is_empty() {
            // SAFETY: as above.
            let n_filled = unsafe { self.fill.produce(&self.unfilled) };
            self.unfilled.drain(..n_filled);
        }
        if self.fill.needs_wakeup() {
            // A driver that has run dry wants a call; a failing one is told by poll(2).
            let _ = self.fill.wakeup(self.rx.fd_mut(), 0);
        }
    }

    /// Frames that the kernel dropped because we were too slow, since the socket opened.
    pub(crate) fn kernel_dropped(&self) -> u64 {
        self.rx.fd().xdp_statistics().map_or(0, |stats| stats.rx_dropped() + stats.rx_ring_full())
    }
}

impl XskTx {
    /// Copies a frame for the next flush.
    pub(crate) fn send(&mut self, frame: &[u8]) -> Result<(), SendError> {
        if self.free.is_empty() {
            self.reclaim();
        }
        let mut desc = self.free.pop().ok_or(SendError::Full)?;
        desc.set_options(0);
        // SAFETY: a free descriptor's frame is ours alone.
        let mut data = unsafe { self.umem.data_mut(&mut desc) };
        let mut cursor = data.cursor();
        if frame.len() > cursor.buf_len() {
            self.free.push(desc);
            return Err(SendError::TooLong);
        }
        cursor.set_pos(frame.len());
        data.contents_mut().copy_from_slice(frame);
        self.staged.push(desc);
        if self.staged.len() >= BURST {
            self.stage();
        }
        Ok(())
    }

    /// Frames wait for a flush.
    pub(crate) fn has_unsent(&self) -> bool {
        self.unsent || !self.staged.is_empty()
    }

    /// Asks the kernel to send what waits.
    pub(crate) fn flush(&mut self) -> Flush {
        self.stage();
        let result = self.kick();
        self.reclaim();
        if result == Flush::Done && !self.staged.is_empty() { Flush::Later } else { result }
    }

    /// Frames that the kernel took and then did not send, since the last call.
    pub(crate) fn take_refused(&mut self) -> u64 {
        std::mem::take(&mut self.n_refused)
    }

    /// Moves staged frames to the tx ring.
    fn stage(&mut self) {
        // SAFETY: the frames are of this UMEM, written and no longer referred to by us
        // once the ring has taken them.
        let n = unsafe { self.tx.produce(&self.staged) };
        self.staged.drain(..n);
        self.unsent |= n > 0;
    }

    /// Takes back what has been sent.
    fn reclaim(&mut self) {
        loop {
            // SAFETY: the completion ring only holds frames of our UMEM that the kernel
            // is done with.
            let n = unsafe { self.completed.consume(&mut self.scratch) };
            self.free.extend_from_slice(&self.scratch[..n]);
            if n < self.scratch.len() {
                return;
            }
        }
    }

    fn kick(&mut self) -> Flush {
        if !self.unsent {
            return Flush::Done;
        }
        if !self.tx.needs_wakeup() {
            // The driver polls the ring by itself.
            self.unsent = false;
            return Flush::Done;
        }
        let fd = self.tx.fd().as_raw_fd();
        let (flush, n_refused) = kick(fd, || self.reclaim());
        self.n_refused += n_refused;
        self.unsent = flush != Flush::Done;
        flush
    }
}

fn invalid(error: impl Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error.to_string())
}

fn create_umem(frame_len: u32) -> io::Result<(Umem, Vec<FrameDesc>)> {
    let chunk = if frame_len + KERNEL_HEADROOM <= XDP_UMEM_MIN_CHUNK_SIZE {
        XDP_UMEM_MIN_CHUNK_SIZE
    } else {
        MAX_CHUNK
    };
    let ring = QueueSize::new(RING_LEN).map_err(invalid)?;
    let config = UmemConfig::builder()
        .frame_size(FrameSize::new(chunk).map_err(invalid)?)
        .fill_queue_size(ring)
        .comp_queue_size(ring)
        .build()
        .map_err(invalid)?;
    const N_FRAMES: NonZeroU32 = NonZeroU32::new(2 * RING_LEN).expect("not zero");
    Umem::new(config, N_FRAMES, false).map_err(|error| cause(&error))
}

/// Has no AF_XDP socket outlive us in a child process, where it would keep its queue
/// busy. The library opens them inheritable and does not show a UMEM's descriptor, so all
/// of ours are looked for.
fn close_sockets_on_exec() {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return };
    for fd in entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<RawFd>().ok()) {
        let mut domain: libc::c_int = 0;
        let mut len = size_of_val(&domain) as libc::socklen_t;
        let value = std::ptr::from_mut(&mut domain).cast();
        // SAFETY: fills four live bytes; a descriptor that is closed meanwhile, or is no
        // socket, is an error and no more.
        let ret = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_DOMAIN, value, &mut len) };
        if ret == 0 && domain == libc::AF_XDP {
            // SAFETY: changes a flag of the descriptor.
            unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
}

type Queues = (TxQueue, RxQueue, Option<(FillQueue, CompQueue)>);

fn bind(
    umem: &Umem,
    interface: &Interface,
    queue: u32,
    transfer: Transfer,
    deadline: Instant,
) -> io::Result<Queues> {
    let ring = QueueSize::new(RING_LEN).map_err(invalid)?;
    let transfer = match transfer {
        Transfer::ZeroCopy => BindFlags::XDP_ZEROCOPY,
        Transfer::Copy => BindFlags::XDP_COPY,
    };
    let config = SocketConfig::builder()
        .rx_queue_size(ring)
        .tx_queue_size(ring)
        .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
        .bind_flags(transfer | BindFlags::XDP_USE_NEED_WAKEUP)
        .build();
    patiently(deadline, || {
        // SAFETY: the UMEM was made for this socket alone and is bound to one queue, so
        // no other socket shares its rings.
        unsafe { Socket::new(config, umem, interface, queue) }.map_err(|error| cause(&error))
    })
}

/// The kernel's error inside one of xsk-rs.
fn cause(error: &(dyn Error + 'static)) -> io::Error {
    let errno = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    match errno.and_then(io::Error::raw_os_error) {
        Some(errno) => io::Error::from_raw_os_error(errno),
        None => io::Error::other(error.to_string()),
    }
}
