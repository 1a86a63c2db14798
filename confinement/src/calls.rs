//! The system calls that are refused: each list is what an intruder would do next.

use crate::Role;

/// A system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// Its name.
    pub name: &'static str,
    /// Its number on this architecture.
    pub number: u32,
}

/// Declares a list of calls by their names in the C library.
macro_rules! calls {
    ($(#[$doc:meta])* $list:ident: $($name:ident)*) => {
        $(#[$doc])*
        const $list: &[Call] =
            // Numbers of calls are small, whatever C's type for them.
            &[$(Call { name: stringify!($name), number: libc::$name as u32 }),*];
    };
}

calls! {
    /// The file systems that are seen, and files by the back door.
    FILE_SYSTEMS:
    SYS_mount SYS_umount2 SYS_pivot_root SYS_chroot SYS_move_mount SYS_open_tree SYS_fsopen SYS_fsconfig SYS_fsmount
    SYS_fspick SYS_mount_setattr SYS_swapon SYS_swapoff SYS_quotactl SYS_quotactl_fd SYS_fanotify_init
    SYS_name_to_handle_at SYS_open_by_handle_at SYS_mknodat SYS_acct
}
calls! {
    /// Another kernel, or more of this one.
    KERNEL:
    SYS_kexec_load SYS_kexec_file_load SYS_init_module SYS_finit_module SYS_delete_module SYS_reboot SYS_syslog
    SYS_personality SYS_vhangup
}
calls! {
    /// Other processes' memory, files and secrets.
    PROCESSES:
    SYS_ptrace SYS_process_vm_readv SYS_process_vm_writev SYS_process_madvise SYS_kcmp SYS_pidfd_getfd
    SYS_perf_event_open SYS_add_key SYS_request_key SYS_keyctl
}
calls! {
    /// What makes faults of the kernel easier to use, and what gets around this filter.
    TOOLS:
    SYS_userfaultfd SYS_io_uring_setup SYS_io_uring_enter SYS_io_uring_register SYS_unshare
}
calls! {
    /// The machine's clock and name.
    MACHINE:
    SYS_settimeofday SYS_clock_settime SYS_adjtimex SYS_clock_adjtime SYS_sethostname SYS_setdomainname
}
#[cfg(target_arch = "x86_64")]
calls! {
    /// What only this architecture has.
    ARCHITECTURE:
    SYS_iopl SYS_ioperm SYS_modify_ldt SYS_mknod SYS_uselib SYS_ustat SYS_sysfs
}
#[cfg(not(target_arch = "x86_64"))]
const ARCHITECTURE: &[Call] = &[];
calls! {
    /// Other programs.
    PROGRAMS: SYS_execve SYS_execveat
}
calls! {
    /// Programs in the kernel, and other namespaces.
    ATTACHING: SYS_bpf SYS_setns
}

/// The calls that a role is refused whatever their arguments are.
pub fn refused(role: Role) -> impl Iterator<Item = Call> {
    let always = [FILE_SYSTEMS, KERNEL, PROCESSES, TOOLS, MACHINE, ARCHITECTURE];
    let programs = if role.starts_programs() { &[] } else { PROGRAMS };
    let attaching = if role.attaches() { &[] } else { ATTACHING };
    always.into_iter().chain([programs, attaching]).flatten().copied()
}
