//! The pure compiler of the logical network: from what an operator says to what one
//! switch does. No I/O, no clock, no state but what is passed in; the same input gives
//! the same output, byte for byte.
//!
//! ```text
//! model::Northbound ──compile──▶ southbound::Southbound ──chassis_view──▶ the part of
//!   switches, routers,             datapaths, bindings,                   one chassis
//!   ports, ACLs, routes            groups, logical flows                     │
//!                                                                          lower
//!                                  flowtable::flow::Rule  ◀──────────────────┘
//! ```
//!
//! The controller runs the first half, each host the second. Between them travel logical
//! flows in OVN's languages, [`expr`] for matches and [`actions`] for actions, so that
//! what is sent can be read, and explained by whoever knows OVN. A flow has the name of
//! the northbound object it was made for and a sentence that says why; the rules made
//! from it carry both on, so that each drop in the switch can name its cause.
//!
//! # Where to read
//! 1. [`model`] and [`southbound`]: the two ends of [`compile`].
//! 2. `build`: one file per logical feature. The stages, in the order packets pass them,
//!    are declared in `build/stage.rs`.
//! 3. `lower`: tables, registers and tunnels. Its module text has the table of tables.
//! 4. [`Compiler`]: the same as [`compile`], but only what a change reaches. A datapath
//!    depends on itself, its links and the ACLs of its port groups, which bounds the
//!    reach; members of sets reach no flow.
//!
//! # Invariants
//! - Incremental equals full: after any change marked dirty, [`Compiler::southbound`] is
//!   [`compile`] of the new input.
//! - Denial is structural: an ACL that cannot be read or done denies, a port nobody knows
//!   matches nothing, and an unknown output drops.
//! - Names are unique: the ids of all switch and router ports share one name space. The
//!   controller sees to it; the match language depends on it.
//!
//! # What is not here yet
//! VLANs and gateways with failover. Each of these is refused with a clear error where it
//! is named.
#![forbid(unsafe_code)]

pub mod actions;
mod advertisement;
mod build;
mod compiler;
mod delta;
pub mod dhcp;
pub mod expr;
#[cfg(test)]
mod fixture;
pub mod key;
mod lower;
pub mod model;
pub mod names;
pub mod punt;
pub mod southbound;
mod view;

pub use advertisement::Advertised;
pub use build::compile;
pub use build::sets::group_of;
pub use compiler::{Compiler, Dirty};
pub use delta::{Removed, SetChange, SouthboundDelta, diff};
pub use expr::{check_match, sets_of};
pub use lower::{
    CONTINUATION, Learned, LocalPorts, LowerError, Lowered, lower, neighbour_rules, sent_by_router,
};
pub use view::chassis_view;
