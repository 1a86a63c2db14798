//! What the kernel is asked for: BPF programs and links, AF_XDP sockets, facts about
//! interfaces, event files, thread placement. And memory that guests write to while we read it.
//!
//! The crate's `unsafe` lives here and in the buffer pool; each function of this module
//! is safe to call. Nothing here knows of ports or packets. Read [`bpf`] first.

mod asm;
pub(crate) mod bpf;
mod bus_error;
pub(crate) mod event;
pub(crate) mod event_file;
pub(crate) mod futex;
pub(crate) mod gate;
pub(crate) mod guest_memory;
mod huge_page;
pub(crate) mod interface;
pub(crate) mod lease;
pub(crate) mod link_events;
pub(crate) mod near;
pub(crate) mod packet_socket;
pub(crate) mod passed_files;
mod pod;
pub(crate) mod segmenter;
pub(crate) mod shared_memory;
pub(crate) mod steer;
pub(crate) mod tap;
pub(crate) mod thread;
pub(crate) mod tsc;
pub(crate) mod vnet;
pub(crate) mod vring;
pub(crate) mod xsk;

use std::io;

pub use huge_page::advise_huge_pages;

/// A system call failed for an interface.
#[derive(Debug, thiserror::Error)]
#[error("interface {interface}: {call} failed: {source}{}{}", if .advice.is_empty() { "" } else { "; " }, .advice)]
pub struct SysError {
    /// Interface it was done for.
    pub interface: String,
    /// The call, as in a trace of system calls.
    pub call: &'static str,
    /// What the kernel said.
    pub source: io::Error,
    /// What to do about it; empty when there is nothing more to say.
    pub advice: String,
}

impl SysError {
    /// Of the calling thread's last failed call.
    fn last(interface: &str, call: &'static str) -> Self {
        Self::new(interface, call, io::Error::last_os_error())
    }

    pub(crate) fn new(interface: &str, call: &'static str, source: io::Error) -> Self {
        let advice = advice(interface, call, source.raw_os_error());
        Self { interface: interface.to_owned(), call, source, advice }
    }

    /// The error number, when the kernel gave one.
    pub(crate) fn errno(&self) -> Option<i32> {
        self.source.raw_os_error()
    }
}

/// What an operator can do about an error number of a call.
fn advice(interface: &str, call: &str, errno: Option<i32>) -> String {
    let link = call.contains("LINK_CREATE");
    match errno {
        Some(libc::EPERM | libc::EACCES) => {
            "run as root, or with CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF".to_owned()
        }
        Some(libc::ENODEV) => format!("there is no such interface here; see `ip link show {interface}`"),
        Some(libc::EBUSY | libc::EEXIST) if link => format!(
            "another XDP program is attached; remove it with `ip link set dev {interface} xdp off`, \
             or stop the process that holds it (`bpftool link`)"
        ),
        Some(libc::EBUSY) if call.contains("TUNSETIFF") => {
            "another process holds this TAP device; stop it, or use another name".to_owned()
        }
        Some(libc::EINVAL) if call.contains("TUNSETIFF") => format!(
            "{interface} is there and is no TAP device, or the name is none for an interface; use another name"
        ),
        Some(libc::ENOENT) if call.contains("/dev/net/tun") => {
            "the kernel has no TAP devices; load the module with `modprobe tun`".to_owned()
        }
        Some(libc::ENOENT | libc::EOPNOTSUPP) if call.contains("clsact") => {
            "the kernel is built without it; CONFIG_NET_SCH_INGRESS and CONFIG_NET_CLS_BPF are needed".to_owned()
        }
        Some(libc::EADDRINUSE) if call.contains("tunnel") => {
            "another program, or a tunnel device of the kernel, has the tunnel's UDP port; see `ss -lun` and \
             `ip -d link`"
                .to_owned()
        }
        Some(libc::EADDRNOTAVAIL) if call.contains("tunnel") => {
            "the tunnel endpoint's address is none of this host; see `ip addr`".to_owned()
        }
        Some(libc::EBUSY) => {
            "another AF_XDP socket is bound to this queue; stop the process that holds it".to_owned()
        }
        Some(libc::ERANGE) if link => {
            format!("the MTU is too large for XDP; lower it with `ip link set dev {interface} mtu 1500`")
        }
        Some(libc::ENOMEM) if call.starts_with("allocating") => {
            "the process may not have more memory; give it more (`ulimit -v`, MemoryMax= of its unit), or detach ports"
                .to_owned()
        }
        Some(libc::ENOBUFS | libc::ENOMEM) => {
            "the kernel has no memory for it; raise the locked-memory limit (`ulimit -l unlimited`)"
                .to_owned()
        }
        Some(libc::EAFNOSUPPORT | libc::ENOSYS) => {
            "the kernel is built without it; CONFIG_XDP_SOCKETS and CONFIG_BPF_SYSCALL are needed".to_owned()
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_interface_call_cause_and_remedy() {
        let error = SysError::new("eth7", "bpf(BPF_LINK_CREATE)", io::Error::from_raw_os_error(libc::EBUSY));
        let text = error.to_string();
        for part in ["eth7", "BPF_LINK_CREATE", "Device or resource busy", "ip link set dev eth7 xdp off"] {
            assert!(text.contains(part), "{part} is missing in: {text}");
        }
    }
}
