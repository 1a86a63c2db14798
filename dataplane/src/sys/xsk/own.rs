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
    os::fd::{AsFd as _, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::Ordering::{Acquire, Release},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    super::{SysError, witness::Witness},
    Flush, RING_LEN, SendError, Transfer, drive,
    half::{CONTINUED, Found, MAX_MISSING, RxRings, TxRings},
    kick, patiently, prepare,
    ring::{Consumer, Producer},
};
use crate::pool::{Frame, Lent, Memory, Pool, Side, Slot, word};

/// A device that writes to our memory by itself may go on for a while after its socket is closed.
const DEVICE_PAUSE: Duration = Duration::from_millis(100);
/// Frames that the sending half keeps for what has none: pieces of larger packets.
const N_SPARE: usize = 2 * super::BURST;

/// How a socket is opened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    pub(crate) transfer: Transfer,
    /// Packets may take several descriptors.
    pub(crate) is_scattered: bool,
    /// The device is polled by who receives, so many frames at a time.
    pub(crate) busy_poll: Option<u16>,
}

/// The socket of both halves. Fields are dropped in this order: the file is closed, it is waited until nobody writes
/// to the frames any more, they come back, and others may have the place.
#[derive(Debug)]
struct Socket {
    fd: OwnedFd,
    end: End,
    slot: Slot,
    transfer: Transfer,
}

/// What is left when the file is closed.
#[derive(Debug)]
struct End {
    is_driven_by_device: bool,
    /// Shows whether another process has the file as well; `None`: none can have.
    witness: Option<Arc<Witness>>,
    /// What the kernel had of halves that are gone.
    left: Mutex<Vec<Lent>>,
}

impl Drop for End {
    fn drop(&mut self) {
        let is_closed = self.witness.as_ref().is_none_or(|witness| witness.is_alone());
        if is_closed && self.is_driven_by_device {
            thread::sleep(DEVICE_PAUSE);
        }
        let left = std::mem::take(&mut *self.left.lock().unwrap_or_else(PoisonError::into_inner));
        if !is_closed {
            // The kernel goes on with them, and so will another process.
            left.into_iter().for_each(Lent::leave);
        }
    }
}

impl Socket {
    fn new(fd: OwnedFd, transfer: Transfer, (slot, witness): (Slot, Option<Arc<Witness>>)) -> Arc<Self> {
        let is_driven_by_device = transfer == Transfer::ZeroCopy;
        let end = End { is_driven_by_device, witness, left: Mutex::default() };
        Arc::new(Self { fd, end, slot, transfer })
    }

    fn leave(&self, lent: Lent) {
        self.end.left.lock().unwrap_or_else(PoisonError::into_inner).push(lent);
    }

    /// Of a half that cannot be gone on with: keeps what the kernel has of it until the file is closed, and says why.
    fn give_up(&self, (why, lent): (&'static str, Lent)) -> &'static str {
        self.leave(lent);
        why
    }
}

/// Where one half of a socket stands.
#[derive(Debug)]
enum Half<Found> {
    /// It works with its rings.
    Here,
    /// Another process works with them, or did; nothing was looked at yet.
    Found(Option<Found>),
    /// Another process works with them from now on, or they cannot be worked with.
    Left,
}

impl<Rings> Half<Rings> {
    /// What the process before has left of this half, once that has stopped; from then on nobody works with it.
    /// `None`: there is nothing to be done now.
    fn claim(&mut self, memory: &Memory) -> Option<Result<Rings, &'static str>> {
        let Self::Found(found) = self else { return None };
        if !memory.is_settled() {
            return None;
        }
        let rings = found.take()?;
        *self = Self::Left;
        Some(if memory.is_given() { Err("what is noted of its frames is damaged") } else { Ok(rings) })
    }
}

/// The receiving half of one queue of an interface.
#[derive(Debug)]
pub(crate) struct OwnRx {
    socket: Arc<Socket>,
    /// Only while it works with them.
    rings: Option<RxRings>,
    half: Half<(Consumer<libc::xdp_desc>, Producer<u64>)>,
    is_driven: bool,
    /// What the kernel had dropped before, as the last process has read it.
    dropped_before: u64,
}

/// The sending half.
#[derive(Debug)]
pub(crate) struct OwnTx {
    socket: Arc<Socket>,
    rings: Option<TxRings>,
    half: Half<(Producer<libc::xdp_desc>, Consumer<u64>)>,
    memory: Memory,
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

/// The rings of a socket, mapped.
struct Rings {
    rx: Consumer<libc::xdp_desc>,
    tx: Producer<libc::xdp_desc>,
    fill: Producer<u64>,
    completed: Consumer<u64>,
}

impl Rings {
    fn map(fd: &OwnedFd) -> Result<Self, (&'static str, io::Error)> {
        let offsets = offsets(fd).map_err(|error| ("getsockopt(XDP_MMAP_OFFSETS)", error))?;
        let fill_at = libc::XDP_UMEM_PGOFF_FILL_RING as i64;
        let completed_at = libc::XDP_UMEM_PGOFF_COMPLETION_RING as i64;
        let fail = |error| ("mmap(AF_XDP)", error);
        Ok(Self {
            rx: Consumer::new(fd, libc::XDP_PGOFF_RX_RING, &offsets.rx, RING_LEN).map_err(fail)?,
            tx: Producer::new(fd, libc::XDP_PGOFF_TX_RING, &offsets.tx, RING_LEN).map_err(fail)?,
            fill: Producer::new(fd, fill_at, &offsets.fr, RING_LEN).map_err(fail)?,
            completed: Consumer::new(fd, completed_at, &offsets.cr, RING_LEN).map_err(fail)?,
        })
    }
}

/// Opens a socket for one queue. A queue that is busy may become free until `deadline`.
pub(crate) fn open(
    (interface, ifindex): (&str, u32),
    queue: u32,
    (slot, witness): (Slot, Option<Arc<Witness>>),
    manner: Manner,
    deadline: Instant,
) -> Result<(OwnRx, OwnTx), SysError> {
    let fail = |call| move |source| SysError::new(interface, call, source);
    let fd = socket().map_err(fail("socket(AF_XDP)"))?;
    register(&fd, slot.memory()).map_err(fail("setsockopt(XDP_UMEM_REG)"))?;
    let size_options =
        [libc::XDP_UMEM_FILL_RING, libc::XDP_UMEM_COMPLETION_RING, libc::XDP_RX_RING, libc::XDP_TX_RING];
    for option in size_options {
        set(&fd, option, &RING_LEN).map_err(fail("setsockopt(XDP_RING)"))?;
    }
    let Rings { rx, tx, fill, completed } =
        Rings::map(&fd).map_err(|(call, source)| SysError::new(interface, call, source))?;
    patiently(deadline, || bind(&fd, ifindex, queue, manner)).map_err(fail("bind(AF_XDP)"))?;
    prepare(fd.as_raw_fd(), manner.busy_poll);

    let (receiving, sending) = (slot.lent(Side::Receive), slot.lent(Side::Send));
    let memory = slot.memory().clone();
    let socket = Socket::new(fd, manner.transfer, (slot, witness));
    let mut receiver = OwnRx {
        socket: Arc::clone(&socket),
        rings: Some(RxRings::new(rx, fill, receiving)),
        half: Half::Here,
        is_driven: manner.busy_poll.is_some(),
        dropped_before: 0,
    };
    receiver.refill(|memory| memory.take());
    let sender = OwnTx {
        socket,
        rings: Some(TxRings::new(tx, completed, sending)),
        half: Half::Here,
        memory,
        is_scattered: manner.is_scattered,
        done: Vec::with_capacity(RING_LEN as usize),
        unsent: false,
        n_refused: 0,
    };
    Ok((receiver, sender))
}

/// A socket that another process has opened. Its rings are looked at later ([`OwnRx::take_over`]): as long as that
/// process works with them, nothing changes.
///
/// # Errors
/// It is another kind of file, or bound no more; or the kernel maps rings only before they are used (Linux before
/// 6.4).
pub(crate) fn resume(
    interface: &str,
    fd: OwnedFd,
    (slot, witness): (Slot, Option<Arc<Witness>>),
    manner: Manner,
) -> Result<(OwnRx, OwnTx), SysError> {
    let Rings { rx, tx, fill, completed } =
        Rings::map(&fd).map_err(|(call, source)| SysError::new(interface, call, source))?;
    let memory = slot.memory().clone();
    let socket = Socket::new(fd, manner.transfer, (slot, witness));
    let receiver = OwnRx {
        socket: Arc::clone(&socket),
        rings: None,
        half: Half::Found(Some((rx, fill))),
        is_driven: manner.busy_poll.is_some(),
        dropped_before: 0,
    };
    let sender = OwnTx {
        socket,
        rings: None,
        half: Half::Found(Some((tx, completed))),
        memory,
        is_scattered: manner.is_scattered,
        done: Vec::with_capacity(RING_LEN as usize),
        unsent: false,
        n_refused: 0,
    };
    Ok((receiver, sender))
}

/// What came of taking over one half.
pub(crate) type TakenOver = Result<Found, &'static str>;

impl OwnRx {
    /// For the socket map and for poll(2).
    pub(crate) fn fd(&self) -> RawFd {
        self.socket.fd.as_raw_fd()
    }

    /// The socket, for another process.
    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        self.socket.fd.as_fd()
    }

    /// Where its frames are noted.
    pub(crate) fn slot(&self) -> &Slot {
        &self.socket.slot
    }

    /// It was another process's, and was not looked at yet.
    #[inline]
    pub(crate) fn is_found(&self) -> bool {
        matches!(self.half, Half::Found(_))
    }

    /// Goes on with the rings of the process before, when that has stopped. `None`: there is nothing to be done now.
    #[cold]
    pub(crate) fn take_over(&mut self) -> Option<TakenOver> {
        let rings = self.half.claim(self.socket.slot.memory())?;
        Some(rings.and_then(|rings| self.go_on(rings)))
    }

    fn go_on(&mut self, (rx, fill): (Consumer<libc::xdp_desc>, Producer<u64>)) -> TakenOver {
        let slot = &self.socket.slot;
        let (rings, found) = RxRings::take_over(rx, fill, slot.found(Side::Receive))
            .map_err(|lost| self.socket.give_up(lost))?;
        (self.half, self.rings) = (Half::Here, Some(rings));
        self.dropped_before = slot.word(Side::Receive, word::DROPPED).load(Acquire);
        if self.socket.transfer == Transfer::Copy && found.n_missing > MAX_MISSING {
            return Err("too many of its frames are lost");
        }
        self.refill(|memory| memory.take());
        Ok(found)
    }

    /// Another process works with the rings from now on, if it has their frames.
    pub(crate) fn leave(&mut self) {
        if !self.socket.slot.memory().is_given() {
            return;
        }
        self.half = Half::Left;
        if let Some(rings) = self.rings.take() {
            rings.lent.leave();
        }
    }

    /// Hands up to `budget` pieces to `take`, in order, and gives the kernel other frames
    /// instead.
    pub(crate) fn receive(&mut self, budget: usize, pool: &mut Pool, mut take: impl FnMut(Piece, &mut Pool)) {
        let Some(rings) = &mut self.rings else { return };
        let n_taken = rings.take(budget, |desc, frame, start| {
            let (len, is_continued) = (desc.len as usize, desc.options & CONTINUED != 0);
            take(Piece { frame, start, len, is_continued }, pool);
        });
        let n_wanted = rings.n_wanted();
        if n_taken == 0 && self.is_driven {
            drive(self.fd());
        }
        // Also what could not be given back earlier.
        if n_taken > 0 || n_wanted > 0 {
            self.refill(|memory| pool.get_of(memory));
        }
    }

    /// Gives the kernel frames to receive into.
    fn refill(&mut self, free: impl FnMut(&Memory) -> Option<Frame>) {
        let Some(rings) = &mut self.rings else { return };
        if rings.refill(free) && rings.fill.needs_wakeup() {
            // A driver that has run dry wants a call; a failing one is told by poll(2).
            drive(self.fd());
        }
    }

    /// Frames that the kernel dropped because nobody took them in time, since the socket was opened, or since the
    /// process before has looked last.
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
            // They are another process's.
            _ if matches!(self.half, Half::Found(_)) => 0,
            Ok(()) => {
                let n_dropped = statistics.rx_dropped + statistics.rx_ring_full;
                if self.rings.is_some() {
                    self.socket.slot.word(Side::Receive, word::DROPPED).store(n_dropped, Release);
                }
                n_dropped.saturating_sub(self.dropped_before)
            }
            Err(_) => 0,
        }
    }
}

impl Drop for OwnRx {
    fn drop(&mut self) {
        if let Some(rings) = self.rings.take() {
            self.socket.leave(rings.lent);
        } else if matches!(self.half, Half::Found(_)) {
            self.socket.leave(self.socket.slot.found(Side::Receive));
        }
    }
}

impl OwnTx {
    /// It was another process's, and was not looked at yet.
    #[inline]
    pub(crate) fn is_found(&self) -> bool {
        matches!(self.half, Half::Found(_))
    }

    /// Goes on with the rings of the process before, when that has stopped. `None`: there is nothing to be done now.
    #[cold]
    pub(crate) fn take_over(&mut self) -> Option<TakenOver> {
        let rings = self.half.claim(self.socket.slot.memory())?;
        Some(rings.and_then(|rings| self.go_on(rings)))
    }

    fn go_on(&mut self, (tx, completed): (Producer<libc::xdp_desc>, Consumer<u64>)) -> TakenOver {
        let lent = self.socket.slot.found(Side::Send);
        let (rings, found) =
            TxRings::take_over(tx, completed, lent).map_err(|lost| self.socket.give_up(lost))?;
        (self.half, self.rings) = (Half::Here, Some(rings));
        // Nobody knows whether the kernel was asked to.
        self.unsent = found.n_waiting > 0;
        Ok(found)
    }

    /// Another process works with the rings from now on, if it has their frames. False: it has not.
    pub(crate) fn leave(&mut self) -> bool {
        if !self.memory.is_given() {
            return false;
        }
        (self.half, self.unsent) = (Half::Left, false);
        if let Some(rings) = self.rings.take() {
            rings.lent.leave();
        }
        true
    }

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
        let Some(rings) = self.rings.as_mut() else {
            return Err((frame, SendError::Full));
        };
        if !rings.tx.has_room(1) {
            return Err((frame, SendError::Full));
        }
        rings.put(frame, start, len, 0);
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
        let has_room = self.rings.as_mut().is_some_and(|rings| rings.tx.has_room(n_pieces as u32));
        if !has_room || !self.has_frames(n_pieces) {
            return Err(SendError::Full);
        }
        let mut pieces = packet.chunks(each).peekable();
        while let Some(piece) = pieces.next() {
            let Some(mut frame) = self.done.pop() else { return Err(SendError::Full) };
            frame.as_mut()[..piece.len()].copy_from_slice(piece);
            let options = if pieces.peek().is_some() { CONTINUED } else { 0 };
            if let Some(rings) = &mut self.rings {
                rings.put(frame, 0, piece.len(), options);
            }
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

    /// Frames wait for a flush.
    #[inline]
    pub(crate) fn has_unsent(&self) -> bool {
        self.unsent || self.rings.as_ref().is_some_and(|rings| rings.tx.has_untold())
    }

    /// Asks the kernel to send what waits.
    pub(crate) fn flush(&mut self) -> Flush {
        let Some(rings) = &mut self.rings else { return Flush::Done };
        self.unsent |= rings.tx.tell();
        // A driver may poll the ring by itself.
        if self.unsent && rings.tx.needs_wakeup() {
            let (fd, done) = (self.socket.fd.as_raw_fd(), &mut self.done);
            let (flush, n_refused) = kick(fd, || rings.reclaim(done));
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
        if self.rings.as_ref().is_some_and(|rings| rings.lent.len() > 0) {
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
        if let Some(rings) = &mut self.rings {
            rings.reclaim(&mut self.done);
        }
    }
}

impl Drop for OwnTx {
    fn drop(&mut self) {
        if let Some(rings) = self.rings.take() {
            self.socket.leave(rings.lent);
        } else if matches!(self.half, Half::Found(_)) {
            self.socket.leave(self.socket.slot.found(Side::Send));
        }
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
