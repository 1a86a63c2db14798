//! The host daemon: composition of the dataplane, the chassis agent and the local service.
//!
//! A change's walk through this crate, file by file:
//!
//! 1. [`agent`] receives an update from the controller and decodes it.
//! 2. [`host`] adds it to the view, lowers the view to rules, and changes the tables in one
//!    transaction; publishes one snapshot; waits until the workers forward by it.
//! 3. [`agent`] acknowledges the revision, with what could not be realised.
//!
//! Beside it: [`holder`] is how the next daemon goes on where this one ends, [`underlay`] follows the host's routes and neighbours, [`state`] keeps what
//! outlives the process, [`responder`] answers packets of the logical network, [`endpoint`]
//! makes containers' interfaces, [`stand_in`] is what the host has instead of an uplink that the switch has for
//! itself, [`tunnel_endpoint`] is the switch where it is a station itself, [`service`] answers `vswitchctl` and the shims, [`log`]
//! changes what is logged, `stages.rs` tells what a start takes its time with, [`doctor`] says what the host can do, [`lab`] is what is between
//! several hosts that are not real.
//!
//! # Threads and shared state
//! The workers are the dataplane's; they see snapshots only. Everything else is tasks of
//! one runtime which borrow the one [`host::Host`] in turn through [`host::SharedHost`].

#![forbid(unsafe_code)]

pub mod agent;
pub mod bfd;
pub mod cli;
pub mod daemon;
pub mod doctor;
pub mod endpoint;
pub mod holder;
pub mod host;
pub mod lab;
pub mod log;
pub mod responder;
pub mod service;
mod stages;
pub mod stand_in;
pub mod state;
pub mod tunnel_endpoint;
pub mod underlay;
