//! The pure switch: what Open vSwitch's datapath and its `ofproto` layer do, as a function
//! of packets, rules and time. No I/O, threads or clocks; no unsafe code but the prefetch
//! in `hints`.
//!
//! # A packet's way, in the order of the files
//! 1. [`packet`]: a frame in a buffer with headroom, from whoever received it.
//! 2. [`switch`]: a batch arrives; everything below happens in passes over it.
//! 3. [`parse`]: bytes to a [`key::FlowKey`]; [`tunnel`] takes the outer headers of what came
//!    by an uplink off first, [`offload`] notices checksums that nobody has computed yet.
//! 4. [`cache`]: the megaflows, by the frame's signature; then by the masked key. Only what is
//!    not found by its signature is parsed into a whole key.
//! 5. [`pipeline`], for what no cache knows: the key walks through the [`table`]s of the
//!    [`snapshot`], each searched by a [`classifier`], and what the rules' actions
//!    ([`flow`]) do becomes a [`program`].
//! 6. [`execute`]: the program on the bytes, copy by copy; out by a
//!    [`Sink`](switch::Sink). Copies for a controller wait in the switch
//!    ([`PacketIn`](switch::PacketIn)).
//!
//! A [`group`] gives a packet several ways or chooses one of them; a [`meter`] measures each
//! packet when its program is carried out, so that no cache decides about rates. Both are
//! part of the [`table`]s and change in the same transactions as the rules.
//!
//! Rules may name ranges of values and named [`set`]s, which change without them.
//!
//! A rule may send a packet through the [`conntrack`], after which it walks again, knowing
//! its connection; or to a controller, after whose answer it goes on
//! ([`Switch::resume`](switch::Switch::resume)).
//!
//! Packets may change what later ones find: they make rules (`learn`), which wait in the
//! switch until the owner of the tables takes them
//! ([`Tables::learn`](table::Tables::learn)), and tell where stations are, for the port
//! `NORMAL` ([`fdb`]).
//!
//! Beside that way: [`mod@drop`] names why a packet ended, [`stats`] counts, [`trace`] tells the
//! steps of a walk, [`text`] reads and prints rules as `ovs-ofctl` does, [`build`] makes
//! frames for tests and tools.
//!
//! # The mask law
//! A translation answers for more packets than the one it was made for: its mask says
//! which bits of the key it looked at, and *any packet that agrees in those bits gets the
//! same program*. A superfluous bit in the mask costs a cache entry; a missing one lets
//! packets through that a rule denies. Everything that reuses a translation rests on
//! this law, so it is kept by construction:
//!
//! - While a packet is translated its key is a [`key::Tracked`]. Reading a field is
//!   recording it; there is no other way to a value that a decision may depend on.
//! - What actions write follows from what was read, so reading it again adds nothing.
//! - Programs are relative to the packet as received, and an edit leaves out only what
//!   is known, by recorded bits, to be the same already.
//! - Caches compare all recorded bits. They may widen a mask, never narrow it; the bits
//!   they leave out are those that no received packet can have.
//! - An entry is for one epoch of the rules. A hit in another epoch translates again.
//!
//! Property tests hold the law against random rules and packets (`pipeline/tests.rs`), and
//! show that the caches change nothing but the time it takes (`switch/tests.rs`).
//!
//! # The other law
//! Conservation: each received packet is counted once, as forwarded or under the name of
//! a drop. See [`stats`].
#![deny(unsafe_code)]
pub mod account;
pub mod build;
pub mod cache;
pub mod checksum;
pub mod classifier;
pub mod conntrack;
pub mod crc32c;
pub mod drop;
pub mod execute;
pub mod fdb;
pub mod field;
pub mod flow;
pub mod group;
mod headers;
mod hints;
pub mod key;
pub mod meter;
pub mod offload;
pub mod packet;
pub mod parse;
pub mod pipeline;
pub mod port;
pub mod program;
pub mod quota;
pub mod set;
pub mod snapshot;
pub mod stats;
pub mod switch;
pub mod table;
#[cfg(test)]
mod testing;
pub mod text;
pub mod trace;
mod trie;
pub mod tunnel;
pub mod types;
pub mod underlay;
pub mod wire;
