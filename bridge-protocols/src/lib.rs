//! Protocols that bridges speak with each other and with their neighbours: pure, without
//! sockets, threads and clocks.
//!
//! Each protocol is a folder or a file with the same parts: how its frames are read and
//! written, and a machine that is told what arrives and what time it is, and answers with
//! frames to send and with what has changed. Who calls it owns the ports, the clock and the
//! forwarding; for Ferroflow that is `vswitchd`.
//!
//! - [`stp`]: which ports forward, so that frames do not go in circles (IEEE 802.1D-2004).
//! - [`lacp`]: which links to the same neighbour are one (IEEE 802.1AX).
//! - [`bond`]: by which of several links a flow leaves.
//! - [`multicast`]: who wants to hear which group (RFC 4541).
//! - [`sflow`]: what collectors are told of packets and counters.
//!
//! What arrives is hostile until it is read: every reader checks lengths, bounds and
//! checksums, and answers `None` to what it does not understand.

#![forbid(unsafe_code)]

pub mod bond;
pub mod lacp;
pub mod multicast;
pub mod sflow;
pub mod stp;
mod wire;
