//! The central server of Ferroflow: keeps the logical network, compiles it, and tells
//! each host what it needs.
//!
//! A change's walk: [`northbound`] takes a transaction → [`resource`] parses it →
//! [`state`] judges it as a whole → [`store`] makes it durable, as one revision →
//! [`compile`] keeps the compiler's model in step, [`network`] has what the change reaches
//! compiled → [`chassis`] sends each host how its view differs → the hosts acknowledge, and [`receipts`] tells who waits. [`controller`] holds
//! these together; [`server`] puts the services on a socket.
//!
//! What always holds:
//! - Nothing is acknowledged before it outlives a loss of power.
//! - The state in memory is what the store holds, or the controller stops.
//! - Nobody is told or may change what [`access`] does not let him.
//! - No client, however slow, makes the controller keep a queue: watches read the log,
//!   changes for a chassis are merged until it takes them.
#![forbid(unsafe_code)]

pub mod access;
pub mod chassis;
pub mod company;
pub mod compile;
pub mod controller;
pub mod metrics;
pub mod network;
pub mod northbound;
pub mod receipts;
pub mod resource;
pub mod server;
pub mod state;
pub mod store;
mod threads;
