//! Ports for virtual machines, by vhost-user: the switch is the back end of a guest's network
//! device. Frames are copied between the guest's memory and ours by the worker itself, without
//! a system call; offloads go along in the record in front of each frame.
//!
//! | file | what |
//! |---|---|
//! | `device.rs` | the socket, and the thread that speaks with the guest's side |
//! | `message.rs`, `features.rs` | what is said |
//! | `session.rs` | what has been said so far; which rings run |
//! | `shared.rs` | what that thread and the workers share |
//! | `queue.rs` | frames in and out: the worker's side |
//! | `ring.rs`, `chain.rs` | a ring, and the chains in it |
//! | `fault.rs` | what a guest can do wrong |
//! | `rehearsal.rs` | a guest's side made of bytes, for fuzzers |
//!
//! # Whom this trusts
//! Nobody. Each number that a guest or the program that runs it gives is checked where it is used; work
//! for one frame is bounded; a guest that does what it must not is cut off, and its port alone is
//! down and says why. Memory that is taken away while it is used reads as zeros
//! (`sys/bus_error.rs`).

mod chain;
mod device;
mod fault;
mod features;
mod message;
mod queue;
mod rehearsal;
mod ring;
mod session;
mod shared;

pub use device::{MAX_QUEUE_PAIRS, VhostPort};
pub(crate) use device::{VhostHold, open};
pub(crate) use queue::{VhostOutlet, VhostQueue};
pub use rehearsal::rehearse;

#[cfg(test)]
mod tests;
