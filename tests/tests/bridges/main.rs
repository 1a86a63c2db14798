//! A bridge beside others: the kernel's and Open vSwitch's, discovery, collectors, members of groups; and what
//! it does by itself when nobody else is asked. Each scenario is real packets between namespaces.
//!
//! `row.rs` is a switch between two hosts and a peer that becomes a bridge, `star.rs` a switch with some hosts;
//! `switch.rs` what both stand on, `ovs.rs` the peer that is Open vSwitch, `tcpdump.rs` who looks at frames. The
//! rest is a file a subject.

#![forbid(unsafe_code)]

mod collectors;
mod declared;
mod discovery;
mod failing;
mod groups;
mod liveness;
mod mirrors;
mod ovs;
mod row;
mod star;
mod switch;
mod tcpdump;
mod top;
mod trees;
mod vlans;

use std::time::Duration;

/// How long anything may take that has no times of its own.
const LIMIT: Duration = Duration::from_secs(20);
const MTU: u32 = 1500;
/// Sends and answers from within the hosts.
const PROBE: &str = env!("CARGO_BIN_EXE_ff-probe");
