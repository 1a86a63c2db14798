//! Whether others have files of ours as well: a pipe, of which one end goes with the files and this one stays. When
//! the other end is closed everywhere, so are the files that went before it.

use std::{
    io::{self, PipeReader, PipeWriter},
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    sync::{
        OnceLock,
        atomic::{
            AtomicBool,
            Ordering::{Acquire, Release},
        },
    },
};

/// How long others may take to close files that they were told to.
const PATIENCE: libc::c_int = 2_000;

/// Sees whether others have files.
#[derive(Debug)]
pub(crate) struct Witness {
    reader: OwnedFd,
    /// Others may have them.
    is_shared: AtomicBool,
    /// Others were told to close them.
    is_ended: AtomicBool,
    is_alone: OnceLock<bool>,
}

impl Witness {
    /// One, and what has to go behind the files, to be closed here then.
    pub(crate) fn new() -> io::Result<(Self, OwnedFd)> {
        let (reader, writer): (PipeReader, PipeWriter) = io::pipe()?;
        let (is_shared, is_ended) = (AtomicBool::new(false), AtomicBool::new(false));
        Ok((Self { reader: reader.into(), is_shared, is_ended, is_alone: OnceLock::new() }, writer.into()))
    }

    /// That of another process.
    pub(crate) fn of(reader: OwnedFd) -> Self {
        let (is_shared, is_ended) = (AtomicBool::new(true), AtomicBool::new(false));
        Self { reader, is_shared, is_ended, is_alone: OnceLock::new() }
    }

    /// Others get them now.
    pub(crate) fn share(&self) {
        self.is_shared.store(true, Release);
    }

    /// Our end, which the next process needs as well.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }

    /// Others have been told to close the files.
    pub(crate) fn end(&self) {
        self.is_ended.store(true, Release);
    }

    /// Nobody else has the files. Waits for that, if others were told to close them.
    pub(crate) fn is_alone(&self) -> bool {
        if !self.is_shared.load(Acquire) {
            return true;
        }
        if !self.is_ended.load(Acquire) {
            return false;
        }
        *self.is_alone.get_or_init(|| {
            let mut poll = libc::pollfd { fd: self.reader.as_raw_fd(), events: 0, revents: 0 };
            // SAFETY: passes one live structure.
            let n = unsafe { libc::poll(&mut poll, 1, PATIENCE) };
            n == 1 && poll.revents & libc::POLLHUP != 0
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn files_are_closed_when_the_last_one_has_closed_his() {
        let (witness, writer) = Witness::new().unwrap();
        let (other, third) = (writer.try_clone().unwrap(), writer.try_clone().unwrap());
        drop(writer);
        assert!(witness.is_alone(), "nobody got them");
        witness.share();
        assert!(!witness.is_alone(), "nobody was told to");
        witness.end();
        drop(other);
        let closing = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            drop(third);
        });
        assert!(witness.is_alone() && witness.is_alone());
        closing.join().unwrap();
    }

    #[test]
    fn who_does_not_close_them_has_them() {
        let (witness, writer) = Witness::new().unwrap();
        witness.share();
        witness.end();
        assert!(!witness.is_alone());
        drop(writer);
    }
}
