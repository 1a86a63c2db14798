//! A dull second opinion on the switch.
//!
//! The switch of `flowtable` compiles tables, tracks what it reads, caches programs and mends checksums
//! by differences. Here the same rules are interpreted as the manual pages ovs-fields(7) and
//! ovs-actions(7) tell it: all rules are looked at, actions change the frame's bytes one after the other,
//! and checksums are computed anew. Nothing is shared with the switch but the *text* of the rules, so
//! that a misunderstanding would have to be made twice.
//!
//! [`syntax`] rules and their text · [`field`] what they speak of · [`frame`] where it is ·
//! [`checksum`] · [`state`] a packet in between · [`interpreter`] the walk · [`tracker`] connections ·
//! [`rules`], [`traffic`] random worlds · [`compare`] the verdict · [`coverage`] what it is about ·
//! [`ovs`] a third opinion: Open vSwitch itself.
//!
//! `cargo xtask soak` compares as much as one wants; docs/correctness.md says what is compared when.
#![forbid(unsafe_code)]

pub mod checksum;
pub mod compare;
pub mod coverage;
pub mod field;
pub mod frame;
pub mod interpreter;
pub mod outer;
pub mod ovs;
pub mod rng;
pub mod rules;
pub mod state;
pub mod syntax;
pub mod tracker;
pub mod traffic;
