//! The refused calls as a program of the kernel's classic packet filter, which it runs before each call over the
//! call's number, architecture and arguments (`struct seccomp_data`).
//!
//! Of most calls only the number is looked at; what such a program answers the kernel remembers per number, so it costs
//! calls of every day nothing. Looked at are the arguments of two: `clone` makes threads and, in those who may, processes, but
//! no namespaces; `setns` goes into network namespaces and no others. `clone3` hides its arguments in memory, where no filter
//! sees them: to it this is a kernel without it, and the C library asks by `clone`.

use crate::{Role, calls};

/// One instruction, as the kernel has it (`struct sock_filter`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) code: u16,
    pub(crate) if_so: u8,
    pub(crate) if_not: u8,
    pub(crate) operand: u32,
}

/// Loads a word of the call.
const LOAD: u16 = 0x20;
/// Compares with the operand.
const EQUAL: u16 = 0x15;
/// At least the operand.
#[cfg(target_arch = "x86_64")]
const AT_LEAST: u16 = 0x35;
/// Has some of the operand's bits.
const ANY_OF: u16 = 0x45;
/// Ends with the operand.
const RETURN: u16 = 0x06;

/// Offsets within the call; the arguments' lower halves.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const FIRST: u32 = 16;
const SECOND: u32 = 24;

const ALLOW: u32 = 0x7fff_0000;
/// The call fails with the error in the lower half.
const FAIL: u32 = 0x0005_0000;
const REFUSE: u32 = FAIL | libc::EPERM as u32;
const UNKNOWN: u32 = FAIL | libc::ENOSYS as u32;

#[cfg(target_arch = "x86_64")]
const NATIVE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const NATIVE: u32 = 0xc000_00b7;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the numbers of system calls are looked up for x86-64 and aarch64 only");

/// Calls of the x32 ABI have this bit: other numbers for the same calls.
#[cfg(target_arch = "x86_64")]
const X32: u32 = 0x4000_0000;

/// Flags of `clone` that make namespaces.
const NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWNET) as u32;

/// The program for a role.
pub(crate) fn program(role: Role) -> Vec<Step> {
    // Others than this architecture's calls have other numbers.
    let mut steps = vec![load(ARCHITECTURE), jump(EQUAL, NATIVE, 1, 0), end(REFUSE), load(NUMBER)];
    #[cfg(target_arch = "x86_64")]
    steps.extend([jump(AT_LEAST, X32, 0, 1), end(REFUSE)]);
    for call in calls::refused(role) {
        steps.extend([jump(EQUAL, call.number, 0, 1), end(REFUSE)]);
    }
    steps.extend([jump(EQUAL, libc::SYS_clone3 as u32, 0, 1), end(UNKNOWN)]);
    steps.extend([
        jump(EQUAL, libc::SYS_clone as u32, 0, 4),
        load(FIRST),
        jump(ANY_OF, NAMESPACES, 0, 1),
        end(REFUSE),
        end(ALLOW),
    ]);
    steps.extend([
        jump(EQUAL, libc::SYS_setns as u32, 0, 4),
        load(SECOND),
        jump(EQUAL, libc::CLONE_NEWNET as u32, 1, 0),
        end(REFUSE),
        end(ALLOW),
    ]);
    steps.push(end(ALLOW));
    steps
}

fn load(offset: u32) -> Step {
    Step { code: LOAD, if_so: 0, if_not: 0, operand: offset }
}

fn jump(code: u16, operand: u32, if_so: u8, if_not: u8) -> Step {
    Step { code, if_so, if_not, operand }
}

fn end(answer: u32) -> Step {
    Step { code: RETURN, if_so: 0, if_not: 0, operand: answer }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel's machine, as far as programs here use it.
    fn run(program: &[Step], architecture: u32, number: u32, arguments: [u32; 2]) -> u32 {
        let (mut at, mut word) = (0, 0);
        loop {
            let Step { code, if_so, if_not, operand } = program[at];
            at += 1;
            let jump = |is_so: bool| usize::from(if is_so { if_so } else { if_not });
            match code {
                RETURN => return operand,
                LOAD => {
                    word = match operand {
                        NUMBER => number,
                        ARCHITECTURE => architecture,
                        FIRST => arguments[0],
                        SECOND => arguments[1],
                        _ => panic!("offset {operand}"),
                    }
                }
                EQUAL => at += jump(word == operand),
                ANY_OF => at += jump(word & operand != 0),
                0x35 => at += jump(word >= operand),
                _ => panic!("code {code}"),
            }
        }
    }

    fn answer(role: Role, number: libc::c_long, arguments: [i32; 2]) -> u32 {
        run(&program(role), NATIVE, number as u32, arguments.map(|argument| argument as u32))
    }

    #[test]
    fn what_is_listed_is_refused_and_nothing_else() {
        for role in Role::ALL {
            let refused: Vec<_> = calls::refused(role).map(|call| call.number).collect();
            for number in 0..1000 {
                let expected = match number {
                    _ if refused.contains(&number) => REFUSE,
                    _ if number == libc::SYS_clone3 as u32 => UNKNOWN,
                    // Without a network namespace.
                    _ if number == libc::SYS_setns as u32 => REFUSE,
                    _ => ALLOW,
                };
                assert_eq!(run(&program(role), NATIVE, number, [0, 0]), expected, "{role:?} {number}");
            }
        }
    }

    #[test]
    fn only_who_starts_programs_may_and_only_who_attaches_may() {
        for role in Role::ALL {
            let may = |number, arguments| answer(role, number, arguments) == ALLOW;
            assert_eq!(may(libc::SYS_execve, [0, 0]), matches!(role, Role::Translator | Role::Holder));
            assert_eq!(may(libc::SYS_bpf, [0, 0]), matches!(role, Role::Switch | Role::Holder));
            let enters = may(libc::SYS_setns, [3, libc::CLONE_NEWNET]);
            assert_eq!(enters, matches!(role, Role::Switch | Role::Holder));
            assert!(!may(libc::SYS_setns, [3, libc::CLONE_NEWNS]));
        }
    }

    #[test]
    fn threads_are_made_and_namespaces_are_not() {
        let threads = libc::CLONE_VM | libc::CLONE_FILES | libc::CLONE_THREAD | libc::CLONE_SIGHAND;
        assert_eq!(answer(Role::Switch, libc::SYS_clone, [threads, 0]), ALLOW);
        for flag in [libc::CLONE_NEWNS, libc::CLONE_NEWUSER, libc::CLONE_NEWNET, libc::CLONE_NEWPID] {
            assert_eq!(answer(Role::Switch, libc::SYS_clone, [libc::SIGCHLD | flag, 0]), REFUSE);
        }
    }

    #[test]
    fn calls_by_other_numbers_are_refused() {
        let program = program(Role::Switch);
        let read = libc::SYS_read as u32;
        assert_eq!(run(&program, NATIVE, read, [0, 0]), ALLOW);
        // 32 bits, whose numbers are others.
        assert_eq!(run(&program, 0x4000_0003, read, [0, 0]), REFUSE);
        #[cfg(target_arch = "x86_64")]
        assert_eq!(run(&program, NATIVE, read | X32, [0, 0]), REFUSE);
        // The kernel takes 4096 instructions.
        assert!(program.len() < 4096);
    }
}
