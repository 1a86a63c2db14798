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
//! - [`lldp`]: who is at the other end of a link (IEEE 802.1AB).
//! - [`cfm`]: whether the ends of a network hear each other (IEEE 802.1Q, once 802.1ag).
//! - [`bfd`]: whether who is at the other end is alive (RFC 5880).
//! - [`sflow`]: what collectors are told of packets and counters.
//! - [`flows`]: what is gathered of flows until they are told of, by [`netflow`] (version 5) or
//!   [`ipfix`] (RFC 7011).
//!
//! What arrives is hostile until it is read: every reader checks lengths, bounds and
//! checksums, and answers `None` to what it does not understand.

#![forbid(unsafe_code)]

pub mod bfd;
pub mod bond;
pub mod cfm;
pub mod flows;
pub mod ipfix;
pub mod lacp;
pub mod lldp;
pub mod multicast;
pub mod netflow;
pub mod sflow;
pub mod stp;
mod wire;
