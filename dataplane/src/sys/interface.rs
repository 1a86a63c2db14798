//! Facts about a host interface, asked by ioctl(2) and so answered for the calling
//! thread's network namespace, whatever is mounted at /sys.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use flowtable::types::MacAddr;

use super::{SysError, pod::Zeroed};

const ETHTOOL_GDRVINFO: u32 = 3;
const ETHTOOL_GLINK: u32 = 0xa;
const ETHTOOL_GCHANNELS: u32 = 0x3c;
const SIOCETHTOOL: libc::c_ulong = 0x8946;

/// An interface at the moment it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interface {
    /// The kernel's number of it.
    pub(crate) ifindex: u32,
    /// Its hardware address.
    pub(crate) mac: MacAddr,
    /// Largest L3 packet.
    pub(crate) mtu: u32,
    /// Set up, and with a carrier.
    pub(crate) running: bool,
    /// Receive queues in use.
    pub(crate) n_rx_queues: u32,
}

#[repr(C)]
#[derive(Default)]
struct Channels {
    cmd: u32,
    max: [u32; 4],
    rx_count: u32,
    tx_count: u32,
    other_count: u32,
    combined_count: u32,
}

impl Interface {
    /// Asks for an interface by name.
    pub(crate) fn lookup(name: &str) -> Result<Self, SysError> {
        let query = Query::new(name)?;
        let mut request = query.ask(libc::SIOCGIFINDEX as libc::c_ulong, "ioctl(SIOCGIFINDEX)")?;
        // SAFETY: the kernel has filled this member of the union.
        let ifindex = unsafe { request.ifr_ifru.ifru_ifindex }.cast_unsigned();
        request = query.ask(libc::SIOCGIFMTU as libc::c_ulong, "ioctl(SIOCGIFMTU)")?;
        // SAFETY: as above.
        let mtu = unsafe { request.ifr_ifru.ifru_mtu }.cast_unsigned();
        request = query.ask(libc::SIOCGIFFLAGS as libc::c_ulong, "ioctl(SIOCGIFFLAGS)")?;
        // SAFETY: as above.
        let flags = i32::from(unsafe { request.ifr_ifru.ifru_flags });
        request = query.ask(libc::SIOCGIFHWADDR as libc::c_ulong, "ioctl(SIOCGIFHWADDR)")?;
        // SAFETY: as above.
        let data = unsafe { request.ifr_ifru.ifru_hwaddr }.sa_data;
        let mac = std::array::from_fn(|idx| data[idx].cast_unsigned());
        let both = libc::IFF_UP | libc::IFF_RUNNING;
        Ok(Self {
            ifindex,
            mac: MacAddr::new(mac),
            mtu,
            running: flags & both == both,
            n_rx_queues: query.n_rx_queues(),
        })
    }
}

impl Interface {
    /// Name of an interface's driver, as `ethtool -i` shows it; empty when it does not tell.
    pub(crate) fn driver(name: &str) -> Result<String, SysError> {
        let query = Query::new(name)?;
        query.ask(libc::SIOCGIFINDEX as libc::c_ulong, "ioctl(SIOCGIFINDEX)")?;
        Ok(query.driver())
    }
}

/// Has the kernel take note of a carrier that has just come: it does so later by itself, and drops what is sent until then.
pub(super) fn settle(name: &str) -> Result<(), SysError> {
    let query = Query::new(name)?;
    // `struct ethtool_value`: the command, then the answer.
    let mut value = [ETHTOOL_GLINK, 0];
    let mut request = query.request;
    request.ifr_ifru.ifru_data = value.as_mut_ptr().cast();
    // SAFETY: both structures are live; the command fills the second word.
    let ret = unsafe { libc::ioctl(query.socket.as_raw_fd(), SIOCETHTOOL as _, &mut request) };
    if ret == 0 { Ok(()) } else { Err(SysError::last(name, "ioctl(ETHTOOL_GLINK)")) }
}

/// Sets a device of ours up, without ARP.
pub(super) fn raise(name: &str, mtu: libc::c_int) -> Result<(), SysError> {
    let mut query = Query::new(name)?;
    query.request.ifr_ifru.ifru_mtu = mtu;
    query.ask(libc::SIOCSIFMTU as libc::c_ulong, "ioctl(SIOCSIFMTU)")?;
    query.request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_NOARP) as i16;
    query.ask(libc::SIOCSIFFLAGS as libc::c_ulong, "ioctl(SIOCSIFFLAGS)").map(|_| ())
}

struct Query<'a> {
    name: &'a str,
    socket: OwnedFd,
    request: libc::ifreq,
}

impl<'a> Query<'a> {
    fn new(name: &'a str) -> Result<Self, SysError> {
        let mut request = libc::ifreq::zeroed();
        if name.is_empty() || name.len() >= request.ifr_name.len() || name.contains('\0') {
            let source = io::Error::from_raw_os_error(libc::ENODEV);
            return Err(SysError::new(name, "looking up the name", source));
        }
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from.cast_signed();
        }
        // SAFETY: has no preconditions.
        let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(SysError::last(name, "socket(AF_INET)"));
        }
        // SAFETY: the kernel has just handed out this descriptor to us alone.
        Ok(Self { name, socket: unsafe { OwnedFd::from_raw_fd(fd) }, request })
    }

    /// One of the requests that fill the union of `ifreq` with plain data, or read such from it.
    fn ask(&self, code: libc::c_ulong, call: &'static str) -> Result<libc::ifreq, SysError> {
        let mut request = self.request;
        // SAFETY: these requests read the name from and write to a live `ifreq`.
        let ret = unsafe { libc::ioctl(self.socket.as_raw_fd(), code as _, &mut request) };
        if ret == 0 { Ok(request) } else { Err(SysError::last(self.name, call)) }
    }

    fn driver(&self) -> String {
        // `struct ethtool_drvinfo`: the command, then names of 32 bytes each.
        let mut info = [0_u32; 49];
        info[0] = ETHTOOL_GDRVINFO;
        let mut request = self.request;
        request.ifr_ifru.ifru_data = info.as_mut_ptr().cast();
        // SAFETY: both structures are live; the command fills 196 bytes.
        let ret = unsafe { libc::ioctl(self.socket.as_raw_fd(), SIOCETHTOOL as _, &mut request) };
        let bytes = info[1..9].iter().flat_map(|word| word.to_ne_bytes());
        let name = bytes.take_while(|byte| *byte != 0).map(char::from);
        if ret == 0 { name.collect() } else { String::new() }
    }

    /// Receive queues; one where the driver does not tell.
    fn n_rx_queues(&self) -> u32 {
        let mut channels = Channels { cmd: ETHTOOL_GCHANNELS, ..Channels::default() };
        let mut request = self.request;
        request.ifr_ifru.ifru_data = std::ptr::from_mut(&mut channels).cast();
        // SAFETY: both structures are live; the command fills `struct ethtool_channels`,
        // which `Channels` mirrors.
        let ret = unsafe { libc::ioctl(self.socket.as_raw_fd(), SIOCETHTOOL as _, &mut request) };
        let told = channels.rx_count.saturating_add(channels.combined_count);
        if ret == 0 { told.max(1) } else { 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_known_and_nonsense_is_refused_with_its_name() {
        let lo = Interface::lookup("lo").unwrap();
        assert_eq!((lo.ifindex, lo.n_rx_queues, lo.mac), (1, 1, MacAddr::ZERO));
        for wrong in ["", "no-such-if", "a-name-that-is-too-long-for-linux", "nul\0"] {
            let error = Interface::lookup(wrong).unwrap_err();
            assert_eq!(error.errno(), Some(libc::ENODEV), "{error}");
            assert!(error.to_string().contains(&format!("interface {wrong}:")), "{error}");
        }
    }
}
