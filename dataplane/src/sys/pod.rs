//! The kernel's plain-old-data arguments: all-zero is a valid value of each.

use std::mem;

/// A structure for which all-zero bytes are a valid value.
///
/// # Safety
/// Implementors hold only integers, raw bytes and unions of them.
pub(super) unsafe trait Zeroed: Sized {
    /// The value of all-zero bytes.
    fn zeroed() -> Self {
        // SAFETY: the implementor promises that zero bytes are a valid value.
        unsafe { mem::zeroed() }
    }
}

// SAFETY: integers and character arrays, in unions of plain data.
unsafe impl Zeroed for libc::ifreq {}
// SAFETY: an array of integers.
unsafe impl Zeroed for libc::cpu_set_t {}
// SAFETY: integers, and structures of integers.
unsafe impl Zeroed for libc::rusage {}
// SAFETY: integers.
unsafe impl Zeroed for libc::sockaddr_ll {}
// SAFETY: integers.
unsafe impl Zeroed for libc::sockaddr_nl {}
// SAFETY: integers, a set of signals, and a handler's address as an integer.
unsafe impl Zeroed for libc::sigaction {}
// SAFETY: integers and null pointers.
unsafe impl Zeroed for libc::msghdr {}
// SAFETY: integers.
unsafe impl Zeroed for libc::statfs {}
// SAFETY: integers.
unsafe impl Zeroed for libc::stat64 {}
