//! Ports whose packets come and go with a record of what is left to do on them: TAP devices,
//! and veth interfaces by a packet socket. A stream of TCP passes in pieces of 64 KiB, and
//! what passes between two such ports is neither cut nor summed.
//!
//! Each frame is a system call. So these are for workloads, whose frames are few and large;
//! small packets by the million are AF_XDP's.

mod device;
mod queue;

pub(crate) use device::{PACKET, TAP, VnetHold, VnetOutlet, VnetQueue, kept_name, open_socket, open_tap};
