//! The time stamp counter: what measuring goes by, for a read costs some 25 cycles where a
//! clock costs 60. Its frequency is not known here: who measures compares with a clock.

/// The time stamp counter now; of a machine without one, nanoseconds.
#[inline(always)]
pub fn now() -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: reads a register; user space may, on every Linux.
        unsafe { std::arch::x86_64::_rdtsc() }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        use std::{sync::LazyLock, time::Instant};
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        START.elapsed().as_nanos() as u64
    }
}

/// What two readings in a row are apart: what each reading adds to what it measures.
pub(crate) fn cost() -> u64 {
    (0..64).map(|_| now()).collect::<Vec<_>>().windows(2).map(|pair| pair[1] - pair[0]).min().unwrap_or(0)
}
