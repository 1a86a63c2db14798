//! The same rules and packets through Open vSwitch and through ours: the same frames out of the same
//! ports. What is known to differ is listed in docs/differences-from-ovs.md, and only that is left out.
//!
//! `pair.rs` both switches · `random.rs` random rules · `tables.rs` tables as people write them ·
//! `network.rs` the rules of a logical network · `gateway.rs` the rules of the scenarios and of
//! docs/lab.md · `talk.rs` what their hosts say · `dumps.rs` what dumps print is read.

#![allow(clippy::unwrap_used)]

mod dumps;
mod gateway;
mod network;
mod pair;
mod random;
mod tables;
mod talk;

/// Ports that both switches have.
const PORTS: &[u32] = &[1, 2, 3, 4, 5];
