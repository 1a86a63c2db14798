//! Which address of a range is given next, and when one may be given again: pure, without
//! files, sockets and clocks.
//!
//! [`Network`] is a prefix and what can be made of it; [`Pool`] is who has which address. A
//! pool goes on behind the address it gave last, and an address that came back rests for a
//! while: until traffic that was sent to its old owner cannot arrive any more.

#![forbid(unsafe_code)]

pub mod network;
pub mod pool;

pub use network::{Network, Span};
pub use pool::{Exhausted, Pool};
