//! What the packet benches share: rule sets ([`rules`]), frames and the loop that feeds
//! them to a switch ([`traffic`]), and the measurement ([`measure`]). Whole workers, with their
//! loop and their sleep, are measured in [`workers`]; controllers with a host in [`network`].
//!
//! `cargo bench -p benches` runs them. Each case prints a line of its own before
//! Criterion's: packets per second, TSC cycles and heap allocations per packet. The
//! machine's noise is larger than most differences: compare only runs taken in turn.
#![forbid(unsafe_code)]

pub mod compare;
pub mod floods;
pub mod guest;
pub mod measure;
pub mod network;
pub mod peer;
pub mod rules;
pub mod traffic;
pub mod veth;
pub mod workers;
pub mod workload;
