//! What this host lets a dataplane do, found out by doing it.

use crate::sys::{
    SysError,
    bpf::{Program, SocketMap},
    xsk,
};

/// It works, or why it does not.
pub type Probe = Result<(), SysError>;

/// Name of what is probed, in the place of an interface.
const PROBE: &str = "(probe)";

/// AF_XDP sockets can be opened.
///
/// # Errors
/// What the kernel says.
pub fn af_xdp() -> Probe {
    xsk::probe(PROBE)
}

/// XDP programs and socket maps can be loaded.
///
/// # Errors
/// What the kernel says.
pub fn xdp_program() -> Probe {
    let map = SocketMap::new(PROBE, 1)?;
    Program::steer_all(PROBE, &map, false).map(drop)
}
