//! Packet sockets (packet(7)): all frames of an interface, large ones uncut.
//!
//! What is sent takes the way of the host's own packets. The shorter one (`PACKET_QDISC_BYPASS`)
//! drops large packets that the interface cannot cut, as that of a peer with an XDP program.

use std::{
    io,
    net::{IpAddr, UdpSocket},
    os::fd::{AsFd as _, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use super::{
    SysError, interface,
    pod::Zeroed as _,
    steer,
    vnet::{FileKind, VnetFile},
};
use crate::config::TunnelSteering;

const PACKET_AUXDATA: libc::c_int = 8;
const PACKET_VNET_HDR: libc::c_int = 15;
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;
const UDP_GRO: libc::c_int = 104;
/// Of a classic filter.
const RETURN: u16 = 0x06;
/// Memory for frames that wait for us, and for those that wait for the interface: some
/// hundred large ones. By default there is room for three.
const QUEUE_BYTES: libc::c_int = 16 << 20;

/// Opens a socket for an interface, for all that comes in or what is tunnelled to an address.
/// It receives from then on.
pub(crate) fn open(name: &str, ifindex: u32, tunnel: Option<&TunnelSteering>) -> Result<VnetFile, SysError> {
    // Protocol 0: nothing comes before it is bound.
    // SAFETY: has no preconditions.
    let fd = unsafe {
        libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0)
    };
    if fd < 0 {
        return Err(SysError::last(name, "socket(AF_PACKET)"));
    }
    // SAFETY: the kernel has just handed out this descriptor to us alone.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    for (option, call) in [
        (PACKET_VNET_HDR, "setsockopt(PACKET_VNET_HDR)"),
        (PACKET_AUXDATA, "setsockopt(PACKET_AUXDATA)"),
        (PACKET_IGNORE_OUTGOING, "setsockopt(PACKET_IGNORE_OUTGOING)"),
    ] {
        set(&fd, libc::SOL_PACKET, option, 1).map_err(|source| SysError::new(name, call, source))?;
    }
    for (forced, option) in [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)]
    {
        // The first wants a capability of the host's; the second is bounded by a sysctl.
        if set(&fd, libc::SOL_SOCKET, forced, QUEUE_BYTES).is_err() {
            let _ = set(&fd, libc::SOL_SOCKET, option, QUEUE_BYTES);
        }
    }
    if let Some(tunnel) = tunnel {
        filter(&fd, &mut steer::socket_filter(tunnel))
            .map_err(|source| SysError::new(name, "setsockopt(SO_ATTACH_FILTER)", source))?;
    }
    bind(&fd, ifindex).map_err(|source| SysError::new(name, "bind(AF_PACKET)", source))?;
    // Otherwise the first answer to a container that has just come may be lost.
    if let Err(error) = interface::settle(name) {
        tracing::debug!(interface = name, %error, "the interface may drop packets for a moment");
    }
    Ok(VnetFile::new(fd, FileKind::Socket))
}

/// A socket that another process has opened for this interface, and that goes on receiving.
///
/// # Errors
/// It is another kind of file, or for another interface.
pub(crate) fn resume(name: &str, ifindex: u32, fd: OwnedFd) -> Result<VnetFile, SysError> {
    let mut address = libc::sockaddr_ll::zeroed();
    let mut len = size_of_val(&address) as libc::socklen_t;
    // SAFETY: passes a live structure and its length.
    let ret = unsafe { libc::getsockname(fd.as_raw_fd(), (&raw mut address).cast(), &mut len) };
    if ret != 0 {
        return Err(SysError::last(name, "getsockname(AF_PACKET)"));
    }
    let is_packet = i32::from(address.sll_family) == libc::AF_PACKET;
    if !is_packet || address.sll_ifindex != ifindex.cast_signed() {
        let source = io::Error::from_raw_os_error(libc::ENOTSOCK);
        return Err(SysError::new(name, "getsockname(AF_PACKET)", source));
    }
    Ok(VnetFile::new(fd, FileKind::Socket))
}

fn filter(fd: &OwnedFd, program: &mut [libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    let len = size_of_val(&program) as libc::socklen_t;
    let value = std::ptr::from_ref(&program).cast();
    // SAFETY: passes a live structure that points at as many live instructions as it says.
    let ret =
        unsafe { libc::setsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, value, len) };
    if ret == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What of the host is a tunnel's. The sockets take nothing; they keep the host from
/// answering that nobody is there, keep others from these UDP ports, and have the kernel put
/// datagrams that belong together into one packet.
#[derive(Debug)]
pub(crate) struct Reserved {
    sockets: Vec<OwnedFd>,
}

impl Reserved {
    /// Those that another process has reserved.
    pub(crate) fn of(sockets: Vec<OwnedFd>) -> Self {
        Self { sockets }
    }

    /// Their files.
    pub(crate) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sockets.iter().map(OwnedFd::as_fd)
    }
}

/// Reserves what is a tunnel's.
pub(crate) fn reserve(name: &str, tunnel: &TunnelSteering) -> Result<Reserved, SysError> {
    let TunnelSteering { local, udp_ports, gre } = tunnel;
    let reserve = |port: &u16| {
        let socket =
            UdpSocket::bind((*local, *port)).map_err(|source| SysError::new(name, "bind(tunnel)", source))?;
        let fd = OwnedFd::from(socket);
        take_nothing(name, &fd)?;
        // A kernel without it delivers them one by one.
        let _ = set(&fd, libc::SOL_UDP, UDP_GRO, 1);
        Ok(fd)
    };
    let mut sockets = udp_ports.iter().map(reserve).collect::<Result<Vec<_>, _>>()?;
    if *gre {
        sockets.push(raw(name, *local)?);
    }
    Ok(Reserved { sockets })
}

/// A socket of GRE's number (raw(7)).
fn raw(name: &str, local: IpAddr) -> Result<OwnedFd, SysError> {
    let family = if local.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: has no preconditions.
    let fd = unsafe { libc::socket(family, kind, libc::IPPROTO_GRE) };
    if fd < 0 {
        return Err(SysError::last(name, "socket(IPPROTO_GRE)"));
    }
    // SAFETY: the kernel has just handed out this descriptor to us alone.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    take_nothing(name, &fd).map(|()| fd)
}

fn take_nothing(name: &str, fd: &OwnedFd) -> Result<(), SysError> {
    filter(fd, &mut [libc::sock_filter { code: RETURN, jt: 0, jf: 0, k: 0 }])
        .map_err(|source| SysError::new(name, "setsockopt(SO_ATTACH_FILTER)", source))
}

fn set(fd: &OwnedFd, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: passes a live integer.
    let ret =
        unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, std::ptr::from_ref(&value).cast(), len) };
    if ret == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn bind(fd: &OwnedFd, ifindex: u32) -> io::Result<()> {
    let mut address = libc::sockaddr_ll::zeroed();
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = ifindex.cast_signed();
    let len = size_of_val(&address) as libc::socklen_t;
    // SAFETY: passes a live structure of the length told.
    let ret = unsafe { libc::bind(fd.as_raw_fd(), std::ptr::from_ref(&address).cast(), len) };
    if ret == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
