//! A filter into the kernel: the one call that no library here has with what we want of it, a line in the kernel's log
//! for each call that is refused.
#![allow(unsafe_code)]

use std::io;

use crate::filter::Step;

/// Filters the system calls of this thread and of all that it starts from now on.
///
/// # Errors
/// The kernel has no filters, or this thread has not given up new privileges.
pub(crate) fn install(program: &[Step]) -> io::Result<()> {
    let mut steps: Vec<libc::sock_filter> = program
        .iter()
        .map(|step| libc::sock_filter { code: step.code, jt: step.if_so, jf: step.if_not, k: step.operand })
        .collect();
    let len = u16::try_from(steps.len()).map_err(io::Error::other)?;
    let whole = libc::sock_fprog { len, filter: steps.as_mut_ptr() };
    // SAFETY: `whole` and the `len` instructions that it points to live until the call returns; the kernel copies
    // both, checks them, and writes to neither. No memory of the process is changed.
    let done = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_LOG,
            &raw const whole,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
