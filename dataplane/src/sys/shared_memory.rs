//! Memory in a file without a name (memfd_create(2)), so that another process can go on with what
//! is in it.
//!
//! Its size is sealed: nobody can shorten it under those that have it mapped, who would be killed
//! by SIGBUS.

use std::{
    ffi::CStr,
    io,
    ops::Range,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr::NonNull,
    sync::atomic::{AtomicU32, AtomicU64},
    thread,
};

use flowtable::conntrack::{Bucket, Slot};

use super::{advise_huge_pages, huge_page::HUGE_PAGE};

/// Size of a page; parts begin at one.
pub(crate) const PAGE: usize = 4096;
/// A file that nobody can change the size of.
const SEALS: libc::c_int = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;

/// What may be in memory that other processes write to.
///
/// # Safety
/// Implementors are arrays of atomic integers: any bytes are a value, and all access is atomic.
pub(crate) unsafe trait Shared: Sized {}

// SAFETY: one such integer.
unsafe impl Shared for AtomicU32 {}
// SAFETY: one such integer.
unsafe impl Shared for AtomicU64 {}
// SAFETY: "plain words" by its documentation, all of them `AtomicU64`; all zero is a free one.
unsafe impl Shared for Slot {}
// SAFETY: cells and a counter, all of them `AtomicU32`; all zero is an empty one.
unsafe impl Shared for Bucket {}

/// The file, mapped for as long as the process lives.
#[derive(Debug)]
pub(crate) struct SharedMemory {
    fd: OwnedFd,
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: what is there is only reached as `Shared`.
unsafe impl Send for SharedMemory {}
// SAFETY: as above.
unsafe impl Sync for SharedMemory {}

impl SharedMemory {
    /// A new file of so many bytes, all zero. All of it is there: the kernel cannot run out of
    /// memory for it later.
    pub(crate) fn create(name: &CStr, len: usize) -> io::Result<Self> {
        Self::create_with((name, 0), len, |_| {})
    }

    /// The same, with more flags of memfd_create(2); `prepare` sees the memory before there is any.
    fn create_with(
        (name, flags): (&CStr, libc::c_uint),
        len: usize,
        prepare: impl FnOnce(Range<*const u8>),
    ) -> io::Result<Self> {
        let flags = flags | libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
        // SAFETY: passes a string that ends with a zero.
        let fd = unsafe { libc::memfd_create(name.as_ptr(), flags) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just handed out this descriptor to us alone.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let size = libc::off_t::try_from(len).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))?;
        // SAFETY: takes numbers.
        if unsafe { libc::ftruncate(fd.as_raw_fd(), size) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: takes numbers.
        if unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, SEALS) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let memory = Self::map(fd, len)?;
        let start = memory.start.as_ptr().cast_const();
        advise_huge_pages(start..start.wrapping_add(len));
        prepare(start..start.wrapping_add(len));
        // SAFETY: takes numbers.
        if unsafe { libc::fallocate(memory.fd.as_raw_fd(), 0, 0, size) } != 0 {
            let error = io::Error::last_os_error();
            drop(Mapping(memory));
            return Err(error);
        }
        Ok(memory)
    }

    /// A file of another process.
    ///
    /// # Errors
    /// Its size is another one, or can be changed.
    pub(crate) fn open(fd: OwnedFd, len: usize) -> io::Result<Self> {
        // SAFETY: takes numbers.
        let seals = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GET_SEALS) };
        if seals & (libc::F_SEAL_SHRINK | libc::F_SEAL_GROW) != libc::F_SEAL_SHRINK | libc::F_SEAL_GROW {
            return Err(io::Error::other("it is no memory file of a fixed size"));
        }
        // SAFETY: takes numbers.
        let size = unsafe { libc::lseek(fd.as_raw_fd(), 0, libc::SEEK_END) };
        if usize::try_from(size) != Ok(len) {
            return Err(io::Error::other(format!("it has {size} bytes, not {len}")));
        }
        Self::map(fd, len)
    }

    fn map(fd: OwnedFd, len: usize) -> io::Result<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping of a file, wherever the kernel likes.
        let start =
            unsafe { libc::mmap(std::ptr::null_mut(), len, access, libc::MAP_SHARED, fd.as_raw_fd(), 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::from_raw_os_error(libc::EFAULT))?;
        Ok(Self { fd, start, len })
    }

    /// The file.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// `n` values from byte `at` on. `None`: that is not in it, or between two words.
    pub(crate) fn part<T: Shared>(&self, at: usize, n: usize) -> Option<&'static [T]> {
        let end = n.checked_mul(size_of::<T>()).and_then(|len| at.checked_add(len))?;
        if end > self.len || !at.is_multiple_of(align_of::<T>()) {
            return None;
        }
        // SAFETY: inside the mapping, which is never taken away, and aligned since the mapping is at
        // a page; any bytes are such values, and whoever writes to them does so atomically.
        Some(unsafe { std::slice::from_raw_parts(self.start.as_ptr().add(at).cast(), n) })
    }

    /// Has the kernel map all of it: a page that is touched for the first time costs half a
    /// microsecond.
    pub(crate) fn populate(&self) {
        populate_from(self.start.as_ptr().expose_provenance(), self.len);
    }

    /// The same, while others go on: of memory that was used before most pages are not touched soon.
    pub(crate) fn populate_soon(&self) {
        let (start, len) = (self.start.as_ptr().expose_provenance(), self.len);
        // The mapping is never taken away. Without the thread pages are mapped as they are touched.
        let _ = thread::Builder::new().name("populate".to_owned()).spawn(move || populate_from(start, len));
    }
}

/// Such a file, mapped for as long as this value lives.
#[derive(Debug)]
pub(crate) struct Mapping(SharedMemory);

impl Mapping {
    /// A new file of at least so many bytes, all zero: of huge pages where so many are set aside (hugetlbfs(5)).
    pub(crate) fn create(name: &CStr, len: usize, prepare: impl Fn(Range<*const u8>)) -> io::Result<Self> {
        let huge =
            SharedMemory::create_with((name, libc::MFD_HUGETLB), len.next_multiple_of(HUGE_PAGE), &prepare);
        huge.or_else(|_| SharedMemory::create_with((name, 0), len.next_multiple_of(PAGE), &prepare)).map(Self)
    }

    /// A file of another process.
    ///
    /// # Errors
    /// Its size is another one, or can be changed.
    pub(crate) fn open(fd: OwnedFd, len: usize) -> io::Result<Self> {
        SharedMemory::open(fd, len).map(Self)
    }

    /// Where it is.
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.0.start
    }

    /// Its bytes.
    pub(crate) fn len(&self) -> usize {
        self.0.len
    }

    /// The file.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.0.fd()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped with this length; parts of it that live for ever are never handed out here.
        unsafe { libc::munmap(self.0.start.as_ptr().cast(), self.0.len) };
    }
}

/// Memory of this process that is written to soon, for the kernel to back it before: as addresses, which may go to
/// another thread.
pub(crate) struct Unbacked(Vec<(usize, usize)>);

impl Unbacked {
    /// These ranges.
    pub(crate) fn new(ranges: impl Iterator<Item = Range<*const u8>>) -> Self {
        let whole_pages = |range: Range<*const u8>| {
            let start = range.start.expose_provenance() / PAGE * PAGE;
            (start, range.end.addr().saturating_sub(start))
        };
        Self(ranges.map(whole_pages).collect())
    }

    /// Has the kernel back it. What is in it stays. Of what was given back meanwhile, whatever is there now is backed.
    pub(crate) fn populate(self) {
        self.0.into_iter().for_each(|(start, len)| populate_from(start, len));
    }

    /// The same by a thread of its own. Without the thread pages are mapped as they are touched.
    pub(crate) fn populate_soon(self) {
        let _ = thread::Builder::new().name("populate".to_owned()).spawn(|| self.populate());
    }
}

fn populate_from(start: usize, len: usize) {
    /// `MADV_POPULATE_WRITE`, since Linux 5.14.
    const POPULATE_WRITE: libc::c_int = 23;
    /// Others, who touch pages themselves, wait for no more than this.
    const PIECE: usize = 1 << 20;
    for at in (0..len).step_by(PIECE) {
        let piece = std::ptr::with_exposed_provenance_mut(start + at);
        // SAFETY: this advice changes nothing that is in the memory. An older kernel refuses it.
        let _ = unsafe { libc::madvise(piece, PIECE.min(len - at), POPULATE_WRITE) };
    }
}

/// The kernel's monotonic clock, in nanoseconds: the same for all processes until the next boot.
pub(crate) fn monotonic_nanos() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: fills a live structure. Every Linux has this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use std::{iter, sync::atomic::Ordering::Relaxed};

    use super::*;

    #[test]
    fn what_one_writes_another_reads() {
        let one = SharedMemory::create(c"ferroflow-test", 3 * PAGE).unwrap();
        let other = SharedMemory::open(one.fd().try_clone_to_owned().unwrap(), 3 * PAGE).unwrap();
        let (words, same) =
            (one.part::<AtomicU64>(PAGE, 8).unwrap(), other.part::<AtomicU64>(PAGE, 8).unwrap());
        assert_eq!(same[7].load(Relaxed), 0);
        words[7].store(5, Relaxed);
        other.populate();
        assert_eq!(same[7].load(Relaxed), 5);
        // Mapped for as long as the process lives, whoever had it.
        drop((one, other));
        assert_eq!(words[7].load(Relaxed), 5);
    }

    #[test]
    fn memory_keeps_what_is_in_it_and_other_memory_is_left_alone() {
        let memory: Vec<u8> = (0..100_000_u32).map(|idx| idx as u8).collect();
        Unbacked::new(iter::once(memory[5..].as_ptr_range())).populate();
        assert!(memory.iter().enumerate().all(|(idx, byte)| *byte == idx as u8));
        Unbacked::new(iter::once(std::ptr::null()..std::ptr::null())).populate();
    }

    #[test]
    fn nothing_outside_is_reached_and_no_other_file_is_taken() {
        let memory = SharedMemory::create(c"ferroflow-test", 2 * PAGE).unwrap();
        assert!(memory.part::<AtomicU64>(PAGE, PAGE / 8).is_some());
        assert!(memory.part::<AtomicU64>(PAGE, PAGE / 8 + 1).is_none());
        assert!(memory.part::<AtomicU64>(4, 1).is_none());
        assert!(memory.part::<AtomicU64>(usize::MAX - 7, 1).is_none());
        assert!(memory.part::<AtomicU64>(0, usize::MAX).is_none());
        let fd = || memory.fd().try_clone_to_owned().unwrap();
        assert!(SharedMemory::open(fd(), PAGE).is_err() && SharedMemory::open(fd(), 3 * PAGE).is_err());
        // SAFETY: takes numbers.
        assert_ne!(unsafe { libc::ftruncate(memory.fd().as_raw_fd(), 0) }, 0);
        let file = tempfile();
        assert!(SharedMemory::open(file, 2 * PAGE).is_err());
    }

    /// A file that can be shortened.
    fn tempfile() -> OwnedFd {
        // SAFETY: passes a string that ends with a zero.
        let fd = unsafe { libc::memfd_create(c"ferroflow-test".as_ptr(), libc::MFD_CLOEXEC) };
        assert!(fd >= 0);
        // SAFETY: the kernel has just handed out this descriptor to us alone.
        unsafe { OwnedFd::from_raw_fd(fd) }
    }
}
