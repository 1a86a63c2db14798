//! What must outlive the host daemon: files, in the hands of a process that does nothing else.
//!
//! `vswitch-holder` starts `vswitchd` as its child and starts it again when it has died. The daemon
//! gives it files by names (sockets of ports, memory of connections), and the next daemon takes
//! them from it. For an upgrade two daemons run for a moment: the holder has the first one stand
//! still, hands what it holds to the second, and says who forwards.
//!
//! It parses nothing that comes from a network, and nothing of what it holds: names and notes are
//! text to it. Only its own children are listened to.
//!
//! | file | what |
//! |---|---|
//! | `wire.rs` | messages between both, and files with them |
//! | `client.rs` | the daemon's side |
//! | `store.rs` | what is held, and how much of it may be |
//! | `options.rs` | the command line |
//! | `process.rs` | a daemon, and when it may be started again |
//! | `upgrade.rs` | the steps of an upgrade |
//! | `supervisor.rs` | the holder's loop |

#![forbid(unsafe_code)]

mod client;
mod options;
mod process;
mod store;
mod supervisor;
mod upgrade;
mod wire;

pub use self::{
    client::{Client, ClientError, Held, Order, Role},
    options::{Options, USAGE},
    supervisor::{Supervisor, SupervisorError},
    wire::{MAX_FILES, VERSION, Version},
};
