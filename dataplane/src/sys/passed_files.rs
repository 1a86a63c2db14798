//! Bytes from a local socket, and files that were passed with them (unix(7), `SCM_RIGHTS`).

use std::{
    io, mem,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    ptr,
};

use super::pod::Zeroed;

/// Most files that are taken with one message; the kernel keeps the rest.
pub(crate) const MAX_FILES: usize = 8;
/// Room for so many file numbers behind their header, in words.
const CONTROL_LEN: usize = 8;

/// Reads what is there, up to the length of `to`, and the files that came with its first byte.
/// Zero: the other side has closed the socket.
pub(crate) fn receive(stream: &UnixStream, to: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut control = [0_u64; CONTROL_LEN];
    let mut part = libc::iovec { iov_base: to.as_mut_ptr().cast(), iov_len: to.len() };
    let mut message = libc::msghdr::zeroed();
    message.msg_iov = &mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    // SAFETY: all that the structure points at is live and as long as it says.
    let n_read = unsafe { libc::recvmsg(stream.as_raw_fd(), &mut message, libc::MSG_CMSG_CLOEXEC) };
    let n_read = usize::try_from(n_read).map_err(|_| io::Error::last_os_error())?;
    let mut files = Vec::new();
    // SAFETY: the kernel has filled in `message`, and `control` is live.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(&message) };
    while !next.is_null() {
        // SAFETY: not null, so a whole header in `control`.
        let header = unsafe { ptr::read_unaligned(next) };
        if (header.cmsg_level, header.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            // SAFETY: takes a number.
            let header_len = unsafe { libc::CMSG_LEN(0) } as usize;
            let n_files = (header.cmsg_len as usize).saturating_sub(header_len) / mem::size_of::<i32>();
            for idx in 0..n_files {
                // SAFETY: the kernel has put so many file numbers behind the header.
                let fd = unsafe { ptr::read_unaligned(libc::CMSG_DATA(next).cast::<i32>().add(idx)) };
                // SAFETY: the kernel has just made this file ours alone.
                files.push(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
        // SAFETY: as for the first.
        next = unsafe { libc::CMSG_NXTHDR(&message, next) };
    }
    Ok((n_read, files))
}

/// Writes bytes and passes files with them.
#[cfg(test)]
pub(crate) fn send(stream: &UnixStream, bytes: &[u8], files: &[OwnedFd]) -> io::Result<()> {
    let mut control = [0_u64; CONTROL_LEN];
    let part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut message = libc::msghdr::zeroed();
    message.msg_iov = (&raw const part).cast_mut();
    message.msg_iovlen = 1;
    let len = mem::size_of_val(files) as u32;
    if !files.is_empty() {
        message.msg_control = control.as_mut_ptr().cast();
        // SAFETY: takes a number.
        message.msg_controllen = unsafe { libc::CMSG_SPACE(len) } as _;
        assert!(message.msg_controllen <= size_of_val(&control));
        // SAFETY: there is room for one header and so many numbers in `control`.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(&message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(len) as _;
            for (idx, file) in files.iter().enumerate() {
                ptr::write_unaligned(libc::CMSG_DATA(header).cast::<i32>().add(idx), file.as_raw_fd());
            }
        }
    }
    // SAFETY: all that the structure points at is live and as long as it says.
    let n_sent = unsafe { libc::sendmsg(stream.as_raw_fd(), &message, libc::MSG_NOSIGNAL) };
    let n_sent = usize::try_from(n_sent).map_err(|_| io::Error::last_os_error())?;
    assert_eq!(n_sent, bytes.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Write as _};

    use super::*;

    #[test]
    fn files_come_with_bytes() {
        let (mut near, far) = UnixStream::pair().unwrap();
        let files: Vec<OwnedFd> = (0..MAX_FILES).map(|_| File::open("/dev/null").unwrap().into()).collect();
        send(&near, b"with files", &files).unwrap();
        let mut room = [0; 10];
        let (len, received) = receive(&far, &mut room).unwrap();
        assert_eq!((len, &room, received.len()), (10, b"with files", MAX_FILES));
        near.write_all(b"without").unwrap();
        let (len, received) = receive(&far, &mut room).unwrap();
        assert_eq!((&room[..len], received.len()), (&b"without"[..], 0));
        drop(near);
        assert_eq!(receive(&far, &mut room).unwrap().0, 0);
    }
}
