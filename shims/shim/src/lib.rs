//! What container shims share: the host's daemon behind its socket ([`daemon`]), and what is
//! left for it to do while it is not there ([`departed`]).

#![forbid(unsafe_code)]

pub mod daemon;
pub mod departed;

pub use daemon::Daemon;

/// Where vswitchd listens unless said otherwise.
pub const DEFAULT_SOCKET: &str = "/run/ferroflow/vswitchd.sock";
