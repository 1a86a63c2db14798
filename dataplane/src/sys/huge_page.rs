//! Large pages for large tables: a table of many megabytes in pages of 4 KiB costs a page
//! walk at nearly every access, in pages of 2 MiB hardly ever.

use std::ops::Range;

/// Size of a large page where they matter; elsewhere the advice is merely not taken.
pub(super) const HUGE_PAGE: usize = 2 << 20;

/// Asks the kernel to back memory by large pages when it is touched for the first time
/// (madvise(2), `MADV_HUGEPAGE`). Only whole large pages inside the range are affected. A
/// kernel that has none to give, or must not (`transparent_hugepage/enabled` is `never`),
/// goes on with small ones.
pub fn advise_huge_pages(memory: Range<*const u8>) {
    let start = memory.start.addr().next_multiple_of(HUGE_PAGE);
    let end = memory.end.addr() / HUGE_PAGE * HUGE_PAGE;
    if start >= end {
        return;
    }
    let at = memory.start.with_addr(start).cast_mut().cast();
    // SAFETY: this advice changes what the memory is made of, not what is in it; addresses that
    // are not mapped are an error and nothing else. What it answers is of no consequence.
    let _ = unsafe { libc::madvise(at, end - start, libc::MADV_HUGEPAGE) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_keeps_its_content() {
        let memory: Vec<u8> = (0..8 << 20).map(|idx: u32| idx as u8).collect();
        advise_huge_pages(memory.as_ptr_range());
        assert!(memory.iter().enumerate().all(|(idx, byte)| *byte == idx as u8));
    }

    #[test]
    fn small_or_odd_ranges_are_left_alone() {
        let memory = [0_u8; 100];
        advise_huge_pages(memory.as_ptr_range());
        advise_huge_pages(std::ptr::null()..std::ptr::null());
    }
}
