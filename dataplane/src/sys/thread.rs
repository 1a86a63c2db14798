//! Where threads run, how much of a core they had, and how much memory they may lock.

use std::{io, time::Duration};

use super::pod::Zeroed;

/// Ties the calling thread to one core.
pub(crate) fn pin(core: usize) -> io::Result<()> {
    if core >= 8 * size_of::<libc::cpu_set_t>() {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut set = libc::cpu_set_t::zeroed();
    // SAFETY: the core's bit is inside the set, as checked above.
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: the set is live and of the given length; 0 is the calling thread.
    let ret = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set) };
    if ret == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Time that the calling thread has been running, without what others took of its core.
pub fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: fills a live structure. Every Linux has this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// How often the kernel has taken the core away from the calling thread.
pub fn n_preemptions() -> u64 {
    let mut usage = libc::rusage::zeroed();
    // SAFETY: fills a live structure.
    unsafe { libc::getrusage(libc::RUSAGE_THREAD, &mut usage) };
    usage.ru_nivcsw.unsigned_abs()
}

/// What sched_setattr(2) takes.
#[repr(C)]
#[derive(Debug, Default)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Has the calling thread run for so long at a time where others want its core, and in return as soon as it is woken;
/// `None`: for as long as others. A kernel before 6.12, and threads with a priority of their own, go on as they do.
pub(crate) fn set_slice(slice: Option<Duration>) {
    const THIS_THREAD: libc::c_int = 0;
    const NO_FLAGS: libc::c_uint = 0;
    let size = size_of::<Attributes>() as u32;
    let mut attributes = Attributes { size, ..Attributes::default() };
    let (to, size) = (&raw mut attributes, libc::c_uint::from(size));
    // SAFETY: fills in a live structure of the length told.
    let is_told = unsafe { libc::syscall(libc::SYS_sched_getattr, THIS_THREAD, to, size, NO_FLAGS) } == 0;
    if is_told && attributes.policy == libc::SCHED_OTHER as u32 {
        attributes.runtime = slice.map_or(0, |slice| slice.as_nanos() as u64);
        // SAFETY: passes a live structure that says how long it is.
        unsafe { libc::syscall(libc::SYS_sched_setattr, THIS_THREAD, &raw const attributes, NO_FLAGS) };
    }
}

/// Lets the process lock as much memory as it likes, or else as much as it may: packet
/// memory is locked by the kernel.
pub(crate) fn raise_memlock_limit() {
    let unlimited = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: passes a live structure.
    if unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &unlimited) } == 0 {
        return;
    }
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: passes live structures. Failing leaves the limit as it is; what then does
    // not fit is told by the call that locks.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit);
        }
    }
}
