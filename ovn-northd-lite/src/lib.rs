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
//! 3. `lower`: tables, registers and tunnels. Its module text has the table of tables;
//!    `lower/unit.rs` says what rules are made from, `lower/stale.rs` which of it a change
//!    concerns.
//! 4. [`Compiler`]: the same as [`compile`], but only what a change reaches.
//! 5. [`explain`]: what all of it means for two workloads.
//!
//! # How a change stays small
//! A network is compiled in units: a switch, each of its ports, each place where ACLs apply,
//! each load balancer; a router, each of its routes, policies, translations, load balancers
//! and neighbours. A feature is one function from what a unit shows it to flows
//! (`build/feature.rs`), listed once in `build/switch/mod.rs` or `build/router/mod.rs`. The
//! type of its argument is the list of its dependencies: it cannot see more, so a change of
//! something else cannot concern it.
//!
//! What a feature must know of the whole datapath is in the datapath's traits
//! (`build/traits.rs`), which are compared by value: while they stay the same, the other
//! units of the datapath stay too. To add a feature:
//!
//! 1. Write `fn port(input: &SwitchPortInput, sink: &mut FlowSink)`, or for another kind of
//!    unit, in a file of its own, and name it in the list of features. Its place there
//!    decides which of two contradicting flows stays.
//! 2. If it needs more than its input has, add that: what belongs to the unit to the input
//!    (`build/topology.rs`), what is about the whole datapath to the traits. Small tables
//!    that rarely change may be in the traits whole.
//! 3. New objects of the model: say in [`Dirty`] that they changed, and in
//!    `compiler/reach.rs` which units see them.
//! 4. Let the random changes in `compiler/tests/changes.rs` change it. They find what step 3
//!    has forgotten.
//!
//! Flows that several units ask for (two ports with one address) are kept once; when the
//! first one to ask is gone, the next one takes its place. Members of sets reach no flow.
//!
//! # Invariants
//! - Incremental equals full: after any change marked dirty, [`Compiler::southbound`] is
//!   [`compile`] of the new input.
//! - Denial is structural: an ACL that cannot be read or done denies, a port nobody knows
//!   matches nothing, and an unknown output drops.
//! - Names are unique: the ids of all switch and router ports share one name space. The
//!   controller sees to it; the match language depends on it.
#![forbid(unsafe_code)]

pub mod actions;
mod advertisement;
pub mod backends;
mod build;
mod compiler;
mod delta;
pub mod dhcp;
pub mod explain;
pub mod expr;
#[cfg(test)]
mod fixture;
pub mod heard;
pub mod key;
mod lower;
pub mod model;
pub mod names;
pub mod punt;
pub mod sampling;
pub mod southbound;
pub mod template;
pub mod text;
mod view;
mod views;

pub use advertisement::Advertised;
pub use build::compile;
pub use build::multicast::group_of as multicast_group_of;
pub use build::sets::group_of;
pub use compiler::{Compiler, Dirty, Workers};
pub use delta::{GroupChange, Removed, SetChange, SouthboundDelta, diff};
pub use expr::{check_match, sets_of};
pub use lower::{
    Audit, CONTINUATION, Drift, Learned, LocalPorts, LowerError, Lowered, LoweredDelta, Lowering,
    RESERVED_ZONES, chassis_of, is_resident, lower, neighbour_rules, sent_by_router, sent_to_next_hop,
    sent_to_workload, tunnel_to,
};
pub use view::chassis_view;
pub use views::Views;
