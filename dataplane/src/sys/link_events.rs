//! Which interfaces have changed since somebody looked: the kernel's messages of links
//! (rtnetlink(7)). Asking for hundreds of interfaces one by one takes milliseconds, and most have
//! not changed.

use std::{
    collections::BTreeSet,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use super::pod::Zeroed;

/// Room for the messages of one call: the kernel's are not longer.
const BUF_LEN: usize = 32 * 1024;
/// Messages of one look; when more have come, everything is asked for anew.
const MAX_READS: usize = 1024;
/// `struct nlmsghdr`: length, then type.
const HEADER_LEN: usize = 16;
/// Offset of `ifi_index` in `struct ifinfomsg`, behind the header.
const IFINDEX_AT: usize = HEADER_LEN + 4;

/// Interfaces that have changed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Changed {
    /// Any may have.
    Perhaps,
    /// These, by number, and no others.
    These(BTreeSet<u32>),
}

impl Changed {
    /// An interface may have changed.
    pub(crate) fn has(&self, ifindex: u32) -> bool {
        match self {
            Self::Perhaps => true,
            Self::These(these) => these.contains(&ifindex),
        }
    }
}

/// Messages of the links of one network namespace.
#[derive(Debug)]
pub(crate) struct LinkEvents {
    /// `None`: the kernel does not tell.
    socket: Option<OwnedFd>,
}

impl LinkEvents {
    /// Listens in the calling thread's network namespace.
    pub(crate) fn open() -> Self {
        let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: has no preconditions.
        let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE) };
        if fd < 0 {
            return Self { socket: None };
        }
        // SAFETY: the kernel has just handed out this descriptor to us alone.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        let mut address = libc::sockaddr_nl::zeroed();
        address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
        address.nl_groups = libc::RTMGRP_LINK as u32;
        let len = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
        // SAFETY: the address is live and as long as is said.
        let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) };
        Self { socket: (bound == 0).then_some(socket) }
    }

    /// What has changed since the last call.
    pub(crate) fn take(&self) -> Changed {
        let Some(socket) = &self.socket else { return Changed::Perhaps };
        let (mut these, mut buf) = (BTreeSet::new(), vec![0_u8; BUF_LEN]);
        for _ in 0..MAX_READS {
            // SAFETY: the buffer is live and as long as is said.
            let n = unsafe {
                libc::recv(socket.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len(), libc::MSG_TRUNC)
            };
            let Ok(n) = usize::try_from(n) else {
                let is_empty = std::io::Error::last_os_error().kind() == std::io::ErrorKind::WouldBlock;
                // Otherwise messages were lost.
                return if is_empty { Changed::These(these) } else { Changed::Perhaps };
            };
            match buf.get(..n) {
                Some(messages) => these.extend(interfaces(messages)),
                None => return Changed::Perhaps,
            }
        }
        Changed::Perhaps
    }
}

/// The interfaces that messages are about.
fn interfaces(mut messages: &[u8]) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        loop {
            let len = u32::from_ne_bytes(*messages.first_chunk()?) as usize;
            let message = messages.get(..len).filter(|message| message.len() >= HEADER_LEN)?;
            // Messages begin at multiples of four.
            messages = messages.get(len.next_multiple_of(4)..).unwrap_or_default();
            let kind = u16::from_ne_bytes([message[4], message[5]]);
            let is_link = kind == libc::RTM_NEWLINK || kind == libc::RTM_DELLINK;
            if let Some(ifindex) =
                message.get(IFINDEX_AT..).filter(|_| is_link).and_then(|at| at.first_chunk())
            {
                return Some(u32::from_ne_bytes(*ifindex));
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, ifindex: u32, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        bytes[..4].copy_from_slice(&(len as u32).to_ne_bytes());
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        if let Some(at) = bytes.get_mut(IFINDEX_AT..IFINDEX_AT + 4) {
            at.copy_from_slice(&ifindex.to_ne_bytes());
        }
        bytes.resize(len.next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn messages_of_links_tell_whose_they_are() {
        let all = [message(16, 7, 32), message(20, 8, 36), message(17, 9, 45), message(16, 10, 18)].concat();
        assert_eq!(interfaces(&all).collect::<Vec<_>>(), [7, 9]);
        for n in 0..all.len() {
            assert!(interfaces(&all[..n]).count() <= 2);
        }
        let mut endless = all.clone();
        endless[..4].fill(0);
        assert_eq!(interfaces(&endless).count(), 0, "a message of no length ends it");
    }

    #[test]
    fn nothing_changes_by_itself() {
        let events = LinkEvents::open();
        events.take();
        assert!(matches!(events.take(), Changed::These(_)), "the kernel tells");
        let mute = LinkEvents { socket: None };
        assert!(mute.take().has(1), "what does not tell may have changed");
    }
}
