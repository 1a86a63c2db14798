//! What a daemon may still do once it has started: whoever takes it over by a packet or a request should find
//! little there to go on with.
//!
//! [`confine`] does three things to the calling thread, which all threads and processes that it starts from then on
//! inherit; so a daemon calls it before it has a second thread.
//!
//! 1. *Capabilities*: all but those of its [`Role`] go, from the permitted, effective, inheritable and ambient sets,
//!    and from the bounding set where the process may still change that.
//! 2. *No new privileges*: no program that it may start gains any by its file.
//! 3. *System calls*: those that only an intruder would want ([`calls`]) are refused with EPERM, and the kernel writes
//!    each attempt to its log (audit type SECCOMP).
//!
//! The calls are a list of what is refused, not of what is allowed: what a daemon needs is its libraries' business and
//! changes with each of their versions, and a daemon that dies of an update is no safer. What is listed is what turns a
//! daemon that was taken over into the whole machine.
//!
//! | file | what |
//! |---|---|
//! | `role.rs` | what each daemon keeps, and why |
//! | `capabilities.rs` | the sets of the process |
//! | `calls.rs` | the calls that are refused |
//! | `filter.rs` | them as a program for the kernel |
//! | `install.rs` | into the kernel: the only `unsafe` here |

#![deny(unsafe_code)]

pub mod calls;
mod capabilities;
mod filter;
mod install;
mod role;

use std::io;

pub use capabilities::Outcome;
pub use role::Role;

/// The process could not be confined; it should not go on.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// Its capabilities.
    #[error("cannot give up capabilities: {0}")]
    Capabilities(#[source] io::Error),
    /// What programs gain.
    #[error("cannot give up new privileges: {0}")]
    Privileges(#[source] io::Error),
    /// The filter.
    #[error(
        "the kernel takes no filter of system calls: {0}; it needs CONFIG_SECCOMP_FILTER, Linux 4.14 or later"
    )]
    Calls(#[source] io::Error),
}

/// Gives up what `role` does not need, for this thread and all that it starts. There is no way back.
///
/// # Errors
/// The kernel refuses; what was given up until then is gone.
///
/// # Concurrency
/// Threads that are there already keep what they have: call it before there are any.
pub fn confine(role: Role) -> Result<Outcome, ConfineError> {
    let outcome = capabilities::keep(role.kept()).map_err(ConfineError::Capabilities)?;
    rustix::thread::set_no_new_privs(true).map_err(|error| ConfineError::Privileges(error.into()))?;
    install::install(&filter::program(role)).map_err(ConfineError::Calls)?;
    Ok(outcome)
}
