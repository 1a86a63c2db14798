//! Controllers, hosts, the store, links and clocks in one process and one thread, all of it from one seed: what
//! a seed finds it finds again. And random calls of the API.
//!
//! Real are the controllers (state, compiler, receipts, what they say to hosts and to each other), what they
//! and hosts say to each other (the messages of chassis.v1, encoded and decoded), and the hosts
//! (state directory, lowering, audit, responder, switch). Made up are what is between them: time, streams,
//! the underlay, the store's disk and the ways to it; and those who use the network: users, workloads.
//!
//! A world lives for some seconds of its time: users change the network by whichever controller answers,
//! workloads come, move, go and send, controllers and hosts crash and come back or do not, streams break,
//! ways are cut, disks are slow, commits and answers get lost, frames are lost and overtake each
//! other. Then all is repaired, and within five seconds all has to be well.
//!
//! What must hold (`world/checks.rs`, `world/packets.rs`):
//! - Nobody receives what a dull model of the network ([`model`]) does not let him have: the sender's and the
//!   receiver's host each judge by one revision, between the oldest it may still go by and the newest. Once
//!   receipts have said that a revision is applied everywhere, older ones do not count.
//! - A host has what receipts say that it has, also after a crash.
//! - What a user was told is written is there in the end, and nothing else.
//! - In the end all controllers and hosts have what is compiled and lowered at once, and each packet gets to
//!   whom the model says, and to nobody else.
//! - Received is forwarded or dropped by name.
//!
//! Where to read: `world/mod.rs`.
#![forbid(unsafe_code)]

pub mod calls;
pub mod many;
pub mod model;
mod packet;
pub mod parallel;
mod plant;
mod random;
mod skew;
mod store;
mod trace;
mod workload;
pub mod world;

pub use plant::Plant;
pub use random::Random;
