//! What the daemons show to those who supervise them.
//!
//! - [`exposition`]: what is counted, in the text that Prometheus reads
//! - [`process`]: what the kernel counts of this process
//! - [`http`]: both over HTTP, and whether the daemon is ready
//! - [`notify`]: readiness for systemd
//! - [`log`]: lines of a log, for people or for programs
//!
//! What is shown is the daemons' own: nothing here knows of switches and networks.

#![forbid(unsafe_code)]

pub mod exposition;
pub mod http;
pub mod log;
pub mod notify;
pub mod process;
