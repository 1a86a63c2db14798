//! The memory of a guest, mapped here: regions of files that its side has passed to us.
//!
//! Another process writes to this memory at any time, so there is never a reference into it:
//! bytes are copied out and in, and what is decided about is decided about copies. An address
//! that a guest names is looked up anew for each copy; what is not wholly inside regions is
//! not copied at all.
//!
//! Only memory files are taken (memfd, tmpfs, large pages): a page of another file system could
//! take for ever to come, and the worker that touches it with it. What happens when a file is
//! made shorter is told in [`super::bus_error`].

use std::{
    io,
    ops::Range,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    ptr::{self, NonNull},
};

use super::{
    bus_error::{self, Watch},
    pod::Zeroed,
};

/// Most bytes of a guest. Addresses of ours are not for one guest to use up.
const MAX_LEN: u64 = 1 << 40;
const TMPFS_MAGIC: u64 = 0x0102_1994;
const HUGETLBFS_MAGIC: u64 = 0x9584_58f6;

/// Why a guest's memory cannot be mapped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MapError {
    /// A region without bytes, or around the end of the addresses.
    #[error("a memory region of no possible size")]
    BadRange,
    /// Two regions have addresses in common.
    #[error("memory regions that overlap")]
    Overlap,
    /// The regions together are too large.
    #[error("more than {} GiB of memory", MAX_LEN >> 30)]
    TooLarge,
    /// The file has less than the region says.
    #[error("a memory region longer than its file")]
    BeyondFile,
    /// Not a memory file.
    #[error("a memory region whose file is not in memory: memfd, tmpfs and hugetlbfs are")]
    NotMemory,
    /// The kernel refused.
    #[error("a memory region that cannot be mapped: {0}")]
    System(#[from] io::Error),
}

/// A region, as the guest's side describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RegionSpec {
    /// Where the guest has it.
    pub(crate) guest_addr: u64,
    /// Its bytes.
    pub(crate) len: u64,
    /// Where the guest's side has it.
    pub(crate) user_addr: u64,
    /// Where it begins in its file.
    pub(crate) offset: u64,
}

/// A guest's memory.
#[derive(Debug)]
pub(crate) struct GuestMemory {
    regions: Vec<Region>,
    /// Mappings of the process that had broken when these were made.
    n_broken: u32,
}

#[derive(Debug)]
struct Region {
    guest: Range<u64>,
    user: Range<u64>,
    /// Its first byte.
    data: NonNull<u8>,
    mapping: Mapping,
}

#[derive(Debug)]
struct Mapping {
    base: NonNull<u8>,
    len: usize,
    /// Ended before the mapping is.
    watch: Option<Watch>,
}

// SAFETY: the memory is reached by copies of bytes and by atomic accesses only.
unsafe impl Send for GuestMemory {}
// SAFETY: as above; the guest writes to it at the same time anyway.
unsafe impl Sync for GuestMemory {}

impl GuestMemory {
    /// Maps regions, each of its file.
    ///
    /// # Errors
    /// What is wrong with one of them; then none is mapped.
    pub(crate) fn map(regions: Vec<(RegionSpec, OwnedFd)>) -> Result<Self, MapError> {
        let n_broken = bus_error::n_broken();
        let total = regions.iter().try_fold(0_u64, |sum, (spec, _)| sum.checked_add(spec.len));
        total.filter(|total| *total <= MAX_LEN).ok_or(MapError::TooLarge)?;
        let mut mapped: Vec<Region> = Vec::with_capacity(regions.len());
        for (spec, file) in regions {
            let range = |start: u64| start.checked_add(spec.len).map(|end| start..end);
            let (Some(guest), Some(user)) = (range(spec.guest_addr), range(spec.user_addr)) else {
                return Err(MapError::BadRange);
            };
            if spec.len == 0 {
                return Err(MapError::BadRange);
            }
            let meets = |a: &Range<u64>, b: &Range<u64>| a.start < b.end && b.start < a.end;
            if mapped.iter().any(|known| meets(&known.guest, &guest) || meets(&known.user, &user)) {
                return Err(MapError::Overlap);
            }
            let mapping = Mapping::of(&file, spec.offset, spec.len)?;
            // SAFETY: the mapping is at least as long as the offset and the region's length.
            let data = unsafe { mapping.base.add(spec.offset as usize) };
            mapped.push(Region { guest, user, data, mapping });
        }
        Ok(Self { regions: mapped, n_broken })
    }

    /// A part of it has been taken away from under us; it reads as zeros.
    #[inline]
    pub(crate) fn is_broken(&self) -> bool {
        bus_error::n_broken() != self.n_broken && self.has_broken()
    }

    #[cold]
    fn has_broken(&self) -> bool {
        self.regions.iter().any(|region| region.mapping.watch.as_ref().is_some_and(Watch::is_broken))
    }

    /// The bytes from an address of the guest on, as far as its region goes.
    #[inline]
    fn at(&self, addr: u64) -> Option<(NonNull<u8>, usize)> {
        let region = self.regions.iter().find(|region| region.guest.contains(&addr))?;
        // SAFETY: the address is inside the region.
        let data = unsafe { region.data.add((addr - region.guest.start) as usize) };
        Some((data, (region.guest.end - addr) as usize))
    }

    /// There is memory of the guest at this address.
    #[inline]
    pub(crate) fn has(&self, addr: u64) -> bool {
        self.at(addr).is_some()
    }

    /// Copies what is at an address of the guest. False: not all of it is memory of his, and
    /// what has been copied means nothing.
    #[inline]
    #[must_use]
    pub(crate) fn read(&self, mut addr: u64, mut to: &mut [u8]) -> bool {
        while !to.is_empty() {
            let Some((from, room)) = self.at(addr) else { return false };
            let len = to.len().min(room);
            let (part, rest) = std::mem::take(&mut to).split_at_mut(len);
            // SAFETY: `len` bytes from there on are mapped, and memory of ours is elsewhere. That
            // the guest may write at the same time gives us bytes of both, as a wire would.
            unsafe { ptr::copy_nonoverlapping(from.as_ptr(), part.as_mut_ptr(), len) };
            (to, addr) = (rest, addr.wrapping_add(len as u64));
        }
        true
    }

    /// Copies something to an address of the guest. False: not all of that is memory of his;
    /// some may have been written.
    #[inline]
    #[must_use]
    pub(crate) fn write(&self, mut addr: u64, mut from: &[u8]) -> bool {
        while !from.is_empty() {
            let Some((to, room)) = self.at(addr) else { return false };
            let (part, rest) = from.split_at(from.len().min(room));
            // SAFETY: so many bytes from there on are mapped and writable, and memory of ours is
            // elsewhere.
            unsafe { ptr::copy_nonoverlapping(part.as_ptr(), to.as_ptr(), part.len()) };
            (from, addr) = (rest, addr.wrapping_add(part.len() as u64));
        }
        true
    }

    /// Writes ten or twelve bytes to an address of the guest, which are mostly there already. Where they are, nothing
    /// is written: a line of memory that is only read stays with all cores that have it. False: nothing
    /// was done, since they are not in one region of his, or of another length.
    #[inline]
    #[must_use]
    pub(crate) fn update(&self, addr: u64, (first, last): (u64, u32), len: usize) -> bool {
        let Some((to, room)) = self.at(addr) else { return false };
        if len > room || len != 10 && len != 12 {
            return false;
        }
        // SAFETY: so many bytes from there on are mapped and writable; see above of who else writes.
        unsafe {
            let to = to.as_ptr();
            if to.cast::<u64>().read_unaligned() != first {
                to.cast::<u64>().write_unaligned(first);
            }
            let to = to.add(size_of::<u64>());
            if len == 10 && to.cast::<u16>().read_unaligned() != last as u16 {
                to.cast::<u16>().write_unaligned(last as u16);
            } else if len == 12 && to.cast::<u32>().read_unaligned() != last {
                to.cast::<u32>().write_unaligned(last);
            }
        }
        true
    }

    /// Says that an address of the guest is read soon, with what is up to `len` bytes behind it.
    #[inline]
    pub(crate) fn prefetch(&self, addr: u64, len: usize) {
        if let Some((data, _)) = self.at(addr) {
            prefetch(data.as_ptr());
            prefetch(data.as_ptr().wrapping_add(len));
        }
    }

    /// The same of what is written soon: its line comes without a copy being left with others.
    #[inline]
    pub(crate) fn prefetch_to_write(&self, addr: u64, len: usize) {
        if let Some((data, _)) = self.at(addr) {
            prefetch_to_write(data.as_ptr());
            prefetch_to_write(data.as_ptr().wrapping_add(len));
        }
    }

    /// Where `len` bytes at an address of the guest's side are here.
    pub(super) fn user(&self, addr: u64, len: usize) -> Option<NonNull<u8>> {
        let region = self.regions.iter().find(|region| region.user.contains(&addr))?;
        let offset = addr - region.user.start;
        let fits = (len as u64) <= region.user.end - addr;
        // SAFETY: the address is inside the region.
        fits.then(|| unsafe { region.data.add(offset as usize) })
    }
}

/// Brings a cache line near.
#[inline]
pub(super) fn prefetch(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint about an address, which needs not even be mapped.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Brings a cache line near, for oneself.
#[inline]
fn prefetch_to_write(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint about an address, which needs not even be mapped; processors that do not know it do nothing.
    unsafe {
        std::arch::asm!("prefetchw [{}]", in(reg) at, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

impl Mapping {
    /// Maps a file from its beginning to the end of a region: only at its beginning may a file
    /// of large pages be mapped whatever the offset is.
    fn of(file: &OwnedFd, offset: u64, len: u64) -> Result<Self, MapError> {
        let page_len = page_len(file)?;
        let end = offset.checked_add(len).ok_or(MapError::BadRange)?;
        if end > MAX_LEN {
            return Err(MapError::TooLarge);
        }
        if end > file_len(file)?.ok_or(MapError::NotMemory)? {
            return Err(MapError::BeyondFile);
        }
        let len = end.next_multiple_of(page_len) as usize;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at a place of the kernel's choice.
        let base = unsafe { libc::mmap(ptr::null_mut(), len, access, flags, file.as_raw_fd(), 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error().into());
        }
        let base = NonNull::new(base.cast::<u8>()).ok_or(MapError::BadRange)?;
        let mut mapping = Self { base, len, watch: None };
        // SAFETY: the advice changes nothing but what a core dump holds.
        unsafe { libc::madvise(base.as_ptr().cast(), len, libc::MADV_DONTDUMP) };
        let start = base.as_ptr().addr();
        // SAFETY: the mapping is new, nobody else has it, and it outlives its watch.
        mapping.watch = Some(unsafe { Watch::over(start..start + len) }?);
        Ok(mapping)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // First: afterwards the addresses may be somebody else's.
        self.watch = None;
        // SAFETY: mapped by us with this length; nothing points into it any more.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// Length of the pages of a memory file.
fn page_len(file: &OwnedFd) -> Result<u64, MapError> {
    let mut facts = libc::statfs::zeroed();
    // SAFETY: fills in a live structure.
    if unsafe { libc::fstatfs(file.as_raw_fd(), &mut facts) } != 0 {
        return Err(io::Error::last_os_error().into());
    }
    let page_len = u64::try_from(facts.f_bsize).unwrap_or(0);
    match facts.f_type as u64 & u64::from(u32::MAX) {
        TMPFS_MAGIC | HUGETLBFS_MAGIC if page_len.is_power_of_two() => Ok(page_len.max(4096)),
        _ => Err(MapError::NotMemory),
    }
}

/// Length of a file; `None`: it is a device, or another thing that is there as a file.
fn file_len(file: &OwnedFd) -> Result<Option<u64>, MapError> {
    let mut facts = libc::stat64::zeroed();
    // SAFETY: fills in a live structure.
    if unsafe { libc::fstat64(file.as_raw_fd(), &mut facts) } != 0 {
        return Err(io::Error::last_os_error().into());
    }
    let is_regular = facts.st_mode & libc::S_IFMT == libc::S_IFREG;
    Ok(is_regular.then(|| u64::try_from(facts.st_size).unwrap_or(0)))
}

/// A memory file of ours, for who plays a guest's side.
pub(crate) fn memory_file(len: u64) -> io::Result<OwnedFd> {
    // SAFETY: reads a live string.
    let fd = unsafe { libc::memfd_create(c"guest".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just handed out this descriptor to us alone.
    let file = std::fs::File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    file.set_len(len)?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use std::{fs::File, sync::Arc, thread};

    use super::*;

    const PAGE: u64 = 4096;

    fn spec(guest_addr: u64, len: u64, offset: u64) -> RegionSpec {
        RegionSpec { guest_addr, len, user_addr: guest_addr.wrapping_add(1 << 32), offset }
    }

    #[test]
    fn copies_cross_regions_and_stop_at_the_end() {
        let (a, b) = (memory_file(2 * PAGE).unwrap(), memory_file(PAGE).unwrap());
        let regions = vec![(spec(PAGE, PAGE, PAGE), a), (spec(2 * PAGE, PAGE, 0), b)];
        let memory = GuestMemory::map(regions).unwrap();
        let bytes: Vec<u8> = (0..200).collect();
        assert!(memory.write(2 * PAGE - 100, &bytes));
        let mut back = vec![0; 200];
        assert!(memory.read(2 * PAGE - 100, &mut back));
        assert_eq!(back, bytes);
        assert!(memory.write(3 * PAGE - 200, &bytes) && memory.read(3 * PAGE - 200, &mut back));
        for addr in [0, PAGE - 1, 3 * PAGE - 199, 3 * PAGE, u64::MAX, u64::MAX - 100] {
            assert!(!memory.read(addr, &mut back) && !memory.write(addr, &bytes), "{addr}");
        }
        assert!(memory.user((1 << 32) + PAGE, 4096).is_some());
        assert!(memory.user((1 << 32) + PAGE, 4097).is_none());
        assert!(memory.user(PAGE, 1).is_none());
    }

    #[test]
    fn impossible_regions_are_refused() {
        let map = |specs: &[RegionSpec]| {
            GuestMemory::map(specs.iter().map(|spec| (*spec, memory_file(4 * PAGE).unwrap())).collect())
        };
        assert!(map(&[spec(0, 4 * PAGE, 0)]).is_ok());
        assert!(matches!(map(&[spec(0, 0, 0)]), Err(MapError::BadRange)));
        assert!(matches!(map(&[spec(u64::MAX - PAGE, 2 * PAGE, 0)]), Err(MapError::BadRange)));
        assert!(matches!(map(&[spec(0, PAGE, u64::MAX)]), Err(MapError::BadRange)));
        assert!(matches!(map(&[spec(0, PAGE, 4 * PAGE)]), Err(MapError::BeyondFile)));
        assert!(matches!(map(&[spec(0, 5 * PAGE, 0)]), Err(MapError::BeyondFile)));
        assert!(matches!(map(&[spec(0, MAX_LEN + 1, 0)]), Err(MapError::TooLarge)));
        assert!(matches!(map(&[spec(0, u64::MAX, 0), spec(0, 2, 0)]), Err(MapError::TooLarge)));
        assert!(matches!(map(&[spec(0, PAGE, 0), spec(PAGE - 1, PAGE, 0)]), Err(MapError::Overlap)));
        let other = OwnedFd::from(File::open("/dev/zero").unwrap());
        assert!(matches!(GuestMemory::map(vec![(spec(0, PAGE, 0), other)]), Err(MapError::NotMemory)));
    }

    #[test]
    fn memory_taken_away_breaks_itself_and_nothing_else() {
        let (file, kept) = (memory_file(4 * PAGE).unwrap(), memory_file(PAGE).unwrap());
        let again = File::from(file.try_clone().unwrap());
        let memory = Arc::new(GuestMemory::map(vec![(spec(0, 4 * PAGE, 0), file)]).unwrap());
        let other = GuestMemory::map(vec![(spec(0, PAGE, 0), kept)]).unwrap();
        assert!(memory.write(3 * PAGE, &[7; 100]) && other.write(0, &[9; 100]));
        again.set_len(PAGE).unwrap();
        let mut back = [1; 100];
        let reader = Arc::clone(&memory);
        let read = thread::spawn(move || {
            let mut back = [1; 100];
            (reader.read(3 * PAGE, &mut back), back)
        });
        assert_eq!(read.join().unwrap(), (true, [0; 100]));
        assert!(memory.is_broken() && !other.is_broken());
        assert!(memory.write(2 * PAGE, &[5; 100]) && memory.read(2 * PAGE, &mut back));
        assert_eq!(back, [5; 100]);
        drop(memory);
        assert!(other.read(0, &mut back) && back == [9; 100]);
    }
}
