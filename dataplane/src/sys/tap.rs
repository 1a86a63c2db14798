//! TAP devices: interfaces whose other end is a file.

use std::{
    fs::OpenOptions,
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
};

use super::{
    SysError,
    pod::Zeroed,
    vnet::{FileKind, RECORD_LEN, VnetFile},
};

const DEVICE: &str = "/dev/net/tun";
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const TUNGETIFF: libc::c_ulong = 0x8004_54d2;
const TUNSETOFFLOAD: libc::c_ulong = 0x4004_54d0;
const TUNSETVNETHDRSZ: libc::c_ulong = 0x4004_54d8;
/// What the interface's host may leave to us: checksums; TCP over IPv4, over IPv6, with ECN.
const LEFT_TO_US: libc::c_ulong = 0x1 | 0x2 | 0x4 | 0x8;
/// UDP over IPv4 and IPv6, since Linux 6.2.
const UDP_TOO: libc::c_ulong = 0x20 | 0x40;

/// Makes a TAP device of this name in the calling thread's network namespace, or takes one
/// over that is there and that nobody holds, with up to `n_queues` queues: a file for each. One
/// that was made goes with its files. The kernel keeps a flow on one queue, the one that its
/// answers were last written to.
pub(crate) fn open(name: &str, n_queues: usize) -> Result<Vec<VnetFile>, SysError> {
    let first = match open_queue(name, n_queues > 1) {
        // One that is there has one queue or may have several, as it was made.
        Err(error) if error.errno() == Some(libc::EINVAL) && is_there(name) => {
            let is_one = n_queues > 1;
            let file = open_queue(name, !is_one).map_err(|_| error)?;
            if is_one {
                tracing::info!(interface = name, "the TAP device was made with one queue");
                return Ok(vec![file]);
            }
            file
        }
        result => result?,
    };
    let others = (1..n_queues).map(|_| open_queue(name, true));
    [Ok(first)].into_iter().chain(others).collect()
}

/// Queues of a device that another process has made, which has stayed because of them. Where it is
/// now does not matter.
///
/// # Errors
/// One is no queue of such a device.
pub(crate) fn resume(name: &str, queues: Vec<OwnedFd>) -> Result<Vec<VnetFile>, SysError> {
    let resume = |fd: OwnedFd| {
        let mut request = libc::ifreq::zeroed();
        // SAFETY: fills a live `ifreq`.
        if unsafe { libc::ioctl(fd.as_raw_fd(), TUNGETIFF as _, &mut request) } < 0 {
            return Err(SysError::last(name, "ioctl(TUNGETIFF)"));
        }
        // SAFETY: the kernel has filled this member of the union.
        let flags = i32::from(unsafe { request.ifr_ifru.ifru_flags });
        let wanted = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
        if flags & wanted != wanted {
            let source = io::Error::from_raw_os_error(libc::EINVAL);
            return Err(SysError::new(name, "ioctl(TUNGETIFF)", source));
        }
        Ok(VnetFile::new(fd, FileKind::Tap))
    };
    queues.into_iter().map(resume).collect()
}

fn is_there(name: &str) -> bool {
    super::interface::Interface::lookup(name).is_ok()
}

fn open_queue(name: &str, is_one_of_many: bool) -> Result<VnetFile, SysError> {
    let many = if is_one_of_many { libc::IFF_MULTI_QUEUE } else { 0 };
    let (fd, _) = attach(name, many)?;
    set_record_len(name, &fd, RECORD_LEN)?;
    leave(name, &fd, LEFT_TO_US | UDP_TOO).or_else(|_| leave(name, &fd, LEFT_TO_US))?;
    Ok(VnetFile::new(fd, FileKind::Tap))
}

/// Makes a device, or attaches to one that is there, and answers what it is called: `%d` in the name is a number that
/// the kernel chooses.
pub(super) fn attach(name: &str, flags: libc::c_int) -> Result<(OwnedFd, String), SysError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(DEVICE)
        .map_err(|source| SysError::new(name, "open(/dev/net/tun)", source))?;
    let fd = OwnedFd::from(file);
    let mut request = libc::ifreq::zeroed();
    if name.is_empty() || name.len() >= request.ifr_name.len() || name.contains('\0') {
        let source = io::Error::from_raw_os_error(libc::EINVAL);
        return Err(SysError::new(name, "ioctl(TUNSETIFF)", source));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | flags) as i16;
    // SAFETY: reads and writes a live `ifreq` with the name and the flags.
    if unsafe { libc::ioctl(fd.as_raw_fd(), TUNSETIFF as _, &mut request) } < 0 {
        return Err(SysError::last(name, "ioctl(TUNSETIFF)"));
    }
    let chars = request.ifr_name.iter().take_while(|char| **char != 0);
    Ok((fd, chars.map(|char| char::from(char.cast_unsigned())).collect()))
}

/// Says how long the record in front of each frame is.
pub(super) fn set_record_len(name: &str, fd: &OwnedFd, len: usize) -> Result<(), SysError> {
    let len = len as libc::c_int;
    // SAFETY: reads a live integer.
    if unsafe { libc::ioctl(fd.as_raw_fd(), TUNSETVNETHDRSZ as _, &len) } < 0 {
        return Err(SysError::last(name, "ioctl(TUNSETVNETHDRSZ)"));
    }
    Ok(())
}

/// Says what may be left undone of a frame that the host sends, and with that, of one that it is given.
pub(super) fn leave(name: &str, fd: &OwnedFd, what: libc::c_ulong) -> Result<(), SysError> {
    // SAFETY: this request takes a number.
    if unsafe { libc::ioctl(fd.as_raw_fd(), TUNSETOFFLOAD as _, what) } < 0 {
        return Err(SysError::last(name, "ioctl(TUNSETOFFLOAD)"));
    }
    Ok(())
}
