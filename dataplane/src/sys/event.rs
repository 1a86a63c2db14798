//! Sleeping and being woken: event files and ppoll(2).

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    sync::atomic::{AtomicBool, Ordering, fence},
    time::Duration,
};

/// Wakes one sleeping thread.
#[derive(Debug)]
pub(crate) struct Waker {
    fd: OwnedFd,
    sleeping: AtomicBool,
}

impl Waker {
    /// A waker for a thread that does not sleep yet.
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: has no preconditions.
        let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just handed out this descriptor to us alone.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { fd, sleeping: AtomicBool::new(false) })
    }

    /// Wakes the thread if it sleeps. Call it after the work has been made visible.
    pub(crate) fn wake(&self) {
        // Pairs with the fence of `prepare`: either we see that it sleeps, or it sees
        // the work before it does.
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::SeqCst) {
            let one = 1_u64.to_ne_bytes();
            // SAFETY: writes eight live bytes to our own descriptor. The only failure, a
            // counter at its end, means that the thread is being woken already.
            unsafe { libc::write(self.fd.as_raw_fd(), one.as_ptr().cast(), one.len()) };
        }
    }

    /// Announces sleep. The thread must look for work once more before it sleeps.
    pub(crate) fn prepare(&self) {
        self.sleeping.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// Ends an announced sleep, slept or not.
    pub(crate) fn finish(&self) {
        self.sleeping.store(false, Ordering::SeqCst);
        let mut count = [0; 8];
        // SAFETY: reads at most eight bytes into a live buffer; does not block.
        unsafe { libc::read(self.fd.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }

    /// To wait for.
    pub(crate) fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// What happened to one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// Nothing.
    Idle,
    /// There is something to read.
    Readable,
    /// It is broken and will stay so.
    Broken,
}

/// Files to wait for.
#[derive(Debug, Default)]
pub(crate) struct PollSet {
    fds: Vec<libc::pollfd>,
}

impl PollSet {
    /// Forgets all files.
    pub(crate) fn clear(&mut self) {
        self.fds.clear();
    }

    /// Adds a file, to wait until it is readable.
    pub(crate) fn add(&mut self, fd: RawFd) {
        self.fds.push(libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
    }

    /// Waits until a file is ready, a signal comes or the time is up.
    pub(crate) fn wait(&mut self, timeout: Duration) {
        let timeout = libc::timespec {
            tv_sec: timeout.as_secs().try_into().unwrap_or(libc::time_t::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        for fd in &mut self.fds {
            fd.revents = 0;
        }
        let n_fds = self.fds.len() as libc::nfds_t;
        // SAFETY: array and time are live, the array as long as said; no signals are masked. An
        // error leaves all files idle, which is an early wake-up to the caller.
        unsafe { libc::ppoll(self.fds.as_mut_ptr(), n_fds, &timeout, std::ptr::null()) };
    }

    /// What the last wait found, in the order the files were added.
    pub(crate) fn results(&self) -> impl Iterator<Item = Readiness> {
        self.fds.iter().map(|fd| {
            if fd.revents & (libc::POLLERR | libc::POLLHUP | libc::POLLNVAL) != 0 {
                Readiness::Broken
            } else if fd.revents & libc::POLLIN != 0 {
                Readiness::Readable
            } else {
                Readiness::Idle
            }
        })
    }
}

/// Many files of which few are readable: what is readable is found in one call.
#[derive(Debug)]
pub(crate) struct ReadySet {
    fd: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl ReadySet {
    /// Without files.
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: has no preconditions.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just handed out this descriptor to us alone.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { fd, events: vec![libc::epoll_event { events: 0, u64: 0 }; 64] })
    }

    /// Readable when one of the files is.
    pub(crate) fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Adds a file. False: the kernel refuses.
    pub(crate) fn add(&self, fd: RawFd) -> bool {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: fd as u64 };
        // SAFETY: reads a live structure.
        unsafe { libc::epoll_ctl(self.fd(), libc::EPOLL_CTL_ADD, fd, &mut event) == 0 }
    }

    /// Takes a file away.
    pub(crate) fn remove(&self, fd: RawFd) {
        // SAFETY: takes no structure. A file that is not there is an error and no more.
        unsafe { libc::epoll_ctl(self.fd(), libc::EPOLL_CTL_DEL, fd, std::ptr::null_mut()) };
    }

    /// The files that are readable, or broken, now.
    pub(crate) fn ready(&mut self) -> impl Iterator<Item = (RawFd, Readiness)> {
        let n_events = self.events.len() as libc::c_int;
        // SAFETY: fills in at most as many live structures as told; does not wait.
        let n = unsafe { libc::epoll_wait(self.fd.as_raw_fd(), self.events.as_mut_ptr(), n_events, 0) };
        let n = usize::try_from(n).unwrap_or(0);
        self.events.iter().take(n).map(|event| {
            let broken = event.events & (libc::EPOLLERR | libc::EPOLLHUP) as u32 != 0;
            (event.u64 as RawFd, if broken { Readiness::Broken } else { Readiness::Readable })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, thread, time::Instant};

    use super::*;

    #[test]
    fn a_set_tells_which_of_its_files_are_readable() {
        let wakers: Vec<Waker> = (0..3).map(|_| Waker::new().unwrap()).collect();
        let mut set = ReadySet::new().unwrap();
        assert!(wakers.iter().all(|waker| set.add(waker.fd())));
        assert_eq!(set.ready().count(), 0);
        for waker in &wakers[1..] {
            waker.prepare();
            waker.wake();
        }
        set.remove(wakers[2].fd());
        assert_eq!(set.ready().collect::<Vec<_>>(), [(wakers[1].fd(), Readiness::Readable)]);
        let mut sleeper = PollSet::default();
        sleeper.add(set.fd());
        sleeper.wait(Duration::from_secs(10));
        assert_eq!(sleeper.results().next(), Some(Readiness::Readable));
    }

    #[test]
    fn a_sleeper_is_woken_and_an_awake_thread_costs_no_call() {
        let waker = Arc::new(Waker::new().unwrap());
        waker.wake();
        let mut set = PollSet::default();
        set.add(waker.fd());
        set.wait(Duration::ZERO);
        assert_eq!(set.results().next(), Some(Readiness::Idle), "nobody slept");

        waker.prepare();
        let other = Arc::clone(&waker);
        let handle = thread::spawn(move || other.wake());
        let start = Instant::now();
        set.wait(Duration::from_secs(20));
        assert!(start.elapsed() < Duration::from_secs(10));
        assert_eq!(set.results().next(), Some(Readiness::Readable));
        handle.join().unwrap();
        waker.finish();
        set.wait(Duration::ZERO);
        assert_eq!(set.results().next(), Some(Readiness::Idle));
    }
}
