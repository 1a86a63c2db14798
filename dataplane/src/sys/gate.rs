//! A gate at an interface: while somebody holds its file, the host's stack gets nothing of what the interface receives.
//! Packet sockets get it all the same.
//!
//! A link (`bpf::Link::shut`) does the same, but to make one takes the kernel a grace period of RCU, some ten
//! milliseconds in which nobody in the host can change an interface: too long where containers come by the dozen. A filter
//! of the interface (tc-bpf(8)) is there at once, and stays when its maker is killed. So the filter goes on to another
//! program, by a table that the kernel empties when the last process has closed its file; then the filter lets
//! everything pass.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use super::{
    SysError,
    bpf::{Program, ProgramTable},
};

const CALL: &str = "netlink(RTM_NEWTFILTER, clsact)";
const RTM_NEWQDISC: u16 = 36;
const RTM_NEWTFILTER: u16 = 44;
const RTM_DELTFILTER: u16 = 45;
/// Where filters are that see what comes in, and the queueing discipline that has them.
const CLSACT: u32 = 0xffff_fff1;
const CLSACT_HANDLE: u32 = 0xffff_0000;
const INGRESS: u32 = 0xffff_fff2;
/// Before those of others: `tc` gives 49152 to who names none.
const PRIORITY: u32 = 1;
/// Number of our filter among those of its priority.
const HANDLE: u32 = 0x6666;
const NAME: &[u8] = b"ferroflow_gate\0";

const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_FD: u16 = 6;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
/// The program's answer is what is done.
const ACT_DIRECT: u32 = 1;
const HEADER_LEN: usize = 16;
const ANSWERS_LEN: usize = 8192;

/// A gate that is shut.
#[derive(Debug)]
pub(crate) struct Gate {
    table: ProgramTable,
}

impl Gate {
    /// Shuts an interface of the calling thread's network namespace. Frames that are under way may still come through.
    ///
    /// # Errors
    /// The kernel has no such filters, or somebody else's is in its place.
    pub(crate) fn shut(interface: &str, ifindex: u32) -> Result<Self, SysError> {
        let table = ProgramTable::new(interface)?;
        table.insert(interface, &Program::drop_all(interface)?)?;
        let gate = Program::gate(interface, &table)?;
        let mut messages = message(
            RTM_NEWQDISC,
            libc::NLM_F_CREATE | libc::NLM_F_EXCL,
            tcmsg(ifindex, CLSACT_HANDLE, CLSACT, 0),
            &attribute(TCA_KIND, b"clsact\0"),
        );
        let options = [
            attribute(TCA_BPF_FD, &gate.fd().as_raw_fd().to_ne_bytes()),
            attribute(TCA_BPF_NAME, NAME),
            attribute(TCA_BPF_FLAGS, &ACT_DIRECT.to_ne_bytes()),
        ];
        let filter = [attribute(TCA_KIND, b"bpf\0"), attribute(TCA_OPTIONS, &options.concat())].concat();
        messages.extend(message(RTM_NEWTFILTER, libc::NLM_F_CREATE, of_filter(ifindex), &filter));
        let [made_room, added] = ask(interface, &messages)?;
        match (made_room, added) {
            // It is there, or another one that has filters as well.
            (0 | libc::EEXIST, 0) => Ok(Self { table }),
            (0 | libc::EEXIST, errno) | (errno, _) => {
                Err(SysError::new(interface, CALL, io::Error::from_raw_os_error(errno)))
            }
        }
    }

    /// What keeps it shut.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.table.fd()
    }
}

/// Takes the filter of a gate away, open or shut; there may be none. Of its queueing discipline others may have made use.
pub(crate) fn clear(interface: &str, ifindex: u32) {
    let filter = message(RTM_DELTFILTER, 0, of_filter(ifindex), &attribute(TCA_KIND, b"bpf\0"));
    match ask::<1>(interface, &filter) {
        Ok([0 | libc::ENOENT | libc::EINVAL | libc::ENODEV]) => {}
        Ok([errno]) => {
            let error = io::Error::from_raw_os_error(errno);
            tracing::info!(interface, %error, "an open gate is left at the interface");
        }
        Err(error) => tracing::info!(%error, "an open gate is left at the interface"),
    }
}

/// `struct tcmsg` of our filter.
fn of_filter(ifindex: u32) -> [u8; 20] {
    let every_protocol = (libc::ETH_P_ALL as u16).to_be();
    tcmsg(ifindex, HANDLE, INGRESS, PRIORITY << 16 | u32::from(every_protocol))
}

fn tcmsg(ifindex: u32, handle: u32, parent: u32, info: u32) -> [u8; 20] {
    let mut bytes = [0; 20];
    for (to, word) in bytes[4..].chunks_exact_mut(4).zip([ifindex, handle, parent, info]) {
        to.copy_from_slice(&word.to_ne_bytes());
    }
    bytes
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let len = (4 + value.len()) as u16;
    let mut bytes = [len.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn message(kind: u16, flags: libc::c_int, tcmsg: [u8; 20], attributes: &[u8]) -> Vec<u8> {
    let len = HEADER_LEN + tcmsg.len() + attributes.len();
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK | flags) as u16;
    let mut bytes = (len as u32).to_ne_bytes().to_vec();
    bytes.extend([kind.to_ne_bytes(), flags.to_ne_bytes()].concat());
    bytes.extend([0; 8]);
    bytes.extend(tcmsg);
    bytes.extend(attributes);
    bytes
}

/// Has the kernel do what so many messages ask for; the number of the error of each, 0 without one.
fn ask<const N: usize>(interface: &str, messages: &[u8]) -> Result<[i32; N], SysError> {
    let failed = || SysError::last(interface, "netlink(NETLINK_ROUTE)");
    // SAFETY: has no preconditions.
    let fd =
        unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE) };
    if fd < 0 {
        return Err(failed());
    }
    // SAFETY: the kernel has just handed out this descriptor to us alone.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let send =
        // SAFETY: the messages are live and as long as is said.
        unsafe { libc::send(socket.as_raw_fd(), messages.as_ptr().cast(), messages.len(), 0) };
    if send < 0 {
        return Err(failed());
    }
    // The kernel has answered before send(2) has.
    let (mut errors, mut n, mut buf) = ([libc::EPROTO; N], 0, vec![0_u8; ANSWERS_LEN]);
    while n < N {
        let (to, room) = (buf.as_mut_ptr().cast(), buf.len());
        // SAFETY: the buffer is live and as long as is said.
        let len = unsafe { libc::recv(socket.as_fd().as_raw_fd(), to, room, libc::MSG_DONTWAIT) };
        let mut rest = usize::try_from(len).ok().and_then(|len| buf.get(..len)).ok_or_else(failed)?;
        while let (Some(error), true) = (error_of(rest), n < N) {
            errors[n] = error;
            n += 1;
            let len = rest.first_chunk().map_or(0, |len| u32::from_ne_bytes(*len) as usize);
            rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        }
    }
    Ok(errors)
}

/// The error of an answer (`struct nlmsgerr` behind the header). `None`: there is no further one.
fn error_of(answer: &[u8]) -> Option<i32> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    let error = i32::from_ne_bytes(answer.get(HEADER_LEN..HEADER_LEN + 4)?.try_into().ok()?);
    Some(if i32::from(kind) == libc::NLMSG_ERROR { error.saturating_neg() } else { libc::EPROTO })
}
