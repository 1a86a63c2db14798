//! bpf(2): the socket map, the steering program, the link that ties it to an interface.
//!
//! A link and not a netlink attachment, because a link ends with the processes that hold
//! it: killed however, nothing stays attached to the interface.

use std::{
    ffi::CStr,
    io, mem,
    os::fd::{AsFd as _, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use super::{SysError, asm::Insn, steer};
use crate::config::TunnelSteering;

const CMD_MAP_CREATE: libc::c_long = 0;
const CMD_MAP_UPDATE: libc::c_long = 2;
const CMD_PROG_LOAD: libc::c_long = 5;
const CMD_LINK_CREATE: libc::c_long = 28;
const MAP_TYPE_PROG_ARRAY: u32 = 3;
const MAP_TYPE_XSKMAP: u32 = 17;
const PROG_TYPE_SCHED_CLS: u32 = 3;
const PROG_TYPE_XDP: u32 = 6;
const ATTACH_TYPE_XDP: u32 = 37;
const ATTACH_TYPE_TCX_INGRESS: u32 = 46;
const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
const XDP_HAS_FRAGS: u32 = 1 << 5;
const LICENSE: &CStr = c"Apache-2.0";
const VERIFIER_LOG_LEN: usize = 64 * 1024;

#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    map_name: [u8; 16],
}

#[repr(C)]
struct MapUpdate {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

// None of these has padding: the kernel refuses arguments with stray bytes in the end.
const _: () = assert!(size_of::<MapCreate>() == 44 && size_of::<MapUpdate>() == 32);
const _: () = assert!(size_of::<ProgLoad>() == 72 && size_of::<LinkCreate>() == 16);

/// Calls bpf(2). The pointers inside `attr` must outlive the call.
///
/// # Safety
/// `A` is the layout of the command's part of `union bpf_attr`, and each pointer in it
/// is valid for what the command reads or writes.
unsafe fn bpf<A>(command: libc::c_long, attr: &mut A) -> io::Result<i32> {
    let attr_len = mem::size_of::<A>();
    // SAFETY: `attr` is a live structure of the given length; the rest is the caller's.
    let ret = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), attr_len) };
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(ret as i32) }
}

/// Takes over a file that a command has made.
fn owned(fd: i32) -> OwnedFd {
    // SAFETY: the kernel has just handed out this descriptor to us alone.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn name(text: &[u8]) -> [u8; 16] {
    let mut name = [0; 16];
    let len = text.len().min(15);
    name[..len].copy_from_slice(&text[..len]);
    name
}

/// Makes a table of numbers → files, with places for so many.
fn create_map(interface: &str, kind: u32, map_name: &[u8], max_entries: u32) -> Result<OwnedFd, SysError> {
    let mut attr = MapCreate {
        map_type: kind,
        key_size: 4,
        value_size: 4,
        max_entries,
        map_flags: 0,
        inner_map_fd: 0,
        numa_node: 0,
        map_name: name(map_name),
    };
    // SAFETY: the layout is that of BPF_MAP_CREATE; it holds no pointers.
    let fd = unsafe { bpf(CMD_MAP_CREATE, &mut attr) }
        .map_err(|source| SysError::new(interface, "bpf(BPF_MAP_CREATE)", source))?;
    Ok(owned(fd))
}

/// Puts a file into a table.
fn update_map(interface: &str, map: &OwnedFd, at: u32, file: RawFd) -> Result<(), SysError> {
    let mut attr = MapUpdate {
        map_fd: map.as_raw_fd().cast_unsigned(),
        pad: 0,
        key: std::ptr::from_ref(&at) as u64,
        value: std::ptr::from_ref(&file) as u64,
        flags: 0,
    };
    // SAFETY: key and value are live four-byte integers, as the map was made for.
    unsafe { bpf(CMD_MAP_UPDATE, &mut attr) }
        .map(|_| ())
        .map_err(|source| SysError::new(interface, "bpf(BPF_MAP_UPDATE_ELEM)", source))
}

/// Queue index → AF_XDP socket.
#[derive(Debug)]
pub(crate) struct SocketMap {
    fd: OwnedFd,
}

impl SocketMap {
    /// A map for `n_queues` queues.
    pub(crate) fn new(interface: &str, n_queues: u32) -> Result<Self, SysError> {
        create_map(interface, MAP_TYPE_XSKMAP, b"ferroflow_xsks", n_queues).map(|fd| Self { fd })
    }

    /// Frames of `queue` go to `socket` from now on.
    pub(crate) fn insert(&self, interface: &str, queue: u32, socket: RawFd) -> Result<(), SysError> {
        update_map(interface, &self.fd, queue, socket)
    }
}

/// Holds a program that another one goes on to. It is empty when the last process has closed its file, whether programs
/// still look into it or not.
#[derive(Debug)]
pub(crate) struct ProgramTable {
    fd: OwnedFd,
}

impl ProgramTable {
    /// One without a program.
    pub(crate) fn new(interface: &str) -> Result<Self, SysError> {
        create_map(interface, MAP_TYPE_PROG_ARRAY, b"ferroflow_gate", 1).map(|fd| Self { fd })
    }

    /// It holds this one from now on.
    pub(crate) fn insert(&self, interface: &str, program: &Program) -> Result<(), SysError> {
        update_map(interface, &self.fd, steer::FIRST, program.fd.as_raw_fd())
    }

    /// Its file.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Where a program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hook {
    /// When the driver has received a frame.
    Xdp,
    /// Before the host's stack gets a packet; packet sockets have seen it by then.
    Ingress,
    /// The same, as a filter of the interface (tc-bpf(8)).
    Filter,
}

impl Hook {
    /// Kind of program, and how it says that it will be attached.
    fn kind(self) -> (u32, u32) {
        match self {
            Self::Xdp => (PROG_TYPE_XDP, ATTACH_TYPE_XDP),
            Self::Ingress => (PROG_TYPE_SCHED_CLS, ATTACH_TYPE_TCX_INGRESS),
            Self::Filter => (PROG_TYPE_SCHED_CLS, 0),
        }
    }
}

/// A loaded program.
#[derive(Debug)]
pub(crate) struct Program {
    fd: OwnedFd,
}

impl Program {
    /// Every frame to the map's sockets; it may be in several pieces, if told.
    pub(crate) fn steer_all(interface: &str, map: &SocketMap, is_scattered: bool) -> Result<Self, SysError> {
        Self::load(interface, Hook::Xdp, flags(is_scattered), steer::all(map.fd.as_raw_fd()))
    }

    /// Only tunnelled frames.
    pub(crate) fn steer_tunnel(
        interface: &str,
        map: &SocketMap,
        tunnel: &TunnelSteering,
        is_scattered: bool,
    ) -> Result<Self, SysError> {
        let insns = steer::tunnel(map.fd.as_raw_fd(), tunnel);
        Self::load(interface, Hook::Xdp, flags(is_scattered), insns)
    }

    /// Nothing goes on.
    pub(crate) fn drop_all(interface: &str) -> Result<Self, SysError> {
        Self::load(interface, Hook::Filter, 0, steer::shut(None))
    }

    /// What a table's program says; while it has none, everything goes on.
    pub(crate) fn gate(interface: &str, table: &ProgramTable) -> Result<Self, SysError> {
        Self::load(interface, Hook::Filter, 0, steer::gate(table.fd.as_raw_fd()))
    }

    /// Its file.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn load(interface: &str, hook: Hook, flags: u32, insns: Option<Vec<Insn>>) -> Result<Self, SysError> {
        const CALL: &str = "bpf(BPF_PROG_LOAD)";
        let insns = insns.ok_or_else(|| {
            SysError::new(interface, CALL, io::Error::other("the steering program was not assembled"))
        })?;
        match load(hook, flags, &insns, &mut []) {
            Ok(fd) => Ok(Self { fd: owned(fd) }),
            Err(source) => {
                let mut log = vec![0; VERIFIER_LOG_LEN];
                // The second try is only for the verifier's words; should it succeed,
                // it is as good as the first.
                if let Ok(fd) = load(hook, flags, &insns, &mut log) {
                    return Ok(Self { fd: owned(fd) });
                }
                let mut error = SysError::new(interface, CALL, source);
                let text = CStr::from_bytes_until_nul(&log).unwrap_or(c"").to_string_lossy();
                if !text.trim().is_empty() {
                    let separator = if error.advice.is_empty() { "" } else { "; " };
                    error.advice = format!("{}{separator}verifier: {}", error.advice, text.trim());
                }
                Err(error)
            }
        }
    }
}

/// Frames may come to a program in several pieces.
fn flags(is_scattered: bool) -> u32 {
    if is_scattered { XDP_HAS_FRAGS } else { 0 }
}

/// Loads a program; with room for a log, asks for it.
fn load(hook: Hook, prog_flags: u32, insns: &[Insn], log: &mut [u8]) -> io::Result<i32> {
    let (prog_type, expected_attach_type) = hook.kind();
    let mut attr = ProgLoad {
        prog_type,
        insn_cnt: insns.len() as u32,
        insns: insns.as_ptr() as u64,
        license: LICENSE.as_ptr() as u64,
        log_level: u32::from(!log.is_empty()),
        log_size: log.len() as u32,
        log_buf: if log.is_empty() { 0 } else { log.as_mut_ptr() as u64 },
        kern_version: 0,
        prog_flags,
        prog_name: name(b"ferroflow_steer"),
        prog_ifindex: 0,
        expected_attach_type,
    };
    // SAFETY: the layout is that of BPF_PROG_LOAD; instructions, licence and log are
    // live and as long as their fields say.
    unsafe { bpf(CMD_PROG_LOAD, &mut attr) }
}

/// How a program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AttachMode {
    /// In the driver, before a socket buffer is made.
    Native,
    /// In the generic receive path: works everywhere, slower.
    Generic,
}

/// Ties a program to an interface for as long as it lives.
#[derive(Debug)]
pub(crate) struct Link {
    fd: OwnedFd,
}

impl Link {
    /// One that another process has made, and that lasts as long as one of its files.
    pub(crate) fn of(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// Its file.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Attaches `program`; it stays until the link or the process ends.
    pub(crate) fn attach(
        interface: &str,
        ifindex: u32,
        program: &Program,
        mode: AttachMode,
    ) -> Result<Self, SysError> {
        let (flags, call) = match mode {
            AttachMode::Native => (XDP_FLAGS_DRV_MODE, "bpf(BPF_LINK_CREATE, native)"),
            AttachMode::Generic => (XDP_FLAGS_SKB_MODE, "bpf(BPF_LINK_CREATE, generic)"),
        };
        Self::create((interface, ifindex), program, (ATTACH_TYPE_XDP, flags), call)
    }

    /// Keeps from the host's stack what an interface receives, or of that what is tunnelled to
    /// an address; packet sockets get it all the same. Since Linux 6.6.
    pub(crate) fn shut(
        interface: &str,
        ifindex: u32,
        tunnel: Option<&TunnelSteering>,
    ) -> Result<Self, SysError> {
        let program = Program::load(interface, Hook::Ingress, 0, steer::shut(tunnel))?;
        let how = (ATTACH_TYPE_TCX_INGRESS, 0);
        Self::create((interface, ifindex), &program, how, "bpf(BPF_LINK_CREATE, tcx)")
    }

    /// Has all that an interface receives sent by another one, `to`. Since Linux 6.6.
    pub(crate) fn pass_on(interface: &str, ifindex: u32, to: u32) -> Result<Self, SysError> {
        let program = Program::load(interface, Hook::Ingress, 0, steer::pass_on(to))?;
        let how = (ATTACH_TYPE_TCX_INGRESS, 0);
        Self::create((interface, ifindex), &program, how, "bpf(BPF_LINK_CREATE, tcx)")
    }

    fn create(
        (interface, ifindex): (&str, u32),
        program: &Program,
        (attach_type, flags): (u32, u32),
        call: &'static str,
    ) -> Result<Self, SysError> {
        let prog_fd = program.fd.as_raw_fd().cast_unsigned();
        let mut attr = LinkCreate { prog_fd, target_ifindex: ifindex, attach_type, flags };
        // SAFETY: the layout is that of BPF_LINK_CREATE; it holds no pointers.
        let fd = unsafe { bpf(CMD_LINK_CREATE, &mut attr) }
            .map_err(|source| SysError::new(interface, call, source))?;
        Ok(Self { fd: owned(fd) })
    }
}

#[cfg(test)]
mod tests;
