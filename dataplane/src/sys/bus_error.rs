//! Memory of others that goes away while it is mapped here.
//!
//! A guest's memory is a file that the guest's side can make shorter at any time; whoever
//! touches a page behind the new end gets SIGBUS, which ends a process. Mappings that are
//! watched over here get empty memory of our own in their place instead, the touching thread
//! goes on, and [`Watch::is_broken`] says so from then on. Seals on the file would be another
//! way, but only whoever made it can have left them possible, and many do not.
//!
//! A fault anywhere else does what it always did.

use std::{
    io, mem,
    ops::Range,
    ptr,
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{
            AtomicBool, AtomicU32, AtomicUsize,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
};

use super::pod::Zeroed;

/// Mappings that can be watched over at a time: those of 512 guests with all regions they may
/// have.
const N_SLOTS: usize = 4096;

/// One mapping. A start of zero: none.
struct Slot {
    start: AtomicUsize,
    end: AtomicUsize,
    broken: AtomicBool,
}

static SLOTS: [Slot; N_SLOTS] =
    [const { Slot { start: AtomicUsize::new(0), end: AtomicUsize::new(0), broken: AtomicBool::new(false) } };
        N_SLOTS];
/// Slots before this have been used.
static N_USED: AtomicUsize = AtomicUsize::new(0);
/// How many mappings broke so far.
static N_BROKEN: AtomicU32 = AtomicU32::new(0);
/// Held while slots are given and taken back.
static REGISTRY: Mutex<()> = Mutex::new(());
/// What there was before us.
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

/// A mapping is watched over while this lives.
#[derive(Debug)]
pub(super) struct Watch {
    idx: usize,
}

/// How many mappings of the process broke so far. As long as it stays the same, none did.
#[inline]
pub(super) fn n_broken() -> u32 {
    N_BROKEN.load(Acquire)
}

impl Watch {
    /// Watches over whole pages that are mapped, readable and writable.
    ///
    /// # Safety
    /// The addresses are a mapping of the caller's, in which no Rust object lives, and stay so
    /// as long as this does.
    ///
    /// # Errors
    /// There is no handler, or there are too many mappings.
    pub(super) unsafe fn over(memory: Range<usize>) -> io::Result<Self> {
        let _registry = REGISTRY.lock().unwrap_or_else(PoisonError::into_inner);
        install()?;
        let idx = SLOTS.iter().position(|slot| slot.start.load(Relaxed) == 0);
        let idx = idx.ok_or_else(|| io::Error::other("too many guests have their memory mapped"))?;
        let slot = &SLOTS[idx];
        slot.broken.store(false, Relaxed);
        slot.end.store(memory.end, Relaxed);
        slot.start.store(memory.start, Release);
        N_USED.fetch_max(idx + 1, Release);
        Ok(Self { idx })
    }

    /// What was mapped is gone; there is empty memory in its place.
    pub(super) fn is_broken(&self) -> bool {
        SLOTS[self.idx].broken.load(Acquire)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        SLOTS[self.idx].start.store(0, Release);
    }
}

/// Becomes the process's handler, once.
fn install() -> io::Result<()> {
    if PREVIOUS.get().is_some() {
        return Ok(());
    }
    let mut action = libc::sigaction::zeroed();
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_bus_error;
    action.sa_sigaction = handler as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
    let mut previous = libc::sigaction::zeroed();
    // SAFETY: fills in a live structure.
    if unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), &mut previous) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // Known before the first fault can come to us.
    let _ = PREVIOUS.set(previous);
    // SAFETY: the handler is async-signal-safe: it reads atomics, makes one system call, and
    // leaves errno as it was.
    if unsafe { libc::sigaction(libc::SIGBUS, &action, ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

extern "C" fn on_bus_error(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel hands the handler a filled-in structure; of SIGBUS it has an address.
    let address = unsafe { (*info).si_addr() }.addr();
    if replace(address) {
        return;
    }
    let Some(previous) = PREVIOUS.get() else { return };
    if matches!(previous.sa_sigaction, libc::SIG_DFL | libc::SIG_IGN) {
        // The instruction is tried again and ends the process, as it would have without us.
        let default = libc::sigaction::zeroed();
        // SAFETY: reads a live structure; zero bytes stand for the default.
        unsafe { libc::sigaction(signal, &default, ptr::null_mut()) };
        return;
    }
    // SAFETY: a handler of the process's own, installed with these arguments; one that wants
    // only the first of them ignores the others.
    unsafe {
        let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
            mem::transmute(previous.sa_sigaction);
        handler(signal, info, context);
    }
}

/// Puts empty memory in the place of the mapping that an address is in. False: it is in none.
fn replace(address: usize) -> bool {
    let slots = SLOTS.iter().take(N_USED.load(Acquire));
    let found = slots.map(|slot| (slot, slot.start.load(Acquire), slot.end.load(Relaxed)));
    let found = found.filter(|(_, start, _)| *start != 0);
    let Some((slot, start, end)) =
        found.into_iter().find(|(_, start, end)| (*start..*end).contains(&address))
    else {
        return false;
    };
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
    // SAFETY: always there in a thread.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let saved = unsafe { *errno };
    // SAFETY: whoever had it watched over promised that this is a mapping of his in which no
    // object lives. All of it is replaced: a part of a large page cannot be.
    let mapped = unsafe {
        let at = ptr::without_provenance_mut(start);
        libc::mmap(at, end - start, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)
    };
    // SAFETY: as above.
    unsafe { *errno = saved };
    if mapped == libc::MAP_FAILED {
        return false;
    }
    slot.broken.store(true, Release);
    N_BROKEN.fetch_add(1, Release);
    true
}
