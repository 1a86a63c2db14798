//! Event files that others have made and passed to us (eventfd(2)): by these a guest and the
//! switch wake each other.

use std::{
    fs, io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

/// What the kernel calls them.
const LINK: &str = "anon_inode:[eventfd]";

/// An event file.
#[derive(Debug)]
pub(crate) struct EventFile {
    fd: OwnedFd,
}

impl EventFile {
    /// A file that was passed to us. Nothing but an event file is taken: of others, reading or
    /// writing could wait, and waiting for them might never end, or at once.
    ///
    /// # Errors
    /// It is another kind of file, or that cannot be found out.
    pub(crate) fn of(fd: OwnedFd) -> io::Result<Self> {
        let link = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
        if link.as_os_str() != LINK {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        // SAFETY: takes numbers; a flag that cannot be set is an error.
        let set = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
        if set < 0 { Err(io::Error::last_os_error()) } else { Ok(Self { fd }) }
    }

    /// One of our own, for who plays a guest's side.
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: has no preconditions.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just handed out this descriptor to us alone.
        Self::of(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// The same file once more, to be passed.
    pub(crate) fn passed(&self) -> io::Result<OwnedFd> {
        self.fd.try_clone()
    }

    /// Wakes whoever waits for it.
    pub(crate) fn signal(&self) {
        let one = 1_u64.to_ne_bytes();
        // SAFETY: writes eight live bytes. The only failure, a counter at its end, means that
        // whoever waits is being woken already.
        unsafe { libc::write(self.fd(), one.as_ptr().cast(), one.len()) };
    }

    /// Forgets that somebody has signalled. True: somebody had.
    pub(crate) fn clear(&self) -> bool {
        let mut count = [0_u8; 8];
        let part = libc::iovec { iov_base: count.as_mut_ptr().cast(), iov_len: count.len() };
        // SAFETY: reads at most eight bytes into a live buffer. Told by this call not to wait,
        // it does not, whatever the other side has made of the file's flags.
        unsafe { libc::preadv2(self.fd(), &part, 1, -1, libc::RWF_NOWAIT) > 0 }
    }

    /// To wait for.
    pub(crate) fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn signals_are_there_until_cleared_and_other_files_are_refused() {
        let file = EventFile::new().unwrap();
        let other = EventFile::of(file.passed().unwrap()).unwrap();
        assert!(!file.clear());
        other.signal();
        other.signal();
        assert!(file.clear() && !file.clear());
        assert!(EventFile::of(File::open("/dev/zero").unwrap().into()).is_err());
    }
}
