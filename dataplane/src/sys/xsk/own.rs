//! An AF_XDP socket on a memory that others use too: what is received is a frame of it, and a
//! frame of it is sent as it is, wherever the packet in it starts.
//!
//! The memory is registered by each socket on its own. That is one memory all the same, and no
//! socket's life depends on that of the first (as with `XDP_SHARED_UMEM`, which ties all to it).
//!
//! # Invariants
//! - A frame is in one place: with somebody who has its handle, or lent to the kernel: on the
//!   fill ring, then on the rx ring; or on the tx ring, then on the completion ring. Halves share
//!   no frame, so they may be in the hands of two threads.
//! - What is lent comes back to the memory when the socket is closed and not before.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use super::{
    super::SysError,
    BURST, Flush, RING_LEN, SendError, Transfer, drive, kick, patiently, prepare,
    ring::{Consumer, Producer},
};
use crate::pool::{Frame, Lent, Memory, Pool};

/// More of the packet is in the next descriptor.
const CONTINUED: u32 = libc::XDP_PKT_CONTD;
/// A device that writes to our memory by itself may go on for a while after its socket is closed.
const DEVICE_PAUSE: Duration = Duration::from_millis(100);
/// Frames that the sending half keeps for what has none: pieces of larger packets.
const N_SPARE: usize = 2 * BURST;

/// How a socket is opened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    pub(crate) transfer: Transfer,
    /// Packets may take several descriptors.
    pub(crate) is_scattered: bool,
    /// The device is polled by who receives, so many frames at a time.
    pub(crate) busy_poll: Option<u16>,
}

/// The socket of both halves.
#[derive(Debug)]
struct Socket {
    fd: OwnedFd,
    _pause: Option<Pause>,
    /// What the kernel had of halves that are gone.
    left: Mutex<Vec<Lent>>,
}

/// Waits when it is dropped.
#[derive(Debug)]
struct Pause;

impl Drop for Pause {
    fn drop(&mut self) {
        thread::sleep(DEVICE_PAUSE);
    }
}

impl Socket {
    fn leave(&self, lent: &mut Option<Lent>) {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).extend(lent.take());
    }
}

/// The receiving half of one queue of an interface.
#[derive(Debug)]
pub(crate) struct OwnRx {
    socket: Arc<Socket>,
    rx: Consumer<libc::xdp_desc>,
    fill: Producer<u64>,
    memory: Memory,
    /// Always there, until it is left behind.
    lent: Option<Lent>,
    is_driven: bool,
}

/// The sending half.
#[derive(Debug)]
pub(crate) struct OwnTx {
    socket: Arc<Socket>,
    tx: Producer<libc::xdp_desc>,
    completed: Consumer<u64>,
    memory: Memory,
    lent: Option<Lent>,
    is_scattered: bool,
    /// Sent, not yet back in the pool; some stay, for what has no frame.
    done: Vec<Frame>,
    /// The tx ring holds frames that the kernel has not been asked to send.
    unsent: bool,
    n_refused: u64,
}

/// What was received in one descriptor.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) frame: Frame,
    pub(crate) start: usize,
    pub(crate) len: usize,
    /// The packet goes on in the next piece.
    pub(crate) is_continued: bool,
}

/// Opens a socket for one queue. A queue that is busy may become free until `deadline`.
pub(crate) fn open(
    (interface, ifindex): (&str, u32),
    queue: u32,
    memory: &Memory,
    manner: Manner,
    deadline: Instant,
) -> Result<(OwnRx, OwnTx), SysError> {
    let fail = |call| move |source| SysError::new(interface, call, source);
    let fd = socket().map_err(fail("socket(AF_XDP)"))?;
    register(&fd, memory).map_err(fail("setsockopt(XDP_UMEM_REG)"))?;
    let size_options =
        [libc::XDP_UMEM_FILL_RING, libc::XDP_UMEM_COMPLETION_RING, libc::XDP_RX_RING, libc::XDP_TX_RING];
    for option in size_options {
        set(&fd, option, &RING_LEN).map_err(fail("setsockopt(XDP_RING)"))?;
    }
    let offsets = offsets(&fd).map_err(fail("getsockopt(XDP_MMAP_OFFSETS)"))?;
    let map = fail("mmap(AF_XDP)");
    let fill_at = libc::XDP_UMEM_PGOFF_FILL_RING as i64;
    let completed_at = libc::XDP_UMEM_PGOFF_COMPLETION_RING as i64;
    let rx = Consumer::new(&fd, libc::XDP_PGOFF_RX_RING, &offsets.rx, RING_LEN).map_err(map)?;
    let tx = Producer::new(&fd, libc::XDP_PGOFF_TX_RING, &offsets.tx, RING_LEN).map_err(map)?;
    let fill = Producer::new(&fd, fill_at, &offsets.fr, RING_LEN).map_err(map)?;
    let completed = Consumer::new(&fd, completed_at, &offsets.cr, RING_LEN).map_err(map)?;
    patiently(deadline, || bind(&fd, ifindex, queue, manner)).map_err(fail("bind(AF_XDP)"))?;
    prepare(fd.as_raw_fd(), manner.busy_poll);

    let pause = (manner.transfer == Transfer::ZeroCopy).then_some(Pause);
    let socket = Arc::new(Socket { fd, _pause: pause, left: Mutex::default() });
    let lent = || Some(Lent::new(memory));
    let (is_driven, memory) = (manner.busy_poll.is_some(), memory.clone());
    let mut receiver =
        OwnRx { socket: Arc::clone(&socket), rx, fill, memory: memory.clone(), lent: lent(), is_driven };
    receiver.refill(|memory| memory.take());
    let (lent, done) = (lent(), Vec::with_capacity(RING_LEN as usize));
    let is_scattered = manner.is_scattered;
    let sender =
        OwnTx { socket, tx, completed, memory, lent, is_scattered, done, unsent: false, n_refused: 0 };
    Ok((receiver, sender))
}

impl OwnRx {
    /// For the socket map and for poll(2).
    pub(crate) fn fd(&self) -> RawFd {
        self.socket.fd.as_raw_fd()
    }

    /// Hands up to `budget` pieces to `take`, in order, and gives the kernel other frames
    /// instead.
    pub(crate) fn receive(&mut self, budget: usize, pool: &mut Pool, mut take: impl FnMut(Piece, &mut Pool)) {
        let Some(lent) = &mut self.lent else { return };
        let mut n_taken = 0;
        while n_taken < budget
            && let Some(desc) = self.rx.take()
        {
            n_taken += 1;
            // What we have not lent the kernel does not give.
            let Some((frame, start)) = lent.take_back(desc.addr) else { continue };
            let (len, is_continued) = (desc.len as usize, desc.options & CONTINUED != 0);
            take(Piece { frame, start, len, is_continued }, pool);
        }
        if n_taken > 0 {
            self.rx.release();
        } else if self.is_driven {
            drive(self.fd());
        }
        // Also what could not be given back earlier.
        if n_taken > 0 || self.n_wanted() > 0 {
            self.refill(|memory| pool.get_of(memory));
        }
    }

    /// Frames that the kernel should have and has not.
    fn n_wanted(&self) -> usize {
        (RING_LEN as usize).saturating_sub(self.lent.as_ref().map_or(0, Lent::len))
    }

    /// Gives the kernel frames to receive into.
    fn refill(&mut self, mut free: impl FnMut(&Memory) -> Option<Frame>) {
        for _ in 0..self.n_wanted() {
            let Some(lent) = &mut self.lent else { return };
            if !self.fill.has_room(1) {
                break;
            }
            let Some(frame) = free(&self.memory) else { break };
            if let Ok(address) = lent.lend(frame) {
                self.fill.put(address);
            }
        }
        if self.fill.tell() && self.fill.needs_wakeup() {
            // A driver that has run dry wants a call; a failing one is told by poll(2).
            drive(self.fd());
        }
    }

    /// Frames that the kernel dropped because we were too slow, since the socket opened.
    pub(crate) fn kernel_dropped(&self) -> u64 {
        let mut statistics = libc::xdp_statistics {
            rx_dropped: 0,
            rx_invalid_descs: 0,
            tx_invalid_descs: 0,
            rx_ring_full: 0,
            rx_fill_ring_empty_descs: 0,
            tx_ring_empty_descs: 0,
        };
        match get(&self.socket.fd, libc::XDP_STATISTICS, &mut statistics) {
            Ok(()) => statistics.rx_dropped + statistics.rx_ring_full,
            Err(_) => 0,
        }
    }
}

impl Drop for OwnRx {
    fn drop(&mut self) {
        self.socket.leave(&mut self.lent);
    }
}

impl OwnTx {
    /// Takes a frame of the memory for the next flush.
    ///
    /// # Errors
    /// The frame is of another memory, or there is no room; then it is the caller's.
    #[inline]
    pub(crate) fn send_frame(
        &mut self,
        frame: Frame,
        start: usize,
        len: usize,
    ) -> Result<(), (Frame, SendError)> {
        if !self.memory.has(&frame) {
            return Err((frame, SendError::Foreign));
        }
        if !self.tx.has_room(1) {
            return Err((frame, SendError::Full));
        }
        self.put(frame, start, len, 0);
        Ok(())
    }

    /// Copies a packet for the next flush.
    ///
    /// # Errors
    /// There is no room, or it is longer than what one packet may take.
    pub(crate) fn send(&mut self, packet: &[u8]) -> Result<(), SendError> {
        let each = self.memory.frame_len();
        // In front of each piece the kernel wants nothing.
        let n_pieces = packet.len().div_ceil(each).max(1);
        if n_pieces > if self.is_scattered { MAX_PIECES } else { 1 } {
            return Err(SendError::TooLong);
        }
        if !self.tx.has_room(n_pieces as u32) || !self.has_frames(n_pieces) {
            return Err(SendError::Full);
        }
        let mut pieces = packet.chunks(each).peekable();
        while let Some(piece) = pieces.next() {
            let Some(mut frame) = self.done.pop() else { return Err(SendError::Full) };
            frame.as_mut()[..piece.len()].copy_from_slice(piece);
            let options = if pieces.peek().is_some() { CONTINUED } else { 0 };
            self.put(frame, 0, piece.len(), options);
        }
        Ok(())
    }

    /// So many frames are at hand, or have come from the memory now.
    fn has_frames(&mut self, n: usize) -> bool {
        if self.done.len() < n {
            self.reclaim();
        }
        while self.done.len() < n
            && let Some(frame) = self.memory.take()
        {
            self.done.push(frame);
        }
        self.done.len() >= n
    }

    /// Puts a frame of the memory on the ring, where there is room.
    #[inline]
    fn put(&mut self, frame: Frame, start: usize, len: usize, options: u32) {
        let Some(lent) = &mut self.lent else { return };
        if let Ok(address) = lent.lend(frame) {
            self.tx.put(libc::xdp_desc { addr: address + start as u64, len: len as u32, options });
        }
    }

    /// Frames wait for a flush.
    #[inline]
    pub(crate) fn has_unsent(&self) -> bool {
        self.unsent || self.tx.has_untold()
    }

    /// Asks the kernel to send what waits.
    pub(crate) fn flush(&mut self) -> Flush {
        self.unsent |= self.tx.tell();
        // A driver may poll the ring by itself.
        if self.unsent && self.tx.needs_wakeup() {
            let fd = self.socket.fd.as_raw_fd();
            let (flush, n_refused) = kick(fd, || self.reclaim());
            self.n_refused += n_refused;
            self.unsent = flush != Flush::Done;
            return flush;
        }
        self.unsent = false;
        Flush::Done
    }

    /// Frames that the kernel took and then did not send, since the last call.
    pub(crate) fn take_refused(&mut self) -> u64 {
        std::mem::take(&mut self.n_refused)
    }

    /// Takes back what has been sent, and gives most of it to the pool.
    #[inline]
    pub(crate) fn settle(&mut self, pool: &mut Pool) {
        if self.lent.as_ref().is_some_and(|lent| lent.len() > 0) {
            self.reclaim();
        }
        while self.done.len() > N_SPARE
            && let Some(frame) = self.done.pop()
        {
            pool.put(frame);
        }
    }

    /// Takes back what has been sent.
    fn reclaim(&mut self) {
        let Some(lent) = &mut self.lent else { return };
        let mut found = false;
        while let Some(address) = self.completed.take() {
            found = true;
            self.done.extend(lent.take_back(address).map(|(frame, _)| frame));
        }
        if found {
            self.completed.release();
        }
    }
}

impl Drop for OwnTx {
    fn drop(&mut self) {
        self.socket.leave(&mut self.lent);
    }
}

/// Most pieces of a packet: what a socket buffer of the kernel holds.
const MAX_PIECES: usize = 17;

fn socket() -> io::Result<OwnedFd> {
    // SAFETY: a plain call; its answer is checked.
    let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes the memory the socket's.
fn register(fd: &OwnedFd, memory: &Memory) -> io::Result<()> {
    let range = memory.range();
    let registration = libc::xdp_umem_reg {
        addr: range.start.addr() as u64,
        len: (range.end.addr() - range.start.addr()) as u64,
        chunk_size: memory.frame_len() as u32,
        headroom: 0,
        flags: 0,
        tx_metadata_len: 0,
    };
    set(fd, libc::XDP_UMEM_REG, &registration)
}

fn bind(fd: &OwnedFd, ifindex: u32, queue: u32, manner: Manner) -> io::Result<()> {
    let transfer = match manner.transfer {
        Transfer::ZeroCopy => libc::XDP_ZEROCOPY,
        Transfer::Copy => libc::XDP_COPY,
    };
    let scattered = if manner.is_scattered { libc::XDP_USE_SG } else { 0 };
    let address = libc::sockaddr_xdp {
        sxdp_family: libc::AF_XDP as u16,
        sxdp_flags: transfer | libc::XDP_USE_NEED_WAKEUP | scattered,
        sxdp_ifindex: ifindex,
        sxdp_queue_id: queue,
        sxdp_shared_umem_fd: 0,
    };
    let len = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the address is live and as long as told.
    let ret = unsafe { libc::bind(fd.as_raw_fd(), std::ptr::from_ref(&address).cast(), len) };
    if ret == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn offsets(fd: &OwnedFd) -> io::Result<libc::xdp_mmap_offsets> {
    const NONE: libc::xdp_ring_offset = libc::xdp_ring_offset { producer: 0, consumer: 0, desc: 0, flags: 0 };
    let mut offsets = libc::xdp_mmap_offsets { rx: NONE, tx: NONE, fr: NONE, cr: NONE };
    get(fd, libc::XDP_MMAP_OFFSETS, &mut offsets)?;
    // Kernels before 5.4 have no flags and answer less.
    if offsets.cr.desc == 0 { Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP)) } else { Ok(offsets) }
}

/// Sets an option of plain data.
fn set<T: Copy>(fd: &OwnedFd, option: libc::c_int, value: &T) -> io::Result<()> {
    let len = size_of::<T>() as libc::socklen_t;
    // SAFETY: passes a live value of the given length.
    let ret = unsafe {
        libc::setsockopt(fd.as_raw_fd(), libc::SOL_XDP, option, std::ptr::from_ref(value).cast(), len)
    };
    if ret == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Reads an option of plain data, any bytes of which are a value.
fn get<T: Copy>(fd: &OwnedFd, option: libc::c_int, value: &mut T) -> io::Result<()> {
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: fills at most that many live bytes.
    let ret = unsafe {
        libc::getsockopt(fd.as_raw_fd(), libc::SOL_XDP, option, std::ptr::from_mut(value).cast(), &mut len)
    };
    if ret == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
